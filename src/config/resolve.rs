//! Judges the file as written, fills in defaults and builds the typed configuration. Goes through everything before
//! it gives up, so that all mistakes are told at once.

mod compression;
mod fields;
mod keys;
mod listen;
mod sides;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::de::DeTable;

use self::fields::field_map;
use self::keys::keys;
use self::listen::listeners;
use self::sides::{connection_uri, tls};
use super::env::Env;
use super::raw::{self, Number, Raw, Text};
use super::report::{Mistakes, Report};
use super::table::{At, Lines};
use super::{Audit, Config, Fsync, Limits, LogLevel, OnFailure};

pub(super) fn config(file: &str, text: &str, env: &dyn Env) -> Result<Config, Report> {
    let mut out = Mistakes::default();
    let mut warnings = Mistakes::default();
    let resolved = read(file, text, env, &mut out, &mut warnings);
    match resolved {
        Some(config) if out.is_empty() => Ok(Config {
            warnings: warnings.into_vec(),
            ..config
        }),
        _ => Err(Report {
            file: file.to_owned(),
            mistakes: out.into_vec(),
        }),
    }
}

fn read(
    file: &str,
    text: &str,
    env: &dyn Env,
    out: &mut Mistakes,
    warnings: &mut Mistakes,
) -> Option<Config> {
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let line = error.span().map(|span| lines.line(span.start.min(text.len())));
            // The parser's own rendering would show the line, which may hold a secret.
            out.add(
                line,
                format!("not valid TOML: {}", error.message()),
                "see https://toml.io; a key that occurs twice, a missing quote or a missing bracket are the usual causes",
            );
        }
        return None;
    }
    let raw = Raw::read(root.get_ref(), &lines, out);

    let upstream = match &raw.upstream {
        Some(section) => {
            let found = connection_uri("upstream", &section.uri, &section.uri_env, env, out);
            if found.is_none() && section.uri.is_none() && section.uri_env.is_none() {
                out.add(section.line, "[upstream] names no deployment", UPSTREAM_HINT);
            }
            found
        }
        None => {
            out.add(None, "there is no [upstream]", UPSTREAM_HINT);
            None
        }
    };
    let (upstream_compression, zlib_level) =
        compression::upstream(raw.upstream.as_ref(), upstream.as_ref(), out);
    let tls = raw.tls.as_ref().and_then(|section| tls(section, out));
    let listen = listeners(&raw, out, warnings);
    let keys = keys(&raw, upstream.as_ref(), env, out);
    let audit = audit(raw.audit.as_ref(), out);
    let admin = raw.admin.as_ref().and_then(|section| match &section.address {
        Some(at) => socket_address(at, "admin", out),
        None => {
            out.add(
                section.line,
                "[admin] has no address",
                "write address = \"127.0.0.1:9464\", or take [admin] out",
            );
            None
        }
    });
    let limits = limits(&raw.limits, out);
    let workers = bounded(&raw.proxy.workers, "workers", 1, 1024, out).and_then(|n| usize::try_from(n).ok());
    let drain = seconds(&raw.proxy.drain_seconds, "drain_seconds", 0, 25, out);
    let log_level = log_level(&raw.log_level, out);
    let vault = keys.as_ref().map(|keys| keys.vault.clone());
    let fields = field_map(&raw.collections, vault, out, warnings);

    Some(Config {
        file: file.to_owned(),
        fingerprint: Sha256::digest(text.as_bytes()).into(),
        upstream: upstream?,
        upstream_compression,
        zlib_level,
        listen,
        tls,
        keys: keys?,
        audit,
        admin,
        limits,
        workers,
        drain,
        log_level,
        fields: Arc::new(fields?),
        warnings: Vec::new(),
    })
}

const UPSTREAM_HINT: &str =
    "write [upstream] with uri = \"mongodb://127.0.0.1:27017\", or uri_env = \"MONGODB_URI\"";
fn path(at: &Text, key: &str, out: &mut Mistakes) -> Option<PathBuf> {
    let at = at.as_ref()?;
    if at.value.is_empty() || at.value.contains('\0') {
        out.add(
            at.line,
            format!("`{key}` is not the name of a file"),
            "write the file's path, from the working directory",
        );
        return None;
    }
    Some(PathBuf::from(&at.value))
}

fn socket_address(at: &At<String>, section: &str, out: &mut Mistakes) -> Option<SocketAddr> {
    match at.value.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            out.add(
                at.line,
                format!("the address of [{section}] is not an IP address and a port"),
                "write it as 127.0.0.1:27018, [::1]:27018, or 0.0.0.0:27018 for every interface",
            );
            None
        }
    }
}

fn audit(section: Option<&raw::Audit>, out: &mut Mistakes) -> Audit {
    let mut audit = Audit {
        path: PathBuf::from("data/audit.jsonl"),
        on_failure: OnFailure::Refuse,
        fsync: Fsync::Batch,
    };
    let Some(section) = section else { return audit };
    if let Some(path) = path(&section.path, "path", out) {
        audit.path = path;
    }
    let words = [("refuse", OnFailure::Refuse), ("continue", OnFailure::Continue)];
    if let Some(word) = word(&section.on_failure, "on_failure", &words, out) {
        audit.on_failure = word;
    }
    let words = [("batch", Fsync::Batch), ("off", Fsync::Off)];
    if let Some(word) = word(&section.fsync, "fsync", &words, out) {
        audit.fsync = word;
    }
    audit
}

fn limits(raw: &raw::Limits, out: &mut Mistakes) -> Limits {
    let connections = bounded(&raw.connections, "connections", 1, 1_000_000, out)
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(10_000);
    let idle = seconds(&raw.idle_seconds, "idle_seconds", 0, 3600, out);
    let stall = seconds(&raw.stall_seconds, "stall_seconds", 0, 300, out);
    Limits {
        connections,
        handshake: seconds(&raw.handshake_seconds, "handshake_seconds", 1, 10, out),
        connect: seconds(&raw.connect_seconds, "connect_seconds", 1, 10, out),
        idle: (!idle.is_zero()).then_some(idle),
        stall: (!stall.is_zero()).then_some(stall),
    }
}

fn log_level(at: &Text, out: &mut Mistakes) -> LogLevel {
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    let words = levels.map(|level| (level.name(), level));
    word(at, "level", &words, out).unwrap_or(LogLevel::Info)
}

/// One of a closed list of words.
fn word<T: Copy>(at: &Text, key: &str, words: &[(&str, T)], out: &mut Mistakes) -> Option<T> {
    let at = at.as_ref()?;
    let found = words
        .iter()
        .find(|(word, _)| *word == at.value)
        .map(|(_, value)| *value);
    if found.is_none() {
        let list: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        out.add(
            at.line,
            format!("`{key}` has a value that it cannot have"),
            format!("write one of {}", list.join(", ")),
        );
    }
    found
}

fn bounded(at: &Number, key: &str, least: u32, most: u32, out: &mut Mistakes) -> Option<u32> {
    let at = at.as_ref()?;
    let found = u32::try_from(at.value)
        .ok()
        .filter(|n| (least..=most).contains(n));
    if found.is_none() {
        out.add(
            at.line,
            format!("`{key}` is out of range"),
            format!("write a number from {least} to {most}"),
        );
    }
    found
}

/// Up to a year.
fn seconds(at: &Number, key: &str, least: u32, default: u32, out: &mut Mistakes) -> Duration {
    let n = bounded(at, key, least, 31_536_000, out).unwrap_or(default);
    Duration::from_secs(u64::from(n))
}
