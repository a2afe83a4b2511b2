//! Cipher suites, key derivation and the stored envelope. Knows bytes only: no BSON document, no wire frame, no policy.
pub mod suite;
