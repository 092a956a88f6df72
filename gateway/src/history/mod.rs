//! History: where devices were, for as long as the configuration says. SQLite in the state directory, one thread that
//! writes, a queue before it that is never waited for: when it is full, points are shed, and the live picture goes on.
//!
//! A point has two times: when it happened, and when we knew. What was told late stands where it happened. Points are
//! thinned before they come here (`thin`). A crash loses the points of the last seconds.
//!
//! Here: writing, asking, retention. Not here: tracks (`picture`), who may ask (`screen`).

mod store;
mod thin;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config;
use crate::ids::DeviceId;
use crate::ledger;
use store::Store;
pub use thin::Thin;

/// Points that wait for the disk.
const QUEUE: usize = 16_384;
/// Who asks waits so long for what is still on its way to the disk.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Where a device was once, WGS-84.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    /// By our clock, milliseconds since 1970 UTC; never later than `known_ms`.
    pub happened_ms: i64,
    /// When the gateway knew.
    pub known_ms: i64,
    /// Degrees, kept to 1e-7.
    pub lat: f64,
    pub lon: f64,
    /// Metres, kept to 0.1; as the device told it.
    pub accuracy_m: Option<f64>,
    /// m/s, kept to 0.01.
    pub speed_mps: Option<f64>,
    /// Degrees clockwise from true north, kept to 0.1.
    pub heading_deg: Option<f64>,
    /// Metres, kept to 0.1.
    pub alt_m: Option<f64>,
    /// It was told late, after something newer or as history.
    pub is_back_filled: bool,
    /// The device was restricted then.
    pub is_restricted: bool,
}

/// A spot of a device, on its way to the disk.
#[derive(Clone, Debug)]
pub struct Point {
    pub device: DeviceId,
    pub spot: Spot,
}

/// Which part of a track is wanted.
#[derive(Clone, Debug)]
pub struct Question {
    pub device: DeviceId,
    /// When it happened; both ends included.
    pub from_ms: i64,
    pub to_ms: i64,
    /// Only what was known before this moment.
    pub known_before_ms: Option<i64>,
    /// Spots of the times when the device was restricted too.
    pub with_restricted: bool,
    /// Spots at most, the oldest first.
    pub limit: usize,
}

/// Spots in the order in which they happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub spots: Vec<Spot>,
    /// There are more behind the last one.
    pub has_more: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(
        "the history {path} cannot be opened: {reason}; it may be moved away, a new one is made then"
    )]
    Open { path: PathBuf, reason: String },
    #[error("the history could not be read: {0}")]
    Read(String),
    #[error("the history's writer has stopped")]
    Stopped,
}

enum Work {
    Point(Point),
    /// Write what you have, then answer.
    Flush(oneshot::Sender<()>),
}

/// The writing thread; it ends when `stop` is dropped and it is woken.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The history of this box. Cheap to clone.
#[derive(Clone)]
pub struct History {
    work: SyncSender<Work>,
    reader: Arc<Mutex<Store>>,
    /// Why the disk does not take points, in words.
    fault: Arc<Mutex<Option<String>>>,
    running: Arc<Mutex<Option<Running>>>,
    keep_every: Duration,
}

impl History {
    /// Opens (or makes) `tracks.db` in the state directory and starts its thread.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn open(state_dir: &Path, limits: &config::Tracks) -> Result<Self, HistoryError> {
        let path = state_dir.join("tracks.db");
        let open = |mb_max| {
            Store::open(&path, mb_max).map_err(|e| HistoryError::Open {
                path: path.clone(),
                reason: e.to_string(),
            })
        };
        let (writer, reader) = (open(Some(limits.mb_max))?, open(None)?);
        let (work, inbox) = sync_channel(QUEUE);
        let (stop, stopped) = oneshot::channel();
        let fault = Arc::new(Mutex::new(None));
        let (limits, told) = (limits.clone(), fault.clone());
        let keep_every = limits.keep_every;
        let thread = std::thread::Builder::new()
            .name("tracks".into())
            .spawn(move || writer::run(writer, &inbox, stopped, &limits, &told))
            .map_err(|e| HistoryError::Open {
                path: path.clone(),
                reason: e.to_string(),
            })?;
        Ok(Self {
            work,
            reader: Arc::new(Mutex::new(reader)),
            fault,
            running: Arc::new(Mutex::new(Some(Running { stop, thread }))),
            keep_every,
        })
    }

    /// Of a device that stands still a point is kept so often.
    pub fn keep_every(&self) -> Duration {
        self.keep_every
    }

    /// Hands points to the writer. Never waits: what the queue has no room for is shed and counted.
    pub fn put(&self, points: impl IntoIterator<Item = Point>) {
        for point in points {
            ledger::POINTS.take(1);
            match self.work.try_send(Work::Point(point)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => ledger::POINTS.shed("queue_full", 1),
                Err(TrySendError::Disconnected(_)) => ledger::POINTS.shed("stopped", 1),
            }
        }
    }

    /// A part of a track, with what was told a moment ago.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn track(&self, question: Question) -> Result<Answer, HistoryError> {
        let me = self.clone();
        let (tell, told) = oneshot::channel();
        // A queue that is full is written anyway; who asks does not wait for a place in it.
        if me.work.try_send(Work::Flush(tell)).is_ok() {
            tokio::time::timeout(FLUSH_MAX, told).await.ok();
        }
        tokio::task::spawn_blocking(move || {
            let store = me.reader.lock();
            store
                .track(&question)
                .map_err(|e| HistoryError::Read(e.to_string()))
        })
        .await
        .map_err(|_| HistoryError::Stopped)?
    }

    /// Why points are lost now, in words for operators.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    /// Writes what is there and ends the thread. May block for a moment.
    pub fn close(&self) {
        let Some(Running { stop, thread }) = self.running.lock().take() else {
            return;
        };
        drop(stop);
        let (tell, _told) = oneshot::channel();
        // Wakes it; a full queue keeps it awake.
        self.work.try_send(Work::Flush(tell)).ok();
        if thread.join().is_err() {
            tracing::error!("the history's thread had died; points since then are lost");
        }
    }
}

#[cfg(test)]
mod tests;
