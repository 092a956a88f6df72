//! Input that is bad by its size or number: bounded work and memory, a counted drop, few lines in the journal.

use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use tokio::net::UdpSocket;

use crate::LIMIT;
use crate::isolation::{FRAMES_A_SECOND, VIDEO, frame, number};
use crate::raw_rtsp::{Rtsp, header, interleaved};

const SOUND: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=audio 0 RTP/AVP 8\r\na=control:trackID=0\r\n";
/// Memory that a flood may cost: what allocators keep, not what an attacker sent.
const GROWTH_BYTES_MAX: u64 = 12 << 20;

async fn street() -> (Gateway, Feed) {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (gateway, feed)
}

#[tokio::test]
async fn requests_of_any_size_and_number_are_refused_and_counted() {
    let (mut gateway, _feed) = street().await;
    let before = gateway.process().resident_bytes();
    let stream = "bc-01/main";
    let open = async || Rtsp::connect(&gateway, "bc-01", stream, None).await;

    // A body of 4 GB that never comes, and an SDP of 1 MB that does: the connection is closed at its header.
    let mut huge = open().await;
    let four_gb = "Content-Length: 4294967296\r\n";
    assert!(huge.ask("ANNOUNCE", "", four_gb, "").await.is_none());
    let mut large = open().await;
    let sdp = format!("{SOUND}a=x:{}\r\n", "x".repeat(1 << 20));
    assert!(large.ask("ANNOUNCE", "", "", &sdp).await.is_none());
    let closed = async || {
        let labels = ["reason=\"malformed\""];
        let n = gateway.metric("kerbside_rtsp_closed_total", &labels).await;
        (n >= 2.0).then_some(())
    };
    eventually(LIMIT, "both counted", closed).await;

    // 1,000 media announced, then 1,000 set up.
    let mut many = open().await;
    let media = "m=audio 0 RTP/AVP 8\r\n".repeat(1000);
    let answer = many
        .ask("ANNOUNCE", "", "", &format!("v=0\r\n{media}"))
        .await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 415, "{}", answer.head);
    assert!(answer.head.contains("1 to 8"), "{}", answer.head);
    let answer = many.ask("ANNOUNCE", "", "", SOUND).await.unwrap();
    assert_eq!(answer.status, 200);
    let files = gateway.process().open_files();
    let udp = "Transport: RTP/AVP;unicast;client_port=40000-40001;mode=record\r\n";
    let mut granted = 0;
    for n in 0..1000 {
        let control = format!("/trackID={n}");
        granted += u32::from(many.ask("SETUP", &control, udp, "").await.unwrap().status == 200);
    }
    assert_eq!(granted, 1);
    assert!(gateway.process().open_files() <= files + 4);
    let refused = gateway
        .metric("kerbside_rtsp_refused_total", &["status=\"4"])
        .await;
    assert!(refused >= 1000.0, "{refused}");

    // An offer of 1 MB by WHIP and by WHEP.
    for (path, who) in [("whip", "bc-01"), ("whep", "eve")] {
        let answer = reqwest::Client::new()
            .post(format!("{}/{stream}/{path}", gateway.http()))
            .header("Content-Type", "application/sdp")
            .bearer_auth(gateway.secret(who))
            .body("v".repeat(1 << 20))
            .send()
            .await;
        // It may close before it has heard all.
        if let Ok(answer) = answer {
            assert_eq!(answer.status().as_u16(), 413, "{path}");
        }
    }
    let after = gateway.process().resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} to {after}");
}

/// Sound in packets of 20 ms, as a camera sends it.
struct Camera {
    rtsp: Rtsp,
    seq: u16,
}

impl Camera {
    async fn start(gateway: &Gateway) -> Camera {
        let mut rtsp = Rtsp::connect(gateway, "bc-01", "bc-01/main", None).await;
        rtsp.publish(SOUND).await;
        Camera { rtsp, seq: 0 }
    }

    async fn packet(&mut self) {
        self.seq += 1;
        let h = header(8, false, self.seq, u32::from(self.seq) * 160, 7);
        let packet = interleaved(0, h, &[0xd5; 160]);
        self.rtsp.send(&packet).await.unwrap();
    }
}

