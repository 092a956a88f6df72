//! One session's connection: its life, its paths, and who cannot move it.

use super::*;
use tokio::net::UdpSocket;

use super::super::ice::tests::request;
use super::super::metrics::DROPPED;
use super::super::secure::Identity;
use super::super::sessions::{Entry, Role, Sessions, TcpPath};
use crate::registry::{self, Principal};
use crate::stream::Fanout;

/// A session's transport and the socket and DTLS of its other side.
async fn connected(now: Instant) -> (Transport, UdpSocket, Secure) {
    let ours = Identity::generate().unwrap();
    let theirs = Identity::generate().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = Port::new(socket).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let entry = Entry {
        id: "id".into(),
        owner: Principal::User(registry::User::new("anna", registry::Role::Operator)),
        role: Role::Play,
        remote_ufrag: "them".to_owned(),
        inbox: Arc::default(),
        restart: ice::Restart::default(),
    };
    let seat = Sessions::new(1).open("us", entry).unwrap();
    let transport = Transport::new(
        Arc::from([Arc::new(socket)]),
        seat,
        Lite::new(ours.crypto.clone(), "us", "password"),
        Secure::new(ours.clone(), theirs.fingerprint, false),
        now,
    );
    (transport, peer, Secure::new(theirs, ours.fingerprint, true))
}

async fn hears(t: &mut Transport, peer: &UdpSocket, now: Instant, data: &[u8]) {
    let datagram = Datagram {
        from: peer.local_addr().unwrap(),
        via: Via::Udp(0),
        data: Bytes::copy_from_slice(data),
    };
    assert!(t.handle(now, &datagram).unwrap().is_none());
    t.flush(&mut Burst::default());
}

#[tokio::test]
async fn a_session_lives_as_long_as_it_is_checked() {
    let now = Instant::now();
    let (mut t, peer, mut client) = connected(now).await;
    let check = request("us:them", "password", true);
    hears(&mut t, &peer, now, &check).await;
    let mut buf = [0; 2048];
    let n = peer.recv(&mut buf).await.unwrap();
    assert_eq!(ice::kind(&buf[..n]), Kind::Stun, "the check is answered");
    client.path_found(now).unwrap();
    while !(t.is_ready() && client.is_ready()) {
        while let Some(d) = client.poll_transmit() {
            hears(&mut t, &peer, now, &d).await;
        }
        if !client.is_ready() {
            let n = peer.recv(&mut buf).await.unwrap();
            client.handle_dtls(now, &buf[..n]).unwrap();
        }
    }
    assert_eq!(t.deadline(), now + ice::CONSENT);
    let later = now + ice::CONSENT / 2;
    hears(&mut t, &peer, later, &check).await;
    assert_eq!(t.handle_timeout(now + ice::CONSENT), Ok(()));
    assert_eq!(
        t.handle_timeout(later + ice::CONSENT),
        Err(End("consent_lost"))
    );
}

/// Wi-Fi to 4G: the client's address changes, DTLS and SRTP go on.
#[tokio::test]
async fn media_follow_a_nominated_address_and_nothing_else() {
    let now = Instant::now();
    let (mut t, peer, mut client) = connected(now).await;
    hears(&mut t, &peer, now, &request("us:them", "password", true)).await;
    let mut buf = [0; 2048];
    peer.recv(&mut buf).await.unwrap();
    client.path_found(now).unwrap();
    while !(t.is_ready() && client.is_ready()) {
        while let Some(d) = client.poll_transmit() {
            hears(&mut t, &peer, now, &d).await;
        }
        if !client.is_ready() {
            let n = peer.recv(&mut buf).await.unwrap();
            client.handle_dtls(now, &buf[..n]).unwrap();
        }
    }
    let thief = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut burst = Burst::default();
    let header = [0x80, 96, 0, 1, 0, 0, 0, 9, 0, 0, 0, 5];
    let sealer = client.sealer().unwrap();
    sealer.seal(&header, &[1], 1, &mut burst).unwrap();
    let genuine = Bytes::copy_from_slice(burst.iter().next().unwrap());
    for attempt in [
        request("us:them", "guessed", true),
        request("other:them", "password", true),
        vec![0x80; 200],
    ] {
        hears(&mut t, &thief, now, &attempt).await;
    }
    // A replayed packet of the client moves nothing either.
    let replayed = Datagram {
        from: thief.local_addr().unwrap(),
        via: Via::Udp(0),
        data: genuine,
    };
    assert!(matches!(t.handle(now, &replayed), Ok(Some(Input::Rtp(_)))));
    assert_eq!(t.ice.remote(), Some(peer.local_addr().unwrap()));
    // Again and again: it comes out once, and each time after that is counted.
    let count = || DROPPED.with_label_values(&["replayed"]).get();
    let before = count();
    for _ in 0..1000 {
        assert!(matches!(t.handle(now, &replayed), Ok(None)));
    }
    assert_eq!(count() - before, 1000);
    let moved = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    hears(&mut t, &moved, now, &request("us:them", "password", true)).await;
    moved.recv(&mut buf).await.unwrap();
    let rtp = [0x80, 96, 0, 2, 0, 0, 0, 9, 0, 0, 0, 6, 7];
    burst.clear();
    let sealer = t.sealer().unwrap();
    sealer.seal(&rtp[..12], &rtp[12..], 2, &mut burst).unwrap();
    t.transmit(&burst);
    let n = moved.recv(&mut buf).await.unwrap();
    let opened = client.open_rtp(&buf[..n]).unwrap();
    assert_eq!(opened[..], rtp, "the same keys on the new path");
    assert!(thief.try_recv(&mut buf).is_err());
}

#[tokio::test]
async fn a_session_that_is_never_set_up_ends() {
    let now = Instant::now();
    let (mut t, peer, _) = connected(now).await;
    hears(&mut t, &peer, now, &request("us:them", "wrong", true)).await;
    let junk = [22, 254, 253, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    hears(&mut t, &peer, now, &junk).await;
    assert!(!t.is_ready());
    let until = t.deadline();
    assert!(until <= now + SETUP_MAX);
    assert_eq!(t.handle_timeout(now + SETUP_MAX), Err(End("setup_timeout")));
}

#[tokio::test]
async fn a_new_tcp_connection_knows_whom_to_kick() {
    let (mut t, _, _) = connected(Instant::now()).await;
    let reader = Fanout::start(1).unwrap().place(None);
    assert!(t.has_room(&reader), "UDP always has");
    for _ in 0..2 {
        let (queue, _taken) = tokio::sync::mpsc::channel(TCP_ROOM + 1);
        let room = Arc::<std::sync::OnceLock<Kick>>::default();
        let path = TcpPath {
            queue: queue.clone(),
            room: room.clone(),
        };
        t.via = Via::Tcp(path);
        assert!(t.has_room(&reader));
        queue.try_send(Bytes::new()).unwrap();
        assert!(!t.has_room(&reader));
        assert!(room.get().is_some(), "or it would wait for ever");
    }
}

#[test]
fn strangers_are_not_tried_for_ever() {
    let mut s = Sources::default();
    assert!(s.may_try(1));
    s.is_genuine(1);
    let tried = (100..10_000).filter(|ssrc| s.may_try(*ssrc)).count();
    assert_eq!(tried, STRANGERS_MAX as usize);
    assert!(s.may_try(1), "the genuine one still is");
}
