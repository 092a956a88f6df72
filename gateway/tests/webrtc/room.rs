//! A WebRTC room with its HTTP endpoints on free ports, a test picture as publisher, and a browser as reader.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use bytes::Bytes;
use kerbside::config;
use kerbside::ids::StreamId;
use kerbside::registry::{DeviceKind, Guard, Registry, Role};
use kerbside::screen::whep::{self, Whep};
use kerbside::screen::whip::{self, Whip};
use kerbside::stream::{Fanout, Item, NewFrame, Publisher, Streams, StreamsLimits};
use kerbside::webrtc::WebRtc;
use kerbside_codecs::media::{Codec, Medium, Payloads};
use kerbside_codecs::rtp::PAYLOAD_BYTES_MAX;
use kerbside_codecs::rtp::h264::{NalType, packetize_h264};
use serde::Deserialize;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// No condition of these tests takes longer on a machine that works.
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Room {
    pub webrtc: WebRtc,
    pub streams: Streams,
    pub registry: Registry,
    pub base: String,
    pub token: String,
    pub password: String,
    pub reports: mpsc::Receiver<Report>,
    stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

/// What the page in the browser sees.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// From the start of the page's script to the first picture shown.
    pub joined_ms: Option<f64>,
    pub decoded: u64,
    pub time_s: f64,
    pub width: u32,
    pub audio: u64,
    pub nacks: u64,
    pub codec: String,
    pub cipher: String,
    pub protocol: String,
    pub state: String,
    pub dtls: String,
    /// The newest text on the data channel.
    pub message: String,
    pub error: String,
}

impl Room {
    pub async fn open() -> Self {
        Self::with_sessions(16).await
    }

    pub async fn with_sessions(sessions_max: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let password = registry
            .add_device("bc-01", DeviceKind::Bodycam, None)
            .unwrap();
        let token = registry.add_user("anna", Role::Operator).unwrap();
        let streams = Streams::new(StreamsLimits::default());
        let (shutdown, stopping) = watch::channel(false);
        let webrtc = WebRtc::start(
            &tokio::runtime::Handle::current(),
            ([127, 0, 0, 1], 0).into(),
            &config::WebRtc {
                announce: Vec::new(),
                sessions_max,
            },
            streams.clone(),
            Fanout::start(2).unwrap(),
            registry.clone(),
            stopping,
        )
        .unwrap();
        let guard = Arc::new(Guard::default());
        let (report, reports) = mpsc::channel(64);
        let router = whep::router(Whep {
            webrtc: webrtc.clone(),
            auth: whep::by_token(registry.clone(), guard.clone()),
        })
        .merge(whip::router(Whip {
            webrtc: webrtc.clone(),
            registry: registry.clone(),
            guard,
            passes: Default::default(),
        }))
        .merge(
            Router::new()
                .route(
                    "/player",
                    get(|| async { Html(include_str!("player.html")) }),
                )
                .route("/report", post(take_report))
                .with_state(report),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            axum::serve(
                listener,
                router.into_make_service_with_connect_info::<SocketAddr>(),
            )
            .await
        });
        Self {
            webrtc,
            streams,
            registry,
            base,
            token,
            password,
            reports,
            stop: shutdown,
            _dir: dir,
        }
    }

    /// Waits for a report that fulfils the condition; fails with the last one.
    pub async fn report_when(&mut self, what: &str, condition: impl Fn(&Report) -> bool) -> Report {
        let until = Instant::now() + LIMIT;
        let mut last = None;
        while let Ok(Some(r)) = tokio::time::timeout_at(until.into(), self.reports.recv()).await {
            assert!(r.error.is_empty(), "{what}: the page says {}", r.error);
            if condition(&r) {
                return r;
            }
            last = Some(r);
        }
        panic!("{what}: not within {LIMIT:?}; the last report was {last:?}");
    }

    /// The next report; older ones are skipped.
    pub async fn next_report(&mut self) -> Report {
        while self.reports.try_recv().is_ok() {}
        self.report_when("a report", |_| true).await
    }

    /// Waits until a stream has a frame; fails with the publisher's log.
    pub async fn live(&self, name: &str, publisher: &WhipClient) {
        let id = StreamId::parse(name).unwrap();
        let first_frame = async {
            loop {
                match self.streams.read(&id, LIMIT).await {
                    Ok(mut reader) => {
                        if matches!(reader.next().await, Item::Frame { .. }) {
                            return;
                        }
                    }
                    Err(_) => drop(self.streams.changes().await),
                }
            }
        };
        if tokio::time::timeout(LIMIT, first_frame).await.is_err() {
            let log = publisher.log();
            panic!("{name} is not live; the publisher says:\n{log}");
        }
    }

    /// Stops the room and waits until all sessions have left.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        tokio::time::timeout(LIMIT, self.webrtc.all_left())
            .await
            .expect("all sessions leave");
    }

    pub fn browser(&self, query: &str) -> Browser {
        let url = format!("{}/player?token={}&{query}", self.base, self.token);
        Browser::open(&url)
    }
}

