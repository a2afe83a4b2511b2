//! A subject's value in the one form that its pseudonym is made from: "943 476 5919" and "9434765919" are one person.

use std::borrow::Cow;

use crate::bson::kind;
use crate::crypto::pseudonym::Pseudonymizer;

/// The pseudonym of a canonical BSON value.
pub(super) fn pseudonym(maker: &Pseudonymizer, of_kind: u8, value: &[u8]) -> [u8; 16] {
    maker.digest(&normal(of_kind, value))
}

/// Strings lose white space and hyphens and become upper case; other types are taken as they are.
fn normal(of_kind: u8, value: &[u8]) -> Cow<'_, [u8]> {
    if of_kind != kind::STRING || value.len() < 5 {
        return Cow::Borrowed(value);
    }
    let text = &value[4..value.len() - 1];
    let is_noise = |b: &u8| b.is_ascii_whitespace() || *b == b'-';
    if !text.iter().any(|b| is_noise(b) || b.is_ascii_lowercase()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.iter()
            .filter(|b| !is_noise(b))
            .map(u8::to_ascii_uppercase)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_are_one_subject() {
        let spaced = b"\x0d\0\0\0943 476 5919\0";
        let plain = b"\x0b\0\0\09434765919\0";
        assert_eq!(normal(kind::STRING, spaced), normal(kind::STRING, plain));
    }
}
