//! AES-256-CBC with PKCS#7 padding, and the native encrypt-then-MAC suite over it. CSFLE shares the first, not the
//! second: its MAC is laid out differently.

use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, InnerIvInit, KeyInit};
use aes::{Aes256Dec, Aes256Enc};
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{FORGED, OpenError, SealError, nonce};
use crate::secret::Secret;

/// Bytes of the IV.
pub(super) const IV: usize = 16;
/// Bytes of the tag, in the native suite and in CSFLE.
pub(super) const TAG: usize = 32;

/// AES-256-CBC, both directions expanded.
pub(super) struct Cbc {
    encrypt: Aes256Enc,
    decrypt: Aes256Dec,
}

impl Cbc {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            encrypt: Aes256Enc::new(key.into()),
            decrypt: Aes256Dec::new(key.into()),
        }
    }

    /// Appends the padded ciphertext of `value`.
    pub(super) fn seal(&self, iv: &[u8; IV], value: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let pad = 16 - value.len() % 16;
        out.extend_from_slice(value);
        // 1 to 16 by construction.
        out.resize(out.len() + pad, pad as u8);
        let (blocks, _) = InOutBuf::from(&mut out[start..]).into_chunks();
        cbc::Encryptor::inner_iv_init(&self.encrypt, iv.into()).encrypt_blocks_inout_mut(blocks);
    }

    /// Appends the plaintext, or leaves `out` as it was. Call it only on what a MAC has vouched for: the padding is
    /// checked, but not in constant time.
    pub(super) fn open(&self, iv: &[u8; IV], sealed: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let start = out.len();
        out.extend_from_slice(sealed);
        let (blocks, rest) = InOutBuf::from(&mut out[start..]).into_chunks();
        if rest.is_empty() {
            cbc::Decryptor::inner_iv_init(&self.decrypt, iv.into()).decrypt_blocks_inout_mut(blocks);
            if let Some(len) = unpadded(&out[start..]) {
                out.truncate(start + len);
                return Ok(());
            }
        }
        out[start..].zeroize();
        out.truncate(start);
        Err(OpenError::Broken(
            "authentic, but its padding is not: sealed by something that is wrong",
        ))
    }
}

/// Length without PKCS#7 padding; every padding byte is checked.
fn unpadded(plain: &[u8]) -> Option<usize> {
    let pad = usize::from(*plain.last()?);
    let len = plain.len().checked_sub(pad)?;
    ((1..=16).contains(&pad) && plain[len..].iter().all(|&b| usize::from(b) == pad)).then_some(len)
}

/// The native suite: `IV ‖ ciphertext ‖ tag`, where the tag is HMAC-SHA-256 over
/// `AAD ‖ be64(bits of AAD) ‖ IV ‖ ciphertext`, so that no two splits of the same bytes share a tag.
pub(super) struct CbcHmac {
    mac: hmac::Key,
    cbc: Cbc,
}

impl CbcHmac {
    /// Expands the key: the first half authenticates, the second encrypts.
    pub(super) fn new(key: &Secret<[u8; 64]>) -> Result<Self, SealError> {
        let (mac, cipher) = key.expose().split_at(32);
        let cipher = cipher.try_into().map_err(|_| SealError::Library)?;
        Ok(Self {
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac),
            cbc: Cbc::new(cipher),
        })
    }

    /// Appends a fresh IV, the ciphertext and the tag.
    pub(super) fn seal(&self, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_with_iv(&nonce::next()?, aad, value, out);
        Ok(())
    }

    fn seal_with_iv(&self, iv: &[u8; IV], aad: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(iv);
        self.cbc.seal(iv, value, out);
        let tag = self.tag(aad, &out[start..]);
        out.extend_from_slice(tag.as_ref());
    }

    /// Appends the plaintext, or leaves `out` as it was. The tag is verified before anything is decrypted.
    pub(super) fn open(&self, aad: &[u8], body: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let (covered, tag) = body.split_last_chunk::<TAG>().ok_or(FORGED)?;
        if !bool::from(self.tag(aad, covered).as_ref().ct_eq(tag)) {
            return Err(FORGED);
        }
        let (iv, sealed) = covered.split_first_chunk::<IV>().ok_or(FORGED)?;
        self.cbc.open(iv, sealed, out)
    }

    fn tag(&self, aad: &[u8], covered: &[u8]) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&self.mac);
        mac.update(aad);
        mac.update(&(aad.len() as u64 * 8).to_be_bytes());
        mac.update(covered);
        mac.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A F.2.5, CBC-AES256.Encrypt: the first four blocks; the fifth is our padding.
    #[test]
    fn cbc_keeps_nists_values() {
        let bytes = |text| hex::decode(text).unwrap();
        let key = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let iv: [u8; 16] = std::array::from_fn(|n| n as u8);
        let plain = bytes(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
        );
        let cbc = Cbc::new(key.as_slice().try_into().unwrap());
        let mut sealed = Vec::new();
        cbc.seal(&iv, &plain, &mut sealed);
        assert_eq!(
            hex::encode(&sealed[..64]),
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
        );
        assert_eq!(sealed.len(), 80);
        let mut opened = Vec::new();
        cbc.open(&iv, &sealed, &mut opened).unwrap();
        assert_eq!(opened, plain);
    }

    #[test]
    fn rejects_padding_that_is_not_whole() {
        assert_eq!(unpadded(&[]), None);
        assert_eq!(unpadded(&[0; 16]), None);
        assert_eq!(unpadded(&[17; 16]), None);
        assert_eq!(unpadded(&[&[9; 13][..], &[3, 2, 3]].concat()), None);
        assert_eq!(unpadded(&[&[9; 13][..], &[3, 3, 3]].concat()), Some(13));
        assert_eq!(unpadded(&[16; 16]), Some(0));
    }

    #[test]
    fn tag_covers_what_the_grammar_says() {
        let suite = CbcHmac::new(&Secret::new([3; 64])).unwrap();
        let mut sealed = Vec::new();
        suite.seal_with_iv(&[5; 16], b"0123456789", b"value", &mut sealed);
        let (covered, tag) = sealed.split_last_chunk::<32>().unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[3; 32]);
        let input = [b"0123456789", &[0, 0, 0, 0, 0, 0, 0, 80][..], covered].concat();
        assert_eq!(hmac::sign(&key, &input).as_ref(), tag);
    }
}
