//! Aggregation expressions, tracked symbolically: what each expression yields is plain, sealed by a rule, or unknown.

use crate::bson::Element;
use crate::plan::Draft;
use crate::policy::{Refusal, Shape};

/// Variables in scope (`let`, `$$this`, …) and what they hold.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    names: Vec<(Box<[u8]>, Shape)>,
}

/// Plans one expression over documents of this shape; returns what it yields.
///
/// # Errors
/// A [`Refusal`] naming the expression and the field.
pub fn plan(
    _draft: &mut Draft<'_>,
    element: &Element<'_>,
    shape: &Shape,
    _variables: &Variables,
) -> Result<Shape, Refusal> {
    if shape.is_plain() {
        Ok(Shape::Plain)
    } else {
        Err(Refusal::new(
            crate::policy::Reason::Expression,
            element.key_text(),
        ))
    }
}

impl Variables {
    /// Binds a name (without `$$`) to what it holds.
    pub fn bind(&mut self, name: &[u8], shape: Shape) {
        self.names.push((name.into(), shape));
    }
}
