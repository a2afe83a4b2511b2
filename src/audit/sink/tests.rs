//! The sink over real files, and over a device that fails when told to.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::audit::chain;
use crate::audit::{FindingKind, verify, verify_all};
use crate::event::CommandEvent;

const SOON: Duration = Duration::from_secs(10);

fn key() -> AuditKey {
    AuditKey::new(&[5; 32])
}

fn open(path: &Path) -> Result<AuditSink, OpenError> {
    AuditSink::open(Settings::new(Target::File(path.to_owned())), key())
}

fn event(n: u64) -> CommandEvent {
    CommandEvent::new(1_700_000_000_000, n, "clinic.patients", "find")
}

fn record(sink: &AuditSink, count: u64) {
    for n in 0..count {
        while sink.record(event(n)).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A log of `count` events, closed.
fn written(path: &Path, count: u64) {
    let sink = open(path).unwrap();
    record(&sink, count);
    sink.flush_and_close(SOON).unwrap();
}

fn events_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn keeps_every_event_of_many_threads_in_one_chain_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    for _ in 0..3 {
        let sink = open(&path).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                let sink = sink.clone();
                scope.spawn(move || record(&sink, 500));
            }
        });
        sink.flush_and_close(SOON).unwrap();
        assert_eq!(sink.record(event(1)), Err(RecordError::Closed));
        assert_eq!(sink.status().events, 2000);
    }
    let report = verify(&path, &key(), None).unwrap();
    assert!(report.ok, "{:?}", report.findings);
    let lost = events_of(&path)
        .iter()
        .filter(|event| *event == "events_lost")
        .count() as u64;
    assert_eq!(report.lines, 6001 + lost);
}

#[test]
fn keeps_every_event_that_was_taken_before_a_close_and_takes_none_after() {
    for _ in 0..20 {
        let (device, sink) = flaky(64);
        let taken = thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let sink = sink.clone();
                    scope.spawn(move || {
                        let mut taken = 0;
                        loop {
                            match sink.record(event(1)) {
                                Ok(()) => taken += 1,
                                Err(RecordError::Backpressure) => thread::yield_now(),
                                Err(RecordError::Closed) => return taken,
                            }
                        }
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(2));
            sink.flush_and_close(SOON).unwrap();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<usize>()
        });
        let written = device.0.lock().unwrap().written.clone();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(
            text.lines()
                .filter(|line| line.contains("\"event\":\"command\""))
                .count(),
            taken
        );
        assert_eq!(sink.status().events, taken as u64);
    }
}

#[test]
fn commits_what_was_flushed_and_says_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let sink = open(&path).unwrap();
    record(&sink, 10);
    sink.flush(SOON).unwrap();
    let status = sink.status();
    assert!(status.healthy);
    assert_eq!(status.head.seq, 11);
    let report = verify(&path, &key(), Some(status.head)).unwrap();
    assert!(report.ok && report.head_seq == Some(11), "{:?}", report.findings);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn commits_by_itself_within_the_interval() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut settings = Settings::new(Target::File(path));
    settings.commit_every = Duration::from_millis(50);
    let sink = AuditSink::open(settings, key()).unwrap();
    record(&sink, 3);
    let until = Instant::now() + SOON;
    while sink.status().head.seq < 4 {
        assert!(Instant::now() < until, "no commit");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn refuses_to_start_on_a_log_that_does_not_match_its_head() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let head = dir.path().join("audit.jsonl.head");
    written(&path, 20);
    let (log, head_text) = (fs::read(&path).unwrap(), fs::read(&head).unwrap());
    let last_line = log[..log.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let restore = || {
        fs::write(&path, &log).unwrap();
        fs::write(&head, &head_text).unwrap();
    };

    for length in [0, 1, last_line, log.len() - 1] {
        restore();
        fs::write(&path, &log[..length]).unwrap();
        assert!(
            matches!(open(&path), Err(OpenError::Truncated { seq: 21, .. })),
            "length {length}"
        );
    }
    restore();
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Truncated { .. })));
    assert!(!path.exists(), "the evidence must stay as it was found");
    let report = verify(&path, &key(), None).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::Truncated);

    restore();
    let mut changed = log.clone();
    changed[last_line + 20] ^= 1;
    fs::write(&path, &changed).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Edited(_))));

    restore();
    fs::write(&path, [&log[..], b"{\"seq\":22}\n"].concat()).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Edited(_))));

    restore();
    fs::remove_file(&head).unwrap();
    assert!(matches!(open(&path), Err(OpenError::HeadMissing(_))));

    restore();
    let text = String::from_utf8(head_text.clone()).unwrap();
    fs::write(&head, text.replace("\"seq\":21", "\"seq\":20")).unwrap();
    assert!(matches!(open(&path), Err(OpenError::HeadEdited(_))));

    restore();
    let settings = Settings::new(Target::File(path.clone()));
    assert!(matches!(
        AuditSink::open(settings, AuditKey::new(&[6; 32])),
        Err(OpenError::OtherKey(_))
    ));
    let report = verify(&path, &AuditKey::new(&[6; 32]), None).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::OtherKey);

    restore();
    open(&path).unwrap().flush_and_close(SOON).unwrap();
}

