"""Runs a driver's own test suite directly and through the proxy, and compares test by test: the Python driver's, or with
--driver node the integration tests of the Node driver, from a checkout (mongodb/node-mongodb-native; npm has no tests).

Third-party code is fetched (pip, by version and digest; npm ci in the checkout), never kept here. What a test does is its authors' business:
this file only starts servers, runs the suite twice under the same conditions and reads the two reports. A test that
passes directly and not through the proxy is tried again alone on both sides, so that what is unsteady by itself is
called that and not a difference.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))

from harness import fieldveil_binary, free_port, mongod_binary, tail, wait_until  # noqa: E402
from pymongo import MongoClient  # noqa: E402

CACHE = ROOT / ".cache/driver-suites"
VERSION = "4.20.0"
SDIST_SHA256 = "f773b0aec28687587cdeda490463a82debc4566a4a3620dcc8dada9d2c0a1acd"
USER = ("suite", "suite-pw")

# What the proxy protects meanwhile: a namespace that the suite does not use, so that every table of the proxy is in force.
FIELD_MAP = """
[[collection]]
namespace = "fieldveil_clinic.patients"

[collection.fields]
nhs_number = { mode = "deterministic", type = "string" }
notes = { mode = "random" }
"contacts.phone" = { mode = "deterministic", type = "string" }
"""

# Modules that never talk to a server: they would pass the same with anything in between.
NO_SERVER = {
    "test_binary", "test_bson", "test_bson_binary_vector", "test_bson_corpus", "test_code", "test_decimal128", "test_default_exports",
    "test_dns", "test_objectid", "test_son", "test_timestamp", "test_json_util", "test_uri_parser", "test_uri_spec", "test_errors",
    "test_saslprep", "test_typing", "test_typing_strict", "test_ocsp_cache", "test_gcp_helpers", "test_azure_helpers", "test_kms_connect",
    "test_kms_connect_prose", "test_on_demand_csfle", "test_ocsp_support", "test_srv_polling", "test_pyopenssl_context", "test_encryption",
    "test_dbref", "test_message", "test_auth_oidc", "test_sfp", "test_subinterpreters", "test_raw_bson_shared",
}


@dataclass(frozen=True)
class Outcome:
    """How one test ended: passed, failed or skipped, and the first line of why."""

    status: str
    why: str = ""


def fetch_suite() -> Path:
    """The unpacked test directory of the driver's source distribution."""
    home = CACHE / f"pymongo-{VERSION}"
    if (home / ".complete").exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    download = CACHE / "download"
    download.mkdir(parents=True, exist_ok=True)
    print(f"fetching pymongo {VERSION} from PyPI", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "pymongo",
                    "--dest", download, f"pymongo=={VERSION}"], check=True)
    sdist = download / f"pymongo-{VERSION}.tar.gz"
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        sys.exit(f"{sdist} has SHA-256 {digest}, expected {SDIST_SHA256}; it was not unpacked")
    with tarfile.open(sdist) as archive:
        # Not the driver's own packages: the suite is to import the installed driver, as an application does.
        wanted = [m for m in archive.getmembers() if m.name.split("/")[1:2] in (["test"], ["pyproject.toml"], ["tools"])]
        archive.extractall(CACHE, members=wanted, filter="data")
    (home / ".complete").touch()
    return home


