//! The picture's two hands. [`Core`] reads the clock and hands facts to the state, at once and on the thread of who tells
//! them: most facts raise nothing, and need no message, no queue and no waiting. [`PictureActor`] lets the outbox own
//! what was raised, and does not give that up when who told the fact is gone.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture};
use prometheus::{IntCounterVec, IntGaugeVec};

use super::feed::Feed;
use super::raise::Raised;
use super::state::{Effects, State};
use super::{Fact, NotOwned};
use crate::clock::Now;
use crate::history::History;
use crate::metrics;
use crate::outbox::{Appended, Outbox, OutboxError};

static POSITIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_picture_positions_total",
        "Positions by what became of them: moved, held (a jump, until a second one agrees), stale (older than what is known)",
        &["outcome"],
    )
});
static RAISED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_events_raised_total",
        "Events by what became of them: new, again (sent twice), refused (the outbox could not take them)",
        &["kind", "outcome"],
    )
});
static FAILED_RULES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_rule_failures_total",
        "Rules that could not be evaluated",
        &["rule"],
    )
});
static DEVICES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_devices",
        "Tracks of the picture by the freshness of their position; several devices of one person are one track",
        &["state"],
    )
});

/// A rule that fails says so once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Events that wait to be owned; then whoever raises the next one waits.
const MAILBOX: usize = 256;

/// The state and what belongs to it. A panic in here poisons it: the picture is gone then, and the process ends.
pub struct Core {
    state: State,
    feed: Arc<Feed>,
    history: Option<History>,
    /// Events of our own (a stream lost, a device silent) that the outbox could not take: nobody would say them
    /// again, so they are tried again at each tick. Their latches stay closed, which bounds their number.
    unowned: Vec<Raised>,
    retrying: bool,
    /// When a rule's failure was last logged.
    logged: HashMap<u16, Instant>,
}

/// The core, shared by the actor and everybody who tells facts.
pub type Shared = Arc<Mutex<Core>>;

/// What is to be done about a fact.
pub enum Told {
    /// Nothing.
    Owned,
    /// The outbox has to own what it raised.
    Raised(Vec<Raised>),
    /// Our own events have to be tried again.
    Retry(Vec<Raised>),
}

impl Core {
    pub fn new(state: State, feed: Arc<Feed>, history: Option<History>) -> Self {
        Self {
            state,
            feed,
            history,
            unowned: Vec::new(),
            retrying: false,
            logged: HashMap::new(),
        }
    }

    /// Moves the picture by one fact.
    pub fn tell(&mut self, fact: Fact) -> Told {
        let is_tick = matches!(fact, Fact::Tick);
        let raised = self.apply(fact);
        if is_tick {
            return self.tick(raised);
        }
        if raised.is_empty() {
            Told::Owned
        } else {
            Told::Raised(raised)
        }
    }

    fn apply(&mut self, fact: Fact) -> Vec<Raised> {
        let now = Now::read();
        let fx = self.state.apply(fact, now);
        if let Some(outcome) = fx.position {
            POSITIONS.with_label_values(&[outcome]).inc();
        }
        for (rule, reason) in &fx.failed_rules {
            let name = self.state.rule_name(*rule);
            FAILED_RULES.with_label_values(&[name]).inc();
            let last = self.logged.get(rule);
            if last.is_none_or(|t| now.mono.saturating_duration_since(*t) >= LOG_INTERVAL) {
                tracing::warn!(
                    rule = name,
                    reason,
                    "a rule could not be evaluated; correct it in rules.toml"
                );
                self.logged.insert(*rule, now.mono);
            }
        }
        self.feed.publish(fx.changes);
        if let Some(history) = &self.history {
            history.put(fx.points);
        }
        fx.raised
    }

    fn conclude(&mut self, outcomes: Vec<Outcome>) -> Result<super::Told, NotOwned> {
        let mut fx = Effects::default();
        let mut told = super::Told::default();
        let mut refused = None;
        for (raised, answer) in outcomes {
            let outcome = match &answer {
                Ok(Appended::New) => {
                    told.raised.push(raised.event.id);
                    "new"
                }
                Ok(Appended::Again(_)) => "again",
                Err(_) => "refused",
            };
            RAISED
                .with_label_values(&[raised.event.kind.as_str(), outcome])
                .inc();
            match answer {
                Err(_) if !raised.is_said => self.unowned.push(raised),
                Err(e) => {
                    self.state.conclude(raised, None, &mut fx);
                    refused = Some(e);
                }
                Ok(appended) => self.state.conclude(raised, Some(&appended), &mut fx),
            }
        }
        self.feed.publish(fx.changes);
        refused.map_or(Ok(told), |e| Err(NotOwned::Outbox(e)))
    }

    fn tick(&mut self, raised: Vec<Raised>) -> Told {
        self.unowned.extend(raised);
        for (freshness, n) in self.state.census() {
            DEVICES.with_label_values(&[freshness.name()]).set(n);
        }
        if self.unowned.is_empty() || self.retrying {
            return Told::Owned;
        }
        self.retrying = true;
        Told::Retry(std::mem::take(&mut self.unowned))
    }
}

type Outcome = (Raised, Result<Appended, OutboxError>);

/// All of them, one after the other; not given up when whoever told the fact is gone.
async fn append(outbox: Outbox, raised: Vec<Raised>) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(raised.len());
    for r in raised {
        let answer = outbox.append(r.event.clone()).await;
        outcomes.push((r, answer));
    }
    outcomes
}

/// Stands between the core and the outbox.
pub struct PictureActor {
    pub core: Shared,
    pub outbox: Outbox,
}

impl PictureActor {
    fn lock(&self) -> Result<MutexGuard<'_, Core>, NotOwned> {
        self.core.lock().map_err(|_| NotOwned::Stopped)
    }
}

impl Actor for PictureActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

/// Events that a fact raised, to be owned before it is acknowledged.
pub struct Own(pub Vec<Raised>);

impl Message for Own {
    type Result = Result<super::Told, NotOwned>;
}

impl Handler<Own> for PictureActor {
    type Result = ResponseActFuture<Self, Result<super::Told, NotOwned>>;

    fn handle(&mut self, Own(raised): Own, _: &mut Self::Context) -> Self::Result {
        let owned = append(self.outbox.clone(), raised).into_actor(self);
        Box::pin(owned.map(|outcomes, me, _| me.lock()?.conclude(outcomes)))
    }
}

/// Events of our own that are tried (again); nobody waits for them.
pub struct Retry(pub Vec<Raised>);

impl Message for Retry {
    type Result = ();
}

impl Handler<Retry> for PictureActor {
    type Result = ();

    fn handle(&mut self, Retry(raised): Retry, ctx: &mut Self::Context) {
        let owned = append(self.outbox.clone(), raised).into_actor(self);
        ctx.spawn(owned.map(|outcomes, me, _| {
            if let Ok(mut core) = me.lock() {
                core.retrying = false;
                // Refused ones are back in `unowned`.
                drop(core.conclude(outcomes));
            }
        }));
    }
}

#[cfg(test)]
mod tests;