async fn take_report(State(report): State<mpsc::Sender<Report>>, body: Bytes) {
    if let Ok(r) = serde_json::from_slice(&body) {
        let _gone = report.try_send(r).is_err();
    }
}

/// A headless Chromium; ends with this value.
pub struct Browser {
    _child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--autoplay-policy=no-user-gesture-required",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium is installed");
        Self {
            _child: child,
            _profile: profile,
        }
    }
}

/// A test picture of 25 frames a second with a key frame each second: access units in NAL units.
pub fn picture() -> Vec<Vec<Bytes>> {
    let out = std::process::Command::new("ffmpeg")
        .args("-v error -f lavfi -i testsrc=size=320x240:rate=25 -t 4 -pix_fmt yuv420p".split(' '))
        .args("-c:v libx264 -profile:v baseline -preset ultrafast -g 25 -x264-params aud=1:repeat-headers=1 -f h264 -".split(' '))
        .output()
        .expect("ffmpeg is installed");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let mut units: Vec<Vec<Bytes>> = Vec::new();
    for nal in nal_units(&out.stdout) {
        if NalType::of(&nal) == NalType::AUD {
            units.push(Vec::new());
        } else if let Some(unit) = units.last_mut() {
            unit.push(nal);
        }
    }
    assert!(units.len() >= 100);
    units
}

fn nal_units(annex_b: &[u8]) -> Vec<Bytes> {
    let mut starts = Vec::new();
    let mut i = 0;
    while i + 3 <= annex_b.len() {
        if annex_b[i..i + 3] == [0, 0, 1] {
            starts.push(i + 3);
            i += 3;
        } else {
            i += 1;
        }
    }
    starts
        .iter()
        .enumerate()
        .map(|(n, &start)| {
            let end = starts.get(n + 1).map_or(annex_b.len(), |next| next - 3);
            let nal = annex_b[start..end]
                .strip_suffix(&[0])
                .unwrap_or(&annex_b[start..end]);
            Bytes::copy_from_slice(nal)
        })
        .collect()
}

/// Publishes the test picture (and silence in G.711) in real time until it is dropped.
pub struct Camera(JoinHandle<()>);

impl Camera {
    pub fn start(streams: &Streams, name: &str) -> Self {
        Self::publish(streams, name, false)
    }

    /// Now and then a frame and a key frame that says it came 10 s later are there at once: every reader is too slow.
    pub fn leaping(streams: &Streams, name: &str) -> Self {
        Self::publish(streams, name, true)
    }

