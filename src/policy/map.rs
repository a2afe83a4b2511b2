//! Which namespaces are protected, and how: exact names and patterns, resolved to one policy per actual namespace.
//! Judges the whole field map before anything runs; reads no file and no document.
//!
//! An exact name wins over a pattern. Two patterns that could match one and the same namespace are a mistake, so a
//! lookup never has to choose between them. Never protected, whatever a pattern says: the databases `admin`, `config`
//! and `local`, collections named `system.…`, and the key vault with what lies beside it.

mod domain;
mod leakage;
mod paths;
mod pattern;
mod rules;
mod spec;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use self::domain::Domains;
use self::paths::{judge_paths, judge_subject};
use self::rules::{Desk, Judged, clip};
pub use self::spec::{CollectionSpec, FieldSpec, Mistake};
use super::model::{CollectionPolicy, FieldRule, FieldState};
use super::shape::{Rest, Shape, Tree};
use crate::name::Namespace;

/// Actual namespaces remembered per pattern map; beyond it the memory is emptied and fills again.
const MAX_RESOLVED: usize = 4096;

type ByName = HashMap<Box<str>, HashMap<Box<str>, Arc<CollectionPolicy>>>;

/// The whole field map.
#[derive(Debug, Default)]
pub struct FieldMap {
    exact: ByName,
    patterns: Vec<Pattern>,
    entries: Vec<Entry>,
    vault: Option<Namespace>,
    warnings: Vec<Mistake>,
    /// Policies of the actual namespaces that patterns have matched so far.
    resolved: RwLock<ByName>,
}

/// One `[[collection]]` as configured: what `check`, metrics and documentation show.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The namespace or pattern, as written.
    pub namespace: Arc<str>,
    /// Whether it is a pattern; the rules' own domains are then shown with the pattern in place of the name.
    pub pattern: bool,
    /// The field that says whose record this is.
    pub subject: Option<Arc<FieldRule>>,
    /// Every rule, in the order of the configuration.
    pub rules: Vec<Arc<FieldRule>>,
}

struct Pattern {
    db: Box<str>,
    collection: Box<str>,
    subject: Option<usize>,
    fields: Vec<Judged>,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.db, self.collection)
    }
}

impl FieldMap {
    /// Builds the map, or tells every mistake in it.
    pub fn build(specs: Vec<CollectionSpec>) -> Result<Self, Vec<Mistake>> {
        Self::build_beside(specs, None)
    }

    /// Builds the map beside this key vault, which cannot be protected itself: that its own documents can be read
    /// is what everything else depends on.
    pub fn build_beside(specs: Vec<CollectionSpec>, vault: Option<Namespace>) -> Result<Self, Vec<Mistake>> {
        let mut map = Self {
            vault,
            ..Self::default()
        };
        let mut mistakes = Vec::new();
        let mut warnings = Vec::new();
        let mut seen = HashSet::new();
        let mut domains = Domains::default();
        for (index, spec) in specs.iter().enumerate() {
            let shown = clip(&spec.namespace);
            let mut desk = Desk {
                collection: index,
                namespace: &shown,
                mistakes: &mut mistakes,
                warnings: &mut warnings,
            };
            map.add(&mut desk, spec, &mut seen, &mut domains);
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        map.warnings = warnings;
        Ok(map)
    }

    /// The policy of a namespace; `None` where nothing in it is protected. Allocates nothing for exact names and for
    /// pattern matches that have been looked up before.
    pub fn lookup(&self, db: &str, collection: &str) -> Option<Arc<CollectionPolicy>> {
        if let Some(policy) = find(&self.exact, db, collection) {
            return Some(policy);
        }
        let pattern = self.pattern_for(db, collection)?;
        {
            let resolved = self.resolved.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(policy) = find(&resolved, db, collection) {
                return Some(policy);
            }
        }
        let policy = Arc::new(pattern.policy(Namespace::new(db, collection)?));
        let mut resolved = self.resolved.write().unwrap_or_else(PoisonError::into_inner);
        if resolved.values().map(HashMap::len).sum::<usize>() >= MAX_RESOLVED {
            resolved.clear();
        }
        // Another thread may have been first: keep its policy, so that all hold the same one.
        let kept = resolved
            .entry(db.into())
            .or_default()
            .entry(collection.into())
            .or_insert(policy);
        Some(Arc::clone(kept))
    }

    /// Whether nothing at all is protected.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether some collection of this database is, or could be, protected.
    pub fn protects_db(&self, db: &str) -> bool {
        self.exact.contains_key(db)
            || (!is_system_db(db) && self.patterns.iter().any(|p| pattern::matches(&p.db, db)))
    }

    /// The policies of exact names, in no particular order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CollectionPolicy>> {
        self.exact.values().flat_map(HashMap::values)
    }

