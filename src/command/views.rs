//! Views: what their definitions mean for protected fields. The server runs a view's pipeline before every query on
//! it, so the pipeline is followed once, when the view is found or made, and what it yields is the shape that queries
//! on the view are planned over. A definition is stored: one that compares a protected field with a literal would
//! need that literal sealed, and sealed again with every key, so nothing can be asked of such a view.
//! Source: SEMANTICS B1.6; the server manual on views.

use std::collections::HashSet;
use std::sync::Arc;

use super::CommandView;
use super::aggregate::{self, PipelineContext, Policies};
use super::expression::Variables;
use super::options::has_collation;
use crate::bson::{Doc, kind};
use crate::limits;
use crate::name::{KeyId, Namespace};
use crate::plan::draft::malformed;
use crate::plan::{Catalogue, Draft, Plan};
use crate::policy::found::{Change, Definition, View};
use crate::policy::{CollectionPolicy, FieldMap, FieldRule, Found, Refusal, Shape};

/// An array without items.
const NO_STAGES: [u8; 5] = [5, 0, 0, 0, 0];

/// The field map, and the views beside it.
#[derive(Clone, Copy)]
pub struct Known<'m> {
    /// Collections.
    pub map: &'m FieldMap,
    /// Views.
    pub found: &'m Found,
}

impl Policies for Known<'_> {
    fn policy(&self, db: &str, collection: &str) -> Option<Arc<CollectionPolicy>> {
        match self.found.view(db, collection) {
            Some(View::Open { policy, .. }) => Some(Arc::clone(policy)),
            _ => self.map.lookup(db, collection),
        }
    }
}

/// The definition in a `create` or `collMod`; `None` where it is none.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn definition(view: &CommandView<'_>) -> Result<Option<Definition>, Refusal> {
    let name = view.collection().and_then(|c| Namespace::new(view.db, c));
    let source = view.get("viewOn")?.and_then(|e| e.text());
    let (Some(name), Some(source)) = (name, source) else {
        return Ok(None);
    };
    let pipeline = match view.get("pipeline")? {
        None => NO_STAGES.to_vec(),
        Some(stages) if stages.kind == kind::ARRAY => stages.value().to_vec(),
        Some(_) => return Ok(None),
    };
    Ok(Some(Definition {
        name,
        source: source.to_owned(),
        pipeline,
        collated: has_collation(&view.body, false)?,
    }))
}

/// What a command changes about views, once the server has done it.
pub fn change(view: &CommandView<'_>) -> Option<Change> {
    match view.name {
        "create" | "collMod" => definition(view).ok().flatten().map(Change::View),
        "drop" => Namespace::new(view.db, view.collection()?).map(Change::Dropped),
        "dropDatabase" => Some(Change::Emptied(view.db.into())),
        _ => None,
    }
}

/// What a view means for protected fields; `None` where its documents hold none.
pub fn analyse(definition: &Definition, known: &Known<'_>) -> Option<View> {
    let name = &definition.name;
    let refused = |why: &str| Some(View::Refused(format!("view '{}': {why}", name.as_str()).into()));
    if known.map.lookup(name.db(), name.collection()).is_some() {
        return refused(
            "the field map protects a collection of this name; protect the collection that the view looks at instead",
        );
    }
    let below = names(definition)
        .into_iter()
        .find_map(|named| match known.found.view(name.db(), &named) {
            Some(View::Refused(why)) => Some(why),
            _ => None,
        });
    if let Some(why) = below {
        return refused(why);
    }
    let buckets = definition.source.strip_prefix("system.buckets.");
    if definition.source == "system.profile" && known.map.protects_db(name.db())
        || buckets.is_some_and(|series| known.policy(name.db(), series).is_some())
    {
        return refused(
            "it looks at a collection of the server's own that shows other clients' operations, or holds protected values under other paths",
        );
    }
    let source = known.policy(name.db(), &definition.source);
    let start = source
        .as_ref()
        .map_or(Shape::Plain, |policy| policy.shape.clone());
    let (shape, plan) = match follow(definition, &start, known, 1) {
        Ok(followed) => followed,
        Err(refusal) => return refused(&refusal.text),
    };
    if !plan.ops.is_empty() {
        return refused(
            "its definition compares a protected field with a value; the stored definition would have to change with every key: compare in the queries on the view",
        );
    }
    if shape.is_plain() {
        return None;
    }
    let one_form = match follow(definition, &start, known, 2) {
        Ok(_) => Vec::new(),
        Err(_) => plan.summary.rules.into_iter().map(|(rule, _)| rule).collect(),
    };
    let mut rules = Vec::new();
    collect(&shape, &mut rules);
    if let Some(source) = &source {
        add(&mut rules, &source.rules);
    }
    let subject = source.and_then(|source| source.subject.clone());
    Some(View::Open {
        policy: Arc::new(CollectionPolicy {
            namespace: name.clone(),
            subject,
            rules,
            shape,
        }),
        one_form,
    })
}

