//! From the broker's messages to the devices' sessions, and back to its acknowledgements.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Publish, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::line::Said;
use super::session::{Outcome, Session};
use super::window::{Ticket, Window};
use super::{Broker, CONDITION, CONNECTED, CONNECTS, MESSAGES, SESSIONS, WINDOW_MAX};
use crate::clock::Now;
use crate::device::Uplink;
use crate::ids::DeviceId;
use crate::registry;

/// A device that says nothing for so long is away.
const SILENCE: Duration = Duration::from_secs(120);
const SWEEP: Duration = Duration::from_secs(1);
/// For what is under way when the gateway stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

struct Seat {
    messages: mpsc::Sender<(Ticket, Uplink)>,
    device: registry::Device,
    heard: Instant,
}

pub(super) struct Desk {
    broker: Broker,
    client: AsyncClient,
    line: JoinHandle<()>,
    stopping: watch::Sender<bool>,
    connected: watch::Sender<bool>,
    window: Window<Publish>,
    floor: Arc<AtomicU64>,
    /// Acknowledgements that did not fit into the client yet, in order; at most one window of them.
    acks: VecDeque<Publish>,
    subscribes: bool,
    /// The connection is being given up, so that the broker gives again what was refused.
    leaving: bool,
    seats: HashMap<DeviceId, Seat>,
    tasks: JoinSet<()>,
    outcomes: mpsc::Sender<(Ticket, Outcome)>,
    done: mpsc::Receiver<(Ticket, Outcome)>,
}

impl Desk {
    pub fn new(
        broker: Broker,
        client: AsyncClient,
        line: JoinHandle<()>,
        stopping: watch::Sender<bool>,
    ) -> Self {
        let (outcomes, done) = mpsc::channel(usize::from(WINDOW_MAX));
        Self {
            broker,
            client,
            line,
            stopping,
            connected: watch::Sender::new(false),
            window: Window::default(),
            floor: Arc::default(),
            acks: VecDeque::new(),
            subscribes: false,
            leaving: false,
            seats: HashMap::new(),
            tasks: JoinSet::new(),
            outcomes,
            done,
        }
    }

