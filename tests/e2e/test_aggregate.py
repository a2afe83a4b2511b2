"""A pipeline gives through the proxy what it gives directly on plaintext, or is refused: never something else."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

import harness
from samples import patient

COLLECTIONS = {
    "patients": harness.PATIENTS,
    "episodes": {"nhs_number": '{ mode = "deterministic", type = "string", domain = "nhs_number" }', "summary": '{ mode = "random" }'},
}
SORT = {"$sort": {"_id": 1}}

# What has to work.
SUPPORTED = {
    "match equality": lambda d: [{"$match": {"nhs_number": d[0]["nhs_number"]}}],
    "match $in then count": lambda d: [{"$match": {"nhs_number": {"$in": [d[0]["nhs_number"], d[1]["nhs_number"]]}}}, {"$count": "n"}],
    "match after match": lambda d: [{"$match": {"ward": "A1"}}, {"$match": {"mrn": d[1]["mrn"]}}],
    "project include": lambda d: [SORT, {"$project": {"nhs_number": 1, "address.line1": 1}}],
    "project exclude": lambda d: [SORT, {"$project": {"nhs_number": 0, "contacts": 0}}],
    "project rename": lambda d: [SORT, {"$project": {"number": "$nhs_number", "who": {"born": "$date_of_birth"}}}],
    "match on the renamed": lambda d: [{"$project": {"number": "$nhs_number"}}, {"$match": {"number": d[2]["nhs_number"]}}],
    "match on the original after it was replaced": lambda d: [SORT, {"$set": {"nhs_number": "$ward"}}, {"$match": {"nhs_number": "A1"}}],
    "addFields copy": lambda d: [SORT, {"$addFields": {"copy": "$notes"}}],
    "unset": lambda d: [SORT, {"$unset": ["notes", "contacts.phone"]}],
    "group by deterministic": lambda d: [{"$group": {"_id": "$postcode", "n": {"$sum": 1}}}],
    "group by compound": lambda d: [{"$group": {"_id": {"p": "$postcode", "w": "$ward"}, "n": {"$sum": "$visits"}}}],
    "group push": lambda d: [SORT, {"$group": {"_id": "$ward", "numbers": {"$push": "$nhs_number"}, "first": {"$first": "$notes"}}}],
    "unwind and match": lambda d: [{"$unwind": "$contacts"}, {"$match": {"contacts.phone": d[1]["contacts"][1]["phone"]}}],
    "unwind all": lambda d: [SORT, {"$unwind": "$contacts"}, {"$project": {"p": "$contacts.phone"}}],
    "cond on equality": lambda d: [SORT, {"$project": {"is": {"$cond": [{"$eq": ["$nhs_number", d[0]["nhs_number"]]}, "yes", "no"]}}}],
    "ifNull": lambda d: [SORT, {"$project": {"x": {"$ifNull": ["$nhs_number", None]}}}],
    "expr in": lambda d: [SORT, {"$match": {"$expr": {"$in": ["$mrn", [d[0]["mrn"], d[3]["mrn"]]]}}}],
    "replaceRoot": lambda d: [SORT, {"$replaceRoot": {"newRoot": "$address"}}],
    "skip and limit": lambda d: [SORT, {"$skip": 1}, {"$limit": 2}],
    "sort by plain": lambda d: [{"$sort": {"visits": -1}}],
    "sample all": lambda d: [{"$match": {"nhs_number": d[0]["nhs_number"]}}, {"$sample": {"size": 5}}],
    "bucket on plain": lambda d: [{"$bucket": {"groupBy": "$visits", "boundaries": [0, 2, 10], "output": {"n": {"$sum": 1}}}}],
    "nothing protected": lambda d: [{"$match": {"visits": {"$gt": 1}}}, {"$group": {"_id": "$ward", "total": {"$sum": "$visits"}}}],
}

# What the proxy may refuse, but not get wrong.
RIGHT_OR_REFUSED = {
    "facet": lambda d: [{"$facet": {"one": [{"$match": {"nhs_number": d[0]["nhs_number"]}}, {"$project": {"mrn": 1}}], "n": [{"$count": "n"}]}}],
    "unionWith": lambda d: [{"$match": {"nhs_number": d[0]["nhs_number"]}}, {"$project": {"nhs_number": 1}},
                            {"$unionWith": {"coll": "episodes", "pipeline": [{"$match": {"nhs_number": d[0]["nhs_number"]}}]}}],
    "lookup on a shared domain": lambda d: [SORT, {"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "nhs_number", "as": "e"}}],
    "lookup with a pipeline": lambda d: [SORT, {"$lookup": {"from": "episodes", "let": {"n": "$nhs_number"}, "as": "e",
                                                            "pipeline": [{"$match": {"$expr": {"$eq": ["$nhs_number", "$$n"]}}}]}}],
    "lookup on different domains": lambda d: [SORT, {"$lookup": {"from": "episodes", "localField": "mrn", "foreignField": "nhs_number", "as": "e"}}],
    "lookup from plain": lambda d: [SORT, {"$lookup": {"from": "wards", "localField": "ward", "foreignField": "_id", "as": "w"}}],
    "sortByCount": lambda d: [{"$sortByCount": "$postcode"}, {"$limit": 1}],
    "addToSet": lambda d: [{"$group": {"_id": None, "s": {"$addToSet": "$postcode"}}}, {"$project": {"n": {"$size": "$s"}}}],
    "map over contacts": lambda d: [SORT, {"$project": {"p": {"$map": {"input": "$contacts", "as": "c", "in": "$$c.phone"}}}}],
    "filter contacts": lambda d: [SORT, {"$project": {"p": {"$filter": {"input": "$contacts", "as": "c", "cond": {"$eq": ["$$c.phone", d[0]["contacts"][0]["phone"]]}}}}}],
    "let": lambda d: [SORT, {"$project": {"x": {"$let": {"vars": {"n": "$nhs_number"}, "in": {"$eq": ["$$n", d[0]["nhs_number"]]}}}}}],
    "switch": lambda d: [SORT, {"$project": {"x": {"$switch": {"branches": [{"case": {"$eq": ["$mrn", d[1]["mrn"]]}, "then": "$notes"}], "default": "-"}}}}],
    "redact": lambda d: [SORT, {"$redact": {"$cond": [{"$eq": ["$nhs_number", d[0]["nhs_number"]]}, "$$KEEP", "$$PRUNE"]}}],
    "graphLookup": lambda d: [SORT, {"$graphLookup": {"from": "episodes", "startWith": "$nhs_number", "connectFromField": "nhs_number",
                                                      "connectToField": "nhs_number", "as": "g"}}, {"$unwind": "$g"}],
    "objectToArray": lambda d: [SORT, {"$project": {"kv": {"$objectToArray": "$address"}}}],
    "mergeObjects": lambda d: [SORT, {"$project": {"m": {"$mergeObjects": ["$address", {"line1": "replaced"}]}}}],
    "compare two fields of different domains": lambda d: [SORT, {"$project": {"x": {"$eq": ["$mrn", "$nhs_number"]}}}],
    "is the type string": lambda d: [SORT, {"$project": {"t": {"$type": "$nhs_number"}}}],
    "$$ROOT": lambda d: [SORT, {"$project": {"r": "$$ROOT"}}],
    "size of a random array": lambda d: [SORT, {"$project": {"n": {"$size": "$allergies"}}}],
    "literal beside": lambda d: [SORT, {"$project": {"x": {"$literal": "$nhs_number"}}}],
    "reverseArray then match": lambda d: [{"$set": {"contacts": {"$reverseArray": "$contacts"}}}, {"$match": {"contacts.phone": d[0]["contacts"][0]["phone"]}}],
    "window": lambda d: [{"$setWindowFields": {"partitionBy": "$postcode", "sortBy": {"_id": 1}, "output": {"n": {"$sum": 1, "window": {"documents": ["unbounded", "current"]}}}}}, SORT],
}


@pytest.fixture(scope="module")
def documents(app, oracle, markers):
    made = [patient(markers, n, visits=n) for n in range(4)]
    made[3]["postcode"] = made[0]["postcode"]
    episodes = [{"_id": 100 + n, "nhs_number": made[n % 3]["nhs_number"], "summary": markers.text()} for n in range(6)]
    for db in (app, oracle):
        db.patients.delete_many({})
        db.episodes.delete_many({})
        db.wards.delete_many({})
        db.patients.insert_many(made)
        db.episodes.insert_many(episodes)
        db.wards.insert_one({"_id": "A1", "beds": 20})
    return made


def canonical(results) -> list:
    """Order of unordered stages, and of a `$group`, is not promised by the server either."""
    return sorted(results, key=repr)


@pytest.mark.parametrize("which", SUPPORTED)
def test_supported(app, oracle, documents, which):
    pipeline = SUPPORTED[which](documents)
    expected = canonical(oracle.patients.aggregate(pipeline))
    assert expected, "the pipeline finds nothing on plaintext: it would compare nothing"
    assert canonical(app.patients.aggregate(pipeline)) == expected


@pytest.mark.parametrize("which", RIGHT_OR_REFUSED)
def test_right_or_refused(app, oracle, documents, markers, which):
    pipeline = RIGHT_OR_REFUSED[which](documents)
    expected = canonical(oracle.patients.aggregate(pipeline))
    try:
        actual = canonical(app.patients.aggregate(pipeline))
    except OperationFailure as e:
        assert e.details["errmsg"].startswith("fieldveil: "), e.details
        assert markers.find(str(e.details).encode()) is None
    else:
        assert actual == expected


@pytest.mark.parametrize("stage", [lambda: {"$out": "copied"}, lambda: {"$merge": {"into": "copied"}}], ids=["$out", "$merge"])
def test_writing_stage_never_leaves_plaintext(app, direct, documents, stage):
    """Into a collection without rules: refused, or what arrives there is still sealed."""
    direct.copied.drop()
    try:
        app.patients.aggregate([stage()])
    except OperationFailure as e:
        assert e.details["errmsg"].startswith("fieldveil: "), e.details
        assert direct.copied.count_documents({}) == 0
    else:
        assert all(harness.is_envelope(d["nhs_number"]) for d in direct.copied.find())


def test_database_level_aggregate_of_literals(app, documents):
    try:
        assert list(app.aggregate([{"$documents": [{"a": 1}]}])) == [{"a": 1}]
    except OperationFailure as e:
        assert e.details["errmsg"].startswith("fieldveil: "), e.details


def test_nothing_of_all_this_was_taken_for_plaintext(proxy):
    assert harness.metric(proxy, "fieldveil_plaintext_found_total") == 0
