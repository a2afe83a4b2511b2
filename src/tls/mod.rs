//! TLS on both sides: contexts built from PEM files, swapped on reload, and looked at for `check`. Owns files and
//! certificates, no socket: whoever holds the connection does the handshake.
//!
//! TLS 1.2 and 1.3 only, with the cipher suites of rustls (all of them AEAD with forward secrecy), by aws-lc-rs.

pub mod client;
pub mod inspect;
mod pem;
pub mod reload;
pub mod server;
pub mod upstream;

#[cfg(test)]
mod tests;

pub use client::client_config;
pub use inspect::certificate_file;
pub use reload::ServerTls;
pub use server::server_config;
pub use upstream::{Target, Upstream};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::{Error, Fault};

/// The one provider of cryptography for TLS; named in every context, so no process-wide default is needed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn mistake(text: impl Into<String>) -> Error {
    Error::new(Fault::Operator, text)
}
