//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as a client, without channel binding: exactly what a driver does.
//! The password must be ASCII (no SASLprep here).

use std::collections::HashMap;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Outcome;

/// Who logs in, and the salted passwords already computed: deriving one costs milliseconds.
pub(crate) struct Login {
    pub(crate) user: String,
    password: String,
    salted: HashMap<(Vec<u8>, u32), [u8; 32]>,
}

/// A conversation between its first and its last message.
pub(crate) struct Exchange {
    first_bare: String,
    nonce: String,
    server_signature: Vec<u8>,
}

impl Login {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            salted: HashMap::new(),
        }
    }

    /// The client's first message.
    pub(crate) fn first(&self) -> Outcome<(Exchange, String)> {
        let mut random = [0; 24];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "no randomness")?;
        let nonce = STANDARD.encode(random);
        let first_bare = format!("n={},r={nonce}", self.user);
        let message = format!("n,,{first_bare}");
        Ok((
            Exchange {
                first_bare,
                nonce,
                server_signature: Vec::new(),
            },
            message,
        ))
    }

    /// The client's proof, in answer to the server's first message.
    pub(crate) fn proof(&mut self, exchange: &mut Exchange, server_first: &str) -> Outcome<String> {
        let nonce = attribute(server_first, "r")?;
        let salt = STANDARD.decode(attribute(server_first, "s")?)?;
        let iterations: u32 = attribute(server_first, "i")?.parse()?;
        if !nonce.starts_with(&exchange.nonce) {
            return Err("the server changed the nonce".into());
        }
        let salted = self.salted(&salt, iterations)?;
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let transcript = format!("{},{server_first},{without_proof}", exchange.first_bare);
        let signature = sign(stored_key.as_ref(), transcript.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(a, b)| a ^ b)
            .collect();
        let server_key = sign(&salted, b"Server Key");
        exchange.server_signature = sign(server_key.as_ref(), transcript.as_bytes()).as_ref().to_vec();
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    fn salted(&mut self, salt: &[u8], iterations: u32) -> Outcome<[u8; 32]> {
        let key = (salt.to_vec(), iterations);
        if let Some(salted) = self.salted.get(&key) {
            return Ok(*salted);
        }
        let rounds = NonZeroU32::new(iterations).ok_or("no iterations")?;
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            salt,
            self.password.as_bytes(),
            &mut salted,
        );
        self.salted.insert(key, salted);
        Ok(salted)
    }
}

impl Exchange {
    /// Whether the server knows the password too.
    pub(crate) fn confirm(&self, server_final: &str) -> Outcome<()> {
        if STANDARD.decode(attribute(server_final, "v")?)? == self.server_signature {
            Ok(())
        } else {
            Err("the server's signature is wrong".into())
        }
    }
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

fn attribute<'a>(message: &'a str, name: &str) -> Outcome<&'a str> {
    let found = message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    found.ok_or_else(|| format!("SCRAM: no attribute {name}").into())
}
