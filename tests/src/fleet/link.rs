//! One MQTT connection of a device, v3.1.1 or v5, that comes back by itself and tells which messages were acknowledged.
//!
//! Nothing is repeated here after a reconnect: `Happened::Down` means that what was not acknowledged is lost, and who
//! cares about a message sends it again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{Outgoing, v5};
use tokio::sync::{mpsc, watch};

use super::{Backoff, halted};

/// Messages handed to the connection and not yet on the wire.
const REQUESTS_MAX: usize = 256;
/// Messages on the wire and not yet acknowledged.
const INFLIGHT_MAX: u16 = 64;
const GOODBYE_MAX: Duration = Duration::from_millis(500);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

/// Who connects where.
#[derive(Clone, Debug)]
pub struct Target {
    /// HOST:PORT
    pub broker: String,
    pub user: String,
    pub password: String,
    pub client_id: String,
    pub version: Version,
}

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Up,
    Down {
        reason: String,
    },
    /// The message with this number (given by `publish`) was acknowledged with success.
    Acknowledged(u64),
    /// v5: the gateway refused the message with this reason.
    Refused(u64, String),
    Message {
        topic: String,
        payload: Bytes,
    },
}

/// The sending half; cheap to clone.
#[derive(Clone)]
pub struct Link {
    client: Client,
    book: Arc<Mutex<Book>>,
}

#[derive(Clone)]
enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// Numbers of messages in the order of their hand-over, and by packet id once on the wire.
#[derive(Default)]
struct Book {
    up: bool,
    next: u64,
    waiting: VecDeque<u64>,
    on_wire: HashMap<u16, u64>,
}

impl Link {
    /// Connects in a task that ends when `stopping` turns true. Must run inside a runtime.
    pub fn open(
        target: &Target,
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<(Link, mpsc::Receiver<Happened>)> {
        let (host, port) = target
            .broker
            .rsplit_once(':')
            .and_then(|(host, port)| {
                Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
            })
            .ok_or_else(|| anyhow::anyhow!("{:?} is not HOST:PORT", target.broker))?;
        let book = Arc::new(Mutex::new(Book::default()));
        let (events, receiver) = mpsc::channel(REQUESTS_MAX);
        let client = match target.version {
            Version::V311 => {
                let mut options = rumqttc::MqttOptions::new(&target.client_id, host, port);
                options.set_credentials(&target.user, &target.password);
                options
                    .set_keep_alive(KEEP_ALIVE)
                    .set_inflight(INFLIGHT_MAX);
                let (client, eventloop) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
                tokio::spawn(drive_v311(eventloop, book.clone(), events, stopping));
                Client::V311(client)
            }
            Version::V5 => {
                let mut options = v5::MqttOptions::new(&target.client_id, host, port);
                options.set_credentials(&target.user, &target.password);
                options
                    .set_keep_alive(KEEP_ALIVE)
                    .set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
                let (client, eventloop) = v5::AsyncClient::new(options, REQUESTS_MAX);
                tokio::spawn(drive_v5(eventloop, book.clone(), events, stopping));
                Client::V5(client)
            }
        };
        Ok((Link { client, book }, receiver))
    }

    /// Hands over a QoS 1 message; its number, or None when there is no connection or no room.
    pub fn publish(&self, topic: &str, payload: Vec<u8>) -> Option<u64> {
        let mut book = lock(&self.book);
        if !book.up {
            return None;
        }
        let taken = match &self.client {
            Client::V311(client) => client
                .try_publish(topic, rumqttc::QoS::AtLeastOnce, false, payload)
                .is_ok(),
            Client::V5(client) => client
                .try_publish(topic, v5::mqttbytes::QoS::AtLeastOnce, false, payload)
                .is_ok(),
        };
        taken.then(|| {
            let number = book.next;
            book.next += 1;
            book.waiting.push_back(number);
            number
        })
    }

    /// Asks for messages; false when there is no room.
    pub fn subscribe(&self, filter: &str) -> bool {
        match &self.client {
            Client::V311(client) => client
                .try_subscribe(filter, rumqttc::QoS::AtLeastOnce)
                .is_ok(),
            Client::V5(client) => client
                .try_subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce)
                .is_ok(),
        }
    }

