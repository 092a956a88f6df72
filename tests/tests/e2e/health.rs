//! What the gateway tells of a publisher: figures, its clock, its health; by API, feed and metrics.

use kerbside_sim::harness::tools::{ffmpeg_push, have, start};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use rustix::process::Signal;
use serde_json::Value;

use crate::LIMIT;

/// The stream as `GET /api/v1/streams` shows it.
async fn stream(gateway: &Gateway, token: &str) -> Value {
    let (status, body) = gateway.get("/api/v1/streams", token).await;
    assert_eq!(status, 200, "{body}");
    body["streams"][0].clone()
}

async fn until_health(feed: &mut Feed, state: &str) {
    let what = format!("bc-01/main is {state}");
    feed.until(LIMIT, &what, |feed| {
        (feed.streams.get("bc-01/main")?["health"] == state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_publisher_is_measured_and_its_silence_is_told() {
    if !have("ffmpeg") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut feed = Feed::open(&gateway, &token).await;
    let url = gateway.rtsp_as("bc-01", "bc-01/main");
    let publisher = ffmpeg_push(gateway.dir(), &url, "tcp");
    until_health(&mut feed, "ok").await;

    // 15 frames a second, 320×180, a key frame each second; ffmpeg's sender reports go by this machine's clock.
    let about = |value: &Value, least: f64, most: f64| {
        value.as_f64().is_some_and(|v| (least..=most).contains(&v))
    };
    eventually(LIMIT, "plausible figures", async || {
        let shown = stream(&gateway, &token).await;
        let (all, video) = (&shown["publisher"], &shown["publisher"]["media"][0]);
        let plausible = about(&video["frame_rate"], 12.0, 18.0)
            && about(&video["bitrate_bps"], 20_000.0, 5e6)
            && about(&video["gop_s"], 0.9, 1.1)
            && video["gop_frames"] == 15
            && video["width"] == 320
            && video["height"] == 180
            && video["lost"] == 0
            && all["clock"]["source"] == "sender_reports"
            && about(&all["clock"]["uncertainty_ms"], 1.0, 500.0)
            && shown["health"]["state"] == "ok";
        plausible.then_some(())
    })
    .await;
    let labels = ["stream=\"bc-01/main\""];
    let rate = gateway.metric("kerbside_stream_frame_rate", &labels).await;
    assert!((10.0..20.0).contains(&rate), "{rate}");
    let latency = "kerbside_stream_publisher_latency_seconds_count";
    assert!(gateway.metric(latency, &["rtsp"]).await > 0.0);

    // It stops sending and stays connected: no frames, and still live.
    publisher.signal(Signal::STOP);
    until_health(&mut feed, "no_frames").await;
    assert_eq!(feed.streams["bc-01/main"]["phase"], "live");
    let shown = stream(&gateway, &token).await;
    assert_eq!(shown["health"]["state"], "no_frames");
    let state = ["stream=\"bc-01/main\"", "state=\"no_frames\""];
    assert_eq!(gateway.metric("kerbside_stream_health", &state).await, 1.0);
    assert!(gateway.logged().contains("the camera is not healthy"));
    publisher.signal(Signal::CONT);
    until_health(&mut feed, "ok").await;

    // It leaves: nothing is told of it any more.
    publisher.signal(Signal::KILL);
    feed.until_phase(LIMIT, "bc-01/main", "waiting").await;
    let shown = stream(&gateway, &token).await;
    assert!(
        shown["publisher"].is_null() && shown["health"].is_null(),
        "{shown}"
    );
    assert!(feed.streams["bc-01/main"]["health"].is_null());
    assert_eq!(
        gateway.metric("kerbside_stream_frame_rate", &labels).await,
        0.0
    );
}

/// Who reads, by API: an ffmpeg player over each transport, and nobody once they are gone.
#[tokio::test]
async fn readers_are_listed_with_what_they_got() {
    if !have("ffmpeg") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut feed = Feed::open(&gateway, &token).await;
    let url = gateway.rtsp_as("bc-01", "bc-01/main");
    let _publisher = ffmpeg_push(gateway.dir(), &url, "tcp");
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let path = "/api/v1/streams/bc-01/main/readers";
    let url = gateway.rtsp_as("eve", "bc-01/main");
    let players = ["tcp", "udp"].map(|transport| {
        let input = ["-rtsp_transport", transport, "-i", &url];
        let output = ["-f", "null", "-"];
        let args = [&["-nostdin", "-loglevel", "error"][..], &input, &output].concat();
        start(gateway.dir(), transport, "ffmpeg", &args)
    });
    let listed = async || gateway.get(path, &token).await.1["readers"].clone();
    eventually(LIMIT, "both players in the list", async || {
        let readers = listed().await;
        let mut protocols: Vec<_> = readers
            .as_array()?
            .iter()
            .filter(|r| {
                r["who"] == "eve"
                    && r["frames"].as_u64() > Some(5)
                    && r["bytes"].as_u64() > Some(1000)
                    && r["join_ms"].as_f64().is_some_and(|ms| ms < 5000.0)
            })
            .filter_map(|r| r["protocol"].as_str())
            .collect();
        protocols.sort_unstable();
        (protocols == ["rtsp_tcp", "rtsp_udp"]).then_some(())
    })
    .await;
    let joins = "kerbside_reader_join_seconds_count";
    assert!(gateway.metric(joins, &["rtsp_tcp"]).await > 0.0);
    let latency = "kerbside_reader_added_latency_seconds_count";
    eventually(LIMIT, "latencies", async || {
        (gateway.metric(latency, &["rtsp_udp"]).await > 0.0).then_some(())
    })
    .await;
    drop(players);
    eventually(LIMIT, "nobody reads", async || {
        listed().await.as_array()?.is_empty().then_some(())
    })
    .await;
    assert_eq!(gateway.get(path, "wrong").await.0, 401);
    let unknown = "/api/v1/streams/no/such/readers";
    assert_eq!(gateway.get(unknown, &token).await.0, 404);
}
