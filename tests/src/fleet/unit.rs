//! The life of one device: connect, move, report, call for help, answer; and send a call again until it is acknowledged.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::link::{Happened, Link, Target, Version};
use super::motion::{Moment, Walker};
use super::{Counters, Device, Kind, dji, halted, json};

/// When a body camera calls for help.
#[derive(Clone, Copy, Debug)]
pub(super) struct SosPlan {
    pub first: Duration,
    pub every: Duration,
}

pub(super) struct Plan {
    pub device: Device,
    pub broker: String,
    pub version: Version,
    pub walker: Walker,
    pub every: Duration,
    /// Where in the period it reports, 0 to 1: not all at the same instant.
    pub phase: f64,
    pub sos: Option<SosPlan>,
}

/// A call for help that is not acknowledged yet.
struct Call {
    id: String,
    payload: Vec<u8>,
    /// Number of the message on the present connection, if it was sent on it.
    sent_as: Option<u64>,
}

pub(super) async fn live(plan: Plan, counters: Arc<Counters>, mut stopping: watch::Receiver<bool>) {
    let Plan {
        device,
        broker,
        version,
        mut walker,
        every,
        phase,
        sos,
    } = plan;
    let target = Target {
        broker,
        user: device.id.clone(),
        password: device.password.clone(),
        client_id: format!("{}-sim", device.id),
        version,
    };
    let (link, mut events) = match Link::open(&target, stopping.clone()) {
        Ok(opened) => opened,
        Err(fault) => return tracing::error!(device = %device.id, %fault, "cannot connect"),
    };
    let mut unit = Unit {
        device,
        link,
        counters,
        calls: Vec::new(),
        up: false,
        topo: None,
        told: HashSet::new(),
    };
    let started = Instant::now();
    let mut ticks = tokio::time::interval_at(started + every.mul_f64(phase), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut next_sos = sos.map(|plan| started + plan.first);
    let mut serial = 0u64;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                serial += 1;
                let moment = walker.step(every.as_secs_f64());
                unit.report(&moment, serial);
                unit.send_calls();
                if let (Some(due), Some(plan)) = (next_sos, sos) && Instant::now() >= due {
                    unit.call(&moment);
                    next_sos = Some(due + plan.every);
                }
            }
            happened = events.recv() => match happened {
                Some(happened) => unit.handle(happened),
                None => return,
            },
            () = halted(&mut stopping) => {
                unit.link.close();
                while events.recv().await.is_some() {}
                return;
            }
        }
    }
}

struct Unit {
    device: Device,
    link: Link,
    counters: Arc<Counters>,
    calls: Vec<Call>,
    up: bool,
    /// Transaction of our update_topo until it is answered.
    topo: Option<String>,
    /// Reasons already logged, so that a fault is told once.
    told: HashSet<String>,
}

impl Unit {
    fn report(&mut self, moment: &Moment, serial: u64) {
        let now_ms = wallclock_ms();
        let id = &self.device.id;
        let sent = if self.device.kind == Kind::Drone {
            let tid = format!("{id}-{serial}");
            if serial % 30 == 1 {
                self.count(self.link.publish(
                    &dji::state_topic(id),
                    dji::state(&self.device, &tid, now_ms),
                ));
            }
            self.link.publish(
                &dji::osd_topic(id),
                dji::osd(&self.device, moment, &tid, now_ms),
            )
        } else {
            self.link.publish(
                &json::report_topic(id),
                json::report(&self.device, moment, now_ms),
            )
        };
        self.count(sent);
    }

    fn count(&self, sent: Option<u64>) {
        let counter = if sent.is_some() {
            &self.counters.published
        } else {
            &self.counters.unsent
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A new call for help.
    fn call(&mut self, moment: &Moment) {
        let now_ms = wallclock_ms();
        let id = format!("{}-{now_ms}", self.device.id);
        let payload = json::sos(&self.device, moment, &id, now_ms);
        tracing::info!(device = %self.device.id, sos = %id, "calls for help");
        self.counters.sos_sent.fetch_add(1, Ordering::Relaxed);
        self.calls.push(Call {
            id,
            payload,
            sent_as: None,
        });
        self.send_calls();
    }

    fn send_calls(&mut self) {
        let topic = json::sos_topic(&self.device.id);
        for call in self.calls.iter_mut().filter(|call| call.sent_as.is_none()) {
            call.sent_as = self.link.publish(&topic, call.payload.clone());
            if call.sent_as.is_some() {
                self.counters.published.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Up => self.connected(),
            Happened::Down { reason } => {
                if self.up {
                    self.counters.connected.fetch_sub(1, Ordering::Relaxed);
                    self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                self.up = false;
                if self.told.len() < 16 && self.told.insert(reason.clone()) {
                    tracing::warn!(device = %self.device.id, %reason, "connection lost");
                }
                for call in &mut self.calls {
                    call.sent_as = None;
                }
            }
            Happened::Acknowledged(number) => {
                self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                let before = self.calls.len();
                self.calls.retain(|call| call.sent_as != Some(number));
                let done = (before - self.calls.len()) as u64;
                self.counters
                    .sos_acknowledged
                    .fetch_add(done, Ordering::Relaxed);
            }
            Happened::Refused(number, reason) => {
                tracing::warn!(device = %self.device.id, %reason, "message refused");
                for call in self
                    .calls
                    .iter_mut()
                    .filter(|call| call.sent_as == Some(number))
                {
                    tracing::warn!(sos = %call.id, "call for help refused, is sent again");
                    call.sent_as = None;
                }
            }
            Happened::Message { payload, topic } => {
                self.counters.downlinks.fetch_add(1, Ordering::Relaxed);
                if self
                    .topo
                    .as_deref()
                    .is_some_and(|tid| dji::accepts(&payload, tid))
                {
                    self.topo = None;
                    tracing::debug!(device = %self.device.id, "topology accepted");
                }
                if topic.ends_with("/down/order")
                    && let Some(answer) = json::answer(&payload)
                {
                    self.count(self.link.publish(&json::ack_topic(&self.device.id), answer));
                }
            }
        }
    }

    fn connected(&mut self) {
        self.up = true;
        self.told.clear();
        self.counters.connected.fetch_add(1, Ordering::Relaxed);
        let id = &self.device.id;
        if self.device.kind == Kind::Drone {
            for filter in dji::down_filters(id) {
                self.link.subscribe(&filter);
            }
            let now_ms = wallclock_ms();
            let tid = format!("{id}-topo-{now_ms}");
            self.count(self.link.publish(
                &dji::status_topic(id),
                dji::update_topo(&self.device, &tid, now_ms),
            ));
            self.topo = Some(tid);
            self.count(
                self.link
                    .publish(&dji::events_topic(id), dji::hms(&self.device, now_ms)),
            );
        } else {
            self.link.subscribe(&json::down_filter(id));
        }
        self.send_calls();
    }
}

pub(super) fn wallclock_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
