//! ICE restart over HTTP and the port: the credentials of the PATCH are those that checks are answered by.

use std::time::Duration;

use rtc::stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc::stun::textattrs::Username;
use tokio::net::UdpSocket;

use super::OFFER;
use super::room::{Camera, LIMIT, Room};

struct Credentials {
    ufrag: String,
    password: String,
}

fn credentials(text: &str) -> Credentials {
    let of = |begin: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(begin));
        line.expect(begin).trim().to_owned()
    };
    Credentials {
        ufrag: of("a=ice-ufrag:"),
        password: of("a=ice-pwd:"),
    }
}

fn check(c: &Credentials, theirs: &str, number: u8) -> Vec<u8> {
    let provider = rtc::crypto::default_provider().unwrap();
    let mut m = Message::new();
    m.typ = BINDING_REQUEST;
    m.transaction_id = TransactionId([number; 12]);
    m.write_header();
    Username::new(ATTR_USERNAME, format!("{}:{theirs}", c.ufrag))
        .add_to(&mut m)
        .unwrap();
    m.add(ATTR_ICE_CONTROLLING, &[1; 8]);
    m.add(ATTR_USE_CANDIDATE, &[]);
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(
        c.password.clone(),
        provider.crypto(),
    );
    integrity.add_to(&mut m).unwrap();
    FINGERPRINT.add_to(&mut m).unwrap();
    m.raw
}

/// Sends checks until check `number` is answered; gives the numbers of the other answers that came.
async fn answered(socket: &UdpSocket, check: &[u8], number: u8) -> Vec<u8> {
    let mut others = Vec::new();
    let mut again = tokio::time::interval(Duration::from_millis(200));
    let mut buffer = [0; 2048];
    let wait = async {
        loop {
            tokio::select! {
                _ = again.tick() => { socket.send(check).await.unwrap(); }
                n = socket.recv(&mut buffer) => {
                    let mut m = Message::new();
                    m.unmarshal_binary(&buffer[..n.unwrap()]).unwrap();
                    assert_eq!(m.typ, BINDING_SUCCESS);
                    if m.transaction_id == TransactionId([number; 12]) {
                        return;
                    }
                    others.push(m.transaction_id.0[0]);
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .expect("the check is answered");
    others
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_checked_from_a_new_address_and_the_old_one_is_over() {
    let room = Room::open().await;
    let _camera = Camera::start(&room.streams, "bc-01/main");
    let http = reqwest::Client::new();
    let answer = http
        .post(format!("{}/bc-01/main/whep", room.base))
        .bearer_auth(&room.token)
        .header("content-type", "application/sdp")
        .body(OFFER)
        .send()
        .await
        .unwrap();
    let session = answer.headers()["location"].to_str().unwrap().to_owned();
    let first = credentials(&answer.text().await.unwrap());
    let connect = async || {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(room.webrtc.local_addr()).await.unwrap();
        socket
    };
    let (old, new) = (connect().await, connect().await);
    answered(&old, &check(&first, "EsAw", 1), 1).await;

    let restart = "a=ice-ufrag:EsAx\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n";
    let answer = http
        .patch(format!("{}{session}", room.base))
        .bearer_auth(&room.token)
        .header("content-type", "application/trickle-ice-sdpfrag")
        .header("if-match", "\"*\"")
        .body(restart)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let second = credentials(&answer.text().await.unwrap());
    assert!(first.ufrag != second.ufrag && first.password != second.password);
    answered(&old, &check(&first, "EsAw", 2), 2).await;
    answered(&new, &check(&second, "EsAx", 3), 3).await;
    // The former credentials are answered no more: an answer to them would come before that to the new ones.
    old.send(&check(&first, "EsAw", 4)).await.unwrap();
    let others = answered(&old, &check(&second, "EsAx", 5), 5).await;
    assert!(!others.contains(&4), "{others:?}");
}
