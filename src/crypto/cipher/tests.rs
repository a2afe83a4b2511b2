use super::*;
use crate::crypto::{Header, header};
use aws_lc_rs::hmac;
use proptest::prelude::*;

const KEY: KeyId = KeyId([0x11, 0x22, 0x33, 0x44, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
const KEY_HEX: &str = "1122334405060708090a0b0c0d0e0f10";

fn material() -> Secret<[u8; MATERIAL]> {
    Secret::new(std::array::from_fn(|n| n as u8))
}

fn cipher(suite: Suite) -> Cipher {
    Cipher::expand(suite, &KEY, "nhs_number", &material()).unwrap()
}

fn sealed(suite: Suite, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cipher(suite).seal(2, value, &mut out).unwrap();
    out
}

/// `"943 476 5919"` as a BSON string's value bytes.
fn value() -> Vec<u8> {
    [&13i32.to_le_bytes()[..], b"943 476 5919\0"].concat()
}

/// Stored for ever: if this fails, what is in somebody's database can no longer be found or read.
#[test]
fn keeps_the_native_envelope_field_by_field() {
    // The body comes from a second implementation: aes-siv under a sub-key that another HKDF derived.
    let mut key = [0; 64];
    ::hkdf::Hkdf::<sha2::Sha512>::new(None, material().expose())
        .expand(b"fieldveil/v1/aes-256-siv/nhs_number", &mut key)
        .unwrap();
    let (version, algorithm, kind) = ("01", "01", "02");
    let head = format!("{version}{algorithm}{KEY_HEX}{kind}");
    let aad = [&hex::decode(&head).unwrap()[..], b"nhs_number"].concat();
    let body = {
        use aes_siv::KeyInit as _;
        aes_siv::siv::Aes256Siv::new(&key.into())
            .encrypt([&aad], &value())
            .unwrap()
    };
    let golden = format!("{head}{}", hex::encode(body));
    assert_eq!(hex::encode(sealed(Suite::Aes256Siv, &value())), golden);
    assert_eq!(golden, GOLDEN_SIV);
}

/// version, algorithm, data key, BSON type, synthetic IV, ciphertext.
const GOLDEN_SIV: &str = concat!(
    "01",
    "01",
    "1122334405060708090a0b0c0d0e0f10",
    "02",
    "0d20ce7cf189af0212b93d5a048da2c1",
    "54ffc1842ec74b40f2c6ed0df453f25d91"
);

#[test]
fn keeps_the_aead_envelopes_field_by_field() {
    use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
    let out = sealed(Suite::Aes256Gcm, &value());
    assert_eq!(hex::encode(&out[..19]), format!("0102{KEY_HEX}02"));
    let mut key = [0; 32];
    ::hkdf::Hkdf::<sha2::Sha512>::new(None, material().expose())
        .expand(b"fieldveil/v1/aes-256-gcm/nhs_number", &mut key)
        .unwrap();
    let nonce: [u8; 12] = out[19..31].try_into().unwrap();
    let aad = [&out[..19], b"nhs_number"].concat();
    let opened = aes_gcm::Aes256Gcm::new(&key.into())
        .decrypt(
            &nonce.into(),
            Payload {
                msg: &out[31..],
                aad: &aad,
            },
        )
        .unwrap();
    assert_eq!(opened, value());

    let out = sealed(Suite::ChaCha20Poly1305, &value());
    assert_eq!(hex::encode(&out[..19]), format!("0103{KEY_HEX}02"));
    assert_eq!(out.len(), 19 + 12 + value().len() + 16);
}

#[test]
fn keeps_the_cbc_hmac_envelope_field_by_field() {
    let out = sealed(Suite::Aes256CbcHmacSha256, &value());
    assert_eq!(hex::encode(&out[..19]), format!("0104{KEY_HEX}02"));
    let mut key = [0; 64];
    ::hkdf::Hkdf::<sha2::Sha512>::new(None, material().expose())
        .expand(b"fieldveil/v1/aes-256-cbc-hmac-sha-256/nhs_number", &mut key)
        .unwrap();
    let (covered, tag) = out.split_last_chunk::<32>().unwrap();
    let aad = [&out[..19], b"nhs_number"].concat();
    let input = [&aad[..], &(aad.len() as u64 * 8).to_be_bytes(), &covered[19..]].concat();
    assert_eq!(
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key[..32]), &input).as_ref(),
        tag
    );
    assert_eq!(out.len(), 19 + 16 + 32 + 32);
}

#[test]
fn keeps_the_csfle_envelope_field_by_field() {
    let out = sealed(Suite::CsfleDeterministic, &value());
    assert_eq!(hex::encode(&out[..18]), format!("01{KEY_HEX}02"));
    assert_eq!(
        hex::encode(&sealed(Suite::CsfleRandom, &value())[..18]),
        format!("02{KEY_HEX}02")
    );
    let iv_key = hmac::Key::new(hmac::HMAC_SHA512, &material().expose()[64..]);
    let input = [&out[..18], &144u64.to_be_bytes(), &value()].concat();
    assert_eq!(&hmac::sign(&iv_key, &input).as_ref()[..16], &out[18..34]);
}

#[test]
fn one_bit_flipped_anywhere_breaks_it() {
    for suite in Suite::ALL {
        let (cipher, whole) = (cipher(suite), sealed(suite, &value()));
        for bit in 0..whole.len() * 8 {
            let mut bent = whole.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let mut out = vec![7];
            let answer = cipher.open(&bent, &mut out);
            assert!(
                matches!(answer, Err(OpenError::Broken(_))),
                "{} bit {bit}",
                suite.name()
            );
            assert_eq!(out, [7], "{} bit {bit} left something behind", suite.name());
        }
        for len in 0..whole.len() {
            assert!(matches!(
                cipher.open(&whole[..len], &mut Vec::new()),
                Err(OpenError::Broken(_))
            ));
        }
    }
}

