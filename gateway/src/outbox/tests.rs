use std::time::Duration;

use kerbside_codecs::telemetry::{Datum, Fix};

use super::*;
use crate::event::{DEDUP_WINDOW, DeliveryState, Priority, Severity, new_event_id};
use crate::ids::DeviceId;

/// An event with every field set.
pub(super) fn event(kind: &str, priority: Priority) -> Event {
    Event {
        id: new_event_id(),
        kind: kind.to_owned(),
        rule: kind.to_owned(),
        severity: Severity::Critical,
        priority,
        device: DeviceId::parse("bc-01").unwrap(),
        unit: Some("patrol-1".to_owned()),
        raised_ms: 1_795_219_200_000,
        device_time_ms: Some(1_795_219_199_000),
        position: Some(Fix {
            accuracy_m: Some(5.0),
            ..Fix::at(37.69, 112.75, Datum::Gcj02)
        }),
        position_ms: Some(1_795_219_199_500),
        cell: Some("140702001".to_owned()),
        streams: vec!["bc-01/main".to_owned()],
        note: Some("help".to_owned()),
        restricted: false,
        dedup_key: None,
    }
}

fn both() -> Vec<(String, Vec<String>)> {
    vec![
        ("joint".to_owned(), vec![]),
        ("traffic".to_owned(), vec!["zone_left".to_owned()]),
    ]
}

fn ids(due: &Due) -> Vec<EventId> {
    due.now.iter().map(|p| p.event.id).collect()
}

#[tokio::test]
async fn an_appended_event_comes_back_whole_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut sos = event("sos", Priority::P0);
    sos.dedup_key = Some("bc-01/sos/a1".to_owned());
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    assert_eq!(outbox.append(sos.clone()).await, Ok(Appended::New));
    outbox.close().await;
    assert_eq!(outbox.append(sos.clone()).await, Err(OutboxError::Closed));
    drop(outbox);

    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    let due = outbox.due("joint", 1, 10).await.unwrap();
    assert_eq!(due.now[0].event, sos);
    assert_eq!(due.now[0].attempts, 0);
    let recent = outbox.recent(10, None).await.unwrap();
    assert_eq!(recent[0].0, sos);
    assert_eq!(recent[0].1.len(), 1, "traffic does not want it");
    assert_eq!(recent[0].1[0].state, DeliveryState::Pending);
}

#[tokio::test]
async fn a_key_is_free_again_after_its_window() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    let call = |later_ms| {
        let e = event("sos", Priority::P0);
        Event {
            dedup_key: Some("k".to_owned()),
            raised_ms: e.raised_ms + later_ms,
            ..e
        }
    };
    let hour_ms = i64::try_from(DEDUP_WINDOW.as_millis()).unwrap();
    let (first, resent, next) = (call(0), call(hour_ms - 1), call(hour_ms));
    assert_eq!(outbox.append(first.clone()).await, Ok(Appended::New));
    assert_eq!(outbox.append(resent).await, Ok(Appended::Again(first.id)));
    assert_eq!(outbox.append(next.clone()).await, Ok(Appended::New));
    assert_eq!(
        outbox.append(call(hour_ms + 1)).await,
        Ok(Appended::Again(next.id))
    );
    let due = outbox.due("joint", i64::MAX, 10).await.unwrap();
    assert_eq!(ids(&due), [first.id, next.id]);
}

#[tokio::test]
async fn the_same_key_is_the_same_event() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    let first = Event {
        dedup_key: Some("k".to_owned()),
        ..event("sos", Priority::P0)
    };
    let resent = Event {
        id: new_event_id(),
        ..first.clone()
    };
    assert_eq!(outbox.append(first.clone()).await, Ok(Appended::New));
    assert_eq!(outbox.append(resent).await, Ok(Appended::Again(first.id)));
    assert_eq!(
        outbox.append(first.clone()).await,
        Ok(Appended::Again(first.id))
    );
    assert_eq!(outbox.due("joint", 1, 10).await.unwrap().now.len(), 1);
}

#[tokio::test]
async fn safety_first_then_by_id_and_never_twice_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    let mut order = Vec::new();
    for _ in 0..3 {
        let e = event("zone_left", Priority::P1);
        order.push(e.id);
        outbox.append(e).await.unwrap();
    }
    let sos = event("sos", Priority::P0);
    order.insert(0, sos.id);
    outbox.append(sos).await.unwrap();

    assert_eq!(ids(&outbox.due("joint", 1, 2).await.unwrap()), order[..2]);
    assert_eq!(ids(&outbox.due("joint", 1, 10).await.unwrap()), order[2..]);
    assert_eq!(
        ids(&outbox.due("traffic", 1, 10).await.unwrap()),
        order[1..]
    );
    assert_eq!(outbox.due("nobody", 1, 10).await.unwrap(), Due::default());
}

