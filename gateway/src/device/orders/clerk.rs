//! Gives orders, finds who speaks for a device, sends, and looks at what time and streams say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kerbside_codecs::telemetry::order::{self, Dialect, Task, Wanted};
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::state::{Full, Giver, Order, OrderId, Stage};
use super::{OrderBook, Passes, Receipt};
use crate::clock::unix_ms;
use crate::device::{Downlink, Fleet, Sent};
use crate::ids::{DeviceId, StreamId};
use crate::registry::{DeviceKind, Registry};
use crate::stream::Streams;

/// Longest wait for one device to take an order into its queue.
const SEND_MAX: Duration = Duration::from_secs(2);
/// Devices that are sent their orders at once. One whose actor died keeps its place up to [`SEND_MAX`], and nobody waits for it.
const DISPATCHES_MAX: usize = 64;
/// How often what waits is tried again, in ticks.
const SWEEP_TICKS: u32 = 5;

/// Addresses of this box as devices reach it, without a slash at the end; None: there is none.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `rtsp://host:port` or `rtsps://…`
    pub rtsp: Option<String>,
    /// `http://host:port` or `https://…`
    pub http: Option<String>,
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Full(#[from] Full),
    #[error("orders cannot be written to disk: {0}")]
    Disk(String),
}

/// Orders, and the fleet they go to. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    pub book: OrderBook,
    pub passes: Passes,
    fleet: Fleet,
    registry: Registry,
    streams: Streams,
    places: Arc<Places>,
}

/// Who has the session for a device.
struct Way {
    speaker: DeviceId,
    dialect: Dialect,
}

impl Orders {
    pub fn new(
        book: OrderBook,
        fleet: Fleet,
        registry: Registry,
        streams: Streams,
        places: Places,
    ) -> Self {
        Self {
            book,
            passes: Passes::default(),
            fleet,
            registry,
            streams,
            places: Arc::new(places),
        }
    }

    /// The registered device that answers for this one: itself, or the dock that announced it. None: nobody knows it.
    pub fn registered(&self, device: &DeviceId) -> Option<crate::registry::Device> {
        self.registry.device(device.as_str()).or_else(|| {
            let dock = self.fleet.speaker_of(device)?;
            self.registry.device(dock.as_str())
        })
    }

    /// Takes an order: on disk when this returns, and on its way if the device is there. The order goes on when the
    /// caller does not wait.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was sent.
    pub async fn give(
        &self,
        device: DeviceId,
        wanted: Wanted,
        giver: Giver,
    ) -> Result<Order, Refusal> {
        let me = self.clone();
        tokio::spawn(async move { me.take_on(device, &wanted, giver).await })
            .await
            .unwrap_or_else(|e| Err(Refusal::Disk(e.to_string())))
    }

    async fn take_on(
        &self,
        device: DeviceId,
        wanted: &Wanted,
        giver: Giver,
    ) -> Result<Order, Refusal> {
        let now_ms = unix_ms();
        let order = Order::new(OrderId::now_v7(), device.clone(), wanted, giver, now_ms);
        let id = order.id;
        let inner = &self.book.0;
        let gone = inner.book.lock().give(order.clone(), now_ms)?;
        if let Some(journal) = &inner.journal {
            let (written, done) = oneshot::channel();
            journal.forget(&gone);
            journal.put(&order, Some(written));
            let result = done
                .await
                .unwrap_or_else(|_| Err("the journal is closed".into()));
            if let Err(fault) = result {
                inner.book.lock().remove(id);
                journal.forget(&[id]);
                return Err(Refusal::Disk(fault));
            }
        }
        tracing::info!(
            target: "audit", user = order.giver.by, role = order.giver.role, peer = order.giver.peer, order = %id,
            device = %device, kind = order.kind(), url = order.asked.get("url").and_then(|u| u.as_str()), "order given"
        );
        inner.book.lock().release(id);
        self.dispatch(&device).await;
        Ok(self.book.get(id).unwrap_or(order))
    }

    /// Sends the device what it was not sent yet, or did not confirm.
    async fn dispatch(&self, device: &DeviceId) {
        let orders = self.book.0.book.lock().take(device, unix_ms());
        // Back in the book when its receipt is dropped, here or with the message.
        let handed: Vec<_> = orders
            .into_iter()
            .map(|o| (Receipt::new(self.book.clone(), o.id), o))
            .collect();
        for (receipt, order) in handed {
            let Some(way) = self.way(device) else {
                receipt.note("the device is not connected");
                continue;
            };
            let told = match self.told(&order, &way) {
                Ok(told) => told,
                Err(why) => {
                    receipt.refused(&why);
                    continue;
                }
            };
            self.book.0.book.lock().set_via(order.id, &way.speaker);
            let left_ms = u64::try_from(order.expires_ms - unix_ms()).unwrap_or(0);
            receipt.note("the device is not connected");
            let down = Downlink {
                expires: Some(Instant::now() + Duration::from_millis(left_ms)),
                receipt: Some(receipt),
                ..Downlink::new(told.topic, Bytes::from(told.payload), 1)
            };
            match timeout(SEND_MAX, self.fleet.send(&way.speaker, down)).await {
                Ok(Ok(Sent::Kept)) => self.book.step(order.id, Stage::Waiting, None),
                Ok(Ok(_)) => {}
                Ok(Err(e)) => {
                    tracing::debug!(order = %order.id, %device, error = %e, "an order waits");
                }
                Err(_) => {
                    tracing::warn!(order = %order.id, %device, "the device's actor is slow; its orders wait");
                    return;
                }
            }
        }
    }

