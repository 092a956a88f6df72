use serde_json::Value;

use super::items::{EVENTS_MAX, GONE_MAX, TRAIL_MAX};
use super::*;
use crate::ids::DeviceId;

fn put(id: &str, n: u32) -> Change {
    let before = format!(r#"{{"id":"{id}","n":{n},"position":{{"age_ms":"#);
    Change::Put {
        key: Key::Device(DeviceId::parse(id).unwrap()),
        body: Body::new(format!("{before}0}}}}"), Some((before.len(), 1000))),
        moved_to: Some([112.0 + f64::from(n) * 0.001, 37.0]),
        tags: Tags::default(),
        of: None,
    }
}

/// A device with tags.
fn tagged(id: &str, tags: Tags) -> Change {
    let mut change = put(id, 0);
    if let Change::Put { tags: t, .. } = &mut change {
        *t = tags;
    }
    change
}

fn kind(kind: &'static str) -> Tags {
    Tags {
        kind: kind.into(),
        ..Tags::default()
    }
}

fn event(of: &str) -> Change {
    let id = crate::event::new_event_id();
    Change::Put {
        key: Key::Event(id),
        body: Body::new(format!(r#"{{"id":"{id}"}}"#), None),
        moved_to: None,
        tags: Tags::default(),
        of: DeviceId::parse(of).ok(),
    }
}

fn stream(of: &str) -> Change {
    let id = crate::ids::StreamId::new(of, "main").unwrap();
    Change::Put {
        key: Key::Stream(id),
        body: Body::new(format!(r#"{{"stream":"{of}/main"}}"#), None),
        moved_to: None,
        tags: Tags::default(),
        of: DeviceId::parse(of).ok(),
    }
}

fn gone(id: &str) -> Change {
    Change::Gone(Key::Device(DeviceId::parse(id).unwrap()))
}

/// A screen's next message after a pulse.
fn read(feed: &Feed, screen: &mut FeedReader) -> Value {
    feed.seal(1500, false);
    let text = screen.take(true, 1500).or_else(|| {
        feed.seal(1500, true);
        screen.take(true, 1500)
    });
    serde_json::from_slice(&text.unwrap()).unwrap()
}

fn screen(feed: &Arc<Feed>) -> FeedReader {
    feed.subscribe(None, Audience::default())
}

fn wanting(feed: &Arc<Feed>, kind: &str) -> FeedReader {
    let wanted = Wanted {
        kind: Some(kind),
        ..Wanted::default()
    };
    let filter = Filter::parse(wanted).unwrap();
    feed.subscribe(
        None,
        Audience {
            filter,
            sees_restricted: false,
        },
    )
}

fn ids(message: &Value, list: &str) -> Vec<String> {
    let key = if list == "streams" { "stream" } else { "id" };
    let all = message[list].as_array().unwrap().iter();
    all.map(|d| d[key].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_slow_screen_sees_the_newest_of_every_device_once() {
    let feed = Arc::new(Feed::default());
    let mut at = screen(&feed);
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
    let inner = feed.inner.lock();
    assert_eq!(inner.items.len(), 50, "memory does not grow");
    assert!(
        inner
            .items
            .all()
            .iter()
            .all(|(_, trail)| trail.as_ref().unwrap().points.len() == TRAIL_MAX)
    );
    drop(inner);
    assert_eq!(at.take(false, 0), None, "nothing twice");
}

#[test]
fn a_resumed_screen_gets_what_it_missed() {
    let feed = Arc::new(Feed::default());
    feed.publish([put("a", 1), put("b", 1)]);
    let mut at = screen(&feed);
    let snapshot = read(&feed, &mut at);
    assert_eq!(snapshot["devices"][0]["trail"].as_array().unwrap().len(), 1);
    let since = format!(
        "{}-{}",
        snapshot["epoch"].as_str().unwrap(),
        snapshot["seq"]
    );
    feed.publish([put("c", 1), gone("a"), put("b", 2)]);

    let mut again = feed.subscribe(Some(&since), Audience::default());
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
        let mut at = feed.subscribe(Some(stranger), Audience::default());
        assert_eq!(read(&feed, &mut at)["type"], "snapshot", "{stranger}");
    }
}

#[test]
fn departures_are_bounded() {
    let feed = Arc::new(Feed::default());
    let mut at = screen(&feed);
    read(&feed, &mut at);
    for i in 0..GONE_MAX + 1 {
        let id = format!("d{i}");
        feed.publish([put(&id, 0), gone(&id)]);
    }
    feed.seal(0, false);
    feed.seal(0, true);
    assert_eq!(feed.inner.lock().items.gone.len(), GONE_MAX);
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
    let feed = Arc::new(Feed::default());
    let mut at = screen(&feed);
    let first = read(&feed, &mut at)["seq"].as_u64().unwrap();
    let beat = read(&feed, &mut at);
    assert_eq!(beat["type"], "change");
    assert!(beat["seq"].as_u64().unwrap() > first);
    assert_eq!(beat["devices"], serde_json::json!([]));
}

#[test]
fn the_newest_events_stay() {
    let feed = Arc::new(Feed::default());
    let ids: Vec<_> = (0..EVENTS_MAX + 10)
        .map(|_| crate::event::new_event_id())
        .collect();
    for id in &ids {
        feed.publish([Change::Put {
            key: Key::Event(*id),
            body: Body::new(format!(r#"{{"id":"{id}"}}"#), None),
            moved_to: None,
            tags: Tags::default(),
            of: None,
        }]);
    }
    let all: Value = serde_json::from_slice(&feed.snapshot(&Audience::default())).unwrap();
    let events = all["events"].as_array().unwrap();
    assert_eq!(events.len(), EVENTS_MAX);
    assert_eq!(events[0]["id"], ids[EVENTS_MAX + 9].to_string());
    assert_eq!(feed.inner.lock().items.len(), EVENTS_MAX);
}

#[tokio::test]
async fn a_waiting_screen_is_woken_and_bursts_are_one_message() {
    let feed = Feed::start([]);
    let mut reader = screen(&feed);
    let text = |b: Bytes| String::from_utf8(b.into()).unwrap();
    assert!(text(reader.next().await).contains("\"snapshot\""));
    for n in 0..1000 {
        feed.publish([put("a", n)]);
    }
    let message = text(reader.next().await);
    assert!(message.contains(r#""n":999"#) && message.matches("\"n\":").count() == 1);
    let other = feed.clone();
    let (message, ()) = tokio::join!(reader.next(), async move { other.publish([put("b", 7)]) });
    assert!(text(message).contains(r#""n":7"#));
}

#[test]
fn an_idle_feed_says_so_to_screens_with_a_filter_too() {
    let feed = Arc::new(Feed::default());
    let mut drones = wanting(&feed, "drone");
    read(&feed, &mut drones);
    feed.seal(0, true);
    assert_eq!(drones.take(false, 0), None, "not before its time");
    feed.seal(0, true);
    let beat: Value = serde_json::from_slice(&drones.take(true, 0).unwrap()).unwrap();
    assert_eq!(
        (&beat["type"], ids(&beat, "devices").len()),
        (&"change".into(), 0)
    );
}

#[test]
fn screens_that_keep_up_share_the_bytes_and_one_that_is_behind_skips() {
    let feed = Arc::new(Feed::default());
    let mut screens = [screen(&feed), screen(&feed), screen(&feed)];
    for s in &mut screens {
        read(&feed, s);
    }
    let [one, two, late] = &mut screens;
    for round in 1..=3 {
        feed.publish([put("a", round), put("b", round)]);
        feed.seal(0, false);
        let (x, y) = (one.take(false, 0).unwrap(), two.take(false, 0).unwrap());
        assert_eq!(x.as_ptr(), y.as_ptr(), "written once");
    }
    feed.publish([gone("b")]);
    let message = read(&feed, late);
    assert_eq!(ids(&message, "devices"), ["a"]);
    assert_eq!(message["devices"][0]["n"], 3);
    assert_eq!(message["gone"], serde_json::json!(["device:b"]));
    assert_eq!(late.take(false, 0), None);
}

#[test]
fn a_filter_shows_its_part_and_tells_what_leaves_it() {
    let feed = Arc::new(Feed::default());
    feed.publish([
        tagged("uav", kind("drone")),
        tagged("cam", kind("bodycam")),
        stream("cam"),
    ]);
    let mut drones = wanting(&feed, "drone");
    let first = read(&feed, &mut drones);
    assert_eq!(ids(&first, "devices"), ["uav"]);
    assert_eq!(ids(&first, "streams"), ["cam/main"], "streams come all");
    feed.publish([tagged("cam", kind("bodycam")), event("cam")]);
    feed.seal(0, false);
    assert_eq!(drones.take(false, 0), None, "nothing of its part");
    feed.publish([
        tagged("uav", kind("bodycam")),
        tagged("cam", kind("drone")),
        event("cam"),
    ]);
    let change = read(&feed, &mut drones);
    assert_eq!(ids(&change, "devices"), ["cam"]);
    assert_eq!(change["gone"], serde_json::json!(["device:uav"]));
    assert_eq!(
        ids(&change, "events").len(),
        1,
        "an event has the tags of its device"
    );
    feed.publish([gone("uav"), gone("cam")]);
    assert_eq!(
        read(&feed, &mut drones)["gone"],
        serde_json::json!(["device:cam"])
    );
}

#[test]
fn a_resumed_filter_tells_departures_it_cannot_have_seen() {
    let feed = Arc::new(Feed::default());
    feed.publish([tagged("a", kind("drone")), tagged("b", kind("drone"))]);
    let first = read(&feed, &mut wanting(&feed, "drone"));
    let since = format!("{}-{}", first["epoch"].as_str().unwrap(), first["seq"]);
    feed.publish([tagged("a", kind("dock"))]);
    let mut again = wanting(&feed, "drone");
    again = feed.subscribe(Some(&since), std::mem::take(&mut again.audience));
    assert_eq!(
        read(&feed, &mut again)["gone"],
        serde_json::json!(["device:a"])
    );
    feed.publish([tagged("b", kind("dock"))]);
    assert_eq!(
        read(&feed, &mut again)["gone"],
        serde_json::json!(["device:b"])
    );
}

#[test]
fn what_is_restricted_is_for_the_grant_alone() {
    let covert = Tags {
        restricted: true,
        ..kind("bodycam")
    };
    let feed = Arc::new(Feed::default());
    let mut with = feed.subscribe(
        None,
        Audience {
            sees_restricted: true,
            filter: None,
        },
    );
    let (mut without, mut part) = (screen(&feed), wanting(&feed, "bodycam"));
    for s in [&mut with, &mut without, &mut part] {
        read(&feed, s);
    }
    feed.publish([tagged("open", kind("bodycam")), tagged("covert", covert)]);
    feed.publish([stream("covert"), event("covert"), event("open")]);
    for (s, devices, rest) in [
        (&mut with, &["open", "covert"][..], (1, 2)),
        (&mut without, &["open"][..], (0, 1)),
        (&mut part, &["open"][..], (0, 1)),
    ] {
        let message = read(&feed, s);
        assert_eq!(ids(&message, "devices"), devices);
        assert_eq!(
            (
                ids(&message, "streams").len(),
                ids(&message, "events").len()
            ),
            rest
        );
    }
    assert_eq!(ids(&read(&feed, &mut screen(&feed)), "devices"), ["open"]);
    feed.publish([gone("covert")]);
    assert_eq!(
        read(&feed, &mut with)["gone"],
        serde_json::json!(["device:covert"])
    );
    for s in [&mut without, &mut part] {
        assert_eq!(read(&feed, s)["gone"], serde_json::json!([]));
    }
    feed.publish([event("covert")]);
    assert_eq!(
        ids(&read(&feed, &mut without), "events"),
        [""; 0],
        "also after it left"
    );
}

#[test]
fn many_screens_at_once_share_a_large_snapshot_and_miss_nothing() {
    let feed = Arc::new(Feed::default());
    let long = "x".repeat(SHELF_BYTES);
    let large = |id: &str| Change::Put {
        key: Key::Device(DeviceId::parse(id).unwrap()),
        body: Body::new(format!(r#"{{"id":"{id}","note":"{long}"}}"#), None),
        moved_to: None,
        tags: Tags::default(),
        of: None,
    };
    feed.publish([large("a")]);
    let (mut one, mut two) = (screen(&feed), screen(&feed));
    let x = one.take(false, 0).unwrap();
    feed.publish([put("b", 1)]);
    let y = two.take(false, 10).unwrap();
    assert_eq!(x.as_ptr(), y.as_ptr());
    assert_eq!(
        ids(&read(&feed, &mut two), "devices"),
        ["a", "b"],
        "what came since then"
    );
    let z = screen(&feed).take(false, SHELF_MS).unwrap();
    assert_ne!(x.as_ptr(), z.as_ptr(), "a second later it is another");
    feed.publish([put("b", 2)]);
    feed.seal(3 * SHELF_MS, false);
    assert!(
        feed.inner.lock().shelf.iter().all(Option::is_none),
        "nothing large is kept"
    );
}

#[test]
fn who_has_no_grant_loses_a_device_that_becomes_restricted() {
    let covert = || Tags {
        restricted: true,
        ..kind("bodycam")
    };
    let granted = |filter| Audience {
        sees_restricted: true,
        filter,
    };
    let feed = Arc::new(Feed::default());
    let mut with = feed.subscribe(None, granted(None));
    let mut with_part = wanting(&feed, "bodycam");
    with_part.audience.sees_restricted = true;
    let (mut without, mut part) = (screen(&feed), wanting(&feed, "bodycam"));
    feed.publish([tagged("a", kind("bodycam")), tagged("b", kind("bodycam"))]);
    feed.publish([stream("a"), event("a")]);
    for s in [&mut with, &mut with_part, &mut without, &mut part] {
        assert_eq!(ids(&read(&feed, s), "devices"), ["a", "b"]);
    }
    // "b" was revoked, and registered as a restricted one before anybody heard of it.
    feed.publish([tagged("a", covert()), gone("b"), tagged("b", covert())]);
    for s in [&mut with, &mut with_part] {
        let message = read(&feed, s);
        assert_eq!(ids(&message, "devices"), ["a", "b"]);
        assert_eq!(message["gone"], serde_json::json!([]));
    }
    for s in [&mut without, &mut part] {
        let message = read(&feed, s);
        assert_eq!(ids(&message, "devices"), [""; 0]);
        let gone: Vec<_> = message["gone"].as_array().unwrap().iter().collect();
        let has = |prefix: &str| gone.iter().any(|g| g.as_str().unwrap().starts_with(prefix));
        assert!(
            has("device:a") && has("device:b") && has("stream:a") && has("event:"),
            "{gone:?}"
        );
    }
    assert_eq!(ids(&read(&feed, &mut screen(&feed)), "devices"), [""; 0]);
}