/// Judges every view, those that others look at first.
pub fn resolve(definitions: Vec<Definition>, collated: HashSet<Namespace>, map: &FieldMap) -> Found {
    let mut found = Found {
        definitions: Vec::new(),
        views: std::collections::HashMap::new(),
        collated,
    };
    let all: HashSet<&Namespace> = definitions.iter().map(|definition| &definition.name).collect();
    let mut done: HashSet<&Namespace> = HashSet::new();
    let mut open: Vec<&Definition> = definitions.iter().collect();
    while !open.is_empty() {
        let (ready, waiting): (Vec<_>, Vec<_>) = open.into_iter().partition(|definition| {
            names(definition).iter().all(|named| {
                Namespace::new(definition.name.db(), named).is_none_or(|named| {
                    !all.contains(&named) || done.contains(&named) || named == definition.name
                })
            })
        });
        if ready.is_empty() {
            for definition in waiting {
                let why = format!(
                    "view '{}': it looks at itself through others",
                    definition.name.as_str()
                );
                found
                    .views
                    .insert(definition.name.clone(), View::Refused(why.into()));
            }
            break;
        }
        for definition in ready {
            if let Some(view) = analyse(definition, &Known { map, found: &found }) {
                found.views.insert(definition.name.clone(), view);
            }
            done.insert(&definition.name);
        }
        open = waiting;
    }
    found.definitions = definitions;
    found
}

/// Every string of a document, at any depth: each could name a collection.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn strings<'a>(doc: &Doc<'a>, depth: usize, out: &mut Vec<&'a str>) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Ok(());
    }
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        match element.document().map_err(malformed)? {
            Some(inner) => strings(&inner, depth + 1, out)?,
            None => out.extend(element.text()),
        }
    }
    Ok(())
}

/// What a definition may name: its source, and every string of its pipeline.
fn names(definition: &Definition) -> Vec<String> {
    let mut named = Vec::new();
    if let Ok(stages) = Doc::at(&definition.pipeline, 0) {
        // What cannot be read is refused when it is followed.
        drop(strings(&stages, 1, &mut named));
    }
    std::iter::once(definition.source.clone())
        .chain(named.into_iter().map(str::to_owned))
        .collect()
}

/// So many keys can read in every domain.
struct Keys(usize);

impl Catalogue for Keys {
    fn readable(&self, _domain: &str) -> Option<usize> {
        Some(self.0)
    }

    fn has(&self, _id: &KeyId) -> bool {
        true
    }
}

fn follow(
    definition: &Definition,
    start: &Shape,
    known: &Known<'_>,
    keys: usize,
) -> Result<(Shape, Plan), Refusal> {
    let keys = Keys(keys);
    let stages = Doc::at(&definition.pipeline, 0).map_err(malformed)?;
    stages.validate().map_err(malformed)?;
    let ctx = PipelineContext {
        map: known,
        db: definition.name.db(),
        collection: Some(&definition.source),
        variables: Variables::with_collation(definition.collated),
    };
    let mut draft = Draft::new(&definition.pipeline, &keys, None);
    let yielded = aggregate::pipeline(&mut draft, &stages, start.clone(), &ctx)?;
    Ok((yielded, draft.finish()))
}

fn collect(shape: &Shape, rules: &mut Vec<Arc<FieldRule>>) {
    match shape {
        Shape::Sealed(rule) => add(rules, std::slice::from_ref(rule)),
        Shape::Tree(tree) => tree.fields().for_each(|(_, child)| collect(child, rules)),
        Shape::Plain | Shape::Unknown => {}
    }
}

fn add(rules: &mut Vec<Arc<FieldRule>>, more: &[Arc<FieldRule>]) {
    for rule in more {
        if !rules.iter().any(|known| known == rule) {
            rules.push(Arc::clone(rule));
        }
    }
}
