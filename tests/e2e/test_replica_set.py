"""A replica set of three members behind one proxy: drivers see the proxy's listeners and nobody else, follow elections,
and lose no more than they would without it."""

from __future__ import annotations

import json
import os
import re
import threading
import time

import bson
import pytest
from pymongo import MongoClient, ReadPreference
from pymongo.errors import OperationFailure, PyMongoError

import harness
from harness import ADMIN, APP, Collection, Markers, Proxy, is_envelope, metric, wait_until
from replica_set import Load, ReplicaSet, failover, free_ports

STEP_DOWNS = int(os.environ.get("FIELDVEIL_STEP_DOWNS", 3))
KILLS = int(os.environ.get("FIELDVEIL_KILLS", 1))
DB = "t_replica_set"
PORTS = 5


@pytest.fixture(scope="module")
def members(session_dir, certs):
    made = ReplicaSet(session_dir / "set", certs, verbose=STEP_DOWNS <= 3)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def markers() -> Markers:
    return Markers()


@pytest.fixture(scope="module")
def found(session_dir, members, markers):
    """A proxy that finds the members itself."""
    first = free_ports(PORTS)
    listen = f'[[listen]]\naddress = "127.0.0.1:{first}"\ndiscover = true\nports = {PORTS}\nremember = "members.json"\n'
    proxy = Proxy(session_dir / "found", members, [Collection(f"{DB}.patients", harness.PATIENTS, "nhs_number"),
                                                  Collection(f"{DB}_tenant_*.patients", {"notes": '{ mode = "random" }'})],
                  listen=listen, port=first, vault="encryption.found")
    proxy.start()
    try:
        yield proxy
        status = proxy.stop()
        for scan in members.scans(Stopped(proxy), [DB, "encryption"]):
            scan.assert_clean(markers)
        assert status == 0, harness.tail(proxy.log)
        assert "panicked" not in proxy.log.read_text(errors="replace")
    finally:
        proxy.kill9()


class Stopped:
    """A proxy whose metrics were read before it stopped."""

    def __init__(self, proxy):
        self.log, self.audit, self.born = proxy.log, proxy.audit, proxy.born

    @staticmethod
    def metrics() -> str:
        return ""


def seen_by(client: MongoClient) -> set[str]:
    return {f"{host}:{port}" for host, port in client.nodes}


def listeners(proxy: Proxy) -> set[str]:
    """The addresses under which the proxy shows members now, by its own file."""
    return {f"127.0.0.1:{port}" for port in json.loads((proxy.directory / "members.json").read_text()).values()}


def client_through(proxy: Proxy, port: int | None = None, user=APP, **options) -> MongoClient:
    uri = proxy.uri(user).replace(f":{proxy.port}/", f":{port or proxy.port}/")
    return MongoClient(uri, **{"serverSelectionTimeoutMS": 30_000, **options})


def test_a_driver_finds_the_listeners_from_any_of_them(found, members):
    shown = listeners(found)
    assert len(shown) == 3 and not shown & set(members.addresses)
    for address in shown:
        with client_through(found, int(address.rsplit(":")[1])) as client:
            client.admin.command("ping")
            wait_until("all listeners to be found", lambda: seen_by(client) == shown)
            assert f"{client.primary[0]}:{client.primary[1]}" in shown


def test_each_listener_leads_to_its_own_member(found, members):
    shown = json.loads((found.directory / "members.json").read_text())
    assert set(shown) == set(members.addresses)
    for member, port in shown.items():
        uri = found.uri(ADMIN, replica_set=False).replace(f":{found.port}/", f":{port}/")
        with MongoClient(uri, serverSelectionTimeoutMS=10_000) as client, \
                MongoClient(next(m for m in members.members if members.address(m) == member).uri(ADMIN)) as direct:
            assert client.admin.command("hello")["me"] == f"127.0.0.1:{port}"
            assert client.admin.command("serverStatus")["pid"] == direct.admin.command("serverStatus")["pid"]


