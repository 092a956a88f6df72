//! The two clocks, read together once per input and handed down as a value.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment: monotonic for durations, wallclock for what people and platforms read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub mono: Instant,
    /// Milliseconds since 1970 UTC.
    pub unix_ms: i64,
}

impl Now {
    pub fn read() -> Self {
        Self {
            mono: Instant::now(),
            unix_ms: unix_ms(),
        }
    }

    /// This moment moved on; for tests and timers.
    #[must_use]
    pub fn plus(self, d: std::time::Duration) -> Self {
        Self {
            mono: self.mono + d,
            unix_ms: self.unix_ms + i64::try_from(d.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// Milliseconds since 1970 UTC.
pub fn unix_ms() -> i64 {
    unix_us() / 1000
}

/// Microseconds since 1970 UTC.
pub fn unix_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// RFC 3339 in UTC with milliseconds, e.g. `2026-11-21T08:00:00.123Z`.
pub fn rfc3339(unix_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("invalid time {unix_ms} ms"))
}
