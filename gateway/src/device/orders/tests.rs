//! Orders through a real fleet whose sessions are the test.

use std::sync::Arc;
use std::time::Instant;

use kerbside_codecs::telemetry::order::Wanted;
use kerbside_codecs::telemetry::{Codecs, Decoded, Said, Speaker};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, timeout};

use super::*;
use crate::clock::Now;
use crate::device::actor::Owner;
use crate::device::{Downlink, Downlinks, Fleet, Uplink};
use crate::ids::SessionId;
use crate::picture::Fact;
use crate::registry::{DeviceKind, Registry};
use crate::stream::{Streams, StreamsLimits};

struct Yard {
    orders: Orders,
    fleet: Fleet,
    registry: Registry,
    dir: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

/// Answers are `ORDER SAID` on the topic `kerbside/v1/{device}/sos`; all else is decoded as always.
fn decode(speaker: Speaker<'_>, topic: &str, payload: &[u8], at_ms: i64) -> Decoded {
    assert_ne!(payload, b"poison", "injected by the test");
    let text = std::str::from_utf8(payload).unwrap_or_default();
    match text.split_once(' ').filter(|_| topic.ends_with("/sos")) {
        Some((order, said)) => Decoded {
            answers: vec![Answer {
                order: order.to_owned(),
                said: match said {
                    "read" => Said::Read,
                    _ => Said::Refused,
                },
                note: None,
            }],
            ..Decoded::default()
        },
        None => Codecs::default().decode(speaker, topic, payload, at_ms),
    }
}

fn yard() -> Yard {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let book = OrderBook::open(dir.path()).unwrap();
    let (tx, mut facts) = mpsc::channel::<(Fact, oneshot::Sender<bool>)>(8);
    let fleet = Fleet::with(
        registry.clone(),
        Owner::Desk(tx),
        Arc::new(decode),
        book.clone(),
    );
    drop(actix_rt::spawn(async move {
        while let Some((_, answer)) = facts.recv().await {
            answer.send(true).unwrap_or_default();
        }
    }));
    let places = Places {
        rtsp: Some("rtsp://box:8554".into()),
        http: Some("https://box:8443".into()),
    };
    let streams = Streams::new(StreamsLimits::default());
    let orders = Orders::new(book, fleet.clone(), registry.clone(), streams, places);
    let (stop, shutdown) = watch::channel(false);
    drop(actix_rt::spawn(orders.clone().work(shutdown)));
    Yard {
        orders,
        fleet,
        registry,
        dir,
        _stop: stop,
    }
}

fn device(id: &str) -> DeviceId {
    DeviceId::parse(id).unwrap()
}

impl Yard {
    async fn open(&self, id: &str) -> (SessionId, Arc<Downlinks>) {
        let (session, down) = (SessionId::next(), Arc::<Downlinks>::default());
        let registered = self.registry.device(id).unwrap();
        let opening = self
            .fleet
            .open(registered, session, None, "mqtt", Arc::clone(&down));
        opening.await.unwrap();
        (session, down)
    }

    async fn give(&self, id: &str, body: Value) -> Order {
        let giver = Giver {
            by: "eve".into(),
            role: "operator".into(),
            peer: "::1".into(),
        };
        let wanted = Wanted::read(&body).unwrap();
        self.orders.give(device(id), wanted, giver).await.unwrap()
    }

    fn state(&self, id: OrderId) -> Stage {
        self.orders.book.get(id).unwrap().state
    }

