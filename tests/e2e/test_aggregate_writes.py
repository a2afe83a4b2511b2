"""`$out` and `$merge`: into collections whose rules agree what arrives is what would have arrived on plaintext, sealed."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

import harness
from harness import is_envelope
from samples import patient
from test_aggregate_stages import PATIENTS, canonical

COLLECTIONS = {
    "patients": PATIENTS,
    "archive": PATIENTS,
    "registry": {"nhs_number": PATIENTS["nhs_number"]},
    "letters": {"to.nhs": PATIENTS["nhs_number"], "text": PATIENTS["notes"]},
}
TARGETS = ("archive", "registry", "letters", "counts")
SEALED = {"archive": ("nhs_number", "mrn", "postcode", "notes", "allergies"), "registry": ("nhs_number",), "letters": ("text",), "counts": ()}

# (pipeline, the collection it writes to)
WRITES = {
    "out, the whole": (lambda d, db: [{"$match": {"nhs_number": {"$ne": d[1]["nhs_number"]}}}, {"$out": "archive"}], "archive"),
    "out, by database and collection": (lambda d, db: [{"$out": {"db": db, "coll": "archive"}}], "archive"),
    "out, without some fields": (lambda d, db: [{"$unset": ["notes", "contacts.phone"]}, {"$out": "archive"}], "archive"),
    "out, some fields left out": (lambda d, db: [{"$project": {"notes": 0, "address": 0}}, {"$out": "archive"}], "archive"),
    "out, some fields": (lambda d, db: [{"$project": {"nhs_number": 1, "ward": 1}}, {"$out": "registry"}], "registry"),
    "out, renamed into the same domain": (lambda d, db: [{"$project": {"to.nhs": "$nhs_number", "text": "$notes", "ward": 1}}, {"$out": "letters"}], "letters"),
    "out, grouped": (lambda d, db: [{"$group": {"_id": "$ward", "n": {"$sum": 1}, "visits": {"$sum": "$visits"}}}, {"$out": "counts"}], "counts"),
    "merge": (lambda d, db: [{"$merge": "archive"}], "archive"),
    "merge, replace": (lambda d, db: [{"$set": {"copied": True}}, {"$merge": {"into": "archive", "on": "_id", "whenMatched": "replace"}}], "archive"),
    "merge, keep existing": (lambda d, db: [{"$merge": {"into": "archive", "whenMatched": "keepExisting"}}], "archive"),
    "merge, not inserting": (lambda d, db: [{"$merge": {"into": "archive", "whenMatched": "merge", "whenNotMatched": "discard"}}], "archive"),
    "merge on a sealed field": (lambda d, db: [{"$project": {"_id": 0, "nhs_number": 1, "visits": 1}}, {"$merge": {"into": "registry", "on": "nhs_number", "whenMatched": "merge"}}], "registry"),
    "merge by a pipeline": (lambda d, db: [{"$merge": {"into": "archive", "let": {"v": "$visits", "n": "$notes"}, "whenMatched": [
        {"$set": {"visits": {"$add": ["$visits", "$$v"]}, "notes": "$$n", "ward": "$$new.ward"}}], "whenNotMatched": "insert"}}], "archive"),
    "merge by a pipeline with a constant": (lambda d, db: [{"$merge": {"into": "archive", "whenMatched": [{"$set": {"postcode": d[0]["postcode"]}}, {"$unset": "allergies"}]}}], "archive"),
    "merge of counts": (lambda d, db: [{"$group": {"_id": "$ward", "n": {"$sum": 1}}}, {"$merge": {"into": "counts", "whenMatched": [{"$set": {"n": {"$add": ["$n", "$$new.n"]}}}]}}], "counts"),
}


@pytest.fixture(scope="module")
def documents(markers):
    return [patient(markers, n, visits=n, ward=("A1", "B2")[n % 2]) for n in range(4)]


@pytest.fixture(params=WRITES)
def run(request, app, oracle, documents, db_name):
    make, target = WRITES[request.param]
    pipeline = make(documents, db_name)
    for db in (app, oracle):
        for name in ("patients", *TARGETS):
            db[name].drop()
        db.patients.insert_many(documents)
        db.archive.insert_many([{**documents[0], "ward": "old", "kept": 1}, {**documents[3], "_id": 9}])
        db.registry.create_index("nhs_number", unique=True)
        db.registry.insert_one({"_id": 5, "nhs_number": documents[2]["nhs_number"], "kept": 1})
        db.counts.insert_one({"_id": "A1", "n": 10})
        db.patients.aggregate(pipeline)
    return target


def without_new_ids(documents):
    """An `_id` that the server made differs from one server to the other."""
    return canonical([{k: v for k, v in d.items() if k != "_id" or isinstance(v, (int, str))} for d in documents])


def test_what_arrives(run, app, oracle, direct):
    expected = without_new_ids(oracle[run].find())
    assert expected and without_new_ids(app[run].find()) == expected
    for document in direct[run].find():
        for field in SEALED[run]:
            assert field not in document or is_envelope(document[field]), field
        for contact in document.get("contacts", []):
            assert "phone" not in contact or is_envelope(contact["phone"]) == (run == "archive")
        assert run != "letters" or is_envelope(document["to"]["nhs"])


REFUSED = {
    "into a plain collection": [{"$project": {"nhs_number": 1}}, {"$out": "counts"}],
    "under another rule": [{"$project": {"nhs_number": "$mrn"}}, {"$out": "registry"}],
    "plain into a sealed field": [{"$project": {"nhs_number": "$ward"}}, {"$merge": "registry"}],
    "on a random field": [{"$merge": {"into": "archive", "on": "notes"}}],
    "a pipeline that moves": [{"$merge": {"into": "archive", "whenMatched": [{"$set": {"copy": "$nhs_number"}}]}}],
    "a pipeline that computes": [{"$merge": {"into": "archive", "whenMatched": [{"$set": {"notes": {"$concat": ["$ward", "x"]}}}]}}],
    "filled into a protected name": [{"$project": {"ward": 1}}, {"$fill": {"output": {"nhs_number": {"value": "x"}}}}, {"$out": "registry"}],
    "densified into a protected name": [{"$project": {"ward": 1}}, {"$densify": {"field": "nhs_number", "range": {"step": 1, "bounds": [0, 3]}}}, {"$merge": "registry"}],
    "a group into a protected name": [{"$group": {"_id": "$ward", "nhs_number": {"$sum": 1}}}, {"$out": "registry"}],
}


@pytest.mark.parametrize("which", REFUSED)
def test_refused(app, documents, markers, which):
    app.patients.drop()
    app.patients.insert_many(documents)
    with pytest.raises(OperationFailure, match="fieldveil: ") as refused:
        app.patients.aggregate(REFUSED[which])
    assert markers.find(str(refused.value.details).encode()) is None
