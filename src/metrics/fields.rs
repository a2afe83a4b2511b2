//! Series of the configured fields. Owns the bound on their number; a namespace or path from the wire never makes one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec};

use super::labels::OTHER;

/// Pairs of namespace and field with series of their own, over the life of the process; the rest is [`OTHER`].
pub const MAX_FIELD_SERIES: usize = 1000;

/// The counters of one configured field.
#[derive(Clone, Debug)]
pub struct FieldSeries {
    /// Values sealed.
    pub sealed: IntCounter,
    /// Values opened.
    pub opened: IntCounter,
    /// Values found unprotected.
    pub plaintext_found: IntCounter,
}

/// The counters of the configured fields.
#[derive(Debug, Default)]
pub struct FieldTable {
    /// Sorted by namespace and path.
    series: Vec<((String, String), FieldSeries)>,
    other: Option<FieldSeries>,
}

impl FieldTable {
    /// The counters of a rule, by the namespace and the path as the configuration spells them; resolve once and keep. What
    /// is not configured shares one series, so asking can never add one.
    pub fn get(&self, namespace: &str, path: &str) -> Option<&FieldSeries> {
        self.series
            .binary_search_by(|((ns, field), _)| (ns.as_str(), field.as_str()).cmp(&(namespace, path)))
            .ok()
            .and_then(|at| self.series.get(at))
            .map(|(_, series)| series)
            .or(self.other.as_ref())
    }
}

pub(super) struct FieldVecs {
    sealed: IntCounterVec,
    opened: IntCounterVec,
    plaintext_found: IntCounterVec,
    /// Pairs that have series: never more than [`MAX_FIELD_SERIES`], also over many reloads.
    known: Mutex<BTreeSet<(String, String)>>,
}

impl FieldVecs {
    pub(super) fn new(sealed: IntCounterVec, opened: IntCounterVec, plaintext_found: IntCounterVec) -> Self {
        Self {
            sealed,
            opened,
            plaintext_found,
            known: Mutex::default(),
        }
    }

    pub(super) fn table(&self, fields: &[(String, String)]) -> FieldTable {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut series = Vec::new();
        for pair in fields.iter().collect::<BTreeSet<_>>() {
            if known.len() < MAX_FIELD_SERIES {
                known.insert(pair.clone());
            }
            if known.contains(pair) {
                series.push((pair.clone(), self.series(&pair.0, &pair.1)));
            }
        }
        FieldTable {
            series,
            other: Some(self.series(OTHER, OTHER)),
        }
    }

    fn series(&self, namespace: &str, field: &str) -> FieldSeries {
        let of = |vec: &IntCounterVec| vec.with_label_values(&[namespace, field]);
        FieldSeries {
            sealed: of(&self.sealed),
            opened: of(&self.opened),
            plaintext_found: of(&self.plaintext_found),
        }
    }
}