    fn way(&self, device: &DeviceId) -> Option<Way> {
        let speaker = self.fleet.speaker_of(device)?;
        let spoke = self.fleet.dialect(&speaker);
        let dialect = spoke.unwrap_or_else(|| {
            let kind = self.registry.device(speaker.as_str()).map(|d| d.kind);
            match kind {
                Some(DeviceKind::Dock) => Dialect::Dji,
                _ => Dialect::Kerbside,
            }
        });
        Some(Way { speaker, dialect })
    }

    fn told(&self, order: &Order, way: &Way) -> Result<order::Told, String> {
        let task = order
            .task()
            .ok_or("this gateway does not know such orders")?;
        let own_url = match &task {
            Task::LiveStart {
                camera, url: None, ..
            } => {
                let stream = self.stream(&order.device, way, camera.as_deref())?;
                self.address(&stream, way)
            }
            Task::LiveStop { camera } => {
                if let Ok(stream) = self.stream(&order.device, way, Some(camera)) {
                    self.passes.end(&stream);
                }
                None
            }
            _ => None,
        };
        if matches!(task, Task::LiveStart { url: None, .. }) && own_url.is_none() {
            return Err("this box has no address that the device could publish to: open listen.rtsp(s) or http(s) to the network, set orders.host, or give a \"url\"".to_owned());
        }
        order::tell(
            way.dialect,
            &order::Order {
                id: &order.id.to_string(),
                device: order.device.as_str(),
                speaker: way.speaker.as_str(),
                task: &task,
                own_url: own_url.as_deref(),
                now_ms: unix_ms(),
                expires_ms: order.expires_ms,
            },
        )
    }

    /// The stream that a camera of the device publishes. An aircraft that is not registered publishes as its dock.
    fn stream(
        &self,
        device: &DeviceId,
        way: &Way,
        camera: Option<&str>,
    ) -> Result<StreamId, String> {
        let camera = camera.unwrap_or("main").replace('/', "_");
        let stream = if self.registry.device(device.as_str()).is_some() {
            StreamId::new(device.as_str(), &camera)
        } else {
            StreamId::new(way.speaker.as_str(), &format!("{device}_{camera}"))
        };
        stream.map_err(|e| e.to_string())
    }

    /// Where the device publishes the stream. DJI: WHIP, with a pass in the address.
    fn address(&self, stream: &StreamId, way: &Way) -> Option<String> {
        match way.dialect {
            Dialect::Kerbside => {
                let whip = || {
                    self.places
                        .http
                        .as_ref()
                        .map(|h| format!("{h}/{stream}/whip"))
                };
                let rtsp = self.places.rtsp.as_ref().map(|r| format!("{r}/{stream}"));
                rtsp.or_else(whip)
            }
            Dialect::Dji => self.places.http.as_ref().map(|http| {
                let pass = self.passes.make(stream.clone(), Instant::now());
                format!("{http}/{stream}/whip?pass={pass}")
            }),
        }
    }

    /// Sends what may go now, ends what ran out, until `shutdown` turns true.
    pub async fn work(self, mut shutdown: watch::Receiver<bool>) {
        let mut every = interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                () = self.book.0.bell.notified() => {}
                _ = every.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.tick(ticks);
                }
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            while under_way.len() < DISPATCHES_MAX {
                let Some(device) = self.book.0.hints.lock().pop_first() else {
                    break;
                };
                let me = &self;
                under_way.push(async move { me.dispatch(&device).await });
            }
        }
    }

    fn tick(&self, ticks: u32) {
        let now_ms = unix_ms();
        let (ended, forgotten) = self.book.0.book.lock().tick(now_ms);
        for changed in ended {
            self.book.record(Some(changed));
        }
        if let Some(journal) = &self.book.0.journal {
            journal.forget(&forgotten);
        }
        if ticks.is_multiple_of(SWEEP_TICKS) {
            let unsent = self.book.0.book.lock().unsent(now_ms);
            let there = unsent.into_iter().filter(|d| self.fleet.is_online(d));
            self.book.0.hints.lock().extend(there);
        }
        self.look_at_streams(now_ms);
    }

    /// A stream that was ordered and goes, or stops, is an order that was done.
    fn look_at_streams(&self, now_ms: i64) {
        let (starts, stops) = {
            let book = self.book.0.book.lock();
            (
                book.delivered("live_start", now_ms),
                book.delivered("live_stop", now_ms),
            )
        };
        if starts.is_empty() && stops.is_empty() {
            return;
        }
        let live: std::collections::HashSet<StreamId> = self
            .streams
            .status()
            .into_iter()
            .filter(|s| s.phase == "live")
            .map(|s| s.stream)
            .collect();
        let of = |o: &Order| {
            let speaker = o.via.clone().unwrap_or_else(|| o.device.clone());
            let way = Way {
                speaker,
                dialect: Dialect::Kerbside,
            };
            match o.task()? {
                Task::LiveStart {
                    camera, url: None, ..
                } => self.stream(&o.device, &way, camera.as_deref()).ok(),
                Task::LiveStop { camera } => self.stream(&o.device, &way, Some(&camera)).ok(),
                _ => None,
            }
        };
        for o in &starts {
            if of(o).is_some_and(|s| live.contains(&s)) {
                self.book
                    .step(o.id, Stage::Read, Some("the stream is live".into()));
            }
        }
        for o in &stops {
            if of(o).is_some_and(|s| !live.contains(&s)) {
                self.book
                    .step(o.id, Stage::Read, Some("the stream has stopped".into()));
            }
        }
    }
}
