//! What hello tells a driver about the deployment, rewritten to the proxy's own addresses and limits. Owns the map
//! between members and listeners and the hello document, both ways; no frame, no socket, no other command.
//!
//! What it promises: no address that is not a listener of ours reaches a driver through hello, and every field that is
//! not named here passes byte for byte.

pub mod hello;
pub mod hosts;

pub use hello::{HelloFacts, facts, rewrite, rewrite_request};
pub use hosts::{Address, HostMap, HostMapError, Listener};
