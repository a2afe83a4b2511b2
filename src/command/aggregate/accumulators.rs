//! Accumulators and window functions, and what each yields over sealed values: one closed table. Source: the server
//! manual's lists; SEMANTICS B1.5.

use super::{Planner, order};
use crate::bson::{Element, kind};
use crate::command::expression::shapes::{array_of, merge};
use crate::command::expression::{Arguments, Variables, children, misformed, not_plain};
use crate::policy::{Reason, Refusal, Shape};

/// How an accumulator is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Computes: operands must be plain.
    Values,
    /// Hands on what it is given, alone or in an array.
    Keep,
    /// `$firstN`, `$lastN`: as [`Kind::Keep`], with named arguments.
    KeepN,
    /// Tells values apart by equality.
    Set,
    /// `$top` and its like: hands on `output`, ordered by `sortBy`.
    Top,
    /// `$shift`.
    Shift,
    /// Takes no value of its own.
    Position,
    /// Runs code.
    Never,
}

/// The closed table, in alphabetical order.
pub const ACCUMULATORS: &[(&str, Kind)] = &[
    ("$accumulator", Kind::Never),
    ("$addToSet", Kind::Set),
    ("$avg", Kind::Values),
    ("$bottom", Kind::Top),
    ("$bottomN", Kind::Top),
    ("$concatArrays", Kind::Keep),
    ("$count", Kind::Position),
    ("$covariancePop", Kind::Values),
    ("$covarianceSamp", Kind::Values),
    ("$denseRank", Kind::Position),
    ("$derivative", Kind::Values),
    ("$documentNumber", Kind::Position),
    ("$expMovingAvg", Kind::Values),
    ("$first", Kind::Keep),
    ("$firstN", Kind::KeepN),
    ("$integral", Kind::Values),
    ("$last", Kind::Keep),
    ("$lastN", Kind::KeepN),
    ("$linearFill", Kind::Values),
    ("$locf", Kind::Keep),
    ("$max", Kind::Values),
    ("$maxN", Kind::Values),
    ("$median", Kind::Values),
    ("$mergeObjects", Kind::Keep),
    ("$min", Kind::Values),
    ("$minMaxScaler", Kind::Values),
    ("$minN", Kind::Values),
    ("$percentile", Kind::Values),
    ("$push", Kind::Keep),
    ("$rank", Kind::Position),
    ("$setUnion", Kind::Set),
    ("$shift", Kind::Shift),
    ("$stdDevPop", Kind::Values),
    ("$stdDevSamp", Kind::Values),
    ("$sum", Kind::Values),
    ("$top", Kind::Top),
    ("$topN", Kind::Top),
];

/// The row of an accumulator; `None` where the table does not know it.
pub fn kind_of(name: &[u8]) -> Option<Kind> {
    ACCUMULATORS
        .binary_search_by(|(known, _)| known.as_bytes().cmp(name))
        .ok()
        .and_then(|at| ACCUMULATORS.get(at))
        .map(|(_, kind)| *kind)
}

impl<'a> Planner<'_, '_, 'a, '_> {
    /// What `{$accumulator: …}` yields over documents of this shape.
    pub(super) fn accumulate(
        &mut self,
        accumulator: &Element<'a>,
        shape: &Shape,
        variables: &Variables,
    ) -> Result<Shape, Refusal> {
        let name = &*accumulator.key_text();
        let Some(kind) = kind_of(accumulator.key) else {
            return Err(Refusal::new(
                Reason::Expression,
                format!("accumulator {name} is not known where protected fields are in play; use another"),
            ));
        };
        match kind {
            Kind::Position => Ok(Shape::Plain),
            Kind::Never => Err(Refusal::new(
                Reason::Unanalysable,
                format!(
                    "accumulator {name} runs code that cannot be analysed and is not supported where protected fields are in play; use other accumulators"
                ),
            )),
            Kind::Values => {
                self.at(shape, variables).values(name, accumulator)?;
                Ok(Shape::Plain)
            }
            Kind::Keep => {
                let yielded = self.at(shape, variables).expression(accumulator)?;
                let opaque = matches!(&yielded, Shape::Sealed(rule) if !rule.seals_elements());
                match accumulator.key {
                    b"$concatArrays" if opaque || matches!(yielded, Shape::Unknown) => {
                        Err(not_plain(name, &yielded))
                    }
                    b"$mergeObjects" if matches!(yielded, Shape::Sealed(_) | Shape::Unknown) => {
                        Err(not_plain(name, &yielded))
                    }
                    b"$push" => Ok(array_of(&yielded)),
                    _ => Ok(yielded),
                }
            }
            Kind::KeepN => {
                let named = Arguments::read(name, accumulator, &["input", "n"])?;
                self.at(shape, variables).plain(name, named.need(name, "n")?)?;
                let yielded = self.at(shape, variables).expression(named.need(name, "input")?)?;
                Ok(array_of(&yielded))
            }
            Kind::Set => self.at(shape, variables).grouping(name, accumulator),
            Kind::Top => {
                let named = Arguments::read(name, accumulator, &["sortBy", "output", "n"])?;
                order::keys(name, named.need(name, "sortBy")?, shape)?;
                let yielded = self
                    .at(shape, variables)
                    .expression(named.need(name, "output")?)?;
                let Some(n) = named.get("n") else {
                    return Ok(yielded);
                };
                self.at(shape, variables).plain(name, n)?;
                Ok(array_of(&yielded))
            }
            Kind::Shift => {
                let named = Arguments::read(name, accumulator, &["output", "by", "default"])?;
                let output = self
                    .at(shape, variables)
                    .expression(named.need(name, "output")?)?;
                match named.get("default").filter(|default| default.kind != kind::NULL) {
                    None => Ok(output),
                    Some(default) => {
                        let other = self.at(shape, variables).expression(default)?;
                        Ok(merge(&output, &other))
                    }
                }
            }
        }
    }

    /// Fields computed by accumulators, as in `$group`.
    pub(super) fn accumulated(
        &mut self,
        name: &str,
        field: &Element<'a>,
        shape: &Shape,
        variables: &Variables,
    ) -> Result<Shape, Refusal> {
        let inner = children(field)?;
        match inner.as_slice() {
            [accumulator] if accumulator.key.first() == Some(&b'$') => {
                self.accumulate(accumulator, shape, variables)
            }
            _ => Err(misformed(name)),
        }
    }
}
