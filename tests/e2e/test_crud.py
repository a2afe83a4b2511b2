"""Create, read, update, delete over the sample's `clinic.patients`: the application sees what MongoDB would have given
it, and what is stored are envelopes."""

from __future__ import annotations

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, ReplaceOne, ReturnDocument, UpdateMany, UpdateOne, WriteConcern
from pymongo.errors import OperationFailure, PyMongoError

import harness
from harness import is_envelope, wait_until
from samples import ids, patient

COLLECTIONS = {
    "patients": harness.PATIENTS,
    "codes": {"tags": '{ mode = "deterministic", type = "string" }', "count": '{ mode = "deterministic", type = "long" }'},
}
RANDOM_VALUES = {
    "string": "héllo \0 wörld", "empty string": "", "int32": 5, "int64": Int64(5), "double": 5.0, "nan": float("nan"),
    "decimal": Decimal128("1.00"), "bool": True, "object id": ObjectId(), "binary": Binary(b"\x01\x02", 0), "empty binary": Binary(b"", 0),
    "uuid": Binary(b"u" * 16, 4), "regex": Regex("a.*b", "i"), "code": Code("return 1"), "timestamp": Timestamp(5, 6),
    "document": {"a": {"b": [1, {"c": None}]}}, "empty document": {}, "array": [1, "two", [3]], "empty array": [],
}


def seen(collection, _id):
    return collection.find_one({"_id": _id})


def test_insert_and_find_give_back_the_document(twins, markers, name):
    document = patient(markers, name)
    twins.both(lambda c: c.insert_one(document).inserted_id)
    twins.both(lambda c: seen(c, name))


def test_stored_form_is_an_envelope_at_every_protected_path(twins, direct, markers, name):
    twins.sealed.insert_one(patient(markers, name))
    raw = seen(direct.patients, name)
    for field in ("nhs_number", "mrn", "postcode", "date_of_birth", "notes", "allergies"):
        assert is_envelope(raw[field]), f"{field}: {raw[field]!r}"
    assert is_envelope(raw["address"]["line1"]) and raw["address"]["city"] == "Leeds"
    assert [is_envelope(c["phone"]) for c in raw["contacts"]] == [True, True]
    assert [c["kind"] for c in raw["contacts"]] == ["mobile", "home"]
    assert (raw["ward"], raw["visits"]) == ("A1", 3)


def test_field_order_is_kept(twins, direct, markers, name):
    document = patient(markers, name)
    twins.sealed.insert_one(document)
    assert list(seen(direct.patients, name)) == list(document) == list(seen(twins.sealed, name))


def test_deterministic_repeats_and_random_does_not(twins, direct, markers):
    same = {"nhs_number": markers.text(), "notes": markers.text(), "address": {"line1": markers.text()}}
    twins.sealed.insert_many([{"_id": n, **same} for n in range(2)])
    one, two = direct.patients.find({"_id": {"$in": [0, 1]}}).sort("_id")
    assert one["nhs_number"] == two["nhs_number"]
    assert one["notes"] != two["notes"]
    assert one["address"]["line1"] != two["address"]["line1"]


def test_equal_values_in_different_fields_are_not_linkable(twins, direct, markers, name):
    value = markers.text()
    twins.sealed.insert_one({"_id": name, "nhs_number": value, "mrn": value, "postcode": value})
    raw = seen(direct.patients, name)
    assert len({raw["nhs_number"], raw["mrn"], raw["postcode"]}) == 3


@pytest.mark.parametrize("field", ["nhs_number", "notes", "contacts", "address", "allergies", "date_of_birth"])
def test_null_and_missing_stay_what_they_are(twins, direct, markers, field):
    twins.both(lambda c: len(c.insert_many([patient(markers, "null", **{field: None}), patient(markers, "missing", **{field: ...})]).inserted_ids))
    assert seen(direct.patients, "null")[field] is None
    assert field not in seen(direct.patients, "missing")
    twins.both(lambda c: ids(c.find({field: None})))
    twins.both(lambda c: ids(c.find({field: {"$exists": False}})))


