"""Replies that come in several pieces are opened in every piece."""

from __future__ import annotations

import pytest
from bson import Int64
from pymongo import CursorType
from pymongo.errors import OperationFailure

from harness import metric, wait_until
from samples import patient

COUNT = 500


@pytest.fixture(scope="module")
def documents(app, markers):
    made = [patient(markers, n) for n in range(COUNT)]
    app.patients.insert_many(made)
    return made


@pytest.mark.parametrize("batch_size", [2, 101, 1000])
def test_find_in_batches(app, documents, batch_size):
    count = COUNT if batch_size > 2 else 21
    assert list(app.patients.find().sort("_id", 1).limit(count).batch_size(batch_size)) == documents[:count]


def test_aggregate_in_batches(app, documents):
    assert list(app.patients.aggregate([{"$sort": {"_id": 1}}], batchSize=50)) == documents


def test_exhaust_cursor(proxy, db_name, documents):
    with proxy.client(replica_set=False) as client:
        found = list(client[db_name].patients.find(cursor_type=CursorType.EXHAUST).sort("_id", 1).batch_size(50))
    assert found == documents


def test_two_cursors_interleaved(app, documents):
    forward = app.patients.find().sort("_id", 1).batch_size(7)
    backward = app.patients.find().sort("_id", -1).batch_size(11)
    for n in range(60):
        assert next(forward) == documents[n]
        assert next(backward) == documents[COUNT - 1 - n]


def test_closed_cursor_is_killed_on_the_server(app, direct_client, documents):
    cursor = app.patients.find().batch_size(2)
    next(cursor)
    number = cursor.cursor_id
    cursor.close()
    open_cursors = lambda: [op["cursor"]["cursorId"] for op in direct_client.admin.aggregate(
        [{"$currentOp": {"idleCursors": True, "allUsers": True}}]) if op.get("cursor")]
    wait_until("the cursor to be gone", lambda: number not in open_cursors())


def test_get_more_on_a_cursor_of_nobody(app):
    with pytest.raises(OperationFailure) as caught:
        app.command("getMore", Int64(123456789), collection="patients")
    assert caught.value.code == 43, "the server's own CursorNotFound"


def test_change_stream_is_opened(app, markers):
    new, value = patient(markers, "stream"), markers.text()
    with app.patients.watch(full_document="updateLookup", max_await_time_ms=500) as stream:
        app.patients.insert_one(new)
        app.patients.update_one({"_id": "stream"}, {"$set": {"nhs_number": value, "contacts.0.phone": value}})
        inserted, updated = next(stream), next(stream)
    assert inserted["fullDocument"] == new
    assert updated["updateDescription"]["updatedFields"] == {"nhs_number": value, "contacts.0.phone": value}
    assert updated["fullDocument"]["nhs_number"] == value
    app.patients.delete_one({"_id": "stream"})


def test_what_is_out_of_its_place_is_found_in_every_batch(proxy, app, direct, documents):
    """Plaintext past the proxy is counted, a ciphertext moved to another field refused; wherever in the reply."""
    assert metric(proxy, "fieldveil_plaintext_found_total") == 0, "something else was taken for plaintext"
    direct.patients.insert_one({"_id": COUNT, "nhs_number": "stored past the proxy"})
    reads = [lambda: app.patients.find().sort("_id", 1).batch_size(50), lambda: app.patients.aggregate([{"$sort": {"_id": 1}}], batchSize=50)]
    for n, read in enumerate(reads, 1):
        assert [d["nhs_number"] for d in read()][-1] == "stored past the proxy"
        wait_until("it to be counted", lambda: metric(proxy, "fieldveil_plaintext_found_total") == n, 5)
    direct.patients.update_one({"_id": COUNT}, {"$set": {"nhs_number": direct.patients.find_one({"_id": 0})["mrn"]}})
    for read in reads:
        with pytest.raises(OperationFailure, match="moved there from another field"):
            list(read())
    direct.patients.delete_one({"_id": COUNT})
