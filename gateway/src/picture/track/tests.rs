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
pub const METRE: f64 = 1.0 / 111_195.0;
const EAST_METRE: f64 = METRE / 0.798_635_5;

/// A device that reports in metres north and east of 37 N, 112 E.
struct Walk {
    track: Track,
    motion: Motion,
    begin: Now,
}

impl Walk {
    fn new(motion: Motion) -> Self {
        Self {
            track: Track::default(),
            motion,
            begin: Now::read(),
        }
    }

    fn at(&self, s: f64) -> Now {
        self.begin.plus(Duration::from_secs_f64(s))
    }

    fn fix(&self, north: f64, east: f64) -> Fix {
        Fix {
            accuracy_m: Some(4.0),
            ..fix(37.0 + north * METRE, 112.0 + east * EAST_METRE)
        }
    }

    fn take(&mut self, fix: Fix, device_ms: Option<i64>, now: Now) -> Taken {
        let moment = self.track.hear(device_ms, false, now);
        self.track.take(fix, device_ms, moment, self.motion, now)
    }

    /// At `s` seconds, without a device time.
    fn say(&mut self, s: f64, north: f64, east: f64) -> Taken {
        self.take(self.fix(north, east), None, self.at(s))
    }

    /// At `s` seconds by both clocks, with a tenth of a second on the way.
    fn timed(&mut self, s: f64, north: f64, east: f64) -> Taken {
        let ms = self.begin.unix_ms + (s * 1000.0) as i64;
        self.take(self.fix(north, east), Some(ms), self.at(s + 0.1))
    }

    /// Metres north and east of where it is thought to be.
    fn place(&self) -> (f64, f64) {
        let e = self.track.estimate(self.motion).unwrap();
        ((e.lat - 37.0) / METRE, (e.lon - 112.0) / EAST_METRE)
    }

    fn ahead(&self, s: f64) -> (f64, f64) {
        let e = self.track.at(self.motion, self.at(s).unix_ms).unwrap();
        ((e.lat - 37.0) / METRE, (e.lon - 112.0) / EAST_METRE)
    }

    fn sigma(&self) -> f32 {
        self.track.estimate(self.motion).unwrap().sigma_m
    }
}

#[test]
fn the_first_fix_stands_as_it_was_given() {
    let mut w = Walk::new(FOOT);
    assert_eq!(w.track.freshness(), Freshness::Silent);
    assert_eq!(w.say(0.0, 0.0, 0.0), Taken::Moved);
    let e = w.track.estimate(w.motion).unwrap();
    assert_eq!((e.lat, e.lon), (37.0, 112.0));
    assert!((e.sigma_m * RADIUS_68 - 4.0).abs() < 0.01);
    assert_eq!(w.ahead(20.0), w.place(), "no way is known: it is held");
}

#[test]
fn the_marker_never_goes_back() {
    let mut w = Walk::new(FOOT);
    let at = |s: i64| Some(w.begin.unix_ms + s * 1000);
    let (five, four, nine) = (at(5), at(4), at(9));
    assert_eq!(w.take(fix(37.0, 112.0), five, w.at(5.1)), Taken::Moved);
    assert_eq!(w.take(fix(37.0001, 112.0), four, w.at(6.0)), Taken::Stale);
    assert_eq!(w.track.last().unwrap().fix.lat, 37.0);
    // A fix without a time counts as new.
    assert_eq!(w.take(fix(37.0001, 112.0), None, w.at(7.0)), Taken::Moved);
    assert_eq!(w.take(fix(37.0001, 112.0), nine, w.at(9.1)), Taken::Moved);
    // What is said late on purpose is history, whatever its time.
    let now = w.at(12.0);
    let moment = w.track.hear(Some(w.begin.unix_ms + 11_000), true, now);
    assert_eq!(
        w.track.take(fix(37.1, 112.0), None, moment, FOOT, now),
        Taken::Stale
    );
}

#[test]
fn the_last_of_a_burst_after_an_outage_is_the_newest() {
    let mut w = Walk::new(VEHICLE);
    for s in 0..20 {
        w.timed(f64::from(s), f64::from(s) * 10.0, 0.0);
    }
    // Ten minutes are kept and come at once, each with its time.
    let now = w.at(620.0);
    for s in (20..620).step_by(10) {
        let ms = w.begin.unix_ms + s * 1000;
        let at = w.fix(s as f64 * 10.0, 0.0);
        assert_eq!(w.take(at, Some(ms), now), Taken::Moved, "at {s} s");
        let happened = w.track.last().unwrap().moment;
        assert!((happened.at_ms - ms).abs() < 500 && happened.sigma_ms < 500);
    }
    assert!((w.place().0 - 6100.0).abs() < 10.0, "{:?}", w.place());
    assert!((w.track.speed_mps().unwrap() - 10.0).abs() < 3.0);
    assert_eq!(w.track.freshness(), Freshness::Live);
}

