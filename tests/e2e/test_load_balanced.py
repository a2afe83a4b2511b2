"""Two proxies on one key vault behind HAProxy, drivers in load-balanced mode: a proxy may die or be restarted, the set
may elect, and the application notices nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import bson
import pytest
from pymongo import MongoClient
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

import harness
from harness import APP, Collection, Markers, Proxy, is_envelope, wait_until
from replica_set import Load, ReplicaSet, failover

DB = "t_load_balanced"
ROUNDS = int(os.environ.get("FIELDVEIL_LB_ROUNDS", 1))


class Balancer:
    """HAProxy in TCP mode; a proxy gets connections while its /readyz says so."""

    def __init__(self, directory: Path, proxies: list[Proxy]):
        binary = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if binary is None:
            pytest.skip("NOT RUN: no haproxy; scripts/install-deps installs it")
        directory.mkdir()
        self.port = harness.free_port()
        servers = "\n".join(f"  server p{n} 127.0.0.1:{p.port} check port {p.admin_port} inter 200ms fall 1 rise 1"
                            for n, p in enumerate(proxies))
        config = directory / "haproxy.cfg"
        config.write_text(f"""global
  maxconn 500
defaults
  mode tcp
  timeout connect 2s
  timeout check 1s
  timeout client 1h
  timeout server 1h
  retries 4
  option redispatch 1