def suite_python() -> Path:
    """An environment with the driver and what its suite needs."""
    requirements = HERE / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = CACHE / f"venv-{key}"
    if not (home / ".complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], check=True)
        (home / ".complete").touch()
    return home / "bin/python"


class Server:
    """A single-node replica set with test commands, as the suite wants it."""

    def __init__(self, directory: Path, deployment: str, certificates: Path, port: int):
        self.directory, self.deployment, self.certificates, self.port = directory, deployment, certificates, port
        (directory / "db").mkdir(parents=True)
        args = [mongod_binary(), "--dbpath", str(directory / "db"), "--logpath", str(directory / "mongod.log"), "--port", str(self.port),
                "--bind_ip", "127.0.0.1", "--unixSocketPrefix", str(directory), "--replSet", "rs0", "--oplogSize", "500",
                "--wiredTigerCacheSizeGB", "0.5", "--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false",
                "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100", "--setParameter", "transactionLifetimeLimitSeconds=30"]
        if deployment == "auth":
            keyfile = directory / "keyfile"
            keyfile.write_text(base64.b64encode(secrets.token_bytes(96)).decode())
            keyfile.chmod(0o600)
            args += ["--auth", "--keyFile", str(keyfile)]
        if deployment == "tls":
            args += ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificates / "server.pem"),
                     "--tlsCAFile", str(certificates / "ca.pem"), "--tlsAllowConnectionsWithoutCertificates"]
        with (directory / "mongod.out").open("ab") as out:
            self.process = subprocess.Popen(args, stdout=out, stderr=subprocess.STDOUT)
        try:
            with MongoClient(self.uri(None), directConnection=True, serverSelectionTimeoutMS=30_000) as client:
                # One name for the member that resolves for the suite and for the proxy alike.
                config = {"_id": "rs0", "members": [{"_id": 0, "host": f"localhost:{self.port}", "tags": {"dc": "ny", "name": "one"}}],
                          "settings": {"electionTimeoutMillis": 500}}
                wait_until("replSetInitiate", lambda: client.admin.command("replSetInitiate", config), 30)
                wait_until("a primary", lambda: client.admin.command("hello")["isWritablePrimary"], 30)
                if deployment == "auth":
                    client.admin.command("createUser", USER[0], pwd=USER[1], roles=["root"])
        except BaseException:
            print(tail(directory / "mongod.log", 5), tail(directory / "mongod.out", 5), file=sys.stderr)
            self.stop()
            raise

    def uri(self, user: tuple[str, str] | None) -> str:
        who = f"{user[0]}:{user[1]}@" if user else ""
        tls = f"&tls=true&tlsCAFile={self.certificates}/ca.pem" if self.deployment == "tls" else ""
        return f"mongodb://{who}localhost:{self.port}/?{'authSource=admin' if user else 'appName=suite'}{tls}"

    def stop(self) -> None:
        stop(self.process)


class Proxy:
    """`fieldveil serve` in front of a `Server`, with the field map above."""

    def __init__(self, directory: Path, server: Server, port: int):
        self.directory, self.port, admin = directory, port, free_port()
        directory.mkdir(parents=True)
        user = USER if server.deployment == "auth" else None
        listen = f'[[listen]]\naddress = "127.0.0.1:{self.port}"\nadvertise = "localhost:{self.port}"\nmember = "localhost:{server.port}"\n'
        if server.deployment == "tls":
            both = (server.certificates / "server.pem").read_text()
            for kind, name in (("CERTIFICATE", "certificate"), ("PRIVATE KEY", "private_key")):
                (directory / name).write_text("".join(re.findall(rf"-----BEGIN [A-Z ]*{kind}-----.*?-----END [A-Z ]*{kind}-----\n", both, re.S)))
                (directory / name).chmod(0o600)
            listen += f'\n[tls]\ncertificate = "{directory}/certificate"\nprivate_key = "{directory}/private_key"\n'
        else:
            listen += "allow_plaintext = true\n"
        self.config = directory / "fieldveil.toml"
        self.config.write_text(
            f'[upstream]\nuri = "{server.uri(user)}&replicaSet=rs0"\n\n{listen}\n'
            f'[keys]\nmaster = {{ provider = "file", path = "{directory}/master.key" }}\n\n[audit]\npath = "{directory}/audit.jsonl"\n\n'
            f'[admin]\naddress = "127.0.0.1:{admin}"\n{FIELD_MAP}')
        self.log = directory / "proxy.log"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen([fieldveil_binary(), "serve", "--config", self.config], stdout=out, stderr=subprocess.STDOUT, cwd=directory)

        def ready() -> bool:
            if self.process.poll() is not None:
                sys.exit(f"the proxy exited with {self.process.returncode}:\n{tail(self.log)}\n{self.config.read_text()}")
            tls = f"&tls=true&tlsCAFile={server.certificates}/ca.pem" if server.deployment == "tls" else ""
            with MongoClient(f"mongodb://localhost:{self.port}/?directConnection=true{tls}", serverSelectionTimeoutMS=1000) as client:
                return bool(client.admin.command("hello")["ok"])
        try:
            wait_until("the proxy", ready, 30)
        except BaseException:
            print(tail(self.log), file=sys.stderr)
            stop(self.process)
            raise

    def stop(self) -> None:
        stop(self.process)
        assert "panicked" not in self.log.read_text(errors="replace"), f"the proxy panicked: {self.log}"


def stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@dataclass
class PythonSuite:
    """The unpacked suite, and how it is to be run."""

    home: Path
    python: Path
    arguments: argparse.Namespace

    @classmethod
    def prepare(cls, arguments: argparse.Namespace) -> PythonSuite:
        return cls(fetch_suite(), suite_python(), arguments)

    def certificates(self) -> Path:
        return self.home / "test/certificates"

    def modules(self) -> list[str]:
        folders = {"sync": ["test"], "async": ["test/asynchronous"], "both": ["test", "test/asynchronous"]}[self.arguments.api]
        found = [path for folder in folders for path in sorted((self.home / folder).glob("test_*.py")) if path.stem not in NO_SERVER]
        if self.arguments.modules:
            found = [path for path in found if path.stem.removeprefix("test_") in self.arguments.modules]
        return [str(path.relative_to(self.home)) for path in found]

    def run(self, directory: Path, tests: list[str]) -> dict[str, Outcome]:
        """Runs pytest over `tests` against what listens on the suite's port."""
        report = directory / f"report-{time.monotonic_ns()}.xml"
        certificates = self.certificates()
        environment = {**os.environ, "DB_IP": "localhost", "DB_PORT": str(self.arguments.port), "DB_USER": USER[0], "DB_PASSWORD": USER[1],
                       "CLIENT_PEM": str(certificates / "client.pem"), "CA_PEM": str(certificates / "ca.pem"), "PYTHONDONTWRITEBYTECODE": "1"}
        if self.arguments.compressors:
            environment["COMPRESSORS"] = self.arguments.compressors
        if self.arguments.api_version:
            environment["MONGODB_API_VERSION"] = self.arguments.api_version
        command = [str(self.python), "-m", "pytest", "-c", "pyproject.toml", "-o", f"addopts=-m 'default or default_async' -p no:cacheprovider -q --tb=short",
                   "--timeout", str(self.arguments.timeout), f"--junitxml={report}", *tests]
        with (directory / "pytest.out").open("ab") as out:
            done = subprocess.run(command, cwd=self.home, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
        if done.returncode not in (0, 1) or not report.exists():
            sys.exit(f"pytest ended with {done.returncode}:\n{tail(directory / 'pytest.out')}")
        return read_report(report)


@dataclass
class NodeSuite:
    """A checkout of the Node driver with its tools installed, and how its integration tests are to be run."""

    home: Path
    arguments: argparse.Namespace

    @classmethod
    def prepare(cls, arguments: argparse.Namespace) -> NodeSuite:
        home = arguments.checkout
        if home is None or not (home / "test/mocha_mongodb.js").exists():
            sys.exit("--driver node needs --checkout DIR: git clone --branch v7.5.0 https://github.com/mongodb/node-mongodb-native DIR")
        if not (home / "node_modules/mocha").exists():
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=home, check=True)
        if not (home / "test/tools/runner/bundle/driver-bundle.js").exists():
            subprocess.run(["npm", "run", "--silent", "build:bundle"], cwd=home, check=True)
        return cls(home, arguments)

    def certificates(self) -> Path:
        return fetch_suite() / "test/certificates"

    def modules(self) -> list[str]:
        wanted = self.arguments.modules or ["crud", "transactions", "transactions-convenient-api", "sessions", "change-streams", "retryable-reads",
                                            "retryable-writes", "collation", "collection-management", "gridfs", "index-management", "run-command",
                                            "versioned-api", "read-write-concern", "command-logging-and-monitoring", "unified-test-format"]
        return [f"test/integration/{name}" for name in wanted if (self.home / f"test/integration/{name}").exists()]

    def run(self, directory: Path, tests: list[str]) -> dict[str, Outcome]:
        """Runs mocha over folders, or over single tests by their titles."""
        report = directory / f"report-{time.monotonic_ns()}.json"
        command = ["npx", "mocha", "--config", "test/mocha_mongodb.js", "--exit", "--reporter", "json", "--reporter-option", f"output={report}"]
        if all(test.startswith("test/integration/") for test in tests):
            command += tests
        else:
            titles = (re.escape(re.sub(r" \(again \d+\)$", "", test)) for test in tests)
            command += ["--grep", f"^({'|'.join(titles)})$", *self.modules()]
        uri = f"mongodb://localhost:{self.arguments.port}/?replicaSet=rs0"
        environment = {**os.environ, "MONGODB_URI": uri, "AUTH": "noauth"}
        if self.arguments.compressors:
            # The suite leaves tests out by the second; the first is what the driver goes by.
            environment |= {"MONGODB_URI": f"{uri}&compressors={self.arguments.compressors}", "COMPRESSOR": self.arguments.compressors}
        with (directory / "mocha.out").open("ab") as out:
            subprocess.run(command, cwd=self.home, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
        if not report.exists():
            sys.exit(f"mocha left no report:\n{tail(directory / 'mocha.out')}")
        return read_mocha_report(report)


def read_mocha_report(report: Path) -> dict[str, Outcome]:
    """Outcome by full title; of several tests with one title the later ones are numbered."""
    read = json.loads(report.read_text())
    outcomes: dict[str, Outcome] = {}
    pending = {(test["fullTitle"], test["file"]) for test in read["pending"]}
    for test in read["tests"]:
        title, n = test["fullTitle"], 2
        while title in outcomes:
            title, n = f"{test['fullTitle']} (again {n})", n + 1
        if test["err"]:
            outcomes[title] = Outcome("failed", test["err"].get("message", "").split("\n")[0][:300])
        else:
            outcomes[title] = Outcome("skipped" if (test["fullTitle"], test["file"]) in pending else "passed")
    return outcomes


def read_report(report: Path) -> dict[str, Outcome]:
    """Outcome by test, named as pytest would take it: file::class::test."""
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        # Folders and modules of the suite are lower case, its classes are not.
        path = case.get("classname").split(".")
        classes = [part for part in path if part[0].isupper()]
        name = "::".join(["/".join(path[:len(path) - len(classes)]) + ".py", *classes, case.get("name")])
        outcome = Outcome("passed")
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = Outcome("failed", (child.get("message") or child.text or "").strip().split("\n")[0][:300])
            elif child.tag == "skipped":
                outcome = Outcome("skipped", (child.get("message") or "")[:300])
        # A test whose teardown failed is there twice: the worse counts.
        if name not in outcomes or outcomes[name].status != "failed":
            outcomes[name] = outcome
    return outcomes


@contextlib.contextmanager
def deployment(suite: PythonSuite | NodeSuite, work: Path, through: bool):
    """A fresh server on the suite's port, or a proxy there before a fresh server."""
    port = suite.arguments.port
    server = Server(work / "server", suite.arguments.deployment, suite.certificates(), free_port() if through else port)
    proxy = None
    try:
        proxy = Proxy(work / "proxy", server, port) if through else None
        yield
    finally:
        try:
            if proxy:
                proxy.stop()
        finally:
            server.stop()
            shutil.rmtree(work / "server/db", ignore_errors=True)


def expected(which: str) -> dict[str, str]:
    """Reason by pattern: tests that cannot pass through the proxy."""
    with (HERE / "expected.toml").open("rb") as file:
        entries = tomllib.load(file)["difference"]
    return {entry["test"]: entry["reason"] for entry in entries if which in entry.get("deployments", [which])}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/driver-suites", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", choices=["python", "node"], default="python")
    parser.add_argument("--checkout", type=Path, help="of mongodb/node-mongodb-native, for --driver node")
    parser.add_argument("--deployment", choices=["plain", "auth", "tls"], default="plain")
    parser.add_argument("--api", choices=["sync", "async", "both"], default="sync", help="which half of the suite (default: sync)")
    parser.add_argument("--compressors", help="for the connections to the server, or to the proxy: zlib, snappy, zstd")
    parser.add_argument("--api-version", help="MONGODB_API_VERSION of the suite: 1")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one test (default: 120)")
    parser.add_argument("--retries", type=int, default=2, help="times a difference is tried again alone (default: 2)")
    parser.add_argument("--port", type=int, default=27017, help="where the suite finds its server; some of its tests know no other than 27017")
    parser.add_argument("--work", type=Path, help="keep logs and reports here (default: a directory under .cache)")
    parser.add_argument("--direct-report", type=Path, help="reuse the report of an earlier direct run")
    parser.add_argument("modules", nargs="*", help="only these modules (without test_), or folders of test/integration: collection transactions …")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if fieldveil_binary() is None:
        sys.exit("NOT RUN: no fieldveil binary; run cargo build or set FIELDVEIL_BIN")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", arguments.port)) == 0:
            sys.exit(f"something listens on port {arguments.port} already: stop it, or choose another --port (some tests then fail on both sides)")
    if arguments.driver == "node" and (arguments.deployment != "plain" or arguments.api_version):
        sys.exit("--driver node is run without users and TLS only")
    suite = (NodeSuite if arguments.driver == "node" else PythonSuite).prepare(arguments)
    work = arguments.work or CACHE / f"run-{arguments.driver}-{arguments.deployment}-{time.strftime('%H%M%S')}"
    tests = suite.modules()
    if not tests:
        sys.exit("no such module in the suite")
    results: dict[str, dict[str, Outcome]] = {}
    for side, through in (("direct", False), ("proxy", True)):
        if side == "direct" and arguments.direct_report:
            results[side] = (read_mocha_report if arguments.driver == "node" else read_report)(arguments.direct_report)
            continue
        started = time.monotonic()
        with deployment(suite, work / side, through):
            results[side] = suite.run(work / side, tests)
        counted = Counter(outcome.status for outcome in results[side].values())
        print(f"{side:>6}: {len(results[side])} tests, {', '.join(f'{n} {s}' for s, n in sorted(counted.items()))} in {time.monotonic() - started:.0f} s", flush=True)
    return compare(suite, work, results["direct"], results["proxy"])


