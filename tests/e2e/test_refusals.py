"""What cannot be done on ciphertext is refused, and the refusal can be acted on: it names the field and the operator,
says no value, and leaves the connection usable and the data unchanged."""

from __future__ import annotations

import bson
import pytest
from bson import Binary, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.collation import Collation
from pymongo.errors import OperationFailure

from harness import metric
from samples import patient

# The server's codes that make a driver try again: a refusal repeated is a refusal again.
RETRYABLE = {6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}

# name → (operation, field that the message must name, operator that it must name)
REFUSED = {
    # filters
    "$gt": (lambda c, v: c.find_one({"nhs_number": {"$gt": v}}), "nhs_number", "$gt"),
    "$gte": (lambda c, v: c.find_one({"nhs_number": {"$gte": v}}), "nhs_number", "$gte"),
    "$lt": (lambda c, v: c.find_one({"nhs_number": {"$lt": v}}), "nhs_number", "$lt"),
    "$lte date": (lambda c, v: c.find_one({"date_of_birth": {"$lte": v.date}}), "date_of_birth", "$lte"),
    "$regex": (lambda c, v: c.find_one({"nhs_number": {"$regex": "^" + v}}), "nhs_number", "$regex"),
    "regex literal": (lambda c, v: c.find_one({"nhs_number": bson.Regex(v)}), "nhs_number", "regex"),
    "regex in $in": (lambda c, v: c.find_one({"nhs_number": {"$in": [bson.Regex(v)]}}), "nhs_number", "$in"),
    "$not regex": (lambda c, v: c.find_one({"nhs_number": {"$not": bson.Regex(v)}}), "nhs_number", "$not"),
    "$mod": (lambda c, v: c.find_one({"nhs_number": {"$mod": [2, 0]}}), "nhs_number", "$mod"),
    "$type": (lambda c, v: c.find_one({"nhs_number": {"$type": "string"}}), "nhs_number", "$type"),
    "$size": (lambda c, v: c.find_one({"allergies": {"$size": 2}}), "allergies", "$size"),
    "$bitsAllSet": (lambda c, v: c.find_one({"nhs_number": {"$bitsAllSet": 1}}), "nhs_number", "$bitsAllSet"),
    "random equality": (lambda c, v: c.find_one({"notes": v}), "notes", "random"),
    "random $in": (lambda c, v: c.find_one({"notes": {"$in": [v]}}), "notes", "$in"),
    "random $ne": (lambda c, v: c.find_one({"notes": {"$ne": v}}), "notes", "$ne"),
    "random array element": (lambda c, v: c.find_one({"allergies": v}), "allergies", "random"),
    "random $elemMatch": (lambda c, v: c.find_one({"allergies": {"$elemMatch": {"$eq": v}}}), "allergies", "$elemMatch"),
    "below a random field": (lambda c, v: c.find_one({"notes.inner": v}), "notes", ""),
    "range in $elemMatch": (lambda c, v: c.find_one({"contacts": {"$elemMatch": {"phone": {"$gt": v}}}}), "contacts.phone", "$gt"),
    "range deep in logic": (lambda c, v: c.find_one({"$or": [{"ward": "x"}, {"$nor": [{"mrn": {"$lt": v}}]}]}), "mrn", "$lt"),
    "sub-document equality on a parent": (lambda c, v: c.find_one({"address": {"line1": v, "city": "x"}}), "address", ""),
    "array equality on a parent": (lambda c, v: c.find_one({"contacts": [{"phone": v}]}), "contacts", ""),
    "wrong type": (lambda c, v: c.find_one({"nhs_number": 5}), "nhs_number", ""),
    "$where": (lambda c, v: c.find_one({"$where": f"this.nhs_number == '{v}'"}), "", "$where"),
    "$text": (lambda c, v: c.find_one({"$text": {"$search": v}}), "", "$text"),
    "$jsonSchema": (lambda c, v: c.find_one({"$jsonSchema": {"properties": {"nhs_number": {"enum": [v]}}}}), "", "$jsonSchema"),
    "$expr $gt": (lambda c, v: c.find_one({"$expr": {"$gt": ["$nhs_number", v]}}), "nhs_number", "$gt"),
    "$expr $concat": (lambda c, v: c.find_one({"$expr": {"$eq": [{"$concat": ["$nhs_number", "x"]}, v]}}), "nhs_number", "$concat"),
    "$expr on random": (lambda c, v: c.find_one({"$expr": {"$eq": ["$notes", v]}}), "notes", ""),
    "collation": (lambda c, v: c.find_one({"nhs_number": v}, collation=Collation("en", strength=2)), "nhs_number", "collation"),
    "unknown operator": (lambda c, v: c.find_one({"nhs_number": {"$futureOperator": v}}), "nhs_number", "$futureOperator"),
    "unknown top-level operator": (lambda c, v: c.find_one({"$futureOperator": {"nhs_number": v}}), "", "$futureOperator"),
    "in delete": (lambda c, v: c.delete_many({"nhs_number": {"$gt": v}}), "nhs_number", "$gt"),
    "in update": (lambda c, v: c.update_one({"nhs_number": {"$gt": v}}, {"$set": {"ward": "x"}}), "nhs_number", "$gt"),
    "in count": (lambda c, v: c.count_documents({"nhs_number": {"$gt": v}}), "nhs_number", "$gt"),
    "in distinct": (lambda c, v: c.distinct("ward", {"nhs_number": {"$gt": v}}), "nhs_number", "$gt"),
    "in findAndModify": (lambda c, v: c.find_one_and_delete({"nhs_number": {"$gt": v}}), "nhs_number", "$gt"),
    "in arrayFilters": (lambda c, v: c.update_one({}, {"$set": {"contacts.$[c].kind": "x"}}, array_filters=[{"c.phone": {"$gt": v}}]),
                        "contacts.phone", "$gt"),
    "in explain": (lambda c, v: c.database.command("explain", {"find": c.name, "filter": {"nhs_number": {"$gt": v}}}), "nhs_number", "$gt"),
    # order
    "sort": (lambda c, v: list(c.find().sort("nhs_number", 1)), "nhs_number", "sort"),
    "sort through array": (lambda c, v: list(c.find().sort([("ward", 1), ("contacts.phone", 1)])), "contacts.phone", "sort"),
    "find min": (lambda c, v: list(c.find().min([("nhs_number", v)]).hint([("nhs_number", 1)])), "nhs_number", "min"),
    "sort in findAndModify": (lambda c, v: c.find_one_and_delete({"ward": "x"}, sort=[("mrn", 1)]), "mrn", "sort"),
    # updates
    "$inc": (lambda c, v: c.update_one({}, {"$inc": {"nhs_number": 1}}), "nhs_number", "$inc"),
    "$mul": (lambda c, v: c.update_one({}, {"$mul": {"nhs_number": 2}}), "nhs_number", "$mul"),
    "$min": (lambda c, v: c.update_one({}, {"$min": {"date_of_birth": v.date}}), "date_of_birth", "$min"),
    "$max": (lambda c, v: c.update_one({}, {"$max": {"nhs_number": v}}), "nhs_number", "$max"),
    "$bit": (lambda c, v: c.update_one({}, {"$bit": {"nhs_number": {"or": 1}}}), "nhs_number", "$bit"),
    "$currentDate": (lambda c, v: c.update_one({}, {"$currentDate": {"date_of_birth": True}}), "date_of_birth", "$currentDate"),
    "$rename from": (lambda c, v: c.update_one({}, {"$rename": {"nhs_number": "other"}}), "nhs_number", "$rename"),
    "$rename to": (lambda c, v: c.update_one({}, {"$rename": {"ward": "nhs_number"}}), "nhs_number", "$rename"),
    "$rename parent": (lambda c, v: c.update_one({}, {"$rename": {"address": "home"}}), "address", "$rename"),
    "$push on random": (lambda c, v: c.update_one({}, {"$push": {"allergies": v}}), "allergies", "$push"),
    "$pull on random": (lambda c, v: c.update_one({}, {"$pull": {"allergies": v}}), "allergies", "$pull"),
    "$set below random": (lambda c, v: c.update_one({}, {"$set": {"notes.inner": v}}), "notes", "$set"),
    "$set wrong type": (lambda c, v: c.update_one({}, {"$set": {"nhs_number": 5.5}}), "nhs_number", ""),
    "pipeline update to protected": (lambda c, v: c.update_one({}, [{"$set": {"nhs_number": {"$concat": ["$ward", v]}}}]), "nhs_number", "pipeline update"),
    "pipeline update by let": (lambda c, v: c.update_one({}, [{"$set": {"nhs_number": "$$n"}}], let={"n": v}), "nhs_number", "pipeline update"),
    "pipeline update moving": (lambda c, v: c.update_one({}, [{"$set": {"copy": "$nhs_number"}}]), "nhs_number", "pipeline update"),
    "pipeline update reading": (lambda c, v: c.update_one({}, [{"$set": {"copy": {"$concat": ["$nhs_number", "x"]}}}]), "nhs_number", "$concat"),
    "unknown update operator": (lambda c, v: c.update_one({}, {"$futureUpdate": {"nhs_number": v}}), "nhs_number", "$futureUpdate"),
    "in a bulk write": (lambda c, v: c.bulk_write([UpdateOne({"_id": 1}, {"$set": {"ward": "y"}}), UpdateOne({"nhs_number": {"$gt": v}}, {"$set": {"ward": "x"}})]),
                        "nhs_number", "$gt"),
    # inserts
    "insert wrong type": (lambda c, v: c.insert_one({"nhs_number": 5}), "nhs_number", ""),
    "insert sub-document at a scalar": (lambda c, v: c.insert_one({"nhs_number": {"x": v}}), "nhs_number", ""),
    "insert ciphertext 0x80": (lambda c, v: c.insert_one({"nhs_number": Binary(b"\x01\x01" + b"k" * 16 + b"\x02" + b"c" * 32, 0x80)}), "nhs_number", ""),
    "insert ciphertext in an unprotected field": (lambda c, v: c.insert_one({"ward": Binary(b"\x01\x01" + b"k" * 16 + b"\x02" + b"c" * 32, 0x80)}), "ward", ""),
    "insert CSFLE ciphertext": (lambda c, v: c.insert_one({"notes": Binary(b"\x01" + b"k" * 16 + b"\x02" + b"c" * 64, 6)}), "notes", ""),
    "insert dotted key": (lambda c, v: c.insert_one({"address.line1": v}), "address.line1", ""),
    "insert empty timestamp": (lambda c, v: c.insert_one({"notes": Timestamp(0, 0)}), "notes", ""),
    "insert min key": (lambda c, v: c.insert_one({"notes": bson.MinKey()}), "notes", ""),
    "insert duplicate key": (lambda c, v: c.insert_one(twice("nhs_number", v)), "nhs_number", ""),
    # indexes and collections
    "text index": (lambda c, v: c.create_index([("notes", "text")]), "notes", "text"),
    "unique random index": (lambda c, v: c.create_index("notes", unique=True), "notes", "unique"),
    "TTL index": (lambda c, v: c.create_index("date_of_birth", expireAfterSeconds=5), "date_of_birth", "expireAfterSeconds"),
    "2dsphere index": (lambda c, v: c.create_index([("address.line1", "2dsphere")]), "address.line1", "2dsphere"),
    "partial index": (lambda c, v: c.create_index("ward", partialFilterExpression={"nhs_number": v}), "nhs_number", "partialFilterExpression"),
    # aggregation
    "$match range": (lambda c, v: list(c.aggregate([{"$match": {"nhs_number": {"$gt": v}}}])), "nhs_number", "$gt"),
    "$sort": (lambda c, v: list(c.aggregate([{"$sort": {"nhs_number": 1}}])), "nhs_number", "$sort"),
    "$sort after rename": (lambda c, v: list(c.aggregate([{"$project": {"x": "$nhs_number"}}, {"$sort": {"x": 1}}])), "nhs_number", "$sort"),
    "$toUpper": (lambda c, v: list(c.aggregate([{"$project": {"x": {"$toUpper": "$nhs_number"}}}])), "nhs_number", "$toUpper"),
    "$sum": (lambda c, v: list(c.aggregate([{"$group": {"_id": None, "x": {"$sum": "$nhs_number"}}}])), "nhs_number", "$sum"),
    "$max accumulator": (lambda c, v: list(c.aggregate([{"$group": {"_id": None, "x": {"$max": "$date_of_birth"}}}])), "date_of_birth", "$max"),
    "$group by random": (lambda c, v: list(c.aggregate([{"$group": {"_id": "$notes"}}])), "notes", "$group"),
    "$function": (lambda c, v: list(c.aggregate([{"$project": {"x": {"$function": {"body": "f", "args": ["$nhs_number"], "lang": "js"}}}}])), "", "$function"),
    "unknown stage": (lambda c, v: list(c.aggregate([{"$futureStage": {"x": v}}])), "", "$futureStage"),
    "unknown expression": (lambda c, v: list(c.aggregate([{"$project": {"x": {"$futureExpr": "$nhs_number"}}}])), "nhs_number", "$futureExpr"),
    "mapReduce": (lambda c, v: c.database.command("mapReduce", c.name, map="function(){emit(this.nhs_number,1)}", reduce="function(){}", out={"inline": 1}), "", "mapReduce"),
    "projection expression": (lambda c, v: c.find_one({}, {"x": {"$toUpper": "$nhs_number"}}), "nhs_number", "$toUpper"),
    # commands that would carry data past the rules
    "unknown command": (lambda c, v: c.database.command("futureCommand", c.name, payload=v), "", "futureCommand"),
    "renameCollection": (lambda c, v: c.rename("elsewhere"), "", "renameCollection"),
    "validator": (lambda c, v: c.database.command("collMod", c.name, validator={"nhs_number": {"$gt": v}}), "nhs_number", "$gt"),
}


