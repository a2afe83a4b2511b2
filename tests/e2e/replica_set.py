"""A replica set of three members on this machine, what can happen to it, and a load that counts what an application
would notice of that.

Used by test_replica_set.py with few events, and by scripts/failover with many.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.errors import PyMongoError

import harness
from harness import ADMIN, APP, SERVICE, Certs, Markers, Mongod, Scan, wait_until

MAJORITY = WriteConcern("majority", wtimeout=20_000)


def free_ports(count: int) -> int:
    """The first of so many ports in a row that were free a moment ago."""
    for _ in range(200):
        first = harness.free_port()
        try:
            sockets = []
            for port in range(first, first + count):
                s = socket.socket()
                sockets.append(s)
                s.bind(("127.0.0.1", port))
            return first
        except (OSError, OverflowError):
            continue
        finally:
            for s in sockets:
                s.close()
    raise AssertionError(f"no {count} free ports in a row")


class ReplicaSet:
    """Three members with TLS and SCRAM; behaves as a `Mongod` towards a `Proxy`."""

    def __init__(self, directory: Path, certs: Certs, *, members: int = 3, verbose: bool = True, names: Sequence[str] = (),
                 wrap: Sequence[str] = ()):
        """The set's own configuration calls the members by `names`, or by their IP address; `wrap` as for `Mongod`."""
        self.certs = certs
        self.names = names or ["127.0.0.1"] * members
        self.members = [Mongod(directory / f"member-{n}", certs, verbose=verbose, name=names[n] if names else None, wrap=wrap)
                        for n in range(members)]
        for member in self.members:
            # One key for all: they authenticate to each other with it.
            member.keyfile = self.members[0].keyfile

    def start(self) -> ReplicaSet:
        for member in self.members:
            member.start()
        first = self.members[0]
        config = {"_id": "rs0", "members": [{"_id": n, "host": self.address(m), "priority": 1} for n, m in enumerate(self.members)],
                  "settings": {"electionTimeoutMillis": 1500, "heartbeatIntervalMillis": 500}}
        with MongoClient(first.uri(None), directConnection=True) as client:
            wait_until("replSetInitiate", lambda: client.admin.command("replSetInitiate", config))
        primary = wait_until("a primary", self._find_primary, 30)
        with MongoClient(primary.uri(None), directConnection=True) as client:
            client.admin.command("createUser", ADMIN[0], pwd=ADMIN[1], roles=["root"])
        with self.client(ADMIN) as client:
            client.admin.command("createUser", APP[0], pwd=APP[1], roles=["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor"])
            client.admin.command("createRole", "fieldveilCatalogue", roles=[], privileges=[
                {"resource": {"cluster": True}, "actions": ["listDatabases"]},
                {"resource": {"db": "", "collection": ""}, "actions": ["listCollections"]}])
            client.admin.command("createUser", SERVICE[0], pwd=SERVICE[1], writeConcern={"w": "majority"},
                                 roles=[{"role": "readWrite", "db": "encryption"}, "fieldveilCatalogue"])
        self.wait_healthy()
        return self

    def stop(self) -> None:
        for member in self.members:
            member.stop(signal.SIGKILL)
            shutil.rmtree(member.dbpath, ignore_errors=True)

    def address(self, member: Mongod) -> str:
        return f"{self.names[self.members.index(member)]}:{member.port}"

    @property
    def addresses(self) -> list[str]:
        return [self.address(member) for member in self.members]

    def uri(self, user: tuple[str, str] | None, *, replica_set: bool = True) -> str:
        who = f"{user[0]}:{user[1]}@" if user else ""
        options = f"tls=true&tlsCAFile={self.certs.ca}&replicaSet=rs0" + ("&authSource=admin" if user else "")
        return f"mongodb://{who}{','.join(self.addresses)}/?{options}"

    def client(self, user: tuple[str, str] = APP, **options) -> MongoClient:
        return MongoClient(self.uri(user), **{"serverSelectionTimeoutMS": 30_000, **options})

    def _find_primary(self) -> Mongod | None:
        for member in self.members:
            if member.process is None or member.process.poll() is not None:
                continue
            try:
                with MongoClient(member.uri(None), serverSelectionTimeoutMS=2_000) as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return member
            except PyMongoError:
                continue
        return None

    def primary(self) -> Mongod:
        return wait_until("a primary", self._find_primary, 30)

    def wait_healthy(self) -> None:
        """A primary, and every member that runs is a secondary of it."""
        def healthy() -> bool:
            with self.client(ADMIN, serverSelectionTimeoutMS=5_000) as client:
                states = Counter(m["stateStr"] for m in client.admin.command("replSetGetStatus")["members"])
                return states["PRIMARY"] == 1 and states["SECONDARY"] == len(self.members) - 1
        wait_until("a healthy set", healthy, 60, every=0.2)

    def step_down(self) -> None:
        """Makes another member the primary. Asks again where none was ready to take over: a member that has just
        stepped down itself, or was away, cannot yet."""
        old = self.primary()

        def another() -> bool:
            # The connection may be cut by the step-down itself; what counts is who is primary afterwards.
            with suppress(PyMongoError), old.client(ADMIN) as client:
                if client.admin.command("hello")["isWritablePrimary"]:
                    client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=4)
            new = self._find_primary()
            return new is not None and new is not old

        wait_until("another primary", another, 60, every=0.2)

    def now(self):
        return self.members[0].now()

    def profile_everything(self, db: str) -> None:
        pass

    def scans(self, proxy, databases: list[str]) -> list[Scan]:
        """One scan for each member: what was replicated must be as clean as what was written."""
        files = [proxy.log, proxy.audit]
        return [Scan(member, databases, files, proxy.metrics(), (0, proxy.born[1])) for member in self.members]


