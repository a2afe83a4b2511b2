//! Updates that are pipelines: each protected path of the document they leave is as it was, unset, a constant that is
//! sealed, or a value that its own rule sealed. Source: SEMANTICS B1.4.

use std::sync::Arc;

use super::stages::Kind;
use super::{Flow, PipelineContext, Planner, Policies, Removed, scan, target};
use crate::bson::Doc;
use crate::command::expression::{Variables, edits};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{CollectionPolicy, Reason, Refusal, Shape};

/// The stages of an update name no other namespace.
struct Nowhere;

impl Policies for Nowhere {
    fn policy(&self, _: &str, _: &str) -> Option<Arc<CollectionPolicy>> {
        None
    }
}

/// Plans an update that is a pipeline, over stored documents of this shape.
///
/// # Errors
/// A [`Refusal`] naming the stage or expression and the field, or the path that would not hold what its rule wants.
pub fn update(
    draft: &mut Draft<'_>,
    array: &Doc<'_>,
    stored: &Shape,
    variables: &Variables,
) -> Result<(), Refusal> {
    for item in array.elements() {
        let stage = scan::stage_of(&item.map_err(malformed)?)?;
        if !is_update(scan::kind_of(&stage)?) {
            return Err(Refusal::new(
                Reason::PipelineUpdate,
                format!(
                    "pipeline update: stage {} does not belong in an update; use $set, $unset, $project or $replaceWith",
                    stage.key_text()
                ),
            ));
        }
    }
    let ctx = PipelineContext {
        map: &Nowhere,
        db: "",
        collection: None,
        variables: Variables::default(),
    };
    let mut list = Vec::new();
    let mut planner = Planner {
        draft,
        edits: &mut list,
        ctx: &ctx,
        stored: Some(stored.clone()),
        target: None,
        removed: Removed::default(),
    };
    let flow = planner.stages(array, Flow::open(stored.clone()), variables, 1)?;
    target::agree_in_place("the document", &flow, stored)?;
    edits::record_in(draft, array, list)
}

/// Whether the server takes such a stage in an update.
pub(super) fn is_update(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::AddFields | Kind::Project | Kind::Unset | Kind::ReplaceRoot | Kind::ReplaceWith
    )
}
