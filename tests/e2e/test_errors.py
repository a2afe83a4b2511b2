"""Errors that the server makes travel back in a form a person can use: no ciphertext passed off as a value, and
nothing protected in a text or in the values shown beside it. Ciphertext that was tampered with is an error, never data."""

from __future__ import annotations

import re

import pytest
from bson import Binary
from pymongo import InsertOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, WriteError

from harness import is_envelope, metric
from samples import patient


@pytest.fixture(scope="module", autouse=True)
def unique(app):
    app.patients.drop()
    app.patients.create_index("nhs_number", unique=True)
    app.patients.create_index([("mrn", 1), ("ward", 1)], unique=True, sparse=True)


@pytest.fixture(autouse=True)
def empty(app, unique):
    app.patients.delete_many({})


def check_readable(details: dict, markers, field: str, value=None):
    """`details` is one error document: names the field, shows no ciphertext; `keyValue` is the application's or absent."""
    message = details["errmsg"]
    assert field in message
    assert not re.search(r"BinData\(|[0-9a-fA-F]{32,}", message), f"ciphertext in the text: {message}"
    assert markers.find(message.encode()) is None, f"a protected value in the text: {message}"
    assert details["keyPattern"][field] == 1
    # An error ends in logs: neither ciphertext nor the value itself, which the application knows anyway.
    assert details["keyValue"][field] == "<protected>"
    # The driver adds what it sent as `op`.
    assert value is None or value not in repr({key: part for key, part in details.items() if key != "op"})


def test_duplicate_insert(app, markers):
    document = patient(markers, 1)
    app.patients.insert_one(document)
    with pytest.raises(DuplicateKeyError) as caught:
        app.patients.insert_one(patient(markers, 2, nhs_number=document["nhs_number"]))
    assert caught.value.code == 11000
    check_readable(caught.value.details, markers, "nhs_number", document["nhs_number"])
    assert app.patients.count_documents({}) == 1


def test_duplicate_in_a_bulk_keeps_its_place(app, markers):
    a, b = patient(markers, 1), patient(markers, 2)
    with pytest.raises(BulkWriteError) as caught:
        app.patients.bulk_write([InsertOne(a), InsertOne(patient(markers, 3, nhs_number=a["nhs_number"])), InsertOne(b)], ordered=False)
    assert caught.value.details["nInserted"] == 2
    (error,) = caught.value.details["writeErrors"]
    assert (error["index"], error["code"]) == (1, 11000)
    check_readable(error, markers, "nhs_number", a["nhs_number"])


def test_duplicate_by_update_and_by_find_and_modify(app, markers):
    a, b = patient(markers, 1), patient(markers, 2)
    app.patients.insert_many([a, b])
    for operation in (app.patients.update_one, app.patients.find_one_and_update):
        with pytest.raises(DuplicateKeyError) as caught:
            operation({"_id": 2}, {"$set": {"nhs_number": a["nhs_number"]}})
        check_readable(caught.value.details, markers, "nhs_number", a["nhs_number"])


def test_duplicate_of_a_mixed_key_shows_the_ordinary_half(app, markers):
    document = patient(markers, 1)
    app.patients.insert_one(document)
    with pytest.raises(DuplicateKeyError) as caught:
        app.patients.insert_one(patient(markers, 2, mrn=document["mrn"]))
    check_readable(caught.value.details, markers, "mrn", document["mrn"])
    assert caught.value.details.get("keyValue", {}).get("ward", "A1") == "A1"


def test_duplicate_id_reads_as_always(app, markers):
    app.patients.insert_one(patient(markers, "same"))
    with pytest.raises(DuplicateKeyError) as caught:
        app.patients.insert_one(patient(markers, "same"))
    assert caught.value.details["keyValue"] == {"_id": "same"}


def test_failed_validator_shows_no_document(app, direct, markers):
    direct.create_collection("validated", validator={"$jsonSchema": {"properties": {"ward": {"bsonType": "string"}}}})
    try:
        with pytest.raises(WriteError) as caught:
            app.validated.insert_one({"ward": 5})
        assert caught.value.code == 121
    finally:
        direct.validated.drop()


def test_ordinary_server_errors_pass(app):
    app.patients.insert_one({"_id": 1, "ward": "A1"})
    with pytest.raises(OperationFailure) as caught:
        app.patients.update_one({"_id": 1}, {"$inc": {"ward": 1}})
    assert caught.value.code == 14 and not caught.value.details["errmsg"].startswith("fieldveil: ")
    with pytest.raises(OperationFailure) as caught:
        app.command("createIndexes", "patients", indexes=[{"key": {"ward": 17.5, "x": "nonsense"}, "name": "n"}])
    assert caught.value.code == 67


