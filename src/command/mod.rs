//! What each MongoDB command means for protected fields: one planner per command, one closed table of verdicts.

pub mod aggregate;
pub mod document;
pub mod expression;
pub mod filter;
pub mod view;

#[cfg(test)]
pub(crate) mod rehearsal;

pub use view::CommandView;
