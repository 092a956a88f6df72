use serde_json::{Value, json};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Degrees of latitude of one metre.
const METRE: f64 = 1.0 / 111_195.0;

fn square(properties: &Value, south: f64) -> Value {
    let north = south + 0.01;
    json!({"type":"Feature","properties":properties,"geometry":{"type":"Polygon","coordinates":[[
        [112.0,south],[112.01,south],[112.01,north],[112.0,north],[112.0,south]]]}})
}

/// Zone "beat" of unit patrol-1 (37.00 to 37.01 N), which is also cell "c1"; cell "c2" north of it; then `more`.
fn grid(more: &[Value]) -> Grid {
    let mut all = vec![
        square(
            &json!({"type":"zone","id":"beat","units":["patrol-1"]}),
            37.0,
        ),
        square(&json!({"type":"cell","id":"c1"}), 37.0),
        square(&json!({"type":"cell","id":"c2"}), 37.01),
    ];
    all.extend_from_slice(more);
    Grid::parse(&json!({"type":"FeatureCollection","features":all}).to_string()).unwrap()
}

fn north_m(m: f64) -> (f64, f64) {
    (37.01 + m * METRE, 112.005)
}

/// Steps of (metres north of the zone's northern border, accuracy, own zones left after it, leavings after it).
#[test]
fn own_zones_are_left_for_sure() {
    let (grid, mut b, mut now) = (grid(&[]), Borders::default(), Now::read());
    b.set_own(grid.zones_of("bc-01", Some("patrol-1"), None));
    for (i, (m, accuracy, left, leavings)) in [
        (100.0, 5.0, 0, 0),  // outside from the start: nothing was left
        (-100.0, 5.0, 0, 0), // in
        (10.0, 20.0, 0, 0),  // the accuracy reaches over the border: says nothing
        (10.0, 20.0, 0, 0),
        (10.0, 5.0, 0, 0),  // outside once
        (-10.0, 5.0, 0, 0), // and back
        (10.0, 5.0, 0, 0),  // outside once
        (12.0, 5.0, 1, 1),  // twice: left
        (15.0, 5.0, 1, 1),
        (-3.0, 5.0, 1, 1),  // not surely back
        (-10.0, 5.0, 0, 1), // back
        (60.0, 5.0, 1, 2),  // clearly outside at once
    ]
    .into_iter()
    .enumerate()
    {
        now = now.plus(SECOND);
        b.cross(north_m(m), Some(accuracy), &grid, now);
        assert_eq!(
            (b.left_own().count(), b.leavings()),
            (left, leavings),
            "step {i}"
        );
    }
}

#[test]
fn entering_and_leaving_are_told_once_with_the_time_between() {
    let (grid, mut b, now) = (grid(&[]), Borders::default(), Now::read());
    let mut told = Vec::new();
    for (s, m) in [
        (0, 40.0),
        (1, 10.0),
        (2, -10.0),
        (3, -60.0),
        (60, 10.0),
        (61, 10.0),
        (62, 30.0),
    ] {
        b.cross(north_m(m), Some(5.0), &grid, now.plus(SECOND * s));
        let inside: Vec<_> = b
            .inside(now.plus(SECOND * s))
            .map(|(_, d)| d.as_secs())
            .collect();
        let c = b.crossed().cloned().unwrap_or_default();
        told.push((c.entered, c.left, c.entered_cell, c.left_cell, inside));
    }
    let nothing = |inside: Vec<u64>| (vec![], vec![], None, None, inside);
    assert_eq!(
        told,
        [
            (vec![], vec![], Some(1), None, vec![]),
            nothing(vec![]),
            (vec![0], vec![], Some(0), Some(1), vec![0]),
            nothing(vec![1]),
            (vec![], vec![], Some(1), Some(0), vec![58]),
            (vec![], vec![0], None, None, vec![]),
            nothing(vec![]),
        ]
    );
    assert_eq!(
        (b.crossings(), b.leavings()),
        (4, 0),
        "it is no zone of its own"
    );
}

#[test]
fn nobody_flaps_who_stands_on_a_border() {
    let (grid, mut b, mut now) = (grid(&[]), Borders::default(), Now::read());
    b.cross(north_m(-50.0), Some(8.0), &grid, now);
    let before = b.crossings();
    for i in 0..200_i32 {
        now = now.plus(SECOND);
        let m = f64::from((i * 7) % 15 - 7);
        b.cross(north_m(m), Some(8.0), &grid, now);
    }
    assert_eq!(b.crossings(), before);
}

