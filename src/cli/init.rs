//! `fieldveil init`: a commented configuration, a development certificate and a master key. What is there already is
//! kept, whatever it holds.

mod certificate;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::Exit;
use super::hint::Failure;
use crate::kms;

/// The configuration that is written: every key, explained.
pub(super) const SAMPLE: &str = include_str!("init/fieldveil.toml");

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) dir: PathBuf,
    /// A further host name or IP address under which applications reach the proxy; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) host: Vec<String>,
}

pub(super) fn run(asked: &Arguments) -> Result<Exit, Failure> {
    // `./config/…` would say no more than `config/…`.
    let dir = asked.dir.strip_prefix(".").unwrap_or(&asked.dir);
    let written = [
        configuration(dir)?,
        certificates(dir, &asked.host)?,
        master_key(dir)?,
    ];
    if written.contains(&true) {
        let go = if dir == Path::new("") {
            String::new()
        } else {
            format!("cd {} && ", dir.display())
        };
        println!(
            "next:     adapt config/fieldveil.toml to your collections, then: {go}fieldveil check && fieldveil serve"
        );
    }
    Ok(Exit::Done)
}

fn configuration(dir: &Path) -> Result<bool, Failure> {
    write_new(
        &dir.join("config/fieldveil.toml"),
        SAMPLE.as_bytes(),
        Secrecy::Open,
    )
}

/// The server's pair belongs together: with one half there already, the other must not be made anew.
fn certificates(dir: &Path, hosts: &[String]) -> Result<bool, Failure> {
    let at = |name: &str| dir.join("certs").join(name);
    let (authority, certificate, key) = (at("ca.pem"), at("server.pem"), at("server.key"));
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            say_kept(&certificate);
            say_kept(&key);
            return Ok(false);
        }
        (false, false) if !authority.exists() => {}
        _ => {
            return Err(Failure::failed(
                format!(
                    "{} holds a part of a certificate, its key and their authority",
                    dir.join("certs").display()
                ),
                "complete it yourself, or move what is there away and run `fieldveil init` again",
            ));
        }
    }
    let made = certificate::make(hosts)?;
    // The key first: without it the rest is of no use, and a second run then says so.
    write_new(&key, made.key.as_bytes(), Secrecy::OwnerOnly)?;
    write_new(&certificate, made.certificate.as_bytes(), Secrecy::Open)?;
    write_new(&authority, made.authority.as_bytes(), Secrecy::Open)?;
    println!(
        "          for development: good for {}, for {} days; applications trust certs/ca.pem (tlsCAFile)",
        made.names.join(", "),
        certificate::DAYS
    );
    Ok(true)
}

fn master_key(dir: &Path) -> Result<bool, Failure> {
    let path = dir.join("data/master.key");
    if path.exists() {
        say_kept(&path);
        return Ok(false);
    }
    make_parent(&path, 0o700).map_err(|error| unwritable(&path, &error))?;
    kms::generate(&path).map_err(|error| {
        Failure::failed(
            error.to_string(),
            "choose another place with --dir, or get the right to write there",
        )
    })?;
    println!("written:  {}", path.display());
    println!(
        "          BACK THIS FILE UP, apart from the database: without it everything that was encrypted is lost for ever"
    );
    Ok(true)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Open,
    OwnerOnly,
}

/// Writes a file that is not there yet; `false` where one is, which is then kept as it is.
fn write_new(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<bool, Failure> {
    make_parent(path, 0o755).map_err(|error| unwritable(path, &error))?;
    let mode = match secrecy {
        Secrecy::Open => 0o644,
        Secrecy::OwnerOnly => 0o600,
    };
    let mut file = match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            say_kept(path);
            return Ok(false);
        }
        Err(error) => return Err(unwritable(path, &error)),
    };
    if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        // Half a file would be kept by the next run. It is ours: it did not exist a moment ago.
        let _ = fs::remove_file(path);
        return Err(unwritable(path, &error));
    }
    println!("written:  {}", path.display());
    Ok(true)
}

fn make_parent(path: &Path, mode: u32) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(mode).create(parent),
        None => Ok(()),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(
        format!("{} cannot be written: {error}", path.display()),
        "choose another place with --dir, or get the right to write there",
    )
}

fn say_kept(path: &Path) {
    println!("kept:     {}", path.display());
}
