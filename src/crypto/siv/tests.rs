use super::*;
use aes_siv::siv::Aes256Siv;
use proptest::prelude::*;

fn key() -> Secret<[u8; 64]> {
    Secret::new(std::array::from_fn(|n| n as u8))
}

/// NIST SP 800-38B, CMAC-AES-256 examples 9 to 12.
#[test]
fn cmac_keeps_nists_values() {
    let key = hex::decode("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
    let message = hex::decode(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
    )
    .unwrap();
    let mac = Cmac::new(key.as_slice().try_into().unwrap());
    for (len, expected) in [
        (0, "028962f61b7bf89efc6b551f4667d983"),
        (16, "28a7023f452e8f82bd4bf28d8c37c35c"),
        (40, "aaf3d8f1de5640c232f5b169b9c911e6"),
        (64, "e1992190549f6ed5696a2c056c315410"),
    ] {
        assert_eq!(hex::encode(mac.of(&message[..len])), expected, "{len} bytes");
    }
}

/// RFC 5297 gives vectors for AES-128 only. Its A.1 goes through the same crate that the cross-check below uses, so
/// that crate is pinned to the RFC and this file to that crate, at the key size that is used here.
#[test]
fn the_reference_keeps_rfc5297_a1() {
    use aes_siv::KeyInit as _;
    let key: [u8; 32] = hex::decode("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
        .unwrap()
        .try_into()
        .unwrap();
    let aad = hex::decode("101112131415161718191a1b1c1d1e1f2021222324252627").unwrap();
    let sealed = aes_siv::siv::Aes128Siv::new(&key.into())
        .encrypt([&aad], &hex::decode("112233445566778899aabbccddee").unwrap())
        .unwrap();
    assert_eq!(
        hex::encode(sealed),
        "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"
    );
}

#[test]
fn agrees_with_a_second_implementation_at_every_short_length() {
    use aes_siv::KeyInit as _;
    let ours = Siv::new(&key());
    let mut reference = Aes256Siv::new(key().expose().into());
    let value: Vec<u8> = (0..=255).collect();
    for aad in [0, 1, 15, 16, 17, 19, 44, 64] {
        for len in 0..100 {
            let mut sealed = Vec::new();
            ours.seal(ours.bind(&value[..aad]), &value[..len], &mut sealed);
            assert_eq!(
                sealed,
                reference.encrypt([&value[..aad]], &value[..len]).unwrap(),
                "{aad} {len}"
            );
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_second_implementation(
        key in proptest::array::uniform32(any::<u8>()),
        aad in proptest::collection::vec(any::<u8>(), 0..120),
        value in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        use aes_siv::KeyInit as _;
        let mut whole = [0u8; 64];
        whole[..32].copy_from_slice(&key);
        whole[32..].copy_from_slice(&key.map(|b| !b));
        let ours = Siv::new(&Secret::new(whole));
        let mut sealed = vec![1, 2, 3];
        ours.seal(ours.bind(&aad), &value, &mut sealed);
        prop_assert_eq!(&sealed[3..], Aes256Siv::new(&whole.into()).encrypt([&aad], &value).unwrap());
        let mut opened = vec![9];
        ours.open(ours.bind(&aad), &sealed[3..], &mut opened).unwrap();
        prop_assert_eq!(&opened[1..], &value);
    }
}

#[test]
fn leaves_the_output_as_it_was_when_it_refuses() {
    let siv = Siv::new(&key());
    let mut sealed = Vec::new();
    siv.seal(siv.bind(b"a"), b"value", &mut sealed);
    let mut out = vec![1, 2];
    assert_eq!(siv.open(siv.bind(b"b"), &sealed, &mut out), Err(FORGED));
    assert_eq!(siv.open(siv.bind(b"a"), &sealed[..15], &mut out), Err(FORGED));
    assert_eq!(out, [1, 2]);
}