    /// Every `[[collection]]`, in the order of the configuration.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Every rule with its namespace or pattern as written: a closed set, so it can label metrics.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &Arc<FieldRule>)> {
        self.entries
            .iter()
            .flat_map(|entry| entry.rules.iter().map(|rule| (&*entry.namespace, rule)))
    }

    /// What works but may not be wise, such as deterministic encryption of a value with few possibilities.
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }

    fn pattern_for(&self, db: &str, collection: &str) -> Option<&Pattern> {
        let found = self
            .patterns
            .iter()
            .find(|p| pattern::matches(&p.db, db) && pattern::matches(&p.collection, collection))?;
        self.reserved(db, collection).is_none().then_some(found)
    }

    /// Why this namespace can never be protected.
    fn reserved(&self, db: &str, collection: &str) -> Option<&'static str> {
        if is_system_db(db) {
            return Some("the databases `admin`, `config` and `local` are the server's own");
        }
        if collection.starts_with("system.") {
            return Some("collections named `system.…` are the server's own");
        }
        let vault = self.vault.as_ref()?;
        // What fieldveil keeps beside the keys is named after the vault.
        let beside = collection
            .strip_prefix(vault.collection())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        (db == vault.db() && beside)
            .then_some("the key vault cannot be sealed with keys that it holds itself")
    }

    fn add(
        &mut self,
        desk: &mut Desk<'_>,
        spec: &CollectionSpec,
        seen: &mut HashSet<String>,
        domains: &mut Domains,
    ) {
        let before = desk.mistakes.len();
        let namespace = self.judge_namespace(desk, &spec.namespace, seen);
        if spec.fields.is_empty() {
            desk.mistake(
                None,
                None,
                "names no field, so nothing in it would be protected",
                "list its fields under [collection.fields], or take the collection out",
            );
        }
        let default_state = spec.state.unwrap_or(FieldState::Enforced);
        let fields: Vec<Option<Judged>> = spec
            .fields
            .iter()
            .enumerate()
            .map(|(index, field)| rules::judge(desk, index, field, default_state))
            .collect();
        judge_paths(desk, spec);
        let subject = judge_subject(desk, spec);
        if let Some((db, collection)) = namespace {
            domains.add(desk, db, collection, &fields);
        }
        if desk.mistakes.len() > before {
            return;
        }
        if let Some((db, collection)) = namespace {
            self.insert(db, collection, subject, fields.into_iter().flatten().collect());
        }
    }

    fn insert(&mut self, db: &str, collection: &str, subject: Option<usize>, fields: Vec<Judged>) {
        let found = Pattern {
            db: db.into(),
            collection: collection.into(),
            subject,
            fields,
        };
        let is_pattern = pattern::is_pattern(db) || pattern::is_pattern(collection);
        let (subject, rules) = found.rules(db, collection);
        self.entries.push(Entry {
            namespace: format!("{db}.{collection}").into(),
            pattern: is_pattern,
            subject,
            rules,
        });
        if is_pattern {
            self.patterns.push(found);
        } else if let Some(namespace) = Namespace::new(db, collection) {
            let policy = Arc::new(found.policy(namespace));
            self.exact
                .entry(db.into())
                .or_default()
                .insert(collection.into(), policy);
        }
    }

    fn judge_namespace<'a>(
        &self,
        desk: &mut Desk<'_>,
        text: &'a str,
        seen: &mut HashSet<String>,
    ) -> Option<(&'a str, &'a str)> {
        let key = Some("namespace");
        let Some((db, collection)) = text.split_once('.').filter(|(db, c)| well_formed(db, c)) else {
            desk.mistake(
                None,
                key,
                format!("`{}` is not the name of a collection", clip(text)),
                "write database.collection, such as \"clinic.patients\", or a pattern such as \"tenant_*.patients\"",
            );
            return None;
        };
        if let Some(reason) = self.reserved(db, collection) {
            desk.mistake(
                None,
                key,
                format!("cannot be protected: {reason}"),
                "protect collections of the application's own",
            );
            return None;
        }
        if !seen.insert(text.to_owned()) {
            desk.mistake(
                None,
                key,
                "appears twice",
                "put all its fields under one [[collection]]",
            );
            return None;
        }
        let rivals = self.patterns.iter().find(|p| {
            (pattern::is_pattern(db) || pattern::is_pattern(collection))
                && pattern::overlap(&p.db, db)
                && pattern::overlap(&p.collection, collection)
        });
        if let Some(rival) = rivals {
            desk.mistake(
                None,
                key,
                format!("some collection would match both this and `{rival:?}`, with no telling which rules hold"),
                "make the two patterns exclusive, or name that collection exactly (an exact name wins over a pattern)",
            );
            return None;
        }
        Some((db, collection))
    }
}