    pub async fn run(
        mut self,
        mut said: mpsc::Receiver<Said>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let c = &self.broker.config;
        tracing::info!(
            host = c.host,
            port = c.port,
            client_id = c.client_id,
            share = c.share,
            "devices come by a broker"
        );
        self.away("not connected yet");
        let mut revocations = self.broker.registry.revocations();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            self.flush();
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                Some((ticket, outcome)) = self.done.recv() => self.ended(ticket, outcome),
                Ok(()) = revocations.changed() => self.cut_revoked(),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Err(e) = ended {
                        tracing::error!(error = %e, "the session of a device behind the broker had died; its messages come again");
                        self.leaving = true;
                    }
                }
                _ = sweep.tick() => self.sweep(),
                what = said.recv(), if self.window.has_room() => match what {
                    Some(what) => self.hear(what),
                    None => break,
                },
            }
        }
        self.stop(said).await;
    }

    fn hear(&mut self, what: Said) {
        match what {
            Said::Message(p) => self.message(p),
            Said::Connected(ack) => self.connected(&ack),
            Said::Subscribed(ack) => self.subscribed(&ack),
            Said::Lost(why) => {
                if *self.connected.borrow() {
                    tracing::warn!(why, "the connection to the broker is gone");
                }
                self.reset();
                self.away(&why);
            }
        }
    }

    fn connected(&mut self, ack: &ConnAck) {
        self.reset();
        let known = if ack.session_present {
            "resumed"
        } else {
            "new"
        };
        CONNECTS.with_label_values(&[known]).inc();
        tracing::info!(session = known, "connected to the broker");
        self.subscribes = true;
        self.connected.send_replace(true);
        CONNECTED.with_label_values::<&str>(&[]).set(1);
        self.broker.ready.degrade(CONDITION, None);
        for device in self.seats.keys() {
            // What was under way on the former connection may be lost.
            self.broker.fleet.listening(device);
        }
    }

    fn subscribed(&mut self, ack: &SubAck) {
        let refused = ack
            .return_codes
            .iter()
            .find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
        if let Some(code) = refused {
            let why = format!(
                "the broker refuses a subscription: {code:?}; see its access list and broker.topics"
            );
            tracing::error!(why, "devices cannot be heard");
            self.broker.ready.degrade(CONDITION, Some(&why));
        }
    }

    fn away(&self, why: &str) {
        self.connected.send_replace(false);
        CONNECTED.with_label_values::<&str>(&[]).set(0);
        let c = &self.broker.config;
        let why = format!("{}:{}: {why}", c.host, c.port);
        self.broker.ready.degrade(CONDITION, Some(&why));
    }

    fn reset(&mut self) {
        self.window.reset();
        self.floor.store(self.window.floor(), Ordering::Relaxed);
        self.acks.clear();
        self.leaving = false;
    }

    fn message(&mut self, p: Publish) {
        let arrived = Now::read();
        let payload = p.payload.clone();
        let topic = std::str::from_utf8(&p.topic).map(Arc::<str>::from);
        let bytes = p.payload.len() + p.topic.len();
        let ack = (p.qos != QoS::AtMostOnce).then_some(p);
        let ticket = self.window.push(ack, bytes);
        let Ok(topic) = topic else {
            return self.drop_it(ticket, "unknown_topic");
        };
        let up = Uplink::new(topic, payload, arrived);
        let Some(named) = self
            .broker
            .codecs
            .speaker_of(&up.topic)
            .and_then(|id| DeviceId::parse(id).ok())
        else {
            up.shed("unknown_topic");
            return self.drop_it(ticket, "unknown_topic");
        };
        // An aircraft without an entry of its own speaks as its dock.
        let own = self.broker.registry.device(named.as_str());
        let speaker = match own {
            Some(device) => Some((named, device)),
            None => self.broker.fleet.speaker_of(&named).and_then(|dock| {
                let device = self.broker.registry.device(dock.as_str())?;
                Some((dock, device))
            }),
        };
        let Some((id, device)) = speaker else {
            up.shed("unregistered");
            return self.drop_it(ticket, "unregistered");
        };
        let Some(seat) = self.seat(&id, device) else {
            up.shed("devices_max");
            return self.drop_it(ticket, "devices_max");
        };
        seat.heard = Instant::now();
        if let Err(e) = seat.messages.try_send((ticket, up)) {
            // Only left-overs of former connections can fill it: the broker gives this one again.
            tracing::debug!(device = %id, error = %e, "a message has to come again");
            self.ended(ticket, Outcome::Refused);
        }
    }

    /// The device's session, begun if there is none; None: there are too many.
    fn seat(&mut self, id: &DeviceId, device: registry::Device) -> Option<&mut Seat> {
        let changed = self
            .seats
            .get(id)
            .is_some_and(|s| s.device != device || s.messages.is_closed());
        if changed {
            self.seats.remove(id);
        }
        if !self.seats.contains_key(id) {
            if self.seats.len() >= self.broker.devices_max {
                return None;
            }
            let (messages, takes) = mpsc::channel(usize::from(WINDOW_MAX));
            let session = Session {
                device: device.clone(),
                id: id.clone(),
                fleet: self.broker.fleet.clone(),
                codecs: Arc::clone(&self.broker.codecs),
                client: self.client.clone(),
                qos: qos(self.broker.config.qos),
                messages: takes,
                outcomes: self.outcomes.clone(),
                floor: Arc::clone(&self.floor),
                connected: self.connected.subscribe(),
            };
            self.tasks.spawn_local(session.run());
            let seat = Seat {
                messages,
                device,
                heard: Instant::now(),
            };
            self.seats.insert(id.clone(), seat);
            self.count();
        }
        self.seats.get_mut(id)
    }

    /// A message that nobody wants is acknowledged: it would come for ever.
    fn drop_it(&mut self, ticket: Ticket, why: &'static str) {
        MESSAGES.with_label_values(&[why]).inc();
        self.acks.extend(self.window.done(ticket));
    }

    fn ended(&mut self, ticket: Ticket, outcome: Outcome) {
        if ticket < self.window.floor() {
            return;
        }
        MESSAGES.with_label_values(&[outcome.name()]).inc();
        if outcome != Outcome::Refused {
            self.acks.extend(self.window.done(ticket));
        } else if !self.leaving {
            // Its place, and all behind it, stay unacknowledged: the broker gives them again on the next connection.
            self.leaving = true;
            tracing::warn!("a message could not be taken; the broker is asked to give it again");
        }
    }

    /// Acknowledges and subscribes, as far as the client takes it.
    fn flush(&mut self) {
        if self.subscribes && self.client.try_subscribe_many(self.filters()).is_ok() {
            self.subscribes = false;
        }
        while let Some(p) = self.acks.front() {
            if self.client.try_ack(p).is_err() {
                return;
            }
            self.acks.pop_front();
        }
    }

    fn filters(&self) -> Vec<Filter> {
        let c = &self.broker.config;
        let topics = match c.topics.as_slice() {
            [] => self.broker.codecs.uplinks(),
            given => given.to_vec(),
        };
        let all = topics.into_iter().map(|topic| {
            let path = match &c.share {
                Some(group) => format!("$share/{group}/{topic}"),
                None => topic,
            };
            Filter {
                retain_forward_rule: RetainForwardRule::Never,
                ..Filter::new(path, qos(c.qos))
            }
        });
        all.collect()
    }

    /// Devices that left the registry, or changed in it, have no session any more.
    fn cut_revoked(&mut self) {
        let registry = &self.broker.registry;
        self.seats
            .retain(|id, s| registry.device(id.as_str()).as_ref() == Some(&s.device));
        self.count();
    }

    fn sweep(&mut self) {
        if self.leaving && self.client.try_disconnect().is_err() {
            tracing::debug!("the line to the broker is busy; it is left with the next look");
        }
        let now = Instant::now();
        let before = self.seats.len();
        self.seats
            .retain(|_, s| now.saturating_duration_since(s.heard) < SILENCE);
        if self.seats.len() != before {
            self.count();
        }
    }

    fn count(&self) {
        let n = i64::try_from(self.seats.len()).unwrap_or(i64::MAX);
        SESSIONS.with_label_values::<&str>(&[]).set(n);
    }

    /// What is under way still finds its owner and is acknowledged; the broker keeps the rest for the next start.
    async fn stop(mut self, mut said: mpsc::Receiver<Said>) {
        let drain = async {
            while !self.window.is_empty() && !self.leaving {
                let Some((ticket, outcome)) = self.done.recv().await else {
                    return;
                };
                self.ended(ticket, outcome);
                self.flush();
            }
        };
        if timeout(DRAIN_MAX, drain).await.is_err() {
            tracing::warn!("not all messages of the broker were taken; they come again");
        }
        self.flush();
        self.stopping.send_replace(true);
        if *self.connected.borrow() && self.client.try_disconnect().is_ok() {
            let left = async { while said.recv().await.is_some() {} };
            if timeout(DRAIN_MAX, left).await.is_err() {
                tracing::debug!("the broker did not close the connection");
            }
        }
        self.line.abort();
        self.seats.clear();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(DRAIN_MAX, ended).await.is_err() {
            tracing::warn!(
                left = self.tasks.len(),
                "sessions behind the broker were cut"
            );
        }
    }
}

fn qos(level: u8) -> QoS {
    match level {
        0 => QoS::AtMostOnce,
        _ => QoS::AtLeastOnce,
    }
}
