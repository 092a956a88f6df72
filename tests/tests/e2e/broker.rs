//! Devices behind a foreign broker: a real Mosquitto between mosquitto's clients and the gateway.

use std::path::{Path, PathBuf};

use kerbside_sim::harness::tools::{self, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually, free_port, until};
use kerbside_sim::process::Process;
use serde_json::json;

use crate::bad_input::{Unmount, fill};
use crate::{LIMIT, report};

/// A Mosquitto that remembers sessions over a restart.
struct Mosquitto {
    port: u16,
    dir: tempfile::TempDir,
    process: Option<Process>,
}

impl Mosquitto {
    async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("kerbside-broker-")
            .tempdir()
            .expect("temporary directory");
        let mut me = Self {
            port: free_port(),
            dir,
            process: None,
        };
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\nmax_queued_messages 10000\n",
            me.port,
            me.dir.path().display()
        );
        std::fs::write(me.config(), text).expect("configuration");
        me.run().await;
        me
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("mosquitto.conf")
    }

    async fn run(&mut self) {
        let config = self.config();
        let user = if rustix::process::geteuid().is_root() {
            "root"
        } else {
            ""
        };
        if !user.is_empty() {
            let text = std::fs::read_to_string(&config).expect("configuration");
            if !text.contains("user ") {
                std::fs::write(&config, format!("{text}user {user}\n")).expect("configuration");
            }
        }
        let args = ["-v", "-c", config.to_str().expect("a path")];
        self.process = Some(tools::start(
            self.dir.path(),
            "mosquitto",
            &program(),
            &args,
        ));
        let port = self.port;
        until(LIMIT, "the broker listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port))
                .ok()
                .map(drop)
        })
        .await;
    }

    async fn stop(&mut self) {
        if let Some(mut p) = self.process.take() {
            p.stop(LIMIT).await;
        }
    }

    async fn publish(&self, topic: &str, text: &str) {
        let port = self.port.to_string();
        let args = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-V",
            "mqttv5",
            "-q",
            "1",
            "-t",
            topic,
            "-m",
            text,
        ];
        tools::run(LIMIT, "mosquitto_pub", &args).await.succeeded();
    }

    /// Publishes one message for each number from 1 to `n`, by one client. `%` in the text is the number.
    fn publish_many(&self, dir: &Path, topic: &str, n: u32, text: &str) -> Process {
        let script = format!(
            "seq 1 {n} | while read i; do echo '{text}' | sed \"s/%/$i/\"; done | mosquitto_pub -h 127.0.0.1 -p {} -V mqttv5 -q 1 -l -t {topic}",
            self.port
        );
        tools::start(dir, "many", "sh", &["-c", &script])
    }

    fn setup(&self, client_id: &str) -> Setup {
        Setup {
            more: format!(
                "[broker]\nurl = \"mqtt://127.0.0.1:{}\"\nclient_id = \"{client_id}\"\n",
                self.port
            ),
            ..Setup::default()
        }
    }
}

fn program() -> String {
    let known = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    let found = known.into_iter().find(|p| Path::new(p).is_file());
    found.unwrap_or("mosquitto").to_owned()
}

