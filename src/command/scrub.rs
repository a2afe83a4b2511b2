//! Error texts of the server that print values: the hex of an envelope says nothing to a person, and neither ciphertext
//! nor a plaintext that is still stored belongs in an application's log. Knows texts and names, not replies.
//! Source: SEMANTICS B6, and the texts of mongod 6.0.5.

use std::sync::Arc;

use crate::policy::{CollectionPolicy, FieldRule, FieldState};

/// What stands in place of a protected value.
pub const MARK: &str = "<protected>";

/// Most places of one text that are masked one by one; a text with more is replaced as a whole.
const MAX_MASKED: usize = 16;

/// The rules of whatever namespaces a command was about.
#[derive(Clone, Copy, Default)]
pub struct Rules<'m> {
    /// The protected namespace, or the first of them.
    pub policy: Option<&'m CollectionPolicy>,
    /// The others.
    pub others: &'m [Arc<CollectionPolicy>],
    /// There may be others that are not known any more.
    pub unknown: bool,
}

impl Rules<'_> {
    /// Whether anything protected may be in play.
    pub fn any(&self) -> bool {
        self.policy.is_some() || self.unknown
    }

    /// Each namespace's policy.
    pub fn policies(&self) -> impl Iterator<Item = &CollectionPolicy> {
        self.policy
            .into_iter()
            .chain(self.others.iter().map(|policy| &**policy))
    }

    fn rules(&self) -> impl Iterator<Item = &Arc<FieldRule>> {
        self.policies().flat_map(|policy| &policy.rules)
    }

    /// Whether plaintext may be stored in, or searched for in, a protected field.
    pub fn is_migrating(&self) -> bool {
        self.unknown || self.rules().any(|rule| rule.state == FieldState::Migrating)
    }
}

/// The text without anything protected in it; `None` where it can stay as it is. Printed envelopes are replaced
/// wherever they stand. On a protected collection so is what the server prints for a protected name, sealed or not; while
/// a field is migrating, filters and quoted strings as well, since both may hold plaintext.
pub fn scrub(text: &str, rules: &Rules<'_>) -> Option<String> {
    let mut clean = text.to_owned();
    envelopes(&mut clean);
    if rules.is_migrating() {
        filters(&mut clean);
        quotes(&mut clean);
    }
    for rule in rules.rules() {
        name(&mut clean, rule);
    }
    (clean != text).then_some(clean)
}

/// `BinData(128, 0101…)` and `BinData(128, "0101…")`.
fn envelopes(text: &mut String) {
    const PRINTED: [&str; 2] = ["BinData(128,", "BinData(6,"];
    let mut out = String::new();
    let mut rest = &**text;
    while let Some(at) = PRINTED.iter().filter_map(|form| rest.find(form)).min() {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        out.push_str(MARK);
        // A long message is cut by the server, perhaps inside the hex.
        rest = after.find(')').map_or("", |end| &after[end + 1..]);
    }
    if !out.is_empty() {
        out.push_str(rest);
        *text = out;
    }
}

/// `error processing query: ns=c.pTree: nhs $eq "…" Sort: {} Proj: {} planner returned error :: …`.
fn filters(text: &mut String) {
    if let Some(from) = text.find("Tree: ") {
        let to = text
            .rfind(" planner returned error")
            .filter(|to| *to > from)
            .unwrap_or(text.len());
        text.replace_range(from..to, &format!("Tree: {MARK}"));
    }
}

/// From the first quote to the last: the server does not escape quotes inside a value.
fn quotes(text: &mut String) {
    if let (Some(from), Some(to)) = (text.find('"'), text.rfind('"')) {
        text.replace_range(from..=to, MARK);
    }
}

/// `{ …, name: value, … }` with a protected name: masked from the brace before it to the last brace of the text, which
/// is never before the one that closes it, whatever braces the values hold.
fn name(text: &mut String, rule: &FieldRule) {
    let leaf = rule.path.rsplit('.').next().unwrap_or(&rule.path);
    for round in 0.. {
        let Some(at) = exposed(text, leaf) else { break };
        if round == MAX_MASKED {
            MARK.clone_into(text);
            break;
        }
        match (text[..at].rfind('{'), text.rfind('}').filter(|end| *end > at)) {
            (Some(from), Some(to)) => text.replace_range(from..=to, &format!("{{ {MARK} }}")),
            (Some(from), None) => text.replace_range(from.., MARK),
            (None, _) => text.replace_range(at.., MARK),
        }
    }
}

