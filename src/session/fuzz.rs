//! Fuzz entry: any bytes as a client's frame and as a server's reply, under a field map that has every kind of rule.
//! What leaves must be a frame, and whatever left for the server must hold no unsealed protected value (the session
//! proves that itself and refuses otherwise: such a refusal is a finding).

mod grammar;

use std::sync::Arc;

use bson::{Bson, Document, doc};

use self::grammar::Source;
use super::{Context, Cursors, Session, Step};
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
use crate::wire::encode;
use crate::wire::op_msg::OpMsg;

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

/// Two ways to spend bytes. A first word of all ones: the rest grows an insert and another command, which is answered
/// with what the insert stored. Else the word is the length of a client's frame, and a server's frame follows it.
///
/// # Panics
/// Where something leaves that is no frame, a protected value leaves in plaintext, or the proof after rewriting fails.
pub fn fuzz_plan_apply(data: &[u8]) {
    with_session(|session, cx| match data.split_first_chunk::<4>() {
        Some(([0xff, 0xff, 0xff, 0xff], rest)) => grown(session, cx, rest),
        Some((length, rest)) => {
            let length = (u32::from_le_bytes(*length) as usize).min(rest.len());
            let (request, reply) = rest.split_at(length);
            ask(session, cx, request);
            answer(session, cx, reply);
        }
        None => {
            ask(session, cx, data);
        }
    });
}

/// Runs `steps` in a new session under the sample's field map.
fn with_session(steps: impl FnOnce(&mut Session, &Context<'_>)) {
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
            cursors: &Cursors::default(),
            follows: false,
            service: &[7; 12],
            pseudonymizer,
            now_us: 0,
            unix_ms: 0,
            login: false,
            audit_ready: true,
        };
        let mut session = Session::new(1, None);
        steps(&mut session, &cx);
        for done in session.take_done() {
            assert_ne!(
                done.outcome,
                Outcome::Refused { reason: "proof" },
                "an unsealed value was about to leave"
            );
        }
    });
}

fn grown(session: &mut Session, cx: &Context<'_>, data: &[u8]) {
    let mut source = Source::new(data);
    let mut stored = Vec::new();
    for (id, command) in [
        (1, grammar::insert(&mut source)),
        (2, grammar::command(&mut source)),
    ] {
        let Ok(body) = bson::serialize_to_vec(&command) else {
            return;
        };
        let Ok(frame) = encode::command(id, &body) else {
            return;
        };
        let (to_server, to_client) = ask(session, cx, &frame);
        for (side, left) in [("server", &to_server), ("client", &to_client)] {
            assert!(
                memchr::memmem::find(left, grammar::SECRET.as_bytes()).is_none(),
                "plaintext left for the {side}: {command}"
            );
        }
        let reply = if id == 1 {
            stored = documents(&to_server);
            doc! { "ok": 1, "n": 1 }
        } else {
            doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "c.p", "firstBatch": stored.clone() }, "value": stored.first(), "values": stored.clone() }
        };
        // What was refused has no reply.
        if let Ok(body) = bson::serialize_to_vec(&reply)
            && !to_server.is_empty()
            && let Ok(frame) = encode::reply(9, id, &body, false)
        {
            answer(session, cx, &frame);
        }
    }
}

/// What an insert that went to the server stores.
fn documents(frame: &[u8]) -> Vec<Bson> {
    let Ok(message) = OpMsg::parse(frame) else {
        return Vec::new();
    };
    let body: Option<Document> = frame
        .get(message.body())
        .and_then(|body| bson::deserialize_from_slice(body).ok());
    body.and_then(|body| body.get_array("documents").ok().cloned())
        .unwrap_or_default()
}

/// What leaves for the server and for the client.
fn ask(session: &mut Session, cx: &Context<'_>, request: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    if let Ok(Step::Done) = session.on_client(request, cx, &mut to_server, &mut to_client) {
        whole_frames(&to_server);
        whole_frames(&to_client);
    }
    (to_server, to_client)
}

fn answer(session: &mut Session, cx: &Context<'_>, reply: &[u8]) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    if session
        .on_server(reply, cx, &mut to_server, &mut to_client)
        .is_ok()
    {
        whole_frames(&to_server);
        whole_frames(&to_client);
    }
}

fn whole_frames(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match peel(bytes, limits::MAX_MESSAGE) {
            Ok(Peeled::Frame(length)) => bytes = &bytes[length..],
            _ => panic!("what left is no frame"),
        }
    }
}

#[cfg(test)]
mod tests;