#[test]
fn drops_one_torn_line_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    written(&path, 5);
    let mut log = fs::read(&path).unwrap();
    log.extend_from_slice(b"{\"seq\":7,\"time\":\"20");
    fs::write(&path, &log).unwrap();
    written(&path, 2);
    let report = verify(&path, &key(), None).unwrap();
    assert!(report.ok, "{:?}", report.findings);
    assert_eq!(events_of(&path)[6..], ["log_recovered", "command", "command"]);
}

#[test]
fn keeps_lines_that_the_head_does_not_name_yet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let head = dir.path().join("audit.jsonl.head");
    written(&path, 5);
    let early = fs::read(&head).unwrap();
    written(&path, 5);
    fs::write(&head, early).unwrap();
    written(&path, 1);
    let report = verify(&path, &key(), None).unwrap();
    assert!(report.ok, "{:?}", report.findings);
    assert_eq!(report.lines, 12);
}

#[test]
fn refuses_a_second_writer_and_a_path_that_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let _first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::InUse(_))));
    assert!(matches!(
        open(Path::new("/dev/null")),
        Err(OpenError::NotAFile(_))
    ));
    assert!(matches!(
        open(&dir.path().join("no/such/dir")),
        Err(OpenError::Io(..))
    ));
}

#[test]
fn carries_the_chain_into_the_next_file_on_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let old = dir.path().join("audit.jsonl.1");
    let sink = open(&path).unwrap();
    record(&sink, 5);
    assert!(!sink.reopen(SOON).unwrap(), "nothing was renamed");
    fs::rename(&path, &old).unwrap();
    record(&sink, 2);
    assert!(sink.reopen(SOON).unwrap());
    record(&sink, 3);
    sink.flush_and_close(SOON).unwrap();
    written(&path, 1);

    for report in [
        verify(&path, &key(), None).unwrap(),
        verify(&old, &key(), None).unwrap(),
        verify_all(&[&old, &path], &key(), None).unwrap(),
    ] {
        assert!(report.ok, "{:?}", report.findings);
    }
    assert_eq!(events_of(&old).last().unwrap(), "log_rotated");
    assert_eq!(events_of(&path)[0], "log_opened");

    // Each file's own first and last lines, and the file between two others, are missed when they are gone.
    let text = fs::read_to_string(&old).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    fs::write(&old, lines[..lines.len() - 1].concat()).unwrap();
    assert_eq!(
        verify(&old, &key(), None).unwrap().findings[0].kind,
        FindingKind::HeadMissing
    );
    assert_eq!(
        verify_all(&[&old, &path], &key(), None).unwrap().findings[0].kind,
        FindingKind::Deleted
    );
    fs::write(&old, lines[1..].concat()).unwrap();
    assert_eq!(
        verify(&old, &key(), None).unwrap().findings[0].kind,
        FindingKind::Deleted
    );
}

