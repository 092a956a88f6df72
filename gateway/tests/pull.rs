//! Cameras as they really are: a scripted RTSP server plays the faults that real ones have and real software cannot be
//! made to show.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kerbside::config::{Camera, CameraTransport, CameraTrust};
use kerbside::ids::StreamId;
use kerbside::listen::pull;
use kerbside::stream::{Item, Reader, Streams, StreamsLimits};
use kerbside_codecs::rtp::Header;
use kerbside_codecs::rtsp::digest::Credentials;
use kerbside_codecs::rtsp::{Framer, Incoming, Request};
use rtsp_types::{HeaderName, Method};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const PLAIN: &str = "v=0\r\nm=audio 0 RTP/AVP 8\r\na=control:track1\r\n";

/// What a camera does wrong. The default does nothing wrong.
#[derive(Clone)]
struct Script {
    sdp: &'static str,
    content_base: Option<&'static str>,
    session: &'static str,
    /// Methods that are never answered.
    mute: &'static [&'static str],
    udp: Udp,
    /// Challenges of a 401, and whether this request still has to log in anew.
    login: Option<fn(&Request, usize) -> Option<String>>,
    /// Bytes that go out before each answer to PLAY.
    before_play: fn() -> Vec<u8>,
    /// Bytes of the nth 20 ms on the connection; None: the camera dies.
    media: fn(u32) -> Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Udp {
    Refused,
    Silent,
    /// Every second pair of packets is swapped.
    Swapped,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            sdp: PLAIN,
            content_base: None,
            session: "8f3a;timeout=60",
            mute: &[],
            udp: Udp::Refused,
            login: None,
            before_play: Vec::new,
            media: |n| Some(interleaved(0, &sound(n, n * 160, 7))),
        }
    }
}

/// One PCMA packet of 20 ms; its first byte is its number.
fn sound(n: u32, time: u32, ssrc: u32) -> Vec<u8> {
    let header = Header {
        marker: false,
        payload_type: 8,
        seq: n as u16,
        time,
        ssrc,
    };
    let mut p = header.to_bytes().to_vec();
    p.extend([n as u8; 160]);
    p
}

fn interleaved(channel: u8, packet: &[u8]) -> Vec<u8> {
    let mut out = vec![b'$', channel];
    out.extend((packet.len() as u16).to_be_bytes());
    out.extend(packet);
    out
}

