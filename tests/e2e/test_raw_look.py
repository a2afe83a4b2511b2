"""The promise itself: a day in the life of an application leaves no protected value anywhere. And its negative control:
the very same operations through a proxy that protects nothing are found in every one of those places."""

from __future__ import annotations

import contextlib

import pytest
from pymongo.errors import OperationFailure

import harness
from harness import Collection, Markers, Proxy
from samples import patient

LEAVES_PLAINTEXT = "the negative control writes plaintext on purpose"
PLACES = ["documents of", "system.profile of", "oplog.rs", "data file collection-", "data file index-", "journal ", "mongod log"]


def a_day(db, markers: Markers) -> None:
    """Reads, writes, refusals and mistakes, by every route that a driver has."""
    documents = [patient(markers, n) for n in range(30)]
    c = db.patients
    c.create_index("nhs_number", unique=True)
    c.create_index("contacts.phone")
    c.insert_many(documents)
    d = documents[0]
    attempts = [
        lambda: c.find_one({"nhs_number": d["nhs_number"]}),
        lambda: c.find_one({"contacts.phone": {"$in": [d["contacts"][0]["phone"], markers.text()]}}, comment="daily"),
        lambda: list(c.find({"date_of_birth": d["date_of_birth"]}).batch_size(2)),
        lambda: c.update_one({"mrn": d["mrn"]}, {"$set": {"notes": markers.text(), "address": {"line1": markers.text()}}}),
        lambda: c.update_many({"postcode": d["postcode"]}, {"$push": {"contacts": {"phone": markers.text()}}}),
        lambda: c.update_one({"nhs_number": markers.text()}, {"$set": {"allergies": [markers.text()]}}, upsert=True),
        lambda: c.replace_one({"_id": 3}, patient(markers, 3)),
        lambda: c.find_one_and_update({"nhs_number": d["nhs_number"]}, {"$set": {"contacts.$[x].phone": markers.text()}}, array_filters=[{"x.phone": markers.text()}]),
        lambda: list(c.aggregate([{"$match": {"postcode": d["postcode"]}}, {"$group": {"_id": "$postcode", "n": {"$sum": 1}}}])),
        lambda: c.distinct("nhs_number", {"mrn": documents[2]["mrn"]}),
        lambda: c.count_documents({"nhs_number": {"$ne": d["nhs_number"]}}),
        lambda: c.delete_one({"nhs_number": documents[4]["nhs_number"]}),
        lambda: db.command("explain", {"find": "patients", "filter": {"nhs_number": d["nhs_number"]}}),
        # mistakes and refusals carry values too
        lambda: c.insert_one(patient(markers, 99, nhs_number=documents[5]["nhs_number"])),
        lambda: c.find_one({"nhs_number": {"$regex": markers.text()}}),
        lambda: c.find_one({"notes": markers.text()}),
        lambda: c.find_one({"$where": f"this.mrn == '{markers.text()}'"}),
        lambda: c.update_one({"_id": 6}, [{"$set": {"nhs_number": markers.text()}}]),
        lambda: list(c.find({"_id": 7}).sort("nhs_number", 1)),
        lambda: c.insert_one({"_id": 1, "nhs_number": markers.text(), "address.line1": markers.text()}),
    ]
    for attempt in attempts:
        with contextlib.suppress(OperationFailure):
            attempt()
    with db.client.start_session() as session, session.start_transaction():
        c.insert_one(patient(markers, 200), session=session)


def run(session_dir, mongod, db_name: str, collections: list[Collection]) -> tuple[dict, Markers, Proxy]:
    markers = Markers()
    markers.owner = db_name
    mongod.profile_everything(db_name)
    proxy = Proxy(session_dir / db_name, mongod, collections, vault=f"encryption.{db_name}").start()
    try:
        with proxy.client() as client:
            a_day(client[db_name], markers)
        scan = proxy.scan([db_name, "encryption"])
        # Asked before it stops, so that the scan sees the last line it writes.
        assert proxy.stop() == 0
        return scan.findings(markers), markers, proxy
    finally:
        proxy.kill9()


def test_nothing_protected_is_found_anywhere(session_dir, mongod):
    db = "t_raw_look"
    found, markers, _ = run(session_dir, mongod, db, [Collection(f"{db}.patients", harness.PATIENTS, "nhs_number")])
    assert len(markers.made) > 200, "too few markers: the day did not happen"
    assert not found, "\n".join(f"{place}: {what}" for place, what in found.items())
    assert sum(1 for _ in mongod.raw_documents(db, "patients")) > 0


@pytest.fixture(scope="module")
def unprotected(session_dir, mongod):
    found, _, _ = run(session_dir, mongod, "t_raw_control", [])
    return found


@pytest.mark.parametrize("place", PLACES)
def test_control_without_a_field_map_is_found_in(unprotected, place):
    assert any(where.startswith(place) for where in unprotected), f"the check is blind in {place!r}; found in {sorted(unprotected)}"


def test_control_shows_that_the_proxy_itself_says_nothing(unprotected):
    """Even values that no rule protects stay out of the proxy's own log, audit and metrics."""
    assert not [where for where in unprotected if where.startswith("proxy file") or where == "/metrics"]
