//! An event as the JSON members of a line. Owns spelling and escaping; knows neither the chain nor the file.
//!
//! Everything outside printable ASCII is escaped: a name from the wire can neither end a line, nor drive a terminal,
//! nor reorder what a reader sees.

use std::io::Write;

use time::OffsetDateTime;

use crate::event::{CommandEvent, Event, Lifecycle, LifecycleEvent, MAX_EVENT_FIELDS, Outcome, bounded_name};

pub(super) const LOG_OPENED: &[u8] = b"log_opened";
pub(super) const LOG_ROTATED: &[u8] = b"log_rotated";

const EVENT: &[u8] = b"\"event\":\"";

/// Writes `"time":…,"event":…` and the event's own members, without braces.
pub(super) fn body(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Command(event) => command(event, &mut Members { out, first: true }),
        Event::Lifecycle(event) => lifecycle(event, &mut Members { out, first: true }),
    }
}

/// The `event` member of an authentic body; the time before it holds no quote of its own.
pub(super) fn event_of(body: &[u8]) -> Option<&[u8]> {
    let start = memchr::memmem::find(body, EVENT)?.checked_add(EVENT.len())?;
    let rest = body.get(start..)?;
    rest.get(..memchr::memchr(b'"', rest)?)
}

fn command(event: &CommandEvent, out: &mut Members<'_>) {
    out.time(event.time_ms);
    out.text("event", "command");
    out.number("connection", event.connection);
    out.name("principal", event.principal.as_deref());
    out.name("application", event.application.as_deref());
    out.name("peer", event.peer.as_deref());
    out.name("namespace", Some(&event.namespace));
    out.text("command", event.command);
    out.names(
        "fields",
        event.fields.iter().take(MAX_EVENT_FIELDS).map(AsRef::as_ref),
    );
    if event.fields.len() > MAX_EVENT_FIELDS {
        out.number("fields_total", event.fields.len());
    }
    out.number("sealed", event.sealed);
    out.number("opened", event.opened);
    out.number("documents_in", event.documents_in);
    out.number("documents_out", event.documents_out);
    out.hexes("subjects", &event.subjects);
    out.number("subjects_total", event.subjects_total);
    out.text("outcome", event.outcome.label());
    match event.outcome {
        Outcome::Ok => {}
        Outcome::Refused { reason } | Outcome::Dropped { reason } => out.text("reason", reason),
        Outcome::ServerError { code } => out.number("code", code),
        Outcome::Failed { what } => out.text("what", what),
    }
    out.number("duration_us", event.duration_us);
}

fn lifecycle(event: &LifecycleEvent, out: &mut Members<'_>) {
    out.time(event.time_ms);
    match &event.what {
        Lifecycle::Started {
            version,
            configuration,
        } => {
            out.text("event", "started");
            out.text("version", version);
            out.text("configuration", &hex::encode(configuration));
        }
        Lifecycle::Stopped { reason } => {
            out.text("event", "stopped");
            out.text("reason", reason);
        }
        Lifecycle::ConfigReloaded { configuration } => {
            out.text("event", "config_reloaded");
            out.text("configuration", &hex::encode(configuration));
        }
        Lifecycle::ConfigRejected { reason } => {
            out.text("event", "config_rejected");
            out.text("reason", reason);
        }
        Lifecycle::Authenticated {
            connection,
            principal,
            mechanism,
            peer,
        } => {
            out.text("event", "authenticated");
            out.number("connection", *connection);
            out.name("principal", Some(principal));
            out.text("mechanism", mechanism);
            out.name("peer", Some(peer));
        }
        Lifecycle::AuthenticationFailed {
            connection,
            claimed,
            peer,
        } => {
            out.text("event", "authentication_failed");
            out.number("connection", *connection);
            out.name("claimed", claimed.as_deref());
            out.name("peer", Some(peer));
        }
        Lifecycle::KeyCreated { key, domain } => {
            out.text("event", "key_created");
            out.text("key", &key.to_string());
            out.name("domain", Some(domain));
        }
        Lifecycle::KeyRefused { key, domain, reason } => {
            out.text("event", "key_refused");
            out.name("key", key.map(|key| key.to_string()).as_deref());
            out.name("domain", Some(domain));
            out.text("reason", reason);
        }
        Lifecycle::KeyChanged { key, domain, state } => {
            out.text("event", "key_changed");
            out.text("key", &key.to_string());
            out.name("domain", Some(domain));
            out.text("state", state);
        }
        Lifecycle::ProviderHealth { provider, up } => {
            out.text("event", "provider_health");
            out.text("provider", provider);
            out.flag("up", *up);
        }
        Lifecycle::LogOpened { continues } => {
            out.text("event", "log_opened");
            out.flag("continues", *continues);
        }
        Lifecycle::LogRotated => out.text("event", "log_rotated"),
        Lifecycle::LogRecovered { torn_bytes } => {
            out.text("event", "log_recovered");
            out.number("torn_bytes", *torn_bytes);
        }
        Lifecycle::EventsLost { count } => {
            out.text("event", "events_lost");
            out.number("count", *count);
        }
    }
}