COMMANDS = [
    {"hello": 1}, {"isMaster": 1}, {"replSetGetStatus": 1}, {"replSetGetConfig": 1}, {"serverStatus": 1}, {"hostInfo": 1},
    {"connectionStatus": 1}, {"getCmdLineOpts": 1}, {"connPoolStats": 1}, {"whatsmyuri": 1}, {"buildInfo": 1}, {"top": 1},
    {"listDatabases": 1}, {"getLog": "startupWarnings"}, {"getLog": "*"}, {"getDiagnosticData": 1}, {"replSetGetRBID": 1}, {"listCommands": 1},
    {"features": 1}, {"lockInfo": 1}, {"getParameter": "*"}, {"getDefaultRWConcern": 1, "inMemory": True}, {"usersInfo": 1}, {"shardingState": 1},
    {"listShards": 1}, {"getShardMap": 1}, {"dbStats": 1}, {"currentOp": 1}, {"replSetStepUp": 1, "bogus": 1}, {"replSetMaintenance": 1, "x": "y"},
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: next(iter(c)))
def test_no_reply_names_a_member(found, members, command):
    with client_through(found, user=ADMIN) as client:
        try:
            reply = client.admin.command(dict(command))
        except OperationFailure as e:
            reply = e.details
    assert_names_nobody(members, reply)


def test_plans_and_statistics_name_no_member(found, members):
    with client_through(found, user=ADMIN) as client:
        db = client[DB]
        db.plain.insert_one({"_id": "plan", "host": "kept"})
        plan = db.command("explain", {"find": "plain", "filter": {"host": "kept"}})
        assert_names_nobody(members, plan)
        assert plan["serverInfo"]["host"] == "127.0.0.1"
        statistics = list(db.plain.aggregate([{"$indexStats": {}}]))
        assert_names_nobody(members, statistics[0])
        assert db.plain.find_one({"_id": "plan"}) == {"_id": "plan", "host": "kept"}
        assert_names_nobody(members, db.command({"aggregate": "plain", "pipeline": [{"$match": {"host": "kept"}}], "explain": True}))
        assert_names_nobody(members, db.command("explain", {"aggregate": "plain", "pipeline": [{"$match": {"host": "kept"}}], "cursor": {}}))


PLAIN = {"_id": "stats", "host": "kept:27017", "ns": "also kept", "localTime": "10:30", "accesses": 3, "planCacheKey": "kept"}
INDEXES, COLLECTION = [{"$indexStats": {}}], [{"$collStats": {"count": {}}}]


@pytest.mark.parametrize("pipeline", [
    INDEXES, COLLECTION, [{"$planCacheStats": {}}], INDEXES + [{"$unionWith": "stats"}], COLLECTION + [{"$match": {}}, {"$unionWith": {"coll": "stats"}}],
    [{"$match": {}}, {"$unionWith": {"coll": "stats", "pipeline": INDEXES}}],
    [{"$unionWith": {"coll": "stats", "pipeline": [{"$limit": 1}, {"$unionWith": {"coll": "stats", "pipeline": COLLECTION}}]}}],
    [{"$lookup": {"from": "stats", "pipeline": INDEXES, "as": "joined"}}], INDEXES + [{"$lookup": {"from": "stats", "pipeline": COLLECTION, "as": "joined"}}],
], ids=str)
def test_statistics_name_no_member_wherever_they_come_in(found, members, pipeline):
    """Also in later batches, whose commands do not say what they hold; documents with such names are left alone."""
    with client_through(found, user=ADMIN) as client:
        stats = client[DB].stats
        stats.replace_one({"_id": "stats"}, PLAIN, upsert=True)
        for n in range(4):
            stats.create_index([(f"field{n}", 1)])
        documents = list(stats.aggregate(pipeline, batchSize=1))
        for document in documents:
            assert_names_nobody(members, document)
            if "_id" in document:
                assert {key: document[key] for key in PLAIN} == PLAIN
        assert stats.find_one() == PLAIN


def assert_names_nobody(members: ReplicaSet, reply: dict) -> None:
    raw = bson.encode(reply)
    host = os.uname().nodename.encode()
    needles = [host + b"\0", host + b":"]
    for member in members.members:
        # In a text, as a text of its own, as a number. Names of files may hold it: they are the harness's own.
        needles += [f":{member.port}".encode(), f"\0{member.port}\0".encode(), bson.encode({"port": member.port})[4:-1]]
    for needle in needles:
        if (at := raw.find(needle)) >= 0:
            pytest.fail(f"{needle!r} in …{raw[max(0, at - 80) : at + 80]!r}…")


def test_an_error_of_a_secondary_names_no_member(found, members, markers):
    shown = json.loads((found.directory / "members.json").read_text())
    secondary = next(m for m in members.members if m is not members.primary())
    uri = found.uri(APP, replica_set=False).replace(f":{found.port}/", f":{shown[members.address(secondary)]}/")
    with MongoClient(uri, serverSelectionTimeoutMS=10_000, retryWrites=False) as client:
        with pytest.raises(PyMongoError) as refused:
            client[DB].patients.insert_one({"_id": "secondary", "mrn": markers.text()})
    assert refused.value.details["code"] == 10107
    assert_names_nobody(members, refused.value.details)


