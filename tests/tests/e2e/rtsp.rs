//! RTSP judged by ffmpeg and GStreamer: push and pull, TCP and UDP, decoded without a complaint.

use std::time::Duration;

use kerbside_sim::harness::tools::{self, ffmpeg_pull, ffmpeg_push, gst_pull, gst_push, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, until};
use rustix::process::Signal;

use crate::LIMIT;

/// A gateway with a body camera and a user `eve`, and her feed.
async fn street() -> (Gateway, Feed) {
    let gateway = Gateway::start(Setup {
        more: "[streams]\npublisher_grace_s = 3\n".into(),
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (gateway, feed)
}

#[tokio::test]
async fn ffmpeg_pushes_over_tcp_and_everybody_pulls_at_once() {
    if !have("ffmpeg") || !have("gst-launch-1.0") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let _publisher = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-01", "bc-01/main"),
        "tcp",
    );
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let url = gateway.rtsp_as("eve", "bc-01/main");
    tokio::join!(
        ffmpeg_pull(&url, "tcp", 45),
        ffmpeg_pull(&url, "udp", 45),
        gst_pull(&url, "tcp", 45),
        gst_pull(&url, "udp", 45),
    );
    assert_eq!(feed.streams["bc-01/main"]["codecs"][0], "H264");
}

#[tokio::test]
async fn ffmpeg_pushes_over_udp() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let _publisher = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-01", "bc-01/main"),
        "udp",
    );
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    ffmpeg_pull(&gateway.rtsp_as("eve", "bc-01/main"), "tcp", 30).await;
}

#[tokio::test]
async fn gstreamer_pushes_over_tcp_and_udp() {
    if !have("gst-launch-1.0") || !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let password = gateway.secret("bc-01");
    for (transport, camera) in [("tcp", "bc-01/main"), ("udp", "bc-01/side")] {
        let location = format!("rtsp://127.0.0.1:{}/{camera}", gateway.ports.rtsp);
        let _publisher = gst_push(gateway.dir(), &location, "bc-01", &password, transport);
        feed.until_phase(LIMIT, camera, "live").await;
        ffmpeg_pull(&gateway.rtsp_as("eve", camera), "tcp", 30).await;
    }
}

#[tokio::test]
async fn a_publisher_that_is_killed_comes_back_and_its_reader_goes_on() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let push = gateway.rtsp_as("bc-01", "bc-01/main");
    let publisher = ffmpeg_push(gateway.dir(), &push, "tcp");
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let url = gateway.rtsp_as("eve", "bc-01/main");
    let args = [
        "-loglevel",
        "error",
        "-rtsp_transport",
        "tcp",
        "-i",
        &url,
        "-an",
        "-progress",
        "pipe:1",
        "-f",
        "null",
        "-",
    ];
    let reader = tools::start(gateway.dir(), "reader", "ffmpeg", &args);
    let frames = || {
        let text = reader.tail(40);
        text.lines()
            .rev()
            .find_map(|line| line.strip_prefix("frame=")?.trim().parse::<u32>().ok())
            .unwrap_or(0)
    };
    until(LIMIT, "the reader decodes", || {
        (frames() > 15).then_some(())
    })
    .await;
    publisher.signal(Signal::KILL);
    feed.until_phase(Duration::from_secs(15), "bc-01/main", "waiting")
        .await;
    let before = frames();
    let _again = ffmpeg_push(gateway.dir(), &push, "tcp");
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    until(LIMIT, "the same reader decodes again", || {
        (frames() > before + 30).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_publisher_that_stays_away_is_lost() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let publisher = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-01", "bc-01/main"),
        "tcp",
    );
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    publisher.signal(Signal::KILL);
    feed.until_phase(LIMIT, "bc-01/main", "lost").await;
    feed.until(LIMIT, "a stream_lost event", |feed| {
        feed.events
            .values()
            .any(|event| event["kind"] == "stream_lost")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn nobody_plays_or_publishes_without_the_right() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    gateway.device("bc-02", "bodycam", None);
    let _publisher = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-01", "bc-01/main"),
        "tcp",
    );
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let play = |user: &str| format!("rtsp://{user}@127.0.0.1:{}/bc-01/main", gateway.ports.rtsp);
    for url in [
        play("eve:wrong"),
        play("nobody:x"),
        format!("rtsp://127.0.0.1:{}/bc-01/main", gateway.ports.rtsp),
    ] {
        let args = [
            "-loglevel",
            "error",
            "-rtsp_transport",
            "tcp",
            "-i",
            &url,
            "-frames:v",
            "1",
            "-f",
            "null",
            "-",
        ];
        let said = tools::run(LIMIT, "ffmpeg", &args).await;
        assert!(
            !said.status.success() && said.err.contains("401"),
            "{said:?}"
        );
    }
    let unknown = gateway.rtsp_as("eve", "bc-77/main");
    let args = [
        "-loglevel",
        "error",
        "-rtsp_transport",
        "tcp",
        "-i",
        &unknown,
        "-frames:v",
        "1",
        "-f",
        "null",
        "-",
    ];
    let said = tools::run(LIMIT, "ffmpeg", &args).await;
    assert!(said.err.contains("404"), "{said:?}");
    // A device publishes under its own id only.
    let mut thief = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-02", "bc-01/main"),
        "tcp",
    );
    let status = thief.wait(LIMIT).await.expect("ffmpeg gives up");
    assert!(
        !status.success() && thief.tail(20).contains("403"),
        "{}",
        thief.tail(20)
    );
}

#[tokio::test]
async fn revoking_cuts_publisher_and_reader() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let mut publisher = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-01", "bc-01/main"),
        "tcp",
    );
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    gateway.user("mallory", "operator");
    let url = gateway.rtsp_as("mallory", "bc-01/main");
    let args = [
        "-loglevel",
        "error",
        "-rtsp_transport",
        "tcp",
        "-i",
        &url,
        "-progress",
        "pipe:1",
        "-f",
        "null",
        "-",
    ];
    let mut reader = tools::start(gateway.dir(), "reader", "ffmpeg", &args);
    until(LIMIT, "the reader decodes", || {
        reader.tail(20).contains("frame=").then_some(())
    })
    .await;
    gateway.cli(&["user", "revoke", "mallory"]).unwrap();
    assert!(
        reader.wait(Duration::from_secs(10)).await.is_some(),
        "the reader plays on after it was revoked"
    );
    gateway.cli(&["device", "revoke", "bc-01"]).unwrap();
    assert!(
        publisher.wait(Duration::from_secs(10)).await.is_some(),
        "the publisher pushes on after it was revoked"
    );
}
