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
use crate::registry::{DeviceKind, Guard, Registry};

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
    let shared = Shared::new(registry.clone(), Arc::default(), fleet.clone(), limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, shutdown) = watch::channel(false);
    drop(actix_rt::spawn(serve(
        listener,
        None,
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
}

const V311: Ask = Ask {
    level: 4,
    client_id: "c",
    clean: true,
    keep_alive_s: 60,
    props: &[],
    will: None,
};
const V5: Ask = Ask { level: 5, ..V311 };
/// Session expiry of 600 s.
const KEEP: &[u8] = &[0x11, 0, 0, 2, 0x58];

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
        if ask.level == 5 {
            body.push(0);
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
        let mut body = vec![0, 1];
        if self.level == 5 {
            body.push(0);
        }
        text(&mut body, filter);
        body.push(qos);
        self.send(&packet(0x82, &body)).await;
        self.next().await.unwrap()
    }
}

#[actix::test]
async fn wrong_credentials_get_their_code_and_a_closed_connection() {
    let (y, _desk) = yard().await;
    for (ask, answer) in [(V311, vec![0x20, 2, 0, 5]), (V5, vec![0x20, 3, 0, 0x86, 0])] {
        for (user, password) in [("d", "wrong"), ("nobody", y.password.as_str()), ("", "")] {
            let mut c = Client::raw(&y, ask.level).await;
            c.send(&connect(ask, user, password)).await;
            assert_eq!(c.next().await.unwrap(), answer);
            assert_eq!(c.next().await, None);
        }
    }
}

#[actix::test]
async fn connack_tells_a_v5_client_the_limits() {
    let (y, desk) = yard().await;
    desk.own_all();
    let ask = Ask {
        client_id: "",
        keep_alive_s: 0,
        ..V5
    };
    let (_c, ack) = Client::to(&y, ask).await;
    let props = &ack[5..];
    let has = |want: &[u8]| props.windows(want.len()).any(|w| w == want);
    assert_eq!(&ack[2..4], [0, 0]);
    assert!(has(&[0x21, 0, 4]), "Receive Maximum");
    assert!(has(&[0x22, 0, 16]), "Topic Alias Maximum");
    assert!(has(&[0x27, 0, 0, 16, 0]), "Maximum Packet Size");
    assert!(has(&[0x13, 4, 0xb0]), "Server Keep Alive");
    assert!(has(&[0x12, 0, 32]), "Assigned Client Identifier");
    assert!(has(&[0x28, 1, 0x29, 0, 0x2a, 0]));
}

#[actix::test]
async fn an_acknowledgement_is_held_until_owned_and_pings_are_answered() {
    let (y, mut desk) = yard().await;
    for ask in [V311, V5] {
        let ((mut c, _), (_, online)) = tokio::join!(Client::to(&y, ask), async {
            let (f, answer) = desk.next().await;
            (f, answer.send(true).unwrap())
        });
        assert_eq!(online, ());
        // As many as a v5 client may have under way; one more PINGREQ behind them.
        for id in 1..=3 {
            c.publish(1, id, FIX).await;
        }
        c.publish(2, 9, FIX).await;
        let (_, first) = desk.report().await;
        if ask.level == 5 {
            c.ping().await;
        }
        first.send(true).unwrap();
        assert_eq!(c.next().await.unwrap(), [0x40, 2, 0, 1]);
        c.ping().await;
        desk.report().await.1.send(true).unwrap();
        desk.report().await.1.send(true).unwrap();
        assert_eq!(c.next().await.unwrap(), [0x40, 2, 0, 2]);
        assert_eq!(c.next().await.unwrap(), [0x40, 2, 0, 3]);
        desk.report().await.1.send(true).unwrap();
        assert_eq!(c.next().await.unwrap(), [0x50, 2, 0, 9]);
        c.publish(2, 9, FIX).await;
        assert_eq!(
            c.next().await.unwrap(),
            [0x50, 2, 0, 9],
            "not handed over again"
        );
        c.send(&[0x62, 2, 0, 9]).await;
        assert_eq!(c.next().await.unwrap(), [0x70, 2, 0, 9]);
        c.send(&[0xe0, 0]).await;
        assert_eq!(c.next().await, None);
        let (fact, answer) = desk.next().await;
        assert!(matches!(
            fact,
            crate::picture::Fact::Session { online: false, .. }
        ));
        answer.send(true).unwrap();
    }
}

#[actix::test]
async fn what_nobody_takes_is_not_acknowledged() {
    let (y, mut desk) = yard().await;
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((mut c, _), ()) = tokio::join!(Client::to(&y, V5), accept);
    c.publish(1, 7, FIX).await;
    desk.report().await.1.send(false).unwrap();
    assert_eq!(c.next().await.unwrap(), [0x40, 3, 0, 7, 0x97]);

    let ask = Ask {
        client_id: "old",
        ..V311
    };
    let (mut c, _) = Client::to(&y, ask).await;
    c.publish(1, 7, FIX).await;
    desk.report().await.1.send(false).unwrap();
    assert_eq!(c.next().await, None);
}

#[actix::test]
async fn topics_of_others_are_refused() {
    let (y, desk) = yard().await;
    desk.own_all();
    let theirs = "kerbside/v1/other/report";
    let (mut c, _) = Client::to(&y, V5).await;
    c.send(&publish(5, 1, 1, theirs, FIX)).await;
    assert_eq!(c.next().await.unwrap(), [0x40, 3, 0, 1, 0x87]);
    c.send(&publish(5, 2, 2, theirs, FIX)).await;
    assert_eq!(c.next().await.unwrap(), [0x50, 3, 0, 2, 0x87]);
    assert_eq!(c.subscribe("#", 1).await, [0x90, 4, 0, 1, 0, 0x87]);
    let own = "kerbside/v1/d/down/#";
    assert_eq!(c.subscribe(own, 1).await, [0x90, 4, 0, 1, 0, 1]);

    let ask = Ask {
        client_id: "old",
        ..V311
    };
    let (mut c, _) = Client::to(&y, ask).await;
    assert_eq!(
        c.subscribe("kerbside/v1/+/down/#", 1).await,
        [0x90, 3, 0, 1, 0x80]
    );
    c.send(&publish(4, 0, 0, theirs, FIX)).await;
    assert_eq!(c.next().await, None);
}

#[actix::test]
async fn bad_packets_end_their_connection_only() {
    let (y, desk) = yard().await;
    desk.own_all();
    let ask = Ask {
        client_id: "good",
        ..V5
    };
    let (mut good, _) = Client::to(&y, ask).await;
    let large = publish(5, 0, 0, REPORT, &"x".repeat(5000));
    for (bytes, reason) in [
        (&[0x36, 0][..], 0x81),                           // QoS 3
        (&large[..], 0x95),                               // larger than we said
        (&[0x30, 3, 0, 0, 0], 0x81),                      // no topic and no alias
        (&[0x30, 6, 0, 0, 3, 0x23, 0, 9], 0x94),          // unknown alias
        (&[0xf0, 0], 0x82),                               // AUTH that nobody began
        (&[0x10, 0], 0x82),                               // a second CONNECT
        (&[0x82, 8, 0, 1, 2, 0x0b, 1, 0, 1, b'#'], 0x81), // cut short
    ] {
        let (mut c, _) = Client::to(&y, V5).await;
        c.send(bytes).await;
        assert_eq!(c.next().await, Some(vec![0xe0, 1, reason]), "{bytes:x?}");
        assert_eq!(c.next().await, None);
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x10, 4, 0, 4, b'M', b'Q'],
        &[0xc0, 0],
        &[0x10, 0xff, 0xff, 0x7f],
    ] {
        let mut c = Client::raw(&y, 4).await;
        c.send(bytes).await;
        assert_eq!(c.next().await, None, "{bytes:x?}");
    }
    let mut c = Client::raw(&y, 4).await;
    c.send(&packet(0x10, b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01c"))
        .await;
    assert_eq!(c.next().await.unwrap(), [0x20, 2, 0, 1]);
    good.ping().await;
}

#[actix::test]
async fn more_than_the_receive_maximum_ends_the_connection() {
    let (y, mut desk) = yard().await;
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((mut c, _), ()) = tokio::join!(Client::to(&y, V5), accept);
    for id in 1..=5 {
        c.publish(1, id, FIX).await;
    }
    let (_, _held) = desk.report().await;
    let mut last = Vec::new();
    while let Some(p) = c.next().await {
        last = p;
    }
    assert_eq!(last, [0xe0, 1, 0x93]);
}

#[actix::test]
async fn a_flood_waits_in_the_socket() {
    let (y, mut desk) = yard().await;
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((mut c, _), ()) = tokio::join!(Client::to(&y, V311), accept);
    let payload = format!("{FIX}{}", " ".repeat(3000));
    let message = publish(4, 0, 0, REPORT, &payload);
    let mut sent = 0;
    // The owner holds the first: soon nobody reads any more.
    let (_, held) = {
        let flood = async {
            loop {
                c.io.write_all(&message).await.unwrap();
                sent += 1;
            }
        };
        tokio::select! {
            () = flood => unreachable!(),
            held = desk.report() => held,
        }
    };
    while timeout(Duration::from_millis(300), c.io.write_all(&message))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 10_000, "the flood is taken without end");
    }
    held.send(true).unwrap();
    for _ in 0..20 {
        desk.report().await.1.send(true).unwrap();
    }
}

