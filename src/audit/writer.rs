//! The writer thread: seals events into lines, writes them, commits, retries. Owns the order of lines and what is true
//! of `healthy`; does not know who records (see `sink`) or what it writes to (see `file`).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::event::{Event, Lifecycle, LifecycleEvent};

use super::chain::{self, Anchor, AuditKey};
use super::file::Device;
use super::sink::{CloseError, Settings};

/// Bytes of sealed lines that wait for the disk before the queue is left to fill.
const MAX_WAITING: usize = 8 * 1024 * 1024;
/// Events sealed before a write.
const MAX_BATCH: usize = 1024;

/// How long events gather before they are written together.
const GATHER: Duration = Duration::from_millis(4);

pub(super) enum Message {
    Event(Event),
    Wake,
}

/// What a handle asks of the writer: by when, and where the answer goes.
pub(super) enum Control {
    Flush(Instant, mpsc::Sender<Result<(), CloseError>>),
    Reopen(Instant, mpsc::Sender<Result<bool, CloseError>>),
    Close(Instant, mpsc::Sender<Result<(), CloseError>>),
}

/// What handles and writer both see.
pub(super) struct Shared {
    pub(super) healthy: AtomicBool,
    pub(super) head: Mutex<Anchor>,
    pub(super) events: AtomicU64,
    pub(super) turned_away: AtomicU64,
    /// Callers inside [`AuditSink::record`].
    pub(super) recording: AtomicUsize,
    pub(super) closed: AtomicBool,
}

pub(super) struct Writer<D> {
    device: D,
    key: AuditKey,
    settings: Settings,
    shared: Arc<Shared>,
    /// The last line sealed, written or not.
    last: Anchor,
    committed: Anchor,
    /// Sealed bytes that are not written yet; begins inside a line after a partial write.
    waiting: Vec<u8>,
    /// Events turned away that a line of the log speaks of.
    lost: u64,
    commit_at: Instant,
    /// Set while the log cannot be written.
    retry_at: Option<Instant>,
    announce_at: Instant,
}

