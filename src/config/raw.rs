//! The file as it was written: each setting with its line, nothing judged and nothing filled in. A key that is not
//! listed here is a mistake.

use toml::de::DeValue;

use super::report::Mistakes;
use super::table::{At, Lines, Table};

pub(super) type Text = Option<At<String>>;
pub(super) type Number = Option<At<i64>>;
pub(super) type Flag = Option<At<bool>>;

#[derive(Default)]
pub(super) struct Raw {
    pub(super) upstream: Option<Upstream>,
    pub(super) listen: Vec<Listen>,
    pub(super) tls: Option<Tls>,
    pub(super) keys: Option<Keys>,
    pub(super) audit: Option<Audit>,
    pub(super) admin: Option<Admin>,
    pub(super) limits: Limits,
    pub(super) proxy: Proxy,
    pub(super) log_level: Text,
    pub(super) collections: Vec<Collection>,
}

pub(super) struct Upstream {
    pub(super) line: usize,
    pub(super) uri: Text,
    pub(super) uri_env: Text,
}

pub(super) struct Listen {
    pub(super) line: usize,
    pub(super) address: Text,
    pub(super) member: Text,
    pub(super) advertise: Text,
    pub(super) allow_plaintext: Flag,
    pub(super) compression: Option<At<Vec<String>>>,
    pub(super) discover: Flag,
    pub(super) ports: Number,
    pub(super) remember: Text,
}

pub(super) struct Tls {
    pub(super) line: usize,
    pub(super) certificate: Text,
    pub(super) private_key: Text,
    pub(super) client_ca: Text,
}

pub(super) struct Keys {
    pub(super) line: usize,
    pub(super) vault: Text,
    pub(super) uri: Text,
    pub(super) uri_env: Text,
    pub(super) master: Option<Master>,
    pub(super) ttl_seconds: Number,
    pub(super) grace_seconds: Number,
}

pub(super) struct Master {
    pub(super) line: usize,
    pub(super) provider: Text,
    pub(super) path: Text,
    pub(super) variable: Text,
}

pub(super) struct Audit {
    pub(super) path: Text,
    pub(super) on_failure: Text,
    pub(super) fsync: Text,
}

pub(super) struct Admin {
    pub(super) line: usize,
    pub(super) address: Text,
}

#[derive(Default)]
pub(super) struct Limits {
    pub(super) connections: Number,
    pub(super) handshake_seconds: Number,
    pub(super) connect_seconds: Number,
    pub(super) idle_seconds: Number,
    pub(super) stall_seconds: Number,
}

#[derive(Default)]
pub(super) struct Proxy {
    pub(super) workers: Number,
    pub(super) drain_seconds: Number,
}

pub(super) struct Collection {
    pub(super) line: usize,
    pub(super) namespace: Text,
    pub(super) subject: Text,
    pub(super) state: Text,
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) mode: Text,
    pub(super) declared: Text,
    pub(super) algorithm: Text,
    pub(super) domain: Text,
    pub(super) state: Text,
    pub(super) each: Flag,
    pub(super) accept_leakage: Text,
}

