//! placeholder until the crypto room lands
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    Aes256Siv,
    Aes256Gcm,
    ChaCha20Poly1305,
    Aes256CbcHmacSha256,
    CsfleDeterministic,
    CsfleRandom,
}
