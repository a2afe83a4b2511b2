"""Applications that nobody here wrote, unmodified: Mongoose, MongoEngine, Spring Data, and MongoDB's own shell. All but the shell are a program
each (tests/apps) that runs every step through the proxy and directly, and compares; the shell is typed into. Packages are
pinned and go to .cache or node_modules. docs/APPLICATIONS.md says what is refused and the way out."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import harness
import jvm
from harness import ADMIN, ROOT

APPS = ROOT / "tests/apps"
CACHE = ROOT / ".cache/apps"
EPISODES = {"nhs_number": '{ mode = "deterministic", type = "string", domain = "nhs_number" }', "summary": '{ mode = "random" }'}
COLLECTIONS = {"patients": harness.PATIENTS, "mongoose_patients": harness.PATIENTS, "mongoose_episodes": EPISODES, "mongoengine_patients": harness.PATIENTS,
               "spring_patients": harness.PATIENTS, "spring_episodes": EPISODES}

# The first run fetches packages.
pytestmark = pytest.mark.timeout(600)


def npm(directory: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(f"NOT RUN: node and npm are not installed (Node 20 or later; {directory.name})")
    stamp, lock = directory / "node_modules/.package-lock.json", directory / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"npm ci failed: {done.stderr[-2000:]}"
        stamp.touch()


def python_with(requirements: Path) -> Path:
    """A Python with these packages and no others."""
    home = CACHE / f"{requirements.parent.name}-{hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]}"
    if not (home / ".complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], check=True)
        (home / ".complete").touch()
    return home / "bin/python"


def mongoose(certs) -> list[str]:
    npm(APPS / "mongoose")
    return ["node", "app.mjs"]


def mongoengine(certs) -> list[str]:
    return [str(python_with(APPS / "mongoengine/requirements.txt")), "app.py"]


def spring(certs) -> list[str]:
    jvm.need("javac")
    jars = jvm.jars(APPS / "spring/pom.xml")
    classes = jvm.compile(APPS / "spring/App.java", jars)
    return [*jvm.command(certs, f"{classes}:{jars}/*"), "App"]


@pytest.mark.parametrize("application", [mongoose, mongoengine, spring], ids=lambda prepare: prepare.__name__)
def test_application(application, certs, proxy, oracle_server, db_name, markers, capsys):
    command, name = application(certs), application.__name__
    proxied, plain = proxy.uri(), oracle_server.uri(ADMIN, replica_set=True)
    if application is spring:
        proxied, plain = map(jvm.uri, (proxied, plain))
    environment = {
        **os.environ,
        "FIELDVEIL_TEST_PROXY_URI": proxied,
        "FIELDVEIL_TEST_PLAIN_URI": plain,
        "FIELDVEIL_TEST_DB": db_name,
        "FIELDVEIL_TEST_MARKER": markers.prefix,
    }
    done = subprocess.run(command, cwd=APPS / name, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-3000:]}"
    steps, failed = map(int, re.search(r"^(\d+) steps, (\d+) failed$", done.stdout, re.M).groups())
    with capsys.disabled():
        print(f"\n  {name}: {steps} steps, {failed} failed")
    # A program that ended early would also have failed nothing.
    assert steps >= 29 and not failed


class Shell:
    """mongosh, typed into: gives what each line printed."""

    def __init__(self, uri: str, home: Path, db_name: str):
        self.uri, self.home = uri.replace("/?", f"/{db_name}?"), home
        home.mkdir(exist_ok=True)

    def type(self, lines: list[str]) -> list[str]:
        typed = "".join(f"{line}\nprint('@@')\n" for line in lines)
        # A home of its own: the shell keeps a history and asks about telemetry.
        done = subprocess.run([APPS / "mongosh/node_modules/.bin/mongosh", "--quiet", "--norc", self.uri], input=typed, capture_output=True, text=True,
                              timeout=100, check=False, env={**os.environ, "HOME": str(self.home)})
        assert done.returncode == 0, f"mongosh ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
        said = re.sub(r"^rs0 \[(?:primary|direct: primary)\] \w+> ?", "", done.stdout, flags=re.M)
        parts = re.split(r"^@@$\n?", said, flags=re.M)
        assert len(parts) == len(lines) + 1, done.stdout
        return [part.strip() for part in parts[:-1]]


@pytest.fixture(scope="module")
def shells(proxy, oracle_server, session_dir, db_name):
    npm(APPS / "mongosh")
    return (Shell(proxy.uri(), session_dir / "mongosh-home", db_name), Shell(oracle_server.uri(ADMIN), session_dir / "mongosh-home", db_name))


def test_mongosh_shows_what_it_shows_directly(shells, direct, oracle, markers):
    number, mrn, postcode, notes, phone, line1 = (markers.text() for _ in range(6))
    for name in ("patients", "shell_view"):
        oracle.drop_collection(name)
    lines = [
        # "" is printed where a line gives nothing.
        f"db.patients.insertOne({{_id: 1, nhs_number: '{number}', mrn: '{mrn}', postcode: '{postcode}', notes: '{notes}', date_of_birth: new Date(0), "
        f"contacts: [{{kind: 'home', phone: '{phone}'}}], address: {{line1: '{line1}', city: 'Leeds'}}, ward: 'A1'}})",
        "db.patients.find()",
        f"db.patients.findOne({{nhs_number: '{number}'}}, {{contacts: 1, notes: 1}})",
        f"db.patients.find({{'contacts.phone': '{phone}'}}).count()",
        "db.patients.createIndex({nhs_number: 1}, {unique: true})",
        "db.patients.getIndexes()",
        "db.patients.hideIndex('nhs_number_1').hidden_new",
        "db.patients.unhideIndex('nhs_number_1').hidden_new",
        "db.patients.countDocuments()",
        "db.patients.estimatedDocumentCount()",
        "db.patients.isCapped()",
        "db.patients.validate().valid",
        "db.patients.distinct('postcode')",
        "db.patients.aggregate([{$group: {_id: '$postcode', n: {$sum: 1}}}])",
        f"db.patients.updateOne({{nhs_number: '{number}'}}, {{$set: {{ward: 'B2', notes: '{markers.text()}'}}}})",
        f"db.patients.findOneAndUpdate({{mrn: '{mrn}'}}, {{$set: {{notes: '{markers.text()}'}}}}, {{returnDocument: 'after'}})",
        f"db.patients.bulkWrite([{{insertOne: {{document: {{_id: 2, nhs_number: '{markers.text()}'}}}}}}])",
        "db.patients.find().sort({_id: -1}).limit(1)",
        "db.patients.watch().tryNext()",
        f"db.patients.find({{nhs_number: '{number}'}}).explain().queryPlanner.winningPlan.stage",
        f"db.patients.find({{nhs_number: '{number}'}}).explain('executionStats').executionStats.nReturned",
        "[db.stats().ok, db.stats().db, db.patients.stats().count, db.patients.stats().nindexes]",
        "db.version()",
        "db.getCollectionInfos({name: 'patients'}).map(c => [c.name, c.type, c.options])",
        "db.createView('shell_view', 'patients', [{$project: {number: '$nhs_number', ward: 1}}])",
        f"db.shell_view.find({{number: '{number}'}})",
        "db.shell_view.drop()",
        f"db.patients.deleteOne({{nhs_number: '{number}'}})",
    ]
    sealed, plain = (shell.type(lines) for shell in shells)
    for line, through, directly in zip(lines, sealed, plain, strict=True):
        assert through == directly, line
        assert through and "Uncaught" not in through, f"{line}\n{through}"


def test_mongosh_browses(shells, proxy, db_name, markers):
    """What differs between two servers by itself: looked at for what has to be in it."""
    number = markers.text()
    shell = shells[0]
    shell.type([f"db.patients.insertOne({{_id: 'browse', nhs_number: '{number}'}})"])
    databases, collections, plan, stats, hello, me = shell.type([
        "show dbs", "show collections", f"db.patients.find({{nhs_number: '{number}'}}).explain()", "db.stats()", "db.hello().hosts",
        "db.adminCommand({connectionStatus: 1}).authInfo.authenticatedUsers"])
    assert re.search(rf"^{db_name}\s+[\d.]+ [KM]iB$", databases, re.M)
    assert "patients" in collections.splitlines()
    # The plan shows what the server was asked: ciphertext.
    assert "queryPlanner" in plan and "Binary" in plan and number not in plan
    assert f"db: '{db_name}'" in stats and "ok: 1" in stats
    assert hello == f"[ '127.0.0.1:{proxy.port}' ]"
    assert me == "[ { user: 'app', db: 'admin' } ]"


REFUSED = {
    "db.patients.find({date_of_birth: {$gt: new Date(0)}})": "field 'date_of_birth': $gt",
    "db.patients.find({notes: /secret/})": "field 'notes'",
    "db.patients.find().sort({date_of_birth: 1})": "sort by 'date_of_birth'",
    "db.patients.find({$where: 'true'})": "$where",
    "db.patients.mapReduce(function () { emit(1, 1) }, function () { return 1 }, {out: {inline: 1}})": "mapReduce",
    "db.patients.renameCollection('other')": "renameCollection",
    "db.patients.createIndex({notes: 1})": "notes",
    "db.patients.getPlanCache().list()": "$planCacheStats",
    "db.currentOp()": "$currentOp",
    "show profile": "system.profile",
    "show log global": "getLog",
}


def test_mongosh_is_told_what_is_refused(shells):
    """The list of docs/APPLICATIONS.md."""
    wrong = [f"{line}\n{said}" for line, said in zip(REFUSED, shells[0].type(list(REFUSED)), strict=True)
             if not re.search(r"MongoServerError\[\w+\]: fieldveil: ", said) or REFUSED[line] not in said]
    assert not wrong, "\n".join(wrong)
    page = (ROOT / "docs/APPLICATIONS.md").read_text()
    for line in REFUSED:
        assert f"`{line}`" in page, f"docs/APPLICATIONS.md does not list {line}"
