//! How many values a key may still seal under random nonces: leased in blocks from a count that all proxies on one vault
//! share, so that neither several of them nor restarts take one key past its budget. A crash wastes what was left of a
//! block.

use std::collections::HashSet;

use super::failure::{KeyError, KeyErrorKind};
use super::service::KeyService;
use crate::crypto::Suite;
use crate::keys::{Dek, NONCE_BUDGET};
use crate::name::KeyId;

/// The first block of a key in a process: small, so that restarts waste little of the budget.
const FIRST: u64 = 1 << 16;
/// Every later block.
const BLOCK: u64 = 1 << 20;

/// Keys whose budget is known to be leased out, by suite.
#[derive(Default)]
pub(super) struct Leases(std::sync::Mutex<HashSet<(KeyId, usize)>>);

impl Leases {
    fn is_spent(&self, key: &Dek, suite: Suite) -> bool {
        self.lock().contains(&(key.id(), suite.index()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<(KeyId, usize)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl KeyService {
    /// Sees to it that the key may seal `count` more values under the suite's random nonces. Callers that ask at the
    /// same time share one lease.
    ///
    /// # Errors
    /// Where the vault is out of reach, or the key's budget is leased out.
    pub async fn lease(&self, id: &KeyId, suite: Suite, count: u64) -> Result<(), KeyError> {
        let _turn = self.leasing.lock().await;
        let ring = self.ring();
        let key = ring.by_id(id).ok_or_else(|| super::failure::missing(id))?;
        // The very one that writes.
        let writes = ring
            .domain(key.domain())
            .and_then(|domain| domain.read.iter().find(|key| key.id() == *id));
        let key = writes.unwrap_or(key);
        while key.left(suite) < count {
            self.lease_block(key, suite, count).await?;
        }
        Ok(())
    }

    /// Leases ahead for the keys that seal: a vault that is away for a while must not stop them at once.
    ///
    /// # Errors
    /// Where the vault is out of reach.
    pub async fn lease_ahead(&self) -> Result<(), KeyError> {
        let _turn = self.leasing.lock().await;
        for key in self.ring().keys() {
            for suite in Suite::ALL {
                let seals = suite.has_nonce_budget() && key.sealed(suite) > 0;
                if seals && key.left(suite) < BLOCK / 2 && !self.leases.is_spent(key, suite) {
                    match self.lease_block(key, suite, 0).await {
                        Err(failure) if failure.kind != KeyErrorKind::Spent => return Err(failure),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn lease_block(&self, key: &Dek, suite: Suite, count: u64) -> Result<(), KeyError> {
        let spent = || {
            KeyError::new(
                KeyErrorKind::Spent,
                format!(
                    "data key {} has sealed 2^32 values under random nonces, in all proxies together, and must not seal more: add a version of it",
                    key.id()
                ),
            )
        };
        if self.leases.is_spent(key, suite) {
            return Err(spent());
        }
        let usual = if key.sealed(suite) == 0 { FIRST } else { BLOCK };
        let block = usual.max(count);
        let total = self.ask(self.store.lease(&key.id(), suite.name(), block)).await?;
        // What is leased past the budget is nobody's.
        let granted = block.saturating_sub(total.saturating_sub(NONCE_BUDGET));
        key.grant(suite, granted);
        if total >= NONCE_BUDGET {
            self.leases.lock().insert((key.id(), suite.index()));
            tracing::error!(key = %key.id(), domain = %key.domain(), "a data key's last random nonces are leased: add a version of it");
            if granted < count {
                return Err(spent());
            }
        }
        Ok(())
    }
}
