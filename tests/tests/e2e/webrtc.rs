//! WHIP and WHEP: Debian's simple-whip-client and our own fleet push; the endpoints answer as RFC 9725 has it.
//! A browser plays in `browser.rs`.

use kerbside_sim::harness::tools::{self, ffmpeg_pull, ffmpeg_push, gst_pull, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};

use crate::LIMIT;

async fn street() -> (Gateway, Feed) {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("uav-01", "drone", None);
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (gateway, feed)
}

#[tokio::test]
async fn simple_whip_client_publishes_and_a_player_decodes() {
    if !have("simple-whip-client") || !have("gst-launch-1.0") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let url = format!("{}/uav-01/main/whip", gateway.http());
    let password = gateway.secret("uav-01");
    let video = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 ! \
                 x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! \
                 video/x-h264,profile=constrained-baseline ! rtph264pay pt=96 ssrc=2 config-interval=-1 aggregate-mode=zero-latency ! \
                 application/x-rtp,media=video,encoding-name=H264,payload=96";
    let _publisher = tools::whip_client(gateway.dir(), &url, &password, &["-V", video, "-n"]);
    feed.until_phase(LIMIT, "uav-01/main", "live").await;
    assert_eq!(feed.streams["uav-01/main"]["protocol"], "whip");
    gst_pull(&gateway.rtsp_as("eve", "uav-01/main"), "tcp", 30).await;
}

#[tokio::test]
async fn a_drone_of_the_fleet_publishes_by_whip_and_a_player_decodes() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let devices = gateway.dir().join("devices.jsonl");
    let line =
        serde_json::json!({"id": "uav-01", "password": gateway.secret("uav-01"), "kind": "drone"});
    std::fs::write(&devices, line.to_string()).unwrap();
    let (mqtt, http) = (gateway.mqtt(), gateway.http());
    let args = [
        "fleet",
        "--devices",
        devices.to_str().unwrap(),
        "--mqtt",
        &mqtt,
        "--http",
        &http,
    ];
    let _fleet = tools::start(
        gateway.dir(),
        "fleet",
        env!("CARGO_BIN_EXE_kerbside-sim"),
        &args,
    );
    feed.until_phase(LIMIT, "uav-01/main", "live").await;
    ffmpeg_pull(&gateway.rtsp_as("eve", "uav-01/main"), "tcp", 20).await;
    // It tells when its frames were captured, and is believed.
    let token = gateway.secret("eve");
    eventually(LIMIT, "capture times", async || {
        let (_, shown) = gateway.get("/api/v1/streams", &token).await;
        let clock = &shown["streams"][0]["publisher"]["clock"];
        (clock["source"] == "capture_time" && clock["uncertainty_ms"].as_f64()? < 300.0)
            .then_some(())
    })
    .await;
}

/// What a browser that wants one video offers, shortened.
const GOOD: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\na=recvonly\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
    a=fingerprint:sha-256 \
    11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00\r\n\
    a=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";

/// POST of an SDP offer; status and text.
async fn offer(
    gateway: &Gateway,
    path: &str,
    bearer: Option<&str>,
    content_type: &str,
    sdp: &str,
) -> (u16, String) {
    let mut request = reqwest::Client::new()
        .post(format!("{}{path}", gateway.http()))
        .header("Content-Type", content_type)
        .body(sdp.to_owned());
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer);
    }
    let answer = request.send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.text().await.unwrap_or_default(),
    )
}

#[tokio::test]
async fn bad_offers_get_a_clear_answer() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.secret("eve");
    let password = gateway.secret("uav-01");
    let _publisher = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-01", "bc-01/main"),
        "tcp",
    );
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let sdp = "application/sdp";
    let (play, push) = ("/bc-01/main/whep", "/uav-01/main/whip");
    for (path, bearer, content_type, text, wanted) in [
        (play, None, sdp, "v=0\r\n", 401),
        (play, Some("wrong"), sdp, "v=0\r\n", 401),
        (push, Some("wrong"), sdp, "v=0\r\n", 401),
        (push, Some(token.as_str()), sdp, "v=0\r\n", 401),
        (
            "/bc-01/main/whip",
            Some(password.as_str()),
            sdp,
            "v=0\r\n",
            401,
        ),
        (play, Some(token.as_str()), "text/plain", "v=0\r\n", 415),
        (play, Some(token.as_str()), sdp, "this is no SDP", 400),
        (
            play,
            Some(token.as_str()),
            sdp,
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
            400,
        ),
        (push, Some(password.as_str()), sdp, "", 400),
        ("/nobody/main/whep", Some(token.as_str()), sdp, GOOD, 404),
    ] {
        let (status, text) = offer(&gateway, path, bearer, content_type, text).await;
        assert_eq!(
            status, wanted,
            "{path} with {bearer:?} {content_type}: {text}"
        );
        if status == 400 {
            assert!(text.len() > 5, "400 without a reason");
        }
    }
    let huge = "a".repeat(200_000);
    let (status, _) = offer(&gateway, play, Some(&token), sdp, &huge).await;
    assert_eq!(status, 413);
    // The stream goes on.
    ffmpeg_pull(&gateway.rtsp_as("eve", "bc-01/main"), "tcp", 15).await;
}
