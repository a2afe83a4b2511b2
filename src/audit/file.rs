//! Where lines go: a file with its head beside it, or standard output. Owns opening (with the check of the file's end),
//! appending and rotation; does not make lines.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Fault};

use super::chain::{self, Anchor, AuditKey, MAX_LINE};
use super::head::{self, Head, HeadError};

/// What the writer thread writes to.
pub(super) trait Device: Send {
    /// Writes some of `bytes` after what is there already and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Makes what was appended last, names `last` as the end, and checks that nobody else touched the file.
    /// Called only when `last` and its line feed are written.
    fn commit(&mut self, last: Anchor) -> io::Result<()>;
    /// Whether the path now stands for another, empty file, ready to be switched to.
    fn rotation(&mut self) -> io::Result<bool>;
    /// Goes on in the file that [`Device::rotation`] found, after `last` became the old file's last line.
    fn switch(&mut self, last: Anchor) -> io::Result<()>;
}

/// Why the audit log cannot be written to.
#[derive(Debug)]
pub enum OpenError {
    /// The system said no.
    Io(PathBuf, io::Error),
    /// Not a regular file.
    NotAFile(PathBuf),
    /// Another process writes to it.
    InUse(PathBuf),
    /// The log has lines but no head says which is the last.
    HeadMissing(PathBuf),
    /// The head was not written by us.
    HeadEdited(PathBuf),
    /// The head was written under another audit key.
    OtherKey(PathBuf),
    /// The log is shorter than its head says.
    Truncated {
        /// The log.
        path: PathBuf,
        /// The line that the head names as the last.
        seq: u64,
    },
    /// The end of the log is not what its head says, or what follows was not written by us.
    Edited(PathBuf),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WAY_OUT: &str = "run `fieldveil audit verify` to see what changed; to start a new chain, move the log and its \
                               .head away together and keep both as evidence";
        match self {
            Self::Io(path, error) => write!(f, "audit log {}: {error}", path.display()),
            Self::NotAFile(path) => {
                write!(
                    f,
                    "audit log {} is not a regular file; use \"-\" for standard output",
                    path.display()
                )
            }
            Self::InUse(path) => write!(
                f,
                "audit log {} is written to by another process; give each proxy a log of its own",
                path.display()
            ),
            Self::HeadMissing(path) => write!(
                f,
                "audit log {} has lines but its .head is gone, so lines may be missing at its end; {WAY_OUT}",
                path.display()
            ),
            Self::HeadEdited(path) => write!(
                f,
                "the .head of audit log {} was changed; {WAY_OUT}",
                path.display()
            ),
            Self::OtherKey(path) => write!(
                f,
                "audit log {} was written under another audit key (was the master key replaced?); to start a new chain, \
                 move the log and its .head away together",
                path.display()
            ),
            Self::Truncated { path, seq } => write!(
                f,
                "audit log {} ends before line {seq}, which its .head names as the last; if it was rotated while the \
                 proxy was down, put it back (rotate while it runs, then send SIGHUP); otherwise {WAY_OUT}",
                path.display()
            ),
            Self::Edited(path) => {
                write!(
                    f,
                    "the end of audit log {} is not what was written; {WAY_OUT}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::new(Fault::Operator, error.to_string())
    }
}

/// A log file that is ready for the next line.
pub(super) struct Opened {
    pub(super) log: LogFile,
    pub(super) last: Anchor,
    /// The file has no line yet.
    pub(super) empty: bool,
    /// Bytes of a line cut short by a crash, dropped.
    pub(super) torn_bytes: u64,
}

/// The log file, locked against other writers, and its head.
pub(super) struct LogFile {
    path: PathBuf,
    key: AuditKey,
    file: File,
    next: Option<File>,
    before: Anchor,
    length: u64,
    durable: bool,
}

impl LogFile {
    /// Opens or creates the log, checks its end against the head, and drops a torn last line.
    pub(super) fn open(path: &Path, key: &AuditKey, durable: bool) -> Result<Opened, OpenError> {
        let io = |error| OpenError::Io(path.to_owned(), error);
        // A missing log whose head names lines must not be replaced by an empty one: that would touch the evidence.
        if let Some(head) = read_head(path, key)?
            && head.length > 0
            && !path.try_exists().map_err(io)?
        {
            return Err(OpenError::Truncated {
                path: path.to_owned(),
                seq: head.last.seq,
            });
        }
        let file = open_append(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(OpenError::NotAFile(path.to_owned()));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let length = file.metadata().map_err(io)?.len();
        let head = match read_head(path, key)? {
            Some(head) => head,
            None if length == 0 => {
                // Before the first line, so that from here on a log without a head means that someone removed it.
                let head = Head {
                    before: Anchor::GENESIS,
                    last: Anchor::GENESIS,
                    length: 0,
                };
                head::write(path, key, &head, durable).map_err(io)?;
                head
            }
            None => return Err(OpenError::HeadMissing(path.to_owned())),
        };
        if length < head.length {
            return Err(OpenError::Truncated {
                path: path.to_owned(),
                seq: head.last.seq,
            });
        }
        if !ends_as_the_head_says(&file, key, &head).map_err(io)? {
            return Err(OpenError::Edited(path.to_owned()));
        }
        let Some(tail) = read_tail(&file, key, &head).map_err(io)? else {
            return Err(OpenError::Edited(path.to_owned()));
        };
        if tail.torn_bytes > 0 {
            file.set_len(tail.length).map_err(io)?;
        }
        Ok(Opened {
            last: tail.last,
            empty: tail.length == 0,
            torn_bytes: tail.torn_bytes,
            log: Self {
                path: path.to_owned(),
                key: key.clone(),
                file,
                next: None,
                before: head.before,
                length: tail.length,
                durable,
            },
        })
    }
}

impl Device for LogFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.length = self.length.saturating_add(written as u64);
        Ok(written)
    }

    fn commit(&mut self, last: Anchor) -> io::Result<()> {
        let meta = self.file.metadata()?;
        if meta.nlink() == 0 {
            return Err(io::Error::other(
                "the file was removed while in use; send SIGHUP to begin another",
            ));
        }
        if meta.len() != self.length {
            return Err(io::Error::other(
                "the file was truncated or written to by something else; rotate it by renaming, then send SIGHUP",
            ));
        }
        // The log before its head: a head must never name a line that a power cut could still take away.
        if self.durable {
            self.file.sync_data()?;
        }
        let head = Head {
            before: self.before,
            last,
            length: self.length,
        };
        head::write(&self.path, &self.key, &head, self.durable)
    }

    fn rotation(&mut self) -> io::Result<bool> {
        // A file found by an attempt that failed later is still locked by us.
        self.next = None;
        let here = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (here.dev(), here.ino()) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let next = open_append(&self.path)?;
        next.try_lock().map_err(io::Error::from)?;
        let meta = next.metadata()?;
        if !meta.is_file() || meta.len() > 0 {
            return Err(io::Error::other(
                "the file that took the log's place is not empty; move it away and send SIGHUP again",
            ));
        }
        self.next = Some(next);
        Ok(true)
    }

    fn switch(&mut self, last: Anchor) -> io::Result<()> {
        if self.durable {
            self.file.sync_data()?;
        }
        let Some(next) = self.next.take() else {
            return Err(io::Error::other("no file to switch to"));
        };
        let head = Head {
            before: last,
            last,
            length: 0,
        };
        if let Err(error) = head::write(&self.path, &self.key, &head, self.durable) {
            self.next = Some(next);
            return Err(error);
        }
        self.file = next;
        self.before = last;
        self.length = 0;
        Ok(())
    }
}

/// Standard output: whoever collects it keeps it, so there is no head and no rotation, and each run is a chain.
pub(super) struct Stdout;

impl Device for Stdout {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes)
    }

    fn commit(&mut self, _last: Anchor) -> io::Result<()> {
        io::stdout().flush()
    }

    fn rotation(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn switch(&mut self, _last: Anchor) -> io::Result<()> {
        Ok(())
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn read_head(path: &Path, key: &AuditKey) -> Result<Option<Head>, OpenError> {
    head::read(path, key).map_err(|error| match error {
        HeadError::Io(error) => OpenError::Io(head::path_of(path), error),
        HeadError::OtherKey => OpenError::OtherKey(path.to_owned()),
        HeadError::Edited => OpenError::HeadEdited(path.to_owned()),
    })
}

fn ends_as_the_head_says(file: &File, key: &AuditKey, head: &Head) -> io::Result<bool> {
    if head.length == 0 {
        return Ok(head.last == head.before);
    }
    let window = head.length.min(MAX_LINE as u64);
    let mut bytes = vec![0; usize::try_from(window).unwrap_or(MAX_LINE)];
    file.read_exact_at(&mut bytes, head.length - window)?;
    let Some(text) = bytes.strip_suffix(b"\n") else {
        return Ok(false);
    };
    let start = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
    Ok(chain::open(key, &text[start..]).is_some_and(|line| line.at == head.last))
}

struct Tail {
    last: Anchor,
    length: u64,
    torn_bytes: u64,
}

/// Lines that were written after the head was, up to the last whole one; `None` where one is not ours.
fn read_tail(mut file: &File, key: &AuditKey, head: &Head) -> io::Result<Option<Tail>> {
    file.seek(SeekFrom::Start(head.length))?;
    let mut reader = BufReader::new(file);
    let mut tail = Tail {
        last: head.last,
        length: head.length,
        torn_bytes: 0,
    };
    let mut text = Vec::new();
    loop {
        text.clear();
        reader
            .by_ref()
            .take(MAX_LINE as u64)
            .read_until(b'\n', &mut text)?;
        let Some(line) = text.strip_suffix(b"\n") else {
            // A crash tears one line at most; more than that was not a crash.
            tail.torn_bytes = text.len() as u64;
            return Ok((text.len() < MAX_LINE).then_some(tail));
        };
        match chain::open(key, line) {
            Some(line) if line.at.seq == tail.last.seq.saturating_add(1) && line.prev == tail.last.hash => {
                tail.last = line.at;
            }
            _ => return Ok(None),
        }
        tail.length = tail.length.saturating_add(text.len() as u64);
    }
}
