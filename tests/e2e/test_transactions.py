"""Transactions belong to the server; the proxy must carry them whole, refusals included."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from samples import ids, patient


@pytest.fixture(autouse=True)
def empty(app):
    if "patients" not in app.list_collection_names():
        app.create_collection("patients")
    app.patients.delete_many({})


def test_commit(app_client, app, direct, markers):
    document = patient(markers, 1)
    with app_client.start_session() as session, session.start_transaction():
        app.patients.insert_one(document, session=session)
        assert app.patients.find_one({"nhs_number": document["nhs_number"]}, session=session) == document
        assert app.patients.find_one({"_id": 1}) is None, "visible outside before the commit"
    assert app.patients.find_one({"_id": 1}) == document


def test_abort_leaves_nothing(app_client, app, direct, markers):
    with app_client.start_session() as session:
        session.start_transaction()
        app.patients.insert_one(patient(markers, 1), session=session)
        session.abort_transaction()
    assert direct.patients.count_documents({}) == 0


def test_with_transaction_over_several_commands(app_client, app, markers):
    documents = [patient(markers, n) for n in range(3)]

    def body(session):
        app.patients.insert_many(documents, session=session)
        app.patients.update_one({"nhs_number": documents[0]["nhs_number"]}, {"$set": {"ward": "T"}}, session=session)
        app.patients.delete_one({"mrn": documents[2]["mrn"]}, session=session)
        return ids(app.patients.find({"postcode": {"$in": [d["postcode"] for d in documents]}}, session=session))
    with app_client.start_session() as session:
        assert session.with_transaction(body) == [0, 1]
    assert app.patients.find_one({"_id": 0})["ward"] == "T"


def broken_off(collection, statement, session):
    """A transaction whose second statement fails, and which the application wants to commit all the same."""
    collection.insert_one({"_id": "kept?"}, session=session)
    with pytest.raises(OperationFailure) as failed:
        statement(session)
    with pytest.raises(OperationFailure) as caught:
        session.commit_transaction()
    return failed.value.has_error_label("TransientTransactionError"), caught.value.code, caught.value.has_error_label("TransientTransactionError")


def test_a_refusal_ends_the_transaction_as_an_error_of_the_server_does(app_client, app, direct, oracle_client, oracle):
    """The server never sees what is refused here; committing the rest would be half a transaction, as nobody meant it."""
    oracle.patients.delete_many({})
    with oracle_client.start_session() as session, session.start_transaction():
        expected = broken_off(oracle.patients, lambda s: oracle.patients.find_one({"ward": {"$bogus": 1}}, session=s), session)
    with app_client.start_session() as session, session.start_transaction():
        actual = broken_off(app.patients, lambda s: app.patients.find_one({"nhs_number": {"$gt": "a"}}, session=s), session)
    assert actual == expected == (False, 251, True)
    assert direct.patients.count_documents({}) == oracle.patients.count_documents({}) == 0


def test_with_transaction_reports_the_refusal_itself(app_client, app, direct, markers):
    attempts = []

    def body(session):
        attempts.append(1)
        app.patients.insert_one(patient(markers, 1), session=session)
        app.patients.update_one({"nhs_number": {"$gt": "a"}}, {"$set": {"ward": "T"}}, session=session)
    with app_client.start_session() as session:
        with pytest.raises(OperationFailure, match="fieldveil: .*nhs_number"):
            session.with_transaction(body)
        assert len(attempts) == 1
        # The session is good for the next one.
        session.with_transaction(lambda s: app.patients.insert_one(patient(markers, 2), session=s))
    assert [d["_id"] for d in direct.patients.find()] == [2]


def test_write_conflict_keeps_its_label(app_client, app, markers):
    app.patients.insert_one(patient(markers, 1))
    with app_client.start_session() as one, app_client.start_session() as two:
        one.start_transaction()
        two.start_transaction()
        app.patients.update_one({"_id": 1}, {"$set": {"nhs_number": markers.text()}}, session=one)
        with pytest.raises(OperationFailure) as caught:
            app.patients.update_one({"_id": 1}, {"$set": {"nhs_number": markers.text()}}, session=two)
        assert caught.value.code == 112
        assert caught.value.has_error_label("TransientTransactionError")
        one.commit_transaction()


def test_snapshot_and_causal_reads(app_client, app, markers):
    document = patient(markers, 1)
    with app_client.start_session(causal_consistency=True) as session:
        app.patients.insert_one(document, session=session)
        majority = app.patients.with_options(read_concern=ReadConcern("majority"))
        assert majority.find_one({"nhs_number": document["nhs_number"]}, session=session) == document
    with app_client.start_session(snapshot=True) as session:
        assert app.patients.find_one({"nhs_number": document["nhs_number"]}, session=session) == document
