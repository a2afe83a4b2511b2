"""Who touched whose record, without saying whose: the log is complete, holds pseudonyms only, and tampering shows."""

from __future__ import annotations

import json

import pytest
from pymongo.errors import OperationFailure

import harness
from harness import Collection, Proxy, metric, wait_until
from samples import patient


def lines(proxy: Proxy) -> list[dict]:
    return [json.loads(line) for line in proxy.audit.read_text().splitlines()]


def commands(proxy: Proxy, count_from: int = 0, **where) -> list[dict]:
    return [e for e in lines(proxy)[count_from:] if e["event"] == "command" and all(e.get(k) == v for k, v in where.items())]


def test_says_who_did_what_to_which_fields(proxy, app, db_name, markers):
    start = len(lines(proxy))
    document = patient(markers, 1)
    app.patients.insert_one(document)
    app.patients.find_one({"nhs_number": document["nhs_number"]})
    found = wait_until("the find in the audit", lambda: commands(proxy, start, command="find"))[0]
    assert found["namespace"] == f"{db_name}.patients"
    assert "app" in found["principal"]
    assert "nhs_number" in found["fields"]
    assert found["outcome"] == "ok" and found["documents_out"] == 1 and found["opened"] >= 8
    inserted = commands(proxy, start, command="insert")[0]
    assert inserted["sealed"] >= 8
    assert inserted["subjects"] == found["subjects"] and len(found["subjects"]) == 1


def test_says_which_keys_were_made(proxy, app, direct_client, db_name, markers):
    """The chain's own key first, then one per domain; each is in the vault under that id."""
    app.patients.insert_one(patient(markers, "keys"))
    made = wait_until("the keys in the audit", lambda: [e for e in lines(proxy) if e["event"] == "key_created"])
    assert made[0]["domain"] == "fieldveil.audit"
    assert f"{db_name}.patients.mrn" in [e["domain"] for e in made]
    held = {str(d["_id"].as_uuid()): d["keyAltNames"] for d in direct_client.encryption[db_name].find()}
    assert all(f'fieldveil/{e["domain"]}/1' in held[e["key"]] for e in made)


def test_pseudonyms_tell_subjects_apart_and_are_stable(proxy, app, markers):
    start = len(lines(proxy))
    one, two = patient(markers, "one"), patient(markers, "two")
    app.patients.insert_many([one, two])
    for document in (one, two, one):
        app.patients.find_one({"_id": document["_id"]})
    wait_until("three finds", lambda: len(commands(proxy, start, command="find")) == 3)
    a, b, again = (e["subjects"] for e in commands(proxy, start, command="find"))
    assert a == again != b


def test_get_more_is_attributed(proxy, app, db_name, markers):
    app.patients.insert_many([patient(markers, f"many {n}") for n in range(12)])
    start = len(lines(proxy))
    assert len(list(app.patients.find({"_id": {"$regex": "^many"}}).batch_size(5))) == 12
    more = wait_until("a getMore in the audit", lambda: commands(proxy, start, command="getMore"))
    assert more[0]["namespace"] == f"{db_name}.patients" and more[0]["opened"] > 0


def test_refusals_are_recorded(proxy, app, markers):
    start = len(lines(proxy))
    with pytest.raises(OperationFailure):
        app.patients.find_one({"nhs_number": {"$gt": markers.text()}})
    event = wait_until("the refusal", lambda: commands(proxy, start, outcome="refused"))[0]
    assert event["reason"] == "operator" and "nhs_number" in event["fields"]


def test_failed_login_is_recorded(proxy):
    start = len(lines(proxy))
    with proxy.client(("mallory", "guess")) as client, pytest.raises(OperationFailure):
        client.admin.command("ping")
    assert wait_until("the failed login", lambda: [e for e in lines(proxy)[start:] if e["event"] == "authentication_failed"])


