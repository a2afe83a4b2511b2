"""MongoEngine as its tutorial shows it: documents, embedded documents, a unique field, references, query sets and atomic
updates. Each step runs once through the proxy and once directly against a plaintext server, with the same result asserted.
Addresses and the marker prefix come from tests/e2e/test_applications.py."""

from __future__ import annotations

import datetime
import os
import sys
import traceback

import mongoengine as me
from bson import ObjectId
from mongoengine.connection import get_db
from pymongo.errors import OperationFailure

PREFIX = os.environ["FIELDVEIL_TEST_MARKER"]
SIDES = {"plain": os.environ["FIELDVEIL_TEST_PLAIN_URI"], "sealed": os.environ["FIELDVEIL_TEST_PROXY_URI"]}
made = 0


def marker() -> str:
    global made
    made += 1
    return f"{PREFIX}{40000 + made:05d}"


class Ward(me.Document):
    meta = {"collection": "mongoengine_wards", "db_alias": "default"}
    name = me.StringField(required=True)


class Contact(me.EmbeddedDocument):
    kind = me.StringField(choices=("mobile", "home", "work"))
    phone = me.StringField()


class Address(me.EmbeddedDocument):
    line1 = me.StringField()
    city = me.StringField()


class Patient(me.Document):
    meta = {"collection": "mongoengine_patients", "db_alias": "default", "indexes": ["mrn", "#postcode"]}
    nhs_number = me.StringField(required=True, unique=True, max_length=40)
    mrn = me.StringField()
    postcode = me.StringField()
    date_of_birth = me.DateTimeField()
    notes = me.StringField()
    contacts = me.EmbeddedDocumentListField(Contact)
    address = me.EmbeddedDocumentField(Address)
    allergies = me.ListField(me.StringField())
    ward = me.ReferenceField(Ward)
    visits = me.IntField(default=0)


def patient(number: int) -> dict:
    return dict(id=ObjectId(f"{number:024d}"), nhs_number=marker(), mrn=marker(), postcode=marker(), date_of_birth=datetime.datetime(1951, 3, 4), notes=marker(),
                contacts=[dict(kind="mobile", phone=marker()), dict(kind="home", phone=marker())], address=dict(line1=marker(), city="Leeds"),
                allergies=[marker(), marker()], visits=number)


def build(values: dict, **more) -> Patient:
    embedded = dict(contacts=[Contact(**c) for c in values["contacts"]], address=Address(**values["address"]))
    return Patient(**{**values, **embedded, **more})


steps = failed = 0


def step(name: str, operation) -> None:
    """Runs the operation on both sides; a step that gives nothing compares nothing and fails."""
    global steps, failed
    steps += 1
    try:
        results = {}
        for side in SIDES:
            me.disconnect_all()
            me.connect(os.environ["FIELDVEIL_TEST_DB"], host=SIDES[side], uuidRepresentation="standard")
            results[side] = operation()
        assert results["sealed"] == results["plain"], f"{results['sealed']!r}, expected {results['plain']!r}"
        assert results["sealed"], "nothing to compare"
        print(f"ok {name}")
    except Exception:  # whatever it is, the others are run too
        failed += 1
        print(f"not ok {name}: {traceback.format_exc()}")


def refused(name: str, operation, field: str) -> None:
    global steps, failed
    steps += 1
    try:
        print(f"not ok refused: {name}: answered with {operation()}")
    except OperationFailure as e:
        text = str(e)
        if text.startswith("fieldveil: ") and field in text:
            print(f"ok refused: {name}")
            return
        print(f"not ok refused: {name}: {text}")
    failed += 1


def son(document) -> dict:
    return document.to_mongo().to_dict()


ada, bea = patient(1), patient(2)
crowd = [patient(number) for number in range(100, 130)]
ward_id = ObjectId(f"{900:024d}")
new_notes, new_phone, new_number, upserted = (marker() for _ in range(4))


def create():
    Patient.objects.delete()
    Ward.objects.delete()
    Patient.ensure_indexes()
    ward = Ward(id=ward_id, name="A1").save()
    return son(build(ada, ward=ward).save(force_insert=True))


def change_and_save():
    one = Patient.objects.get(mrn=ada["mrn"])
    one.notes = new_notes
    one.contacts[0].phone = new_phone
    one.contacts.append(Contact(kind="work", phone=new_phone))
    one.allergies.append(new_notes)
    one.visits += 1
    one.save()
    return son(Patient.objects.get(id=ada["id"]))


