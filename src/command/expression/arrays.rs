//! Array operators: they look at an array without looking into its elements, or bind each element to a variable.

use super::shapes::{array_of, element_of};
use super::variables::Bound;
use super::{Analyser, Arguments, Yield, children, misformed, not_plain, operands};
use crate::bson::{Element, kind};
use crate::policy::{Refusal, Shape};

impl<'a> Analyser<'_, '_, 'a> {
    /// `$size`, `$isArray`.
    pub(super) fn length(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        for operand in operands(element)? {
            let yielded = self.eval(&operand, depth + 1)?;
            Self::array_like(name, &yielded)?;
        }
        Ok(Yield::PLAIN)
    }

    /// `$first`, `$last`, `$arrayElemAt`.
    pub(super) fn one_element(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let shape = self.array_and_numbers(name, element, depth)?;
        Ok(Yield::Of(element_of(&shape)))
    }

    /// `$slice`, `$reverseArray`.
    pub(super) fn part(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        self.array_and_numbers(name, element, depth).map(Yield::Of)
    }

    fn array_and_numbers(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Shape, Refusal> {
        let list = operands(element)?;
        let [array, numbers @ ..] = list.as_slice() else {
            return Err(misformed(name));
        };
        let yielded = self.eval(array, depth + 1)?;
        Self::array_like(name, &yielded)?;
        for number in numbers {
            self.operand(name, number, depth + 1)?;
        }
        Ok(yielded.into_shape())
    }

    /// `$firstN`, `$lastN`.
    pub(super) fn part_n(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read(name, element, &["input", "n"])?;
        let yielded = self.eval(named.need(name, "input")?, depth + 1)?;
        Self::array_like(name, &yielded)?;
        self.operand(name, named.need(name, "n")?, depth + 1)?;
        Ok(Yield::Of(yielded.into_shape()))
    }

    /// `$filter`.
    pub(super) fn filter(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read(
            "$filter",
            element,
            &["input", "as", "cond", "limit", "arrayIndexAs"],
        )?;
        let array = self.input("$filter", &named, depth)?;
        if let Some(limit) = named.get("limit") {
            self.operand("$filter", limit, depth + 1)?;
        }
        let test = *named.need("$filter", "cond")?;
        let bound = Self::element_variables("$filter", &named, &array)?;
        self.scoped(bound, |this| this.condition("$filter", &test, depth + 1))?;
        Ok(Yield::Of(array))
    }

    /// `$map`.
    pub(super) fn map(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read("$map", element, &["input", "as", "in", "arrayIndexAs"])?;
        let array = self.input("$map", &named, depth)?;
        let each = *named.need("$map", "in")?;
        let bound = Self::element_variables("$map", &named, &array)?;
        let result = self.scoped(bound, |this| this.eval(&each, depth + 1))?;
        Ok(Yield::Of(array_of(&result.into_shape())))
    }

    fn input(&mut self, name: &str, named: &Arguments<'a>, depth: usize) -> Result<Shape, Refusal> {
        let yielded = self.eval(named.need(name, "input")?, depth + 1)?;
        Self::array_like(name, &yielded)?;
        Ok(yielded.into_shape())
    }

    fn element_variables(name: &str, named: &Arguments<'a>, array: &Shape) -> Result<Bound, Refusal> {
        let variable = match named.get("as") {
            Some(_) => named.string(name, "as")?,
            None => b"this",
        };
        let mut bound = vec![(variable.into(), element_of(array))];
        if named.get("arrayIndexAs").is_some() {
            bound.push((named.string(name, "arrayIndexAs")?.into(), Shape::Plain));
        }
        Ok(bound)
    }

    /// `$sortArray`.
    pub(super) fn sort_array(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read("$sortArray", element, &["input", "sortBy"])?;
        let array = self.input("$sortArray", &named, depth)?;
        let by = named.need("$sortArray", "sortBy")?;
        if by.kind == kind::DOCUMENT {
            for key in children(by)? {
                let target = crate::command::document::shape_of(&array.resolve(key.key));
                if !target.is_plain() {
                    return Err(not_plain("$sortArray", &target));
                }
            }
        } else if !array.is_plain() {
            return Err(not_plain("$sortArray", &array));
        }
        Ok(Yield::Of(array))
    }

    /// `$concatArrays`.
    pub(super) fn concat(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let mut results = Vec::new();
        for operand in operands(element)? {
            let yielded = self.eval(&operand, depth + 1)?;
            Self::array_like(name, &yielded)?;
            results.push(yielded);
        }
        Ok(self.join(results))
    }
}
