"""What is stored about collections: validators, options of create and collMod, indexes of every type, time series. Each
is accepted where it means on ciphertext what it meant, refused with the way out where it does not."""

from __future__ import annotations

import datetime

import pytest
from pymongo import ASCENDING
from pymongo.errors import OperationFailure, WriteError

from harness import PATIENTS, is_envelope
from samples import patient

SERIES = {"device": '{ mode = "deterministic", type = "string" }', "reading": '{ mode = "random" }',
          "code": '{ mode = "deterministic", type = "string" }'}
COLLECTIONS = {"patients": PATIENTS, "validated": PATIENTS, "options": PATIENTS, "clustered": PATIENTS, "series": SERIES, "other_series": SERIES}


def refused(run, *words):
    with pytest.raises(OperationFailure) as caught:
        run()
    said = str(caught.value)
    assert "fieldveil: " in said, said
    for word in words:
        assert word in said, said


@pytest.fixture
def fresh(app):
    app.patients.drop()
    return app.patients


# --- validators ---------------------------------------------------------------------------------------------------------


def test_a_validator_of_plain_fields_holds(app, direct, markers):
    app.validated.drop()
    validator = {"$jsonSchema": {"bsonType": "object", "required": ["nhs_number", "ward"], "properties": {
        "ward": {"enum": ["A1", "B2"]}, "nhs_number": {"bsonType": "binData"},
        "contacts": {"bsonType": "array", "items": {"required": ["phone"], "properties": {"kind": {"bsonType": "string"}}}}}}}
    app.create_collection("validated", validator=validator)
    app.validated.insert_one(patient(markers, 1))
    for bad in (patient(markers, 2, ward="C3"), patient(markers, 2, nhs_number=...), patient(markers, 2, contacts=[{"kind": "home"}])):
        with pytest.raises(WriteError) as caught:
            app.validated.insert_one(bad)
        assert caught.value.code == 121
        assert markers.find(repr(caught.value.details).encode()) is None
    # Whoever writes past the proxy is stopped by the server itself.
    with pytest.raises(WriteError):
        direct.validated.insert_one({"_id": 3, "nhs_number": "not sealed", "ward": "A1"})
    app.command("collMod", "validated", validator={"ward": {"$in": ["A1"]}, "notes": {"$exists": True}})
    with pytest.raises(WriteError):
        app.validated.insert_one(patient(markers, 4, notes=...))
    app.validated.insert_one(patient(markers, 4))


def test_what_a_warning_logs_of_a_document_is_sealed(app, markers):
    """The server's log gets the whole document; the scan at the end looks there."""
    app.options.drop()
    app.create_collection("options", validator={"ward": "none"}, validationAction="warn")
    app.options.insert_one(patient(markers, 1))
    assert app.options.count_documents({}) == 1


@pytest.mark.parametrize("validator", [
    lambda v: {"$jsonSchema": {"properties": {"nhs_number": {"minLength": 10}}}},
    lambda v: {"$jsonSchema": {"properties": {"nhs_number": {"enum": [v]}}}},
    lambda v: {"$jsonSchema": {"properties": {"contacts": {"items": {"properties": {"phone": {"pattern": v}}}}}}},
    lambda v: {"nhs_number": v},
    lambda v: {"$expr": {"$eq": ["$nhs_number", v]}},
    lambda v: {"$nor": [{"address": {"line1": v}}]},
])
@pytest.mark.parametrize("command", ["create", "collMod"])
def test_a_validator_of_protected_values_is_refused(app, markers, command, validator):
    secret = markers.text()
    with pytest.raises(OperationFailure) as caught:
        app.command(command, "options", validator=validator(secret))
    said = str(caught.value)
    assert "fieldveil: " in said and secret not in said


# --- options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"capped": True, "size": 1 << 20, "max": 100},
    {"changeStreamPreAndPostImages": {"enabled": True}},
    {"clusteredIndex": {"key": {"_id": 1}, "unique": True}},
    {"storageEngine": {"wiredTiger": {}}},
    {"collation": {"locale": "simple"}},
    {"validationLevel": "moderate", "validationAction": "warn"},
    {"indexOptionDefaults": {"storageEngine": {"wiredTiger": {}}}},
])
def test_options_that_leave_values_alone_work(app, direct, markers, options):
    app.options.drop()
    app.create_collection("options", **options)
    document = patient(markers, 1)
    app.options.insert_one(document)
    assert app.options.find_one({"nhs_number": document["nhs_number"]}) == document
    assert is_envelope(direct.options.find_one()["notes"])
    app.options.update_one({"_id": 1}, {"$set": {"notes": markers.text()}})


def test_options_that_cannot_work_are_refused(app):
    app.options.drop()
    refused(lambda: app.create_collection("options", collation={"locale": "en", "strength": 2}), "collation")
    refused(lambda: app.command("create", "options", encryptedFields={"fields": []}), "encryptedFields")
    refused(lambda: app.command("create", "options", surprise=1), "surprise")


