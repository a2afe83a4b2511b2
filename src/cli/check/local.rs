//! What can be checked without a connection: certificates towards applications, the master key, the audit log's place.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use super::report::CheckReport;
use crate::cli::load::ProcessEnv;
use crate::config::{Config, Env, LocalKey, Master, Tls};
use crate::tls::{inspect, server_config};

/// Certificates with fewer days than this are worth a warning.
const SOON: i64 = 30;

pub(super) fn check(config: &Config, report: &mut CheckReport) {
    for listener in &config.listen {
        if listener.plaintext {
            report.warn(
                "listen",
                format!(
                    "{} speaks no TLS: whoever can listen in sees everything",
                    listener.address
                ),
                "take allow_plaintext out and write [tls], unless nobody can",
            );
        }
    }
    if let Some(files) = &config.tls {
        server_tls(files, report);
    }
    master_key(&config.keys.master, report);
    audit(&config.audit.path, report);
}

fn server_tls(files: &Tls, report: &mut CheckReport) {
    let server = match server_config(files) {
        Ok(server) => server,
        Err(error) => {
            report.fail("tls", error.to_string(), "");
            return;
        }
    };
    match inspect::certificate_file(&files.certificate) {
        Ok(certificate) => certificate_line(
            "tls",
            &files.certificate.display().to_string(),
            &certificate,
            report,
        ),
        Err(error) => report.fail("tls", error.to_string(), ""),
    }
    // A rehearsal client has no certificate to show: what is agreed on does not depend on one.
    let rehearsed = if files.client_ca.is_some() {
        server_config(&Tls {
            client_ca: None,
            ..files.clone()
        })
    } else {
        Ok(server)
    };
    match rehearsed.and_then(inspect::rehearse) {
        Ok(agreed) => {
            let client = if files.client_ca.is_some() {
                ", client certificates wanted"
            } else {
                ""
            };
            report.ok(
                "tls",
                format!(
                    "towards applications: {}, {}; 1.2 is the least{client}",
                    agreed.version, agreed.cipher
                ),
            );
        }
        Err(error) => report.fail("tls", error.to_string(), ""),
    }
    private("tls", &files.private_key, report);
}

/// One certificate's validity, with a warning ahead of its end.
pub(super) fn certificate_line(
    area: &'static str,
    whose: &str,
    certificate: &inspect::Certificate,
    report: &mut CheckReport,
) {
    let now = SystemTime::now();
    let days = certificate.days_left(now);
    let names = if certificate.names.is_empty() {
        "no names".to_owned()
    } else {
        certificate.names.join(", ")
    };
    let text = format!(
        "{whose}: certificate for {names}, {days} days left (until {})",
        certificate.last_day()
    );
    match certificate.check_validity(now) {
        Err(error) => report.fail(area, format!("{whose}: {error}"), ""),
        Ok(()) if days < SOON => report.warn(area, text, "renew it in time; SIGHUP takes up a new one"),
        Ok(()) => report.ok(area, text),
    }
}

/// Warns where others than the owner can read a private key.
fn private(area: &'static str, path: &Path, report: &mut CheckReport) {
    let Ok(meta) = fs::metadata(path) else { return };
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        report.warn(
            area,
            format!(
                "{} can be used by others than its owner (mode {mode:04o})",
                path.display()
            ),
            &format!("chmod 600 {}", path.display()),
        );
    }
}

fn master_key(master: &Master, report: &mut CheckReport) {
    match master {
        Master::File(path) | Master::CsfleLocal(LocalKey::Path(path)) => master_file(path, report),
        Master::Env(name) | Master::CsfleLocal(LocalKey::Variable(name)) => match ProcessEnv.get(name) {
            Some(value) if !value.trim().is_empty() => {
                report.ok(
                    "master",
                    format!("the master key is in the environment variable {name}"),
                );
            }
            _ => report.fail(
                "master",
                format!(
                    "the environment variable {name}, which should hold the master key, is not set or empty"
                ),
                "set it for this process, from wherever secrets are kept",
            ),
        },
    }
}

fn master_file(path: &Path, report: &mut CheckReport) {
    let shown = path.display();
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.warn(
                "master",
                format!("there is no master key at {shown} yet"),
                "the first `serve` makes one, as does `fieldveil init`; if there was one, stop: restore it from its backup",
            );
            return;
        }
        Err(error) => {
            report.fail(
                "master",
                format!("the master key {shown} cannot be looked at: {error}"),
                "",
            );
            return;
        }
    };
    let mode = meta.permissions().mode() & 0o7777;
    if !meta.is_file() {
        report.fail(
            "master",
            format!("the master key {shown} is not a file"),
            "name the key's own file",
        );
    } else if mode & 0o077 != 0 {
        report.fail(
            "master",
            format!("the master key {shown} can be used by others than its owner (mode {mode:04o}), so `serve` refuses to start"),
            &format!("chmod 600 {shown}"),
        );
    } else if let Err(error) = fs::File::open(path) {
        report.fail(
            "master",
            format!("the master key {shown} cannot be read: {error}"),
            "run as its owner",
        );
    } else if meta.len() == 0 {
        report.fail(
            "master",
            format!("the master key {shown} is empty"),
            "restore it from its backup",
        );
    } else {
        report.ok(
            "master",
            format!("the master key {shown} can be read by its owner only (mode {mode:04o})"),
        );
    }
}

fn audit(path: &Path, report: &mut CheckReport) {
    let shown = path.display();
    if path == Path::new("-") {
        report.warn(
            "audit",
            "the audit log goes to standard output: a chain for each run, whose end nothing proves",
            "keep what is written there, or name a file",
        );
        return;
    }
    // Opened for appending, and nothing appended: the one sure way to learn whether it could be.
    match fs::OpenOptions::new().append(true).open(path) {
        Ok(_) => report.ok("audit", format!("{shown} can be written")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            match fs::metadata(parent.unwrap_or_else(|| Path::new("."))) {
                Ok(meta) if meta.is_dir() => report.ok("audit", format!("{shown} will be made by `serve`")),
                _ => report.fail(
                    "audit",
                    format!("the directory of {shown} does not exist"),
                    "make it, owned by the user that fieldveil runs as",
                ),
            }
        }
        Err(error) => report.fail(
            "audit",
            format!("{shown} cannot be written: {error}"),
            "give this process's user the right to write it",
        ),
    }
}
