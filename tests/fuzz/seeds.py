"""Writes what fuzzing starts from into tests/fuzz/corpus/<target>/: a real frame for each command that the proxy reads
into, the shipped configurations, envelope headers. Kept out of git; the names are stable, so a second run changes nothing.

    seeds.py <target>
"""

from __future__ import annotations

import random
import re
import struct
import sys
import zlib
from datetime import datetime
from pathlib import Path

import bson

ROOT = Path(__file__).resolve().parents[2]
OP_REPLY, OP_QUERY, OP_COMPRESSED, OP_MSG = 1, 2004, 2012, 2013
CHECKSUM, MORE_TO_COME = 1, 2

# A document of `SAMPLE` in src/session/fuzz.rs.
PATIENT = {"_id": 1, "nhs": "9434765919", "age": 42, "count": bson.Int64(7), "born": datetime(1980, 2, 3), "notes": "text",
           "tags": ["a", "b"], "contacts": [{"kind": "home", "phone": "01632 960001"}], "address": {"line1": "1 High St", "town": "Leeds"},
           "moving": "old", "ward": "A1"}
PIPELINES = {
    "group": [{"$match": {"nhs": "1", "ward": "A1"}}, {"$group": {"_id": "$nhs", "n": {"$sum": 1}, "all": {"$push": "$$ROOT"}}}],
    "project": [{"$project": {"a": "$nhs", "b": {"$cond": [{"$eq": ["$nhs", "1"]}, "$notes", None]}, "c": "$address.line1"}}, {"$unset": "a"}],
    "unwind": [{"$unwind": "$contacts"}, {"$match": {"contacts.phone": {"$in": ["1", None]}}}, {"$sortByCount": "$contacts.phone"}],
    "lookup": [{"$lookup": {"from": "p", "localField": "nhs", "foreignField": "nhs", "as": "o"}}, {"$set": {"x": {"$first": "$o.notes"}}}],
    "lookup-let": [{"$lookup": {"from": "p", "let": {"v": "$nhs"}, "pipeline": [{"$match": {"$expr": {"$eq": ["$nhs", "$$v"]}}}], "as": "o"}}],
    "facet": [{"$facet": {"a": [{"$count": "n"}], "b": [{"$replaceRoot": {"newRoot": "$address"}}]}}],
    "union": [{"$unionWith": {"coll": "p", "pipeline": [{"$match": {"age": 3}}]}}, {"$limit": 3}, {"$skip": 1}, {"$sort": {"ward": 1}}],
    "graph": [{"$graphLookup": {"from": "p", "startWith": "$nhs", "connectFromField": "nhs", "connectToField": "nhs", "as": "g"}}],
    "merge": [{"$match": {}}, {"$merge": {"into": "p", "on": "_id", "whenMatched": "replace"}}],
    "out": [{"$out": "q"}],
    "bucket": [{"$bucket": {"groupBy": "$ward", "boundaries": [1, 2], "default": 3}}, {"$addFields": {"y": {"$map": {"input": "$tags", "in": "$$this"}}}}],
    "stream": [{"$changeStream": {"fullDocument": "updateLookup"}}],
}
FILTERS = {
    "and": {"$and": [{"nhs": {"$in": ["1", "2", None]}}, {"$or": [{"age": {"$ne": 5}}, {"born": datetime(2000, 1, 1)}]}], "ward": {"$gt": "A"}},
    "array": {"tags": {"$all": ["a"]}, "contacts": {"$elemMatch": {"phone": "1", "kind": "home"}}, "contacts.0.phone": {"$exists": True}},
    "expr": {"$expr": {"$in": ["$nhs", ["1", "2"]]}, "moving": "old", "count": {"$not": {"$eq": 3.0}}},
    "refused": {"notes": {"$regex": "^a"}, "nhs": {"$gt": "1"}, "$where": "1", "$jsonSchema": {}},
}
UPDATES = {
    "set": {"$set": {"nhs": "1", "address.line1": "x", "contacts.$[].phone": "2", "ward": "B"}, "$unset": {"notes": 1}, "$inc": {"visits": 1}},
    "arrays": {"$push": {"tags": {"$each": ["c"], "$slice": 5}}, "$addToSet": {"contacts": {"phone": "1"}}, "$pull": {"contacts": {"phone": "1"}}},
    "more": {"$setOnInsert": {"born": datetime(2000, 1, 1)}, "$rename": {"ward": "unit"}, "$min": {"age": 1}, "$currentDate": {"at": True}},
    "replace": {"nhs": "1", "notes": {"a": [1, None]}, "ward": "A"},
    "pipeline": [{"$set": {"nhs": "1", "ward": "$town"}}, {"$unset": "notes"}],
}


