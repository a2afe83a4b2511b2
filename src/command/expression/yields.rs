//! What an expression yields: constants of the command, which can still be sealed, or something of the document.

use crate::bson::{Element, kind};
use crate::policy::Shape;

/// What an expression yields.
#[derive(Clone, Debug)]
pub(crate) enum Yield<'a> {
    /// One of these constants, all of which would have to be sealed where a sealed value is expected; none at all
    /// stands for null or a missing value, which are never sealed.
    Literal(Vec<LiteralElement<'a>>),
    /// Something from the document.
    Of(Shape),
}

/// A constant in the command.
#[derive(Clone, Copy)]
pub(crate) struct LiteralElement<'a>(pub(crate) Element<'a>);

impl std::fmt::Debug for LiteralElement<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the value.
        write!(f, "literal at byte {}", self.0.start)
    }
}

impl<'a> Yield<'a> {
    pub(crate) const PLAIN: Self = Self::Of(Shape::Plain);

    pub(super) fn one(element: &Element<'a>) -> Self {
        Self::Literal(vec![LiteralElement(*element)])
    }

    /// The shape, once nobody can ask for its literals to be sealed any more.
    pub(crate) fn into_shape(self) -> Shape {
        match self {
            Self::Literal(_) => Shape::Plain,
            Self::Of(shape) => shape,
        }
    }

    /// Always null or missing.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Literal(list) if list.is_empty())
    }

    /// Nothing but the constant that `element` itself is.
    pub(super) fn is_just(&self, element: &Element<'_>) -> bool {
        match self {
            Self::Literal(list) => match list.as_slice() {
                [] => element.kind == kind::NULL,
                [one] => one.0.start == element.start,
                _ => false,
            },
            Self::Of(_) => false,
        }
    }
}
