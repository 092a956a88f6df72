//! The actor of one device: decodes, tells the picture, answers. It holds nothing that must outlive it; what does
//! (sessions, topology) the fleet gives to its successor.

use std::sync::{Arc, LazyLock};

use actix::{Actor, Context, Handler, Message, MessageResult, Response, ResponseFuture};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use kerbside_codecs::telemetry::order::Dialect;
use kerbside_codecs::telemetry::{Decoded, Fault, Report, Said, Speaker, SubDevice};
use prometheus::IntCounterVec;
use tokio::sync::watch;

use super::orders::OrderBook;
use super::state::{Open, Presence, Sent, State};
use super::{Downlink, SUB_DEVICES_MAX, Uplink, downlink};
use crate::ids::{DeviceId, SessionId, is_id};
use crate::metrics;
use crate::picture::{Fact, Picture};
use crate::registry::{self, DeviceKind, Registry};

static FAULTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_telemetry_faults_total",
        "Parts of messages that were refused, or taken in spite of their form",
        &["fault"],
    )
});

/// Messages an actor holds before its senders wait.
const MAILBOX: usize = 64;

/// Device ids a device may speak for besides its own.
pub(super) type Topology = Arc<[String]>;

/// How a message is read: who speaks, topic, payload, arrival in ms since 1970 UTC.
pub(super) type Decode = Arc<dyn Fn(Speaker<'_>, &str, &[u8], i64) -> Decoded + Send + Sync>;

/// What every actor is given.
#[derive(Clone)]
pub(super) struct Wiring {
    pub registry: Registry,
    pub owner: Owner,
    pub decode: Decode,
    pub orders: OrderBook,
}

/// Who owns a report once it is told.
#[derive(Clone)]
pub(super) enum Owner {
    Picture(Picture),
    /// A test that decides on each fact.
    #[cfg(test)]
    Desk(tokio::sync::mpsc::Sender<(Fact, tokio::sync::oneshot::Sender<bool>)>),
}

/// The picture did not take it: the device has to send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// How it stands with a fact.
enum Telling {
    Owned,
    /// An event has to be owned first.
    Later(LocalBoxFuture<'static, Result<(), Refused>>),
}

impl Owner {
    /// Tells a fact; most are owned at once.
    fn tell(&self, fact: Fact) -> Result<Telling, Refused> {
        match self {
            Self::Picture(p) => match p.begin(fact) {
                Ok(None) => Ok(Telling::Owned),
                Ok(Some(owning)) => {
                    let owned =
                        async move { owning.owned().await.map(|_| ()).map_err(|_| Refused) };
                    Ok(Telling::Later(owned.boxed_local()))
                }
                Err(_) => Err(Refused),
            },
            #[cfg(test)]
            Self::Desk(desk) => {
                let desk = desk.clone();
                let told = async move {
                    let (answer, owned) = tokio::sync::oneshot::channel();
                    desk.send((fact, answer)).await.map_err(|_| Refused)?;
                    if owned.await == Ok(true) {
                        Ok(())
                    } else {
                        Err(Refused)
                    }
                };
                Ok(Telling::Later(told.boxed_local()))
            }
        }
    }

    /// Tells a fact and waits until it is owned.
    pub(super) async fn told(&self, fact: Fact) -> Result<(), Refused> {
        match self.tell(fact)? {
            Telling::Owned => Ok(()),
            Telling::Later(owned) => owned.await,
        }
    }

    /// Tells facts in order; the next one when the former is owned. Err(the rest): one waits.
    fn tell_all(&self, mut facts: std::vec::IntoIter<Fact>) -> Result<Result<(), Refused>, Rest> {
        while let Some(fact) = facts.next() {
            match self.tell(fact) {
                Ok(Telling::Owned) => {}
                Ok(Telling::Later(owned)) => return Err(Rest { owned, facts }),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(Ok(()))
    }
}

/// A fact that waits for its owner, and those behind it.
struct Rest {
    owned: LocalBoxFuture<'static, Result<(), Refused>>,
    facts: std::vec::IntoIter<Fact>,
}

impl Rest {
    async fn told(mut self, owner: Owner) -> Result<(), Refused> {
        loop {
            self.owned.await?;
            match owner.tell_all(self.facts) {
                Ok(done) => return done,
                Err(rest) => self = rest,
            }
        }
    }
}

pub(super) struct DeviceActor {
    id: DeviceId,
    state: State,
    wiring: Wiring,
    topology: watch::Sender<Topology>,
}

impl DeviceActor {
    pub fn new(
        id: DeviceId,
        device: registry::Device,
        open: Vec<Open>,
        wiring: Wiring,
        topology: watch::Sender<Topology>,
    ) -> Self {
        Self {
            id,
            state: State::new(device, open),
            wiring,
            topology,
        }
    }

    fn decode(&self, up: &Uplink) -> Decoded {
        if let Some(decoded) = &up.decoded {
            return Decoded::clone(decoded);
        }
        let topology = self.topology.borrow();
        let speaker = Speaker {
            device: self.id.as_str(),
            datum: self.state.device.datum,
            aircraft: match (&**topology, self.state.device.kind) {
                (_, DeviceKind::Drone) => Some(self.id.as_str()),
                ([one], _) => Some(one),
                _ => None,
            },
        };
        (self.wiring.decode)(speaker, &up.topic, &up.payload, up.arrived.unix_ms)
    }

    /// Sets whom this device speaks for. A device that is registered itself is only believed to hang on another one
    /// when it is a drone of the same unit: else any dock could move anybody's marker.
    fn announce(&self, subs: &[SubDevice]) {
        let own = &self.state.device;
        let allowed: Topology = subs
            .iter()
            .filter(|s| is_id(&s.sn) && s.sn != own.id)
            .filter(|s| match self.wiring.registry.device(&s.sn) {
                None => true,
                Some(d) => d.kind == DeviceKind::Drone && d.unit == own.unit,
            })
            .take(SUB_DEVICES_MAX)
            .map(|s| s.sn.clone())
            .collect();
        if allowed.len() < subs.len() {
            tracing::debug!(device = %self.id, announced = subs.len(), allowed = allowed.len(), "some announced sub-devices were refused");
        }
        for sub in allowed.iter().filter_map(|s| DeviceId::parse(s).ok()) {
            self.wiring.orders.listening(&sub);
        }
        self.topology.send_replace(allowed);
    }

    /// Facts in the order in which the picture has to hear them.
    fn facts(&self, decoded: &mut Decoded, arrived: crate::clock::Now) -> Vec<Fact> {
        let own = &self.state.device;
        let mut facts: Vec<Fact> = decoded
            .reports
            .drain(..)
            .map(|report| Fact::Report {
                registered: if report.device == own.id {
                    Some(Arc::clone(own))
                } else {
                    self.wiring.registry.device(&report.device).map(Arc::new)
                },
                report,
                restricted: own.restricted,
                arrived,
            })
            .collect();
        if !decoded.faults.is_empty() {
            facts.push(Fact::Faults {
                device: self.id.clone(),
                faults: std::mem::take(&mut decoded.faults),
            });
        }
        facts
    }

    fn presence(&self, presence: Presence) -> Option<Fact> {
        let online = match presence {
            Presence::Same => return None,
            Presence::Online => true,
            Presence::Offline => false,
        };
        tracing::debug!(
            device = %self.id, online, protocols = ?self.state.protocols(), faults = self.state.faults,
            last_seen_ms = self.state.last_seen.map(|n| n.unix_ms), "device came or went"
        );
        Some(Fact::Session {
            device: self.id.clone(),
            registered: registry::Device::clone(&self.state.device),
            online,
        })
    }
}

impl Actor for DeviceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

/// An aircraft that went with its dock, or left it.
fn absent(sn: &str) -> Report {
    Report {
        device: sn.to_owned(),
        online: Some(false),
        ..Report::default()
    }
}

fn count(faults: &[Fault]) {
    for f in faults {
        FAULTS.with_label_values(&[f.name()]).inc();
    }
}

/// The device said something.
#[derive(Message)]
#[rtype(result = "Result<(), Refused>")]
pub(super) struct Hear {
    pub session: SessionId,
    pub up: Uplink,
}

impl Handler<Hear> for DeviceActor {
    type Result = Response<Result<(), Refused>>;

    fn handle(&mut self, Hear { session, up }: Hear, _: &mut Self::Context) -> Self::Result {
        let mut decoded = self.decode(&up);
        count(&decoded.faults);
        for r in &decoded.reports {
            count(&r.faults);
        }
        let parts = decoded
            .reports
            .iter()
            .map(|r| r.faults.len())
            .sum::<usize>();
        self.state.heard(up.arrived, decoded.faults.len() + parts);
        if let Some(subs) = &decoded.topology {
            let before = self.topology.borrow().clone();
            self.announce(subs);
            // Nor may it introduce whom it may not speak for.
            let allowed = self.topology.borrow().clone();
            decoded
                .reports
                .retain(|r| r.device == self.id.as_str() || allowed.contains(&r.device));
            let gone = before.iter().filter(|sn| !allowed.contains(sn));
            decoded.reports.extend(gone.map(|sn| absent(sn)));
        }
        for r in &mut decoded.reports {
            if r.device != self.id.as_str() {
                // Of whom it speaks, is there.
                r.online.get_or_insert(true);
            } else if self.state.is_online() {
                // Its sessions say whether it is there: the last will of the one before is of no weight.
                r.online = None;
            }
        }
        let useful = !decoded.reports.is_empty()
            || !decoded.replies.is_empty()
            || !decoded.answers.is_empty()
            || decoded.topology.is_some()
            || decoded.faults.is_empty();
        for mut answer in decoded.answers.drain(..) {
            // That a service was started is not that it did its work: the stream tells.
            if answer.said == Said::Read && Dialect::of_topic(&up.topic) == Some(Dialect::Dji) {
                answer.said = Said::Delivered;
            }
            self.wiring.orders.answer(&self.id, answer);
        }
        let facts = self.facts(&mut decoded, up.arrived);
        let down = self.state.queue(session);
        let owner = self.wiring.owner.clone();
        let replies = decoded.replies;
        let conclude = move || {
            for reply in replies {
                match &down {
                    Some(down) => down.push(Downlink::new(reply.topic, reply.payload, 1)),
                    None => downlink::dropped("session_ended"),
                }
            }
            if useful {
                up.delivered();
            } else {
                up.shed("faulty");
            }
        };
        match owner.tell_all(facts.into_iter()) {
            Ok(told) => Response::reply(told.map(|()| conclude())),
            Err(rest) => Response::fut(async move { rest.told(owner).await.map(|()| conclude()) }),
        }
    }
}

/// A session begins.
#[derive(Message)]
#[rtype(result = "bool")]
pub(super) struct Begin {
    pub device: registry::Device,
    pub open: Open,
    pub replaces: Option<SessionId>,
}

impl Handler<Begin> for DeviceActor {
    /// False: the device has too many sessions.
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, b: Begin, _: &mut Self::Context) -> Self::Result {
        let Some(presence) = self.state.open(b.device, b.open, b.replaces) else {
            return Box::pin(std::future::ready(false));
        };
        let fact = self.presence(presence);
        let owner = self.wiring.owner.clone();
        Box::pin(async move {
            tell_presence(&owner, fact).await;
            true
        })
    }
}

/// A session ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct End(pub SessionId);

impl Handler<End> for DeviceActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, End(session): End, _: &mut Self::Context) -> Self::Result {
        let presence = self.state.close(session);
        let mut facts: Vec<Fact> = self.presence(presence).into_iter().collect();
        if presence == Presence::Offline {
            let aircraft = self.topology.borrow().clone();
            let mut gone = Decoded {
                reports: aircraft.iter().map(|sn| absent(sn)).collect(),
                ..Decoded::default()
            };
            facts.extend(self.facts(&mut gone, crate::clock::Now::read()));
        }
        let owner = self.wiring.owner.clone();
        Box::pin(async move {
            for fact in facts {
                tell_presence(&owner, Some(fact)).await;
            }
        })
    }
}

/// Presence that the picture refused is not lost for long: reports and their absence say the same.
async fn tell_presence(owner: &Owner, fact: Option<Fact>) {
    let Some(fact) = fact else {
        return;
    };
    if owner.told(fact).await.is_err() {
        tracing::debug!("the picture did not take a change of presence");
    }
}

/// A message for the device.
#[derive(Message)]
#[rtype(result = "Sent")]
pub(super) struct Say(pub Downlink);

impl Handler<Say> for DeviceActor {
    type Result = MessageResult<Say>;

    fn handle(&mut self, Say(d): Say, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.send(&d))
    }
}