impl Pattern {
    fn rules(&self, db: &str, collection: &str) -> (Option<Arc<FieldRule>>, Vec<Arc<FieldRule>>) {
        let rules: Vec<_> = self
            .fields
            .iter()
            .map(|field| Arc::new(field.rule(db, collection)))
            .collect();
        let subject = self.subject.and_then(|index| rules.get(index).cloned());
        (subject, rules)
    }

    fn policy(&self, namespace: Namespace) -> CollectionPolicy {
        let (subject, rules) = self.rules(namespace.db(), namespace.collection());
        let paths: Vec<_> = rules.iter().map(|rule| (rule.path.as_bytes(), rule)).collect();
        CollectionPolicy {
            shape: shape(&paths),
            namespace,
            subject,
            rules,
        }
    }
}

/// A path, and the rule of what it leads to.
type Placed<'a> = (&'a [u8], &'a Arc<FieldRule>);

/// The tree of these paths; each is relative to the same document, and none is a prefix of another.
fn shape(paths: &[Placed<'_>]) -> Shape {
    let mut heads: Vec<&[u8]> = Vec::new();
    let mut below: HashMap<&[u8], Vec<Placed<'_>>> = HashMap::new();
    let mut tree = Tree::new(Rest::Plain, []);
    for (path, rule) in paths {
        match path.iter().position(|byte| *byte == b'.') {
            None => tree.set(path, Shape::Sealed(Arc::clone(rule))),
            Some(dot) => {
                let (head, rest) = (&path[..dot], &path[dot + 1..]);
                let group = below.entry(head).or_insert_with(|| {
                    heads.push(head);
                    Vec::new()
                });
                group.push((rest, rule));
            }
        }
    }
    for head in heads {
        if let Some(group) = below.get(head) {
            tree.set(head, shape(group));
        }
    }
    Shape::Tree(Arc::new(tree))
}

fn find(names: &ByName, db: &str, collection: &str) -> Option<Arc<CollectionPolicy>> {
    names.get(db)?.get(collection).cloned()
}

fn is_system_db(db: &str) -> bool {
    matches!(db, "admin" | "config" | "local")
}

fn well_formed(db: &str, collection: &str) -> bool {
    !db.is_empty()
        && db.len() <= 63
        && !db.contains(['/', '\\', ' ', '"', '$', '\0'])
        && !collection.is_empty()
        && !collection.contains(['$', '\0'])
        && !collection.starts_with('.')
        && !collection.ends_with('.')
        && db.len() + 1 + collection.len() <= 255
}
