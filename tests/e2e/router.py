"""A front that looks like a router of a sharded cluster to whoever connects, with a real mongod behind it.

**This is no mongos**, and what is tested through it is not tested against one: nothing is sharded, and queries, writes,
transactions and change streams are mongod's own. It changes what a mongos is documented to answer differently:

- `hello`: `msg: "isdbgrid"`, and nothing of a replica set (no `setName`, `hosts`, `primary`, `me`, …); streamed as well;
- cursors and transactions belong to the router that opened them: another router knows neither (`CursorNotFound`,
  `NoSuchTransaction`), but any router commits by a `recoveryToken`, which every reply within a transaction brings;
- `listShards`, `getShardMap`, `isdbgrid`, `serverStatus`, `connPoolStats`, plans, and `raw` of commands that every shard is
  asked: they name shards and their addresses;
- commands that shard a collection are taken, noted and not carried out;
- a collection called `unreachable` is on a shard that cannot be reached, and the error says so in a router's words.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections import Counter
from contextlib import suppress

import bson

from harness import OP_MSG, OP_QUERY, Certs, Mongod, free_port

OP_REPLY = 1
MORE_TO_COME = 2
SET = ("hosts", "passives", "arbiters", "setName", "setVersion", "primary", "secondary", "me", "electionId", "lastWrite", "hidden",
       "tags", "isreplicaset", "info")
ADMIN = ("shardCollection", "reshardCollection", "refineCollectionShardKey", "split", "moveChunk", "moveRange", "updateZoneKeyRange",
         "mergeChunks", "enableSharding")
RAW = ("createIndexes", "dropIndexes", "collMod", "dbStats", "validate")


class Router:
    """One of them: a TLS listener on a port of its own."""

    def __init__(self, mongod: Mongod, certs: Certs, name: str | None = None):
        self.mongod = mongod
        self.port = free_port()
        self.address = f"{name or '127.0.0.1'}:{self.port}"
        # Where its shard is, as it would say.
        self.shard = f"shard01/s1.shards.internal:{mongod.port},127.0.0.1:{mongod.port}"
        pem = certs.issue_joined(f"router-{self.port}", **({"san": f"DNS:{name},IP:127.0.0.1"} if name else {}))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pem)
        self.backend = ssl.create_default_context(cafile=certs.ca)
        self.lock = threading.Lock()
        self.commands: Counter[str] = Counter()
        self.administered: list[dict] = []
        self.tokens: list[dict] = []
        self.cursors: set[int] = set()
        self.transactions: set[tuple] = set()
        self.connections: list[socket.socket] = []
        self.listener: socket.socket | None = None

    def start(self) -> Router:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """As if the process had been killed."""
        with self.lock:
            listener, self.listener = self.listener, None
            gone, self.connections = self.connections, []
            self.cursors.clear()
            self.transactions.clear()
        if listener:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in gone:
            with suppress(OSError):
                # Of the socket below: the SSL object is the other thread's.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError, ConnectionError):
            raw.settimeout(10)
            client = self.context.wrap_socket(raw, server_side=True)
            server = self.backend.wrap_socket(socket.create_connection(("127.0.0.1", self.mongod.port), 10), server_hostname="127.0.0.1")
            with self.lock:
                if self.listener is None:
                    return
                self.connections += [client, server]
            Connection(self, client, server).run()


class Connection:
    """One connection through a router, and its own to the server."""

    def __init__(self, router: Router, client: ssl.SSLSocket, server: ssl.SSLSocket):
        self.router, self.client, self.server = router, client, server
        self.asked: dict[int, tuple[str, dict]] = {}

    def run(self) -> None:
        """One thread for both directions: an SSL object may not be used by two. What is readable need not be a frame, nor
        anything at all but TLS's own: nothing may wait for more of one side."""
        waiting = {self.client: b"", self.server: b""}
        handle = {self.client: self._request, self.server: self._reply}
        with suppress(OSError, ConnectionError, ValueError):
            while True:
                for side in select.select(list(waiting), [], [])[0]:
                    waiting[side] += available(side)
                    while len(waiting[side]) >= 4 and len(waiting[side]) >= (length := struct.unpack_from("<i", waiting[side])[0]):
                        frame, waiting[side] = waiting[side][:length], waiting[side][length:]
                        handle[side](*frame_parts(frame))
        for side in waiting:
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    # --- from the client ---

    def _request(self, request: int, opcode: int, _: int, body: bytes) -> None:
        if opcode == OP_QUERY:
            self.asked[request] = ("hello", {})
            send(self.server, pack(opcode, request, 0, body))
            return
        assert opcode == OP_MSG, f"opcode {opcode}: nothing else was offered"
        flags, command, rest = parts(body)
        name = next(iter(command))
        with self.router.lock:
            answer = self._answer(name, command)
        if answer is not None:
            if not flags & MORE_TO_COME:
                send(self.client, pack(OP_MSG, 1, request, struct.pack("<I", 0) + b"\0" + bson.encode(answer)))
            return
        if not flags & MORE_TO_COME:
            self.asked[request] = (name, command)
        if command.pop("recoveryToken", None) is not None:
            # For routers only.
            body = struct.pack("<I", flags & ~1) + b"\0" + bson.encode(command) + rest
        send(self.server, pack(opcode, request, 0, body))

    def _answer(self, name: str, command: dict) -> dict | None:
        """What the router answers itself; None for what goes to the server."""
        router = self.router
        if name not in ("hello", "isMaster", "ismaster"):
            router.commands[name] += 1
        if name == "getMore" and command["getMore"] not in router.cursors:
            return error(43, "CursorNotFound", f"cursor id {command['getMore']} not found")
        if command.get("autocommit") is False:
            transaction = (bytes(command["lsid"]["id"]), command["txnNumber"])
            token = command.get("recoveryToken")
            if token:
                router.tokens.append(token)
            if command.get("startTransaction"):
                router.transactions.add(transaction)
            elif transaction not in router.transactions and not (name == "commitTransaction" and token):
                return error(251, "NoSuchTransaction", "cannot continue txnId of a session that this router does not know",
                             errorLabels=["TransientTransactionError"])
        if name in ADMIN:
            router.administered.append(command)
            return {"ok": 1.0}
        if name == "listShards":
            return {"shards": [{"_id": "shard01", "host": router.shard, "state": 1}], "ok": 1.0}
        if name == "getShardMap":
            return {"map": {"shard01": router.shard, "config": "csrs/c1.shards.internal:27019"},
                    "hosts": {router.shard.split("/")[1].split(",")[0]: "shard01"}, "connStrings": {router.shard: "shard01"}, "ok": 1.0}
        if name == "isdbgrid":
            return {"isdbgrid": 1, "hostname": "r1.shards.internal", "ok": 1.0}
        if name == "connPoolStats":
            host = {"inUse": 0, "available": 1, "created": 1, "refreshing": 0}
            return {"numClientConnections": 1, "pools": {"NetworkInterfaceTL-TaskExecutorPool-0": {"poolInUse": 0, f"s1.shards.internal:{router.mongod.port}": host}},
                    "hosts": {f"s1.shards.internal:{router.mongod.port}": host},
                    "replicaSets": {"shard01": {"hosts": [{"addr": f"s1.shards.internal:{router.mongod.port}", "ok": True, "ismaster": True}]}}, "ok": 1.0}
        if command.get(name) == "deposed":
            return error(10107, "NotWritablePrimary", "Encountered non-retryable error during query :: caused by :: not primary")
        if command.get(name) == "unreachable":
            return error(6, "HostUnreachable", "Encountered non-retryable error during query :: caused by :: Error connecting to "
                         f"s1.shards.internal:{router.mongod.port} (127.0.0.1:{router.mongod.port}) :: caused by :: Connection refused")
        return None

    # --- from the server ---

    def _reply(self, reply: int, opcode: int, responding: int, body: bytes) -> None:
        name, command = self.asked.pop(responding, ("?", {}))
        if opcode == OP_REPLY:
            head, document = body[:20], bson.decode(body[20:])
            send(self.client, pack(opcode, reply, responding, head + bson.encode(self._changed("hello", command, document))))
            return
        flags, document, rest = parts(body)
        if flags & MORE_TO_COME:
            self.asked[reply] = (name, command)
        with self.router.lock:
            document = self._changed(name, command, document)
        send(self.client, pack(opcode, reply, responding, struct.pack("<I", flags & ~1) + b"\0" + bson.encode(document) + rest))

    def _changed(self, name: str, command: dict, document: dict) -> dict:
        router = self.router
        if name in ("hello", "isMaster", "ismaster"):
            document = {key: value for key, value in document.items() if key not in SET}
            return {**({"msg": "isdbgrid"} if document.get("ok") else {}), **document}
        cursor = document.get("cursor")
        if isinstance(cursor, dict) and cursor.get("id"):
            router.cursors.add(cursor["id"])
        if command.get("autocommit") is False and document.get("ok"):
            document["recoveryToken"] = {"recoveryShardId": "shard01", "seen": bson.Int64(command["txnNumber"])}
        if name == "serverStatus" and document.get("ok"):
            document.pop("repl", None)
            document.update(process="mongos", sharding={"configsvrConnectionString": "csrs/c1.shards.internal:27019,c2:27019"})
        if name in RAW and document.get("ok"):
            times = {key: document.pop(key) for key in ("$clusterTime", "operationTime") if key in document}
            document = {"raw": {router.shard: document}, "ok": 1.0, **times}
        is_plan = name == "explain" or name == "aggregate" and command.get("explain")
        if is_plan and document.get("ok"):
            inner = document.pop("queryPlanner", None)
            document["shards"] = {"shard01": {"host": f"s1.shards.internal:{router.mongod.port}", "queryPlanner": inner}}
            document["mergeType"] = "mongos"
        return document


