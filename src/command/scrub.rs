//! Error texts of the server that print sealed values: the hex of an envelope says nothing to a person and does not
//! belong in an application's log. Source: SEMANTICS B6.

/// What stands in place of a sealed value.
pub const MARK: &str = "<protected>";

/// The text with every printed envelope replaced by [`MARK`]; `None` where there is none.
pub fn scrub(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some((before, after)) = split_at_envelope(rest) {
        found = true;
        out.push_str(before);
        out.push_str(MARK);
        // A long message is cut by the server, perhaps inside the hex.
        rest = after.find(')').map_or("", |end| &after[end + 1..]);
    }
    found.then(|| {
        out.push_str(rest);
        out
    })
}

fn split_at_envelope(text: &str) -> Option<(&str, &str)> {
    const PRINTED: [&str; 2] = ["BinData(128,", "BinData(6,"];
    let at = PRINTED.iter().filter_map(|form| text.find(form)).min()?;
    Some((&text[..at], &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_printed_envelopes_and_keeps_the_rest() {
        let text = "E11000 duplicate key error collection: c.p index: nhs_1 dup key: { nhs: BinData(128, 0101AB), v: 3 }";
        let scrubbed = scrub(text).unwrap();
        assert_eq!(
            scrubbed,
            "E11000 duplicate key error collection: c.p index: nhs_1 dup key: { nhs: <protected>, v: 3 }"
        );
        assert_eq!(scrub("dup key: { v: 3, b: BinData(0, 00) }"), None);
        assert_eq!(
            scrub("dup key: { a: BinData(6, 0122..."),
            Some("dup key: { a: <protected>".to_owned())
        );
    }
}
