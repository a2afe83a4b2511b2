//! Names with `*`, which stands for any run of characters, the empty one included. There is no escape: a name that
//! holds a real star cannot be written as a pattern.

/// Whether this text is a pattern at all.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// Whether the pattern matches the whole name.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to resume when the last star has to swallow one byte more.
    let mut resume: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                resume = Some((p, n));
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match resume {
                Some((after_star, swallowed)) => {
                    p = after_star;
                    n = swallowed + 1;
                    resume = Some((after_star, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether some name is matched by both patterns.
pub(super) fn overlap(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    // reach[j]: left[..i] and right[..j] can stand for one and the same text.
    let mut reach = vec![false; right.len() + 1];
    reach[0] = true;
    for j in 0..right.len() {
        reach[j + 1] = reach[j] && right[j] == b'*';
    }
    for byte in left {
        let mut next = vec![false; right.len() + 1];
        next[0] = reach[0] && *byte == b'*';
        for j in 0..right.len() {
            next[j + 1] = if *byte == b'*' || right[j] == b'*' {
                reach[j + 1] || next[j]
            } else {
                reach[j] && *byte == right[j]
            };
        }
        reach = next;
    }
    reach[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_whole_names_only() {
        for (pattern, name, expected) in [
            ("tenant_*", "tenant_7", true),
            ("tenant_*", "tenant_", true),
            ("tenant_*", "a_tenant_7", false),
            ("*", "", true),
            ("*_x_*", "a_x_b", true),
            ("*_x_*", "a_xb", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("patients", "patients", true),
            ("patients", "patients2", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn finds_patterns_that_share_a_name() {
        for (left, right, expected) in [
            ("tenant_*", "*_7", true),
            ("tenant_*", "clinic_*", false),
            ("a*", "*b", true),
            ("a*c", "b*c", false),
            ("*", "anything", true),
            ("ab", "a*b", true),
            ("ab", "a*c", false),
            ("", "*", true),
        ] {
            assert_eq!(overlap(left, right), expected, "{left} {right}");
            assert_eq!(overlap(right, left), expected, "{right} {left}");
        }
    }
}
