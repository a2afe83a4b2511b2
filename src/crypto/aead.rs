//! AES-256-GCM and ChaCha20-Poly1305 with a random nonce per value, through aws-lc-rs with the key kept expanded.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use super::{FORGED, OpenError, SealError, nonce};

/// Bytes of the nonce.
pub(super) const NONCE: usize = 12;
/// Bytes of the tag.
pub(super) const TAG: usize = 16;

/// One expanded key of either algorithm.
pub(super) struct Aead(LessSafeKey);

impl Aead {
    pub(super) fn gcm(key: &[u8; 32]) -> Result<Self, SealError> {
        Self::new(&aead::AES_256_GCM, key)
    }

    pub(super) fn chacha(key: &[u8; 32]) -> Result<Self, SealError> {
        Self::new(&aead::CHACHA20_POLY1305, key)
    }

    fn new(algorithm: &'static aead::Algorithm, key: &[u8; 32]) -> Result<Self, SealError> {
        let key = UnboundKey::new(algorithm, key).map_err(|_| SealError::Library)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Appends a fresh nonce, the ciphertext and the tag; on error `out` is as it was.
    pub(super) fn seal(&self, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_with_nonce(nonce::next()?, aad, value, out)
    }

    fn seal_with_nonce(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let start = out.len();
        out.extend_from_slice(&nonce);
        out.extend_from_slice(value);
        let nonce = Nonce::assume_unique_for_key(nonce);
        match self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[start + NONCE..])
        {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(())
            }
            Err(_) => {
                out[start..].zeroize();
                out.truncate(start);
                Err(SealError::Library)
            }
        }
    }

    /// Appends the plaintext, or leaves `out` as it was.
    pub(super) fn open(&self, aad: &[u8], body: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let (nonce, rest) = body.split_first_chunk::<NONCE>().ok_or(FORGED)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG>().ok_or(FORGED)?;
        let start = out.len();
        out.resize(start + sealed.len(), 0);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .0
            .open_separate_gather(nonce, Aad::from(aad), sealed, tag, &mut out[start..]);
        if opened.is_err() {
            out[start..].zeroize();
            out.truncate(start);
            return Err(FORGED);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    fn checks(key: &Aead, nonce: &str, aad: &str, plain: &str, sealed: &str) {
        let mut out = Vec::new();
        let nonce = bytes(nonce).try_into().unwrap();
        key.seal_with_nonce(nonce, &bytes(aad), &bytes(plain), &mut out)
            .unwrap();
        assert_eq!(hex::encode(&out[NONCE..]), sealed);
        let mut opened = Vec::new();
        key.open(&bytes(aad), &out, &mut opened).unwrap();
        assert_eq!(opened, bytes(plain));
    }

    /// McGrew and Viega's GCM specification, as submitted to NIST, test cases 13, 14 and 16.
    #[test]
    fn gcm_keeps_nists_values() {
        let zero = Aead::gcm(&[0; 32]).unwrap();
        checks(
            &zero,
            "000000000000000000000000",
            "",
            "",
            "530f8afbc74536b9a963b4f1c4cb738b",
        );
        checks(
            &zero,
            "000000000000000000000000",
            "",
            "00000000000000000000000000000000",
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
        );
        let key = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        checks(
            &Aead::gcm(key.as_slice().try_into().unwrap()).unwrap(),
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
        );
    }

    /// RFC 8439 §2.8.2.
    #[test]
    fn chacha_keeps_the_rfcs_value() {
        let key = bytes("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
        checks(
            &Aead::chacha(key.as_slice().try_into().unwrap()).unwrap(),
            "070000004041424344454647",
            "50515253c0c1c2c3c4c5c6c7",
            "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966204920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73637265656e20776f756c642062652069742e",
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
        );
    }

    #[test]
    fn gcm_agrees_with_a_second_implementation() {
        use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
        let (ours, theirs) = (
            Aead::gcm(&[7; 32]).unwrap(),
            aes_gcm::Aes256Gcm::new(&[7; 32].into()),
        );
        for len in [0, 1, 15, 16, 17, 100, 1000, 70_000] {
            let value: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut sealed = Vec::new();
            ours.seal(b"bound to", &value, &mut sealed).unwrap();
            let nonce: [u8; NONCE] = sealed[..NONCE].try_into().unwrap();
            let payload = Payload {
                msg: &value,
                aad: b"bound to",
            };
            assert_eq!(
                theirs.encrypt(&nonce.into(), payload).unwrap(),
                sealed[NONCE..],
                "{len}"
            );
        }
    }
}
