//! The plan while it is being made: commands call it with elements and rules, it records edits, counts and the keys
//! that are wanted. Reads the message, never writes it.

use std::sync::Arc;

use super::canonical::{canonical, offset};
use super::op::{Op, Value, Versions};
use super::{Plan, Summary};
use crate::bson::{Doc, Element, kind};
use crate::limits;
use crate::name::KeyId;
use crate::policy::{FieldRule, FieldState, Reason, Refusal, Shape};

/// What planning may know about keys: how many there are, never the keys.
pub trait Catalogue {
    /// How many keys of a domain can read; `None` where they have not been resolved yet.
    fn readable(&self, domain: &str) -> Option<usize>;
    /// Whether the data key of this id has been resolved.
    fn has(&self, id: &KeyId) -> bool;
}

/// A plan in the making.
pub struct Draft<'a> {
    frame: &'a [u8],
    keys: &'a dyn Catalogue,
    subject: Option<Arc<FieldRule>>,
    plan: Plan,
}

/// Where an open region began; give it back to [`Draft::close`].
#[must_use]
pub struct Region(usize);

impl<'a> Draft<'a> {
    /// A draft over one message. `subject` is the rule whose values are reported as subjects.
    pub fn new(frame: &'a [u8], keys: &'a dyn Catalogue, subject: Option<Arc<FieldRule>>) -> Self {
        let mut plan = Plan::default();
        // Most plans have some twenty edits: one allocation instead of four.
        plan.ops.reserve(32);
        Self {
            frame,
            keys,
            subject,
            plan,
        }
    }

    /// From here on this rule's values are the ones reported as subjects.
    pub fn report_subjects_of(&mut self, subject: Option<Arc<FieldRule>>) {
        self.subject = subject;
    }

    /// The finished plan.
    pub fn finish(self) -> Plan {
        self.plan
    }

    /// The message.
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// A draft over the same message whose edits are thrown away: for looking ahead.
    pub fn scratch(&self) -> Self {
        Self {
            frame: self.frame,
            keys: self.keys,
            subject: None,
            plan: Plan::default(),
        }
    }

    /// How many edits there are so far.
    pub fn edits(&self) -> usize {
        self.plan.ops.len()
    }

    /// Counts documents carried by the message.
    pub fn count_documents(&mut self, n: u32) {
        self.plan.summary.documents = self.plan.summary.documents.saturating_add(n);
    }

    /// Enters a length-prefixed region (document, array or kind-1 section).
    pub fn open(&mut self, at: usize) -> Region {
        let region = Region(self.plan.ops.len());
        self.plan.ops.push(Op::Open { at: offset(at) });
        region
    }

    /// Enters a document or array.
    pub fn open_doc(&mut self, doc: &Doc<'_>) -> Region {
        self.open(doc.start())
    }

    /// Leaves the region; where nothing in it changes, no trace remains.
    pub fn close(&mut self, region: Region, end: usize) {
        if self.plan.ops.len() == region.0 + 1 {
            self.plan.ops.truncate(region.0);
        } else {
            self.plan.ops.push(Op::Close { end: offset(end) });
        }
    }

    /// Leaves an element out.
    pub fn drop_element(&mut self, element: &Element<'_>) {
        self.plan.ops.push(Op::Drop {
            from: offset(element.start),
            to: offset(element.end),
        });
    }

    /// Emits structure of our own at `at`. Must never hold a document's value.
    pub fn put(&mut self, at: usize, bytes: impl Into<Box<[u8]>>) {
        self.plan.ops.push(Op::Put {
            at: offset(at),
            bytes: bytes.into(),
        });
    }

    /// Emits an element header (type and key) of our own at `at`.
    pub fn put_header(&mut self, at: usize, kind: u8, key: &[u8]) {
        self.put(at, [&[kind], key, &[0]].concat());
    }

    /// Starts a document of our own.
    pub fn begin(&mut self) {
        self.plan.ops.push(Op::Begin);
    }

