//! What a certificate says and what a handshake agreed on, for `check` and for warnings ahead of expiry.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, ClientConnection, CommonState, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;

use super::{mistake, pem, provider};
use crate::error::Error;

/// What matters of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject, as a distinguished name.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The host names and IP addresses that it is good for.
    pub names: Vec<String>,
    /// First moment of its validity.
    pub not_before: SystemTime,
    /// Last moment of its validity.
    pub not_after: SystemTime,
}

/// What two sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: String,
    /// The cipher suite's name.
    pub cipher: String,
    /// The certificate that the peer showed.
    pub peer: Option<Certificate>,
}

impl Certificate {
    /// Whole days until it expires; negative once it has.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (OffsetDateTime::from(self.not_after) - OffsetDateTime::from(now))
            .whole_seconds()
            .div_euclid(86_400)
    }

    /// When it expires, in seconds of Unix time.
    pub fn expiry(&self) -> i64 {
        OffsetDateTime::from(self.not_after).unix_timestamp()
    }

    /// The day it expires on, in UTC: `2027-12-23`.
    pub fn last_day(&self) -> String {
        OffsetDateTime::from(self.not_after).date().to_string()
    }

    /// Whether it is valid now; the error says what to do.
    pub fn check_validity(&self, now: SystemTime) -> Result<(), Error> {
        if now > self.not_after {
            return Err(mistake(format!(
                "the certificate expired on {}: install a new one (a running process takes it up on SIGHUP)",
                self.last_day()
            )));
        }
        if now < self.not_before {
            return Err(mistake(format!(
                "the certificate is not valid before {}: check this machine's clock",
                OffsetDateTime::from(self.not_before)
            )));
        }
        Ok(())
    }
}

/// Reads a certificate.
pub fn certificate(der: &CertificateDer<'_>) -> Result<Certificate, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| mistake("this is not an X.509 certificate: make or copy it again"))?;
    let mut names = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.extend(ip_address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
    }
    Ok(Certificate {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        names,
        not_before: parsed.validity().not_before.to_datetime().into(),
        not_after: parsed.validity().not_after.to_datetime().into(),
    })
}

/// When the certificate expires that a finished handshake showed, in seconds of Unix time.
pub fn peer_expiry(connection: &CommonState) -> Option<i64> {
    let own = connection.peer_certificates()?.first()?;
    Some(certificate(own).ok()?.expiry())
}

/// Reads the first certificate of a PEM file: the server's own.
pub fn certificate_file(path: &Path) -> Result<Certificate, Error> {
    let chain = pem::certificates(path)?;
    let own = chain
        .first()
        .ok_or_else(|| mistake(format!("{} holds no certificate", path.display())))?;
    certificate(own).map_err(|error| mistake(format!("{}: {error}", path.display())))
}

/// What a finished handshake agreed on; `None` while it is not finished.
pub fn handshake(connection: &CommonState) -> Option<Handshake> {
    Some(Handshake {
        version: format!("{:?}", connection.protocol_version()?),
        cipher: format!("{:?}", connection.negotiated_cipher_suite()?.suite()),
        peer: connection
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|own| certificate(own).ok()),
    })
}

/// Does a handshake in memory between this context and a client that takes its certificate unseen, so that what an
/// application will meet is known before one comes. A context that wants client certificates cannot be rehearsed.
pub fn rehearse(server: Arc<ServerConfig>) -> Result<Handshake, Error> {
    let failed =
        |error: rustls::Error| mistake(format!("a TLS handshake with this certificate fails: {error}"));
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(super::client::accept_any())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(|_| mistake("`localhost` is not a name"))?;
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(failed)?;
    let mut server = ServerConnection::new(server).map_err(failed)?;
    // A full handshake takes three flights; more means that it hangs.
    for _ in 0..8 {
        flight(&mut client, &mut server).map_err(failed)?;
        flight(&mut server, &mut client).map_err(failed)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            break;
        }
    }
    handshake(&client).ok_or_else(|| mistake("a TLS handshake with this certificate does not finish"))
}

/// Moves what one side has to say to the other.
fn flight<A, B>(
    from: &mut (impl std::ops::DerefMut<Target = rustls::ConnectionCommon<A>> + ?Sized),
    to: &mut (impl std::ops::DerefMut<Target = rustls::ConnectionCommon<B>> + ?Sized),
) -> Result<(), rustls::Error> {
    let io = |error: std::io::Error| rustls::Error::General(error.to_string());
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).map_err(io)?;
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).map_err(io)?;
        to.process_new_packets()?;
    }
    Ok(())
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
