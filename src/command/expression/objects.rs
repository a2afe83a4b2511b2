//! Operators on whole documents: merged, taken apart, or with one field read or set by name.

use super::arguments::dotted_name;
use super::shapes::{self, bounded, merge, normal, tree_of};
use super::{Analyser, Arguments, Yield, children, is_operator, misformed, not_plain, operands, written};
use crate::bson::{Element, kind};
use crate::policy::{Refusal, Rest, Shape, Tree};

impl<'a> Analyser<'_, '_, 'a> {
    /// `$mergeObjects`: a later document's fields replace an earlier one's, where it has them.
    pub(super) fn merge_objects(
        &mut self,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let mut merged = Merged::default();
        for operand in operands(element)? {
            let fields = written(&operand)?;
            if operand.kind == kind::DOCUMENT && !fields.iter().any(is_operator) {
                for field in fields {
                    let yielded = self.eval(&field, depth + 2)?;
                    // A missing value leaves the earlier one; only a constant is sure to be there.
                    let is_there = match &yielded {
                        Yield::Literal(list) => !list.is_empty() || field.kind == kind::NULL,
                        Yield::Of(_) => false,
                    };
                    merged.field(field.key, yielded.into_shape(), is_there)?;
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
        Ok(Yield::Of(bounded(normal(merged.tree))))
    }

    /// `$objectToArray`: the values of all fields stand in one place.
    pub(super) fn object_to_array(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let list = operands(element)?;
        let [object] = list.as_slice() else {
            return Err(misformed(name));
        };
        let shape = self.eval(object, depth + 1)?.into_shape();
        match &shape {
            Shape::Plain => Ok(Yield::PLAIN),
            Shape::Tree(_) => {
                let pair = Tree::new(Rest::Plain, [(b"v"[..].into(), Shape::Unknown)]);
                Ok(Yield::Of(normal(pair)))
            }
            Shape::Sealed(_) | Shape::Unknown => Err(not_plain(name, &shape)),
        }
    }

    /// `$arrayToObject`: the keys come from the data, so where a value ends up cannot be told.
    pub(super) fn array_to_object(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let list = operands(element)?;
        let mut result = Shape::Plain;
        for operand in list {
            let shape = self.eval(&operand, depth + 1)?.into_shape();
            match &shape {
                Shape::Plain => {}
                Shape::Tree(tree) if tree.child(b"k").is_plain() => result = Shape::Unknown,
                _ => return Err(not_plain(name, &shape)),
            }
        }
        Ok(Yield::Of(result))
    }

    /// `$getField`, in either form.
    pub(super) fn get_field(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let name = "$getField";
        let fields = children(element)?;
        let is_named = fields.iter().any(|f| f.key == b"field");
        let (field, input, of_the_document) = if element.kind == kind::DOCUMENT && is_named {
            let named = Arguments::read(name, element, &["field", "input"])?;
            let field = *named.need(name, "field")?;
            match named.get("input") {
                Some(input) if !matches!(super::string(input), b"$$ROOT" | b"$$CURRENT") => {
                    (field, self.eval(input, depth + 1)?.into_shape(), false)
                }
                Some(input) => (field, self.eval(input, depth + 1)?.into_shape(), true),
                None => (field, self.current.clone(), true),
            }
        } else {
            (*element, self.current.clone(), true)
        };
        let key = Self::constant_name(&field)?;
        if let Some(key) = key.filter(|_| of_the_document) {
            self.refuse_removed(key)?;
        }
        match (key, &input) {
            (_, Shape::Sealed(_) | Shape::Unknown) => Err(not_plain(name, &input)),
            (Some(key), Shape::Tree(tree)) => {
                let dotted = tree
                    .get(shapes::DOTTED)
                    .filter(|_| key.contains(&b'.') && tree.get(key).is_none());
                self.found(dotted.cloned().unwrap_or_else(|| tree.child(key)))
            }
            (Some(_), Shape::Plain) => Ok(Yield::PLAIN),
            (None, _) if input.is_plain() => self.operand(name, &field, depth + 1).map(|()| Yield::PLAIN),
            (None, _) => Err(not_plain("$getField with a computed name", &input)),
        }
    }

    /// `$setField`.
    pub(super) fn set_field(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read("$setField", element, &["field", "input", "value"])?;
        let (key, mut tree) = self.field_of("$setField", &named, depth)?;
        let value = self.eval(named.need("$setField", "value")?, depth + 1)?;
        shapes::list(&mut tree, key, value.into_shape())?;
        Ok(Yield::Of(bounded(normal(tree))))
    }

    /// `$unsetField`.
    pub(super) fn unset_field(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read("$unsetField", element, &["field", "input"])?;
        let (key, mut tree) = self.field_of("$unsetField", &named, depth)?;
        tree.remove(key);
        Ok(Yield::Of(normal(tree)))
    }

    pub(super) fn field_of(
        &mut self,
        name: &str,
        named: &Arguments<'a>,
        depth: usize,
    ) -> Result<(&'a [u8], Tree), Refusal> {
        let input = self.eval(named.need(name, "input")?, depth + 1)?.into_shape();
        let tree = tree_of(&input).ok_or_else(|| not_plain(name, &input))?;
        let key = Self::constant_name(named.need(name, "field")?)?.ok_or_else(|| misformed(name))?;
        if key == shapes::DOTTED && tree.get(key).is_some() {
            return Err(not_plain(name, &Shape::Unknown));
        }
        // Legal here, and one key to the server: but it would read like a path ever after.
        if key.contains(&b'.') || key.first() == Some(&b'$') {
            return Err(dotted_name(key));
        }
        Ok((key, tree))
    }
}

/// Documents merged so far.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) tree: Tree,
    /// A document with fields that nobody listed has been merged.
    open: bool,
}

impl Merged {
    /// One more field; a value that is not there for certain leaves what an earlier document had.
    pub(super) fn field(&mut self, key: &[u8], shape: Shape, is_there: bool) -> Result<(), Refusal> {
        let is_new = !self.open && self.tree.get(key).is_none();
        let shape = if is_there || is_new {
            shape
        } else {
            merge(&self.tree.child(key), &shape)
        };
        shapes::list(&mut self.tree, key, shape)
    }

    /// All fields of one more document.
    pub(super) fn document(&mut self, other: &Tree) -> Result<(), Refusal> {
        let rest = if self.tree.rest() == Rest::Unknown || other.rest() == Rest::Unknown {
            Rest::Unknown
        } else {
            Rest::Plain
        };
        let mut merged = Tree::new(rest, []);
        for (key, shape) in self.tree.fields() {
            shapes::list(&mut merged, key, merge(shape, &other.child(key)))?;
        }
        for (key, shape) in other.fields() {
            if self.tree.get(key).is_none() {
                let shape = if self.open {
                    merge(&self.tree.child(key), shape)
                } else {
                    shape.clone()
                };
                shapes::list(&mut merged, key, shape)?;
            }
        }
        self.tree = merged;
        self.open = true;
        Ok(())
    }
}
