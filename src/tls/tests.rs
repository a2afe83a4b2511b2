use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::config::{ConnectionUri, Tls};

/// A certificate and its key, signed by an authority of their own, valid for these days from now.
fn write_pair(dir: &Path, name: &str, days: (i64, i64)) -> (PathBuf, PathBuf) {
    let now = time::OffsetDateTime::now_utc();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.not_before = now + time::Duration::days(days.0);
    params.not_after = now + time::Duration::days(days.1);
    let certificate = params.signed_by(&key, &authority).unwrap();
    let at = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    fs::write(&at.0, certificate.pem()).unwrap();
    fs::write(&at.1, key.serialize_pem()).unwrap();
    fs::write(dir.join(format!("{name}-ca.pem")), authority.pem()).unwrap();
    at
}

fn tls(pair: (PathBuf, PathBuf)) -> Tls {
    Tls {
        certificate: pair.0,
        private_key: pair.1,
        client_ca: None,
    }
}

fn refusal(files: &Tls) -> String {
    server_config(files).unwrap_err().to_string()
}

#[test]
fn agrees_on_tls_1_3_with_a_good_pair() {
    let dir = TempDir::new().unwrap();
    let files = tls(write_pair(dir.path(), "server", (-1, 90)));
    let agreed = inspect::rehearse(server_config(&files).unwrap()).unwrap();
    assert_eq!(agreed.version, "TLSv1_3");
    assert!(agreed.cipher.starts_with("TLS13_"), "{}", agreed.cipher);
    let peer = agreed.peer.unwrap();
    assert_eq!(peer.names, ["localhost", "127.0.0.1"]);
    assert_eq!(peer.days_left(SystemTime::now()), 89);
    assert_eq!(peer, inspect::certificate_file(&files.certificate).unwrap());
}

#[test]
fn refuses_what_cannot_be_used_naming_the_file() {
    let dir = TempDir::new().unwrap();
    let good = tls(write_pair(dir.path(), "good", (-1, 90)));
    let other = tls(write_pair(dir.path(), "other", (-1, 90)));
    let expired = tls(write_pair(dir.path(), "expired", (-20, -10)));
    let early = tls(write_pair(dir.path(), "early", (10, 20)));
    let with_key = |key: &Path| Tls {
        private_key: key.to_owned(),
        ..good.clone()
    };
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };

    let text = refusal(&with_key(&other.private_key));
    assert!(
        text.contains("does not belong to the certificate") && text.contains("other.key"),
        "{text}"
    );
    let text = refusal(&with_key(&dir.path().join("nowhere.key")));
    assert!(text.contains("nowhere.key does not exist"), "{text}");
    let text = refusal(&with_key(&good.certificate));
    assert!(text.contains("holds no private key"), "{text}");
    let text = refusal(&Tls {
        certificate: good.private_key.clone(),
        ..good.clone()
    });
    assert!(text.contains("holds no certificate"), "{text}");
    let locked = write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    assert!(refusal(&with_key(&locked)).contains("passphrase"));
    let cut = write("cut.key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n");
    let text = refusal(&with_key(&cut));
    assert!(
        text.contains("a block has no end") && !text.contains("c2VjcmV0"),
        "{text}"
    );
    assert!(refusal(&expired).contains("expired on"), "{}", refusal(&expired));
    assert!(refusal(&early).contains("not valid before"));
    let text = refusal(&Tls {
        client_ca: Some(cut),
        ..good
    });
    assert!(text.contains("cut.key is not a PEM file"), "{text}");
}

#[test]
fn turns_away_clients_without_a_certificate_where_one_is_wanted() {
    let dir = TempDir::new().unwrap();
    let files = Tls {
        client_ca: Some(dir.path().join("server-ca.pem")),
        ..tls(write_pair(dir.path(), "server", (-1, 90)))
    };
    let error = inspect::rehearse(server_config(&files).unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("no certificate") || error.to_string().contains("NoCertificates"),
        "{error}"
    );
}

#[test]
fn keeps_the_old_context_when_the_new_files_are_bad() {
    let dir = TempDir::new().unwrap();
    let files = tls(write_pair(dir.path(), "server", (-1, 90)));
    let held = ServerTls::load(&files).unwrap();
    let first = held.current();
    fs::write(&files.certificate, "gone wrong").unwrap();
    assert!(held.reload(&files).is_err());
    assert!(Arc::ptr_eq(&first, &held.current()));
    write_pair(dir.path(), "server", (-1, 40));
    held.reload(&files).unwrap();
    assert!(!Arc::ptr_eq(&first, &held.current()));
    let peer = inspect::rehearse(held.current()).unwrap().peer.unwrap();
    assert_eq!(
        peer.days_left(SystemTime::now() + Duration::from_secs(86_400)),
        38
    );
}

fn resolve(uri: &str) -> Result<Upstream, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(Upstream::resolve(&ConnectionUri::new(uri).unwrap()))
}

#[test]
fn reads_hosts_and_tls_from_a_drivers_connection_string() {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), "db", (-1, 90));
    let ca = dir.path().join("db-ca.pem");
    let uri = format!(
        "mongodb://u:pw@db1:1,[::1]/?replicaSet=rs0&tls=true&tlsCAFile={}",
        ca.display()
    );
    let upstream = resolve(&uri).unwrap();
    let shown: Vec<_> = upstream.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["db1:1", "[::1]:27017"]);
    assert!(upstream.tls.is_some() && !upstream.unverified);
    assert_eq!(upstream.replica_set.as_deref(), Some("rs0"));
    assert!(!format!("{upstream:?}").contains("pw"));
    assert_eq!(Target::parse("db2:5").unwrap().to_string(), "db2:5");
    assert_eq!(
        upstream.hosts[1].server_name().unwrap(),
        rustls_pki_types::ServerName::try_from("::1").unwrap()
    );

    let plain = resolve("mongodb://db1").unwrap();
    assert!(plain.tls.is_none());
    assert_eq!(plain.hosts[0].to_string(), "db1:27017");
    assert!(resolve("mongodb://db1/?tlsInsecure=true").unwrap().unverified);
    // Read by the configuration: the driver knows no compressor here, and must not mind.
    assert!(resolve("mongodb://db1/?compressors=zstd,snappy&zlibCompressionLevel=3").is_ok());
}

#[test]
fn refuses_connection_strings_without_showing_their_password() {
    for uri in [
        "mongodb://user:hunter2@db1/?tls=true&tlsCAFile=/nowhere/ca.pem",
        "mongodb://user:hunter2@db1/?replicaSet=a&directConnection=maybe",
        "mongodb://user:hunter2@%2Ftmp%2Fmongodb-27017.sock",
        "mongodb://user:hunter2:x@db1",
        "mongodb://user:hunter2/x@db1",
    ] {
        let text = resolve(uri).unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }
}