/// The scripted camera; it logs `METHOD URL` and what else a test may want.
struct Fake {
    addr: SocketAddr,
    log: watch::Receiver<Vec<String>>,
    _task: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn start(script: Script, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tx, log) = watch::channel(Vec::new());
        let tx = Arc::new(tx);
        let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, tx, acceptor) = (script.clone(), tx.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, script, tx).await,
                        Some(a) => {
                            if let Ok(s) = a.accept(stream).await {
                                serve(s, script, tx).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            addr,
            log,
            _task: task,
        }
    }

    /// Waits for a line of the log that begins like this, and gives it.
    async fn said(&self, begin: &str) -> String {
        let mut log = self.log.clone();
        let find = |l: &Vec<String>| l.iter().find(|l| l.starts_with(begin)).cloned();
        let found = timeout(PATIENCE, log.wait_for(|l| find(l).is_some())).await;
        let lines = found.unwrap_or_else(|_| panic!("no {begin:?}: {:?}", self.log.borrow()));
        find(&lines.unwrap()).unwrap()
    }

    fn count(&self, begin: &str) -> usize {
        let log = self.log.borrow();
        log.iter().filter(|l| l.starts_with(begin)).count()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: Script,
    log: Arc<watch::Sender<Vec<String>>>,
) {
    let mut framer = Framer::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let (mut playing, mut n, mut asked) = (false, 0u32, 0usize);
    let mut udp: Option<(UdpSocket, SocketAddr)> = None;
    loop {
        tokio::select! {
            got = stream.read_buf(framer.buffer()) => {
                if got.unwrap_or(0) == 0 {
                    log.send_modify(|l| l.push("closed".into()));
                    return;
                }
            }
            _ = ticks.tick(), if playing => {
                n += 1;
                match &udp {
                    Some((socket, to)) => {
                        // 2 1 4 3 …
                        let m = if n % 2 == 1 { n + 1 } else { n - 1 };
                        socket.send_to(&sound(m, m * 160, 7), to).await.unwrap();
                    }
                    None if script.udp == Udp::Silent && udp_wanted(&log) => {}
                    None => match (script.media)(n) {
                        None => return,
                        Some(bytes) => {
                            if stream.write_all(&bytes).await.is_err() {
                                return;
                            }
                        }
                    },
                }
            }
        }
        while let Some(unit) = framer.next().unwrap() {
            let Incoming::Request(r) = unit else { continue };
            let method: &str = r.method().into();
            let url = r.request_uri().map_or("*".to_owned(), ToString::to_string);
            let get = |name: &'static str| {
                let name = HeaderName::from_static_str(name).unwrap();
                r.header(&name).map(|v| v.as_str().to_owned())
            };
            let transport = get("Transport").unwrap_or_default();
            log.send_modify(|l| l.push(format!("{method} {url} {transport}")));
            if script.mute.contains(&method) {
                continue;
            }
            let cseq = get("CSeq").unwrap();
            let answer = |status: &str, more: &str, body: &str| {
                let length = match body {
                    "" => String::new(),
                    b => format!("Content-Length: {}\r\n", b.len()),
                };
                format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{more}{length}\r\n{body}")
            };
            asked += 1;
            if let Some(challenge) = script.login.and_then(|login| login(&r, asked)) {
                log.send_modify(|l| l.push(format!("401 {method}")));
                let text = answer("401 Unauthorized", &challenge, "");
                stream.write_all(text.as_bytes()).await.unwrap();
                continue;
            }
            let session = format!("Session: {}\r\n", script.session);
            let text = match r.method() {
                Method::Options => answer(
                    "200 OK",
                    "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER\r\n",
                    "",
                ),
                Method::Describe => {
                    let base = script
                        .content_base
                        .map_or(String::new(), |b| format!("Content-Base: {b}\r\n"));
                    answer("200 OK", &base, script.sdp)
                }
                Method::Setup if transport.contains("TCP") => {
                    udp = None;
                    answer(
                        "200 OK",
                        &format!("{session}Transport: {transport};ssrc=7\r\n"),
                        "",
                    )
                }
                Method::Setup => match script.udp {
                    Udp::Refused => answer("461 Unsupported Transport", "", ""),
                    kind => {
                        if kind == Udp::Swapped {
                            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                            let port = transport.split("client_port=").nth(1).unwrap();
                            let port: u16 = port.split('-').next().unwrap().parse().unwrap();
                            udp = Some((socket, ([127, 0, 0, 1], port).into()));
                        }
                        answer(
                            "200 OK",
                            &format!("{session}Transport: {transport};server_port=9-10\r\n"),
                            "",
                        )
                    }
                },
                Method::Play => {
                    playing = true;
                    stream.write_all(&(script.before_play)()).await.unwrap();
                    answer("200 OK", "", "")
                }
                Method::Teardown => {
                    playing = false;
                    answer("200 OK", "", "")
                }
                _ => answer("200 OK", "", ""),
            };
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    }
}

/// Was the last SETUP one over UDP?
fn udp_wanted(log: &watch::Sender<Vec<String>>) -> bool {
    let log = log.borrow();
    log.iter()
        .rev()
        .find(|l| l.starts_with("SETUP"))
        .is_some_and(|l| l.contains("client_port"))
}

/// A gateway's pull of one camera.
struct Pull {
    streams: Streams,
    id: StreamId,
    stop: watch::Sender<bool>,
}

impl Pull {
    fn start(fake: &Fake, path: &str, change: impl FnOnce(&mut Camera)) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_test_writer()
            .try_init();
        let id = StreamId::parse("gate-1/main").unwrap();
        let url = format!("rtsp://{}/{path}", fake.addr).parse().unwrap();
        let mut camera = Camera::new(id.clone(), url);
        camera.on_demand = false;
        change(&mut camera);
        let streams = Streams::new(StreamsLimits::default());
        let (stop, stopped) = watch::channel(false);
        let io = tokio::runtime::Handle::current();
        drop(pull::start(&io, &[camera], &streams, &stopped));
        Self { streams, id, stop }
    }

    async fn reader(&self) -> Reader {
        let live = async {
            loop {
                if let Ok(r) = self.streams.read(&self.id, PATIENCE).await {
                    return r;
                }
                self.streams.changes().await;
            }
        };
        timeout(PATIENCE, live).await.expect("the camera is live")
    }

    async fn until_phase(&self, phase: &str) {
        let reached = async {
            while self
                .streams
                .status()
                .first()
                .is_none_or(|s| s.phase != phase)
            {
                self.streams.changes().await;
            }
        };
        timeout(PATIENCE, reached).await.expect(phase);
    }
}

