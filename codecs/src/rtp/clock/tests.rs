use std::time::Duration;

use super::super::rtcp::ntp_of;
use super::super::time::Timeline;
use super::arrivals::POINTS_MAX;
use super::said::SAID_MAX;
use super::*;

/// 2026-11-21 in microseconds.
const EPOCH_US: i64 = 1_795_219_200_000_000;
const RATE: u32 = 90_000;

/// Seeded and small: the same street every time.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mostly little, at times much: what a queue on the way does to packets.
    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.roll()).ln()
    }
}

/// A camera, its network, and what it says of its clock.
#[derive(Clone, Copy, Debug)]
struct Street {
    seconds: u32,
    fps: f64,
    drift_ppm: f64,
    /// Encoder and network at best.
    delay_ms: f64,
    jitter_ms: f64,
    /// How wrong the sender's UTC is; None: it says nothing.
    sender_off_s: Option<f64>,
    source: Source,
    said_every_s: f64,
    said_lost: f64,
    /// RTP time jumps here, by so many ticks.
    media_jump: Option<(f64, u32)>,
    /// The sender's clock is set here, to be right from then on.
    sender_set_s: Option<f64>,
    /// Our clock is wrong by so much until this second.
    wall_off: (f64, f64),
}

const STREET: Street = Street {
    seconds: 600,
    fps: 25.0,
    drift_ppm: 0.0,
    delay_ms: 90.0,
    jitter_ms: 15.0,
    sender_off_s: None,
    source: Source::SenderReports,
    said_every_s: 5.0,
    said_lost: 0.0,
    media_jump: None,
    sender_set_s: None,
    wall_off: (0.0, 0.0),
};

/// What became of one frame.
struct Seen {
    second: f64,
    /// Stated minus true.
    error_ms: f64,
    uncertainty_ms: f64,
    source: Source,
}

impl Seen {
    fn holds(&self) -> bool {
        self.error_ms.abs() <= self.uncertainty_ms
    }
}

fn walk(street: Street, seed: u64) -> (Vec<Seen>, Clock) {
    let mut dice = Dice::new(seed);
    let start = Instant::now();
    let mut line = Timeline::new(RATE, Some(start));
    let mut clock = Clock::new(RATE, start);
    let mut jumps = 0;
    let first = (dice.roll() * 4e9) as u32;
    let mut offset = 0_u32;
    let mut say_at = 0.5;
    let mut seen = Vec::new();
    let mut last_arrival = 0.0_f64;
    let frames = f64::from(street.seconds) * street.fps;
    for i in 0..frames as u32 {
        let second = f64::from(i) / street.fps;
        if street
            .media_jump
            .is_some_and(|(at, _)| second >= at && offset == 0)
        {
            offset = street.media_jump.unwrap().1;
        }
        let ticks = second * (1.0 + street.drift_ppm / 1e6) * f64::from(RATE);
        let time = first.wrapping_add(ticks as u64 as u32).wrapping_add(offset);
        let spike = if dice.roll() < 0.01 { 200.0 } else { 0.0 };
        let delay = street.delay_ms + dice.exponential(street.jitter_ms) + spike;
        // In order, as after a reorder window.
        last_arrival = last_arrival.max(second + delay / 1e3);
        let arrived = start + Duration::from_secs_f64(last_arrival);
        let off = if last_arrival < street.wall_off.1 {
            street.wall_off.0
        } else {
            0.0
        };
        let wall = Wall {
            mono: arrived,
            utc_us: EPOCH_US + ((last_arrival + off) * 1e6) as i64,
        };
        let long = line.apply(time, arrived);
        if std::mem::replace(&mut jumps, line.jumps()) != line.jumps() {
            clock.restart();
        }
        clock.frame(long, arrived);
        if let Some(off) = street.sender_off_s
            && second >= say_at
        {
            say_at += street.said_every_s;
            if dice.roll() >= street.said_lost {
                let off = if street.sender_set_s.is_some_and(|at| second >= at) {
                    0.0
                } else {
                    off
                };
                // Kept by NTP to 20 ms; what it says is read out of its clock with 3 ms of noise.
                let noise = 0.02 + dice.roll() * 0.003;
                let utc = EPOCH_US + ((second + off + noise) * 1e6) as i64;
                let at = line.locate(time).unwrap();
                clock.said(street.source, at, ntp_of(utc));
            }
        }
        let (captured, source) = clock.captured(long, wall);
        let true_utc = EPOCH_US as f64 + second * 1e6;
        seen.push(Seen {
            second,
            error_ms: (captured.utc_us as f64 - true_utc) / 1e3,
            uncertainty_ms: f64::from(captured.uncertainty_us) / 1e3,
            source,
        });
    }
    (seen, clock)
}

