//! The outbox: every event, on disk before anybody is told that it was taken, until each platform has it.
//!
//! One SQLite file, `events.db` in the state directory: write-ahead log, `synchronous=FULL`, one writing thread that
//! commits what is waiting as one group (at most 256), safety events first. Reading and checkpoints have threads and
//! connections of their own, so a slow look at old events does not hold a commit back.
//!
//! Here: appending, what is due to which platform, what became of it, what is kept how long. Not here: HTTP,
//! back-off, what a platform's answer means (`sink`), what raises an event (`picture`).
//!
//! Invariants: an acknowledged append is on disk. An event is never in flight twice at once to one platform. Pending
//! and parked events are never deleted.

mod changes;
mod error;
mod queue;
mod reader;
mod retention;
mod store;
mod upkeep;
mod writer;

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::event::{Delivery, Event};
use crate::ids::EventId;
use crate::ledger;
use changes::Changes;
pub use error::{OpenError, OutboxError};
use queue::{Queue, Work};
use reader::Query;
pub use retention::Retention;

/// File name in the state directory.
const FILE: &str = "events.db";
/// Queries waiting for the reading thread; a further one waits.
const QUERIES_MAX: usize = 64;

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    New,
    /// The same event was already there, under this id; nothing was written.
    Again(EventId),
}

/// An event to deliver now. Who got it from [`Outbox::due`] reports its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub event: Event,
    /// Attempts so far.
    pub attempts: u32,
}

/// An event and how far it is on its way to each platform.
pub type Recorded = (Event, Vec<Delivery>);

/// What a platform has to get.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// Safety events first, then by id; they are in flight until reported.
    pub now: Vec<Pending>,
    /// Events that cannot be read from disk, and why; in flight too: park them.
    pub unreadable: Vec<(EventId, String)>,
    /// When the next of the others is due, ms since 1970 UTC.
    pub next_ms: Option<i64>,
}

impl Due {
    fn ids(&self) -> impl Iterator<Item = EventId> {
        let unreadable = self.unreadable.iter().map(|(id, _)| *id);
        self.now.iter().map(|p| p.event.id).chain(unreadable)
    }
}

/// What became of one attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Not before `ms` since 1970 UTC.
    RetryAt {
        ms: i64,
        error: String,
    },
    /// The platform refused it: an operator has to look.
    Parked {
        error: String,
    },
}

/// One platform as the outbox sees it.
pub(super) struct Lane {
    name: Arc<str>,
    /// Event kinds it gets; empty: all.
    kinds: Vec<String>,
    in_flight: Mutex<HashSet<EventId>>,
    notify: Notify,
}

impl Lane {
    fn wants(&self, event: &Event) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&event.kind)
    }
}

/// What the threads and the handles share.
pub(super) struct Shared {
    path: PathBuf,
    lanes: Vec<Lane>,
    queue: Queue,
    changes: Changes,
    /// Why the last commit failed; None: it did not.
    fault: Mutex<Option<String>>,
}

impl Shared {
    fn lane(&self, platform: &str) -> Option<&Lane> {
        self.lanes.iter().find(|l| &*l.name == platform)
    }
}

/// Handle to the outbox; all clones are one outbox.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// None: closed.
    queries: Mutex<Option<mpsc::Sender<Query>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held while open: one gateway per state directory.
    _lock: std::fs::File,
}

/// Settings that only tests change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub retention: Retention,
    /// Most pages of the database, as if the disk were that small.
    pub pages_max: Option<u32>,
}

impl Outbox {
    /// Opens or makes `events.db` in `state_dir` and starts its threads. `platforms`: name and the event kinds it
    /// gets (empty: all). A platform gets the events raised while it is configured; one that left the configuration
    /// keeps its rows and nothing of it is due.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be opened, is damaged, in use, or newer than this program.
    pub fn open(state_dir: &Path, platforms: &[(String, Vec<String>)]) -> Result<Self, OpenError> {
        Self::open_with(state_dir, platforms, Options::default())
    }

    fn open_with(
        state_dir: &Path,
        platforms: &[(String, Vec<String>)],
        options: Options,
    ) -> Result<Self, OpenError> {
        let path = state_dir.join(FILE);
        let lock = lock(state_dir)?;
        let store = store::Store::open(&path, options.pages_max)?;
        let reading = store::Store::open(&path, None)?;
        let checkpoints = store::Store::open(&path, None)?;
        let lanes = platforms
            .iter()
            .map(|(name, kinds)| Lane {
                name: name.as_str().into(),
                kinds: kinds.clone(),
                in_flight: Mutex::default(),
                notify: Notify::new(),
            })
            .collect();
        let shared = Arc::new(Shared {
            path: path.clone(),
            lanes,
            queue: Queue::new(),
            changes: Changes::default(),
            fault: Mutex::default(),
        });
        for lane in &shared.lanes {
            let n = store
                .pending_count(&lane.name)
                .map_err(|source| OpenError::Database {
                    path: path.clone(),
                    source,
                })?;
            ledger::EVENTS.take(n.into());
            writer::backlog(&lane.name).set(n.into());
            lane.notify.notify_one();
        }
        let (queries, take_queries) = mpsc::channel(QUERIES_MAX);
        let (nudge, nudged) = std::sync::mpsc::sync_channel(1);
        let inner = Inner {
            shared: shared.clone(),
            queries: Mutex::new(Some(queries)),
            threads: Mutex::default(),
            _lock: lock,
        };
        inner.spawn("outbox-write", {
            let shared = shared.clone();
            move || writer::run(store, &shared, options.retention, &nudge)
        })?;
        inner.spawn("outbox-read", {
            let shared = shared.clone();
            move || reader::run(&reading, &shared, take_queries)
        })?;
        inner.spawn("outbox-upkeep", move || {
            upkeep::run(&checkpoints, &nudged);
        })?;
        Ok(Self(Arc::new(inner)))
    }

