//! Offline verification: reads logs and the head, and says line by line what was changed. Owns what counts
//! as which finding; changes nothing.
//!
//! A line that does not verify is `edited` where a number is missing around it and `inserted` where none is: with both
//! done to one stretch the split is a best guess, that something was done is not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::chain::{self, Anchor, AuditKey, Line, MAX_LINE};
use super::encode::{LOG_OPENED, LOG_ROTATED};
use super::head::{self, Head, HeadError};
use super::report::{Finding, FindingKind, Report};

/// Findings that a report lists; all are counted.
const MAX_FINDINGS: usize = 1000;

/// Verifies one log with the head beside it. `expect` is a line's number and hash that were kept elsewhere: it must be in
/// the log.
pub fn verify(path: &Path, key: &AuditKey, expect: Option<Anchor>) -> io::Result<Report> {
    verify_all(&[path], key, expect)
}

/// Verifies rotated files and the current one as one chain, oldest first.
pub fn verify_all(paths: &[impl AsRef<Path>], key: &AuditKey, expect: Option<Anchor>) -> io::Result<Report> {
    let Some(current) = paths.last() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no audit log named"));
    };
    // The head first: a live log may grow past it meanwhile, never the other way.
    let head = match head::read(current.as_ref(), key) {
        Ok(head) => Ok(head),
        Err(HeadError::Io(error)) => return Err(error),
        Err(HeadError::OtherKey) => Err(FindingKind::OtherKey),
        Err(HeadError::Edited) => Err(FindingKind::HeadEdited),
    };
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.as_ref().to_owned()).collect();
    let mut check = Check::new(key, paths, head, expect);
    if check
        .report
        .findings
        .iter()
        .any(|finding| finding.kind == FindingKind::OtherKey)
    {
        return Ok(check.report);
    }
    for file in 0..check.report.files.len() {
        let path = &check.report.files[file];
        match File::open(path) {
            Ok(opened) => check.read(file, BufReader::new(opened))?,
            // With a head beside it this is a truncation like any other.
            Err(error) if error.kind() == io::ErrorKind::NotFound && check.head.is_some() => {}
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{}: {error}", path.display()),
                ));
            }
        }
    }
    Ok(check.finish())
}

/// Where something was seen: index of the file, line from 1.
type Place = (usize, u64);

struct Check<'k> {
    key: &'k AuditKey,
    head: Option<Head>,
    expect: Option<Anchor>,
    expect_seen: bool,
    report: Report,
    at: Place,
    /// The line with the highest number so far; `None` before the first, where nothing says what comes before it.
    last: Option<Anchor>,
    last_is_rotation: bool,
    /// Lines that do not verify, since the last that does.
    bad: Vec<Place>,
    /// Numbers not seen yet below `last`, and where their absence was noticed.
    missing: Vec<(u64, u64, Place)>,
}

impl<'k> Check<'k> {
    fn new(
        key: &'k AuditKey,
        files: Vec<PathBuf>,
        head: Result<Option<Head>, FindingKind>,
        expect: Option<Anchor>,
    ) -> Self {
        let single = files.len() == 1;
        let mut check = Self {
            key,
            head: head.as_ref().ok().copied().flatten(),
            expect,
            expect_seen: false,
            at: (files.len() - 1, 0),
            report: Report {
                ok: true,
                files,
                lines: 0,
                first_seq: None,
                last_seq: None,
                last_hash: None,
                head_seq: None,
                torn_bytes: 0,
                findings_total: 0,
                findings: Vec::new(),
            },
            last: None,
            last_is_rotation: false,
            bad: Vec::new(),
            missing: Vec::new(),
        };
        if let Err(kind) = head {
            check.find(kind, check.at, None, None);
        }
        if let Some(head) = check.head {
            check.report.head_seq = Some(head.last.seq);
            check.last = single.then_some(head.before);
        }
        check
    }

    fn read(&mut self, file: usize, mut reader: impl BufRead) -> io::Result<()> {
        self.at = (file, 0);
        let mut text = Vec::new();
        loop {
            text.clear();
            let size = reader
                .by_ref()
                .take(MAX_LINE as u64)
                .read_until(b'\n', &mut text)?;
            if size == 0 {
                return Ok(());
            }
            self.at.1 += 1;
            if let Some(text) = text.strip_suffix(b"\n") {
                self.report.lines += 1;
                match chain::open(self.key, text) {
                    Some(line) => self.authentic(&line),
                    None => self.bad.push(self.at),
                }
            } else if size == MAX_LINE {
                self.bad.push(self.at);
                reader.skip_until(b'\n')?;
            } else if file + 1 == self.report.files.len() {
                self.report.torn_bytes = size as u64;
                self.at.1 -= 1;
                return Ok(());
            } else {
                self.bad.push(self.at);
            }
            if self.bad.len() >= MAX_FINDINGS {
                // Hopelessly changed: what matters is bounded memory.
                self.bad_lines(0);
            }
        }
    }

