//! Builds every room once from the configuration; the only place that names concrete providers. Owns the life of the
//! process: start, reload on SIGHUP, drain on SIGTERM.

mod keys;
mod listeners;

pub use keys::{AUDIT_DOMAIN, audit_keys, key_service};

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use self::keys::service_id;
use self::listeners::Listeners;
use crate::admin::{Admin, AdminServer, Latch, Readiness};
use crate::audit::{AuditSink, Fsync, Settings, Target};
use crate::command::table;
use crate::config::{self, Config, OnFailure};
use crate::error::{Error, Fault};
use crate::event::{Lifecycle, LifecycleEvent};
use crate::metrics::{Labels, Leg, Metrics};
use crate::policy::Reason;
use crate::proxy::{Live, Shared, Times, Workers, survey};
use crate::store::{Catalogue, KeyService, Members};
use crate::tls::inspect::certificate_file;
use crate::tls::{ServerTls, Upstream};
use crate::topology::Address;

/// How long the start waits for the key vault before it gives up.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How often the upstream and the vault are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What the labels of failures can be.
const FAILURES: &[&str] = &["key", "tampered", "malformed", "size", "proof"];
const PROVIDERS: &[&str] = &["file", "env", "csfle-local"];

/// Reads the configuration again, for a reload.
pub type Reader = Box<dyn Fn() -> Result<Config, Error> + Send + Sync>;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What kept it from starting: whose fault, what, and what to do.
pub async fn serve(config: Config, reader: Reader) -> Result<(), Error> {
    for warning in &config.warnings {
        tracing::warn!("{}: {warning}", config.file);
    }
    let mut signals = Signals::install()?;
    let metrics = Arc::new(metrics(&config)?);
    let keys = key_service(&config, Some(Arc::clone(&metrics))).await?;
    let tls = config.tls.as_ref().map(ServerTls::load).transpose()?;
    let members = Arc::new(Members::default());
    let live = live(&config, tls.as_ref(), &members).await?;
    let (audit_key, pseudonymizer) = patiently(|| audit_keys(&keys)).await?;
    let audit = AuditSink::open(audit_settings(&config), audit_key).map_err(Error::from)?;
    let told = audit.clone();
    keys.listen(move |what| note(&told, what));
    let readiness = Arc::new(Readiness::new());
    let (stop, stopping) = watch::channel(false);
    let optional = config.audit.on_failure == OnFailure::Continue;
    let shared = Arc::new(Shared::new(
        live,
        members,
        service_id(&keys)?,
        Arc::clone(&keys),
        Some(audit.clone()),
        optional,
        Arc::clone(&metrics),
        pseudonymizer,
        stopping.clone(),
    ));

    let admin = match config.admin {
        Some(address) => Some(admin(address, &metrics, &readiness, &audit, &keys, optional).await?),
        None => None,
    };
    // Before the first command is served: what the configuration cannot know is known then.
    survey(&shared).await;
    let workers = Arc::new(Workers::start(config.workers.unwrap_or_else(cores), &shared).map_err(internal)?);
    let permits = Arc::new(Semaphore::new(config.limits.connections));
    let listeners = Listeners::open(&config.listen, &shared, &workers, &permits).await?;
    let following = tokio::spawn(Arc::clone(&listeners).follow());
    if let Some(admin) = admin {
        announce(&format!(
            "admin on http://{}",
            admin.local_addr().map_err(internal)?
        ));
        let mut until = stopping.clone();
        // The admin listener goes last: a probe must see the drain.
        tokio::spawn(admin.serve(async move {
            drop(until.wait_for(|s| *s).await);
            std::future::pending::<()>().await;
        }));
    }
    readiness.set(Latch::Listeners, true);
    note(
        &audit,
        Lifecycle::Started {
            version: env!("CARGO_PKG_VERSION"),
            configuration: config.fingerprint,
        },
    );
    tokio::spawn(look_after(
        Arc::clone(&shared),
        Arc::clone(&keys),
        Arc::clone(&readiness),
        config.keys.ttl,
    ));

    loop {
        match signals.next().await {
            Told::Stop => break,
            Told::Reload => reload(&reader, tls.as_ref(), &shared, &listeners, &audit, &metrics).await,
        }
    }
    tracing::info!("draining");
    readiness.drain();
    // An error would mean that nobody listens any more.
    let _ = stop.send(true);
    following.abort();
    listeners.close();
    drain(&workers, config.drain).await;
    note(&audit, Lifecycle::Stopped { reason: "signal" });
    let closed = tokio::task::spawn_blocking(move || audit.flush_and_close(Duration::from_secs(5))).await;
    if let Ok(Err(why)) = closed {
        return Err(Error::new(Fault::Operator, why.to_string()));
    }
    Ok(())
}

