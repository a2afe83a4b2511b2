"""Many sessions at once, cursors that outlive the command that opened them, and either side cut off in the middle of a
message: nobody sees another's data, half a message or a reply that belongs to another request."""

from __future__ import annotations

import random
import socket
import struct
import threading

import pytest
from pymongo import WriteConcern
from pymongo.errors import OperationFailure, PyMongoError

import harness
from harness import Collection, Mongod, Proxy, is_envelope, wait_until
from samples import patient

THREADS = 12


def together(count: int, work) -> None:
    """Runs `work(number)` in so many threads; the first failure is the test's."""
    failed: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as e:  # noqa: BLE001 - told below
            failed.append(e)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(100)
    assert not any(t.is_alive() for t in threads), "a thread hangs"
    if failed:
        raise failed[0]


@pytest.mark.parametrize("compressors", ["", "zlib,zstd"])
def test_transactions_side_by_side(proxy, direct, db_name, markers, compressors):
    """Each moves what it owns between its two documents, aborts now and then, and always reads what it wrote."""
    made = {n: [patient(markers, f"side {compressors} {n} {which}") for which in "ab"] for n in range(THREADS)}
    with proxy.client(maxPoolSize=THREADS, **({"compressors": compressors} if compressors else {})) as client:
        c = client[db_name].patients
        c.insert_many([d for pair in made.values() for d in pair])

        def work(number: int) -> None:
            r = random.Random(number)
            pair = made[number]
            for round_ in range(8):
                with client.start_session() as session:
                    session.start_transaction(write_concern=WriteConcern("majority"))
                    changed = [d | {"notes": markers.text(), "mrn": markers.text()} for d in pair]
                    for d in changed:
                        done = c.update_one({"nhs_number": d["nhs_number"]}, {"$set": {"notes": d["notes"], "mrn": d["mrn"]}}, session=session)
                        assert done.modified_count == 1
                    assert [c.find_one({"mrn": d["mrn"]}, session=session) for d in changed] == changed
                    if r.random() < 0.3:
                        session.abort_transaction()
                        assert [c.find_one({"mrn": d["mrn"]}) for d in changed] == [None, None]
                    else:
                        session.commit_transaction()
                        pair = changed
                if round_ % 3 == 0:
                    with pytest.raises(OperationFailure, match="fieldveil: .*notes"):
                        c.find_one({"notes": {"$gt": "a"}})
            made[number] = pair

        together(THREADS, work)
        for pair in made.values():
            assert [c.find_one({"_id": d["_id"]}) for d in pair] == pair
    for d in direct.patients.find({"_id": {"$regex": f"^side {compressors} "}}):
        assert is_envelope(d["notes"]) and is_envelope(d["mrn"])


def test_cursors_outlive_their_command(proxy, db_name, markers):
    """Cursors of many sessions, taken turns with over a pool smaller than their number, in between other commands; some are left open."""
    with proxy.client(maxPoolSize=4) as client:
        c = client[db_name].patients
        made = [patient(markers, f"cursor {n:03d}") for n in range(120)]
        c.insert_many(made)
        mine = {"_id": {"$regex": "^cursor "}}
        cursors = [c.find(mine).sort("_id", 1).batch_size(size) for size in (2, 3, 7, 20, 50)] + [
            c.aggregate([{"$match": mine}, {"$sort": {"_id": 1}}], batchSize=size) for size in (2, 5, 30)]
        seen = [[] for _ in cursors]
        for turn in range(len(made)):
            for at, cursor in enumerate(cursors):
                seen[at].append(next(cursor))
            if turn % 10 == 0:
                assert c.find_one({"nhs_number": made[turn]["nhs_number"]}) == made[turn]
        assert all(documents == made for documents in seen)

        def work(number: int) -> None:
            found = []
            for document in c.find(mine).sort("_id", 1).batch_size(number + 2):
                found.append(document)
                if number % 3 == 0 and len(found) == 40:
                    return  # left open: the server ends it, or the driver does
            assert found == made

        together(THREADS, work)


