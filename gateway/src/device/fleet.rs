//! All devices: finds a device's actor, starts it on first need, replaces it when it died.
//!
//! A panic in a handler ends that actor's task and nothing else (the runtime catches it there); its mailbox closes and
//! the sender of the message sees that. The message is tried once more on the successor; if that dies as well the
//! message is the cause and is set aside, or the device would kill its actor with the same message for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use actix_rt::ArbiterHandle;
use kerbside_codecs::telemetry::order::Dialect;
use kerbside_codecs::telemetry::{Codecs, Fault};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::sync::watch;

use super::actor::{Begin, Decode, DeviceActor, End, Hear, Owner, Say, Topology, Wiring};
use super::faults::{self, Faults};
use super::orders::OrderBook;
use super::state::{Open, Sent};
use super::{Downlink, Downlinks, Retained, Uplink};
use crate::ids::{DeviceId, SessionId};
use crate::metrics;
use crate::picture::Picture;
use crate::registry::{self, Registry};

static DEATHS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_device_actor_deaths_total",
        "Device actors that died and were replaced",
        &[],
    )
});
static ACTORS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| metrics::gauge("kerbside_device_actors", "Devices with an actor", &[]));

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// An actor that lived so long starts again without a history.
const HEALTHY: Duration = Duration::from_secs(60);

/// A message did not find an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOwned {
    /// Disk full or the like: the device has to send it again.
    #[error("nobody could take the message now")]
    Refused,
    /// It killed two actors: sending it again is of no use.
    #[error("the message cannot be handled")]
    Poison,
}

/// The device has as many sessions as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many sessions of this device")]
pub struct Busy;

/// No session, live or to be resumed, takes the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device is not connected")]
pub struct Unreachable;

/// An opened session.
pub struct Opened {
    /// Device ids this one may speak for besides its own, as it announced them.
    pub topology: watch::Receiver<Arc<[String]>>,
    /// What the device is told whenever it subscribes.
    pub retained: Arc<Retained>,
}

/// The fleet. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    wiring: Wiring,
    arbiter: ArbiterHandle,
    faults: Arc<Faults>,
    seats: Mutex<HashMap<DeviceId, Arc<Seat>>>,
}

/// A device's place: outlives its actors.
struct Seat {
    id: DeviceId,
    topology: watch::Sender<Topology>,
    /// How it speaks, as it showed: 0 not yet, 1 ours, 2 DJI.
    dialect: AtomicU8,
    retained: Arc<Retained>,
    kept: Mutex<Kept>,
}

struct Kept {
    device: registry::Device,
    sessions: Vec<Open>,
    actor: Option<Addr<DeviceActor>>,
    born: Instant,
    deaths: u32,
    /// No successor before.
    not_before: Instant,
}

impl Fleet {
    /// Must be called inside the actix system, whose thread the actors then live on.
    pub fn start(
        registry: Registry,
        picture: Picture,
        codecs: Arc<Codecs>,
        orders: OrderBook,
    ) -> Self {
        let decode: Decode = Arc::new(move |speaker, topic, payload, arrived_ms| {
            codecs.decode(speaker, topic, payload, arrived_ms)
        });
        Self::with(registry, Owner::Picture(picture), decode, orders)
    }

    pub(super) fn with(
        registry: Registry,
        owner: Owner,
        decode: Decode,
        orders: OrderBook,
    ) -> Self {
        let revocations = registry.revocations();
        let faults = Arc::<Faults>::default();
        // Ends by itself with the fleet.
        drop(actix_rt::spawn(faults::tell(
            Arc::downgrade(&faults),
            owner.clone(),
        )));
        let inner = Arc::new(Inner {
            wiring: Wiring {
                registry,
                owner,
                decode,
                orders,
            },
            arbiter: actix_rt::Arbiter::current(),
            faults,
            seats: Mutex::default(),
        });
        // Ends by itself with the registry or the fleet.
        drop(actix_rt::spawn(forget_revoked(
            Arc::downgrade(&inner),
            revocations,
        )));
        Self(inner)
    }

