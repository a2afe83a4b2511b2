//! Variables in scope, and what they hold.

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::{Reason, Refusal, Shape};

/// Most variables that one `let` binds, and most that nest.
pub(super) const MAX_VARIABLES: usize = 1000;

/// Variables that an operator binds, in order.
pub(super) type Bound = Vec<(Box<[u8]>, Shape)>;

/// Variables in scope (`let`, `$$this`, …) and what they hold, and the collation that comparisons are made under.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    names: Arc<HashMap<Box<[u8]>, Shape>>,
    collation: bool,
}

impl Variables {
    /// Variables under a command whose collation is other than `simple`: equality on sealed strings is then refused.
    pub fn with_collation(collation: bool) -> Self {
        Self {
            names: Arc::default(),
            collation,
        }
    }

    /// Binds a variable; an earlier one of the same name is hidden.
    ///
    /// # Errors
    /// A [`Refusal`] past 1000 variables, and for names of system variables.
    pub fn bind(&mut self, name: &[u8], shape: Shape) -> Result<(), Refusal> {
        refuse_system_name(name)?;
        if self.names.len() >= MAX_VARIABLES {
            return Err(Refusal::new(
                Reason::Limit,
                "more than 1000 variables are in scope; bind fewer",
            ));
        }
        Arc::make_mut(&mut self.names).insert(name.into(), shape);
        Ok(())
    }

    /// What a variable holds; `None` where it is not bound.
    pub fn get(&self, name: &[u8]) -> Option<&Shape> {
        self.names.get(name)
    }

    /// Whether the command's collation is other than `simple`.
    pub fn collation(&self) -> bool {
        self.collation
    }

    pub(super) fn all_plain(&self) -> bool {
        self.names.values().all(Shape::is_plain)
    }
}

/// The server lets a user bind `CURRENT`, which changes what every path means.
pub(super) fn refuse_system_name(name: &[u8]) -> Result<(), Refusal> {
    if name.first().is_some_and(u8::is_ascii_uppercase) {
        return Err(Refusal::new(
            Reason::Expression,
            "binding CURRENT or another system variable is not supported where protected fields are in play; bind a name of your own",
        ));
    }
    Ok(())
}
