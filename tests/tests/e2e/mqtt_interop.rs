//! MQTT in the situations that public interoperability suites look at, with paho-mqtt and rumqttc as clients.

use std::path::PathBuf;
use std::time::Duration;

use kerbside_sim::harness::tools;
use kerbside_sim::harness::{Feed, Gateway, Setup};
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet as Packet5, PubAckReason};

use crate::{LIMIT, report};

/// Python with paho-mqtt, where `tests/deps.sh test` put it.
fn paho() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/paho/bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!("skipped: paho-mqtt is missing (tests/deps.sh test installs it)");
    None
}

/// One situation of paho_peer.py, as device bc-01.
async fn situation(gateway: &Gateway, version: &str, name: &str) {
    let Some(python) = paho() else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/paho_peer.py");
    let port = gateway.ports.mqtt.to_string();
    let args = [
        script,
        &port,
        "bc-01",
        &gateway.secret("bc-01"),
        version,
        name,
    ];
    let said = tools::run(4 * LIMIT, python.to_str().unwrap(), &args).await;
    assert!(
        said.status.success(),
        "{name} in version {version}: {}",
        said.all()
    );
}

async fn street() -> Gateway {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", Some("patrol-1"));
    gateway
}

#[tokio::test]
async fn paho_publishes_in_every_way() {
    let gateway = street().await;
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    for version in ["3", "5"] {
        situation(&gateway, version, "every_quality_of_service").await;
        if paho().is_some() {
            feed.until_at(LIMIT, "bc-01", 37.702).await;
        }
        situation(&gateway, version, "many_at_once").await;
    }
    situation(&gateway, "5", "topic_alias").await;
    situation(&gateway, "5", "properties").await;
}

#[tokio::test]
async fn paho_is_told_what_it_may_not() {
    let gateway = street().await;
    for version in ["3", "5"] {
        for name in [
            "client_ids",
            "wrong_password",
            "foreign_topics",
            "forbidden_will",
        ] {
            situation(&gateway, version, name).await;
        }
    }
    situation(&gateway, "5", "enhanced_authentication").await;
}

#[tokio::test]
async fn paho_subscribes_and_sessions_live_on() {
    let gateway = street().await;
    for version in ["3", "5"] {
        for name in ["take_over", "subscriptions", "answers_down", "redelivery"] {
            situation(&gateway, version, name).await;
        }
    }
    situation(&gateway, "5", "session_expiry").await;
}

#[tokio::test]
async fn paho_and_the_gateway_keep_each_others_limits() {
    let gateway = street().await;
    situation(&gateway, "5", "limits").await;
    situation(&gateway, "5", "what_the_client_takes").await;
}

#[tokio::test]
async fn the_will_of_paho_is_its_last_report_and_it_is_gone() {
    let gateway = street().await;
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    if paho().is_none() {
        return;
    }
    for version in ["3", "5"] {
        situation(&gateway, version, "will").await;
        let battery: f64 = version.parse().unwrap();
        feed.until(LIMIT, "the will, and the device is gone", |feed| {
            let d = feed.devices.get("bc-01")?;
            let told = d["battery_pct"].as_f64() == Some(battery) && d["online"] == false;
            told.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn rumqttc_of_v3_resumes_its_session() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

    let gateway = street().await;
    let open = || {
        let mut how = MqttOptions::new("rumqttc", "127.0.0.1", gateway.ports.mqtt);
        how.set_credentials("bc-01", gateway.secret("bc-01"));
        how.set_clean_session(false);
        AsyncClient::new(how, 10)
    };
    let (client, mut events) = open();
    let down = "kerbside/v1/bc-01/down/#";
    client.subscribe(down, QoS::AtLeastOnce).await.unwrap();
    let topic = "kerbside/v1/bc-01/report";
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        client
            .publish(topic, qos, false, report(37.7, 80))
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    let done = async {
        while seen.len() < 4 {
            match events.poll().await.expect("a connection") {
                Event::Incoming(Packet::ConnAck(a)) => seen.push(format!("{}", a.session_present)),
                Event::Incoming(Packet::SubAck(a)) => seen.push(format!("{:?}", a.return_codes)),
                Event::Incoming(Packet::PubAck(_)) => seen.push("puback".into()),
                Event::Incoming(Packet::PubComp(_)) => seen.push("pubcomp".into()),
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, done).await.unwrap();
    seen.sort();
    assert_eq!(
        seen,
        ["[Success(AtLeastOnce)]", "false", "puback", "pubcomp"]
    );
    drop((client, events));
    let (_client, mut events) = open();
    let Event::Incoming(Packet::ConnAck(ack)) = events.poll().await.unwrap() else {
        panic!("no CONNACK");
    };
    assert!(ack.session_present);
}

#[tokio::test]
async fn rumqttc_of_v5_reads_reasons() {
    use rumqttc::v5::{AsyncClient, Event, MqttOptions, mqttbytes::QoS};

    let gateway = street().await;
    let mut how = MqttOptions::new("rumqttc", "127.0.0.1", gateway.ports.mqtt);
    how.set_credentials("bc-01", gateway.secret("bc-01"));
    how.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(how, 10);
    for device in ["other", "bc-01"] {
        let topic = format!("kerbside/v1/{device}/report");
        client
            .publish(topic, QoS::AtLeastOnce, true, report(37.7, 80))
            .await
            .unwrap();
    }
    let mut reasons = Vec::new();
    let done = async {
        while reasons.len() < 2 {
            match events.poll().await.expect("a connection") {
                Event::Incoming(Packet5::ConnAck(ack)) => {
                    assert_eq!(ack.code, ConnectReturnCode::Success);
                }
                Event::Incoming(Packet5::PubAck(ack)) => {
                    let told = ack.properties.and_then(|p| p.reason_string);
                    reasons.push((ack.reason, told.is_some()));
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, done).await.unwrap();
    assert_eq!(
        reasons,
        [
            (PubAckReason::NotAuthorized, true),
            (PubAckReason::Success, false)
        ]
    );
}
