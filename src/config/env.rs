//! Environment variables, handed in: this room never reads the process's own.

use std::collections::HashMap;

/// Where `${NAME}` and `…_env = "NAME"` look.
pub trait Env {
    /// The value of a variable; `None` where it is not set or not valid Unicode.
    fn get(&self, name: &str) -> Option<String>;
}

/// A fixed set of variables.
impl Env for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        Self::get(self, name).cloned()
    }
}

/// No variable at all.
pub struct Empty;

impl Env for Empty {
    fn get(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Replaces each `${NAME}` in `text`; the error names what is missing, never a value.
pub(super) fn interpolate(text: &str, env: &dyn Env) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let Some(end) = after.find('}') else {
            return Err("`${` has no closing `}`".to_owned());
        };
        let name = &after[..end];
        if !is_name(name) {
            return Err("what stands between `${` and `}` is not the name of a variable".to_owned());
        }
        match env.get(name) {
            Some(value) => out.push_str(&value),
            None => return Err(format!("the environment variable `{name}` is not set")),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether this can be the name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_variables_and_names_the_missing_ones() {
        let env = HashMap::from([("PW".to_owned(), "s3cret${X}".to_owned())]);
        assert_eq!(interpolate("a:${PW}@b", &env).unwrap(), "a:s3cret${X}@b");
        assert_eq!(interpolate("no $variable", &env).unwrap(), "no $variable");
        assert_eq!(
            interpolate("${NONE}", &env).unwrap_err(),
            "the environment variable `NONE` is not set"
        );
        assert!(interpolate("${PW", &env).is_err());
        assert!(interpolate("${a b}", &env).is_err());
    }
}