#[test]
fn notices_a_log_that_is_truncated_or_removed_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let sink = open(&path).unwrap();
    record(&sink, 5);
    sink.flush(SOON).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10)
        .unwrap();
    record(&sink, 1);
    assert!(sink.flush(Duration::ZERO).is_err());
    assert!(!sink.healthy());

    fs::remove_file(&path).unwrap();
    assert!(sink.flush(Duration::ZERO).is_err());
    assert!(sink.reopen(SOON).unwrap());
    record(&sink, 1);
    sink.flush_and_close(SOON).unwrap();
    assert!(sink.healthy());
    assert!(verify(&path, &key(), None).unwrap().ok);
}

#[derive(Clone, Default)]
struct Flaky(Arc<Mutex<FlakyState>>);

#[derive(Default)]
struct FlakyState {
    written: Vec<u8>,
    /// Bytes that still fit.
    room: Option<usize>,
}

impl Flaky {
    fn set_room(&self, room: Option<usize>) {
        self.0.lock().unwrap().room = room;
    }
}

impl Device for Flaky {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let fits = state.room.unwrap_or(usize::MAX).min(bytes.len());
        if fits == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.written.extend_from_slice(&bytes[..fits]);
        state.room = state.room.map(|room| room - fits);
        Ok(fits)
    }

    fn commit(&mut self, _last: Anchor) -> io::Result<()> {
        Ok(())
    }

    fn rotation(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn switch(&mut self, _last: Anchor) -> io::Result<()> {
        Ok(())
    }
}

fn flaky(queue: usize) -> (Flaky, AuditSink) {
    let device = Flaky::default();
    let mut settings = Settings::new(Target::Stdout);
    settings.queue = queue;
    settings.retry_every = Duration::from_millis(5);
    let sink = AuditSink::start(device.clone(), key(), Anchor::GENESIS, &[], settings).unwrap();
    (device, sink)
}

#[test]
fn keeps_lines_through_a_full_disk_and_goes_on_inside_a_torn_one() {
    let (device, sink) = flaky(64);
    device.set_room(Some(1000));
    record(&sink, 20);
    assert!(matches!(
        sink.flush(Duration::ZERO),
        Err(CloseError::Unwritten(..))
    ));
    assert!(!sink.healthy());
    device.set_room(None);
    sink.flush(SOON).unwrap();
    assert!(sink.healthy());
    let written = device.0.lock().unwrap().written.clone();
    let mut last = Anchor::GENESIS;
    for line in written.split_inclusive(|b| *b == b'\n') {
        let line = chain::open(&key(), line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((line.at.seq, line.prev), (last.seq + 1, last.hash));
        last = line.at;
    }
    assert!(last.seq >= 20);
}

#[test]
fn tells_callers_when_there_is_no_room_and_owns_up_in_the_log() {
    let (device, sink) = flaky(4);
    device.set_room(Some(0));
    let mut taken = 0_u64;
    let mut big = event(1);
    big.subjects = vec![[1; 16]; 100];
    let until = Instant::now() + 3 * SOON;
    let mut last_taken = Instant::now();
    while taken < 1000 || last_taken.elapsed() < Duration::from_millis(500) {
        assert!(Instant::now() < until, "memory was not bounded: {taken} taken");
        if sink.record(big.clone()).is_ok() {
            taken += 1;
            last_taken = Instant::now();
        } else {
            thread::sleep(Duration::from_micros(100));
        }
    }
    assert!(!sink.healthy() && taken < 20_000, "{taken}");
    let turned_away = sink.status().turned_away;
    device.set_room(None);
    sink.flush_and_close(SOON).unwrap();
    let written = String::from_utf8(device.0.lock().unwrap().written.clone()).unwrap();
    let mut lost = 0;
    let mut commands = 0;
    for line in written.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        commands += u64::from(line["event"] == "command");
        lost += line["count"].as_u64().unwrap_or(0);
    }
    assert_eq!((commands, lost), (taken, turned_away));
}

#[test]
fn does_not_start_where_nothing_can_be_written() {
    let device = Flaky::default();
    device.set_room(Some(0));
    let start = [Lifecycle::LogOpened { continues: false }];
    let settings = Settings::new(Target::Stdout);
    assert!(AuditSink::start(device, key(), Anchor::GENESIS, &start, settings).is_err());
}
