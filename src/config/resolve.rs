//! Judges the file as written, fills in defaults and builds the typed configuration. Goes through everything before
//! it gives up, so that all mistakes are told at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::env::{self, Env};
use super::raw::{self, Number, Raw, Text};
use super::report::{Mistakes, Report};
use super::table::{At, Lines};
use super::{
    Audit, Config, ConnectionUri, Fsync, Keys, Limits, Listen, LocalKey, LogLevel, Master, OnFailure, Tls,
};
use crate::name::Namespace;
use crate::policy::map::{self, CollectionSpec, FieldSpec};
use crate::policy::{FieldMap, FieldState};

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
        upstream: upstream?,
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
const TLS_HINT: &str = "write [tls] with certificate and private_key (`fieldveil init` makes a pair for development), or, \
                        where nobody can listen in, allow_plaintext = true on the listener";

fn connection_uri(
    section: &str,
    uri: &Text,
    uri_env: &Text,
    env: &dyn Env,
    out: &mut Mistakes,
) -> Option<ConnectionUri> {
    let (line, text) = match (uri, uri_env) {
        (Some(_), Some(at)) => {
            out.add(
                at.line,
                format!("[{section}] has both uri and uri_env"),
                "keep one of the two",
            );
            return None;
        }
        (Some(at), None) => match env::interpolate(&at.value, env) {
            Ok(text) => (at.line, text),
            Err(reason) => {
                out.add(
                    at.line,
                    format!("{section}.uri: {reason}"),
                    "set the variable for this process",
                );
                return None;
            }
        },
        (None, Some(at)) => match variable(at, env) {
            Ok(text) => (at.line, text),
            Err(reason) => {
                out.add(
                    at.line,
                    format!("{section}.uri_env: {reason}"),
                    "set the variable for this process",
                );
                return None;
            }
        },
        (None, None) => return None,
    };
    match ConnectionUri::new(text.trim()) {
        Ok(uri) => Some(uri),
        Err(reason) => {
            out.add(
                line,
                format!("{section}.uri {reason}"),
                "write it as for a driver: mongodb://host:27017 or mongodb+srv://host",
            );
            None
        }
    }
}

fn variable(at: &At<String>, env: &dyn Env) -> Result<String, String> {
    if !env::is_name(&at.value) {
        return Err("this is not the name of a variable".to_owned());
    }
    env.get(&at.value)
        .ok_or_else(|| format!("the environment variable `{}` is not set", at.value))
}

fn tls(section: &raw::Tls, out: &mut Mistakes) -> Option<Tls> {
    let certificate = path(&section.certificate, "certificate", out);
    let private_key = path(&section.private_key, "private_key", out);
    let client_ca = path(&section.client_ca, "client_ca", out);
    for (key, written) in [
        ("certificate", &section.certificate),
        ("private_key", &section.private_key),
    ] {
        if written.is_none() {
            out.add(
                section.line,
                format!("[tls] has no {key}"),
                "name both PEM files: certificate and private_key",
            );
        }
    }
    Some(Tls {
        certificate: certificate?,
        private_key: private_key?,
        client_ca,
    })
}

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