    /// Ends the innermost document of our own.
    pub fn end(&mut self) {
        self.plan.ops.push(Op::End);
    }

    /// Notes that the command touches this rule's field without sealing a value.
    pub fn touch(&mut self, rule: &Arc<FieldRule>) {
        self.rule_index(rule);
    }

    /// Whether equality on this field must look for more than one stored form: several keys can read, or plaintext
    /// may still be stored.
    pub fn is_expanded(&mut self, rule: &Arc<FieldRule>) -> bool {
        let several = match self.keys.readable(&rule.domain) {
            Some(n) => n > 1,
            None => {
                self.want(rule);
                false
            }
        };
        several || rule.state == FieldState::Migrating
    }

    /// The forms that equality looks for.
    pub fn versions(rule: &FieldRule) -> Versions {
        match rule.state {
            FieldState::Migrating => Versions::EveryAndPlain,
            FieldState::Enforced => Versions::Every,
        }
    }

    /// Seals an element's value in place. Null stays as it is.
    ///
    /// # Errors
    /// A [`Refusal`] where the value cannot be sealed under the rule.
    pub fn seal(&mut self, element: &Element<'_>, rule: &Arc<FieldRule>) -> Result<(), Refusal> {
        let Some(value) = canonical(element, rule)? else {
            return Ok(());
        };
        self.note_subject(rule, value);
        let rule = self.count(rule);
        self.plan.ops.push(Op::Seal {
            from: offset(element.start),
            value_at: offset(element.value_at),
            to: offset(element.end),
            value,
            rule,
        });
        Ok(())
    }

    /// Seals an element's value in place; where the rule seals element by element, an array's items one by one.
    ///
    /// # Errors
    /// A [`Refusal`] where a value cannot be sealed under the rule.
    pub fn seal_stored(&mut self, element: &Element<'_>, rule: &Arc<FieldRule>) -> Result<(), Refusal> {
        if element.kind != kind::ARRAY || !rule.seals_elements() {
            return self.seal(element, rule);
        }
        let Some(array) = element.document().map_err(malformed)? else {
            return Ok(());
        };
        self.touch(rule);
        let region = self.open_doc(&array);
        for item in array.elements() {
            let item = item.map_err(malformed)?;
            if item.kind == kind::ARRAY && rule.is_deterministic() {
                return Err(Refusal::new(
                    Reason::Type,
                    format!(
                        "field '{}': an array inside an array cannot be sealed deterministically",
                        rule.path
                    ),
                ));
            }
            self.seal(&item, rule)?;
        }
        self.close(region, array.end());
        Ok(())
    }

    /// Emits array items for one literal of an equality search: sealed in every form that may be stored.
    ///
    /// # Errors
    /// A [`Refusal`] where the value cannot be sealed under the rule.
    pub fn item_forms(&mut self, element: &Element<'_>, rule: &Arc<FieldRule>) -> Result<(), Refusal> {
        match canonical(element, rule)? {
            None => self.item_plain(element),
            Some(value) => {
                self.note_subject(rule, value);
                let index = self.count(rule);
                self.plan.ops.push(Op::Item {
                    value,
                    seal: Some((index, Self::versions(rule))),
                });
            }
        }
        Ok(())
    }

    /// Emits an array item as it is: a value that is never sealed.
    pub fn item_plain(&mut self, element: &Element<'_>) {
        let value = span_of(element);
        self.plan.ops.push(Op::Item { value, seal: None });
    }

    /// Emits an element `key: <sealed value>` of our own.
    pub fn put_sealed(&mut self, key: &[u8], value: Value, rule: &Arc<FieldRule>) {
        let rule = self.count(rule);
        self.plan.ops.push(Op::PutSealed {
            key: key.into(),
            value,
            rule,
        });
    }

