use super::*;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn limits() -> config::Tracks {
    config::Tracks::default()
}

fn spot(happened_ms: i64, known_ms: i64) -> Spot {
    Spot {
        happened_ms,
        known_ms,
        lat: 37.690_123_4,
        lon: 112.750_123_4,
        accuracy_m: Some(4.5),
        speed_mps: Some(1.25),
        heading_deg: None,
        alt_m: Some(801.5),
        is_back_filled: happened_ms < known_ms,
        is_restricted: false,
    }
}

fn id(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn point(device: &str, spot: Spot) -> Point {
    Point {
        device: id(device),
        spot,
    }
}

fn question(device: &str) -> Question {
    Question {
        device: id(device),
        from_ms: 0,
        to_ms: i64::MAX,
        known_before_ms: None,
        with_restricted: false,
        limit: 1000,
    }
}

fn moments(a: &Answer) -> Vec<i64> {
    a.spots.iter().map(|s| s.happened_ms).collect()
}

#[tokio::test]
async fn what_was_told_late_stands_where_it_happened() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), &limits()).unwrap();
    let now = crate::clock::unix_ms() - 5 * HOUR_MS;
    let late = spot(now + 30_000, now + 2 * HOUR_MS);
    history.put([
        point("bc-01", spot(now, now)),
        point("bc-01", spot(now + 60_000, now + 60_000)),
        point("bc-02", spot(now, now)),
        point("bc-01", late),
    ]);
    let all = history.track(question("bc-01")).await.unwrap();
    assert_eq!(moments(&all), [now, now + 30_000, now + 60_000]);
    assert_eq!((all.spots[1], all.has_more), (late, false));
    let ask = |q: Question| {
        let history = history.clone();
        async move { moments(&history.track(q).await.unwrap()) }
    };
    let then = Question {
        known_before_ms: Some(now + HOUR_MS),
        ..question("bc-01")
    };
    assert_eq!(ask(then).await, [now, now + 60_000], "as it was known then");
    let part = Question {
        from_ms: now + 1,
        to_ms: now + 30_000,
        ..question("bc-01")
    };
    assert_eq!(ask(part).await, [now + 30_000]);
    let few = history
        .track(Question {
            limit: 2,
            ..question("bc-01")
        })
        .await
        .unwrap();
    assert_eq!(
        (moments(&few), few.has_more),
        (vec![now, now + 30_000], true)
    );
    assert_eq!(ask(question("nobody")).await, [0_i64; 0]);
    history.close();
    drop(history);
    let again = History::open(dir.path(), &limits()).unwrap();
    assert_eq!(
        again.track(question("bc-01")).await.unwrap(),
        all,
        "after a start"
    );
    again.close();
}

#[tokio::test]
async fn restricted_times_are_for_those_with_the_grant() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), &limits()).unwrap();
    let now = crate::clock::unix_ms();
    let hidden = Spot {
        is_restricted: true,
        ..spot(now, now)
    };
    history.put([
        point("bc-01", spot(now - 1000, now - 1000)),
        point("bc-01", hidden),
    ]);
    let seen = history.track(question("bc-01")).await.unwrap();
    assert_eq!(moments(&seen), [now - 1000]);
    let all = Question {
        with_restricted: true,
        ..question("bc-01")
    };
    assert_eq!(history.track(all).await.unwrap().spots.len(), 2);
    history.close();
}

#[test]
fn old_hours_go_by_age_and_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tracks.db");
    let mut store = Store::open(&path, Some(64)).unwrap();
    let now = crate::clock::unix_ms();
    let fill = |store: &mut Store, known_ms: i64, n: i64| {
        let points: Vec<_> = (0..n)
            .map(|i| point("bc-01", spot(known_ms - i, known_ms)))
            .collect();
        store.insert(&points).unwrap();
    };
    fill(&mut store, now - 40 * DAY_MS, 10);
    fill(&mut store, now - 31 * DAY_MS, 10);
    fill(&mut store, now - HOUR_MS, 30_000);
    fill(&mut store, now, 10);
    drop(store);
    let count = |dir: &Path| {
        let store = Store::open(&dir.join("tracks.db"), None).unwrap();
        let all = Question {
            limit: 100_000,
            ..question("bc-01")
        };
        store.track(&all).unwrap().spots.len()
    };
    assert_eq!(count(dir.path()), 30_030);
    let closed = |limits: &config::Tracks| {
        // Retention is the first thing the thread does.
        History::open(dir.path(), limits).unwrap().close();
        count(dir.path())
    };
    assert_eq!(closed(&limits()), 30_010, "older than 30 days");
    let small = config::Tracks {
        mb_max: 1,
        ..limits()
    };
    assert_eq!(closed(&small), 10, "larger than a megabyte");
}

#[test]
fn a_full_disk_loses_points_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("tracks.db"), Some(1)).unwrap();
    let now = crate::clock::unix_ms();
    let points: Vec<_> = (0..60_000)
        .map(|i| point("bc-01", spot(now - i, now)))
        .collect();
    assert!(store.insert(&points).is_err());
    store.insert(&points[..10]).unwrap();
    assert!(store.bytes().unwrap() <= 1_i64 << 20);
}

#[test]
fn what_stands_still_is_thinned() {
    let (mut thin, every) = (Thin::default(), Duration::from_secs(10));
    let mut keeps = |happened_ms, north_m: f64| {
        let mut s = spot(happened_ms, happened_ms);
        s.lat += north_m / 111_195.0;
        thin.keeps(&s, every)
    };
    let kept: Vec<_> = [
        (0, 0.0),
        (1000, 3.0),
        (2000, 5.0),
        (3000, 5.0),
        (11_999, 5.0),
        (12_000, 5.0),
        (5_000, 5.0),
        (1000, 5.0),
    ]
    .into_iter()
    .map(|(ms, m)| keeps(ms, m))
    .collect();
    assert_eq!(kept, [true, false, true, false, false, true, false, true]);
}
