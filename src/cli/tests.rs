use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::CommandFactory;
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Empty, Tls};
use crate::tls::{inspect, server_config};

fn init(dir: &Path, hosts: &[&str]) -> Result<Exit, Failure> {
    init::run(&init::Arguments {
        dir: dir.to_owned(),
        host: hosts.iter().map(|host| (*host).to_owned()).collect(),
    })
}

fn everything(dir: &Path) -> HashMap<String, Vec<u8>> {
    [
        "config/fieldveil.toml",
        "certs/ca.pem",
        "certs/server.pem",
        "certs/server.key",
        "data/master.key",
    ]
    .into_iter()
    .map(|name| (name.to_owned(), fs::read(dir.join(name)).unwrap()))
    .collect()
}

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
    assert!(Arguments::try_parse_from(["fieldveil", "check", "--config", "x.toml", "--json"]).is_ok());
    assert!(
        Arguments::try_parse_from(["fieldveil", "--config", "x.toml", "serve", "--log-format", "json"])
            .is_ok()
    );
    assert!(Arguments::try_parse_from(["fieldveil", "audit", "verify", "a", "b"]).is_ok());
    let half = Arguments::try_parse_from(["fieldveil", "audit", "verify", "a", "--expect-seq", "1"]);
    assert!(half.is_err(), "a number without its hash");
    let short = [
        "fieldveil",
        "audit",
        "verify",
        "a",
        "--expect-seq",
        "1",
        "--expect-hash",
        "ab",
    ];
    assert!(Arguments::try_parse_from(short).is_err());
}

#[test]
fn init_writes_what_serving_needs() {
    let dir = TempDir::new().unwrap();
    assert_eq!(
        init(dir.path(), &["proxy.internal", "10.0.0.7"]).unwrap(),
        Exit::Done
    );
    let at = |name: &str| dir.path().join(name);
    for secret in ["certs/server.key", "data/master.key"] {
        let mode = fs::metadata(at(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let key = fs::read_to_string(at("data/master.key")).unwrap();
    assert!(hex::decode(key.trim_end()).is_ok_and(|key| key.len() == 32));
    let config = Config::parse(
        "f",
        &fs::read_to_string(at("config/fieldveil.toml")).unwrap(),
        &Empty,
    )
    .unwrap();
    let named = config.tls.unwrap();
    let files = Tls {
        certificate: dir.path().join(named.certificate),
        private_key: dir.path().join(named.private_key),
        client_ca: Some(at("certs/ca.pem")),
    };
    server_config(&files).unwrap();
    let certificate = inspect::certificate_file(&files.certificate).unwrap();
    assert_eq!(
        certificate.names,
        ["localhost", "127.0.0.1", "::1", "proxy.internal", "10.0.0.7"]
    );
}

#[test]
fn init_never_overwrites() {
    let dir = TempDir::new().unwrap();
    init(dir.path(), &[]).unwrap();
    let before = everything(dir.path());
    assert_eq!(init(dir.path(), &["other"]).unwrap(), Exit::Done);
    assert_eq!(everything(dir.path()), before);
    // Half a pair is not completed with a half that does not fit.
    fs::remove_file(dir.path().join("certs/server.key")).unwrap();
    assert_eq!(init(dir.path(), &[]).unwrap_err().exit, Exit::Failed);
    assert!(!dir.path().join("certs/server.key").exists());
}

#[test]
fn init_says_where_it_cannot_write() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config"), "a file where a directory should be").unwrap();
    let failure = init(dir.path(), &[]).unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(
        failure
            .to_string()
            .contains("config/fieldveil.toml cannot be written"),
        "{failure}"
    );
    let failure = init(&dir.path().join("x"), &["no host name: ü"]).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
}

/// Every key that the file can have stands in the sample, set or as a comment, so `init` explains them all.
#[test]
fn the_sample_shows_every_key() {
    Config::parse("sample", init::SAMPLE, &Empty).unwrap();
    let shown: BTreeSet<&str> = init::SAMPLE
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    for key in [
        "uri",
        "uri_env",
        "address",
        "member",
        "advertise",
        "allow_plaintext",
        "discover",
        "ports",
        "remember",
        "certificate",
        "private_key",
        "client_ca",
        "vault",
        "master",
        "provider",
        "path",
        "variable",
        "ttl_seconds",
        "grace_seconds",
        "on_failure",
        "fsync",
        "connections",
        "handshake_seconds",
        "connect_seconds",
        "idle_seconds",
        "stall_seconds",
        "workers",
        "drain_seconds",
        "level",
        "namespace",
        "subject",
        "state",
        "mode",
        "type",
        "algorithm",
        "domain",
        "each",
        "accept_leakage",
    ] {
        assert!(shown.contains(key), "{key}");
    }
    // The commented settings are right, too: uncommented one at a time, where nothing else takes their place.
    for line in init::SAMPLE.lines() {
        let Some(setting) = line
            .strip_prefix("# ")
            .filter(|l| l.contains(" = ") && !l.starts_with(' '))
        else {
            continue;
        };
        if setting.starts_with("mode =") || setting.contains("uri") {
            continue;
        }
        let text = init::SAMPLE.replacen(line, setting, 1);
        Config::parse("sample", &text, &Empty).unwrap_or_else(|report| panic!("{setting}: {report}"));
    }
}

#[test]
fn a_missing_or_mistaken_configuration_is_wrong_usage() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("f.toml");
    let failure = Failure::from(load::load(&file).unwrap_err());
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.to_string().contains("fieldveil init"), "{failure}");
    fs::write(&file, "[upstream]\n").unwrap();
    let failure = Failure::from(load::load(&file).unwrap_err());
    assert_eq!(failure.exit, Exit::Usage);
    assert!(
        failure
            .to_string()
            .contains(&format!("{}:1: [upstream] names no deployment", file.display())),
        "{failure}"
    );
}