#[test]
fn a_native_envelope_moved_to_another_domain_or_suite_is_broken() {
    for suite in Suite::ALL.into_iter().filter(|s| !s.is_csfle()) {
        let elsewhere = Cipher::expand(suite, &KEY, "mrn", &material()).unwrap();
        assert!(elsewhere.open(&sealed(suite, &value()), &mut Vec::new()).is_err());
        for other in Suite::ALL.into_iter().filter(|&s| s != suite && !s.is_csfle()) {
            let mut moved = sealed(suite, &value());
            moved[1] = other.id();
            assert!(cipher(other).open(&moved, &mut Vec::new()).is_err());
        }
    }
}

#[test]
fn only_deterministic_suites_repeat_themselves() {
    for suite in Suite::ALL {
        let same = sealed(suite, &value()) == sealed(suite, &value());
        assert_eq!(same, suite.is_deterministic(), "{}", suite.name());
    }
}

#[test]
fn refuses_a_native_suite_without_a_domain() {
    for suite in Suite::ALL {
        let expanded = Cipher::expand(suite, &KEY, "", &material());
        assert_eq!(expanded.is_ok(), suite.is_csfle(), "{}", suite.name());
    }
}

#[test]
fn binds_to_a_domain_of_any_length() {
    for len in [1, 140, 141, 142, 1000] {
        let domain = "d".repeat(len);
        let cipher = Cipher::expand(Suite::Aes256Gcm, &KEY, &domain, &material()).unwrap();
        let mut sealed = Vec::new();
        cipher.seal(0xff, b"x", &mut sealed).unwrap();
        assert_eq!(cipher.open(&sealed, &mut Vec::new()), Ok(0xff));
    }
}

proptest! {
    #[test]
    fn opens_what_it_sealed(value in proptest::collection::vec(any::<u8>(), 0..600), kind in 1u8..) {
        for suite in Suite::ALL {
            let (cipher, mut out) = (cipher(suite), vec![1, 2, 3]);
            if let Err(refused) = cipher.seal(kind, &value, &mut out) {
                prop_assert!(value.is_empty() && suite.is_csfle() && refused == SealError::EmptyValue);
                prop_assert_eq!(&out, &[1, 2, 3]);
                continue;
            }
            prop_assert_eq!(out.len(), 3 + suite.sealed_len(value.len()));
            let expected = Header::Envelope { key: KEY, suite, kind };
            prop_assert_eq!(header(suite.subtype(), &out[3..]), expected);
            let mut opened = vec![9];
            prop_assert_eq!(cipher.open(&out[3..], &mut opened), Ok(kind));
            prop_assert_eq!(&opened[1..], &value);
        }
    }

    #[test]
    fn never_panics_on_hostile_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for suite in Suite::ALL {
            let _ = header(suite.subtype(), &bytes);
            let mut out = Vec::new();
            let head = &sealed(suite, b"x")[..18];
            prop_assert!(cipher(suite).open(&[head, &bytes].concat(), &mut out).is_err());
            prop_assert!(out.is_empty());
        }
    }
}

/// One envelope of each suite as the first release wrote it: each release to come must open them.
const WRITTEN: [(Suite, &str); 6] = [
    (Suite::Aes256Siv, GOLDEN_SIV),
    (
        Suite::Aes256Gcm,
        "01021122334405060708090a0b0c0d0e0f10026911e9fbc494b2185aaeacc85a5f76bf169395a4e50aae07f64545e9672ce43a4c1b34e98ae86a41a1d79eeff4",
    ),
    (
        Suite::ChaCha20Poly1305,
        "01031122334405060708090a0b0c0d0e0f1002a4e792de3f17ae6efb73b86914bb00e05764b90a415b56e248a84160475d038fb40a8f3ab85d1385d113e22c17",
    ),
    (
        Suite::Aes256CbcHmacSha256,
        "01041122334405060708090a0b0c0d0e0f1002e13d7cd7de31323f88e34d815da9764acb51d121b6f8e5d9738a1fb0c7c9510e24b80538c9a8632ef8871f8b2216a6400823a69d75c2138258e9daad564e76cf221751efc6e832d8d4b05522293fce04",
    ),
    (
        Suite::CsfleDeterministic,
        "011122334405060708090a0b0c0d0e0f100225521546f44a1f548a8b03b22282de661e59049aa04f3746892817f9f2df8f36cc2c5370ecae3182ac933f2ce79cb029513278517309fa11447563c9b33b8da8c9e0bf99d293d04e88f04dbb3756d80d",
    ),
    (
        Suite::CsfleRandom,
        "021122334405060708090a0b0c0d0e0f100272bb5797b2809be9eb7d09631599d3d68fe01a1cf6fe8d4963def14b80d98c59d88492e60d68dd7f349a81269e14145e4bc10926c214e3f916bdde862919eff77db69997ecca8b138f920735b6f4696d",
    ),
];

#[test]
fn keeps_opening_what_earlier_releases_wrote() {
    for (suite, stored) in WRITTEN {
        let (stored, mut opened) = (hex::decode(stored).unwrap(), Vec::new());
        assert_eq!(
            cipher(suite).open(&stored, &mut opened),
            Ok(2),
            "{}",
            suite.name()
        );
        assert_eq!(opened, value(), "{}", suite.name());
        if suite.is_deterministic() {
            assert_eq!(sealed(suite, &value()), stored, "{}", suite.name());
        }
    }
}