class Value(str):
    """A marker string with a marker date beside it."""

    date = None


def twice(key: str, value: str) -> RawBSONDocument:
    one = bson.encode({key: value})[4:-1]
    return RawBSONDocument((len(one) * 2 + 5).to_bytes(4, "little") + one + one + b"\0")


@pytest.fixture(scope="module")
def value(markers):
    made = Value(markers.text())
    made.date = markers.date()
    return made


@pytest.fixture(scope="module")
def stored(app, direct, markers):
    app.patients.delete_many({})
    app.patients.insert_many([patient(markers, n) for n in range(2)])
    return list(direct.patients.find().sort("_id", 1))


@pytest.mark.parametrize("which", REFUSED)
def test_refuses(app, direct, stored, value, markers, which):
    operation, field, operator = REFUSED[which]
    with pytest.raises(OperationFailure) as caught:
        operation(app.patients, value)
    message = caught.value.details["errmsg"]
    assert message.startswith("fieldveil: "), message
    assert field in message, f"does not name the field {field}: {message}"
    assert operator in message, f"does not name {operator}: {message}"
    assert markers.find(str(caught.value.details).encode()) is None, f"holds a value: {caught.value.details}"
    assert caught.value.code and caught.value.code not in RETRYABLE
    assert not any(caught.value.has_error_label(label) for label in ("RetryableWriteError", "TransientTransactionError"))
    # The connection works on, and nothing was changed: a batch with a refused statement is refused whole.
    assert list(direct.patients.find().sort("_id", 1)) == stored
    assert app.patients.find_one({"_id": 1})["ward"] == "A1"