fn share(seen: &[Seen], when: impl Fn(&Seen) -> bool) -> f64 {
    seen.iter().filter(|s| when(s)).count() as f64 / seen.len() as f64
}

#[track_caller]
fn holds(what: &str, seen: &[Seen]) {
    let held = share(seen, Seen::holds);
    let worst = seen.iter().find(|s| !s.holds());
    assert!(
        held >= 0.95,
        "{what}: the statement holds for {held:.3} of all; first not at {:?}",
        worst.map(|s| (s.second, s.error_ms, s.uncertainty_ms, s.source)),
    );
}

fn after(seen: Vec<Seen>, second: f64) -> Vec<Seen> {
    seen.into_iter().filter(|s| s.second >= second).collect()
}

/// Largest uncertainty between two seconds.
fn unsure(seen: &[Seen], from: f64, to: f64) -> f64 {
    seen.iter()
        .filter(|s| (from..to).contains(&s.second))
        .fold(0.0, |max, s| s.uncertainty_ms.max(max))
}

#[test]
fn what_is_stated_holds_over_drift_jitter_losses_and_jumps() {
    let mut walks = 0;
    for drift_ppm in [-500.0, -20.0, 0.0, 500.0] {
        for sender_off_s in [None, Some(0.0), Some(-2280.0), Some(86_400.0)] {
            for (media_jump, said_lost) in [
                (None, 0.0),
                (Some((200.0, 1 << 31)), 0.5),
                (Some((300.0, 77_777)), 0.9),
            ] {
                for (delay_ms, jitter_ms) in [(30.0, 2.0), (90.0, 15.0), (250.0, 60.0)] {
                    let street = Street {
                        drift_ppm,
                        sender_off_s,
                        media_jump,
                        said_lost,
                        delay_ms,
                        jitter_ms,
                        ..STREET
                    };
                    walks += 1;
                    let what = format!(
                        "{drift_ppm} ppm, off {sender_off_s:?} s, jump {media_jump:?}, {delay_ms}±{jitter_ms} ms"
                    );
                    holds(&what, &walk(street, walks).0);
                }
            }
        }
    }
}

#[test]
fn what_is_stated_holds_on_any_street() {
    for seed in 1..=120 {
        let mut dice = Dice::new(seed * 977);
        let mut between = |from: f64, to: f64| from + dice.roll() * (to - from);
        let one_of = |all: &[f64], roll: f64| all[(roll * all.len() as f64) as usize];
        let says = between(0.0, 1.0);
        let street = Street {
            seconds: 240,
            fps: one_of(&[1.0, 5.0, 12.5, 25.0, 50.0], between(0.0, 1.0)),
            drift_ppm: between(-500.0, 500.0),
            delay_ms: between(5.0, 300.0),
            jitter_ms: between(0.5, 60.0),
            sender_off_s: match says {
                ..0.3 => None,
                ..0.7 => Some(0.0),
                _ => Some(between(-1e5, 1e5)),
            },
            source: Source::SenderReports,
            said_every_s: between(0.5, 10.0),
            said_lost: between(0.0, 0.9),
            media_jump: (between(0.0, 1.0) < 0.5)
                .then(|| (between(1.0, 240.0), between(0.0, 4e9) as u32)),
            sender_set_s: (between(0.0, 1.0) < 0.3).then(|| between(1.0, 240.0)),
            wall_off: (0.0, 0.0),
        };
        let (seen, _) = walk(street, seed);
        holds(&format!("street {seed}: {street:?}"), &seen);
        // Not by saying nothing: it is sure most of the time.
        let sure = share(&seen, |s| s.uncertainty_ms < 500.0);
        assert!(sure > 0.9, "street {seed}: sure of {sure}: {street:?}");
    }
}

