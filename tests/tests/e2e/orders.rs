//! Orders to devices: the ladder from the API to mosquitto's clients and back, through absence, death and restart.

use std::time::Duration;

use kerbside_sim::harness::tools::{self, have};
use kerbside_sim::harness::{Gateway, Setup, eventually, until};
use kerbside_sim::process::Process;
use serde_json::{Value, json};

use crate::LIMIT;

/// Status and body of an order.
pub(crate) async fn order(
    gateway: &Gateway,
    token: &str,
    device: &str,
    body: &Value,
) -> (u16, Value) {
    let url = format!("{}/api/v1/devices/{device}/orders", gateway.http());
    let client = reqwest::Client::new();
    let answer = client.post(url).bearer_auth(token).json(body).send();
    let answer = answer.await.expect("the API answers");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

pub(crate) async fn given(gateway: &Gateway, token: &str, device: &str, body: &Value) -> String {
    let (status, said) = order(gateway, token, device, body).await;
    assert_eq!(status, 201, "{said}");
    said["order"]["id"].as_str().expect("an id").to_owned()
}

pub(crate) async fn until_state(gateway: &Gateway, token: &str, id: &str, state: &str) -> Value {
    let path = format!("/api/v1/orders/{id}");
    eventually(LIMIT, &format!("the order is {state}"), async || {
        let order = gateway.get(&path, token).await.1["order"].take();
        (order["state"] == state).then_some(order)
    })
    .await
}

fn states(order: &Value) -> Vec<&str> {
    let steps = order["steps"].as_array().expect("steps");
    steps.iter().filter_map(|s| s["state"].as_str()).collect()
}

/// mosquitto_sub as the device, which goes on listening with a session that outlives it.
pub(crate) fn listening(gateway: &Gateway, name: &str, device: &str, filter: &str) -> Process {
    let (port, password) = (gateway.ports.mqtt.to_string(), gateway.secret(device));
    let args = [
        "-oL",
        "mosquitto_sub",
        "-d",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        device,
        "-P",
        &password,
        "-V",
        "mqttv5",
        "-i",
        "phone",
        "-c",
        "-x",
        "600",
        "-q",
        "1",
        "-F",
        "got %p",
        "-t",
        filter,
    ];
    tools::start(gateway.dir(), name, "stdbuf", &args)
}

/// mosquitto_pub as the device.
pub(crate) async fn says(gateway: &Gateway, device: &str, topic: &str, text: &str) {
    let (port, password) = (gateway.ports.mqtt.to_string(), gateway.secret(device));
    let args = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        device,
        "-P",
        &password,
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

pub(crate) async fn got(process: &Process, what: &str) -> Value {
    until(LIMIT, &format!("the device gets {what}"), || {
        let log = process.tail(60);
        let line = log
            .lines()
            .rfind(|l| l.starts_with("got ") && l.contains(what))?;
        serde_json::from_str(&line[4..]).ok()
    })
    .await
}

#[tokio::test]
async fn a_message_waits_for_its_device_and_climbs_the_ladder() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let eve = gateway.user("eve", "operator");
    let text = json!({"kind": "message", "text": "回头看 3 号摊位"});
    let id = given(&gateway, &eve, "bc-01", &text).await;
    let order = until_state(&gateway, &eve, &id, "waiting").await;
    assert_eq!(
        (&order["by"], &order["role"], &order["device"]),
        (&json!("eve"), &json!("operator"), &json!("bc-01"))
    );
    let device = listening(&gateway, "device", "bc-01", "kerbside/v1/bc-01/down/#");
    let payload = got(&device, &id).await;
    assert_eq!(
        (&payload["kind"], &payload["text"], &payload["order"]),
        (&json!("message"), &text["text"], &json!(id))
    );
    assert_eq!(payload["expires_ms"], order["expires_ms"]);
    let order = until_state(&gateway, &eve, &id, "delivered").await;
    assert_eq!(states(&order), ["accepted", "waiting", "sent", "delivered"]);

    // One while it is there; the list is newest first.
    let second = given(
        &gateway,
        &eve,
        "bc-01",
        &json!({"kind": "report_interval", "seconds": 5}),
    )
    .await;
    assert_eq!(got(&device, &second).await["seconds"], 5);
    until_state(&gateway, &eve, &second, "delivered").await;
    let (_, list) = gateway
        .get("/api/v1/devices/bc-01/orders?limit=1", &eve)
        .await;
    assert_eq!(list["orders"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["orders"][0]["id"], json!(second));
    let log = gateway.logged();
    let audit = log
        .lines()
        .find(|l| l.contains("order given") && l.contains(&id))
        .expect("an audit line");
    assert!(
        audit.contains("audit") && audit.contains("eve") && audit.contains("message"),
        "{audit}"
    );
    assert!(
        !log.contains("3 号摊位"),
        "what is said to a device is not in the log"
    );
}

#[tokio::test]
async fn a_device_that_dies_in_the_middle_gets_its_order_when_it_is_back() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let eve = gateway.user("eve", "operator");
    let filter = "kerbside/v1/bc-01/down/#";
    let mut device = listening(&gateway, "first", "bc-01", filter);
    until(LIMIT, "subscribed", || {
        device.tail(20).contains("Subscribed").then_some(())
    })
    .await;
    device.kill().await;
    let id = given(
        &gateway,
        &eve,
        "bc-01",
        &json!({"kind": "message", "text": "back?"}),
    )
    .await;
    let device = listening(&gateway, "second", "bc-01", filter);
    assert_eq!(got(&device, &id).await["text"], "back?");
    until_state(&gateway, &eve, &id, "delivered").await;
    let copies = device
        .tail(60)
        .lines()
        .filter(|l| l.starts_with("got ") && l.contains(&id))
        .count();
    assert_eq!(copies, 1, "from its queue or from the book, not from both");
}

#[tokio::test]
async fn orders_expire_and_survive_a_restart() {
    if !have("mosquitto_sub") {
        return;
    }
    let mut gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let eve = gateway.user("eve", "operator");
    let short = given(
        &gateway,
        &eve,
        "bc-01",
        &json!({"kind": "message", "text": "now", "expires_s": 1}),
    )
    .await;
    let order = until_state(&gateway, &eve, &short, "expired").await;
    assert_eq!(states(&order), ["accepted", "waiting", "expired"]);
    assert!(
        gateway
            .logged()
            .lines()
            .any(|l| l.contains("order ended") && l.contains(&short) && l.contains("expired"))
    );
    let long = given(
        &gateway,
        &eve,
        "bc-01",
        &json!({"kind": "message", "text": "later"}),
    )
    .await;
    until_state(&gateway, &eve, &long, "waiting").await;
    gateway.kill().await;
    gateway.run().await;
    assert_eq!(
        until_state(&gateway, &eve, &short, "expired").await["steps"],
        order["steps"]
    );
    let device = listening(&gateway, "device", "bc-01", "kerbside/v1/bc-01/down/#");
    assert_eq!(got(&device, &long).await["text"], "later");
    until_state(&gateway, &eve, &long, "delivered").await;
    assert!(!device.tail(60).contains(&short), "too late is not sent");
}

#[tokio::test]
async fn a_dock_is_asked_for_its_aircrafts_video() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("dock-1", "dock", None);
    let eve = gateway.user("eve", "operator");
    let dock = listening(&gateway, "dock", "dock-1", "thing/product/dock-1/services");
    until(LIMIT, "subscribed", || {
        dock.tail(20).contains("Subscribed").then_some(())
    })
    .await;
    let (status, _) = order(
        &gateway,
        &eve,
        "uav-1",
        &json!({"kind": "live_start", "camera": "39-0-7"}),
    )
    .await;
    assert_eq!(status, 404, "nobody announced it yet");
    let topology = json!({"tid": "t", "bid": "b", "method": "update_topo", "timestamp": 1_654_070_968_655i64, "data": {
        "domain": "3", "type": 119, "sub_type": 0, "sub_devices": [{"sn": "uav-1", "domain": "0", "type": 67, "sub_type": 1}]}});
    // The dock's own client announces; the listening session stays beside it.
    says(
        &gateway,
        "dock-1",
        "sys/product/dock-1/status",
        &topology.to_string(),
    )
    .await;
    let id = given(
        &gateway,
        &eve,
        "uav-1",
        &json!({"kind": "live_start", "camera": "39-0-7", "quality": "standard"}),
    )
    .await;
    let asked = got(&dock, &id).await;
    assert_eq!(asked["tid"], json!(id));
    assert_eq!(
        (&asked["method"], &asked["gateway"]),
        (&json!("live_start_push"), &json!("dock-1"))
    );
    let data = &asked["data"];
    assert_eq!(
        (&data["url_type"], &data["video_quality"], &data["video_id"]),
        (&json!(4), &json!(2), &json!("uav-1/39-0-7/normal-0"))
    );
    let url = data["url"].as_str().expect("an address");
    assert!(url.contains("/dock-1/uav-1_39-0-7/whip?pass="), "{url}");
    let order = until_state(&gateway, &eve, &id, "delivered").await;
    assert_eq!(order["via"], "dock-1");
    assert!(
        !order.to_string().contains("pass="),
        "the pass is for the device alone"
    );

    // The pass opens the door for this stream, and for no other.
    let offer = |url: String| async move {
        let client = reqwest::Client::new();
        let answer = client
            .post(url)
            .header("Content-Type", "application/sdp")
            .body("v=0")
            .send();
        answer.await.expect("an answer").status().as_u16()
    };
    assert_ne!(offer(url.to_owned()).await, 401);
    assert_eq!(offer(url.replace("39-0-7", "52-0-0")).await, 401);

    let no = given(
        &gateway,
        &eve,
        "uav-1",
        &json!({"kind": "message", "text": "hello"}),
    )
    .await;
    let refused = until_state(&gateway, &eve, &no, "refused").await;
    let note = refused["steps"]
        .as_array()
        .and_then(|s| s.last()?["note"].as_str())
        .unwrap_or_default();
    assert!(note.contains("no service for message"), "{refused}");
}

