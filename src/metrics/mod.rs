//! Prometheus series. Owns their names, their labels and the handles that the data path counts with; does not decide what
//! happened, opens no socket, and has no label that can hold a value of a document.
//!
//! Every label value comes from a closed list: in the code, handed in at construction, or the configuration's own field
//! paths (at most [`MAX_FIELD_SERIES`]). Whatever is not on its list counts as `other`.

mod fields;
mod labels;
pub mod names;
mod process;
mod registry;

pub use fields::{FieldSeries, FieldTable, MAX_FIELD_SERIES};
pub use labels::{ConnectionEnd, Direction, Labels, Leg, OTHER, PROVIDER_OPERATIONS, TlsVersion};
pub use registry::Metrics;
