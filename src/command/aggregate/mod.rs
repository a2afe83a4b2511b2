//! The `aggregate` command and its pipelines. A pipeline is planned stage by stage: each stage takes the shape of the
//! documents it is given to the shape of those it yields, and what it cannot do with sealed values is refused. A
//! pipeline that touches no protected namespace is left as it is. Source: SEMANTICS B0.9, B1.5, B3.7, B3.9.

pub mod accumulators;
mod events;
mod group;
mod join;
mod order;
mod projection;
mod removed;
mod reshape;
mod scan;
pub mod stages;
mod target;
mod update;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::CommandView;
use super::expression::{Analyser, Change, Edit, Variables, edits, shapes};
use super::view::Field;
use crate::bson::{Doc, Element, kind};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{CollectionPolicy, FieldMap, Reason, Refusal, Shape, Tree};
use removed::Removed;
use stages::Kind;
pub use update::update;

/// Most stages of one pipeline: the server's own `internalPipelineLengthLimit`.
const MAX_STAGES: usize = 1000;

/// Where the rules of a namespace come from.
pub trait Policies {
    /// The rules of a namespace; `None` where nothing in it is protected.
    fn policy(&self, db: &str, collection: &str) -> Option<Arc<CollectionPolicy>>;
}

impl Policies for FieldMap {
    fn policy(&self, db: &str, collection: &str) -> Option<Arc<CollectionPolicy>> {
        self.lookup(db, collection)
    }
}

/// What surrounds a pipeline.
#[derive(Clone)]
pub struct PipelineContext<'c> {
    /// The rules of other namespaces that stages name.
    pub map: &'c dyn Policies,
    /// The command's database.
    pub db: &'c str,
    /// The collection the pipeline runs on; `None` on a database (`aggregate: 1`).
    pub collection: Option<&'c str>,
    /// Variables in scope (`let`), and whether the command's collation is other than `simple`.
    pub variables: Variables,
}

/// Plans the `aggregate` command; returns the shape of the documents it yields ([`Shape::Plain`] where nothing
/// protected is in play, and nothing is planned then).
///
/// # Errors
/// A [`Refusal`] naming the stage, expression or option, and the field.
pub fn plan<'a>(view: &CommandView<'a>, draft: &mut Draft<'a>, map: &dyn Policies) -> Result<Shape, Refusal> {
    let start = match view.collection() {
        Some(collection) => map.policy(view.db, collection).map(|policy| policy.shape.clone()),
        None => None,
    }
    .unwrap_or(Shape::Plain);
    let pipeline_field = view
        .get("pipeline")?
        .ok_or_else(|| super::expression::misformed("aggregate"))?;
    let array = scan::array_of("aggregate", &pipeline_field)?;
    if !view.sequences.is_empty() {
        return Err(Refusal::new(
            Reason::Option,
            "aggregate: a pipeline sent as a document sequence is not supported; send it in the command's body",
        ));
    }
    let mut ctx = PipelineContext {
        map,
        db: view.db,
        collection: view.collection(),
        variables: Variables::with_collation(super::options::has_collation(&view.body, view.collated)?),
    };
    if !is_protected(&array, &start, &ctx)? {
        return Ok(Shape::Plain);
    }
    if let Some(bound) = view.get("let")? {
        for variable in super::expression::children(&bound)? {
            ctx.variables.bind(variable.key, Shape::Plain)?;
        }
    }
    let mut yielded = Shape::Plain;
    view.each_field(draft, |draft, field| {
        let Field::Element(element) = field else {
            return Ok(());
        };
        match element.key {
            b"pipeline" => {
                yielded = pipeline(draft, &array, start.clone(), &ctx)?;
                Ok(())
            }
            b"let" => {
                // Constants only, as the server demands: nothing in it can be sealed, since it has no field to meet.
                for variable in super::expression::children(element)? {
                    super::expression::plan(draft, &variable, &Shape::Plain, &Variables::default())?;
                }
                Ok(())
            }
            // It goes to the server's log and profiler and could hold anything.
            b"comment" => {
                draft.drop_element(element);
                Ok(())
            }
            b"explain" => {
                if element.truthy() {
                    draft.note_explained();
                }
                Ok(())
            }
            key if OWN.contains(&key) || super::options::GENERIC.iter().any(|known| known.as_bytes() == key) => Ok(()),
            _ => Err(Refusal::new(
                Reason::Option,
                format!(
                    "aggregate: option '{}' is not supported where protected fields are in play; leave it out",
                    element.key_text()
                ),
            )),
        }
    })?;
    Ok(yielded)
}

