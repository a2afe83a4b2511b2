//! Expressions whose value is stored: what is constant in them is sealed by the rules of the place that it is stored
//! in. Owns no judgement of the rest: whoever stores compares what is yielded with those rules.

use super::objects::Merged;
use super::shapes::{self, bounded, normal, tree_of};
use super::{Analyser, Arguments, Yield, is_operator, not_plain, operands, written};
use crate::bson::{Element, kind};
use crate::policy::shape::is_position;
use crate::policy::{Refusal, Shape, Tree};

impl<'a> Analyser<'_, '_, 'a> {
    /// What the expression in `element` yields, stored where `place` says what belongs.
    pub(crate) fn stored(&mut self, element: &Element<'a>, place: &Shape) -> Result<Shape, Refusal> {
        self.store(element, place, 1).map(|(shape, _)| shape)
    }

    /// The shape, and whether a value is there for certain.
    fn store(
        &mut self,
        element: &Element<'a>,
        place: &Shape,
        depth: usize,
    ) -> Result<(Shape, bool), Refusal> {
        if let (kind::DOCUMENT, Shape::Tree(tree)) = (element.kind, place) {
            let fields = written(element)?;
            match fields.as_slice() {
                [] => {}
                [only] if only.key == b"$mergeObjects" => {
                    return self
                        .store_merged(only, tree, depth + 1)
                        .map(|shape| (shape, true));
                }
                [only] if only.key == b"$setField" => {
                    return self
                        .store_set_field(only, tree, depth + 1)
                        .map(|shape| (shape, true));
                }
                fields if fields.iter().any(is_operator) => {}
                fields => {
                    return self
                        .store_object(fields, tree, depth + 1)
                        .map(|shape| (shape, true));
                }
            }
        }
        match self.eval(element, depth)? {
            Yield::Literal(list) => {
                let is_there = !list.is_empty() || element.kind == kind::NULL;
                if matches!(place, Shape::Plain | Shape::Unknown) {
                    return Ok((Shape::Plain, is_there));
                }
                self.seal_all(&list, place);
                Ok((place.clone(), is_there))
            }
            Yield::Of(shape) => Ok((shape, false)),
        }
    }

    /// A document written out: it has these fields and no other.
    fn store_object(&mut self, fields: &[Element<'a>], place: &Tree, depth: usize) -> Result<Shape, Refusal> {
        let mut tree = Tree::default();
        for field in fields {
            let (shape, _) = self.store(field, &inside(place, field.key), depth)?;
            let shape = match tree.get(field.key) {
                Some(earlier) => shapes::merge(earlier, &shape),
                None => shape,
            };
            shapes::list(&mut tree, field.key, shape)?;
        }
        for (key, belongs) in place.fields() {
            // What is missing fits everywhere.
            if tree.get(key).is_none() {
                shapes::list(&mut tree, key, belongs.clone())?;
            }
        }
        Ok(bounded(normal(tree)))
    }

    /// `$setField`: what it sets belongs where the field is, also where a later stage drops it again.
    fn store_set_field(
        &mut self,
        element: &Element<'a>,
        place: &Tree,
        depth: usize,
    ) -> Result<Shape, Refusal> {
        let named = Arguments::read("$setField", element, &["field", "input", "value"])?;
        let (key, mut tree) = self.field_of("$setField", &named, depth)?;
        let value = named.need("$setField", "value")?;
        let (shape, _) = self.store(value, &inside(place, key), depth + 1)?;
        shapes::list(&mut tree, key, shape)?;
        Ok(bounded(normal(tree)))
    }

    /// `$mergeObjects`, as in `{$mergeObjects: ["$$ROOT", {status: "closed"}]}`.
    fn store_merged(&mut self, element: &Element<'a>, place: &Tree, depth: usize) -> Result<Shape, Refusal> {
        let mut merged = Merged::default();
        for operand in operands(element)? {
            let fields = written(&operand)?;
            if operand.kind == kind::DOCUMENT && !fields.iter().any(is_operator) {
                for field in fields {
                    let (shape, is_there) = self.store(&field, &inside(place, field.key), depth + 2)?;
                    merged.field(field.key, shape, is_there)?;
                }
                continue;
            }
            let yielded = self.eval(&operand, depth + 1)?;
            if yielded.is_null() {
                continue;
            }
            let shape = yielded.into_shape();
            match tree_of(&shape) {
                Some(tree) => merged.document(&tree)?,
                None => return Err(not_plain("$mergeObjects", &shape)),
            }
        }
        Ok(bounded(normal(merged.tree)))
    }
}

/// What belongs under a key of a stored document. A number may be an array position as well as a key, as it is to
/// [`crate::command::document::seal_document`].
fn inside(place: &Tree, key: &[u8]) -> Shape {
    match place.get(key) {
        Some(shape) => shape.clone(),
        None if is_position(key) => normal(place.to_owned_tree()),
        None => Shape::Plain,
    }
}