def test_a_configuration_read_here_cannot_be_put_back(found):
    """Its members are the proxy's listeners: the set would be taken apart."""
    with client_through(found, user=ADMIN) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        with pytest.raises(OperationFailure, match="replSetReconfig.*direct connection"):
            client.admin.command("replSetReconfig", config)


def test_documents_may_hold_a_members_address(found, members):
    with client_through(found) as client:
        document = {"_id": "address", "host": members.addresses[0], "errmsg": f"see {members.addresses[1]}"}
        client[DB].plain.insert_one(document)
        assert client[DB].plain.find_one({"_id": "address"}) == document


def test_follows_an_election_by_the_stream_of_hellos(found, members, markers):
    shown = listeners(found)
    with client_through(found, heartbeatFrequencyMS=60_000) as client:
        client[DB].patients.insert_one({"_id": "stream", "mrn": (mrn := markers.text())})
        before = client.primary
        members.step_down()
        # No heartbeat is due: only a pushed hello can tell.
        wait_until("the driver to see the new primary", lambda: client.primary not in (None, before), 15)
        assert seen_by(client) == shown
        assert client[DB].patients.find_one({"mrn": mrn})["_id"] == "stream"
    with members.client() as direct:
        assert is_envelope(direct[DB].patients.find_one({"_id": "stream"})["mrn"])