/// Nothing was known of its clock before the burst.
#[test]
fn a_first_burst_of_stored_positions_is_no_jump() {
    let mut w = Walk::new(VEHICLE);
    for i in 0..20_i32 {
        let at = w.fix(f64::from(i) * 300.0, 0.0);
        let now = w.at(0.0);
        assert_eq!(w.take(at, Some(i64::from(i) * 10_000), now), Taken::Moved);
    }
    assert!((w.track.speed_mps().unwrap() - 30.0).abs() < 6.0);
}

#[test]
fn an_outlier_waits_and_two_that_agree_are_believed() {
    let mut w = Walk::new(FOOT);
    for s in 0..5 {
        assert_eq!(w.say(f64::from(s), 0.0, 0.0), Taken::Moved);
    }
    assert_eq!(w.say(5.0, 50_000.0, 0.0), Taken::Held);
    assert!(w.place().0.abs() < 1.0);
    assert_eq!(w.say(6.0, 1.0, 0.0), Taken::Moved, "it was one");
    assert_eq!(w.say(7.0, 50_000.0, 0.0), Taken::Held);
    assert_eq!(w.say(8.0, 150_000.0, 0.0), Taken::Held, "they do not agree");
    assert_eq!(w.say(9.0, 150_010.0, 0.0), Taken::Moved);
    assert!((w.place().0 - 150_010.0).abs() < 5.0);
}

#[test]
fn a_reflection_is_waited_out_and_a_way_is_followed() {
    let mut w = Walk::new(FOOT);
    for s in 0..10 {
        w.timed(f64::from(s), 0.0, 0.0);
    }
    for s in [10.0, 11.0] {
        assert_eq!(w.timed(s, 60.0, 0.0), Taken::Held);
    }
    assert_eq!(w.timed(12.0, 0.0, 0.0), Taken::Moved);
    assert!(w.place().0.abs() < 3.0);
    // The officer takes the car.
    let mut moved = 0;
    for s in 13..30 {
        let taken = w.timed(f64::from(s), f64::from(s - 12) * 15.0, 0.0);
        moved += i32::from(taken == Taken::Moved);
    }
    assert!(moved > 12, "{moved}");
    assert!((w.place().0 - 17.0 * 15.0).abs() < 8.0);
    assert!((w.ahead(34.1).0 - 17.0 * 15.0).abs() > 30.0, "it goes on");
}

#[test]
fn who_stands_does_not_wander() {
    let mut w = Walk::new(FOOT);
    let mut shown = Vec::new();
    for s in 0..120_u32 {
        // Three metres of jitter to all sides.
        let angle = f64::from(s) * 2.4;
        w.timed(f64::from(s), 3.0 * angle.sin(), 3.0 * angle.cos());
        shown.push(w.place());
    }
    let late = &shown[60..];
    let way: f64 = late
        .windows(2)
        .map(|p| (p[1].0 - p[0].0).hypot(p[1].1 - p[0].1))
        .sum();
    let raw = 59.0 * 2.0 * 3.0 * (1.2_f64).sin();
    assert!(way < raw / 8.0, "{way} m of {raw} m");
    assert!(w.track.estimate(w.motion).unwrap().moves < 0.2);
    let (now, later) = (w.place(), w.ahead(149.0));
    assert!((later.0 - now.0).hypot(later.1 - now.1) < 0.5);
}

#[test]
fn a_straight_way_goes_on_and_comes_to_rest() {
    let mut w = Walk::new(VEHICLE);
    for s in 0..20 {
        w.timed(f64::from(s), f64::from(s) * 12.0, 0.0);
    }
    let last = 19.0 * 12.0;
    assert!((w.place().0 - last).abs() < 3.0);
    let (two, ten, hour) = (w.ahead(21.0).0, w.ahead(29.0).0, w.ahead(3600.0).0);
    assert!((two - last - 24.0).abs() < 6.0, "{}", two - last);
    assert!(two < ten && ten < hour && hour - last < 130.0);
    let sure = w.sigma();
    let unsure = w.track.at(VEHICLE, w.at(60.0).unix_ms).unwrap().sigma_m;
    assert!(unsure > 10.0 * sure && unsure < 2000.0);
    let mut former = sure;
    for s in (20..2000).step_by(20) {
        let now = w.track.at(VEHICLE, w.at(f64::from(s)).unix_ms).unwrap();
        assert!(now.sigma_m >= former, "at {s} s");
        former = now.sigma_m;
    }
}

/// The receiver's own speed and course tell the way from the first fix on.
#[test]
fn a_measured_velocity_counts_at_once() {
    let mut w = Walk::new(VEHICLE);
    let told = Fix {
        speed_mps: Some(10.0),
        course_deg: Some(90.0),
        ..w.fix(0.0, 0.0)
    };
    w.take(told, None, w.at(0.0));
    let (north, east) = w.ahead(2.0);
    assert!(north.abs() < 1.0 && east > 14.0, "{north} {east}");
    let stands = Fix {
        speed_mps: Some(0.0),
        ..w.fix(0.0, 30.0)
    };
    w.take(stands, None, w.at(3.0));
    assert!((w.ahead(10.0).1 - w.place().1).abs() < 3.0);
}

