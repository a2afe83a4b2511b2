"""A sharded cluster as applications and the proxy see it: two routers upstream, of the shape that router.py describes (it
is no mongos, and nothing is sharded)."""

from __future__ import annotations

import threading
import time

import bson
import pytest
from pymongo import MongoClient, ReadPreference
from pymongo.errors import NotPrimaryError, OperationFailure, PyMongoError

import harness
from harness import ADMIN, APP, SERVICE, Collection, Markers, Proxy, is_envelope, wait_until
from names import DOMAIN, Names
from replica_set import free_ports
from router import Router
from samples import patient

DB = "t_routers"
COLLECTIONS = [Collection(f"{DB}.patients", harness.PATIENTS, "nhs_number")]


@pytest.fixture(scope="module")
def markers() -> Markers:
    return Markers()


@pytest.fixture(scope="module")
def names(session_dir):
    with Names(session_dir / "router-names") as made:
        yield made


@pytest.fixture(scope="module")
def routers(mongod, certs):
    made = [Router(mongod, certs).start() for _ in range(2)]
    yield made
    for router in made:
        router.stop()


def upstream(routers, certs) -> str:
    return f"mongodb://{SERVICE[0]}:{SERVICE[1]}@{','.join(r.address for r in routers)}/?tls=true&tlsCAFile={certs.ca}&authSource=admin"


@pytest.fixture(scope="module")
def one(session_dir, mongod, routers, certs, markers):
    """One listener for both routers."""
    yield from running(Proxy(session_dir / "routers-one", mongod, COLLECTIONS, vault="encryption.routers", upstream=upstream(routers, certs)), markers)


@pytest.fixture(scope="module")
def each(session_dir, mongod, routers, certs, markers, one):
    """A listener for each router, on the same vault."""
    first = free_ports(2)
    listen = "".join(f'[[listen]]\naddress = "127.0.0.1:{first + n}"\nmember = "{router.address}"\n\n' for n, router in enumerate(routers))
    yield from running(Proxy(session_dir / "routers-each", mongod, COLLECTIONS, vault="encryption.routers", listen=listen, port=first,
                             upstream=upstream(routers, certs), master_key=one.master_key), markers)


def running(proxy: Proxy, markers: Markers):
    try:
        yield proxy.start()
        scan = proxy.scan([DB, "encryption"])
        assert proxy.stop() == 0, harness.tail(proxy.log)
        scan.assert_clean(markers)
        assert "panicked" not in proxy.log.read_text(errors="replace")
    finally:
        proxy.kill9()


@pytest.fixture(scope="module")
def polled(session_dir, mongod, certs, names, markers):
    """A proxy that knows one router by its SRV record, which names another one from the moment that the proxy runs. First
    of all tests, because a driver looks again after a minute at the earliest."""
    old, new = (Router(mongod, certs, name=f"r{n}.{DOMAIN}").start() for n in range(2))
    names.srv(f"cluster.{DOMAIN}", old.address)
    names.txt(f"cluster.{DOMAIN}", "authSource=admin")
    proxy = Proxy(session_dir / "routers-polled", mongod, COLLECTIONS, vault="encryption.polled", wrap=names.wrap,
                  upstream=f"mongodb+srv://{SERVICE[0]}:{SERVICE[1]}@cluster.{DOMAIN}/?tlsCAFile={certs.ca}")
    try:
        for _ in running(proxy, markers):
            names.srv(f"cluster.{DOMAIN}", new.address)
            yield proxy, old, new, time.monotonic()
    finally:
        old.stop()
        new.stop()


def connect(ports, certs, user=APP, options: str = "", **more) -> MongoClient:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    uri = f"mongodb://{user[0]}:{user[1]}@{hosts}/?tls=true&tlsCAFile={certs.ca}&authSource=admin{options}"
    return MongoClient(uri, **{"serverSelectionTimeoutMS": 20_000, **more})