def twice():
    try:
        build(bea, nhs_number=ada["nhs_number"]).save(force_insert=True)
    except me.NotUniqueError:
        return "not unique"
    return "stored twice"


def invalid():
    try:
        Patient(mrn="x").save()
    except me.ValidationError as e:
        return sorted(e.errors)
    return "stored"


step("create", create)
step("insert many", lambda: len(Patient.objects.insert([build(one) for one in crowd], load_bulk=False)))
step("get by a protected field", lambda: son(Patient.objects.get(nhs_number=ada["nhs_number"])))
step("by date", lambda: [son(one) for one in Patient.objects(date_of_birth=datetime.datetime(1951, 3, 4)).order_by("id")[:3]])
step("through an embedded list", lambda: [son(one) for one in Patient.objects(contacts__phone=ada["contacts"][1]["phone"])])
step("in and not equal", lambda: [son(one) for one in Patient.objects(nhs_number__in=[one["nhs_number"] for one in crowd[:4]], mrn__ne=crowd[0]["mrn"]).order_by("visits")])
step("Q objects", lambda: [son(one) for one in Patient.objects(me.Q(mrn=crowd[5]["mrn"]) | me.Q(postcode=crowd[6]["postcode"])).order_by("visits")])
step("only, exclude, as_pymongo", lambda: [list(Patient.objects(id=ada["id"]).only("nhs_number", "address").as_pymongo()),
                                           list(Patient.objects(id=ada["id"]).exclude("notes").as_pymongo()), list(Patient.objects(mrn=ada["mrn"]).scalar("postcode", "visits"))])
step("dereference", lambda: Patient.objects.get(mrn=ada["mrn"]).ward.name)
step("batches", lambda: [son(one) for one in Patient.objects.order_by("id").batch_size(7)])
step("change and save", change_and_save)
step("unique", twice)
step("validation", invalid)
step("atomic update", lambda: [Patient.objects(nhs_number=crowd[7]["nhs_number"]).update_one(set__nhs_number=new_number, inc__visits=1, push__contacts=Contact(kind="work", phone=new_phone)),
                               son(Patient.objects.get(nhs_number=new_number))])
step("positional update", lambda: [Patient.objects(contacts__kind="work", nhs_number=new_number).update(set__contacts__S__phone=new_notes), son(Patient.objects.get(nhs_number=new_number))])
step("pull and unset", lambda: [Patient.objects(nhs_number=new_number).update(pull__contacts__phone=new_notes, unset__notes=1), son(Patient.objects.get(nhs_number=new_number))])
step("modify", lambda: son(Patient.objects(mrn=crowd[8]["mrn"]).modify(new=True, set__notes=new_notes)))
step("upsert", lambda: [Patient.objects(nhs_number=upserted).update_one(set_on_insert__id=ObjectId(f"{3:024d}"), set__mrn=new_notes, upsert=True), son(Patient.objects.get(nhs_number=upserted))])
step("count, distinct, first", lambda: [Patient.objects(postcode=ada["postcode"]).count(), Patient.objects(id=ada["id"]).distinct("postcode"), son(Patient.objects(mrn=new_notes).first())])
step("sum and average of a plain field", lambda: [Patient.objects.sum("visits"), Patient.objects.average("visits")])
step("aggregate", lambda: list(Patient.objects(postcode=ada["postcode"]).aggregate([{"$group": {"_id": "$postcode", "n": {"$sum": 1}}}])))
step("index information", lambda: sorted(Patient._get_collection().index_information()))
step("list collections", lambda: sorted(n for n in get_db().list_collection_names() if n.startswith("mongoengine")))
step("delete", lambda: [Patient.objects(nhs_number=ada["nhs_number"]).delete(), Patient.objects.count()])

# What is refused, and how that arrives: docs/APPLICATIONS.md lists these. The last connection is through the proxy.
refused("contains", lambda: list(Patient.objects(nhs_number__contains="9")), "nhs_number")
refused("startswith", lambda: list(Patient.objects(postcode__startswith="LS")), "postcode")
refused("a range over a sealed date", lambda: list(Patient.objects(date_of_birth__gt=datetime.datetime(1950, 1, 1))), "date_of_birth")
refused("item frequencies, which is map-reduce", lambda: Patient.objects.item_frequencies("visits"), "mapReduce")
refused("an order by a sealed field", lambda: list(Patient.objects.order_by("nhs_number")), "nhs_number")

me.disconnect_all()
print(f"{steps} steps, {failed} failed")
sys.exit(1 if failed else 0)
