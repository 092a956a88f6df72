//! Readers are isolated from one another, and leave nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

use crate::LIMIT;
use crate::raw_rtsp::{Rtsp, header, interleaved};

pub const VIDEO: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IAHoAB,aIA=\r\na=control:trackID=0\r\n";
const FRAME_PACKETS: usize = 40;
pub const FRAMES_A_SECOND: u32 = 25;
/// What allocators keep of what came and went.
const GROWTH_BYTES_MAX: u64 = 8 << 20;

/// A camera of 8 Mbit/s with a key frame each second; each frame carries its number.
struct Camera {
    sent: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Camera {
    async fn start(gateway: &Gateway) -> Camera {
        let mut rtsp = Rtsp::connect(gateway, "bc-01", "bc-01/main", None).await;
        rtsp.publish(VIDEO).await;
        let sent = Arc::<AtomicU32>::default();
        let count = sent.clone();
        let task = tokio::spawn(async move {
            let period = Duration::from_secs(1) / FRAMES_A_SECOND;
            let mut ticks = tokio::time::interval(period);
            let mut seq = 0;
            for number in 0.. {
                ticks.tick().await;
                rtsp.send(&frame(number, &mut seq)).await.unwrap();
                count.store(number, Ordering::Relaxed);
            }
        });
        Camera { sent, task }
    }

    fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more frames were sent.
    async fn frames(&self, more: u32) {
        let until = self.sent() + more;
        eventually(LIMIT, "the camera sends", async || {
            (self.sent() >= until).then_some(())
        })
        .await;
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A slice of 40 kB, of a key frame if the number says so, in fragments (RFC 6184 §5.8), as interleaved data.
pub fn frame(number: u32, seq: &mut u16) -> Vec<u8> {
    let (indicator, kind) = match number % FRAMES_A_SECOND {
        0 => (0x7c, 5),
        _ => (0x5c, 1),
    };
    let mut out = Vec::new();
    for part in 0..FRAME_PACKETS {
        let (first, last) = (part == 0, part + 1 == FRAME_PACKETS);
        let mut payload = vec![indicator, u8::from(first) << 7 | u8::from(last) << 6 | kind];
        if first {
            payload.push(0x88);
            payload.extend(number.to_be_bytes());
        }
        payload.resize(1000, 0x55);
        let head = header(96, last, *seq, number * 3600, 7);
        *seq = seq.wrapping_add(1);
        out.extend(interleaved(0, head, &payload));
    }
    out
}

/// The number in a packet that begins a frame.
pub fn number(packet: &[u8]) -> Option<u32> {
    match packet.get(12..)? {
        [kind, fu, 0x88, number @ ..] if kind & 0x1f == 28 && fu & 0x80 != 0 => {
            Some(u32::from_be_bytes(*number.first_chunk()?))
        }
        _ => None,
    }
}

/// Reads until frame `last` is there; panics when one is missing before it.
async fn read_all(mut rtsp: Rtsp, last: Arc<AtomicU32>) {
    let mut expected = None;
    loop {
        let packet = rtsp.packet().await.expect("nobody cuts this reader");
        let Some(number) = number(&packet) else {
            continue;
        };
        assert!(
            expected.is_none_or(|e| e == number),
            "frame {number} instead of {expected:?}"
        );
        expected = Some(number + 1);
        if number >= last.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_among_twenty_costs_nobody_a_frame() {
    let mut gateway = Gateway::start(Setup {
        more: "[streams]\nring_s_max = 1\n".into(),
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut feed = Feed::open(&gateway, &token).await;
    let camera = Camera::start(&gateway).await;
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    camera.frames(FRAMES_A_SECOND).await;
    let last = Arc::new(AtomicU32::new(u32::MAX));
    let mut readers = JoinSet::new();
    for _ in 0..19 {
        let mut rtsp = Rtsp::connect(&gateway, "eve", "bc-01/main", None).await;
        rtsp.play().await;
        readers.spawn(read_all(rtsp, last.clone()));
    }
    camera.frames(2 * FRAMES_A_SECOND).await;
    let before = gateway.process().resident_bytes();

    let mut stalled = Rtsp::connect(&gateway, "eve", "bc-01/main", Some(32 << 10)).await;
    stalled.play().await;
    let labels = ["rtsp_tcp", "stalled"];
    eventually(
        Duration::from_secs(40),
        "the stalled one is cut",
        async || {
            let n = gateway
                .metric("kerbside_readers_ended_total", &labels)
                .await;
            (n == 1.0).then_some(())
        },
    )
    .await;
    let after = gateway.process().resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} to {after}");
    eventually(LIMIT, "its connection is closed", async || {
        let labels = ["stalled"];
        let n = gateway.metric("kerbside_rtsp_closed_total", &labels).await;
        (n == 1.0).then_some(())
    })
    .await;
    last.store(camera.sent() + FRAMES_A_SECOND, Ordering::Relaxed);
    let all = tokio::time::timeout(LIMIT, async {
        while let Some(read) = readers.join_next().await {
            read.expect("every frame in its turn");
        }
    });
    all.await.expect("all have read to the end");
    let shed = gateway
        .metric("kerbside_ledger_ended_total", &["reader_behind"])
        .await;
    // Those of the one that stalled, at most.
    assert!(shed < f64::from(20 * FRAMES_A_SECOND), "{shed}");
}

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\na=recvonly\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\na=fingerprint:sha-256 \
    11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00\r\n\
    a=rtpmap:96 H264/90000\r\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001e\r\n";

/// One reader comes, gets its picture (WHEP: its session) and goes; every other one without saying so.
async fn visit(gateway: &Gateway, n: usize) {
    if n % 3 == 2 {
        let client = reqwest::Client::new();
        let token = gateway.secret("eve");
        let offer = client
            .post(format!("{}/bc-01/main/whep", gateway.http()))
            .bearer_auth(&token)
            .header("Content-Type", "application/sdp")
            .header("Connection", "close")
            .body(OFFER);
        let answer = offer.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201);
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let delete = client
            .delete(format!("{}{location}", gateway.http()))
            .header("Connection", "close")
            .bearer_auth(&token);
        assert_eq!(delete.send().await.unwrap().status().as_u16(), 200);
        return;
    }
    let mut rtsp = Rtsp::connect(gateway, "eve", "bc-01/main", None).await;
    if n.is_multiple_of(3) {
        rtsp.play().await;
        assert!(rtsp.packet().await.is_some());
    } else {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let udp = format!(
            "Transport: RTP/AVP;unicast;client_port={port}-{}\r\n",
            port ^ 1
        );
        for (method, control, headers) in [("SETUP", "/trackID=0", udp.as_str()), ("PLAY", "", "")]
        {
            let answer = rtsp.ask(method, control, headers, "").await.unwrap();
            assert_eq!(answer.status, 200, "{method}: {}", answer.head);
        }
        let mut packet = [0; 2000];
        let first = tokio::time::timeout(LIMIT, socket.recv(&mut packet)).await;
        assert!(first.expect("a packet").unwrap() > 12);
    }
    if n.is_multiple_of(2) {
        assert!(rtsp.ask("TEARDOWN", "", "", "").await.is_some());
    }
}

/// The long one is `kerbside-bench soak`, with whole WHEP sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_joins_and_leaves_leave_nothing_behind() {
    const AT_ONCE: usize = 12;
    let mut gateway = Gateway::start(Setup {
        more: "[streams]\nring_s_max = 1\n".into(),
        ..Setup::default()
    })
    .await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut feed = Feed::open(&gateway, &token).await;
    let camera = Camera::start(&gateway).await;
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    camera.frames(FRAMES_A_SECOND).await;
    let visits = async |gateway: &Gateway, count: usize| {
        for block in 0..count / AT_ONCE {
            let all = (0..AT_ONCE).map(|n| visit(gateway, block * AT_ONCE + n));
            futures_util::future::join_all(all).await;
        }
        eventually(LIMIT, "all have left", async || {
            let readers = gateway.metric("kerbside_stream_readers", &[]).await;
            let sessions = gateway.metric("kerbside_webrtc_sessions", &[]).await;
            let connections = gateway.metric("kerbside_rtsp_connections", &[]).await;
            ((readers, sessions, connections) == (0.0, 0.0, 1.0)).then_some(())
        })
        .await;
    };
    visits(&gateway, 5 * AT_ONCE).await;
    let process = gateway.process();
    let (files, threads) = (process.open_files(), process.threads());
    let before = process.resident_bytes();
    visits(&gateway, 300).await;
    eventually(LIMIT, "files and threads as before", async || {
        let process = gateway.process();
        (process.open_files() <= files && process.threads() <= threads).then_some(())
    })
    .await;
    let after = gateway.process().resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} to {after}");
}
