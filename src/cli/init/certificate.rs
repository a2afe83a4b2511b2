//! A server certificate for development, signed by an authority whose key is thrown away: whoever trusts that
//! authority trusts this one certificate and can be fooled by no other.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::cli::hint::Failure;

/// How long it is good for; longer ones are refused by some clients.
pub(super) const DAYS: i64 = 397;

/// PEM texts, and the names that the certificate is good for.
pub(super) struct Made {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: zeroize::Zeroizing<String>,
    pub(super) names: Vec<String>,
}

pub(super) fn make(hosts: &[String]) -> Result<Made, Failure> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    for host in hosts {
        if !names.contains(host) {
            names.push(host.clone());
        }
    }
    build(names).map_err(|error| {
        Failure::usage(
            format!("no certificate can be made: {error}"),
            "give each --host as a plain host name or an IP address",
        )
    })
}

fn build(names: Vec<String>) -> Result<Made, rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    let validity = |params: &mut CertificateParams, name: &str| {
        // An hour back: other clocks may be behind this one.
        params.not_before = now - Duration::hours(1);
        params.not_after = now + Duration::days(DAYS);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let mut authority = CertificateParams::new([])?;
    validity(&mut authority, "fieldveil development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(names.clone())?;
    validity(&mut server, "fieldveil");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    Ok(Made {
        authority: authority.pem(),
        certificate: certificate.pem(),
        key: zeroize::Zeroizing::new(key.serialize_pem()),
        names,
    })
}