def error(code: int, name: str, text: str, **more) -> dict:
    return {"ok": 0.0, "errmsg": text, "code": code, "codeName": name, **more}


def available(side: ssl.SSLSocket) -> bytes:
    """What has arrived, perhaps nothing."""
    data = b""
    side.settimeout(0)
    with suppress(ssl.SSLWantReadError):
        while chunk := side.recv(1 << 16):
            data += chunk
        raise ConnectionError("closed")
    return data


def send(side: ssl.SSLSocket, data: bytes) -> None:
    side.settimeout(20)
    side.sendall(data)


def frame_parts(frame: bytes) -> tuple[int, int, int, bytes]:
    _, request, responding, opcode = struct.unpack_from("<iiii", frame)
    return request, opcode, responding, frame[16:]


def pack(opcode: int, request: int, responding: int, body: bytes) -> bytes:
    return struct.pack("<iiii", 16 + len(body), request, responding, opcode) + body


def parts(body: bytes) -> tuple[int, dict, bytes]:
    """Flags, the body document and the sections behind it; a checksum is none of ours."""
    (flags,) = struct.unpack_from("<I", body)
    assert body[4] == 0, "the body section does not come first"
    (size,) = struct.unpack_from("<i", body, 5)
    return flags, bson.decode(body[5 : 5 + size]), body[5 + size :]