listen fieldveil
  bind 127.0.0.1:{self.port}
  balance roundrobin
  option httpchk GET /readyz
{servers}
""")
        self.process = subprocess.Popen([binary, "-db", "-f", str(config)], stdout=(directory / "haproxy.log").open("wb"), stderr=subprocess.STDOUT)
        wait_until("haproxy", lambda: harness.socket.create_connection(("127.0.0.1", self.port), 1).close() is None)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def members(session_dir, certs):
    made = ReplicaSet(session_dir / "balanced-set", certs)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def markers() -> Markers:
    return Markers()


@pytest.fixture(scope="module")
def proxies(session_dir, members, markers):
    """Started at the same moment, on an empty vault, with one master-key file that does not exist yet."""
    collections = [Collection(f"{DB}.patients", harness.PATIENTS, "nhs_number"),
                   Collection(f"{DB}_tenant_*.patients", {"nhs_number": harness.PATIENTS["mrn"], "notes": harness.PATIENTS["notes"]})]
    made = [Proxy(session_dir / f"balanced-{n}", members, collections, vault="encryption.balanced",
                  master_key=session_dir / "balanced-master.key") for n in range(2)]
    try:
        for proxy in made:
            proxy.start(ready=False)
        for proxy in made:
            wait_until("the proxy to be ready", proxy._ready, 30)
        yield made
        databases = [DB, "encryption", *(f"{DB}_tenant_{n}" for n in range(TENANTS))]
        scans = [scan for proxy in made for scan in members.scans(proxy, databases)]
        statuses = [proxy.stop() for proxy in made]
        for scan in scans:
            scan.assert_clean(markers)
        assert statuses == [0, 0], harness.tail(made[0].log)
    finally:
        for proxy in made:
            proxy.kill9()


@pytest.fixture(scope="module")
def balancer(session_dir, proxies):
    made = Balancer(session_dir / "haproxy", proxies)
    yield made
    made.stop()


TENANTS = 8


def balanced(port: int, certs, user=APP, **options) -> MongoClient:
    uri = f"mongodb://{user[0]}:{user[1]}@127.0.0.1:{port}/?tls=true&tlsCAFile={certs.ca}&authSource=admin&loadBalanced=true"
    return MongoClient(uri, **{"serverSelectionTimeoutMS": 20_000, **options})


def test_two_that_start_at_once_agree_on_every_data_key(proxies, members, markers):
    """Each proxy is the first to write half of the tenants, and both do at the same time; each reads what the other wrote."""
    written: dict[tuple[int, int], str] = {(p, n): markers.text() for p in range(2) for n in range(TENANTS)}
    failures: list[str] = []
    start = threading.Barrier(2)

    def write(p: int) -> None:
        with balanced(proxies[p].port, members.certs) as client:
            client.admin.command("ping")
            start.wait()
            for n in range(TENANTS):
                try:
                    client[f"{DB}_tenant_{n}"].patients.insert_one({"_id": p, "nhs_number": written[p, n], "notes": written[p, n]})
                except PyMongoError as e:
                    failures.append(f"{p} {n}: {e!r}")

    threads = [threading.Thread(target=write, args=(p,)) for p in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    for reader in range(2):
        with balanced(proxies[reader].port, members.certs) as client:
            for (p, n), value in written.items():
                # Found by equality: sealed under the same key, or it would not be.
                found = client[f"{DB}_tenant_{n}"].patients.find_one({"nhs_number": value})
                assert found == {"_id": p, "nhs_number": value, "notes": value}
    with members.client(harness.ADMIN) as direct:
        names = [name for key in direct.encryption.balanced.find() for name in key.get("keyAltNames", [])]
        assert len(names) == len(set(names)) and len([n for n in names if "_tenant_" in n]) == 2 * TENANTS
        assert all(name.endswith("/1") for name in names), names


def test_all_proxies_of_a_vault_are_one_service_and_show_no_member(proxies, balancer, members):
    """A driver forgets its connections by that id, and retries once: were there two ids, the retry after an election could
    meet a connection through the other proxy that leads to the old primary as well."""
    seen = set()
    for proxy in proxies:
        for _ in range(3):
            with balanced(proxy.port, members.certs) as client:
                hello = client.admin.command("hello")
                seen.add(hello["serviceId"])
                assert not {"hosts", "passives", "arbiters", "me", "primary"} & set(hello)
                assert "topologyVersion" in hello
    assert len(seen) == 1 and isinstance(seen.pop(), bson.ObjectId)
    with MongoClient(proxies[0].uri(replica_set=False)) as client:
        assert "serviceId" not in client.admin.command("hello")


def test_a_listener_of_one_member_refuses_load_balanced_clients(session_dir, members, certs):
    port = harness.free_port()
    listen = f'[[listen]]\naddress = "127.0.0.1:{port}"\nmember = "{members.addresses[0]}"\n'
    proxy = Proxy(session_dir / "one-member", members, [Collection(f"{DB}.other", harness.PATIENTS)], listen=listen, port=port,
                  vault="encryption.one_member")
    proxy.start()
    try:
        with balanced(port, certs) as client, pytest.raises((OperationFailure, ConfigurationError)) as refused:
            client.admin.command("ping")
        assert "listener that follows the primary" in str(refused.value)
        assert proxy.stop() == 0
    finally:
        proxy.kill9()


def test_cursors_and_transactions_stay_on_their_connection(balancer, members, markers):
    with balanced(balancer.port, members.certs) as client:
        patients = client[DB].patients
        patients.insert_many([{"_id": f"cursor-{n}", "mrn": markers.text(), "n": n} for n in range(50)])
        cursors = [patients.find({"n": {"$gte": 0}}, batch_size=7).sort("n") for _ in range(4)]
        read = [[] for _ in cursors]
        for _ in range(50):
            for cursor, seen in zip(cursors, read):
                seen.append(next(cursor)["n"])
        assert all(seen == list(range(50)) for seen in read)
        with client.start_session() as session:
            with session.start_transaction():
                patients.insert_one({"_id": "txn-1", "mrn": (mrn := markers.text())}, session=session)
                assert patients.find_one({"mrn": mrn}, session=session)["_id"] == "txn-1"
                assert patients.find_one({"mrn": mrn}) is None
            assert patients.find_one({"mrn": mrn})["_id"] == "txn-1"
            with pytest.raises(ZeroDivisionError), session.start_transaction():
                patients.insert_one({"_id": "txn-2"}, session=session)
                raise ZeroDivisionError
        assert patients.find_one({"_id": "txn-2"}) is None
    with members.client() as direct:
        assert is_envelope(direct[DB].patients.find_one({"_id": "txn-1"})["mrn"])


def run(balancer, members, markers, name: str, events) -> Load:
    with balanced(balancer.port, members.certs) as client:
        client[DB].patients.create_index("nhs_number")
        load = Load(name, client, DB, markers)
        load.start()
        time.sleep(1)
        events(load)
        time.sleep(1)
        load.stop()
        print(load.report())
        assert not load.wrong, load.wrong[:3]
        assert not load.lost(), load.lost()[:3]
        assert load.operations() > 50, load.report()
        return load


@pytest.mark.timeout(120 * (1 + ROUNDS))
def test_killing_a_proxy_costs_the_application_nothing(proxies, balancer, members, markers):
    def kill(load: Load) -> None:
        for _ in range(ROUNDS):
            for proxy in proxies:
                proxy.kill9()
                time.sleep(1)
                proxy.start()
                time.sleep(1)
    load = run(balancer, members, markers, "kill-9", kill)
    assert load.failed.total() == 0, load.report()


@pytest.mark.timeout(120 * (1 + ROUNDS))
def test_a_rolling_restart_drops_nothing(proxies, balancer, members, markers):
    def roll(load: Load) -> None:
        for _ in range(ROUNDS):
            for proxy in proxies:
                assert proxy.stop(signal.SIGTERM) == 0
                proxy.start()
                # As a rollout does: the next one only when this one takes connections again.
                time.sleep(1)
    load = run(balancer, members, markers, "rolling", roll)
    assert load.failed.total() == 0, load.report()


@pytest.mark.timeout(120 * (1 + ROUNDS))
def test_connections_follow_an_election(proxies, balancer, members, markers):
    def elect(load: Load) -> None:
        for _ in range(ROUNDS):
            for _ in range(2):
                members.step_down()
                members.wait_healthy()
                # A driver retries once: an operation that meets two elections fails anywhere.
                time.sleep(2)
    load = run(balancer, members, markers, "election", elect)
    assert load.failed.total() == 0, load.report()


@pytest.mark.timeout(120 * (1 + ROUNDS))
def test_a_killed_primary_costs_no_more_than_without_proxies(proxies, balancer, members, markers):
    with members.client() as directly, balanced(balancer.port, members.certs) as client:
        directly[f"{DB}_plain"].patients.create_index("nhs_number")
        direct = Load("direct", directly, f"{DB}_plain", Markers())
        proxied = Load("proxied", client, DB, markers)
        failover(members, [direct, proxied], step_downs=0, kills=ROUNDS, say=lambda line: None)
        report = "\n".join(x.report() for x in (direct, proxied))
        print(report)
        assert not proxied.wrong and not proxied.lost(), report
        assert proxied.failed.total() <= direct.failed.total() + len(proxied.threads) * ROUNDS, report
