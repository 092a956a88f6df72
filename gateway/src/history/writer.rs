//! The thread that writes points: a group in one commit, and retention by hours.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::sync::oneshot;

use super::store::Store;
use super::{Point, Work};
use crate::clock::unix_ms;
use crate::{config, ledger, metrics};

/// Points of one commit.
const GROUP_MAX: usize = 4096;
/// A point waits at most so long for its commit: so much a crash may lose.
const GROUP_AGE: Duration = Duration::from_secs(2);
/// Between two looks at age and size.
const RETENTION_EVERY: Duration = Duration::from_secs(30);
const DAY_MS: i64 = 86_400_000;

static BYTES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_tracks_bytes",
        "Disk space that the history of tracks uses",
        &[],
    )
});
static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_tracks_hours_dropped_total",
        "Hours of history dropped by retention: age (retention_days), size (mb_max)",
        &["reason"],
    )
});

struct Writer<'a> {
    store: Store,
    limits: &'a config::Tracks,
    fault: &'a Mutex<Option<String>>,
    group: Vec<Point>,
    retention: Instant,
}

pub(super) fn run(
    store: Store,
    inbox: &Receiver<Work>,
    mut stop: oneshot::Receiver<()>,
    limits: &config::Tracks,
    fault: &Mutex<Option<String>>,
) {
    let mut me = Writer {
        store,
        limits,
        fault,
        group: Vec::new(),
        retention: Instant::now(),
    };
    let mut due = Instant::now() + GROUP_AGE;
    let is_open = |stop: &mut oneshot::Receiver<()>| {
        matches!(stop.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    };
    loop {
        let now = Instant::now();
        if me.retention <= now {
            me.retention = now + RETENTION_EVERY;
            me.retain();
        }
        match inbox.recv_timeout(due.saturating_duration_since(now)) {
            Ok(Work::Point(point)) => {
                if me.group.is_empty() {
                    due = Instant::now() + GROUP_AGE;
                }
                me.group.push(point);
                if me.group.len() >= GROUP_MAX || due <= Instant::now() {
                    me.write();
                }
            }
            Ok(Work::Flush(tell)) => {
                me.write();
                // Whoever asked may be gone.
                tell.send(()).ok();
                if !is_open(&mut stop) {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                me.write();
                due = Instant::now() + GROUP_AGE;
                if !is_open(&mut stop) {
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                me.write();
                return;
            }
        }
    }
}

impl Writer<'_> {
    fn write(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let n = self.group.len() as u64;
        match self.store.insert(&self.group) {
            Ok(()) => {
                ledger::POINTS.delivered(n);
                if self.fault.lock().take().is_some() {
                    tracing::info!("the history takes points again");
                }
            }
            Err(e) => {
                ledger::POINTS.shed("disk", n);
                let told = self.fault.lock().replace(e.to_string());
                if told.is_none() {
                    tracing::error!(error = %e, "the history cannot be written: points are lost; free space, or give tracks.mb_max more");
                }
                // It may be full: an hour less may help.
                self.retention = Instant::now();
            }
        }
        self.group.clear();
    }

    fn retain(&mut self) {
        if let Err(e) = self.drop_old() {
            tracing::warn!(error = %e, "old hours of the history could not be dropped; tried again");
        }
    }

    fn drop_old(&mut self) -> rusqlite::Result<()> {
        let days = i64::from(self.limits.retention_days);
        let oldest_ms = unix_ms() - days * DAY_MS;
        while self
            .store
            .oldest_ends_ms()
            .is_some_and(|ends| ends < oldest_ms)
        {
            self.store.drop_oldest()?;
            DROPPED.with_label_values(&["age"]).inc();
        }
        // A part is left free, so that points find room until the next look.
        let bytes_max = i64::try_from((self.limits.mb_max << 20) / 10 * 9).unwrap_or(i64::MAX);
        while self.store.bytes()? > bytes_max {
            if !self.store.drop_oldest()? {
                break;
            }
            DROPPED.with_label_values(&["size"]).inc();
        }
        let bytes = self.store.bytes()?;
        BYTES.with_label_values::<&str>(&[]).set(bytes);
        Ok(())
    }
}
