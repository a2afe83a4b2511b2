//! Branches, truth and variables.

use super::{Analyser, Arguments, Yield, children, is_operator, misformed, not_plain, operands};
use crate::bson::{Element, kind};
use crate::policy::{Refusal, Shape};

impl<'a> Analyser<'_, '_, 'a> {
    /// `$and`, `$or`, `$not`.
    pub(super) fn logic(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        for operand in operands(element)? {
            self.condition(name, &operand, depth + 1)?;
        }
        Ok(Yield::PLAIN)
    }

    /// `$cond`, in either form.
    pub(super) fn cond(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let [test, then, otherwise] = if element.kind == kind::ARRAY {
            <[Element<'a>; 3]>::try_from(children(element)?).map_err(|_| misformed("$cond"))?
        } else {
            let named = Arguments::read("$cond", element, &["if", "then", "else"])?;
            [
                *named.need("$cond", "if")?,
                *named.need("$cond", "then")?,
                *named.need("$cond", "else")?,
            ]
        };
        self.condition("$cond", &test, depth + 1)?;
        let branches = vec![self.eval(&then, depth + 1)?, self.eval(&otherwise, depth + 1)?];
        Ok(self.join(branches))
    }

    /// `$switch`.
    pub(super) fn switch(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read("$switch", element, &["branches", "default"])?;
        let mut results = Vec::new();
        for branch in children(named.need("$switch", "branches")?)? {
            let branch = Arguments::read("$switch", &branch, &["case", "then"])?;
            self.condition("$switch", branch.need("$switch", "case")?, depth + 3)?;
            results.push(self.eval(branch.need("$switch", "then")?, depth + 3)?);
        }
        if let Some(default) = named.get("default") {
            results.push(self.eval(default, depth + 1)?);
        }
        Ok(self.join(results))
    }

    /// `$ifNull`: null and missing are never sealed, so it works on anything.
    pub(super) fn if_null(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let mut results = Vec::new();
        for operand in operands(element)? {
            results.push(self.eval(&operand, depth + 1)?);
        }
        Ok(self.join(results))
    }

    /// `$let`.
    pub(super) fn bind(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read("$let", element, &["vars", "in"])?;
        let mut bound = Vec::new();
        for variable in children(named.need("$let", "vars")?)? {
            let shape = self.eval(&variable, depth + 2)?.into_shape();
            bound.push((variable.key.into(), shape));
        }
        let inner = *named.need("$let", "in")?;
        // What a variable held when it was bound can no longer be sealed with the literals inside.
        self.scoped(bound, |this| this.eval(&inner, depth + 1))
    }

    /// `$reduce`: by induction, it yields something plain where one step over a plain value does.
    pub(super) fn reduce(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let named = Arguments::read("$reduce", element, &["input", "initialValue", "in"])?;
        let input = self.eval(named.need("$reduce", "input")?, depth + 1)?;
        Self::array_like("$reduce", &input)?;
        self.operand("$reduce", named.need("$reduce", "initialValue")?, depth + 1)?;
        let item = super::shapes::element_of(&input.into_shape());
        let step = *named.need("$reduce", "in")?;
        let bound = vec![(b"this"[..].into(), item), (b"value"[..].into(), Shape::Plain)];
        let result = self
            .scoped(bound, |this| this.eval(&step, depth + 1))?
            .into_shape();
        if result.is_plain() {
            Ok(Yield::PLAIN)
        } else {
            Err(not_plain("$reduce with a protected result", &result))
        }
    }

    /// `$type`: a sealed value is always binary.
    pub(super) fn type_of(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        for operand in operands(element)? {
            let shape = self.eval(&operand, depth + 1)?.into_shape();
            if matches!(shape, Shape::Sealed(_) | Shape::Unknown) {
                return Err(not_plain(name, &shape));
            }
        }
        Ok(Yield::PLAIN)
    }

    /// The name in `$getField` and its like: a constant; `None` where it is computed.
    pub(super) fn constant_name(element: &Element<'a>) -> Result<Option<&'a [u8]>, Refusal> {
        let element = match children(element)?.as_slice() {
            [only] if is_operator(only) && (only.key == b"$literal" || only.key == b"$const") => *only,
            _ if element.kind == kind::STRING && super::string(element).first() != Some(&b'$') => *element,
            _ => return Ok(None),
        };
        Ok((element.kind == kind::STRING).then(|| super::string(&element)))
    }
}
