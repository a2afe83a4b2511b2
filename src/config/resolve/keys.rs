//! Where data keys live, and what wraps them.

use super::sides::connection_uri;
use super::{path, seconds};
use crate::config::env::{self, Env};
use crate::config::raw::{self, Raw};
use crate::config::report::Mistakes;
use crate::config::{ConnectionUri, Keys, LocalKey, Master};
use crate::name::Namespace;

pub(super) fn keys(
    raw: &Raw,
    upstream: Option<&ConnectionUri>,
    env: &dyn Env,
    out: &mut Mistakes,
) -> Option<Keys> {
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
