"""`mongodb+srv` on both sides: the proxy finds the servers by it, applications find the proxy by it.

A DNS server of the test's own answers the proxy, the servers and the driver; see names.py.
"""

from __future__ import annotations

import signal

import bson
import pytest
from pymongo import MongoClient, ReadPreference
from pymongo.errors import ConfigurationError

import harness
from harness import APP, SERVICE, Collection, Markers, Proxy, free_port, is_envelope, wait_until
from names import DOMAIN, Names
from replica_set import ReplicaSet, free_ports

DB = "t_srv"
PORTS = 5
PROXY = f"proxy.{DOMAIN}"
COLLECTIONS = [Collection(f"{DB}.patients", harness.PATIENTS, "nhs_number")]


@pytest.fixture(scope="module")
def names(session_dir):
    with Names(session_dir / "names") as made:
        yield made


@pytest.fixture(scope="module")
def members(session_dir, certs, names):
    made = ReplicaSet(session_dir / "srv-set", certs, names=[f"m{n}.{DOMAIN}" for n in range(3)], wrap=names.wrap)
    names.srv(f"set.{DOMAIN}", *made.addresses)
    names.txt(f"set.{DOMAIN}", "authSource=admin&replicaSet=rs0")
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def alone(session_dir, certs, names):
    """A set of one."""
    made = ReplicaSet(session_dir / "srv-alone", certs, members=1, names=[f"only.{DOMAIN}"], wrap=names.wrap)
    names.srv(f"alone.{DOMAIN}", *made.addresses)
    names.txt(f"alone.{DOMAIN}", "authSource=admin&replicaSet=rs0")
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def markers() -> Markers:
    return Markers()


def upstream(certs, host: str) -> str:
    """No port, no `tls`, no `authSource`, no `replicaSet`: DNS says all that."""
    return f"mongodb+srv://{SERVICE[0]}:{SERVICE[1]}@{host}.{DOMAIN}/?tlsCAFile={certs.ca}"


def through_srv(session_dir, names, servers, host: str, what: str, **options) -> Proxy:
    return Proxy(session_dir / f"srv-{what}", servers, COLLECTIONS, vault=f"encryption.srv_{what}", upstream=upstream(servers.certs, host),
                 name=PROXY, wrap=names.wrap, **options)


@pytest.fixture(scope="module")
def found(session_dir, names, members, markers):
    """Three members, found by a record that names one of them only; shown under a name of the same domain."""
    first = free_ports(PORTS)
    names.srv(f"seed.{DOMAIN}", members.addresses[0])
    names.txt(f"seed.{DOMAIN}", "authSource=admin&replicaSet=rs0")
    listen = (f'[[listen]]\naddress = "127.0.0.1:{first}"\nadvertise = "{PROXY}"\ndiscover = true\nports = {PORTS}\n'
              'remember = "members.json"\n')
    proxy = through_srv(session_dir, names, members, "seed", "found", listen=listen, port=first)
    try:
        yield proxy.start()
        scans = members.scans(proxy, [DB, "encryption"])
        assert proxy.stop() == 0, harness.tail(proxy.log)
        for scan in scans:
            scan.assert_clean(markers)
    finally:
        proxy.kill9()


@pytest.fixture(scope="module")
def application(names, found):
    """The record by which applications find the proxy's listeners."""
    names.srv(f"app.{DOMAIN}", *(f"{PROXY}:{port}" for port in range(found.port, found.port + 3)))
    names.txt(f"app.{DOMAIN}", "authSource=admin&replicaSet=rs0")
    return f"app.{DOMAIN}"


def client(certs, host: str, options: str = "", **more) -> MongoClient:
    uri = f"mongodb+srv://{APP[0]}:{APP[1]}@{host}/?tlsCAFile={certs.ca}{options}"
    return MongoClient(uri, **{"serverSelectionTimeoutMS": 30_000, **more})


