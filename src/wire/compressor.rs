//! The compressors that there are, and lists of them as `hello` negotiates them. Owns ids and names; compresses nothing.

use std::fmt;

/// How a message is compressed. Closed: an id that is not listed refuses the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Compressor {
    /// Snappy, raw block format.
    Snappy = 1,
    /// Zlib (RFC 1950).
    Zlib = 2,
    /// Zstandard (RFC 8878).
    Zstd = 3,
}

impl Compressor {
    /// All of them, in the order of their ids.
    pub const ALL: [Self; 3] = [Self::Snappy, Self::Zlib, Self::Zstd];

    /// The compressor with this id on the wire. 0, which stands for no compression, is none: servers refuse it as well.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.id() == id)
    }

    /// The compressor that `hello` and connection strings call so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Its id on the wire.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Its place in [`Compressor::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Snappy => 0,
            Self::Zlib => 1,
            Self::Zstd => 2,
        }
    }

    /// The name that `hello` negotiates it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// A list of compressors in order of preference, none of them twice.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Compressors([Option<Compressor>; Compressor::ALL.len()]);

impl Compressors {
    /// Every compressor.
    pub fn all() -> Self {
        Compressor::ALL.into_iter().collect()
    }

    /// In order of preference.
    pub fn iter(self) -> impl Iterator<Item = Compressor> {
        self.0.into_iter().flatten()
    }

    /// Whether it is on the list.
    pub fn contains(self, compressor: Compressor) -> bool {
        self.iter().any(|own| own == compressor)
    }

    /// Whether the list is empty: nothing is compressed then.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// Of these, in this order, those that are on the other list as well.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.iter().filter(|own| other.contains(*own)).collect()
    }
}

impl FromIterator<Compressor> for Compressors {
    fn from_iter<I: IntoIterator<Item = Compressor>>(compressors: I) -> Self {
        let mut list = Self::default();
        for compressor in compressors {
            if !list.contains(compressor)
                && let Some(free) = list.0.iter_mut().find(|slot| slot.is_none())
            {
                *free = Some(compressor);
            }
        }
        list
    }
}

impl fmt::Debug for Compressors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Compressor::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ids_and_names_both_ways() {
        for (at, compressor) in Compressor::ALL.into_iter().enumerate() {
            assert_eq!(Compressor::from_id(compressor.id()), Some(compressor));
            assert_eq!(Compressor::from_name(compressor.name()), Some(compressor));
            assert_eq!(compressor.index(), at);
        }
        for id in [0, 4, 255] {
            assert_eq!(Compressor::from_id(id), None, "{id}");
        }
        for name in ["noop", "ZLIB", ""] {
            assert_eq!(Compressor::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn keeps_the_order_of_who_offers_and_nothing_twice() {
        use Compressor::{Snappy, Zlib, Zstd};
        let list = |list: &[Compressor]| list.iter().copied().collect::<Compressors>();
        let offered = list(&[Zstd, Snappy, Zstd, Zlib, Snappy]);
        assert_eq!(offered, list(&[Zstd, Snappy, Zlib]));
        assert_eq!(offered.and(list(&[Zlib, Zstd])), list(&[Zstd, Zlib]));
        assert!(offered.and(Compressors::default()).is_empty());
    }
}