fn listeners(raw: &Raw, out: &mut Mistakes, warnings: &mut Mistakes) -> Vec<Listen> {
    if raw.listen.is_empty() {
        out.add(
            None,
            "there is no [[listen]]",
            "write [[listen]] with address = \"127.0.0.1:27018\"",
        );
    }
    let mut listen: Vec<Listen> = Vec::new();
    for section in &raw.listen {
        let Some(at) = &section.address else {
            out.add(
                section.line,
                "[[listen]] has no address",
                "write address = \"127.0.0.1:27018\"",
            );
            continue;
        };
        let plaintext = section.allow_plaintext.as_ref().is_some_and(|at| at.value);
        if !plaintext && raw.tls.is_none() {
            out.add(
                section.line,
                "this listener has no certificate: there is no [tls]",
                TLS_HINT,
            );
        }
        for (key, name) in [("member", &section.member), ("advertise", &section.advertise)] {
            if let Some(name) = name
                && !is_host_and_port(&name.value)
            {
                out.add(
                    name.line,
                    format!("`{key}` is not a host and a port"),
                    "write it as db1.internal:27017",
                );
            }
        }
        if raw.listen.len() > 1 && section.member.is_none() {
            out.add(
                section.line,
                "with more than one [[listen]], each must say which member it stands for",
                "add member = \"host:port\", as the replica set's own configuration names it",
            );
        }
        let Some(address) = socket_address(at, "listen", out) else {
            continue;
        };
        let member = section.member.as_ref().map(|at| at.value.clone());
        if address.port() != 0 && listen.iter().any(|other| other.address == address) {
            out.add(
                at.line,
                format!("the address {address} appears twice"),
                "give each listener its own port",
            );
        }
        if let Some(at) = &section.member
            && listen
                .iter()
                .any(|other| other.member.as_ref() == Some(&at.value))
        {
            out.add(
                at.line,
                "two listeners stand for the same member",
                "give each member one listener",
            );
        }
        if plaintext && !address.ip().is_loopback() {
            warnings.add(
                section.allow_plaintext.as_ref().map(|at| at.line),
                format!("the listener {address} speaks no TLS and can be reached from other machines"),
                "take allow_plaintext out and write [tls], unless something in front of it does TLS",
            );
        }
        if section.advertise.is_none() && address.ip().is_unspecified() {
            warnings.add(
                section.line,
                format!("drivers will be told to connect to {address}, which is no place to connect to"),
                "add advertise = \"host:port\", as applications reach this listener",
            );
        }
        listen.push(Listen {
            address,
            member,
            advertise: match &section.advertise {
                Some(at) => at.value.clone(),
                None => address.to_string(),
            },
            plaintext,
        });
    }
    listen
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

/// `host:port`, with an IPv6 address in brackets.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let named = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let bracketed = host.starts_with('[') && text.parse::<SocketAddr>().is_ok();
    (named || bracketed)
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|p| p != 0)
}

fn keys(raw: &Raw, upstream: Option<&ConnectionUri>, env: &dyn Env, out: &mut Mistakes) -> Option<Keys> {
    const MASTER_HINT: &str = "write master = { provider = \"file\", path = \"data/master.key\" }";
    let Some(section) = &raw.keys else {
        out.add(
            None,
            "there is no [keys]",
            format!("write [keys] and {MASTER_HINT}"),
        );
        return None;
    };
    let vault = match &section.vault {
        None => Namespace::parse("encryption.__keyVault"),
        Some(at) => {
            let parsed = Namespace::parse(&at.value)
                .filter(|ns| !at.value.contains('*') && !matches!(ns.db(), "config" | "local"));
            if parsed.is_none() {
                out.add(
                    at.line,
                    "`vault` is not the name of a collection",
                    "write vault = \"encryption.__keyVault\"",
                );
            }
            parsed
        }
    };
    let written = section.uri.is_some() || section.uri_env.is_some();
    let uri = if written {
        connection_uri("keys", &section.uri, &section.uri_env, env, out)
    } else {
        upstream.cloned()
    };
    let master = match &section.master {
        Some(section) => master(section, out),
        None => {
            out.add(section.line, "[keys] has no master key", MASTER_HINT);
            None
        }
    };
    let ttl = seconds(&section.ttl_seconds, "ttl_seconds", 1, 300, out);
    let grace = seconds(&section.grace_seconds, "grace_seconds", 0, 3600, out);
    Some(Keys {
        vault: vault?,
        uri: uri?,
        master: master?,
        ttl,
        grace,
    })
}

