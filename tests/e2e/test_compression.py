"""OP_COMPRESSED on either side, each by its own agreement: the results are those of an uncompressed connection, and the
metrics say that messages really were compressed where they should be, and only there."""

from __future__ import annotations

import contextlib
import itertools
import re

import bson
import pytest

import harness
from harness import Collection, Proxy, Scan, frame, metric, op_msg
from packing import compressed, receive_any
from pymongo import CursorType, WriteConcern
from samples import patient

COMPRESSORS = ["snappy", "zlib", "zstd"]
COUNT = 150


@pytest.fixture(scope="module")
def proxies(session_dir, server, db_name, markers):
    """Makes proxies that allow applications `client` (a TOML list; default: everything) and ask the server for `upstream`;
    whatever they leave behind is scanned at the end, once."""
    server.profile_everything(db_name)
    stopped: list[Proxy] = []
    metrics = []

    @contextlib.contextmanager
    def make(name: str, *, client: str | None = None, upstream: str | None = None):
        running = Proxy(session_dir / f"compression-{name}", server, [Collection(f"{db_name}.patients", harness.PATIENTS, "nhs_number")],
                        vault=f"encryption.{db_name}", compression=client, upstream_options=f"&compressors={upstream}" if upstream else "",
                        master_key=session_dir / "compression.key")
        stopped.append(running)
        running.start()
        try:
            yield running
            metrics.append(running.metrics())
            assert running.stop() == 0
            assert "panicked" not in running.log.read_text(errors="replace")
        finally:
            running.kill9()

    yield make
    files = [file for proxy in stopped for file in (proxy.log, proxy.audit)]
    Scan(server, [db_name, "encryption"], files, "\n".join(metrics), stopped[0].born).assert_clean(markers)


def counted(proxy: Proxy) -> dict[tuple[str, str, str], float]:
    """(leg, direction, compressor) → messages, without those that there were none of."""
    found = {}
    for line in proxy.metrics().splitlines():
        if line.startswith("fieldveil_compressed_messages_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if (count := float(line.rsplit(" ", 1)[1])) > 0:
                found[labels["leg"], labels["direction"], labels["compressor"]] = count
    return found


def work(database, markers, name: str) -> list:
    """What an application does, and everything that it gets to see, without what differs from run to run."""
    c = database.patients
    c.delete_many({})
    made = [patient(markers, f"{name} {n}") for n in range(COUNT)]
    seen = [c.insert_many(made).inserted_ids, list(c.find().sort("_id", 1).batch_size(20)) == sorted(made, key=lambda d: d["_id"])]
    one = made[7]
    seen.append(c.find_one({"nhs_number": one["nhs_number"]}) == one)
    changed = markers.text()
    result = c.update_one({"mrn": one["mrn"]}, {"$set": {"notes": changed}})
    seen += [result.matched_count, result.modified_count, c.find_one({"mrn": one["mrn"]})["notes"] == changed]
    seen += [len(c.distinct("nhs_number")), c.count_documents({"postcode": one["postcode"]}), c.delete_one({"mrn": one["mrn"]}).deleted_count]
    seen.append([d["_id"] for d in c.aggregate([{"$match": {"nhs_number": made[9]["nhs_number"]}}])])
    # Large and compressible, but not protected; and a write that nobody answers.
    c.insert_one({"_id": f"{name} large", "text": "ward " * 400_000})
    seen.append(len(c.find_one({"_id": f"{name} large"})["text"]))
    c.with_options(write_concern=WriteConcern(w=0)).insert_one({"_id": f"{name} silent", "text": "x" * 500})
    seen.append(c.find_one({"_id": f"{name} silent"}) is not None)
    return seen


@pytest.mark.parametrize(("app_by", "upstream_by"), list(itertools.product([None, *COMPRESSORS], [None, *COMPRESSORS])))
def test_each_side_by_its_own(proxies, oracle, db_name, markers, app_by, upstream_by):
    name = f"{app_by}-{upstream_by}"
    expected = work(oracle, markers, name)
    with proxies(name, upstream=upstream_by) as proxy:
        options = {"compressors": app_by} if app_by else {}
        with proxy.client(maxPoolSize=1, **options) as client:
            assert work(client[db_name], markers, name) == expected
        want = {("client", way, app_by) for way in ("in", "out") if app_by} | {("upstream", way, upstream_by) for way in ("in", "out") if upstream_by}
        assert set(counted(proxy)) == want
        assert all(count > 10 for count in counted(proxy).values()), counted(proxy)
        # The large document and its reply: the legs that compress have carried less than was inflated.
        for leg, by in (("client", app_by), ("upstream", upstream_by)):
            for way in ("in", "out"):
                carried = metric_of(proxy, "fieldveil_bytes_total", leg=leg, direction=way)
                if by:
                    assert carried < 1_000_000 < metric_of(proxy, "fieldveil_inflated_bytes_total", leg=leg, direction=way, compressor=by)
                else:
                    assert carried > 2_000_000


def metric_of(proxy: Proxy, name: str, **labels: str) -> float:
    found = [float(line.rsplit(" ", 1)[1]) for line in proxy.metrics().splitlines()
             if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items())]
    assert len(found) == 1, f"{name} {labels}: {found}"
    return found[0]


def test_a_listener_may_allow_less(proxies, db_name, markers):
    with proxies("less", client='["zlib"]') as proxy:
        with proxy.client(maxPoolSize=1, compressors="zstd,zlib,snappy") as client:
            client[db_name].patients.insert_one(patient(markers, "less"))
        assert {compressor for _, _, compressor in counted(proxy)} == {"zlib"}
        with proxy.client(maxPoolSize=1, compressors="zstd") as client:
            assert client[db_name].patients.find_one({"_id": "less"}) is not None
        assert {compressor for _, _, compressor in counted(proxy)} == {"zlib"}, "no agreement: plain"


