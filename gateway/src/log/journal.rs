//! Log lines for journald, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): the message with its fields
//! behind it, so that plain `journalctl` shows them, and each field by itself as `KERBSIDE_DEVICE=…`, so that one can
//! ask for it.
//!
//! Logging never waits: a line that the journal does not take at once is dropped and counted.

use std::fmt::{self, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::LazyLock;

use prometheus::IntCounterVec;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::metrics;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Characters of one field that are kept.
const FIELD_CHARS: usize = 2000;
/// Bytes of one line: well below what a datagram takes.
const LINE_BYTES: usize = 32 * 1024;

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_log_lines_dropped_total",
        "Log lines that the journal did not take",
        &["reason"],
    )
});

pub struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// # Errors
    /// When journald's socket is not there.
    pub fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(&[], SOCKET)?;
        Ok(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let meta = event.metadata();
        let bytes = line.encode(*meta.level(), meta.target());
        // By path each time: journald may have been started again.
        if let Err(e) = self.socket.send_to(&bytes, SOCKET) {
            let reason = match e.kind() {
                io::ErrorKind::WouldBlock => "journal_busy",
                _ => "journal_gone",
            };
            DROPPED.with_label_values(&[reason]).inc();
        }
    }
}

/// One event's message and fields.
#[derive(Default)]
struct Line {
    message: String,
    target: Option<String>,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn put(&mut self, field: &Field, value: impl fmt::Display) {
        let value = match field.name() {
            "message" => return self.message = short(value),
            // Lines of libraries that use the crate `log`.
            "log.target" => return self.target = Some(short(value)),
            name if name.starts_with("log.") => return,
            _ => short(value),
        };
        self.fields.push((field.name(), value));
    }

    fn encode(mut self, level: Level, target: &str) -> Vec<u8> {
        for (name, value) in &self.fields {
            let separator = if self.message.is_empty() { "" } else { " " };
            // Writing to a String does not fail.
            write!(self.message, "{separator}{name}={value}").unwrap_or_default();
        }
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut out = Vec::with_capacity(512);
        entry(&mut out, "MESSAGE", &self.message);
        entry(&mut out, "PRIORITY", priority);
        entry(&mut out, "SYSLOG_IDENTIFIER", "kerbside");
        entry(&mut out, "TARGET", self.target.as_deref().unwrap_or(target));
        for (name, value) in &self.fields {
            if out.len() + value.len() < LINE_BYTES {
                entry(&mut out, &key(name), value);
            }
        }
        out
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
}

/// The value as text, cut to what a line has room for.
fn short(value: impl fmt::Display) -> String {
    let mut text = value.to_string();
    if let Some((at, _)) = text.char_indices().nth(FIELD_CHARS) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// `raised_ms` → `KERBSIDE_RAISED_MS`; at most 64 characters, as journald wants it.
fn key(name: &str) -> String {
    let name = name.trim_start_matches("r#");
    let safe = name.chars().map(|c| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    });
    "KERBSIDE_".chars().chain(safe).take(64).collect()
}

/// A text of several lines is sent with its length, so that nobody can smuggle a field into a line.
fn entry(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What one logging statement becomes.
    fn logged(say: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Keep(Arc<Mutex<Vec<u8>>>);
        impl<S: Subscriber> Layer<S> for Keep {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let mut line = Line::default();
                event.record(&mut line);
                *self.0.lock() = line.encode(*event.metadata().level(), event.metadata().target());
            }
        }
        let keep = Keep::default();
        let subscriber = tracing_subscriber::registry().with(keep.clone());
        tracing::subscriber::with_default(subscriber, say);
        let bytes = keep.0.lock().clone();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn a_line_shows_its_fields_and_has_them() {
        let line = logged(|| {
            tracing::warn!(target: "kerbside::sink", platform = "joint", down_s = 3, "it is down");
        });
        assert_eq!(
            line,
            "MESSAGE=it is down platform=joint down_s=3\nPRIORITY=4\nSYSLOG_IDENTIFIER=kerbside\n\
             TARGET=kerbside::sink\nKERBSIDE_PLATFORM=joint\nKERBSIDE_DOWN_S=3\n"
        );
    }

    #[test]
    fn a_line_break_smuggles_no_field_in() {
        let line = logged(|| {
            tracing::info!(target: "t", name = "a\nPRIORITY=0", "hello");
        });
        let value = "a\nPRIORITY=0";
        let framed = format!(
            "KERBSIDE_NAME\n{}\0\0\0\0\0\0\0{value}\n",
            char::from(value.len() as u8)
        );
        assert!(line.ends_with(&framed), "{line:?}");
    }

    proptest! {
        /// Read back by the protocol's rules, every line has exactly the entries that were put in.
        #[test]
        fn entries_come_back(values in prop::collection::vec(".{0,40}|(?s).{0,40}", 1..6)) {
            let mut out = Vec::new();
            for v in &values {
                entry(&mut out, "KEY", v);
            }
            let mut rest = &out[..];
            let mut back = Vec::new();
            while !rest.is_empty() {
                rest = &rest[3..];
                let (value, after) = if rest[0] == b'=' {
                    let end = rest.iter().position(|b| *b == b'\n').unwrap();
                    (&rest[1..end], &rest[end + 1..])
                } else {
                    let n = u64::from_le_bytes(rest[1..9].try_into().unwrap()) as usize;
                    (&rest[9..9 + n], &rest[10 + n..])
                };
                back.push(String::from_utf8(value.to_vec()).unwrap());
                rest = after;
            }
            prop_assert_eq!(back, values);
        }

        #[test]
        fn keys_are_what_journald_takes(name in ".*") {
            let key = key(&name);
            prop_assert!(key.len() <= 64 && key.starts_with("KERBSIDE_"));
            prop_assert!(key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'));
        }
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(short("街".repeat(5000)).chars().count(), FIELD_CHARS + 1);
    }
}
