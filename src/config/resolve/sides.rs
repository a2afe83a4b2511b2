//! The two sides: connection strings towards MongoDB, listeners and certificates towards applications.

use std::net::SocketAddr;

use super::{compression, path, socket_address};
use crate::config::env::{self, Env};
use crate::config::raw::{self, Raw, Text};
use crate::config::report::Mistakes;
use crate::config::table::At;
use crate::config::{ConnectionUri, Listen, Tls};

const TLS_HINT: &str = "write [tls] with certificate and private_key (`fieldveil init` makes a pair for development), or, \
                        where nobody can listen in, allow_plaintext = true on the listener";

pub(super) fn connection_uri(
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

pub(super) fn tls(section: &raw::Tls, out: &mut Mistakes) -> Option<Tls> {
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

pub(super) fn listeners(raw: &Raw, out: &mut Mistakes, warnings: &mut Mistakes) -> Vec<Listen> {
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
            compression: compression::listener(section.compression.as_ref(), out),
        });
    }
    listen
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
