//! Plan and keys in, new bytes out. Pure: copies the message through, repairs the lengths it passes, seals and opens
//! where the plan says so. One output buffer, no other allocation per value.

use std::sync::Arc;

use super::op::{Op, Value, Versions};
use super::{Plan, subject};
use crate::bson::kind;
use crate::crypto::envelope::{self, Header};
use crate::crypto::pseudonym::Pseudonymizer;
use crate::crypto::{SealError, Suite};
use crate::keys::{Dek, DomainKeys, KeyRing};
use crate::limits;
use crate::name::KeyId;
use crate::policy::FieldRule;

/// What applying a plan did, for audit and metrics.
#[derive(Debug, Default)]
pub struct Applied {
    /// Opened values by the domain of the key that opened them.
    pub opened: Vec<(Arc<str>, u32)>,
    /// Pseudonyms of the subjects met, without repetition, at most [`limits::MAX_AUDIT_SUBJECTS`].
    pub subjects: Vec<[u8; 16]>,
    /// Subject values met in all, repetitions included.
    pub subjects_met: u32,
}

/// Why a plan could not be applied. None of these may be answered with the unopened bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// A stored ciphertext does not authenticate under its key, or is not a well-formed envelope.
    Broken {
        /// The data key that the envelope names.
        key: Option<KeyId>,
        /// The domain of that key, where it is known.
        domain: Option<Arc<str>>,
    },
    /// A ciphertext of another field stands in this one.
    Moved {
        /// The path that it stands in.
        path: Arc<str>,
        /// The domain that it was sealed in.
        domain: Arc<str>,
    },
    /// The ring does not hold a key that the plan asked for.
    MissingKey,
    /// A key refused to seal: its budget of random nonces is spent.
    Exhausted {
        /// The field's path.
        path: Arc<str>,
    },
    /// The random nonces leased for this key are used up: with more of them it can be applied.
    Lease {
        /// The key.
        key: KeyId,
        /// The algorithm that needs them.
        suite: Suite,
    },
    /// The rewritten message would be larger than the server accepts.
    TooLarge,
    /// The plan does not fit the message: a bug of ours.
    Inconsistent,
}

/// Who is to be recognised while values are opened.
pub struct Subjects<'a> {
    /// The domain of the subject field.
    pub domain: &'a str,
    /// The keyed digest.
    pub pseudonymizer: &'a Pseudonymizer,
}

/// Appends the new message to `out`. The outer length and checksum are the caller's to repair.
///
/// # Errors
/// [`ApplyError`]; what was appended must then be cut off again.
pub fn apply(
    frame: &[u8],
    plan: &Plan,
    ring: &KeyRing,
    subjects: Option<&Subjects<'_>>,
    out: &mut Vec<u8>,
) -> Result<Applied, ApplyError> {
    let base = out.len();
    out.reserve(frame.len() + 64 * plan.ops.len());
    let keys = plan
        .summary
        .rules
        .iter()
        .map(|(rule, _)| ring.domain(&rule.domain))
        .collect();
    let mut run = Run {
        frame,
        plan,
        ring,
        keys,
        subjects,
        out,
        at: 0,
        open: Vec::new(),
        applied: Applied::default(),
    };
    run.seen_subjects();
    for op in &plan.ops {
        run.step(op)?;
    }
    run.copy_to(frame.len())?;
    let Run {
        out, applied, open, ..
    } = run;
    if !open.is_empty() {
        return Err(ApplyError::Inconsistent);
    }
    if out.len() - base > limits::MAX_MESSAGE {
        return Err(ApplyError::TooLarge);
    }
    Ok(applied)
}

struct Run<'a> {
    frame: &'a [u8],
    plan: &'a Plan,
    ring: &'a KeyRing,
    /// Per rule of the plan, resolved once.
    keys: Vec<Option<&'a Arc<DomainKeys>>>,
    subjects: Option<&'a Subjects<'a>>,
    out: &'a mut Vec<u8>,
    /// Everything before this offset of the input has been copied or left out.
    at: usize,
    open: Vec<Frame>,
    applied: Applied,
}

/// A length-prefixed region being written: where its length stands, and how many items it has.
struct Frame {
    start: usize,
    items: u32,
}