    async fn says(&self, id: &str, session: SessionId, topic: &str, text: &str) {
        let up = Uplink::new(topic.into(), text.to_owned().into(), Now::read());
        self.fleet.message(&device(id), session, up).await.unwrap();
    }
}

async fn next(down: &Downlinks) -> Downlink {
    let wait = async {
        loop {
            if let Some(d) = down.pop() {
                return d;
            }
            down.pushed().await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap()
}

fn message() -> Value {
    json!({"kind": "message", "text": "hello"})
}

#[actix::test]
async fn receipts_and_answers_are_the_steps() {
    let y = yard();
    y.registry
        .add_device("bc-01", DeviceKind::Bodycam, None)
        .unwrap();
    let (session, down) = y.open("bc-01").await;
    let order = y.give("bc-01", message()).await;
    let d = next(&down).await;
    assert_eq!(d.topic, "kerbside/v1/bc-01/down/order");
    let left = d.expires.unwrap().saturating_duration_since(Instant::now());
    assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
    let receipt = d.receipt.clone().unwrap();
    receipt.written();
    assert_eq!(y.state(order.id), Stage::Sent);
    receipt.acknowledged();
    assert_eq!(y.state(order.id), Stage::Delivered);
    let answer = format!("{} read", order.id);
    y.says("bc-01", session, "kerbside/v1/bc-01/sos", &answer)
        .await;
    assert_eq!(y.state(order.id), Stage::Read);

    // On disk it is the same after a restart.
    y.orders.book.close();
    let again = OrderBook::open(y.dir.path()).unwrap();
    assert_eq!(again.get(order.id), y.orders.book.get(order.id));
    again.close();
}

#[actix::test]
async fn a_lost_message_is_sent_again_when_the_device_listens() {
    let y = yard();
    y.registry
        .add_device("bc-01", DeviceKind::Bodycam, None)
        .unwrap();
    let order = y.give("bc-01", message()).await;
    assert_eq!(order.state, Stage::Waiting, "nobody is there");
    let (session, down) = y.open("bc-01").await;
    y.fleet.listening(&device("bc-01"));
    let first = next(&down).await;
    first.receipt.as_ref().unwrap().written();
    // The connection breaks with the message under way: its only copy goes.
    y.fleet.close(&device("bc-01"), session).await;
    drop((first, down));
    assert_eq!(y.state(order.id), Stage::Sent);
    let (_, down) = y.open("bc-01").await;
    y.fleet.listening(&device("bc-01"));
    let again = next(&down).await;
    assert!(
        std::str::from_utf8(&again.payload)
            .unwrap()
            .contains(&order.id.to_string())
    );
    again.receipt.as_ref().unwrap().refused("too large");
    assert_eq!(y.state(order.id), Stage::Refused);
    let last = y.orders.book.get(order.id).unwrap().steps.pop().unwrap();
    assert_eq!(last.note.as_deref(), Some("too large"));
}

#[actix::test]
async fn an_aircraft_is_reached_by_its_dock_with_a_pass() {
    let y = yard();
    y.registry
        .add_device("dock-1", DeviceKind::Dock, None)
        .unwrap();
    let (session, down) = y.open("dock-1").await;
    let start = json!({"kind": "live_start", "camera": "39-0-7"});
    assert!(y.orders.registered(&device("uav-1")).is_none());
    let early = y.give("uav-1", start.clone()).await;
    assert_eq!(early.state, Stage::Waiting);
    let topology = json!({"tid": "t", "bid": "b", "method": "update_topo", "data": {
        "domain": "3", "type": 1, "sub_devices": [{"sn": "uav-1", "domain": "0", "type": 67}]}});
    let text = topology.to_string();
    y.says("dock-1", session, "sys/product/dock-1/status", &text)
        .await;
    assert_eq!(y.orders.registered(&device("uav-1")).unwrap().id, "dock-1");
    // Announced: what waited goes, after the answer to the announcement or before it.
    let mut asked = next(&down).await;
    if asked.receipt.is_none() {
        asked = next(&down).await;
    }
    assert_eq!(asked.topic, "thing/product/dock-1/services");
    let said: Value = serde_json::from_slice(&asked.payload).unwrap();
    assert_eq!(said["tid"], json!(early.id.to_string()));
    let url = said["data"]["url"].as_str().unwrap();
    let (place, pass) = url.split_once("?pass=").unwrap();
    assert_eq!(place, "https://box:8443/dock-1/uav-1_39-0-7/whip");
    let stream = crate::ids::StreamId::new("dock-1", "uav-1_39-0-7").unwrap();
    let now = std::time::Instant::now();
    assert!(y.orders.passes.is_valid(pass, &stream, now));
    y.give("uav-1", json!({"kind": "live_stop", "camera": "39-0-7"}))
        .await;
    assert!(!y.orders.passes.is_valid(pass, &stream, now), "stopped");
    let refused = y.give("uav-1", message()).await;
    assert_eq!(refused.state, Stage::Refused, "at once");
}

#[actix::test]
async fn nobodys_orders_wait_for_a_device_whose_actor_died() {
    let y = yard();
    // More than could be waited for one after the other until the first successor comes.
    let victims: Vec<String> = (0..8).map(|n| format!("a{n}")).collect();
    for id in victims.iter().map(String::as_str).chain(["b"]) {
        y.registry
            .add_device(id, DeviceKind::Bodycam, None)
            .unwrap();
        y.give(id, message()).await;
    }
    for id in &victims {
        let (session, _) = y.open(id).await;
        y.fleet.set_deaths(&device(id), 10);
        let (fleet, id) = (y.fleet.clone(), device(id));
        drop(actix_rt::spawn(async move {
            let topic = format!("kerbside/v1/{id}/report");
            let up = Uplink::new(topic.into(), "poison".into(), Now::read());
            assert!(fleet.message(&id, session, up).await.is_err());
        }));
    }
    let all_wait = async {
        while !victims.iter().all(|id| y.fleet.is_waiting(&device(id))) {
            let looked = victims.iter().map(|id| y.fleet.is_online(&device(id)));
            assert!(looked.into_iter().all(|is_online| is_online));
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), all_wait).await.unwrap();
    let (_, down) = y.open("b").await;
    for id in victims.iter().map(String::as_str).chain(["b"]) {
        y.fleet.listening(&device(id));
    }
    next(&down).await;
    assert!(victims.iter().all(|id| y.fleet.is_waiting(&device(id))));
}
