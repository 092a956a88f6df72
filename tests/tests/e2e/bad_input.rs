//! Bad input: a clear answer, nothing lost, nobody else disturbed.

use std::time::Duration;

use kerbside_sim::harness::tools::{ffmpeg_pull, ffmpeg_push, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::crash::Caller;
use crate::{LIMIT, report};

/// Sends bytes and takes what comes until the other side closes; None when it does not close within `LIMIT`.
async fn exchange(port: u16, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // The other side may close while we still send: that is an answer too.
    let sent = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer)).await;
    (read.is_ok() || sent.is_err()).then_some(answer)
}

/// Bytes that look like nothing, the same every time.
fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn faulty_reports_are_counted_and_the_rest_stands() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let topic = "kerbside/v1/bc-01/report";
    let future = r#"{"time_ms":9999999999999,"position":{"lat":37.6951,"lon":112.75}}"#;
    for text in [
        "this is not JSON",
        "[1,2,3]",
        "{\"position\":",
        r#"{"position":{"lat":0,"lon":0},"battery_pct":61}"#,
        r#"{"position":{"lat":137.0,"lon":512.0},"battery_pct":62}"#,
        r#"{"position":{"lat":"north","lon":112.75},"battery_pct":900}"#,
        "\u{0}\u{0}\u{0}",
        future,
    ] {
        assert!(caller.say(topic, text));
    }
    caller.all_acknowledged(LIMIT).await;
    feed.until_at(LIMIT, "bc-01", 37.6951).await;
    let device = &feed.devices["bc-01"];
    assert!(
        device["position"]["time_ms"].is_null(),
        "a time from the future is not believed: {device}"
    );
    assert_eq!(
        device["battery_pct"].as_f64(),
        Some(62.0),
        "what was right in a faulty report stands: {device}"
    );
    assert!(
        device["faults"]["no_fix"].as_u64().unwrap_or(0) >= 1,
        "{device}"
    );
    until(LIMIT, "faults", || {
        (!feed.devices.get("bc-01")?["faults"].as_object()?.is_empty()).then_some(())
    })
    .await;
    let counted = gateway.metric("kerbside_telemetry_faults_total", &[]).await;
    assert!(counted >= 5.0, "faults counted: {counted}");
    // An unknown kind still gives a position.
    assert!(caller.say(
        topic,
        r#"{"kind":"hovercraft","position":{"lat":37.6952,"lon":112.75}}"#
    ));
    feed.until_at(LIMIT, "bc-01", 37.6952).await;
}

#[tokio::test]
async fn garbage_on_every_port_disturbs_nobody() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    let noise = garbage(20_000);
    let ports = gateway.ports;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for chunk in noise.chunks(1_000) {
        udp.send_to(chunk, ("127.0.0.1", ports.webrtc))
            .await
            .unwrap();
    }
    let (mqtt, rtsp, http) = tokio::join!(
        exchange(ports.mqtt, &noise),
        exchange(ports.rtsp, &noise),
        exchange(ports.http, &noise)
    );
    assert!(mqtt.is_some(), "MQTT keeps a connection that talks garbage");
    assert!(rtsp.is_some(), "RTSP keeps a connection that talks garbage");
    assert!(http.is_some(), "HTTP keeps a connection that talks garbage");
    // CONNECT whose length says 200 MB, a second CONNECT, PUBLISH before CONNECT, a reserved packet type.
    let connect = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test";
    for bytes in [
        &b"\x10\xff\xff\xff\x7f"[..],
        &[&connect[..], connect].concat(),
        b"\x30\x05\x00\x03a/bx",
        b"\xf0\x00\x00\x00",
    ] {
        assert!(
            exchange(ports.mqtt, bytes).await.is_some(),
            "{bytes:?} keeps its connection"
        );
    }
    assert!(caller.say("kerbside/v1/bc-01/report", &report(37.6933, 77)));
    caller.all_acknowledged(LIMIT).await;
    feed.until_at(LIMIT, "bc-01", 37.6933).await;
}

