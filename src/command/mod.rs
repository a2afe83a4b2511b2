//! What each MongoDB command means for protected fields: one planner per command, one closed table of verdicts.

pub mod document;
pub mod expression;
pub mod filter;
pub mod view;

pub use view::CommandView;
