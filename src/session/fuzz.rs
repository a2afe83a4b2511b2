//! Fuzz entry: any bytes as a client's frame and as a server's reply, under a field map that has every kind of rule.
//! What leaves must be a frame, and whatever left for the server must hold no unsealed protected value (the session
//! proves that itself and refuses otherwise: such a refusal is a finding).

use std::sync::Arc;

use super::{Context, Session, Step};
use crate::config::{Config, Empty};
use crate::crypto::pseudonym::Pseudonymizer;
use crate::event::Outcome;
use crate::keys::{Dek, DomainKeys, KeyRing};
use crate::limits;
use crate::name::KeyId;
use crate::policy::Found;
use crate::secret::Secret;
use crate::topology::{Address, HostMap};
use crate::wire::deframe::{Peeled, peel};

/// A field map with every kind of rule.
pub const SAMPLE: &str = r#"
[upstream]
uri = "mongodb://127.0.0.1:27017"

[[listen]]
address = "127.0.0.1:27018"
allow_plaintext = true

[keys]
vault = "encryption.__keyVault"
master = { provider = "file", path = "master.key" }

[[collection]]
namespace = "c.p"
subject = "nhs"

[collection.fields]
nhs = { mode = "deterministic", type = "string", domain = "nhs" }
age = { mode = "deterministic", type = "int" }
count = { mode = "deterministic", type = "long" }
born = { mode = "deterministic", type = "date" }
notes = { mode = "random" }
tags = { mode = "random", each = true }
"contacts.phone" = { mode = "deterministic", type = "string" }
"address.line1" = { mode = "random", algorithm = "chacha20-poly1305" }
moving = { mode = "deterministic", type = "string", state = "migrating" }
"#;

/// The sample's configuration.
///
/// # Panics
/// Where the sample above is no configuration.
#[expect(
    clippy::expect_used,
    reason = "a constant of this file, used by tests and fuzz targets only"
)]
pub fn sample() -> Config {
    Config::parse("sample.toml", SAMPLE, &Empty).expect("the sample is a configuration")
}

/// A ring with `versions` keys for every domain of the configuration.
pub fn ring(config: &Config, versions: u8) -> KeyRing {
    let mut domains = Vec::new();
    let mut names: Vec<Arc<str>> = config
        .fields
        .rules()
        .map(|(_, rule)| Arc::clone(&rule.domain))
        .collect();
    names.sort();
    names.dedup();
    for (n, domain) in names.iter().enumerate() {
        let seed = u8::try_from(n).unwrap_or(u8::MAX);
        let keys = (1..=versions)
            .map(|version| {
                let material = Secret::new([seed ^ version.rotate_left(4); 96]);
                Arc::new(Dek::new(
                    KeyId([seed.wrapping_mul(16).wrapping_add(version); 16]),
                    domain,
                    u32::from(version),
                    material,
                ))
            })
            .collect();
        domains.extend(DomainKeys::new(keys).map(Arc::new));
    }
    KeyRing::empty().with(domains, Vec::new())
}

/// One frame from the client, then one from the server; never panics.
///
/// # Panics
/// Where something leaves that is no frame, or the proof after rewriting fails.
pub fn fuzz_plan_apply(data: &[u8]) {
    thread_local! {
        static FIXTURE: (Config, KeyRing, Pseudonymizer, Option<Address>) = {
            let config = sample();
            let ring = ring(&config, 1);
            (config, ring, Pseudonymizer::new(&Secret::new([7; 32])), Address::parse("127.0.0.1:27018"))
        };
    }
    FIXTURE.with(|(config, ring, pseudonymizer, listener)| {
        let Some(listener) = listener else { return };
        let hosts = HostMap::default();
        let cx = Context {
            map: &config.fields,
            found: &Found::default(),
            ring,
            hosts: &hosts,
            listener,
            pseudonymizer,
            now_us: 0,
            unix_ms: 0,
            audit_ready: true,
        };
        let (request, reply) = match data.split_first_chunk::<4>() {
            Some((length, rest)) => rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len())),
            None => (data, &b""[..]),
        };
        let mut session = Session::new(1, None);
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        if let Ok(Step::Done) = session.on_client(request, &cx, &mut to_server, &mut to_client) {
            whole_frames(&to_server);
            whole_frames(&to_client);
        }
        to_client.clear();
        if session.on_server(reply, &cx, &mut to_client).is_ok() {
            whole_frames(&to_client);
        }
        for done in session.take_done() {
            assert_ne!(
                done.outcome,
                Outcome::Refused { reason: "proof" },
                "an unsealed value was about to leave"
            );
        }
    });
}

fn whole_frames(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match peel(bytes, limits::MAX_MESSAGE) {
            Ok(Peeled::Frame(length)) => bytes = &bytes[length..],
            _ => panic!("what left is no frame"),
        }
    }
}