def commands() -> dict[str, tuple[dict, dict[str, list[dict]]]]:
    """name → body and kind-1 sections."""
    made: dict[str, tuple[dict, dict[str, list[dict]]]] = {
        "hello": ({"hello": 1, "helloOk": True, "client": {"application": {"name": "seed"}}, "compression": ["zstd", "zlib", "snappy"],
                   "speculativeAuthenticate": {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,,n=app,r=x", "db": "admin"}}, {}),
        "saslStart": ({"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,,n=app,r=x"}, {}),
        "saslContinue": ({"saslContinue": 1, "conversationId": 1, "payload": b"c=biws"}, {}),
        "insert": ({"insert": "p", "ordered": True}, {"documents": [PATIENT, {**PATIENT, "_id": 2, "nhs": None}]}),
        "insert-body": ({"insert": "p", "documents": [PATIENT], "lsid": {"id": bson.Binary(bytes(16), 4)}, "txnNumber": bson.Int64(1)}, {}),
        "getMore": ({"getMore": bson.Int64(7), "collection": "p"}, {}),
        "distinct": ({"distinct": "p", "key": "nhs", "query": {"age": 3}}, {}),
        "explain": ({"explain": {"find": "p", "filter": {"nhs": "1"}}, "verbosity": "executionStats"}, {}),
        "createIndexes": ({"createIndexes": "p", "indexes": [{"key": {"nhs": 1}, "name": "n", "unique": True, "partialFilterExpression": {"moving": "x"}}]}, {}),
        "create": ({"create": "q", "viewOn": "p", "pipeline": PIPELINES["project"], "validator": {"nhs": {"$type": "string"}}}, {}),
        "collMod": ({"collMod": "p", "validator": {"age": 3}}, {}),
        "renameCollection": ({"renameCollection": "c.p", "to": "c.q"}, {}),
        "mapReduce": ({"mapReduce": "p", "map": "f", "reduce": "g", "out": {"inline": 1}, "query": {"nhs": "1"}}, {}),
        "bulkWrite": ({"bulkWrite": 1}, {"ops": [{"insert": 0, "document": PATIENT}], "nsInfo": [{"ns": "c.p"}]}),
        "ping": ({"ping": 1}, {}),
        "unknown": ({"frobnicate": "p"}, {}),
    }
    for name, pipeline in PIPELINES.items():
        made[f"aggregate-{name}"] = ({"aggregate": "p", "pipeline": pipeline, "cursor": {"batchSize": 5}, "let": {"z": 1}}, {})
    for name, query in FILTERS.items():
        made[f"find-{name}"] = ({"find": "p", "filter": query, "projection": {"nhs": 1, "contacts": {"$slice": 1}}, "sort": {"ward": 1}, "limit": 3}, {})
        made[f"count-{name}"] = ({"count": "p", "query": query}, {})
        made[f"delete-{name}"] = ({"delete": "p"}, {"deletes": [{"q": query, "limit": 1}]})
    for name, update in UPDATES.items():
        made[f"update-{name}"] = ({"update": "p"}, {"updates": [{"q": {"nhs": "1"}, "u": update, "upsert": True}]})
        made[f"findAndModify-{name}"] = ({"findAndModify": "p", "query": {"nhs": "1"}, "update": update, "new": True, "fields": {"notes": 1}}, {})
    return made


def frame(opcode: int, body: bytes, request_id: int = 1, response_to: int = 0) -> bytes:
    return struct.pack("<iiii", 16 + len(body), request_id, response_to, opcode) + body


def op_msg(body: dict, sections: dict[str, list[dict]], *, flags: int = 0, request_id: int = 1, response_to: int = 0) -> bytes:
    data = struct.pack("<I", flags) + b"\0" + bson.encode(body)
    for identifier, documents in sections.items():
        payload = identifier.encode() + b"\0" + b"".join(map(bson.encode, documents))
        data += b"\1" + struct.pack("<i", 4 + len(payload)) + payload
    return frame(OP_MSG, data, request_id, response_to)


def requests() -> dict[str, bytes]:
    return {name: op_msg({**body, "$db": "c"}, sections) for name, (body, sections) in commands().items()}


def frames() -> dict[str, bytes]:
    made = requests()
    whole = made["insert"]
    body = whole[16:]
    # The target repairs lengths and checksums under every opcode, so each body counts with its header and without.
    made |= {f"{name}.body": data[16:] for name, data in made.items()}
    made["checksum"] = op_msg({"ping": 1, "$db": "c"}, {}, flags=CHECKSUM) + b"\0\0\0\0"
    made["more-to-come"] = op_msg({"insert": "p", "$db": "c"}, {"documents": [PATIENT]}, flags=MORE_TO_COME)
    made["query"] = frame(OP_QUERY, struct.pack("<i", 0) + b"c.$cmd\0" + struct.pack("<ii", 0, -1) + bson.encode({"isMaster": 1}))
    made["reply"] = frame(OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode({"ok": 1.0}), 2, 1)
    # One literal, and one block as it is: enough for the fuzzer to find the rest of either format.
    snappy = bytes([len(body) & 127 | 128, len(body) >> 7, 61 << 2]) + struct.pack("<H", len(body) - 1) + body
    zstd = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(body)) + struct.pack("<I", len(body) << 3 | 1)[:3] + body
    for compressor, packed in ((0, body), (1, snappy), (2, zlib.compress(body)), (3, zstd)):
        made[f"compressed-{compressor}"] = frame(OP_COMPRESSED, struct.pack("<iiB", OP_MSG, len(body), compressor) + packed)
    return made


def replies() -> list[dict]:
    sealed = bson.Binary(b"\1\1" + bytes(16) + b"\2" + bytes(32), 0x80)
    return [
        {"ok": 1.0, "n": 1, "nModified": 1},
        {"ok": 1.0, "cursor": {"id": bson.Int64(7), "ns": "c.p", "firstBatch": [PATIENT, {"_id": 2, "nhs": sealed, "o": [{"notes": sealed}]}]}},
        {"ok": 1.0, "value": {**PATIENT, "nhs": sealed}, "lastErrorObject": {"n": 1}, "values": [sealed, "x"]},
        {"ok": 1.0, "n": 0, "writeErrors": [{"index": 0, "code": 11000, "keyValue": {"nhs": sealed}, "errmsg": "E11000 dup key"}]},
        {"ok": 0.0, "code": 121, "errmsg": "Document failed validation", "errInfo": {"details": {"nhs": sealed}}},
        {"ok": 1.0, "isWritablePrimary": True, "hosts": ["a:1"], "me": "a:1", "setName": "rs0", "compression": ["zlib"], "maxWireVersion": 17,
         "maxMessageSizeBytes": 48000000, "maxWriteBatchSize": 100000, "saslSupportedMechs": ["SCRAM-SHA-256"]},
    ]


def plan_apply() -> dict[str, bytes]:
    answers = [op_msg(reply, {}, request_id=9, response_to=1) for reply in replies()]
    made = {}
    for n, (name, request) in enumerate(requests().items()):
        for m in {n % len(answers), 1}:
            made[f"{name}-{m}"] = struct.pack("<I", len(request)) + request + answers[m]
    # A length of all ones: the bytes behind it grow commands (src/session/fuzz/grammar.rs).
    return made | {f"grown-{n}": b"\xff" * 4 + random.Random(n).randbytes(300) for n in range(200)}


def envelope() -> dict[str, bytes]:
    made = {"empty": b"\0\2"}
    for subtype, algorithms in ((0x80, (1, 2, 3, 4, 5)), (6, (1, 2, 3))):
        for algorithm in algorithms:
            head = bytes([1, algorithm] if subtype == 0x80 else [algorithm]) + bytes([0x11]) * 16 + b"\2"
            for length in (0, 16, 28, 64, 80, 200):
                made[f"{subtype:02x}-{algorithm}-{length}"] = bytes([subtype, 2]) + head + bytes(range(length))
    return made


def config() -> dict[str, bytes]:
    files = [ROOT / "config/fieldveil.toml", ROOT / "deploy/fieldveil.compose.toml", ROOT / "src/cli/init/fieldveil.toml"]
    made = {f"file-{n}": path.read_bytes() for n, path in enumerate(files)}
    made["sample"] = re.search(r'SAMPLE: &str = r#"(.*?)"#', (ROOT / "src/session/fuzz.rs").read_text(), re.S).group(1).encode()
    # Every commented setting once switched on.
    made["uncommented"] = re.sub(rb"(?m)^# (\w+ = )", rb"\1", made["file-2"])
    return made


if __name__ == "__main__":
    target = sys.argv[1]
    directory = ROOT / "tests/fuzz/corpus" / target
    directory.mkdir(parents=True, exist_ok=True)
    seeds = {"frames": frames, "plan_apply": plan_apply, "envelope": envelope, "config": config}[target]()
    for name, data in seeds.items():
        (directory / f"seed-{name}").write_bytes(data)
    print(f"fuzz: {len(seeds)} seeds for {target}", file=sys.stderr)
