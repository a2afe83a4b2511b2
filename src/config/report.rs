//! Everything that is wrong with a configuration, each with its line and what to do about it.

use std::fmt;

/// One thing that is wrong, or (among the warnings) unwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; `None` where something is missing altogether.
    pub line: Option<usize>,
    /// What is wrong, and why. Holds names of settings and fields, never a secret.
    pub text: String,
    /// What to write instead.
    pub hint: String,
}

/// Every mistake of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file, as it was named.
    pub file: String,
    /// The mistakes, by line.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            mistake.write(&self.file, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Without the file's name: `line 7: what is wrong; what to do`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}; {}", self.text, self.hint)
    }
}

impl Mistake {
    fn write(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{file}:{line}: {}", self.text)?,
            None => write!(f, "{file}: {}", self.text)?,
        }
        write!(f, "\n    {}", self.hint)
    }
}

/// Collects mistakes while a file is read, so that all are told at once.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn add(
        &mut self,
        line: impl Into<Option<usize>>,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Mistake {
            line: line.into(),
            text: text.into(),
            hint: hint.into(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes by line; what is missing altogether comes last.
    pub(super) fn into_vec(mut self) -> Vec<Mistake> {
        self.0
            .sort_by_key(|mistake| (mistake.line.is_none(), mistake.line));
        self.0
    }
}

/// The known word that was probably meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: String = word.chars().take(64).flat_map(char::to_lowercase).collect();
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and substitutions from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_near_words_only() {
        let known = ["certificate", "private_key", "client_ca"];
        assert_eq!(nearest("certficate", &known), Some("certificate"));
        assert_eq!(nearest("Private_Key", &known), Some("private_key"));
        assert_eq!(nearest("port", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