#[tokio::test]
async fn a_stream_that_goes_is_an_order_that_was_done() {
    if !have("mosquitto_sub") || !have("ffmpeg") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let eve = gateway.user("eve", "operator");
    let device = listening(&gateway, "device", "bc-01", "kerbside/v1/bc-01/down/#");
    let start = json!({"kind": "live_start", "camera": "main"});
    let id = given(&gateway, &eve, "bc-01", &start).await;
    let asked = got(&device, &id).await;
    let url = format!("rtsp://127.0.0.1:{}/bc-01/main", gateway.ports.rtsp);
    assert_eq!(asked["url"], json!(url));
    until_state(&gateway, &eve, &id, "delivered").await;
    let url = gateway.rtsp_as("bc-01", "bc-01/main");
    let mut camera = tools::ffmpeg_push(gateway.dir(), &url, "tcp");
    let order = until_state(&gateway, &eve, &id, "read").await;
    assert!(order.to_string().contains("the stream is live"), "{order}");

    let stop = json!({"kind": "live_stop", "camera": "main"});
    let id = given(&gateway, &eve, "bc-01", &stop).await;
    assert_eq!(got(&device, &id).await["camera"], "main");
    until_state(&gateway, &eve, &id, "delivered").await;
    camera.kill().await;
    until_state(&gateway, &eve, &id, "read").await;
}