    /// Says DISCONNECT; false when there was no room to say it.
    pub fn close(&self) -> bool {
        match &self.client {
            Client::V311(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Book {
    fn sent(&mut self, packet: u16) {
        if !self.on_wire.contains_key(&packet)
            && let Some(number) = self.waiting.pop_front()
        {
            self.on_wire.insert(packet, number);
        }
    }

    fn clear(&mut self) {
        self.up = false;
        self.waiting.clear();
        self.on_wire.clear();
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn drive_v311(
    mut eventloop: rumqttc::EventLoop,
    book: Arc<Mutex<Book>>,
    events: mpsc::Sender<Happened>,
    mut stopping: watch::Receiver<bool>,
) {
    use rumqttc::{Event, Packet};
    let mut backoff = Backoff::default();
    loop {
        let polled = tokio::select! {
            polled = eventloop.poll() => polled,
            () = halted(&mut stopping) => {
                // Whoever stops us has asked for DISCONNECT: let it out.
                let goodbye = async {
                    while !matches!(eventloop.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
                };
                if lock(&book).up && tokio::time::timeout(GOODBYE_MAX, goodbye).await.is_err() {
                    tracing::debug!("no time to say DISCONNECT");
                }
                return;
            }
        };
        let happened = match polled {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                backoff.reset();
                lock(&book).up = true;
                Some(Happened::Up)
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => lock(&book)
                .on_wire
                .remove(&ack.pkid)
                .map(Happened::Acknowledged),
            Ok(Event::Incoming(Packet::Publish(message))) => Some(Happened::Message {
                topic: message.topic,
                payload: message.payload,
            }),
            Ok(Event::Outgoing(Outgoing::Publish(packet))) => {
                lock(&book).sent(packet);
                None
            }
            Ok(_) => None,
            Err(fault) => {
                {
                    let mut book = lock(&book);
                    eventloop.clean();
                    eventloop.pending.clear();
                    book.clear();
                }
                let down = Happened::Down {
                    reason: fault.to_string(),
                };
                if events.send(down).await.is_err() || !backoff.wait(&mut stopping).await {
                    return;
                }
                None
            }
        };
        if let Some(happened) = happened
            && events.send(happened).await.is_err()
        {
            return;
        }
    }
}

async fn drive_v5(
    mut eventloop: v5::EventLoop,
    book: Arc<Mutex<Book>>,
    events: mpsc::Sender<Happened>,
    mut stopping: watch::Receiver<bool>,
) {
    use v5::Event;
    use v5::mqttbytes::v5::{Packet, PubAckReason};
    let mut backoff = Backoff::default();
    loop {
        let polled = tokio::select! {
            polled = eventloop.poll() => polled,
            () = halted(&mut stopping) => {
                // Whoever stops us has asked for DISCONNECT: let it out.
                let goodbye = async {
                    while !matches!(eventloop.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
                };
                if lock(&book).up && tokio::time::timeout(GOODBYE_MAX, goodbye).await.is_err() {
                    tracing::debug!("no time to say DISCONNECT");
                }
                return;
            }
        };
        let happened = match polled {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                backoff.reset();
                lock(&book).up = true;
                Some(Happened::Up)
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let number = lock(&book).on_wire.remove(&ack.pkid);
                number.map(|number| match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                        Happened::Acknowledged(number)
                    }
                    reason => Happened::Refused(number, format!("{reason:?}")),
                })
            }
            Ok(Event::Incoming(Packet::Publish(message))) => Some(Happened::Message {
                topic: String::from_utf8_lossy(&message.topic).into_owned(),
                payload: message.payload,
            }),
            Ok(Event::Outgoing(Outgoing::Publish(packet))) => {
                lock(&book).sent(packet);
                None
            }
            Ok(_) => None,
            Err(fault) => {
                {
                    let mut book = lock(&book);
                    eventloop.clean();
                    eventloop.pending.clear();
                    book.clear();
                }
                let down = Happened::Down {
                    reason: fault.to_string(),
                };
                if events.send(down).await.is_err() || !backoff.wait(&mut stopping).await {
                    return;
                }
                None
            }
        };
        if let Some(happened) = happened
            && events.send(happened).await.is_err()
        {
            return;
        }
    }
}