/// The numbers and times of the next frames.
async fn frames(reader: &mut Reader, count: usize) -> Vec<(u8, u64)> {
    let mut out = Vec::new();
    let all = async {
        while out.len() < count {
            if let Item::Frame { frame, time } = reader.next().await {
                let payload: Bytes = frame.payloads.get(0).unwrap();
                out.push((payload[0], time));
            }
        }
    };
    let done = timeout(PATIENCE, all).await;
    done.unwrap_or_else(|_| panic!("{} of {count} frames came", out.len()));
    out
}

fn account(c: &mut Camera) {
    c.username = Some("viewer".into());
    c.password = Some("pa\"ss".into());
}

fn ha1(sha256: bool) -> String {
    use md5::Md5;
    let text = "viewer:the \"gate\":pa\"ss";
    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    if sha256 {
        hex(&Sha256::digest(text))
    } else {
        hex(&Md5::digest(text))
    }
}

/// None when the request's Digest is right and has this nonce.
fn digest(r: &Request, nonce: &str, sha256: bool, stale: bool) -> Option<String> {
    let given = r.header(&rtsp_types::headers::AUTHORIZATION);
    if let Some(Credentials::Digest(d)) = given.and_then(|v| Credentials::parse(v.as_str()))
        && d.nonce == nonce
        && d.verify(&ha1(sha256), r.method().into())
        && Some(d.uri) == r.request_uri().map(ToString::to_string)
    {
        return None;
    }
    let algorithm = if sha256 {
        ", algorithm=SHA-256, qop=\"auth\""
    } else {
        ""
    };
    let stale = if stale { ", stale=true" } else { "" };
    Some(format!(
        "WWW-Authenticate: Digest realm=\"the \\\"gate\\\"\", nonce=\"{nonce}\"{algorithm}{stale}\r\n"
    ))
}

#[tokio::test]
async fn logins_by_md5_and_sha256_with_quotes_and_stale_nonces() {
    let logins: [fn(&Request, usize) -> Option<String>; 3] = [
        |r, _| digest(r, "n1", false, false),
        |r, _| digest(r, "n1", true, false),
        // The nonce is worn out in the middle.
        |r, asked| digest(r, if asked > 4 { "n2" } else { "n1" }, false, asked > 4),
    ];
    for login in logins {
        let script = Script {
            login: Some(login),
            ..Script::default()
        };
        let fake = Fake::start(script, None).await;
        let pull = Pull::start(&fake, "live", account);
        frames(&mut pull.reader().await, 5).await;
    }
}