def test_says_the_way_out(app, stored, value):
    with pytest.raises(OperationFailure) as caught:
        app.patients.find_one({"nhs_number": {"$gt": value}})
    sentence = caught.value.details["errmsg"].removeprefix("fieldveil: ")
    assert len(sentence.split()) >= 10, f"too short to tell a way out: {sentence}"


def test_counts_refusals(proxy, app, stored, value):
    before = metric(proxy, "fieldveil_refusals_total")
    with pytest.raises(OperationFailure):
        app.patients.find_one({"nhs_number": {"$gt": value}})
    assert metric(proxy, "fieldveil_refusals_total") == before + 1


def test_unacknowledged_refused_write_is_dropped(app, direct, stored, value):
    """There is no reply that could say so: the write must not happen."""
    from pymongo import WriteConcern
    app.patients.with_options(write_concern=WriteConcern(w=0)).update_many({}, {"$max": {"nhs_number": value}})
    assert app.patients.find_one({"_id": 1})["ward"] == "A1"
    assert list(direct.patients.find().sort("_id", 1)) == stored


@pytest.mark.parametrize("command", ["insert", "find", "aggregate"])
def test_comment_does_not_carry_values_in_refusals(app, stored, value, markers, command):
    body = {"insert": {"insert": "patients", "documents": [{"nhs_number": 5}]},
            "find": {"find": "patients", "filter": {"notes": value}},
            "aggregate": {"aggregate": "patients", "pipeline": [{"$sort": {"mrn": 1}}], "cursor": {}}}[command]
    with pytest.raises(OperationFailure) as caught:
        app.command({**body, "comment": value})
    assert markers.find(str(caught.value.details).encode()) is None
