"""Updates that are pipelines leave what they leave on plaintext, sealed where a rule says so, or are refused."""

from __future__ import annotations

import pytest
from bson import Binary
from pymongo import ReturnDocument, UpdateMany, UpdateOne
from pymongo.errors import OperationFailure

import harness
from harness import is_envelope
from samples import patient

# (update, made from the documents and fresh markers). All of them have to work.
SUPPORTED = {
    "constant": lambda d, m: [{"$set": {"nhs_number": m.text(), "ward": "B2"}}],
    "constant in an enclosing document": lambda d, m: [{"$set": {"address": {"line1": m.text(), "city": "York"}}}],
    "constant through an array": lambda d, m: [{"$set": {"contacts.phone": m.text()}}],
    "literal document": lambda d, m: [{"$set": {"notes": {"$literal": {"text": m.text(), "n": 5}}}}],
    "literal array": lambda d, m: [{"$set": {"allergies": [m.text(), m.text()]}}],
    "array of contacts": lambda d, m: [{"$set": {"contacts": [{"kind": "work", "phone": m.text()}]}}],
    "empty array": lambda d, m: [{"$set": {"contacts": []}}],
    "null": lambda d, m: [{"$set": {"nhs_number": None}}],
    "by condition": lambda d, m: [{"$set": {"mrn": {"$cond": [{"$eq": ["$mrn", d[0]["mrn"]]}, m.text(), "$mrn"]}}}],
    "by switch": lambda d, m: [{"$set": {"notes": {"$switch": {"branches": [{"case": {"$gt": ["$visits", 1]}, "then": m.text()}], "default": "$notes"}}}}],
    "switch that removes": lambda d, m: [{"$set": {"notes": {"$switch": {"branches": [{"case": {"$gt": ["$visits", 1]}, "then": m.text()}], "default": "$$REMOVE"}}}}],
    "where it was missing": lambda d, m: [{"$set": {"extra": 1, "postcode": {"$ifNull": ["$postcode", m.text()]}}}],
    "unset": lambda d, m: [{"$unset": ["nhs_number", "contacts.phone", "address.line1"]}],
    "project": lambda d, m: [{"$project": {"nhs_number": 1, "contacts.phone": 1, "visits": {"$add": ["$visits", 1]}}}],
    "project away": lambda d, m: [{"$project": {"notes": 0, "contacts": 0}}],
    "replaceWith": lambda d, m: [{"$replaceWith": {"_id": "$_id", "nhs_number": "$nhs_number", "mrn": m.text(), "was": "$ward", "address": {"city": "$address.city"}}}],
    "replaceRoot with mergeObjects": lambda d, m: [{"$replaceRoot": {"newRoot": {"$mergeObjects": ["$$ROOT", {"notes": m.text(), "ward": "C3"}]}}}],
    "defaults under what is there": lambda d, m: [{"$replaceWith": {"$mergeObjects": [{"postcode": m.text(), "flag": True}, "$$ROOT"]}}],
    "map over contacts": lambda d, m: [{"$set": {"contacts": {"$map": {"input": "$contacts", "as": "c", "in": {"$mergeObjects": ["$$c", {"checked": True}]}}}}}],
    "filter contacts": lambda d, m: [{"$set": {"contacts": {"$filter": {"input": "$contacts", "as": "c", "cond": {"$ne": ["$$c.phone", d[0]["contacts"][0]["phone"]]}}}}}],
    "append a contact": lambda d, m: [{"$set": {"contacts": {"$concatArrays": ["$contacts", [{"kind": "new", "phone": m.text()}]]}}}],
    "reverse contacts": lambda d, m: [{"$set": {"contacts": {"$reverseArray": "$contacts"}}}],
    "compare": lambda d, m: [{"$set": {"first": {"$eq": ["$nhs_number", d[0]["nhs_number"]]}, "known": {"$in": ["$mrn", [d[0]["mrn"], d[2]["mrn"]]]}}}],
    "by way of another field": lambda d, m: [{"$set": {"tmp": "$nhs_number"}}, {"$set": {"same": {"$eq": ["$tmp", d[1]["nhs_number"]]}}}, {"$unset": "tmp"}],
    "plain fields": lambda d, m: [{"$set": {"visits": {"$add": ["$visits", 1]}, "seen": {"$concat": ["$ward", "!"]}}}],
}