@pytest.fixture
def through(one, certs):
    with connect([one.port], certs) as client:
        yield client


@pytest.fixture(params=["one", "each"])
def either(request, certs):
    proxy = request.getfixturevalue(request.param)
    with connect([proxy.port + n for n in range(1 if request.param == "one" else 2)], certs) as client:
        yield client


def test_a_record_that_will_change(polled, certs):
    proxy, old, new, _ = polled
    with connect([proxy.port], certs) as client:
        client[DB].patients.insert_one({"_id": "polled"})
    assert old.commands["insert"] > 0 and not new.commands


def test_a_driver_sees_routers_and_no_backend(either, routers):
    either.admin.command("ping")
    assert either.topology_description.topology_type_name == "Sharded"
    hello = either.admin.command("hello")
    assert hello["msg"] == "isdbgrid"
    assert_names_nobody(routers, hello)


def test_a_shard_without_a_primary_deposes_no_router(one, certs):
    """The reply goes on as it is, its connection stays, and nobody is kept from the router."""
    with connect([one.port], certs, retryReads=False, maxPoolSize=1) as client:
        for _ in range(2):
            with pytest.raises(NotPrimaryError) as refused:
                client[DB].command("find", "deposed")
            assert refused.value.details["code"] == 10107
            began = time.monotonic()
            with connect([one.port], certs) as other:
                assert other[DB].plain.find_one({"_id": "nobody"}) is None
            assert time.monotonic() - began < 1.5


