//! Judges one field's spec: every reason why it could not be kept as promised is a mistake, told with its way out.
//! What only the whole map shows (shared domains, overlapping patterns) is judged in the parent.

use std::sync::Arc;

use super::domain::{domain_fault, own_domain};
use super::leakage::leakage;
use super::spec::{FieldSpec, Mistake};
use crate::crypto::suite::Suite;
use crate::limits;
use crate::policy::model::{DeclaredType, FieldRule, FieldState, Mode};

/// A field that passed: its rule, whose domain is still to be filled in where it is the namespace's own.
pub(super) struct Judged {
    pub(super) path: Arc<str>,
    pub(super) mode: Mode,
    pub(super) suite: Suite,
    pub(super) domain: Option<Arc<str>>,
    pub(super) state: FieldState,
    pub(super) each: bool,
}

impl Judged {
    /// The rule of this field in this namespace.
    pub(super) fn rule(&self, db: &str, collection: &str) -> FieldRule {
        FieldRule {
            path: Arc::clone(&self.path),
            mode: self.mode,
            suite: self.suite,
            domain: match &self.domain {
                Some(shared) => Arc::clone(shared),
                None => own_domain(db, collection, &self.path).into(),
            },
            state: self.state,
            each: self.each,
        }
    }
}

/// Where a mistake is going to be filed.
pub(super) struct Desk<'a> {
    pub(super) collection: usize,
    pub(super) namespace: &'a str,
    pub(super) mistakes: &'a mut Vec<Mistake>,
    pub(super) warnings: &'a mut Vec<Mistake>,
}

impl Desk<'_> {
    pub(super) fn mistake(
        &mut self,
        field: Option<(usize, &str)>,
        key: Option<&'static str>,
        reason: impl Into<String>,
        way_out: impl Into<String>,
    ) {
        let mistake = self.entry(field, key, reason.into(), way_out.into());
        self.mistakes.push(mistake);
    }

    pub(super) fn warning(&mut self, field: (usize, &str), reason: String, way_out: &str) {
        let warning = self.entry(Some(field), None, reason, way_out.to_owned());
        self.warnings.push(warning);
    }

    fn entry(
        &self,
        field: Option<(usize, &str)>,
        key: Option<&'static str>,
        reason: String,
        way_out: String,
    ) -> Mistake {
        Mistake {
            collection: self.collection,
            field: field.map(|(index, _)| index),
            key,
            subject: match field {
                Some((_, path)) => format!("{}: {path}", self.namespace),
                None => self.namespace.to_owned(),
            },
            reason,
            way_out,
        }
    }
}

/// Judges one field; `None` where it has a mistake (all of them are on the desk then).
pub(super) fn judge(
    desk: &mut Desk<'_>,
    index: usize,
    spec: &FieldSpec,
    default_state: FieldState,
) -> Option<Judged> {
    let before = desk.mistakes.len();
    let at = Some((index, spec.path.as_str()));
    if let Err((reason, way_out)) = check_path(&spec.path) {
        desk.mistake(at, None, reason, way_out);
    }
    if let Some((reason, way_out)) = spec.domain.as_deref().and_then(domain_fault) {
        desk.mistake(at, Some("domain"), reason, way_out);
    }
    let resolved = match spec.mode.as_str() {
        "deterministic" => deterministic(desk, index, spec),
        "random" => random(desk, index, spec),
        "" => {
            desk.mistake(
                at,
                Some("mode"),
                "has no mode",
                "write mode = \"deterministic\" (searchable by equality) or mode = \"random\"",
            );
            None
        }
        other => {
            desk.mistake(
                at,
                Some("mode"),
                format!("`{}` is not a mode", clip(other)),
                "write mode = \"deterministic\" (searchable by equality) or mode = \"random\"",
            );
            None
        }
    };
    let (mode, suite) = resolved?;
    if desk.mistakes.len() > before {
        return None;
    }
    Some(Judged {
        path: spec.path.as_str().into(),
        mode,
        suite,
        domain: spec.domain.as_deref().map(Arc::from),
        state: spec.state.unwrap_or(default_state),
        each: spec.each,
    })
}

fn deterministic(desk: &mut Desk<'_>, index: usize, spec: &FieldSpec) -> Option<(Mode, Suite)> {
    let at = (index, spec.path.as_str());
    if spec.each {
        desk.mistake(
            Some(at),
            Some("each"),
            "`each` is for random fields: a deterministic field seals each element of an array already",
            "leave `each` out",
        );
    }
    let suite = match spec.algorithm.as_deref() {
        None | Some("aes-256-siv") => Some(Suite::Aes256Siv),
        Some("csfle" | "aead-aes-256-cbc-hmac-sha-512" | "aead-aes-256-cbc-hmac-sha-512-deterministic") => {
            Some(Suite::CsfleDeterministic)
        }
        Some(other) => {
            let reason = if is_random_algorithm(other) {
                format!("`{other}` gives a different ciphertext each time, so equality could never be found")
            } else {
                format!("`{}` is not an algorithm for a deterministic field", clip(other))
            };
            desk.mistake(
                Some(at),
                Some("algorithm"),
                reason,
                "write algorithm = \"aes-256-siv\" (the default), or \"aead-aes-256-cbc-hmac-sha-512\" to share data \
                 with CSFLE drivers",
            );
            None
        }
    };
    let declared = declared_type(desk, at, spec.declared.as_deref());
    if let Some(declared) = declared {
        leakage(desk, at, declared, spec.accept_leakage.as_deref());
    }
    Some((Mode::Deterministic(declared?), suite?))
}

