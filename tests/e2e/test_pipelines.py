"""Requests sent before their predecessors are answered, clients that close or read in their own time, and who is held
responsible meanwhile: as on a direct connection, however many there are and however they are cut into packets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import struct
import time
import uuid

import bson
import pytest

import harness
from harness import ADMIN, APP, Proxy, exactly, metric, op_msg, receive, wait_until
from packing import compressed, receive_any
from samples import patient
from test_wire import EXHAUST, MORE_TO_COME, PING, body, headed, log_in, message, sequence


def connect(target, user=APP, timeout: float = 60):
    sock = target.tls_socket(timeout)
    sock.sendall(message(body({"hello": 1, "compression": ["snappy"], "$db": "admin"})))
    receive_any(sock)
    if user:
        log_in(sock, *user)
    return sock


def ask(sock, command: dict) -> dict:
    sock.sendall(message(body(command)))
    return receive_any(sock)[1]


# --- how many, in what pieces -----------------------------------------------------------------------------------------


def test_any_number_of_requests_may_wait_for_their_replies(proxy):
    """Several thousand: those that the proxy has no place for wait in the sockets, as they would in front of a server."""
    count = 5000
    with connect(proxy) as sock:
        sock.sendall(b"".join(op_msg({"ping": 1, "$db": "admin"}, request_id=n) for n in range(1, count + 1)))
        assert [receive(sock)[0] for _ in range(count)] == list(range(1, count + 1))


def test_byte_by_byte_is_as_good_as_at_once(proxy, app, markers, db_name):
    """Forwarded, refused, unacknowledged, compressed and malformed commands in one stream, with request ids that a careless
    proxy would trip over."""
    def stream(label: str) -> bytes:
        one, two = patient(markers, f"{label} one"), patient(markers, f"{label} two")
        return b"".join([
            message(sequence("documents", [one]), body({"insert": "patients", "$db": db_name}), request_id=0),
            message(body({"find": "patients", "filter": {"notes": {"$gt": "a"}}, "$db": db_name}), request_id=-1),
            compressed(message(body({"find": "patients", "filter": {"mrn": one["mrn"]}, "$db": db_name}), request_id=-1), "snappy"),
            message(body({"insert": "patients", "documents": [two], "writeConcern": {"w": 0}, "$db": db_name}), flags=MORE_TO_COME, request_id=-1),
            message(body({"count": "patients", "query": {"mrn": two["mrn"]}, "$db": db_name}), request_id=2**31 - 1),
            compressed(message(body({"count": "patients", "query": {"notes": "a"}, "$db": db_name}), request_id=-2**31), "snappy"),
            message(body({"ping": 1}), request_id=5), message(body(PING), request_id=5),
        ])

    def told(label: str, pieces) -> list:
        with connect(proxy) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces(stream(label)):
                sock.sendall(piece)
            replies = [receive_any(sock) for _ in range(7)]
        return [(to, reply["ok"], reply.get("n"), reply.get("code"), [d["_id"].split()[1] for d in reply.get("cursor", {}).get("firstBatch", [])], by)
                for to, reply, by in replies]

    whole = told("whole", lambda data: [data])
    assert [(to, ok, n, found) for to, ok, n, _, found, _ in whole] == [
        (0, 1, 1, []), (-1, 0, None, []), (-1, 1, None, ["one"]), (2**31 - 1, 1, 1, []), (-2**31, 0, None, []), (5, 0, None, []), (5, 1, None, [])]
    assert told("bytes", lambda data: [data[n:n + 1] for n in range(len(data))]) == whole
    assert told("sevens", lambda data: [data[n:n + 7] for n in range(0, len(data), 7)]) == whole


# --- who it is --------------------------------------------------------------------------------------------------------


class Login:
    """A SCRAM conversation whose last message can be sent together with what follows it."""

    def __init__(self, sock, user: str, password: str):
        bare = f"n={user},r=fieldveil"
        first = ask(sock, {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": f"n,,{bare}".encode(),
                           "options": {"skipEmptyExchange": True}, "$db": "admin"})
        assert first["ok"] == 1, first
        given = dict(part.split("=", 1) for part in first["payload"].decode().split(","))
        digest = lambda key, text: hmac.new(key, text, hashlib.sha256).digest()
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(given["s"]), int(given["i"]))
        key = digest(salted, b"Client Key")
        final = f"c=biws,r={given['r']}"
        signature = digest(hashlib.sha256(key).digest(), f"{bare},{first['payload'].decode()},{final}".encode())
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
        self.last = {"saslContinue": 1, "conversationId": first["conversationId"], "payload": f"{final},p={proof}".encode(), "$db": "admin"}


def principals(proxy, mrn_count: int) -> list:
    """Those of the last inserts in the audit, oldest first."""
    def read():
        events = [json.loads(line) for line in proxy.audit.read_text().splitlines()]
        inserts = [e for e in events if e.get("command") == "insert"]
        return inserts if len(inserts) >= mrn_count else None
    return [e.get("principal") for e in wait_until("the events", read)[-mrn_count:]]


def inserts(proxy) -> int:
    return sum('"command":"insert"' in line.replace(" ", "") for line in proxy.audit.read_text().splitlines())


def insert_of(markers, label: str, db: str) -> bytes:
    return message(body({"insert": "patients", "documents": [patient(markers, label)], "$db": db}), request_id=11)


def test_a_command_right_behind_a_login_is_that_users(proxy, markers, db_name):
    """The server has let the user in by the time it reads the command, so the proxy must have noticed, too."""
    with connect(proxy, user=None) as sock:
        login = Login(sock, *APP)
        sock.sendall(message(body(login.last), request_id=10) + insert_of(markers, "behind a login", db_name))
        assert [receive_any(sock)[1]["ok"] for _ in range(2)] == [1, 1]
        # Another user on the same connection, all in one segment; the audit must name who did it.
        sock.sendall(message(body({"logout": 1, "$db": "admin"})))
        assert receive_any(sock)[1]["ok"] == 1
        assert ask(sock, {"insert": "patients", "documents": [{"_id": "nobody"}], "$db": db_name})["code"] == 13
        login = Login(sock, *ADMIN)
        before = inserts(proxy)
        sock.sendall(message(body(login.last), request_id=10) + insert_of(markers, "behind another", db_name)
                     + message(body({"logout": 1, "$db": "admin"}), request_id=12) + insert_of(markers, "behind a logout", db_name))
        replies = [receive_any(sock)[1] for _ in range(4)]
        assert [reply["ok"] for reply in replies] == [1, 1, 1, 0] and replies[3]["code"] == 13
    wait_until("the event", lambda: inserts(proxy) > before)
    events = [json.loads(line) for line in proxy.audit.read_text().splitlines()]
    done = [e for e in events if e.get("command") == "insert"]
    by = {e["principal"] for e in done if e.get("outcome") == "ok"} if all("outcome" in e for e in done) else {e.get("principal") for e in done}
    assert {"app@admin", "admin@admin"} <= by, done


@pytest.mark.parametrize("command", [
    {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,,n=app,r=x"}, {"saslContinue": 1, "conversationId": 1, "payload": b""}, {"logout": 1},
], ids=lambda c: next(iter(c)))
def test_whoever_changes_user_without_a_reply_is_cut_off(proxy, command):
    """The server would do it in silence, and the audit would go on naming the user from before."""
    with connect(proxy) as sock:
        sock.sendall(message(body({**command, "$db": "admin"}), flags=MORE_TO_COME) + message(body(PING)))
        with pytest.raises(OSError):
            receive_any(sock)


def test_nobody_sends_large_messages_before_a_login(proxy, db_name):
    """Whoever may not do anything yet does not fill the proxy's memory either; a login in the same packet is waited for."""
    large = message(body({"find": "others", "filter": {"ward": "x" * (2 << 20)}, "$db": db_name}), request_id=9)
    for pack in (lambda m: m, lambda m: compressed(m, "snappy")):
        with connect(proxy, user=None) as sock:
            with pytest.raises(OSError):
                sock.sendall(pack(large))
                receive_any(sock)
    with connect(proxy, user=None) as sock:
        sock.sendall(message(body(Login(sock, *APP).last)) + large)
        assert [receive_any(sock)[1]["ok"] for _ in range(2)] == [1, 1]


