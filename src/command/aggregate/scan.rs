//! Which namespaces a pipeline names: one that reads and writes none but unprotected ones is nobody's business here.
//! Refuses what would have to be understood to answer that.

use std::sync::Arc;

use super::PipelineContext;
use super::stages::{self, Kind};
use crate::bson::{Doc, Element, kind};
use crate::command::expression::{Arguments, children, misformed};
use crate::limits;
use crate::policy::{CollectionPolicy, Reason, Refusal, Shape};

/// The server's code for "Unrecognized pipeline stage name", which is what it would answer to most of these.
const UNRECOGNIZED_STAGE: i32 = 40324;

/// The one field that a stage is.
pub(super) fn stage_of<'a>(item: &Element<'a>) -> Result<Element<'a>, Refusal> {
    if item.kind != kind::DOCUMENT {
        return Err(misformed("a pipeline"));
    }
    match children(item)?.as_slice() {
        [stage] => Ok(*stage),
        _ => Err(misformed("a pipeline stage")),
    }
}

/// The row of a stage.
///
/// # Errors
/// A [`Refusal`] for a stage that the table does not know (it could name any namespace), and for the ones that show
/// other users' commands.
pub(super) fn kind_of(stage: &Element<'_>) -> Result<Kind, Refusal> {
    match stages::kind(stage.key) {
        Some(Kind::Never) => Err(Refusal::new(
            Reason::Stage,
            format!(
                "stage {} shows commands or definitions of others, whose protected values would be opened; run it on a direct connection with administrative rights",
                stage.key_text()
            ),
        )),
        Some(kind) => Ok(kind),
        None => Err(Refusal::new(
            Reason::Stage,
            format!(
                "stage {} is not known, so it cannot be told which namespaces it reads or writes; use other stages, or a direct connection",
                stage.key_text()
            ),
        )
        .with_code(UNRECOGNIZED_STAGE)),
    }
}

/// Whether any stage, at any depth, reads or writes a protected namespace by name.
pub(super) fn names_protected(
    array: &Doc<'_>,
    ctx: &PipelineContext<'_>,
    depth: usize,
) -> Result<bool, Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "pipelines nest deeper than 200 levels",
        ));
    }
    let mut found = false;
    for item in array.elements() {
        let item = item.map_err(crate::plan::draft::malformed)?;
        let stage = stage_of(&item)?;
        match kind_of(&stage)? {
            Kind::Lookup | Kind::GraphLookup | Kind::UnionWith | Kind::Out | Kind::Merge => {
                found |= named(&stage)?
                    .iter()
                    .map(|namespace| Target::read(namespace, ctx))
                    .collect::<Result<Vec<_>, _>>()?
                    .iter()
                    .any(|target| target.policy.is_some());
                for inner in children(&stage)?.iter().filter(|f| f.key == b"pipeline") {
                    found |= sub_pipeline(inner, ctx, depth)?;
                }
            }
            Kind::Facet => {
                for branch in children(&stage)? {
                    found |= sub_pipeline(&branch, ctx, depth)?;
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn sub_pipeline(element: &Element<'_>, ctx: &PipelineContext<'_>, depth: usize) -> Result<bool, Refusal> {
    match element.document().map_err(crate::plan::draft::malformed)? {
        Some(array) if element.kind == kind::ARRAY => names_protected(&array, ctx, depth + 1),
        _ => Ok(false),
    }
}

/// The elements of a stage that name a namespace.
fn named<'a>(stage: &Element<'a>) -> Result<Vec<Element<'a>>, Refusal> {
    if stage.kind == kind::STRING {
        return Ok(vec![*stage]);
    }
    let fields = children(stage)?;
    // `{db, coll}` is a namespace as a whole (`$out`, `$unionWith`); otherwise one field holds it.
    if fields.iter().any(|f| f.key == b"coll") {
        return Ok(vec![*stage]);
    }
    Ok(fields
        .into_iter()
        .filter(|f| f.key == b"from" || f.key == b"into")
        .collect())
}

/// Another namespace that a stage names.
pub(super) struct Target {
    /// `db.collection`, for messages.
    pub(super) name: String,
    /// Its rules, where it has any.
    pub(super) policy: Option<Arc<CollectionPolicy>>,
}

impl Target {
    /// Reads `"collection"` or `{db, coll}`.
    pub(super) fn read(element: &Element<'_>, ctx: &PipelineContext<'_>) -> Result<Self, Refusal> {
        let (db, collection) = if element.kind == kind::STRING {
            (ctx.db, text(element)?)
        } else {
            let named = Arguments::read("a namespace", element, &["db", "coll", "timeseries", "pipeline"])?;
            let db = match named.get("db") {
                Some(db) => text(db)?,
                None => ctx.db,
            };
            (db, text(named.need("a namespace", "coll")?)?)
        };
        // The server's own buckets of a time series hold its measurements under other paths.
        let buckets = collection.strip_prefix("system.buckets.");
        if let Some(series) = buckets.filter(|series| ctx.map.policy(db, series).is_some()) {
            return Err(Refusal::new(
                Reason::Stage,
                format!(
                    "collection '{db}.{collection}' holds the buckets of a protected time series; name '{series}' itself"
                ),
            ));
        }
        if collection == "system.profile" || db == "local" && collection.starts_with("oplog.") {
            return Err(Refusal::new(
                Reason::Stage,
                format!(
                    "collection '{db}.{collection}' shows other clients' operations; read it on a direct connection"
                ),
            ));
        }
        Ok(Self {
            name: format!("{db}.{collection}"),
            policy: ctx.map.policy(db, collection),
        })
    }

    /// What its documents hold.
    pub(super) fn shape(&self) -> Shape {
        self.policy
            .as_ref()
            .map_or(Shape::Plain, |policy| policy.shape.clone())
    }
}

fn text<'a>(element: &Element<'a>) -> Result<&'a str, Refusal> {
    element.text().ok_or_else(|| misformed("the name of a namespace"))
}

/// The documents of an array element.
pub(super) fn array_of<'a>(name: &str, element: &Element<'a>) -> Result<Doc<'a>, Refusal> {
    element
        .document()
        .map_err(crate::plan::draft::malformed)?
        .filter(|_| element.kind == kind::ARRAY)
        .ok_or_else(|| misformed(name))
}