fn master(section: &raw::Master, out: &mut Mistakes) -> Option<Master> {
    let Some(provider) = &section.provider else {
        out.add(
            section.line,
            "the master key has no provider",
            "write provider = \"file\", \"env\" or \"csfle-local\"",
        );
        return None;
    };
    let location = match (&section.path, &section.variable) {
        (Some(_), Some(at)) => {
            out.add(
                at.line,
                "the master key has both a path and a variable",
                "keep one of the two",
            );
            return None;
        }
        (Some(_), None) => LocalKey::Path(path(&section.path, "path", out)?),
        (None, Some(at)) if env::is_name(&at.value) => LocalKey::Variable(at.value.clone()),
        (None, Some(at)) => {
            // It may well be the key itself: it is not repeated.
            out.add(
                at.line,
                "`variable` is not the name of an environment variable",
                "write the variable's name, never the key itself: variable = \"FIELDVEIL_MASTER_KEY\"",
            );
            return None;
        }
        (None, None) => {
            out.add(
                section.line,
                "the master key has neither a path nor a variable",
                "add path = \"data/master.key\" (file, csfle-local) or variable = \"NAME\" (env, csfle-local)",
            );
            return None;
        }
    };
    match (provider.value.as_str(), location) {
        ("file", LocalKey::Path(path)) => Some(Master::File(path)),
        ("env", LocalKey::Variable(name)) => Some(Master::Env(name)),
        ("csfle-local", location) => Some(Master::CsfleLocal(location)),
        ("file", LocalKey::Variable(_)) => {
            out.add(
                provider.line,
                "provider \"file\" takes a path",
                "write path = \"data/master.key\", or provider = \"env\"",
            );
            None
        }
        ("env", LocalKey::Path(_)) => {
            out.add(
                provider.line,
                "provider \"env\" takes a variable",
                "write variable = \"NAME\", or provider = \"file\"",
            );
            None
        }
        ("vault-transit" | "vault-kv" | "aws-kms" | "azure-key-vault" | "pkcs11", _) => {
            out.add(
                provider.line,
                format!(
                    "the master-key provider `{}` is not in this version",
                    provider.value
                ),
                "use \"file\", \"env\" or \"csfle-local\"",
            );
            None
        }
        _ => {
            out.add(
                provider.line,
                "unknown master-key provider",
                "use \"file\", \"env\" or \"csfle-local\"",
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
    Limits {
        connections,
        handshake: seconds(&raw.handshake_seconds, "handshake_seconds", 1, 10, out),
        connect: seconds(&raw.connect_seconds, "connect_seconds", 1, 10, out),
        idle: (!idle.is_zero()).then_some(idle),
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

fn field_map(
    collections: &[raw::Collection],
    vault: Option<Namespace>,
    out: &mut Mistakes,
    warnings: &mut Mistakes,
) -> Option<FieldMap> {
    if collections.is_empty() {
        warnings.add(
            None,
            "there is no [[collection]]: nothing is protected",
            "name what to protect, or leave fieldveil out of the way",
        );
    }
    let mut specs = Vec::new();
    let mut sources = Vec::new();
    for collection in collections {
        let Some(namespace) = &collection.namespace else {
            out.add(
                collection.line,
                "[[collection]] has no namespace",
                "write namespace = \"database.collection\"",
            );
            continue;
        };
        let state = state(&collection.state, out);
        specs.push(CollectionSpec {
            namespace: namespace.value.clone(),
            subject: collection.subject.as_ref().map(|at| at.value.clone()),
            state,
            fields: collection
                .fields
                .iter()
                .map(|field| field_spec(field, out))
                .collect(),
        });
        sources.push(collection);
    }
    let file = |mistake: map::Mistake, into: &mut Mistakes| {
        let line = sources.get(mistake.collection).map(|c| line_of(c, &mistake));
        into.add(
            line,
            format!("{}: {}", mistake.subject, mistake.reason),
            mistake.way_out,
        );
    };
    match FieldMap::build_beside(specs, vault) {
        Ok(map) => {
            for warning in map.warnings() {
                file(warning.clone(), warnings);
            }
            Some(map)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                file(mistake, out);
            }
            None
        }
    }
}

fn field_spec(field: &raw::Field, out: &mut Mistakes) -> FieldSpec {
    let text = |at: &Text| at.as_ref().map(|at| at.value.clone());
    FieldSpec {
        path: field.path.clone(),
        mode: text(&field.mode).unwrap_or_default(),
        declared: text(&field.declared),
        algorithm: text(&field.algorithm),
        domain: text(&field.domain),
        state: state(&field.state, out),
        each: field.each.as_ref().is_some_and(|at| at.value),
        accept_leakage: text(&field.accept_leakage),
    }
}

fn state(at: &Text, out: &mut Mistakes) -> Option<FieldState> {
    let words = [
        ("migrating", FieldState::Migrating),
        ("enforced", FieldState::Enforced),
    ];
    word(at, "state", &words, out)
}

/// Where in the file a mistake of the field map stands: at the key that is wrong, else at the entry.
fn line_of(collection: &raw::Collection, mistake: &map::Mistake) -> usize {
    let text = |at: &Text| at.as_ref().map(|at| at.line);
    let (entry, keys): (usize, HashMap<&str, Option<usize>>) =
        match mistake.field.and_then(|index| collection.fields.get(index)) {
            Some(field) => (
                field.line,
                HashMap::from([
                    ("mode", text(&field.mode)),
                    ("type", text(&field.declared)),
                    ("algorithm", text(&field.algorithm)),
                    ("domain", text(&field.domain)),
                    ("each", field.each.as_ref().map(|at| at.line)),
                    ("accept_leakage", text(&field.accept_leakage)),
                ]),
            ),
            None => (
                collection.line,
                HashMap::from([
                    ("namespace", text(&collection.namespace)),
                    ("subject", text(&collection.subject)),
                ]),
            ),
        };
    mistake
        .key
        .and_then(|key| keys.get(key).copied().flatten())
        .unwrap_or(entry)
}
