//! Connections over loopback, with bytes written by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Shared, serve};
use crate::config;
use crate::device::testing::{self, Desk};
use crate::device::{Downlink, Fleet};
use crate::ids::DeviceId;
use crate::registry::{DeviceKind, Registry};

mod admission;
mod deaths;
mod faults;
mod flow;
mod lives;
mod tls;

const LIMIT: Duration = Duration::from_secs(10);

struct Yard {
    addr: std::net::SocketAddr,
    registry: Registry,
    fleet: Fleet,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    password: String,
    _dir: tempfile::TempDir,
}

async fn yard() -> (Yard, Desk) {
    yard_with(|_| {}).await
}

async fn yard_with(change: impl FnOnce(&mut config::Mqtt)) -> (Yard, Desk) {
    yard_on(None, change).await
}

async fn yard_on(
    tls: Option<Arc<rustls::ServerConfig>>,
    change: impl FnOnce(&mut config::Mqtt),
) -> (Yard, Desk) {
    let mut limits = config::Mqtt {
        packet_bytes_max: 4096,
        connections_max: 100,
        receive_max: 4,
        connect_timeout: Duration::from_secs(5),
    };
    change(&mut limits);
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let password = registry.add_device("d", DeviceKind::Bodycam, None).unwrap();
    let (fleet, desk) = testing::fleet(registry.clone());
    let shared = Shared::new(
        registry.clone(),
        Arc::default(),
        fleet.clone(),
        Arc::default(),
        limits,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, shutdown) = watch::channel(false);
    drop(actix_rt::spawn(serve(
        listener,
        tls,
        Arc::clone(&shared),
        shutdown,
    )));
    let yard = Yard {
        addr,
        registry,
        fleet,
        shared,
        stop,
        password,
        _dir: dir,
    };
    (yard, desk)
}

/// What a CONNECT asks for.
#[derive(Clone, Copy)]
struct Ask<'a> {
    level: u8,
    client_id: &'a str,
    clean: bool,
    keep_alive_s: u16,
    /// v5 properties, without their length.
    props: &'a [u8],
    will: Option<(&'a str, &'a str)>,
    will_delay_s: Option<u8>,
}

const V311: Ask = Ask {
    level: 4,
    client_id: "c",
    clean: true,
    keep_alive_s: 60,
    props: &[],
    will: None,
    will_delay_s: None,
};
/// Wants no reasons in words, so that packets have the same bytes as in v3.1.1.
const V5: Ask = Ask {
    level: 5,
    props: &[0x17, 0],
    ..V311
};
/// Session expiry of 600 s; no reasons.
const KEEP: &[u8] = &[0x17, 0, 0x11, 0, 0, 2, 0x58];

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend(u16::try_from(s.len()).unwrap().to_be_bytes());
    out.extend(s.as_bytes());
}

fn connect(ask: Ask, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT".to_vec();
    body.push(ask.level);
    body.push(0xc0 | u8::from(ask.clean) << 1 | u8::from(ask.will.is_some()) << 2);
    body.extend(ask.keep_alive_s.to_be_bytes());
    if ask.level == 5 {
        body.push(u8::try_from(ask.props.len()).unwrap());
        body.extend(ask.props);
    }
    text(&mut body, ask.client_id);
    if let Some((topic, payload)) = ask.will {
        match ask.will_delay_s {
            Some(s) => body.extend([5, 0x18, 0, 0, 0, s]),
            None if ask.level == 5 => body.push(0),
            None => {}
        }
        text(&mut body, topic);
        text(&mut body, payload);
    }
    text(&mut body, user);
    text(&mut body, password);
    packet(0x10, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384);
    let (low, high) = (body.len() & 0x7f, body.len() >> 7);
    let mut p = vec![first];
    if high == 0 {
        p.push(u8::try_from(low).unwrap());
    } else {
        p.push(0x80 | u8::try_from(low).unwrap());
        p.push(u8::try_from(high).unwrap());
    }
    p.extend(body);
    p
}

fn publish(level: u8, qos: u8, id: u16, topic: &str, payload: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if level == 5 {
        body.push(0);
    }
    body.extend(payload.as_bytes());
    packet(0x30 | qos << 1, &body)
}

const REPORT: &str = "kerbside/v1/d/report";
const FIX: &str = r#"{"position":{"lat":37.69,"lon":112.75}}"#;

struct Client {
    io: TcpStream,
    buf: BytesMut,
    level: u8,
}

impl Client {
    async fn to(y: &Yard, ask: Ask<'_>) -> (Self, Vec<u8>) {
        let mut c = Self::raw(y, ask.level).await;
        c.send(&connect(ask, "d", &y.password)).await;
        let ack = c.next().await.expect("CONNACK");
        assert_eq!(ack[0], 0x20);
        (c, ack)
    }

    async fn raw(y: &Yard, level: u8) -> Self {
        Self {
            io: TcpStream::connect(y.addr).await.unwrap(),
            buf: BytesMut::new(),
            level,
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    async fn publish(&mut self, qos: u8, id: u16, payload: &str) {
        let p = publish(self.level, qos, id, REPORT, payload);
        self.send(&p).await;
    }

    /// The next packet; None: closed.
    async fn next(&mut self) -> Option<Vec<u8>> {
        timeout(LIMIT, async {
            loop {
                if self.buf.len() >= 2 {
                    let len = 2 + usize::from(self.buf[1]);
                    if self.buf.len() >= len {
                        return Some(self.buf.split_to(len).to_vec());
                    }
                }
                match self.io.read_buf(&mut self.buf).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
        .expect("no answer in time")
    }

    async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        assert_eq!(self.next().await.unwrap(), [0xd0, 0]);
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) -> Vec<u8> {
        self.subscribe_with(&[], filter, qos).await
    }

    /// `props`: of v5, without their length. `qos`: with the options beside it.
    async fn subscribe_with(&mut self, props: &[u8], filter: &str, qos: u8) -> Vec<u8> {
        let mut body = vec![0, 1];
        if self.level == 5 {
            body.push(u8::try_from(props.len()).unwrap());
            body.extend(props);
        }
        text(&mut body, filter);
        body.push(qos);
        self.send(&packet(0x82, &body)).await;
        self.next().await.unwrap()
    }
}
