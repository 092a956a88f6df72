//! WHEP and WHIP with programs that are not ours: Chromium plays, Debian's simple-whip-client publishes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod room;

use room::{Camera, Room, WhipClient};

const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=25/1 ! videoconvert ! \
    x264enc tune=zerolatency speed-preset=ultrafast key-int-max=250 ! video/x-h264,profile=constrained-baseline ! \
    rtph264pay config-interval=-1 aggregate-mode=zero-latency ! \
    application/x-rtp,media=video,encoding-name=H264,payload=96";
const AUDIO: &str = "audiotestsrc is-live=true ! audioconvert ! opusenc ! rtpopuspay ! \
    application/x-rtp,media=audio,encoding-name=OPUS,payload=100";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_plays_a_stream() {
    let mut room = Room::open().await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let _browser = room.browser("stream=bc-01/main");
    let first = room.report_when("frames are decoded", |r| r.decoded > 10).await;
    let later = room
        .report_when("time goes on", |r| r.time_s > first.time_s + 1.0 && r.decoded > first.decoded + 20)
        .await;
    assert_eq!(later.width, 320);
    assert_eq!(later.cipher, "SRTP_AEAD_AES_128_GCM");
    assert!(later.codec.contains("packetization-mode=1"), "{}", later.codec);
    assert!(later.audio > 20, "G.711 flows beside: {}", later.audio);
    assert_eq!(later.protocol, "udp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whip_client_publishes_and_chromium_plays_it() {
    let mut room = Room::open().await;
    let url = format!("{}/bc-01/main/whip", room.base);
    let publisher = WhipClient::start(&url, &room.password, &["-V", VIDEO, "-A", AUDIO]);
    room.live("bc-01/main", &publisher).await;
    let _browser = room.browser("stream=bc-01/main");
    let first = room.report_when("frames are decoded", |r| r.decoded > 10).await;
    let later = room
        .report_when("time goes on", |r| {
            r.time_s > first.time_s + 1.0 && r.decoded > first.decoded + 20
        })
        .await;
    assert_eq!(later.width, 640);
    assert!(later.audio > 20, "Opus flows beside: {}", later.audio);
    let status = room.streams.status();
    assert_eq!(status[0].protocol, Some("whip"));
    assert_eq!(status[0].codecs, ["H264", "opus"]);
}
