//! RTSP against the tools people use: ffmpeg and GStreamer push, both play, over TCP, UDP and TLS.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kerbside::ids::StreamId;
use kerbside::listen::rtsp::{Shared, serve};
use kerbside::registry::{DeviceKind, Guard, Registry, Role};
use kerbside::stream::{Item, Reader, Streams, StreamsLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Everything a test waits for happens within this time, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Gateway {
    addr: std::net::SocketAddr,
    scheme: &'static str,
    streams: Streams,
    registry: Registry,
    password: String,
    token: String,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    async fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        // Why a session ended is in the log, which only a failing test shows.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_test_writer()
            .try_init();
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let password = registry
            .add_device("bc-01", DeviceKind::Bodycam, None)
            .unwrap();
        let token = registry.add_user("anna", Role::Operator).unwrap();
        let streams = Streams::new(StreamsLimits::default());
        let shared = Shared::new(
            registry.clone(),
            Arc::new(Guard::default()),
            streams.clone(),
            kerbside::stream::Fanout::start(2).unwrap(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "rtsps" } else { "rtsp" };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, tls, Arc::new(shared), stopped));
        Self {
            addr,
            scheme,
            streams,
            registry,
            password,
            token,
            stop,
            task,
            _dir: dir,
        }
    }

    fn url(&self, credentials: &str, path: &str) -> String {
        let at = if credentials.is_empty() { "" } else { "@" };
        format!("{}://{credentials}{at}{}/{path}", self.scheme, self.addr)
    }

    fn play_url(&self) -> String {
        self.url(&format!("anna:{}", self.token), "bc-01/main")
    }

    fn push_ffmpeg(&self, transport: &str, path: &str) -> Child {
        let url = self.url(&format!("bc-01:{}", self.password), path);
        let video = "testsrc=size=320x240:rate=25";
        start(
            "ffmpeg",
            &[
                "-nostdin",
                "-v",
                "error",
                "-re",
                "-f",
                "lavfi",
                "-i",
                video,
                "-f",
                "lavfi",
                "-i",
                "sine=frequency=440",
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-tune",
                "zerolatency",
                "-g",
                "25",
                "-pix_fmt",
                "yuv420p",
                "-c:a",
                "pcm_alaw",
                "-ar",
                "8000",
                "-ac",
                "1",
                "-f",
                "rtsp",
                "-rtsp_transport",
                transport,
                &url,
            ],
        )
    }

    fn push_gstreamer(&self, transport: &str) -> Child {
        let location = format!("location={}", self.url("", "bc-01/main"));
        let password = format!("user-pw={}", self.password);
        let protocols = format!("protocols={transport}");
        start(
            "gst-launch-1.0",
            &[
                "-q",
                "rtspclientsink",
                "name=s",
                &location,
                "user-id=bc-01",
                &password,
                &protocols,
                "videotestsrc",
                "is-live=true",
                "!",
                "video/x-raw,width=320,height=240,framerate=25/1",
                "!",
                "x264enc",
                "tune=zerolatency",
                "speed-preset=ultrafast",
                "key-int-max=25",
                "!",
                "s.",
                "audiotestsrc",
                "is-live=true",
                "!",
                "audioconvert",
                "!",
                "opusenc",
                "!",
                "s.",
            ],
        )
    }

    /// A reader of our own, once the publisher is there.
    async fn reader(&self, path: &str) -> Reader {
        let id = StreamId::parse(path).unwrap();
        let appeared = async {
            loop {
                if let Ok(r) = self.streams.read(&id, PATIENCE).await {
                    return r;
                }
                self.streams.changes().await;
            }
        };
        timeout(PATIENCE, appeared)
            .await
            .expect("the stream appears")
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        timeout(PATIENCE, self.task)
            .await
            .expect("the server stops")
            .unwrap();
    }
}

