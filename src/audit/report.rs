//! What a verification says. Owns the findings and their wording; finds nothing itself.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// What was done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A line's bytes are not what was written.
    Edited,
    /// Lines are gone from the beginning or the middle.
    Deleted,
    /// A line is not where it was written.
    Reordered,
    /// A line's number was there before.
    Duplicated,
    /// A line was never written by us.
    Inserted,
    /// Lines are gone from the end.
    Truncated,
    /// An authentic line does not follow the one before it: parts of two histories were put together.
    Forked,
    /// There is no head, so lines may be gone from the end.
    HeadMissing,
    /// The head is not what was written.
    HeadEdited,
    /// The log was written under another audit key; nothing can be said about it.
    OtherKey,
    /// The line that was expected is older than these files.
    AnchorNotCovered,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was done.
    pub kind: FindingKind,
    /// The file it was seen in.
    pub file: PathBuf,
    /// The line of that file where it was seen, from 1; for lines that are gone, the line that comes in their place.
    pub line: u64,
    /// The first `seq` concerned, where it is known.
    pub seq: Option<u64>,
    /// The last `seq` concerned, where several are.
    pub through: Option<u64>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FindingKind::Edited => "edited",
            FindingKind::Deleted => "lines deleted before this one",
            FindingKind::Reordered => "moved from its place",
            FindingKind::Duplicated => "repeated",
            FindingKind::Inserted => "not written by fieldveil",
            FindingKind::Truncated => "lines cut off at the end",
            FindingKind::Forked => "does not follow the line before it",
            FindingKind::HeadMissing => "no .head and not rotated: the end cannot be proved",
            FindingKind::HeadEdited => "the .head was changed",
            FindingKind::OtherKey => "written under another audit key",
            FindingKind::AnchorNotCovered => "the expected line is older than these files",
        };
        write!(f, "{}:{}: {what}", self.file.display(), self.line)?;
        match (self.seq, self.through) {
            (Some(from), Some(to)) if to > from => write!(f, " (seq {from} to {to})"),
            (Some(seq), _) => write!(f, " (seq {seq})"),
            _ => Ok(()),
        }
    }
}

/// The outcome of a verification; its serde form is what `audit verify --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether nothing was found.
    pub ok: bool,
    /// The files that were read, oldest first.
    pub files: Vec<PathBuf>,
    /// Lines read, whole ones.
    pub lines: u64,
    /// Number of the first authentic line; more than 1 where older files were rotated away.
    pub first_seq: Option<u64>,
    /// The highest number seen.
    pub last_seq: Option<u64>,
    /// That line's hash: what to keep elsewhere.
    pub last_hash: Option<String>,
    /// The last line by the head.
    pub head_seq: Option<u64>,
    /// Bytes after the last whole line: an unfinished write of a live log or of a crash.
    pub torn_bytes: u64,
    /// How much was found, listed or not.
    pub findings_total: u64,
    /// The first findings, in the order in which they were seen.
    pub findings: Vec<Finding>,
}
