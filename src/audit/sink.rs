//! The sink: a handle for many threads, and the queue to one writer thread. Owns what callers see when the disk is slow,
//! full or gone; does not write (see `writer`), nor know files (see `file`) or the form of a line (see `chain`).
//!
//! Nothing is lost in silence. Lines that could not be written are kept and retried; while they wait the queue fills, and
//! then [`AuditSink::record`] says so to its caller, who decides about the command. What it turned away is counted, and
//! the count becomes a line of the log as soon as one can be written again.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use crate::event::{Event, Lifecycle};

use super::chain::{Anchor, AuditKey};
use super::file::{Device, LogFile, OpenError, Stdout};
use super::writer::{Control, Message, Shared, Writer};

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, with its head at `<path>.head`.
    File(PathBuf),
    /// Standard output: a chain per run, without a head.
    Stdout,
}

impl Target {
    /// `-` is standard output, anything else a path.
    pub fn parse(path: &str) -> Self {
        match path {
            "-" => Self::Stdout,
            path => Self::File(path.into()),
        }
    }
}

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// It does: what the head names survives a power cut.
    #[default]
    Batch,
    /// It does not: what the head names survives the end of the process, but after a power cut log and head may
    /// disagree, and the log is then refused at start.
    Off,
}

/// How the sink works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log goes.
    pub target: Target,
    /// Whether a commit waits for the disk.
    pub fsync: Fsync,
    /// Least time between two commits (sync and head); writes to the file do not wait for it.
    pub commit_every: Duration,
    /// Events that may wait for the writer thread.
    pub queue: usize,
    /// Time between attempts while the log cannot be written.
    pub retry_every: Duration,
    /// Time between log lines that name the head, for keeping it elsewhere.
    pub announce_every: Duration,
}

impl Settings {
    /// The defaults: sync, commit every second, 8192 events, retry every 250 ms, announce every 5 minutes.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            fsync: Fsync::Batch,
            commit_every: Duration::from_secs(1),
            queue: 8192,
            retry_every: Duration::from_millis(250),
            announce_every: Duration::from_secs(300),
        }
    }
}

/// Why an event was turned away. It was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The queue is full: the disk is slower than the traffic, or cannot be written.
    Backpressure,
    /// The sink was closed.
    Closed,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backpressure => "the audit queue is full",
            Self::Closed => "the audit log is closed",
        })
    }
}

impl std::error::Error for RecordError {}

/// Why the log could not be brought to a clean state.
#[derive(Debug)]
pub enum CloseError {
    /// The log could not be written in time; this many bytes of lines and all that was queued are not in it.
    Unwritten(io::Error, usize),
    /// The writer did not answer in time, or has ended.
    NoAnswer,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwritten(error, bytes) => write!(f, "audit log not written ({error}), {bytes} bytes wait"),
            Self::NoAnswer => f.write_str("the audit writer did not answer in time"),
        }
    }
}

impl std::error::Error for CloseError {}

/// What the sink has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether the last attempt to write succeeded.
    pub healthy: bool,
    /// The last line that is committed.
    pub head: Anchor,
    /// Events taken since start.
    pub events: u64,
    /// Events turned away since start.
    pub turned_away: u64,
}

/// A handle to the audit log; clones share one writer.
#[derive(Clone)]
pub struct AuditSink {
    events: SyncSender<Message>,
    control: mpsc::Sender<Control>,
    shared: Arc<Shared>,
}

impl AuditSink {
    /// Opens the log, checks its end, and starts the writer thread. A torn last line is dropped and said so in the log.
    pub fn open(settings: Settings, key: AuditKey) -> Result<Self, OpenError> {
        let path = match &settings.target {
            Target::Stdout => {
                let start = [Lifecycle::LogOpened { continues: false }];
                return Self::start(Stdout, key, Anchor::GENESIS, &start, settings)
                    .map_err(|error| OpenError::Io("-".into(), error));
            }
            Target::File(path) => path.clone(),
        };
        let opened = LogFile::open(&path, &key, settings.fsync == Fsync::Batch)?;
        let mut start = Vec::new();
        if opened.empty {
            start.push(Lifecycle::LogOpened {
                continues: opened.last.seq > 0,
            });
        }
        if opened.torn_bytes > 0 {
            start.push(Lifecycle::LogRecovered {
                torn_bytes: opened.torn_bytes,
            });
        }
        Self::start(opened.log, key, opened.last, &start, settings)
            .map_err(|error| OpenError::Io(path, error))
    }

