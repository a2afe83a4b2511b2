"""Every way in which a value could reach the server beside the field it belongs to: each is sealed, taken out, or
refused. What all of these have in common, that no protected value shows up in the server's documents, files, journal, oplog,
profiler and log, is asserted by the scan at the end of the module."""

from __future__ import annotations

import datetime

import bson
import pytest
from pymongo.errors import OperationFailure

from harness import ADMIN, PATIENTS
from samples import patient

COLLECTIONS = {"patients": PATIENTS, "commented": PATIENTS}


@pytest.fixture(scope="module")
def known(app, markers):
    """One patient that every operation may name."""
    document = patient(markers, 1, loc=[1.0, 2.0], at=datetime.datetime(2024, 1, 1))
    app.patients.insert_one(document)
    app.patients.create_index([("loc", "2d")])
    return document


# name → operation(database, the known patient, a fresh secret) that must work, and on plaintext would yield something
WORKING = {
    "let in find": lambda d, k, v: list(d.patients.find({"$expr": {"$and": [{"$eq": ["$nhs_number", k["nhs_number"]]}, {"$eq": ["$ward", "$$w"]}]}}, let={"w": "A1"})),
    "projection $elemMatch": lambda d, k, v: d.patients.find_one({}, {"contacts": {"$elemMatch": {"phone": k["contacts"][0]["phone"]}}})["contacts"],
    "projection expression": lambda d, k, v: d.patients.find_one({}, {"x": {"$eq": ["$nhs_number", k["nhs_number"]]}})["x"],
    "arrayFilters": lambda d, k, v: d.patients.update_one({}, {"$set": {"contacts.$[c].seen": True}}, array_filters=[{"c.phone": k["contacts"][0]["phone"]}]).modified_count,
    "update pipeline": lambda d, k, v: d.patients.update_one({"_id": 1}, [{"$set": {"notes": v, "ward": "A1"}}]).matched_count,
    "upsert filter": lambda d, k, v: d.patients.update_one({"nhs_number": v, "_id": "upserted"}, {"$set": {"ward": "x"}}, upsert=True).upserted_id,
    "$lookup.pipeline": lambda d, k, v: list(d.patients.aggregate([{"$lookup": {"from": "patients", "let": {"n": "$nhs_number"}, "as": "x", "pipeline": [
        {"$match": {"mrn": k["mrn"], "$expr": {"$eq": ["$nhs_number", "$$n"]}}}]}}, {"$match": {"x.ward": "A1"}}])),
    "$graphLookup": lambda d, k, v: list(d.patients.aggregate([{"$graphLookup": {"from": "patients", "startWith": "$nhs_number", "connectFromField": "nhs_number",
        "connectToField": "nhs_number", "as": "x", "restrictSearchWithMatch": {"mrn": k["mrn"]}}}])),
    "$geoNear.query": lambda d, k, v: list(d.patients.aggregate([{"$geoNear": {"near": [1, 2], "distanceField": "far", "query": {"nhs_number": k["nhs_number"]}}}])),
    "explain": lambda d, k, v: d.command("explain", {"find": "patients", "filter": {"nhs_number": v}, "comment": v}, verbosity="executionStats"),
    "explained aggregate": lambda d, k, v: d.command("aggregate", "patients", pipeline=[{"$match": {"nhs_number": v}}], explain=True),
    "$comment": lambda d, k, v: d.patients.find_one({"nhs_number": k["nhs_number"], "$comment": v}),
    "hint by key": lambda d, k, v: d.patients.find_one({"nhs_number": k["nhs_number"]}, hint=[("_id", 1)]),
    "transaction": lambda d, k, v: in_transaction(d, k, v),
}


def in_transaction(db, known, value):
    with db.client.start_session() as session, session.start_transaction():
        db.patients.insert_one({"_id": value and bson.ObjectId(), "nhs_number": value}, session=session)
        return db.patients.find_one({"nhs_number": value}, session=session)


@pytest.mark.parametrize("which", WORKING)
def test_what_can_be_sealed_is(app, known, markers, which):
    secret = markers.text()
    result = WORKING[which](app, known, secret)
    assert result
    if "explain" in which:
        assert markers.find(repr(result).encode()) is None


VALUES = {"string": lambda v: v, "document": lambda v: {"a": {"b": v}}, "array": lambda v: [1, v], "code": bson.Code}

