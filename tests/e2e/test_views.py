"""Views over protected collections: queries on them are planned over what their pipelines yield, and made, changed and
dropped through the proxy they are known at once. And what the database knows and the configuration does not: views that
were made past the proxy, and default collations."""

from __future__ import annotations

import signal

import pytest
from pymongo.errors import OperationFailure

from harness import wait_until
from samples import patient

DEFINITIONS = {
    "everyone": ("patients", []),
    "renamed": ("patients", [{"$project": {"who": "$nhs_number", "ward": 1, "notes": 1}}]),
    "on_ward": ("renamed", [{"$match": {"ward": "A1"}}]),
    "with_patient": ("stays", [{"$lookup": {"from": "patients", "localField": "patient", "foreignField": "_id", "as": "p"}}, {"$unwind": "$p"}]),
    "by_number": ("patients", [{"$group": {"_id": "$nhs_number", "n": {"$sum": 1}}}]),
    "wards": ("patients", [{"$group": {"_id": "$ward", "n": {"$sum": 1}}}]),
}


def refusal(run):
    try:
        run()
    except OperationFailure as error:
        return str(error) if "fieldveil: " in str(error) else None
    return None


@pytest.fixture(scope="module")
def prepared(app, oracle, markers):
    documents = [patient(markers, i, ward="A1" if i % 2 else "B2") for i in range(4)]
    for db in (app, oracle):
        db.patients.insert_many(documents)
        db.stays.insert_many([{"_id": i, "patient": i % 3, "days": i} for i in range(6)])
        for name, (source, pipeline) in DEFINITIONS.items():
            db.command("create", name, viewOn=source, pipeline=pipeline)
    return documents


def ordered(documents) -> list:
    return sorted(documents, key=repr)


QUERIES = {
    "find": lambda db, d: ordered(db.renamed.find({"who": d["nhs_number"]})),
    "find with others": lambda db, d: ordered(db.everyone.find({"$or": [{"mrn": d["mrn"]}, {"ward": "none"}], "contacts.phone": d["contacts"][0]["phone"]}, {"notes": 1})),
    "sorted, skipped, limited": lambda db, d: list(db.renamed.find({}).sort("_id", -1).skip(1).limit(2)),
    "small batches": lambda db, d: ordered(db.everyone.find({}, batch_size=2)),
    "view on a view": lambda db, d: ordered(db.on_ward.find({"who": {"$in": [d["nhs_number"], "nobody"]}})),
    "count": lambda db, d: (db.command("count", "renamed", query={"who": d["nhs_number"]})["n"], db.on_ward.count_documents({"who": d["nhs_number"]})),
    "distinct": lambda db, d: sorted(db.renamed.distinct("who", {"ward": "A1"})),
    "aggregate": lambda db, d: ordered(db.renamed.aggregate([{"$match": {"who": d["nhs_number"]}}, {"$project": {"again": "$who"}}])),
    "joined": lambda db, d: ordered(db.with_patient.find({"p.nhs_number": d["nhs_number"]})),
    "joined into": lambda db, d: ordered(db.stays.aggregate([{"$lookup": {"from": "renamed", "let": {"p": "$patient"}, "as": "x", "pipeline": [{"$match": {"who": d["nhs_number"]}}]}}])),
    "unioned": lambda db, d: ordered(db.stays.aggregate([{"$unionWith": {"coll": "renamed", "pipeline": [{"$match": {"who": d["nhs_number"]}}]}}])),
    "grouped": lambda db, d: ordered(db.by_number.find({"_id": d["nhs_number"]})),
    "nothing protected in it": lambda db, d: ordered(db.wards.find({"_id": "A1"})),
}


@pytest.mark.parametrize("which", QUERIES)
def test_queries_on_views_answer_as_on_plaintext(prepared, app, oracle, which):
    expected = QUERIES[which](oracle, prepared[1])
    assert expected, "a test that compares nothing"
    assert QUERIES[which](app, prepared[1]) == expected


def test_explain_of_a_view_shows_no_plaintext(prepared, app, markers):
    plan = app.command("explain", {"find": "renamed", "filter": {"who": prepared[1]["nhs_number"]}}, verbosity="executionStats")
    assert markers.find(repr(plan).encode()) is None