async fn live(config: &Config, tls: Option<&ServerTls>, members: &Arc<Members>) -> Result<Live, Error> {
    let upstream = Upstream::resolve(&config.upstream).await?;
    let mut options = upstream.driver_options();
    members.listen_to(&mut options);
    Ok(Live {
        fields: Arc::clone(&config.fields),
        tls_in: tls.map(ServerTls::current),
        catalogue: Catalogue::new(options)?,
        upstream,
        login: config.upstream.has_credentials() || config.keys.uri.has_credentials(),
        upstream_compression: config.upstream_compression,
        zlib_level: config.zlib_level,
        times: Times {
            handshake: config.limits.handshake,
            connect: config.limits.connect,
            idle: config.limits.idle,
            stall: config.limits.stall,
        },
    })
}

fn metrics(config: &Config) -> Result<Metrics, Error> {
    let commands: Vec<&'static str> = table::COMMANDS.iter().map(|entry| entry.name).collect();
    let refusals: Vec<&'static str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    // Built once, kept for the life of the process.
    let labels = Labels {
        commands: commands.leak(),
        refusals: refusals.leak(),
        failures: FAILURES,
        providers: PROVIDERS,
    };
    let metrics = Metrics::new(&labels, &field_labels(config)).map_err(internal)?;
    show_expiry(config, &metrics);
    Ok(metrics)
}

fn field_labels(config: &Config) -> Vec<(String, String)> {
    config
        .fields
        .rules()
        .map(|(namespace, rule)| (namespace.to_owned(), rule.path.to_string()))
        .collect()
}

fn show_expiry(config: &Config, metrics: &Metrics) {
    let Some(tls) = &config.tls else { return };
    match certificate_file(&tls.certificate) {
        Ok(certificate) => {
            let now = SystemTime::now();
            let days = certificate.days_left(now);
            if days < 30 {
                tracing::warn!(days, file = %tls.certificate.display(), "the listener's certificate expires soon; renew it and send SIGHUP");
            }
            metrics.set_certificate_expiry(Leg::Client, certificate.expiry());
        }
        Err(why) => tracing::warn!("{why}"),
    }
}

fn audit_settings(config: &Config) -> Settings {
    let mut settings = Settings::new(Target::parse(&config.audit.path.to_string_lossy()));
    settings.fsync = match config.audit.fsync {
        config::Fsync::Batch => Fsync::Batch,
        config::Fsync::Off => Fsync::Off,
    };
    settings
}

async fn admin(
    address: std::net::SocketAddr,
    metrics: &Arc<Metrics>,
    readiness: &Arc<Readiness>,
    audit: &AuditSink,
    keys: &Arc<KeyService>,
    audit_optional: bool,
) -> Result<AdminServer, Error> {
    let (audit, keys) = (audit.clone(), Arc::clone(keys));
    let admin = Admin::new(
        Arc::clone(metrics),
        Arc::clone(readiness),
        move |metrics, readiness| {
            let status = audit.status();
            metrics.set_audit(status.healthy, status.head.seq, status.events, status.turned_away);
            metrics.set_keys_loaded(keys.ring().keys().count());
            readiness.set(Latch::Audit, status.healthy || audit_optional);
        },
    );
    AdminServer::bind(address, admin).await.map_err(|why| {
        Error::new(
            Fault::Operator,
            format!("cannot listen on {address} ([admin] address): {why}"),
        )
    })
}