#[tokio::test]
async fn who_may_order_whom_what_and_how_often() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    gateway
        .cli(&[
            "device",
            "add",
            "guard-1",
            "--kind",
            "bodycam",
            "--restricted",
            "--json",
        ])
        .expect("added");
    let eve = gateway.user("eve", "operator");
    let auditor = gateway.user("ada", "auditor");
    let good = json!({"kind": "message", "text": "x"});
    let status = async |token: &str, device: &str, body: &Value| {
        order(&gateway, token, device, body).await.0
    };
    assert_eq!(status("wrong", "bc-01", &good).await, 401);
    assert_eq!(status(&auditor, "bc-01", &good).await, 403);
    assert_eq!(status(&eve, "nobody", &good).await, 404);
    assert_eq!(
        status(&eve, "guard-1", &good).await,
        404,
        "restricted: as if it were not there"
    );
    assert_eq!(
        gateway.get("/api/v1/devices/guard-1/orders", &eve).await.0,
        404
    );
    for bad in [
        json!([]),
        json!({"kind": "dance"}),
        json!({"kind": "message", "text": "x", "to": "all"}),
        json!({"kind": "message", "text": "x".repeat(2001)}),
        json!({"kind": "dispatch", "position": {"lat": 91, "lon": 0}}),
        json!({"kind": "report_interval", "seconds": 0}),
    ] {
        let (status, said) = order(&gateway, &eve, "bc-01", &bad).await;
        assert_eq!(status, 400, "{bad}");
        assert!(
            said["error"].as_str().is_some_and(|e| e.len() > 10),
            "{said}"
        );
    }
    assert_eq!(
        gateway
            .get("/api/v1/devices/bc-01/orders", &auditor)
            .await
            .1,
        json!({"orders": []})
    );
    let ben = gateway.user("ben", "commander");
    let mut taken = 0;
    while status(&ben, "bc-01", &good).await == 201 {
        taken += 1;
        assert!(taken < 100, "without bound");
    }
    assert!(taken >= 30, "{taken}");
    assert_eq!(status(&ben, "bc-01", &good).await, 429);
    let (_, list) = gateway.get("/api/v1/devices/bc-01/orders", &auditor).await;
    assert_eq!(list["orders"].as_array().map(Vec::len), Some(taken));
    let raw =
        reqwest::Client::new().post(format!("{}/api/v1/devices/bc-01/orders", gateway.http()));
    let huge = raw
        .bearer_auth(&eve)
        .header("Content-Type", "application/json")
        .body("[".repeat(60_000));
    let answer = tokio::time::timeout(Duration::from_secs(5), huge.send())
        .await
        .expect("at once");
    assert_eq!(answer.expect("an answer").status().as_u16(), 400);
}
