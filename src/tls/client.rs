//! The TLS side towards MongoDB, by the options of a driver's connection string.

use std::sync::Arc;

use mongodb::options::TlsOptions;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{mistake, pem, provider};
use crate::error::Error;

/// Builds the context: `tlsCAFile` (else the Mozilla roots), `tlsCertificateKeyFile`, and, loudly,
/// `tlsAllowInvalidCertificates` or `tlsInsecure`.
pub fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file_path {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for authority in pem::certificates(path)? {
                roots.add(authority).map_err(|error| {
                    mistake(format!(
                        "{}: not a certificate authority: {error}",
                        path.display()
                    ))
                })?;
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| mistake(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots);
    let mut config = match &options.cert_key_file_path {
        None => builder.with_no_client_auth(),
        Some(path) => builder
            .with_client_auth_cert(pem::certificates(path)?, pem::private_key(path)?)
            .map_err(|error| {
                mistake(format!(
                    "{}: certificate and key cannot be used together: {error}",
                    path.display()
                ))
            })?,
    };
    if accepts_any_certificate(options) {
        tracing::warn!(
            "the upstream's certificate is NOT verified (tlsInsecure or tlsAllowInvalidCertificates in upstream.uri): \
             anybody on the way can pose as the database; set tlsCAFile instead"
        );
        config.dangerous().set_certificate_verifier(accept_any());
    }
    Ok(Arc::new(config))
}

/// Whether the options switch verification off.
pub fn accepts_any_certificate(options: &TlsOptions) -> bool {
    options.allow_invalid_certificates == Some(true)
}

/// The verifier that verifies nothing.
pub(super) fn accept_any() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AcceptAny(provider()))
}

/// Takes any certificate, as drivers do on request; that the peer holds its key is still checked.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