#[test]
fn a_corridor_narrower_than_the_accuracy_can_be_entered() {
    let lane = json!({"type":"Feature","properties":{"type":"zone","id":"lane","width_m":12},
        "geometry":{"type":"LineString","coordinates":[[112.0,37.05],[112.01,37.05]]}});
    let (grid, mut b, now) = (grid(&[lane]), Borders::default(), Now::read());
    let mut told = Vec::new();
    for (s, m) in [(0, 60.0), (1, 5.0), (2, 1.0), (3, 25.0), (4, 40.0)] {
        b.cross(
            (37.05 + m * METRE, 112.005),
            Some(15.0),
            &grid,
            now.plus(SECOND * s),
        );
        let c = b.crossed().cloned().unwrap_or_default();
        told.push((c.entered.len(), c.left.len()));
    }
    assert_eq!(told, [(0, 0), (0, 0), (1, 0), (0, 0), (0, 1)]);
}

#[test]
fn a_zone_that_begins_is_entered_and_one_that_ends_is_not_left() {
    let now = Now::read();
    let at = |ms: i64| crate::clock::rfc3339(now.unix_ms + ms);
    let fair = square(
        &json!({"type":"zone","id":"fair","from":at(10_000),"until":at(20_000)}),
        37.05,
    );
    let (grid, mut b) = (grid(&[fair]), Borders::default());
    let stand = (37.055, 112.005);
    b.cross(stand, Some(5.0), &grid, now);
    assert_eq!(b.place().zones, [0_u16; 0]);
    assert_eq!(grid.timed_now(now.unix_ms), [false]);
    let begun = now.plus(SECOND * 10);
    assert_eq!(grid.timed_now(begun.unix_ms), [true]);
    b.relocate(Some(stand), |z| z == 1, &grid, begun);
    assert_eq!(b.crossed().unwrap().entered, [1]);
    assert_eq!(b.place().zones, [1]);
    b.cross(stand, Some(5.0), &grid, now.plus(SECOND * 12));
    assert_eq!((b.crossed(), b.inside(begun).count()), (None, 1));
    b.relocate(Some(stand), |_| false, &grid, now.plus(SECOND * 20));
    assert_eq!((b.crossed(), b.inside(begun).count()), (None, 0));
    b.cross(stand, Some(5.0), &grid, now.plus(SECOND * 21));
    assert_eq!(b.crossed(), None);
}

#[test]
fn another_grid_is_no_crossing_but_for_new_zones() {
    let (old, mut b, now) = (grid(&[]), Borders::default(), Now::read());
    b.set_own(old.zones_of("bc-01", Some("patrol-1"), None));
    let stand = north_m(-100.0);
    b.cross(stand, Some(5.0), &old, now);
    // The zones change their order, one is new, the cells are gone.
    let new = json!({"type":"FeatureCollection","features":[
        square(&json!({"type":"zone","id":"closed"}), 37.0),
        square(&json!({"type":"zone","id":"beat","units":["patrol-1"]}), 37.0),
    ]});
    let new = Grid::parse(&new.to_string()).unwrap();
    let numbers = new.renumbered(&old);
    b.renumber(&numbers);
    b.set_own(new.zones_of("bc-01", Some("patrol-1"), None));
    let later = now.plus(SECOND * 5);
    b.relocate(Some(stand), |z| !numbers.contains(&Some(z)), &new, later);
    let crossed = b.crossed().cloned().unwrap();
    assert_eq!((crossed.entered, crossed.left), (vec![0], vec![]));
    assert_eq!((b.place().cell, b.in_cell(later)), (None, None));
    let mut inside: Vec<_> = b.inside(later).map(|(z, d)| (z, d.as_secs())).collect();
    inside.sort_unstable();
    assert_eq!(inside, [(0, 0), (1, 5)]);
    // A zone is drawn elsewhere: nobody left it.
    let away = json!({"type":"FeatureCollection","features":[
        square(&json!({"type":"zone","id":"beat","units":["patrol-1"]}), 37.5),
    ]});
    let away = Grid::parse(&away.to_string()).unwrap();
    b.renumber(&away.renumbered(&new));
    b.set_own(away.zones_of("bc-01", Some("patrol-1"), None));
    b.relocate(Some(stand), |_| false, &away, later);
    assert_eq!(
        (b.crossed(), b.left_own().count(), b.leavings()),
        (None, 0, 0)
    );
}

#[test]
fn what_nobody_owns_counts_again() {
    let (grid, mut b, now) = (grid(&[]), Borders::default(), Now::read());
    b.cross(north_m(-50.0), Some(5.0), &grid, now);
    let crossings = b.crossings();
    b.keep_crossed();
    b.cross(north_m(-50.0), Some(5.0), &grid, now.plus(SECOND));
    assert_eq!(b.crossed().unwrap().entered, [0]);
    assert_eq!(b.crossings(), crossings, "it is the same crossing");
    b.cross(north_m(-50.0), Some(5.0), &grid, now.plus(SECOND * 2));
    assert_eq!(b.crossed(), None);
}
