//! The writing thread: takes what waits, commits it as one group, then answers. Alone in writing.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};
use rusqlite::TransactionBehavior;

use super::queue::{Work, answer};
use super::retention::{Pass, Retention};
use super::store::Store;
use super::{Appended, Lane, OutboxError, Outcome, Shared};
use crate::clock::unix_ms;
use crate::event::{Delivery, DeliveryState};
use crate::ids::EventId;
use crate::{ledger, metrics};

/// Most pieces of work in one commit.
const GROUP_MAX: usize = 256;
/// Commits between two nudges for a checkpoint.
const COMMITS_PER_CHECKPOINT: u32 = 64;
/// Outcomes kept in memory while the disk does not take them; further ones hold their reporter.
const UNSAVED_MAX: usize = 10_000;
/// How often a disk that refused is tried, and how often retention makes a step.
const TICK: Duration = Duration::from_secs(1);
/// Between two walks over the old events.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);

static COMMIT: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_s(
        "kerbside_outbox_commit_seconds",
        "Time of one group commit, fsync included",
        &[],
    )
});
static APPENDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_outbox_appends_total",
        "Events brought to the outbox: new, again (known already), refused (not written)",
        &["result"],
    )
});
static DELETED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_outbox_deleted_total",
        "Delivered events deleted by retention",
        &[],
    )
});
static BACKLOG: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_sink_backlog",
        "Events that the platform still has to get",
        &["platform"],
    )
});

/// Events that `platform` still has to get.
pub(super) fn backlog(platform: &str) -> IntGauge {
    BACKLOG.with_label_values(&[platform])
}

/// What a committed piece of work did.
enum Done {
    Append(Appended),
    Report(Option<Delivery>),
    Retry(Option<Delivery>),
}

pub(super) fn run(store: Store, shared: &Shared, keep: Retention, checkpoint: &SyncSender<()>) {
    let mut writer = Writer {
        store,
        shared,
        checkpoint,
        commits: 0,
        refused: 0,
        unsaved: VecDeque::new(),
        next_tick: Instant::now(),
        retention: Instant::now(),
        pass: None,
        keep,
    };
    let mut batch = Vec::with_capacity(GROUP_MAX);
    while shared.queue.take(&mut batch, GROUP_MAX, writer.wait()) {
        let idle = batch.is_empty();
        writer.group(&mut batch);
        writer.tick(idle);
    }
    writer.group(&mut batch);
    if !writer.unsaved.is_empty() {
        tracing::warn!(
            outcomes = writer.unsaved.len(),
            "the disk did not take what became of these events; they are delivered again after the start"
        );
    }
}

struct Writer<'a> {
    store: Store,
    shared: &'a Shared,
    checkpoint: &'a SyncSender<()>,
    commits: u32,
    /// Events refused since the disk stopped taking them.
    refused: u64,
    /// Outcomes that the disk did not take yet.
    unsaved: VecDeque<Work>,
    next_tick: Instant,
    /// When the next retention pass begins.
    retention: Instant,
    pass: Option<Pass>,
    keep: Retention,
}