def test_pre_images_are_opened_in_a_change_stream(app, markers):
    app.options.drop()
    app.create_collection("options", changeStreamPreAndPostImages={"enabled": True})
    document = patient(markers, 1)
    app.options.insert_one(document)
    with app.options.watch(full_document_before_change="required") as stream:
        app.options.update_one({"_id": 1}, {"$set": {"ward": "Z9"}})
        event = stream.next()
    assert event["fullDocumentBeforeChange"] == document


# --- indexes ------------------------------------------------------------------------------------------------------------

WORKING = {
    "single": ("nhs_number", {}),
    "descending": ([("nhs_number", -1)], {}),
    "compound": ([("nhs_number", 1), ("ward", -1)], {}),
    "compound, plain first": ([("ward", 1), ("nhs_number", 1)], {}),
    "multikey": ("contacts.phone", {}),
    "hashed": ([("nhs_number", "hashed")], {}),
    "unique": ("nhs_number", {"unique": True}),
    "sparse": ("nhs_number", {"sparse": True}),
    "hidden": ("nhs_number", {"hidden": True}),
    "background": ("nhs_number", {"background": True}),
    "named, simple collation": ("nhs_number", {"name": "own", "collation": {"locale": "simple"}}),
    "partial by existence": ("nhs_number", {"partialFilterExpression": {"nhs_number": {"$exists": True}}}),
    "partial by a plain value": ("nhs_number", {"partialFilterExpression": {"visits": {"$gt": 1}}}),
    "wildcard": ([("$**", 1)], {}),
    "wildcard, projected": ([("$**", 1)], {"wildcardProjection": {"ward": 1, "nhs_number": 1}}),
    "wildcard below": ([("contacts.$**", 1)], {}),
}


@pytest.mark.parametrize("which", WORKING)
def test_an_index_on_ciphertext_is_used_and_finds_the_same(fresh, markers, which):
    key, options = WORKING[which]
    documents = [patient(markers, i) for i in range(3)]
    fresh.insert_many(documents)
    created = fresh.create_index(key, **options)
    field = "contacts.phone" if which in ("multikey", "wildcard below") else "nhs_number"
    value = documents[1]["contacts"][0]["phone"] if field == "contacts.phone" else documents[1]["nhs_number"]
    asked = {field: value, "ward": "A1", "visits": 3}
    assert [d["_id"] for d in fresh.find(asked)] == [1]
    if not options.get("hidden"):
        plan = fresh.find(asked).hint(created).explain()
        assert "IXSCAN" in repr(plan["queryPlanner"]["winningPlan"])
        assert markers.find(repr(plan).encode()) is None
    assert [d["_id"] for d in fresh.find({field: None})] == []


def test_a_ttl_text_geo_or_collated_index_beside_protected_fields_works(fresh, markers):
    fresh.insert_one(patient(markers, 1, expires=datetime.datetime(2200, 1, 1), remark="hello world", place=[1.0, 2.0], loc={"type": "Point", "coordinates": [1.0, 2.0]}))
    fresh.create_index("expires", expireAfterSeconds=60)
    fresh.create_index([("remark", "text")], default_language="english", weights={"remark": 3})
    fresh.create_index([("place", "2d")], bits=20)
    fresh.create_index([("loc", "2dsphere")])
    fresh.create_index("ward", collation={"locale": "en", "strength": 2})
    fresh.create_index([("loc", "2dsphere"), ("nhs_number", 1)])
    assert fresh.find_one({"place": {"$near": [1, 2]}})["_id"] == 1
    assert fresh.find_one({"ward": "a1"}, collation={"locale": "en", "strength": 2})["_id"] == 1


@pytest.mark.parametrize("key, options, words", [
    ("date_of_birth", {"expireAfterSeconds": 5}, ["date_of_birth", "expireAfterSeconds"]),
    ("notes", {}, ["notes", "random"]),
    ("notes", {"unique": True}, ["notes", "unique"]),
    ([("notes", "hashed")], {}, ["notes"]),
    ([("notes", "text")], {}, ["notes", "text"]),
    ([("$**", "text")], {}, ["text"]),
    ([("remark", "text")], {"weights": {"nhs_number": 2}}, ["nhs_number"]),
    ([("remark", "text")], {"language_override": "postcode"}, ["postcode", "language_override"]),
    ([("nhs_number", "2d")], {}, ["nhs_number", "2d"]),
    ([("address.line1", "2dsphere")], {}, ["address.line1", "2dsphere"]),
    ("nhs_number", {"collation": {"locale": "en", "strength": 2}}, ["nhs_number", "collation"]),
    ("contacts", {}, ["contacts"]),
    ([("ward", ASCENDING), ("allergies", ASCENDING)], {}, ["allergies"]),
    ("notes.author", {}, ["notes"]),
    ([("notes.$**", 1)], {}, ["notes"]),
    ("ward", {"partialFilterExpression": {"nhs_number": "somebody"}}, ["nhs_number", "partialFilterExpression"]),
    ("ward", {"partialFilterExpression": {"$and": [{"notes": {"$type": "string"}}]}}, ["notes"]),
    ([("nhs_number", "columnstore")], {}, ["columnstore"]),
])
def test_an_index_that_could_not_work_is_refused(fresh, key, options, words):
    refused(lambda: fresh.create_index(key, **options), *words)


