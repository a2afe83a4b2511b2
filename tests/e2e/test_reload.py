"""A new field map while cursors, transactions and streams are open: each command and each batch is under the rules that
hold when it passes, and what was known by the old ones is not used against the new."""

from __future__ import annotations

import dataclasses
import signal

import bson
import pytest
from pymongo.errors import OperationFailure

from harness import APP, is_envelope, wait_until
from packing import receive_any
from test_wire import EXHAUST, MORE_TO_COME, body, headed, log_in, message

COLLECTIONS = {"patients": {"mrn": '{ mode = "deterministic", type = "string" }', "notes": '{ mode = "random" }'}}
# What is written before the rules say so is plaintext.
LEAVES_PLAINTEXT = "fields become protected while their values are stored"


def reload(proxy, **fields) -> None:
    """Puts the field map in force with these fields added or changed."""
    count = lambda: proxy.log.read_text(errors="replace").count("field map and certificates reloaded")
    before = count()
    collection = proxy.collections[0]
    proxy.collections = [dataclasses.replace(collection, fields={**collection.fields, **fields})]
    proxy.write_config()
    proxy.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: count() > before, 60)


def test_cursor_transaction_and_stream_go_on_under_the_new_rules(proxy, app_client, app, direct, markers, db_name):
    made = [{"_id": f"a{n:02d}", "notes": markers.text(), "later": f"plain {n}"} for n in range(40)]
    app.patients.insert_many(made)
    cursor = app.patients.find({"_id": {"$regex": "^a"}}).sort("_id", 1).batch_size(5)
    found = [next(cursor) for _ in range(5)]
    sock = proxy.tls_socket(30)
    sock.sendall(message(body({"hello": 1, "$db": "admin"})))
    receive_any(sock)
    log_in(sock, *APP)
    sock.sendall(message(body({"find": "patients", "filter": {"_id": {"$regex": "^a"}}, "sort": {"_id": 1}, "batchSize": 5, "$db": db_name})))
    stream = headed(sock)[3]["cursor"]
    with app_client.start_session() as session:
        session.start_transaction()
        app.patients.insert_one({"_id": "b1", "later": "before the rule"}, session=session)

        reload(proxy, later='{ mode = "deterministic", type = "string", state = "migrating" }')

        app.patients.insert_one({"_id": "b2", "later": (sealed := markers.text())}, session=session)
        with pytest.raises(OperationFailure, match="fieldveil: .*later"):
            app.patients.find_one({"later": {"$gt": "a"}}, session=session)
        with pytest.raises(OperationFailure) as caught:
            session.commit_transaction()
        assert caught.value.code == 251
        with session.start_transaction():
            app.patients.insert_one({"_id": "b2", "later": sealed}, session=session)
    assert is_envelope(direct.patients.find_one({"_id": "b2"})["later"])
    assert app.patients.find_one({"later": sealed})["_id"] == "b2"
    found += list(cursor)
    assert found == made

    more = {"getMore": bson.Int64(stream["id"]), "collection": "patients", "batchSize": 5, "$db": db_name}
    sock.sendall(message(body(more), flags=EXHAUST))
    streamed = stream["firstBatch"]
    while True:
        _, _, flags, reply = headed(sock)
        assert reply["ok"] == 1, reply
        streamed += reply["cursor"]["nextBatch"]
        if not flags & MORE_TO_COME:
            break
    sock.close()
    assert streamed == made


def test_values_sealed_under_new_rules_are_at_home_in_old_cursors(proxy, app, direct, markers):
    """They were not when the cursor was opened: by the rules of then such a value is one that was moved."""
    app.patients.insert_many([{"_id": f"c{n}"} for n in range(6)])
    cursor = app.patients.find({"_id": {"$regex": "^c"}}).sort("_id", 1).batch_size(2)
    found = [next(cursor) for _ in range(2)]
    reload(proxy, mrn='{ mode = "deterministic", type = "string", domain = "renamed" }')
    late = [{"_id": f"cc{n}", "mrn": markers.text()} for n in range(6)]
    app.patients.insert_many(late)
    found += list(cursor)
    assert found == [{"_id": f"c{n}"} for n in range(6)] + late
    assert all(is_envelope(d["mrn"]) for d in direct.patients.find({"_id": {"$regex": "^cc"}}))
