//! One device behind the broker: its messages to its actor, one after the other, and its messages down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::time::Instant;

use kerbside_codecs::telemetry::Codecs;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::window::Ticket;
use crate::device::{Downlink, Downlinks, Fleet, NotOwned, Uplink, downlink_dropped};
use crate::ids::{DeviceId, SessionId};
use crate::registry;

/// Longest wait for a place among the requests to the broker.
const PUBLISH_MAX: Duration = Duration::from_secs(1);

/// Longest wait for the successor of a device's actor that died: the window is in order, so that everybody else's
/// messages wait with it.
const SUCCESSOR_MAX: Duration = Duration::from_millis(250);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Owned,
    /// The device has to send it again: so must the broker.
    Refused,
    /// It kills actors, or came while its device had none.
    Poison,
    /// The topic is that of an aircraft which this device did not announce.
    NotAuthorized,
    /// The device has as many sessions as it may.
    Busy,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::Refused => "refused",
            Self::Poison => "poison",
            Self::NotAuthorized => "not_authorized",
            Self::Busy => "busy",
        }
    }
}

/// What a session is given.
pub(super) struct Session {
    pub device: registry::Device,
    pub id: DeviceId,
    pub fleet: Fleet,
    pub codecs: Arc<Codecs>,
    pub client: AsyncClient,
    pub qos: QoS,
    /// Messages of this device, in order.
    pub messages: mpsc::Receiver<(Ticket, Uplink)>,
    pub outcomes: mpsc::Sender<(Ticket, Outcome)>,
    /// Messages with lower tickets come again: they are not worth the work.
    pub floor: Arc<AtomicU64>,
    /// Is the broker there?
    pub connected: watch::Receiver<bool>,
}

impl Session {
    /// Runs until its messages end.
    pub async fn run(mut self) {
        let session = SessionId::next();
        let queue: Arc<Downlinks> = Arc::default();
        let opened = self
            .fleet
            .open(
                self.device.clone(),
                session,
                None,
                "broker",
                Arc::clone(&queue),
            )
            .await;
        let Ok(opened) = opened else {
            // What came so far; the next message begins another attempt.
            let mut next = self.messages.recv().await;
            while let Some((ticket, up)) = next {
                up.shed("busy");
                if self.outcomes.send((ticket, Outcome::Busy)).await.is_err() {
                    return;
                }
                next = self.messages.try_recv().ok();
            }
            return;
        };
        self.fleet.listening(&self.id);
        loop {
            while *self.connected.borrow_and_update()
                && let Some(d) = queue.pop()
            {
                self.publish(d).await;
            }
            let is_connected = *self.connected.borrow();
            tokio::select! {
                biased;
                message = self.messages.recv() => {
                    let Some((ticket, up)) = message else { break };
                    if ticket < self.floor.load(Ordering::Relaxed) {
                        up.shed("comes_again");
                        continue;
                    }
                    let outcome = self.hand_over(session, &opened.topology, up).await;
                    if self.outcomes.send((ticket, outcome)).await.is_err() {
                        break;
                    }
                }
                () = queue.pushed(), if is_connected => {}
                Ok(()) = self.connected.changed() => {}
            }
        }
        self.fleet.close(&self.id, session).await;
    }

    async fn hand_over(
        &self,
        session: SessionId,
        topology: &watch::Receiver<Arc<[String]>>,
        up: Uplink,
    ) -> Outcome {
        let may = self
            .codecs
            .may_publish(self.id.as_str(), &topology.borrow(), &up.topic);
        if !may {
            up.shed("not_authorized");
            return Outcome::NotAuthorized;
        }
        let told = self
            .fleet
            .message_within(SUCCESSOR_MAX, &self.id, session, up);
        match told.await {
            Ok(()) => Outcome::Owned,
            Err(NotOwned::Refused) => Outcome::Refused,
            Err(NotOwned::Poison) => Outcome::Poison,
        }
    }

    /// To the broker, which is as far as we see. It keeps the message for the device if the device asked it to.
    async fn publish(&self, d: Downlink) {
        let left = |t: Instant| {
            t.saturating_duration_since(Instant::now())
                .as_millis()
                .div_ceil(1000)
        };
        let left_s = d
            .expires
            .map(|t| u32::try_from(left(t)).unwrap_or(u32::MAX));
        let properties = PublishProperties {
            message_expiry_interval: left_s,
            ..PublishProperties::default()
        };
        let qos = match d.qos {
            0 => QoS::AtMostOnce,
            _ => self.qos,
        };
        let sent = self
            .client
            .publish_with_properties(d.topic, qos, false, d.payload, properties);
        match (timeout(PUBLISH_MAX, sent).await, &d.receipt) {
            (Ok(Ok(())), Some(r)) => r.written(),
            (Ok(Ok(())), None) => {}
            _ => downlink_dropped("broker_busy"),
        }
    }
}
