//! `aggregate`.
use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::policy::{Reason, Refusal};
/// Plans the command.
///
/// # Errors
/// A [`Refusal`].
pub fn plan<'a>(_view: &CommandView<'a>, scope: &Scope<'_>, _draft: &mut Draft<'a>) -> Result<(), Refusal> {
    if scope.policy.is_some() { Err(Refusal::new(Reason::Stage, "not yet")) } else { Ok(()) }
}
