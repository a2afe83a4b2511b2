//! Warns where deterministic encryption alone gives values away (SEMANTICS B5.4).

use super::rules::Desk;
use crate::policy::model::DeclaredType;

/// Last components of paths whose values are usually few or badly skewed (SEMANTICS B5.4 rule 2), without separators.
const FEW_VALUES: &[&str] = &[
    "active",
    "age",
    "ageband",
    "bloodgroup",
    "bloodtype",
    "consent",
    "country",
    "county",
    "dateofbirth",
    "deceased",
    "disability",
    "dob",
    "birthdate",
    "ethnicgroup",
    "ethnicity",
    "flag",
    "gender",
    "gppractice",
    "language",
    "maritalstatus",
    "nationality",
    "outcode",
    "postalcode",
    "postcode",
    "postcodedistrict",
    "practicecode",
    "pregnant",
    "priority",
    "race",
    "religion",
    "severity",
    "sex",
    "sexualorientation",
    "smoker",
    "smokingstatus",
    "status",
    "title",
    "ward",
    "yearofbirth",
    "zip",
    "zipcode",
];

/// Warns where equality alone gives the values away; a stated reason silences it.
pub(super) fn leakage(
    desk: &mut Desk<'_>,
    at: (usize, &str),
    declared: DeclaredType,
    accepted: Option<&str>,
) {
    let last = at.1.rsplit('.').next().unwrap_or(at.1);
    let plain: String = last
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let few = FEW_VALUES.contains(&plain.as_str());
    let risky = few || declared == DeclaredType::Date;
    match accepted.map(str::trim) {
        Some("") => desk.mistake(
            Some(at),
            Some("accept_leakage"),
            "`accept_leakage` is empty",
            "write the reason why it is acceptable that equal values can be seen to be equal",
        ),
        Some(_) => {}
        None if risky => {
            let reason = if few {
                format!(
                    "deterministic encryption of `{last}`, which usually takes few values: how often each ciphertext occurs can tell what it is"
                )
            } else {
                "deterministic encryption of a date: there are few possible dates, and how often each ciphertext occurs can tell which it is".to_owned()
            };
            desk.warning(
                at,
                reason,
                "use mode = \"random\" if it need not be searched, or state accept_leakage = \"why this is acceptable\"",
            );
        }
        None => {}
    }
}
