"""The wire protocol by hand: each row is sent to the server and to the proxy, and both must answer the same: the same
replies with the same codes, or none, or the end of the connection. Where the proxy is stricter on purpose the row says so."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import random
import struct

import bson
import pytest

import harness
from harness import ADMIN, OP_MSG, OP_QUERY, Collection, Mongod, Proxy, exactly, frame, is_envelope
from packing import compressed, receive_any
from samples import patient

MORE_TO_COME, EXHAUST = 1 << 1, 1 << 16
LAST = 99_999


# --- making messages --------------------------------------------------------------------------------------------------


def body(document: dict) -> bytes:
    return b"\0" + bson.encode(document)


def sequence(name: str, documents: list[dict]) -> bytes:
    data = b"".join(map(bson.encode, documents))
    return b"\1" + struct.pack("<i", 4 + len(name) + 1 + len(data)) + name.encode() + b"\0" + data


def message(*sections: bytes, flags: int = 0, request_id: int = 7) -> bytes:
    return frame(OP_MSG, struct.pack("<I", flags) + b"".join(sections), request_id)


def checked(*sections: bytes, wrong: int = 0) -> bytes:
    """With a CRC-32C at its end."""
    inside = struct.pack("<I", 1) + b"".join(sections)
    data = struct.pack("<iiii", 16 + len(inside) + 4, 7, 0, OP_MSG) + inside
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return data + struct.pack("<I", crc ^ 0xFFFFFFFF ^ wrong)


def query(command: dict, *, db: str = "admin") -> bytes:
    return frame(OP_QUERY, struct.pack("<I", 4) + f"{db}.$cmd\0".encode() + struct.pack("<ii", 0, -1) + bson.encode(command), 7)


def log_in(sock, user: str, password: str) -> None:
    """SCRAM-SHA-256, as RFC 7677 has it."""
    ask = lambda command: (sock.sendall(message(body({**command, "$db": "admin"}))), receive_any(sock)[1])[1]
    bare = f"n={user},r=fieldveil"
    first = ask({"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": f"n,,{bare}".encode(), "options": {"skipEmptyExchange": True}})
    assert first["ok"] == 1, first
    given = dict(part.split("=", 1) for part in first["payload"].decode().split(","))
    digest = lambda key, text: hmac.new(key, text, hashlib.sha256).digest()
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(given["s"]), int(given["i"]))
    key = digest(salted, b"Client Key")
    final = f"c=biws,r={given['r']}"
    signature = digest(hashlib.sha256(key).digest(), f"{bare},{first['payload'].decode()},{final}".encode())
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
    last = ask({"saslContinue": 1, "conversationId": first["conversationId"], "payload": f"{final},p={proof}".encode()})
    assert last["ok"] == 1 and last["done"], last


def talk(sock, messages: bytes) -> list:
    """What comes back: (responseTo, ok, code) for each reply, up to that of a last ping; or that the connection ended."""
    seen = []
    try:
        sock.sendall(messages + message(body({"ping": 1, "$db": "admin"}), request_id=LAST))
        while True:
            length, _, response_to, opcode = struct.unpack("<iiii", exactly(sock, 16))
            rest = exactly(sock, length - 16)
            if opcode == harness.OP_COMPRESSED:
                opcode, rest = struct.unpack("<i", rest[:4])[0], __import__("zlib").decompress(rest[9:])
            document = rest[5 if opcode == OP_MSG else 20:]
            reply = bson.decode(document[: struct.unpack("<i", document[:4])[0]])
            if response_to == LAST:
                return seen
            seen.append((response_to, reply["ok"], reply.get("code")))
    except OSError:
        return [*seen, "closed"]


# --- the rows ---------------------------------------------------------------------------------------------------------

PING = {"ping": 1, "$db": "admin"}
CLIENT = {"driver": {"name": "x", "version": "1"}, "os": {"type": "Linux"}, "platform": "by hand"}


def rows(db: str, collection: str) -> dict[str, bytes]:
    number = itertools.count()
    doc = lambda: [{"_id": f"{collection} {next(number)}", "ward": "A1"}]
    insert = lambda **more: {"insert": collection, **more, "$db": db}
    flag = lambda bit: message(body(PING), flags=1 << bit)
    found = {f"required flag {bit}": flag(bit) for bit in (2, 3, 15)} | {f"optional flag {bit}": flag(bit) for bit in (16, 17, 20, 31)}
    return found | {
        "sequence before the body": message(sequence("documents", doc()), body(insert())),
        "sequence after the body": message(body(insert()), sequence("documents", doc())),
        "documents twice": message(body(insert(documents=doc())), sequence("documents", doc())),
        "documents twice, sequence first": message(sequence("documents", doc()), body(insert(documents=doc()))),
        "same sequence twice": message(body(insert()), sequence("documents", doc()), sequence("documents", doc())),
        "two bodies": message(body(insert(documents=doc())), body(PING)),
        "two bodies around a sequence": message(body(insert()), sequence("documents", doc()), body(PING)),
        "section kind 3": message(body(PING), b"\3"), "section kind 5": message(body(PING), b"\5" + bson.encode({})),
        "section kind 5 first": message(b"\5", body(PING)), "section kind 255": message(body(PING), b"\xff"),
        "security token": message(body(PING), b"\2" + bson.encode({})),
        "no section": message(), "only a sequence": message(sequence("documents", doc())),
        "three sequences": message(body(insert()), sequence("documents", doc()), sequence("a", []), sequence("b", [])),
        "unknown second sequence": message(body(insert()), sequence("documents", doc()), sequence("a", doc())),
        "unknown sequence": message(body(insert(documents=doc())), sequence("bogus", doc())),
        "unknown sequence, no documents": message(body(insert(documents=doc())), sequence("bogus", [])),
        "sequence with a dot": message(body(insert(documents=doc())), sequence("a.b", doc())),
        "sequence without a name": message(body(insert(documents=doc())), sequence("", doc())),
        "sequence $db": message(body(insert(documents=doc())), sequence("$db", doc())),
        "unknown sequence of ping": message(body(PING), sequence("bogus", doc())),
        "unknown field": message(body(insert(documents=doc(), bogus=1))),
        "unknown command": message(body({"bogusCommand": 1, "$db": db})),
        "empty sequence": message(body(insert()), sequence("documents", [])),
        "no documents": message(body(insert())),
        "no $db": message(body({"insert": collection, "documents": doc()})), "ping without $db": message(body({"ping": 1})),
        "empty body": message(body({})), "$db only": message(body({"$db": db})), "$db first": message(body({"$db": db, "ping": 1})),
        "$db empty": message(body({"ping": 1, "$db": ""})), "$db with a space": message(body({"ping": 1, "$db": "a b"})),
        "$db with a dot": message(body({"ping": 1, "$db": "a.b"})), "$db with a slash": message(body({"ping": 1, "$db": "a/b"})),
        "$db twice": message(b"\0" + twice({"ping": 1}, {"$db": "a"})),
        "documents twice in the body": message(b"\0" + twice(insert(), {"documents": doc()})),
        "checksum": checked(body(PING)), "checksum of an insert": checked(body(insert()), sequence("documents", doc())),
        "checksum wrong": checked(body(PING), wrong=1),
        "moreToCome insert": message(body(insert(documents=doc())), flags=MORE_TO_COME),
        "moreToCome ping": message(body(PING), flags=MORE_TO_COME),
        "moreToCome find": message(body({"find": collection, "$db": db}), flags=MORE_TO_COME),
        "moreToCome insert by sequence": message(sequence("documents", doc()), body(insert()), flags=MORE_TO_COME),
        "moreToCome two bodies": message(body(PING), body(PING), flags=MORE_TO_COME),
        "moreToCome without $db": message(body({"ping": 1}), flags=MORE_TO_COME),
        "moreToCome documents twice": message(body(insert(documents=doc())), sequence("documents", doc()), flags=MORE_TO_COME),
        "exhaust find": message(body({"find": collection, "batchSize": 0, "$db": db}), flags=EXHAUST),
        "getMore of nobody": message(body({"getMore": bson.Int64(1), "collection": collection, "$db": db})),
        "exhaust getMore of nobody": message(body({"getMore": bson.Int64(1), "collection": collection, "$db": db}), flags=EXHAUST),
        "hello": message(body({"hello": 1, "$db": "admin"})),
        "hello that waits for nothing": message(body({"hello": 1, "maxAwaitTimeMS": 100, "$db": "admin"})),
        "hello of a topology": message(body({"hello": 1, "topologyVersion": {"processId": bson.ObjectId(), "counter": bson.Int64(0)}, "$db": "admin"})),
        "client twice": message(body({"hello": 1, "client": CLIENT, "$db": "admin"})) + message(body({"hello": 1, "client": CLIENT, "$db": "admin"}), request_id=8),
        "client of a wrong type": message(body({"hello": 1, "client": 5, "$db": "admin"})),
        "loadBalanced": message(body({"hello": 1, "loadBalanced": True, "$db": "admin"})),
        "old isMaster": query({"isMaster": 1}), "old ismaster": query({"ismaster": 1}), "old hello": query({"hello": 1}),
        "old ping": query({"ping": 1}), "old find": query({"find": collection}, db=db), "old buildInfo": query({"buildInfo": 1}),
        "old insert": frame(2002, struct.pack("<I", 0) + f"{db}.{collection}\0".encode() + bson.encode({"x": 1}), 7),
        "old update": frame(2001, struct.pack("<I", 0) + f"{db}.{collection}\0".encode() + struct.pack("<I", 0) + bson.encode({}) + bson.encode({"x": 1}), 7),
        "old delete": frame(2006, struct.pack("<I", 0) + f"{db}.{collection}\0".encode() + struct.pack("<I", 0) + bson.encode({}), 7),
        "old getMore": frame(2005, struct.pack("<I", 0) + f"{db}.{collection}\0".encode() + struct.pack("<iq", 0, 1), 7),
        "old killCursors": frame(2007, struct.pack("<Iiq", 0, 1, 1), 7),
        "old query": frame(OP_QUERY, struct.pack("<I", 0) + f"{db}.{collection}\0".encode() + struct.pack("<ii", 0, 1) + bson.encode({}), 7),
        "reply instead of a request": frame(1, b"\0" * 20 + bson.encode({"ok": 1}), 7), "unknown opcode": frame(4242, b"\0" * 20, 7),
        "request that is a reply": struct.pack("<iiii", len(ping := message(body(PING))), 7, 5, OP_MSG) + ping[16:],
        "section of negative size": message(body(insert()), b"\1" + struct.pack("<i", -5) + b"documents\0"),
        "section past the end": message(body(insert()), b"\1" + struct.pack("<i", 1 << 20) + b"documents\0"),
        "document past the end": message(b"\0" + struct.pack("<i", 500) + bson.encode(PING)[4:]),
        "document without end": message(b"\0" + bson.encode(PING)[:-1] + b"\1"),
    }


def twice(one: dict, field: dict) -> bytes:
    """A document with the same field two times at its end."""
    inside = bson.encode(one)[4:-1] + 2 * bson.encode(field)[4:-1]
    return struct.pack("<i", len(inside) + 5) + inside + b"\0"


# What the proxy does otherwise, and why. Nothing is answered here that the server would not have answered with an error.
ENDS = ["closed"]
ON_PURPOSE = {
    # What cannot be read is trusted no further; no driver sends it.
    "section of negative size": ENDS, "section past the end": ENDS, "document past the end": ENDS, "document without end": ENDS,
    # Nobody would hear that it was refused: the end of the connection is the only word there is.
    "moreToCome two bodies": ENDS, "moreToCome without $db": ENDS, "moreToCome documents twice": ENDS,
    # Served to nobody here, so an unknown kind like any other.
    "security token": [(7, 0.0, 40432)],
    # Only hello may come in the old form.
    "old buildInfo": [(7, 0.0, 352)],
    # What has the old form is read no further than to see that it is no hello: it could carry plaintext past the proxy.
    "old query": ENDS, "old getMore": ENDS,
    # Not in the table of commands: newer servers may well have it.
    "unknown command": [(7, 0.0, 115)], "$db only": [(7, 0.0, 115)], "$db first": [(7, 0.0, 115)],
}


@pytest.fixture(scope="module")
def pair(session_dir, certs):
    """A server of its own and a proxy in front of it: a mongod 6.0.5 that logs loudly aborts on some of the rows."""
    server = Mongod(session_dir / "wire-mongod", certs, verbose=False).start().initiate()
    proxy = Proxy(session_dir / "wire-proxy", server, [Collection("rows.patients", harness.PATIENTS, "nhs_number")]).start()
    with server.client(ADMIN) as client:
        for collection in ("patients", "others"):
            client.rows.create_collection(collection)
        yield server, proxy, client.rows
    assert proxy.stop() == 0
    server.stop()


NAMES = list(rows("db", "c"))


@pytest.mark.parametrize("collection", ["patients", "others"])
@pytest.mark.parametrize("how", ["plain", "zlib"])
def test_answers_as_the_server_does(pair, collection, how):
    server, proxy, stored_db = pair
    wrong = {}
    for name in NAMES:
        data = rows("rows", collection)[name]
        if how != "plain" and (len(split(data)) > 1 or "hello" in name or "client" in name or name.startswith("old ") or name == "loadBalanced"):
            continue  # never compressed, or several messages
        outcomes = []
        for target in (server, proxy):
            stored_db[collection].delete_many({})
            with target.tls_socket() as sock:
                sock.sendall(message(body({"hello": 1, "compression": ["zlib"], "$db": "admin"})))
                receive_any(sock)
                log_in(sock, *harness.APP)
                outcomes.append((talk(sock, compressed(data, "zlib") if how != "plain" else data), stored_db[collection].count_documents({})))
        (expected, stored), (actual, through) = outcomes
        if name in ON_PURPOSE:
            assert expected != ON_PURPOSE[name], f"{name} is no departure any more"
            expected = ON_PURPOSE[name]
        if (expected, stored) != (actual, through):
            wrong[name] = f"server {expected} with {stored} stored, proxy {actual} with {through} stored"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def split(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = struct.unpack("<i", data[:4])[0]
        found.append(data[:length])
        data = data[length:]
    return found


# --- streams and order ------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(proxy):
    with proxy.tls_socket(20) as sock:
        sock.sendall(message(body({"hello": 1, "compression": ["snappy"], "$db": "admin"})))
        receive_any(sock)
        log_in(sock, *harness.APP)
        yield sock


def headed(sock) -> tuple[int, int, int, dict]:
    """requestID, responseTo, flags and body of one uncompressed reply."""
    length, request_id, response_to, opcode = struct.unpack("<iiii", exactly(sock, 16))
    rest = exactly(sock, length - 16)
    assert opcode == OP_MSG
    return request_id, response_to, struct.unpack("<I", rest[:4])[0], bson.decode(rest[5:])


def test_hello_stream(raw, proxy):
    """A chain of hellos: each says that more will come and answers the one before, and each names the proxy only."""
    raw.sendall(message(body({"hello": 1, "$db": "admin"})))
    version = headed(raw)[3]["topologyVersion"]
    raw.sendall(message(body({"hello": 1, "topologyVersion": version, "maxAwaitTimeMS": 300, "$db": "admin"}), flags=EXHAUST, request_id=70))
    before = 70
    for _ in range(3):
        request_id, response_to, flags, reply = headed(raw)
        assert (response_to, flags & MORE_TO_COME, reply["ok"]) == (before, MORE_TO_COME, 1)
        assert reply["hosts"] == [f"127.0.0.1:{proxy.port}"] and reply["maxMessageSizeBytes"] == 24_000_000
        before = request_id


def test_exhaust_get_more_is_a_chain_that_is_opened(raw, app, db_name, markers):
    made = [patient(markers, f"chain {n:03d}") for n in range(90)]
    app.patients.insert_many(made)
    raw.sendall(message(body({"find": "patients", "filter": {"_id": {"$regex": "^chain"}}, "sort": {"_id": 1}, "batchSize": 10, "$db": db_name})))
    cursor = headed(raw)[3]["cursor"]
    found = cursor["firstBatch"]
    more = {"getMore": bson.Int64(cursor["id"]), "collection": "patients", "batchSize": 10, "$db": db_name}
    # A refusal and a ping right behind: their answers must wait for the end of the chain.
    refused = {"find": "patients", "filter": {"notes": {"$regex": "a"}}, "$db": db_name}
    raw.sendall(message(body(more), flags=EXHAUST, request_id=70) + message(body(refused), request_id=71) + message(body(PING), request_id=72))
    before = 70
    while True:
        request_id, response_to, flags, reply = headed(raw)
        assert response_to == before and reply["ok"] == 1
        found += reply["cursor"]["nextBatch"]
        if not flags & MORE_TO_COME:
            break
        before = request_id
    assert found == made
    _, response_to, _, reply = headed(raw)
    assert response_to == 71 and reply["errmsg"].startswith("fieldveil: ") and "notes" in reply["errmsg"]
    assert headed(raw)[1] == 72


@pytest.mark.parametrize("seed", range(4))
def test_replies_keep_the_order_of_their_requests(raw, app, direct, db_name, markers, seed):
    """Hundreds of commands at once: ordinary, refused, unacknowledged, failing on the server, compressed or not."""
    r = random.Random(seed)
    app.patients.delete_many({"kind": seed})
    written, expected, data = [], [], b""
    for n in range(400):
        one = patient(markers, f"mix {seed} {n}") | {"kind": seed}
        kind = r.choice(["insert", "silent", "find", "refused", "unsupported", "fails", "ping", "no db", "two bodies"])
        flags = MORE_TO_COME if kind == "silent" else 0
        sections = {
            "insert": [body({"insert": "patients", "$db": db_name}), sequence("documents", [one])],
            "silent": [sequence("documents", [one]), body({"insert": "patients", "writeConcern": {"w": 0}, "$db": db_name})],
            "find": [body({"find": "patients", "filter": {"nhs_number": one["nhs_number"]}, "$db": db_name})],
            "refused": [body({"find": "patients", "filter": {"notes": {"$gt": "a"}}, "$db": db_name})],
            "unsupported": [body({"mapReduce": "patients", "map": "f", "reduce": "g", "out": {"inline": 1}, "$db": db_name})],
            "fails": [body({"find": "patients", "filter": {"ward": {"$bogus": 1}}, "$db": db_name})],
            "ping": [body(PING)], "no db": [body({"ping": 1})], "two bodies": [body(PING), body(PING)],
        }[kind]
        r.shuffle(sections)
        one_message = message(*sections, flags=flags, request_id=n)
        data += compressed(one_message, "snappy") if r.random() < 0.5 else one_message
        if kind in ("insert", "silent"):
            written.append(one)
        if kind != "silent":
            expected.append((n, kind))
    raw.sendall(data)
    for n, kind in expected:
        response_to, reply, _ = receive_any(raw)
        assert response_to == n, f"the answer to {response_to} instead of {n} ({kind})"
        ours = reply.get("errmsg", "").startswith("fieldveil: ")
        want = {"insert": (1, False), "find": (1, False), "ping": (1, False), "fails": (0, None)}.get(kind, (0, True))
        assert (reply["ok"], want[1] if want[1] is None else ours) == want, f"{kind}: {reply}"
    by_id = lambda documents: sorted(documents, key=lambda d: d["_id"])
    assert by_id(app.patients.find({"kind": seed})) == by_id(written)
    stored = list(direct.patients.find({"kind": seed}))
    assert len(stored) == len(written) and all(is_envelope(d["nhs_number"]) and is_envelope(d["notes"]) for d in stored)


def test_a_refused_write_without_reply_ends_the_connection_behind_what_was_asked_before(raw, direct, db_name, markers):
    one = patient(markers, "before the end")
    raw.sendall(message(body({"insert": "patients", "$db": db_name}), sequence("documents", [one]), request_id=1)
                + message(body({"update": "patients", "updates": [{"q": {"notes": {"$gt": "a"}}, "u": {"$set": {"ward": "B"}}}], "$db": db_name}), flags=MORE_TO_COME, request_id=2)
                + message(body(PING), request_id=3))
    seen = []
    with pytest.raises(OSError):
        while True:
            seen.append(receive_any(raw)[0])
    # Whether its reply still came is open; that nothing after the refusal was served is not.
    assert seen in ([1], [])
    assert harness.wait_until("the insert", lambda: direct.patients.count_documents({"_id": "before the end"}) == 1)


def test_nothing_of_a_message_cut_short_is_sent_on(proxy, direct, db_name, markers):
    whole = message(body({"insert": "patients", "$db": db_name}), sequence("documents", [patient(markers, f"cut {n}") for n in range(200)]))
    for at in (20, len(whole) // 2, len(whole) - 1):
        with proxy.tls_socket() as sock:
            sock.sendall(message(body({"hello": 1, "$db": "admin"})))
            receive_any(sock)
            log_in(sock, *harness.APP)
            sock.sendall(whole[:at])
            sock.unwrap() if at == 20 else sock.shutdown(2)
    assert direct.patients.count_documents({"_id": {"$regex": "^cut "}}) == 0
