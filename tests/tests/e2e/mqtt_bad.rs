//! Bad MQTT of a device that is registered: answered, counted in that device's state, and nobody else's business.

use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{LIMIT, report};

fn text(s: &str) -> Vec<u8> {
    [
        &u16::try_from(s.len()).unwrap().to_be_bytes()[..],
        s.as_bytes(),
    ]
    .concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut out, mut n) = (vec![first], body.len());
    loop {
        let low = u8::try_from(n & 0x7f).unwrap();
        n >>= 7;
        out.push(if n > 0 { low | 0x80 } else { low });
        if n == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn publish(qos: u8, id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.push(0);
    body.extend(payload);
    packet(0x30 | qos << 1, &body)
}

/// A v5 device that writes bytes by hand.
struct Raw(TcpStream);

impl Raw {
    fn hello(gateway: &Gateway, client_id: &str, will: Option<&str>) -> Vec<u8> {
        let flags = if will.is_some() { 0xc6 } else { 0xc2 };
        let mut body = b"\0\x04MQTT\x05".to_vec();
        body.extend([flags, 0, 60, 0]);
        body.extend(text(client_id));
        if let Some(topic) = will {
            body.push(0);
            body.extend(text(topic));
            body.extend(text("x"));
        }
        body.extend(text("bc-01"));
        body.extend(text(&gateway.secret("bc-01")));
        packet(0x10, &body)
    }

    /// Connects; the reason code of CONNACK.
    async fn knock(gateway: &Gateway, client_id: &str, will: Option<&str>) -> (Self, u8) {
        let address = ("127.0.0.1", gateway.ports.mqtt);
        let mut io = TcpStream::connect(address).await.unwrap();
        io.write_all(&Self::hello(gateway, client_id, will))
            .await
            .unwrap();
        let mut head = [0; 2];
        let mut body = [0; 128];
        let read = async {
            io.read_exact(&mut head).await?;
            io.read_exact(&mut body[..head[1].into()]).await
        };
        tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
        (Self(io), body[1])
    }

    async fn open(gateway: &Gateway, client_id: &str) -> Self {
        let (raw, code) = Self::knock(gateway, client_id, None).await;
        assert_eq!(code, 0);
        raw
    }

    /// Sends; the gateway may close meanwhile.
    async fn says(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// Takes what comes until the other side closes.
    async fn finish(mut self) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(LIMIT, self.0.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection stays open; last: {rest:x?}");
    }
}

async fn street() -> (Gateway, Feed) {
    let gateway = Gateway::start(Setup::default()).await;
    for device in ["bc-01", "bc-02"] {
        gateway.device(device, "bodycam", None);
    }
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    // The picture looks at the registry a few times a second.
    feed.until(LIMIT, "both are known", |feed| {
        (feed.devices.len() == 2).then_some(())
    })
    .await;
    (gateway, feed)
}

async fn until_fault(feed: &mut Feed, fault: &str, least: u64) {
    feed.until(LIMIT, fault, |feed| {
        let n = feed.devices.get("bc-01")?["faults"][fault].as_u64();
        (n.unwrap_or(0) >= least).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_fault_is_in_the_state_of_its_device() {
    let (gateway, mut feed) = street().await;
    let own = "kerbside/v1/bc-01/report";
    let deep = "/".repeat(65_535);
    let mut filter = vec![0, 1, 0];
    filter.extend(text("kerbside/v1/bc-02/down/#"));
    filter.push(1);
    let (_will, code) = Raw::knock(&gateway, "w", Some("kerbside/v1/bc-02/report")).await;
    assert_eq!(code, 0x87);
    until_fault(&mut feed, "mqtt_will", 1).await;
    // What does not end the session.
    let mut raw = Raw::open(&gateway, "a").await;
    for (bytes, fault) in [
        (
            publish(1, 1, "kerbside/v1/bc-02/report", b"{}"),
            "mqtt_not_authorized",
        ),
        (packet(0x82, &filter), "mqtt_subscription"),
        (vec![0x62, 2, 0, 9], "mqtt_packet_id"),
    ] {
        assert!(raw.says(&bytes).await);
        until_fault(&mut feed, fault, 1).await;
    }
    assert!(raw.says(&publish(1, 2, &deep, b"{}")).await);
    until_fault(&mut feed, "mqtt_not_authorized", 2).await;
    // What does.
    for (bytes, fault) in [
        (
            publish(1, 3, own, &vec![b'x'; 10_000_000]),
            "mqtt_too_large",
        ),
        (publish(1, 0, own, b"{}"), "mqtt_malformed"),
        (publish(1, 3, "kerbside\0", b"{}"), "mqtt_malformed"),
        (packet(0x30, b"\0\x02\xc3\x28\0"), "mqtt_malformed"),
        (packet(0x30, b"\0\x63a"), "mqtt_malformed"),
        (Raw::hello(&gateway, "a", None), "mqtt_protocol"),
        (packet(0x30, b"\0\0\x03\x23\0\x05x"), "mqtt_topic_alias"),
    ] {
        let before = feed
            .devices
            .get("bc-01")
            .and_then(|d| d["faults"][fault].as_u64());
        let mut raw = Raw::open(&gateway, "b").await;
        raw.says(&bytes).await;
        raw.finish().await;
        until_fault(&mut feed, fault, before.unwrap_or(0) + 1).await;
    }
    // QoS 2 that nobody releases.
    let mut raw = Raw::open(&gateway, "b").await;
    let fix = report(37.69, 80);
    for id in 1..=65 {
        raw.says(&publish(2, id, own, fix.as_bytes())).await;
    }
    raw.finish().await;
    until_fault(&mut feed, "mqtt_receive_maximum", 1).await;
    feed.until_at(LIMIT, "bc-01", 37.69).await;
    assert_eq!(
        feed.devices["bc-02"]["faults"],
        serde_json::json!({}),
        "somebody else's"
    );
}

#[tokio::test]
async fn ten_thousand_reconnects_shut_nobody_out() {
    let (gateway, mut feed) = street().await;
    let mut honest = crate::crash::Caller::open(&gateway, "bc-02").await;
    // Its own other session goes on too.
    let mut calm = Raw::open(&gateway, "calm").await;
    let mut codes = std::collections::BTreeMap::new();
    let mut storm = tokio::task::JoinSet::new();
    for n in 0..600 {
        let hello = Raw::hello(&gateway, &format!("s{}", n % 2), None);
        let address = ("127.0.0.1", gateway.ports.mqtt);
        storm.spawn(async move {
            let mut io = TcpStream::connect(address).await.ok()?;
            io.write_all(&hello).await.ok()?;
            let mut ack = [0; 4];
            let read = tokio::time::timeout(LIMIT, io.read_exact(&mut ack));
            read.await.ok()?.ok()?;
            Some(ack[3])
        });
    }
    while let Some(code) = storm.join_next().await {
        *codes.entry(code.unwrap()).or_insert(0) += 1;
    }
    let (let_in, slowed) = (codes.get(&Some(0)), codes.get(&Some(0x9f)));
    assert!(let_in.is_some_and(|n| *n >= 10), "{codes:?}");
    assert!(slowed.is_some_and(|n| *n >= 300), "{codes:?}");
    until_fault(&mut feed, "mqtt_too_often", 300).await;
    assert!(honest.say("kerbside/v1/bc-02/report", &report(37.7, 80)));
    honest.all_acknowledged(LIMIT).await;
    let fix = report(37.71, 80);
    assert!(
        calm.says(&publish(1, 1, "kerbside/v1/bc-01/report", fix.as_bytes()))
            .await
    );
    feed.until_at(LIMIT, "bc-01", 37.71).await;
}

#[tokio::test]
async fn a_flood_of_messages_costs_no_memory_and_no_neighbour() {
    const GROWTH_BYTES_MAX: u64 = 32 << 20;
    let (mut gateway, mut feed) = street().await;
    let mut honest = crate::crash::Caller::open(&gateway, "bc-02").await;
    let before = gateway.process().resident_bytes();
    let foreign = publish(0, 0, "kerbside/v1/bc-02/report", &vec![b' '; 4000]);
    let own = publish(
        0,
        0,
        "kerbside/v1/bc-01/report",
        report(37.69, 80).as_bytes(),
    );
    let pings = [0xc0, 0].repeat(2000);
    let mut floods = tokio::task::JoinSet::new();
    // Of this one nothing is read: its pongs have no way out.
    for (n, bytes) in [foreign, own, pings].into_iter().enumerate() {
        let mut raw = Raw::open(&gateway, &n.to_string()).await;
        floods.spawn(async move { while raw.says(&bytes).await {} });
    }
    for step in 0..20 {
        let lat = 37.7 + f64::from(step) * 1e-4;
        assert!(honest.say("kerbside/v1/bc-02/report", &report(lat, 80)));
        honest.all_acknowledged(LIMIT).await;
        feed.until_at(LIMIT, "bc-02", lat).await;
    }
    eventually(LIMIT, "floods counted", async || {
        let shed = gateway
            .metric("kerbside_protocol_faults_total", &["mqtt_not_authorized"])
            .await;
        (shed >= 2000.0).then_some(())
    })
    .await;
    let after = gateway.process().resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} to {after}");
}