    fn publish(streams: &Streams, name: &str, leaps: bool) -> Self {
        let units = picture();
        let sps = units[0]
            .iter()
            .find(|n| NalType::of(n) == NalType::SPS)
            .unwrap()
            .clone();
        let media = vec![
            Medium {
                codec: Codec::H264 {
                    sps,
                    pps: Bytes::new(),
                },
                clock_rate: 90_000,
            },
            Medium {
                codec: Codec::Pcmu,
                clock_rate: 8_000,
            },
        ];
        let publisher = streams
            .publish(&StreamId::parse(name).unwrap(), media, "test")
            .unwrap();
        Self(tokio::spawn(run(publisher, units, leaps)))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(publisher: Publisher, units: Vec<Vec<Bytes>>, leaps: bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(40));
    let mut ahead = Duration::ZERO;
    for (n, unit) in (0u64..).zip(units.iter().cycle()) {
        let key = unit.iter().any(|n| NalType::of(n) == NalType::IDR);
        if leaps && key && n > 50 {
            ahead += Duration::from_secs(10);
        } else {
            tick.tick().await;
        }
        let arrived = Instant::now() + ahead;
        let video = NewFrame {
            medium: 0,
            key,
            time: (1 << 40) + n * 3600,
            arrived,
            captured: kerbside_codecs::media::Captured {
                utc_us: 0,
                uncertainty_us: 0,
            },
            payloads: packetize_h264(unit, PAYLOAD_BYTES_MAX),
        };
        let audio = NewFrame {
            medium: 1,
            key: true,
            time: (1 << 40) + n * 320,
            arrived,
            captured: kerbside_codecs::media::Captured {
                utc_us: 0,
                uncertainty_us: 0,
            },
            payloads: Payloads::single(Bytes::from_static(&[0xff; 320])),
        };
        if publisher.push(video).is_err() || publisher.push(audio).is_err() {
            return;
        }
    }
}

/// Debian's simple-whip-client, publishing; ends with this value.
pub struct WhipClient {
    _child: Child,
    dir: tempfile::TempDir,
}

impl WhipClient {
    pub fn start(url: &str, password: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("whip-client")
            .args(["-u", url, "-t", password])
            .args(more)
            .env("LD_LIBRARY_PATH", without_upnp(dir.path()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("simple-whip-client is installed");
        Self { _child: child, dir }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// Debian 12 links whip-client to libsoup 2, and libnice (by way of UPnP) to libsoup 3; both in one process refuse to
/// run. An empty UPnP library in front of the real one keeps libsoup 3 out; UPnP is not used here.
fn without_upnp(dir: &Path) -> &Path {
    const NAME: &str = "libgupnp-igd-1.0.so.4";
    let functions = ["add_port", "get_type", "remove_port_local", "thread_new"];
    let source: String = functions
        .iter()
        .map(|f| format!("void *gupnp_simple_igd_{f}(void) {{ return 0; }}\n"))
        .collect();
    std::fs::write(dir.join("none.c"), source).unwrap();
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "none.c", "-o", NAME])
        .arg(format!("-Wl,-soname,{NAME}"))
        .current_dir(dir)
        .status()
        .expect("a C compiler is installed");
    assert!(built.success());
    dir
}

/// A way to the gateway that loses media packets on their way back, for one client.
pub struct LossyPath {
    pub port: u16,
    task: JoinHandle<()>,
}

impl LossyPath {
    /// Loses one media packet in `every`.
    pub async fn open(gateway: SocketAddr, every: u32) -> Self {
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        inside.connect(gateway).await.unwrap();
        let port = outside.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut there, mut back) = ([0; 2048], [0; 2048]);
            let mut client = None;
            let mut media = 0_u32;
            loop {
                tokio::select! {
                    r = outside.recv_from(&mut there) => {
                        let (n, from) = r.unwrap();
                        client = Some(from);
                        inside.send(&there[..n]).await.unwrap();
                    }
                    r = inside.recv(&mut back) => {
                        let (n, Some(to)) = (r.unwrap(), client) else { continue };
                        let is_media = back[0] >= 128 && !(192..224).contains(&back[1]);
                        media += u32::from(is_media);
                        if !(is_media && media.is_multiple_of(every)) {
                            outside.send_to(&back[..n], to).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { port, task }
    }
}

impl Drop for LossyPath {
    fn drop(&mut self) {
        self.task.abort();
    }
}
