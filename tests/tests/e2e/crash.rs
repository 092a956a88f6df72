//! SIGKILL at any moment loses no acknowledged event.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kerbside_sim::fleet::link::{Happened, Link, Target, Version};
use kerbside_sim::harness::{Gateway, Setup, until};
use kerbside_sim::platform::{Behaviour, Platform};
use tokio::sync::{mpsc, watch};

use crate::LIMIT;

/// Each connection has its own client id: a second one of the same would take over.
static CONNECTIONS: AtomicU32 = AtomicU32::new(0);

/// A device that calls for help and remembers which calls were acknowledged.
pub struct Caller {
    device: String,
    link: Link,
    events: mpsc::Receiver<Happened>,
    pub waiting: std::collections::BTreeMap<u64, String>,
    pub acknowledged: BTreeSet<String>,
    pub refused: Vec<String>,
    /// Messages neither acknowledged nor refused when their connection ended.
    pub lost: usize,
    up: bool,
    _stop: watch::Sender<bool>,
}

impl Caller {
    /// Connects (v5); comes back by itself.
    pub async fn open(gateway: &Gateway, device: &str) -> Caller {
        let (stop, stopping) = watch::channel(false);
        let target = Target {
            broker: gateway.mqtt(),
            user: device.to_owned(),
            password: gateway.secret(device),
            client_id: format!("{device}-{}", CONNECTIONS.fetch_add(1, Ordering::Relaxed)),
            version: Version::V5,
        };
        let (link, events) = Link::open(&target, stopping).unwrap();
        let mut caller = Caller {
            device: device.to_owned(),
            link,
            events,
            waiting: std::collections::BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            refused: Vec::new(),
            lost: 0,
            up: false,
            _stop: stop,
        };
        caller.connected(LIMIT).await;
        caller
    }

    /// Publishes a call for help with this id; false when there is no connection.
    pub fn call(&mut self, id: &str) -> bool {
        let topic = format!("kerbside/v1/{}/sos", self.device);
        let text = serde_json::json!({"id": id, "note": format!("call {id}"), "position": {"lat": 37.69, "lon": 112.75}});
        match self.link.publish(&topic, text.to_string().into_bytes()) {
            Some(number) => self.waiting.insert(number, id.to_owned()).is_none(),
            None => false,
        }
    }

    fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Up => self.up = true,
            Happened::Down { .. } => {
                self.up = false;
                self.lost += self.waiting.len();
                self.waiting.clear();
            }
            Happened::Acknowledged(number) => {
                self.acknowledged.extend(self.waiting.remove(&number));
            }
            Happened::Refused(number, reason) => {
                self.waiting.remove(&number);
                self.refused.push(reason);
            }
            Happened::Message { .. } => {}
        }
    }

    /// Takes what happened until `done`; panics after `limit`.
    async fn until(&mut self, limit: Duration, what: &str, done: impl Fn(&Caller) -> bool) {
        let deadline = tokio::time::Instant::now() + limit;
        while !done(self) {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(happened)) => self.handle(happened),
                Ok(None) => panic!("the connection ended: {what}"),
                Err(_) => panic!(
                    "{} waited {limit:?} in vain: {what}; refused: {:?}",
                    self.device, self.refused
                ),
            }
        }
    }

    pub async fn connected(&mut self, limit: Duration) {
        self.until(limit, "connected", |caller| caller.up).await;
    }

    pub async fn disconnected(&mut self, limit: Duration) {
        self.until(limit, "disconnected", |caller| !caller.up).await;
    }

    /// Every message was answered; panics when the connection ended before that.
    pub async fn all_acknowledged(&mut self, limit: Duration) {
        let lost = self.lost;
        self.until(limit, "all acknowledged", |caller| {
            caller.waiting.is_empty()
        })
        .await;
        assert_eq!(
            self.lost, lost,
            "{}: the connection ended before its messages were answered",
            self.device
        );
    }

    pub async fn some_acknowledged(&mut self, limit: Duration, count: usize) {
        self.until(limit, "some acknowledged", |caller| {
            caller.acknowledged.len() >= count
        })
        .await;
    }

    /// Publishes any message.
    pub fn say(&mut self, topic: &str, text: &str) -> bool {
        match self.link.publish(topic, text.as_bytes().to_vec()) {
            Some(number) => self.waiting.insert(number, text.to_owned()).is_none(),
            None => false,
        }
    }
}

/// One call for help, acknowledged.
pub async fn call(gateway: &Gateway, device: &str, id: &str) {
    let mut caller = Caller::open(gateway, device).await;
    assert!(caller.call(id));
    caller.all_acknowledged(LIMIT).await;
}

#[tokio::test]
async fn no_acknowledged_call_is_lost_by_sigkill_in_a_burst() {
    let any = "127.0.0.1:0".parse().unwrap();
    let platform = Platform::start(
        any,
        Behaviour {
            slow_ms: 5,
            ..Behaviour::default()
        },
    )
    .await
    .unwrap();
    let mut gateway = Gateway::start(Setup {
        platforms: vec![("joint".into(), format!("http://{}/events", platform.addr))],
        ..Setup::default()
    })
    .await;
    for id in ["bc-01", "bc-02", "bc-03"] {
        gateway.device(id, "bodycam", None);
    }
    let mut acknowledged = BTreeSet::new();
    for round in 0..4 {
        let mut callers = Vec::new();
        for id in ["bc-01", "bc-02", "bc-03"] {
            callers.push(Caller::open(&gateway, id).await);
        }
        for number in 0..200 {
            for caller in &mut callers {
                caller.call(&format!("{round}-{number}"));
            }
        }
        // Some are acknowledged, many are under way.
        for caller in &mut callers {
            caller.some_acknowledged(LIMIT, 5 + 10 * round).await;
        }
        gateway.kill().await;
        for caller in &mut callers {
            caller.disconnected(LIMIT).await;
            acknowledged.extend(
                caller
                    .acknowledged
                    .iter()
                    .map(|id| format!("{}/call {id}", caller.device)),
            );
        }
        gateway.run().await;
    }
    assert!(
        acknowledged.len() >= 200,
        "only {} calls were acknowledged",
        acknowledged.len()
    );
    until(
        Duration::from_secs(60),
        "every acknowledged call arrives",
        || {
            let account = platform.account();
            let arrived: BTreeSet<String> = account
                .events
                .iter()
                .map(|event| {
                    format!(
                        "{}/{}",
                        event.subject,
                        event.event["data"]["note"].as_str().unwrap_or_default()
                    )
                })
                .collect();
            acknowledged.is_subset(&arrived).then_some(())
        },
    )
    .await;
}
