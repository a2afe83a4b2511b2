"""Fixtures. One mongod for the session behind the proxy, a second one as a plaintext oracle, one proxy per module.

A module sets what its proxy is like with module-level names:
    COLLECTIONS = {"patients": {path: rule, …}, …}      default: the sample's patients
    PROXY = {…}                                         further arguments of harness.Proxy
    OWN_MONGOD = True                                   a server of its own, because the module may bring it down
    LEAVES_PLAINTEXT = "reason"                         no scan at the end; the module does its own
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from pymongo.database import Database

import harness
from harness import ADMIN, Certs, Collection, Markers, Mongod, Proxy


def pytest_collection_modifyitems(config, items):
    """Without a binary the tests are not green and not silently gone: each says NOT RUN, and scripts/test counts them."""
    if harness.fieldveil_binary() is None:
        for item in items:
            if item.get_closest_marker("no_proxy") is None:
                item.add_marker(pytest.mark.skip(reason="NOT RUN: no fieldveil binary; run cargo build or set FIELDVEIL_BIN"))


@pytest.fixture(scope="session")
def session_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fieldveil")


@pytest.fixture(scope="session")
def certs(session_dir) -> Certs:
    return Certs(session_dir / "certs")


@pytest.fixture(scope="session")
def mongod(session_dir, certs):
    server = Mongod(session_dir / "mongod", certs).start().initiate()
    yield server
    server.stop()
    shutil.rmtree(server.dbpath, ignore_errors=True)


@pytest.fixture(scope="session")
def oracle_server(session_dir, certs):
    """A second server that only ever sees plaintext: what MongoDB itself would have answered."""
    server = Mongod(session_dir / "oracle", certs, verbose=False).start().initiate()
    yield server
    server.stop()
    shutil.rmtree(server.dbpath, ignore_errors=True)


@pytest.fixture(scope="module")
def db_name(request) -> str:
    return "t_" + re.sub("^test_", "", request.module.__name__.rsplit(".", 1)[-1])


@pytest.fixture(scope="module")
def markers(request) -> Markers:
    made = Markers()
    made.owner = f"a fixture of {request.module.__name__}"
    return made


@pytest.fixture(scope="module")
def server(request, session_dir, certs, db_name):
    """The mongod behind this module's proxy."""
    if not getattr(request.module, "OWN_MONGOD", False):
        yield request.getfixturevalue("mongod")
        return
    own = Mongod(session_dir / f"{db_name}-mongod", certs).start().initiate()
    yield own
    own.stop()
    shutil.rmtree(own.dbpath, ignore_errors=True)


@pytest.fixture(autouse=True)
def _marker_owner(request):
    if "markers" in request.fixturenames:
        request.getfixturevalue("markers").owner = request.node.name


@pytest.fixture(scope="module")
def proxy(request, session_dir, server, db_name, markers):
    module = request.module
    collections = [Collection(f"{db_name}.{name}", fields, "nhs_number" if "nhs_number" in fields else None)
                   for name, fields in getattr(module, "COLLECTIONS", {"patients": harness.PATIENTS}).items()]
    server.profile_everything(db_name)
    running = Proxy(session_dir / db_name, server, collections, vault=f"encryption.{db_name}", **getattr(module, "PROXY", {}))
    running.start()
    try:
        yield running
        assert server.process.poll() is None, f"something that the proxy let through brought mongod down:\n{harness.tail(server.log, 5)}"
        if not hasattr(module, "LEAVES_PLAINTEXT"):
            scan = running.scan([db_name, "encryption"])
            status = running.stop()
            scan.assert_clean(markers)
            assert status == 0, f"the proxy stopped with {status}:\n{harness.tail(running.log)}"
            said = [line for line in running.log.read_text(errors="replace").splitlines() if "panicked" in line]
            assert not said, "the proxy panicked:\n" + "\n".join(said)
    finally:
        running.kill9()


@pytest.fixture(scope="module")
def app_client(proxy):
    with proxy.client() as client:
        yield client


@pytest.fixture(scope="module")
def direct_client(server):
    with server.client(ADMIN) as client:
        yield client


@pytest.fixture(scope="module")
def oracle_client(oracle_server):
    with oracle_server.client(ADMIN) as client:
        yield client


@pytest.fixture(scope="module")
def app(app_client, db_name) -> Database:
    """The test database as the application sees it, through the proxy."""
    return app_client[db_name]


@pytest.fixture(scope="module")
def direct(direct_client, db_name) -> Database:
    """The same database, past the proxy."""
    return direct_client[db_name]


@pytest.fixture(scope="module")
def oracle(oracle_client, db_name) -> Database:
    """A database of the same name on a server without a proxy, for the same operation on plaintext."""
    oracle_client.drop_database(db_name)
    return oracle_client[db_name]


@pytest.fixture
def name(request) -> str:
    """A fresh name for `_id`s, so that tests do not see each other's documents."""
    return f"{request.node.name}-{time.monotonic_ns()}"


@dataclass
class Twins:
    """The same collection twice: through the proxy, and as plaintext on the oracle."""

    sealed: object
    plain: object

    def both(self, operation):
        """Runs `operation(collection)` on both; asserts the same result or the same kind of refusal; returns it."""
        expected = operation(self.plain)
        actual = operation(self.sealed)
        assert actual == expected, f"through the proxy: {actual!r}\ndirectly on plaintext: {expected!r}"
        return actual


@pytest.fixture
def twins(app, oracle) -> Twins:
    sealed, plain = app.patients, oracle.patients
    sealed.delete_many({})
    plain.delete_many({})
    return Twins(sealed, plain)
