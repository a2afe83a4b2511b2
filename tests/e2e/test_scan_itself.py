"""The scan must be able to fail. A marker written straight to the server is found in each place it leaves a trace;
without this every clean result elsewhere would mean nothing."""

from __future__ import annotations

import pytest

from harness import ADMIN, Markers, Scan

pytestmark = pytest.mark.no_proxy


@pytest.fixture(scope="module")
def leak(mongod, db_name):
    """A document, a filter, a date and an integer in the clear, written by a client that knows no proxy."""
    markers = Markers()
    markers.owner = "the leak"
    mongod.profile_everything(db_name)
    with mongod.client(ADMIN) as client:
        c = client[db_name].leak
        c.create_index("indexed")
        c.insert_one({"text": markers.text(), "indexed": markers.text(), "n": 1})
        c.find_one({"text": markers.text()})
    return markers, Scan(mongod, [db_name]).findings(markers)


@pytest.mark.parametrize("place", ["documents of", "system.profile of", "oplog.rs", "data file collection-", "data file index-",
                                   "journal ", "mongod log"])
def test_finds_plaintext_in(leak, place):
    _, found = leak
    assert any(where.startswith(place) for where in found), f"nothing in {place!r}; found only in: {sorted(found)}"


def test_names_the_test_that_made_the_marker(leak):
    _, found = leak
    assert all("the leak" in what for what in found.values())


@pytest.mark.parametrize("kind", ["date", "integer"])
def test_finds_other_types(mongod, db_name, kind):
    markers = Markers()
    with mongod.client(ADMIN) as client:
        value = getattr(markers, kind)()
        client[db_name].leak.insert_one({"v": value})
        # The log shows filters, not inserted documents.
        client[db_name].leak.find_one({"v": value})
    found = Scan(mongod, [db_name]).findings(markers)
    assert any(where.startswith("documents of") for where in found)
    assert any(where.startswith("data file collection-") for where in found)
    assert "mongod log" in found


def test_sees_through_encodings():
    import base64
    markers = Markers()
    secret = markers.text().encode()
    for shift in range(3):
        assert markers.find(b"audit: " + base64.b64encode(b"x" * shift + secret + b"yz")), f"base64 at alignment {shift}"
    assert markers.find(secret.hex().encode())
    assert markers.find(secret.hex().upper().encode())


def test_is_silent_about_what_is_not_there(mongod, db_name, leak):
    assert Scan(mongod, [db_name]).findings(Markers()) == {}
