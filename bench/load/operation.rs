//! The five operations, each as a request that is patched and a reply that is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bson::raw::{RawBsonRef, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use clap::ValueEnum;

use crate::Outcome;
use crate::message::{Reply, Request};
use crate::patient::{Patients, nhs_number, renumber};

/// Documents of a batch, written or read.
pub(crate) const BATCH: usize = 100;

/// What the closed loop does.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// One patient by `_id`.
    FindId,
    /// One patient by an encrypted, indexed field.
    FindNhs,
    /// One new patient.
    Insert,
    /// A hundred new patients in one command.
    InsertBatch,
    /// A hundred patients in one reply.
    FindMany,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] = [
        Self::FindId,
        Self::FindNhs,
        Self::Insert,
        Self::InsertBatch,
        Self::FindMany,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FindId => "find-id",
            Self::FindNhs => "find-nhs",
            Self::Insert => "insert",
            Self::InsertBatch => "insert-batch",
            Self::FindMany => "find-many",
        }
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Insert | Self::InsertBatch)
    }

    /// Documents that one operation moves.
    pub(crate) fn documents(self) -> usize {
        match self {
            Self::FindId | Self::FindNhs | Self::Insert => 1,
            Self::InsertBatch | Self::FindMany => BATCH,
        }
    }
}

/// What one connection does over and over.
pub(crate) struct Worker {
    operation: Operation,
    request: Request,
    /// Where the request is patched: the key searched for, or the start of each new document.
    places: Vec<usize>,
    patients: Arc<Patients>,
    /// Ids of new patients, shared by all connections of a slice.
    fresh: Arc<AtomicUsize>,
    random: u64,
    chosen: usize,
}

impl Worker {
    /// A worker on `collection` of the database `bench`; `number` makes its choices its own.
    pub(crate) fn new(
        operation: Operation,
        collection: &str,
        patients: &Arc<Patients>,
        fresh: &Arc<AtomicUsize>,
        number: usize,
    ) -> Outcome<Self> {
        let (request, places) = template(operation, collection, patients)?;
        Ok(Self {
            operation,
            request,
            places,
            patients: Arc::clone(patients),
            fresh: Arc::clone(fresh),
            random: 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(number as u64 + 1) | 1,
            chosen: 0,
        })
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> &mut Request {
        match self.operation {
            Operation::FindId => {
                self.chosen = self.choose(self.patients.len());
                self.request
                    .patch(self.places[0], &(self.chosen as i64).to_le_bytes());
            }
            Operation::FindMany => {
                self.chosen = self.choose(self.patients.len() - BATCH);
                self.request
                    .patch(self.places[0], &(self.chosen as i64).to_le_bytes());
            }
            Operation::FindNhs => {
                self.chosen = self.choose(self.patients.len());
                self.request
                    .patch(self.places[0], nhs_number(self.chosen).as_bytes());
            }
            Operation::Insert | Operation::InsertBatch => {
                self.chosen = self.fresh.fetch_add(self.places.len(), Ordering::Relaxed);
                for (offset, place) in self.places.iter().enumerate() {
                    renumber(self.request.as_mut_bytes(), *place, self.chosen + offset);
                }
            }
        }
        &mut self.request
    }

    /// Whether `reply` is the whole and right answer to the last request.
    pub(crate) fn check(&self, reply: &Reply<'_>) -> Outcome<()> {
        reply.succeeded()?;
        match self.operation {
            Operation::Insert | Operation::InsertBatch => {
                let written = usize::try_from(reply.body.get_i32("n")?)?;
                if written == self.places.len() {
                    Ok(())
                } else {
                    Err("an insert was not counted whole".into())
                }
            }
            Operation::FindId | Operation::FindNhs | Operation::FindMany => {
                check_batch(reply, &self.patients, self.chosen, self.operation.documents())
            }
        }
    }

    /// Xorshift: cheap, and the same choices for every way to the database.
    fn choose(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % below
    }
}

/// A batch must be patients `first..first + count`, byte for byte.
fn check_batch(reply: &Reply<'_>, patients: &Patients, first: usize, count: usize) -> Outcome<()> {
    let mut seen = 0;
    for value in reply.batch()? {
        let RawBsonRef::Document(document) = value? else {
            return Err("a batch holds no documents".into());
        };
        if document.as_bytes() != patients.bytes(first + seen) {
            let got = Document::try_from(document)?;
            return Err(format!("patient {} came back changed: {got}", first + seen).into());
        }
        seen += 1;
    }
    if seen == count {
        Ok(())
    } else {
        Err(format!("{seen} documents came instead of {count}").into())
    }
}

/// The request with its places to patch. Like a driver's, it carries a logical session id.
fn template(operation: Operation, collection: &str, patients: &Patients) -> Outcome<(Request, Vec<usize>)> {
    const ID: i64 = 0x1122_3344_5566_7788;
    const NUMBER: &str = "9998877665";
    let mut uuid = [0; 16];
    aws_lc_rs::rand::fill(&mut uuid).map_err(|_| "no randomness")?;
    let session = doc! { "id": Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() } };
    let build = |body: Document| Outcome::Ok(Request::command(&RawDocumentBuf::try_from(&body)?));
    let find = |filter: Document, limit: i32| {
        doc! {
            "find": collection, "filter": filter, "limit": limit, "singleBatch": true,
            "lsid": session.clone(), "$db": "bench",
        }
    };
    let insert = |count: usize| {
        let body = doc! { "insert": collection, "ordered": true, "lsid": session.clone(), "$db": "bench" };
        let documents: Vec<&[u8]> = (0..count).map(|index| patients.bytes(index)).collect();
        build(body)?.with_sequence("documents", &documents)
    };
    match operation {
        Operation::FindId => {
            let request = build(find(doc! { "_id": ID }, 1))?;
            let place = request.position_of(&ID.to_le_bytes())?;
            Ok((request, vec![place]))
        }
        Operation::FindMany => {
            let mut body = find(doc! { "_id": { "$gte": ID } }, i32::try_from(BATCH)?);
            body.insert("sort", doc! { "_id": 1 });
            body.insert("batchSize", i32::try_from(BATCH)?);
            let request = build(body)?;
            let place = request.position_of(&ID.to_le_bytes())?;
            Ok((request, vec![place]))
        }
        Operation::FindNhs => {
            let request = build(find(doc! { "nhs_number": NUMBER }, 1))?;
            let place = request.position_of(NUMBER.as_bytes())?;
            Ok((request, vec![place]))
        }
        Operation::Insert => insert(1),
        Operation::InsertBatch => insert(BATCH),
    }
}
