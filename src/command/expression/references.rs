//! What `$path` and `$$variable` stand for: the shape of what is found there, or a refusal where nothing can be told.

use super::yields::Yield;
use super::{Analyser, shapes};
use crate::command::document;
use crate::policy::{Reason, Refusal, Shape, Target};

impl<'a> Analyser<'_, '_, 'a> {
    /// `$$name`, or a path that starts at one.
    pub(super) fn variable(&mut self, path: &[u8]) -> Result<Yield<'a>, Refusal> {
        let (name, rest) = match path.iter().position(|b| *b == b'.') {
            Some(dot) => (&path[..dot], Some(&path[dot + 1..])),
            None => (path, None),
        };
        if let (b"ROOT" | b"CURRENT", Some(rest)) = (name, rest) {
            self.refuse_removed(rest)?;
        }
        let local = self.locals.iter().rev().find(|(known, _)| **known == *name);
        let base = match (local, name) {
            (Some((_, shape)), _) => shape.clone(),
            (None, b"ROOT") => self.root.clone(),
            (None, b"CURRENT") => self.current.clone(),
            (None, b"REMOVE") => return Ok(Yield::Literal(Vec::new())),
            (None, b"NOW" | b"CLUSTER_TIME" | b"USER_ROLES" | b"DESCEND" | b"PRUNE" | b"KEEP") => {
                Shape::Plain
            }
            (None, _) => self.variables.get(name).cloned().unwrap_or(Shape::Unknown),
        };
        match rest {
            Some(rest) => self.path(&base, rest),
            None => self.found(if base.is_plain() { Shape::Plain } else { base }),
        }
    }

    /// A protected field that an earlier stage removed yields nothing, but what it is compared with would travel in
    /// plaintext.
    pub(super) fn refuse_removed(&self, path: &[u8]) -> Result<(), Refusal> {
        let on_it = |gone: &[u8]| {
            path.strip_prefix(gone)
                .is_some_and(|below| below.is_empty() || below.starts_with(b"."))
        };
        match self.removed.iter().find(|gone| on_it(gone)) {
            Some(gone) => Err(Refusal::new(
                Reason::Stage,
                format!(
                    "an expression uses field '{}', which an earlier stage has removed; use it before that stage, or leave it out",
                    String::from_utf8_lossy(gone)
                ),
            )),
            None => Ok(()),
        }
    }

    /// A path from a value of this shape.
    pub(super) fn path(&mut self, base: &Shape, path: &[u8]) -> Result<Yield<'a>, Refusal> {
        let shape = match shapes::resolve(base, path) {
            Target::Below(rule) => {
                return Err(Refusal::new(
                    Reason::BelowSealed,
                    format!(
                        "an expression path leads into field '{}', which is sealed as one value; the server cannot look inside. Protect the inner fields one by one in the field map instead",
                        rule.path
                    ),
                ));
            }
            target => document::shape_of(&target),
        };
        self.found(shape)
    }

    /// What a value of this shape yields; a sealed one is counted as used.
    pub(super) fn found(&mut self, shape: Shape) -> Result<Yield<'a>, Refusal> {
        if let Shape::Sealed(rule) = &shape {
            self.draft.touch(rule);
        }
        Ok(Yield::Of(shape))
    }
}
