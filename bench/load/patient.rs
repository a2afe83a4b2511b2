//! Made-up patients of about 1 KB: six protected fields, the rest what a record usually carries along.
//! NHS numbers begin with 999, the range that is never given to a person.

use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;
use bson::{DateTime, doc};

use crate::Outcome;

/// Where the digits of `_id` and `nhs_number` begin in every patient: both come first and have a fixed width.
const ID_AT: usize = 4 + 1 + "_id\0".len();
const NHS_NUMBER_AT: usize = ID_AT + 8 + 1 + "nhs_number\0".len() + 4;

/// The protected paths, as fieldveil's map names them, with their rules.
pub(crate) const FIELD_MAP: [(&str, &str); 6] = [
    ("nhs_number", r#"{ mode = "deterministic", type = "string" }"#),
    ("mrn", r#"{ mode = "deterministic", type = "string" }"#),
    ("postcode", r#"{ mode = "deterministic", type = "string" }"#),
    ("date_of_birth", r#"{ mode = "deterministic", type = "date" }"#),
    ("notes", r#"{ mode = "random" }"#),
    ("address.line1", r#"{ mode = "random" }"#),
];

/// Text that occurs in the protected fields of every patient and nowhere else.
pub(crate) const MARKERS: [&str; 5] = ["9990", "MRN-", "LS1 ", "Seen in clinic", "Quarry Mount"];

/// All patients that the reads choose from, as the bytes that were written: `_id` is the position.
pub(crate) struct Patients {
    documents: Vec<RawDocumentBuf>,
}

impl Patients {
    pub(crate) fn new(count: usize) -> Outcome<Self> {
        let documents = (0..count).map(patient).collect::<Outcome<Vec<_>>>()?;
        Ok(Self { documents })
    }

    pub(crate) fn len(&self) -> usize {
        self.documents.len()
    }

    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        self.documents[index % self.documents.len()].as_bytes()
    }
}

pub(crate) fn nhs_number(id: usize) -> String {
    format!("999{:07}", id % 10_000_000)
}

/// Turns the bytes of any patient at `start` of `buffer` into those of patient `id`, without parsing them.
pub(crate) fn renumber(buffer: &mut [u8], start: usize, id: usize) {
    let number = i64::try_from(id).unwrap_or_default().to_le_bytes();
    buffer[start + ID_AT..start + ID_AT + 8].copy_from_slice(&number);
    let at = start + NHS_NUMBER_AT;
    let mut rest = id % 10_000_000;
    for digit in buffer[at + 3..at + 10].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
}

fn patient(id: usize) -> Outcome<RawDocumentBuf> {
    let number = i64::try_from(id)?;
    let born = DateTime::from_millis((number * 86_400_000).rem_euclid(2_500_000_000_000) - 1_000_000_000_000);
    let seen = DateTime::from_millis(1_700_000_000_000 + number * 61_000);
    let notes = format!(
        "Seen in clinic {id:07}. Reports intermittent chest tightness on exertion for three weeks, no syncope, no \
         oedema. Examination unremarkable. Plan: 24 h ECG, lipids, review in six weeks with results."
    );
    let observation = |offset: i64, systolic: i32| {
        doc! {
            "taken": DateTime::from_millis(1_700_000_000_000 + number * 61_000 + offset),
            "systolic": systolic, "diastolic": 81, "pulse": 72, "temperature": 36.8, "spo2": 97,
        }
    };
    let document = doc! {
        "_id": number,
        "nhs_number": nhs_number(id),
        "mrn": format!("MRN-{id:07}"),
        "postcode": format!("LS1 {}AP", id % 10),
        "date_of_birth": born,
        "notes": notes,
        "address": {
            "line1": format!("{} Quarry Mount", id % 300 + 1),
            "city": "Leeds", "county": "West Yorkshire", "country": "GB",
        },
        "practice": { "code": "B86001", "name": "The Street Lane Practice" },
        "status": "active",
        "ward": format!("W{:02}", id % 40),
        "consultant": ObjectId::from_bytes([7; 12]),
        "consents": ["summary-care-record", "research-contact"],
        "flags": { "interpreter": false, "fall_risk": id.is_multiple_of(7), "isolation": false },
        "observations": [observation(0, 128), observation(3_600_000, 131), observation(7_200_000, 126)],
        "created_at": seen,
        "updated_at": seen,
        "version": 3,
    };
    Ok(RawDocumentBuf::try_from(&document)?)
}