# --- transactions -----------------------------------------------------------------------------------------------------


class Transaction:
    def __init__(self):
        self.fields = {"lsid": {"id": bson.Binary(uuid.uuid4().bytes, 4)}, "txnNumber": bson.Int64(1), "autocommit": False}

    def first(self, command: dict) -> dict:
        return {**command, **self.fields, "startTransaction": True}

    def next(self, command: dict) -> dict:
        return {**command, **self.fields}

    def commit(self) -> dict:
        return {"commitTransaction": 1, **self.fields, "$db": "admin"}


REFUSED = {"count": "patients", "query": {"notes": {"$gt": "a"}}}


def begin(sock, transaction: Transaction, markers, db: str, label: str) -> None:
    reply = ask(sock, transaction.first({"insert": "patients", "documents": [patient(markers, label)], "$db": db}))
    assert reply["ok"] == 1, reply


@pytest.mark.parametrize("refused", ["planned", "unknown command", "a field twice", "by a UUID"])
def test_a_refused_statement_ends_its_transaction_for_every_connection(proxy, server, app, markers, db_name, refused):
    app.patients.insert_one(patient(markers, f"exists before {refused}"))
    transaction = Transaction()
    statement = transaction.next({"planned": {**REFUSED, "$db": db_name}, "unknown command": {"bogus": "patients", "$db": db_name},
                                  "a field twice": {"count": "patients", "query": {}, "$db": db_name},
                                  "by a UUID": {"find": bson.Binary(bytes(16), 4), "$db": db_name}}[refused])
    raw = bson.encode(statement)
    if refused == "a field twice":
        extra = bson.encode({"query": {"notes": 1}})[4:-1]
        raw = struct.pack("<i", len(raw) + len(extra)) + raw[4:-1] + extra + b"\0"
    with connect(proxy) as sock, connect(server) as direct:
        begin(sock, transaction, markers, db_name, f"undone {refused}")
        sock.sendall(message(b"\0" + raw))
        reply = receive_any(sock)[1]
        assert reply["ok"] == 0 and reply["errmsg"].startswith("fieldveil: ") and "errorLabels" not in reply
        # No word of it on this connection is needed: the server itself has ended it.
        reply = ask(direct, transaction.commit())
        assert (reply["code"], reply["errorLabels"]) == (251, ["TransientTransactionError"])
    assert app.patients.count_documents({"_id": f"undone {refused}"}) == 0