    /// Writes the event; returns when it is on disk. Waits while the queue is full. Dropping the future does not take
    /// the event back.
    ///
    /// # Errors
    /// [`OutboxError::Full`] when the disk did not take it: nothing of the event is kept.
    pub async fn append(&self, event: Event) -> Result<Appended, OutboxError> {
        let (reply, answer) = oneshot::channel();
        let lane = event.priority;
        let event = Box::new(event);
        self.0
            .shared
            .queue
            .push(lane.into(), Work::Append { event, reply })
            .await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// What `platform` has to get at `now_ms`, at most `limit`. Meant for one task per platform.
    ///
    /// # Errors
    /// [`OutboxError::Unreadable`], [`OutboxError::Closed`].
    pub async fn due(&self, platform: &str, now_ms: i64, limit: usize) -> Result<Due, OutboxError> {
        let (reply, answer) = oneshot::channel();
        let platform = platform.to_owned();
        self.query(Query::Due {
            platform,
            now_ms,
            limit,
            reply,
        })
        .await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// Says what became of an event taken from [`Self::due`]. When the disk does not take it, the outcome is kept in
    /// memory and written as soon as there is space.
    pub async fn report(&self, event: EventId, platform: &str, outcome: Outcome) {
        let (reply, answer) = oneshot::channel();
        let work = Work::Report {
            event,
            platform: platform.to_owned(),
            outcome,
            reply: Some(reply),
        };
        if self
            .0
            .shared
            .queue
            .push(queue::Kind::Other, work)
            .await
            .is_ok()
        {
            // A closed outbox answers nothing; the event is then delivered again after the restart.
            answer.await.unwrap_or_default();
        }
    }

    /// Returns when something new may be due to `platform` since the last call. For a platform that is not configured
    /// it never does.
    pub async fn wake(&self, platform: &str) {
        match self.0.shared.lane(platform) {
            Some(lane) => lane.notify.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The newest events, newest first, at most `limit`, older than `before` if given, and how far each one is.
    ///
    /// # Errors
    /// [`OutboxError::Unreadable`], [`OutboxError::Closed`].
    pub async fn recent(
        &self,
        limit: usize,
        before: Option<EventId>,
    ) -> Result<Vec<Recorded>, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.query(Query::Recent {
            limit,
            before,
            reply,
        })
        .await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// One event, if it is still kept.
    ///
    /// # Errors
    /// As [`Self::recent`].
    pub async fn event(&self, id: EventId) -> Result<Option<Event>, OutboxError> {
        // Ids grow: it is the newest one before the id behind it.
        let behind = EventId::from_u128(id.as_u128().saturating_add(1));
        let newest = self.recent(1, Some(behind)).await?.pop();
        Ok(newest.map(|(e, _)| e).filter(|e| e.id == id))
    }

    /// A parked event becomes pending again. False: it is not parked there, or the platform is not configured.
    ///
    /// # Errors
    /// [`OutboxError::Full`], [`OutboxError::Closed`].
    pub async fn retry(&self, event: EventId, platform: &str) -> Result<bool, OutboxError> {
        if self.0.shared.lane(platform).is_none() {
            return Ok(false);
        }
        let (reply, answer) = oneshot::channel();
        let platform = platform.to_owned();
        let work = Work::Retry {
            event,
            platform,
            reply,
        };
        self.0.shared.queue.push(queue::Kind::Other, work).await?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// Deliveries that changed since the last call, each once with its newest state; waits for at least one. Meant for
    /// one task; who does not call costs nothing (the 4,096 newest are kept).
    pub async fn changes(&self) -> Vec<(EventId, Delivery)> {
        self.0.shared.changes.take().await
    }

    /// Why events cannot be written right now; None: they can. Turns back by itself.
    pub fn fault(&self) -> Option<String> {
        self.0.shared.fault.lock().clone()
    }

    /// Writes what is queued, folds the log into the database, ends the threads.
    pub async fn close(&self) {
        let inner = self.0.clone();
        if let Err(e) = tokio::task::spawn_blocking(move || inner.close()).await {
            tracing::error!(error = %e, "the outbox could not be closed");
        }
    }

    async fn query(&self, query: Query) -> Result<(), OutboxError> {
        let queries = self.0.queries.lock().clone();
        match queries {
            Some(queries) => queries.send(query).await.map_err(|_| OutboxError::Closed),
            None => Err(OutboxError::Closed),
        }
    }
}

impl Inner {
    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(OpenError::Thread)?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn close(&self) {
        self.shared.queue.close();
        self.queries.lock().take();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the outbox had panicked");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// One gateway per state directory: two would deliver everything twice.
/// How long a start waits for another gateway on the same state directory to be gone.
const LOCK_WAIT: Duration = Duration::from_secs(1);

fn lock(state_dir: &Path) -> Result<std::fs::File, OpenError> {
    let path = state_dir.join("events.lock");
    let file = std::fs::File::create(&path).map_err(|source| OpenError::File {
        path: path.clone(),
        source,
    })?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A gateway that was killed a moment ago may still be going.
            Err(std::fs::TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(OpenError::File { path, source });
            }
        }
    }
}