def test_transactions_cursors_and_streams(proxies, db_name, markers):
    with proxies("streams", upstream="zlib") as proxy:
        with proxy.client(compressors="zstd") as client:
            c = client[db_name].patients
            c.delete_many({})
            made = [patient(markers, f"stream {n:03d}") for n in range(300)]
            with client.start_session() as session, session.start_transaction():
                c.insert_many(made, session=session)
            assert list(c.find(session=None).sort("_id", 1).batch_size(7)) == made
            with c.watch(max_await_time_ms=500, full_document="updateLookup") as stream:
                new = patient(markers, "stream new")
                c.insert_one(new)
                assert next(stream)["fullDocument"] == new
        # An exhaust cursor wants a connection of its own: one request, a chain of replies.
        with proxy.client(replica_set=False, compressors="snappy") as client:
            found = list(client[db_name].patients.find({"_id": {"$regex": "^stream [0-9]"}}, cursor_type=CursorType.EXHAUST).sort("_id", 1).batch_size(30))
            assert found == made
        assert {("client", "in", "snappy"), ("client", "out", "snappy"), ("client", "in", "zstd")} <= set(counted(proxy))


def test_hello_negotiates_as_the_server_does(proxies, server):
    """The same hellos, one after the other, to the proxy and to the server: the same lists."""
    offers = [["bogus", "zstd", "snappy", "zlib"], None, ["snappy"], [], None, ["noop"], [None, "zlib"], "zlib", 5, [5], ["ZLIB"], None]

    def talk(sock):
        answers = []
        for n, offer in enumerate(offers):
            sock.sendall(op_msg({"hello": 1, "$db": "admin", **({} if offer is None else {"compression": offer})}, request_id=n))
            _, reply = harness.receive(sock)
            answers.append((offer, reply["ok"], reply.get("code"), reply.get("compression")))
        return answers

    with proxies("hello") as proxy:
        with proxy.tls_socket() as ours, server.tls_socket() as theirs:
            assert talk(ours) == talk(theirs)


def test_refusals_are_compressed_as_their_request_was_and_in_order(proxies, db_name):
    with proxies("order", upstream="zstd") as proxy:
        with proxy.tls_socket() as s:
            s.sendall(op_msg({"hello": 1, "compression": ["zlib", "snappy"], "$db": "admin"}))
            assert harness.receive(s)[1]["compression"] == ["zlib", "snappy"]
            refused = {"find": "patients", "filter": {"notes": {"$regex": "x" * 300}}, "$db": db_name}
            requests = [op_msg({"ping": 1, "$db": "admin"}, request_id=n) if n % 2 else op_msg(refused, request_id=n) for n in range(20)]
            by = [("zlib", "snappy", None)[n % 3] for n in range(20)]
            s.sendall(b"".join(compressed(r, c) if c else r for r, c in zip(requests, by)))
            for n in range(20):
                response_to, reply, how = receive_any(s)
                assert response_to == n
                assert how in (by[n], None), "a reply that does not shrink stays plain"
                # Nobody has logged in: ping is for everybody, find is refused here.
                assert (reply["ok"] == 1) == bool(n % 2)
                if not n % 2:
                    assert reply["errmsg"].startswith("fieldveil: ") and reply["code"] == 13


@pytest.mark.parametrize("upstream", [None, "zlib"])
def test_malformed_envelopes_close_the_connection(proxies, upstream):
    ping = op_msg({"ping": 1, "$db": "admin"})
    good = compressed(ping, "zlib")
    patched = lambda at, data: good[:at] + data + good[at + len(data):]
    size = lambda n: patched(20, n.to_bytes(4, "little", signed=True))
    cases = {
        "nested": compressed(good, "zlib"),
        "legacy insert inside": compressed(frame(2002, b"\0" * 4 + b"a.b\0" + bson.encode({"x": 1})), "zlib"),
        "noop": patched(24, b"\0"), "unknown compressor": patched(24, b"\x09"), "not negotiated": compressed(ping, "snappy"),
        "one byte less": size(len(ping) - 17), "one byte more": size(len(ping) - 15), "negative": size(-1), "huge": size(48_000_000),
        "cut": frame(2012, good[16:-3]), "trailing": frame(2012, good[16:] + b"xyz"), "no payload": frame(2012, good[16:25]), "short": frame(2012, good[16:20]),
        "hello": compressed(op_msg({"hello": 1, "$db": "admin"}), "zlib"),
        "saslStart": compressed(op_msg({"saslStart": 1, "mechanism": "PLAIN", "payload": b"", "$db": "admin"}), "zlib"),
        "createUser": compressed(op_msg({"createUser": "u", "pwd": "p", "roles": [], "$db": "admin"}), "zlib"),
    }
    with proxies(f"malformed-{upstream}", upstream=upstream) as proxy:
        for name, data in cases.items():
            with proxy.tls_socket() as s:
                s.sendall(op_msg({"hello": 1, "compression": ["zlib"], "$db": "admin"}))
                assert harness.receive(s)[1]["compression"] == ["zlib"]
                s.sendall(good)
                assert receive_any(s)[1]["ok"] == 1, "the envelope that the others are made of"
                s.sendall(data)
                with pytest.raises((ConnectionError, OSError)):
                    raise AssertionError(f"{name}: answered with {receive_any(s)}")
        assert metric(proxy, "fieldveil_compressed_messages_total") > 0
