"""Patients for the tests: every protected field of the sample configuration holds markers, the rest is ordinary."""

from __future__ import annotations

from harness import Markers


def patient(markers: Markers, _id, **changes) -> dict:
    document = {
        "_id": _id,
        "nhs_number": markers.text("nhs"),
        "mrn": markers.text("mrn"),
        "postcode": markers.text("postcode"),
        "date_of_birth": markers.date(),
        "notes": markers.text("notes"),
        "contacts": [{"kind": "mobile", "phone": markers.text("mobile")}, {"kind": "home", "phone": markers.text("home")}],
        "address": {"line1": markers.text("line"), "city": "Leeds"},
        "allergies": [markers.text("penicillin"), markers.text("nuts")],
        "ward": "A1",
        "visits": 3,
    }
    document.update(changes)
    return {key: value for key, value in document.items() if value is not ...}


def ids(cursor) -> list:
    return sorted((d["_id"] for d in cursor), key=str)