#[tokio::test]
async fn outcomes() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    for _ in 0..3 {
        outbox.append(event("sos", Priority::P0)).await.unwrap();
    }
    let due = ids(&outbox.due("joint", 1000, 10).await.unwrap());
    outbox.report(due[0], "joint", Outcome::Delivered).await;
    let error = "503".to_owned();
    outbox
        .report(due[1], "joint", Outcome::RetryAt { ms: 5000, error })
        .await;
    let error = "400 no".to_owned();
    outbox
        .report(due[2], "joint", Outcome::Parked { error })
        .await;

    let later = outbox.due("joint", 1000, 10).await.unwrap();
    assert_eq!((later.now.len(), later.next_ms), (0, Some(5000)));
    let again = outbox.due("joint", 5000, 10).await.unwrap();
    assert_eq!(ids(&again), [due[1]]);
    assert_eq!(again.now[0].attempts, 1);

    let states: Vec<_> = outbox
        .changes()
        .await
        .into_iter()
        .map(|(id, d)| (id, d.state, d.attempts, d.error))
        .collect();
    assert_eq!(
        states,
        [
            (due[0], DeliveryState::Delivered, 1, None),
            (due[1], DeliveryState::Pending, 1, Some("503".to_owned())),
            (due[2], DeliveryState::Parked, 1, Some("400 no".to_owned())),
        ]
    );
    assert_eq!(outbox.retry(due[0], "joint").await, Ok(false));
    assert_eq!(outbox.retry(due[2], "joint").await, Ok(true));
    assert_eq!(outbox.retry(due[2], "joint").await, Ok(false));
    assert_eq!(ids(&outbox.due("joint", 1000, 10).await.unwrap()), [due[2]]);
}

#[tokio::test]
async fn a_new_event_waits_for_each_of_its_platforms_where_screens_see_it() {
    let dir = tempfile::tempdir().unwrap();
    let routes = [
        ("joint".to_owned(), Vec::new()),
        ("traffic".to_owned(), vec!["parking".to_owned()]),
    ];
    let outbox = Outbox::open(dir.path(), &routes).unwrap();
    let new = event("sos", Priority::P0);
    let id = new.id;
    outbox.append(new).await.unwrap();
    let waiting = outbox.changes().await;
    let waiting: Vec<_> = waiting
        .iter()
        .map(|(id, d)| (*id, d.platform.as_str(), d.state, d.attempts))
        .collect();
    assert_eq!(waiting, [(id, "joint", DeliveryState::Pending, 0)]);
}

#[tokio::test]
async fn a_clock_that_was_wrong_delays_nothing_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    outbox.append(event("sos", Priority::P0)).await.unwrap();
    let id = ids(&outbox.due("joint", 0, 1).await.unwrap())[0];
    let ms = 86_400_000;
    let error = String::new();
    outbox
        .report(id, "joint", Outcome::RetryAt { ms, error })
        .await;
    assert_eq!(ids(&outbox.due("joint", 0, 1).await.unwrap()), [id]);
}

#[tokio::test]
async fn wake_comes_with_a_new_event_and_with_a_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    outbox.wake("joint").await; // the start itself: there may be a backlog
    let waiting = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.wake("joint").await }
    });
    outbox.append(event("sos", Priority::P0)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn platforms_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    let old = event("zone_left", Priority::P1);
    outbox.append(old.clone()).await.unwrap();
    drop(outbox);

    let outbox = Outbox::open(dir.path(), &[("new".to_owned(), vec![])]).unwrap();
    let e = event("sos", Priority::P0);
    outbox.append(e.clone()).await.unwrap();
    assert_eq!(ids(&outbox.due("new", 1, 10).await.unwrap()), [e.id]);
    assert_eq!(outbox.due("joint", 1, 10).await.unwrap(), Due::default());
    assert_eq!(outbox.retry(old.id, "joint").await, Ok(false));
    drop(outbox);

    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    assert_eq!(ids(&outbox.due("joint", 1, 10).await.unwrap()), [old.id]);
}

#[tokio::test]
async fn a_start_waits_for_one_that_is_just_going() {
    let dir = tempfile::tempdir().unwrap();
    let first = Outbox::open(dir.path(), &[]).unwrap();
    let path = dir.path().to_owned();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let second = tokio::task::spawn_blocking(move || {
        begin.send(()).unwrap();
        Outbox::open(&path, &[])
    });
    begun.await.unwrap();
    first.close().await;
    drop(first);
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test]
async fn one_gateway_per_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Outbox::open(dir.path(), &[]).unwrap();
    assert!(matches!(
        Outbox::open(dir.path(), &[]),
        Err(OpenError::InUse { .. })
    ));
}

#[test]
fn a_file_that_is_no_database_or_newer_is_told_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let junk = vec![7; 8192];
    std::fs::write(&path, &junk).unwrap();
    assert!(matches!(
        Outbox::open(dir.path(), &[]),
        Err(OpenError::Database { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), junk);

    std::fs::remove_file(&path).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(
        Outbox::open(dir.path(), &[]),
        Err(OpenError::Newer { found: 99, .. })
    ));
}