def test_a_null_that_a_search_for_null_could_not_find_is_refused(twins, markers, name):
    """Without the proxy `{field: null}` finds it; an array that is sealed as one value is no array to the server."""
    hidden = patient(markers, name, allergies=[markers.text(), None])
    twins.plain.insert_one(dict(hidden))
    assert ids(twins.plain.find({"_id": name, "allergies": None})) == [name]
    for write in (
        lambda c: c.insert_one(dict(hidden)),
        lambda c: c.replace_one({"_id": name}, hidden, upsert=True),
        lambda c: c.update_one({"_id": name}, {"$set": {"allergies": [None]}}, upsert=True),
        lambda c: c.update_one({"_id": name}, [{"$set": {"allergies": [None]}}], upsert=True),
    ):
        with pytest.raises(PyMongoError, match="allergies"):
            write(twins.sealed)
    # A null that such a search does not look for stays what it is.
    kept = patient(markers, name, allergies=[[None], {"agent": None}])
    twins.sealed.insert_one(kept)
    assert twins.sealed.find_one({"_id": name})["allergies"] == [[None], {"agent": None}]


@pytest.mark.parametrize("kind", RANDOM_VALUES)
def test_random_field_keeps_every_type_byte_for_byte(app_client, db_name, direct, kind):
    collection = harness.raw_collection(app_client, db_name, "patients")
    document = RawBSONDocument(bson.encode({"_id": f"type {kind}", "before": 1, "notes": RANDOM_VALUES[kind], "after": 2}))
    collection.insert_one(document)
    assert collection.find_one({"_id": f"type {kind}"}).raw == document.raw
    assert is_envelope(seen(direct.patients, f"type {kind}")["notes"])


def test_scalars_in_a_deterministic_array_are_sealed_one_by_one(app, direct, oracle, markers, name):
    value = markers.text()
    for c in (app.codes, oracle.codes):
        c.insert_one({"_id": name, "tags": [value, markers.text()]})
    assert [is_envelope(t) for t in seen(direct.codes, name)["tags"]] == [True, True]
    assert seen(app.codes, name)["tags"][0] == value
    for change in ({"$addToSet": {"tags": value}}, {"$push": {"tags": {"$each": [value]}}}, {"$pull": {"tags": value}}):
        for c in (app.codes, oracle.codes):
            c.update_one({"tags": value}, change)
    assert len(seen(app.codes, name)["tags"]) == len(seen(oracle.codes, name)["tags"]) == 1


@pytest.mark.parametrize("value", [77, Int64(77), 77.0])
def test_equal_numbers_stay_equal(app, direct, name, value):
    app.codes.insert_one({"_id": f"{name} {value!r}", "count": value})
    assert all(app.codes.count_documents({"_id": f"{name} {value!r}", "count": n}) == 1 for n in (77, Int64(77), 77.0))
    app.codes.delete_many({"count": 77})


# --- update operators -------------------------------------------------------------------------------------------------

UPDATES = {
    "$set leaf": lambda v: {"$set": {"nhs_number": v("s")}},
    "$set null": lambda v: {"$set": {"nhs_number": None}},
    "$set date": lambda v: {"$set": {"date_of_birth": v("d")}},
    "$set nested leaf": lambda v: {"$set": {"address.line1": v("s")}},
    "$set parent": lambda v: {"$set": {"address": {"line1": v("s"), "city": "York"}}},
    "$set whole array": lambda v: {"$set": {"contacts": [{"kind": "work", "phone": v("s")}]}},
    "$set by index": lambda v: {"$set": {"contacts.0.phone": v("s")}},
    "$set element": lambda v: {"$set": {"contacts.1": {"kind": "work", "phone": v("s")}}},
    "$set every element": lambda v: {"$set": {"contacts.$[].phone": v("s")}},
    "$set random array": lambda v: {"$set": {"allergies": [v("s")]}},
    "$set unprotected": lambda v: {"$set": {"ward": "B2", "address.city": "York"}},
    "$unset leaf": lambda v: {"$unset": {"nhs_number": ""}},
    "$unset parent": lambda v: {"$unset": {"address": ""}},
    "$setOnInsert, no upsert": lambda v: {"$setOnInsert": {"nhs_number": v("s")}},
    "$push sub-document": lambda v: {"$push": {"contacts": {"kind": "work", "phone": v("s")}}},
    "$push $each": lambda v: {"$push": {"contacts": {"$each": [{"phone": v("s")}, {"phone": v("t")}], "$position": 0}}},
    "$push $slice": lambda v: {"$push": {"contacts": {"$each": [{"phone": v("s")}], "$slice": -2}}},
    "$pop": lambda v: {"$pop": {"contacts": 1}},
    "$inc unprotected": lambda v: {"$inc": {"visits": 1}, "$set": {"mrn": v("s")}},
    "$rename unprotected": lambda v: {"$rename": {"ward": "unit"}},
}


