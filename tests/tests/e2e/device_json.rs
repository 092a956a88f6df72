//! Devices of several makers, each in its own JSON, on one picture: DJI, OwnTracks, a vendor's format, ours.

use kerbside_sim::harness::tools::{self, have};
use kerbside_sim::harness::{Feed, Gateway, Setup};
use serde_json::{Value, json};

use crate::LIMIT;
use crate::crash::Caller;

const RADIO: &str = r#"
[[format]]
name = "radio"
topic = "radio/{device}/gps"
datum = "gcj02"
[format.fields]
lat = "lat"
lon = "lng"
speed = { path = "speed", unit = "km/h" }
time = { path = "time", unit = "s" }
sos = { path = "alarm", value = 1 }
"#;

async fn street() -> (Gateway, Feed) {
    let gateway = Gateway::start(Setup {
        formats: Some(RADIO.into()),
        ..Setup::default()
    })
    .await;
    for (id, kind) in [("dock1", "dock"), ("p1", "terminal"), ("r1", "radio")] {
        gateway.device(id, kind, None);
    }
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (gateway, feed)
}

fn topology(aircraft: &[&str]) -> String {
    let subs: Vec<Value> = aircraft
        .iter()
        .map(|sn| json!({"sn": sn, "domain": "0", "type": 67, "sub_type": 0, "index": "A"}))
        .collect();
    json!({"tid": "t1", "bid": "b1", "method": "update_topo", "timestamp": 1_654_070_968_655_u64,
        "data": {"domain": "3", "type": 2, "sub_type": 0, "sub_devices": subs}})
    .to_string()
}

async fn until_online(feed: &mut Feed, device: &str, online: bool) {
    let what = format!("{device} is online: {online}");
    feed.until(LIMIT, &what, |feed| {
        (feed.devices.get(device)?["online"] == online).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dock_its_aircraft_and_the_fast_channel() {
    let (gateway, mut feed) = street().await;
    let mut dock = Caller::open(&gateway, "dock1").await;
    dock.say("sys/product/dock1/status", &topology(&["uav1"]));
    until_online(&mut feed, "uav1", true).await;
    assert_eq!(feed.devices["uav1"]["model"], "DJI M30");

    let osd = |lat: f64, lon: f64| {
        let fixed = json!({"gps_number": 21, "is_fixed": 2, "quality": 5, "rtk_number": 30});
        json!({"data": {"attitude_head": 41.7, "latitude": lat, "longitude": lon, "height": 838.4, "mode_code": 5,
            "position_state": fixed}})
        .to_string()
    };
    dock.say("thing/product/uav1/osd", &osd(37.70, 112.75));
    feed.until_at(LIMIT, "uav1", 37.70).await;
    assert_eq!(feed.devices["uav1"]["position"]["heading_deg"], 41.7);
    // Swapped: counted, and the marker stays.
    dock.say("thing/product/uav1/osd", &osd(112.75, 37.70));
    feed.until(LIMIT, "the swapped position is counted", |feed| {
        (feed.devices["uav1"]["faults"]["swapped"] == 1).then_some(())
    })
    .await;
    feed.until_at(LIMIT, "uav1", 37.70).await;
    let fast = json!({"method": "osd_info_push", "data": {"latitude": 37.7002, "longitude": 112.75, "speed_x": 3,
        "speed_y": 4, "speed_z": 0, "attitude_head": 0}});
    dock.say("thing/product/dock1/drc/up", &fast.to_string());
    feed.until_at(LIMIT, "uav1", 37.7002).await;
    assert_eq!(feed.devices["dock1"]["position"], Value::Null);

    dock.say("sys/product/dock1/status", &topology(&[]));
    until_online(&mut feed, "uav1", false).await;
    // Nor may the dock speak for it any longer.
    dock.say("thing/product/uav1/osd", &osd(37.71, 112.75));
    dock.all_acknowledged(LIMIT).await;
    assert_eq!(dock.refused.len(), 1, "{:?}", dock.refused);
}

#[tokio::test]
async fn a_dock_gets_the_answers_it_waits_for() {
    if !have("mosquitto_rr") {
        return;
    }
    let (gateway, _feed) = street().await;
    let (port, password) = (gateway.ports.mqtt.to_string(), gateway.secret("dock1"));
    let login = [
        "-V",
        "mqttv5",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        "dock1",
        "-P",
        &password,
        "-q",
        "1",
    ];
    let unserved = json!({"result": 1, "output": {}});
    for (topic, text, data) in [
        (
            "sys/product/dock1/status",
            topology(&["uav1"]),
            json!({"result": 0}),
        ),
        (
            "thing/product/dock1/status",
            topology(&["uav1"]),
            json!({"result": 0}),
        ),
        (
            "thing/product/dock1/events",
            r#"{"tid":"t1","bid":"b1","method":"hms","need_reply":1,"data":{"list":[]}}"#
                .to_owned(),
            json!({"result": 0}),
        ),
        (
            "thing/product/dock1/requests",
            r#"{"tid":"t1","bid":"b1","method":"config","data":{}}"#.to_owned(),
            unserved,
        ),
    ] {
        let answers = format!("{topic}_reply");
        let words = [
            &login[..],
            &["-W", "15", "-t", topic, "-e", &answers, "-m", &text],
        ]
        .concat();
        let said = tools::run(LIMIT, "mosquitto_rr", &words).await.succeeded();
        let answer: Value = serde_json::from_str(&said.out).expect("JSON");
        assert_eq!(
            (&answer["tid"], &answer["bid"]),
            (&json!("t1"), &json!("b1"))
        );
        assert_eq!(answer["data"], data, "{topic}");
    }
}

#[tokio::test]
async fn phones_and_radios_of_others() {
    let (gateway, mut feed) = street().await;
    let mut phone = Caller::open(&gateway, "p1").await;
    phone.say(
        "owntracks/p1/pixel",
        r#"{"_type":"location","lat":37.69,"lon":112.75,"vel":36,"cog":90,"acc":8,"batt":71}"#,
    );
    feed.until_at(LIMIT, "p1", 37.69).await;
    assert_eq!(feed.devices["p1"]["position"]["speed_mps"], 10.0);
    assert_eq!(feed.devices["p1"]["battery_pct"], 71.0);
    phone.say(
        "owntracks/p1/pixel",
        r#"{"_type":"encrypted","data":"AAAA"}"#,
    );
    feed.until(LIMIT, "an encrypted message is counted", |feed| {
        (feed.devices["p1"]["faults"]["encrypted"] == 1).then_some(())
    })
    .await;

    let mut radio = Caller::open(&gateway, "r1").await;
    let gcj02 = r#"{"lat":"37.6906807","lng":112.7564918,"speed":"3.6","alarm":1}"#;
    radio.say("radio/r1/gps", gcj02);
    feed.until_at(LIMIT, "r1", 37.69).await;
    assert_eq!(feed.devices["r1"]["position"]["source_datum"], "gcj02");
    assert_eq!(feed.devices["r1"]["sos"], true);
    // Nobody speaks for another.
    radio.say("radio/p1/gps", gcj02);
    radio.say("owntracks/p1/r1", r#"{"_type":"location","lat":1,"lon":2}"#);
    radio.all_acknowledged(LIMIT).await;
    assert_eq!(radio.refused.len(), 2, "{:?}", radio.refused);
}
