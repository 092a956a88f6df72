//! Publishers that come, go and come back another way, and readers that stay; a WebRTC peer that is not ours (aiortc).

use std::path::PathBuf;
use std::time::Duration;

use kerbside_sim::harness::tools::{self, ffmpeg_push, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, until};
use kerbside_sim::process::Process;
use rustix::process::Signal;

use crate::LIMIT;

/// Python with aiortc, where `tests/deps.sh test` put it.
pub fn aiortc() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/aiortc/bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!("skipped: aiortc is missing (tests/deps.sh test installs it)");
    None
}

fn peer(gateway: &Gateway, name: &str, what: &str, url: &str, token: &str) -> Option<Process> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/aiortc_peer.py");
    let python = aiortc()?;
    let args = [script, what, url, token];
    Some(tools::start(
        gateway.dir(),
        name,
        python.to_str().unwrap(),
        &args,
    ))
}

/// Pictures decoded so far, of this size if it is given, by an ffmpeg with `-progress` or a viewing peer.
pub fn frames(of: &Process, size: &str) -> usize {
    let text = of.tail(100_000);
    let counts = text.lines().filter_map(|l| l.strip_prefix("frame="));
    let number = |l: &str| l.split_whitespace().next()?.parse::<usize>().ok();
    counts
        .filter(|l| size.is_empty() || l.ends_with(size))
        .filter_map(number)
        .max()
        .unwrap_or(0)
}

async fn street() -> (Gateway, Feed) {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("uav-01", "drone", None);
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (gateway, feed)
}

fn ffmpeg_reader(gateway: &Gateway, url: &str) -> Process {
    let args = [
        "-loglevel",
        "error",
        "-rtsp_transport",
        "tcp",
        "-i",
        url,
        "-an",
        "-progress",
        "pipe:1",
        "-f",
        "null",
        "-",
    ];
    tools::start(gateway.dir(), "reader", "ffmpeg", &args)
}

/// A drone publishes by WHIP, is cut off, and comes back by RTSP with another picture size: nobody has to join again.
#[tokio::test]
async fn readers_stay_while_a_publisher_changes_protocol_and_picture() {
    if !have("ffmpeg") || aiortc().is_none() {
        return;
    }
    let (gateway, mut feed) = street().await;
    let (http, name) = (gateway.http(), "uav-01/main");
    let (password, token) = (gateway.secret("uav-01"), gateway.secret("eve"));
    let whip = format!("{http}/{name}/whip");
    let publisher = peer(&gateway, "whip", "publish", &whip, &password).unwrap();
    feed.until_phase(LIMIT, name, "live").await;
    assert_eq!(feed.streams[name]["protocol"], "whip");
    let whep = format!("{http}/{name}/whep");
    let viewer = peer(&gateway, "viewer", "view", &whep, &token).unwrap();
    let reader = ffmpeg_reader(&gateway, &gateway.rtsp_as("eve", name));
    until(LIMIT, "both decode the WHIP picture", || {
        (frames(&viewer, "640x480") > 20 && frames(&reader, "") > 20).then_some(())
    })
    .await;

    publisher.signal(Signal::KILL);
    let push = gateway.rtsp_as("uav-01", name);
    let _again = ffmpeg_push(gateway.dir(), &push, "tcp");
    feed.until(LIMIT, "the RTSP publisher", |f| {
        (f.streams[name]["protocol"] == "rtsp").then_some(())
    })
    .await;
    let before = frames(&reader, "");
    until(LIMIT, "both decode the RTSP picture", || {
        (frames(&viewer, "320x180") > 20 && frames(&reader, "") > before + 20).then_some(())
    })
    .await;
    assert_eq!(feed.streams[name]["readers"], 2, "nobody joined anew");
    assert_eq!(viewer.tail(100_000).matches("state=connected").count(), 1);
}

/// Killed without a goodbye: the stream waits for it while its readers stay, and the same reader goes on.
#[tokio::test]
async fn a_whip_publisher_that_is_killed_comes_back_to_its_readers() {
    if !have("ffmpeg") || aiortc().is_none() {
        return;
    }
    let (gateway, mut feed) = street().await;
    let name = "uav-01/main";
    let whip = format!("{}/{name}/whip", gateway.http());
    let password = gateway.secret("uav-01");
    let publisher = peer(&gateway, "first", "publish", &whip, &password).unwrap();
    feed.until_phase(LIMIT, name, "live").await;
    let reader = ffmpeg_reader(&gateway, &gateway.rtsp_as("eve", name));
    until(LIMIT, "it decodes", || {
        (frames(&reader, "") > 20).then_some(())
    })
    .await;
    publisher.signal(Signal::KILL);
    let _second = peer(&gateway, "second", "publish", &whip, &password).unwrap();
    let before = frames(&reader, "");
    until(
        Duration::from_secs(40),
        "the same reader decodes again",
        || (frames(&reader, "") > before + 60).then_some(()),
    )
    .await;
}
