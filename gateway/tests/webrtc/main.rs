//! WHEP and WHIP with programs that are not ours: Chromium plays, Debian's simple-whip-client publishes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod restart;
mod room;

use room::{Camera, LossyPath, Room, WhipClient};

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
    let _browser = room.browser("stream=bc-01/main&udp=1");
    let first = room
        .report_when("frames are decoded", |r| r.decoded > 10)
        .await;
    let later = room
        .report_when("time goes on", |r| {
            r.time_s > first.time_s + 1.0 && r.decoded > first.decoded + 20
        })
        .await;
    assert_eq!(later.width, 320);
    assert_eq!(later.cipher, "SRTP_AEAD_AES_128_GCM");
    assert!(
        later.codec.contains("packetization-mode=1"),
        "{}",
        later.codec
    );
    assert!(later.audio > 20, "G.711 flows beside: {}", later.audio);
    assert_eq!(later.protocol, "udp");
    assert!(later.joined_ms.is_some(), "a picture was shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whip_client_publishes_and_chromium_plays_it() {
    let mut room = Room::open().await;
    let url = format!("{}/bc-01/main/whip", room.base);
    let publisher = WhipClient::start(&url, &room.password, &["-V", VIDEO, "-A", AUDIO]);
    room.live("bc-01/main", &publisher).await;
    let _browser = room.browser("stream=bc-01/main");
    let first = room
        .report_when("frames are decoded", |r| r.decoded > 10)
        .await;
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

/// A network that lets no UDP through: the browser is told of no UDP candidate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_plays_over_tcp() {
    let mut room = Room::open().await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let _browser = room.browser("stream=bc-01/main&tcp=1");
    let first = room
        .report_when("frames are decoded", |r| r.decoded > 10)
        .await;
    let later = room
        .report_when("time goes on", |r| r.time_s > first.time_s + 1.0)
        .await;
    assert_eq!(later.protocol, "tcp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_viewer_is_cut_off() {
    let mut room = Room::open().await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let _browser = room.browser("stream=bc-01/main");
    room.report_when("frames are decoded", |r| r.decoded > 10)
        .await;
    room.registry.revoke_user("anna").unwrap();
    room.report_when("the browser sees the end", |r| {
        matches!(r.state.as_str(), "closed" | "failed" | "disconnected")
    })
    .await;
    assert_eq!(room.streams.status()[0].readers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_publisher_takes_over_and_the_viewer_stays() {
    let mut room = Room::open().await;
    let url = format!("{}/bc-01/main/whip", room.base);
    let first = WhipClient::start(&url, &room.password, &["-V", VIDEO]);
    room.live("bc-01/main", &first).await;
    let _browser = room.browser("stream=bc-01/main");
    room.report_when("frames are decoded", |r| r.decoded > 10)
        .await;
    drop(first);
    let second = WhipClient::start(&url, &room.password, &["-V", VIDEO]);
    let before = room.next_report().await;
    room.report_when("the picture goes on", |r| {
        r.decoded > before.decoded + 100 && r.time_s > before.time_s + 2.0
    })
    .await;
    assert!(room.streams.status()[0].readers >= 1, "{}", second.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_is_wrong() {
    let room = Room::with_sessions(1).await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let http = reqwest::Client::new();
    let post = |path: &str, secret: &str, kind: &str, body: String| {
        http.post(format!("{}{path}", room.base))
            .bearer_auth(secret)
            .header("content-type", kind.to_owned())
            .body(body)
            .send()
    };
    let sdp = "application/sdp";
    let offer = || OFFER.to_owned();
    for (path, secret, kind, body, status, words) in [
        (
            "/bc-01/main/whep",
            "wrong",
            sdp,
            offer(),
            401,
            "credentials",
        ),
        (
            "/bc-01/main/whep",
            &room.password,
            sdp,
            offer(),
            401,
            "credentials",
        ),
        (
            "/bc-01/main/whip",
            &room.token,
            sdp,
            offer(),
            401,
            "credentials",
        ),
        (
            "/bc-02/main/whip",
            &room.password,
            sdp,
            offer(),
            401,
            "credentials",
        ),
        (
            "/bc-01/main/whep",
            &room.token,
            "text/plain",
            offer(),
            415,
            "application/sdp",
        ),
        (
            "/bc-01/main/whep",
            &room.token,
            sdp,
            "hello".to_owned(),
            400,
            "not SDP",
        ),
        (
            "/bc-01/main/whep",
            &room.token,
            sdp,
            offer().replace("a=fingerprint", "a=x"),
            400,
            "fingerprint",
        ),
        (
            "/bc-01/other/whep",
            &room.token,
            sdp,
            offer(),
            404,
            "no stream",
        ),
        (
            "/bc-01/a%20b/whep",
            &room.token,
            sdp,
            offer(),
            404,
            "valid id",
        ),
        (
            "/bc-01/main/whep",
            &room.token,
            sdp,
            offer().replace("H264", "VP8"),
            406,
            "carries H264",
        ),
        (
            "/bc-01/main/whip",
            &room.password,
            sdp,
            offer(),
            415,
            "offer sends nothing",
        ),
        (
            "/bc-01/main/whep",
            &room.token,
            sdp,
            "v".repeat(65 << 10),
            413,
            "",
        ),
    ] {
        let r = post(path, secret, kind, body).await.unwrap();
        let got = r.status().as_u16();
        let text = r.text().await.unwrap();
        assert_eq!(got, status, "{path}: {text}");
        assert!(text.contains(words), "{path}: {text}");
    }

    let r = post("/bc-01/main/whep", &room.token, sdp, offer())
        .await
        .unwrap();
    assert_eq!(r.status().as_u16(), 201);
    let header = |name: &str| r.headers()[name].to_str().unwrap().to_owned();
    let (location, etag) = (header("location"), header("etag"));
    assert!(location.starts_with("/bc-01/main/whep/"));
    assert_eq!(header("content-type"), sdp);
    let full = post("/bc-01/main/whep", &room.token, sdp, offer())
        .await
        .unwrap();
    assert_eq!(full.status().as_u16(), 503);

    let session = format!("{}{location}", room.base);
    let patch = |tag: &str, body: &'static str| {
        http.patch(&session)
            .bearer_auth(&room.token)
            .header("content-type", "application/trickle-ice-sdpfrag")
            .header("if-match", tag)
            .body(body)
            .send()
    };
    assert_eq!(
        patch(&etag, "a=ice-ufrag:EsAw\r\n").await.unwrap().status(),
        204
    );
    assert_eq!(
        patch("\"x\"", "a=ice-ufrag:EsAw\r\n")
            .await
            .unwrap()
            .status(),
        412
    );
    assert_eq!(
        patch("*", "a=ice-ufrag:other\r\n").await.unwrap().status(),
        400
    );
    let restart = "a=group:BUNDLE 0\r\na=mid:0\r\na=ice-ufrag:other\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n";
    assert_eq!(patch("\"x\"", restart).await.unwrap().status(), 412);
    let restarted = patch("\"*\"", restart).await.unwrap();
    assert_eq!(restarted.status(), 200);
    assert_eq!(
        restarted.headers()["content-type"],
        "application/trickle-ice-sdpfrag"
    );
    let renewed = restarted.headers()["etag"].to_str().unwrap().to_owned();
    let fragment = restarted.text().await.unwrap();
    assert!(fragment.contains("a=ice-ufrag:") && fragment.contains("a=ice-pwd:"));
    assert_ne!(renewed, etag);
    assert_eq!(patch(&etag, restart).await.unwrap().status(), 412);
    assert_eq!(
        patch(&renewed, "a=ice-ufrag:other\r\n")
            .await
            .unwrap()
            .status(),
        204
    );
    let delete = |secret: &str| http.delete(&session).bearer_auth(secret).send();
    assert_eq!(delete("wrong").await.unwrap().status(), 401);
    assert_eq!(delete(&room.token).await.unwrap().status(), 200);
    // The place is free again as soon as the session has left.
    let until = std::time::Instant::now() + room::LIMIT;
    loop {
        let r = post("/bc-01/main/whep", &room.token, sdp, offer())
            .await
            .unwrap();
        if r.status() == 201 {
            break;
        }
        assert!(std::time::Instant::now() < until, "{}", r.status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_says_goodbye() {
    let mut room = Room::open().await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let _browser = room.browser("stream=bc-01/main");
    room.report_when("frames are decoded", |r| r.decoded > 10)
        .await;
    room.stop().await;
    let stopped = std::time::Instant::now();
    let end = room
        .report_when("the browser sees the end", |r| {
            r.dtls == "closed" || r.state == "failed"
        })
        .await;
    let took = stopped.elapsed();
    assert!(
        took < std::time::Duration::from_secs(5),
        "told, not found out by silence: {took:?}, {end:?}"
    );
}

/// One packet in twenty is lost on the way to the viewer; what it asks for again comes out of the ring.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_are_repaired() {
    let mut room = Room::open().await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let lossy = LossyPath::open(room.webrtc.local_addr(), 20).await;
    let _browser = room.browser(&format!("stream=bc-01/main&port={}", lossy.port));
    let first = room
        .report_when("frames are decoded", |r| r.decoded > 10 && r.time_s > 0.5)
        .await;
    let later = room
        .report_when("time goes on", |r| {
            r.time_s > first.time_s + 4.0 && r.nacks > 3
        })
        .await;
    let (frames, seconds) = (later.decoded - first.decoded, later.time_s - first.time_s);
    assert!(
        frames as f64 > seconds * 25.0 * 0.9,
        "{frames} frames in {seconds} s"
    );
    let metrics = kerbside::metrics::text();
    let resent = metrics
        .lines()
        .find_map(|l| l.strip_prefix("kerbside_webrtc_packets_total{way=\"resent\"} "))
        .and_then(|n| n.parse::<u64>().ok());
    assert!(resent > Some(3), "{resent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_viewer_is_told_what_it_lost() {
    let mut room = Room::open().await;
    let _camera = Camera::leaping(&room.streams, "bc-01/main");
    let _browser = room.browser("stream=bc-01/main");
    let told = room
        .report_when("a notice on the data channel", |r| !r.message.is_empty())
        .await;
    let notice: serde_json::Value = serde_json::from_str(&told.message).unwrap();
    assert!(notice["skipped"].as_u64() >= Some(1), "{notice}");
    assert!(
        notice["lost"].as_u64() >= notice["skipped"].as_u64(),
        "{notice}"
    );
    room.report_when("the picture goes on", |r| r.decoded > told.decoded + 25)
        .await;
}

/// Noise on the port disturbs nobody and costs no session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_the_port_is_dropped() {
    let mut room = Room::open().await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let _browser = room.browser("stream=bc-01/main");
    room.report_when("frames are decoded", |r| r.decoded > 10)
        .await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = room.webrtc.local_addr();
    let mut check = vec![0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42];
    check.extend([0; 12]);
    check.extend([0, 6, 0, 11]);
    check.extend(b"nobody:them\0");
    for datagram in [&check[..], &[22; 300], &[0x80; 1200], &[], &[0xff; 1500]] {
        for _ in 0..500 {
            socket.send_to(datagram, to).await.unwrap();
        }
    }
    let before = room.next_report().await;
    room.report_when("the picture goes on", |r| r.decoded > before.decoded + 25)
        .await;
    let mut answer = [0; 64];
    assert!(socket.try_recv(&mut answer).is_err(), "nothing is answered");
}

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 102\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
    a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
    a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:102 H264/90000\r\n\
    a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";