#[tokio::test]
async fn a_hundred_thousand_streams_to_one_port_leave_the_right_one_alone() {
    let (mut gateway, mut feed) = street().await;
    let mut camera = Camera::start(&gateway).await;
    camera.packet().await;
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let before = gateway.process().resident_bytes();
    // On the publisher's own connection: other sources, payload types, channels, and what is no RTP at all.
    for block in 0..1000_u32 {
        let mut bytes = Vec::new();
        for n in 0..100 {
            let ssrc = 1000 + block * 100 + n;
            bytes.extend(interleaved(0, header(8, false, 1, 0, ssrc), &[1; 4]));
        }
        bytes.extend(interleaved(0, header(99, false, 1, 0, 7), &[1; 4]));
        bytes.extend(interleaved(200, header(8, false, 1, 0, 7), &[1; 4]));
        bytes.extend(interleaved(0, [0x11; 12], &[]));
        camera.rtsp.send(&bytes).await.unwrap();
        camera.packet().await;
    }
    let faults = "kerbside_rtp_faults_total";
    for (fault, least) in [
        ("packet_foreign", 100_000.0),
        ("packet_payload_type", 1000.0),
        ("packet_unknown_channel", 1000.0),
        ("packet_malformed", 1000.0),
    ] {
        eventually(LIMIT, fault, async || {
            (gateway.metric(faults, &[fault]).await >= least).then_some(())
        })
        .await;
    }
    let frames = gateway
        .metric("kerbside_stream_frames_total", &["bc-01/main"])
        .await;
    assert_eq!(frames, 1001.0, "the right source lost nothing");
    // And the port of WebRTC, from somebody nobody knows.
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let webrtc = ("127.0.0.1", gateway.ports.webrtc);
    stranger.connect(webrtc).await.unwrap();
    for ssrc in 0..100_000 {
        stranger.send(&header(96, true, 1, 0, ssrc)).await.unwrap();
    }
    let dropped = "kerbside_webrtc_dropped_total";
    eventually(LIMIT, "strangers counted", async || {
        let n = gateway.metric(dropped, &["unknown_peer"]).await;
        (n >= 1000.0).then_some(())
    })
    .await;
    let after = gateway.process().resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} to {after}");
}

#[tokio::test]
async fn a_flood_of_checks_is_not_answered_and_costs_no_memory() {
    let (mut gateway, mut feed) = street().await;
    let mut camera = Camera::start(&gateway).await;
    camera.packet().await;
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let before = gateway.process().resident_bytes();
    let webrtc = ("127.0.0.1", gateway.ports.webrtc);
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(webrtc).await.unwrap();
        sockets.push(socket);
    }
    for n in 0..50_000_u32 {
        let mut check = vec![0, 1, 0, 20, 0x21, 0x12, 0xa4, 0x42];
        check.extend([0; 8]);
        check.extend(n.to_be_bytes());
        check.extend([0, 6, 0, 16]);
        check.extend(format!("{n:011x}:them").as_bytes());
        sockets[n as usize % 20].send(&check).await.unwrap();
    }
    eventually(LIMIT, "checks counted", async || {
        let labels = ["unknown_ufrag"];
        let n = gateway
            .metric("kerbside_webrtc_dropped_total", &labels)
            .await;
        (n >= 1000.0).then_some(())
    })
    .await;
    camera.packet().await;
    eventually(LIMIT, "the stream goes on", async || {
        let labels = ["bc-01/main"];
        let n = gateway
            .metric("kerbside_stream_frames_total", &labels)
            .await;
        (n == 2.0).then_some(())
    })
    .await;
    let mut answer = [0; 64];
    assert!(sockets.iter().all(|s| s.try_recv(&mut answer).is_err()));
    let after = gateway.process().resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} to {after}");
}