def test_a_pipeline_commits_nothing_of_a_transaction_with_a_refused_statement(proxy, app, markers, db_name):
    app.patients.insert_one(patient(markers, "exists"))
    transaction = Transaction()
    insert = lambda label: {"insert": "patients", "documents": [patient(markers, label)], "$db": db_name}
    for pack in (lambda m: m, lambda m: compressed(m, "snappy")):
        transaction.fields["txnNumber"] = bson.Int64(transaction.fields["txnNumber"] + 1)
        with connect(proxy) as sock:
            sock.sendall(b"".join(pack(message(body(command), request_id=n)) for n, command in enumerate([
                transaction.first(insert("part one")), transaction.next({**REFUSED, "$db": db_name}), transaction.next(insert("part two")), transaction.commit(), PING])))
            replies = [receive_any(sock)[:2] for _ in range(5)]
        assert [(to, reply["ok"], reply.get("code") == 251) for to, reply in replies] == [
            (0, 1, False), (1, 0, False), (2, 0, True), (3, 0, True), (4, 1, False)], replies
        assert "notes" in replies[1][1]["errmsg"]
    assert app.patients.count_documents({"_id": {"$regex": "^part "}}) == 0


def test_a_transaction_whose_first_statement_is_refused_never_was(proxy, app, markers, db_name):
    transaction = Transaction()
    with connect(proxy) as sock:
        assert ask(sock, transaction.first({**REFUSED, "$db": db_name}))["errmsg"].startswith("fieldveil: ")
        for command in (transaction.next({"insert": "patients", "documents": [patient(markers, "never")], "$db": db_name}), transaction.commit()):
            reply = ask(sock, command)
            assert (reply["code"], reply["errorLabels"]) == (251, ["TransientTransactionError"])
    assert app.patients.count_documents({"_id": "never"}) == 0


