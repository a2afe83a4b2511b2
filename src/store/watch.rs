//! What happens to keys and to their provider, told to whoever listens: changes, not every failure, so that a key that
//! cannot be had is told of once until it can. Decides nothing and holds no key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::failure::KeyErrorKind;
use crate::event::Lifecycle;
use crate::name::KeyId;

/// Refused keys that are remembered; while so many are, further ones are not told of.
const REFUSED_KEPT: usize = 1024;
/// Kept for a listener that is not there yet.
const EARLY_KEPT: usize = 4096;

type Listener = Arc<dyn Fn(Lifecycle) + Send + Sync>;

/// Tells changes apart from repetitions.
pub(super) struct Watch {
    /// From the closed list of providers.
    provider: &'static str,
    state: Mutex<State>,
}

struct State {
    listener: Option<Listener>,
    early: Vec<Lifecycle>,
    up: bool,
    refused: HashMap<(Option<KeyId>, Arc<str>), KeyErrorKind>,
}

impl Watch {
    pub(super) fn new(provider: &'static str) -> Self {
        Self {
            provider,
            state: Mutex::new(State {
                listener: None,
                early: Vec::new(),
                up: true,
                refused: HashMap::new(),
            }),
        }
    }

    /// From now on every change is told to this listener; first what has happened already.
    pub(super) fn listen(&self, listener: Listener) {
        let early = {
            let mut state = self.lock();
            state.listener = Some(Arc::clone(&listener));
            std::mem::take(&mut state.early)
        };
        early.into_iter().for_each(|event| listener(event));
    }

    pub(super) fn created(&self, key: KeyId, domain: &str) {
        self.tell(Lifecycle::KeyCreated {
            key,
            domain: domain.into(),
        });
    }

    pub(super) fn changed(&self, key: KeyId, domain: &str, state: &'static str) {
        self.tell(Lifecycle::KeyChanged {
            key,
            domain: domain.into(),
            state,
        });
    }

    /// A key, or a domain's keys, could not be had.
    pub(super) fn refused(&self, key: Option<KeyId>, domain: &str, why: KeyErrorKind) {
        let domain: Arc<str> = domain.into();
        {
            let refused = &mut self.lock().refused;
            let place = (key, Arc::clone(&domain));
            let is_full = refused.len() >= REFUSED_KEPT && !refused.contains_key(&place);
            if is_full || refused.insert(place, why) == Some(why) {
                return;
            }
        }
        self.tell(Lifecycle::KeyRefused {
            key,
            domain,
            reason: why.label(),
        });
    }

    /// It can be had, so that its next failure is news.
    pub(super) fn had(&self, key: Option<KeyId>, domain: &str) {
        let refused = &mut self.lock().refused;
        if !refused.is_empty() {
            // A key's id says it all; what failed to be found had no domain yet.
            refused.retain(|(id, name), _| *id != key || key.is_none() && &**name != domain);
        }
    }

    pub(super) fn provider(&self, up: bool) {
        if std::mem::replace(&mut self.lock().up, up) != up {
            self.tell(Lifecycle::ProviderHealth {
                provider: self.provider,
                up,
            });
        }
    }

    fn tell(&self, event: Lifecycle) {
        let listener = {
            let mut state = self.lock();
            if state.listener.is_none() && state.early.len() < EARLY_KEPT {
                state.early.push(event.clone());
            }
            state.listener.clone()
        };
        if let Some(listener) = listener {
            listener(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
