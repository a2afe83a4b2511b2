//! `createIndexes`: an index on a protected field is accepted where it works on ciphertext, refused where it never
//! could. Source: SEMANTICS B4.

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
    let options = Options {
        unique: get(b"unique")?.is_some_and(|e| e.truthy()),
        expires: get(b"expireAfterSeconds")?.is_some(),
        collated: has_collation(index, false)?,
    };
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

/// What decides beside the key whether an index can work.
struct Options {
    unique: bool,
    expires: bool,
    /// It compares strings by another rule than equality of bytes.
    collated: bool,
}

/// One field of an index's key.
fn part(key: &Element<'_>, shape: &Shape, options: &Options) -> Result<(), Refusal> {
    let path = key.key_text();
    let refuse = |why: &str| Err(refused(&path, why));
    let special = key.text().filter(|kind| *kind != "hashed");
    if special == Some("text") {
        return refuse_text(key, shape);
    }
    // `$**` and `a.$**` take in whatever is there; ciphertext is indexed as any other binary.
    let everything = key.key == b"$**" || key.key.ends_with(b".$**");
    let target = match key.key.strip_suffix(b"$**") {
        Some(b"") => Target::Plain,
        Some(prefix) => shape.resolve(prefix.strip_suffix(b".").unwrap_or(prefix)),
        None => shape.resolve(key.key),
    };
    if matches!(target, Target::Plain) {
        return Ok(());
    }
    if options.expires {
        return refuse(
            "a TTL index (expireAfterSeconds) never expires a sealed value, it is no date to the server; keep the expiry date in a field of its own",
        );
    }
    if let Some(special) = special {
        return refuse(&format!(
            "a '{special}' index cannot work on sealed values; index a field that is not protected"
        ));
    }
    match target {
        Target::Sealed(rule) if rule.is_deterministic() && options.collated => refuse(
            "a collation has no effect on sealed values, so the index would not do what it says; leave the collation out, or store a folded form of the value in a field of its own",
        ),
        Target::Sealed(rule) if rule.is_deterministic() => Ok(()),
        Target::Sealed(rule) if options.unique => refuse(&format!(
            "field '{}' is sealed with a random algorithm, so equal values never collide; make it deterministic to keep it unique",
            rule.path
        )),
        Target::Sealed(rule) => refuse(&format!(
            "field '{}' is sealed with a random algorithm, so no search could use the index; make it deterministic, or leave the index out",
            rule.path
        )),
        Target::Below(rule) => refuse(&format!(
            "field '{}' is sealed as one value; the server cannot look inside",
            rule.path
        )),
        Target::Above(_) if everything => Ok(()),
        _ => refuse("it holds protected fields and cannot be indexed as a whole; index a field inside"),
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
    if field.key.starts_with(b"_fts") || matches!(shape.resolve(field.key), Target::Plain) {
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
        if clause.key.first() != Some(&b'$') && matches!(shape.resolve(clause.key), Target::Plain) {
            continue;
        }
        let only_exists = match clause.document().map_err(malformed)? {
            Some(operators) => operators.elements().all(|e| e.is_ok_and(|e| e.key == b"$exists")),
            None => false,
        };
        if !only_exists {
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