impl Raw {
    /// Reads the file's root table.
    pub(super) fn read(root: &toml::de::DeTable<'_>, lines: &Lines, out: &mut Mistakes) -> Self {
        let mut root = Table::new("", 1, root, lines);
        let raw = Self {
            upstream: root.table("upstream", out).map(|mut t| {
                let read = Upstream {
                    line: t.line,
                    uri: t.text("uri", out),
                    uri_env: t.text("uri_env", out),
                };
                t.finish(out);
                read
            }),
            listen: root
                .tables("listen", out)
                .into_iter()
                .map(|t| listen(t, out))
                .collect(),
            tls: root.table("tls", out).map(|mut t| {
                let read = Tls {
                    line: t.line,
                    certificate: t.text("certificate", out),
                    private_key: t.text("private_key", out),
                    client_ca: t.text("client_ca", out),
                };
                t.finish(out);
                read
            }),
            keys: root.table("keys", out).map(|t| keys(t, out)),
            audit: root.table("audit", out).map(|mut t| {
                let read = Audit {
                    path: t.text("path", out),
                    on_failure: t.text("on_failure", out),
                    fsync: t.text("fsync", out),
                };
                t.finish(out);
                read
            }),
            admin: root.table("admin", out).map(|mut t| {
                let read = Admin {
                    line: t.line,
                    address: t.text("address", out),
                };
                t.finish(out);
                read
            }),
            limits: root.table("limits", out).map_or_else(Limits::default, |mut t| {
                let read = Limits {
                    connections: t.number("connections", out),
                    handshake_seconds: t.number("handshake_seconds", out),
                    connect_seconds: t.number("connect_seconds", out),
                    idle_seconds: t.number("idle_seconds", out),
                    stall_seconds: t.number("stall_seconds", out),
                };
                t.finish(out);
                read
            }),
            proxy: root.table("proxy", out).map_or_else(Proxy::default, |mut t| {
                let read = Proxy {
                    workers: t.number("workers", out),
                    drain_seconds: t.number("drain_seconds", out),
                };
                t.finish(out);
                read
            }),
            log_level: root.table("log", out).and_then(|mut t| {
                let level = t.text("level", out);
                t.finish(out);
                level
            }),
            collections: root
                .tables("collection", out)
                .into_iter()
                .map(|t| collection(t, out))
                .collect(),
        };
        root.finish(out);
        raw
    }
}

fn listen(mut t: Table<'_, '_>, out: &mut Mistakes) -> Listen {
    let read = Listen {
        line: t.line,
        address: t.text("address", out),
        member: t.text("member", out),
        advertise: t.text("advertise", out),
        allow_plaintext: t.flag("allow_plaintext", out),
        compression: t.texts("compression", out),
        discover: t.flag("discover", out),
        ports: t.number("ports", out),
        remember: t.text("remember", out),
    };
    t.finish(out);
    read
}

fn keys(mut t: Table<'_, '_>, out: &mut Mistakes) -> Keys {
    let read = Keys {
        line: t.line,
        vault: t.text("vault", out),
        uri: t.text("uri", out),
        uri_env: t.text("uri_env", out),
        master: t.table("master", out).map(|mut t| {
            let read = Master {
                line: t.line,
                provider: t.text("provider", out),
                path: t.text("path", out),
                variable: t.text("variable", out),
            };
            t.finish(out);
            read
        }),
        ttl_seconds: t.number("ttl_seconds", out),
        grace_seconds: t.number("grace_seconds", out),
    };
    t.finish(out);
    read
}

fn collection(mut t: Table<'_, '_>, out: &mut Mistakes) -> Collection {
    let read = Collection {
        line: t.line,
        namespace: t.text("namespace", out),
        subject: t.text("subject", out),
        state: t.text("state", out),
        fields: t.table("fields", out).map_or_else(Vec::new, |t| fields(t, out)),
    };
    t.finish(out);
    read
}

fn fields(mut t: Table<'_, '_>, out: &mut Mistakes) -> Vec<Field> {
    let mut read = Vec::new();
    for (path, line, value) in t.drain() {
        let shown: String = path.chars().take(40).collect();
        let DeValue::Table(settings) = value.get_ref() else {
            out.add(
                line,
                format!("field `{shown}` has no settings"),
                format!("write \"{shown}\" = {{ mode = \"random\" }}"),
            );
            continue;
        };
        // An unquoted `address.line1 = { … }` is TOML for a table within a table.
        let nested = settings
            .iter()
            .find(|(_, value)| matches!(value.get_ref(), DeValue::Table(_)));
        if let Some((key, _)) = nested {
            let key: String = key.get_ref().chars().take(40).collect();
            out.add(
                line,
                format!("the path of field `{shown}.{key}` is not quoted, so its dot means something else"),
                format!("write \"{shown}.{key}\" = {{ … }}"),
            );
            continue;
        }
        let mut f = t.inner(format!("the field `{shown}`"), line, settings);
        read.push(Field {
            line,
            path,
            mode: f.text("mode", out),
            declared: f.text("type", out),
            algorithm: f.text("algorithm", out),
            domain: f.text("domain", out),
            state: f.text("state", out),
            each: f.flag("each", out),
            accept_leakage: f.text("accept_leakage", out),
        });
        f.finish(out);
    }
    read
}
