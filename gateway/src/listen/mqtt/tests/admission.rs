//! Who comes in, and what is refused at once.

use super::*;

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
    assert!(has(&[0x28, 1, 0x29, 1, 0x2a, 0]));
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
        (&[0x30, 3, 0, 0, 0], 0x82),                      // no topic and no alias
        (&[0x30, 6, 0, 0, 3, 0x23, 0, 9], 0x94),          // unknown alias
        (&[0xf0, 0], 0x82),                               // AUTH that nobody began
        (&[0x10, 0], 0x82),                               // a second CONNECT
        (&[0x82, 8, 0, 1, 2, 0x0b, 1, 0, 1, b'#'], 0x81), // cut short
        (&[0x30, 4, 0, 2, 0xc3, 0x28], 0x81),             // no UTF-8
        (&[0x30, 4, 0, 1, 0, 0], 0x81),                   // U+0000
        (&[0x30, 0x80, 0x80, 0x80, 0x80, 1], 0x81),       // a length of five bytes
        (&[0x30, 1, 0], 0x81),                            // shorter than its topic
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
