//! Stages that bring documents together by equal keys.

use super::{Flow, Planner, order};
use crate::bson::{Element, kind};
use crate::command::expression::{Arguments, Variables, children, misformed, shapes};
use crate::policy::{Refusal, Shape, Tree};

impl<'a> Planner<'_, '_, 'a, '_> {
    pub(super) fn group(
        &mut self,
        stage: &Element<'a>,
        flow: &Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$group";
        if stage.kind != kind::DOCUMENT {
            return Err(misformed(name));
        }
        let shape = flow.shape();
        let mut tree = Tree::default();
        for field in children(stage)? {
            if tree.get(field.key).is_some() || field.key.first() == Some(&b'$') {
                return Err(misformed(name));
            }
            let yielded = if field.key == b"_id" {
                self.at(&shape, variables).grouping(name, &field)?
            } else {
                self.accumulated(name, &field, &shape, variables)?
            };
            shapes::list(&mut tree, field.key, yielded)?;
        }
        Ok(Flow::closed(tree))
    }

    pub(super) fn sort_by_count(
        &mut self,
        stage: &Element<'a>,
        flow: &Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let by = self
            .at(&flow.shape(), variables)
            .grouping("$sortByCount", stage)?;
        let mut tree = Tree::default();
        tree.set(b"_id", by);
        tree.set(b"count", Shape::Plain);
        Ok(Flow::closed(tree))
    }

    pub(super) fn bucket(
        &mut self,
        stage: &Element<'a>,
        flow: &Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$bucket";
        let named = Arguments::read(name, stage, &["groupBy", "boundaries", "default", "output"])?;
        let shape = flow.shape();
        for key in ["groupBy", "boundaries", "default"] {
            if let Some(value) = named.get(key) {
                self.at(&shape, variables).plain(name, value)?;
            }
        }
        self.buckets(name, &named, &shape, variables)
    }

    pub(super) fn bucket_auto(
        &mut self,
        stage: &Element<'a>,
        flow: &Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$bucketAuto";
        let named = Arguments::read(name, stage, &["groupBy", "buckets", "output", "granularity"])?;
        let shape = flow.shape();
        self.at(&shape, variables)
            .plain(name, named.need(name, "groupBy")?)?;
        self.buckets(name, &named, &shape, variables)
    }

    fn buckets(
        &mut self,
        name: &str,
        named: &Arguments<'a>,
        shape: &Shape,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let mut tree = Tree::default();
        tree.set(b"_id", Shape::Plain);
        match named.get("output") {
            None => tree.set(b"count", Shape::Plain),
            Some(output) => {
                for field in children(output)? {
                    let yielded = self.accumulated(name, &field, shape, variables)?;
                    shapes::list(&mut tree, field.key, yielded)?;
                }
            }
        }
        Ok(Flow::closed(tree))
    }

    /// `$setWindowFields`.
    pub(super) fn window(
        &mut self,
        stage: &Element<'a>,
        mut flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$setWindowFields";
        let named = Arguments::read(name, stage, &["partitionBy", "sortBy", "output"])?;
        let shape = flow.shape();
        if let Some(by) = named.get("partitionBy") {
            self.at(&shape, variables).grouping(name, by)?;
        }
        if let Some(by) = named.get("sortBy") {
            order::keys(name, by, &shape)?;
        }
        for field in children(named.need(name, "output")?)? {
            let parts = children(&field)?;
            let mut functions = parts.iter().filter(|part| part.key != b"window");
            let (Some(function), None) = (functions.next(), functions.next()) else {
                return Err(misformed(name));
            };
            if function.key.first() != Some(&b'$') {
                return Err(misformed(name));
            }
            let yielded = self.accumulate(function, &shape, variables)?;
            // Frames of a window are numbers, plain by nature: an expression there is refused as what it is.
            for window in parts.iter().filter(|part| part.key == b"window") {
                self.at(&shape, variables).plain(name, window)?;
            }
            flow.set(field.key, yielded)?;
        }
        Ok(flow)
    }
}