def test_new_data_keys_are_had_through_an_election(found, members, markers):
    """The service's own writes to the key vault wait for the new primary as well."""
    failures: list[str] = []

    def write(n: int, client) -> None:
        try:
            client[f"{DB}_tenant_{n}"].patients.insert_one({"notes": markers.text()})
        except PyMongoError as e:
            failures.append(f"{n}: {e!r}")

    with client_through(found) as client:
        client.admin.command("ping")
        member = members.primary()
        member.kill9()
        threads = [threading.Thread(target=write, args=(n, client)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        member.start()
        members.wait_healthy()
        assert not failures
        assert all(client[f"{DB}_tenant_{n}"].patients.count_documents({}) == 1 for n in range(4))


def test_is_ready_while_one_member_is_down(found, members):
    secondary = next(m for m in members.members if m is not members.primary())
    secondary.kill9()
    deadline = time.monotonic() + 7  # longer than between two looks
    while time.monotonic() < deadline:
        assert found.http("/readyz")[0] == 200
        time.sleep(0.5)
    secondary.start()
    members.wait_healthy()


def test_a_member_that_leaves_loses_its_listener_and_gets_the_same_one_back(found, members, markers):
    shown = json.loads((found.directory / "members.json").read_text())
    leaving = next(m for m in members.members if m is not members.primary())
    port = shown[members.address(leaving)]

    def reconfigure(change) -> None:
        with members.client(ADMIN) as admin:
            config = admin.admin.command("replSetGetConfig")["config"]
            change(config)
            config["version"] += 1
            wait_until("the new configuration", lambda: admin.admin.command("replSetReconfig", config), 20)

    with client_through(found) as client:
        client.admin.command("ping")
        wait_until("all listeners", lambda: len(seen_by(client)) == 3)
        removed = []
        reconfigure(lambda c: removed.extend(c["members"].pop(i) for i in range(len(c["members"]) - 1, -1, -1)
                                             if c["members"][i]["host"] == members.address(leaving)))
        wait_until("the listener to be closed", lambda: not accepts(port), 20)
        wait_until("the driver to forget it", lambda: len(seen_by(client)) == 2, 20)
        client[DB].patients.insert_one({"_id": "two", "mrn": markers.text()})
        reconfigure(lambda c: c["members"].extend(removed))
        wait_until("the listener to be back", lambda: accepts(port), 20)
        wait_until("the driver to find it again", lambda: len(seen_by(client)) == 3, 30)
    assert json.loads((found.directory / "members.json").read_text()) == shown
    members.wait_healthy()


def accepts(port: int) -> bool:
    try:
        with harness.socket.create_connection(("127.0.0.1", port), 1):
            return True
    except ConnectionRefusedError:
        return False


def test_ports_stay_the_same_over_a_restart(found):
    shown = (found.directory / "members.json").read_text()
    assert found.stop() == 0
    # Names in another order than the file was made in.
    kept = dict(reversed(json.loads(shown).items()))
    (found.directory / "members.json").write_text(json.dumps(kept))
    found.start()
    assert json.loads((found.directory / "members.json").read_text()) == kept
    with client_through(found) as client:
        client.admin.command("ping")
        assert seen_by(client) == listeners(found)


def test_named_listeners_show_the_set_and_hide_who_has_none(session_dir, members, markers):
    """Two members have a listener, the third has none; a further listener follows the primary."""
    first = free_ports(3)
    listen = "".join(f'[[listen]]\naddress = "127.0.0.1:{first + n}"\nmember = "{address}"\n\n' for n, address in enumerate(members.addresses[:2]))
    listen += f'[[listen]]\naddress = "127.0.0.1:{first + 2}"\nmember = "primary"\n'
    proxy = Proxy(session_dir / "named", members, [Collection(f"{DB}.named", harness.PATIENTS)], listen=listen, port=first,
                  vault="encryption.named")
    proxy.start()
    try:
        with client_through(proxy, user=ADMIN) as client:
            # The primary may be the one without a listener.
            client.admin.command("ping", read_preference=ReadPreference.NEAREST)
            wait_until("both listeners", lambda: seen_by(client) == {f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}"})
            status = client.admin.command("replSetGetStatus", read_preference=ReadPreference.NEAREST)
            assert_names_nobody(members, status)
            names = [m["name"] for m in status["members"]]
            assert names[:2] == [f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}"] and names[2].endswith(".invalid:27017")
        # With a listener of its own, wherever the primary is.
        uri = proxy.uri(APP, replica_set=False).replace(f":{first}/", f":{first + 2}/")
        for n in range(2):
            with MongoClient(uri, serverSelectionTimeoutMS=20_000) as client:
                client[DB].named.insert_one({"_id": f"primary-{n}", "mrn": markers.text()})
            members.step_down()
            members.wait_healthy()
        assert proxy.stop() == 0
    finally:
        proxy.kill9()


def test_a_connection_that_follows_writes_moves_with_them(session_dir, members, markers):
    """The simplest configuration: one listener, and a connection string with all members."""
    proxy = Proxy(session_dir / "follows", members, [Collection(f"{DB}.follows", harness.PATIENTS)], vault="encryption.follows")
    proxy.start()
    try:
        with client_through(proxy) as client:
            client[DB].follows.insert_one({"_id": 0, "mrn": (mrn := markers.text())})
            assert seen_by(client) == {f"127.0.0.1:{proxy.port}"}
            for n in range(1, 3):
                members.step_down()
                client[DB].follows.insert_one({"_id": n, "mrn": markers.text()})
            assert client[DB].follows.find_one({"mrn": mrn})["_id"] == 0
        assert re.search(r'fieldveil_connections_total\{[^}]*"moved"\} [1-9]', proxy.metrics()), proxy.metrics()
        assert proxy.stop() == 0
    finally:
        proxy.kill9()


@pytest.mark.timeout(60 * (2 + STEP_DOWNS + KILLS))
def test_a_failover_costs_no_more_than_without_the_proxy(found, members, markers, capsys):
    """The same events for both: one load through the proxy, one directly on the set, at the same time."""
    with client_through(found) as through, members.client() as directly:
        proxied = Load("proxied", through, DB, markers)
        # Its values are plaintext on purpose, so they are no markers of the scan.
        direct = Load("direct", directly, f"{DB}_plain", Markers())
        directly[f"{DB}_plain"].patients.create_index("nhs_number")
        through[DB].patients.create_index("nhs_number")
        failover(members, [direct, proxied], step_downs=STEP_DOWNS, kills=KILLS, say=lambda line: tell(capsys, line))
        report = "\n".join(x.report() for x in (direct, proxied))
        tell(capsys, f"{STEP_DOWNS} step-downs, {KILLS} kills\n{report}")
        assert not proxied.wrong and not direct.wrong, proxied.wrong[:3] + direct.wrong[:3]
        assert not proxied.lost() and not direct.lost(), proxied.lost()[:3] + direct.lost()[:3]
        assert proxied.operations() > 100, report
        # One election in ten or so interrupts a write that the driver does not retry, and a kill can cost any thread what it
        # has under way; it is chance whose. With many events the two compare.
        elections = 2 + STEP_DOWNS // 10
        assert proxied.failed_at_elections <= direct.failed_at_elections + elections, report
        in_flight = KILLS * len(proxied.threads) if KILLS < 5 else 2
        assert proxied.failed.total() <= direct.failed.total() + elections + in_flight, report


def tell(capsys, line: str) -> None:
    if STEP_DOWNS > 3:
        with capsys.disabled():
            print(line, flush=True)
    elif re.search("failed, slowest", line):
        print(line)
