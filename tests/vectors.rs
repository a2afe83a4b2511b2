//! Published vectors that the repository does not carry, read from `$FIELDVEIL_VECTORS` or `../shared/vectors`.
//! Where they are absent a test says `NOT RUN` and, on CI, fails.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::PathBuf;

use fieldveil::crypto::csfle::Aead;
use fieldveil::crypto::{Header, Suite, header};
use fieldveil::keys::Dek;
use fieldveil::name::KeyId;
use fieldveil::secret::Secret;
use serde_json::Value;

/// The corpus's published master key for the `local` provider (`csfle-corpus`, client-side encryption prose tests).
const LOCAL_MASTER_KEY: &str = "Mng0NCt4ZHVUYUJCa1kxNkVyNUR1QURhZ2h2UzR2d2RrZzh0cFBwM3R6NmdWMDFBMUN3YkQ5aXRRMkhGRGdQV09wOGVNYUMxT2k3NjZKelhaQmRCZGJkTXVyZG9uSjFk";

#[test]
fn csfle_aead_opens_the_mcgrew_vectors() {
    let Some(vectors) = read("csfle_aead_opens_the_mcgrew_vectors", "csfle-aead/mcgrew.json") else {
        return;
    };
    let vectors = vectors.as_array().unwrap();
    assert!(!vectors.is_empty());
    for vector in vectors {
        let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
        let aead = Aead::new(&Secret::take(&mut bytes("key")).unwrap()).unwrap();
        let mut opened = Vec::new();
        aead.open(&bytes("aad"), &bytes("ciphertext"), &mut opened)
            .unwrap();
        assert_eq!(opened, bytes("plaintext"), "{}", vector["name"]);
        assert_eq!(bytes("ciphertext")[..16], bytes("iv"));
    }
}

#[test]
fn csfle_corpus_opens_whole_and_seals_its_deterministic_half_byte_for_byte() {
    const NAME: &str = "csfle_corpus_opens_whole_and_seals_its_deterministic_half_byte_for_byte";
    let (Some(key), Some(sealed), Some(plain)) = (
        read(NAME, "csfle-corpus/corpus-key-local.json"),
        read(NAME, "csfle-corpus/corpus-encrypted.json"),
        read(NAME, "csfle-corpus/corpus.json"),
    ) else {
        return;
    };
    let dek = corpus_key(&key);
    let (mut opened, mut resealed) = (0, 0);
    for (name, entry) in sealed.as_object().unwrap() {
        if entry["kms"] != "local" || entry["allowed"] != true {
            continue;
        }
        let (subtype, payload) = binary(&entry["value"]);
        let Header::Envelope { key, suite, kind } = header(subtype, &payload) else {
            panic!("{name} is not read as an envelope");
        };
        assert_eq!(key, dek.id(), "{name}");
        let mut value = Vec::new();
        assert_eq!(dek.open(subtype, &payload, &mut value), Ok(kind), "{name}");
        opened += 1;

        let (expected_kind, expected) = bson_value(&plain[name]["value"]);
        assert_eq!((kind, &value), (expected_kind, &expected), "{name}");

        assert_eq!(suite.is_deterministic(), entry["algo"] == "det", "{name}");
        if suite.is_deterministic() {
            let mut again = Vec::new();
            dek.seal(Suite::CsfleDeterministic, kind, &value, &mut again)
                .unwrap();
            assert_eq!(again, payload, "{name}");
            resealed += 1;
        }
    }
    assert_eq!((opened, resealed), (142, 53));
}

fn corpus_key(document: &Value) -> Dek {
    let mut master = base64(LOCAL_MASTER_KEY);
    let master = Aead::new(&Secret::take(&mut master).unwrap()).unwrap();
    let (_, wrapped) = binary(&document["keyMaterial"]);
    let (_, id) = binary(&document["_id"]);
    Dek::new(
        KeyId::from_slice(&id).unwrap(),
        "",
        0,
        master.unwrap(&wrapped).unwrap(),
    )
}

/// Type and value bytes of one value in MongoDB's extended JSON, by the `bson` crate: an encoder that is not ours.
fn bson_value(json: &Value) -> (u8, Vec<u8>) {
    let value: bson::Bson = serde_json::from_value(json.clone()).unwrap();
    let document = bson::doc! { "v": value }.to_vec().unwrap();
    // length(4) type "v\0" value "\0"
    (document[4], document[7..document.len() - 1].to_vec())
}

fn binary(json: &Value) -> (u8, Vec<u8>) {
    let subtype = json["$binary"]["subType"].as_str().unwrap();
    (
        u8::from_str_radix(subtype, 16).unwrap(),
        base64(json["$binary"]["base64"].as_str().unwrap()),
    )
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn read(test: &str, file: &str) -> Option<Value> {
    let folder = std::env::var_os("FIELDVEIL_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/vectors")),
        PathBuf::from,
    );
    let path = folder.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            eprintln!(
                "NOT RUN: {test}: {}: {error}; set FIELDVEIL_VECTORS",
                path.display()
            );
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "vectors are absent on CI"
            );
            None
        }
    }
}
