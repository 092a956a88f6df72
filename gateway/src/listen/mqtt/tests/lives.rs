//! Sessions over connections: take-over, resume, will, revocation, the end.

use super::*;

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
    let order = Downlink::new("kerbside/v1/d/down/go", "{}", 1);
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
async fn a_device_that_was_registered_anew_does_not_find_the_session_of_before() {
    let (y, desk) = yard().await;
    desk.own_all();
    let ask = Ask {
        clean: false,
        props: KEEP,
        ..V5
    };
    let (mut one, _) = Client::to(&y, ask).await;
    one.subscribe("kerbside/v1/d/down/#", 1).await;
    drop(one);
    let kept = async {
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
    timeout(LIMIT, kept).await.unwrap();
    y.registry.revoke_device("d").unwrap();
    let password = y.registry.add_device("d", DeviceKind::Drone, None).unwrap();
    let mut two = Client::raw(&y, 5).await;
    two.send(&connect(ask, "d", &password)).await;
    assert_eq!(
        two.next().await.unwrap()[2..4],
        [0, 0],
        "no session present"
    );
}

#[actix::test]
async fn what_is_retained_is_told_with_each_subscription_that_wants_it() {
    let (y, desk) = yard().await;
    desk.own_all();
    let device = DeviceId::parse("d").unwrap();
    let setting = |payload: &str| Downlink {
        retain: true,
        ..Downlink::new("kerbside/v1/d/down/every", payload.to_owned(), 1)
    };
    // The device was never here.
    y.fleet.send(&device, setting("5")).await.unwrap();
    y.fleet.send(&device, setting("7")).await.unwrap();
    let (mut c, _) = Client::to(&y, V5).await;
    let down = "kerbside/v1/d/down/#";
    // With subscription identifier 9; retain handling: send.
    let ack = c.subscribe_with(&[0x0b, 9], down, 1).await;
    assert_eq!(ack, [0x90, 4, 0, 1, 0, 1]);
    let told = c.next().await.unwrap();
    assert_eq!(told[0], 0x33, "QoS 1, RETAIN");
    assert!(told.ends_with(&[2, 0x0b, 9, b'7']), "{told:x?}");
    c.send(&[0x40, 2, 0, 1]).await;
    // Only if new, and never: nothing but the answer.
    for options in [0x11, 0x21] {
        c.subscribe_with(&[], down, options).await;
        c.ping().await;
    }
    // Not to be told any more.
    y.fleet.send(&device, setting("")).await.unwrap();
    assert_eq!(c.next().await.unwrap()[0], 0x32, "the news itself");
    c.subscribe(down, 1).await;
    c.ping().await;
}

#[actix::test]
async fn a_retained_report_is_a_report() {
    let (y, mut desk) = yard().await;
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((mut c, _), ()) = tokio::join!(Client::to(&y, V311), accept);
    let mut report = publish(4, 1, 7, REPORT, FIX);
    report[0] |= 1;
    c.send(&report).await;
    desk.report().await.1.send(true).unwrap();
    assert_eq!(c.next().await.unwrap(), [0x40, 2, 0, 7]);
}

#[actix::test]
async fn a_message_that_is_of_no_use_any_more_is_not_sent() {
    let (y, desk) = yard().await;
    desk.own_all();
    let device = DeviceId::parse("d").unwrap();
    let (mut c, _) = Client::to(&y, V5).await;
    c.subscribe("kerbside/v1/d/down/#", 1).await;
    let order = |payload: &str, expires| Downlink {
        expires: Some(expires),
        ..Downlink::new("kerbside/v1/d/down/go", payload.to_owned(), 1)
    };
    let now = std::time::Instant::now();
    y.fleet.send(&device, order("late", now)).await.unwrap();
    let later = now + Duration::from_secs(600);
    y.fleet.send(&device, order("now", later)).await.unwrap();
    let told = c.next().await.unwrap();
    assert!(told.ends_with(b"now"), "{told:x?}");
    assert!(
        told.windows(4).any(|w| w == [5, 2, 0, 0]),
        "Message Expiry Interval: {told:x?}"
    );
}

#[actix::test]
async fn a_delayed_will_waits_for_its_device() {
    let (y, mut desk) = yard().await;
    let ask = Ask {
        clean: false,
        props: KEEP,
        will: Some((REPORT, FIX)),
        will_delay_s: Some(1),
        ..V5
    };
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((c, _), ()) = tokio::join!(Client::to(&y, ask), accept);
    drop(c);
    let (fact, answer) = desk.next().await;
    assert!(
        matches!(fact, crate::picture::Fact::Session { online: false, .. }),
        "the will is not published yet"
    );
    answer.send(true).unwrap();
    assert_eq!(desk.report().await.0.device, "d");
}

#[actix::test]
async fn a_will_is_published_once_and_not_for_who_came_back_in_time() {
    let (y, mut desk) = yard().await;
    let ask = Ask {
        clean: false,
        props: KEEP,
        will: Some((REPORT, FIX)),
        will_delay_s: Some(1),
        ..V5
    };
    let accept = async { desk.next().await.1.send(true).unwrap() };
    let ((c, _), ()) = tokio::join!(Client::to(&y, ask), accept);
    drop(c);
    // Gone, and back before the delay is over: the device is there, and nothing was published.
    let online = |fact: &crate::picture::Fact| match fact {
        crate::picture::Fact::Session { online, .. } => Some(*online),
        _ => None,
    };
    let (fact, answer) = desk.next().await;
    assert_eq!(online(&fact), Some(false));
    answer.send(true).unwrap();
    let back = async {
        let (fact, answer) = desk.next().await;
        answer.send(true).unwrap();
        online(&fact)
    };
    let ((mut c, _), is_online) = tokio::join!(Client::to(&y, ask), back);
    assert_eq!(is_online, Some(true));
    // DISCONNECT with the will (0x04), and without an expiry: published at once, and only once.
    c.send(&[0xe0, 7, 4, 5, 0x11, 0, 0, 0, 0]).await;
    let (fact, answer) = desk.next().await;
    assert!(
        matches!(fact, crate::picture::Fact::Report { .. }),
        "the will first: {fact:?}"
    );
    answer.send(true).unwrap();
    let (fact, answer) = desk.next().await;
    assert_eq!(online(&fact), Some(false));
    answer.send(true).unwrap();
    y.shared
        .sessions
        .sweep(std::time::Instant::now() + Duration::from_secs(5000));
    // The next that the desk hears is the next that happens.
    let ((_c, _), is_online) = tokio::join!(Client::to(&y, V5), async {
        let (fact, answer) = desk.next().await;
        answer.send(true).unwrap();
        online(&fact)
    });
    assert_eq!(is_online, Some(true));
}
