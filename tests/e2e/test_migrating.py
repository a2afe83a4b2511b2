"""While a field is `migrating`, documents of both forms live side by side and the application cannot tell."""

from __future__ import annotations

import re

import pytest
from pymongo.errors import OperationFailure

import harness
from harness import is_envelope, metric, wait_until
from samples import ids, patient

LEAVES_PLAINTEXT = "documents from before the migration are plaintext by definition"


def migrating(rule: str) -> str:
    return re.sub(r"\s*}$", ', state = "migrating" }', rule)


COLLECTIONS = {
    "patients": {path: migrating(rule) for path, rule in harness.PATIENTS.items()},
    "enforced": harness.PATIENTS,
}


@pytest.fixture
def mixed(app, direct, oracle, markers):
    """Documents 0–2 from before, written past the proxy; 3–5 written through it. 2 and 3 are the same postcode."""
    documents = [patient(markers, n, ward="old" if n < 3 else "new") for n in range(6)]
    documents[3]["postcode"] = documents[2]["postcode"]
    direct.patients.delete_many({})
    oracle.patients.delete_many({})
    oracle.patients.insert_many(documents)
    direct.patients.insert_many(documents[:3])
    app.patients.insert_many(documents[3:])
    return documents


def test_both_forms_read_alike(app, direct, mixed):
    assert not is_envelope(direct.patients.find_one({"_id": 0})["nhs_number"])
    assert is_envelope(direct.patients.find_one({"_id": 3})["nhs_number"])
    assert list(app.patients.find().sort("_id", 1)) == mixed


FILTERS = {
    "old by equality": lambda d: {"nhs_number": d[0]["nhs_number"]},
    "new by equality": lambda d: {"nhs_number": d[4]["nhs_number"]},
    "both by equality": lambda d: {"postcode": d[2]["postcode"]},
    "$in over both": lambda d: {"nhs_number": {"$in": [d[1]["nhs_number"], d[5]["nhs_number"]]}},
    "$ne of old": lambda d: {"nhs_number": {"$ne": d[0]["nhs_number"]}},
    "$ne of both": lambda d: {"postcode": {"$ne": d[2]["postcode"]}},
    "$nin over both": lambda d: {"nhs_number": {"$nin": [d[1]["nhs_number"], d[5]["nhs_number"]]}},
    "$not": lambda d: {"postcode": {"$not": {"$eq": d[2]["postcode"]}}},
    "date": lambda d: {"date_of_birth": {"$in": [d[0]["date_of_birth"], d[3]["date_of_birth"]]}},
    "through an array": lambda d: {"contacts.phone": {"$in": [d[0]["contacts"][0]["phone"], d[3]["contacts"][1]["phone"]]}},
    "$elemMatch": lambda d: {"contacts": {"$elemMatch": {"phone": d[1]["contacts"][1]["phone"], "kind": "home"}}},
    "null": lambda d: {"nhs_number": None},
    "$exists": lambda d: {"notes": {"$exists": True}},
}


@pytest.mark.parametrize("which", FILTERS)
def test_filters_find_both(app, oracle, mixed, which):
    query = FILTERS[which](mixed)
    expected = ids(oracle.patients.find(query))
    assert ids(app.patients.find(query)) == expected
    assert app.patients.count_documents(query) == len(expected)


def test_distinct_shows_one_value_once(app, oracle, mixed):
    assert sorted(app.patients.distinct("postcode")) == sorted(oracle.patients.distinct("postcode"))


def test_group_is_right_or_refused(app, oracle, mixed):
    """One postcode stands in the store in two forms: two groups would be silently wrong."""
    pipeline = [{"$group": {"_id": "$postcode", "n": {"$sum": 1}}}]
    try:
        actual = sorted(app.patients.aggregate(pipeline), key=repr)
    except OperationFailure as e:
        assert e.details["errmsg"].startswith("fieldveil: ") and "postcode" in e.details["errmsg"]
    else:
        assert actual == sorted(oracle.patients.aggregate(pipeline), key=repr)


