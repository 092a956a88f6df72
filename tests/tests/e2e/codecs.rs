//! Codecs and B-frames, judged by ffmpeg, GStreamer and Chromium: what one publishes the others decode, and who cannot
//! is told why.

use std::time::Duration;

use kerbside_sim::harness::tools::{self, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use kerbside_sim::process::Process;

use crate::LIMIT;

async fn street() -> (Gateway, Feed) {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (gateway, feed)
}

const PICTURE: &str = "-re -f lavfi -i testsrc=size=320x180:rate=15";
const SOUND: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000";
const H265: &str = "-c:v libx265 -preset ultrafast -tune zerolatency -x265-params keyint=15:log-level=none -pix_fmt yuv420p";
/// Access units of more than one packet.
const NOISE: &str = "-f lavfi -i aevalsrc=random(0)|random(1)|random(2)|random(3)|random(4)|random(5):c=5.1:s=48000";
const AAC_SURROUND: &str = "-c:a aac -ac 6 -b:a 900k";
const AAC: &str = "-c:a aac -ac 2 -b:a 96k";
const B_FRAMES: &str = "-c:v libx264 -preset veryfast -bf 2 -g 15 -pix_fmt yuv420p";

/// ffmpeg publishes `what` as `camera` of bc-01.
fn push(gateway: &Gateway, camera: &str, transport: &str, what: &[&str]) -> Process {
    let stream = format!("bc-01/{camera}");
    let url = gateway.rtsp_as("bc-01", &stream);
    let mut words: Vec<&str> = vec!["-hide_banner", "-loglevel", "warning"];
    words.extend(what.iter().flat_map(|w| w.split(' ')));
    words.extend(["-f", "rtsp", "-rtsp_transport", transport, &url]);
    tools::start(gateway.dir(), &format!("push-{camera}"), "ffmpeg", &words)
}

/// ffmpeg decodes `seconds` of all media without a complaint; its report.
async fn decode(url: &str, transport: &str, seconds: &str) -> String {
    let words = format!(
        "-hide_banner -loglevel error -xerror -rtsp_transport {transport} -i {url} -t {seconds} -progress pipe:1 -f null -"
    );
    let words: Vec<&str> = words.split(' ').collect();
    let said = tools::run(Duration::from_secs(60), "ffmpeg", &words)
        .await
        .succeeded();
    // The muxer's complaint is not the decoder's: what is replayed at the join is squeezed into milliseconds, in the
    // order of decoding.
    let complaint = said
        .err
        .lines()
        .find(|l| !l.contains("non monotonically") && !l.contains("Last message repeated"));
    assert_eq!(complaint, None, "ffmpeg complains over {transport}");
    said.out
}

/// What ffprobe says about a stream, line by line.
async fn probe(url: &str, more: &str) -> Vec<String> {
    let words = format!("-loglevel error -rtsp_transport tcp {more} -of csv=p=0 {url}");
    let words: Vec<&str> = words.split(' ').collect();
    let said = tools::run(Duration::from_secs(60), "ffprobe", &words)
        .await
        .succeeded();
    said.out.lines().map(str::to_owned).collect()
}

/// GStreamer decodes `frames` pictures of a stream.
async fn gst(url: &str, depay: &str, decoder: &str, buffers: u32) {
    let words = format!(
        "rtspsrc location={url} protocols=tcp latency=100 ! {depay} ! {decoder} ! fakesink sync=false num-buffers={buffers}"
    );
    let words: Vec<&str> = words.split(' ').collect();
    let said = tools::run(Duration::from_secs(60), "gst-launch-1.0", &words).await;
    assert!(
        said.out.contains("Got EOS from element \"pipeline0\""),
        "gst by {depay}: {}",
        said.all()
    );
}

#[tokio::test]
async fn h265_and_aac_pass_over_tcp_and_udp() {
    if !have("ffmpeg") || !have("gst-launch-1.0") {
        return;
    }
    let (gateway, mut feed) = street().await;
    for (transport, sound, aac, heard) in [
        ("tcp", SOUND, AAC, "aac,48000,2"),
        ("udp", NOISE, AAC_SURROUND, "aac,48000,6"),
    ] {
        let _publisher = push(&gateway, transport, transport, &[PICTURE, sound, H265, aac]);
        let stream = format!("bc-01/{transport}");
        feed.until_phase(LIMIT, &stream, "live").await;
        assert_eq!(
            feed.streams[&stream]["codecs"],
            serde_json::json!(["H265", "AAC"])
        );
        let url = gateway.rtsp_as("eve", &stream);
        let (tcp, _udp) = tokio::join!(decode(&url, "tcp", "3"), decode(&url, "udp", "3"));
        assert!(tcp.contains("frame="), "{tcp}");
        let media = probe(
            &url,
            "-show_entries stream=codec_name,width,sample_rate,channels",
        )
        .await;
        assert_eq!(media, ["hevc,320", heard], "{media:?}");
        tokio::join!(
            gst(&url, "rtph265depay", "h265parse ! avdec_h265", 30),
            gst(&url, "rtpmp4gdepay", "aacparse ! avdec_aac", 60),
        );
    }
}

#[tokio::test]
async fn gstreamer_publishes_h265_and_aac() {
    if !have("ffmpeg") || !have("gst-launch-1.0") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let words = format!(
        "-q rtspclientsink name=out location=rtsp://127.0.0.1:{}/bc-01/main user-id=bc-01 user-pw={} protocols=tcp \
         videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate=15/1 ! \
         x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! h265parse ! out. \
         audiotestsrc is-live=true ! audio/x-raw,channels=2,rate=44100 ! avenc_aac ! aacparse ! out.",
        gateway.ports.rtsp,
        gateway.secret("bc-01"),
    );
    let words: Vec<&str> = words.split_whitespace().collect();
    let _publisher = tools::start(gateway.dir(), "gst-push", "gst-launch-1.0", &words);
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let url = gateway.rtsp_as("eve", "bc-01/main");
    decode(&url, "tcp", "3").await;
    let media = probe(&url, "-show_entries stream=codec_name").await;
    assert!(
        media.contains(&"hevc".to_owned()),
        "H.265 of GStreamer: {media:?}"
    );
}

#[tokio::test]
async fn b_frames_reach_players_and_are_stated() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let _publisher = push(&gateway, "main", "tcp", &[PICTURE, B_FRAMES]);
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let token = gateway.secret("eve");
    eventually(LIMIT, "the stream says that it has B-frames", async || {
        let (_, told) = gateway.get("/api/v1/streams", &token).await;
        (told["streams"][0]["b_frames"] == true).then_some(())
    })
    .await;
    let url = gateway.rtsp_as("eve", "bc-01/main");
    decode(&url, "tcp", "3").await;
    let kinds = probe(
        &url,
        "-select_streams v -show_entries frame=pict_type -read_intervals %+3",
    )
    .await;
    let b = kinds.iter().filter(|k| k.starts_with('B')).count();
    assert!(b >= 5, "{kinds:?}");
    let jumps = gateway
        .metric("kerbside_rtp_faults_total", &["clock_jump"])
        .await;
    assert!(
        jumps.abs() < 0.5,
        "a step back is no jump of the clock: {jumps}"
    );
}

