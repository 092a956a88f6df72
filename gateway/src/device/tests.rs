use std::sync::Arc;

use tokio::time::{Duration, timeout};

use super::testing::{Desk, fleet};
use super::{Busy, Downlink, Downlinks, Fleet, NotOwned, Sent, Unreachable, Uplink};
use crate::clock::Now;
use crate::ids::{DeviceId, SessionId};
use crate::picture::Fact;
use crate::registry::{Device, DeviceKind, Registry};

struct Yard {
    registry: Registry,
    fleet: Fleet,
    desk: Desk,
    _dir: tempfile::TempDir,
}

fn yard() -> Yard {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let (fleet, desk) = fleet(registry.clone());
    Yard {
        registry,
        fleet,
        desk,
        _dir: dir,
    }
}

impl Yard {
    fn add(&self, id: &str, kind: DeviceKind, unit: Option<&str>) -> Device {
        self.registry.add_device(id, kind, unit).unwrap();
        self.registry.device(id).unwrap()
    }
}

fn say(topic: &str, payload: &str) -> Uplink {
    Uplink::new(topic.into(), payload.to_owned().into(), Now::read())
}

fn report(device: &str, payload: &str) -> Uplink {
    say(&format!("kerbside/v1/{device}/report"), payload)
}

async fn open(fleet: &Fleet, device: &Device) -> (SessionId, Arc<Downlinks>) {
    let (id, down) = (SessionId::next(), Arc::<Downlinks>::default());
    fleet
        .open(device.clone(), id, None, "mqtt", Arc::clone(&down))
        .await
        .unwrap();
    (id, down)
}

fn id(device: &Device) -> DeviceId {
    DeviceId::parse(&device.id).unwrap()
}

const FIX: &str = r#"{"position":{"lat":37.69,"lon":112.75}}"#;

#[actix::test]
async fn a_message_is_owned_when_the_picture_says_so() {
    let mut y = yard();
    let d = y.add("bc-01", DeviceKind::Bodycam, Some("u1"));
    let opening = open(&y.fleet, &d);
    let hello = async {
        let (fact, answer) = y.desk.next().await;
        assert!(matches!(fact, Fact::Session { online: true, .. }));
        answer.send(true).unwrap();
    };
    let ((session, _), ()) = tokio::join!(opening, hello);
    let dev = id(&d);
    let mut told = Box::pin(y.fleet.message(&dev, session, report("bc-01", FIX)));
    let (r, answer) = tokio::select! {
        r = y.desk.report() => r,
        _ = &mut told => panic!("owned too early"),
    };
    assert_eq!(r.device, "bc-01");
    answer.send(true).unwrap();
    assert_eq!(told.await, Ok(()));

    let told = y.fleet.message(&dev, session, report("bc-01", FIX));
    let refuse = async { y.desk.report().await.1.send(false).unwrap() };
    let (told, ()) = tokio::join!(told, refuse);
    assert_eq!(told, Err(NotOwned::Refused));
}

#[actix::test]
async fn the_death_of_an_actor_disturbs_nobody_and_is_survived() {
    let y = yard();
    let (a, b) = (
        y.add("a", DeviceKind::Bodycam, None),
        y.add("b", DeviceKind::Bodycam, None),
    );
    y.desk.own_all();
    let (sa, down) = open(&y.fleet, &a).await;
    let (sb, _) = open(&y.fleet, &b).await;
    let (da, db) = (id(&a), id(&b));
    let poison = y.fleet.message(&da, sa, report("a", "poison"));
    let beside = async {
        for _ in 0..20 {
            y.fleet.message(&db, sb, report("b", FIX)).await.unwrap();
        }
    };
    let (poison, ()) = tokio::join!(poison, beside);
    assert_eq!(poison, Err(NotOwned::Poison));
    // The successor knows the session: messages and orders go on.
    let next = y.fleet.message(&da, sa, report("a", FIX));
    assert_eq!(timeout(Duration::from_secs(5), next).await.unwrap(), Ok(()));
    let order = Downlink::new("kerbside/v1/a/down/x", "{}", 1);
    y.fleet.send(&da, order.clone()).await.unwrap();
    assert_eq!(down.pop(), Some(order.clone()));
    y.fleet.close(&da, sa).await;
    assert_eq!(y.fleet.send(&db, order).await, Ok(Sent::Live(1)));
}

#[actix::test]
async fn sessions_are_bounded_and_take_over() {
    let y = yard();
    let d = y.add("a", DeviceKind::Bodycam, None);
    y.desk.own_all();
    let (first, _) = open(&y.fleet, &d).await;
    for _ in 1..super::SESSIONS_MAX {
        open(&y.fleet, &d).await;
    }
    let more = |replaces| {
        y.fleet.open(
            d.clone(),
            SessionId::next(),
            replaces,
            "mqtt",
            Arc::default(),
        )
    };
    assert_eq!(more(None).await.err(), Some(Busy));
    assert!(more(Some(first)).await.is_ok());
}

