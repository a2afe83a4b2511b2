//! Listeners: where applications connect, and which member each stands for.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{bounded, compression, path, socket_address};
use crate::config::raw::{self, Raw};
use crate::config::report::Mistakes;
use crate::config::{Discover, Listen};

const TLS_HINT: &str = "write [tls] with certificate and private_key (`fieldveil init` makes a pair for development), or, \
                        where nobody can listen in, allow_plaintext = true on the listener";
/// What `member` may say beside a host and a port: whichever takes writes.
const PRIMARY: &str = "primary";
/// How many ports are used for members that are found, unless the configuration says otherwise.
const PORTS: u32 = 16;

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
        if let Some(one) = listener(raw, section, out, warnings) {
            refuse_overlap(section, &one, &listen, out);
            listen.push(one);
        }
    }
    listen
}

fn listener(raw: &Raw, section: &raw::Listen, out: &mut Mistakes, warnings: &mut Mistakes) -> Option<Listen> {
    let Some(at) = &section.address else {
        out.add(
            section.line,
            "[[listen]] has no address",
            "write address = \"127.0.0.1:27018\"",
        );
        return None;
    };
    let plaintext = section.allow_plaintext.as_ref().is_some_and(|at| at.value);
    if !plaintext && raw.tls.is_none() {
        out.add(
            section.line,
            "this listener has no certificate: there is no [tls]",
            TLS_HINT,
        );
    }
    let discovers = section.discover.as_ref().is_some_and(|at| at.value);
    judge_names(section, discovers, out);
    if raw.listen.len() > 1 && section.member.is_none() && !discovers {
        out.add(
            section.line,
            "with more than one [[listen]], each must say which member it stands for",
            "add member = \"host:port\", as the replica set's own configuration names it, member = \"primary\" for whichever \
             takes writes, or discover = true for all of them",
        );
    }
    let address = socket_address(at, "listen", out)?;
    if plaintext && !address.ip().is_loopback() {
        warnings.add(
            section.allow_plaintext.as_ref().map(|at| at.line),
            format!("the listener {address} speaks no TLS and can be reached from other machines"),
            "take allow_plaintext out and write [tls], unless something in front of it does TLS",
        );
    }
    if section.advertise.is_none() && address.ip().is_unspecified() {
        let form = if discovers { "host" } else { "host:port" };
        warnings.add(
            section.line,
            format!("drivers will be told to connect to {address}, which is no place to connect to"),
            format!("add advertise = \"{form}\", as applications reach this listener"),
        );
    }
    let member = section.member.as_ref().map(|at| at.value.clone());
    Some(Listen {
        address,
        member: member.filter(|member| member != PRIMARY),
        advertise: match &section.advertise {
            Some(at) => at.value.clone(),
            None if discovers => host(address.ip()),
            None => address.to_string(),
        },
        plaintext,
        compression: compression::listener(section.compression.as_ref(), out),
        discover: discover(section, discovers, address, out),
    })
}

/// What `member` and `advertise` say.
fn judge_names(section: &raw::Listen, discovers: bool, out: &mut Mistakes) {
    if let Some(member) = &section.member {
        if discovers {
            out.add(
                member.line,
                "this listener has a `member` and `discover`",
                "keep one of the two",
            );
        } else if member.value != PRIMARY && !is_host_and_port(&member.value) {
            out.add(
                member.line,
                "`member` is not a host and a port",
                "write it as db1.internal:27017, or \"primary\" for whichever takes writes",
            );
        }
    }
    let Some(advertise) = &section.advertise else {
        return;
    };
    if discovers && !is_host_and_port(&format!("{}:1", advertise.value)) {
        out.add(
            advertise.line,
            "`advertise` is not a host",
            "with discover it is a host without a port: each listener adds its own",
        );
    }
    if !discovers && !is_host_and_port(&advertise.value) {
        out.add(
            advertise.line,
            "`advertise` is not a host and a port",
            "write it as db1.internal:27017",
        );
    }
}

fn discover(
    section: &raw::Listen,
    discovers: bool,
    address: SocketAddr,
    out: &mut Mistakes,
) -> Option<Discover> {
    if !discovers {
        let lines = [
            ("ports", section.ports.as_ref().map(|at| at.line)),
            ("remember", section.remember.as_ref().map(|at| at.line)),
        ];
        for (key, line) in lines {
            if let Some(line) = line {
                out.add(
                    line,
                    format!("`{key}` says nothing without discover = true"),
                    format!("add discover = true, or take {key} out"),
                );
            }
        }
        return None;
    }
    let ports = bounded(&section.ports, "ports", 1, 1000, out).unwrap_or(PORTS);
    let ports = u16::try_from(ports).unwrap_or(u16::MAX);
    if address.port() == 0 || address.port().checked_add(ports).is_none() {
        out.add(
            section.line,
            "the ports from this address on do not all exist",
            "with discover the address names the first port: leave room for `ports` of them below 65536",
        );
    }
    let remember = path(&section.remember, "remember", out);
    Some(Discover {
        ports,
        remember: remember.unwrap_or_else(|| PathBuf::from("data/members.json")),
    })
}

fn refuse_overlap(section: &raw::Listen, one: &Listen, others: &[Listen], out: &mut Mistakes) {
    let line = section.address.as_ref().map_or(section.line, |at| at.line);
    if one.discover.is_some() && others.iter().any(|other| other.discover.is_some()) {
        out.add(
            section.line,
            "two listeners have discover = true",
            "one finds all members; take the other out",
        );
    } else if one.address.port() != 0 && others.iter().any(|other| overlap(one, other)) {
        out.add(
            line,
            format!("the address {} appears twice", one.address),
            "give each listener its own port; one with discover uses `ports` of them",
        );
    }
    if let Some(at) = &section.member
        && one.member.is_some()
        && others.iter().any(|other| other.member == one.member)
    {
        out.add(
            at.line,
            "two listeners stand for the same member",
            "give each member one listener",
        );
    }
}

fn overlap(one: &Listen, other: &Listen) -> bool {
    let ports = |listen: &Listen| {
        let first = listen.address.port();
        first..first.saturating_add(listen.discover.as_ref().map_or(1, |d| d.ports))
    };
    let (a, b) = (ports(one), ports(other));
    one.address.ip() == other.address.ip() && a.start < b.end && b.start < a.end
}

/// An address as a host: IPv6 in brackets.
fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
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
