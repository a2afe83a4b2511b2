//! What takes a connection: TLS with the upstream, the service's own credentials, the key vault, and a look for
//! plaintext that a field map calls enforced. Documents are counted by the server; none is read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::local::certificate_line;
use super::report::CheckReport;
use crate::config::{Config, ConnectionUri};
use crate::policy::{FieldRule, FieldState};
use crate::tls::inspect;
use crate::tls::upstream::{Target, Upstream};

/// Documents looked at for each field.
const SAMPLE: i32 = 200;
/// The server gives up on one such look after this long.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn check(config: &Config, report: &mut CheckReport) {
    let Some(upstream) = resolve("upstream", &config.upstream, report).await else {
        return;
    };
    let mut seen: Vec<Target> = Vec::new();
    for listener in &config.listen {
        // A listener that stands for no member in particular goes to any of those that the connection string names.
        let targets = match &listener.member {
            Some(member) => Target::parse(member).into_iter().collect(),
            None => upstream.hosts.clone(),
        };
        for target in targets {
            if !seen.contains(&target) {
                reach(config, &upstream, &target, report).await;
                seen.push(target);
            }
        }
    }
    let client = match connect("upstream", config, &upstream) {
        Ok(client) => client,
        Err(text) => {
            report.fail("upstream", text, "");
            return;
        }
    };
    if !ping(&client, report).await {
        return;
    }
    if config.keys.uri == config.upstream {
        vault(&client, config, report).await;
    } else if let Some(other) = resolve("vault", &config.keys.uri, report).await {
        match connect("vault", config, &other) {
            Ok(client) => vault(&client, config, report).await,
            Err(text) => report.fail("vault", text, ""),
        }
    }
    stored(&client, config, report).await;
}

async fn resolve(area: &'static str, uri: &ConnectionUri, report: &mut CheckReport) -> Option<Upstream> {
    match Upstream::resolve(uri).await {
        Ok(upstream) => {
            if upstream.unverified {
                report.warn(
                    area,
                    format!("{uri}: the certificate is not verified"),
                    "take tlsInsecure or tlsAllowInvalidCertificates out and name its authority with tlsCAFile",
                );
            }
            Some(upstream)
        }
        Err(error) => {
            report.fail(area, error.to_string(), "");
            None
        }
    }
}

/// Connects as the proxy will, and does the TLS handshake.
async fn reach(config: &Config, upstream: &Upstream, target: &Target, report: &mut CheckReport) {
    let connecting = TcpStream::connect((target.host.as_str(), target.port));
    let socket = match tokio::time::timeout(config.limits.connect, connecting).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => {
            report.fail(
                "upstream",
                format!("{target} cannot be reached: {error}"),
                REACH_HINT,
            );
            return;
        }
        Err(_) => {
            report.fail("upstream", format!("{target} does not answer"), REACH_HINT);
            return;
        }
    };
    let Some(tls) = &upstream.tls else {
        if is_loopback(&target.host) {
            report.ok(
                "upstream",
                format!("{target} can be reached (no TLS, on this machine)"),
            );
        } else {
            report.warn(
                "upstream",
                format!(
                    "{target} can be reached, but without TLS: what is not encrypted can be seen on the way"
                ),
                "let the server speak TLS and add tls=true (and tlsCAFile) to upstream.uri",
            );
        }
        return;
    };
    match shake(config, tls, target, socket).await {
        Ok(agreed) => {
            report.ok(
                "upstream",
                format!("{target}: {}, {}", agreed.version, agreed.cipher),
            );
            if let Some(peer) = &agreed.peer {
                certificate_line("upstream", &target.to_string(), peer, report);
            }
        }
        Err(text) => report.fail(
            "upstream",
            format!("{target}: TLS fails: {text}"),
            "name the authority of its certificate with tlsCAFile, and the host as the certificate does",
        ),
    }
}

const REACH_HINT: &str = "is mongod running there, and does a firewall let this machine through?";

async fn shake(
    config: &Config,
    tls: &Arc<ClientConfig>,
    target: &Target,
    socket: TcpStream,
) -> Result<inspect::Handshake, String> {
    let name = target.server_name().map_err(|error| error.to_string())?;
    let shaking = TlsConnector::from(Arc::clone(tls)).connect(name, socket);
    let stream = tokio::time::timeout(config.limits.handshake, shaking)
        .await
        .map_err(|_| "the handshake does not finish".to_owned())?
        .map_err(|error| error.to_string())?;
    inspect::handshake(stream.get_ref().1).ok_or_else(|| "the handshake did not finish".to_owned())
}