# --- every text of the server that prints values -------------------------------------------------------------------------

COLLATED = {"locale": "en", "strength": 2}


def geo(app, direct, v):
    direct.patients.create_index([("place", "2dsphere")])
    app.patients.insert_one(patient(v, 2, place="no place"))


def violated(app, direct, v):
    direct.command("collMod", "patients", validator={"nhs_number": {"$type": "string"}})
    app.patients.insert_one(patient(v, 2))


def violated_deeply(app, direct, v):
    direct.command("collMod", "patients", validator={"$jsonSchema": {"properties": {"address": {"properties": {"line1": {"maxLength": 3, "bsonType": "string"}}},
                   "contacts": {"items": {"properties": {"phone": {"enum": ["1"]}}}}, "ward": {"enum": ["none"]}}}})
    app.patients.insert_one(patient(v, 2))


# name → (operation, the server's code)
TRIGGERS = {
    "11000 insert": (lambda a, d, v: a.patients.insert_one(patient(v, 2, nhs_number=a.patients.find_one()["nhs_number"])), 11000),
    "11000 collation": (lambda a, d, v: (d.patients.create_index("ward", unique=True, collation=COLLATED), a.patients.insert_one(patient(v, 2, ward="a1"))), 11000),
    "11000 index build": (lambda a, d, v: (a.patients.insert_one(patient(v, 2, postcode=a.patients.find_one()["postcode"])), a.patients.create_index("postcode", unique=True)), 11000),
    "11000 merge": (lambda a, d, v: list(a.patients.aggregate([{"$set": {"_id": "copy"}}, {"$merge": {"into": "patients", "whenMatched": "fail"}}])), 11000),
    "121 query": (violated, 121),
    "121 schema": (violated_deeply, 121),
    "16755": (geo, 16755),
    "28": (lambda a, d, v: a.patients.update_one({}, {"$set": {"contacts.kind": "x"}}), 28),
    "241": (lambda a, d, v: list(a.patients.aggregate([{"$set": {"x": {"$toInt": "$ward"}}}])), 241),
    "14": (lambda a, d, v: a.patients.update_one({}, {"$inc": {"ward": 1}}), 14),
    "2 push": (lambda a, d, v: a.patients.update_one({}, {"$push": {"ward": 1}}), 2),
    "2 hint": (lambda a, d, v: list(a.patients.find({"nhs_number": v.text(), "contacts.phone": {"$in": [v.text()]}}).hint("none")), 2),
    "291": (lambda a, d, v: list(a.patients.find({"nhs_number": v.text(), "place": {"$near": [1, 2]}})), 291),
    "40": (lambda a, d, v: a.patients.find_one_and_update({}, {"$set": {"nhs_number": v.text(), "address": {"line1": v.text()}, "address.city": "x"}}), 40),
    "54": (lambda a, d, v: a.patients.update_one({"contacts.phone": v.text(), "contacts": None}, {"$set": {"x": 1}}, upsert=True), None),
    "66": (lambda a, d, v: a.patients.update_one({"nhs_number": a.patients.find_one()["nhs_number"]}, {"$set": {"_id": 9}}), 66),
    "86": (lambda a, d, v: (a.patients.create_index("mrn", name="same"), a.patients.create_index("postcode", name="same", partialFilterExpression={"ward": "x"})), 86),
    "40228": (lambda a, d, v: list(a.patients.aggregate([{"$replaceRoot": {"newRoot": "$ward"}}])), 40228),
    "explained": (lambda a, d, v: a.command("explain", {"find": "patients", "filter": {"nhs_number": v.text()}, "hint": "none"}), 2),
}


@pytest.fixture
def other_indexes(app, direct):
    yield
    direct.command("collMod", "patients", validator={})
    for name in direct.patients.index_information():
        if name not in ("_id_", "nhs_number_1", "mrn_1_ward_1"):
            direct.patients.drop_index(name)


@pytest.mark.parametrize("which", TRIGGERS)
def test_no_error_shows_a_protected_value(app, direct, markers, other_indexes, which):
    run, code = TRIGGERS[which]
    app.patients.insert_one(patient(markers, 1))
    with pytest.raises(OperationFailure) as caught:
        run(app, direct, markers)
    assert code is None or caught.value.code == code, caught.value
    details = caught.value.details
    assert "fieldveil: " not in str(details), "a refusal tests nothing here"
    assert markers.find(repr(details).encode()) is None, details
    assert "BinData(128" not in repr(details) and "Binary(b'\\x01" not in repr(details), details


