//! Domains: how one is spelt, and whether the fields that share one could be joined.

use std::collections::HashMap;
use std::sync::Arc;

use super::rules::{Desk, Fault, Judged};
use crate::crypto::suite::Suite;
use crate::policy::model::Mode;

/// Longest domain, in bytes: it is part of a key's alt name and of every ciphertext's associated data.
pub(super) const MAX_DOMAIN: usize = 200;

/// What each domain has been used for so far.
#[derive(Default)]
pub(super) struct Domains {
    deterministic: HashMap<Arc<str>, (Mode, Suite, String)>,
    /// Own domains (`<db>.<collection>.<path>`): `a.b` + `c.d` and `a.b.c` + `d` spell the same.
    own: HashMap<Arc<str>, String>,
}

impl Domains {
    pub(super) fn add(&mut self, desk: &mut Desk<'_>, db: &str, collection: &str, fields: &[Option<Judged>]) {
        for (index, field) in fields.iter().enumerate() {
            let Some(field) = field else { continue };
            let rule = field.rule(db, collection);
            let who = format!("{db}.{collection}: {}", rule.path);
            let at = Some((index, &*rule.path));
            if field.domain.is_none()
                && let Some(other) = self.own.insert(Arc::clone(&rule.domain), who.clone())
                && other != who
            {
                desk.mistake(
                    at,
                    Some("domain"),
                    format!(
                        "its own domain `{}` is spelt like that of {other}, so they would share keys",
                        rule.domain
                    ),
                    "name a domain for one of the two",
                );
            }
            if !rule.is_deterministic() {
                continue;
            }
            let (mode, suite, first) = self
                .deterministic
                .entry(Arc::clone(&rule.domain))
                .or_insert((rule.mode, rule.suite, who));
            if *mode != rule.mode || *suite != rule.suite {
                desk.mistake(
                    at,
                    Some("domain"),
                    format!(
                        "shares the domain `{}` with {first}, but not its type and algorithm: equal values would have \
                         different ciphertexts, and a join would silently find nothing",
                        rule.domain
                    ),
                    "give both the same type and algorithm, or different domains",
                );
            }
        }
    }
}

pub(super) fn domain_fault(domain: &str) -> Option<Fault> {
    let way_out = format!(
        "use letters, digits, `_`, `-` and `.`, beginning with a letter, a digit or `_`, at most {MAX_DOMAIN} bytes"
    );
    if domain.is_empty() {
        return Some(("the domain is empty".to_owned(), way_out));
    }
    if domain.len() > MAX_DOMAIN {
        return Some((format!("the domain is {} bytes long", domain.len()), way_out));
    }
    if domain.starts_with("fieldveil.") {
        return Some((
            "domains that begin with `fieldveil.` are for fieldveil's own keys".to_owned(),
            "choose another name".to_owned(),
        ));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let well_formed = domain.bytes().all(|b| plain(b) || b == b'-' || b == b'.')
        && domain.bytes().next().is_some_and(plain);
    (!well_formed).then(|| ("the domain holds a character that it may not".to_owned(), way_out))
}

/// `<db>.<collection>.<path>`, percent-escaped to the characters a written domain may have, plus `%`; beyond the
/// length limit it ends in a digest of the whole. Both keep different names different.
pub(super) fn own_domain(db: &str, collection: &str, path: &str) -> String {
    use std::fmt::Write as _;
    let mut domain = String::with_capacity(db.len() + collection.len() + path.len() + 2);
    for (index, part) in [db, collection, path].into_iter().enumerate() {
        if index > 0 {
            domain.push('.');
        }
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'*') {
                domain.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(domain, "%{byte:02X}");
            }
        }
    }
    if domain.len() > MAX_DOMAIN {
        use sha2::Digest as _;
        let digest = hex::encode(sha2::Sha256::digest(domain.as_bytes()));
        domain.truncate(MAX_DOMAIN - digest.len() - 1);
        domain.push('%');
        domain.push_str(&digest);
    }
    domain
}