    /// Hands an event over without waiting: bounded memory, no system call. On an error the event is not in the log and
    /// the caller decides about the command.
    pub fn record(&self, event: impl Into<Event>) -> Result<(), RecordError> {
        // Counted in before looking whether it is closed: a close waits for those who saw it open.
        self.shared.recording.fetch_add(1, Ordering::SeqCst);
        let done = if self.shared.closed.load(Ordering::SeqCst) {
            Err(RecordError::Closed)
        } else {
            self.events
                .try_send(Message::Event(event.into()))
                .map_err(|error| match error {
                    TrySendError::Full(_) => RecordError::Backpressure,
                    TrySendError::Disconnected(_) => RecordError::Closed,
                })
        };
        self.shared.recording.fetch_sub(1, Ordering::SeqCst);
        let count = if done.is_ok() {
            &self.shared.events
        } else {
            &self.shared.turned_away
        };
        count.fetch_add(1, Ordering::Relaxed);
        done
    }

    /// Whether the last attempt to write succeeded.
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Health, head and counts, for metrics.
    pub fn status(&self) -> Status {
        Status {
            healthy: self.healthy(),
            head: *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner),
            events: self.shared.events.load(Ordering::Relaxed),
            turned_away: self.shared.turned_away.load(Ordering::Relaxed),
        }
    }

    /// Writes and commits all that was recorded before. Blocks; on a runtime call it through `spawn_blocking`.
    pub fn flush(&self, within: Duration) -> Result<(), CloseError> {
        self.ask(within, Control::Flush)
    }

    /// After SIGHUP: where the log's path stands for another file now (it was renamed away), ends the old one and carries
    /// the chain on in the new; otherwise does nothing. Says whether it did. Blocks, as [`AuditSink::flush`].
    pub fn reopen(&self, within: Duration) -> Result<bool, CloseError> {
        self.ask(within, Control::Reopen)
    }

    /// Writes and commits all that was recorded and ends the writer; later events are turned away. Blocks, as
    /// [`AuditSink::flush`].
    pub fn flush_and_close(&self, within: Duration) -> Result<(), CloseError> {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.ask(within, Control::Close)
    }

    fn ask<T>(
        &self,
        within: Duration,
        control: impl FnOnce(Instant, mpsc::Sender<Result<T, CloseError>>) -> Control,
    ) -> Result<T, CloseError> {
        let (answer, answered) = mpsc::channel();
        let deadline = Instant::now() + within;
        self.control
            .send(control(deadline, answer))
            .map_err(|_| CloseError::NoAnswer)?;
        // Where the queue is full the writer is awake anyway.
        let _ = self.events.try_send(Message::Wake);
        // The writer gives up at the deadline itself; the rest is for its answer to arrive.
        answered
            .recv_timeout(within + Duration::from_secs(1))
            .unwrap_or(Err(CloseError::NoAnswer))
    }

    fn start(
        device: impl Device + 'static,
        key: AuditKey,
        last: Anchor,
        opening: &[Lifecycle],
        settings: Settings,
    ) -> io::Result<Self> {
        let (events, queue) = mpsc::sync_channel(settings.queue);
        let (control, controls) = mpsc::channel();
        let writer = Writer::start(device, key, last, opening, settings)?;
        let shared = writer.shared();
        thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(queue, &controls))?;
        Ok(Self {
            events,
            control,
            shared,
        })
    }
}

#[cfg(test)]
mod tests;
