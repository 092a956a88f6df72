//! Where log lines go: to the journal with their fields when stderr is the journal (a systemd service), otherwise to
//! stderr as text for people.
//!
//! Levels: `RUST_LOG`, by default `info` for the gateway and `warn` for libraries.

mod journal;
mod sparing;

pub use sparing::Sparing;

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use journal::Journal;

/// Libraries speak when something is wrong. The WebRTC ones do so for every bad packet that a stranger sends, so they
/// are silent: the gateway's own room says what matters. rustls warns of every client that names the box by its address.
const LEVELS: &str = "warn,kerbside=info,audit=info,rustls=error,rtc=off,webrtc=off";

/// Sets the logging of this process up; to be called once, first of all.
pub fn init() {
    let (filter, bad) = filter(std::env::var("RUST_LOG").ok().as_deref());
    let sink = match journal() {
        Some(journal) => journal.boxed(),
        None => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
    };
    if let Err(e) = Registry::default()
        .with(sink.with_filter(filter))
        .try_init()
    {
        tracing::warn!(error = %e, "logging was set up already");
    }
    if let Some(reason) = bad {
        tracing::warn!(
            reason,
            "RUST_LOG is not understood; using the default levels"
        );
    }
}

/// The filter for a value of `RUST_LOG`, and what is wrong with the value.
fn filter(rust_log: Option<&str>) -> (EnvFilter, Option<String>) {
    match rust_log
        .filter(|v| !v.trim().is_empty())
        .map(EnvFilter::try_new)
    {
        Some(Ok(filter)) => (filter, None),
        Some(Err(e)) => (EnvFilter::new(LEVELS), Some(e.to_string())),
        None => (EnvFilter::new(LEVELS), None),
    }
}

/// The journal, if stderr is connected to it and it can be reached.
fn journal() -> Option<Journal> {
    let named = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    if !names(&named, stderr.dev(), stderr.ino()) {
        return None;
    }
    // Without it stderr goes to the journal all the same, as text.
    Journal::connect().ok()
}

/// Does `JOURNAL_STREAM` (systemd.exec(5): `device:inode`) mean this file?
fn names(journal_stream: &str, dev: u64, ino: u64) -> bool {
    journal_stream
        .split_once(':')
        .is_some_and(|(d, i)| d.parse() == Ok(dev) && i.parse() == Ok(ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_used_only_when_stderr_is_it() {
        assert!(names("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "", "8", ":", "a:b"] {
            assert!(!names(other, 8, 1234), "{other}");
        }
    }

    #[test]
    fn levels() {
        assert_eq!(
            filter(None).0.to_string(),
            EnvFilter::new(LEVELS).to_string()
        );
        assert_eq!(
            filter(Some(" ")).0.to_string(),
            EnvFilter::new(LEVELS).to_string()
        );
        assert_eq!(filter(Some("debug")).0.to_string(), "debug");
        let (fallback, bad) = filter(Some("kerbside=loud"));
        assert_eq!(fallback.to_string(), EnvFilter::new(LEVELS).to_string());
        assert!(bad.is_some());
    }
}