def test_a_refused_statement_without_reply_ends_its_transaction_too(proxy, server, app, markers, db_name):
    app.patients.insert_one(patient(markers, "exists, too"))
    transaction = Transaction()
    with connect(proxy) as sock, connect(server) as direct:
        begin(sock, transaction, markers, db_name, "undone in silence")
        sock.sendall(message(body(transaction.next({**REFUSED, "$db": db_name})), flags=MORE_TO_COME))
        with pytest.raises(OSError):
            receive_any(sock)
        wait = lambda: ask(direct, transaction.next({"find": "patients", "limit": 1, "$db": db_name})).get("code") == 251
        wait_until("the transaction to be over", wait)
        assert ask(direct, transaction.commit())["code"] == 251


def test_a_reply_that_cannot_be_opened_ends_its_transaction(proxy, server, app, direct, markers, db_name):
    """The server has done what was asked, the client is told that it failed: only undoing it makes that true."""
    app.patients.insert_one(patient(markers, "tampered"))
    stored = direct.patients.find_one({"_id": "tampered"})["mrn"]
    broken = bson.Binary(stored[:-1] + bytes([stored[-1] ^ 1]), 0x80)
    direct.patients.update_one({"_id": "tampered"}, {"$set": {"mrn": broken}})
    transaction = Transaction()
    modify = {"findAndModify": "patients", "query": {"_id": "tampered"}, "update": {"$set": {"ward": "Z9"}}, "$db": db_name}
    with connect(proxy) as sock, connect(server) as second:
        reply = ask(sock, transaction.first(modify))
        assert reply["ok"] == 0 and reply["errmsg"].startswith("fieldveil: "), reply
        assert ask(second, transaction.commit())["code"] == 251
    assert direct.patients.find_one({"_id": "tampered"})["ward"] == "A1"
    direct.patients.delete_one({"_id": "tampered"})


# --- clients that close or read in their own time ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_proxy(session_dir, server, proxy):
    """A listener without TLS, whose clients can close one direction only."""
    made = Proxy(session_dir / "pipelines-plain", server, proxy.collections, vault="encryption.pipelines_plain", plaintext_listener=True)
    made.start()
    yield made
    assert made.stop() == 0


def bulk(server, db: str, name: str, count: int, size: int) -> None:
    with server.client(ADMIN) as client:
        client[db].command("profile", 0)
        for at in range(0, count, 10):
            client[db][name].insert_many([{"_id": n, "padding": bytes(size)} for n in range(at, min(at + 10, count))])


def test_a_client_that_has_closed_its_own_direction_gets_what_it_asked_for(plain_proxy, server, db_name):
    """Also where reading it takes longer than a goodbye may."""
    bulk(server, db_name, "half_closed", 12, 1 << 20)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", plain_proxy.port))
    with sock:
        sock.sendall(message(body({"hello": 1, "$db": "admin"})))
        receive_any(sock)
        log_in(sock, *APP)
        sock.sendall(message(body({"find": "half_closed", "sort": {"_id": 1}, "$db": db_name}), request_id=1)
                     + message(body({"hello": 1, "$db": "admin"}), request_id=2))
        sock.shutdown(socket.SHUT_WR)
        time.sleep(4)
        first = receive_any(sock)
        assert first[0] == 1 and [d["_id"] for d in first[1]["cursor"]["firstBatch"]] == list(range(12))
        assert receive_any(sock)[0] == 2
        assert sock.recv(1) == b""


