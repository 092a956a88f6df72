//! The history of tracks: what was told late, what was known when, who may look.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kerbside_sim::harness::{Gateway, Setup, eventually};
use serde_json::{Value, json};

use crate::LIMIT;
use crate::crash::Caller;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn report(lat: f64, time_ms: i64) -> Value {
    json!({"time_ms":time_ms,"position":{"lat":lat,"lon":112.75,"accuracy_m":4,"speed_mps":1.5}})
}

async fn track(gateway: &Gateway, query: &str, token: &str) -> Value {
    let (status, answer) = gateway.get(&format!("/api/v1/tracks/{query}"), token).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn what_was_told_late_stands_where_it_happened_and_survives_a_restart() {
    let mut gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let now = now_ms();
    let said = [
        report(37.6902, now),
        report(37.69, now - 30_000),
        report(37.6901, now - 20_000),
    ];
    let [live, late @ ..] = said;
    assert!(caller.say("kerbside/v1/bc-01/report", &live.to_string()));
    caller.all_acknowledged(LIMIT).await;
    let before = now_ms() + 1;
    eventually(LIMIT, "a moment later", async || {
        (now_ms() > before).then_some(())
    })
    .await;
    for said in late {
        assert!(caller.say("kerbside/v1/bc-01/report", &said.to_string()));
        caller.all_acknowledged(LIMIT).await;
    }

    let query = format!("bc-01?from={}", now - 60_000);
    let all = track(&gateway, &query, &token).await;
    assert_eq!(
        (&all["type"], &all["geometry"]["type"]),
        (&json!("Feature"), &json!("LineString"))
    );
    assert_eq!(
        all["geometry"]["coordinates"],
        json!([[112.75, 37.69], [112.75, 37.6901], [112.75, 37.6902]])
    );
    let p = &all["properties"];
    let happened = p["happened_ms"].as_array().unwrap();
    for (told, ms) in happened.iter().zip([now - 30_000, now - 20_000, now]) {
        // By our clock, which its reports are measured against.
        let off = told.as_i64().unwrap() - ms;
        assert!(off.abs() < 1000, "{off}: {happened:?}");
    }
    assert_eq!(
        (&p["back_filled"], &p["datum"]),
        (&json!([true, true, false]), &json!("wgs84"))
    );
    assert_eq!(
        (&p["accuracy_m"][0], &p["speed_mps"][0]),
        (&json!(4.0), &json!(1.5))
    );
    let known = p["known_ms"].as_array().unwrap();
    assert!(known[0].as_i64() > known[2].as_i64(), "{known:?}");
    let (_, picture) = gateway.get("/api/v1/picture", &token).await;
    assert_eq!(
        picture["devices"][0]["position"]["raw"][1], 37.6902,
        "the marker stays"
    );

    let then = track(&gateway, &format!("{query}&known_before={before}"), &token).await;
    assert_eq!(then["geometry"]["coordinates"], json!([[112.75, 37.6902]]));
    let few = track(&gateway, &format!("{query}&limit=1&datum=gcj02"), &token).await;
    assert_eq!(
        few["geometry"]["coordinates"],
        json!([[112.756_491_8, 37.690_680_7]])
    );
    assert_eq!(
        (&few["properties"]["has_more"], &few["properties"]["datum"]),
        (&json!(true), &json!("gcj02"))
    );
    assert!(
        gateway.logged().contains("look at a track"),
        "the look is on record"
    );

    gateway.process().stop(Duration::from_secs(10)).await;
    gateway.run().await;
    assert_eq!(
        track(&gateway, &query, &token).await["geometry"],
        all["geometry"]
    );
}

#[tokio::test]
async fn restricted_tracks_are_there_only_for_who_has_the_grant() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.restricted_device("bc-09", "bodycam");
    let token = gateway.user("eve", "operator");
    let told = gateway.cli(&[
        "user",
        "add",
        "chief",
        "--role",
        "commander",
        "--restricted",
        "--json",
    ]);
    let told: Value = serde_json::from_str(&told.unwrap()).unwrap();
    let chief = told["token"].as_str().unwrap();
    let mut caller = Caller::open(&gateway, "bc-09").await;
    assert!(caller.say(
        "kerbside/v1/bc-09/report",
        &report(37.69, now_ms()).to_string()
    ));
    caller.all_acknowledged(LIMIT).await;
    let seen = track(&gateway, "bc-09", chief).await;
    assert_eq!(seen["geometry"]["coordinates"], json!([[112.75, 37.69]]));
    let (hidden, says) = gateway.get("/api/v1/tracks/bc-09", &token).await;
    let (unknown, same) = gateway.get("/api/v1/tracks/bc-77", &token).await;
    assert_eq!((hidden, unknown, says), (404, 404, same));
    for (bad, status) in [
        ("from=yesterday", 400),
        ("from=2&to=1", 400),
        ("datum=mars", 400),
        ("limit=x", 400),
    ] {
        let (found, answer) = gateway
            .get(&format!("/api/v1/tracks/bc-09?{bad}"), chief)
            .await;
        assert_eq!(found, status, "{bad}: {answer}");
    }
}

#[tokio::test]
async fn history_can_be_off() {
    let gateway = Gateway::start(Setup {
        more: "[tracks]\nretention_days = 0\n".into(),
        ..Setup::default()
    })
    .await;
    let token = gateway.user("eve", "operator");
    let (status, answer) = gateway.get("/api/v1/tracks/bc-01", &token).await;
    assert_eq!(status, 404, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("retention_days"));
    assert!(!gateway.state().join("tracks.db").exists());
}
