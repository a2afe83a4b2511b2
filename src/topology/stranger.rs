//! Addresses in a text that nobody has told of: a router's errors name the servers behind it. Owns what looks like one.
//!
//! Source: texts of a router that cannot reach a shard, such as `Error connecting to s1.internal:27018 (10.0.0.5:27018) ::
//! caused by :: …`, `Could not find host matching read preference { mode: "primary" } for set shard01`, `… target:[s1:27018]
//! db:c …`, `shard01/s1.internal:27018,s2.internal:27018`.

use super::hosts::Address;

/// What looks like an address.
pub(super) struct Stranger {
    /// Where it stands.
    pub(super) at: usize,
    /// How long it is as written.
    pub(super) length: usize,
    pub(super) address: Address,
}

/// A name of one label is an address only where a text says so.
const BEFORE: [&str; 9] = [
    "connecting to ",
    "connected to ",
    "connection to ",
    "target:",
    "target:[",
    "host ",
    "host: ",
    "server ",
    "from ",
];
/// What the server's own source files are called, with a line's number behind.
const SOURCE: [&str; 3] = [".cpp", ".h", ".js"];

/// The leftmost from an offset on, in a text in lower case.
pub(super) fn first(lower: &str, from: usize) -> Option<Stranger> {
    let mut colons = lower.get(from..)?.match_indices(':').map(|(at, _)| from + at);
    colons.find_map(|colon| around(lower, from, colon))
}

/// The leftmost behind what has been replaced, where `found` was the leftmost before that. What it has passed over stays
/// passed over, so that no text is searched twice; only at the first colon can the cut change what is seen.
pub(super) fn after(lower: &str, from: usize, found: Option<Stranger>) -> Option<Stranger> {
    if found.as_ref().is_some_and(|found| found.at < from) {
        return first(lower, from);
    }
    let colon = from + lower.get(from..)?.find(':')?;
    around(lower, from, colon).or(found)
}

/// How far the bracket before an IPv6 address is looked for: the longest address has 45 bytes.
const BRACKETS: usize = 64;

/// The address whose port stands behind this colon.
fn around(lower: &str, from: usize, colon: usize) -> Option<Stranger> {
    let digits = lower[colon + 1..].bytes().take_while(u8::is_ascii_digit).count();
    let end = colon + 1 + digits;
    let (after, next) = (lower.as_bytes().get(end), lower.as_bytes().get(end + 1));
    let is_word = |b: &u8| b.is_ascii_alphanumeric();
    // A full stop or a colon ends a sentence, or goes on with a number.
    let goes_on =
        after.is_some_and(|b| is_word(b) || *b == b'_' || b".:-/".contains(b) && next.is_some_and(is_word));
    if !(2..=5).contains(&digits) || goes_on {
        return None;
    }
    let before = &lower[from..colon];
    let at = if before.ends_with(']') {
        let reach = before.len().saturating_sub(BRACKETS);
        from + reach + before.as_bytes()[reach..].iter().rposition(|b| *b == b'[')?
    } else {
        let host = before
            .bytes()
            .rev()
            .take_while(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
            .count();
        colon - host
    };
    let host = &lower[at..colon];
    let lead = &lower[..at];
    // A value that is shown, which is in quotes, is none of ours.
    if lead.ends_with(['"', '\'', ':', '@']) && !BEFORE.iter().any(|words| lead.ends_with(words)) {
        return None;
    }
    let has_name =
        host.bytes().any(|b| b.is_ascii_alphabetic()) || host.parse::<std::net::Ipv4Addr>().is_ok();
    let is_one = if host.contains('.') || host.starts_with('[') {
        !SOURCE.iter().any(|ending| host.ends_with(ending))
    } else {
        // Of a set: `shard01/s1:27018,s2:27018`.
        lead.ends_with(['/', ',']) || BEFORE.iter().any(|words| lead.ends_with(words))
    };
    let address =
        Address::parse(&lower[at..end]).filter(|_| is_one && (has_name || host.starts_with('[')))?;
    Some(Stranger {
        at,
        length: end - at,
        address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<&str> {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some(stranger) = first(text, from) {
            found.push(&text[stranger.at..stranger.at + stranger.length]);
            from = stranger.at + stranger.length;
        }
        found
    }

    #[test]
    fn finds_the_servers_that_a_router_speaks_of() {
        for (text, want) in [
            (
                "error connecting to s1.internal:27018 (10.0.0.5:27018) :: caused by :: connection refused",
                &["s1.internal:27018", "10.0.0.5:27018"][..],
            ),
            (
                "shard01/s1:27018,s2.internal:27019 is down",
                &["s1:27018", "s2.internal:27019"],
            ),
            (
                "remotecommand 5 -- target:[s1:27018] db:clinic expdate:2026-01-01t10:30:00.000 cmd:{}",
                &["s1:27018"],
            ),
            (
                "remotecommand 5 -- target:s1.internal:27018 db:clinic",
                &["s1.internal:27018"],
            ),
            ("no answer from s1:27018.", &["s1:27018"]),
            ("details: { s2.internal:27018: 1 }", &["s2.internal:27018"]),
            ("cannot reach [fe80::1]:27018 now", &["[fe80::1]:27018"]),
            ("ü10.0.0.1:27018 ü", &["10.0.0.1:27018"]),
        ] {
            assert_eq!(all(text), want, "{text}");
        }
    }

    #[test]
    fn looks_no_further_than_an_address_is_long() {
        let text = format!("[{}", "]:11".repeat(1 << 18));
        assert_eq!(all(&text), Vec::<&str>::new());
        let scope = format!("[{}fe80::1]:27018", "0".repeat(BRACKETS));
        assert_eq!(all(&scope), Vec::<&str>::new());
        assert_eq!(
            all("at [2001:0db8:0000:0000:0000:0000:0000:0001]:27018"),
            ["[2001:0db8:0000:0000:0000:0000:0000:0001]:27018"]
        );
    }

    #[test]
    fn leaves_what_is_no_address() {
        for text in [
            "dup key: { _id: \"s1.internal:27018\" }",
            "dup key: { at: \"10:30\", v: 27018 }",
            "time 10:30:00 and 2026-01-01t10:30:00.000",
            "src/mongo/db/query/plan_executor.cpp:123",
            "a:1 b:27018 urn:12345",
            "version 6.0.5: 27018",
            "s1.internal:270188",
            "s1.internal:27018x",
            ":27018",
            "]:27018",
            "ü:27018",
            "",
        ] {
            assert_eq!(all(text), Vec::<&str>::new(), "{text}");
        }
    }
}
