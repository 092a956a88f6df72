//! The feed as API.md writes it: fields, sequence, resume, slow screens.

use std::time::Duration;

use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use serde_json::Value;

use crate::crash::{Caller, call};
use crate::{LIMIT, report};

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

/// Panics unless `value` has each of `wanted`; keys not listed in `wanted` or `optional` are faults too.
#[track_caller]
fn has_exactly(what: &str, value: &Value, wanted: &[&str], optional: &[&str]) {
    let found = keys(value);
    for key in wanted {
        assert!(found.contains(key), "{what} lacks {key:?}: {value}");
    }
    for key in found {
        assert!(
            wanted.contains(&key) || optional.contains(&key),
            "{what} has {key:?}, which API.md does not name"
        );
    }
}

const DEVICE: [&str; 23] = [
    "agency",
    "id",
    "kind",
    "unit",
    "model",
    "mode",
    "state",
    "online",
    "person",
    "primary",
    "position",
    "clock",
    "cell",
    "cells",
    "zones",
    "battery_pct",
    "sos",
    "alarms",
    "properties",
    "video_delays",
    "footprint",
    "faults",
    "trail",
];
const POSITION: [&str; 16] = [
    "lat",
    "lon",
    "sigma_m",
    "motion",
    "raw",
    "happened_ms",
    "happened_sigma_ms",
    "alt_m",
    "accuracy_m",
    "speed_mps",
    "heading_deg",
    "time_ms",
    "arrived_ms",
    "age_ms",
    "datum",
    "source_datum",
];
const EVENT: [&str; 16] = [
    "id",
    "kind",
    "rule",
    "severity",
    "priority",
    "device",
    "unit",
    "raised_ms",
    "device_time_ms",
    "position",
    "position_ms",
    "cell",
    "streams",
    "note",
    "deliveries",
    "dedup_key",
];

#[tokio::test]
async fn every_item_has_the_fields_of_the_contract() {
    let gateway = Gateway::start(Setup {
        platforms: vec![("joint".into(), "http://127.0.0.1:9/events".into())],
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", Some("patrol-1"));
    gateway.device("bc-02", "bodycam", None);
    let token = gateway.user("eve", "operator");
    call(&gateway, "bc-01", "schema").await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let text = r#"{"time_ms":1,"position":{"lat":37.6906807,"lon":112.7564918,"accuracy_m":5,"speed_mps":1.2,"heading_deg":270,
        "alt_m":801.5,"datum":"gcj02"},"battery_pct":83,"kind":"bodycam","model":"X5","mode":"patrol"}"#;
    assert!(caller.say("kerbside/v1/bc-01/report", text));
    caller.all_acknowledged(LIMIT).await;

    let mut feed = Feed::open(&gateway, &token).await;
    assert_eq!(
        (feed.snapshots, feed.changes),
        (1, 0),
        "the first message is a snapshot"
    );
    feed.until(LIMIT, "the second device is known", |feed| {
        feed.devices.get("bc-02").map(|_| ())
    })
    .await;
    feed.until(LIMIT, "the event is there", |feed| {
        (!feed.events.is_empty()).then_some(())
    })
    .await;
    let (status, picture) = gateway.get("/api/v1/picture", &token).await;
    assert_eq!(status, 200);
    has_exactly(
        "snapshot",
        &picture,
        &[
            "type", "epoch", "seq", "now_ms", "datum", "grid", "devices", "streams", "events",
        ],
        &["gone"],
    );
    let device = |id: &str| {
        let devices = picture["devices"].as_array().expect("devices");
        devices
            .iter()
            .find(|device| device["id"] == id)
            .unwrap_or_else(|| panic!("{id} is missing"))
    };
    let live = device("bc-01");
    has_exactly("device", live, &DEVICE[..22], &DEVICE[22..]);
    has_exactly("position", &live["position"], &POSITION, &[]);
    let position = &live["position"];
    assert!(
        (position["lat"].as_f64().unwrap() - 37.69).abs() < 2e-6,
        "GCJ-02 became WGS-84: {position}"
    );
    assert_eq!(
        (&position["datum"], &position["source_datum"]),
        (&"wgs84".into(), &"gcj02".into())
    );
    let age = picture["now_ms"].as_i64().unwrap() - position["arrived_ms"].as_i64().unwrap();
    assert!(
        (age - position["age_ms"].as_i64().unwrap()).abs() <= 5,
        "age_ms is now_ms - arrived_ms: {position}"
    );
    assert_eq!(
        (live["battery_pct"].as_f64(), &live["model"], &live["state"]),
        (Some(83.0), &"X5".into(), &"live".into())
    );

    let silent = device("bc-02");
    assert_eq!(
        (&silent["state"], &silent["online"], &silent["position"]),
        (&"silent".into(), &false.into(), &Value::Null)
    );
    let event = &picture["events"][0];
    has_exactly("event", event, &EVENT[..15], &EVENT[15..]);
    let delivery = &event["deliveries"][0];
    has_exactly(
        "delivery",
        delivery,
        &["platform", "state", "attempts", "error", "updated_ms"],
        &[],
    );
    let (status, listed) = gateway.get("/api/v1/events?limit=1", &token).await;
    assert_eq!((status, &listed["events"][0]["id"]), (200, &event["id"]));
}

