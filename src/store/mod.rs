//! Persistence of data keys: the MongoDB key vault collection, and the service that keeps the ring in step with it.

pub mod catalogue;
mod failure;
mod leases;
pub mod members;
pub mod mongo;
pub mod service;
mod watch;

pub use catalogue::Catalogue;
pub use failure::{KeyError, KeyErrorKind};
pub use members::Members;
pub use mongo::MongoStore;
pub use service::{KeyHealth, KeyService};
