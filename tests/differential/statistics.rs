//! What was done and what was refused.

use std::collections::BTreeMap;
use std::fmt;

use crate::compare::{Answer, succeeded};

#[derive(Default)]
pub(crate) struct Statistics {
    pub(crate) operations: usize,
    pub(crate) refused: usize,
    pub(crate) sequences: usize,
    commands: BTreeMap<String, Row>,
    tags: BTreeMap<String, Row>,
    reasons: BTreeMap<String, usize>,
}

#[derive(Default)]
struct Row {
    total: usize,
    refused: usize,
    errors: usize,
}

impl Statistics {
    pub(crate) fn count(&mut self, command: &str, tags: &[String], refused: bool) {
        self.operations += 1;
        self.refused += usize::from(refused);
        let mut seen: Vec<&str> = Vec::new();
        let rows = std::iter::once((&mut self.commands, command));
        for (table, name) in rows {
            let row = table.entry(name.to_owned()).or_default();
            row.total += 1;
            row.refused += usize::from(refused);
        }
        for tag in tags {
            if !seen.contains(&tag.as_str()) {
                seen.push(tag);
                let row = self.tags.entry(tag.clone()).or_default();
                row.total += 1;
                row.refused += usize::from(refused);
            }
        }
    }

    /// A refusal's text without the names of fields, which vary.
    pub(crate) fn refuse(&mut self, text: &str) {
        let shape: Vec<&str> = text.split('\'').step_by(2).collect();
        let shape: String = shape.join("'…'").chars().take(150).collect();
        *self.reasons.entry(shape).or_default() += 1;
    }

    /// Both sides answered; `oracle` says whether with an error.
    pub(crate) fn agree(&mut self, command: &str, oracle: &Answer) {
        if !succeeded(&oracle.reply) || oracle.reply.contains_key("writeErrors") {
            self.commands.entry(command.to_owned()).or_default().errors += 1;
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.refused += other.refused;
        self.sequences += other.sequences;
        for (mine, theirs) in [(&mut self.commands, other.commands), (&mut self.tags, other.tags)] {
            for (name, row) in theirs {
                let sum = mine.entry(name).or_default();
                sum.total += row.total;
                sum.refused += row.refused;
                sum.errors += row.errors;
            }
        }
        for (text, count) in other.reasons {
            *self.reasons.entry(text).or_default() += count;
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |row: &Row| row.refused * 100 / row.total.max(1);
        writeln!(
            f,
            "{:34} {:>8} {:>9} {:>12}",
            "command", "sent", "refused", "both errors"
        )?;
        for (name, row) in &self.commands {
            writeln!(
                f,
                "{name:34} {:>8} {:>7} % {:>12}",
                row.total,
                share(row),
                row.errors
            )?;
        }
        writeln!(f, "{:34} {:>8} {:>9}", "operations with", "sent", "refused")?;
        for (name, row) in &self.tags {
            writeln!(f, "{name:34} {:>8} {:>7} %", row.total, share(row))?;
        }
        writeln!(f, "reasons given")?;
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (text, count) in reasons.iter().take(40) {
            writeln!(f, "{count:>8}  {text}")?;
        }
        Ok(())
    }
}
