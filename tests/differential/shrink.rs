//! Makes a failing sequence small: fewer operations, then smaller ones, as long as it fails in the same way.

use std::time::{Duration, Instant};

use bson::{Bson, Document};

use crate::Outcome;
use crate::compare::{essential, frozen, simpler};
use crate::execute::{Bench, Failure};
use crate::sequence::{Op, Sequence};
use crate::statistics::Statistics;

/// The smallest failing sequence found within `budget`, and how it fails.
pub(crate) fn shrink(
    bench: &mut Bench<'_>,
    sequence: &Sequence,
    failure: Failure,
    budget: Duration,
) -> Outcome<(Sequence, Failure)> {
    let mut search = Search {
        bench,
        best: sequence.clone(),
        failure,
        end: Instant::now() + budget,
    };
    let until = (search.failure.at + 1).min(search.best.ops.len());
    let mut cut = search.best.clone();
    cut.ops.truncate(until);
    search.attempt(cut)?;
    loop {
        let before = search.size();
        search.fewer()?;
        search.smaller()?;
        if search.size() == before || search.over() {
            return Ok((search.best, search.failure));
        }
    }
}

struct Search<'a, 'b> {
    bench: &'a mut Bench<'b>,
    best: Sequence,
    failure: Failure,
    end: Instant,
}

impl Search<'_, '_> {
    fn over(&self) -> bool {
        Instant::now() > self.end
    }

    fn size(&self) -> usize {
        self.best
            .ops
            .iter()
            .map(|op| 10 + op.body.to_string().len())
            .sum()
    }

    fn attempt(&mut self, candidate: Sequence) -> Outcome<bool> {
        if candidate.ops.iter().any(invents_id) {
            return Ok(false);
        }
        let found = self.bench.run(&candidate, &mut Statistics::default())?;
        match found {
            Some(failure) if failure.kind == self.failure.kind => {
                self.best = candidate;
                self.failure = failure;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Takes away runs of operations: halves first, single ones last.
    fn fewer(&mut self) -> Outcome<()> {
        let mut length = self.best.ops.len().div_ceil(2);
        while length > 0 {
            let mut start = 0;
            while start < self.best.ops.len() && !self.over() {
                let mut candidate = self.best.clone();
                let end = (start + length).min(candidate.ops.len());
                candidate.ops.drain(start..end);
                if !self.attempt(candidate)? {
                    start += length;
                }
            }
            length /= 2;
        }
        Ok(())
    }

    /// Takes away elements of each operation, outermost first.
    fn smaller(&mut self) -> Outcome<()> {
        for index in (0..self.best.ops.len()).rev() {
            let mut place = 0;
            while !self.over() {
                let Some(op) = self.best.ops.get(index) else { break };
                let mut counter = place;
                let mut body = op.body.clone();
                let command = op.command().to_owned();
                if !reduce_document(&mut body, &mut counter, Some(&command)) {
                    break;
                }
                let mut candidate = self.best.clone();
                candidate.ops[index].body = body;
                if !self.attempt(candidate)? {
                    place += 1;
                }
            }
        }
        Ok(())
    }
}

/// An upsert without an `_id` gets one from the server, another on each side.
fn invents_id(op: &Op) -> bool {
    let statements = op
        .body
        .get_array("updates")
        .map(Vec::as_slice)
        .unwrap_or_default();
    let all = statements.iter().filter_map(Bson::as_document).chain([&op.body]);
    all.filter(|statement| statement.contains_key("upsert"))
        .any(|statement| !statement.to_string().contains("\"_id\": 1"))
}

/// Carries out the `counter`-th reduction there is; false where there are not so many.
fn reduce_document(document: &mut Document, counter: &mut usize, command: Option<&str>) -> bool {
    let keys: Vec<String> = document.keys().cloned().collect();
    for key in &keys {
        if Some(key.as_str()) == command || essential(key) || (command.is_some() && key == "documents") {
            continue;
        }
        if *counter == 0 {
            document.remove(key);
            return true;
        }
        *counter -= 1;
    }
    for key in keys.iter().filter(|key| !frozen(key)) {
        if let Some(value) = document.get_mut(key)
            && reduce(value, counter)
        {
            return true;
        }
    }
    false
}

fn reduce(value: &mut Bson, counter: &mut usize) -> bool {
    if let Some(simple) = simpler(value) {
        if *counter == 0 {
            *value = simple;
            return true;
        }
        *counter -= 1;
    }
    match value {
        Bson::Document(d) => reduce_document(d, counter, None),
        Bson::Array(items) => {
            for at in 0..items.len() {
                if *counter == 0 {
                    items.remove(at);
                    return true;
                }
                *counter -= 1;
            }
            items.iter_mut().any(|item| reduce(item, counter))
        }
        _ => false,
    }
}
