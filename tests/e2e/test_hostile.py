"""Ten thousand malformed inputs over real sockets while an ordinary client works: nobody else notices, memory stays
bounded, nothing panics. The figures are printed."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import threading
import time
import zlib

import bson
import pytest

from harness import OP_COMPRESSED, OP_MSG, OP_QUERY, PATIENTS, Proxy, frame, op_msg, receive
from samples import patient

# A mongod 6.0.5 that logs loudly aborts on a `$db` that is no string, before any login: what gets through here can end it.
OWN_MONGOD = True
COLLECTIONS = {"patients": PATIENTS, "untouched": {"secret": '{ mode = "deterministic", type = "string" }'}}

TOTAL = 10_000
OVER_TLS = 4_000  # the rest goes to the TLS listener itself
THREADS = 6
MEMORY_CEILING = 512 << 20

SEED = 20_240_229


def insert(db: str, value="x") -> dict:
    return {"insert": "patients", "documents": [{"nhs_number": value, "contacts": [{"phone": value}]}], "$db": db}


def deep(depth: int) -> bytes:
    """A document nested `depth` times, built inside out: encoders refuse to."""
    body = b"\x08a\0\1"
    for _ in range(depth):
        document = struct.pack("<i", len(body) + 5) + body + b"\0"
        body = b"\x03a\0" + document
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def kinds(r: random.Random, db: str):
    """name → bytes of one hostile message. Values come from a seeded generator: a failure can be repeated."""
    good = op_msg(insert(db), request_id=r.randrange(1 << 30))
    section = lambda kind, data: struct.pack("<I", 0) + bytes([kind]) + data
    body = bson.encode(insert(db))
    mutated = bytearray(good)
    for _ in range(r.randint(1, 8)):
        mutated[r.randrange(16, len(mutated))] = r.randrange(256)
    return {
        "random bytes": lambda: r.randbytes(r.randint(1, 400)),
        "random body": lambda: frame(OP_MSG, r.randbytes(r.randint(1, 300))),
        "cut off": lambda: good[: r.randrange(1, len(good))],
        "length zero": lambda: frame(OP_MSG, b"", length=0),
        "length below the header": lambda: frame(OP_MSG, b"", length=r.randint(1, 15)),
        "length negative": lambda: frame(OP_MSG, b"x" * 20, length=-r.randint(1, 1 << 31)),
        "length huge": lambda: frame(OP_MSG, b"x" * 20, length=r.randint(48_000_001, (1 << 31) - 1)),
        "length just allowed, then silence": lambda: frame(OP_MSG, b"x" * 20, length=48_000_000),
        "bits flipped": lambda: bytes(mutated),
        "unknown opcode": lambda: frame(r.choice([0, 1, 1000, 2001, 2002, 2005, 2006, 2007, 2010, 2011, 9999, -1]), body),
        "unknown required flag": lambda: op_msg(insert(db), flags=1 << r.randint(2, 15)),
        "two bodies": lambda: frame(OP_MSG, section(0, body) + b"\0" + body),
        "no body": lambda: frame(OP_MSG, struct.pack("<I", 0)),
        "unknown section": lambda: frame(OP_MSG, section(r.randint(2, 255), body)),
        "section longer than the frame": lambda: frame(OP_MSG, section(0, body) + b"\1" + struct.pack("<i", 1 << 30) + b"documents\0"),
        "section of negative length": lambda: frame(OP_MSG, section(0, body) + b"\1" + struct.pack("<i", -5) + b"documents\0"),
        "identifier without end": lambda: frame(OP_MSG, section(0, body) + b"\1" + struct.pack("<i", 14) + b"documents!"),
        "same sequence twice": lambda: frame(OP_MSG, section(0, bson.encode({"insert": "patients", "$db": db})) + 2 * (
            b"\1" + struct.pack("<i", 14 + len(body)) + b"documents\0" + body)),
        "document length lies": lambda: frame(OP_MSG, section(0, struct.pack("<i", len(body) + r.choice([-1, 1, 1000, 1 << 30])) + body[4:])),
        "document without end": lambda: frame(OP_MSG, section(0, body[:-1] + b"\x01")),
        "string length lies": lambda: frame(OP_MSG, section(0, body.replace(struct.pack("<i", 9) + b"patients", struct.pack("<i", r.choice([0, -1, 1 << 30])) + b"patients"))),
        "string is not UTF-8": lambda: frame(OP_MSG, section(0, body.replace(b"patients", b"pat\xff\xfents"))),
        "unknown element type": lambda: frame(OP_MSG, section(0, body.replace(b"\x02nhs", b"\x42nhs"))),
        "nested deep": lambda: frame(OP_MSG, section(0, deep(r.choice([201, 1000, 20_000])))),
        "wrong checksum": lambda: frame(OP_MSG, struct.pack("<I", 1) + b"\0" + body + r.randbytes(4)),
        "checksum missing": lambda: frame(OP_MSG, struct.pack("<I", 1)),
        "compressed garbage": lambda: frame(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, 100, r.randint(0, 255)) + r.randbytes(50)),
        "compressed bomb": lambda: frame(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, 47_000_000, 2) + BOMB),
        "compressed in compressed": lambda: frame(OP_COMPRESSED, struct.pack("<iiB", OP_COMPRESSED, len(good), 0) + good[16:]),
        "compressed negative size": lambda: frame(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, -1, 2) + zlib.compress(good[16:])),
        "compressed, not agreed on": lambda: packed(good, r.choice([1, 3])),
        "compressed of the wrong size": lambda: AGREED + packed(good, 2, size=len(good) - 16 + r.choice([-1, 1, 1000, 1 << 20])),
        "compressed bits flipped": lambda: AGREED + packed(good, 2, data=flipped(r, zlib.compress(good[16:]))),
        "compressed and cut off": lambda: AGREED + packed(good, 2, data=zlib.compress(good[16:])[: r.randint(0, 40)]),
        "compressed junk": lambda: AGREED + packed(good, r.randint(1, 3), data=r.randbytes(r.randint(1, 300)), size=r.choice([0, 10, 300, 40_000])),
        "compressed bomb, agreed on": lambda: AGREED + frame(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, 47_000_000, 2) + BOMB),
        "compressed bomb before a login": lambda: AGREED + packed(op_msg({"find": "patients", "filter": {"ward": "x" * 20_000_000}, "$db": db}), 2),
        "compressed malformed command": lambda: AGREED + packed(bytes(mutated), 2),
        "compressed login": lambda: AGREED + packed(op_msg({"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": r.randbytes(60), "$db": "admin"}), 2),
        "old query": lambda: frame(OP_QUERY, struct.pack("<I", 0) + f"{db}.patients\0".encode() + struct.pack("<ii", 0, 1) + bson.encode({"nhs_number": "x"})),
        "old query without end": lambda: frame(OP_QUERY, struct.pack("<I", 0) + b"admin.$cmd"),
        "no $db": lambda: op_msg({"insert": "patients", "documents": [{"nhs_number": "x"}]}),
        "$db of the wrong type": lambda: op_msg({"insert": "patients", "documents": [{}], "$db": 5}),
        "collection of the wrong type": lambda: op_msg({"insert": {"x": 1}, "documents": [{}], "$db": db}),
        "documents of the wrong type": lambda: op_msg({"insert": "patients", "documents": "text", "$db": db}),
        "filter of the wrong type": lambda: op_msg({"find": "patients", "filter": 5, "$db": db}),
        "pipeline of the wrong type": lambda: op_msg({"aggregate": "patients", "pipeline": [5, None], "cursor": {}, "$db": db}),
        "empty command": lambda: op_msg({}),
        "only $db": lambda: op_msg({"$db": db}),
        "hello that is a lie": lambda: op_msg({"hello": 1, "$db": "admin", "compression": [5, None], "client": "x", "speculativeAuthenticate": 3}),
        "sasl garbage": lambda: op_msg({"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": r.randbytes(60), "$db": "admin"}),
        "sasl out of the blue": lambda: op_msg({"saslContinue": 1, "conversationId": r.randint(-5, 5), "payload": r.randbytes(60), "$db": "admin"}),
        "many requests, no reading": lambda: b"".join(op_msg({"hello": 1, "$db": "admin"}, request_id=n) for n in range(50)),
    }


BOMB = zlib.compress(b"\0" * (100 << 20), 9)


AGREED = op_msg({"hello": 1, "compression": ["zlib", "snappy", "zstd"], "$db": "admin"})


def packed(message: bytes, compressor: int, *, data: bytes | None = None, size: int | None = None) -> bytes:
    opcode = struct.unpack("<i", message[12:16])[0]
    inside = zlib.compress(message[16:], 1) if data is None else data
    return frame(OP_COMPRESSED, struct.pack("<iiB", opcode, len(message) - 16 if size is None else size, compressor) + inside)


def flipped(r: random.Random, data: bytes) -> bytes:
    data = bytearray(data)
    data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    return bytes(data)


class Attack:
    def __init__(self, proxy: Proxy, db: str):
        self.proxy, self.db = proxy, db
        self.sent: dict[str, int] = {}
        self.refused_connections = 0
        self.lock = threading.Lock()

    def run(self) -> None:
        threads = [threading.Thread(target=self._work, args=(n,)) for n in range(THREADS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(300)
        assert not any(t.is_alive() for t in threads), "an attacker hangs: the proxy does not close on malformed input"

    def _count(self, name: str) -> None:
        with self.lock:
            self.sent[name] = self.sent.get(name, 0) + 1

    def _work(self, number: int) -> None:
        r = random.Random(SEED + number)
        context = ssl.create_default_context(cafile=self.proxy.mongod.certs.ca)
        for n in range(OVER_TLS // THREADS + 1):
            table = kinds(r, self.db)
            name = list(table)[(n * THREADS + number) % len(table)]
            self._send(name, table[name](), context, look=n % 10 == 0)
        for n in range((TOTAL - OVER_TLS) // THREADS + 1):
            hello = b"\x16\x03\x01" + struct.pack(">H", r.choice([0, 5, 512, 16384, 65535])) + r.randbytes(r.randint(0, 600))
            data = r.choice([hello, r.randbytes(r.randint(1, 600)), b"GET / HTTP/1.1\r\n\r\n", op_msg({"hello": 1, "$db": "admin"}), b""])
            self._send("instead of TLS", data, None, look=False)

    def _send(self, name: str, data: bytes, context: ssl.SSLContext | None, look: bool) -> None:
        self._count(name)
        try:
            with socket.create_connection(("127.0.0.1", self.proxy.port), 10) as plain:
                s = context.wrap_socket(plain, server_hostname="localhost") if context else plain
                s.sendall(data)
                if look:
                    s.settimeout(0.5)
                    while s.recv(65536):
                        pass
                if context:
                    s.close()
        except (TimeoutError, ssl.SSLError, ConnectionError):
            pass
        except OSError:
            with self.lock:
                self.refused_connections += 1


class WellBehaved(threading.Thread):
    """An ordinary application: what it writes it reads, and it counts what went wrong and how long it took."""

    def __init__(self, proxy: Proxy, db: str, markers):
        super().__init__()
        self.proxy, self.db, self.markers = proxy, db, markers
        self.stop_now = threading.Event()
        self.slowest, self.done, self.failed = 0.0, 0, []

    def run(self) -> None:
        with self.proxy.client() as client:
            c = client[self.db].patients
            while not self.stop_now.is_set():
                document = patient(self.markers, f"good {self.done}")
                start = time.monotonic()
                try:
                    c.insert_one(document)
                    assert c.find_one({"nhs_number": document["nhs_number"]}) == document
                except Exception as e:  # noqa: BLE001 - reported by the test
                    self.failed.append(e)
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.done += 1
                time.sleep(0.01)


def drip(proxy: Proxy, stop: threading.Event, count: int = 30) -> None:
    """Connections that send one byte now and then: of a TLS hello, and of a frame."""
    sockets = [socket.create_connection(("127.0.0.1", proxy.port), 5) for _ in range(count // 2)]
    sockets += [proxy.tls_socket() for _ in range(count - count // 2)]
    while not stop.wait(0.5):
        for s in sockets:
            try:
                s.sendall(b"\x16")
            except OSError:
                pass
    for s in sockets:
        s.close()


@pytest.mark.timeout(400)
def test_ten_thousand_malformed_inputs(proxy, app, db_name, markers, capsys):
    app.patients.insert_one(patient(markers, "first"))
    before, peak = proxy.resident_bytes(), 0
    stop = threading.Event()
    good = WellBehaved(proxy, db_name, markers)
    dripping = threading.Thread(target=drip, args=(proxy, stop))
    good.start()
    dripping.start()
    attack = Attack(proxy, db_name)
    attacking = threading.Thread(target=attack.run)
    started = time.monotonic()
    attacking.start()
    while attacking.is_alive():
        peak = max(peak, proxy.resident_bytes())
        time.sleep(0.05)
        assert proxy.process.poll() is None, "the proxy died"
    seconds = time.monotonic() - started
    stop.set()
    good.stop_now.set()
    good.join(30)
    dripping.join(30)
    time.sleep(1)
    after = proxy.resident_bytes()
    with capsys.disabled():
        print(f"\n  hostile: {sum(attack.sent.values())} malformed inputs of {len(attack.sent)} kinds in {seconds:.0f} s; meanwhile {good.done} ordinary "
              f"insert+find pairs, slowest {good.slowest * 1000:.0f} ms, {len(good.failed)} failed; resident memory "
              f"{before >> 20} MiB before, {peak >> 20} MiB peak, {after >> 20} MiB after")
    assert sum(attack.sent.values()) >= TOTAL
    assert not good.failed, good.failed[:3]
    assert good.done > 50
    assert good.slowest < 5, f"an ordinary operation took {good.slowest:.1f} s"
    assert peak < MEMORY_CEILING, f"{peak >> 20} MiB"
    assert attack.refused_connections < TOTAL // 100, "the listener stopped accepting"
    assert proxy.http("/readyz")[0] == 200


def test_a_slow_client_is_cut_off_or_costs_little(proxy):
    """A reader that never reads must not make the proxy hold its replies for ever."""
    before = proxy.resident_bytes()
    sockets = [proxy.tls_socket() for _ in range(20)]
    ping = op_msg({"hello": 1, "$db": "admin"})
    for s in sockets:
        s.setblocking(False)
        try:
            for _ in range(5000):
                s.send(ping)
        except (ssl.SSLWantWriteError, BlockingIOError, OSError):
            pass
    time.sleep(2)
    grown = proxy.resident_bytes() - before
    for s in sockets:
        s.close()
    assert grown < 200 << 20, f"{grown >> 20} MiB for 20 clients that do not read"


def test_nothing_unauthenticated_makes_a_key(proxy, app, direct_client, db_name, markers):
    with proxy.tls_socket() as s:
        for command in ({"insert": "untouched", "documents": [{"secret": markers.text()}]}, {"find": "untouched", "filter": {"secret": markers.text()}}):
            s.sendall(op_msg({**command, "$db": db_name}))
            reply = receive(s)[1]
            assert (reply["code"], reply["codeName"]) == (13, "Unauthorized")
    vault = direct_client.encryption[db_name]
    assert vault.count_documents({"keyAltNames": {"$regex": "untouched"}}) == 0
    app.untouched.insert_one({"secret": markers.text()})
    assert vault.count_documents({"keyAltNames": {"$regex": "untouched"}}) == 1, "the test looks in the wrong place"


def test_nothing_unauthenticated_reaches_the_data(proxy, app, direct, db_name):
    with proxy.tls_socket() as s:
        s.sendall(op_msg(insert(db_name, "intruder")))
        assert receive(s)[1]["ok"] == 0
    assert app.patients.count_documents({"nhs_number": "intruder"}) == 0


def test_a_condition_of_any_depth_ends_nothing(proxy, app, db_name):
    """Fifty thousand `$not` on an enclosing field, from somebody who has not even logged in."""
    levels = 50_000
    inner, sizes = bson.encode({"$exists": True}), []
    size = len(inner)
    for _ in range(levels):
        size += 4 + 6 + 1
        sizes.append(size)
    nested = b"".join(struct.pack("<i", n) + b"\x03$not\0" for n in reversed(sizes)) + inner + b"\0" * levels
    def holding(key: bytes, document: bytes) -> bytes:
        content = b"\x03" + key + b"\0" + document + b"\0"
        return struct.pack("<i", len(content) + 4) + content
    fields = b"\x02find\0" + struct.pack("<i", 9) + b"patients\0" + b"\x03filter\0" + holding(b"contacts", nested)
    fields += b"\x02$db\0" + struct.pack("<i", len(db_name) + 1) + db_name.encode() + b"\0\0"
    with proxy.tls_socket() as s:
        s.sendall(frame(OP_MSG, struct.pack("<I", 0) + b"\0" + struct.pack("<i", len(fields) + 4) + fields))
        assert receive(s)[1]["ok"] == 0.0
    assert app.patients.find_one({"_id": "nobody"}) is None


def test_a_malformed_frame_closes_only_its_own_connection(proxy, app):
    one, two = proxy.tls_socket(), proxy.tls_socket()
    one.sendall(frame(OP_MSG, b"\xff" * 40))
    one.settimeout(5)
    try:
        receive(one)
        assert one.recv(1) == b""
    except OSError:
        pass
    two.sendall(op_msg({"hello": 1, "$db": "admin"}, request_id=42))
    assert receive(two)[0] == 42
    assert app.command("ping")["ok"] == 1