def test_a_hello_is_answered_though_its_client_has_closed(plain_proxy):
    with socket.create_connection(("127.0.0.1", plain_proxy.port), 60) as sock:
        sock.sendall(message(body({"hello": 1, "$db": "admin"})))
        sock.shutdown(socket.SHUT_WR)
        assert receive_any(sock)[1]["ok"] == 1


def test_a_client_that_has_gone_is_noticed_while_nothing_more_is_taken_of_it(plain_proxy):
    """As many requests wait as may: what the client does then is seen all the same."""
    before = metric(plain_proxy, "fieldveil_connections")
    with socket.create_connection(("127.0.0.1", plain_proxy.port), 60) as sock:
        sock.sendall(message(body({"hello": 1, "$db": "admin"})))
        version = receive_any(sock)[1]["topologyVersion"]
        waiting = body({"hello": 1, "topologyVersion": version, "maxAwaitTimeMS": 600_000, "$db": "admin"})
        sock.sendall(b"".join(message(waiting, request_id=n) for n in range(1024)))
        time.sleep(1)
        assert metric(plain_proxy, "fieldveil_connections") == before + 1
    wait_until("its connection to end", lambda: metric(plain_proxy, "fieldveil_connections") == before, 20)


def test_a_client_that_has_gone_is_not_waited_for_by_a_server_that_says_nothing(plain_proxy, server, db_name):
    with server.client(ADMIN) as client:
        client[db_name].create_collection("tail", capped=True, size=4096)
        client[db_name].tail.insert_one({})
    before = metric(plain_proxy, "fieldveil_connections")
    with socket.create_connection(("127.0.0.1", plain_proxy.port), 60) as sock:
        sock.sendall(message(body({"hello": 1, "$db": "admin"})))
        receive_any(sock)
        log_in(sock, *APP)
        cursor = ask(sock, {"find": "tail", "tailable": True, "awaitData": True, "$db": db_name})["cursor"]["id"]
        sock.sendall(message(body({"getMore": bson.Int64(cursor), "collection": "tail", "maxTimeMS": 300_000, "$db": db_name})))
        time.sleep(1)
    assert metric(plain_proxy, "fieldveil_connections") == before + 1, "it may have closed its own direction only"
    wait_until("its connection to end", lambda: metric(plain_proxy, "fieldveil_connections") == before, 90)


def test_a_reader_that_lags_behind_a_stream_costs_no_memory(plain_proxy, server, db_name):
    """What it has read must be gone from the proxy, although there is always more to read."""
    count, size = 100, 1 << 20
    bulk(server, db_name, "stream", count, size)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", plain_proxy.port))
    with sock:
        sock.sendall(message(body({"hello": 1, "$db": "admin"})))
        receive_any(sock)
        log_in(sock, *APP)
        sock.sendall(message(body({"find": "stream", "batchSize": 1, "$db": db_name})))
        cursor = headed(sock)[3]["cursor"]
        more = {"getMore": bson.Int64(cursor["id"]), "collection": "stream", "batchSize": 1, "$db": db_name}
        before = most = plain_proxy.resident_bytes()
        sock.sendall(message(body(more), flags=EXHAUST))
        seen = len(cursor["firstBatch"])
        while True:
            _, _, flags, reply = headed(sock)
            seen += len(reply["cursor"]["nextBatch"])
            if not flags & MORE_TO_COME:
                break
            time.sleep(0.01)
            most = max(most, plain_proxy.resident_bytes())
        assert seen == count
    print(f"{count * size >> 20} MiB passed; at most {(most - before) >> 20} MiB more resident than before")
    assert most - before < 24 << 20
