//! One entry for the fuzzer into sealing and opening: what the database hands back where an envelope is expected. Owns
//! no cipher; what it checks are the promises of a data key.

use super::Dek;
use crate::crypto::{Header, OpenError, SealError, Suite, header};
use crate::name::KeyId;
use crate::secret::Secret;

const DOMAIN: &str = "clinic.patients.notes";
const ID: KeyId = KeyId([0x11; 16]);

fn dek(id: KeyId, domain: &str) -> Dek {
    Dek::new(id, domain, 1, Secret::new([0x5a; 96]))
}

/// Any bytes as a stored envelope; then the same bytes as a value that is sealed, opened, and opened again with one bit
/// changed and under another domain. The first byte chooses subtype or bit, the second the BSON type.
///
/// # Panics
/// Where a promise is broken: a sealed value that does not come back, a changed or moved one that does. Only for the
/// fuzzer and the tests.
pub fn fuzz_envelope(data: &[u8]) {
    thread_local! {
        static KEYS: (Dek, Dek) = (dek(ID, DOMAIN), dek(ID, "clinic.patients.mrn"));
    }
    let Some((&[choice, kind], rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    KEYS.with(|(key, moved)| {
        for subtype in [choice, 0x80, 0x06] {
            stored(key, subtype, rest);
        }
        for suite in Suite::ALL {
            sealed(key, moved, suite, choice, kind, rest);
        }
    });
}

/// Bytes that somebody else wrote: an answer, and nothing left behind where they do not open.
fn stored(key: &Dek, subtype: u8, payload: &[u8]) {
    let mut out = b"before".to_vec();
    match (header(subtype, payload), key.open(subtype, payload, &mut out)) {
        (Header::NotEnvelope, result) => assert_eq!(result, Err(OpenError::NotEnvelope)),
        (Header::Broken(_), result) => assert!(matches!(result, Err(OpenError::Broken(_)))),
        (Header::Envelope { .. }, Err(error)) => {
            assert!(
                matches!(error, OpenError::Broken(_)),
                "ours and broken is never somebody else's"
            );
        }
        (Header::Envelope { suite, kind, .. }, Ok(opened)) => {
            assert_eq!(opened, kind, "the type is the header's");
            if suite.is_deterministic() {
                let mut again = Vec::new();
                assert_eq!(key.seal(suite, kind, &out[6..], &mut again), Ok(()));
                assert_eq!(again, payload, "one value, one envelope");
            }
            return;
        }
    }
    assert_eq!(out, b"before", "nothing is left behind");
}

fn sealed(key: &Dek, moved: &Dek, suite: Suite, choice: u8, kind: u8, value: &[u8]) {
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    match key.seal(suite, kind, value, &mut payload) {
        Ok(()) => {}
        Err(SealError::EmptyValue) if suite.is_csfle() && value.is_empty() => return,
        // A long run spends the 2^32 values of a key.
        Err(SealError::BudgetSpent) => return,
        Err(error) => panic!("{suite:?}: {error}"),
    }
    assert_eq!(payload.len(), suite.sealed_len(value.len()));
    assert_eq!(
        header(suite.subtype(), &payload),
        Header::Envelope { key: ID, suite, kind }
    );
    assert_eq!(key.open(suite.subtype(), &payload, &mut out), Ok(kind));
    assert_eq!(out, value, "open(seal(x)) == x");
    // CSFLE knows no domains: its format is MongoDB's.
    if !suite.is_csfle() {
        assert!(moved.open(suite.subtype(), &payload, &mut Vec::new()).is_err());
    }
    let at = usize::from(choice) * 131 % payload.len();
    payload[at] ^= 1 << (choice % 8);
    assert!(
        key.open(suite.subtype(), &payload, &mut Vec::new()).is_err(),
        "{suite:?}: byte {at} changed and it still opens"
    );
}

#[cfg(test)]
mod tests {
    use super::fuzz_envelope;

    #[test]
    fn keeps_its_promises_for_values_of_every_length_up_to_three_blocks() {
        fuzz_envelope(b"");
        for length in 2..50 {
            for choice in [0, 1, 0x80, 0xff] {
                let mut data = vec![0x42; length];
                data[0] = choice;
                fuzz_envelope(&data);
            }
        }
    }
}