impl<'a> Run<'a> {
    #[inline]
    fn step(&mut self, op: &'a Op) -> Result<(), ApplyError> {
        match op {
            Op::Open { at } => {
                self.copy_to(*at as usize + 4)?;
                self.open.push(Frame {
                    start: self.out.len() - 4,
                    items: 0,
                });
                Ok(())
            }
            Op::Close { end } => {
                self.copy_to(*end as usize)?;
                self.repair()
            }
            Op::Drop { from, to } => {
                self.copy_to(*from as usize)?;
                self.skip_to(*to as usize)
            }
            Op::Put { at, bytes } => {
                if (*at as usize) > self.at {
                    self.copy_to(*at as usize)?;
                }
                self.out.extend_from_slice(bytes);
                Ok(())
            }
            Op::Begin => {
                self.open.push(Frame {
                    start: self.out.len(),
                    items: 0,
                });
                self.out.extend_from_slice(&[0; 4]);
                Ok(())
            }
            Op::End => {
                self.out.push(0);
                self.repair()
            }
            Op::Item { value, seal } => self.items(value, *seal),
            Op::PutSealed { key, value, rule } => {
                self.out.push(kind::BINARY);
                self.out.extend_from_slice(key);
                self.out.push(0);
                let dek = self.write_key(*rule)?;
                self.seal(dek, *rule, value)
            }
            Op::Seal {
                from,
                value_at,
                to,
                value,
                rule,
            } => {
                self.copy_to(*from as usize)?;
                self.out.push(kind::BINARY);
                let key = self
                    .frame
                    .get(*from as usize + 1..*value_at as usize)
                    .ok_or(ApplyError::Inconsistent)?;
                self.out.extend_from_slice(key);
                self.skip_to(*to as usize)?;
                let dek = self.write_key(*rule)?;
                self.seal(dek, *rule, value)
            }
            Op::Unseal {
                from,
                value_at,
                to,
                rule,
            } => self.unseal(*from as usize, *value_at as usize, *to as usize, *rule),
        }
    }

    #[inline]
    fn copy_to(&mut self, to: usize) -> Result<(), ApplyError> {
        let bytes = self.frame.get(self.at..to).ok_or(ApplyError::Inconsistent)?;
        self.out.extend_from_slice(bytes);
        self.at = to;
        Ok(())
    }

    fn skip_to(&mut self, to: usize) -> Result<(), ApplyError> {
        if to < self.at || to > self.frame.len() {
            return Err(ApplyError::Inconsistent);
        }
        self.at = to;
        Ok(())
    }

    fn repair(&mut self) -> Result<(), ApplyError> {
        let region = self.open.pop().ok_or(ApplyError::Inconsistent)?;
        let size = self.out.len() - region.start;
        // A document follows a NUL (of its key, or of its section's kind), a section's size follows its kind 1.
        let is_document = region.start.checked_sub(1).and_then(|at| self.out.get(at)) == Some(&0);
        if is_document && size > limits::MAX_BSON {
            return Err(ApplyError::TooLarge);
        }
        let len = i32::try_from(size).map_err(|_| ApplyError::TooLarge)?;
        match self.out.get_mut(region.start..region.start + 4) {
            Some(prefix) => {
                prefix.copy_from_slice(&len.to_le_bytes());
                Ok(())
            }
            None => Err(ApplyError::Inconsistent),
        }
    }

    fn items(&mut self, value: &Value, seal: Option<(u16, Versions)>) -> Result<(), ApplyError> {
        let Some((rule, versions)) = seal else {
            return self.plain_item(value);
        };
        let keys = self.keys_of(rule)?;
        match versions {
            Versions::Write => self.sealed_item(&keys.write, rule, value),
            Versions::Every | Versions::EveryAndPlain => {
                if versions == Versions::EveryAndPlain {
                    self.plain_item(value)?;
                }
                keys.read
                    .iter()
                    .try_for_each(|dek| self.sealed_item(dek, rule, value))
            }
        }
    }

    fn plain_item(&mut self, value: &Value) -> Result<(), ApplyError> {
        self.item_header(value.kind)?;
        self.out.extend_from_slice(value.slice(self.frame));
        Ok(())
    }

    fn sealed_item(&mut self, dek: &Dek, rule: u16, value: &Value) -> Result<(), ApplyError> {
        self.item_header(kind::BINARY)?;
        self.seal(dek, rule, value)
    }

    fn item_header(&mut self, kind: u8) -> Result<(), ApplyError> {
        let region = self.open.last_mut().ok_or(ApplyError::Inconsistent)?;
        let index = region.items;
        region.items += 1;
        self.out.push(kind);
        if index < 10 {
            self.out.push(b'0' + (index % 10) as u8);
        } else {
            self.out.extend_from_slice(index.to_string().as_bytes());
        }
        self.out.push(0);
        Ok(())
    }