/// What a browser offers for one video of this format.
fn offer(direction: &str, rtpmap: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\na={direction}\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
         a=fingerprint:sha-256 \
         11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00\r\n\
         a=rtpmap:96 {rtpmap}\r\n"
    )
}

#[tokio::test]
async fn who_cannot_decode_is_told_what_there_is() {
    if !have("ffmpeg") {
        return;
    }
    let (gateway, mut feed) = street().await;
    let _publisher = push(&gateway, "main", "tcp", &[PICTURE, SOUND, H265, AAC]);
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let post = async |path: &str, bearer: &str, sdp: String| {
        let answer = reqwest::Client::new()
            .post(format!("{}{path}", gateway.http()))
            .header("Content-Type", "application/sdp")
            .bearer_auth(bearer)
            .body(sdp)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (token, password) = (gateway.secret("eve"), gateway.secret("bc-01"));
    let play = "/bc-01/main/whep";
    let (status, text) = post(play, &token, offer("recvonly", "H264/90000")).await;
    assert_eq!(status, 406, "{text}");
    assert!(
        text.contains("carries H265 (profile-id 1), AAC") && text.contains("takes H264"),
        "{text}"
    );
    let (status, text) = post(play, &token, offer("recvonly", "H265/90000")).await;
    assert_eq!(status, 201, "{text}");
    let (status, text) = post(
        "/bc-01/side/whip",
        &password,
        offer("sendonly", "VP8/90000"),
    )
    .await;
    assert_eq!(status, 415, "{text}");
    assert!(text.contains("AV1") && text.contains("sends VP8"), "{text}");
    let vp8 = "-c:v libvpx -deadline realtime -strict experimental";
    let mut refused = push(&gateway, "side", "tcp", &[PICTURE, vp8]);
    assert!(refused.wait(LIMIT).await.is_some(), "ffmpeg gives up");
    assert!(refused.tail(20).contains("415"), "{}", refused.tail(20));
}

#[tokio::test]
async fn a_browser_publishes_av1_and_plays_what_it_can() {
    if !have("chromium") || !have("node") || !have("ffmpeg") {
        return;
    }
    let browser = kerbside_sim::harness::gateway::project().join("tests/browser");
    if !browser.join("node_modules/playwright-core").is_dir() {
        assert!(
            std::env::var("KERBSIDE_E2E").is_ok_and(|value| value != "required"),
            "run `make browser` before this test, or set KERBSIDE_E2E=optional to skip it"
        );
        return;
    }
    let (gateway, mut feed) = street().await;
    let _b_frames = push(&gateway, "b", "tcp", &[PICTURE, B_FRAMES]);
    let _h265 = push(&gateway, "h265", "tcp", &[PICTURE, SOUND, H265, AAC]);
    let _h264 = push(
        &gateway,
        "sound",
        "tcp",
        &[
            PICTURE,
            SOUND,
            "-c:v libx264 -preset veryfast -bf 0 -g 15 -pix_fmt yuv420p",
            AAC,
        ],
    );
    for camera in ["bc-01/b", "bc-01/h265", "bc-01/sound"] {
        feed.until_phase(LIMIT, camera, "live").await;
    }
    let script = browser.join("codecs.mjs");
    let chromium = tools::find("chromium").unwrap();
    let (http, token, password) = (
        gateway.http(),
        gateway.secret("eve"),
        gateway.secret("bc-01"),
    );
    let args = [
        script.to_str().unwrap(),
        &http,
        &token,
        &password,
        chromium.to_str().unwrap(),
    ];
    let said = tools::run(Duration::from_secs(120), "node", &args)
        .await
        .succeeded();
    for step in [
        "plays bc-01/b",
        "refused bc-01/h265",
        "plays bc-01/sound",
        "publishes AV1",
        "plays bc-01/av1",
    ] {
        assert!(
            said.out.contains(step),
            "{step:?} is missing: {}",
            said.all()
        );
    }
}
