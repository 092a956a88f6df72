use serde_json::json;

use super::super::grid::Grid;
use super::*;

pub fn fix(lat: f64, lon: f64) -> Fix {
    Fix::at(lat, lon, Default::default())
}

/// Zone "beat" of unit patrol-1: 37.0..37.01 N, 112.0..112.01 E, which is also cell "c1".
pub fn grid() -> Grid {
    let ring = json!([[
        [112.0, 37.0],
        [112.01, 37.0],
        [112.01, 37.01],
        [112.0, 37.01],
        [112.0, 37.0]
    ]]);
    let feature = |properties| {
        json!({"type":"Feature","properties":properties,
            "geometry":{"type":"Polygon","coordinates":ring}})
    };
    Grid::parse(
        &json!({"type":"FeatureCollection","features":[
            feature(json!({"type":"zone","id":"beat","units":["patrol-1"]})),
            feature(json!({"type":"cell","id":"c1"})),
        ]})
        .to_string(),
    )
    .unwrap()
}

const SECOND: Duration = Duration::from_secs(1);
/// Degrees of latitude of one metre.
const METRE: f64 = 1.0 / 111_195.0;

#[test]
fn the_marker_never_goes_back() {
    let (mut t, now) = (Track::default(), Now::read());
    assert_eq!(t.freshness(), Freshness::Silent);
    assert_eq!(
        t.take(fix(37.0, 112.0), Some(5000), true, now),
        Taken::Moved
    );
    let later = now.plus(SECOND);
    assert_eq!(
        t.take(fix(37.1, 112.0), Some(4000), true, later),
        Taken::Stale
    );
    assert_eq!(t.last().unwrap().fix.lat, 37.0);
    // A fix without time counts as new; so does an older clock when nothing else comes.
    assert_eq!(t.take(fix(37.0001, 112.0), None, true, later), Taken::Moved);
    t.take(fix(37.0, 112.0), Some(9000), true, later);
    let much_later = later.plus(CLOCK_STEP_AFTER);
    assert_eq!(
        t.take(fix(37.001, 112.0), Some(6000), true, much_later),
        Taken::Moved
    );
}

#[test]
fn a_jump_needs_a_second_fix_that_agrees() {
    let (mut t, now) = (Track::default(), Now::read());
    let at = |s: u32| now.plus(SECOND * s);
    t.take(fix(37.0, 112.0), None, true, at(0));
    assert_eq!(t.take(fix(37.5, 112.0), None, true, at(1)), Taken::Held);
    assert_eq!(
        t.take(fix(37.0001, 112.0), None, true, at(2)),
        Taken::Moved,
        "an outlier"
    );
    assert_eq!(t.take(fix(37.5, 112.0), None, true, at(3)), Taken::Held);
    assert_eq!(
        t.take(fix(38.5, 112.0), None, true, at(4)),
        Taken::Held,
        "no agreement"
    );
    assert_eq!(t.take(fix(38.5001, 112.0), None, true, at(5)), Taken::Moved);
    assert_eq!(
        t.take(fix(37.0, 112.0), None, false, at(6)),
        Taken::Moved,
        "a drone"
    );
}

#[test]
fn a_burst_of_stored_positions_is_no_jump() {
    let (mut t, now) = (Track::default(), Now::read());
    for i in 0..20_i32 {
        let at = fix(37.0 + f64::from(i) * 300.0 * METRE, 112.0);
        let time = i64::from(i) * 10_000;
        assert_eq!(t.take(at, Some(time), true, now), Taken::Moved);
    }
    assert!((t.speed_mps().unwrap() - 30.0).abs() < 0.1);
}

#[test]
fn live_stale_lost_by_its_own_interval() {
    for (interval_s, stale_s, lost_s) in [(1, 10, 60), (5, 15, 60), (30, 90, 300)] {
        let (mut t, mut now) = (Track::default(), Now::read());
        for _ in 0..6 {
            now = now.plus(SECOND * interval_s);
            t.take(fix(37.0, 112.0), None, true, now);
        }
        let mut seen = Vec::new();
        for s in 1..=400 {
            if t.age(now.plus(SECOND * s)) {
                seen.push((t.freshness(), s));
            }
        }
        assert_eq!(
            seen,
            [(Freshness::Stale, stale_s), (Freshness::Lost, lost_s)]
        );
        t.take(fix(37.0, 112.0), None, true, now.plus(SECOND * 400));
        assert_eq!(t.freshness(), Freshness::Live);
    }
}

#[test]
fn what_does_not_move_does_not_age() {
    let (mut t, now) = (Track::default(), Now::read());
    t.fix_at(fix(37.0, 112.0), now);
    assert!(!t.age(now.plus(SECOND * 100_000)));
    assert_eq!(t.freshness(), Freshness::Live);
}
