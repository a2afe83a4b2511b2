//! Projections and stages of an aggregation. What a later stage compares may have been computed, so only names stand
//! in it that are no literals of protected fields.

use bson::{Bson, Document, doc};

use super::{NAMES, PATHS, Source, filter, leaf};

pub(super) fn projection(source: &mut Source<'_>) -> Document {
    source
        .some(3, |source| {
            let path = source.pick(&PATHS);
            let how = match source.below(4) {
                0 => Bson::Int32(0),
                1 => Bson::String(format!("${}", source.pick(&PATHS))),
                2 => Bson::Document(doc! { "$slice": 1 }),
                _ => Bson::Int32(1),
            };
            (path.to_owned(), how)
        })
        .into_iter()
        .collect()
}

pub(super) fn stage(source: &mut Source<'_>, depth: u8) -> Document {
    let path = source.pick(&PATHS);
    let dollar = format!("${path}");
    match source.below(20) {
        0 => doc! { "$project": projection(source) },
        1 => {
            doc! { "$group": { "_id": dollar, "n": { "$sum": 1 }, "v": { source.pick(&["$first", "$push", "$addToSet", "$max"]): format!("${}", source.pick(&PATHS)) } } }
        }
        2 => doc! { "$unwind": dollar },
        3 => doc! { "$sortByCount": dollar },
        4 => doc! { "$set": { source.pick(&NAMES): dollar } },
        5 => doc! { "$replaceRoot": { "newRoot": dollar } },
        6 => {
            doc! { "$lookup": { "from": source.pick(&["p", "q"]), "localField": path, "foreignField": source.pick(&PATHS), "as": source.pick(&NAMES) } }
        }
        7 if depth > 0 => {
            doc! { "$facet": { "a": [stage(source, depth - 1)], "b": [stage(source, depth - 1)] } }
        }
        8 => doc! { source.pick(&["$out", "$merge"]): source.pick(&["p", "q"]) },
        9 => doc! { "$unset": path },
        10 if depth > 0 => {
            doc! { "$unionWith": { "coll": source.pick(&["p", "q"]), "pipeline": [stage(source, depth - 1)] } }
        }
        11 => {
            doc! { "$graphLookup": { "from": "p", "startWith": dollar, "connectFromField": source.pick(&PATHS),
            "connectToField": source.pick(&PATHS), "as": source.pick(&NAMES), "restrictSearchWithMatch": filter(source, "", 1) } }
        }
        12 => {
            doc! { "$bucket": { "groupBy": dollar, "boundaries": [0, 10, 100], "output": { "v": { "$push": format!("${}", source.pick(&PATHS)) } } } }
        }
        13 => {
            doc! { "$setWindowFields": { "partitionBy": dollar, "sortBy": { source.pick(&PATHS): 1 },
            "output": { source.pick(&NAMES): { source.pick(&["$push", "$first", "$max"]): format!("${}", source.pick(&PATHS)) } } } }
        }
        14 => {
            doc! { "$redact": { "$cond": [comparison(source), source.pick(&["$$KEEP", "$$DESCEND"]), "$$PRUNE"] } }
        }
        15 if depth > 0 => {
            doc! { "$lookup": { "from": source.pick(&["p", "q"]), "let": { "v": dollar }, "as": source.pick(&NAMES),
            "pipeline": [{ "$match": { "$expr": { "$eq": ["$$v", format!("${}", source.pick(&PATHS))] } } }, stage(source, depth - 1)] } }
        }
        16 => {
            doc! { "$merge": { "into": source.pick(&["p", "q"]), "on": "_id", "whenMatched": [{ "$set": { source.pick(&PATHS): "$$new._id" } }] } }
        }
        17 => doc! { "$match": { "$expr": comparison(source) } },
        _ => doc! { "$sort": { path: 1 } },
    }
}

/// With a literal that is nobody's secret: whether the path still holds what is stored, only the planner can tell.
fn comparison(source: &mut Source<'_>) -> Document {
    let path = format!("${}", source.pick(&PATHS));
    doc! { source.pick(&["$eq", "$ne", "$gt", "$in"]): [path, leaf(source, false)] }
}