# --- what somebody with write access to the database could do -----------------------------------------------------------


def flip(value: Binary, at: int) -> Binary:
    changed = bytearray(value)
    changed[at] ^= 1
    return Binary(bytes(changed), value.subtype)


TAMPERINGS = {
    "bit in the tag": lambda raw: {"notes": flip(raw["notes"], -1)},
    "bit in the body": lambda raw: {"notes": flip(raw["notes"], 32)},
    "bit in the key id": lambda raw: {"notes": flip(raw["notes"], 5)},
    "declared type": lambda raw: {"notes": flip(raw["notes"], 18)},
    "algorithm": lambda raw: {"notes": flip(raw["notes"], 1)},
    "version": lambda raw: {"notes": flip(raw["notes"], 0)},
    "cut short": lambda raw: {"notes": Binary(raw["notes"][:-1], 0x80)},
    "header only": lambda raw: {"notes": Binary(raw["notes"][:19], 0x80)},
    "empty": lambda raw: {"notes": Binary(b"", 0x80)},
    "deterministic body": lambda raw: {"nhs_number": flip(raw["nhs_number"], 25)},
    "inside an array": lambda raw: {"contacts": [{**raw["contacts"][0], "phone": flip(raw["contacts"][0]["phone"], -1)}]},
}


@pytest.mark.parametrize("which", TAMPERINGS)
def test_tampered_ciphertext_is_an_error(app, direct, markers, which):
    app.patients.insert_many([patient(markers, 1), patient(markers, 2)])
    raw = direct.patients.find_one({"_id": 1})
    direct.patients.update_one({"_id": 1}, {"$set": TAMPERINGS[which](raw)})
    with pytest.raises(OperationFailure) as caught:
        app.patients.find_one({"_id": 1})
    message = caught.value.details["errmsg"]
    assert message.startswith("fieldveil: ")
    assert next(iter(TAMPERINGS[which](raw))) in message, f"does not name the field: {message}"
    assert markers.find(str(caught.value.details).encode()) is None
    # A command that does not meet it goes on as before.
    assert app.patients.find_one({"_id": 2})["nhs_number"]
    assert app.patients.find_one({"_id": 1}, {"ward": 1}) == {"_id": 1, "ward": "A1"}


@pytest.mark.parametrize("source, target", [("mrn", "postcode"), ("nhs_number", "notes"), ("notes", "allergies")])
def test_ciphertext_moved_to_another_field_is_not_that_fields_value(app, direct, markers, source, target):
    """An envelope opens under its own domain; at the path of another rule it must not pass for that field's data."""
    app.patients.insert_one(patient(markers, 1))
    raw = direct.patients.find_one({"_id": 1})
    assert is_envelope(raw[source])
    direct.patients.update_one({"_id": 1}, {"$set": {target: raw[source]}})
    with pytest.raises(OperationFailure) as caught:
        app.patients.find_one({"_id": 1})
    assert caught.value.details["errmsg"].startswith("fieldveil: ")


def test_tampering_is_counted(proxy, app, direct, markers):
    app.patients.insert_one(patient(markers, 1))
    before = metric(proxy, "fieldveil_open_failures_total")
    raw = direct.patients.find_one({"_id": 1})
    direct.patients.update_one({"_id": 1}, {"$set": {"notes": flip(raw["notes"], -1)}})
    with pytest.raises(OperationFailure):
        app.patients.find_one({"_id": 1})
    assert metric(proxy, "fieldveil_open_failures_total") == before + 1


def test_a_forged_envelope_in_an_unprotected_collection_is_an_error_until_it_is_gone(app, direct):
    """It cannot be told from a value of ours whose key is lost; what cannot be ours at all passes."""
    forged, other = Binary(bytes([1, 2]) + b"k" * 16 + b"\x02" + b"v" * 40, 0x80), Binary(b"\x07" * 59, 0x80)
    app.elsewhere.insert_one({"_id": 1, "own": forged, "other": other, "a": 1})
    for read in (lambda: app.elsewhere.find_one({"_id": 1}), lambda: list(app.elsewhere.aggregate([{"$match": {}}]))):
        with pytest.raises(OperationFailure, match="fieldveil: field 'own': data key .* is not in the key vault"):
            read()
    assert app.elsewhere.find_one({"_id": 1}, {"own": 0}) == {"_id": 1, "other": other, "a": 1}
    assert app.elsewhere.delete_one({"_id": 1}).deleted_count == 1
    assert list(app.elsewhere.find()) == []