/// Where the text shows a value beside this name.
fn exposed(text: &str, leaf: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find(leaf).map(|at| from + at) {
        let end = at + leaf.len();
        from = end;
        let begins = text[..at]
            .chars()
            .next_back()
            .is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
        let value = text[end..].strip_prefix(": ");
        if begins && value.is_some_and(|value| !value.starts_with(MARK) && !value.starts_with("null")) {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::rehearsal::{det, policy};
    use crate::policy::DeclaredType;

    fn rules(state: FieldState) -> Arc<CollectionPolicy> {
        let mut nhs = det("nhs", DeclaredType::String);
        nhs.state = state;
        policy("c.p", vec![nhs, det("contacts.phone", DeclaredType::String)])
    }

    fn of(policy: &CollectionPolicy) -> Rules<'_> {
        Rules {
            policy: Some(policy),
            ..Rules::default()
        }
    }

    #[test]
    fn replaces_printed_envelopes_and_keeps_the_rest() {
        let text = "E11000 duplicate key error collection: c.p index: nhs_1 dup key: { nhs: BinData(128, 0101AB), v: 3 }";
        let cleaned =
            "E11000 duplicate key error collection: c.p index: nhs_1 dup key: { nhs: <protected>, v: 3 }";
        let enforced = rules(FieldState::Enforced);
        for known in [Rules::default(), of(&enforced)] {
            assert_eq!(scrub(text, &known).unwrap(), cleaned);
        }
        assert_eq!(
            scrub("dup key: { v: 3, b: BinData(0, 00) }", &Rules::default()),
            None
        );
        assert_eq!(
            scrub("dup key: { a: BinData(6, 0122...", &Rules::default()),
            Some("dup key: { a: <protected>".to_owned())
        );
        assert_eq!(
            scrub(
                "resulting value was: BinData(128, \"0101\"). Type",
                &Rules::default()
            ),
            Some("resulting value was: <protected>. Type".to_owned())
        );
    }

    #[test]
    fn masks_what_is_printed_beside_a_protected_name() {
        let enforced = rules(FieldState::Enforced);
        for (text, clean) in [
            (
                r#"Cannot create field 'x' in element {nhs: "SECRET}"}"#,
                "Cannot create field 'x' in element { <protected> }",
            ),
            (
                r#"Can't extract geo keys: { _id: 1, contacts: [ { phone: "SE}CRET" } ], loc: "bad" }  geo element must be an array"#,
                "Can't extract geo keys: { _id: 1, contacts: [ { <protected> }  geo element must be an array",
            ),
            (
                r#"dup key: { contacts.phone: "SECRET" }"#,
                "dup key: { <protected> }",
            ),
            (
                r#"an array or object: nhs: "SECRET""#,
                "an array or object: <protected>",
            ),
            (r#"in document { nhs: "SECR"#, "in document <protected>"),
        ] {
            assert_eq!(scrub(text, &of(&enforced)).as_deref(), Some(clean), "{text}");
        }
        for kept in [
            "Cannot apply $inc to a value of non-numeric type. {_id: 1} has the field 'nhs' of non-numeric type binData",
            "dup key: { ward: \"A1\", nhs: null }",
            "index options conflict: { v: 2, key: { ward: 1 }, name: \"ward_1\" }",
            "{ mynhs: 3 }",
        ] {
            assert_eq!(scrub(kept, &of(&enforced)), None, "{kept}");
        }
    }

    #[test]
    fn masks_filters_and_strings_while_a_field_is_migrating() {
        let migrating = rules(FieldState::Migrating);
        assert_eq!(
            scrub(
                "error processing query: ns=c.pTree: nhs $in [ \"SECRET\" BinData(128, 01) ]\nSort: {}\nProj: {}\n planner returned error :: caused by :: bad hint",
                &of(&migrating)
            )
            .as_deref(),
            Some("error processing query: ns=c.pTree: <protected> planner returned error :: caused by :: bad hint")
        );
        assert_eq!(
            scrub("Failed at \"SECRET\" or \"other\" here", &of(&migrating)).as_deref(),
            Some("Failed at <protected> here")
        );
    }
}
