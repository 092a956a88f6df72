//! The picture's actor: reads the clock, hands facts to the state, lets the outbox own what was raised.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use actix::fut::{self, WrapFuture};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture};
use prometheus::{IntCounterVec, IntGaugeVec};

use super::feed::Feed;
use super::raise::Raised;
use super::state::{Effects, State};
use super::{Fact, NotOwned, Told};
use crate::clock::Now;
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
/// Facts that wait; then whoever tells the next one waits.
const MAILBOX: usize = 256;

/// A fact on its way to the picture.
pub struct Tell(pub Fact);

impl Message for Tell {
    type Result = Result<Told, NotOwned>;
}

pub struct PictureActor {
    state: State,
    feed: Arc<Feed>,
    outbox: Outbox,
    /// Events of our own (a stream lost, a device silent) that the outbox could not take: nobody would say them
    /// again, so they are tried again at each tick. Their latches stay closed, which bounds their number.
    unowned: Vec<Raised>,
    retrying: bool,
    /// When a rule's failure was last logged.
    logged: HashMap<u16, Instant>,
}

impl PictureActor {
    pub fn new(state: State, feed: Arc<Feed>, outbox: Outbox) -> Self {
        Self {
            state,
            feed,
            outbox,
            unowned: Vec::new(),
            retrying: false,
            logged: HashMap::new(),
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
        fx.raised
    }

    fn conclude(&mut self, outcomes: Vec<Outcome>) -> Result<Told, NotOwned> {
        let mut fx = Effects::default();
        let mut told = Told::default();
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

    fn tick(&mut self, raised: Vec<Raised>, ctx: &mut Context<Self>) {
        self.unowned.extend(raised);
        for (freshness, n) in self.state.census() {
            DEVICES.with_label_values(&[freshness.name()]).set(n);
        }
        if self.unowned.is_empty() || self.retrying {
            return;
        }
        self.retrying = true;
        let owned = append(self.outbox.clone(), std::mem::take(&mut self.unowned)).into_actor(self);
        ctx.spawn(owned.map(|outcomes, me, _| {
            me.retrying = false;
            // Refused ones are back in `unowned`.
            drop(me.conclude(outcomes));
        }));
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

impl Actor for PictureActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Tell> for PictureActor {
    type Result = ResponseActFuture<Self, Result<Told, NotOwned>>;

    fn handle(&mut self, Tell(fact): Tell, ctx: &mut Self::Context) -> Self::Result {
        let is_tick = matches!(fact, Fact::Tick);
        let raised = self.apply(fact);
        if is_tick {
            self.tick(raised, ctx);
            return Box::pin(fut::ready(Ok(Told::default())));
        }
        if raised.is_empty() {
            return Box::pin(fut::ready(Ok(Told::default())));
        }
        let owned = append(self.outbox.clone(), raised).into_actor(self);
        Box::pin(owned.map(|outcomes, me, _| me.conclude(outcomes)))
    }
}

#[cfg(test)]
mod tests;
