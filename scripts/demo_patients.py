"""The application of the demo: pymongo, unmodified, that knows nothing of encryption.

`prepare` makes the replica set and the users, directly at the database. `show` loads invented patients through the
proxy and shows one of them as the application, the database and the audit see it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shutil
import sys
import textwrap
import time
from pathlib import Path

import bson
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

COUNT, SEED = 300, 1948  # the year the NHS began
# As the configuration says.
SUBJECT = "nhs_number"
PROTECTED = ["nhs_number", "mrn", "postcode", "date_of_birth", "notes", "contacts.0.phone", "address.line1", "allergies"]
TTY = sys.stdout.isatty() and "NO_COLOR" not in os.environ
ALGORITHMS = {1: "AES-256-SIV", 2: "AES-256-GCM", 3: "ChaCha20-Poly1305", 4: "AES-256-CBC+HMAC"}

GIVEN = ["Amara", "Bronwen", "Callum", "Deepa", "Eilidh", "Farid", "Grace", "Hamish", "Imogen", "Joseph", "Kwame", "Leila",
         "Mohammed", "Niamh", "Oliver", "Priya", "Rhys", "Siobhan", "Tariq", "Zofia"]
FAMILY = ["Ahmed", "Begum", "Campbell", "Davies", "Evans", "Fraser", "Green", "Hussain", "Jones", "Kaur", "Lewis", "MacLeod",
          "Nowak", "O'Brien", "Patel", "Roberts", "Singh", "Taylor", "Williams", "Young"]
STREETS = ["Station Road", "Church Lane", "Victoria Street", "Mill Lane", "The Crescent", "Albert Terrace", "Park Avenue"]
TOWNS = [("Leeds", "LS"), ("Cardiff", "CF"), ("Norwich", "NR"), ("Exeter", "EX"), ("Hull", "HU"), ("Derby", "DE")]
NOTES = ["Reviewed after discharge, wound healing well.", "Type 2 diabetes, HbA1c improved since last visit.",
         "Referred to physiotherapy for lower back pain.", "Asthma, inhaler technique checked.", "Annual review, no concerns.",
         "Blood pressure above target, dose increased.", "Anxious about the procedure, explained again with her daughter."]
ALLERGIES = ["penicillin", "nuts", "latex", "aspirin", "egg", "none known"]


def nhs_number(r: random.Random) -> str:
    """A number of the range 999, which is never issued, with its check digit (modulus 11, weights 10 to 2)."""
    while True:
        digits = "999" + f"{r.randrange(1_000_000):06d}"
        check = 11 - sum(int(d) * w for d, w in zip(digits, range(10, 1, -1))) % 11
        if check != 10:
            return digits + str(check % 11)


def patients() -> list[dict]:
    r = random.Random(SEED)
    made = []
    for n in range(COUNT):
        town, area = r.choice(TOWNS)
        born = datetime.datetime(1930, 1, 1) + datetime.timedelta(days=r.randrange(33_000))
        contacts = [{"kind": "mobile", "phone": f"07700 900{r.randrange(1000):03d}"}]  # Ofcom's numbers for drama
        if r.random() < 0.4:
            contacts.append({"kind": "next of kin", "phone": f"01632 960{r.randrange(1000):03d}"})
        made.append({
            "_id": n + 1,
            "name": f"{r.choice(GIVEN)} {r.choice(FAMILY)}",
            "nhs_number": nhs_number(r),
            "mrn": f"RXH{r.randrange(10**6):06d}",
            "date_of_birth": born,
            "postcode": f"{area}{r.randrange(1, 20)} {r.randrange(1, 10)}{r.choice('ABDEFGHJLN')}{r.choice('PQRSTUWXYZ')}",
            "address": {"line1": f"{r.randrange(1, 200)} {r.choice(STREETS)}", "town": town},
            "contacts": contacts,
            "allergies": r.sample(ALLERGIES, r.choice([1, 1, 2])),
            "notes": r.choice(NOTES),
            "ward": r.choice(["A1", "A2", "B1", "Outpatients"]),
        })
    return made


# --- presentation ---------------------------------------------------------------------------------------------------------


def styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if TTY else text


def heading(text: str) -> None:
    print("\n" + styled(text, "1"))


def flat(document: dict, prefix: str = "") -> dict[str, object]:
    """path → value, arrays of sub-documents spread by index."""
    found = {}
    for key, value in document.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= flat(value, path + ".")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for n, item in enumerate(value):
                found |= flat(item, f"{path}.{n}.")
        else:
            found[path] = value
    return found


def shown(value) -> str:
    if isinstance(value, bson.Binary) and value.subtype == 0x80:
        return f"‹{ALGORITHMS.get(value[1], '?')}› {value[19:].hex()}"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def side_by_side(application: dict, database: dict, event: dict) -> None:
    """Every field three times: as the application gets it, as the database holds it, as the audit log records it."""
    left, right = flat(application), flat(database)
    cut = lambda text, width: text if len(text) <= width else text[: width - 1] + "…"

    def recorded(path: str) -> str:
        field = ".".join(part for part in path.split(".") if not part.isdigit())
        if field not in event["fields"]:
            return ""
        return f"read, as {event['subjects'][0][:12]}…" if field == SUBJECT else "read"

    audit = {path: recorded(path) for path in left}
    names = max(map(len, left)) + 2
    first = min(34, max(len(shown(v)) for v in left.values()) + 2)
    last = max(len("the audit records"), *map(len, audit.values()))
    middle = max(32, min(120, shutil.get_terminal_size((118, 24)).columns) - names - first - last - 2)
    print("  " + styled(f"{'field':<{names}}{'the application sees':<{first}}{'the database holds':<{middle}}{'the audit records':<{last}}", "4"))
    for path, value in left.items():
        stored = right.get(path)
        colour = "36" if isinstance(stored, bson.Binary) else "2"
        print(f"  {path:<{names}}{cut(shown(value), first - 2):<{first}}"
              + styled(f"{cut(shown(stored), middle - 2):<{middle}}", colour) + styled(audit[path], "33"))


# --- the two steps --------------------------------------------------------------------------------------------------------


def connect(address: str, ca: str, user: str | None, **options) -> MongoClient:
    who = f"{user}@" if user else ""
    return MongoClient(f"mongodb://{who}{address}/", tls=True, tlsCAFile=ca, serverSelectionTimeoutMS=10_000,
                       **({"authSource": "admin"} if user else {}), **options)


def prepare(args) -> None:
    deadline = time.monotonic() + 30
    with connect(args.database, args.database_ca, None, directConnection=True) as client:
        while True:
            try:
                client.admin.command("replSetInitiate", {"_id": "demo", "members": [{"_id": 0, "host": args.database}]})
                break
            except PyMongoError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        while not client.admin.command("hello")["isWritablePrimary"]:
            time.sleep(0.05)
        client.admin.command("createUser", "admin", pwd="admin-demo", roles=["root"])
    with connect(args.database, args.database_ca, "admin:admin-demo", directConnection=True) as client:
        client.admin.command("createUser", "app", pwd="app-demo", roles=[{"role": "readWrite", "db": "clinic"}])
        name, password = args.service.split(":")
        client.admin.command("createUser", name, pwd=password, roles=[{"role": "readWrite", "db": "encryption"}, {"role": "read", "db": "clinic"}])


def show(args) -> None:
    app = connect(args.proxy, args.proxy_ca, "app:app-demo", replicaSet="demo", appname="clinic-web")
    database = connect(args.database, args.database_ca, "admin:admin-demo", directConnection=True)
    everyone = patients()
    one = everyone[41]

    heading(f"1. An application writes {COUNT} patients")
    clinic = app.clinic.patients
    clinic.create_index("nhs_number", unique=True)
    start = time.monotonic()
    clinic.insert_many(everyone)
    print(f"  {clinic.count_documents({})} invented patients through the proxy in {(time.monotonic() - start) * 1000:.0f} ms, with pymongo as it is. Their NHS numbers begin with 999: never issued.")

    heading("2. One of them, seen from three sides")
    found = clinic.find_one({"_id": one["_id"]})
    stored = database.clinic.patients.find_one({"_id": one["_id"]})
    if found != one:
        sys.exit("demo: what came back is not what was written")
    if clear := [field for field in PROTECTED if not isinstance(flat(stored)[field], bson.Binary)]:
        sys.exit(f"demo: in the clear in the database: {', '.join(clear)}")
    event = audit_event(args.audit)
    side_by_side(found, stored, event)
    print("\n  The line of the audit log, whose subject is a pseudonym and which holds no value:")
    keys = ["time", "principal", "application", "namespace", "command", "fields", "opened", "documents_out", "subjects", "outcome"]
    line = json.dumps({k: event[k] for k in keys if k in event}, ensure_ascii=False)
    print(textwrap.fill(line, 112, initial_indent="    ", subsequent_indent="    "))
    values = [v for path, v in flat(found).items() if isinstance(v, str) and isinstance(flat(stored).get(path), bson.Binary)]
    if leaked := [v for v in values if v in Path(args.audit).read_text()]:
        sys.exit(f"demo: {len(leaked)} protected value(s) of this patient stand in the audit log")

    heading("3. Searching by NHS number")
    print(f"  > db.patients.findOne({{nhs_number: \"{one['nhs_number']}\"}})")
    hit = clinic.find_one({"nhs_number": one["nhs_number"]})
    plan = app.clinic.command("explain", {"find": "patients", "filter": {"nhs_number": one["nhs_number"]}})
    index = plan["queryPlanner"]["winningPlan"].get("inputStage", {}).get("indexName", "no index")
    print(f"  {hit['name']}, born {hit['date_of_birth']:%-d %B %Y}, ward {hit['ward']}")
    print(styled(f"  The database was asked for {shown(stored['nhs_number'])[:48]}…; explain: index {index}", "2"))

    heading("4. What cannot be done on ciphertext is refused, not answered wrongly")
    print('  > db.patients.find({date_of_birth: {$lt: ISODate("1950-01-01")}})')
    try:
        list(clinic.find({"date_of_birth": {"$lt": datetime.datetime(1950, 1, 1)}}))
        sys.exit("demo: a range over ciphertext was answered; it should have been refused")
    except OperationFailure as e:
        print(textwrap.fill(e.details["errmsg"], 110, initial_indent="  ", subsequent_indent="  "))
    print()
    app.close()
    database.close()


def audit_event(path: str) -> dict:
    """The find above in the audit log, which is written a moment after the reply."""
    for _ in range(50):
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []
        if finds := [e for e in lines if e.get("command") == "find"]:
            return finds[-1]
        time.sleep(0.1)
    sys.exit("demo: the audit log does not have the read of this patient")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["prepare", "show"])
    for name in ("database", "database-ca", "proxy", "proxy-ca", "service", "audit"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    {"prepare": prepare, "show": show}[arguments.step](arguments)
