//! The two sides: connection strings towards MongoDB, certificates towards applications.

use super::path;
use crate::config::env::{self, Env};
use crate::config::raw::{self, Text};
use crate::config::report::Mistakes;
use crate::config::table::At;
use crate::config::{ConnectionUri, Tls};

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
