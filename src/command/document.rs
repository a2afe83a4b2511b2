//! Documents that are stored as they stand: inserted, replacing, or the value of `$set` and its like. Seals what the
//! shape names, refuses what reads ambiguously. Source: SEMANTICS B0.2, B0.3, B0.6, B0.7, B1.3.

use crate::bson::{Doc, Element, kind};
use crate::crypto::suite::NATIVE_SUBTYPE;
use crate::limits;
use crate::plan::Draft;
use crate::plan::canonical::{is_ciphertext, refuse_unsealable};
use crate::plan::draft::malformed;
use crate::policy::shape::is_position;
use crate::policy::{Reason, Refusal, Shape, Target, Tree};

/// Seals the protected fields of a document whose root is `tree`.
///
/// # Errors
/// A [`Refusal`] where a value cannot be sealed or a key is ambiguous.
pub fn seal_document(draft: &mut Draft<'_>, doc: &Doc<'_>, tree: &Tree) -> Result<(), Refusal> {
    fields(draft, doc, tree, 1)
}

/// Seals a value that will be stored where `shape` is known.
///
/// # Errors
/// As [`seal_document`].
pub fn seal_value(draft: &mut Draft<'_>, element: &Element<'_>, shape: &Shape) -> Result<(), Refusal> {
    value(draft, element, shape, 1)
}

/// Refuses ciphertext anywhere in a value that is stored unsealed in a protected namespace.
///
/// # Errors
/// A [`Refusal`] naming the key.
pub fn refuse_ciphertext(element: &Element<'_>) -> Result<(), Refusal> {
    plain_value(element, 1)
}

fn fields(draft: &mut Draft<'_>, doc: &Doc<'_>, tree: &Tree, depth: usize) -> Result<(), Refusal> {
    too_deep(depth)?;
    let region = draft.open_doc(doc);
    let mut seen: u128 = 0;
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        match tree.position(element.key) {
            Some(index) => {
                let bit = 1u128 << (index & 127);
                if seen & bit != 0 && is_repeated(doc, &element)? {
                    return Err(Refusal::new(
                        Reason::AmbiguousKey,
                        format!(
                            "field '{}' appears twice in one document; send each field once",
                            element.key_text()
                        ),
                    ));
                }
                seen |= bit;
                if let Some(shape) = tree.at(index) {
                    value(draft, &element, shape, depth)?;
                }
            }
            // `contacts.0.phone` means an index and a key alike, so a document with numbers for keys holds what an array
            // in its place would.
            None if is_position(element.key) => position(draft, &element, tree, depth)?,
            None => {
                refuse_ambiguous(&element, tree)?;
                plain_value(&element, depth)?;
            }
        }
    }
    draft.close(region, doc.end());
    Ok(())
}

fn position(draft: &mut Draft<'_>, element: &Element<'_>, tree: &Tree, depth: usize) -> Result<(), Refusal> {
    let Some(doc) = element.document().map_err(malformed)? else {
        return plain_value(element, depth);
    };
    if element.kind == kind::DOCUMENT {
        return fields(draft, &doc, tree, depth + 1);
    }
    too_deep(depth)?;
    let region = draft.open_doc(&doc);
    for item in doc.elements() {
        position(draft, &item.map_err(malformed)?, tree, depth + 1)?;
    }
    draft.close(region, doc.end());
    Ok(())
}

fn value(draft: &mut Draft<'_>, element: &Element<'_>, shape: &Shape, depth: usize) -> Result<(), Refusal> {
    match shape {
        Shape::Plain | Shape::Unknown => plain_value(element, depth),
        Shape::Sealed(rule) => {
            if rule.seals_elements() || element.kind != kind::ARRAY && element.kind != kind::DOCUMENT {
                return draft.seal_stored(element, rule);
            }
            // The whole document is sealed as one value: nothing inside may pass for ciphertext once opened.
            inner_value(element, depth)?;
            draft.seal_stored(element, rule)
        }
        Shape::Tree(tree) => position(draft, element, tree, depth),
    }
}

/// A value that is stored as it is. The subtype of envelopes is theirs in a protected namespace: what is none would make
/// every read fail that meets it.
fn plain_value(element: &Element<'_>, depth: usize) -> Result<(), Refusal> {
    every_binary(element, depth, &|binary| {
        if is_ciphertext(binary) {
            return refuse_unsealable(binary, &binary.key_text());
        }
        match binary.binary() {
            Some((NATIVE_SUBTYPE, _)) => Err(Refusal::new(
                Reason::Injection,
                format!(
                    "field '{}': binary subtype 128 is that of sealed values, and this one could not be read back from a protected collection; use another subtype",
                    binary.key_text()
                ),
            )),
            _ => Ok(()),
        }
    })
}

/// A value inside one that is sealed as a whole.
fn inner_value(element: &Element<'_>, depth: usize) -> Result<(), Refusal> {
    every_binary(element, depth, &|binary| {
        if is_ciphertext(binary) {
            return refuse_unsealable(binary, &binary.key_text());
        }
        Ok(())
    })
}

fn every_binary(
    element: &Element<'_>,
    depth: usize,
    judge: &impl Fn(&Element<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if element.kind == kind::BINARY {
        return judge(element);
    }
    let Some(doc) = element.document().map_err(malformed)? else {
        return Ok(());
    };
    too_deep(depth)?;
    for inner in doc.elements() {
        every_binary(&inner.map_err(malformed)?, depth + 1, judge)?;
    }
    Ok(())
}

/// A key with a dot or a leading `$` is one key to the server, but reads like a path: refused where that path is
/// protected.
fn refuse_ambiguous(element: &Element<'_>, tree: &Tree) -> Result<(), Refusal> {
    let key = element.key;
    if !key.contains(&b'.') && key.first() != Some(&b'$') {
        return Ok(());
    }
    // `$name: {…}` beside protected fields reads like an operator on them.
    let nested = matches!(element.kind, kind::DOCUMENT | kind::ARRAY);
    if key.first() == Some(&b'$') && (nested || key.contains(&b'.')) {
        return Err(Refusal::new(
            Reason::AmbiguousKey,
            format!(
                "key '{}' of a stored document reads like an operator; give it a name without the leading $",
                element.key_text()
            ),
        ));
    }
    let mut components = key.split(|b| *b == b'.');
    let reads_protected = components.find(|c| !is_position(c)).is_some_and(|head| {
        tree.get(head.strip_prefix(b"$").unwrap_or(head))
            .is_some_and(|s| !s.is_plain())
    });
    if !reads_protected {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::AmbiguousKey,
        format!(
            "key '{}' is a single key to MongoDB but reads like a protected path; send nested documents instead of dotted keys",
            element.key_text()
        ),
    ))
}

fn is_repeated(doc: &Doc<'_>, element: &Element<'_>) -> Result<bool, Refusal> {
    let first = doc.get(element.key).map_err(malformed)?;
    Ok(first.is_some_and(|first| first.start != element.start))
}

fn too_deep(depth: usize) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "documents nest deeper than 200 levels",
        ));
    }
    Ok(())
}

/// What a dotted update path leads to, as the shape of the value stored there.
pub fn shape_of(target: &Target) -> Shape {
    match target {
        Target::Plain => Shape::Plain,
        Target::Sealed(rule) | Target::Below(rule) => Shape::Sealed(std::sync::Arc::clone(rule)),
        Target::Above(tree) => Shape::Tree(std::sync::Arc::clone(tree)),
        Target::Unknown => Shape::Unknown,
    }
}
