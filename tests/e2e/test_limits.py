"""Large, many and deep: what MongoDB takes the proxy takes, and where sealing makes it too large somebody says so."""

from __future__ import annotations

import struct
import threading
import zlib

import bson
import pytest
from pymongo.errors import DocumentTooLarge, OperationFailure, PyMongoError

from harness import OP_COMPRESSED, OP_MSG, frame, is_envelope, op_msg, receive
from samples import patient

MIB = 1 << 20


@pytest.fixture(autouse=True)
def empty(app):
    app.patients.delete_many({})


def test_hello_leaves_room_for_sealing_and_names_only_the_proxy(proxy, app_client, mongod):
    hello = app_client.admin.command("hello")
    assert hello["maxMessageSizeBytes"] < 48_000_000
    assert hello["maxWriteBatchSize"] < 100_000
    assert hello["maxBsonObjectSize"] <= 16 * MIB
    assert hello["setName"] == "rs0"
    here = f"127.0.0.1:{proxy.port}"
    assert (hello["hosts"], hello["me"], hello["primary"]) == ([here], here, here)
    assert str(mongod.port) not in str(hello), "the address of the server behind leaks: a driver could go there"


@pytest.mark.parametrize("size", [1, 15, 16, 4095, 64 * 1024, MIB, 15 * MIB])
def test_large_values(app, direct, markers, size):
    text = (markers.text() + "é" + "x" * size)[: size - 1] if size > 40 else "x" * size
    app.patients.insert_one({"_id": size, "notes": text})
    assert app.patients.find_one({"_id": size})["notes"] == text
    assert is_envelope(direct.patients.find_one({"_id": size})["notes"])


def test_document_that_sealing_makes_too_large_is_refused_cleanly(app, markers):
    """Just below 16 MiB in the clear, above it once each of its values carries a header, a nonce and a tag."""
    contacts = [{"phone": "7" * 10} for _ in range(400_000)]
    while len(bson.encode({"_id": 1, "contacts": contacts})) > 16 * MIB - 1000:
        contacts = contacts[: len(contacts) * 9 // 10]
    with pytest.raises((OperationFailure, DocumentTooLarge)):
        app.patients.insert_one({"_id": 1, "contacts": contacts})
    assert app.patients.count_documents({}) == 0
    app.patients.insert_one(patient(markers, 2))


def test_batches_of_thousands(app, direct, markers):
    note = markers.text()
    app.patients.insert_many({"_id": n, "notes": note, "mrn": f"m{n}"} for n in range(20_000))
    assert direct.patients.count_documents({}) == 20_000
    assert app.patients.find_one({"mrn": "m19999"})["_id"] == 19_999
    assert sum(1 for d in app.patients.find() if d["notes"] == note) == 20_000


def test_batch_close_to_the_advertised_message_size(app, direct):
    app.patients.insert_many([{"_id": n, "notes": "n" * (9 * MIB)} for n in range(5)])
    assert sorted(len(d["notes"]) for d in app.patients.find()) == [9 * MIB] * 5


def test_depth(app):
    def nested(depth: int):
        value = "leaf"
        for _ in range(depth):
            value = {"a": value}
        return value
    for place in ("notes", "plain"):
        app.patients.insert_one({"_id": place, place: nested(150)})
        assert app.patients.find_one({"_id": place})[place] == nested(150)
        with pytest.raises((OperationFailure, PyMongoError, bson.errors.BSONError)):
            app.patients.insert_one({"_id": place + " deep", place: nested(400)})
    assert app.command("ping")["ok"] == 1


def test_many_fields_beside_the_protected_one(app, oracle, markers):
    document = {"_id": 1, **{f"field_{n}": n for n in range(5000)}, "nhs_number": markers.text()}
    app.patients.insert_one(document)
    assert app.patients.find_one({"nhs_number": document["nhs_number"]}) == document


def test_many_connections(proxy, db_name, markers):
    """Half of them idle, the rest at work."""
    app_documents, errors = 40, []
    idle = [proxy.tls_socket() for _ in range(100)]

    def work(n: int):
        try:
            with proxy.client(replica_set=False, maxPoolSize=1) as client:
                c = client[db_name].many
                for m in range(5):
                    c.insert_one({"_id": f"{n}-{m}"})
                assert c.count_documents({"_id": {"$regex": f"^{n}-"}}) == 5
        except Exception as e:  # noqa: BLE001 - reported below
            errors.append(e)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(app_documents)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for s in idle:
        s.close()
    assert not errors, errors[:3]


@pytest.mark.parametrize("compressor", ["snappy", "zlib", "zstd"])
def test_compressed_clients(proxy, db_name, direct, markers, compressor):
    document = patient(markers, f"compressed {compressor}")
    with proxy.client(compressors=compressor) as client:
        client[db_name].patients.insert_one(document)
        assert client[db_name].patients.find_one({"nhs_number": document["nhs_number"]}) == document
    assert is_envelope(direct.patients.find_one({"_id": document["_id"]})["nhs_number"])


def test_compressed_frame_whose_size_lies_is_not_inflated(proxy, app):
    inner = op_msg({"ping": 1, "$db": "admin"})[16:]
    for claimed, data in ((1 << 30, zlib.compress(inner)), (len(inner), zlib.compress(inner + b"\0" * (64 * MIB))), (-1, zlib.compress(inner))):
        with proxy.tls_socket() as s:
            s.sendall(op_msg({"hello": 1, "compression": ["zlib"], "$db": "admin"}))
            assert receive(s)[1]["compression"] == ["zlib"]
            s.sendall(frame(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, claimed, 2) + data))
            s.settimeout(5)
            with pytest.raises((ConnectionError, OSError)):
                receive(s)
    assert proxy.resident_bytes() < 1 << 30
    assert app.command("ping")["ok"] == 1
