//! AES-256-SIV (RFC 5297) with one associated-data component and no nonce.
//!
//! The `aes-siv` crate expands the CTR key again for every value and needs `&mut`, which on a shared key means a lock.
//! So S2V is composed here over block ciphers that stay expanded, and the work that depends on the associated data
//! only ([`Siv::bind`]) can be kept by the caller. Tests hold it against the RFC's and NIST's vectors and against that
//! crate.

use aes::Aes256Enc;
use aes::cipher::{
    Block, BlockBackend, BlockClosure, BlockEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipherCore,
    consts::U16,
};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{FORGED, OpenError};
use crate::secret::Secret;

/// Bytes of the synthetic IV, which is the authentication tag as well.
pub(super) const TAG: usize = 16;

type Octets = [u8; 16];
type Ctr<'a> = ctr::CtrCore<&'a Aes256Enc, ctr::flavors::Ctr128BE>;

/// Both halves of a 512-bit key, expanded.
pub(super) struct Siv {
    mac: Cmac,
    stream: Aes256Enc,
    /// `dbl(CMAC(zero))`: what S2V starts from for every value.
    start: Octets,
}

/// S2V's state after the associated data: the same for every value bound to it.
#[derive(Clone, Copy)]
pub(super) struct Bound(Octets);

impl Siv {
    /// Expands the key: the first half authenticates, the second encrypts (RFC 5297 §2.6).
    pub(super) fn new(key: &Secret<[u8; 64]>) -> Self {
        let (mac_key, stream_key) = halves(key.expose());
        let mac = Cmac::new(mac_key);
        let start = double(mac.of(&[0; 16]));
        Self {
            mac,
            stream: Aes256Enc::new(stream_key.into()),
            start,
        }
    }

    /// Takes in the one component of associated data.
    pub(super) fn bind(&self, aad: &[u8]) -> Bound {
        Bound(xor(self.start, self.mac.of(aad)))
    }

    /// Appends the synthetic IV and the ciphertext.
    pub(super) fn seal(&self, bound: Bound, value: &[u8], out: &mut Vec<u8>) {
        let tag = self.synthetic_iv(bound, value);
        out.extend_from_slice(&tag);
        let start = out.len();
        out.extend_from_slice(value);
        self.keystream(tag, &mut out[start..]);
    }

    /// Appends the plaintext, or leaves `out` as it was.
    pub(super) fn open(&self, bound: Bound, body: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let (tag, sealed) = body.split_first_chunk::<TAG>().ok_or(FORGED)?;
        let start = out.len();
        out.extend_from_slice(sealed);
        let plain = &mut out[start..];
        self.keystream(*tag, plain);
        if bool::from(self.synthetic_iv(bound, plain).ct_eq(tag)) {
            return Ok(());
        }
        plain.zeroize();
        out.truncate(start);
        Err(FORGED)
    }

    /// The last step of S2V (RFC 5297 §2.4): `CMAC(value xorend D)`, or `CMAC(dbl(D) xor pad(value))` when short.
    fn synthetic_iv(&self, Bound(state): Bound, value: &[u8]) -> Octets {
        let Some(free) = value.len().checked_sub(16) else {
            let mut last = double(state);
            for (byte, plain) in last.iter_mut().zip(value) {
                *byte ^= plain;
            }
            last[value.len()] ^= 0x80;
            return self.mac.of(&last);
        };
        // Only the last 16 bytes are changed, and they may straddle two blocks: those two are assembled apart.
        let (whole, end) = value.split_at(free / 16 * 16);
        let mut tail = [0; 32];
        let tail = &mut tail[..end.len()];
        tail.copy_from_slice(end);
        for (byte, state) in tail[end.len() - 16..].iter_mut().zip(state) {
            *byte ^= state;
        }
        let tag = self.mac.after(self.mac.chain([0; 16], whole), tail);
        tail.zeroize();
        tag
    }

    fn keystream(&self, mut counter: Octets, buffer: &mut [u8]) {
        // RFC 5297 §2.5: two bits are cleared so that the counter never carries beyond a 32-bit word.
        counter[8] &= 0x7f;
        counter[12] &= 0x7f;
        Ctr::inner_iv_init(&self.stream, &counter.into()).apply_keystream_partial(buffer.into());
    }
}

/// AES-256-CMAC (NIST SP 800-38B).
struct Cmac {
    cipher: Aes256Enc,
    whole: Octets,
    padded: Octets,
}

impl Cmac {
    fn new(key: &[u8; 32]) -> Self {
        let cipher = Aes256Enc::new(key.into());
        let mut zero = Block::<Aes256Enc>::default();
        cipher.encrypt_block(&mut zero);
        let whole = double(zero.into());
        Self {
            cipher,
            whole,
            padded: double(whole),
        }
    }

    fn of(&self, message: &[u8]) -> Octets {
        self.after([0; 16], message)
    }

    /// Goes on from `state` over the rest of the message and finishes.
    fn after(&self, state: Octets, rest: &[u8]) -> Octets {
        // The last block is kept back, be it whole: it is mixed with a sub-key.
        let (blocks, last) = rest.split_at(rest.len().saturating_sub(1) / 16 * 16);
        let mut end = [0; 16];
        end[..last.len()].copy_from_slice(last);
        let key = if last.len() == 16 {
            self.whole
        } else {
            end[last.len()] = 0x80;
            self.padded
        };
        let end = xor(end, key);
        self.chain(self.chain(state, blocks), &end)
    }

    /// CBC-MAC over whole blocks, in one call of the cipher so that it stays in its fast path.
    fn chain(&self, state: Octets, blocks: &[u8]) -> Octets {
        struct Chain<'a> {
            state: &'a mut Block<Aes256Enc>,
            blocks: &'a [u8],
        }
        impl BlockSizeUser for Chain<'_> {
            type BlockSize = U16;
        }
        impl BlockClosure for Chain<'_> {
            #[inline(always)]
            fn call<B: BlockBackend<BlockSize = U16>>(self, backend: &mut B) {
                for block in self.blocks.chunks_exact(16) {
                    for (byte, next) in self.state.iter_mut().zip(block) {
                        *byte ^= next;
                    }
                    backend.proc_block((&mut *self.state).into());
                }
            }
        }
        debug_assert!(blocks.len().is_multiple_of(16));
        let mut state = state.into();
        self.cipher.encrypt_with_backend(Chain {
            state: &mut state,
            blocks,
        });
        state.into()
    }
}

/// Multiplication by x in GF(2^128), in constant time.
fn double(block: Octets) -> Octets {
    let number = u128::from_be_bytes(block);
    let carry = (number >> 127) * 0x87;
    ((number << 1) ^ carry).to_be_bytes()
}

fn xor(a: Octets, b: Octets) -> Octets {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

fn halves(key: &[u8; 64]) -> (&[u8; 32], &[u8; 32]) {
    #[expect(clippy::expect_used, reason = "64 bytes are two times 32")]
    let split = key
        .split_first_chunk::<32>()
        .and_then(|(a, b)| b.try_into().ok().map(|b| (a, b)))
        .expect("64");
    split
}

#[cfg(test)]
mod tests;
