//! Stages that bring in documents of other collections, or run several pipelines over the same ones.

use super::scan::{Target, array_of};
use super::{Flow, Planner, Removed, reshape};
use crate::bson::{Element, kind};
use crate::command::expression::{Arguments, Variables, children, misformed, shapes};
use crate::policy::{Refusal, Rest, Shape, Tree};

impl<'a> Planner<'_, '_, 'a, '_> {
    /// `$lookup`, with fields, with a pipeline, or with both.
    pub(super) fn lookup(
        &mut self,
        stage: &Element<'a>,
        mut flow: Flow,
        variables: &Variables,
        depth: usize,
    ) -> Result<Flow, Refusal> {
        let name = "$lookup";
        let named = Arguments::read(
            name,
            stage,
            &["from", "localField", "foreignField", "let", "pipeline", "as"],
        )?;
        let here = flow.shape();
        let foreign = match named.get("from") {
            Some(from) => Target::read(from, self.ctx)?.shape(),
            // A pipeline that starts with `$documents`.
            None => Shape::Plain,
        };
        match (named.get("localField"), named.get("foreignField")) {
            (Some(_), Some(_)) => {
                let local = reshape::at_path(&here, named.string(name, "localField")?)?;
                let other = reshape::at_path(&foreign, named.string(name, "foreignField")?)?;
                self.at(&here, variables).joinable(name, &local, &other)?;
            }
            (None, None) => {}
            _ => return Err(misformed(name)),
        }
        let mut inner = variables.clone();
        if let Some(bound) = named.get("let") {
            for variable in children(bound)? {
                let shape = self.at(&here, variables).expression(&variable)?;
                inner.bind(variable.key, shape)?;
            }
        }
        let mut joined = Flow::open(foreign);
        if let Some(pipeline) = named.get("pipeline") {
            let array = array_of(name, pipeline)?;
            joined = self.stages(&array, joined, &inner, depth + 1)?;
        }
        let place = named.string(name, "as")?;
        flow.set(place, joined.shape())?;
        flow.removed = flow.removed.and(joined.removed.below(place));
        Ok(flow)
    }

    /// `$graphLookup`: every step is a join by equality.
    pub(super) fn graph_lookup(
        &mut self,
        stage: &Element<'a>,
        mut flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$graphLookup";
        let named = Arguments::read(
            name,
            stage,
            &[
                "from",
                "startWith",
                "connectFromField",
                "connectToField",
                "as",
                "maxDepth",
                "depthField",
                "restrictSearchWithMatch",
            ],
        )?;
        let here = flow.shape();
        let foreign = Target::read(named.need(name, "from")?, self.ctx)?.shape();
        let to = reshape::at_path(&foreign, named.string(name, "connectToField")?)?;
        let from = reshape::at_path(&foreign, named.string(name, "connectFromField")?)?;
        self.at(&here, variables)
            .joins(name, named.need(name, "startWith")?, &to)?;
        self.at(&here, variables).joinable(name, &from, &to)?;
        if let Some(filter) = named.get("restrictSearchWithMatch") {
            self.filter(name, filter, foreign.clone(), variables)?;
        }
        let mut found = Flow::open(foreign);
        if named.get("depthField").is_some() {
            found.set(named.string(name, "depthField")?, Shape::Plain)?;
        }
        flow.set(named.string(name, "as")?, found.shape())?;
        Ok(flow)
    }

    pub(super) fn union_with(
        &mut self,
        stage: &Element<'a>,
        flow: Flow,
        variables: &Variables,
        depth: usize,
    ) -> Result<Flow, Refusal> {
        let name = "$unionWith";
        if stage.kind == kind::STRING {
            let other = Flow::open(Target::read(stage, self.ctx)?.shape());
            return union(&flow, &other);
        }
        let named = Arguments::read(name, stage, &["db", "coll", "pipeline"])?;
        let foreign = match named.get("coll") {
            Some(_) => Target::read(stage, self.ctx)?.shape(),
            None => Shape::Plain,
        };
        let mut other = Flow::open(foreign);
        if let Some(pipeline) = named.get("pipeline") {
            let array = array_of(name, pipeline)?;
            other = self.stages(&array, other, variables, depth + 1)?;
        }
        union(&flow, &other)
    }

    pub(super) fn facet(
        &mut self,
        stage: &Element<'a>,
        flow: &Flow,
        variables: &Variables,
        depth: usize,
    ) -> Result<Flow, Refusal> {
        if stage.kind != kind::DOCUMENT {
            return Err(misformed("$facet"));
        }
        let (mut tree, mut removed) = (Tree::default(), Removed::default());
        for branch in children(stage)? {
            if tree.get(branch.key).is_some() {
                return Err(misformed("$facet"));
            }
            let array = array_of("$facet", &branch)?;
            let yielded = self.stages(&array, flow.copy(), variables, depth + 1)?;
            shapes::list(&mut tree, branch.key, yielded.shape())?;
            removed = removed.and(yielded.removed.below(branch.key));
        }
        let mut flow = Flow::closed(tree);
        flow.removed = removed;
        Ok(flow)
    }
}

/// Documents that come from either side. A field that one side is known not to have is what the other says.
fn union(a: &Flow, b: &Flow) -> Result<Flow, Refusal> {
    let (Some(left), Some(right)) = (&a.tree, &b.tree) else {
        return Ok(Flow::open(Shape::Unknown));
    };
    let unknown = left.rest() == Rest::Unknown || right.rest() == Rest::Unknown;
    let mut tree = Tree::new(if unknown { Rest::Unknown } else { Rest::Plain }, []);
    for (key, shape) in left.fields() {
        let merged = match right.get(key) {
            None if b.closed => shape.clone(),
            _ => shapes::merge(shape, &right.child(key)),
        };
        shapes::list(&mut tree, key, merged)?;
    }
    for (key, shape) in right.fields() {
        if left.get(key).is_none() {
            let merged = if a.closed {
                shape.clone()
            } else {
                shapes::merge(&left.child(key), shape)
            };
            shapes::list(&mut tree, key, merged)?;
        }
    }
    Ok(Flow {
        tree: Some(tree),
        closed: a.closed && b.closed,
        removed: Removed::before(b),
    })
}