#[tokio::test]
async fn an_oversized_message_ends_its_session_and_no_other() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    gateway.device("bc-02", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let mut big = Caller::open(&gateway, "bc-01").await;
    let mut other = Caller::open(&gateway, "bc-02").await;
    // Written by hand: a client library keeps to the maximum that the gateway announced.
    let password = gateway.secret("bc-01");
    let mut connect = vec![0x10];
    let body = [
        &b"\x00\x04MQTT\x04\xc2\x00\x3c\x00\x03raw\x00\x05bc-01\x00"[..],
        &[password.len() as u8],
        password.as_bytes(),
    ]
    .concat();
    connect.push(body.len() as u8);
    connect.extend(body);
    // PUBLISH with a remaining length of 4 MB.
    connect.extend(b"\x30\x80\x80\x80\x02\x00\x18kerbside/v1/bc-01/report");
    connect.extend(vec![b'x'; 300_000]);
    assert!(
        exchange(gateway.ports.mqtt, &connect).await.is_some(),
        "the connection stays open"
    );
    assert!(other.say("kerbside/v1/bc-02/report", &report(37.6941, 50)));
    other.all_acknowledged(LIMIT).await;
    assert!(
        big.say("kerbside/v1/bc-01/report", &report(37.6942, 50)),
        "the device's other session lives"
    );
    big.all_acknowledged(LIMIT).await;
    feed.until_at(LIMIT, "bc-02", 37.6941).await;
}

#[tokio::test]
async fn rtsp_out_of_order_is_answered_and_streams_go_on() {
    if !have("ffmpeg") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let _publisher = ffmpeg_push(
        gateway.dir(),
        &gateway.rtsp_as("bc-01", "bc-01/main"),
        "tcp",
    );
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let url = format!("rtsp://127.0.0.1:{}/bc-01/main", gateway.ports.rtsp);
    let basic = |user: &str| base64(format!("{user}:{}", gateway.secret(user)).as_bytes());
    let eve = format!("Authorization: Basic {}\r\n", basic("eve"));
    for (request, wanted) in [
        (format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n"), "200"),
        (format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n"), "401"),
        (
            format!("PLAY {url} RTSP/1.0\r\nCSeq: 1\r\nSession: 12345678\r\n{eve}\r\n"),
            "454",
        ),
        (
            format!("RECORD {url} RTSP/1.0\r\nCSeq: 1\r\n{eve}\r\n"),
            "45",
        ),
        (
            format!(
                "SETUP {url}/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RAW/RAW/UDP\r\n{eve}\r\n"
            ),
            "461",
        ),
        (
            format!("DANCE {url} RTSP/1.0\r\nCSeq: 1\r\n{eve}\r\n"),
            "501",
        ),
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", gateway.ports.rtsp))
            .await
            .unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let read = tokio::time::timeout(LIMIT, socket.read(&mut answer))
            .await
            .expect("an answer")
            .unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let allowed = status.starts_with(wanted) || (wanted == "501" && status == "405");
        assert!(allowed, "{request}answered {answer}");
    }
    // Half-open connections are many and cost nobody anything.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(
            TcpStream::connect(("127.0.0.1", gateway.ports.rtsp))
                .await
                .unwrap(),
        );
    }
    ffmpeg_pull(&gateway.rtsp_as("eve", "bc-01/main"), "tcp", 20).await;
    let mut first = idle.swap_remove(0);
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(Duration::from_secs(25), first.read(&mut byte)).await;
    assert!(
        matches!(closed, Ok(Ok(0) | Err(_))),
        "a connection that says nothing is closed: {closed:?}"
    );
}

pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = u32::from_be_bytes([
            0,
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ]);
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(
                    DIGITS[(group >> (18 - 6 * place)) as usize & 63],
                ));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[tokio::test]