#[tokio::test]
async fn a_keep_alive_with_a_worn_out_nonce_is_repeated_with_the_new_one() {
    let script = Script {
        session: "1;timeout=2",
        login: Some(|r, _| {
            let late = *r.method() == Method::GetParameter;
            digest(r, if late { "n2" } else { "n1" }, false, late)
        }),
        ..Script::default()
    };
    let fake = Fake::start(script, None).await;
    let pull = Pull::start(&fake, "live", account);
    let mut reader = pull.reader().await;
    fake.said("401 GET_PARAMETER").await;
    frames(&mut reader, 100).await;
    assert_eq!(fake.count("DESCRIBE"), 1, "connected once");
    assert_eq!(fake.count("401 GET_PARAMETER"), 1);
    assert!(fake.count("GET_PARAMETER") > 1);
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_basic_is_not_given_away() {
    let script = Script {
        login: Some(|r, asked| digest(r, &format!("n{asked}"), false, false)),
        ..Script::default()
    };
    let fake = Fake::start(script, None).await;
    let _pull = Pull::start(&fake, "live", account);
    fake.said("closed").await;
    assert_eq!((fake.count("401"), fake.count("DESCRIBE")), (2, 0));

    let script = Script {
        login: Some(|r, _| {
            let given = r.header(&rtsp_types::headers::AUTHORIZATION);
            let right = "Basic dmlld2VyOnBhInNz";
            (given.map(rtsp_types::HeaderValue::as_str) != Some(right))
                .then(|| "WWW-Authenticate: Basic realm=\"x\"\r\n".to_owned())
        }),
        ..Script::default()
    };
    let fake = Fake::start(script.clone(), None).await;
    let _pull = Pull::start(&fake, "live", account);
    fake.said("closed").await;
    assert_eq!(fake.count("401"), 1, "the password stays here");
    let fake = Fake::start(script, None).await;
    let pull = Pull::start(&fake, "live", |c| {
        account(c);
        c.basic_auth = true;
    });
    frames(&mut pull.reader().await, 5).await;
}

#[tokio::test]
async fn udp_that_is_refused_or_brings_nothing_becomes_tcp() {
    for udp in [Udp::Refused, Udp::Silent] {
        let script = Script {
            udp,
            ..Script::default()
        };
        let fake = Fake::start(script, None).await;
        let pull = Pull::start(&fake, "live", |c| c.transport = CameraTransport::Auto);
        let mut reader = pull.reader().await;
        frames(&mut reader, 5).await;
        assert_eq!(fake.count("SETUP"), 2);
        assert!(
            fake.said("SETUP").await.contains("client_port"),
            "UDP came first"
        );
    }
}

#[tokio::test]
async fn udp_packets_out_of_order_are_put_in_order() {
    let script = Script {
        udp: Udp::Swapped,
        ..Script::default()
    };
    let fake = Fake::start(script, None).await;
    let pull = Pull::start(&fake, "live", |c| c.transport = CameraTransport::Udp);
    let got = frames(&mut pull.reader().await, 40).await;
    // The very first packet came late and is lost.
    let gaps = got.windows(2).filter(|w| w[1].0 != w[0].0.wrapping_add(1));
    assert_eq!(gaps.count(), 0, "{got:?}");
}

#[tokio::test]
async fn the_cameras_timeout_rules_and_get_parameter_may_stay_unanswered() {
    let script = Script {
        session: "1 ; timeout=2",
        mute: &["GET_PARAMETER"],
        ..Script::default()
    };
    let fake = Fake::start(script, None).await;
    let pull = Pull::start(&fake, "live", |_| {});
    let mut reader = pull.reader().await;
    fake.said("GET_PARAMETER").await;
    let log = &fake.log;
    let again = |l: &Vec<String>| l.iter().filter(|l| l.starts_with("OPTIONS")).count() > 2;
    timeout(PATIENCE, log.clone().wait_for(again))
        .await
        .expect("OPTIONS keep it alive")
        .unwrap();
    frames(&mut reader, 5).await;
    assert_eq!(fake.count("GET_PARAMETER"), 1);
    assert_eq!(fake.count("DESCRIBE"), 1, "one connection all the time");
}

#[tokio::test]
async fn unusual_descriptions_are_understood() {
    for (sdp, content_base, setup, play) in [
        (PLAIN, None, "/live?ch=1/track1", "/live?ch=1"),
        (
            "v=0\no=x\ns=\na=control:*\nm=audio 5004 RTP/AVP 8\na=control:/track2\n",
            Some("rtsp://viewer@10.1.1.1/base/"),
            "rtsp://10.1.1.1/base/track2",
            "rtsp://10.1.1.1/base/",
        ),
        (
            "v=0\r\na=control:rtsp://10.1.1.1/all\r\na=range:npt=bad\r\nm=audio 0 RTP/AVP 8\r\na=control:rtsp://10.1.1.1/one\r\n",
            None,
            "rtsp://10.1.1.1/one",
            "rtsp://10.1.1.1/all",
        ),
        ("m=audio 0 RTP/AVP 8\n", None, "/live?ch=1", "/live?ch=1"),
    ] {
        let script = Script {
            sdp,
            content_base,
            mute: if content_base.is_some() {
                &["OPTIONS"]
            } else {
                &[]
            },
            ..Script::default()
        };
        let fake = Fake::start(script, None).await;
        let pull = Pull::start(&fake, "live?ch=1", |_| {});
        frames(&mut pull.reader().await, 3).await;
        let own = |path: &str| match path.strip_prefix('/') {
            Some(p) => format!("rtsp://{}/{p}", fake.addr),
            None => path.to_owned(),
        };
        let line = fake.said("SETUP").await;
        assert_eq!(line.split(' ').nth(1), Some(own(setup).as_str()), "{sdp}");
        let line = fake.said("PLAY").await;
        assert_eq!(line.split(' ').nth(1), Some(own(play).as_str()), "{sdp}");
    }
}

#[tokio::test]
async fn data_before_play_foreign_sources_and_garbage_lose_nothing() {
    let script = Script {
        before_play: || {
            let mut all = interleaved(0, &sound(0, 0, 7));
            // A medium that nobody set up.
            all.extend(interleaved(6, &sound(9, 0, 7)));
            all
        },
        media: |n| {
            // Another session's data (old live555), a maker's own type, and a tail of a packet.
            let mut all = interleaved(0, &sound(n + 500, 77, 99));
            let mut own = sound(n, 5, 7);
            own[1] = 50;
            all.extend(interleaved(0, &own));
            all.extend(b"tail of something $\xf0");
            all.extend(interleaved(0, &sound(n, n * 160, 7)));
            Some(all)
        },
        ..Script::default()
    };
    let fake = Fake::start(script, None).await;
    let pull = Pull::start(&fake, "live", |c| {
        // Read from the first frame on.
        c.on_demand = true;
    });
    let got = frames(&mut pull.reader().await, 30).await;
    let first = got[0].0;
    let all: Vec<u8> = got.iter().map(|f| f.0).collect();
    let wanted: Vec<u8> = (first..first + 30).collect();
    assert_eq!(all, wanted);
    assert_eq!(fake.count("DESCRIBE"), 1);
}

#[tokio::test]
async fn clocks_that_stand_still_or_jump_back_do_not_stop_the_stream() {
    let script = Script {
        media: |n| {
            let time = match n {
                0..20 => n * 160 + 4_000_000,
                20..40 => 4_003_200,
                40..60 => n * 160,
                _ => 2_000_000_000 + n * 160,
            };
            Some(interleaved(0, &sound(n, time, 7)))
        },
        ..Script::default()
    };
    let fake = Fake::start(script, None).await;
    let pull = Pull::start(&fake, "live", |_| {});
    let got = frames(&mut pull.reader().await, 80).await;
    for w in got.windows(2) {
        let step = w[1].1 as i64 - w[0].1 as i64;
        assert!((0..8000).contains(&step), "a step of {step} at {}", w[1].0);
        assert_eq!(w[1].0, w[0].0 + 1);
    }
}

#[tokio::test]
async fn a_camera_that_dies_without_a_word_is_connected_again_and_its_reader_goes_on() {
    let script = Script {
        media: |n| (n < 25).then(|| interleaved(0, &sound(n, n * 160, 7))),
        ..Script::default()
    };
    let fake = Fake::start(script, None).await;
    let pull = Pull::start(&fake, "live", |_| {});
    let mut reader = pull.reader().await;
    pull.until_phase("waiting").await;
    frames(&mut reader, 40).await;
    assert!(fake.count("DESCRIBE") > 1);
}

#[tokio::test]
async fn on_demand_ends_its_linger_after_the_last_reader_and_says_goodbye() {
    let fake = Fake::start(Script::default(), None).await;
    let pull = Pull::start(&fake, "live", |c| {
        c.on_demand = true;
        c.linger = Duration::from_secs(1);
    });
    assert_eq!(fake.count(""), 0, "nobody reads, nobody pulls");
    let mut reader = pull.streams.read(&pull.id, PATIENCE).await.unwrap();
    frames(&mut reader, 5).await;
    drop(reader);
    fake.said("TEARDOWN").await;
    fake.said("closed").await;
    let mut reader = pull.streams.read(&pull.id, PATIENCE).await.unwrap();
    frames(&mut reader, 5).await;
    // So does a gateway that stops: a camera that sends over UDP would go on.
    pull.stop.send(true).unwrap();
    let twice = |l: &Vec<String>| l.iter().filter(|l| l.starts_with("TEARDOWN")).count() == 2;
    timeout(PATIENCE, fake.log.clone().wait_for(twice))
        .await
        .expect("a goodbye")
        .unwrap();
}

#[tokio::test]
async fn rtsps_is_taken_from_the_right_certificate_only() {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let der = signed.cert.der().clone();
    let fingerprint: [u8; 32] = Sha256::digest(&der).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key.into())
        .unwrap();
    let fake = Fake::start(Script::default(), Some(Arc::new(tls))).await;
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own.pem");
    std::fs::write(&own, signed.cert.pem()).unwrap();
    let other = dir.path().join("other.pem");
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&other, stranger.cert.pem()).unwrap();

    let secure = |trust: Option<CameraTrust>| {
        Pull::start(&fake, "live", |c| {
            c.url = format!("rtsps://{}/live", fake.addr).parse().unwrap();
            c.trust = trust;
        })
    };
    let refused = [
        None,
        Some(CameraTrust::Fingerprint([7; 32])),
        Some(CameraTrust::Authority(other)),
    ]
    .map(secure);
    for trust in [
        CameraTrust::Fingerprint(fingerprint),
        CameraTrust::Authority(own),
    ] {
        let pull = secure(Some(trust));
        frames(&mut pull.reader().await, 5).await;
    }
    assert_eq!(fake.count("DESCRIBE"), 2, "the others never came to speak");
    for p in refused {
        assert!(p.streams.status().is_empty());
    }
}
