//! The admin HTTP listener. Owns liveness, readiness and the exposition of metrics; shows no document, takes no command,
//! and has no way to change anything.
//!
//! | route | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process answers at all |
//! | `GET /readyz` | 200 when every latch is closed, else 503; the body names what is missing |
//! | `GET /metrics` | Prometheus text format 0.0.4 |

mod readiness;
mod routes;
mod server;

pub use readiness::{Latch, Readiness};
pub use routes::Admin;
pub use server::AdminServer;
