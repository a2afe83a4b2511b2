"""The `bulkWrite` command of MongoDB 8: this server does not know it and says so, and has seen no plaintext."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

import harness
from samples import patient

COLLECTIONS = {"patients": harness.PATIENTS, "staff": {"number": '{ mode = "deterministic", type = "string" }', "salary": '{ mode = "random" }'}}


def command(db_name, markers, **more):
    return {
        "bulkWrite": 1,
        "ops": [
            {"insert": 0, "document": patient(markers, 1)},
            {"insert": 1, "document": {"_id": 1, "number": markers.text(), "salary": markers.text()}},
            {"update": 0, "filter": {"mrn": markers.text()}, "updateMods": {"$set": {"notes": markers.text()}}, "multi": False},
            {"update": 0, "filter": {}, "updateMods": [{"$set": {"notes": markers.text()}}], "multi": True},
            {"delete": 1, "filter": {"number": markers.text()}, "multi": True},
        ],
        "nsInfo": [{"ns": f"{db_name}.patients"}, {"ns": f"{db_name}.staff"}],
        **more,
    }


def test_an_older_server_refuses_it_itself(app_client, oracle_client, db_name, markers):
    """Same code and text as without the proxy; the scan at the end of the module looks for the values."""
    said = []
    for client in (oracle_client, app_client):
        with pytest.raises(OperationFailure) as refused:
            client.admin.command(command(db_name, markers))
        said.append((refused.value.code, refused.value.details["codeName"], refused.value.details["errmsg"]))
    assert said[0] == said[1] and said[0][0] == 59, said


def test_what_cannot_be_planned_is_refused_by_the_proxy(app_client, db_name, markers):
    for change in ({"ops": [{"delete": 0, "filter": {"nhs_number": {"$gt": markers.text()}}}]},
                   {"future": markers.text()},
                   {"nsInfo": [{"ns": f"{db_name}.patients", "encryptionInformation": {}}]}):
        with pytest.raises(OperationFailure, match="fieldveil: ") as refused:
            app_client.admin.command(command(db_name, markers, **change))
        assert markers.find(str(refused.value.details).encode()) is None
