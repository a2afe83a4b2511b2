//! One table of the file, read key by key. A key of the wrong type, and every key that nobody asked for, becomes a
//! mistake with its line; reading goes on, so that all are told at once.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Mistakes, nearest};

/// A value and the line it stands in, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// Offsets of the text turned into lines.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

type Entry<'a, 'i> = (&'a str, usize, &'a Spanned<DeValue<'i>>);

/// A table whose keys are taken one by one.
pub(super) struct Table<'a, 'i> {
    /// As it is called in messages: `[upstream]`.
    pub(super) name: String,
    pub(super) line: usize,
    lines: &'a Lines,
    entries: Vec<Entry<'a, 'i>>,
    known: Vec<&'static str>,
}

impl<'a, 'i> Table<'a, 'i> {
    pub(super) fn new(
        name: impl Into<String>,
        line: usize,
        table: &'a DeTable<'i>,
        lines: &'a Lines,
    ) -> Self {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| (&**key.get_ref(), key.span().start, value))
            .collect();
        // The parser sorts by name; rules and messages keep the order of the file.
        entries.sort_by_key(|(_, offset, _)| *offset);
        for entry in &mut entries {
            entry.1 = lines.line(entry.1);
        }
        Self {
            name: name.into(),
            line,
            lines,
            entries,
            known: Vec::new(),
        }
    }

    pub(super) fn text(&mut self, key: &'static str, out: &mut Mistakes) -> Option<At<String>> {
        self.typed(key, "a string", "\"…\"", out, |value| {
            value.as_str().map(str::to_owned)
        })
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, key: &'static str, out: &mut Mistakes) -> Option<At<Vec<String>>> {
        self.typed(key, "a list of strings", "[\"…\"]", out, |value| {
            let items = value.as_array()?.iter();
            items
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect()
        })
    }

    pub(super) fn flag(&mut self, key: &'static str, out: &mut Mistakes) -> Option<At<bool>> {
        self.typed(key, "true or false", "true", out, DeValue::as_bool)
    }

    pub(super) fn number(&mut self, key: &'static str, out: &mut Mistakes) -> Option<At<i64>> {
        self.typed(key, "a whole number", "10", out, |value| {
            let integer = value.as_integer()?;
            i64::from_str_radix(integer.as_str(), integer.radix()).ok()
        })
    }

    /// A sub-table, to be read in turn.
    pub(super) fn table(&mut self, key: &'static str, out: &mut Mistakes) -> Option<Self> {
        let name = if self.name.is_empty() {
            format!("[{key}]")
        } else {
            format!("{}.{key}", self.name.trim_matches(['[', ']']))
        };
        let (line, value) = self.take(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(name, line, table, self.lines)),
            _ => {
                out.add(
                    line,
                    format!("`{key}` is not a table"),
                    format!("write it as {name}"),
                );
                None
            }
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str, out: &mut Mistakes) -> Vec<Self> {
        let Some((line, value)) = self.take(key) else {
            return Vec::new();
        };
        let hint = || format!("begin each one with [[{key}]], in double brackets");
        let DeValue::Array(array) = value.get_ref() else {
            out.add(line, format!("`{key}` may occur more than once"), hint());
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array.iter() {
            let line = self.lines.line(item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => {
                    tables.push(Table::new(format!("[[{key}]]"), line, table, self.lines));
                }
                _ => out.add(
                    line,
                    format!("`{key}` holds something that is not a table"),
                    hint(),
                ),
            }
        }
        tables
    }

    /// Every entry that is left, with its line: for tables whose keys are the user's own words.
    pub(super) fn drain(&mut self) -> Vec<(String, usize, &'a Spanned<DeValue<'i>>)> {
        std::mem::take(&mut self.entries)
            .into_iter()
            .map(|(key, line, value)| (key.to_owned(), line, value))
            .collect()
    }

    /// A table among the drained entries.
    pub(super) fn inner(&self, name: String, line: usize, table: &'a DeTable<'i>) -> Self {
        Table::new(name, line, table, self.lines)
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(self, out: &mut Mistakes) {
        for (key, line, _) in &self.entries {
            let hint = match nearest(key, &self.known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let place = if self.name.is_empty() {
                String::new()
            } else {
                format!(" in {}", self.name)
            };
            let key: String = key.chars().take(40).collect();
            out.add(*line, format!("unknown key `{key}`{place}"), hint);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(usize, &'a Spanned<DeValue<'i>>)> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, ..)| *name == key)?;
        let (_, line, value) = self.entries.remove(at);
        Some((line, value))
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        example: &str,
        out: &mut Mistakes,
        read: impl Fn(&DeValue<'i>) -> Option<T>,
    ) -> Option<At<T>> {
        let (line, value) = self.take(key)?;
        match read(value.get_ref()) {
            Some(value) => Some(At { value, line }),
            None => {
                // What was written instead may be a secret in the wrong place: only its type is told.
                let found = value.get_ref().type_str();
                out.add(
                    line,
                    format!("`{key}` must be {wanted}, not this {found}"),
                    format!("write {key} = {example}"),
                );
                None
            }
        }
    }
}