def compare(suite: PythonSuite | NodeSuite, work: Path, direct: dict[str, Outcome], proxy: dict[str, Outcome]) -> int:
    """Prints every difference and says whether one is unexplained."""
    missing = Outcome("missing", "not in the report")
    different = [name for name, outcome in direct.items() if outcome.status == "passed" and proxy.get(name, missing).status != "passed"]
    better = [name for name, outcome in direct.items() if outcome.status == "failed" and proxy.get(name, missing).status == "passed"]
    neither = [name for name, outcome in direct.items() if outcome.status == "failed" and name not in better]
    unsteady: dict[str, str] = {}
    for attempt in range(suite.arguments.retries if different else 0):
        again = [name for name in different if name not in unsteady]
        if not again:
            break
        with deployment(suite, work / f"again-{attempt}", True):
            for name, outcome in suite.run(work / f"again-{attempt}", again).items():
                if outcome.status == "passed":
                    unsteady[name] = proxy.get(name, missing).why
    explained, reasons = [], expected(suite.arguments.deployment)
    unexplained = []
    print(f"\n{len(different)} passed directly and not through the proxy at first; of them")
    for name in different:
        reason = next((reason for pattern, reason in reasons.items() if re.search(pattern, name)), None)
        outcome = proxy.get(name, missing)
        if name in unsteady:
            print(f"  PASSED AGAIN  {name}: first {outcome.status}: {outcome.why}")
        elif reason:
            explained.append(name)
            print(f"  EXPECTED      {name}: {reason}")
        else:
            unexplained.append(name)
            print(f"  DIFFERENT     {name}: {outcome.status}: {outcome.why}")
    for name in better:
        print(f"  only direct   {name}: {direct[name].why}")
    for name in neither:
        print(f"  fails on both {name}: {direct[name].why}")
    passed = sum(outcome.status == "passed" for outcome in direct.values())
    through = sum(proxy.get(name, missing).status == "passed" or name in unsteady for name, outcome in direct.items() if outcome.status == "passed")
    print(f"\nof {passed} tests that pass directly {through} pass through the proxy ({len(unsteady)} of them not at once), "
          f"{len(explained)} cannot (tests/suites/expected.toml), {len(unexplained)} differ\nlogs and reports: {work}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
