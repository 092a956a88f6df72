//! What devices do against the rules: answered, counted in their state, and nobody else's business.

use std::net::IpAddr;

use kerbside_codecs::telemetry::Fault;

use super::*;
use crate::picture::Fact;

/// A desk that owns everything and keeps the faults it is told.
fn faults_of(mut desk: Desk) -> tokio::sync::mpsc::UnboundedReceiver<Fault> {
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    drop(actix_rt::spawn(async move {
        loop {
            let (fact, answer) = desk.next().await;
            if let Fact::Faults { device, faults } = fact {
                assert_eq!(device.as_str(), "d");
                for fault in faults {
                    tx.send(fault).unwrap_or_default();
                }
            }
            answer.send(true).unwrap_or_default();
        }
    }));
    rx
}

#[actix::test]
async fn what_a_device_does_wrong_is_in_its_state() {
    let (y, desk) = yard().await;
    let mut told = faults_of(desk);
    let (mut c, _) = Client::to(&y, V5).await;
    let theirs = publish(5, 1, 1, "kerbside/v1/other/report", FIX);
    for (bytes, fault) in [
        (&theirs[..], Fault::MqttNotAuthorized),
        (&[0x62, 2, 0, 9], Fault::MqttPacketId), // PUBREL of nothing
        (&[0x40, 2, 0, 9], Fault::MqttPacketId), // PUBACK of nothing
        (&[0x82, 7, 0, 1, 0, 0, 1, b'#', 0], Fault::MqttSubscription),
    ] {
        c.send(bytes).await;
        let next = timeout(LIMIT, told.recv()).await.unwrap();
        assert_eq!(next, Some(fault), "{bytes:x?}");
    }
    for (bytes, fault) in [
        (&[0x30, 4, 0, 2, 0xc3, 0x28][..], Fault::MqttMalformed),
        (&[0x10, 0], Fault::MqttProtocol),
        (&[0x30, 0xff, 0xff, 0x7f], Fault::MqttTooLarge),
        (&[0x30, 6, 0, 0, 3, 0x23, 0, 9], Fault::MqttTopicAlias),
    ] {
        let (mut c, _) = Client::to(&y, V5).await;
        c.send(bytes).await;
        let next = timeout(LIMIT, told.recv()).await.unwrap();
        assert_eq!(next, Some(fault), "{bytes:x?}");
    }
    let will = Ask {
        will: Some(("kerbside/v1/other/report", FIX)),
        ..V311
    };
    let mut c = Client::raw(&y, 4).await;
    c.send(&connect(will, "d", &y.password)).await;
    assert_eq!(c.next().await.unwrap(), [0x20, 2, 0, 5]);
    assert_eq!(told.recv().await, Some(Fault::MqttWill));
}

#[actix::test]
async fn qos_2_that_is_never_released_ends_the_session_and_not_the_device() {
    let (y, desk) = yard().await;
    let mut told = faults_of(desk);
    let (mut c, _) = Client::to(&y, V5).await;
    for id in 1..=4 {
        c.publish(2, id, FIX).await;
        assert_eq!(c.next().await.unwrap()[0], 0x50);
    }
    c.publish(2, 5, FIX).await;
    assert_eq!(c.next().await, Some(vec![0xe0, 1, 0x93]));
    assert_eq!(told.recv().await, Some(Fault::MqttReceiveMaximum));
    let (mut c, _) = Client::to(&y, V5).await;
    c.publish(2, 5, FIX).await;
    assert_eq!(c.next().await.unwrap(), [0x50, 2, 0, 5]);
}

#[actix::test]
async fn refusals_are_told_in_words_to_who_did_not_decline() {
    let (y, desk) = yard().await;
    desk.own_all();
    let ask = Ask { props: &[], ..V5 };
    let (mut c, _) = Client::to(&y, ask).await;
    let says = |packet: &[u8], words: &str| {
        let text = String::from_utf8_lossy(packet);
        assert!(text.contains(words), "{text}");
    };
    c.send(&publish(5, 1, 1, "kerbside/v1/other/report", FIX))
        .await;
    says(&c.next().await.unwrap(), "your own device id");
    says(&c.subscribe("#", 1).await, "your own device id");
    says(&c.subscribe("$share/g/a", 1).await, "leave out $share");
    c.send(&[0x36, 0]).await;
    says(&c.next().await.unwrap(), "not well-formed");
    let mut wrong = Client::raw(&y, 5).await;
    wrong.send(&connect(ask, "d", "wrong")).await;
    says(
        &wrong.next().await.unwrap(),
        "the user name is the device id",
    );
    let (mut few, _) = Client::to(
        &y,
        Ask {
            props: &[0x27, 0, 0, 0, 20],
            ..V5
        },
    )
    .await;
    assert_eq!(few.subscribe("#", 1).await, [0x90, 4, 0, 1, 0, 0x87]);
}

#[actix::test]
async fn who_connects_in_a_tight_loop_is_slowed_down_and_its_session_stays() {
    let (y, desk) = yard().await;
    let mut told = faults_of(desk);
    let quiet = Ask {
        client_id: "quiet",
        ..V5
    };
    let (mut quiet, _) = Client::to(&y, quiet).await;
    let mut refused = None;
    for _ in 0..60 {
        let mut c = Client::raw(&y, 5).await;
        c.send(&connect(V5, "d", &y.password)).await;
        let ack = c.next().await.unwrap();
        c.send(&[0xe0, 0]).await;
        if ack[3] != 0 {
            refused = Some(ack);
            break;
        }
    }
    assert_eq!(refused, Some(vec![0x20, 3, 0, 0x9f, 0]));
    assert_eq!(told.recv().await, Some(Fault::MqttTooOften));
    quiet.ping().await;
}

#[actix::test]
async fn a_flood_of_arrivals_from_one_address_leaves_places_for_others() {
    let (y, _desk) = yard().await;
    let [flood, other] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
    let mut held = Vec::new();
    while let Some(place) = y.shared.arrive(flood, 100) {
        held.push(place);
    }
    assert_eq!(held.len(), 50);
    let place = y.shared.arrive(other, 100);
    assert!(place.is_some());
    held.truncate(10);
    assert!(y.shared.arrive(flood, 100).is_some());
    drop((held, place));
    assert!(y.shared.arriving_from.lock().is_empty());
}