COMMENTED = {
    "find": {"find": "patients", "filter": {}},
    "aggregate": {"aggregate": "patients", "pipeline": [], "cursor": {}},
    "count": {"count": "patients", "query": {}},
    "distinct": {"distinct": "patients", "key": "ward"},
    "insert": {"insert": "patients", "documents": [{"ward": "c"}]},
    "update": {"update": "patients", "updates": [{"q": {"ward": "c"}, "u": {"$set": {"visits": 1}}}]},
    "delete": {"delete": "patients", "deletes": [{"q": {"ward": "c"}, "limit": 0}]},
    "findAndModify": {"findAndModify": "patients", "query": {"ward": "c"}, "update": {"$set": {"visits": 1}}},
    "create": {"create": "commented"},
    "collMod": {"collMod": "patients", "validationLevel": "strict"},
    "createIndexes": {"createIndexes": "patients", "indexes": [{"key": {"ward": 1}, "name": "ward_1"}]},
    "dropIndexes": {"dropIndexes": "patients", "index": "ward_1"},
    "listIndexes": {"listIndexes": "patients"},
    "listCollections": {"listCollections": 1},
    "drop": {"drop": "commented"},
    "ping": {"ping": 1},
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("command", COMMENTED)
def test_comments_do_not_go_on(app, known, markers, command, kind):
    commented = {**COMMENTED[command], "comment": VALUES[kind](markers.text())}
    # It may be there already, or not any more (26, 27, 48): that is the server's answer, and no refusal.
    assert app.command(commented, allowable_errors=[26, 27, 48])


REFUSED = {
    "let": lambda d, v: list(d.patients.find({"$expr": {"$eq": ["$nhs_number", "$$n"]}}, let={"n": v})),
    "let in aggregate": lambda d, v: list(d.patients.aggregate([{"$match": {"$expr": {"$eq": ["$nhs_number", "$$n"]}}}], let={"n": v})),
    "let in update": lambda d, v: d.command("update", "patients", updates=[{"q": {"$expr": {"$eq": ["$mrn", "$$n"]}}, "u": {"$set": {"x": 1}}}], let={"n": v}),
    "let in delete": lambda d, v: d.command("delete", "patients", deletes=[{"q": {"$expr": {"$eq": ["$mrn", "$$n"]}}, "limit": 1}], let={"n": v}),
    "let in findAndModify": lambda d, v: d.command("findAndModify", "patients", query={"$expr": {"$eq": ["$mrn", "$$n"]}}, remove=True, let={"n": v}),
    "$let": lambda d, v: list(d.patients.aggregate([{"$project": {"x": {"$let": {"vars": {"n": v}, "in": {"$eq": ["$nhs_number", "$$n"]}}}}}])),
    "min": lambda d, v: list(d.patients.find({}, min=[("nhs_number", v)], hint=[("nhs_number", 1)])),
    "max": lambda d, v: list(d.patients.find({}, max=[("mrn", v)], hint=[("mrn", 1)])),
    "projection computes": lambda d, v: list(d.patients.find({}, {"x": {"$concat": ["$nhs_number", v]}})),
    "update constants": lambda d, v: d.command("update", "patients", updates=[{"q": {}, "u": [{"$set": {"nhs_number": "$$n"}}], "c": {"n": v}}]),
    "upsert by range": lambda d, v: d.patients.update_one({"nhs_number": {"$gte": v}}, {"$set": {"x": 1}}, upsert=True),
    "$merge.let": lambda d, v: list(d.patients.aggregate([{"$merge": {"into": "patients", "let": {"n": v}, "whenMatched": [{"$set": {"nhs_number": "$$n"}}]}}])),
    "$lookup.let": lambda d, v: list(d.patients.aggregate([{"$lookup": {"from": "patients", "let": {"n": v}, "as": "x", "pipeline": [{"$match": {"$expr": {"$eq": ["$nhs_number", "$$n"]}}}]}}])),
    "$geoNear.query": lambda d, v: list(d.patients.aggregate([{"$geoNear": {"near": [1, 2], "distanceField": "x", "query": {"nhs_number": {"$gt": v}}}}])),
    "$search": lambda d, v: list(d.patients.aggregate([{"$search": {"text": {"query": v, "path": "nhs_number"}}}])),
    "$searchMeta": lambda d, v: list(d.patients.aggregate([{"$searchMeta": {"equals": {"value": v, "path": "mrn"}}}])),
    "$vectorSearch": lambda d, v: list(d.patients.aggregate([{"$vectorSearch": {"filter": {"nhs_number": v}}}])),
    "$bucket": lambda d, v: list(d.patients.aggregate([{"$bucket": {"groupBy": "$nhs_number", "boundaries": [v, v + "z"]}}])),
    "$densify": lambda d, v: list(d.patients.aggregate([{"$densify": {"field": "date_of_birth", "range": {"step": 1, "unit": "day", "bounds": "full"}}}])),
    "$fill": lambda d, v: list(d.patients.aggregate([{"$fill": {"output": {"nhs_number": {"value": {"$concat": [v, "$nhs_number"]}}}}}])),
    "$function": lambda d, v: list(d.patients.aggregate([{"$project": {"x": {"$function": {"body": f"return '{v}'", "args": ["$nhs_number"], "lang": "js"}}}}])),
    "$accumulator": lambda d, v: list(d.patients.aggregate([{"$group": {"_id": None, "x": {"$accumulator": {"init": f"'{v}'", "accumulate": "", "accumulateArgs": ["$nhs_number"], "merge": "", "lang": "js"}}}}])),
    "$where": lambda d, v: d.patients.find_one({"$where": f"this.nhs_number == '{v}'"}),
    "mapReduce": lambda d, v: d.command("mapReduce", "patients", map=f"'{v}'", reduce="", out={"inline": 1}, query={"nhs_number": v}),
    "validator": lambda d, v: d.command("collMod", "patients", validator={"nhs_number": v}),
    "view": lambda d, v: d.command("create", "some_view", viewOn="patients", pipeline=[{"$match": {"nhs_number": v}}]),
    "partialFilterExpression": lambda d, v: d.patients.create_index("ward", partialFilterExpression={"nhs_number": v}),
    "$out elsewhere": lambda d, v: list(d.patients.aggregate([{"$set": {"nhs_number": v}}, {"$out": "elsewhere"}])),
    "renameCollection": lambda d, v: d.client.admin.command("renameCollection", f"{d.name}.patients", to=f"{d.name}.elsewhere"),
    "dotted name": lambda d, v: d.patients.insert_one({"address.line1": v}),
    "planCacheSetFilter": lambda d, v: d.command("planCacheSetFilter", "patients", query={"nhs_number": v}, indexes=[{"nhs_number": 1}]),
    "planCacheClear": lambda d, v: d.command("planCacheClear", "patients", query={"nhs_number": v}),
    "dataSize": lambda d, v: d.command("dataSize", f"{d.name}.patients", keyPattern={"nhs_number": 1}, min={"nhs_number": v}, max={"nhs_number": v}),
    "profile filter": lambda d, v: d.command("profile", 2, filter={"command.filter.nhs_number": v}),
    "applyOps": lambda d, v: d.client.admin.command("applyOps", [{"op": "i", "ns": f"{d.name}.patients", "o": {"_id": 9, "nhs_number": v}}]),
    "unknown command": lambda d, v: d.command("futureCommand", "patients", filter={"nhs_number": v}),
    "unknown argument": lambda d, v: d.command("find", "patients", futureArgument={"nhs_number": v}),
    "change stream": lambda d, v: d.patients.watch([{"$match": {"fullDocument.nhs_number": {"$gt": v}}}]).close(),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_sealed_is_refused(app, known, markers, which):
    secret = markers.text()
    with pytest.raises(OperationFailure) as caught:
        REFUSED[which](app, secret)
    said = str(caught.value.details)
    assert "fieldveil: " in said and secret not in said, said


@pytest.mark.parametrize("verbosity", ["queryPlanner", "executionStats", "allPlansExecution"])
@pytest.mark.parametrize("command", [
    lambda k: {"find": "patients", "filter": {"nhs_number": k["nhs_number"], "contacts.phone": {"$in": [k["contacts"][0]["phone"]]}}},
    lambda k: {"aggregate": "patients", "pipeline": [{"$match": {"nhs_number": k["nhs_number"]}}, {"$group": {"_id": "$mrn"}}], "cursor": {}},
    lambda k: {"count": "patients", "query": {"mrn": k["mrn"]}},
    lambda k: {"distinct": "patients", "key": "mrn", "query": {"nhs_number": k["nhs_number"]}},
    lambda k: {"update": "patients", "updates": [{"q": {"mrn": k["mrn"]}, "u": {"$set": {"notes": k["notes"], "nhs_number": k["nhs_number"]}}}]},
    lambda k: {"delete": "patients", "deletes": [{"q": {"mrn": k["mrn"]}, "limit": 1}]},
    lambda k: {"findAndModify": "patients", "query": {"mrn": k["mrn"]}, "update": {"$set": {"notes": k["notes"]}}},
])
def test_plans_show_no_plaintext(app, known, markers, command, verbosity):
    plan = app.command("explain", command(known), verbosity=verbosity, comment=markers.text())
    assert plan["ok"] == 1 and ("queryPlanner" in plan or "stages" in plan)
    assert markers.find(repr(plan).encode()) is None
    # Nothing was carried out, and nothing is remembered of the plan that would open it.
    assert app.patients.find_one({"nhs_number": known["nhs_number"]})["_id"] == 1


# --- what tools ask -----------------------------------------------------------------------------------------------------

# What mongosh and Compass send by themselves, or by a click: each is answered, or refused in words.
ANSWERED = [
    ("admin", {"hello": 1}), ("admin", {"ping": 1}), ("admin", {"buildInfo": 1}), ("admin", {"connectionStatus": 1, "showPrivileges": True}),
    ("admin", {"getParameter": 1, "featureCompatibilityVersion": 1}), ("admin", {"listDatabases": 1, "nameOnly": True}),
    ("admin", {"whatsmyuri": 1}), ("admin", {"getLog": "startupWarnings"}), ("admin", {"getLog": "*"}), ("admin", {"listCommands": 1}),
    ("admin", {"hostInfo": 1}), ("admin", {"serverStatus": 1}), ("admin", {"top": 1}), ("admin", {"getCmdLineOpts": 1}),
    ("admin", {"usersInfo": 1}), ("admin", {"rolesInfo": 1, "showBuiltinRoles": True}), ("admin", {"connPoolStats": 1}),
    ("admin", {"replSetGetStatus": 1}), ("admin", {"getDefaultRWConcern": 1}), ("admin", {"lockInfo": 1}),
    ("db", {"listCollections": 1}), ("db", {"listCollections": 1, "nameOnly": True, "authorizedCollections": True, "filter": {"type": "collection"}}),
    ("db", {"listIndexes": "patients"}), ("db", {"collStats": "patients"}), ("db", {"dbStats": 1}), ("db", {"validate": "patients"}),
    ("db", {"dataSize": "{db}.patients"}), ("db", {"profile": -1}), ("db", {"planCacheClear": "patients"}),
    ("db", {"aggregate": "patients", "pipeline": [{"$collStats": {"storageStats": {}, "count": {}, "latencyStats": {}}}], "cursor": {}}),
    ("db", {"aggregate": "patients", "pipeline": [{"$indexStats": {}}], "cursor": {}}),
    ("db", {"aggregate": "patients", "pipeline": [{"$sample": {"size": 5}}], "cursor": {}}),
    ("db", {"count": "patients"}), ("db", {"find": "patients", "filter": {}, "limit": 20}),
    ("db", {"aggregate": 1, "pipeline": [{"$listLocalSessions": {}}, {"$limit": 1}], "cursor": {}}),
]

REFUSED_TO_TOOLS = [
    ("admin", {"currentOp": 1}), ("admin", {"aggregate": 1, "pipeline": [{"$currentOp": {"allUsers": True}}], "cursor": {}}),
    ("admin", {"getLog": "global"}), ("db", {"find": "system.profile"}), ("local", {"find": "oplog.rs"}),
    ("db", {"aggregate": "patients", "pipeline": [{"$planCacheStats": {}}], "cursor": {}}), ("db", {"planCacheListFilters": "patients"}),
    ("db", {"dbHash": 1}), ("db", {"convertToCapped": "patients", "size": 4096}),
]


@pytest.fixture(scope="module")
def operator_client(proxy):
    with proxy.client(ADMIN) as client:
        yield client


def named(client, db_name, where, command):
    command = {key: value.replace("{db}", db_name) if isinstance(value, str) else value for key, value in command.items()}
    return client[db_name if where == "db" else where].command(command)


@pytest.mark.parametrize("where, command", ANSWERED, ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_what_tools_ask_is_answered(operator_client, known, db_name, where, command, markers):
    answer = named(operator_client, db_name, where, command)
    assert answer["ok"] == 1
    shows_documents = next(iter(command)) == "find" or "$sample" in repr(command)
    assert shows_documents or markers.find(repr(answer).encode()) is None


@pytest.mark.parametrize("where, command", REFUSED_TO_TOOLS, ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_what_shows_others_operations_is_refused(operator_client, known, db_name, where, command):
    with pytest.raises(OperationFailure, match="fieldveil: "):
        named(operator_client, db_name, where, command)


def test_an_unknown_command_elsewhere_is_the_servers_to_answer(operator_client):
    with pytest.raises(OperationFailure) as caught:
        operator_client.admin.command("atlasVersion")
    assert caught.value.code == 59 and "fieldveil" not in str(caught.value)


def test_definitions_show_no_plaintext(app, known, markers):
    app.patients.create_index("nhs_number", partialFilterExpression={"nhs_number": {"$exists": True}})
    shown = repr([list(app.list_collections()), app.patients.index_information(), app.command("validate", "patients", full=True)])
    assert markers.find(shown.encode()) is None