@pytest.mark.parametrize("run", [
    lambda db, v: db.renamed.find_one({"who": {"$gt": v}}),
    lambda db, v: list(db.renamed.find({}).sort("who", 1)),
    lambda db, v: db.renamed.find_one({"notes": v}),
    lambda db, v: db.with_patient.find_one({"p": {"nhs_number": v}}),
    lambda db, v: db.everyone.insert_one({"nhs_number": v}),
    lambda db, v: db.everyone.update_one({"nhs_number": v}, {"$set": {"mrn": v}}),
    lambda db, v: db.command("create", "literal", viewOn="patients", pipeline=[{"$match": {"nhs_number": v}}]),
    lambda db, v: db.command("create", "literal", viewOn="stays", pipeline=[{"$lookup": {"from": "patients", "as": "p", "pipeline": [{"$match": {"nhs_number": v}}]}}]),
    lambda db, v: db.command("collMod", "renamed", viewOn="patients", pipeline=[{"$match": {"mrn": {"$ne": v}}}]),
    lambda db, v: db.command("create", "ranged", viewOn="patients", pipeline=[{"$match": {"nhs_number": {"$gt": v}}}]),
    lambda db, v: db.command("insert", "system.views", documents=[{"_id": f"{db.name}.literal", "viewOn": "patients", "pipeline": [{"$match": {"nhs_number": v}}]}]),
])
def test_what_cannot_work_is_refused(prepared, app, markers, run):
    secret = markers.text()
    said = refusal(lambda: run(app, secret))
    assert said and secret not in said, said


def test_a_view_is_known_as_soon_as_it_is_made_changed_or_dropped(prepared, app, proxy, markers, db_name):
    with proxy.client() as other:
        number = prepared[1]["nhs_number"]
        app.command("create", "fresh", viewOn="patients", pipeline=[{"$project": {"x": "$nhs_number"}}])
        assert other[db_name].fresh.find_one({"x": number})["_id"] == 1
        app.command("collMod", "fresh", viewOn="patients", pipeline=[{"$project": {"y": "$nhs_number", "x": "$mrn"}}])
        assert other[db_name].fresh.find_one({"y": number})["x"] == prepared[1]["mrn"]
        assert other[db_name].fresh.find_one({"x": number}) is None
        app.drop_collection("fresh")
        other[db_name].fresh.insert_one({"_id": 1, "x": "ordinary"})
        assert app.fresh.find_one({"x": "ordinary"}) == {"_id": 1, "x": "ordinary"}
        app.fresh.drop()


def test_a_view_survives_a_reload(prepared, app, proxy):
    proxy.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: "reloaded" in proxy.log.read_text())
    assert app.renamed.find_one({"who": prepared[1]["nhs_number"]})["_id"] == 1


@pytest.fixture(scope="module")
def past_the_proxy(prepared, app, direct):
    direct.command("create", "past", viewOn="patients", pipeline=[{"$project": {"who": "$nhs_number"}}])
    direct.command("create", "compared", viewOn="patients", pipeline=[{"$match": {"nhs_number": "somebody"}}])
    direct.command("create", "above_it", viewOn="compared", pipeline=[])
    direct.command("create", "harmless", viewOn="stays", pipeline=[])
    wait_until("the views to be known", lambda: refusal(lambda: app.compared.find_one({"_id": 1})), seconds=40)
    return app


def test_a_view_made_past_the_proxy_is_found(past_the_proxy, prepared):
    assert past_the_proxy.past.find_one({"who": prepared[1]["nhs_number"]})["_id"] == 1
    assert past_the_proxy.harmless.find_one({"days": 5})["_id"] == 5


@pytest.mark.parametrize("view", ["compared", "above_it"])
def test_a_definition_with_a_literal_for_a_protected_field_is_refused(past_the_proxy, view, markers):
    secret = markers.text()
    for run in (lambda: past_the_proxy[view].find_one({"nhs_number": secret}),
                lambda: list(past_the_proxy[view].aggregate([{"$match": {"nhs_number": secret}}])),
                lambda: past_the_proxy[view].count_documents({"nhs_number": secret}),
                lambda: list(past_the_proxy.stays.aggregate([{"$lookup": {"from": view, "pipeline": [{"$match": {"nhs_number": secret}}], "as": "x"}}]))):
        said = refusal(run)
        assert said and view in said and secret not in said, said
