//! Snapshots judged by ffmpeg: a real push, the JPEG's size and colours, and the reason when there is no picture.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kerbside_sim::harness::tools::{self, ffmpeg_pull, have};
use kerbside_sim::harness::{Feed, Gateway, Setup};
use kerbside_sim::process::Process;

use crate::LIMIT;

/// A gateway with a body camera and a user `eve`, her token and her feed.
async fn street() -> (Gateway, String, Feed) {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (gateway, token, feed)
}

/// The left half red, the right half blue; key frame each second.
fn push_halves(gateway: &Gateway, size: &str, more: &[&str]) -> Process {
    let url = gateway.rtsp_as("bc-01", "bc-01/main");
    let source =
        format!("color=c=red:size={size}:rate=15,drawbox=x=iw/2:y=0:w=iw/2:h=ih:color=blue:t=fill");
    let mut args = vec!["-loglevel", "error", "-re", "-f", "lavfi", "-i", &source];
    args.extend([
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-g",
        "15",
    ]);
    args.extend(["-pix_fmt", "yuv420p"]);
    args.extend(more);
    args.extend(["-f", "rtsp", "-rtsp_transport", "tcp", &url]);
    tools::start(gateway.dir(), "halves", "ffmpeg", &args)
}

async fn fetch(gateway: &Gateway, token: &str, query: &str) -> reqwest::Response {
    let url = format!("{}/bc-01/main/snapshot.jpg{query}", gateway.http());
    let asked = reqwest::Client::new().get(url).bearer_auth(token);
    asked.send().await.expect("an answer")
}

/// RGB of a point, each side from 0 to 7 of 8, as ffmpeg decodes and shrinks the picture.
async fn colours(file: &Path) -> Vec<[u8; 3]> {
    let raw = file.with_extension("rgb");
    let (from, to) = (file.to_str().unwrap(), raw.to_str().unwrap());
    let args = [
        "-loglevel",
        "error",
        "-y",
        "-i",
        from,
        "-vf",
        "scale=8:8",
        "-pix_fmt",
        "rgb24",
        "-f",
        "rawvideo",
        to,
    ];
    tools::run(LIMIT, "ffmpeg", &args).await.succeeded();
    let bytes = std::fs::read(raw).unwrap();
    bytes.chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect()
}

async fn size(file: &Path) -> String {
    let args = [
        "-v",
        "error",
        "-show_entries",
        "stream=codec_name,width,height",
        "-of",
        "csv=p=0",
        file.to_str().unwrap(),
    ];
    let said = tools::run(LIMIT, "ffprobe", &args).await.succeeded();
    assert!(said.err.is_empty(), "ffprobe complains: {}", said.err);
    said.out.trim().to_owned()
}

#[tokio::test]
async fn a_snapshot_shows_what_the_camera_sends() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, token, mut feed) = street().await;
    let none = fetch(&gateway, &token, "").await;
    assert_eq!(none.status(), 404);
    assert!(none.text().await.unwrap().contains("live"));
    let _camera = push_halves(&gateway, "640x360", &[]);
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    for (query, wanted) in [("", "mjpeg,640,360"), ("?width=320", "mjpeg,320,180")] {
        let answer = kerbside_sim::harness::eventually(LIMIT, "a snapshot", async || {
            let answer = fetch(&gateway, &token, query).await;
            answer.status().is_success().then_some(answer)
        })
        .await;
        assert_eq!(answer.headers()["content-type"], "image/jpeg");
        let captured = answer.headers()["x-captured-at"]
            .to_str()
            .unwrap()
            .to_owned();
        let date = ["-u", "-d", &captured, "+%s"];
        let at = tools::run(LIMIT, "date", &date).await.succeeded().out;
        let at = UNIX_EPOCH + Duration::from_secs(at.trim().parse().unwrap());
        let age = SystemTime::now().duration_since(at).unwrap();
        assert!(age < 2 * LIMIT, "captured {captured}, {age:?} ago");
        assert!(answer.headers().contains_key("x-captured-uncertainty-ms"));
        let file = gateway.dir().join("snapshot.jpg");
        std::fs::write(&file, answer.bytes().await.unwrap()).unwrap();
        assert_eq!(size(&file).await, wanted);
        for (at, [r, g, b]) in colours(&file).await.into_iter().enumerate() {
            let red = r > 235 && g < 25 && b < 25;
            let blue = r < 25 && g < 25 && b > 235;
            let right = match at % 8 {
                0..2 => red,
                6..8 => blue,
                _ => true,
            };
            assert!(right, "point {at} is {r},{g},{b}");
        }
    }
    // Who looked is on record.
    let looked = gateway.logged();
    assert!(
        looked.contains("look at a snapshot") && looked.contains("eve"),
        "{looked}"
    );
}

#[tokio::test]
async fn many_who_ask_at_once_cost_one_decode() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, token, mut feed) = street().await;
    let _camera = push_halves(&gateway, "320x180", &[]);
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let all = futures_util::future::join_all((0..100).map(|_| fetch(&gateway, &token, ""))).await;
    assert!(all.iter().all(|answer| answer.status() == 200));
    let decoded = gateway
        .metric("kerbside_snapshot_decode_seconds_count", &[])
        .await;
    // As long as a hundred answers take, a second may pass.
    assert!((1.0..=4.0).contains(&decoded), "{decoded} decodes");
    // The live path goes on.
    ffmpeg_pull(&gateway.rtsp_as("eve", "bc-01/main"), "tcp", 15).await;
}

#[tokio::test]
async fn a_damaged_picture_is_a_reason() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, token, mut feed) = street().await;
    // Bits of the slices are turned over; parameter sets and headers stay, so that it still is a stream.
    let noise = ["-bsf:v", "noise=amount=60*eq(key\\,1)"];
    let _camera = push_halves(&gateway, "640x360", &noise);
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let (status, text) = kerbside_sim::harness::eventually(LIMIT, "a refusal", async || {
        let answer = fetch(&gateway, &token, "").await;
        let status = answer.status().as_u16();
        (status != 200 && status != 504).then_some(())?;
        Some((status, answer.text().await.unwrap()))
    })
    .await;
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("cannot be decoded"), "{text}");
    // And the gateway is as well as before.
    let ready = reqwest::get(format!("{}/readyz", gateway.http()))
        .await
        .unwrap();
    assert_eq!(ready.status(), 200);
}