fn connect(area: &str, config: &Config, upstream: &Upstream) -> Result<Client, String> {
    let mut options = upstream.driver_options();
    options.server_selection_timeout = Some(config.limits.connect);
    options.connect_timeout = Some(config.limits.connect);
    options.app_name = Some("fieldveil check".to_owned());
    Client::with_options(options)
        .map_err(|error| format!("the {area} connection cannot be set up: {}", error.kind))
}

async fn ping(client: &Client, report: &mut CheckReport) -> bool {
    let admin = client.database("admin");
    if let Err(error) = admin.run_command(doc! { "ping": 1 }).await {
        report.fail(
            "upstream",
            format!("MongoDB does not answer: {}", error.kind),
            "check host, replicaSet name, TLS options and credentials in upstream.uri",
        );
        return false;
    }
    match admin.run_command(doc! { "buildInfo": 1 }).await {
        Ok(info) => {
            let version = info.get_str("version").unwrap_or("of unknown version");
            report.ok("upstream", format!("MongoDB {version} answers"));
        }
        Err(_) => report.ok("upstream", "MongoDB answers"),
    }
    true
}

async fn vault(client: &Client, config: &Config, report: &mut CheckReport) {
    let name = &config.keys.vault;
    let keys = client
        .database(name.db())
        .collection::<Document>(name.collection());
    match keys.count_documents(doc! {}).await {
        Ok(count) => {
            let noun = if count == 1 { "data key" } else { "data keys" };
            report.ok("vault", format!("{name} can be read: {count} {noun}"));
        }
        Err(error) => report.fail(
            "vault",
            format!("{name} cannot be read: {}", brief(&error.kind)),
            "give the credentials in keys.uri (or upstream.uri) readWrite on that collection",
        ),
    }
}

/// Looks at a few documents of each exact namespace for plaintext where there should be none.
async fn stored(client: &Client, config: &Config, report: &mut CheckReport) {
    for policy in config.fields.policies() {
        let name = &policy.namespace;
        let collection = client
            .database(name.db())
            .collection::<Document>(name.collection());
        for rule in policy
            .rules
            .iter()
            .filter(|rule| rule.state == FieldState::Enforced)
        {
            let counted = async {
                let mut found = collection.aggregate(look(rule)).max_time(PATIENCE).await?;
                if found.advance().await? {
                    let first: Document = found.deserialize_current()?;
                    return Ok::<_, mongodb::error::Error>(first.get_i32("n").unwrap_or(0));
                }
                Ok(0)
            };
            match tokio::time::timeout(config.limits.connect, counted).await {
                Ok(Ok(0)) => {}
                Ok(Ok(count)) => report.warn(
                    "stored",
                    format!("{name}: {}: plaintext in {count} documents of a sample of at most {SAMPLE}", rule.path),
                    "write state = \"migrating\" until it has been moved: an enforced field is looked for as ciphertext only",
                ),
                Ok(Err(error)) => {
                    report.warn(
                        "stored",
                        format!("{name}: it could not be looked whether plaintext is stored: {}", brief(&error.kind)),
                        "give the service's credentials read on that collection, or make sure in another way",
                    );
                    break;
                }
                Err(_) => {
                    report.warn(
                        "stored",
                        format!("{name}: looking whether plaintext is stored took too long"),
                        "make sure in another way",
                    );
                    break;
                }
            }
        }
    }
}

/// Counts plaintext at a rule's path among a sample; an array matches where one of its elements does.
fn look(rule: &FieldRule) -> Vec<Document> {
    let mut plaintext = vec![
        "double",
        "string",
        "object",
        "objectId",
        "bool",
        "date",
        "regex",
        "dbPointer",
        "javascript",
        "symbol",
        "javascriptWithScope",
        "int",
        "timestamp",
        "long",
        "decimal",
    ];
    if !rule.seals_elements() {
        plaintext.push("array");
    }
    vec![
        doc! { "$sample": { "size": SAMPLE } },
        doc! { "$match": { &*rule.path: { "$type": plaintext } } },
        doc! { "$count": "n" },
    ]
}

/// The server's own name for an error; its message may be long.
fn brief(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::Command(error) => error.code_name.clone(),
        other => other.to_string(),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