#[actix::test]
async fn a_second_connection_takes_over_with_the_session() {
    let (y, desk) = yard().await;
    desk.own_all();
    let ask = Ask {
        clean: false,
        props: KEEP,
        ..V5
    };
    let (mut one, ack) = Client::to(&y, ask).await;
    assert_eq!(ack[2], 0, "no session yet");
    one.subscribe("kerbside/v1/d/down/#", 1).await;
    let (mut two, ack) = Client::to(&y, ask).await;
    assert_eq!(one.next().await, Some(vec![0xe0, 1, 0x8e]));
    assert_eq!(one.next().await, None);
    assert_eq!(ack[2], 1, "session present");
    let order = Downlink {
        topic: "kerbside/v1/d/down/go".into(),
        payload: "{}".into(),
        qos: 1,
    };
    let device = DeviceId::parse("d").unwrap();
    y.fleet.send(&device, order.clone()).await.unwrap();
    let p = two.next().await.unwrap();
    assert_eq!(p[0], 0x32, "the subscription came along");
    // Not acknowledged; and one more while nobody is there.
    drop(two);
    let offline = async {
        while y
            .shared
            .connected
            .taken
            .load(std::sync::atomic::Ordering::Relaxed)
            > 0
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, offline).await.unwrap();
    y.fleet.send(&device, order).await.unwrap();
    let (mut three, ack) = Client::to(&y, ask).await;
    assert_eq!(ack[2], 1);
    assert_eq!(three.next().await.unwrap()[0], 0x3a, "again, with DUP");
    assert_eq!(three.next().await.unwrap()[0], 0x32);
    let fresh = Ask { clean: true, ..ask };
    let (_four, ack) = Client::to(&y, fresh).await;
    assert_eq!(ack[2], 0);
}

