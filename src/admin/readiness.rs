//! Readiness: whether traffic should be sent here. Owns one latch per thing that must work; does not find out whether it
//! does.

use std::sync::atomic::{AtomicBool, Ordering};

/// Something that must work before traffic should come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latch {
    /// Every listener is bound.
    Listeners,
    /// The MongoDB side answers.
    Upstream,
    /// The key vault and the master-key provider answer, or the grace period still runs.
    KeyVault,
    /// The audit log can be written, or may be left unwritten by configuration.
    Audit,
}

impl Latch {
    const ALL: [Self; 4] = [Self::Listeners, Self::Upstream, Self::KeyVault, Self::Audit];

    /// Its name in the body of `/readyz`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Upstream => "upstream",
            Self::KeyVault => "key_vault",
            Self::Audit => "audit",
        }
    }
}

/// All latches, open at first. Unlike at start-up, a latch may open again later: what stopped working should get no
/// traffic.
#[derive(Debug, Default)]
pub struct Readiness {
    closed: [AtomicBool; Latch::ALL.len()],
    draining: AtomicBool,
}

impl Readiness {
    /// Nothing works yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether something works now.
    pub fn set(&self, latch: Latch, works: bool) {
        self.closed[latch as usize].store(works, Ordering::Release);
    }

    /// The proxy is going down: not ready any more, for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Names of what is missing; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let open = Latch::ALL
            .iter()
            .filter(|latch| !self.closed[**latch as usize].load(Ordering::Acquire))
            .map(|latch| latch.name());
        let draining = self.draining.load(Ordering::Acquire).then_some("draining");
        open.chain(draining).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_while_everything_works_and_never_again_once_draining() {
        let readiness = Readiness::new();
        assert_eq!(
            readiness.missing(),
            ["listeners", "upstream", "key_vault", "audit"]
        );
        for latch in Latch::ALL {
            readiness.set(latch, true);
        }
        assert!(readiness.missing().is_empty());
        readiness.set(Latch::Upstream, false);
        assert_eq!(readiness.missing(), ["upstream"]);
        readiness.set(Latch::Upstream, true);
        readiness.drain();
        assert_eq!(readiness.missing(), ["draining"]);
    }
}
