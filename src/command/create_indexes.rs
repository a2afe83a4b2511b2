//! `createIndexes`: an index on a protected field is accepted where it works on ciphertext, refused where it never
//! could. Source: SEMANTICS B4.

use super::options::pass;
use super::{CommandView, Scope};
use crate::bson::{Doc, kind};
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
    let unique = get(b"unique")?.is_some_and(|e| e.truthy());
    let expires = get(b"expireAfterSeconds")?.is_some();
    if let Some(element) = get(b"key")?
        && let Some(keys) = element.document().map_err(malformed)?
    {
        for key in keys.elements() {
            let key = key.map_err(malformed)?;
            let path = key.key_text();
            // `$**` and `a.$**` take in whatever is there; ciphertext is indexed as any other binary.
            let path_bytes: &[u8] = key.key.strip_suffix(b".$**").unwrap_or(key.key);
            let target = if key.key == b"$**" {
                Target::Plain
            } else {
                shape.resolve(path_bytes)
            };
            if matches!(target, Target::Plain) {
                continue;
            }
            let refuse = |why: &str| {
                Err(Refusal::new(
                    Reason::Index,
                    format!("index on protected field '{path}': {why}"),
                ))
            };
            if expires {
                return refuse(
                    "a TTL index (expireAfterSeconds) never expires a sealed value, it is no date to the server; keep the expiry date in a field of its own",
                );
            }
            if let Some(special) = key.text()
                && special != "hashed"
            {
                return refuse(&format!(
                    "a '{special}' index cannot work on sealed values; index a field that is not protected"
                ));
            }
            match target {
                Target::Sealed(rule) if rule.is_deterministic() => {}
                Target::Sealed(rule) if unique => {
                    return refuse(&format!(
                        "field '{}' is sealed with a random algorithm, so equal values never collide; make it deterministic to keep it unique",
                        rule.path
                    ));
                }
                Target::Sealed(rule) => {
                    return refuse(&format!(
                        "field '{}' is sealed with a random algorithm, so no search could use the index; make it deterministic, or leave the index out",
                        rule.path
                    ));
                }
                Target::Below(rule) => {
                    return refuse(&format!(
                        "field '{}' is sealed as one value; the server cannot look inside",
                        rule.path
                    ));
                }
                Target::Above(_) if key.key.ends_with(b".$**") => {}
                _ => {
                    return refuse(
                        "it holds protected fields and cannot be indexed as a whole; index a field inside",
                    );
                }
            }
        }
    }
    if let Some(element) = get(b"partialFilterExpression")?
        && let Some(doc) = element.document().map_err(malformed)?
    {
        partial(&doc, shape)?;
    }
    if let Some(element) = get(b"weights")?
        && element.kind != kind::DOCUMENT
    {
        return Ok(());
    }
    Ok(())
}

/// A partial filter's literals would have to be sealed and rewritten at each key rotation: only `$exists` and `$type`
/// free clauses on plain fields, and `$exists` on protected ones, are accepted.
fn partial(doc: &Doc<'_>, shape: &Shape) -> Result<(), Refusal> {
    for clause in doc.elements() {
        let clause = clause.map_err(malformed)?;
        if matches!(clause.key, b"$and" | b"$or") && clause.kind == kind::ARRAY {
            if let Some(list) = clause.document().map_err(malformed)? {
                for branch in list.elements() {
                    if let Some(branch) = branch.map_err(malformed)?.document().map_err(malformed)? {
                        partial(&branch, shape)?;
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
