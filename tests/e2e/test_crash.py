"""kill -9 either side in the middle of acknowledged writes: what was acknowledged is there, whole and sealed."""

from __future__ import annotations

import threading
import time

import pytest
from pymongo import WriteConcern
from pymongo.errors import PyMongoError

import harness
from harness import Collection, Markers, Mongod, Proxy, Scan, wait_until
from samples import patient

DB = "t_crash"


@pytest.fixture(scope="module")
def world(session_dir, certs):
    """A mongod of its own: the other tests' must not be killed."""
    mongod = Mongod(session_dir / "crash-mongod", certs, verbose=False).start().initiate()
    proxy = Proxy(session_dir / "crash-proxy", mongod, [Collection(f"{DB}.patients", harness.PATIENTS, "nhs_number")]).start()
    markers = Markers()
    markers.owner = "test_crash"
    yield mongod, proxy, markers
    proxy.kill9()
    mongod.stop()


class Writers:
    """Threads that insert until told to stop, and remember what was acknowledged."""

    def __init__(self, proxy: Proxy, markers: Markers, label: str, count: int = 4):
        self.acknowledged: dict[str, dict] = {}
        self.stop_now = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(proxy, markers, f"{label}-{n}")) for n in range(count)]
        for t in self.threads:
            t.start()

    def _run(self, proxy: Proxy, markers: Markers, label: str):
        with proxy.client(replica_set=False, retryWrites=False, serverSelectionTimeoutMS=500) as client:
            c = client[DB].patients.with_options(write_concern=WriteConcern("majority", j=True))
            n = 0
            while not self.stop_now.is_set():
                document = patient(markers, f"{label}-{n}")
                n += 1
                try:
                    c.insert_one(document)
                except PyMongoError:
                    time.sleep(0.02)
                    continue
                self.acknowledged[document["_id"]] = document

    def wait_for(self, count: int):
        wait_until(f"{count} acknowledged inserts", lambda: len(self.acknowledged) >= count, 30)

    def finish(self) -> dict[str, dict]:
        self.stop_now.set()
        for t in self.threads:
            t.join(30)
        return self.acknowledged


def check(proxy: Proxy, expected: dict[str, dict]):
    with proxy.client() as client:
        stored = {d["_id"]: d for d in client[DB].patients.find()}
        missing = [i for i in expected if i not in stored]
        assert not missing, f"{len(missing)} acknowledged documents are gone: {missing[:5]}"
        assert all(stored[i] == d for i, d in expected.items())
        # Every stored document, acknowledged or not, is whole: reading them all above opened every value.
        some = next(iter(expected.values()))
        assert client[DB].patients.find_one({"nhs_number": some["nhs_number"]}) == some


@pytest.mark.parametrize("round_", range(3))
def test_kill_the_proxy(world, round_):
    mongod, proxy, markers = world
    writers = Writers(proxy, markers, f"proxy-{round_}")
    writers.wait_for(60)
    proxy.kill9()
    time.sleep(0.3)
    before = len(writers.acknowledged)
    proxy.start()
    writers.wait_for(before + 40)
    check(proxy, writers.finish())


def test_kill_the_server(world):
    mongod, proxy, markers = world
    writers = Writers(proxy, markers, "server")
    writers.wait_for(60)
    mongod.kill9()
    time.sleep(0.3)
    assert proxy.process.poll() is None, "the proxy must outlive its server"
    assert proxy.http("/livez")[0] == 200
    before = len(writers.acknowledged)
    mongod.start().wait_primary()
    writers.wait_for(before + 40)
    check(proxy, writers.finish())
    wait_until("ready again", lambda: proxy.http("/readyz")[0] == 200)


def test_first_start_interrupted_again_and_again_ends_with_one_key(world, session_dir):
    """Data keys are made on first use; a crash in between must not leave two that both write."""
    mongod, _, markers = world
    proxy = Proxy(session_dir / "crash-keys", mongod, [Collection("t_crash_keys.patients", harness.PATIENTS)], vault="encryption.t_crash_keys")
    try:
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
            proxy.start(ready=False)
            time.sleep(delay)
            proxy.kill9()
        proxy.start()
        with proxy.client() as client:
            client.t_crash_keys.patients.insert_one(patient(markers, 1))
            assert client.t_crash_keys.patients.find_one({"_id": 1})
        with mongod.client(harness.ADMIN) as direct:
            names = [n for k in direct.encryption.t_crash_keys.find() for n in k.get("keyAltNames", [])]
        assert len(names) == len(set(names)) and sum(n.startswith("fieldveil/nhs_number/") for n in names) == 1
    finally:
        proxy.kill9()


@pytest.mark.parametrize("round_", range(4))
def test_two_that_start_for_the_first_time_at_once_end_with_one_key(world, session_dir, round_):
    """One master key, one data key of each domain, and each finds what the other wrote."""
    mongod, _, markers = world
    name = f"t_crash_twins_{round_}"
    twins = [Proxy(session_dir / f"{name}_{n}", mongod, [Collection(f"{name}.patients", harness.PATIENTS)], vault=f"encryption.{name}",
                   master_key=session_dir / f"{name}.key") for n in range(2)]
    try:
        for proxy in twins:
            proxy.start(ready=False)
        together, failures, same = threading.Barrier(2), [], markers.text("same")

        def use(proxy: Proxy, number: int) -> None:
            try:
                wait_until("the proxy to be ready", proxy._ready, 60)
                with proxy.client() as client:
                    client.admin.command("ping")
                    together.wait(60)
                    client[name].patients.insert_one(patient(markers, number, nhs_number=same))
                    together.wait(60)
                    assert {d["_id"] for d in client[name].patients.find({"nhs_number": same})} == {0, 1}
            except (AssertionError, PyMongoError, threading.BrokenBarrierError) as e:
                together.abort()
                failures.append(repr(e))

        threads = [threading.Thread(target=use, args=(proxy, n)) for n, proxy in enumerate(twins)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        assert not failures
        with mongod.client(harness.ADMIN) as direct:
            names = [n for k in direct.encryption[name].find() for n in k.get("keyAltNames", [])]
        assert len(names) == len(set(names)) and sum(n.startswith("fieldveil/nhs_number/") for n in names) == 1
        for proxy in twins:
            assert proxy.stop() == 0
    finally:
        for proxy in twins:
            proxy.kill9()


def test_sigterm_finishes_what_was_begun(world):
    mongod, proxy, markers = world
    writers = Writers(proxy, markers, "sigterm")
    writers.wait_for(40)
    assert proxy.stop() == 0
    acknowledged = writers.finish()
    proxy.start()
    check(proxy, acknowledged)


def test_nothing_leaked_through_all_of_this(world):
    mongod, proxy, markers = world
    Scan(mongod, [DB, "t_crash_keys", "encryption"], [proxy.log, proxy.audit], proxy.metrics()).assert_clean(markers)
    assert "panicked" not in proxy.log.read_text(errors="replace")