def test_writes_seal_what_they_touch(app, direct, mixed, markers):
    value = markers.text()
    assert app.patients.update_one({"nhs_number": mixed[0]["nhs_number"]}, {"$set": {"nhs_number": value}}).modified_count == 1
    assert is_envelope(direct.patients.find_one({"_id": 0})["nhs_number"])
    assert app.patients.find_one({"nhs_number": value})["_id"] == 0


def test_upsert_by_a_value_that_exists_in_the_old_form_updates_it(app, direct, mixed):
    result = app.patients.update_one({"nhs_number": mixed[1]["nhs_number"]}, {"$set": {"ward": "seen"}}, upsert=True)
    assert (result.matched_count, result.upserted_id) == (1, None)


def test_upsert_of_a_new_value_stores_it_sealed_once(app, direct, markers):
    value = markers.text()
    result = app.patients.update_one({"nhs_number": value}, {"$set": {"ward": "new"}}, upsert=True)
    assert is_envelope(direct.patients.find_one({"_id": result.upserted_id})["nhs_number"])
    assert app.patients.count_documents({"nhs_number": value}) == 1


def test_pull_and_array_filters_meet_both(app, mixed):
    for n in (0, 3):
        phone = mixed[n]["contacts"][0]["phone"]
        app.patients.update_one({"_id": n}, {"$set": {"contacts.$[c].kind": "changed"}}, array_filters=[{"c.phone": phone}])
        assert app.patients.find_one({"_id": n})["contacts"][0]["kind"] == "changed"
        app.patients.update_one({"_id": n}, {"$pull": {"contacts": {"phone": phone}}})
        assert len(app.patients.find_one({"_id": n})["contacts"]) == 1


def test_enforced_reports_plaintext_it_meets(proxy, app, direct, markers):
    """In the state after, the same old document is worth an alert."""
    direct.enforced.insert_one(patient(markers, "forgotten"))
    before = metric(proxy, "fieldveil_plaintext_found_total")
    try:
        app.enforced.find_one({"_id": "forgotten"})
    except OperationFailure as e:
        assert e.details["errmsg"].startswith("fieldveil: ")
    wait_until("the plaintext to be counted", lambda: metric(proxy, "fieldveil_plaintext_found_total") > before, 5)


def test_nothing_of_it_in_the_proxys_own_files(proxy, mixed, markers):
    for path in (proxy.log, proxy.audit):
        assert markers.find(path.read_bytes()) is None, path
    assert markers.find(proxy.metrics().encode()) is None


@pytest.mark.parametrize("which, run", [
    ("duplicate", lambda a, d, m: (d.patients.create_index([("mrn", 1), ("n", 1)], unique=True), d.patients.insert_one({"_id": 77, "mrn": m[0]["mrn"], "n": 1}),
                                   a.patients.update_one({"_id": 0}, {"$set": {"n": 1}}))),
    ("element", lambda a, d, m: a.patients.update_one({"_id": 0}, {"$set": {"contacts.kind": 1}})),
    ("filter", lambda a, d, m: list(a.patients.find({"mrn": m[0]["mrn"]}).hint("none"))),
    ("geometry", lambda a, d, m: (d.patients.create_index([("place", "2dsphere")]), a.patients.update_one({"_id": 0}, {"$set": {"place": "nowhere"}}))),
    ("validator", lambda a, d, m: (d.command("collMod", "patients", validator={"$nor": [{"mrn": {"$exists": True}}], "postcode": {"$type": "int"}}), a.patients.update_one({"_id": 0}, {"$set": {"x": 1}}))),
])
def test_no_error_shows_what_is_still_plaintext(app, direct, mixed, markers, which, run):
    try:
        with pytest.raises(OperationFailure) as caught:
            run(app, direct, mixed)
        assert "fieldveil: " not in str(caught.value.details)
        assert markers.find(repr(caught.value.details).encode()) is None, caught.value.details
    finally:
        direct.command("collMod", "patients", validator={})
        direct.patients.drop_indexes()