#[test]
fn reports_of_a_right_clock_make_it_sure() {
    for drift_ppm in [-500.0, 0.0, 500.0] {
        let street = Street {
            drift_ppm,
            sender_off_s: Some(0.0),
            said_lost: 0.3,
            ..STREET
        };
        let (seen, clock) = walk(street, 5);
        let seen = after(seen, 10.0);
        assert_eq!(share(&seen, |s| s.source == Source::SenderReports), 1.0);
        assert!(
            unsure(&seen, 10.0, 600.0) < 80.0,
            "{}",
            unsure(&seen, 10.0, 600.0)
        );
        assert!(seen.iter().all(|s| s.error_ms.abs() < 40.0));
        let drift = clock.drift_ppm().unwrap();
        assert!(
            (drift - drift_ppm).abs() < 20.0,
            "{drift} instead of {drift_ppm}"
        );
        assert!(clock.drift_uncertainty_ppm().unwrap() < 60.0);
        assert_eq!(clock.jumps(), 0);
    }
}

#[test]
fn capture_times_go_before_reports() {
    let street = Street {
        source: Source::CaptureTime,
        said_every_s: 0.04,
        sender_off_s: Some(0.0),
        ..STREET
    };
    let (seen, mut clock) = walk(street, 9);
    let seen = after(seen, 1.0);
    assert_eq!(share(&seen, |s| s.source == Source::CaptureTime), 1.0);
    holds("capture times", &seen);
    // A report that says something else changes nothing.
    let base = clock.base.unwrap();
    let wall = Wall {
        mono: clock.origin + Duration::from_secs(600),
        utc_us: EPOCH_US + 600_000_000,
    };
    let before = clock.captured(base, wall);
    clock.said(Source::SenderReports, base, ntp_of(EPOCH_US - 400_000));
    assert_eq!(clock.captured(base, wall), before);
}

#[test]
fn a_clock_that_is_wrong_is_corrected_to_the_arrivals() {
    // A camera 38 minutes off, one without time (1970), one in the next era, one that says zero.
    for off in [
        -38.0 * 60.0,
        -(EPOCH_US as f64 / 1e6),
        20.0 * 365.0 * 86_400.0,
    ] {
        let street = Street {
            sender_off_s: Some(off),
            ..STREET
        };
        let (seen, clock) = walk(street, 3);
        assert_eq!(share(&seen, |s| s.source == Source::Arrival), 1.0, "{off}");
        holds("a wrong clock", &seen);
        assert!(unsure(&seen, 0.0, 600.0) < 400.0);
        assert!(
            clock.reported(clock.base.unwrap()).is_some(),
            "it still aligns its media"
        );
    }
    let mut clock = Clock::new(RATE, Instant::now());
    clock.frame(5, Instant::now());
    clock.said(Source::SenderReports, 5, 0);
    assert_eq!(clock.reported(5), None);
}

#[test]
fn a_clock_that_is_set_is_believed_from_then_on() {
    let street = Street {
        sender_off_s: Some(3600.0),
        sender_set_s: Some(100.0),
        ..STREET
    };
    let (seen, clock) = walk(street, 4);
    assert_eq!(clock.jumps(), 1);
    holds("a clock that is set", &seen);
    let seen = after(seen, 110.0);
    assert_eq!(share(&seen, |s| s.source == Source::SenderReports), 1.0);
}

#[test]
fn one_slip_of_the_sender_changes_nothing() {
    let start = Instant::now();
    let mut clock = Clock::new(RATE, start);
    let wall = Wall {
        mono: start,
        utc_us: EPOCH_US,
    };
    clock.frame(0, start);
    let says = |clock: &mut Clock, second: u64, off_us: i64| {
        let utc_us = EPOCH_US + second.cast_signed() * 1_000_000 + off_us;
        clock.said(Source::SenderReports, second * 90_000, ntp_of(utc_us))
    };
    assert!(!says(&mut clock, 0, 0) && !says(&mut clock, 5, 0));
    let before = clock.captured(0, wall);
    assert!(!says(&mut clock, 10, 9_000_000));
    assert!(
        !says(&mut clock, 15, -9_000_000),
        "two slips are no new time"
    );
    assert_eq!(clock.captured(0, wall), before);
    assert!(!says(&mut clock, 20, 0));
    assert!(!says(&mut clock, 25, 9_000_000) && says(&mut clock, 30, 9_000_000));
    assert_eq!(clock.jumps(), 1);
}

