//! Random bytes for nonces, IVs and new keys. Drawing them one by one costs microseconds in the library's generator,
//! so each thread draws a block at a time; each byte is handed out once and wiped as it leaves.

use std::cell::RefCell;

use zeroize::Zeroize;

use super::SealError;

const BLOCK: usize = 4096;

struct Block {
    bytes: Box<[u8; BLOCK]>,
    used: usize,
}

thread_local! {
    static AHEAD: RefCell<Block> = RefCell::new(Block { bytes: Box::new([0; BLOCK]), used: BLOCK });
}

/// The next `N` random bytes, never handed out before.
///
/// # Errors
/// [`SealError::Library`] where the system's generator fails.
pub fn next<const N: usize>() -> Result<[u8; N], SealError> {
    const { assert!(N > 0 && N <= 64) };
    AHEAD
        .try_with(|ahead| ahead.borrow_mut().draw())
        .unwrap_or_else(|_thread_is_ending| {
            let mut out = [0; N];
            fill(&mut out).map(|()| out)
        })
}

/// Fills `out` straight from the generator; for keys, which are drawn rarely.
///
/// # Errors
/// [`SealError::Library`] where the system's generator fails.
pub fn fill(out: &mut [u8]) -> Result<(), SealError> {
    aws_lc_rs::rand::fill(out).map_err(|_| SealError::Library)
}

impl Block {
    fn draw<const N: usize>(&mut self) -> Result<[u8; N], SealError> {
        if self.used + N > BLOCK {
            // Marked used up first: a failed draw must not leave bytes that could be handed out again.
            self.used = BLOCK;
            fill(&mut self.bytes[..])?;
            self.used = 0;
        }
        let mut out = [0; N];
        let next = &mut self.bytes[self.used..self.used + N];
        out.copy_from_slice(next);
        next.zeroize();
        self.used += N;
        Ok(out)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_hands_out_the_same_bytes_twice() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..5000 {
            assert!(seen.insert(next::<12>().unwrap()));
            assert!(seen.insert(next::<16>().unwrap()[..12].try_into().unwrap()));
        }
    }

    #[test]
    fn wipes_what_it_has_handed_out() {
        let mut block = Block {
            bytes: Box::new([9; BLOCK]),
            used: 0,
        };
        assert_eq!(block.draw::<12>().unwrap(), [9; 12]);
        assert_eq!(block.bytes[..12], [0; 12]);
        assert_eq!(block.bytes[12..], [9; BLOCK - 12]);
    }

    #[test]
    fn leaves_the_tail_of_a_block_rather_than_cross_it() {
        let mut block = Block {
            bytes: Box::new([9; BLOCK]),
            used: BLOCK - 11,
        };
        let drawn = block.draw::<12>().unwrap();
        assert_ne!(drawn[..11], [9; 11], "a nonce spans two blocks");
        assert_eq!(block.used, 12);
    }
}