@pytest.fixture(scope="module")
def fragile(session_dir, certs, markers):
    """A server that may be killed, and a proxy in front of it."""
    mongod = Mongod(session_dir / "fragile-mongod", certs, verbose=False).start().initiate()
    proxy = Proxy(session_dir / "fragile-proxy", mongod, [Collection("t_fragile.patients", harness.PATIENTS, "nhs_number")]).start()
    yield mongod, proxy
    if mongod.process.poll() is not None:
        mongod.start().wait_primary()
    scan = proxy.scan(["t_fragile", "encryption"])
    assert proxy.stop() == 0
    scan.assert_clean(markers)
    assert "panicked" not in proxy.log.read_text(errors="replace")
    mongod.stop()


def test_server_killed_in_the_middle_of_replies(fragile, markers):
    mongod, proxy = fragile
    with proxy.client(replica_set=False, retryReads=False, serverSelectionTimeoutMS=2000, compressors="zlib") as client:
        c = client.t_fragile.patients.with_options(write_concern=WriteConcern("majority", j=True))
        made = [patient(markers, f"large {n}") | {"padding": "x" * 200_000} for n in range(60)]
        for at in range(0, 60, 10):
            c.insert_many(made[at : at + 10])
        going, killed, outcomes = threading.Barrier(7), threading.Event(), []

        def read(number: int) -> None:
            going.wait(20)
            for _ in range(200):
                try:
                    found = list(c.find({"_id": {"$regex": "^large "}}).batch_size(number * 3 + 1))
                except PyMongoError as e:
                    outcomes.append(e)
                    if killed.is_set():
                        return
                else:
                    # A list that ends without an error is whole.
                    assert len(found) == 60 and all(d["padding"] == "x" * 200_000 for d in found)

        def kill() -> None:
            going.wait(20)
            wait_until("some traffic", lambda: harness.metric(proxy, "fieldveil_connections") > 3, 10)
            mongod.kill9()
            killed.set()

        together(7, lambda n: kill() if n == 6 else read(n))
        assert len(outcomes) >= 6, "each reader met the end of the server"
        assert all(not isinstance(e, OperationFailure) for e in outcomes), "the end of a connection, not an error of somebody's"
        assert proxy.process.poll() is None
        wait_until("no connection left over", lambda: harness.metric(proxy, "fieldveil_connections") <= 2, 15)
        mongod.start().wait_primary()
        wait_until("reads again", lambda: len(list(c.find({"_id": {"$regex": "^large "}}, {"_id": 1}))) == 60, 30)


def test_clients_that_vanish_in_the_middle_of_requests_and_replies(fragile, markers):
    mongod, proxy = fragile
    with proxy.client(replica_set=False) as client:
        c = client.t_fragile.patients
        c.insert_many([patient(markers, f"vanish {n}") | {"padding": "x" * 100_000} for n in range(30)])
        before = harness.metric(proxy, "fieldveil_connections")

        def vanish(number: int) -> None:
            r = random.Random(number)
            for _ in range(15):
                with proxy.client(replica_set=False, maxPoolSize=1) as other:
                    found = other.t_fragile.patients.find({"_id": {"$regex": "^vanish "}}).batch_size(10)
                    next(found)
                sock = proxy.tls_socket()
                # Half a hello, or hellos whose answers nobody reads; then the cable is pulled.
                hello = harness.op_msg({"hello": 1, "$db": "admin"})
                sock.sendall(hello[: r.randint(1, len(hello) - 1)] if r.random() < 0.5 else hello * 40)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

        together(8, vanish)
        wait_until("those connections to be gone", lambda: harness.metric(proxy, "fieldveil_connections") <= before + 2, 20)
        assert c.count_documents({"_id": {"$regex": "^vanish "}}) == 30
        # What looks after the database looks again within a few seconds.
        wait_until("readiness", lambda: proxy.http("/readyz")[0] == 200, 15)