# --- the chain -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(session_dir, mongod, markers, request):
    """A proxy that has worked and stopped, so that its log can be meddled with."""
    db = "t_audit_chain"
    proxy = Proxy(session_dir / f"chain-{abs(hash(request.node.name))}", mongod, [Collection(f"{db}.patients", harness.PATIENTS, "nhs_number")],
                  vault=f"encryption.chain_{abs(hash(request.node.name))}").start()
    try:
        with proxy.client() as client:
            for n in range(5):
                client[db].patients.replace_one({"_id": n}, patient(markers, n), upsert=True)
                client[db].patients.find_one({"_id": n})
        assert proxy.stop() == 0
        yield proxy
    finally:
        proxy.kill9()


def test_verify_accepts_an_untouched_log(closed):
    done = closed.cli("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    as_json = closed.cli("audit", "verify", "--json")
    assert as_json.returncode == 0 and isinstance(json.loads(as_json.stdout), dict)


def change_a_byte(text: list[str]) -> list[str]:
    at = next(n for n, line in enumerate(text) if '"command":"find"' in line)
    return text[:at] + [text[at].replace('"command":"find"', '"command":"fund"')] + text[at + 1 :]


TAMPERINGS = {
    "a changed word": change_a_byte,
    "a removed line": lambda t: t[: len(t) // 2] + t[len(t) // 2 + 1 :],
    "the first line removed": lambda t: t[1:],
    "the last line removed": lambda t: t[:-1],
    "two lines swapped": lambda t: t[:2] + [t[3], t[2]] + t[4:],
    "a line repeated": lambda t: t[:3] + [t[2]] + t[3:],
    "a forged line": lambda t: t + ['{"time":"2030-01-01T00:00:00.000Z","event":"command"}'],
    "everything removed": lambda t: [],
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_verify_detects(closed, how):
    text = closed.audit.read_text().splitlines()
    closed.audit.write_text("".join(line + "\n" for line in TAMPERINGS[how](text)))
    done = closed.cli("audit", "verify")
    assert done.returncode == 1, f"accepted {how}:\n{done.stdout}{done.stderr}"
    assert (done.stdout + done.stderr).strip()


def test_the_chain_goes_on_over_a_restart(closed, markers):
    before = len(lines(closed))
    closed.start()
    with closed.client() as client:
        client.t_audit_chain.patients.find_one({"_id": 1})
    assert closed.stop() == 0
    assert len(lines(closed)) > before
    assert closed.cli("audit", "verify").returncode == 0


def test_the_chain_survives_kill_9(closed):
    closed.start()
    with closed.client() as client:
        for n in range(50):
            client.t_audit_chain.patients.find_one({"_id": n % 5})
    closed.kill9()
    closed.start()
    assert closed.stop() == 0
    done = closed.cli("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


# --- a log that cannot be written ---------------------------------------------------------------------------------------


def test_full_disk_refuses_protected_and_only_protected(session_dir, mongod, markers):
    db = "t_audit_full"
    proxy = Proxy(session_dir / "audit-full", mongod, [Collection(f"{db}.patients", harness.PATIENTS, "nhs_number")], vault="encryption.t_audit_full")
    proxy.start(largest_file=64 << 10)
    try:
        with proxy.client() as client:
            client[db].patients.insert_one(patient(markers, 1))
            refused = None
            for _ in range(2000):
                try:
                    client[db].patients.find_one({"_id": 1})
                except OperationFailure as e:
                    refused = e
                    break
            assert refused is not None, "64 KiB of audit log took 2000 events: events are being lost"
            assert refused.details["errmsg"].startswith("fieldveil: ") and "audit" in refused.details["errmsg"]
            client[db].unprotected.insert_one({"_id": 1})
            assert client[db].unprotected.find_one({"_id": 1})
        assert proxy.http("/livez")[0] == 200
        assert metric(proxy, "fieldveil_audit_healthy") == 0
    finally:
        proxy.kill9()
