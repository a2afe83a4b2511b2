//! The key service and the audit's keys, as the configuration names them: the only place that knows which provider is
//! which.

use std::path::Path;
use std::sync::Arc;

use super::{operator, patiently};
use crate::audit::AuditKey;
use crate::config::{self, Config, Master};
use crate::crypto::pseudonym::Pseudonymizer;
use crate::error::{Error, Fault};
use crate::keys::{Dek, KeyProvider};
use crate::kms;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{KeyService, MongoStore};

/// The domain whose data key the audit's chain and pseudonyms are derived from: the same for every proxy on one vault.
pub const AUDIT_DOMAIN: &str = "fieldveil.audit";

/// The key service as the configuration describes it, with the vault it reads. A master-key file that does not exist
/// is made, if the vault holds no key yet: otherwise the right one is merely missing.
///
/// # Errors
/// What is wrong with the master key or the vault.
pub async fn key_service(config: &Config, metrics: Option<Arc<Metrics>>) -> Result<Arc<KeyService>, Error> {
    let vault = MongoStore::connect(config.keys.uri.expose(), &config.keys.vault)
        .await
        .map_err(vault_fault)?;
    if let Master::File(path) = &config.keys.master
        && !path.exists()
    {
        first_master_key(path, &vault).await?;
    }
    let provider: Arc<dyn KeyProvider> = match &config.keys.master {
        Master::File(path) => Arc::new(kms::FileKey::open(path).map_err(operator)?),
        Master::Env(name) => Arc::new(kms::EnvKey::new(name, &variable(name)?).map_err(operator)?),
        Master::CsfleLocal(config::LocalKey::Path(path)) => {
            Arc::new(kms::CsfleLocal::open(path).map_err(operator)?)
        }
        Master::CsfleLocal(config::LocalKey::Variable(name)) => Arc::new(local_key(name)?),
    };
    let provider = match metrics {
        Some(metrics) => Arc::new(kms::Measured::new(
            provider,
            provider_name(&config.keys.master),
            metrics,
        )),
        None => provider,
    };
    let keys = Arc::new(KeyService::new(
        Arc::new(vault),
        provider,
        provider_name(&config.keys.master),
        config.keys.grace,
    ));
    patiently(|| async { keys.prepare().await.map_err(Error::from) }).await?;
    Ok(keys)
}

async fn first_master_key(path: &Path, vault: &MongoStore) -> Result<(), Error> {
    let is_new = patiently(|| async { vault.is_empty().await.map_err(vault_fault) }).await?;
    make_master_key(path, is_new)
}

/// Makes the file where the vault is new.
fn make_master_key(path: &Path, is_new: bool) -> Result<(), Error> {
    let shown = path.display();
    if !is_new {
        // Whoever starts at the same moment has made the file before the first key that it wraps.
        if path.exists() {
            return Ok(());
        }
        return Err(Error::new(
            Fault::Operator,
            format!(
                "the master key file {shown} ([keys] master) does not exist, but the key vault holds keys that it wraps; restore the file from its backup"
            ),
        ));
    }
    match kms::generate(path) {
        Ok(()) => {}
        Err(_) if path.exists() => {
            tracing::info!("another process has just made the master key {shown}");
            return Ok(());
        }
        Err(why) => return Err(operator(why)),
    }
    tracing::warn!(
        "NEW MASTER KEY written to {shown}. BACK IT UP NOW, away from the database and its backups: without it nothing sealed can ever be read again"
    );
    Ok(())
}

fn vault_fault(why: crate::keys::StoreError) -> Error {
    Error::new(Fault::KeyProvider, why.to_string())
}

/// The keys of the audit: of its chain, and of its pseudonyms.
///
/// # Errors
/// Why the key vault did not give their data key.
pub async fn audit_keys(keys: &KeyService) -> Result<(AuditKey, Pseudonymizer), Error> {
    keys.resolve(&[AUDIT_DOMAIN.into()], &[]).await?;
    Ok((
        AuditKey::new(derive(keys, "audit-chain")?.expose()),
        Pseudonymizer::new(&derive(keys, "audit-pseudonym")?),
    ))
}

/// What clients behind a load balancer know the service by: the same from every proxy on one vault. A driver forgets its
/// connections by this id when one of them fails, and retries once: after an election all of them lead to the wrong
/// member, whichever proxy they go through.
pub(super) fn service_id(keys: &KeyService) -> Result<[u8; 12], Error> {
    let derived = derive(keys, "service-id")?;
    let mut id = [0; 12];
    id.copy_from_slice(&derived.expose()[..12]);
    Ok(id)
}

/// What every proxy on one vault derives the same.
fn derive(keys: &KeyService, purpose: &str) -> Result<Secret<[u8; 32]>, Error> {
    let ring = keys.ring();
    let domain = ring
        .domain(AUDIT_DOMAIN)
        .ok_or_else(|| Error::new(Fault::KeyProvider, "the audit's data key is missing"))?;
    // The first version is the one that all earlier lines were written under.
    let dek = domain
        .read
        .iter()
        .min_by_key(|dek| dek.version())
        .unwrap_or(&domain.write);
    Dek::subkey(dek, purpose).map_err(|why| Error::new(Fault::KeyProvider, why.to_string()))
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| {
        Error::new(
            Fault::Operator,
            format!("the environment variable {name} ([keys] master) is not set; set it to the master key"),
        )
    })
}

fn local_key(name: &str) -> Result<kms::CsfleLocal, Error> {
    use base64::Engine as _;
    let text = variable(name)?;
    let mut bytes = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .map_err(|_| {
            Error::new(
                Fault::Operator,
                format!("the environment variable {name} is not base64"),
            )
        })?;
    let key = crate::secret::Secret::take(&mut bytes).ok_or_else(|| {
        Error::new(
            Fault::Operator,
            format!("the environment variable {name} does not hold 96 bytes in base64"),
        )
    })?;
    kms::CsfleLocal::new(&key).map_err(operator)
}

fn provider_name(master: &Master) -> &'static str {
    match master {
        Master::File(_) => "file",
        Master::Env(_) => "env",
        Master::CsfleLocal(_) => "csfle-local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_master_key_that_another_process_made_after_we_looked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let why = make_master_key(&path, false).unwrap_err();
        assert!(why.to_string().contains("restore the file"), "{why}");
        make_master_key(&path, true).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        make_master_key(&path, false).unwrap();
        make_master_key(&path, true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