impl<D: Device> Writer<D> {
    /// A writer that goes on after `last`, with the log's opening lines sealed, written and committed: a log that cannot
    /// be written is known before the first command.
    pub(super) fn start(
        device: D,
        key: AuditKey,
        last: Anchor,
        opening: &[Lifecycle],
        settings: Settings,
    ) -> io::Result<Self> {
        let mut writer = Self {
            device,
            key,
            settings,
            shared: Arc::new(Shared {
                healthy: AtomicBool::new(true),
                head: Mutex::new(last),
                events: AtomicU64::new(0),
                turned_away: AtomicU64::new(0),
                recording: AtomicUsize::new(0),
                closed: AtomicBool::new(false),
            }),
            last,
            committed: last,
            waiting: Vec::new(),
            lost: 0,
            commit_at: Instant::now(),
            retry_at: None,
            announce_at: Instant::now(),
        };
        for what in opening {
            writer.seal_lifecycle(what.clone());
        }
        writer.write()?;
        writer.commit()?;
        Ok(writer)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Until a close, or until every handle is gone.
    pub(super) fn run(mut self, queue: Receiver<Message>, controls: &Receiver<Control>) {
        loop {
            let open = self.take(&queue);
            self.work();
            while let Ok(control) = controls.try_recv() {
                match control {
                    Control::Flush(deadline, answer) => drop(answer.send(self.settle(&queue, deadline))),
                    Control::Reopen(deadline, answer) => drop(answer.send(self.reopen(&queue, deadline))),
                    Control::Close(deadline, answer) => {
                        while self.shared.recording.load(Ordering::SeqCst) > 0 {
                            thread::yield_now();
                        }
                        let settled = self.settle(&queue, deadline);
                        self.announce();
                        // The file is unlocked before the answer, so that another process may open it then.
                        drop(self);
                        drop(answer.send(settled));
                        return;
                    }
                }
            }
            if !open {
                // Every handle is gone, so nobody is left to close: do what a close would.
                if let Err(error) = self.settle(&queue, Instant::now() + Duration::from_secs(5)) {
                    tracing::error!(%error, "audit log left incomplete");
                }
                return;
            }
        }
    }

    /// Waits for events and seals them; false once every handle is gone.
    fn take(&mut self, queue: &Receiver<Message>) -> bool {
        let now = Instant::now();
        let wait = self.next_wake(now).saturating_duration_since(now);
        if self.waiting.len() >= MAX_WAITING {
            // Leave the rest in the queue: once it is full, callers are told.
            thread::sleep(wait);
            return true;
        }
        match queue.recv_timeout(wait) {
            Ok(Message::Wake) => {}
            Ok(message) => {
                self.seal(message);
                // Let more gather: while this thread does not wait on the queue, handing an event over costs the
                // connection no system call.
                thread::sleep(GATHER);
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        self.drain(queue);
        true
    }

    /// Seals what is queued, up to a batch, and says how much that was.
    fn drain(&mut self, queue: &Receiver<Message>) -> usize {
        for taken in 0..MAX_BATCH {
            if self.waiting.len() >= MAX_WAITING {
                return taken;
            }
            match queue.try_recv() {
                Ok(message) => self.seal(message),
                Err(_) => return taken,
            }
        }
        MAX_BATCH
    }

    fn next_wake(&self, now: Instant) -> Instant {
        match self.retry_at {
            Some(at) => at,
            None if self.turned_away() > self.lost => now,
            None if self.committed != self.last => self.commit_at,
            None => now + Duration::from_secs(60),
        }
    }

    /// Writes what waits and commits where it is time, unless the last attempt failed a moment ago.
    fn work(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let due = self.retry_at.is_some() || now >= self.commit_at;
        let done = self
            .write()
            .and_then(|()| if due { self.commit() } else { Ok(()) });
        self.note(done.as_ref().err());
        if now >= self.announce_at {
            self.announce();
        }
    }

    /// Seals all that is queued, writes and commits it, and retries until the deadline.
    fn settle(&mut self, queue: &Receiver<Message>, deadline: Instant) -> Result<(), CloseError> {
        // No more than can have been queued by now, or producers that never pause would keep this from ending.
        let mut left = self.settings.queue.saturating_add(1);
        let mut owned_up = false;
        loop {
            let taken = self.drain(queue);
            left = left.saturating_sub(taken);
            let more = taken > 0 && left > 0;
            let done = self
                .write()
                .and_then(|()| if more { Ok(()) } else { self.commit() });
            self.note(done.as_ref().err());
            match done {
                Ok(()) if more => {}
                // After an outage: what was turned away meanwhile gets its line now, once.
                Ok(()) if !owned_up && self.turned_away() > self.lost => owned_up = true,
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() + self.settings.retry_every > deadline => {
                    return Err(CloseError::Unwritten(error, self.waiting.len()));
                }
                Err(_) => thread::sleep(self.settings.retry_every),
            }
        }
    }

    fn reopen(&mut self, queue: &Receiver<Message>, deadline: Instant) -> Result<bool, CloseError> {
        // First find whether there is a file to go to: a log that was removed cannot be committed any more, and going on
        // in a new one is the way out.
        let rotates = self.device.rotation().map_err(|error| self.failed(error))?;
        if !rotates {
            self.settle(queue, deadline)?;
            return Ok(false);
        }
        self.write().map_err(|error| self.failed(error))?;
        self.seal_lifecycle(Lifecycle::LogRotated);
        self.write().map_err(|error| self.failed(error))?;
        self.device
            .switch(self.last)
            .map_err(|error| self.failed(error))?;
        self.committed = self.last;
        self.announce_as("audit log rotated", self.last);
        self.seal_lifecycle(Lifecycle::LogOpened { continues: true });
        self.settle(queue, deadline)?;
        Ok(true)
    }

    fn seal(&mut self, message: Message) {
        if let Message::Event(event) = message {
            self.last = chain::seal(&self.key, self.last, &event, &mut self.waiting);
        }
    }

    fn seal_lifecycle(&mut self, what: Lifecycle) {
        let event = LifecycleEvent {
            time_ms: now_ms(),
            what,
        };
        self.last = chain::seal_lifecycle(&self.key, self.last, event, &mut self.waiting);
    }

    fn write(&mut self) -> io::Result<()> {
        let turned_away = self.turned_away();
        // Only while the log can be written: one line for an outage, not one for each attempt.
        if turned_away > self.lost && self.retry_at.is_none() {
            let count = turned_away - self.lost;
            self.lost = turned_away;
            self.seal_lifecycle(Lifecycle::EventsLost { count });
        }
        let mut written = 0;
        let result = loop {
            match self.waiting.get(written..) {
                None | Some([]) => break Ok(()),
                Some(rest) => match self.device.append(rest) {
                    Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => written += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                },
            }
        };
        self.waiting.drain(..written);
        result
    }

    /// Called with nothing waiting, so that the head names a whole line.
    fn commit(&mut self) -> io::Result<()> {
        self.commit_at = Instant::now() + self.settings.commit_every;
        if self.committed == self.last && self.retry_at.is_none() {
            return Ok(());
        }
        self.device.commit(self.last)?;
        self.committed = self.last;
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner) = self.last;
        Ok(())
    }

    fn turned_away(&self) -> u64 {
        self.shared.turned_away.load(Ordering::Relaxed)
    }

    fn failed(&mut self, error: io::Error) -> CloseError {
        self.note(Some(&error));
        CloseError::Unwritten(error, self.waiting.len())
    }

    /// Keeps `healthy` true to the last attempt, and says so once per change.
    fn note(&mut self, error: Option<&io::Error>) {
        let healthy = error.is_none();
        self.retry_at = error.map(|_| Instant::now() + self.settings.retry_every);
        if self.shared.healthy.swap(healthy, Ordering::AcqRel) != healthy {
            match error {
                Some(error) => tracing::error!(%error, "audit log cannot be written"),
                None => tracing::info!("audit log can be written again"),
            }
        }
    }

    fn announce(&mut self) {
        self.announce_at = Instant::now() + self.settings.announce_every;
        self.announce_as("audit head", self.committed);
    }

    /// The head, where log shipping picks it up: an anchor that no one on this machine can take back.
    fn announce_as(&self, what: &'static str, at: Anchor) {
        tracing::info!(target: "fieldveil::audit", seq = at.seq, hash = %at.hash_hex(), "{what}");
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