async fn connected(gateway: &Gateway) {
    eventually(LIMIT, "connected to the broker", async || {
        (gateway.metric("kerbside_broker_connected", &[]).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reports_come_and_orders_go_through_a_broker() {
    if !have("mosquitto_pub") {
        return;
    }
    let broker = Mosquitto::start().await;
    let gateway = Gateway::start(broker.setup("box-1")).await;
    gateway.device("bc-01", "bodycam", Some("patrol-1"));
    gateway.device("dock-1", "dock", None);
    let eve = gateway.user("eve", "operator");
    connected(&gateway).await;
    let mut feed = Feed::open(&gateway, &eve).await;
    eventually(LIMIT, "subscribed", async || {
        broker
            .publish("kerbside/v1/bc-01/report", &report(37.69, 80))
            .await;
        (gateway
            .metric("kerbside_broker_messages_total", &["owned"])
            .await
            >= 1.0)
            .then_some(())
    })
    .await;
    feed.until_at(LIMIT, "bc-01", 37.69).await;
    assert_eq!(feed.devices["bc-01"]["online"], true);

    // Whom nobody registered, and topics of no protocol, are counted and not shown.
    broker
        .publish("kerbside/v1/stranger/report", &report(1.0, 80))
        .await;
    eventually(LIMIT, "counted", async || {
        (gateway
            .metric("kerbside_broker_messages_total", &["unregistered"])
            .await
            >= 1.0)
            .then_some(())
    })
    .await;
    assert!(!feed.devices.contains_key("stranger"));

    // An aircraft that only its dock knows.
    let topology = json!({"tid": "t", "bid": "b", "method": "update_topo", "timestamp": 1_654_070_968_655i64, "data": {
        "domain": "3", "type": 119, "sub_type": 0, "sub_devices": [{"sn": "uav-1", "domain": "0", "type": 67, "sub_type": 1}]}});
    let port = broker.port.to_string();
    let args = [
        "-oL",
        "mosquitto_sub",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-V",
        "mqttv5",
        "-q",
        "1",
        "-F",
        "got %t %p",
        "-t",
        "sys/product/dock-1/status_reply",
        "-t",
        "kerbside/v1/bc-01/down/#",
    ];
    let devices = tools::start(gateway.dir(), "devices", "stdbuf", &args);
    eventually(
        LIMIT,
        "the dock is answered through the broker",
        async || {
            broker
                .publish("sys/product/dock-1/status", &topology.to_string())
                .await;
            devices
                .tail(20)
                .contains("got sys/product/dock-1/status_reply")
                .then_some(())
        },
    )
    .await;
    broker
        .publish(
            "thing/product/uav-1/osd",
            &json!({"data": {"latitude": 37.70, "longitude": 112.76, "height": 9.0}}).to_string(),
        )
        .await;
    feed.until_at(LIMIT, "uav-1", 37.70).await;

    let url = format!("{}/api/v1/devices/bc-01/orders", gateway.http());
    let body = json!({"kind": "message", "text": "by the broker"});
    let answer = reqwest::Client::new()
        .post(url)
        .bearer_auth(&eve)
        .json(&body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 201);
    until(LIMIT, "the order comes by the broker", || {
        devices
            .tail(20)
            .lines()
            .any(|l| {
                l.starts_with("got kerbside/v1/bc-01/down/order") && l.contains("by the broker")
            })
            .then_some(())
    })
    .await;
    eventually(
        LIMIT,
        "the order is sent, and no more is claimed",
        async || {
            let (_, list) = gateway.get("/api/v1/devices/bc-01/orders", &eve).await;
            (list["orders"][0]["state"] == "sent").then_some(())
        },
    )
    .await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_after_a_kill() {
    const CALLS: u32 = 200;
    if !have("mosquitto_pub") {
        return;
    }
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(broker.setup("box-1")).await;
    gateway.device("bc-01", "bodycam", None);
    let eve = gateway.user("eve", "operator");
    connected(&gateway).await;
    // The subscription is there when something comes.
    eventually(LIMIT, "subscribed", async || {
        broker
            .publish("kerbside/v1/bc-01/report", &report(37.69, 80))
            .await;
        (gateway
            .metric("kerbside_broker_messages_total", &["owned"])
            .await
            >= 1.0)
            .then_some(())
    })
    .await;
    let mut many = broker.publish_many(
        gateway.dir(),
        "kerbside/v1/bc-01/sos",
        CALLS,
        r#"{"id":"call-%"}"#,
    );
    eventually(LIMIT, "some are taken", async || {
        (gateway
            .metric("kerbside_broker_messages_total", &["owned"])
            .await
            >= 10.0)
            .then_some(())
    })
    .await;
    gateway.kill().await;
    assert!(
        many.wait(LIMIT).await.is_some_and(|s| s.success()),
        "the broker takes them all"
    );
    gateway.run().await;
    let events = eventually(LIMIT, "all calls are events", async || {
        let (_, said) = gateway.get("/api/v1/events?limit=500", &eve).await;
        let calls = said["events"]
            .as_array()?
            .iter()
            .filter(|e| e["kind"] == "sos")
            .count();
        (calls >= CALLS as usize).then_some(calls)
    })
    .await;
    assert_eq!(events, CALLS as usize, "none twice");
}

#[tokio::test]
async fn two_boxes_in_one_group_share_the_load() {
    const REPORTS: u32 = 100;
    if !have("mosquitto_pub") {
        return;
    }
    let broker = Mosquitto::start().await;
    let (one, two) = tokio::join!(
        Gateway::start(broker.setup("box-1")),
        Gateway::start(broker.setup("box-2"))
    );
    for gateway in [&one, &two] {
        gateway.device("bc-01", "bodycam", None);
        connected(gateway).await;
    }
    let owned = async |g: &Gateway| g.metric("kerbside_broker_messages_total", &["owned"]).await;
    eventually(LIMIT, "both are subscribed", async || {
        broker
            .publish("kerbside/v1/bc-01/report", &report(37.69, 80))
            .await;
        (owned(&one).await >= 1.0 && owned(&two).await >= 1.0).then_some(())
    })
    .await;
    let before = owned(&one).await + owned(&two).await;
    let text = r#"{"position":{"lat":37.69,"lon":112.75},"battery_pct":%}"#;
    let mut many = broker.publish_many(one.dir(), "kerbside/v1/bc-01/report", REPORTS, text);
    assert!(many.wait(LIMIT).await.is_some_and(|s| s.success()));
    eventually(LIMIT, "each report goes to one of them", async || {
        let all = owned(&one).await + owned(&two).await - before;
        (all >= f64::from(REPORTS)).then_some(())
    })
    .await;
    let (a, b) = (owned(&one).await, owned(&two).await);
    assert!(
        (a + b - before - f64::from(REPORTS)).abs() < 0.5,
        "to one only: {a} and {b}"
    );
    assert!(a >= 20.0 && b >= 20.0, "split: {a} and {b}");
}

#[tokio::test]
async fn a_broker_that_goes_is_told_and_found_again() {
    if !have("mosquitto_pub") {
        return;
    }
    let mut broker = Mosquitto::start().await;
    let gateway = Gateway::start(broker.setup("box-1")).await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    connected(&gateway).await;
    let ready = async || {
        let answer = reqwest::get(format!("{}/readyz", gateway.http()))
            .await
            .ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    };
    assert_eq!(ready().await, Some((200, "ready".to_owned())));
    broker.stop().await;
    eventually(LIMIT, "ready, and degraded", async || {
        let (status, text) = ready().await?;
        assert_eq!(status, 200, "the other ports work: {text}");
        text.contains("degraded: broker").then_some(())
    })
    .await;
    broker.run().await;
    connected(&gateway).await;
    let mut lat = 37.69;
    eventually(LIMIT, "reports come again", async || {
        lat += 1e-4;
        broker
            .publish("kerbside/v1/bc-01/report", &report(lat, 80))
            .await;
        (gateway
            .metric("kerbside_broker_messages_total", &["owned"])
            .await
            >= 1.0)
            .then_some(())
    })
    .await;
    feed.until_at(LIMIT, "bc-01", lat).await;
    assert_eq!(ready().await, Some((200, "ready".to_owned())));
}

#[tokio::test]
async fn what_the_disk_refuses_stays_with_the_broker() {
    if !have("mosquitto_pub") {
        return;
    }
    let mount = tempfile::tempdir().unwrap();
    let path = mount.path().to_str().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs", path])
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: a small file system cannot be mounted here (needs root)");
        return;
    }
    let _unmount = Unmount(path.to_owned());
    let broker = Mosquitto::start().await;
    let gateway = Gateway::start(Setup {
        state: Some(mount.path().join("state")),
        ..broker.setup("box-1")
    })
    .await;
    gateway.device("bc-01", "bodycam", None);
    let eve = gateway.user("eve", "operator");
    connected(&gateway).await;
    let filler = mount.path().join("filler");
    fill(&filler);
    let mut calls = 0;
    eventually(LIMIT, "a call is refused", async || {
        calls += 1;
        let call = json!({"id": format!("call-{calls}"), "note": "x".repeat(900)});
        broker
            .publish("kerbside/v1/bc-01/sos", &call.to_string())
            .await;
        (gateway
            .metric("kerbside_broker_messages_total", &["refused"])
            .await
            >= 1.0)
            .then_some(())
    })
    .await;
    let url = format!("{}/api/v1/devices/bc-01/orders", gateway.http());
    let client = reqwest::Client::new();
    let order = json!({"kind": "message", "text": "x".repeat(2000)});
    // Half-used pages may still take a few.
    eventually(LIMIT, "orders are refused too", async || {
        let answer = client
            .post(&url)
            .bearer_auth(&eve)
            .json(&order)
            .send()
            .await;
        (answer.ok()?.status().as_u16() == 503).then_some(())
    })
    .await;
    std::fs::remove_file(&filler).unwrap();
    eventually(LIMIT, "all calls are events", async || {
        let (_, said) = gateway.get("/api/v1/events?limit=500", &eve).await;
        let known = said["events"]
            .as_array()?
            .iter()
            .filter(|e| e["kind"] == "sos")
            .count();
        (known >= calls).then_some(())
    })
    .await;
}