    fn keys_of(&self, rule: u16) -> Result<&'a Arc<DomainKeys>, ApplyError> {
        self.keys
            .get(usize::from(rule))
            .copied()
            .flatten()
            .ok_or(ApplyError::MissingKey)
    }

    fn write_key(&self, rule: u16) -> Result<&'a Dek, ApplyError> {
        self.keys_of(rule).map(|keys| &*keys.write)
    }

    fn rule(&self, rule: u16) -> Result<&'a Arc<FieldRule>, ApplyError> {
        self.plan
            .summary
            .rules
            .get(usize::from(rule))
            .map(|(rule, _)| rule)
            .ok_or(ApplyError::Inconsistent)
    }

    /// Emits the value of a binary element: length, subtype, envelope.
    #[inline]
    fn seal(&mut self, dek: &Dek, rule: u16, value: &Value) -> Result<(), ApplyError> {
        let rule = self.rule(rule)?;
        let prefix = self.out.len();
        self.out.extend_from_slice(&[0, 0, 0, 0, rule.suite.subtype()]);
        let payload = self.out.len();
        dek.seal(rule.suite, value.kind, value.slice(self.frame), self.out)
            .map_err(|why| match why {
                SealError::LeaseSpent => ApplyError::Lease {
                    key: dek.id(),
                    suite: rule.suite,
                },
                _ => ApplyError::Exhausted {
                    path: Arc::clone(&rule.path),
                },
            })?;
        let len = i32::try_from(self.out.len() - payload).map_err(|_| ApplyError::TooLarge)?;
        self.out[prefix..prefix + 4].copy_from_slice(&len.to_le_bytes());
        Ok(())
    }

    #[inline]
    fn unseal(
        &mut self,
        from: usize,
        value_at: usize,
        to: usize,
        place: Option<u16>,
    ) -> Result<(), ApplyError> {
        self.copy_to(from)?;
        let kind_at = self.out.len();
        self.copy_to(value_at)?;
        self.skip_to(to)?;
        let subtype = *self.frame.get(value_at + 4).ok_or(ApplyError::Inconsistent)?;
        let payload = self.frame.get(value_at + 5..to).ok_or(ApplyError::Inconsistent)?;
        let Header::Envelope { key, .. } = envelope::header(subtype, payload) else {
            return Err(ApplyError::Broken {
                key: None,
                domain: None,
            });
        };
        let dek = self.ring.by_id(&key).ok_or(ApplyError::MissingKey)?;
        if let Some(place) = place {
            let rule = self.rule(place)?;
            // A key without a domain is a CSFLE driver's own; anything else was moved here from another field.
            if !dek.domain().is_empty() && **dek.domain() != *rule.domain {
                return Err(ApplyError::Moved {
                    path: Arc::clone(&rule.path),
                    domain: Arc::clone(dek.domain()),
                });
            }
        }
        let plain_at = self.out.len();
        let kind = dek
            .open(subtype, payload, self.out)
            .map_err(|_| ApplyError::Broken {
                key: Some(key),
                domain: Some(Arc::clone(dek.domain())),
            })?;
        self.out[kind_at] = kind;
        self.count_opened(dek);
        if let Some(subjects) = self.subjects
            && *subjects.domain == **dek.domain()
        {
            let pseudonym = subject::pseudonym(subjects.pseudonymizer, kind, &self.out[plain_at..]);
            self.note_subject(pseudonym);
        }
        Ok(())
    }

    fn count_opened(&mut self, dek: &Dek) {
        match self
            .applied
            .opened
            .iter_mut()
            .find(|(domain, _)| Arc::ptr_eq(domain, dek.domain()) || **domain == **dek.domain())
        {
            Some((_, n)) => *n += 1,
            None => self.applied.opened.push((Arc::clone(dek.domain()), 1)),
        }
    }

    fn seen_subjects(&mut self) {
        let Some(subjects) = self.subjects else { return };
        for value in &self.plan.summary.subjects {
            let pseudonym = subject::pseudonym(subjects.pseudonymizer, value.kind, value.slice(self.frame));
            self.note_subject(pseudonym);
        }
    }

    fn note_subject(&mut self, pseudonym: [u8; 16]) {
        self.applied.subjects_met += 1;
        let list = &mut self.applied.subjects;
        if list.len() < limits::MAX_AUDIT_SUBJECTS && !list.contains(&pseudonym) {
            list.push(pseudonym);
        }
    }
}
