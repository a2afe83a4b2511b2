//! What a driver's connection string says about the upstream: hosts, TLS, credentials. The driver parses it, SRV
//! records included, so it means here what it means in an application.

use std::fmt;
use std::sync::Arc;

use mongodb::options::{ClientOptions, ServerAddress, Tls};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{client, mistake};
use crate::config::ConnectionUri;
use crate::error::{Error, Fault};

/// The upstream deployment, resolved.
#[derive(Clone)]
pub struct Upstream {
    /// The seeds, in the order of the connection string or of its SRV record.
    pub hosts: Vec<Target>,
    /// How to speak TLS with them; `None` where the connection string has none.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether the certificate of the upstream is taken unseen.
    pub unverified: bool,
    /// The replica set's name, where one is given.
    pub replica_set: Option<String>,
    options: ClientOptions,
}

/// One server to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Upstream {
    /// Parses the connection string, follows its SRV record and reads its PEM files.
    pub async fn resolve(uri: &ConnectionUri) -> Result<Self, Error> {
        let options = ClientOptions::parse(uri.expose()).await.map_err(|error| {
            // The driver's text names the option or the record, not the credentials.
            Error::new(
                Fault::Operator,
                format!("the connection string of {uri} cannot be used: {}", error.kind),
            )
        })?;
        Self::from_options(options)
    }

    fn from_options(options: ClientOptions) -> Result<Self, Error> {
        let mut hosts = Vec::with_capacity(options.hosts.len());
        for address in &options.hosts {
            match address {
                ServerAddress::Tcp { host, port } => hosts.push(Target {
                    host: host.trim_matches(['[', ']']).to_owned(),
                    port: port.unwrap_or(27017),
                }),
                _ => {
                    return Err(mistake(
                        "the upstream is a Unix socket, which is not supported: name its host and port",
                    ));
                }
            }
        }
        let (tls, unverified) = match &options.tls {
            Some(Tls::Enabled(settings)) => (
                Some(client::client_config(settings)?),
                client::accepts_any_certificate(settings),
            ),
            Some(Tls::Disabled) | None => (None, false),
        };
        Ok(Self {
            hosts,
            tls,
            unverified,
            replica_set: options.repl_set_name.clone(),
            options,
        })
    }

    /// The driver's own options, for connections of the service itself (key vault, `check`). They hold the
    /// connection string's credentials, which are never used for an application's connection.
    pub fn driver_options(&self) -> ClientOptions {
        self.options.clone()
    }
}

/// Leaves the driver's options out: they hold credentials.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("hosts", &self.hosts)
            .field("tls", &self.tls.is_some())
            .field("unverified", &self.unverified)
            .field("replica_set", &self.replica_set)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Reads `host:port`, an IPv6 address in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        (!host.is_empty()).then_some(())?;
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// The name that the server's certificate must bear.
    pub fn server_name(&self) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(self.host.clone()).map_err(|_| {
            mistake(format!(
                "`{}` is not a name that a certificate can bear",
                self.host
            ))
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