#[actix::test]
async fn a_dock_speaks_for_aircraft_but_not_for_others() {
    let y = yard();
    let dock = y.add("dock-1", DeviceKind::Dock, Some("air"));
    y.add("bc-01", DeviceKind::Bodycam, Some("air"));
    y.add("uav-ours", DeviceKind::Drone, Some("air"));
    y.add("uav-theirs", DeviceKind::Drone, Some("other"));
    y.desk.own_all();
    let (session, dev) = (SessionId::next(), id(&dock));
    let down = Arc::<Downlinks>::default();
    let opened = y
        .fleet
        .open(dock, session, None, "mqtt", Arc::clone(&down))
        .await
        .unwrap();
    let subs: Vec<String> = ["bc-01", "uav-ours", "uav-theirs", "uav-new"]
        .iter()
        .map(|sn| format!(r#"{{"sn":"{sn}","domain":0,"type":67,"sub_type":0,"index":"A"}}"#))
        .collect();
    let topo = format!(
        r#"{{"tid":"t1","bid":"b1","timestamp":1795219200000,"method":"update_topo","data":{{"type":119,"sub_type":0,"sub_devices":[{}]}}}}"#,
        subs.join(",")
    );
    y.fleet
        .message(&dev, session, say("sys/product/dock-1/status", &topo))
        .await
        .unwrap();
    assert_eq!(opened.topology.borrow()[..], ["uav-ours", "uav-new"]);
    let reply = down.pop().expect("status_reply");
    assert_eq!(reply.topic, "sys/product/dock-1/status_reply");
}

#[actix::test]
async fn the_fast_channel_is_the_aircrafts_until_it_leaves() {
    let mut y = yard();
    let dock = y.add("dock-1", DeviceKind::Dock, None);
    let dev = id(&dock);
    let topology = |subs: &str| {
        let topo = format!(r#"{{"method":"update_topo","data":{{"sub_devices":[{subs}]}}}}"#);
        say("sys/product/dock-1/status", &topo)
    };
    let ups = [
        topology(r#"{"sn":"uav-1","domain":0,"type":67}"#),
        say(
            "thing/product/dock-1/drc/up",
            r#"{"method":"osd_info_push","data":{"latitude":37.69,"longitude":112.75}}"#,
        ),
        topology(""),
        topology(r#"{"sn":"uav-1","domain":0,"type":67}"#),
    ];
    let fleet = y.fleet.clone();
    drop(actix_rt::spawn(async move {
        let (session, _) = open(&fleet, &dock).await;
        for up in ups {
            fleet.message(&dev, session, up).await.unwrap();
        }
        fleet.close(&dev, session).await;
    }));
    let mut heard = Vec::new();
    while heard.len() < 8 {
        let (report, owned) = y.desk.report().await;
        owned.send(true).unwrap();
        heard.push((report.device, report.online, report.fix.is_some()));
    }
    let of = |d: &str, online, has_fix| (d.to_owned(), online, has_fix);
    assert_eq!(
        heard,
        [
            of("dock-1", None, false),
            of("uav-1", Some(true), false),
            of("uav-1", Some(true), true),
            of("dock-1", None, false),
            of("uav-1", Some(false), false),
            of("dock-1", None, false),
            of("uav-1", Some(true), false),
            // It goes with its dock.
            of("uav-1", Some(false), false),
        ]
    );
}

#[actix::test]
async fn a_last_will_counts_when_no_session_is_left() {
    let mut y = yard();
    let d = y.add("a", DeviceKind::Bodycam, None);
    let will = || say("kerbside/v1/a/online", r#"{"online":false}"#);
    let (fleet, dev) = (y.fleet.clone(), id(&d));
    drop(actix_rt::spawn(async move {
        let (session, _) = open(&fleet, &d).await;
        fleet.message(&dev, session, will()).await.unwrap();
        fleet.close(&dev, session).await;
        fleet.message(&dev, session, will()).await.unwrap();
    }));
    for expected in [None, Some(false)] {
        let (report, owned) = y.desk.report().await;
        owned.send(true).unwrap();
        assert_eq!(report.online, expected);
    }
}

#[actix::test]
async fn a_revoked_device_has_no_actor_left() {
    let y = yard();
    let d = y.add("a", DeviceKind::Bodycam, None);
    y.desk.own_all();
    let (session, _) = open(&y.fleet, &d).await;
    y.registry.revoke_device("a").unwrap();
    let gone = async {
        loop {
            let told = y.fleet.message(&id(&d), session, report("a", FIX)).await;
            if told == Err(NotOwned::Refused) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
    let order = Downlink::new("t", "", 0);
    assert_eq!(y.fleet.send(&id(&d), order).await, Err(Unreachable));
}

#[test]
fn other_threads_may_hold_the_fleet() {
    fn shareable<T: Send + Sync>() {}
    fn sendable<T: Send>(_: impl Fn(Fleet, DeviceId, Downlink) -> T) {}
    shareable::<Fleet>();
    sendable(|fleet, device, down| async move { fleet.send(&device, down).await });
}
