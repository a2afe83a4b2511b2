//! Secret bytes: zeroized on drop, compared in constant time, never printable, locked into memory where the system
//! allows it. Owns the container only; what a secret means is the business of the room that holds it.

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A value that must not be printed, copied, serialized, swapped out or left behind.
///
/// It lives on a page of its own, which is locked (`mlock`) so that it never reaches swap; a system that refuses the
/// lock (`RLIMIT_MEMLOCK`) is tolerated, since refusing to start would push people towards weaker set-ups. It is
/// overwritten with zeros on drop. There is no `Debug`, `Display`, `Clone` or `Serialize` on purpose:
///
/// ```compile_fail
/// let key = fieldveil::secret::Secret::new([0u8; 32]);
/// println!("{key:?}");
/// ```
///
/// ```compile_fail
/// let key = fieldveil::secret::Secret::new([0u8; 32]);
/// let copy = key.clone();
/// ```
///
/// What it does not cover: ciphers expanded from a key hold round keys in memory of their own, which is zeroized on
/// drop but not locked.
pub struct Secret<T: Zeroize> {
    // Declared first: the lock must be released before the page that it covers is freed.
    lock: Option<region::LockGuard>,
    page: Box<Page<T>>,
}

/// Locks do not nest: unlocking one secret would unlock every neighbour on its page, so each has a page to itself.
#[repr(C, align(4096))]
struct Page<T>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes over a value. A copy that the caller's stack held before the move is beyond reach: for keys prefer
    /// [`Secret::take`] or [`Secret::fill`], which leave no such copy.
    pub fn new(value: T) -> Self {
        let page = Box::new(Page(value));
        let lock = region::lock(&raw const *page, size_of::<Page<T>>()).ok();
        Self { lock, page }
    }

    /// Whether the system agreed to keep this secret out of swap.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// The value itself. Keep the borrow short and copy nothing out of it that is not wiped.
    pub fn expose(&self) -> &T {
        &self.page.0
    }
}

impl<const N: usize> Secret<[u8; N]> {
    /// Moves exactly `N` bytes out of `source`, which is wiped in either case; `None` where the length differs.
    pub fn take(source: &mut [u8]) -> Option<Self> {
        let taken = (source.len() == N).then(|| {
            let mut secret = Self::new([0; N]);
            secret.page.0.copy_from_slice(source);
            secret
        });
        source.zeroize();
        taken
    }

    /// Lets `write` produce the bytes in their final place.
    ///
    /// # Errors
    /// Whatever `write` returns; the half-written bytes are wiped.
    pub fn fill<E>(write: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::new([0; N]);
        write(&mut secret.page.0)?;
        Ok(secret)
    }
}

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Compares in time that depends on the lengths only.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.page.0.as_ref().ct_eq(other).into()
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.page.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_wipes_its_source_even_when_it_refuses() {
        let mut right = [7u8; 4];
        let secret = Secret::<[u8; 4]>::take(&mut right).unwrap();
        assert!(secret.ct_eq(&[7; 4]));
        assert_eq!(right, [0; 4]);

        let mut wrong = [7u8; 5];
        assert!(Secret::<[u8; 4]>::take(&mut wrong).is_none());
        assert_eq!(wrong, [0; 5]);
    }

    #[test]
    fn compares_every_byte_and_the_length() {
        let secret = Secret::new([1u8, 2, 3]);
        assert!(secret.ct_eq(&[1, 2, 3]));
        assert!(!secret.ct_eq(&[1, 2, 4]));
        assert!(!secret.ct_eq(&[1, 2]));
    }

    #[test]
    fn keeps_its_neighbours_locked_when_dropped() {
        let kept = Secret::new([1u8; 96]);
        let others: Vec<_> = (0..64).map(|n| Secret::new([n; 96])).collect();
        let pages: std::collections::HashSet<usize> = others
            .iter()
            .map(|s| (&raw const *s.page).addr() / 4096)
            .collect();
        assert_eq!(pages.len(), others.len(), "two secrets share a page");
        drop(others);
        assert!(kept.ct_eq(&[1; 96]));
    }

    #[test]
    fn wipes_on_drop() {
        // A type that reports what it is asked to do stands in for the bytes: freed memory cannot be looked at safely.
        struct Witness(std::rc::Rc<std::cell::Cell<bool>>);
        impl Zeroize for Witness {
            fn zeroize(&mut self) {
                self.0.set(true);
            }
        }
        let wiped = std::rc::Rc::new(std::cell::Cell::new(false));
        drop(Secret::new(Witness(wiped.clone())));
        assert!(wiped.get());
    }
}
