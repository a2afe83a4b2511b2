//! Everything that can be done to a log of 50 lines without the key, done to it.

use super::*;
use crate::event::{CommandEvent, Event, Lifecycle, LifecycleEvent};
use FindingKind::{Deleted, Duplicated, Edited, Forked, HeadMissing, Inserted, Reordered, Truncated};

const LINES: u64 = 50;

fn key() -> AuditKey {
    AuditKey::new(&[5; 32])
}

fn event(n: u64) -> Event {
    if n == 0 {
        let what = Lifecycle::LogOpened { continues: false };
        return LifecycleEvent { time_ms: 0, what }.into();
    }
    CommandEvent::new(1_700_000_000_000, n, "clinic.patients", "find").into()
}

/// A log as lines with their line feeds, and the head that belongs to it.
fn log_of(events: impl Iterator<Item = Event>) -> (Vec<Vec<u8>>, Head) {
    let mut last = Anchor::GENESIS;
    let mut lines = Vec::new();
    for event in events {
        let mut line = Vec::new();
        last = chain::seal(&key(), last, &event, &mut line);
        lines.push(line);
    }
    let head = Head {
        before: Anchor::GENESIS,
        last,
        length: lines.iter().map(Vec::len).sum::<usize>() as u64,
    };
    (lines, head)
}

fn log() -> (Vec<Vec<u8>>, Head) {
    log_of((0..LINES).map(event))
}

fn check(bytes: &[u8], head: Option<Head>, expect: Option<Anchor>) -> Report {
    let key = key();
    let mut check = Check::new(&key, vec!["audit.jsonl".into()], Ok(head), expect);
    check.read(0, bytes).unwrap();
    check.finish()
}

fn found(lines: &[Vec<u8>], head: Head) -> Vec<(FindingKind, u64)> {
    let report = check(&lines.concat(), Some(head), None);
    assert_eq!(report.ok, report.findings.is_empty());
    report.findings.iter().map(|f| (f.kind, f.line)).collect()
}

#[test]
fn accepts_an_untouched_log_and_says_its_end() {
    let (lines, head) = log();
    let report = check(&lines.concat(), Some(head), Some(head.last));
    assert!(report.ok, "{:?}", report.findings);
    assert_eq!(
        (report.lines, report.first_seq, report.last_seq),
        (LINES, Some(1), Some(LINES))
    );
    assert_eq!(report.last_hash, Some(head.last.hash_hex()));
}

#[test]
fn finds_every_changed_byte_in_its_line() {
    let (lines, head) = log();
    let bytes = lines.concat();
    let mut line = 1;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let report = check(&changed, Some(head), None);
        assert!(!report.ok, "byte {at}");
        assert_eq!(report.findings[0].line, line, "byte {at}: {:?}", report.findings);
        assert!(matches!(report.findings[0].kind, Edited | Truncated));
        line += u64::from(bytes[at] == b'\n');
    }
}

#[test]
fn finds_every_deleted_line() {
    let (lines, head) = log();
    for n in 0..lines.len() {
        let mut changed = lines.clone();
        changed.remove(n);
        let kind = if n + 1 == lines.len() { Truncated } else { Deleted };
        assert_eq!(found(&changed, head), [(kind, n as u64 + 1)]);
    }
}

#[test]
fn finds_every_pair_of_swapped_lines() {
    let (lines, head) = log();
    for n in 0..lines.len() - 1 {
        let mut changed = lines.clone();
        changed.swap(n, n + 1);
        assert_eq!(found(&changed, head), [(Reordered, n as u64 + 2)]);
    }
}

#[test]
fn finds_every_repeated_line_wherever_it_is_put() {
    let (lines, head) = log();
    for n in 0..lines.len() {
        let mut next = lines.clone();
        next.insert(n + 1, lines[n].clone());
        assert_eq!(found(&next, head), [(Duplicated, n as u64 + 2)]);
        let mut at_end = lines.clone();
        at_end.push(lines[n].clone());
        assert_eq!(found(&at_end, head), [(Duplicated, LINES + 1)]);
    }
}