#[tokio::test]
async fn a_full_disk_refuses_whole_events_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        pages_max: Some(64),
        ..Options::default()
    };
    let outbox = Outbox::open_with(dir.path(), &both(), options).unwrap();
    let mut taken = Vec::new();
    let refused = loop {
        let e = event("sos", Priority::P0);
        match outbox.append(e.clone()).await {
            Ok(_) => taken.push(e.id),
            Err(error) => break (e, error),
        }
        assert!(taken.len() < 10_000, "the disk never became full");
    };
    assert!(
        matches!(&refused.1, OutboxError::Full(why) if why.contains("full")),
        "{:?}",
        refused.1
    );
    assert!(outbox.fault().is_some());

    // What is known can still be delivered, and its outcome is not lost.
    let due = outbox.due("joint", 1, 10).await.unwrap();
    outbox
        .report(due.now[0].event.id, "joint", Outcome::Delivered)
        .await;
    // Nothing of the refused event is there.
    let known = outbox.recent(20_000, None).await.unwrap();
    assert_eq!(known.len(), taken.len());
    assert!(
        known
            .iter()
            .all(|(e, d)| e.id != refused.0.id && d.len() == 1)
    );

    // Somebody makes space: no restart, the event sent again is taken.
    let db = rusqlite::Connection::open(dir.path().join(FILE)).unwrap();
    let oldest = taken[taken.len() / 2].to_string();
    db.execute("DELETE FROM delivery WHERE event > ?1", [&oldest])
        .unwrap();
    db.execute("DELETE FROM event WHERE id > ?1", [&oldest])
        .unwrap();
    assert_eq!(outbox.append(refused.0).await, Ok(Appended::New));
    assert_eq!(outbox.fault(), None);
    drop(outbox);
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    let left = outbox.due("joint", 1, 20_000).await.unwrap();
    assert!(left.now.iter().all(|p| p.event.id != due.now[0].event.id));
}

#[tokio::test]
async fn the_fault_heals_without_traffic() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        pages_max: Some(64),
        ..Options::default()
    };
    let outbox = Outbox::open_with(dir.path(), &both(), options).unwrap();
    while outbox.append(event("sos", Priority::P0)).await.is_ok() {}
    let db = rusqlite::Connection::open(dir.path().join(FILE)).unwrap();
    db.execute_batch("DELETE FROM delivery; DELETE FROM event;")
        .unwrap();
    let healed = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while outbox.fault().is_some() {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), healed)
        .await
        .expect("the outbox looks for space by itself");
}

#[test]
fn retention_deletes_what_is_delivered_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store::Store::open(&dir.path().join(FILE), None).unwrap();
    let mut all = Vec::new();
    for i in 0..500 {
        let e = Event {
            raised_ms: i,
            ..event("sos", Priority::P0)
        };
        store.insert(&e, ["joint"].iter(), 0).unwrap();
        let outcome = match i % 10 {
            0 => None,
            1 => Some(Outcome::Parked {
                error: String::new(),
            }),
            _ => Some(Outcome::Delivered),
        };
        if let Some(outcome) = outcome {
            store.settle(e.id, "joint", &outcome, 0).unwrap();
        }
        all.push(e.id);
    }
    let run = |store: &mut store::Store, keep| {
        let mut pass = retention::Pass::begin(&store.db).unwrap();
        while !pass.step(&mut store.db, keep, 1_000).unwrap().over {}
        let left = store.recent(1_000, None).unwrap();
        let delivered = left
            .iter()
            .filter(|(_, d)| d[0].state == DeliveryState::Delivered)
            .count();
        (left.len(), delivered)
    };
    let keep = Retention {
        age_max_ms: 700, // older than t = 300 goes
        events_max: 1_000,
    };
    assert_eq!(run(&mut store, keep), (260, 160));
    let keep = Retention {
        age_max_ms: 10_000,
        events_max: 200,
    };
    assert_eq!(run(&mut store, keep), (200, 100));
    let keep = Retention {
        age_max_ms: 0,
        events_max: 0,
    };
    assert_eq!(run(&mut store, keep), (100, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_commits_and_all_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &both()).unwrap();
    let mut appends = tokio::task::JoinSet::new();
    for i in 0..6_000 {
        let outbox = outbox.clone();
        appends.spawn(async move {
            let priority = if i % 10 == 0 {
                Priority::P0
            } else {
                Priority::P1
            };
            outbox.append(event("sos", priority)).await
        });
    }
    while let Some(done) = appends.join_next().await {
        assert_eq!(done.unwrap(), Ok(Appended::New));
    }
    assert_eq!(outbox.recent(10_000, None).await.unwrap().len(), 6_000);
    let due = outbox.due("joint", 1, 600).await.unwrap();
    assert!(due.now.iter().all(|p| p.event.priority == Priority::P0));
}
