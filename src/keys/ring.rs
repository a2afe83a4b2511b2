//! The keys at hand, as an immutable snapshot: a reader never waits, a new snapshot replaces the old one whole.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Dek;
use crate::name::KeyId;

/// The enabled keys of one domain.
#[derive(Debug)]
pub struct DomainKeys {
    /// The highest enabled version: it seals.
    pub write: Arc<Dek>,
    /// Every enabled version, the writing one first: equality during a rotation looks for each.
    pub read: Vec<Arc<Dek>>,
}

impl DomainKeys {
    /// Orders the enabled keys of one domain; `None` for none at all.
    pub fn new(mut keys: Vec<Arc<Dek>>) -> Option<Self> {
        keys.sort_by_key(|key| std::cmp::Reverse(key.version()));
        let write = Arc::clone(keys.first()?);
        Some(Self { write, read: keys })
    }
}

/// A snapshot of the usable keys. Lookups hash a few bytes; nothing in it ever changes.
#[derive(Clone, Default)]
pub struct KeyRing {
    domains: HashMap<Box<str>, Arc<DomainKeys>, BuildHasherDefault<Mixer>>,
    by_id: HashMap<KeyId, Arc<Dek>, BuildHasherDefault<Mixer>>,
}

impl KeyRing {
    /// A ring without keys.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The keys of a domain.
    pub fn domain(&self, domain: &str) -> Option<&Arc<DomainKeys>> {
        self.domains.get(domain)
    }

    /// The key that an envelope names.
    pub fn by_id(&self, id: &KeyId) -> Option<&Arc<Dek>> {
        self.by_id.get(id)
    }

    /// A new ring: this one plus whole domains plus single keys. A domain that is there already is replaced; its
    /// earlier keys stay reachable by id.
    #[must_use]
    pub fn with(&self, added: Vec<Arc<DomainKeys>>, others: Vec<Arc<Dek>>) -> Self {
        let mut ring = self.clone();
        for domain in added {
            for key in &domain.read {
                ring.by_id.insert(key.id(), Arc::clone(key));
            }
            ring.domains.insert(domain.write.domain().as_ref().into(), domain);
        }
        for key in others {
            ring.by_id.insert(key.id(), key);
        }
        ring
    }

    /// The domains in it, in no order.
    pub fn domains(&self) -> impl Iterator<Item = &Arc<DomainKeys>> {
        self.domains.values()
    }

    /// Every key in it, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<Dek>> {
        self.by_id.values()
    }
}

/// A hash for keys that nobody can choose to collide: data-key ids and domains come from the vault and the field map,
/// and looking up what a hostile document names inserts nothing. One multiplication per eight bytes.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = u128::from(self.0 ^ u64::from_le_bytes(word)) * 0x9e37_79b9_7f4a_7c15;
            self.0 = (mixed as u64) ^ ((mixed >> 64) as u64);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 ^= u64::from(byte);
    }

    fn write_usize(&mut self, number: usize) {
        self.0 ^= number as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MATERIAL;
    use crate::secret::Secret;

    fn dek(id: u8, domain: &str, version: u32) -> Arc<Dek> {
        Arc::new(Dek::new(
            KeyId([id; 16]),
            domain,
            version,
            Secret::new([id; MATERIAL]),
        ))
    }

    #[test]
    fn the_highest_version_writes_and_every_version_reads() {
        let keys = DomainKeys::new(vec![dek(1, "d", 1), dek(3, "d", 10), dek(2, "d", 9)]).unwrap();
        assert_eq!(keys.write.version(), 10);
        assert_eq!(
            keys.read.iter().map(|k| k.version()).collect::<Vec<_>>(),
            [10, 9, 1]
        );
        assert!(DomainKeys::new(Vec::new()).is_none());
    }

    #[test]
    fn leaves_the_ring_it_grew_from_alone() {
        let empty = KeyRing::empty();
        let domain = Arc::new(DomainKeys::new(vec![dek(1, "a", 1), dek(2, "a", 2)]).unwrap());
        let ring = empty.with(vec![domain], vec![dek(9, "", 0)]);
        assert!(empty.domain("a").is_none() && empty.by_id(&KeyId([1; 16])).is_none());
        assert_eq!(ring.domain("a").unwrap().write.version(), 2);
        for id in [1, 2, 9] {
            assert_eq!(ring.by_id(&KeyId([id; 16])).unwrap().id(), KeyId([id; 16]));
        }
        assert!(ring.domain("b").is_none() && ring.domain("").is_none());
        assert_eq!((ring.domains().count(), ring.keys().count()), (1, 3));
    }

    #[test]
    fn spreads_what_differs_in_one_byte() {
        use std::hash::BuildHasher;
        let hasher = BuildHasherDefault::<Mixer>::default();
        // The table picks a bucket by the low bits and tells its entries apart by the top seven.
        let spread: std::collections::HashSet<(u64, u64)> = (0..1000u32)
            .map(|n| {
                let mut id = [0; 16];
                id[12..].copy_from_slice(&n.to_le_bytes());
                let hash = hasher.hash_one(KeyId(id));
                (hash >> 57, hash & 0x3ff)
            })
            .collect();
        assert!(spread.len() > 900, "{}", spread.len());
    }
}