    /// Opens the envelope in a binary element; its key is asked for where the ring does not have it. `place` is the
    /// rule of the path that it stands in, where that is known.
    pub fn unseal(&mut self, element: &Element<'_>, key: &KeyId, place: Option<&Arc<FieldRule>>) {
        // Bounded: the rest is asked for in the next round, or none of it is there.
        let missing = &self.plan.missing_keys;
        if !self.keys.has(key)
            && missing.len() < limits::MAX_MISSING_KEYS
            && !missing.iter().any(|(id, _)| id == key)
        {
            self.plan.missing_keys.push((*key, element.key_text().into()));
        }
        let rule = place.map(|rule| self.place(rule));
        self.plan.ops.push(Op::Unseal {
            from: offset(element.start),
            value_at: offset(element.value_at),
            to: offset(element.end),
            rule,
        });
    }

    /// Notes that a projection computes fields.
    pub fn note_computed(&mut self) {
        self.plan.summary.computed = true;
    }

    /// Notes what the documents hold that the command yields.
    pub fn note_yields(&mut self, shape: Shape) {
        self.plan.summary.yields = Some(shape);
    }

    /// Notes that the reply is a plan, whose literals stay sealed.
    pub fn note_explained(&mut self) {
        self.plan.summary.explained = true;
    }

    /// How many values are sealed so far.
    pub fn sealed(&self) -> u32 {
        self.plan.summary.sealed()
    }

    /// Counts plaintext met where an enforced rule allows none.
    pub fn note_plaintext(&mut self, rule: &Arc<FieldRule>) {
        let found = &mut self.plan.summary.plaintext;
        match found.iter_mut().find(|(r, _)| Arc::ptr_eq(r, rule)) {
            Some((_, n)) => *n += 1,
            None => found.push((Arc::clone(rule), 1)),
        }
    }

    fn note_subject(&mut self, rule: &Arc<FieldRule>, value: Value) {
        let is_subject = self
            .subject
            .as_ref()
            .is_some_and(|s| Arc::ptr_eq(s, rule) || s.domain == rule.domain);
        if is_subject {
            self.plan.summary.subjects.push(value);
        }
    }

    fn count(&mut self, rule: &Arc<FieldRule>) -> u16 {
        let index = self.rule_index(rule);
        self.plan.summary.rules[usize::from(index)].1 += 1;
        index
    }

    /// A rule's index, without asking for its keys: opening takes the key that the envelope names.
    fn place(&mut self, rule: &Arc<FieldRule>) -> u16 {
        let rules = &mut self.plan.summary.rules;
        let index = rules
            .iter()
            .position(|(r, _)| Arc::ptr_eq(r, rule))
            .unwrap_or_else(|| {
                rules.push((Arc::clone(rule), 0));
                rules.len() - 1
            });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    fn rule_index(&mut self, rule: &Arc<FieldRule>) -> u16 {
        let rules = &mut self.plan.summary.rules;
        let index = match rules.iter().position(|(r, _)| Arc::ptr_eq(r, rule)) {
            Some(index) => index,
            None => {
                rules.push((Arc::clone(rule), 0));
                let index = rules.len() - 1;
                if self.keys.readable(&rule.domain).is_none() {
                    self.want(rule);
                }
                index
            }
        };
        // A namespace has at most a few thousand rules: the configuration bounds it.
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    fn want(&mut self, rule: &FieldRule) {
        if !self.plan.missing_domains.contains(&rule.domain) {
            self.plan.missing_domains.push(Arc::clone(&rule.domain));
        }
    }
}

impl Summary {
    /// How many values are sealed.
    pub fn sealed(&self) -> u32 {
        self.rules.iter().map(|(_, n)| n).sum()
    }
}

/// The element's value as a span.
pub(crate) fn span_of(element: &Element<'_>) -> Value {
    Value {
        kind: element.kind,
        bytes: super::op::Bytes::Span {
            at: offset(element.value_at),
            end: offset(element.end),
        },
    }
}

/// A malformed document as a refusal with the server's own code.
pub(crate) fn malformed(error: crate::bson::Malformed) -> Refusal {
    Refusal::new(Reason::Malformed, error.to_string())
}
