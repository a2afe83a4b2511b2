//! What is protected: field rules, the tree of protected paths per namespace, and every reason to refuse.
//! Knows paths and rules, not bytes: it reads no document and holds no key.

pub mod found;
pub mod map;
pub mod model;
pub mod refusal;
pub mod shape;

pub use found::Found;
pub use map::FieldMap;
pub use model::{CollectionPolicy, DeclaredType, FieldRule, FieldState, Mode};
pub use refusal::{Reason, Refusal};
pub use shape::{Rest, Shape, Target, Tree};
