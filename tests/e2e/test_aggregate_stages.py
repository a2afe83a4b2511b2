"""Every stage, as applications use it: through the proxy the same as on plaintext where it is supported, and refused by
name where it cannot be."""

from __future__ import annotations

import re

import pytest
from pymongo.errors import OperationFailure

import harness
from harness import is_envelope
from samples import patient

# Every field has a domain of its own name, so that collections of the same rules can be copied and joined.
PATIENTS = {path: rule if "domain" in rule else rule.replace("{ ", f'{{ domain = "agg.{path}", ') for path, rule in harness.PATIENTS.items()}
COLLECTIONS = {
    "patients": PATIENTS,
    "archive": PATIENTS,
    "episodes": {"nhs_number": PATIENTS["nhs_number"], "summary": '{ mode = "random" }', "links.nhs": PATIENTS["nhs_number"]},
    "referrals": {"who": PATIENTS["nhs_number"], "by": PATIENTS["nhs_number"]},
    "tagged": {"tags": '{ mode = "deterministic", type = "string" }', "marks": '{ mode = "random", each = true }'},
}
SORT = {"$sort": {"_id": 1}}


def nhs(d, n=0):
    return d[n]["nhs_number"]


# Stage by stage: what has to work.
SUPPORTED = {
    # $lookup
    "lookup by fields": lambda d: [SORT, {"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "nhs_number", "as": "e"}}],
    "lookup, then match on the joined": lambda d: [{"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "nhs_number", "as": "e"}},
                                                   {"$match": {"e.nhs_number": nhs(d)}}],
    "lookup, unwind, group": lambda d: [{"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "nhs_number", "as": "e"}},
                                        {"$unwind": "$e"}, {"$group": {"_id": "$e.nhs_number", "n": {"$sum": "$e.cost"}}}],
    "lookup through an array": lambda d: [SORT, {"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "links.nhs", "as": "e"}}],
    "lookup with let and pipeline": lambda d: [SORT, {"$lookup": {"from": "episodes", "let": {"n": "$nhs_number", "w": "$ward"}, "as": "e", "pipeline": [
        {"$match": {"$expr": {"$and": [{"$eq": ["$nhs_number", "$$n"]}, {"$eq": ["$ward", "$$w"]}]}}}, {"$project": {"summary": 1, "_id": 0}}, {"$sort": {"cost": 1}}]}}],
    "lookup with a constant in the pipeline": lambda d: [SORT, {"$lookup": {"from": "episodes", "as": "e", "pipeline": [{"$match": {"nhs_number": nhs(d, 1)}}, SORT]}}],
    "lookup by fields and pipeline at once": lambda d: [SORT, {"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "nhs_number", "let": {"v": "$visits"}, "as": "e",
                                                              "pipeline": [{"$match": {"$expr": {"$gte": ["$cost", "$$v"]}}}, {"$project": {"nhs_number": 1, "cost": 1}}, SORT]}}],
    "lookup inside a lookup": lambda d: [SORT, {"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "nhs_number", "as": "e", "pipeline": [
        SORT, {"$lookup": {"from": "archive", "localField": "nhs_number", "foreignField": "nhs_number", "as": "a", "pipeline": [{"$project": {"mrn": 1}}]}}]}}],
    "lookup from plain": lambda d: [SORT, {"$lookup": {"from": "wards", "localField": "ward", "foreignField": "_id", "as": "w"}}, {"$match": {"nhs_number": nhs(d)}}],
    "those without a joined one": lambda d: [SORT, {"$lookup": {"from": "archive", "localField": "nhs_number", "foreignField": "nhs_number", "as": "a"}}, {"$match": {"a": []}}],
    "those with a joined one": lambda d: [SORT, {"$lookup": {"from": "archive", "localField": "nhs_number", "foreignField": "nhs_number", "as": "a"}}, {"$match": {"a": {"$ne": []}, "contacts": {"$nin": [None, [], {}]}}}],
    "lookup on itself": lambda d: [SORT, {"$lookup": {"from": "patients", "localField": "postcode", "foreignField": "postcode", "as": "same", "pipeline": [{"$project": {"_id": 1}}, SORT]}}],
    "lookup, first of the joined": lambda d: [SORT, {"$lookup": {"from": "archive", "localField": "nhs_number", "foreignField": "nhs_number", "as": "a"}},
                                              {"$set": {"a": {"$first": "$a"}}}, {"$match": {"a.mrn": d[0]["mrn"]}}],
    "lookup from $documents": lambda d: [SORT, {"$lookup": {"localField": "ward", "foreignField": "w", "as": "x", "pipeline": [{"$documents": [{"w": "A1", "b": 1}]}]}}, {"$project": {"x": 1, "nhs_number": 1}}],
    "match on the size of a join": lambda d: [SORT, {"$lookup": {"from": "episodes", "localField": "nhs_number", "foreignField": "nhs_number", "as": "e"}}, {"$set": {"n": {"$size": "$e"}}}, {"$match": {"n": {"$gt": 1}}}, {"$unset": "e"}],
    # $graphLookup
    "graphLookup": lambda d: [SORT, {"$graphLookup": {"from": "referrals", "startWith": "$nhs_number", "connectFromField": "by", "connectToField": "who", "as": "chain", "depthField": "depth"}},
                              {"$project": {"depths": {"$size": "$chain"}, "nhs_number": 1}}],
    "graphLookup, restricted": lambda d: [SORT, {"$graphLookup": {"from": "referrals", "startWith": "$nhs_number", "connectFromField": "by", "connectToField": "who", "as": "chain", "maxDepth": 1,
                                                                  "restrictSearchWithMatch": {"by": {"$ne": nhs(d, 2)}}}}, {"$project": {"n": {"$size": "$chain"}}}],
    # $unionWith
    "unionWith itself": lambda d: [{"$match": {"nhs_number": nhs(d)}}, {"$unionWith": {"coll": "patients", "pipeline": [{"$match": {"nhs_number": nhs(d, 1)}}]}}, {"$project": {"nhs_number": 1, "notes": 1}}],
    "unionWith the same rules": lambda d: [{"$unionWith": "archive"}, {"$group": {"_id": "$nhs_number", "n": {"$sum": 1}}}],
    "unionWith, both projected": lambda d: [{"$project": {"nhs_number": 1}}, {"$unionWith": {"coll": "episodes", "pipeline": [{"$project": {"nhs_number": 1}}]}}, {"$match": {"nhs_number": nhs(d)}}],
    "unionWith plain": lambda d: [{"$project": {"ward": 1}}, {"$unionWith": {"coll": "wards", "pipeline": [{"$project": {"ward": "$_id"}}]}}, {"$sort": {"ward": 1}}],
    "unionWith, then those that have it": lambda d: [{"$unionWith": "wards"}, {"$match": {"nhs_number": {"$ne": None}, "beds": {"$exists": False}}}],
    "unionWith, only read": lambda d: [{"$unionWith": "episodes"}],
    # $facet
    "facet": lambda d: [{"$match": {"ward": "A1"}}, {"$facet": {"one": [{"$match": {"nhs_number": nhs(d)}}, {"$project": {"mrn": 1}}], "by": [{"$group": {"_id": "$postcode", "n": {"$sum": 1}}}, {"$sort": {"n": -1}}, {"$limit": 1}],
                                                                "n": [{"$count": "n"}]}}],
    "facet, then match inside": lambda d: [{"$facet": {"all": [SORT, {"$project": {"nhs_number": 1}}]}}, {"$unwind": "$all"}, {"$match": {"all.nhs_number": nhs(d, 2)}}],
    "facet as a page": lambda d: [{"$facet": {"rows": [SORT, {"$skip": 1}, {"$limit": 2}], "total": [{"$count": "n"}]}}],
    # $group
    "group by nothing": lambda d: [{"$group": {"_id": None, "n": {"$sum": 1}, "v": {"$avg": "$visits"}}}],
    "group, count of patients": lambda d: [{"$group": {"_id": "$nhs_number"}}, {"$count": "n"}],
    "group, then match on the key": lambda d: [{"$group": {"_id": "$nhs_number", "n": {"$sum": 1}}}, {"$match": {"_id": nhs(d)}}],
    "group by a part of the key": lambda d: [{"$group": {"_id": {"n": "$nhs_number", "w": "$ward"}}}, {"$match": {"_id.n": nhs(d)}}],
    "group first, last, push": lambda d: [SORT, {"$group": {"_id": "$ward", "first": {"$first": "$$ROOT"}, "last": {"$last": "$notes"}, "all": {"$push": {"n": "$nhs_number", "v": "$visits"}}}}],
    "group push of a random field, unwound": lambda d: [SORT, {"$group": {"_id": "$ward", "all": {"$push": "$notes"}}}, {"$set": {"n": {"$size": "$all"}}}, {"$unwind": "$all"}],
    "group firstN of a random field, one of them": lambda d: [SORT, {"$group": {"_id": None, "f": {"$firstN": {"input": "$notes", "n": 2}}}}, {"$project": {"one": {"$arrayElemAt": ["$f", 1]}}}],
    "group addToSet": lambda d: [{"$group": {"_id": None, "s": {"$addToSet": "$postcode"}}}, {"$project": {"n": {"$size": "$s"}}}],
    "group top": lambda d: [{"$group": {"_id": "$ward", "t": {"$top": {"sortBy": {"visits": -1}, "output": ["$nhs_number", "$visits"]}}}}],
    "group firstN": lambda d: [SORT, {"$group": {"_id": None, "f": {"$firstN": {"input": "$nhs_number", "n": 2}}}}],
    "group by whether it is there": lambda d: [{"$group": {"_id": {"$cond": [{"$eq": [{"$ifNull": ["$nhs_number", None]}, None]}, "none", "some"]}, "n": {"$sum": 1}}}],
    "count of one": lambda d: [{"$group": {"_id": None, "n": {"$sum": {"$cond": [{"$eq": ["$postcode", d[0]["postcode"]]}, 1, 0]}}}}],
    "unwind, group by phone": lambda d: [{"$unwind": "$contacts"}, {"$group": {"_id": "$contacts.phone", "n": {"$sum": 1}}}],
    # $bucket, $bucketAuto, $sortByCount
    "bucket": lambda d: [{"$bucket": {"groupBy": "$visits", "boundaries": [0, 2, 10], "default": "other", "output": {"who": {"$push": "$nhs_number"}, "n": {"$sum": 1}}}}],
    "bucketAuto": lambda d: [{"$bucketAuto": {"groupBy": "$visits", "buckets": 2, "output": {"who": {"$push": "$nhs_number"}}}}],
    "sortByCount": lambda d: [{"$sortByCount": "$postcode"}, {"$limit": 1}],
    # $setWindowFields
    "window by partition": lambda d: [{"$setWindowFields": {"partitionBy": "$postcode", "sortBy": {"visits": 1}, "output": {"run": {"$sum": "$visits", "window": {"documents": ["unbounded", "current"]}}, "n": {"$documentNumber": {}}}}}, SORT],
    "window, the one before": lambda d: [{"$setWindowFields": {"sortBy": {"visits": 1}, "output": {"before": {"$shift": {"output": "$nhs_number", "by": -1}}}}}, SORT],
    "window, first of the partition": lambda d: [{"$setWindowFields": {"partitionBy": "$ward", "sortBy": {"visits": 1}, "output": {"f": {"$first": "$notes"}, "all": {"$push": "$nhs_number", "window": {"documents": [-1, 0]}}}}}, SORT],
    "window, then match": lambda d: [{"$setWindowFields": {"sortBy": {"visits": 1}, "output": {"before": {"$shift": {"output": "$nhs_number", "by": -1}}}}}, {"$match": {"before": nhs(d)}}],
    # $replaceRoot, $replaceWith, $redact
    "replaceRoot": lambda d: [SORT, {"$match": {"address": {"$exists": True}}}, {"$replaceRoot": {"newRoot": "$address"}}],
    "replaceWith a document": lambda d: [SORT, {"$replaceWith": {"n": "$nhs_number", "a": {"l": "$address.line1"}}}, {"$match": {"n": nhs(d)}}],
    "replaceRoot with mergeObjects": lambda d: [SORT, {"$replaceRoot": {"newRoot": {"$mergeObjects": [{"flag": False}, "$$ROOT", {"v": "$visits"}]}}}, {"$match": {"mrn": d[1]["mrn"]}}],
    "replaceRoot with the joined": lambda d: [{"$lookup": {"from": "archive", "localField": "nhs_number", "foreignField": "nhs_number", "as": "a"}}, {"$unwind": "$a"}, {"$replaceRoot": {"newRoot": "$a"}}, {"$match": {"nhs_number": nhs(d, 1)}}],
    "redact without random fields": lambda d: [SORT, {"$project": {"nhs_number": 1, "ward": 1, "visits": 1}}, {"$redact": {"$cond": [{"$gt": ["$visits", 1]}, "$$KEEP", "$$PRUNE"]}}],
    # $densify, $fill, $documents, $geoNear, $unwind, $sample
    "densify": lambda d: [{"$project": {"visits": 1, "nhs_number": 1}}, {"$densify": {"field": "visits", "range": {"step": 1, "bounds": [0, 6]}}}, {"$match": {"nhs_number": nhs(d)}}],
    "fill": lambda d: [{"$fill": {"sortBy": {"_id": 1}, "output": {"score": {"method": "locf"}, "flag": {"value": "none"}}}}, {"$project": {"nhs_number": 1, "score": 1, "flag": 1}}],
    "densify by a sealed partition": lambda d: [{"$project": {"visits": 1, "nhs_number": 1}}, {"$densify": {"field": "visits", "partitionByFields": ["nhs_number"], "range": {"step": 1, "bounds": [0, 6]}}}, {"$match": {"nhs_number": nhs(d)}}],
    "fill by a sealed partition": lambda d: [{"$fill": {"partitionByFields": ["nhs_number"], "sortBy": {"visits": 1}, "output": {"score": {"method": "locf"}}}}, SORT],
    "fill a sealed field with the last": lambda d: [{"$fill": {"sortBy": {"visits": 1}, "output": {"postcode": {"method": "locf"}, "notes": {"method": "locf"}}}}, {"$match": {"postcode": d[4]["postcode"]}}],
    "fill a sealed field with a value": lambda d: [{"$fill": {"output": {"postcode": {"value": "none"}}}}, {"$match": {"postcode": "none"}}],
    "unwind with index": lambda d: [SORT, {"$unwind": {"path": "$contacts", "includeArrayIndex": "i", "preserveNullAndEmptyArrays": True}}, {"$project": {"contacts.phone": 1, "i": 1}}],
    "geoNear": lambda d: [{"$geoNear": {"near": {"type": "Point", "coordinates": [0, 0]}, "distanceField": "d", "query": {"nhs_number": {"$in": [nhs(d), nhs(d, 1)]}}, "key": "at"}}, {"$project": {"nhs_number": 1}}],
    "sample": lambda d: [{"$match": {"nhs_number": nhs(d)}}, {"$sample": {"size": 3}}],
    # projections and expressions
    "project by switch": lambda d: [SORT, {"$project": {"who": {"$switch": {"branches": [{"case": {"$eq": ["$nhs_number", nhs(d)]}, "then": "first"}, {"case": {"$in": ["$nhs_number", [nhs(d, 1), nhs(d, 2)]]}, "then": "next"}], "default": "none"}}}}],
    "map over contacts": lambda d: [SORT, {"$project": {"p": {"$map": {"input": {"$ifNull": ["$contacts", []]}, "as": "c", "in": {"k": "$$c.kind", "p": "$$c.phone"}}}}}],
    "filter contacts": lambda d: [SORT, {"$project": {"p": {"$filter": {"input": "$contacts", "as": "c", "cond": {"$eq": ["$$c.phone", d[0]["contacts"][0]["phone"]]}}}}}],
    "contacts of one kind": lambda d: [SORT, {"$set": {"m": {"$first": {"$filter": {"input": "$contacts", "as": "c", "cond": {"$eq": ["$$c.kind", "mobile"]}}}}}}, {"$match": {"m.phone": d[1]["contacts"][0]["phone"]}}],
    "is the phone among them": lambda d: [SORT, {"$project": {"x": {"$in": [d[0]["contacts"][0]["phone"], {"$ifNull": ["$contacts.phone", []]}]}}}],
    "whole document under a name": lambda d: [SORT, {"$project": {"r": "$$ROOT"}}, {"$match": {"r.nhs_number": nhs(d)}}],
    "computed beside": lambda d: [SORT, {"$set": {"twice": {"$multiply": ["$visits", 2]}, "label": {"$concat": ["$ward", "-", {"$toString": "$visits"}]}}}],
    "expr with let": lambda d: [SORT, {"$match": {"$expr": {"$let": {"vars": {"n": "$nhs_number"}, "in": {"$eq": ["$$n", nhs(d)]}}}}}],
    "an enclosing field as a whole": lambda d: [SORT, {"$set": {"address": {"$cond": [{"$eq": ["$visits", 1]}, {"city": "Leeds"}, "$address"]}}}, {"$match": {"address": {"city": "Leeds"}}}],
    "missing fields": lambda d: [SORT, {"$match": {"postcode": None}}, {"$project": {"nhs_number": 1}}],
    "merge of documents": lambda d: [SORT, {"$project": {"m": {"$mergeObjects": ["$address", {"city": "$ward"}]}}}],
    "setField": lambda d: [SORT, {"$project": {"m": {"$setField": {"field": "city", "input": "$address", "value": "x"}}}}],
}

# By reason of what they are: each names the stage, the operator or the field, and holds no value.
REFUSED = {
    "lookup on different domains": (lambda d: [{"$lookup": {"from": "episodes", "localField": "mrn", "foreignField": "nhs_number", "as": "e"}}], "lookup"),
    "lookup of a sealed with a plain field": (lambda d: [{"$lookup": {"from": "wards", "localField": "nhs_number", "foreignField": "_id", "as": "w"}}], "lookup"),
    "lookup on a random field": (lambda d: [{"$lookup": {"from": "episodes", "localField": "notes", "foreignField": "summary", "as": "e"}}], "lookup"),
    "lookup, range in the pipeline": (lambda d: [{"$lookup": {"from": "episodes", "as": "e", "pipeline": [{"$match": {"nhs_number": {"$gt": nhs(d)}}}]}}], "gt"),
    "lookup, range of a variable": (lambda d: [{"$lookup": {"from": "episodes", "let": {"n": "$nhs_number"}, "as": "e", "pipeline": [{"$match": {"$expr": {"$gt": ["$nhs_number", "$$n"]}}}]}}], "gt"),
    "graphLookup by a plain field": (lambda d: [{"$graphLookup": {"from": "referrals", "startWith": "$ward", "connectFromField": "by", "connectToField": "who", "as": "g"}}], "graphLookup"),
    "graphLookup, range": (lambda d: [{"$graphLookup": {"from": "referrals", "startWith": "$nhs_number", "connectFromField": "by", "connectToField": "who", "as": "g", "restrictSearchWithMatch": {"by": {"$gt": nhs(d)}}}}], "gt"),
    "unionWith, then a field of one side": (lambda d: [{"$unionWith": "wards"}, {"$match": {"nhs_number": nhs(d)}}], "nhs_number"),
    "facet, sorted by a sealed field": (lambda d: [{"$facet": {"a": [{"$sort": {"nhs_number": 1}}]}}], "sort"),
    "group by a random field": (lambda d: [{"$group": {"_id": "$notes"}}], "notes"),
    "group by a computed part": (lambda d: [{"$group": {"_id": {"$substrCP": ["$postcode", 0, 4]}}}], "substrCP"),
    "group, highest": (lambda d: [{"$group": {"_id": None, "m": {"$max": "$date_of_birth"}}}], "max"),
    "group by the year": (lambda d: [{"$group": {"_id": {"$year": "$date_of_birth"}}}], "year"),
    "group, top by a sealed field": (lambda d: [{"$group": {"_id": None, "t": {"$top": {"sortBy": {"nhs_number": 1}, "output": "$ward"}}}}], "top"),
    "bucket by a sealed field": (lambda d: [{"$bucket": {"groupBy": "$nhs_number", "boundaries": ["a", "z"], "default": "x"}}], "bucket"),
    "bucketAuto by a sealed field": (lambda d: [{"$bucketAuto": {"groupBy": "$date_of_birth", "buckets": 2}}], "bucketAuto"),
    "sortByCount of a random field": (lambda d: [{"$sortByCount": "$notes"}], "notes"),
    "window sorted by a sealed field": (lambda d: [{"$setWindowFields": {"sortBy": {"nhs_number": 1}, "output": {"n": {"$documentNumber": {}}}}}], "setWindowFields"),
    "window by a random field": (lambda d: [{"$setWindowFields": {"partitionBy": "$notes", "output": {"n": {"$sum": 1}}}}], "notes"),
    "replaceRoot with a random field": (lambda d: [{"$replaceRoot": {"newRoot": "$notes"}}], "notes"),
    "redact with random fields": (lambda d: [{"$redact": "$$KEEP"}], "redact"),
    "densify a sealed field": (lambda d: [{"$densify": {"field": "date_of_birth", "range": {"step": 1, "unit": "day", "bounds": "full"}}}], "densify"),
    "fill a sealed field by a line": (lambda d: [{"$fill": {"sortBy": {"visits": 1}, "output": {"date_of_birth": {"method": "linear"}}}}], "date_of_birth"),
    "fill by a random partition": (lambda d: [{"$fill": {"partitionBy": "$notes", "sortBy": {"visits": 1}, "output": {"score": {"method": "locf"}}}}], "notes"),
    "a number inside a random field": (lambda d: [{"$project": {"x": "$allergies.0"}}], "allergies"),
    "geoNear, range": (lambda d: [{"$geoNear": {"near": {"type": "Point", "coordinates": [0, 0]}, "distanceField": "d", "query": {"nhs_number": {"$gt": nhs(d)}}, "key": "at"}}], "gt"),
    "out into a plain collection": (lambda d: [{"$out": "plain"}], "out"),
    "merge into a plain collection": (lambda d: [{"$merge": {"into": "plain"}}], "merge"),
    "merge into other rules": (lambda d: [{"$project": {"nhs_number": "$mrn"}}, {"$merge": {"into": "episodes"}}], "merge"),
    "out of plain into a sealed field": (lambda d: [{"$project": {"nhs_number": "$ward"}}, {"$out": "episodes"}], "out"),
    "the length of an array pushed from a random field": (lambda d: [{"$group": {"_id": None, "all": {"$push": "$allergies"}}}, {"$match": {"all": {"$elemMatch": {"$size": 2}}}}], "allergies"),
    "search": (lambda d: [{"$search": {"text": {"query": nhs(d), "path": "nhs_number"}}}], "search"),
    "vectorSearch": (lambda d: [{"$vectorSearch": {"queryVector": [1.0], "path": "notes"}}], "vectorSearch"),
    "a stage that nobody knows": (lambda d: [{"$futureStage": {"x": nhs(d)}}], "futureStage"),
    "currentOp": (lambda d: [{"$currentOp": {}}], "currentOp"),
    "code": (lambda d: [{"$set": {"x": {"$function": {"body": "function(){}", "args": [nhs(d)], "lang": "js"}}}}], "function"),
}


@pytest.fixture(scope="module")
def documents(app, oracle, markers):
    made = [patient(markers, n, visits=n, score=n) for n in range(6)]
    made[3]["postcode"] = made[0]["postcode"]
    made[4]["ward"], made[4]["nhs_number"] = "B2", made[0]["nhs_number"]
    del made[5]["postcode"], made[5]["address"], made[5]["contacts"], made[5]["score"]
    for document in made:
        document["at"] = {"type": "Point", "coordinates": [document["_id"] / 10, 0]}
    episodes = [{"_id": 100 + n, "nhs_number": made[n % 3]["nhs_number"], "summary": markers.text(), "cost": n % 4, "ward": "A1",
                 "links": [{"nhs": made[(n + 1) % 4]["nhs_number"]}]} for n in range(6)]
    referrals = [{"_id": n, "who": made[n]["nhs_number"], "by": made[n + 1]["nhs_number"]} for n in range(4)]
    tagged = [{"_id": n, "tags": [markers.text(), made[0]["mrn"]], "marks": [markers.text(), markers.text()]} for n in range(2)]
    for db in (app, oracle):
        db.patients.insert_many(made)
        db.archive.insert_many(made[:3])
        db.episodes.insert_many(episodes)
        db.referrals.insert_many(referrals)
        db.tagged.insert_many(tagged)
        db.wards.insert_one({"_id": "A1", "beds": 20})
        db.patients.create_index([("at", "2dsphere")])
    return made


def canonical(value):
    """Without the order that neither the server nor an unordered stage promises, inside arrays too."""
    if isinstance(value, dict):
        return {key: canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted((canonical(inner) for inner in value), key=repr)
    return value


@pytest.mark.parametrize("which", SUPPORTED)
def test_supported(app, oracle, documents, which):
    pipeline = SUPPORTED[which](documents)
    expected = canonical(list(oracle.patients.aggregate(pipeline)))
    assert expected, "the pipeline finds nothing on plaintext: it would compare nothing"
    assert canonical(list(app.patients.aggregate(pipeline))) == expected


@pytest.mark.parametrize("which", REFUSED)
def test_refused(app, documents, markers, which):
    make, mentions = REFUSED[which]
    with pytest.raises(OperationFailure) as refused:
        app.patients.aggregate(make(documents))
    text = refused.value.details["errmsg"]
    assert text.startswith("fieldveil: ") and re.search(mentions, text), text
    assert markers.find(str(refused.value.details).encode()) is None
    assert "; " in text or ". " in text or ":" in text.removeprefix("fieldveil: "), f"no way out is told: {text}"
