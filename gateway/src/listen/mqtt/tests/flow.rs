//! Messages up: ownership, order, authority, bounds.

use super::*;

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
        let mut again = publish(ask.level, 2, 9, REPORT, FIX);
        again[0] |= 0b1000;
        c.send(&again).await;
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
async fn what_came_before_a_disconnect_is_not_lost() {
    let (y, mut desk) = yard().await;
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((mut c, _), ()) = tokio::join!(Client::to(&y, V311), accept);
    let mut last = publish(4, 0, 0, REPORT, FIX);
    last.extend(publish(4, 0, 0, REPORT, FIX));
    last.extend([0xe0, 0]);
    c.send(&last).await;
    desk.report().await.1.send(true).unwrap();
    desk.report().await.1.send(true).unwrap();
    assert_eq!(c.next().await, None);
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
