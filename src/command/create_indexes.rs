//! `createIndexes`: an index on a protected field is accepted where it works on ciphertext, refused where it never
//! could. Source: SEMANTICS B4.

use super::operators::{Fit, IndexKind};
use super::options::{has_collation, pass};
use super::{CommandView, Scope};
use crate::bson::{Doc, Element, kind};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Shape, Target};

const OWN: &[&str] = &["commitQuorum", "ignoreUnknownIndexOptions"];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the index type.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(shape) = scope.shape() else { return Ok(()) };
    view.each_field(draft, |draft, field| match field.key() {
        b"indexes" => field.each_document(draft, |_, index| one(&index, shape)),
        _ => pass(draft, view, field, OWN),
    })
}

fn one(index: &Doc<'_>, shape: &Shape) -> Result<(), Refusal> {
    let get = |key: &[u8]| index.get(key).map_err(malformed);
    // In the order in which they are named in a refusal.
    let mut options = Vec::new();
    if get(b"expireAfterSeconds")?.is_some() {
        options.push(IndexKind::Expiring);
    }
    if get(b"unique")?.is_some_and(|e| e.truthy()) {
        options.push(IndexKind::Unique);
    }
    if has_collation(index, false)? {
        options.push(IndexKind::Collated);
    }
    for option in [&b"sparse"[..], b"hidden"] {
        if get(option)?.is_some_and(|e| e.truthy()) {
            options.push(IndexKind::Sparse);
        }
    }
    if let Some(element) = get(b"key")?
        && let Some(keys) = element.document().map_err(malformed)?
    {
        for key in keys.elements() {
            part(&key.map_err(malformed)?, shape, &options)?;
        }
    }
    if let Some(element) = get(b"partialFilterExpression")?
        && let Some(doc) = element.document().map_err(malformed)?
    {
        partial(&doc, shape, 1)?;
    }
    // A text index takes in every field that has a weight.
    if let Some(element) = get(b"weights")?
        && let Some(weights) = element.document().map_err(malformed)?
    {
        for weight in weights.elements() {
            refuse_text(&weight.map_err(malformed)?, shape)?;
        }
    }
    if let Some(path) = get(b"language_override")?.and_then(|e| e.text())
        && !matches!(shape.resolve(path.as_bytes()), Target::Plain)
    {
        return Err(refused(
            path,
            "the server would read a text's language from it; name a field that is not protected in language_override",
        ));
    }
    Ok(())
}

/// One field of an index's key, in an index of these kinds.
fn part(key: &Element<'_>, shape: &Shape, options: &[IndexKind]) -> Result<(), Refusal> {
    // `$**` and `a.$**` take in whatever is there; ciphertext is indexed as any other binary.
    let everything = key.key == b"$**" || key.key.ends_with(b".$**");
    let target = match key.key.strip_suffix(b"$**") {
        Some(b"") => Target::Plain,
        Some(prefix) => shape.resolve(prefix.strip_suffix(b".").unwrap_or(prefix)),
        None => shape.resolve(key.key),
    };
    let own = match key.text() {
        Some("text") => return refuse_text(key, shape),
        Some("hashed") => IndexKind::Hashed,
        Some("2d") => IndexKind::Flat,
        Some(_) => IndexKind::Sphere,
        // Under a sealed value there is nothing but that value.
        None if everything && !matches!(target, Target::Sealed(_)) => IndexKind::Wildcard,
        None => IndexKind::Ordered,
    };
    let refusing = options
        .iter()
        .chain([&own])
        .find(|kind| kind.at(&target) == Fit::No);
    match refusing {
        Some(kind) => Err(refused(&key.key_text(), &why(*kind, key, &target))),
        None => Ok(()),
    }
}

/// Why an index of this kind cannot work on what its key leads to.
fn why(kind: IndexKind, key: &Element<'_>, target: &Target) -> String {
    match (kind, target) {
        (IndexKind::Expiring, _) => "a TTL index (expireAfterSeconds) never expires a sealed value, it is no date to the server; keep the expiry date in a field of its own".to_owned(),
        (IndexKind::Flat | IndexKind::Sphere, _) => format!(
            "a '{}' index cannot work on sealed values; index a field that is not protected",
            key.text().unwrap_or_default()
        ),
        (_, Target::Below(rule)) => format!(
            "field '{}' is sealed as one value; the server cannot look inside",
            rule.path
        ),
        (IndexKind::Unique, Target::Sealed(rule)) => format!(
            "field '{}' is sealed with a random algorithm, so equal values never collide; make it deterministic to keep it unique",
            rule.path
        ),
        (IndexKind::Collated, _) => "a collation has no effect on sealed values, so the index would not do what it says; leave the collation out, or store a folded form of the value in a field of its own".to_owned(),
        (_, Target::Sealed(rule)) => format!(
            "field '{}' is sealed with a random algorithm, so no search could use the index; make it deterministic, or leave the index out",
            rule.path
        ),
        _ => "it holds protected fields and cannot be indexed as a whole; index a field inside".to_owned(),
    }
}

/// A field of a text index: the server would index words, and a sealed value has none. A search that quietly never
/// finds what is protected is no search.
fn refuse_text(field: &Element<'_>, shape: &Shape) -> Result<(), Refusal> {
    let path = field.key_text();
    if field.key == b"$**" {
        return Err(Refusal::new(
            Reason::Index,
            "a text index on '$**' takes in protected fields, whose words it could never find; name the fields to index",
        ));
    }
    // `_fts` and `_ftsx` are how the server shows an index's own key.
    let target = shape.resolve(field.key);
    if field.key.starts_with(b"_fts") || IndexKind::Text.at(&target) != Fit::No {
        return Ok(());
    }
    Err(refused(
        &path,
        "a 'text' index cannot work on sealed values; index a field that is not protected",
    ))
}

fn refused(path: &str, why: &str) -> Refusal {
    Refusal::new(Reason::Index, format!("index on protected field '{path}': {why}"))
}

/// A partial filter's literals would have to be sealed and rewritten at each key rotation: only `$exists` and `$type`
/// free clauses on plain fields, and `$exists` on protected ones, are accepted.
fn partial(doc: &Doc<'_>, shape: &Shape, depth: usize) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "filters nest deeper than 200 levels",
        ));
    }
    for clause in doc.elements() {
        let clause = clause.map_err(malformed)?;
        if matches!(clause.key, b"$and" | b"$or") && clause.kind == kind::ARRAY {
            if let Some(list) = clause.document().map_err(malformed)? {
                for branch in list.elements() {
                    if let Some(branch) = branch.map_err(malformed)?.document().map_err(malformed)? {
                        partial(&branch, shape, depth + 1)?;
                    }
                }
            }
            continue;
        }
        let only_exists = match clause.document().map_err(malformed)? {
            Some(operators) => operators.elements().all(|e| e.is_ok_and(|e| e.key == b"$exists")),
            None => false,
        };
        let kind = if only_exists {
            IndexKind::PartlyByExistence
        } else {
            IndexKind::PartlyByValue
        };
        let fits = clause.key.first() != Some(&b'$') && kind.at(&shape.resolve(clause.key)) != Fit::No;
        if !fits {
            return Err(Refusal::new(
                Reason::Index,
                format!(
                    "partialFilterExpression on protected field '{}': only $exists is possible, a sealed literal would have to change with every key; filter on another field",
                    clause.key_text()
                ),
            ));
        }
    }
    Ok(())
}
