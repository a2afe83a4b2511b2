//! Persistence of data keys: the MongoDB key vault collection, and the service that keeps the ring in step with it.

pub mod catalogue;
pub mod mongo;
pub mod service;

pub use catalogue::Catalogue;
pub use mongo::MongoStore;
pub use service::{KeyError, KeyErrorKind, KeyHealth, KeyService};