def test_check_is_content(one):
    checked = one.cli("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_documents_are_sealed_and_opened(either, mongod, markers, name):
    document = patient(markers, name)
    found = either[DB].patients
    found.insert_one(document)
    assert found.find_one({"nhs_number": document["nhs_number"]}) == document
    assert found.update_one({"nhs_number": document["nhs_number"]}, {"$set": {"mrn": (mrn := markers.text())}}).modified_count == 1
    assert [d["_id"] for d in found.aggregate([{"$match": {"mrn": mrn}}, {"$project": {"notes": 1}}])] == [name]
    secondary = found.with_options(read_preference=ReadPreference.SECONDARY_PREFERRED)
    assert secondary.count_documents({"mrn": mrn}) == 1
    with mongod.client(ADMIN) as direct:
        assert is_envelope(direct[DB].patients.find_one({"_id": name})["mrn"])
    assert found.delete_one({"mrn": mrn}).deleted_count == 1


def occupy(client: MongoClient, connections: int) -> list[threading.Thread]:
    """Keeps so many connections of the driver busy for half a second: an operation meanwhile takes another."""
    version = client.admin.command("hello")["topologyVersion"]
    busy = [threading.Thread(target=lambda: client.admin.command({"hello": 1, "topologyVersion": version, "maxAwaitTimeMS": 500}))
            for _ in range(connections)]
    for thread in busy:
        thread.start()
    return busy


def meanwhile(client: MongoClient, what) -> None:
    """Does it while ever more connections are busy, so that it meets every connection that there is."""
    for thread in occupy(client, 6):
        thread.join(10)
    for connections in range(1, 6):
        busy = occupy(client, connections)
        time.sleep(0.15)
        what()
        for thread in busy:
            thread.join(10)


def test_cursors_go_on_from_any_connection(either, markers, name):
    found = either[DB].patients
    mrns = {markers.text() for _ in range(30)}
    found.insert_many([{"_id": f"{name}-{n}", "group": name, "mrn": mrn} for n, mrn in enumerate(mrns)])
    cursor = found.find({"group": name}, batch_size=2)
    read = {next(cursor)["mrn"]}
    meanwhile(either, lambda: read.update(next(cursor)["mrn"] for _ in range(4)))
    read.update(d["mrn"] for d in cursor)
    assert read == mrns


def test_transactions_stay_with_their_router(either, routers, markers, name):
    found = either[DB].patients
    found.insert_one({"group": name})

    before = [len(router.tokens) for router in routers]

    def transact(session) -> None:
        mrn = markers.text()
        found.insert_one({"group": name, "mrn": mrn}, session=session)
        assert found.find_one({"mrn": mrn}, session=session)["mrn"] == mrn
        found.update_one({"mrn": mrn}, {"$set": {"notes": mrn}}, session=session)

    with either.start_session() as session:
        with session.start_transaction():
            meanwhile(either, lambda: transact(session))
        for _ in range(3):
            session.with_transaction(transact)
    assert found.count_documents({"group": name}) == 9
    tokens = [token for router, n in zip(routers, before) for token in router.tokens[n:]]
    # As they were handed out, type and order included.
    assert len(tokens) == 4 and all(list(t) == ["recoveryShardId", "seen"] and isinstance(t["seen"], bson.Int64) for t in tokens)


def test_change_streams_are_opened(either, markers, name):
    found = either[DB].patients
    with found.watch([{"$match": {"operationType": "insert"}}], max_await_time_ms=500) as stream:
        found.insert_one({"_id": name, "mrn": (mrn := markers.text())})
        event = next(stream)
        assert event["fullDocument"] == {"_id": name, "mrn": mrn}
        token = stream.resume_token
    found.insert_one({"_id": f"{name}-2", "mrn": mrn})
    with found.watch(resume_after=token) as stream:
        assert next(stream)["documentKey"] == {"_id": f"{name}-2"}


COMMANDS = [
    {"listShards": 1}, {"getShardMap": 1}, {"isdbgrid": 1}, {"serverStatus": 1}, {"connPoolStats": 1}, {"hostInfo": 1}, {"hello": 1},
    {"whatsmyuri": 1}, {"getCmdLineOpts": 1},
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: next(iter(c)))
def test_no_reply_names_a_server_behind(one, each, routers, certs, command):
    for proxy in (one, each):
        with connect([proxy.port], certs, ADMIN, directConnection=True) as client:
            assert_names_nobody(routers, client.admin.command(dict(command)))


@pytest.mark.parametrize("command", [
    {"createIndexes": "patients", "indexes": [{"key": {"mrn": 1}, "name": "mrn_1"}]}, {"dbStats": 1}, {"validate": "patients"},
    {"explain": {"find": "patients", "filter": {"ward": "A"}}}, {"explain": {"aggregate": "patients", "pipeline": [], "cursor": {}}},
    {"aggregate": "patients", "pipeline": [], "explain": True}, {"dropIndexes": "patients", "index": "mrn_1"},
], ids=lambda c: next(iter(c)))
def test_what_shards_say_names_no_server(either, routers, command):
    reply = either[DB].command(dict(command))
    assert "raw" in reply or "shards" in reply
    assert_names_nobody(routers, reply)


def test_errors_name_no_server(either, routers):
    with pytest.raises(OperationFailure) as caught:
        either[DB].unreachable.find_one({})
    assert caught.value.code == 6 and "hidden-" in caught.value.details["errmsg"]
    assert_names_nobody(routers, caught.value.details)


def assert_names_nobody(routers, reply: dict) -> None:
    raw = bson.encode(reply)
    ports = [routers[0].mongod.port, *(router.port for router in routers)]
    needles = [b"shards.internal", b"c2:27019", *(f":{port}".encode() for port in ports), *(bson.encode({"port": port})[4:-1] for port in ports)]
    for needle in needles:
        if (at := raw.find(needle)) >= 0:
            pytest.fail(f"{needle!r} in …{raw[max(0, at - 80) : at + 80]!r}…")


def test_a_collection_is_sharded_by_plain_fields_only(one, routers, certs, markers):
    taken = lambda: [c for router in routers for c in router.administered]
    with connect([one.port], certs, ADMIN) as client:
        admin = client.admin
        ns = f"{DB}.patients"
        admin.command({"shardCollection": ns, "key": {"ward": 1, "_id": "hashed"}, "comment": markers.text()})
        admin.command({"split": ns, "middle": {"ward": "B"}})
        admin.command({"moveRange": ns, "min": {"ward": "A"}, "max": {"ward": "B"}, "toShard": "shard01"})
        assert [next(iter(c)) for c in taken()] == ["shardCollection", "split", "moveRange"]
        assert taken()[0]["key"] == {"ward": 1, "_id": "hashed"} and "comment" not in taken()[0]
        for command in ({"shardCollection": ns, "key": {"mrn": "hashed"}}, {"reshardCollection": ns, "key": {"ward": 1, "mrn": 1}},
                        {"split": ns, "find": {"mrn": markers.text()}}, {"moveChunk": ns, "bounds": [{"mrn": markers.text()}, {}], "to": "s"},
                        {"updateZoneKeyRange": ns, "min": {"contacts.phone": markers.text()}, "max": {}, "zone": "z"}):
            with pytest.raises(OperationFailure, match="never be rotated") as caught:
                admin.command(command)
            assert not markers.find(str(caught.value.details).encode())
        assert len(taken()) == 3


def test_load_balanced_drivers_are_served(one, certs, markers, name):
    with connect([one.port], certs, options="&loadBalanced=true") as client:
        found = client[DB].patients
        mrns = [markers.text() for _ in range(10)]
        found.insert_many([{"_id": f"{name}-{n}", "mrn": mrn, "group": name} for n, mrn in enumerate(mrns)])
        cursor = found.find({"group": name}, batch_size=2)
        read = [next(cursor)["mrn"]]
        meanwhile(client, lambda: read.append(next(cursor)["mrn"]))
        assert sorted(read + [d["mrn"] for d in cursor]) == sorted(mrns)


def test_a_reload_moves_nobody(one, routers, through):
    """A cursor that is open over a reload goes on: the proxy stays with its router."""
    through[DB].plain.insert_many([{} for _ in range(10)])
    cursor = through[DB].plain.find({}, batch_size=2)
    next(cursor)
    reloads = lambda: harness.metric(one, "fieldveil_config_reloads_total")
    for _ in range(3):
        before = reloads()
        one.process.send_signal(harness.signal.SIGHUP)
        wait_until("the reload", lambda: reloads() > before)
        time.sleep(0.3)
    assert len(list(cursor)) == 9


def test_goes_on_with_the_other_router(one, each, routers, certs, markers, name):
    """Whichever router dies: writes that a driver retries go on, and so do later reads."""
    with connect([one.port], certs) as by_one, connect([each.port, each.port + 1], certs) as by_each:
        clients = {"one": by_one, "each": by_each}
        for turn in range(2):
            for router in routers[turn], routers[1 - turn]:
                for client in clients.values():
                    client[DB].patients.insert_one({"_id": f"{name}-{turn}-{router.port}-{client.address if client is by_one else 'each'}"})
                router.stop()
                for which, client in clients.items():
                    for n in range(5):
                        mrn = markers.text()
                        client[DB].patients.insert_one({"_id": f"{name}-{turn}-{router.port}-{which}-{n}", "mrn": mrn})
                        assert client[DB].patients.find_one({"mrn": mrn})["mrn"] == mrn
                assert one.http("/readyz")[0] == 200 and each.http("/readyz")[0] == 200
                router.start()
                time.sleep(0.5)


def test_a_changed_record_is_followed_by_itself(polled, certs):
    """The only topology in which the record is read again without a reload."""
    proxy, old, new, since = polled

    def moved() -> bool:
        with connect([proxy.port], certs) as client:
            client[DB].patients.find_one({})
        return new.commands["find"] > 0

    wait_until("the proxy to use the new record", moved, 150 - (time.monotonic() - since), every=2)
    assert time.monotonic() - since >= 60
    old.stop()
    with connect([proxy.port], certs) as client:
        assert client[DB].patients.find_one({"_id": "polled"}) == {"_id": "polled"}
    assert proxy.http("/readyz")[0] == 200
