//! A provider whose calls are counted and timed. Owns no key and no decision.

use std::sync::Arc;
use std::time::Instant;

use crate::crypto::MATERIAL;
use crate::keys::{BoxFuture, KeyProvider, MasterKey, ProviderError};
use crate::metrics::Metrics;
use crate::name::KeyId;
use crate::secret::Secret;

/// Wraps another provider.
pub struct Measured {
    inner: Arc<dyn KeyProvider>,
    /// From the closed list of providers.
    name: &'static str,
    metrics: Arc<Metrics>,
}

impl Measured {
    /// Counts the calls of `inner` under this name.
    pub fn new(inner: Arc<dyn KeyProvider>, name: &'static str, metrics: Arc<Metrics>) -> Self {
        Self { inner, name, metrics }
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        call: BoxFuture<'_, Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let begun = Instant::now();
        let result = call.await;
        self.metrics
            .provider_call(self.name, operation, result.is_ok(), begun.elapsed());
        result
    }
}

impl KeyProvider for Measured {
    fn describe(&self) -> MasterKey {
        self.inner.describe()
    }

    fn wrap<'a>(
        &'a self,
        id: &'a KeyId,
        material: &'a Secret<[u8; MATERIAL]>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>> {
        Box::pin(self.timed("wrap", self.inner.wrap(id, material)))
    }

    fn unwrap<'a>(
        &'a self,
        id: &'a KeyId,
        master: &'a MasterKey,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret<[u8; MATERIAL]>, ProviderError>> {
        Box::pin(self.timed("unwrap", self.inner.unwrap(id, master, wrapped)))
    }

    fn health(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(self.timed("health", self.inner.health()))
    }
}