@pytest.mark.parametrize("change", UPDATES)
def test_update(twins, direct, markers, change):
    document = patient(markers, 1)
    twins.both(lambda c: c.insert_one(document).inserted_id)
    made = {}
    update = UPDATES[change](lambda kind: made.setdefault(kind, markers.date() if kind == "d" else markers.text()))
    twins.both(lambda c: c.update_one({"_id": 1}, update).modified_count)
    twins.both(lambda c: seen(c, 1))


def test_update_many(twins, markers):
    twins.both(lambda c: len(c.insert_many([{"_id": n, "ward": "A"} for n in range(5)]).inserted_ids))
    value = markers.text()
    twins.both(lambda c: c.update_many({"ward": "A"}, {"$set": {"postcode": value}}).modified_count)
    twins.both(lambda c: c.count_documents({"postcode": value}))


def test_positional_update_by_protected_element(twins, markers):
    document, value = patient(markers, 1), markers.text()
    twins.both(lambda c: c.insert_one(document).inserted_id)
    twins.both(lambda c: c.update_one({"contacts.phone": document["contacts"][1]["phone"]}, {"$set": {"contacts.$.phone": value}}).modified_count)
    twins.both(lambda c: seen(c, 1))


def test_array_filters_are_sealed(twins, markers):
    document, value = patient(markers, 1), markers.text()
    twins.both(lambda c: c.insert_one(document).inserted_id)
    twins.both(lambda c: c.update_one({"_id": 1}, {"$set": {"contacts.$[c].phone": value}},
                                      array_filters=[{"c.phone": document["contacts"][0]["phone"]}]).modified_count)
    twins.both(lambda c: seen(c, 1))


def test_pull_by_protected_element(twins, markers):
    document = patient(markers, 1)
    twins.both(lambda c: c.insert_one(document).inserted_id)
    twins.both(lambda c: c.update_one({"_id": 1}, {"$pull": {"contacts": {"phone": document["contacts"][0]["phone"]}}}).modified_count)
    twins.both(lambda c: seen(c, 1))


def test_replace(twins, direct, markers):
    twins.both(lambda c: c.insert_one(patient(markers, 1)).inserted_id)
    replacement = patient(markers, 1, ward="C3")
    twins.both(lambda c: c.replace_one({"_id": 1}, replacement).modified_count)
    twins.both(lambda c: seen(c, 1))
    assert is_envelope(seen(direct.patients, 1)["nhs_number"])


@pytest.mark.parametrize("filter_of", [lambda v: {"nhs_number": v}, lambda v: {"nhs_number": {"$eq": v}}, lambda v: {"nhs_number": {"$in": [v]}},
                                       lambda v: {"$and": [{"nhs_number": v}]}, lambda v: {"$or": [{"nhs_number": v}]}])
def test_upsert_takes_protected_values_from_the_filter(twins, direct, markers, filter_of):
    value = markers.text()
    twins.both(lambda c: c.update_one(filter_of(value), {"$setOnInsert": {"_id": 7, "mrn": "x"}}, upsert=True).upserted_id)
    twins.both(lambda c: seen(c, 7))
    assert is_envelope(seen(direct.patients, 7)["nhs_number"])
    assert twins.both(lambda c: c.update_one(filter_of(value), {"$set": {"ward": "Z"}}, upsert=True).matched_count) == 1


