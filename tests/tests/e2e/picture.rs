//! What the fleet's devices become on the picture: drones, zones, batteries, a death among neighbours.

use kerbside_sim::harness::{Feed, Gateway, Setup};

use crate::LIMIT;
use crate::crash::Caller;

const GRID: &str = r#"{"type":"FeatureCollection","features":[
 {"type":"Feature","properties":{"type":"cell","id":"140702001","name":"one"},
  "geometry":{"type":"Polygon","coordinates":[[[112.74,37.68],[112.75,37.68],[112.75,37.70],[112.74,37.70],[112.74,37.68]]]}},
 {"type":"Feature","properties":{"type":"cell","id":"140702002","name":"two"},
  "geometry":{"type":"Polygon","coordinates":[[[112.75,37.68],[112.76,37.68],[112.76,37.70],[112.75,37.70],[112.75,37.68]]]}},
 {"type":"Feature","properties":{"type":"zone","id":"beat-1","name":"beat","units":["patrol-1"]},
  "geometry":{"type":"Polygon","coordinates":[[[112.74,37.68],[112.75,37.68],[112.75,37.70],[112.74,37.70],[112.74,37.68]]]}}]}"#;

fn at(lat: f64, lon: f64, battery: u32) -> String {
    format!(r#"{{"position":{{"lat":{lat},"lon":{lon},"accuracy_m":3}},"battery_pct":{battery}}}"#)
}

#[tokio::test]
async fn a_device_that_leaves_its_zone_raises_one_event() {
    let gateway = Gateway::start(Setup {
        grid: Some(GRID.into()),
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", Some("patrol-1"));
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    // A walker's pace is not needed: 80 m a report is below what a device on the ground can do.
    for step in 0..12 {
        assert!(caller.say(
            "kerbside/v1/bc-01/report",
            &at(37.69, 112.745 + f64::from(step) * 0.0009, 90)
        ));
        caller.all_acknowledged(LIMIT).await;
    }
    feed.until(LIMIT, "zone_left", |feed| {
        feed.events
            .values()
            .find(|event| event["kind"] == "zone_left")
            .map(|_| ())
    })
    .await;
    feed.until(LIMIT, "the other cell", |feed| {
        (feed.devices.get("bc-01")?["cell"] == "140702002").then_some(())
    })
    .await;
    assert_eq!(feed.events.len(), 1, "{:?}", feed.events);
}

#[tokio::test]
async fn a_low_battery_is_told_once() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    for battery in [16, 14, 13, 12] {
        assert!(caller.say("kerbside/v1/bc-01/report", &at(37.69, 112.75, battery)));
    }
    caller.all_acknowledged(LIMIT).await;
    feed.until(LIMIT, "battery 12", |feed| {
        (feed.devices.get("bc-01")?["battery_pct"].as_f64()? < 12.5).then_some(())
    })
    .await;
    let kinds: Vec<_> = feed
        .events
        .values()
        .map(|event| event["kind"].clone())
        .collect();
    assert_eq!(kinds, ["battery_low"]);
}

#[tokio::test]
async fn a_drone_speaks_the_cloud_api_and_is_answered() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("uav-01", "drone", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let devices = gateway.dir().join("devices.jsonl");
    let line =
        serde_json::json!({"id": "uav-01", "password": gateway.secret("uav-01"), "kind": "drone"});
    std::fs::write(&devices, line.to_string()).unwrap();
    let args = [
        "fleet",
        "--devices",
        devices.to_str().unwrap(),
        "--mqtt",
        &gateway.mqtt(),
        "--video",
        "0",
        "--summary-every",
        "1",
    ];
    let fleet = kerbside_sim::harness::tools::start(
        gateway.dir(),
        "fleet",
        env!("CARGO_BIN_EXE_kerbside-sim"),
        &args,
    );
    feed.until(LIMIT, "the drone flies", |feed| {
        let speed = feed
            .devices
            .get("uav-01")?
            .pointer("/position/speed_mps")?
            .as_f64()?;
        (speed > 1.0 && feed.devices["uav-01"]["state"] == "live").then_some(())
    })
    .await;
    kerbside_sim::harness::until(LIMIT, "update_topo is answered", || {
        fleet.tail(50).contains("downlinks 1").then_some(())
    })
    .await;
}
