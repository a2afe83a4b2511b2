"""What a client may do that no driver does: names of other types, connections that end at the wrong moment, logins by
somebody else's certificate."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct

import bson
import pytest
from harness import ADMIN, APP, OP_MSG, OP_QUERY, frame, op_msg, receive, wait_until
from pymongo.errors import OperationFailure


def login(sock, user: tuple[str, str] = APP) -> None:
    """SCRAM by hand, so that a test owns the socket."""
    def ask(command: dict) -> dict:
        sock.sendall(op_msg({**command, "$db": "admin"}))
        answer = receive(sock)[1]
        assert answer["ok"], answer
        return answer

    ask({"hello": 1})
    first = f"n={user[0]},r={secrets.token_hex(12)}"
    begun = ask({"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": f"n,,{first}".encode(), "options": {"skipEmptyExchange": True}})
    challenge = begun["payload"].decode()
    parts = dict(part.split("=", 1) for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", user[1].encode(), base64.b64decode(parts["s"]), int(parts["i"]))
    key = hmac.new(salted, b"Client Key", "sha256").digest()
    final = f"c=biws,r={parts['r']}"
    signature = hmac.new(hashlib.sha256(key).digest(), f"{first},{challenge},{final}".encode(), "sha256").digest()
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
    assert ask({"saslContinue": 1, "conversationId": begun["conversationId"], "payload": f"{final},p={proof}".encode()})["done"]


@pytest.fixture
def raw(proxy):
    with proxy.tls_socket() as sock:
        login(sock)
        yield sock


def by_symbol(command: dict) -> bytes:
    """The command's message with its first value, a string, turned into a symbol."""
    body = bytearray(bson.encode(command))
    assert body[4] == 2
    body[4] = 14
    return frame(OP_MSG, struct.pack("<I", 0) + b"\0" + bytes(body))


def test_rejects_a_collection_named_by_a_symbol(raw, direct, db_name, markers, name):
    """The server takes a symbol for the same name."""
    for command in (
        {"insert": "patients", "documents": [{"_id": name, "nhs_number": markers.text()}]},
        {"update": "patients", "updates": [{"q": {"_id": name}, "u": {"$set": {"nhs_number": markers.text()}}, "upsert": True}]},
        {"findAndModify": "patients", "query": {"_id": name}, "update": {"nhs_number": markers.text()}, "upsert": True},
    ):
        raw.sendall(by_symbol({**command, "$db": db_name}))
        assert receive(raw)[1]["errmsg"].startswith("fieldveil: ")
    assert direct.patients.find_one({"_id": name}) is None


def test_rejects_a_collection_named_by_its_uuid(proxy, app, direct, markers):
    """Administrators may name a collection so; the field map knows no UUID."""
    app.patients.insert_one({"nhs_number": markers.text()})
    uuid = direct.command("listCollections", filter={"name": "patients"})["cursor"]["firstBatch"][0]["info"]["uuid"]
    with proxy.client(ADMIN) as admin, pytest.raises(OperationFailure, match="fieldveil: "):
        admin[app.name].command({"find": uuid, "filter": {"nhs_number": markers.text()}})


def test_rejects_a_legacy_command_beside_a_wrapped_hello(proxy, db_name, markers):
    """Only a `$query` that comes first is unwrapped by the server."""
    command = {"insert": "patients", "documents": [{"nhs_number": markers.text()}], "$query": {"hello": 1}}
    query = struct.pack("<i", 4) + f"{db_name}.$cmd".encode() + b"\0" + struct.pack("<ii", 0, -1) + bson.encode(command)
    with proxy.tls_socket() as sock:
        sock.sendall(frame(OP_QUERY, query))
        answer = b""
        while b"fieldveil: " not in answer:
            chunk = sock.recv(4096)
            assert chunk, f"closed after {answer!r}"
            answer += chunk


def test_keeps_unacknowledged_writes_before_a_refused_one(proxy, direct, db_name, markers, name):
    """A refusal without a reply closes the connection; what came before it still reaches the server."""
    good = {"insert": "patients", "documents": [{"_id": name, "nhs_number": markers.text()}], "writeConcern": {"w": 0}, "$db": db_name}
    bad = {"update": "patients", "updates": [{"q": {}, "u": {"$inc": {"nhs_number": 1}}}], "writeConcern": {"w": 0}, "$db": db_name}
    with proxy.tls_socket() as sock:
        login(sock)
        sock.sendall(op_msg(good, flags=2) + op_msg(bad, request_id=2, flags=2))
        with pytest.raises(ConnectionError):
            receive(sock)
    wait_until("the first write", lambda: direct.patients.find_one({"_id": name}), 5)