#[test]
fn exact_fixes_count_more_and_stated_accuracy_is_bounded() {
    let mut w = Walk::new(FOOT);
    w.say(0.0, 0.0, 0.0);
    let poor = Fix {
        accuracy_m: Some(80.0),
        ..w.fix(30.0, 0.0)
    };
    assert_eq!(w.take(poor, None, w.at(1.0)), Taken::Moved);
    assert!(w.place().0 < 5.0, "{:?}", w.place());
    for accuracy_m in [0.0, 1e6, f64::INFINITY] {
        let odd = Fix {
            accuracy_m: Some(accuracy_m),
            ..w.fix(0.0, 0.0)
        };
        w.take(odd, None, w.at(2.0 + accuracy_m.min(10.0)));
        assert!(w.sigma().is_finite() && w.sigma() > 0.5);
    }
}

#[test]
fn live_stale_coasting_lost_by_its_own_interval() {
    use Freshness::{Coasting, Lost, Stale};
    for (interval_s, stale, coasting, lost) in
        [(1, 10, 30, 60), (5, 15, 30, 60), (30, 90, 180, 300)]
    {
        let mut w = Walk::new(FOOT);
        for i in 0..6 {
            w.say(f64::from(i * interval_s), 0.0, 0.0);
        }
        let last = f64::from(5 * interval_s);
        let mut seen = Vec::new();
        for s in 1..=400 {
            if w.track.age(w.at(last + f64::from(s) - 0.15)) {
                seen.push((w.track.freshness(), s));
            }
        }
        assert_eq!(seen, [(Stale, stale), (Coasting, coasting), (Lost, lost)]);
        w.say(last + 400.0, 0.0, 0.0);
        assert_eq!(w.track.freshness(), Freshness::Live);
    }
}

#[test]
fn what_does_not_move_does_not_age() {
    let mut w = Walk::new(FOOT);
    w.track.fix_at(fix(37.0, 112.0), w.begin);
    assert!(!w.track.age(w.at(100_000.0)));
    assert_eq!(w.track.freshness(), Freshness::Live);
    assert_eq!(w.ahead(1000.0), (0.0, 0.0));
}

/// A day's drive across the plane's border, and over the date line.
#[test]
fn the_plane_follows_the_device() {
    let mut w = Walk::new(VEHICLE);
    for s in 0..2000 {
        w.timed(f64::from(s), f64::from(s) * 15.0, 0.0);
    }
    assert!((w.place().0 - 1999.0 * 15.0).abs() < 3.0);
    let mut track = Track::default();
    for s in 0..20_u32 {
        let now = w.begin.plus(SECOND * s);
        let lon = 179.9995 + f64::from(s) * 1e-4;
        let at = fix(0.0, if lon > 180.0 { lon - 360.0 } else { lon });
        let moment = track.hear(None, false, now);
        assert_eq!(track.take(at, None, moment, VEHICLE, now), Taken::Moved);
    }
    let lon = track.estimate(VEHICLE).unwrap().lon;
    assert!((lon + 179.9986).abs() < 1e-4, "{lon}");
}

#[test]
fn a_track_is_small() {
    assert!(size_of::<Track>() <= 384, "{}", size_of::<Track>());
}

proptest::proptest! {
    /// Whatever comes in whatever order: finite, on the earth, and never worse than it says it can be.
    #[test]
    fn any_fixes_leave_a_sane_track(
        fixes in proptest::collection::vec(
            (-90.0..=90.0_f64, -180.0..=180.0_f64, proptest::option::of(0.0..1e7_f64),
             proptest::option::of(0.0..400.0_f64), proptest::option::of(proptest::num::i64::ANY), 0..100_000_u64),
            1..40),
        near in proptest::bool::ANY,
    ) {
        let begin = Now::read();
        let (mut track, mut now) = (Track::default(), begin);
        for (lat, lon, accuracy_m, speed_mps, device_ms, wait_ms) in fixes {
            now = now.plus(Duration::from_millis(wait_ms));
            let (lat, lon) = if near { (37.0 + lat * 1e-5, 112.0 + lon * 1e-5) } else { (lat, lon) };
            let at = Fix { accuracy_m, speed_mps, course_deg: speed_mps.map(|s| s % 360.0), ..fix(lat, lon) };
            let moment = track.hear(device_ms, false, now);
            proptest::prop_assert!(moment.at_ms <= now.unix_ms);
            track.take(at, device_ms, moment, VEHICLE, now);
            track.age(now);
            for e in [track.estimate(VEHICLE).unwrap(), track.at(VEHICLE, now.unix_ms + 100_000).unwrap()] {
                proptest::prop_assert!(kerbside_codecs::geo::valid(e.lat, e.lon), "{e:?}");
                proptest::prop_assert!(e.sigma_m.is_finite() && e.sigma_m >= 0.0, "{e:?}");
                proptest::prop_assert!((0.0..=1.0).contains(&e.moves));
            }
        }
    }
}