impl Writer<'_> {
    fn wait(&self) -> Duration {
        if self.pass.is_some() {
            Duration::ZERO
        } else {
            TICK
        }
    }

    /// Commits `batch` and what is still unsaved; then answers. Leaves `batch` empty.
    fn group(&mut self, batch: &mut Vec<Work>) {
        batch.extend(self.unsaved.drain(..));
        if batch.is_empty() {
            return;
        }
        if let Err(e) = self.commit_and_answer(batch) {
            self.failed(&e);
            let (mut outcomes, refused): (Vec<_>, Vec<_>) = batch
                .drain(..)
                .partition(|w| matches!(w, Work::Report { .. }));
            self.refuse(refused, &e);
            // Outcomes rewrite rows that are there already: they may find room where events do not.
            if !outcomes.is_empty() && self.commit_and_answer(&mut outcomes).is_err() {
                self.keep_unsaved(outcomes);
            }
        }
    }

    fn commit_and_answer(&mut self, batch: &mut Vec<Work>) -> rusqlite::Result<()> {
        let started = Instant::now();
        let done = self.commit(batch)?;
        COMMIT
            .with_label_values(&[] as &[&str])
            .observe(started.elapsed().as_secs_f64());
        if done
            .iter()
            .any(|d| matches!(d, Done::Append(Appended::New)))
        {
            self.healthy();
        }
        for (work, done) in batch.drain(..).zip(done) {
            self.tell(work, done);
        }
        self.commits += 1;
        if self.commits >= COMMITS_PER_CHECKPOINT {
            self.commits = 0;
            self.nudge();
        }
        Ok(())
    }

    fn commit(&self, batch: &[Work]) -> rusqlite::Result<Vec<Done>> {
        // Unchecked: no other transaction is open on this connection; the store's methods work inside this one.
        let tx =
            rusqlite::Transaction::new_unchecked(&self.store.db, TransactionBehavior::Immediate)?;
        let now_ms = unix_ms();
        let mut done = Vec::with_capacity(batch.len());
        for work in batch {
            done.push(match work {
                Work::Append { event, .. } => {
                    let lanes = self.shared.lanes.iter().filter(|l| l.wants(event));
                    Done::Append(self.store.insert(event, lanes.map(|l| &*l.name), now_ms)?)
                }
                Work::Report {
                    event,
                    platform,
                    outcome,
                    ..
                } => Done::Report(self.store.settle(*event, platform, outcome, now_ms)?),
                Work::Retry {
                    event, platform, ..
                } => Done::Retry(self.store.unpark(*event, platform, now_ms)?),
            });
        }
        tx.commit()?;
        Ok(done)
    }

    /// Tells the one who asked, the sinks, the screens and the ledger.
    fn tell(&self, work: Work, done: Done) {
        match (work, done) {
            (Work::Append { event, reply }, Done::Append(appended)) => {
                match appended {
                    Appended::New => {
                        APPENDS.with_label_values(&["new"]).inc();
                        for lane in self.shared.lanes.iter().filter(|l| l.wants(&event)) {
                            self.pending(lane);
                            self.shared
                                .changes
                                .put(event.id, lane.name.clone(), waiting(lane));
                        }
                    }
                    Appended::Again(_) => APPENDS.with_label_values(&["again"]).inc(),
                }
                answer(reply, Ok(appended));
            }
            (
                Work::Report {
                    event,
                    platform,
                    outcome,
                    reply,
                },
                Done::Report(delivery),
            ) => {
                if delivery.is_some() {
                    account(&platform, &outcome);
                }
                self.changed(event, &platform, delivery);
                if let Some(lane) = self.shared.lane(&platform) {
                    lane.in_flight.lock().remove(&event);
                    lane.notify.notify_one();
                }
                if let Some(reply) = reply {
                    answer(reply, ());
                }
            }
            (
                Work::Retry {
                    event,
                    platform,
                    reply,
                },
                Done::Retry(delivery),
            ) => {
                let found = delivery.is_some();
                if found && let Some(lane) = self.shared.lane(&platform) {
                    self.pending(lane);
                }
                self.changed(event, &platform, delivery);
                answer(reply, Ok(found));
            }
            _ => tracing::error!("a commit's results do not match its work"),
        }
    }

    fn pending(&self, lane: &Lane) {
        ledger::EVENTS.take(1);
        backlog(&lane.name).inc();
        lane.notify.notify_one();
    }

    fn changed(&self, event: EventId, platform: &str, delivery: Option<Delivery>) {
        if let Some(delivery) = delivery
            && let Some(lane) = self.shared.lane(platform)
        {
            self.shared.changes.put(event, lane.name.clone(), delivery);
        }
    }

    /// Answers what is not on disk.
    fn refuse(&mut self, refused: Vec<Work>, e: &rusqlite::Error) {
        for work in refused {
            match work {
                Work::Append { reply, .. } => {
                    APPENDS.with_label_values(&["refused"]).inc();
                    self.refused += 1;
                    answer(reply, Err(OutboxError::Full(e.to_string())));
                }
                Work::Retry { reply, .. } => {
                    answer(reply, Err(OutboxError::Full(e.to_string())));
                }
                Work::Report { .. } => self.unsaved.push_back(work),
            }
        }
    }

    /// Keeps outcomes for the next try. Their events stay in flight; their reporters go on, up to a limit.
    fn keep_unsaved(&mut self, outcomes: Vec<Work>) {
        for mut work in outcomes {
            if self.unsaved.len() < UNSAVED_MAX
                && let Work::Report { reply, .. } = &mut work
                && let Some(reply) = reply.take()
            {
                answer(reply, ());
            }
            self.unsaved.push_back(work);
        }
    }

    fn failed(&mut self, e: &rusqlite::Error) {
        let mut fault = self.shared.fault.lock();
        if fault.is_none() {
            self.refused = 0;
            tracing::error!(error = %e, path = %self.shared.path.display(), "the outbox cannot write: events are refused, devices will send them again; free space on this disk");
        }
        *fault = Some(e.to_string());
    }

    fn healthy(&mut self) {
        if self.shared.fault.lock().take().is_some() {
            tracing::info!(refused = self.refused, "the outbox writes again");
        }
    }

    /// Looks after a disk that refused, and after old events; `idle`: nothing waited.
    fn tick(&mut self, idle: bool) {
        let now = Instant::now();
        if !idle && now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        if self.shared.fault.lock().is_some() {
            match self.store.probe_space() {
                Ok(()) => self.healthy(),
                Err(e) => self.failed(&e),
            }
            return;
        }
        if self.pass.is_none() && self.retention <= now {
            self.retention = now + RETENTION_EVERY;
            match Pass::begin(&self.store.db) {
                Ok(pass) => self.pass = Some(pass),
                Err(e) => {
                    tracing::warn!(error = %e, "old events could not be counted; tried again in an hour");
                }
            }
        }
        if let Some(pass) = &mut self.pass {
            match pass.step(&mut self.store.db, self.keep, unix_ms()) {
                Ok(step) => {
                    DELETED
                        .with_label_values(&[] as &[&str])
                        .inc_by(step.deleted);
                    if step.over {
                        self.pass = None;
                        self.nudge();
                    }
                }
                Err(e) => {
                    self.pass = None;
                    tracing::warn!(error = %e, "old events could not be deleted; tried again in an hour");
                }
            }
        }
    }

    /// Asks for a checkpoint; one that is asked for already is enough.
    fn nudge(&self) {
        match self.checkpoint.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                tracing::error!(
                    "the outbox's checkpoint thread is gone; its log grows until the gateway starts again"
                );
            }
        }
    }
}

/// The ledger's and the backlog's view of an outcome.
fn account(platform: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Delivered => ledger::EVENTS.delivered(1),
        Outcome::Parked { .. } => ledger::EVENTS.shed("parked", 1),
        Outcome::RetryAt { .. } => return,
    }
    backlog(platform).dec();
}

/// What screens see of an event that no platform was asked about yet.
fn waiting(lane: &Lane) -> Delivery {
    Delivery {
        platform: lane.name.to_string(),
        state: DeliveryState::Pending,
        attempts: 0,
        error: None,
        updated_ms: unix_ms(),
    }
}