#[tokio::test]
async fn a_screen_resumes_where_it_was_and_gets_a_snapshot_after_a_restart() {
    let mut gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    gateway.device("bc-02", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    let (epoch, seq) = (feed.epoch.clone(), feed.seq);
    drop(feed);
    let mut caller = Caller::open(&gateway, "bc-01").await;
    assert!(caller.say("kerbside/v1/bc-01/report", &report(37.6912, 70)));
    caller.all_acknowledged(LIMIT).await;

    let mut feed = Feed::resume(&gateway, &token, Some((&epoch, seq))).await;
    feed.until_at(LIMIT, "bc-01", 37.6912).await;
    assert_eq!(feed.snapshots, 0, "only what changed is sent");
    assert!(!feed.devices.contains_key("bc-02"), "bc-02 did not change");

    gateway.process().stop(Duration::from_secs(10)).await;
    gateway.run().await;
    let feed = Feed::resume(&gateway, &token, Some((&epoch, seq))).await;
    assert_eq!(feed.snapshots, 1, "another epoch gives a snapshot");
    assert_ne!(feed.epoch, epoch);
    assert_eq!(feed.devices.len(), 2);
}

#[tokio::test]
async fn a_screen_that_does_not_read_gets_the_newest_of_every_device_and_costs_no_memory() {
    let gateway = Gateway::start(Setup::default()).await;
    for number in 0..20 {
        gateway.device(&format!("bc-{number:02}"), "bodycam", None);
    }
    let token = gateway.user("eve", "operator");
    let mut slow = Feed::open(&gateway, &token).await;
    let mut callers = Vec::new();
    for number in 0..20 {
        callers.push(Caller::open(&gateway, &format!("bc-{number:02}")).await);
    }
    // The slow screen reads nothing while every device reports 300 times.
    for round in 0..300 {
        for (number, caller) in callers.iter_mut().enumerate() {
            let text = report(37.69 + f64::from(round) * 1e-5, 50);
            if !caller.say(&format!("kerbside/v1/bc-{number:02}/report"), &text) {
                caller.all_acknowledged(LIMIT).await;
                assert!(caller.say(&format!("kerbside/v1/bc-{number:02}/report"), &text));
            }
        }
        if round % 60 == 59 {
            for caller in &mut callers {
                caller.all_acknowledged(LIMIT).await;
            }
        }
    }
    for caller in &mut callers {
        caller.all_acknowledged(LIMIT).await;
    }
    for number in 0..20 {
        slow.until_at(LIMIT, &format!("bc-{number:02}"), 37.69 + 299.0 * 1e-5)
            .await;
    }
}

#[tokio::test]
async fn the_feed_wants_a_login_and_ends_with_it() {
    let gateway = Gateway::start(Setup::default()).await;
    let token = gateway.user("mallory", "operator");
    let refused = Feed::connect(&gateway, "wrong", None).await.unwrap_err();
    assert!(refused.contains("401"), "{refused}");
    let mut feed = Feed::open(&gateway, &token).await;
    gateway.cli(&["user", "revoke", "mallory"]).unwrap();
    let closed = async { while feed.take(Duration::from_secs(15)).await {} };
    tokio::time::timeout(Duration::from_secs(10), closed)
        .await
        .expect("the feed of a revoked user ends");
    let again = Feed::connect(&gateway, &token, None).await.unwrap_err();
    assert!(again.contains("401"), "{again}");
}

#[tokio::test]
async fn a_screen_gets_the_part_it_asks_for_and_nothing_restricted_without_the_grant() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("uav-1", "drone", None);
    for (id, more) in [("bc-01", "--agency=traffic"), ("covert-1", "--restricted")] {
        gateway.add(
            &["device", "add", id, "--kind", "bodycam", more, "--json"],
            "password",
        );
    }
    let plain = gateway.user("eve", "operator");
    let commander = [
        "user",
        "add",
        "max",
        "--role",
        "commander",
        "--restricted",
        "--json",
    ];
    let granted = gateway.add(&commander, "token");

    let ids = |picture: &Value| -> Vec<String> {
        let all = picture["devices"].as_array().expect("devices").iter();
        let mut ids: Vec<String> = all
            .map(|d| d["id"].as_str().unwrap_or_default().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let (gateway, ids) = (&gateway, &ids);
    let seen = |token: &str, part: &str| {
        let (token, path) = (token.to_owned(), format!("/api/v1/picture{part}"));
        async move {
            let (status, picture) = gateway.get(&path, &token).await;
            assert_eq!(status, 200, "{path}: {picture}");
            ids(&picture)
        }
    };
    // The gateway looks at the registry a few times a second.
    eventually(LIMIT, "all are known", || async {
        (seen(&granted, "").await == ["bc-01", "covert-1", "uav-1"]).then_some(())
    })
    .await;
    assert_eq!(seen(&plain, "").await, ["bc-01", "uav-1"]);
    assert_eq!(seen(&granted, "?kind=bodycam").await, ["bc-01", "covert-1"]);
    assert_eq!(
        seen(&plain, "?kind=bodycam,drone&agency=traffic").await,
        ["bc-01"]
    );
    assert_eq!(
        seen(&plain, "?bbox=112,37,113,38").await,
        [""; 0],
        "nobody has a position"
    );
    let (status, why) = gateway.get("/api/v1/picture?bbox=1,2,3", &plain).await;
    assert_eq!(status, 400, "{why}");

    let mut feed = Feed::open(gateway, &plain).await;
    assert!(!feed.devices.contains_key("covert-1"));
    call(gateway, "covert-1", "help").await;
    call(gateway, "bc-01", "help").await;
    feed.until(LIMIT, "the open event", |feed| {
        (!feed.events.is_empty()).then_some(())
    })
    .await;
    let (_, events) = gateway.get("/api/v1/events", &plain).await;
    let (_, all) = gateway.get("/api/v1/events", &granted).await;
    let count = |v: &Value| v["events"].as_array().map_or(0, Vec::len);
    assert_eq!((count(&events), count(&all)), (1, 2));
    assert!(!events.to_string().contains("covert-1"));
    let (_, list) = gateway.get("/api/v1/picture", &plain).await;
    assert!(!list.to_string().contains("covert-1"), "{list}");
}