/// Members of an object that is being written.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        // Keys are this file's own words: nothing in them to escape.
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        string(self.out, value, false);
    }

    fn name(&mut self, key: &str, value: Option<&str>) {
        self.key(key);
        match value {
            Some(value) => name(self.out, value),
            None => self.out.extend_from_slice(b"null"),
        }
    }

    fn names<'n>(&mut self, key: &str, values: impl Iterator<Item = &'n str>) {
        self.key(key);
        self.list(values, name);
    }

    fn hexes(&mut self, key: &str, values: &[[u8; 16]]) {
        self.key(key);
        self.list(values.iter(), |out, value| {
            let mut digits = [0; 32];
            // The buffer is twice the value: encoding cannot fail.
            if hex::encode_to_slice(value, &mut digits).is_ok() {
                out.push(b'"');
                out.extend_from_slice(&digits);
                out.push(b'"');
            }
        });
    }

    fn number(&mut self, key: &str, value: impl itoa::Integer) {
        self.key(key);
        let mut digits = itoa::Buffer::new();
        self.out.extend_from_slice(digits.format(value).as_bytes());
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn time(&mut self, time_ms: i64) {
        self.key("time");
        self.out.push(b'"');
        self.out.extend_from_slice(&rfc3339(time_ms));
        self.out.push(b'"');
    }

    fn list<T>(&mut self, values: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
        self.out.push(b'[');
        for (n, value) in values.enumerate() {
            if n > 0 {
                self.out.push(b',');
            }
            write(self.out, value);
        }
        self.out.push(b']');
    }
}

fn name(out: &mut Vec<u8>, value: &str) {
    let (shown, cut) = bounded_name(value);
    string(out, shown, cut);
}