# --- the load ---------------------------------------------------------------------------------------------------------


class Load:
    """Threads that write and read as an application would, and count what fails in its eyes. Every acknowledged write is
    checked at the end."""

    def __init__(self, name: str, client: MongoClient, db: str, markers: Markers, *, threads: int = 4):
        self.name = name
        self.client = client
        self.patients = client[db].get_collection("patients", write_concern=MAJORITY)
        self.markers = markers
        self.threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(threads)]
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.done = Counter()
        self.failed = Counter()
        self.errors: list[str] = []
        self.acknowledged: dict[str, int] = {}
        self.wrong: list[str] = []
        self.slowest = 0.0
        # Of all that failed, before the first kill.
        self.failed_at_elections = 0

    def start(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def stop(self) -> Load:
        self.stopping.set()
        for thread in self.threads:
            thread.join(90)
            assert not thread.is_alive(), f"{self.name}: an operation never came back"
        return self

    def _work(self, number: int) -> None:
        rng = random.Random(number)
        mine: list[tuple[str, str]] = []
        for n in itertools.count():
            if self.stopping.is_set():
                return
            if not mine or rng.random() < 0.3:
                key, nhs = f"{self.name}-{number}-{n}", None
                with self.lock:
                    nhs = self.markers.text("nhs")
                self._do("insert", lambda: self._insert(key, nhs, mine))
            else:
                key, nhs = rng.choice(mine)
                kind = rng.choice(["find", "find", "update", "modify", "aggregate"])
                self._do(kind, lambda: getattr(self, f"_{kind}")(key, nhs))
            time.sleep(0.005)

    def _do(self, kind: str, operation) -> None:
        begun = time.monotonic()
        try:
            operation()
        except PyMongoError as e:
            with self.lock:
                self.failed[kind] += 1
                cause = f" (after {e.__cause__!r})" if e.__cause__ else ""
                self.errors.append(f"{kind}: {type(e).__name__}: {str(e)[:160]}{cause[:160]}")
        else:
            with self.lock:
                self.done[kind] += 1
        self.slowest = max(self.slowest, time.monotonic() - begun)

    def _insert(self, key: str, nhs: str, mine: list) -> None:
        self.patients.insert_one({"_id": key, "nhs_number": nhs, "notes": nhs, "visits": 0})
        with self.lock:
            self.acknowledged[key] = 0
        mine.append((key, nhs))

    def _find(self, key: str, nhs: str) -> None:
        found = self.patients.find_one({"nhs_number": nhs})
        if found is None or found["_id"] != key or found["notes"] != nhs:
            self.wrong.append(f"{key}: {found}")

    def _update(self, key: str, nhs: str) -> None:
        result = self.patients.update_one({"nhs_number": nhs}, {"$inc": {"visits": 1}, "$set": {"notes": nhs}})
        if result.matched_count != 1:
            self.wrong.append(f"{key}: matched {result.matched_count}")
        with self.lock:
            self.acknowledged[key] += 1

    def _modify(self, key: str, nhs: str) -> None:
        found = self.patients.find_one_and_update({"nhs_number": nhs}, {"$inc": {"visits": 1}})
        if found is None or found["nhs_number"] != nhs:
            self.wrong.append(f"{key}: {found}")
        with self.lock:
            self.acknowledged[key] += 1

    def _aggregate(self, key: str, nhs: str) -> None:
        found = list(self.patients.aggregate([{"$match": {"nhs_number": nhs}}, {"$project": {"n": "$notes"}}]))
        if [d["n"] for d in found] != [nhs]:
            self.wrong.append(f"{key}: {found}")

    def lost(self) -> list[str]:
        """Acknowledged writes that are not there, and retried ones that happened twice. An update that failed may or may
        not have happened: it can only add."""
        primary = self.patients.with_options(read_preference=ReadPreference.PRIMARY)
        stored = {d["_id"]: d["visits"] for d in primary.find({"visits": {"$exists": True}}, {"visits": 1})}
        slack = self.failed["update"] + self.failed["modify"]
        return [f"{key}: {stored.get(key)} visits, {visits} acknowledged" for key, visits in self.acknowledged.items()
                if not visits <= stored.get(key, -1) <= visits + slack]

    def operations(self) -> int:
        return self.done.total() + self.failed.total()

    def report(self) -> str:
        lines = [f"{self.name:>8}: {self.operations()} operations, {self.failed.total()} failed, slowest {self.slowest:.1f} s"]
        return "\n".join(lines + [f"          {n}× {e}" for e, n in Counter(self.errors).most_common(8)])


def failover(members: ReplicaSet, loads: list[Load], *, step_downs: int, kills: int, say=print) -> None:
    """The same events for all loads at once: elections, and the primary killed and started again."""
    for load in loads:
        load.start()
    time.sleep(2)
    for n in range(step_downs):
        members.step_down()
        say(f"step-down {n + 1} of {step_downs}: {' / '.join(f'{x.name} {x.failed.total()} failed' for x in loads)}")
        members.wait_healthy()
        time.sleep(0.5)
    for load in loads:
        load.failed_at_elections = load.failed.total()
    for n in range(kills):
        member = members.primary()
        member.kill9()
        wait_until("another primary", lambda: (new := members._find_primary()) and new is not member, 30)
        time.sleep(1)
        member.start()
        members.wait_healthy()
        say(f"kill {n + 1} of {kills}: {' / '.join(f'{x.name} {x.failed.total()} failed' for x in loads)}")
        time.sleep(0.5)
    for load in loads:
        load.stop()