#[actix::test]
async fn the_number_of_sessions_and_connections_is_bounded() {
    let (y, desk) = yard_with(|l| l.connections_max = 5).await;
    desk.own_all();
    let mut held = Vec::new();
    for n in 0..4 {
        let id = n.to_string();
        held.push(
            Client::to(
                &y,
                Ask {
                    client_id: &id,
                    ..V5
                },
            )
            .await
            .0,
        );
    }
    let (_, ack) = Client::to(
        &y,
        Ask {
            client_id: "x",
            ..V5
        },
    )
    .await;
    assert_eq!(ack, [0x20, 3, 0, 0x97, 0], "a fifth of one device");
    let password = y.registry.add_device("e", DeviceKind::Radio, None).unwrap();
    for answer in [0, 0x89] {
        let mut c = Client::raw(&y, 5).await;
        c.send(&connect(
            Ask {
                client_id: "",
                ..V5
            },
            "e",
            &password,
        ))
        .await;
        assert_eq!(c.next().await.unwrap()[3], answer);
        held.push(c);
    }
}

#[actix::test]
async fn a_will_is_a_message_of_a_device_that_broke_off() {
    let (y, mut desk) = yard().await;
    let will = Ask {
        will: Some((REPORT, FIX)),
        ..V311
    };
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((c, _), ()) = tokio::join!(Client::to(&y, will), accept);
    drop(c);
    let (report, answer) = desk.report().await;
    assert_eq!(report.device, "d");
    answer.send(true).unwrap();
    desk.own_all();

    let mut c = Client::raw(&y, 5).await;
    let theirs = Ask {
        will: Some(("kerbside/v1/other/report", FIX)),
        ..V5
    };
    c.send(&connect(theirs, "d", &y.password)).await;
    assert_eq!(c.next().await.unwrap(), [0x20, 3, 0, 0x87, 0]);
}

#[actix::test]
async fn revocation_and_shutdown_end_sessions() {
    let (y, desk) = yard().await;
    desk.own_all();
    let other = y.registry.add_device("e", DeviceKind::Radio, None).unwrap();
    let (mut c, _) = Client::to(&y, V5).await;
    let mut e = Client::raw(&y, 5).await;
    e.send(&connect(V5, "e", &other)).await;
    e.next().await.unwrap();
    y.registry.revoke_device("d").unwrap();
    assert_eq!(c.next().await, Some(vec![0xe0, 1, 0x98]));
    assert_eq!(c.next().await, None);
    e.ping().await;
    y.stop.send(true).unwrap();
    assert_eq!(e.next().await, Some(vec![0xe0, 1, 0x8b]));
    assert_eq!(e.next().await, None);
}

#[actix::test]
async fn silence_ends_a_connection() {
    let (y, desk) = yard_with(|l| l.connect_timeout = Duration::from_millis(50)).await;
    desk.own_all();
    let mut mute = Client::raw(&y, 5).await;
    assert_eq!(mute.next().await, None, "no CONNECT");
    let ask = Ask {
        keep_alive_s: 1,
        ..V5
    };
    let (mut c, _) = Client::to(&y, ask).await;
    assert_eq!(c.next().await, Some(vec![0xe0, 1, 0x8d]));
}
