//! Sub-keys from one secret, each with a label of its own. HKDF-SHA-512 (RFC 5869), no salt: the input is uniform key
//! material already, and the label does the separating.

use aws_lc_rs::hkdf;

use super::{SealError, Suite};
use crate::secret::Secret;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// `N` bytes derived from `secret` for the purpose that `info` names.
///
/// # Errors
/// [`SealError::Library`] where the library fails; a length within RFC 5869's bounds never does.
pub fn derive<const N: usize>(secret: &[u8], info: &[&[u8]]) -> Result<Secret<[u8; N]>, SealError> {
    derive_salted(&[], secret, info)
}

/// The label of a native suite's sub-key: `fieldveil/v1/<algorithm>/<domain>`. Bound to stored data for ever.
pub(crate) fn native<const N: usize>(
    suite: Suite,
    domain: &str,
    material: &[u8],
) -> Result<Secret<[u8; N]>, SealError> {
    derive(
        material,
        &[b"fieldveil/v1/", suite.name().as_bytes(), b"/", domain.as_bytes()],
    )
}

fn derive_salted<const N: usize>(
    salt: &[u8],
    secret: &[u8],
    info: &[&[u8]],
) -> Result<Secret<[u8; N]>, SealError> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA512, salt).extract(secret);
    Secret::fill(|out| {
        extracted
            .expand(info, Length(N))
            .and_then(|okm| okm.fill(out))
            .map_err(|_| SealError::Library)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869 gives vectors for SHA-1 and SHA-256 only; this takes the inputs of its test case 1 through HKDF as
    /// the RustCrypto crates implement it, a second implementation of the same RFC.
    #[test]
    fn agrees_with_a_second_implementation() {
        let ikm = [0x0b; 22];
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        for salt in [&salt[..], &[]] {
            let mut expected = [0; 42];
            ::hkdf::Hkdf::<sha2::Sha512>::new(Some(salt), &ikm)
                .expand(&info, &mut expected)
                .unwrap();
            let (left, right) = info.split_at(4);
            assert!(
                derive_salted::<42>(salt, &ikm, &[left, right])
                    .unwrap()
                    .ct_eq(&expected)
            );
        }
    }

    /// The HKDF-SHA-512 result for RFC 5869 test case 1's inputs, as published widely beside the RFC.
    #[test]
    fn keeps_the_published_sha512_value() {
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let expected = hex::decode(
            "832390086cda71fb47625bb5ceb168e4c8e26a1a16ed34d9fc7fe92c1481579338da362cb8d9f925d7cb",
        )
        .unwrap();
        assert!(
            derive_salted::<42>(&salt, &[0x0b; 22], &[&info])
                .unwrap()
                .ct_eq(&expected)
        );
    }

    #[test]
    fn separates_suites_and_domains() {
        let material = [5; 96];
        let of = |suite, domain| *native::<32>(suite, domain, &material).unwrap().expose();
        let base = of(Suite::Aes256Gcm, "nhs_number");
        assert_eq!(base, of(Suite::Aes256Gcm, "nhs_number"));
        assert_ne!(base, of(Suite::ChaCha20Poly1305, "nhs_number"));
        assert_ne!(base, of(Suite::Aes256Gcm, "mrn"));
    }
}