@pytest.fixture
def documents(twins, markers):
    made = [patient(markers, n, visits=n) for n in range(4)]
    del made[3]["postcode"], made[3]["contacts"]
    made[2]["address"] = None
    twins.both(lambda c: len(c.insert_many(made).inserted_ids))
    return made


def everything(collection):
    return list(collection.find().sort("_id"))


def sealed_or_null(value) -> bool:
    return value is None or is_envelope(value)


def assert_sealed(document) -> None:
    for field in ("nhs_number", "mrn", "postcode", "date_of_birth", "notes", "allergies"):
        assert sealed_or_null(document.get(field)), field
    assert sealed_or_null((document.get("address") or {}).get("line1"))
    contacts = document.get("contacts") or []
    assert all(sealed_or_null(c.get("phone")) for c in (contacts if isinstance(contacts, list) else [contacts]))


@pytest.mark.parametrize("which", SUPPORTED)
def test_supported(twins, direct, markers, documents, which):
    update = SUPPORTED[which](documents, markers)
    outcome = twins.both(lambda c: (r := c.update_many({}, update)) and (r.matched_count, r.modified_count) if "map" not in which else c.update_many({}, update).matched_count)
    assert outcome
    twins.both(everything)
    stored = list(direct.patients.find())
    assert len(stored) == 4
    for document in stored:
        assert_sealed(document)
        assert not any(isinstance(v, Binary) for k, v in document.items() if k not in harness.PATIENTS), "ciphertext in an unprotected field"


def test_find_and_modify_and_bulk(twins, direct, markers, documents):
    number = markers.text()
    twins.both(lambda c: c.find_one_and_update({"nhs_number": documents[0]["nhs_number"]}, [{"$set": {"nhs_number": number, "n": {"$add": ["$visits", 1]}}}],
                                               return_document=ReturnDocument.AFTER, projection={"nhs_number": 1, "n": 1, "notes": 1}))
    notes = markers.text()
    twins.both(lambda c: c.bulk_write([UpdateOne({"mrn": documents[1]["mrn"]}, [{"$set": {"notes": notes}}]),
                                       UpdateMany({"nhs_number": {"$ne": number}}, [{"$unset": "allergies"}])]).matched_count)
    twins.both(everything)
    for document in direct.patients.find():
        assert_sealed(document)


def test_upsert(twins, direct, markers, documents):
    number, notes = markers.text(), markers.text()
    twins.both(lambda c: c.update_one({"_id": 77, "nhs_number": number}, [{"$set": {"notes": notes, "has": {"$eq": ["$nhs_number", number]}}}], upsert=True).upserted_id)
    found = twins.both(lambda c: c.find_one({"nhs_number": number}))
    assert found["has"] is True and found["notes"] == notes
    assert_sealed(direct.patients.find_one({"_id": 77}))


def test_variables_reach_unprotected_fields_only(twins, markers, documents):
    twins.both(lambda c: c.update_many({}, [{"$set": {"ward": "$$w"}}], let={"w": "Z9"}).modified_count)
    twins.both(everything)
    with pytest.raises(OperationFailure, match="fieldveil: pipeline update.*'mrn'") as refused:
        twins.sealed.update_many({}, [{"$set": {"mrn": "$$w"}}], let={"w": markers.text()})
    assert markers.find(str(refused.value.details).encode()) is None


def test_merge_whenMatched_seals_by_the_targets_rules(twins, direct, markers, documents):
    notes = markers.text()
    pipeline = [{"$match": {"_id": {"$lt": 2}}}, {"$project": {"visits": 1}},
                {"$merge": {"into": "patients", "whenMatched": [{"$set": {"notes": notes, "visits": {"$add": ["$visits", "$$new.visits"]}}}], "whenNotMatched": "discard"}}]
    # Documents without the fields would be inserted plain, were they not discarded: the proxy need not see that.
    try:
        twins.sealed.aggregate(pipeline)
    except OperationFailure as e:
        assert e.details["errmsg"].startswith("fieldveil: ")
    else:
        twins.plain.aggregate(pipeline)
        twins.both(everything)
    for document in direct.patients.find():
        assert_sealed(document)
