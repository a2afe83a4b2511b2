//! What drivers learn about the deployment, rewritten to the proxy's own addresses and limits. Owns the map between
//! members and listeners, the hello document, both ways, and the addresses in other replies; no frame, no socket.
//!
//! What it promises: no address that is not a listener of ours reaches a driver through hello, and every field that is
//! not named here passes byte for byte.

mod copier;
pub mod deployment;
pub mod hello;
pub mod hosts;
pub mod names;
pub mod ports;
mod statistics;
mod stranger;

pub use deployment::{Deployment, DeploymentKind};
pub use hello::{HelloFacts, facts, rewrite, rewrite_request};
pub use hosts::{Address, HostMap, HostMapError, Listener};
pub use names::{Names, Scope};
pub use ports::Ports;
