//! The server's statistics among other documents of a batch. Owns how a document of `$indexStats`, `$collStats`,
//! `$planCacheStats` or `$currentOp` looks, so that an application's own is not taken for one.
//!
//! Source: what MongoDB 6.0 answers. Routers add `shard`; later versions add to what stands here, and call `queryHash`
//! `planCacheShapeHash`.

use crate::bson::{Doc, Element, Malformed, kind};

/// Whether a document looks like one that a stage made which names the server.
pub(super) fn is_statistics(doc: &Doc<'_>) -> Result<bool, Malformed> {
    let mut seen = Seen::default();
    for element in doc.elements() {
        seen.note(&element?)?;
    }
    Ok(seen.is_statistics())
}

#[derive(Default)]
struct Seen {
    ns: bool,
    time: bool,
    /// Something that `$collStats` counts.
    counts: bool,
    /// Something that an empty `$collStats` has not.
    more: bool,
    accesses: bool,
    plan: bool,
    shape: bool,
    is_operation: bool,
    operation_time: bool,
    active: bool,
}

impl Seen {
    fn note(&mut self, element: &Element<'_>) -> Result<(), Malformed> {
        let is_text = element.kind == kind::STRING;
        let is_doc = element.kind == kind::DOCUMENT;
        match element.key {
            b"ns" => self.ns = is_text,
            b"localTime" => self.time = element.kind == kind::DATE,
            b"host" | b"shard" => {}
            b"count" => self.counts = element.integer().is_some(),
            b"latencyStats" | b"storageStats" | b"queryExecStats" | b"operationStats" => {
                self.counts |= is_doc
            }
            b"accesses" if is_doc => {
                let Some(inner) = element.document()? else {
                    return Ok(());
                };
                self.accesses = inner.get(b"ops")?.is_some() && inner.get(b"since")?.is_some();
                self.more = true;
            }
            key => {
                self.more = true;
                match key {
                    b"planCacheKey" => self.plan = is_text,
                    b"queryHash" | b"planCacheShapeHash" => self.shape |= is_text,
                    b"type" => self.is_operation = is_text,
                    b"currentOpTime" => self.operation_time = is_text,
                    b"active" => self.active = element.kind == kind::BOOL,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn is_statistics(&self) -> bool {
        self.ns && self.time && (self.counts || !self.more)
            || self.accesses
            || self.plan && self.shape
            || self.is_operation && self.operation_time && self.active
    }
}

#[cfg(test)]
mod tests {
    use ::bson::{DateTime, Document, doc};

    use super::*;

    fn is(doc: &Document) -> bool {
        let bytes = ::bson::serialize_to_vec(doc).unwrap();
        is_statistics(&Doc::at(&bytes, 0).unwrap()).unwrap()
    }

    #[test]
    fn knows_the_servers_own() {
        let now = DateTime::from_millis(1);
        for doc in [
            doc! { "name": "_id_", "key": { "_id": 1 }, "host": "h:1", "accesses": { "ops": 3_i64, "since": now }, "spec": { "v": 2 } },
            doc! { "ns": "c.p", "host": "h:1", "localTime": now },
            doc! { "ns": "c.p", "shard": "s", "host": "h:1", "localTime": now, "count": 2 },
            doc! { "ns": "c.p", "host": "h:1", "localTime": now, "latencyStats": { "reads": {} } },
            doc! { "ns": "c.p", "host": "h:1", "localTime": now, "storageStats": {}, "count": 2 },
            doc! { "ns": "c.p", "host": "h:1", "localTime": now, "queryExecStats": {} },
            doc! { "version": "1", "queryHash": "4513C3C6", "planCacheKey": "9540DA41", "isActive": true, "host": "h:1" },
            doc! { "type": "op", "host": "h:1", "desc": "conn1", "active": true, "currentOpTime": "2026-01-01", "ns": "c.p" },
        ] {
            assert!(is(&doc), "{doc}");
        }
    }

    #[test]
    fn leaves_an_applications_documents() {
        let now = DateTime::from_millis(1);
        for doc in [
            doc! { "host": "h:1", "accesses": 5 },
            doc! { "host": "h:1", "accesses": { "ops": 5 } },
            doc! { "host": "h:1", "accesses": [{ "ops": 5, "since": now }] },
            doc! { "host": "h:1", "planCacheKey": "x" },
            doc! { "host": "h:1", "planCacheKey": 1, "queryHash": 2 },
            doc! { "host": "h:1", "ns": "a", "localTime": now, "visit": 1 },
            doc! { "host": "h:1", "ns": "a", "localTime": "10:30" },
            doc! { "host": "h:1", "ns": 5, "localTime": now, "count": 1 },
            doc! { "host": "h:1", "ns": "a", "localTime": now, "count": "many", "visit": 1 },
            doc! { "host": "h:1", "type": "a", "active": true },
            doc! { "host": "h:1" },
        ] {
            assert!(!is(&doc), "{doc}");
        }
    }
}