/// Options of `aggregate` that hold no document's values.
const OWN: &[&[u8]] = &[
    b"aggregate",
    b"allowDiskUse",
    b"cursor",
    b"bypassDocumentValidation",
    b"hint",
    // Checked where it meets a sealed string.
    b"collation",
];

/// Whether anything protected is in play: the pipeline's own documents, or a namespace that a stage reads or writes.
///
/// # Errors
/// A [`Refusal`] where that cannot be told.
pub fn is_protected(array: &Doc<'_>, start: &Shape, ctx: &PipelineContext<'_>) -> Result<bool, Refusal> {
    let named = scan::names_protected(array, ctx, 1)?;
    Ok(named || !start.is_plain() || (ctx.collection.is_none() && events::opens(array)?))
}

/// Plans a pipeline over documents of shape `start`, in place of its array; returns the shape of what it yields.
///
/// # Errors
/// A [`Refusal`] naming the stage or expression, and the field.
pub fn pipeline(
    draft: &mut Draft<'_>,
    array: &Doc<'_>,
    start: Shape,
    ctx: &PipelineContext<'_>,
) -> Result<Shape, Refusal> {
    if !is_protected(array, &start, ctx)? {
        return Ok(Shape::Plain);
    }
    let mut list = Vec::new();
    let mut planner = Planner {
        draft,
        edits: &mut list,
        ctx,
        stored: None,
        target: None,
        removed: Removed::default(),
    };
    let flow = planner.stages(array, Flow::open(start), &ctx.variables, 1)?;
    edits::record_in(draft, array, list)?;
    Ok(flow.shape())
}

/// What the documents between two stages hold.
#[derive(Debug)]
struct Flow {
    /// Their fields; `None` where nothing at all can be told.
    tree: Option<Tree>,
    /// Fields that the tree does not list are absent, not just plain.
    closed: bool,
    /// Protected fields that are no longer there.
    removed: Removed,
}

impl Flow {
    fn open(shape: Shape) -> Self {
        Self {
            tree: shapes::tree_of(&shape),
            closed: false,
            removed: Removed::default(),
        }
    }

    fn closed(tree: Tree) -> Self {
        Self {
            tree: Some(tree),
            closed: true,
            removed: Removed::default(),
        }
    }

    fn copy(&self) -> Self {
        Self {
            tree: self.tree.as_ref().map(Tree::to_owned_tree),
            closed: self.closed,
            removed: self.removed.clone(),
        }
    }

    fn shape(&self) -> Shape {
        match &self.tree {
            Some(tree) => shapes::normal(tree.to_owned_tree()),
            None => Shape::Unknown,
        }
    }

    /// Sets a dotted path; where nothing is known, nothing more is known afterwards.
    fn set(&mut self, path: &[u8], value: Shape) -> Result<(), Refusal> {
        match &mut self.tree {
            Some(tree) => shapes::set_path(tree, path, value),
            None => Ok(()),
        }
    }
}

/// Plans the stages of one command's pipelines, nested ones included; the edits of all of them are recorded together.
struct Planner<'x, 'd, 'a, 'c> {
    draft: &'x mut Draft<'d>,
    edits: &'x mut Vec<Edit<'a>>,
    ctx: &'x PipelineContext<'c>,
    /// The rules that hold where the documents of this pipeline are stored, while it is an update.
    stored: Option<Shape>,
    /// The rules that hold where `$out` or `$merge` at the end of this pipeline stores its documents.
    target: Option<Shape>,
    /// Protected fields that earlier stages removed from the documents at hand.
    removed: Removed,
}

impl<'d, 'a> Planner<'_, 'd, 'a, '_> {
    fn stages(
        &mut self,
        array: &Doc<'a>,
        start: Flow,
        variables: &Variables,
        depth: usize,
    ) -> Result<Flow, Refusal> {
        if depth > limits::MAX_DEPTH {
            return Err(Refusal::new(
                Reason::Malformed,
                "pipelines nest deeper than 200 levels",
            ));
        }
        let before = std::mem::replace(&mut self.target, target::at_end(array, self.ctx)?);
        let removed = std::mem::take(&mut self.removed);
        let flow = self.each_stage(array, start, variables, depth);
        (self.target, self.removed) = (before, removed);
        flow
    }