/// A camera that comes and goes all the time, each time with something to complain about.
#[tokio::test]
async fn a_device_causes_a_line_a_second_at_most() {
    let (gateway, _feed) = street().await;
    let begun = std::time::Instant::now();
    let odd = SOUND.to_owned() + &"m=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n".repeat(7);
    for _ in 0..60 {
        let mut rtsp = Rtsp::connect(&gateway, "bc-01", "bc-01/main", None).await;
        rtsp.publish(&odd).await;
        let flood = interleaved(0, header(8, false, 1, 0, 7), &[1; 160]).repeat(50);
        rtsp.send(&flood).await.unwrap();
    }
    let told = || {
        let log = gateway.logged();
        let of_it =
            |l: &&str| l.contains("bc-01") && (l.contains(" INFO ") || l.contains(" WARN "));
        log.lines().filter(of_it).count() as u64
    };
    assert!(told() > 10, "it is said at all");
    // What may be said at once, one a second, and what is said of the stream itself.
    let bound = 35 + begun.elapsed().as_secs();
    assert!(told() <= bound, "{} lines, at most {bound}", told());
}

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\na=sendonly\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\na=fingerprint:sha-256 \
    11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00\r\n\
    a=rtpmap:96 H264/90000\r\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001e\r\n";

/// A camera with one key frame in ten minutes: what comes behind it is more than the ring takes.
#[tokio::test]
async fn a_group_larger_than_the_ring_is_bounded_and_said() {
    let mut gateway = Gateway::start(Setup {
        more: "[streams]\nring_mb_max = 1\n".into(),
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut camera = Rtsp::connect(&gateway, "bc-01", "bc-01/main", None).await;
    camera.publish(VIDEO).await;
    let mut seq = 0;
    camera.send(&frame(0, &mut seq)).await.unwrap();
    let before = gateway.process().resident_bytes();
    let key = |n: &u32| n.is_multiple_of(FRAMES_A_SECOND);
    for n in (1..1000).filter(|n| !key(n)) {
        camera.send(&frame(n, &mut seq)).await.unwrap();
    }
    let faults = "kerbside_rtp_faults_total";
    eventually(LIMIT, "counted", async || {
        let labels = ["group_larger_than_ring"];
        (gateway.metric(faults, &labels).await == 1.0).then_some(())
    })
    .await;
    let (_, shown) = gateway.get("/api/v1/streams", &token).await;
    let stream = &shown["streams"][0];
    assert_eq!(stream["awaits_key_frame"], true, "{stream}");
    assert!(stream["ring_bytes"].as_u64() <= Some(1 << 20), "{stream}");
    let line = "key frames come too seldom";
    assert_eq!(gateway.logged().matches(line).count(), 1);
    let after = gateway.process().resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} to {after}");
    // Who joins now begins with the next key frame, not with what cannot be decoded.
    let mut late = Rtsp::connect(&gateway, "eve", "bc-01/main", None).await;
    late.play().await;
    camera.send(&frame(1001, &mut seq)).await.unwrap();
    camera.send(&frame(1025, &mut seq)).await.unwrap();
    let first = tokio::time::timeout(LIMIT, async {
        loop {
            let packet = late.packet().await.expect("it stays");
            if let Some(number) = number(&packet) {
                return number;
            }
        }
    });
    assert_eq!(first.await.expect("a picture"), 1025);
}

/// A device that opens and closes WHIP sessions all the time.
#[tokio::test]
async fn sessions_opened_and_closed_are_few_lines() {
    let (gateway, _feed) = street().await;
    let begun = std::time::Instant::now();
    let client = reqwest::Client::new();
    let password = gateway.secret("bc-01");
    for _ in 0..200 {
        let offer = client
            .post(format!("{}/bc-01/main/whip", gateway.http()))
            .bearer_auth(&password)
            .header("Content-Type", "application/sdp")
            .body(OFFER);
        let answer = offer.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201);
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let session = format!("{}{location}", gateway.http());
        let delete = client.delete(session).bearer_auth(&password);
        assert_eq!(delete.send().await.unwrap().status().as_u16(), 200);
    }
    eventually(LIMIT, "all are counted", async || {
        let labels = ["publish"];
        let ended = "kerbside_webrtc_sessions_ended_total";
        (gateway.metric(ended, &labels).await == 200.0).then_some(())
    })
    .await;
    let log = gateway.logged();
    let lines = log.lines().filter(|l| l.contains("WebRTC session ended"));
    let (told, bound) = (lines.count() as u64, 25 + begun.elapsed().as_secs());
    assert!(
        (10..=bound).contains(&told),
        "{told} lines, at most {bound}"
    );
}