fn declared_type(desk: &mut Desk<'_>, at: (usize, &str), name: Option<&str>) -> Option<DeclaredType> {
    let Some(name) = name else {
        desk.mistake(
            Some(at),
            Some("type"),
            "a deterministic field needs its `type`: equal values must have one stored form, so that equality finds them",
            "add type = \"string\" (or int, long, date, objectId, binData)",
        );
        return None;
    };
    if let Some(declared) = DeclaredType::from_name(name) {
        return Some(declared);
    }
    let (reason, way_out) = match name {
        "double" | "decimal" => (
            format!(
                "a deterministic {name} is not possible: equal numbers have several encodings, so equality would miss some"
            ),
            "use mode = \"random\", or store the number as long, or as a string in one fixed form",
        ),
        "bool" => (
            "a deterministic bool is not possible: two ciphertexts are no secret".to_owned(),
            "use mode = \"random\"",
        ),
        "object" | "array" => (
            format!(
                "a deterministic {name} is not possible: equality of whole {name}s depends on the order of what is in them"
            ),
            "use mode = \"random\" for the whole, or name the fields inside it (\"contacts.phone\")",
        ),
        other => (
            format!(
                "`{}` is not a type that a deterministic field can have",
                clip(other)
            ),
            "write one of string, int, long, date, objectId, binData",
        ),
    };
    desk.mistake(Some(at), Some("type"), reason, way_out);
    None
}

fn random(desk: &mut Desk<'_>, index: usize, spec: &FieldSpec) -> Option<(Mode, Suite)> {
    let at = Some((index, spec.path.as_str()));
    if spec.declared.is_some() {
        desk.mistake(
            at,
            Some("type"),
            "a random field takes a value of any type, so a `type` would promise a check that is not made",
            "leave `type` out, or write mode = \"deterministic\"",
        );
    }
    if spec.accept_leakage.is_some() {
        desk.mistake(
            at,
            Some("accept_leakage"),
            "a random field shows no equality, so there is nothing to accept",
            "leave `accept_leakage` out",
        );
    }
    let suite = match spec.algorithm.as_deref() {
        None | Some("aes-256-gcm") => Suite::Aes256Gcm,
        Some("chacha20-poly1305") => Suite::ChaCha20Poly1305,
        Some("aes-256-cbc-hmac-sha-256") => Suite::Aes256CbcHmacSha256,
        Some("csfle" | "aead-aes-256-cbc-hmac-sha-512" | "aead-aes-256-cbc-hmac-sha-512-random") => {
            Suite::CsfleRandom
        }
        Some(other) => {
            let reason = if other == "aes-256-siv" {
                "`aes-256-siv` gives equal ciphertexts for equal values, which a random field must not"
                    .to_owned()
            } else {
                format!("`{}` is not an algorithm for a random field", clip(other))
            };
            desk.mistake(
                at,
                Some("algorithm"),
                reason,
                "write one of aes-256-gcm (the default), chacha20-poly1305, aes-256-cbc-hmac-sha-256, or \
                 aead-aes-256-cbc-hmac-sha-512 to share data with CSFLE drivers",
            );
            return None;
        }
    };
    Some((Mode::Random, suite))
}

fn is_random_algorithm(name: &str) -> bool {
    matches!(
        name,
        "aes-256-gcm"
            | "chacha20-poly1305"
            | "aes-256-cbc-hmac-sha-256"
            | "aead-aes-256-cbc-hmac-sha-512-random"
    )
}

/// What is wrong, and the way out.
pub(super) type Fault = (String, String);

fn check_path(path: &str) -> Result<(), Fault> {
    let fault = |reason: &str, way_out: &str| Err((reason.to_owned(), way_out.to_owned()));
    if path.is_empty() {
        return fault(
            "the field has no name",
            "write the field's path, such as \"notes\" or \"contacts.phone\"",
        );
    }
    if path.contains('\0') {
        return fault("the path holds a NUL", "no field name can hold one: take it out");
    }
    let components = path.split('.');
    if components.clone().count() >= limits::MAX_DEPTH {
        return fault(
            "the path is deeper than any document can be",
            "the server allows 200 levels",
        );
    }
    if path == "_id" || path.starts_with("_id.") {
        return fault(
            "`_id` cannot be protected: it is the document's address, in every index, log and shard key",
            "keep identifying data out of `_id`, in a field of its own",
        );
    }
    for component in components {
        if component.is_empty() {
            return fault(
                "the path has an empty component",
                "write names joined by single dots",
            );
        }
        if component.starts_with('$') {
            return fault(
                "a component begins with `$`, which MongoDB keeps for operators",
                "write the path as it is in the document, without positions: \"contacts.phone\"",
            );
        }
        if component.bytes().all(|b| b.is_ascii_digit()) {
            return fault(
                "a component is a number, which may be an index into an array or a key",
                "leave the index out: a path goes through arrays by itself (\"contacts.phone\")",
            );
        }
    }
    Ok(())
}

/// At most the first 40 characters of what somebody wrote.
pub(super) fn clip(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(40).collect();
    if chars.next().is_some() {
        head + "…"
    } else {
        head
    }
}
