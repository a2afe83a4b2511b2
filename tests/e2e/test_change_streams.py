"""Change streams of a collection, a database and the cluster: events come opened, and only what can be told is filtered
on."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

import harness
from samples import patient

COLLECTIONS = {
    "patients": harness.PATIENTS,
    "csfle": {"code": '{ mode = "deterministic", type = "string", algorithm = "aead-aes-256-cbc-hmac-sha-512" }',
              "text": '{ mode = "random", algorithm = "aead-aes-256-cbc-hmac-sha-512" }'},
    "tagged": {"tags": '{ mode = "deterministic", type = "string" }', "marks": '{ mode = "random", each = true }'},
}
WHAT = ("operationType", "ns", "documentKey", "fullDocument", "fullDocumentBeforeChange", "updateDescription")


@pytest.fixture(params=["collection", "database", "cluster"])
def level(request):
    return request.param


def target(client, db_name, level):
    return {"collection": client[db_name].patients, "database": client[db_name], "cluster": client}[level]


@pytest.fixture
def clients(app_client, oracle_client, db_name):
    for client in (app_client, oracle_client):
        client[db_name].drop_collection("patients")
        client[db_name].create_collection("patients", changeStreamPreAndPostImages={"enabled": True})
        client[db_name].drop_collection("tagged")
        client[db_name].create_collection("tagged")
    return app_client, oracle_client


def events(stream, expected):
    """So many events; nothing may come after them, nor fewer."""
    found = []
    for _ in range(200):
        event = stream.try_next()
        if event is not None:
            found.append(event)
        if len(found) >= expected:
            return found
    raise AssertionError(f"only {len(found)} of {expected} events came")


def changes(markers):
    """What is done to the collection; the same on both servers."""
    a, b = patient(markers, 1), patient(markers, 2)
    phone, notes, line, third, whole = markers.text(), markers.text(), markers.text(), markers.text(), patient(markers, 2)
    return [
        lambda c: c.insert_many([a, b]),
        lambda c: c.update_one({"_id": 1}, {"$set": {"nhs_number": phone, "ward": "B2"}}),
        lambda c: c.update_one({"_id": 1}, {"$set": {"contacts.0.phone": phone, "address.line1": line, "notes": notes}}),
        lambda c: c.update_one({"_id": 1}, {"$push": {"contacts": {"kind": "work", "phone": third}}}),
        lambda c: c.update_one({"_id": 1}, [{"$set": {"contacts": {"$slice": ["$contacts", 1]}}}]),
        lambda c: c.update_one({"_id": 1}, {"$unset": {"notes": "", "contacts.0.phone": ""}}),
        lambda c: c.replace_one({"_id": 2}, whole),
        lambda c: c.find_one_and_update({"_id": 2}, {"$set": {"postcode": phone}}),
        lambda c: c.delete_one({"_id": 1}),
    ]


def test_every_event_is_what_it_is_without_the_proxy(clients, db_name, level, markers):
    done = changes(markers)
    seen = []
    for client in clients:
        options = dict(full_document="whenAvailable", full_document_before_change="whenAvailable", max_await_time_ms=200)
        with target(client, db_name, level).watch(**options) as stream:
            for change in done:
                change(client[db_name].patients)
            seen.append([{key: event[key] for key in WHAT if key in event} for event in events(stream, 10)])
    for through, plain in zip(*seen, strict=True):
        assert through == plain
    kinds = [event["operationType"] for event in seen[0]]
    assert kinds == ["insert"] * 2 + ["update"] * 5 + ["replace", "update", "delete"]
    dotted = [key for event in seen[0] for key in event.get("updateDescription", {}).get("updatedFields", {}) if "." in key]
    assert {"contacts.0.phone", "address.line1"} <= set(dotted), dotted
    assert any(event.get("updateDescription", {}).get("truncatedArrays") for event in seen[0])


def test_expanded_events(clients, db_name, level, markers):
    """With whatever this server adds to them."""
    number = markers.text()
    seen = []
    for client in clients:
        with target(client, db_name, level).watch(show_expanded_events=True, max_await_time_ms=200) as stream:
            collection = client[db_name].patients
            collection.insert_one({"_id": 7, "nhs_number": number, "contacts": [{"phone": number}], "map": {"0": {"x": 1}}})
            collection.update_one({"_id": 7}, {"$set": {"contacts.0.phone": number + "1", "map.0.x": 2}})
            seen.append([event.get("updateDescription") for event in events(stream, 2)])
    assert seen[0] == seen[1]
    assert seen[0][1]["updatedFields"]["contacts.0.phone"] == number + "1"


PIPELINES = {
    "by operation": lambda n: [{"$match": {"operationType": "update"}}],
    "by collection": lambda n: [{"$match": {"ns.coll": "patients"}}],
    "by id": lambda n: [{"$match": {"documentKey._id": 2}}],
    "by the whole key": lambda n: [{"$match": {"documentKey": {"_id": 2}}}],
    "with a document": lambda n: [{"$match": {"fullDocument": {"$ne": None}, "updateDescription.updatedFields": {"$exists": False}}}],
    "projected": lambda n: [{"$project": {"fullDocument": 1, "operationType": 1}}],
    "without the document": lambda n: [{"$unset": "fullDocument"}],
    "renamed": lambda n: [{"$set": {"who": "$fullDocument.nhs_number"}}, {"$project": {"who": 1}}],
    "names of what was removed": lambda n: [{"$match": {"$or": [{"updateDescription.removedFields": {"$ne": "x"}}, {"operationType": "insert"}]}}],
}
# Where it is known whose documents they are.
ON_A_COLLECTION = {
    "by a protected field": lambda n: [{"$match": {"fullDocument.nhs_number": n}}],
    "by one of several": lambda n: [{"$match": {"fullDocument.nhs_number": {"$in": [n, "x"]}, "operationType": {"$in": ["insert", "update"]}}}],
    "by a plain field": lambda n: [{"$match": {"fullDocument.ward": "A1"}}],
    "by an expression": lambda n: [{"$match": {"$expr": {"$eq": ["$fullDocument.nhs_number", n]}}}],
    "by a changed protected field": lambda n: [{"$match": {"updateDescription.updatedFields.nhs_number": n}}],
    "by a changed plain field": lambda n: [{"$match": {"updateDescription.updatedFields.ward": "B2"}}],
    "whether a protected field changed": lambda n: [{"$match": {"updateDescription.updatedFields.nhs_number": {"$exists": True}}}],
    "the document alone": lambda n: [{"$replaceRoot": {"newRoot": {"_id": "$_id", "d": "$fullDocument"}}}, {"$match": {"d.nhs_number": n}}],
    "by a field of the key": lambda n: [{"$match": {"documentKey._id": {"$gt": 1}}}],
}


def run(clients, db_name, level, markers, make):
    first, second, third = patient(markers, 1), patient(markers, 2), patient(markers, 3, ward="Z9")
    number = second["nhs_number"]
    seen = []
    for client in clients:
        collection = client[db_name].patients
        with target(client, db_name, level).watch(make(number), full_document="updateLookup", max_await_time_ms=300) as stream:
            collection.insert_many([first, second, third])
            collection.update_one({"_id": 3}, {"$set": {"nhs_number": number, "ward": "B2"}, "$unset": {"visits": ""}})
            found = []
            for _ in range(3):
                while (event := stream.try_next()) is not None:
                    event.pop("_id"), event.pop("clusterTime", None), event.pop("wallTime", None)
                    found.append(event)
            seen.append(found)
    assert seen[1], "the pipeline finds nothing on plaintext: it would compare nothing"
    assert seen[0] == seen[1]


@pytest.mark.parametrize("which", PIPELINES)
def test_pipelines(clients, db_name, level, markers, which):
    run(clients, db_name, level, markers, PIPELINES[which])


@pytest.mark.parametrize("which", ON_A_COLLECTION)
def test_pipelines_on_a_collection(clients, db_name, markers, which):
    run(clients, db_name, "collection", markers, ON_A_COLLECTION[which])


@pytest.mark.parametrize("pipeline", [
    lambda n: [{"$match": {"fullDocument.nhs_number": {"$gt": n}}}],
    lambda n: [{"$match": {"fullDocument.notes": n}}],
    lambda n: [{"$match": {"updateDescription.updatedFields.notes": n}}],
    lambda n: [{"$match": {"$expr": {"$eq": [{"$getField": {"field": "contacts.0.phone", "input": "$updateDescription.updatedFields"}}, n]}}}],
    lambda n: [{"$set": {"x": {"$toUpper": "$fullDocument.nhs_number"}}}],
    lambda n: [{"$match": {"fullDocumentBeforeChange.mrn": {"$regex": n}}}],
    lambda n: [{"$set": {"kv": {"$objectToArray": "$updateDescription.updatedFields"}}}, {"$match": {"kv.v": n}}],
], ids=["range", "random", "random, changed", "by a dotted key", "computed", "regex before", "as an array"])
def test_refused(clients, db_name, markers, pipeline):
    with pytest.raises(OperationFailure) as refused, target(clients[0], db_name, "collection").watch(pipeline(markers.text())):
        pass
    assert refused.value.details["errmsg"].startswith("fieldveil: ")
    assert markers.find(str(refused.value.details).encode()) is None


@pytest.mark.parametrize("level", ["database", "cluster"])
def test_documents_of_unknown_collections_are_not_filtered_on(clients, db_name, level, markers):
    for path in ("fullDocument.nhs_number", "updateDescription.updatedFields.nhs_number", "fullDocument.ward"):
        with pytest.raises(OperationFailure, match="fieldveil: ") as refused, target(clients[0], db_name, level).watch([{"$match": {path: markers.text()}}]):
            pass
        assert markers.find(str(refused.value.details).encode()) is None


def test_resuming(clients, db_name, level, markers):
    numbers = [markers.text() for _ in range(3)]
    client = clients[0]
    collection = client[db_name].patients
    with target(client, db_name, level).watch(max_await_time_ms=200) as stream:
        collection.insert_many([{"_id": n, "nhs_number": number} for n, number in enumerate(numbers)])
        token = events(stream, 1)[0]["_id"]
    with target(client, db_name, level).watch(resume_after=token, max_await_time_ms=200) as stream:
        assert [event["fullDocument"]["nhs_number"] for event in events(stream, 2)] == numbers[1:]
    with target(client, db_name, level).watch(start_after=token, max_await_time_ms=200) as stream:
        assert [event["fullDocument"]["nhs_number"] for event in events(stream, 2)] == numbers[1:]


def test_arrays_sealed_item_by_item(clients, db_name, markers):
    tags = [markers.text() for _ in range(3)]
    seen = []
    for client in clients:
        with client[db_name].tagged.watch(max_await_time_ms=200) as stream:
            collection = client[db_name].tagged
            collection.insert_one({"_id": 1, "tags": tags[:2], "marks": tags[:2]})
            collection.update_one({"_id": 1}, {"$push": {"tags": tags[2], "marks": tags[2]}})
            collection.update_one({"_id": 1}, {"$set": {"tags.0": tags[2], "marks.1": tags[0]}})
            seen.append([(e.get("fullDocument"), e.get("updateDescription")) for e in events(stream, 3)])
    assert seen[0] == seen[1]


def test_values_in_csfle_format(clients, db_name, level, markers):
    """Wherever the stream is opened, and in later batches as in the first."""
    codes = [markers.text() for _ in range(4)]
    seen = []
    for client in clients:
        client[db_name].csfle.drop()
        watched = client[db_name].csfle if level == "collection" else target(client, db_name, level)
        with watched.watch([{"$match": {"ns.coll": "csfle"}}], full_document="updateLookup", batch_size=1, max_await_time_ms=200) as stream:
            collection = client[db_name].csfle
            collection.insert_many([{"_id": n, "code": code, "text": code} for n, code in enumerate(codes)])
            collection.update_one({"code": codes[0]}, {"$set": {"text": codes[1]}})
            seen.append([(e.get("fullDocument"), e.get("updateDescription")) for e in events(stream, 5)])
    assert seen[0] == seen[1]