fn start(program: &str, args: &[&str]) -> Child {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ends(mut child: Child) -> ExitStatus {
    timeout(PATIENCE, child.wait())
        .await
        .expect("the tool ends")
        .unwrap()
}

/// Decodes so many video frames and some sound; any fault ends it with a failure.
fn play_ffmpeg(url: &str, transport: &str, frames: &str) -> Child {
    start(
        "ffmpeg",
        &[
            "-nostdin",
            "-v",
            "error",
            "-xerror",
            "-rtsp_transport",
            transport,
            "-i",
            url,
            "-map",
            "0:v",
            "-map",
            "0:a",
            "-frames:v",
            frames,
            "-frames:a",
            "20",
            "-f",
            "null",
            "-",
        ],
    )
}

/// Decodes so many video frames. Its end of stream is what counts: when rtspsrc 1.22 closes, its own CLOSE at times
/// interrupts its PAUSE, and gst-launch then fails although it has played everything.
async fn play_gstreamer(g: &Gateway, transport: &str) -> bool {
    let player = Command::new("gst-launch-1.0")
        .args(["rtspsrc", "name=r", "latency=100", "user-id=anna"])
        .arg(format!("location={}", g.url("", "bc-01/main")))
        .arg(format!("user-pw={}", g.token))
        .arg(format!("protocols={transport}"))
        .args([
            "r.",
            "!",
            "application/x-rtp,media=video",
            "!",
            "rtph264depay",
            "!",
            "avdec_h264",
        ])
        .args(["!", "fakesink", "num-buffers=30"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let said = timeout(PATIENCE, player.wait_with_output())
        .await
        .expect("the tool ends")
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    said.contains("Got EOS from element \"pipeline0\"")
}

async fn frames(reader: &mut Reader, count: usize) {
    let mut seen = 0;
    let many = async {
        while seen < count {
            match reader.next().await {
                Item::Frame { .. } => seen += 1,
                Item::Ended(why) => panic!("ended: {why}"),
                Item::Skipped { .. } | Item::Media(_) => {}
            }
        }
    };
    timeout(PATIENCE, many).await.expect("frames arrive");
}

async fn everybody_plays(g: &Gateway) {
    let mut reader = g.reader("bc-01/main").await;
    frames(&mut reader, 50).await;
    let url = g.play_url();
    let (ffmpeg_tcp, ffmpeg_udp, gstreamer_tcp, gstreamer_udp) = tokio::join!(
        ends(play_ffmpeg(&url, "tcp", "30")),
        ends(play_ffmpeg(&url, "udp", "30")),
        play_gstreamer(g, "tcp"),
        play_gstreamer(g, "udp"),
    );
    assert!(ffmpeg_tcp.success(), "ffmpeg over TCP");
    assert!(ffmpeg_udp.success(), "ffmpeg over UDP");
    // rtspsrc 1.22 at times interrupts itself before it has begun; a fault of ours would show again.
    for (played, transport) in [(gstreamer_tcp, "tcp"), (gstreamer_udp, "udp")] {
        assert!(
            played || play_gstreamer(g, transport).await,
            "GStreamer over {transport}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_pushes_over_tcp() {
    let g = Gateway::start(None).await;
    let _push = g.push_ffmpeg("tcp", "bc-01/main");
    everybody_plays(&g).await;
    let status = g.streams.status();
    assert_eq!(status[0].codecs, ["H264", "PCMA"]);
    assert_eq!(status[0].phase, "live");
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_pushes_over_udp() {
    let g = Gateway::start(None).await;
    let _push = g.push_ffmpeg("udp", "bc-01/main");
    everybody_plays(&g).await;
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_pushes_over_tcp() {
    let g = Gateway::start(None).await;
    let _push = g.push_gstreamer("tcp");
    everybody_plays(&g).await;
    let mut codecs = g.streams.status()[0].codecs.clone();
    codecs.sort_unstable();
    assert_eq!(codecs, ["H264", "opus"]);
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_pushes_over_udp() {
    let g = Gateway::start(None).await;
    let _push = g.push_gstreamer("udp");
    everybody_plays(&g).await;
    g.end().await;
}

fn self_signed() -> Arc<rustls::ServerConfig> {
    certified().0
}

/// A certificate of its own, and its SHA-256.
fn certified() -> (Arc<rustls::ServerConfig>, [u8; 32]) {
    use sha2::Digest;
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let sha256 = sha2::Sha256::digest(certified.cert.der()).into();
    (Arc::new(config), sha256)
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_pushes_and_plays_over_tls() {
    let g = Gateway::start(Some(self_signed())).await;
    let _push = g.push_ffmpeg("tcp", "bc-01/main");
    frames(&mut g.reader("bc-01/main").await, 30).await;
    assert!(
        ends(play_ffmpeg(&g.play_url(), "tcp", "30"))
            .await
            .success()
    );
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_dies_and_returns_keeps_its_readers() {
    let g = Gateway::start(None).await;
    let mut push = g.push_ffmpeg("tcp", "bc-01/main");
    let mut reader = g.reader("bc-01/main").await;
    frames(&mut reader, 30).await;
    let player = play_ffmpeg(&g.play_url(), "tcp", "150");
    frames(&mut reader, 30).await;
    push.kill().await.unwrap();
    let _again = g.push_ffmpeg("tcp", "bc-01/main");
    frames(&mut reader, 200).await;
    assert!(
        ends(player).await.success(),
        "the player goes on with the new publisher"
    );
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_ones_come_in() {
    let g = Gateway::start(None).await;
    let foreign = g.push_ffmpeg("tcp", "bc-02/main");
    assert!(
        !ends(foreign).await.success(),
        "a device publishes under its own id only"
    );
    let _push = g.push_ffmpeg("tcp", "bc-01/main");
    let mut reader = g.reader("bc-01/main").await;
    frames(&mut reader, 10).await;
    let wrong = g.url("anna:wrong", "bc-01/main");
    assert!(!ends(play_ffmpeg(&wrong, "tcp", "1")).await.success());
    let device = g.url(&format!("bc-01:{}", g.password), "bc-01/main");
    assert!(
        !ends(play_ffmpeg(&device, "tcp", "1")).await.success(),
        "devices do not play"
    );
    assert!(
        !ends(play_ffmpeg(&g.url("", "bc-01/main"), "tcp", "1"))
            .await
            .success()
    );
    assert_eq!(
        g.streams.status().len(),
        1,
        "a refused publisher leaves no stream behind"
    );
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_live_sessions() {
    let g = Gateway::start(None).await;
    let push = g.push_ffmpeg("tcp", "bc-01/main");
    frames(&mut g.reader("bc-01/main").await, 30).await;
    let player = play_ffmpeg(&g.play_url(), "tcp", "100000");
    let mut readers = 0;
    let joined = async {
        while readers == 0 {
            g.streams.changes().await;
            readers = g.streams.status()[0].readers;
        }
    };
    timeout(PATIENCE, joined).await.expect("the player joins");
    g.registry.revoke_user("anna").unwrap();
    ends(player).await;
    g.registry.revoke_device("bc-01").unwrap();
    ends(push).await;
    g.end().await;
}

/// Sends requests and gives the status codes of the answers.
async fn talk(g: &Gateway, requests: &[&str]) -> Vec<u16> {
    let mut socket = TcpStream::connect(g.addr).await.unwrap();
    let mut codes = Vec::new();
    for r in requests {
        socket.write_all(r.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let whole = async {
            while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
                if socket.read_buf(&mut answer).await.unwrap() == 0 {
                    return;
                }
            }
        };
        timeout(PATIENCE, whole).await.expect("an answer");
        let line = String::from_utf8_lossy(&answer);
        codes.push(line.get(9..12).and_then(|c| c.parse().ok()).unwrap_or(0));
    }
    codes
}

#[tokio::test]
async fn answers_to_raw_requests() {
    use base64::Engine;
    let g = Gateway::start(None).await;
    let basic = |c: String| base64::engine::general_purpose::STANDARD.encode(c);
    let anna = format!(
        "Authorization: Basic {}\r\n",
        basic(format!("anna:{}", g.token))
    );
    let wrong = format!("Authorization: Basic {}\r\n", basic("anna:x".into()));
    let ask = |m: &str, path: &str, extra: &str| {
        format!("{m} rtsp://h/{path} RTSP/1.0\r\nCSeq: 1\r\n{extra}\r\n")
    };
    let requests = [
        ask("OPTIONS", "bc-01/main", ""),
        ask("DESCRIBE", "bc-01/main", ""),
        ask("DESCRIBE", "bc-01/main", &wrong),
        ask("DESCRIBE", "bc-01/main", &anna),
        ask("RECORD", "bc-01/main", &anna),
        ask("PLAY", "bc-01/main", "Session: 0\r\n"),
        ask("ANNOUNCE", "bc-01/main", &anna),
    ];
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    assert_eq!(
        talk(&g, &requests).await,
        [200, 401, 401, 404, 455, 454, 415]
    );
    assert_eq!(
        talk(&g, &["\x16\x03\x01 not RTSP"]).await,
        [0],
        "garbage is closed without an answer"
    );
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_pulled_while_somebody_reads() {
    use kerbside::config::{CameraTransport, CameraTrust};
    for (transport, secure) in [
        (CameraTransport::Tcp, false),
        (CameraTransport::Udp, false),
        (CameraTransport::Tcp, true),
    ] {
        // The camera: another gateway, whose stream ffmpeg feeds.
        let (tls, sha256) = certified();
        let camera = Gateway::start(secure.then_some(tls)).await;
        let _push = camera.push_ffmpeg("tcp", "bc-01/main");
        frames(&mut camera.reader("bc-01/main").await, 10).await;
        let id = StreamId::parse("cam-7/main").unwrap();
        let url = camera.url("", "bc-01/main").parse().unwrap();
        let config = kerbside::config::Camera {
            username: Some("anna".into()),
            password: Some(camera.token.clone()),
            transport,
            trust: Some(CameraTrust::Fingerprint(sha256)),
            ..kerbside::config::Camera::new(id.clone(), url)
        };
        let streams = Streams::new(StreamsLimits::default());
        let (stop, stopped) = watch::channel(false);
        let io = tokio::runtime::Handle::current();
        let tasks = kerbside::listen::pull::start(&io, &[config], &streams, &stopped);
        assert_eq!(
            streams.status()[0].phase,
            "idle",
            "nobody reads, nobody pulls"
        );
        let mut reader = streams
            .read(&id, PATIENCE)
            .await
            .expect("the camera delivers");
        frames(&mut reader, 60).await;
        let status = &streams.status()[0];
        assert_eq!(
            (status.protocol, status.codecs.as_slice()),
            (Some("pull"), &["H264", "PCMA"][..])
        );
        stop.send(true).unwrap();
        for t in tasks {
            timeout(PATIENCE, t).await.expect("the task ends").unwrap();
        }
        camera.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_closed_and_holds_up_nobody() {
    use base64::Engine;
    use bytes::Bytes;
    use kerbside::stream::NewFrame;
    use kerbside_codecs::media::{Codec, Medium, Payloads};
    use std::time::Instant;

    let g = Gateway::start(None).await;
    let id = StreamId::parse("bc-01/main").unwrap();
    let medium = Medium {
        codec: Codec::Pcma,
        clock_rate: 8000,
    };
    let publisher = g.streams.publish(&id, vec![medium], "test").unwrap();
    let mut socket = TcpStream::connect(g.addr).await.unwrap();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("anna:{}", g.token));
    let setup = format!(
        "SETUP rtsp://h/bc-01/main RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\
         Authorization: Basic {basic}\r\n\r\nPLAY rtsp://h/bc-01/main RTSP/1.0\r\nCSeq: 2\r\n\r\n"
    );
    socket.write_all(setup.as_bytes()).await.unwrap();
    let mut good = g.streams.read(&id, PATIENCE).await.unwrap();
    let both = async {
        while g.streams.status()[0].readers != 2 {
            g.streams.changes().await;
        }
    };
    timeout(PATIENCE, both).await.expect("both read");
    let payload = Bytes::from(vec![1; 60_000]);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut pushed = 0;
    let closed = async {
        while g.streams.status()[0].readers == 2 {
            ticks.tick().await;
            pushed += 1;
            let frame = NewFrame {
                medium: 0,
                key: true,
                time: pushed * 40,
                arrived: Instant::now(),
                captured: kerbside_codecs::media::Captured {
                    utc_us: 0,
                    uncertainty_us: 0,
                },
                payloads: Payloads::single(payload.clone()),
            };
            publisher.push(frame).unwrap();
            assert!(
                matches!(good.poll(), Some(Item::Frame { .. })),
                "the other one gets every frame"
            );
        }
    };
    timeout(PATIENCE, closed)
        .await
        .expect("the stalled reader is closed");
    assert_eq!(good.lost(), 0);
    g.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b_frames_and_several_slices_pass() {
    let g = Gateway::start(None).await;
    let url = g.url(&format!("bc-01:{}", g.password), "bc-01/main");
    let video = "testsrc=size=640x360:rate=25";
    let _push = start(
        "ffmpeg",
        &[
            "-nostdin",
            "-v",
            "error",
            "-re",
            "-f",
            "lavfi",
            "-i",
            video,
            "-f",
            "lavfi",
            "-i",
            "sine",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-bf",
            "2",
            "-g",
            "25",
            "-x264-params",
            "slices=4",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "libopus",
            "-f",
            "rtsp",
            "-rtsp_transport",
            "tcp",
            &url,
        ],
    );
    let mut reader = g.reader("bc-01/main").await;
    frames(&mut reader, 60).await;
    let players = ["tcp", "udp"].map(|t| play_ffmpeg(&g.play_url(), t, "60"));
    for player in players {
        assert!(ends(player).await.success());
    }
    assert_eq!(
        g.streams.status()[0].phase,
        "live",
        "times that step back do not end the session"
    );
    g.end().await;
}
