//! Commands beside reading and writing: client-level bulk writes, definitions of collections, indexes.

use bson::{Bson, Document, doc};

use super::{DEPTH, PATHS, Source, at, document, filter, operators, update};

/// `bulkWrite` of MongoDB 8.0, over the protected collection and another.
pub(super) fn bulk_write(source: &mut Source<'_>) -> Document {
    let ops: Vec<Bson> = source
        .some(3, |source| {
            // Mostly the first namespace, which is the protected one.
            match source.below(3) {
                0 => doc! { "insert": 0, "document": document(source, "", DEPTH) },
                1 => {
                    let (mods, filters) = update(source);
                    let mut one = doc! { "update": 0, "filter": filter(source, "", DEPTH), "updateMods": mods, "multi": source.below(2) == 1 };
                    one.extend(filters);
                    one
                }
                _ => doc! { "delete": 0, "filter": filter(source, "", DEPTH) },
            }
        })
        .into_iter()
        .map(Bson::Document)
        .collect();
    doc! { "bulkWrite": 1, "ops": ops, "nsInfo": [{ "ns": "c.p" }, { "ns": "c.q" }], "errorsOnly": source.below(2) == 1 }
}

/// `create` and `collMod`: validators in both forms, views.
pub(super) fn definition(source: &mut Source<'_>) -> Document {
    let validator = if source.below(2) == 1 {
        let path = source.pick(&PATHS);
        doc! { "$jsonSchema": { "required": [source.pick(&PATHS)], "properties": { path: { "enum": [at(source, path)] } } } }
    } else {
        filter(source, "", 2)
    };
    match source.below(4) {
        0 => doc! { "create": "p", "validator": validator },
        1 => doc! { "collMod": "p", "validator": validator },
        2 => {
            doc! { "create": "v", "viewOn": "p", "pipeline": [{ "$match": filter(source, "", 2) }] }
        }
        _ => {
            doc! { "collMod": "v", "viewOn": "p", "pipeline": [{ "$match": filter(source, "", 2) }] }
        }
    }
}

/// `createIndexes`, partial ones among them.
pub(super) fn indexes(source: &mut Source<'_>) -> Document {
    let path = source.pick(&PATHS);
    let kind = match source.below(4) {
        0 => Bson::from(source.pick(&["text", "2dsphere", "hashed", "2d"])),
        _ => Bson::Int32(1),
    };
    let mut index = doc! { "name": "i", "key": { path: kind } };
    if source.below(2) == 1 {
        let partial = source.pick(&PATHS);
        index.insert(
            "partialFilterExpression",
            doc! { partial: operators(source, partial, 1) },
        );
    }
    if source.below(2) == 1 {
        index.insert("unique", true);
    }
    doc! { "createIndexes": "p", "indexes": [index] }
}