    fn each_stage(
        &mut self,
        array: &Doc<'a>,
        start: Flow,
        variables: &Variables,
        depth: usize,
    ) -> Result<Flow, Refusal> {
        let mut flow = start;
        for (index, item) in array.elements().enumerate() {
            if index >= MAX_STAGES {
                return Err(Refusal::new(
                    Reason::Limit,
                    "a pipeline has more than 1000 stages; split it",
                ));
            }
            let stage = scan::stage_of(&item.map_err(malformed)?)?;
            let removed = Removed::before(&flow);
            self.removed = flow.removed.clone();
            flow = self.stage(&stage, flow, variables, depth)?;
            let brought = std::mem::take(&mut flow.removed);
            flow.removed = removed.and(brought).after(scan::kind_of(&stage)?, &flow);
            if let Some(tree) = &flow.tree
                && matches!(
                    shapes::bounded(shapes::normal(tree.to_owned_tree())),
                    Shape::Unknown
                )
            {
                flow = Flow::open(Shape::Unknown);
            }
        }
        Ok(flow)
    }

    fn stage(
        &mut self,
        stage: &Element<'a>,
        flow: Flow,
        variables: &Variables,
        depth: usize,
    ) -> Result<Flow, Refusal> {
        let name = &*stage.key_text();
        match scan::kind_of(stage)? {
            Kind::Match => {
                self.filter(name, stage, flow.removed.shade(flow.shape()), variables)?;
                Ok(flow)
            }
            Kind::Keep => Ok(flow),
            Kind::Project => self.project(stage, flow, variables),
            Kind::AddFields => self.add_fields(name, stage, flow, variables),
            Kind::Unset => self.unset(stage, flow),
            Kind::Unwind => self.unwind(stage, flow),
            Kind::Group => self.group(stage, &flow, variables),
            Kind::Bucket => self.bucket(stage, &flow, variables),
            Kind::BucketAuto => self.bucket_auto(stage, &flow, variables),
            Kind::SortByCount => self.sort_by_count(stage, &flow, variables),
            Kind::Sort => {
                order::keys(name, stage, &flow.shape())?;
                Ok(flow)
            }
            Kind::Count => reshape::count(stage),
            Kind::Facet => self.facet(stage, &flow, variables, depth),
            Kind::ReplaceRoot => self.replace_root(stage, &flow, variables),
            Kind::ReplaceWith => self.replace_with(name, stage, &flow, variables),
            Kind::Redact => self.redact(stage, flow, variables),
            Kind::Lookup => self.lookup(stage, flow, variables, depth),
            Kind::GraphLookup => self.graph_lookup(stage, flow, variables),
            Kind::UnionWith => self.union_with(stage, flow, variables, depth),
            Kind::Out => self.out(stage, flow),
            Kind::Merge => self.merge(stage, flow, variables, depth),
            Kind::Window => self.window(stage, flow, variables),
            Kind::Densify => self.densify(stage, flow, variables),
            Kind::Fill => self.fill(stage, flow, variables),
            Kind::GeoNear => self.geo_near(stage, flow, variables),
            Kind::Documents => {
                // Each document is an expression of constants.
                let yielded = self.at(&Shape::Plain, variables).expression(stage)?;
                Ok(Flow::open(yielded))
            }
            Kind::ChangeStream => events::change_stream(stage, &flow, self.ctx.collection.is_some()),
            Kind::Report => Ok(Flow::open(Shape::Plain)),
            Kind::IndexStats => {
                let mut tree = Tree::default();
                tree.set(b"spec", Shape::Unknown);
                Ok(Flow::open(shapes::normal(tree)))
            }
            Kind::Refused | Kind::Never => Err(Refusal::new(
                Reason::Stage,
                format!(
                    "stage {name} is not supported where protected fields are in play; use other stages, or run it on an unprotected collection"
                ),
            )),
        }
    }

    /// Expressions over documents of this shape.
    fn at<'s>(&'s mut self, shape: &Shape, variables: &'s Variables) -> Analyser<'s, 'd, 'a> {
        Analyser::new(self.draft, self.edits, shape, variables).without(self.removed.paths())
    }

    /// What an expression assigned to a path yields. In an update it is stored there, and its constants are sealed.
    fn assigned(
        &mut self,
        path: &[u8],
        element: &Element<'a>,
        shape: &Shape,
        variables: &Variables,
    ) -> Result<Shape, Refusal> {
        let place = match &self.stored {
            Some(rules) => super::document::shape_of(&rules.resolve(path)),
            None => Shape::Plain,
        };
        self.at(shape, variables).stored(element, &place)
    }

    /// A filter over documents of this shape, planned once everything is recorded.
    fn filter(
        &mut self,
        name: &str,
        element: &Element<'a>,
        shape: Shape,
        variables: &Variables,
    ) -> Result<(), Refusal> {
        if element.kind != kind::DOCUMENT {
            return Err(super::expression::misformed(name));
        }
        self.edits.push(Edit {
            element: *element,
            change: Change::Filter {
                shape,
                variables: variables.clone(),
            },
        });
        Ok(())
    }
}