/// Looks at the vault and the upstream from time to time: refreshes keys, keeps readiness true.
async fn look_after(shared: Arc<Shared>, keys: Arc<KeyService>, readiness: Arc<Readiness>, ttl: Duration) {
    let mut since_refresh = Duration::ZERO;
    let mut looks = 0_u64;
    loop {
        shared.set_clock();
        if looks.is_multiple_of(3) {
            survey(&shared).await;
        }
        looks += 1;
        readiness.set(Latch::Upstream, shared.reach_upstream().await);
        readiness.set(Latch::KeyVault, keys.health().failing.is_none());
        if let Err(why) = keys.lease_ahead().await {
            tracing::error!(reason = %why, "no random nonces could be leased ahead");
        }
        tokio::time::sleep(LOOK_EVERY).await;
        since_refresh += LOOK_EVERY;
        if since_refresh >= ttl {
            since_refresh = Duration::ZERO;
            if let Err(why) = keys.refresh().await {
                tracing::error!(reason = %why, "the key vault could not be read again");
            }
        }
    }
}

async fn reload(
    reader: &Reader,
    tls: Option<&ServerTls>,
    shared: &Shared,
    listeners: &Listeners,
    audit: &AuditSink,
    metrics: &Metrics,
) {
    let outcome = apply_reload(reader, tls, shared, listeners, metrics).await;
    metrics.config_reload(outcome.is_ok());
    match outcome {
        Ok(configuration) => {
            note(audit, Lifecycle::ConfigReloaded { configuration });
            tracing::info!(
                "configuration, field map and certificates reloaded; listeners, keys, audit path and worker count take a restart"
            );
        }
        Err(why) => {
            note(audit, Lifecycle::ConfigRejected { reason: "invalid" });
            tracing::error!("reload refused, the old configuration stays in force: {why}");
        }
    }
    let audit = audit.clone();
    let reopened = tokio::task::spawn_blocking(move || audit.reopen(Duration::from_secs(5))).await;
    if let Ok(Err(why)) = reopened {
        tracing::error!("{why}");
    }
}

async fn apply_reload(
    reader: &Reader,
    tls: Option<&ServerTls>,
    shared: &Shared,
    listeners: &Listeners,
    metrics: &Metrics,
) -> Result<[u8; 32], Error> {
    let config = reader()?;
    match (tls, &config.tls) {
        (Some(tls), Some(files)) => tls.reload(files)?,
        (None, None) => {}
        _ => {
            return Err(Error::new(
                Fault::Operator,
                "[tls] cannot be added or taken away without a restart",
            ));
        }
    }
    let live = live(&config, tls, shared.members()).await?;
    listeners.rename(&config.listen)?;
    metrics.set_fields(&field_labels(&config));
    show_expiry(&config, metrics);
    // Looked at before the new rules hold, so that no view of theirs is unknown when they do.
    let found = live.catalogue.look(&live.fields).await;
    if let Err(why) = &found {
        tracing::error!("{why}");
    }
    shared.replace(live, found.ok());
    survey(shared).await;
    Ok(config.fingerprint)
}

async fn drain(workers: &Workers, limit: Duration) {
    let deadline = tokio::time::Instant::now() + limit;
    while workers.connections() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = workers.connections();
    if left > 0 {
        tracing::warn!(connections = left, "the drain time is over; closing what is left");
    }
}

async fn patiently<T, F: Future<Output = Result<T, Error>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let deadline = tokio::time::Instant::now() + START_PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(why) if tokio::time::Instant::now() >= deadline => return Err(why),
            Err(why) => {
                tracing::warn!("waiting for the key vault: {why}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn note(audit: &AuditSink, what: Lifecycle) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    if let Err(why) = audit.record(LifecycleEvent { time_ms, what }) {
        tracing::error!(reason = %why, "an audit event could not be recorded");
    }
}

fn announce(line: &str) {
    use std::io::Write as _;
    tracing::info!("{line}");
    // A closed standard output is no reason not to serve.
    drop(writeln!(std::io::stdout(), "fieldveil: {line}"));
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn address(text: &str) -> Result<Address, Error> {
    Address::parse(text).ok_or_else(|| Error::new(Fault::Operator, format!("'{text}' is no host:port")))
}

fn operator(why: impl std::fmt::Display) -> Error {
    Error::new(Fault::Operator, why.to_string())
}

fn internal(why: impl std::fmt::Display) -> Error {
    Error::new(Fault::Internal, why.to_string())
}

enum Told {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(internal);
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
