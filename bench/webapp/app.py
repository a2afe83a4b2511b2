"""A small clinic: create a patient, look one up by NHS number, list a page. An ordinary FastAPI and pymongo application
that knows nothing of encryption; only MONGODB_URI says whether a proxy sits in front of its database.
"""

import datetime
import os

import pymongo
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

PAGE = 20

patients = pymongo.MongoClient(os.environ["MONGODB_URI"]).bench[os.environ["COLLECTION"]]
app = FastAPI()


class Address(BaseModel):
    line1: str
    city: str


class Patient(BaseModel):
    nhs_number: str
    mrn: str
    postcode: str
    date_of_birth: datetime.datetime
    notes: str
    address: Address


def shown(document):
    """The document as the API gives it: the fields of a Patient and its id."""
    return {"id": str(document["_id"]), **Patient.model_validate(document).model_dump()}


@app.post("/patients", status_code=201)
def create(patient: Patient):
    result = patients.insert_one(patient.model_dump())
    return {"id": str(result.inserted_id)}


@app.get("/patients/by-nhs-number/{number}")
def look_up(number: str):
    document = patients.find_one({"nhs_number": number})
    if document is None:
        raise HTTPException(404, "no such patient")
    return shown(document)


@app.get("/patients")
def page(after: int = -1):
    found = patients.find({"_id": {"$gt": after}}).sort("_id", 1).limit(PAGE)
    return [shown(document) for document in found]