def test_find_and_modify(twins, markers):
    first = patient(markers, 1)
    twins.both(lambda c: c.insert_one(first).inserted_id)
    value, replacement = markers.text(), patient(markers, 1, ward="D")
    twins.both(lambda c: c.find_one_and_update({"nhs_number": first["nhs_number"]}, {"$set": {"nhs_number": value}}))
    twins.both(lambda c: c.find_one_and_update({"nhs_number": value}, {"$inc": {"visits": 1}}, return_document=ReturnDocument.AFTER))
    twins.both(lambda c: c.find_one_and_update({"nhs_number": value}, {"$inc": {"visits": 1}}, projection={"nhs_number": 1}))
    twins.both(lambda c: c.find_one_and_replace({"nhs_number": value}, replacement, return_document=ReturnDocument.AFTER))
    twins.both(lambda c: c.find_one_and_delete({"nhs_number": replacement["nhs_number"]}))
    assert twins.both(lambda c: c.find_one_and_delete({"nhs_number": replacement["nhs_number"]})) is None


def test_delete(twins, markers):
    documents = [patient(markers, n) for n in range(4)]
    documents[1]["postcode"] = documents[2]["postcode"]
    twins.both(lambda c: len(c.insert_many(documents).inserted_ids))
    assert twins.both(lambda c: c.delete_one({"nhs_number": documents[0]["nhs_number"]}).deleted_count) == 1
    assert twins.both(lambda c: c.delete_many({"postcode": documents[1]["postcode"]}).deleted_count) == 2
    twins.both(lambda c: ids(c.find()))


def test_bulk_write_of_all_kinds(twins, markers):
    a, b, value = patient(markers, 1), patient(markers, 2), markers.text()
    operations = [InsertOne(a), InsertOne(b), UpdateOne({"nhs_number": a["nhs_number"]}, {"$set": {"mrn": value}}),
                  UpdateMany({"mrn": {"$in": [value, b["mrn"]]}}, {"$set": {"ward": "Q"}}),
                  ReplaceOne({"nhs_number": b["nhs_number"]}, patient(markers, 2)), DeleteOne({"nhs_number": a["nhs_number"]}),
                  UpdateOne({"nhs_number": value}, {"$set": {"notes": value}, "$setOnInsert": {"_id": 3}}, upsert=True)]

    def run(c):
        r = c.bulk_write(operations)
        return r.inserted_count, r.matched_count, r.modified_count, r.deleted_count, r.upserted_count
    twins.both(run)
    twins.both(lambda c: list(c.find().sort("_id", 1)))


def test_count_and_distinct(twins, markers):
    documents = [patient(markers, n) for n in range(4)]
    documents[3]["nhs_number"] = documents[0]["nhs_number"]
    twins.both(lambda c: len(c.insert_many(documents).inserted_ids))
    twins.both(lambda c: c.count_documents({"nhs_number": documents[0]["nhs_number"]}))
    twins.both(lambda c: c.estimated_document_count())
    twins.both(lambda c: c.database.command("count", c.name, query={"nhs_number": documents[0]["nhs_number"]})["n"])
    for field in ("nhs_number", "contacts.phone", "date_of_birth", "ward"):
        twins.both(lambda c: sorted(c.distinct(field)))
    twins.both(lambda c: c.distinct("ward", {"nhs_number": documents[1]["nhs_number"]}))


PROJECTIONS = [{"nhs_number": 1}, {"nhs_number": 0}, {"contacts.phone": 1}, {"contacts": {"$slice": 1}}, {"address": 1, "_id": 0},
               {"contacts": {"$elemMatch": {"kind": "home"}}}, {"renamed": "$nhs_number"}, {"copy": {"inner": "$address"}}]


