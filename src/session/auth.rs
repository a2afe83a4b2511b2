//! Who a client is: read from its SASL conversation, believed only once the server says `done`. Keeps no secret of the
//! conversation.

use std::sync::Arc;

use crate::bson::Doc;
use crate::event::bounded_name;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal};

/// Who the client claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// `user@db`.
    pub(super) principal: Arc<str>,
    /// The SASL mechanism.
    pub(super) mechanism: &'static str,
}

/// Reads a `saslStart` (or the `speculativeAuthenticate` of a hello). `None` where the mechanism does not name the
/// user in its first message.
///
/// # Errors
/// A [`Refusal`] for mechanisms that cannot pass a TLS-terminating proxy.
pub(super) fn claimed(start: &Doc<'_>, db: &str) -> Result<Option<Candidate>, Refusal> {
    let mut mechanism = None;
    let mut payload: &[u8] = b"";
    let (mut source, mut fixed) = (db, false);
    for element in start.elements() {
        let element = element.map_err(malformed)?;
        match element.key {
            b"mechanism" => mechanism = element.text(),
            b"payload" => payload = element.binary().map_or(b"", |(_, payload)| payload),
            // `db` is the speculative form's word for it.
            b"db" if !fixed => source = element.text().unwrap_or(source),
            b"$db" => (source, fixed) = (element.text().unwrap_or(source), true),
            _ => {}
        }
    }
    let known = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]
        .into_iter()
        .find(|known| mechanism == Some(known));
    let user = match known.or(mechanism) {
        Some("MONGODB-X509") => return Err(refuse_x509()),
        Some("SCRAM-SHA-1" | "SCRAM-SHA-256") => scram_user(payload),
        // authzid NUL authcid NUL password: only the name is looked at.
        Some("PLAIN") => payload
            .split(|b| *b == 0)
            .nth(1)
            .and_then(|user| std::str::from_utf8(user).ok())
            .map(str::to_owned),
        _ => None,
    };
    Ok(user.map(|user| {
        let (user, _) = bounded_name(&user);
        Candidate {
            principal: format!("{user}@{source}").into(),
            mechanism: known.unwrap_or("other"),
        }
    }))
}

/// The refusal for X.509: the certificate ends here.
pub(super) fn refuse_x509() -> Refusal {
    Refusal::new(
        Reason::Authentication,
        "MONGODB-X509 cannot pass the proxy: the client's certificate ends at its TLS termination, and the server would \
         see the proxy's. Use SCRAM-SHA-256 towards the server; client certificates can still be required by the \
         listener ([tls] client_ca)",
    )
}

/// The name in a SCRAM client-first message: `n,,n=user,r=nonce`, with `=2C` for a comma and `=3D` for an equals sign.
fn scram_user(payload: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(payload).ok()?;
    let name = text.split(',').find_map(|part| part.strip_prefix("n="))?;
    Some(name.replace("=2C", ",").replace("=3D", "="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bson::build::Builder;

    #[test]
    fn reads_the_user_of_a_scram_conversation() {
        let mut start = Builder::new();
        let payload = b"n,,n=ward=2Cnorth,r=abc";
        let mut binary = i32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
        binary.push(0);
        binary.extend_from_slice(payload);
        start
            .int32("saslStart", 1)
            .string("mechanism", "SCRAM-SHA-256")
            .raw(5, "payload", &binary)
            .string("$db", "admin");
        let bytes = start.finish();
        let claimed = claimed(&Doc::at(&bytes, 0).unwrap(), "test").unwrap().unwrap();
        assert_eq!(&*claimed.principal, "ward,north@admin");
    }

    #[test]
    fn refuses_x509_with_the_way_out() {
        let mut start = Builder::new();
        start.int32("saslStart", 1).string("mechanism", "MONGODB-X509");
        let bytes = start.finish();
        assert!(
            claimed(&Doc::at(&bytes, 0).unwrap(), "x")
                .unwrap_err()
                .text
                .contains("SCRAM-SHA-256")
        );
    }
}