#[test]
fn after_a_jump_it_is_less_sure_and_then_sure_again() {
    let street = Street {
        sender_off_s: None,
        media_jump: Some((200.0, 1 << 30)),
        ..STREET
    };
    let (seen, clock) = walk(street, 6);
    let (before, just_after) = (unsure(&seen, 190.0, 200.0), unsure(&seen, 200.0, 201.0));
    assert!(just_after > before + 150.0, "{before} → {just_after}");
    let later = unsure(&seen, 230.0, 240.0);
    assert!(later < before + 30.0, "{before} → {just_after} → {later}");
    assert_eq!(clock.jumps(), 1);
    // Jumps that are too small for a new timeline: the arrivals show them.
    for ticks in [90_000_u32, 90_000_u32.wrapping_neg()] {
        for sender_off_s in [None, Some(0.0)] {
            let street = Street {
                media_jump: Some((202.0, ticks)),
                sender_off_s,
                ..street
            };
            let (seen, clock) = walk(street, 7);
            holds("one second", &seen);
            let moment: Vec<_> = seen
                .iter()
                .filter(|s| (202.7..204.9).contains(&s.second))
                .collect();
            assert!(moment.iter().all(|s| s.holds()), "before the next report");
            let later = unsure(&seen, 230.0, 240.0);
            assert!(later < 330.0, "{ticks} {sender_off_s:?}: {later}");
            assert!(clock.jumps() > 0 || ticks > 90_000 && sender_off_s.is_none());
        }
    }
}

#[test]
fn our_own_clock_may_be_set() {
    // The box starts in 1970 and learns the time after a minute.
    let wall_off = (-(EPOCH_US as f64 / 1e6), 60.0);
    for sender_off_s in [None, Some(0.0)] {
        let street = Street {
            sender_off_s,
            wall_off,
            ..STREET
        };
        let (seen, _) = walk(street, 8);
        let seen = after(seen, 60.5);
        holds("after our clock was set", &seen);
        assert_eq!(share(&seen, Seen::holds), 1.0);
        let sent = share(&seen, |s| s.source == Source::SenderReports);
        assert_eq!(sent, if sender_off_s.is_some() { 1.0 } else { 0.0 });
    }
}

#[test]
fn congestion_moves_no_capture_time() {
    let start = Instant::now();
    let mut clock = Clock::new(RATE, start);
    let utc = |second: f64| EPOCH_US + (second * 1e6) as i64;
    for i in 0..2000_u32 {
        let second = f64::from(i) / 25.0;
        // From the 40th second on everything is late by 400 ms, for five seconds.
        let delay = if (40.0..45.0).contains(&second) {
            0.5
        } else {
            0.1
        };
        let arrived = start + Duration::from_secs_f64(second + delay);
        let time = (1 << 40) + (second * 90_000.0) as u64;
        clock.frame(time, arrived);
        let wall = Wall {
            mono: arrived,
            utc_us: utc(second + delay),
        };
        let (captured, _) = clock.captured(time, wall);
        let error = captured.utc_us - utc(second);
        assert!(error.abs() < 200_000, "{second}: {error}");
        assert!(i64::from(captured.uncertainty_us) > error.abs());
    }
    assert_eq!(clock.jumps(), 0);
}

#[test]
fn a_shift_of_the_times_changes_no_capture_time() {
    let street = Street {
        sender_off_s: Some(0.0),
        drift_ppm: 300.0,
        seconds: 120,
        ..STREET
    };
    let (_, mut clock) = walk(street, 2);
    let (base, origin) = (clock.base.unwrap(), clock.origin);
    let wall = Wall {
        mono: origin,
        utc_us: EPOCH_US,
    };
    let time = base + 119 * 90_000;
    let before = (clock.captured(time, wall).0, clock.reported(time).unwrap());
    clock.shift(-45_000);
    let after = (
        clock.captured(time - 45_000, wall).0,
        clock.reported(time - 45_000).unwrap(),
    );
    assert!(
        (before.0.utc_us - after.0.utc_us).abs() < 100,
        "{before:?} {after:?}"
    );
    assert!((before.1 - after.1).abs() < 100);
}

#[test]
fn memory_is_bounded() {
    let street = Street {
        seconds: 3600,
        fps: 5.0,
        said_every_s: 0.2,
        sender_off_s: Some(0.0),
        ..STREET
    };
    let (_, clock) = walk(street, 1);
    assert!(clock.arrivals.points.len() <= POINTS_MAX);
    assert!(clock.reports.points.len() <= SAID_MAX);
}
