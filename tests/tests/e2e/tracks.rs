//! Tracks as screens see them: corrected time, order, outliers, coasting.

use kerbside_sim::harness::{Feed, Gateway, Setup};
use serde_json::{Value, json};

use crate::LIMIT;
use crate::crash::Caller;

const TOPIC: &str = "kerbside/v1/bc-01/report";

/// `ms`: device time; `north_m`: metres north of 37.69 N.
fn report(ms: i64, north_m: f64) -> Value {
    let lat = 37.69 + north_m / 111_195.0;
    json!({"time_ms": ms, "position": {"lat": lat, "lon": 112.75, "accuracy_m": 4}})
}

fn position(feed: &Feed) -> Option<&Value> {
    feed.devices.get("bc-01")?.get("position")
}

fn north_m(feed: &Feed) -> Option<f64> {
    Some((position(feed)?["lat"].as_f64()? - 37.69) * 111_195.0)
}

/// A device eight hours behind walks, loses its line for ten minutes, and sends all of it at once; then a copy of an old
/// report comes late.
#[tokio::test]
async fn a_burst_after_an_outage_ends_on_its_last_fix_and_nothing_moves_back() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let begin = 1_700_000_000_000;
    let burst: Vec<Value> = (0..120)
        .map(|i| report(begin + i * 5_000, i as f64 * 6.0))
        .collect();
    assert!(caller.say(TOPIC, &Value::from(burst).to_string()));
    caller.all_acknowledged(LIMIT).await;
    feed.until(LIMIT, "the last of the burst", |feed| {
        let at = position(feed)?;
        (at["time_ms"] == begin + 119 * 5_000).then_some(())
    })
    .await;
    let at = north_m(&feed).unwrap();
    assert!((at - 714.0).abs() < 12.0, "{at} m");
    let shown = position(&feed).unwrap();
    let age = shown["arrived_ms"].as_i64().unwrap() - shown["happened_ms"].as_i64().unwrap();
    assert!((0..5_000).contains(&age), "{shown}");
    assert!(
        shown["motion"]["speed_mps"].as_f64().unwrap() > 0.4,
        "{shown}"
    );
    let course = shown["motion"]["course_deg"].as_f64().unwrap();
    assert!(!(10.0..350.0).contains(&course), "{shown}");

    assert!(caller.say(TOPIC, &report(begin + 5_000, 6.0).to_string()));
    caller.all_acknowledged(LIMIT).await;
    feed.until(LIMIT, "the old one is counted", |feed| {
        (feed.devices.get("bc-01")?["faults"]["stale"] == 1).then_some(())
    })
    .await;
    assert_eq!(north_m(&feed), Some(at));
}

#[tokio::test]
async fn one_wild_fix_is_held_and_the_marker_stays() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let begin = 1_700_000_000_000;
    let mut all: Vec<Value> = (0..20).map(|i| report(begin + i * 1_000, 0.0)).collect();
    all.push(report(begin + 20_000, 30_000.0));
    all.push(json!({"time_ms": begin + 20_500, "battery_pct": 42}));
    assert!(caller.say(TOPIC, &Value::from(all).to_string()));
    caller.all_acknowledged(LIMIT).await;
    feed.until(LIMIT, "the last report", |feed| {
        (feed.devices.get("bc-01")?["battery_pct"] == 42.0).then_some(())
    })
    .await;
    assert!(north_m(&feed).unwrap().abs() < 1.0);
    assert_eq!(position(&feed).unwrap()["motion"], Value::Null);
    let again: Vec<Value> = (21..24)
        .map(|i| report(begin + i * 1_000, 30_000.0))
        .collect();
    assert!(caller.say(TOPIC, &Value::from(again).to_string()));
    feed.until(LIMIT, "it is there indeed", |feed| {
        ((north_m(feed)? - 30_000.0).abs() < 5.0).then_some(())
    })
    .await;
}