@pytest.mark.parametrize("projection", PROJECTIONS, ids=str)
def test_projection(twins, markers, projection):
    twins.both(lambda c: len(c.insert_many([patient(markers, n) for n in range(2)]).inserted_ids) and None)
    twins.both(lambda c: c.delete_many({}).deleted_count)
    document = patient(markers, 9)
    twins.both(lambda c: c.insert_one(document).inserted_id)
    twins.both(lambda c: c.find_one({"_id": 9}, projection))


# --- the same through unusual doors -----------------------------------------------------------------------------------


def test_documents_in_the_command_body_are_sealed(app, direct, markers, name):
    """Drivers send `documents` as a section of its own; a raw command carries the array in its body."""
    app.command({"insert": "patients", "documents": [patient(markers, name)]})
    assert is_envelope(seen(direct.patients, name)["nhs_number"])
    value = markers.text()
    app.command({"update": "patients", "updates": [{"q": {"_id": name}, "u": {"$set": {"nhs_number": value}}}]})
    assert is_envelope(seen(direct.patients, name)["nhs_number"])
    assert app.command({"delete": "patients", "deletes": [{"q": {"nhs_number": value}, "limit": 1}]})["n"] == 1


def test_unacknowledged_write_is_sealed(app, direct, markers, name):
    app.patients.with_options(write_concern=WriteConcern(w=0)).insert_one(patient(markers, name))
    wait_until("the unacknowledged insert", lambda: seen(direct.patients, name))
    assert is_envelope(seen(direct.patients, name)["nhs_number"])


def test_other_collections_pass_untouched(app, direct, name):
    document = {"_id": name, "nhs_number": "not protected here", "x": [1, {"y": 2.5}]}
    app.other.insert_one(document)
    assert seen(direct.other, name) == document == seen(app.other, name)


def test_ciphertext_surfacing_elsewhere_is_opened(app, direct, markers, name):
    """Envelopes describe themselves: one copied into another collection still reads as its value."""
    app.patients.insert_one(patient(markers, name))
    direct.copies.insert_one({"_id": name, "moved": seen(direct.patients, name)["nhs_number"]})
    assert seen(app.copies, name)["moved"] == seen(app.patients, name)["nhs_number"]


@pytest.mark.parametrize("change", [lambda v: {"$addToSet": {"tags": v.upper()}}, lambda v: {"$pullAll": {"tags": [v.upper()]}}])
def test_set_operators_on_strings_know_no_collation(app, oracle, markers, name, change):
    value = markers.text()
    for c in (app.codes, oracle.codes):
        c.insert_one({"_id": name, "tags": [value]})
    folded = {"locale": "en", "strength": 1}
    oracle.codes.update_one({"_id": name}, change(value), collation=folded)
    assert seen(oracle.codes, name)["tags"] in ([value], []), "the server compares under the collation"
    with pytest.raises(OperationFailure, match="collation") as refused:
        app.codes.update_one({"_id": name}, change(value), collation=folded)
    assert refused.value.code == 9 and seen(app.codes, name)["tags"] == [value]


def test_ciphertext_cannot_be_brought_in_by_the_filter_of_an_upsert(app, direct, markers, name):
    app.patients.insert_one(patient(markers, name))
    stolen = seen(direct.patients, name)["notes"]
    with pytest.raises(OperationFailure, match="ciphertext"):
        app.patients.update_one({"_id": f"{name} 2", "ward": stolen}, {"$set": {"visits": 1}}, upsert=True)
    with pytest.raises(OperationFailure, match="ciphertext"):
        app.patients.find_one_and_update({"_id": f"{name} 2", "$or": [{"ward": stolen}]}, {"$set": {"visits": 1}}, upsert=True)
    assert seen(direct.patients, f"{name} 2") is None


def test_a_binary_that_could_not_be_read_back_is_refused(app, name):
    with pytest.raises(OperationFailure, match="subtype 128"):
        app.patients.insert_one({"_id": name, "picture": Binary(b"\x02own format", 128)})
    app.patients.insert_one({"_id": name, "notes": Binary(b"\x02own format", 128), "picture": Binary(b"\x02own format", 129)})
    assert seen(app.patients, name)["notes"] == Binary(b"\x02own format", 128)
