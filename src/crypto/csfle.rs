//! MongoDB's `AEAD_AES_256_CBC_HMAC_SHA_512`, byte for byte: for values that a CSFLE driver wrote or will read, and
//! for data keys wrapped by a `local` master key.
//!
//! Source: MongoDB specifications `client-side-encryption` and `bson-binary-encrypted`; draft-mcgrew-aead-aes-cbc-hmac-sha2-05.

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::cbc_hmac::{Cbc, IV, TAG};
use super::{FORGED, MATERIAL, OpenError, SealError, nonce};
use crate::secret::Secret;

/// Bytes of a data key wrapped by a `local` master key: IV, seven blocks, tag.
pub const WRAPPED: usize = IV + 112 + TAG;

/// A 96-byte key, expanded: bytes 0–31 authenticate, 32–63 encrypt, 64–95 derive deterministic IVs.
pub struct Aead {
    mac: hmac::Key,
    cbc: Cbc,
    iv: hmac::Key,
}

impl Aead {
    /// Expands the key.
    ///
    /// # Errors
    /// None that can happen: 96 bytes are three times 32.
    pub fn new(key: &Secret<[u8; MATERIAL]>) -> Result<Self, SealError> {
        let (mac, rest) = key.expose().split_at(32);
        let (cipher, iv) = rest.split_at(32);
        Ok(Self {
            mac: hmac::Key::new(hmac::HMAC_SHA512, mac),
            cbc: Cbc::new(cipher.try_into().map_err(|_| SealError::Library)?),
            iv: hmac::Key::new(hmac::HMAC_SHA512, iv),
        })
    }

    /// Appends `IV ‖ ciphertext ‖ tag` under an IV that depends on `aad` and `value` only.
    ///
    /// # Errors
    /// [`SealError::EmptyValue`].
    pub fn seal_deterministic(&self, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let mut mac = hmac::Context::with_key(&self.iv);
        mac.update(aad);
        mac.update(&bits(aad));
        mac.update(value);
        let full = mac.sign();
        let iv = full.as_ref().first_chunk::<IV>().ok_or(SealError::Library)?;
        self.seal_with_iv(iv, aad, value, out)
    }

    /// Appends `IV ‖ ciphertext ‖ tag` under a random IV.
    ///
    /// # Errors
    /// [`SealError::EmptyValue`]; [`SealError::Library`] without randomness.
    pub fn seal_random(&self, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_with_iv(&nonce::next()?, aad, value, out)
    }

    fn seal_with_iv(
        &self,
        iv: &[u8; IV],
        aad: &[u8],
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if value.is_empty() {
            return Err(SealError::EmptyValue);
        }
        let start = out.len();
        out.extend_from_slice(iv);
        self.cbc.seal(iv, value, out);
        let tag = self.tag(aad, &out[start..]);
        out.extend_from_slice(&tag.as_ref()[..TAG]);
        Ok(())
    }

    /// Appends the plaintext of `IV ‖ ciphertext ‖ tag`, or leaves `out` as it was. The tag is verified before
    /// anything is decrypted.
    ///
    /// # Errors
    /// [`OpenError::Broken`].
    pub fn open(&self, aad: &[u8], body: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let (covered, tag) = body.split_last_chunk::<TAG>().ok_or(FORGED)?;
        if !bool::from(self.tag(aad, covered).as_ref()[..TAG].ct_eq(tag)) {
            return Err(FORGED);
        }
        let (iv, sealed) = covered.split_first_chunk::<IV>().ok_or(FORGED)?;
        self.cbc.open(iv, sealed, out)
    }

    /// Wraps a data key the way the `local` provider of any driver does: random IV, no associated data.
    ///
    /// # Errors
    /// [`SealError::Library`] without randomness.
    pub fn wrap(&self, material: &Secret<[u8; MATERIAL]>) -> Result<Vec<u8>, SealError> {
        let mut out = Vec::with_capacity(WRAPPED);
        self.seal_random(&[], material.expose(), &mut out)?;
        Ok(out)
    }

    /// Unwraps what [`Aead::wrap`], or a driver, wrapped.
    ///
    /// # Errors
    /// [`OpenError::Broken`] under another master key or after tampering: the format cannot tell which.
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<Secret<[u8; MATERIAL]>, OpenError> {
        if wrapped.len() != WRAPPED {
            return Err(OpenError::Broken("a locally wrapped data key has 160 bytes"));
        }
        // Room for the padding too: a buffer that grows would leave key bytes behind.
        let mut plain = Vec::with_capacity(112);
        let opened = self.open(&[], wrapped, &mut plain);
        let secret = opened.and_then(|()| Secret::take(&mut plain).ok_or(FORGED));
        plain.zeroize();
        secret
    }

    fn tag(&self, aad: &[u8], covered: &[u8]) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&self.mac);
        mac.update(aad);
        mac.update(covered);
        mac.update(&bits(aad));
        mac.sign()
    }
}

fn bits(aad: &[u8]) -> [u8; 8] {
    (aad.len() as u64 * 8).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// draft-mcgrew-aead-aes-cbc-hmac-sha2-05 §5.4, with the tag of 32 bytes that §2.7 asks for.
    #[test]
    fn keeps_the_drafts_value() {
        let mut key = [0; 96];
        for (n, byte) in key[..64].iter_mut().enumerate() {
            *byte = n as u8;
        }
        let aead = Aead::new(&Secret::new(key)).unwrap();
        let mut out = Vec::new();
        let iv = hex::decode("1af38c2dc2b96ffdd86694092341bc04")
            .unwrap()
            .try_into()
            .unwrap();
        let plain = b"A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy without inconvenience";
        aead.seal_with_iv(
            &iv,
            b"The second principle of Auguste Kerckhoffs",
            plain,
            &mut out,
        )
        .unwrap();
        assert_eq!(
            hex::encode(&out),
            "1af38c2dc2b96ffdd86694092341bc044affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd822c301dd67c373bccb584ad3e9279c2e6d12a1374b77f077553df829410446b36ebd97066296ae6427ea75c2e0846a11a09ccf5370dc80bfecbad28c73f09b3a3b75e662a2594410ae496b2e2e6609e31e6e02cc837f053d21f37ff4f51950bbe2638d09dd7a4930930806d0703b1f64dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5"
        );
    }

    #[test]
    fn wraps_and_unwraps_a_data_key() {
        let master = Aead::new(&Secret::new([1; 96])).unwrap();
        let wrapped = master.wrap(&Secret::new([2; 96])).unwrap();
        assert_eq!(wrapped.len(), WRAPPED);
        assert!(master.unwrap(&wrapped).unwrap().ct_eq(&[2; 96]));
        assert!(
            Aead::new(&Secret::new([3; 96]))
                .unwrap()
                .unwrap(&wrapped)
                .is_err()
        );
        for at in 0..wrapped.len() {
            let mut bent = wrapped.clone();
            bent[at] ^= 1;
            assert!(master.unwrap(&bent).is_err(), "byte {at}");
        }
    }

    #[test]
    fn refuses_a_value_without_bytes() {
        let aead = Aead::new(&Secret::new([1; 96])).unwrap();
        let mut out = vec![1];
        assert_eq!(aead.seal_random(b"", b"", &mut out), Err(SealError::EmptyValue));
        assert_eq!(
            aead.seal_deterministic(b"", b"", &mut out),
            Err(SealError::EmptyValue)
        );
        assert_eq!(out, [1]);
    }
}
