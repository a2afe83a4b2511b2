"""What the database knows and the configuration does not: views over protected collections, and default collations."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

from harness import wait_until
from samples import patient


@pytest.fixture(scope="module")
def prepared(direct, app, markers):
    app.patients.insert_one(patient(markers, 1))
    direct.command("create", "everyone", viewOn="patients", pipeline=[{"$project": {"nhs_number": 1}}])
    direct.command("create", "nested", viewOn="everyone", pipeline=[])
    direct.command("create", "joined", viewOn="wards", pipeline=[{"$lookup": {"from": "patients", "localField": "p", "foreignField": "_id", "as": "p"}}])
    direct.command("create", "harmless", viewOn="wards", pipeline=[])
    return app


def refusal(run):
    try:
        run()
    except OperationFailure as error:
        return str(error) if "fieldveil: " in str(error) else None
    return None


@pytest.mark.parametrize("view", ["everyone", "nested", "joined"])
def test_a_view_over_a_protected_collection_is_refused(prepared, view, markers):
    secret = markers.text()
    wait_until(f"{view} to be known", lambda: refusal(lambda: prepared[view].find_one({"_id": 1})), seconds=40)
    for run in (lambda: prepared[view].find_one({"nhs_number": secret}),
                lambda: list(prepared[view].aggregate([{"$match": {"nhs_number": secret}}])),
                lambda: prepared[view].count_documents({"nhs_number": secret}),
                lambda: list(prepared.wards.aggregate([{"$lookup": {"from": view, "pipeline": [{"$match": {"nhs_number": secret}}], "as": "x"}}]))):
        said = refusal(run)
        assert said and view in said and secret not in said, said


def test_other_views_work(prepared):
    assert prepared.harmless.find_one({"_id": 1}) is None


def test_making_such_a_view_through_the_proxy_is_refused(prepared):
    assert "patients" in refusal(lambda: prepared.command("create", "mine", viewOn="patients", pipeline=[]))