    fn authentic(&mut self, line: &Line<'_>) {
        let seq = line.at.seq;
        self.report.first_seq.get_or_insert(seq);
        self.compare_with_anchors(line.at);
        let last = self.last.unwrap_or_else(|| self.before_the_first(line));
        match seq.checked_sub(last.seq) {
            Some(1..) => {
                let gap = seq - last.seq - 1;
                let edited = self.bad_lines(gap);
                if edited < gap {
                    self.miss(last.seq + 1 + edited, seq - 1);
                }
                if gap == 0 && line.prev != last.hash {
                    self.find(FindingKind::Forked, self.at, Some(seq), None);
                }
                self.last = Some(line.at);
                self.last_is_rotation = line.event == LOG_ROTATED;
            }
            _ => {
                self.bad_lines(0);
                let kind = if self.was_missing(seq) {
                    FindingKind::Reordered
                } else {
                    FindingKind::Duplicated
                };
                self.find(kind, self.at, Some(seq), None);
            }
        }
    }

    /// What must have come before a first line, where no head says so: a file begins with an opening line.
    fn before_the_first(&mut self, line: &Line<'_>) -> Anchor {
        let changed = self.bad.len() as u64;
        if line.event != LOG_OPENED && changed == 0 {
            let through = line.at.seq.saturating_sub(1);
            self.find(FindingKind::Deleted, self.at, None, Some(through));
        }
        let opening = line.event == LOG_OPENED;
        Anchor {
            seq: line.at.seq.saturating_sub(if opening { 1 } else { changed + 1 }),
            hash: line.prev,
        }
    }

    fn compare_with_anchors(&mut self, at: Anchor) {
        if let Some(expect) = self.expect.filter(|expect| expect.seq == at.seq) {
            self.expect_seen = true;
            if expect.hash != at.hash {
                self.find(FindingKind::Forked, self.at, Some(at.seq), None);
            }
        }
        if self
            .head
            .is_some_and(|head| head.last.seq == at.seq && head.last.hash != at.hash)
        {
            self.find(FindingKind::Forked, self.at, Some(at.seq), None);
        }
    }

    /// Explains the lines that do not verify by a gap of that many numbers; says how many of the gap they explain.
    fn bad_lines(&mut self, gap: u64) -> u64 {
        let mut explained = 0;
        let first = self.last.map(|last| last.seq + 1);
        for place in std::mem::take(&mut self.bad) {
            if explained < gap {
                let seq = first.map(|first| first + explained);
                self.find(FindingKind::Edited, place, seq, None);
                explained += 1;
            } else {
                self.find(FindingKind::Inserted, place, None, None);
            }
        }
        explained
    }

    fn miss(&mut self, from: u64, to: u64) {
        if self.missing.len() < MAX_FINDINGS {
            self.missing.push((from, to, self.at));
        } else {
            self.find(FindingKind::Deleted, self.at, Some(from), Some(to));
        }
    }

    fn was_missing(&mut self, seq: u64) -> bool {
        let Some(n) = self
            .missing
            .iter()
            .position(|(from, to, _)| (*from..=*to).contains(&seq))
        else {
            return false;
        };
        let (from, to, place) = self.missing.remove(n);
        if seq > from {
            self.missing.push((from, seq - 1, place));
        }
        if seq < to {
            self.missing.push((seq + 1, to, place));
        }
        true
    }

    fn finish(mut self) -> Report {
        self.at.1 += 1;
        let last = self.last.unwrap_or(Anchor::GENESIS);
        let head_seq = self.head.map_or(last.seq, |head| head.last.seq);
        let mut end = head_seq.max(last.seq);
        if let Some(expect) = self.expect.filter(|_| !self.expect_seen) {
            end = end.max(expect.seq);
            let first = self.report.first_seq.unwrap_or(u64::MAX);
            if expect.seq < first && expect.seq <= last.seq {
                self.find(FindingKind::AnchorNotCovered, self.at, Some(expect.seq), None);
            }
        }
        let explained = self.bad_lines(end - last.seq);
        if last.seq + explained < end {
            self.find(
                FindingKind::Truncated,
                self.at,
                Some(last.seq + explained + 1),
                Some(end),
            );
        }
        for (from, to, place) in std::mem::take(&mut self.missing) {
            self.find(FindingKind::Deleted, place, Some(from), Some(to));
        }
        let proved = self.head.is_some()
            || self.last_is_rotation
            || self
                .expect
                .is_some_and(|expect| self.expect_seen && expect.seq == last.seq)
            || self
                .report
                .findings
                .iter()
                .any(|finding| finding.kind == FindingKind::HeadEdited);
        if !proved {
            self.find(FindingKind::HeadMissing, self.at, None, None);
        }
        if self.last.is_some() && self.report.first_seq.is_some() {
            self.report.last_seq = Some(last.seq);
            self.report.last_hash = Some(last.hash_hex());
        }
        self.report
    }

    fn find(&mut self, kind: FindingKind, (file, line): Place, seq: Option<u64>, through: Option<u64>) {
        self.report.ok = false;
        self.report.findings_total += 1;
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(Finding {
                kind,
                file: self.report.files[file].clone(),
                line: line.max(1),
                seq,
                through,
            });
        }
    }
}

#[cfg(test)]
mod tests;
