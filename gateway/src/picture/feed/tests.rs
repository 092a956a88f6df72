use serde_json::Value;

use super::items::{EVENTS_MAX, GONE_MAX, TRAIL_MAX};
use super::*;
use crate::ids::DeviceId;

fn put(id: &str, n: u32) -> Change {
    Change::Put {
        key: Key::Device(DeviceId::parse(id).unwrap()),
        body: Body::new(
            format!(r#"{{"id":"{id}","n":{n},"position":{{"age_ms":0}}}}"#),
            Some(1000),
        ),
        moved_to: Some([112.0 + f64::from(n) * 0.001, 37.0]),
    }
}

fn gone(id: &str) -> Change {
    Change::Gone(Key::Device(DeviceId::parse(id).unwrap()))
}

fn read(feed: &Feed, at: &mut Option<Cursor>) -> Value {
    serde_json::from_str(&feed.message(at, true, 1500).unwrap()).unwrap()
}

#[test]
fn a_slow_screen_sees_the_newest_of_every_device_once() {
    let feed = Feed::default();
    let mut at = None;
    assert_eq!(read(&feed, &mut at)["type"], "snapshot");
    for round in 0..100 {
        feed.publish((0..50).map(|i| put(&format!("d{i}"), round)));
    }
    let change = read(&feed, &mut at);
    assert_eq!(change["type"], "change");
    let devices = change["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 50);
    assert!(
        devices
            .iter()
            .all(|d| d["n"] == 99 && d["position"]["age_ms"] == 500)
    );
    assert!(devices.iter().all(|d| d.get("trail").is_none()));
    let items = feed.items.lock();
    assert_eq!(
        (items.map.len(), items.by_seq.len()),
        (50, 50),
        "memory does not grow"
    );
    assert!(
        items
            .map
            .values()
            .all(|i| i.trail.as_ref().unwrap().points.len() == TRAIL_MAX)
    );
    drop(items);
    let next = feed.message(&mut at, false, 0);
    assert_eq!(next, None, "nothing twice");
}

#[test]
fn a_resumed_screen_gets_what_it_missed() {
    let feed = Arc::new(Feed::default());
    feed.publish([put("a", 1), put("b", 1)]);
    let mut at = None;
    let snapshot = read(&feed, &mut at);
    assert_eq!(snapshot["devices"][0]["trail"].as_array().unwrap().len(), 1);
    let since = format!(
        "{}-{}",
        snapshot["epoch"].as_str().unwrap(),
        snapshot["seq"]
    );
    feed.publish([put("c", 1), gone("a"), put("b", 2)]);

    let mut again = feed.subscribe(Some(&since)).cursor;
    let change = read(&feed, &mut again);
    assert_eq!(change["type"], "change");
    let ids: Vec<_> = change["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["id"])
        .collect();
    assert_eq!(ids, ["c", "b"]);
    assert_eq!(change["gone"], serde_json::json!(["device:a"]));

    let later = format!("{}-999", snapshot["epoch"].as_str().unwrap());
    for stranger in ["", "x", "-1", "00-1", &later] {
        let mut at = feed.subscribe(Some(stranger)).cursor;
        assert_eq!(read(&feed, &mut at)["type"], "snapshot", "{stranger}");
    }
}

#[test]
fn departures_are_bounded() {
    let feed = Feed::default();
    let mut at = None;
    read(&feed, &mut at);
    for i in 0..GONE_MAX + 1 {
        let id = format!("d{i}");
        feed.publish([put(&id, 0), gone(&id)]);
    }
    assert_eq!(feed.items.lock().gone.len(), GONE_MAX);
    assert_eq!(
        read(&feed, &mut at)["type"],
        "snapshot",
        "it missed one departure"
    );
    feed.publish([put("back", 0), gone("back"), put("back", 1)]);
    let change = read(&feed, &mut at);
    assert_eq!(change["gone"], serde_json::json!([]));
    assert_eq!(change["devices"][0]["n"], 1);
}

#[test]
fn an_idle_feed_counts_on() {
    let feed = Feed::default();
    let mut at = None;
    let first = read(&feed, &mut at)["seq"].as_u64().unwrap();
    let beat = read(&feed, &mut at);
    assert_eq!(beat["type"], "change");
    assert!(beat["seq"].as_u64().unwrap() > first);
    assert_eq!(beat["devices"], serde_json::json!([]));
}

#[test]
fn the_newest_events_stay() {
    let feed = Feed::default();
    let ids: Vec<_> = (0..EVENTS_MAX + 10)
        .map(|_| crate::event::new_event_id())
        .collect();
    for id in &ids {
        feed.publish([Change::Put {
            key: Key::Event(*id),
            body: Body::new(format!(r#"{{"id":"{id}"}}"#), None),
            moved_to: None,
        }]);
    }
    let all: Value = serde_json::from_str(&feed.snapshot()).unwrap();
    let events = all["events"].as_array().unwrap();
    assert_eq!(events.len(), EVENTS_MAX);
    assert_eq!(events[0]["id"], ids[EVENTS_MAX + 9].to_string());
    assert_eq!(feed.items.lock().map.len(), EVENTS_MAX);
}

#[tokio::test]
async fn a_waiting_screen_is_woken_and_bursts_are_one_message() {
    let feed = Arc::new(Feed::default());
    let mut reader = feed.subscribe(None);
    assert!(reader.next().await.contains("\"snapshot\""));
    for n in 0..1000 {
        feed.publish([put("a", n)]);
    }
    let message = reader.next().await;
    assert!(message.contains(r#""n":999"#) && message.matches("\"n\":").count() == 1);
    let other = feed.clone();
    let (message, ()) = tokio::join!(reader.next(), async move { other.publish([put("b", 7)]) });
    assert!(message.contains(r#""n":7"#));
}