#[test]
fn finds_every_made_up_line() {
    let (lines, head) = log();
    let mut made_up = Vec::new();
    chain::seal(&AuditKey::new(&[6; 32]), Anchor::GENESIS, &event(1), &mut made_up);
    for n in 0..=lines.len() {
        for text in [made_up.as_slice(), b"\n", b"{}\n", b"\xff\xfe\n"] {
            let mut changed = lines.clone();
            changed.insert(n, text.to_vec());
            assert_eq!(found(&changed, head), [(Inserted, n as u64 + 1)]);
        }
    }
}

#[test]
fn finds_every_truncation() {
    let (lines, head) = log();
    let bytes = lines.concat();
    for length in 0..bytes.len() {
        let report = check(&bytes[..length], Some(head), None);
        assert_eq!(report.findings[0].kind, Truncated, "length {length}");
        assert_eq!(report.findings[0].through, Some(LINES));
    }
}

#[test]
fn finds_the_end_of_another_history_put_in_place_of_ours() {
    let (lines, head) = log();
    let (other, other_head) = log_of((0..LINES).map(|n| event(if n > 20 { n + 1000 } else { n })));
    for n in 21..lines.len() {
        let spliced = [&lines[..n], &other[n..]].concat();
        let findings = found(&spliced, head);
        assert!(findings.iter().all(|(kind, _)| *kind == Forked), "{findings:?}");
        assert_eq!(findings.last(), Some(&(Forked, LINES)));
    }
    // The whole other history with its own head: only what was kept elsewhere tells.
    let report = check(&other.concat(), Some(other_head), None);
    assert!(report.ok);
    let report = check(&other.concat(), Some(other_head), Some(head.last));
    assert_eq!(report.findings[0].kind, Forked);
}

#[test]
fn finds_an_older_log_put_back_with_its_head_only_through_an_anchor() {
    let (lines, head) = log();
    let (old, old_head) = log_of((0..30).map(event));
    assert_eq!(lines[..30], old[..]);
    assert!(check(&old.concat(), Some(old_head), None).ok);
    let report = check(&old.concat(), Some(old_head), Some(head.last));
    let finding = &report.findings[0];
    assert_eq!(
        (finding.kind, finding.seq, finding.through),
        (Truncated, Some(31), Some(50))
    );
}

#[test]
fn does_not_call_an_end_proved_without_a_head() {
    let (lines, head) = log();
    let report = check(&lines.concat(), None, None);
    assert_eq!(report.findings[0].kind, HeadMissing);
    assert!(check(&lines.concat(), None, Some(head.last)).ok);
    let report = check(&lines[1..].concat(), None, Some(head.last));
    assert_eq!(report.findings[0].kind, Deleted);
}

#[test]
fn keeps_lines_past_the_head_and_reports_a_torn_one() {
    let (lines, _) = log();
    let (_, early) = log_of((0..40).map(event));
    let mut bytes = lines.concat();
    bytes.extend_from_slice(b"{\"seq\":51,\"ti");
    let report = check(&bytes, Some(early), None);
    assert!(report.ok, "{:?}", report.findings);
    assert_eq!((report.last_seq, report.torn_bytes), (Some(LINES), 13));
}

#[test]
fn explains_a_rewritten_stretch_line_by_line() {
    let (mut lines, head) = log();
    lines[9][30] ^= 1;
    lines[10][30] ^= 1;
    lines.remove(30);
    lines.insert(40, b"extra\n".to_vec());
    assert_eq!(
        found(&lines, head),
        [(Edited, 10), (Edited, 11), (Inserted, 41), (Deleted, 31)]
    );
}

#[test]
fn keeps_memory_bounded_on_a_file_of_garbage() {
    let garbage = b"x\n".repeat(100_000);
    let (_, head) = log();
    let report = check(&garbage, Some(head), None);
    assert!(!report.ok && report.findings.len() == MAX_FINDINGS && report.findings_total >= 100_000);
    let endless = vec![b'x'; 3 * MAX_LINE];
    assert!(!check(&endless, Some(head), None).ok);
}
