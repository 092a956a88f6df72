//! The loop of one platform: what is due goes out as far as the state has room, what came back is reported.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::client::Client;
use super::state::{Answer, Limits, State, Ticket, Turn, words};
use crate::clock::Now;
use crate::ids::EventId;
use crate::metrics;
use crate::outbox::{Outbox, Outcome, Pending};

/// Until the outbox is asked again after it could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

static ATTEMPTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_sink_attempts_total",
        "Requests sent to the platform",
        &["platform"],
    )
});
static DELIVERED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_sink_delivered_total",
        "Events that the platform acknowledged",
        &["platform"],
    )
});
static PARKED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_sink_parked_total",
        "Events that the platform refused; an operator has to look",
        &["platform"],
    )
});
static UP: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_sink_up",
        "1: the platform takes events; 0: it is down and tried now and then",
        &["platform"],
    )
});
static LATENCY: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_s(
        "kerbside_sink_delivery_seconds",
        "From the event raised to acknowledged by the platform",
        &["platform"],
    )
});

struct Meters {
    attempts: IntCounter,
    delivered: IntCounter,
    parked: IntCounter,
    up: IntGauge,
    latency: Histogram,
}

impl Meters {
    fn of(platform: &str) -> Self {
        let label = &[platform];
        Self {
            attempts: ATTEMPTS.with_label_values(label),
            delivered: DELIVERED.with_label_values(label),
            parked: PARKED.with_label_values(label),
            up: UP.with_label_values(label),
            latency: LATENCY.with_label_values(label),
        }
    }
}

type Finished = Result<(Id, Answer), JoinError>;

/// A request under way.
struct Sent {
    event: EventId,
    raised_ms: i64,
    attempts: u32,
    ticket: Ticket,
}

struct Sink {
    platform: String,
    state: State,
    client: Client,
    outbox: Outbox,
    meters: Meters,
    requests: JoinSet<Answer>,
    sent: HashMap<Id, Sent>,
    unreadable: bool,
}

pub async fn run(
    platform: String,
    limits: Limits,
    client: Client,
    outbox: Outbox,
    mut shutdown: watch::Receiver<bool>,
) {
    let meters = Meters::of(&platform);
    meters.up.set(1);
    let mut sink = Sink {
        platform,
        state: State::new(limits),
        client,
        outbox: outbox.clone(),
        meters,
        requests: JoinSet::new(),
        sent: HashMap::new(),
        unreadable: false,
    };
    let name = sink.platform.clone();
    let stop = async move {
        // An error is a sender that is gone: the gateway ends too.
        drop(shutdown.wait_for(|stop| *stop).await);
    };
    tokio::pin!(stop);
    loop {
        let poll_at = sink.start_due().await;
        let timer = async {
            match poll_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        // All cancel-safe: the set keeps its requests, the wake-up is kept by the outbox.
        let done = tokio::select! {
            () = &mut stop => break,
            Some(done) = sink.requests.join_next_with_id() => done,
            () = outbox.wake(&name) => continue,
            () = timer => continue,
        };
        sink.done(done).await;
    }
    while let Some(done) = sink.requests.join_next_with_id().await {
        sink.done(done).await;
    }
}

impl Sink {
    /// Starts what is due and has room. Returns when to look again if nothing happens.
    async fn start_due(&mut self) -> Option<Instant> {
        let now = Now::read();
        let room = self.state.room(now.mono);
        if room == 0 {
            return self.state.poll_at();
        }
        let due = match self.outbox.due(&self.platform, now.unix_ms, room).await {
            Ok(due) => due,
            Err(e) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    tracing::error!(platform = self.platform, error = %e, "deliveries wait until the outbox can be read");
                }
                return Some(now.mono + READ_AGAIN);
            }
        };
        if std::mem::replace(&mut self.unreadable, false) {
            tracing::info!(platform = self.platform, "the outbox can be read again");
        }
        for (event, error) in due.unreadable {
            tracing::error!(platform = self.platform, %event, error, "event parked");
            self.meters.parked.inc();
            self.outbox
                .report(event, &self.platform, Outcome::Parked { error })
                .await;
        }
        let full = due.now.len() >= room;
        for pending in due.now {
            self.send(pending);
        }
        let next = due.next_ms.filter(|_| !full)?;
        let wait = u64::try_from(next.saturating_sub(now.unix_ms)).unwrap_or(0);
        Some(now.mono + Duration::from_millis(wait))
    }

    fn send(&mut self, pending: Pending) {
        let Pending { event, attempts } = pending;
        self.meters.attempts.inc();
        let sent = Sent {
            event: event.id,
            raised_ms: event.raised_ms,
            attempts,
            ticket: self.state.start(),
        };
        let client = self.client.clone();
        let task = self
            .requests
            .spawn(async move { client.send(&event).await });
        self.sent.insert(task.id(), sent);
    }

    /// Reports this request and all others that are finished too: their outcomes share a commit.
    async fn done(&mut self, first: Finished) {
        let mut reports = Vec::new();
        let mut next = Some(first);
        while let Some(finished) = next {
            reports.extend(self.judge(finished));
            next = self.requests.try_join_next_with_id();
        }
        let (outbox, platform) = (&self.outbox, self.platform.as_str());
        join_all(
            reports
                .into_iter()
                .map(|(event, outcome)| outbox.report(event, platform, outcome)),
        )
        .await;
    }

    fn judge(&mut self, finished: Finished) -> Option<(EventId, Outcome)> {
        let (id, answer) = match finished {
            Ok(finished) => finished,
            Err(e) => (e.id(), Answer::Broken(format!("the request died: {e}"))),
        };
        let sent = self.sent.remove(&id)?;
        let now = Now::read();
        let dice = rand::random::<f64>();
        let verdict = self
            .state
            .handle_answer(sent.ticket, &answer, sent.attempts, now, dice);
        match &verdict.outcome {
            Outcome::Delivered => {
                self.meters.delivered.inc();
                let taken = now.unix_ms.saturating_sub(sent.raised_ms);
                let taken = Duration::from_millis(u64::try_from(taken).unwrap_or(0));
                self.meters.latency.observe(taken.as_secs_f64());
            }
            Outcome::Parked { error } => {
                self.meters.parked.inc();
                // Operators read it in the event; a platform that refuses everything must not fill the log.
                tracing::debug!(platform = self.platform, event = %sent.event, error, "event parked");
            }
            Outcome::RetryAt { .. } => {}
        }
        self.tell(verdict.turn, &answer);
        Some((sent.event, verdict.outcome))
    }

    fn tell(&self, turn: Option<Turn>, answer: &Answer) {
        match turn {
            Some(Turn::Down) => {
                self.meters.up.set(0);
                tracing::warn!(
                    platform = self.platform,
                    error = words(answer),
                    "the platform takes no events; they are kept, and one is tried now and then"
                );
            }
            Some(Turn::Up(after)) => {
                self.meters.up.set(1);
                tracing::info!(
                    platform = self.platform,
                    down_s = after.as_secs(),
                    "the platform takes events again"
                );
            }
            None => {}
        }
    }
}