    /// A session of an authenticated device begins, in place of `replaces` if it took that one over.
    ///
    /// # Errors
    /// [`Busy`] when the device has [`super::SESSIONS_MAX`] others.
    pub async fn open(
        &self,
        device: registry::Device,
        session: SessionId,
        replaces: Option<SessionId>,
        protocol: &'static str,
        down: Arc<Downlinks>,
    ) -> Result<Opened, Busy> {
        let id = DeviceId::parse(&device.id).map_err(|_| Busy)?;
        let seat = self.seat(&id, &device);
        let open = Open {
            id: session,
            protocol,
            down,
        };
        let begin = || Begin {
            device: device.clone(),
            open: open.clone(),
            replaces,
        };
        if self.ask(&seat, BACKOFF_MAX, begin).await != Some(true) {
            return Err(Busy);
        }
        let mut kept = seat.kept.lock();
        kept.device = device;
        kept.sessions
            .retain(|o| o.id != session && Some(o.id) != replaces);
        kept.sessions.push(open);
        drop(kept);
        Ok(Opened {
            topology: seat.topology.subscribe(),
            retained: Arc::clone(&seat.retained),
        })
    }

    /// A session ended. Its queue keeps taking messages as long as somebody holds it.
    pub async fn close(&self, device: &DeviceId, session: SessionId) {
        let Some(seat) = self.find(device) else {
            return;
        };
        seat.kept.lock().sessions.retain(|o| o.id != session);
        if self
            .ask(&seat, BACKOFF_MAX, || End(session))
            .await
            .is_none()
        {
            tracing::debug!(%device, %session, "the device's actor died while a session closed");
        }
    }

    /// A device that is registered, and may speak without a session: it then says what was wrong with its messages.
    pub fn introduce(&self, device: &registry::Device) {
        if let Ok(id) = DeviceId::parse(&device.id) {
            self.seat(&id, device);
        }
    }

    /// Hands over a message. Ok: the picture owns it, and the outbox has the event it raised.
    ///
    /// # Errors
    /// [`NotOwned`]; the message is then accounted for in the ledger.
    pub async fn message(
        &self,
        device: &DeviceId,
        session: SessionId,
        up: Uplink,
    ) -> Result<(), NotOwned> {
        self.message_within(BACKOFF_MAX, device, session, up).await
    }