def direct_to(proxy: Proxy, port: int | None = None, **options) -> MongoClient:
    uri = f"mongodb://{APP[0]}:{APP[1]}@127.0.0.1:{port or proxy.port}/?tls=true&tlsCAFile={proxy.mongod.certs.ca}&authSource=admin"
    return MongoClient(uri, **{"directConnection": True, "serverSelectionTimeoutMS": 20_000, **options})


def seen_by(client: MongoClient) -> set[str]:
    return {f"{host}:{port}" for host, port in client.nodes}


def assert_names_no_member(members: ReplicaSet, reply: dict) -> None:
    raw = bson.encode(reply).lower()
    for member in members.members:
        for needle in (f":{member.port}".encode(), members.address(member).rsplit(":")[0].encode()):
            assert needle not in raw, reply


def test_a_record_with_one_server_and_options_in_txt(session_dir, names, alone, markers):
    proxy = through_srv(session_dir, names, alone, "alone", "one")
    try:
        proxy.start()
        assert (f"_mongodb._tcp.alone.{DOMAIN}", "SRV") in names.asked and (f"alone.{DOMAIN}", "TXT") in names.asked
        with direct_to(proxy) as through, alone.client() as direct:
            through[DB].patients.insert_one({"_id": 1, "mrn": (mrn := markers.text()), "notes": markers.text()})
            assert through[DB].patients.find_one({"mrn": mrn})["_id"] == 1
            assert is_envelope(direct[DB].patients.find_one({"_id": 1})["mrn"])
            hello = through.admin.command("hello")
            assert hello["hosts"] == [hello["me"]] == [hello["primary"]] == [f"127.0.0.1:{proxy.port}"]
            assert_names_no_member(alone, hello)
        with alone.client(harness.ADMIN) as admin:
            # The key vault is reached by the same record.
            assert admin["encryption"]["srv_one"].count_documents({}) > 0
        checked = proxy.cli("check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        scans = alone.scans(proxy, [DB, "encryption"])
        assert proxy.stop() == 0
        for scan in scans:
            scan.assert_clean(markers)
    finally:
        proxy.kill9()


def test_members_that_the_record_does_not_name_are_found_by_the_set(found, members):
    for port in range(found.port, found.port + 3):
        with direct_to(found, port) as through:
            hello = through.admin.command("hello")
            assert set(hello["hosts"]) == {f"{PROXY}:{port}" for port in range(found.port, found.port + 3)}
            assert hello["me"] == f"{PROXY}:{port}"
            assert_names_no_member(members, hello)


def test_an_application_finds_the_listeners_and_nobody_else(found, members, application, markers):
    shown = {f"{PROXY}:{port}" for port in range(found.port, found.port + 3)}
    with client(members.certs, application) as through:
        through[DB].patients.insert_one({"_id": "srv", "mrn": (mrn := markers.text()), "notes": markers.text()})
        assert through[DB].patients.find_one({"mrn": mrn})["_id"] == "srv"
        nearest = through[DB].get_collection("patients", read_preference=ReadPreference.SECONDARY)
        wait_until("a secondary to have it", lambda: nearest.find_one({"mrn": mrn}))
        wait_until("all listeners", lambda: seen_by(through) == shown)
        assert_names_no_member(members, through.admin.command("hello"))


def test_an_election_is_followed(found, members, application, markers):
    with client(members.certs, application, heartbeatFrequencyMS=60_000) as through:
        through[DB].patients.insert_one({"_id": "before", "mrn": markers.text()})
        before = through.primary
        members.step_down()
        wait_until("the driver to see the new primary", lambda: through.primary not in (None, before), 20)
        through[DB].patients.insert_one({"_id": "after", "mrn": markers.text()})
        assert {f"{PROXY}:{port}" for port in range(found.port, found.port + 3)} == seen_by(through)
    members.wait_healthy()


def test_one_listener_follows_the_primary_and_may_be_balanced(session_dir, names, members, markers):
    """Also a vault of its own, made through the record, and an application whose TXT record asks for load balancing."""
    proxy = through_srv(session_dir, names, members, "set", "follows")
    names.srv(f"balanced.{DOMAIN}", f"{PROXY}:{proxy.port}")
    names.txt(f"balanced.{DOMAIN}", "authSource=admin&loadBalanced=true")
    try:
        proxy.start()
        with client(members.certs, f"balanced.{DOMAIN}") as through:
            for n in range(3):
                through[DB].patients.insert_one({"_id": f"balanced-{n}", "mrn": (mrn := markers.text())})
                assert through[DB].patients.find_one({"mrn": mrn})["_id"] == f"balanced-{n}"
                assert seen_by(through) == {f"{PROXY}:{proxy.port}"}
                members.step_down()
        assert proxy.stop() == 0
    finally:
        proxy.kill9()
    members.wait_healthy()


def test_a_changed_record_counts_from_a_reload_on(found, names, members, markers):
    """The set itself says who is a member; the record is only where the search begins. It is read again at a reload, and a
    record that cannot be used then leaves what there was in force."""
    asked = (f"_mongodb._tcp.seed.{DOMAIN}", "SRV")

    def reload(outcome: str) -> None:
        series = f'fieldveil_config_reloads_total{{outcome="{outcome}"}}'

        def times() -> int:
            return sum(int(line.split()[-1]) for line in found.metrics().splitlines() if line.startswith(series))

        before, count = times(), names.asked.count(asked)
        found.process.send_signal(signal.SIGHUP)
        wait_until("the reload", lambda: times() > before)
        assert names.asked.count(asked) > count

    def works(n: int) -> None:
        with direct_to(found, directConnection=False, replicaSet="rs0") as through:
            through[DB].patients.insert_one({"_id": f"changed-{n}", "mrn": (mrn := markers.text())})
            assert through[DB].patients.find_one({"mrn": mrn})["_id"] == f"changed-{n}"

    first, *others = members.addresses
    names.srv(f"seed.{DOMAIN}", *others)
    works(0)
    reload("applied")
    works(1)
    # A member outside the domain: the driver's specification has the whole record refused.
    names.srv(f"seed.{DOMAIN}", first, "m1.elsewhere.test:27017")
    reload("rejected")
    assert "elsewhere.test" in found.log.read_text() and "the old configuration stays in force" in found.log.read_text()
    works(2)
    names.records.pop((f"_mongodb._tcp.seed.{DOMAIN}", "SRV"))
    reload("rejected")
    works(3)
    names.srv(f"seed.{DOMAIN}", first)
    reload("applied")
    works(4)
    assert found.http("/readyz")[0] == 200


@pytest.mark.parametrize("host,records,text,says", [
    ("outside", [f"m0.{DOMAIN}:1", "m0.fieldveil.example:1"], None, "fieldveil.example"),
    ("lookalike", [f"m0.evil{DOMAIN}:1"], None, f"evil{DOMAIN}"),
    ("nothing", [], None, "nothing"),
    ("options", [f"m0.{DOMAIN}:1"], ["tls=false"], "tls"),
    ("twice", [f"m0.{DOMAIN}:1"], ["authSource=admin", "replicaSet=rs0"], "TXT"),
])
def test_refuses_to_start_by_a_record_that_a_driver_would_not_take(session_dir, names, alone, host, records, text, says):
    if records:
        names.srv(f"{host}.{DOMAIN}", *records)
    if text:
        names.txt(f"{host}.{DOMAIN}", *text)
    proxy = through_srv(session_dir, names, alone, host, host)
    for command in ("serve", "check"):
        done = proxy.cli(command)
        assert done.returncode == 1 and says in done.stdout + done.stderr, f"{command}: {done}"
        assert SERVICE[1] not in done.stdout + done.stderr


def test_a_driver_refuses_listeners_outside_the_records_domain(names, members):
    """Why applications' records and the advertised names have to share a domain."""
    names.srv(f"stray.{DOMAIN}", f"localhost:{free_port()}")
    with pytest.raises(ConfigurationError):
        client(members.certs, f"stray.{DOMAIN}")