async fn the_api_wants_a_login_and_knows_its_paths() {
    let gateway = Gateway::start(Setup::default()).await;
    let token = gateway.user("eve", "operator");
    for path in [
        "/api/v1/me",
        "/api/v1/picture",
        "/api/v1/events",
        "/api/v1/streams",
        "/api/v1/grid",
    ] {
        let (status, answer) = gateway.get(path, "wrong").await;
        assert_eq!(status, 401, "{path}");
        assert!(answer["error"].is_string(), "{path}: {answer}");
        let (status, _) = gateway.get(path, &token).await;
        assert_eq!(status, 200, "{path}");
    }
    let (status, answer) = gateway.get("/api/v1/nothing", &token).await;
    assert!(
        status == 404 && answer["error"].is_string(),
        "{status} {answer}"
    );
    for path in [
        "/map/../../../../etc/passwd",
        "/map/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
    ] {
        let bytes = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(gateway.ports.http, bytes.as_bytes())
            .await
            .expect("an answer");
        assert!(
            !String::from_utf8_lossy(&answer).contains("root:"),
            "{path} leaves its directory"
        );
    }
    // Guessing is slowed down or refused, and told a few times only.
    for _ in 0..50 {
        gateway.get("/api/v1/me", "guess").await;
    }
    let told = gateway
        .logged()
        .lines()
        .filter(|line| line.contains("WARN"))
        .count();
    assert!(told < 20, "50 guesses made {told} warnings");
    let (status, _) = gateway.get("/api/v1/me", &token).await;
    assert_eq!(status, 200, "the right token still works");
}

#[tokio::test]
async fn a_full_disk_refuses_events_visibly_and_video_goes_on() {
    let mount = tempfile::tempdir().unwrap();
    let path = mount.path().to_str().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs", path])
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: a small file system cannot be mounted here (needs root)");
        return;
    }
    let _unmount = Unmount(path.to_owned());
    let gateway = Gateway::start(Setup {
        state: Some(mount.path().join("state")),
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let video = have("ffmpeg");
    let _publisher = video.then(|| {
        ffmpeg_push(
            gateway.dir(),
            &gateway.rtsp_as("bc-01", "bc-01/main"),
            "tcp",
        )
    });
    if video {
        feed.until_phase(LIMIT, "bc-01/main", "live").await;
    }
    let filler = mount.path().join("filler");
    fill(&filler);
    let mut caller = Caller::open(&gateway, "bc-01").await;
    // What is left in half-used blocks may still take some.
    eventually(LIMIT, "calls are refused", async || {
        caller.call(&format!(
            "full-{}",
            caller.acknowledged.len() + caller.refused.len()
        ));
        caller.all_acknowledged(LIMIT).await;
        (!caller.refused.is_empty()).then_some(())
    })
    .await;
    assert!(caller.refused[0].contains("Quota"), "{:?}", caller.refused);
    eventually(LIMIT, "not ready, with the reason", async || {
        let answer = reqwest::get(format!("{}/readyz", gateway.http()))
            .await
            .ok()?;
        (answer.status().as_u16() == 503 && !answer.text().await.ok()?.is_empty()).then_some(())
    })
    .await;
    assert!(
        caller.say("kerbside/v1/bc-01/report", &report(37.6901, 66)),
        "positions go on"
    );
    feed.until_at(LIMIT, "bc-01", 37.6901).await;
    if video {
        ffmpeg_pull(&gateway.rtsp_as("eve", "bc-01/main"), "tcp", 15).await;
    }
    std::fs::remove_file(&filler).unwrap();
    let before = caller.acknowledged.len();
    eventually(LIMIT, "calls are taken again", async || {
        caller.call(&format!(
            "again-{}",
            caller.acknowledged.len() + caller.refused.len()
        ));
        caller.all_acknowledged(LIMIT).await;
        (caller.acknowledged.len() > before).then_some(())
    })
    .await;
    let ready = async || {
        reqwest::get(format!("{}/readyz", gateway.http()))
            .await
            .ok()?
            .status()
            .is_success()
            .then_some(())
    };
    eventually(LIMIT, "ready again", ready).await;
}

/// Writes until nothing fits any more.
pub(crate) fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let block = [0u8; 4_096];
    while file.write_all(&block).is_ok() {}
}

pub(crate) struct Unmount(pub String);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: the gateway may still hold files when a test fails.
        let done = std::process::Command::new("umount")
            .args(["-l", &self.0])
            .status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0);
        }
    }
}
