//! Commands that shard a collection, or cut and move what is sharded: they name its shard key, and documents by their
//! values in it. A sealed shard key could never be rotated, because it cannot be changed, and ranges of it would follow
//! ciphertext: a key of plain fields is forwarded, a protected one refused, with every literal beside it.
//! Source: SEMANTICS B4 ("hashed shard key").

use super::options::pass;
use super::{CommandView, Scope};
use crate::bson::{Doc, Element, kind};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Shape, Target};

/// Arguments that say neither which fields nor which values.
const OWN: &[&str] = &[
    "_secondaryThrottle",
    "_waitForDelete",
    "enforceUniquenessCheck",
    "estimateSizeFromChunks",
    "force",
    "forceJumbo",
    "forceRedistribution",
    "keyCharacteristics",
    "maxChunkObjects",
    "maxChunkSize",
    "maxChunkSizeBytes",
    "maxSplitPoints",
    "numInitialChunks",
    "numSamplesPerChunk",
    "presplitHashedZones",
    "readWriteDistribution",
    "relocateCollection",
    "sampleRate",
    "sampleSize",
    "secondaryThrottle",
    "shard",
    "to",
    "toShard",
    "unique",
    "waitForDelete",
    "zone",
];

/// Plans the command; its namespace is its first argument, `db.collection`.
///
/// # Errors
/// A [`Refusal`] naming the field.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let named = view.collection().and_then(|text| text.split_once('.'));
    let named = named.and_then(|(db, collection)| scope.map.lookup(db, collection));
    // Some of them also exist on one server, where they name a collection of their database.
    let beside = view
        .collection()
        .and_then(|collection| scope.map.lookup(view.db, collection));
    let Some(policy) = named.or(beside) else {
        return Ok(());
    };
    view.each_field(draft, |draft, field| match (field.key(), field.element()) {
        (b"key" | b"keyPattern" | b"find" | b"middle" | b"min" | b"max", Some(element)) => {
            fields(element, &policy.shape, view.name)
        }
        (b"bounds", Some(element)) => each(element, |bound| fields(bound, &policy.shape, view.name)),
        (b"zones", Some(element)) => each(element, |zone| {
            let Some(zone) = zone.document().map_err(malformed)? else {
                return Ok(());
            };
            for bound in [&b"min"[..], b"max"] {
                if let Some(bound) = zone.get(bound).map_err(malformed)? {
                    fields(&bound, &policy.shape, view.name)?;
                }
            }
            Ok(())
        }),
        // The server takes none but the simple one, which changes nothing.
        (b"collation", _) => Ok(()),
        _ => pass(draft, view, field, OWN),
    })
}

fn each(list: &Element<'_>, mut one: impl FnMut(&Element<'_>) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let items: Option<Doc<'_>> = list.document().map_err(malformed)?;
    for item in items.iter().flat_map(Doc::elements) {
        one(&item.map_err(malformed)?)?;
    }
    Ok(())
}

/// Each field of a shard key, or of a document that stands for one, is plain.
fn fields(element: &Element<'_>, shape: &Shape, command: &str) -> Result<(), Refusal> {
    let Some(doc) = element
        .document()
        .map_err(malformed)?
        .filter(|_| element.kind == kind::DOCUMENT)
    else {
        return Err(Refusal::new(
            Reason::Malformed,
            format!("'{}' of {command} is not a document", element.key_text()),
        ));
    };
    for field in doc.elements() {
        let field = field.map_err(malformed)?;
        if field.key.starts_with(b"$") {
            return Err(Refusal::new(
                Reason::Operator,
                format!(
                    "{command} names documents by the values of their shard key: '{}' is none",
                    field.key_text()
                ),
            ));
        }
        if matches!(shape.resolve(field.key), Target::Plain) {
            continue;
        }
        return Err(Refusal::new(
            Reason::Index,
            format!(
                "field '{}': {command} cannot take a protected field for a shard key, or a document by one: a sealed shard \
                 key could never be rotated; shard by fields that are not protected",
                field.key_text()
            ),
        ));
    }
    Ok(())
}
