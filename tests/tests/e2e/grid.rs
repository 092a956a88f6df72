//! The grid while devices stand in it: read again, refused, corridors with times, rules on crossings.

use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::LIMIT;
use crate::crash::Caller;

const RULES: &str = r#"
[[rule]]
name = "closed_entered"
when = "'closed' in track.entered"
severity = "major"

[[rule]]
name = "lane_left"
when = "track.left.exists(z, z == 'lane')"
severity = "minor"
"#;

fn square(properties: &Value, south: f64) -> Value {
    let (north, west, east) = (south + 0.004, 112.748, 112.752);
    json!({"type":"Feature","properties":properties,"geometry":{"type":"Polygon","coordinates":[[
        [west,south],[east,south],[east,north],[west,north],[west,south]]]}})
}

/// Street "s" with community "c" around 37.690 N, 112.750 E, and `more`.
fn grid(version: u32, more: &[Value]) -> String {
    let mut all = vec![
        square(&json!({"type":"street","id":"s"}), 37.688),
        square(&json!({"type":"community","id":"c","parent":"s"}), 37.688),
    ];
    all.extend_from_slice(more);
    json!({"type":"FeatureCollection","version":version,"features":all}).to_string()
}

async fn gateway(more: &[Value]) -> (Gateway, String) {
    let gateway = Gateway::start(Setup {
        grid: Some(grid(1, more)),
        rules: RULES.into(),
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    (gateway, token)
}

async fn stand(gateway: &Gateway, caller: &mut Caller, lat: f64) {
    let text = format!(r#"{{"position":{{"lat":{lat},"lon":112.75,"accuracy_m":4}}}}"#);
    assert!(caller.say("kerbside/v1/bc-01/report", &text));
    caller.all_acknowledged(LIMIT).await;
    assert!(gateway.logged().contains("ready"));
}

async fn until(feed: &mut Feed, what: &str, key: &str, value: Value) {
    feed.until(LIMIT, what, |feed| {
        (feed.devices.get("bc-01")?[key] == value).then_some(())
    })
    .await;
}

fn raised(feed: &Feed, rule: &str) -> usize {
    feed.events.values().filter(|e| e["rule"] == rule).count()
}

#[tokio::test]
async fn a_new_grid_is_taken_while_devices_stand_and_a_faulty_one_is_not() {
    let (mut gateway, token) = gateway(&[]).await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let mut feed = Feed::open(&gateway, &token).await;
    stand(&gateway, &mut caller, 37.69).await;
    until(&mut feed, "the path of the fix", "cells", json!(["s", "c"])).await;
    let (_, first) = gateway.get("/api/v1/grid", &token).await;
    assert!(
        first["grid_version"].as_str().unwrap().starts_with("1+"),
        "{first}"
    );

    // A smaller cell, and a zone right where the device stands.
    let new = [
        square(&json!({"type":"grid","id":"g","parent":"c"}), 37.688),
        square(
            &json!({"type":"zone","id":"closed","kind":"restricted"}),
            37.688,
        ),
    ];
    gateway.change_grid(&grid(2, &new));
    until(&mut feed, "the new zone", "zones", json!(["closed"])).await;
    feed.until(LIMIT, "who stands in a new zone has entered it", |f| {
        (raised(f, "closed_entered") == 1).then_some(())
    })
    .await;
    let (_, second) = gateway.get("/api/v1/grid", &token).await;
    assert!(
        second["grid_version"].as_str().unwrap().starts_with("2+"),
        "{second}"
    );
    let (_, picture) = gateway.get("/api/v1/picture", &token).await;
    assert_eq!(picture["grid"], second["grid_version"]);

    // The caller that has it gets no body.
    let client = reqwest::Client::new();
    let ask = |etag: String| {
        let url = format!("{}/api/v1/grid", gateway.http());
        client
            .get(url)
            .bearer_auth(&token)
            .header("If-None-Match", etag)
            .send()
    };
    let whole = ask("\"other\"".into()).await.unwrap();
    assert_eq!(whole.status().as_u16(), 200);
    let etag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(ask(etag).await.unwrap().status().as_u16(), 304);

    // A parent that is nowhere, twice: both are told, the old grid stays.
    let orphan = |id: &str| square(&json!({"type":"grid","id":id,"parent":"nowhere"}), 37.688);
    gateway.change_grid(&grid(3, &[orphan("x"), orphan("y")]));
    let ready = || async {
        let url = format!("{}/readyz", gateway.http());
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    eventually(LIMIT, "readyz tells the fault", async || {
        let (status, text) = ready().await;
        assert_eq!(status, 200, "{text}");
        (text.contains("degraded: grid") && text.contains("\"nowhere\"")).then_some(())
    })
    .await;
    let log = gateway.logged();
    assert!(
        log.contains("features[2]") && log.contains("features[3]"),
        "{log}"
    );
    assert_eq!(
        gateway
            .metric("kerbside_grid_reloads_total", &["refused"])
            .await,
        1.0
    );
    let (_, still) = gateway.get("/api/v1/grid", &token).await;
    assert_eq!(still["grid_version"], second["grid_version"]);
    stand(&gateway, &mut caller, 37.6901).await;
    feed.until_at(LIMIT, "bc-01", 37.6901).await;
    assert_eq!(feed.devices["bc-01"]["zones"], json!(["closed"]));
    assert_eq!(raised(&feed, "closed_entered"), 1);

    // SIGHUP too; a good file takes the fault away.
    gateway.change_grid(&grid(4, &[]));
    gateway.process().signal(Signal::HUP);
    until(&mut feed, "no zone any more", "zones", json!([])).await;
    let ready = async |gateway: &Gateway| {
        let url = format!("{}/readyz", gateway.http());
        reqwest::get(url).await.unwrap().text().await.unwrap()
    };
    eventually(LIMIT, "as it should be", async || {
        (ready(&gateway).await == "ready").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_corridor_is_entered_and_left_only_in_its_time() {
    let lane = |id: &str, from: &str, until: &str| {
        json!({"type":"Feature","properties":{"type":"zone","id":id,"width_m":30,"from":from,"until":until},
            "geometry":{"type":"LineString","coordinates":[[112.74,37.7],[112.76,37.7]]}})
    };
    let (gateway, token) = gateway(&[
        lane(
            "lane",
            "2020-01-01T00:00:00+08:00",
            "2200-01-01T00:00:00+08:00",
        ),
        lane(
            "over",
            "2020-01-01T00:00:00+08:00",
            "2021-01-01T00:00:00+08:00",
        ),
    ])
    .await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let mut feed = Feed::open(&gateway, &token).await;
    stand(&gateway, &mut caller, 37.7001).await;
    until(&mut feed, "in the corridor", "zones", json!(["lane"])).await;
    // Some 22 m from its middle, 7 m from its border.
    stand(&gateway, &mut caller, 37.7002).await;
    until(&mut feed, "out of the corridor", "zones", json!([])).await;
    assert_eq!(raised(&feed, "lane_left"), 0, "one fix is not enough");
    stand(&gateway, &mut caller, 37.7002).await;
    feed.until(LIMIT, "it has left", |f| {
        (raised(f, "lane_left") == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_picture_as_geojson_in_another_datum() {
    let (gateway, token) = gateway(&[]).await;
    gateway.restricted_device("uav-1", "drone");
    let mut caller = Caller::open(&gateway, "bc-01").await;
    stand(&gateway, &mut caller, 37.69).await;
    let path = "/api/v1/picture?format=geojson&datum=gcj02&cell=s&bbox=112,37,113,38";
    let picture = eventually(LIMIT, "the device is in the picture", async || {
        let (status, picture) = gateway.get(path, &token).await;
        assert_eq!(status, 200, "{picture}");
        picture["features"][0].is_object().then_some(picture)
    })
    .await;
    assert_eq!(
        (&picture["type"], &picture["datum"]),
        (&json!("FeatureCollection"), &json!("gcj02"))
    );
    let device = &picture["features"][0];
    assert_eq!(
        device["geometry"]["coordinates"],
        json!([112.756_491_8, 37.690_680_7])
    );
    assert_eq!(
        (&device["id"], &device["properties"]["datum"]),
        (&json!("device:bc-01"), &json!("gcj02"))
    );
    let (_, all) = gateway.get("/api/v1/picture?format=geojson", &token).await;
    assert!(!all.to_string().contains("uav-1"), "restricted: {all}");
    for bad in [
        "format=kml",
        "format=geojson&datum=mars",
        "datum=gcj02",
        "format=geojson&bbox=1",
    ] {
        let (status, answer) = gateway.get(&format!("/api/v1/picture?{bad}"), &token).await;
        assert_eq!(status, 400, "{bad}: {answer}");
    }
}
