//! The TLS side towards applications.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::WebPkiClientVerifier;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::{inspect, mistake, pem, provider};
use crate::config::Tls;
use crate::error::Error;

/// Builds the context from its PEM files. With a client authority, a client without a certificate of that authority
/// is turned away. Session tickets are on, under a key of this context's own: what was resumed before a reload has to
/// show its certificate again after it.
pub fn server_config(files: &Tls) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let chain = pem::certificates(&files.certificate)?;
    if let Some(own) = chain.first() {
        inspect::certificate(own)
            .and_then(|info| info.check_validity(SystemTime::now()))
            .map_err(|error| mistake(format!("{}: {error}", files.certificate.display())))?;
    }
    let key = pem::private_key(&files.private_key)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| mistake(format!("TLS cannot be set up: {error}")))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in pem::certificates(path)? {
                roots.add(authority).map_err(|error| {
                    mistake(format!(
                        "{}: not a certificate authority: {error}",
                        path.display()
                    ))
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| mistake(format!("{}: {error}", path.display())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(files, &error))?;
    config.ticketer =
        Ticketer::new().map_err(|error| mistake(format!("TLS session tickets cannot be set up: {error}")))?;
    Ok(Arc::new(config))
}

fn unusable(files: &Tls, error: &rustls::Error) -> Error {
    let (certificate, key) = (files.certificate.display(), files.private_key.display());
    mistake(match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "the private key {key} does not belong to the certificate {certificate}: \
             install the pair that was made together, the server's own certificate first in its file"
        ),
        other => format!("the certificate {certificate} and the key {key} cannot be used: {other}"),
    })
}