    /// As [`Self::message`], but waits for the successor of a dead actor only if it is due within `patience`.
    ///
    /// # Errors
    /// As [`Self::message`]; [`NotOwned::Poison`] also when there is no actor in time.
    pub async fn message_within(
        &self,
        patience: Duration,
        device: &DeviceId,
        session: SessionId,
        up: Uplink,
    ) -> Result<(), NotOwned> {
        let Some(seat) = self.find(device) else {
            up.shed("no_session");
            return Err(NotOwned::Refused);
        };
        self.note_dialect(&seat, &up.topic);
        let hear = || Hear {
            session,
            up: up.clone(),
        };
        match self.ask(&seat, patience, hear).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => {
                up.shed("not_owned");
                Err(NotOwned::Refused)
            }
            None => {
                up.shed("poison");
                tracing::error!(%device, topic = %up.topic, bytes = up.payload.len(), "a message killed two actors of its device, or came while there was none; it is set aside");
                Err(NotOwned::Poison)
            }
        }
    }

    /// The device broke a rule of its protocol: counted, and shown in its state soon. Never waits.
    pub fn fault(&self, device: &DeviceId, fault: Fault) {
        self.0.faults.note(device, fault);
    }

    /// Sends to one device, through all its sessions; kept for a session that may be resumed if none is live. One to be
    /// retained is so even for a device that is away.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn send(&self, device: &DeviceId, down: Downlink) -> Result<Sent, Unreachable> {
        let mut seat = self.find(device);
        let is_retained = down.retain;
        if is_retained {
            if seat.is_none() {
                let registered = self.0.wiring.registry.device(device.as_str());
                seat = registered.map(|r| self.seat(device, &r));
            }
            seat.as_ref().ok_or(Unreachable)?.retained.put(&down);
        }
        let seat = seat.ok_or(Unreachable)?;
        match self.ask(&seat, BACKOFF_MAX, || Say(down.clone())).await {
            Some(sent @ (Sent::Live(_) | Sent::Kept)) => Ok(sent),
            Some(Sent::Nowhere) | None if is_retained => Ok(Sent::Kept),
            Some(Sent::Nowhere) | None => Err(Unreachable),
        }
    }

    /// Who has the session for this device: itself, or the dock that announced it as its aircraft.
    pub fn speaker_of(&self, device: &DeviceId) -> Option<DeviceId> {
        let own = self.find(device);
        if own.as_ref().is_some_and(|s| s.is_online()) {
            return Some(device.clone());
        }
        let seats = self.0.seats.lock();
        let dock = seats.values().find(|s| {
            s.topology.borrow().iter().any(|sub| sub == device.as_str()) && s.is_online()
        });
        dock.map(|s| s.id.clone())
            .or_else(|| own.map(|s| s.id.clone()))
    }

    /// Has the device a live session of its own?
    pub fn is_online(&self, device: &DeviceId) -> bool {
        self.find(device).is_some_and(|s| s.is_online())
    }

    /// How the device speaks; None: it said nothing yet.
    pub fn dialect(&self, device: &DeviceId) -> Option<Dialect> {
        match self.find(device)?.dialect.load(Ordering::Relaxed) {
            1 => Some(Dialect::Kerbside),
            2 => Some(Dialect::Dji),
            _ => None,
        }
    }

    /// The device listens: to what it subscribed to, orders may be sent now, to itself and to its aircraft.
    pub fn listening(&self, device: &DeviceId) {
        let orders = &self.0.wiring.orders;
        orders.listening(device);
        let Some(seat) = self.find(device) else {
            return;
        };
        for sub in seat.topology.borrow().iter() {
            if let Ok(sub) = DeviceId::parse(sub) {
                orders.listening(&sub);
            }
        }
    }

    /// As if so many of the device's actors had died one after the other: what the next death costs it.
    #[cfg(test)]
    pub(super) fn set_deaths(&self, device: &DeviceId, deaths: u32) {
        let seat = self.find(device).expect("a device that was here");
        seat.kept.lock().deaths = deaths;
    }

    /// Is there no actor of the device, because its last one died and its successor is not due yet?
    #[cfg(test)]
    pub(super) fn is_waiting(&self, device: &DeviceId) -> bool {
        let seat = self.find(device).expect("a device that was here");
        let kept = seat.kept.lock();
        kept.actor.is_none() && kept.not_before > Instant::now()
    }

    fn note_dialect(&self, seat: &Seat, topic: &str) {
        let spoken = match Dialect::of_topic(topic) {
            None => return,
            Some(Dialect::Kerbside) => 1,
            Some(Dialect::Dji) => 2,
        };
        if seat.dialect.load(Ordering::Relaxed) != spoken {
            seat.dialect.store(spoken, Ordering::Relaxed);
            self.0.wiring.orders.listening(&seat.id);
        }
    }

    fn find(&self, id: &DeviceId) -> Option<Arc<Seat>> {
        self.0.seats.lock().get(id).cloned()
    }

    fn seat(&self, id: &DeviceId, device: &registry::Device) -> Arc<Seat> {
        let mut seats = self.0.seats.lock();
        let seat = seats.entry(id.clone()).or_insert_with(|| {
            let now = Instant::now();
            Arc::new(Seat {
                id: id.clone(),
                topology: watch::Sender::new(Topology::default()),
                dialect: AtomicU8::new(0),
                retained: Arc::default(),
                kept: Mutex::new(Kept {
                    device: device.clone(),
                    sessions: Vec::new(),
                    actor: None,
                    born: now,
                    deaths: 0,
                    not_before: now,
                }),
            })
        });
        let seat = Arc::clone(seat);
        ACTORS
            .with_label_values::<&str>(&[])
            .set(i64::try_from(seats.len()).unwrap_or(i64::MAX));
        seat
    }

    /// Asks the device's actor, once more if it died of the question. None: it did twice, or there is none in time.
    async fn ask<M>(
        &self,
        seat: &Seat,
        patience: Duration,
        message: impl Fn() -> M,
    ) -> Option<M::Result>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        DeviceActor: Handler<M>,
        <DeviceActor as Actor>::Context: ToEnvelope<DeviceActor, M>,
    {
        for _ in 0..2 {
            let addr = self.actor(seat, patience).await?;
            if let Ok(answer) = addr.send(message()).await {
                return Some(answer);
            }
        }
        None
    }

    /// The device's living actor; waits out the backoff when the last one died, unless that is longer than `patience`.
    async fn actor(&self, seat: &Seat, patience: Duration) -> Option<Addr<DeviceActor>> {
        loop {
            let wait = {
                let mut kept = seat.kept.lock();
                match kept.living(Instant::now(), &seat.id) {
                    Living::Yes(addr) => return Some(addr),
                    Living::After(wait) if wait > patience => return None,
                    Living::After(wait) => wait,
                    Living::Start => {
                        let actor = DeviceActor::new(
                            seat.id.clone(),
                            kept.device.clone(),
                            kept.sessions.clone(),
                            self.0.wiring.clone(),
                            seat.topology.clone(),
                        );
                        let addr = DeviceActor::start_in_arbiter(&self.0.arbiter, move |_| actor);
                        kept.born = Instant::now();
                        kept.actor = Some(addr.clone());
                        return Some(addr);
                    }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}

impl Seat {
    fn is_online(&self) -> bool {
        !self.kept.lock().sessions.is_empty()
    }
}

enum Living {
    Yes(Addr<DeviceActor>),
    Start,
    After(Duration),
}

impl Kept {
    fn living(&mut self, now: Instant, id: &DeviceId) -> Living {
        match self.actor.take() {
            Some(addr) if addr.connected() => {
                self.actor = Some(addr.clone());
                return Living::Yes(addr);
            }
            Some(_) => {
                if now.saturating_duration_since(self.born) >= HEALTHY {
                    self.deaths = 0;
                }
                let wait = backoff(self.deaths);
                self.deaths = self.deaths.saturating_add(1);
                self.not_before = now + wait;
                DEATHS.with_label_values::<&str>(&[]).inc();
                tracing::error!(device = %id, deaths = self.deaths, wait_ms = wait.as_millis(), "the device's actor died; a new one follows");
            }
            None => {}
        }
        match self.not_before.saturating_duration_since(now) {
            Duration::ZERO => Living::Start,
            wait => Living::After(wait),
        }
    }
}

fn backoff(deaths: u32) -> Duration {
    (BACKOFF_MIN * 2u32.saturating_pow(deaths.min(10))).min(BACKOFF_MAX)
}

/// Devices that left the registry lose their actor; their sessions end by themselves.
async fn forget_revoked(fleet: Weak<Inner>, mut revocations: watch::Receiver<u64>) {
    while revocations.changed().await.is_ok() {
        let Some(fleet) = fleet.upgrade() else {
            return;
        };
        let known: std::collections::HashSet<String> = fleet
            .wiring
            .registry
            .devices()
            .into_iter()
            .map(|d| d.id)
            .collect();
        let mut seats = fleet.seats.lock();
        seats.retain(|id, _| known.contains(id.as_str()));
        ACTORS
            .with_label_values::<&str>(&[])
            .set(i64::try_from(seats.len()).unwrap_or(i64::MAX));
    }
}