def test_coll_mod_of_indexes(fresh, markers):
    fresh.insert_one(patient(markers, 1, expires=datetime.datetime(2200, 1, 1)))
    fresh.create_index("expires", expireAfterSeconds=60)
    fresh.create_index("nhs_number")
    app = fresh.database
    app.command("collMod", "patients", index={"keyPattern": {"expires": 1}, "expireAfterSeconds": 90})
    app.command("collMod", "patients", index={"name": "nhs_number_1", "hidden": True})
    refused(lambda: app.command("collMod", "patients", index={"keyPattern": {"nhs_number": 1}, "expireAfterSeconds": 90}), "nhs_number")
    refused(lambda: app.command("collMod", "patients", index={"name": "nhs_number_1", "expireAfterSeconds": 90}), "keyPattern")


def test_definitions_come_back_as_they_were_given(fresh):
    fresh.create_index("nhs_number", unique=True, partialFilterExpression={"ward": {"$exists": True}})
    stored = fresh.index_information()["nhs_number_1"]
    assert stored["unique"] and stored["partialFilterExpression"] == {"ward": {"$exists": True}}


def test_a_clustered_collection_expires_and_is_found(app, markers):
    app.clustered.drop()
    app.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True}, expireAfterSeconds=3600)
    document = patient(markers, datetime.datetime(2200, 1, 1))
    app.clustered.insert_one(document)
    assert app.clustered.find_one({"mrn": document["mrn"]}) == document


# --- time series --------------------------------------------------------------------------------------------------------


def test_a_time_series_grouped_by_a_deterministic_field_answers_as_on_plaintext(app, oracle, direct, markers):
    devices = [markers.text("d1"), markers.text("d2")]
    start = datetime.datetime(2024, 1, 1)
    documents = [{"_id": i, "at": start + datetime.timedelta(minutes=i), "device": devices[i % 2], "reading": markers.text(), "code": markers.text("c"), "n": i}
                 for i in range(60)]
    for db in (app, oracle):
        db.series.drop()
        db.create_collection("series", timeseries={"timeField": "at", "metaField": "device", "granularity": "minutes"})
        db.series.insert_many(documents)
    assert app.command("listCollections", filter={"name": "series"})["cursor"]["firstBatch"][0]["type"] == "timeseries"
    for asked in ({"device": devices[0]}, {"device": {"$in": devices}, "n": {"$lt": 7}}, {"code": documents[5]["code"]}, {"code": {"$ne": documents[5]["code"]}},
                  {"at": {"$gte": start + datetime.timedelta(minutes=50)}, "device": devices[1]}, {"device": "nobody"}, {}):
        expected = sorted(oracle.series.find(asked), key=lambda d: d["_id"])
        assert sorted(app.series.find(asked), key=lambda d: d["_id"]) == expected
        assert app.series.count_documents(asked) == len(expected)
    grouped = [{"$match": {"device": devices[0]}}, {"$group": {"_id": "$device", "n": {"$sum": "$n"}, "last": {"$max": "$at"}}}]
    assert list(app.series.aggregate(grouped)) == list(oracle.series.aggregate(grouped))
    assert sorted(app.series.distinct("device")) == sorted(devices)
    app.series.create_index([("device", 1), ("at", 1)])
    assert app.series.find_one({"device": devices[1], "n": 3})["reading"] == documents[3]["reading"]
    assert app.series.delete_many({"device": devices[0]}).deleted_count == 30
    assert app.series.update_many({"device": devices[1]}, {"$set": {"device": devices[0]}}).modified_count > 0
    assert app.series.count_documents({"device": devices[0]}) == 30
    with pytest.raises(OperationFailure) as caught:
        app.series.update_many({"code": documents[3]["code"]}, {"$set": {"code": markers.text()}})
    assert "fieldveil" not in str(caught.value) and markers.find(repr(caught.value.details).encode()) is None
    plan = app.series.find({"code": documents[3]["code"], "device": devices[1]}).explain()
    assert markers.find(repr(plan).encode()) is None
    assert b"reading" in direct["system.buckets.series"].find_one().__repr__().encode()
    refused(lambda: app["system.buckets.series"].find_one({"meta": devices[0]}), "buckets")


def test_a_time_series_by_what_the_server_must_understand_is_refused(app):
    app.other_series.drop()
    refused(lambda: app.create_collection("other_series", timeseries={"timeField": "code"}), "timeField", "code")
    refused(lambda: app.create_collection("other_series", timeseries={"timeField": "at", "metaField": "reading"}), "metaField", "reading")
