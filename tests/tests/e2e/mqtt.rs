//! MQTT judged by mosquitto's clients, v3.1.1 and v5.

use std::time::Duration;

use kerbside_sim::harness::tools::{self, Said, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, until};
use kerbside_sim::process::Process;

use crate::{LIMIT, report};

/// mosquitto_pub of one message.
async fn publish(
    gateway: &Gateway,
    user: &str,
    password: &str,
    version: &str,
    qos: &str,
    topic: &str,
    text: &str,
) -> Said {
    let port = gateway.ports.mqtt.to_string();
    let args = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        user,
        "-P",
        password,
        "-V",
        version,
        "-q",
        qos,
        "-t",
        topic,
        "-m",
        text,
    ];
    tools::run(LIMIT, "mosquitto_pub", &args).await
}

/// mosquitto_sub that goes on listening; its log is written line by line.
fn listener(gateway: &Gateway, name: &str, args: &[&str]) -> Process {
    let line_by_line = [&["-oL", "mosquitto_sub"], args].concat();
    tools::start(gateway.dir(), name, "stdbuf", &line_by_line)
}

#[tokio::test]
async fn each_version_and_quality_of_service_moves_the_picture() {
    if !have("mosquitto_pub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    let password = gateway.device("bc-01", "bodycam", Some("patrol-1"));
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut step = 0;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            step += 1;
            let lat = 37.69 + f64::from(step) * 1e-4;
            let topic = "kerbside/v1/bc-01/report";
            publish(
                &gateway,
                "bc-01",
                &password,
                version,
                qos,
                topic,
                &report(lat, 80),
            )
            .await
            .succeeded();
            feed.until_at(LIMIT, "bc-01", lat).await;
        }
    }
    assert_eq!(feed.devices["bc-01"]["unit"], "patrol-1");
}

#[tokio::test]
async fn a_wrong_password_is_refused_in_both_versions_and_told_once() {
    if !have("mosquitto_pub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let topic = "kerbside/v1/bc-01/report";
    let old = publish(&gateway, "bc-01", "wrong", "mqttv311", "1", topic, "{}").await;
    assert!(
        !old.status.success() && old.all().contains("not authori"),
        "{old:?}"
    );
    let new = publish(&gateway, "bc-01", "wrong", "mqttv5", "1", topic, "{}").await;
    assert!(!new.status.success(), "{new:?}");
    assert!(
        new.all()
            .to_lowercase()
            .contains("bad user name or password")
            || new.all().contains("Not authorized"),
        "{new:?}"
    );
    let unknown = publish(&gateway, "bc-99", "wrong", "mqttv311", "1", topic, "{}").await;
    assert!(
        unknown.all().contains("not authori"),
        "unknown devices are told nothing else: {unknown:?}"
    );
    assert!(
        !gateway.logged().contains("wrong"),
        "the password is in the log"
    );
}

#[tokio::test]
async fn foreign_topics_are_refused_and_move_nobody() {
    if !have("mosquitto_pub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    let password = gateway.device("bc-01", "bodycam", None);
    let other = gateway.device("bc-02", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let foreign = "kerbside/v1/bc-02/report";
    let new = publish(
        &gateway,
        "bc-01",
        &password,
        "mqttv5",
        "1",
        foreign,
        &report(1.0, 50),
    )
    .await;
    assert!(new.all().contains("Not authorized"), "{new:?}");
    let old = publish(
        &gateway,
        "bc-01",
        &password,
        "mqttv311",
        "1",
        foreign,
        &report(1.0, 50),
    )
    .await;
    assert!(
        !old.status.success(),
        "v3.1.1 has no reason codes: the connection closes: {old:?}"
    );
    publish(
        &gateway,
        "bc-02",
        &other,
        "mqttv5",
        "1",
        foreign,
        &report(37.69, 50),
    )
    .await
    .succeeded();
    feed.until_at(LIMIT, "bc-02", 37.69).await;
}

#[tokio::test]
async fn devices_listen_to_their_own_downlink_only() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    let password = gateway.device("bc-01", "bodycam", None);
    let port = gateway.ports.mqtt.to_string();
    for filter in [
        "#",
        "kerbside/v1/bc-02/down/#",
        "kerbside/v1/+/down/#",
        "$SYS/#",
    ] {
        let args = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-u",
            "bc-01",
            "-P",
            &password,
            "-V",
            "mqttv5",
            "-q",
            "1",
            "-t",
            filter,
            "-W",
            "10",
        ];
        let said = tools::run(LIMIT, "mosquitto_sub", &args).await;
        assert!(said.all().contains("denied"), "{filter}: {said:?}");
    }
    let own = [
        "-d",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        "bc-01",
        "-P",
        &password,
        "-V",
        "mqttv5",
        "-q",
        "1",
        "-t",
        "kerbside/v1/bc-01/down/#",
    ];
    let listening = listener(&gateway, "own-downlink", &own);
    until(LIMIT, "the own downlink is granted", || {
        listening
            .tail(20)
            .contains("Subscribed (mid: 1): 1")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_same_client_id_takes_over() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    let password = gateway.device("bc-01", "bodycam", None);
    let port = gateway.ports.mqtt.to_string();
    let listen = |name: &str| {
        let args = [
            "-d",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-u",
            "bc-01",
            "-P",
            &password,
            "-V",
            "mqttv5",
            "-i",
            "same",
            "-q",
            "1",
            "-t",
            "kerbside/v1/bc-01/down/#",
        ];
        listener(&gateway, name, &args)
    };
    let first = listen("first");
    until(LIMIT, "the first is connected", || {
        first.tail(20).contains("Subscribed").then_some(())
    })
    .await;
    let second = listen("second");
    until(LIMIT, "the first is told 0x8E", || {
        first.tail(30).contains("DISCONNECT (142)").then_some(())
    })
    .await;
    until(LIMIT, "the second is connected", || {
        second.tail(20).contains("Subscribed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn revoking_a_device_cuts_its_session_at_once() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    let password = gateway.device("bc-01", "bodycam", None);
    let port = gateway.ports.mqtt.to_string();
    let args = [
        "-d",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        "bc-01",
        "-P",
        &password,
        "-V",
        "mqttv5",
        "-q",
        "1",
        "-t",
        "kerbside/v1/bc-01/down/#",
    ];
    let listening = listener(&gateway, "revoked", &args);
    until(LIMIT, "connected", || {
        listening.tail(20).contains("Subscribed").then_some(())
    })
    .await;
    gateway.cli(&["device", "revoke", "bc-01"]).unwrap();
    until(Duration::from_secs(5), "cut with 0x98", || {
        listening
            .tail(30)
            .contains("DISCONNECT (152)")
            .then_some(())
    })
    .await;
    let again = publish(
        &gateway,
        "bc-01",
        &password,
        "mqttv311",
        "1",
        "kerbside/v1/bc-01/report",
        "{}",
    )
    .await;
    assert!(again.all().contains("not authori"), "{again:?}");
}