fn string(out: &mut Vec<u8>, value: &str, cut: bool) {
    out.push(b'"');
    if !cut
        && value
            .bytes()
            .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
    {
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
        return;
    }
    for c in value.chars().chain(cut.then_some('…')) {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            ' '..='~' => out.push(c as u8),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    print(out, format_args!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push(b'"');
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    #[expect(clippy::expect_used, reason = "writing to a Vec has no failure")]
    out.write_fmt(text).expect("a Vec takes every write");
}

/// RFC 3339, UTC, milliseconds. A time outside the years 1–9999 is shown as the nearest end of that range.
pub(super) fn rfc3339(time_ms: i64) -> [u8; 24] {
    let ends = (-62_135_596_800_000, 253_402_300_799_999);
    let time_ms = time_ms.clamp(ends.0, ends.1);
    let at =
        OffsetDateTime::from_unix_timestamp(time_ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut out = *b"0000-00-00T00:00:00.000Z";
    // Written digit by digit: one for every line, and formatting machinery costs more than the rest of it.
    let mut part = |from: usize, to: usize, mut value: u32| {
        for digit in out[from..to].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    part(0, 4, at.year().unsigned_abs());
    part(5, 7, u8::from(at.month()).into());
    part(8, 10, at.day().into());
    part(11, 13, at.hour().into());
    part(14, 16, at.minute().into());
    part(17, 19, at.second().into());
    part(20, 23, u32::try_from(time_ms.rem_euclid(1000)).unwrap_or(0));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::KeyId;
    use std::sync::Arc;

    fn json(event: impl Into<Event>) -> (String, serde_json::Value) {
        let mut out = b"{".to_vec();
        body(&event.into(), &mut out);
        out.push(b'}');
        let text = String::from_utf8(out).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn spells_times_as_rfc_3339() {
        assert_eq!(&rfc3339(0), b"1970-01-01T00:00:00.000Z");
        assert_eq!(&rfc3339(1_709_210_096_789), b"2024-02-29T12:34:56.789Z");
        assert_eq!(&rfc3339(-1), b"1969-12-31T23:59:59.999Z");
        assert_eq!(&rfc3339(i64::MAX), b"9999-12-31T23:59:59.999Z");
        assert_eq!(&rfc3339(i64::MIN), b"0001-01-01T00:00:00.000Z");
    }

    #[test]
    fn keeps_hostile_names_as_one_ascii_line_that_reads_back() {
        let hostile = "a\"\\\n\r\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}😀\u{0}";
        let mut event = CommandEvent::new(0, 1, hostile, "find");
        event.principal = Some(hostile.into());
        event.application = Some("x".repeat(100_000).into());
        event.fields = vec![Arc::from(hostile); 300];
        let (text, value) = json(event);
        assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)));
        assert_eq!(value["namespace"], hostile);
        assert_eq!(value["principal"], hostile);
        assert!(value["application"].as_str().unwrap().len() < 300);
        assert_eq!(value["fields"].as_array().unwrap().len(), MAX_EVENT_FIELDS);
        assert_eq!(value["fields_total"], 300);
    }

    #[test]
    fn keeps_the_largest_event_below_the_longest_line() {
        let wide = "\u{1}".repeat(1000);
        let mut event = CommandEvent::new(0, 1, wide.clone(), "find");
        event.principal = Some(wide.as_str().into());
        event.fields = vec![Arc::from(wide.as_str()); 1000];
        event.subjects = vec![[255; 16]; 1000];
        let (text, _) = json(event);
        assert!(text.len() < super::super::chain::MAX_LINE / 2, "{}", text.len());
    }

    #[test]
    fn names_every_event_and_its_members() {
        let mut event = CommandEvent::new(5, 1, "c.p", "update");
        event.outcome = Outcome::ServerError { code: 11000 };
        event.subjects = vec![[0xab; 16]];
        let (text, value) = json(event);
        assert_eq!(event_of(text.as_bytes()), Some(b"command".as_slice()));
        assert_eq!(
            (value["code"].as_i64(), &value["outcome"]),
            (Some(11000), &"server_error".into())
        );
        assert_eq!(value["subjects"][0], "ab".repeat(16));
        let (_, value) = json(LifecycleEvent {
            time_ms: 0,
            what: Lifecycle::KeyRefused {
                key: Some(KeyId([1; 16])),
                domain: "nhs".into(),
                reason: "destroyed",
            },
        });
        assert_eq!(value["key"], "01010101-0101-0101-0101-010101010101");
        let (_, value) = json(LifecycleEvent {
            time_ms: 0,
            what: Lifecycle::LogOpened { continues: true },
        });
        assert_eq!(
            (value["event"].as_str(), value["continues"].as_bool()),
            (Some("log_opened"), Some(true))
        );
    }
}
