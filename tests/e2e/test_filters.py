"""Filters on protected fields mean what they mean on plaintext: each is compared with the same filter on a twin."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

from samples import ids, patient

FILTERS = {
    "equality": lambda d: {"nhs_number": d[0]["nhs_number"]},
    "$eq": lambda d: {"nhs_number": {"$eq": d[0]["nhs_number"]}},
    "no match": lambda d: {"nhs_number": "nobody"},
    "date": lambda d: {"date_of_birth": d[2]["date_of_birth"]},
    "$in": lambda d: {"nhs_number": {"$in": [d[0]["nhs_number"], d[2]["nhs_number"], "nobody"]}},
    "$in empty": lambda d: {"nhs_number": {"$in": []}},
    "$in with null": lambda d: {"nhs_number": {"$in": [d[0]["nhs_number"], None]}},
    "$ne": lambda d: {"nhs_number": {"$ne": d[0]["nhs_number"]}},
    "$ne null": lambda d: {"nhs_number": {"$ne": None}},
    "$nin": lambda d: {"nhs_number": {"$nin": [d[0]["nhs_number"], d[1]["nhs_number"]]}},
    "$nin with null": lambda d: {"nhs_number": {"$nin": [d[0]["nhs_number"], None]}},
    "$not $eq": lambda d: {"nhs_number": {"$not": {"$eq": d[0]["nhs_number"]}}},
    "$not $in": lambda d: {"nhs_number": {"$not": {"$in": [d[0]["nhs_number"]]}}},
    "null": lambda d: {"nhs_number": None},
    "$exists true": lambda d: {"nhs_number": {"$exists": True}},
    "$exists false": lambda d: {"nhs_number": {"$exists": False}},
    "random field null": lambda d: {"notes": None},
    "random field $exists": lambda d: {"notes": {"$exists": True}},
    "$and": lambda d: {"$and": [{"nhs_number": d[0]["nhs_number"]}, {"mrn": d[0]["mrn"]}]},
    "$and of different": lambda d: {"$and": [{"nhs_number": d[0]["nhs_number"]}, {"mrn": d[1]["mrn"]}]},
    "$or": lambda d: {"$or": [{"nhs_number": d[0]["nhs_number"]}, {"postcode": d[2]["postcode"]}]},
    "$nor": lambda d: {"$nor": [{"nhs_number": d[0]["nhs_number"]}, {"ward": "B"}]},
    "nested logic": lambda d: {"$or": [{"$and": [{"ward": "A1"}, {"$nor": [{"mrn": d[0]["mrn"]}]}]}, {"mrn": d[5]["mrn"]}]},
    "with unprotected range": lambda d: {"postcode": d[2]["postcode"], "visits": {"$gte": 3, "$lt": 10}},
    "two operators": lambda d: {"nhs_number": {"$exists": True, "$ne": d[0]["nhs_number"]}},
    "through an array": lambda d: {"contacts.phone": d[1]["contacts"][1]["phone"]},
    "through an array, $in": lambda d: {"contacts.phone": {"$in": [d[0]["contacts"][0]["phone"], d[2]["contacts"][1]["phone"]]}},
    "through an array, $ne": lambda d: {"contacts.phone": {"$ne": d[1]["contacts"][1]["phone"]}},
    "through an array, $nin": lambda d: {"contacts.phone": {"$nin": [d[1]["contacts"][1]["phone"]]}},
    "through an array, null": lambda d: {"contacts.phone": None},
    "by index": lambda d: {"contacts.1.phone": d[1]["contacts"][1]["phone"]},
    "by wrong index": lambda d: {"contacts.0.phone": d[1]["contacts"][1]["phone"]},
    "$elemMatch": lambda d: {"contacts": {"$elemMatch": {"phone": d[1]["contacts"][1]["phone"], "kind": "home"}}},
    "$elemMatch of different elements": lambda d: {"contacts": {"$elemMatch": {"phone": d[1]["contacts"][1]["phone"], "kind": "mobile"}}},
    "$elemMatch $in": lambda d: {"contacts": {"$elemMatch": {"phone": {"$in": [d[1]["contacts"][0]["phone"]]}}}},
    "$size of a plain parent": lambda d: {"contacts": {"$size": 2}},
    "an empty array": lambda d: {"contacts": {"$ne": []}, "address": {"$nin": [{}, None]}},
    "a whole without anything protected": lambda d: {"contacts": {"$in": [[{"kind": "none"}], None]}},
    "items by operators": lambda d: {"contacts": {"$elemMatch": {"$exists": True, "$nin": [None, {"kind": "none"}]}}},
    "$type null": lambda d: {"$or": [{"nhs_number": {"$type": "null"}}, {"notes": {"$type": 10}}]},
    "$comment anywhere": lambda d: {"$comment": d[0]["mrn"], "contacts": {"$elemMatch": {"$comment": d[0]["mrn"], "kind": "home"}},
                                    "$nor": [{"lists": {"$elemMatch": {"$comment": d[0]["mrn"], "a": 1}}}]},
    "$expr $eq": lambda d: {"$expr": {"$eq": ["$nhs_number", d[0]["nhs_number"]]}},
    "$expr $in": lambda d: {"$expr": {"$in": ["$nhs_number", [d[0]["nhs_number"], d[1]["nhs_number"]]]}},
    "unprotected": lambda d: {"ward": {"$regex": "^A"}, "visits": {"$gt": 1}},
    "_id": lambda d: {"_id": {"$in": [0, 3]}},
}


@pytest.fixture(scope="module")
def documents(app, oracle, markers):
    made = [patient(markers, n, ward="B" if n == 3 else "A1", visits=n + 1) for n in range(6)]
    made[3]["postcode"] = made[2]["postcode"]
    made[4]["nhs_number"] = None
    made[4]["notes"] = None
    made[4]["contacts"] = [{"kind": "none"}]
    del made[5]["nhs_number"], made[5]["notes"], made[5]["contacts"]
    for c in (app.patients, oracle.patients):
        c.delete_many({})
        c.insert_many(made)
    return made


@pytest.mark.parametrize("which", FILTERS)
def test_find(app, oracle, documents, which):
    query = FILTERS[which](documents)
    expected = ids(oracle.patients.find(query))
    assert ids(app.patients.find(query)) == expected
    assert app.patients.count_documents(query) == len(expected)


def test_the_filters_tell_documents_apart(oracle, documents):
    """Guards the table itself: filters that all match everything would compare nothing."""
    answers = {tuple(ids(oracle.patients.find(f(documents)))) for f in FILTERS.values()}
    assert len(answers) >= 15


@pytest.mark.parametrize("which", ["equality", "$in", "$ne", "through an array", "$elemMatch", "null"])
def test_find_uses_an_index_alike(app, oracle, documents, which):
    for c in (app.patients, oracle.patients):
        c.create_index("nhs_number")
        c.create_index("contacts.phone")
    query = FILTERS[which](documents)
    assert ids(app.patients.find(query)) == ids(oracle.patients.find(query))


def test_let_variables_are_not_a_side_door(app, markers, documents):
    """A literal handed in through `let` meets the protected field: sealed or refused, never sent in clear and unmatched."""
    from pymongo.errors import OperationFailure
    try:
        found = ids(app.patients.find({"$expr": {"$eq": ["$nhs_number", "$$n"]}}, let={"n": documents[0]["nhs_number"]}))
    except OperationFailure as e:
        assert e.details["errmsg"].startswith("fieldveil: ")
    else:
        assert found == [0]


def test_a_literal_in_a_sliced_expression_is_sealed(app, oracle, documents):
    numbers = [{"n": "$nhs_number"}, {"n": "$mrn"}]
    found = {"$filter": {"input": numbers, "as": "it", "cond": {"$eq": ["$nhs_number", documents[0]["nhs_number"]]}}}
    query = dict(projection={"found": {"$slice": [found, 1]}}, sort=[("_id", 1)])
    expected = list(oracle.patients.find({}, **query))
    assert [len(d["found"]) for d in expected] == [1, 0, 0, 0, 0, 0]
    assert list(app.patients.find({}, **query)) == expected


def test_an_explain_keeps_to_its_own_database(app, app_client, documents):
    query = {"find": "patients", "filter": {"nhs_number": documents[0]["nhs_number"]}, "$db": app.name}
    with pytest.raises(OperationFailure, match="another .db") as refused:
        app_client.admin.command("explain", query)
    assert refused.value.code == 73
