//! Is a camera healthy? Judged once a second from what its publisher delivers; the rules are in gateway/API.md.
//!
//! Here: the rules and their thresholds, with the moment since which a state holds. Not here: measuring (`meter`).

use std::time::{Duration, Instant};

use serde::Serialize;

use super::meter::Second;

/// A silence is no pause any more after this, and after so many of the camera's own intervals.
const SILENCE_MIN: Duration = Duration::from_secs(2);
const SILENCE_INTERVALS: u32 = 5;
/// A publisher that never sent a frame gets more time: its first key frame may be seconds away.
const FIRST_FRAME_MAX: Duration = Duration::from_secs(5);
/// The picture stands still when its frames are less than this share of what they usually are, for so long.
const FROZEN_SHARE: f64 = 0.05;
const FROZEN_AFTER: Duration = Duration::from_secs(10);
/// It moves again from this share on.
const MOVES_SHARE: f64 = 0.1;
/// What is usual is learned over about so many seconds, and counts after the first of them.
const USUAL_OVER: f64 = 300.0;
const USUAL_AFTER: u32 = 20;
/// Smaller frames than these say nothing: nearly everything is overhead.
const USUAL_BYTES_MIN: f64 = 200.0;
/// Per cent of packets lost that nothing repaired, to become lossy and to be good again.
const LOSSY_PCT: f64 = 1.0;
const LOSSLESS_PCT: f64 = 0.5;
const LOSSY_PACKETS_MIN: u64 = 50;
/// Millionths of drift, to be faulty and to be good again.
const DRIFT_PPM: f64 = 100.0;
const DRIFT_GOOD_PPM: f64 = 80.0;
/// A jump of the clock shows for so long.
const JUMP_SHOWN: Duration = Duration::from_secs(60);

/// The worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    NoFrames,
    Frozen,
    Lossy,
    ClockDrift,
    Ok,
}

impl HealthState {
    pub const ALL: [Self; 5] = [
        Self::NoFrames,
        Self::Frozen,
        Self::Lossy,
        Self::ClockDrift,
        Self::Ok,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::NoFrames => "no_frames",
            Self::Frozen => "frozen",
            Self::Lossy => "lossy",
            Self::ClockDrift => "clock_drift",
            Self::Ok => "ok",
        }
    }
}

/// A state and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    pub state: HealthState,
    /// Milliseconds since 1970 UTC.
    pub since_ms: i64,
}

/// What is judged: of the picture, or of the first medium of a stream without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs {
    /// Since when no frame came, and the usual interval.
    pub heard: Instant,
    pub interval: Option<Duration>,
    pub second: Second,
    /// Packets of all media in the window.
    pub lost: u64,
    pub sent: u64,
    /// Millionths, and half the range in which they lie.
    pub drift: Option<(f64, f64)>,
    /// So far.
    pub jumps: u64,
}

/// Judges one publisher.
#[derive(Debug)]
pub(super) struct Judge {
    health: Health,
    usual: Usual,
    still_since: Option<Instant>,
    is_frozen: bool,
    is_lossy: bool,
    drifts: bool,
    jumps: u64,
    jumped: Option<Instant>,
}

/// Bytes of a frame that is no key frame, as they usually are.
#[derive(Debug, Default)]
struct Usual {
    bytes: f64,
    seconds: u32,
}

impl Judge {
    pub fn new(unix_ms: i64) -> Self {
        Self {
            health: Health {
                state: HealthState::Ok,
                since_ms: unix_ms,
            },
            usual: Usual::default(),
            still_since: None,
            is_frozen: false,
            is_lossy: false,
            drifts: false,
            jumps: 0,
            jumped: None,
        }
    }

    /// The encoder was set anew: what was usual is not any more.
    pub fn encoder_changed(&mut self) {
        self.usual = Usual::default();
        self.still_since = None;
        self.is_frozen = false;
    }

    /// Judges a second; gives the state and whether it is another one than before.
    pub fn judge(&mut self, signs: &Signs, now: Instant, unix_ms: i64) -> (Health, bool) {
        self.picture(&signs.second, now);
        self.losses(signs);
        self.clock(signs, now);
        let state = if is_silent(signs, now) {
            HealthState::NoFrames
        } else if self.is_frozen {
            HealthState::Frozen
        } else if self.is_lossy {
            HealthState::Lossy
        } else if self.drifts || self.jumped.is_some() {
            HealthState::ClockDrift
        } else {
            HealthState::Ok
        };
        let changed = state != self.health.state;
        if changed {
            self.health = Health {
                state,
                since_ms: unix_ms,
            };
        }
        (self.health, changed)
    }

    #[allow(clippy::cast_precision_loss, reason = "bytes of a second")]
    fn picture(&mut self, second: &Second, now: Instant) {
        if second.deltas == 0 {
            return;
        }
        let bytes = second.delta_bytes as f64 / f64::from(second.deltas);
        let usual = self.usual.bytes;
        let known = self.usual.seconds >= USUAL_AFTER && usual >= USUAL_BYTES_MIN;
        if known && bytes < usual * FROZEN_SHARE {
            let since = *self.still_since.get_or_insert(now);
            self.is_frozen |= now.saturating_duration_since(since) >= FROZEN_AFTER;
            return;
        }
        if known && self.is_frozen && bytes < usual * MOVES_SHARE {
            return;
        }
        self.still_since = None;
        self.is_frozen = false;
        self.usual.seconds = self.usual.seconds.saturating_add(1);
        let share = f64::from(self.usual.seconds).min(USUAL_OVER);
        self.usual.bytes += (bytes - usual) / share;
    }

    #[allow(clippy::cast_precision_loss, reason = "packets of seconds")]
    fn losses(&mut self, signs: &Signs) {
        let pct = signs.lost as f64 * 100.0 / signs.sent.max(1) as f64;
        let limit = if self.is_lossy {
            LOSSLESS_PCT
        } else {
            LOSSY_PCT
        };
        self.is_lossy = signs.sent >= LOSSY_PACKETS_MIN && pct > limit;
    }

    fn clock(&mut self, signs: &Signs, now: Instant) {
        let limit = if self.drifts {
            DRIFT_GOOD_PPM
        } else {
            DRIFT_PPM
        };
        self.drifts = signs
            .drift
            .is_some_and(|(ppm, unsure)| ppm.abs() - unsure > limit);
        if std::mem::replace(&mut self.jumps, signs.jumps) < signs.jumps {
            self.jumped = Some(now);
        }
        self.jumped = self
            .jumped
            .filter(|at| now.saturating_duration_since(*at) < JUMP_SHOWN);
    }
}

fn is_silent(signs: &Signs, now: Instant) -> bool {
    let silence = now.saturating_duration_since(signs.heard);
    match signs.interval {
        Some(interval) => silence > SILENCE_MIN.max(interval * SILENCE_INTERVALS),
        None => silence > FIRST_FRAME_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Camera {
        judge: Judge,
        start: Instant,
        second: u64,
        signs: Signs,
    }

    impl Camera {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                judge: Judge::new(0),
                start,
                second: 0,
                signs: Signs {
                    heard: start,
                    interval: Some(Duration::from_millis(40)),
                    second: Second::default(),
                    lost: 0,
                    sent: 500,
                    drift: None,
                    jumps: 0,
                },
            }
        }

        /// A second with 24 frames of so many bytes; 0: none came.
        fn second(&mut self, bytes: u64) -> HealthState {
            self.second += 1;
            let now = self.start + Duration::from_secs(self.second);
            let deltas = if bytes == 0 { 0 } else { 24 };
            if deltas > 0 {
                self.signs.heard = now;
            }
            self.signs.second.deltas = deltas;
            self.signs.second.delta_bytes = bytes * u64::from(deltas);
            let ms = i64::try_from(self.second * 1000).unwrap();
            self.judge.judge(&self.signs, now, ms).0.state
        }

        fn seconds(&mut self, n: u32, bytes: u64) -> HealthState {
            (0..n).map(|_| self.second(bytes)).last().unwrap()
        }
    }

    #[test]
    fn silence_is_told_after_two_seconds_and_over_with_the_first_frame() {
        let mut c = Camera::new();
        assert_eq!(c.seconds(5, 5000), HealthState::Ok);
        assert_eq!(c.seconds(2, 0), HealthState::Ok);
        assert_eq!(c.second(0), HealthState::NoFrames);
        assert_eq!(c.judge.health.since_ms, 8000);
        assert_eq!(c.second(0), HealthState::NoFrames);
        assert_eq!(c.judge.health.since_ms, 8000, "since when, not when last");
        assert_eq!(c.second(5000), HealthState::Ok);
        // A camera of one frame in two seconds may pause for ten.
        c.signs.interval = Some(Duration::from_secs(2));
        assert_eq!(c.seconds(10, 0), HealthState::Ok);
        assert_eq!(c.second(0), HealthState::NoFrames);
        // One that sends no frame at all is silent too.
        let mut c = Camera::new();
        c.signs.interval = None;
        assert_eq!(c.seconds(5, 0), HealthState::Ok);
        assert_eq!(c.second(0), HealthState::NoFrames);
    }

    #[test]
    fn a_picture_that_stands_still_is_frozen() {
        let mut c = Camera::new();
        assert_eq!(c.seconds(60, 5000), HealthState::Ok);
        assert_eq!(c.seconds(10, 60), HealthState::Ok, "it may be a moment");
        assert_eq!(c.second(60), HealthState::Frozen);
        assert_eq!(
            c.seconds(600, 60),
            HealthState::Frozen,
            "nobody gets used to it"
        );
        assert_eq!(
            c.second(400),
            HealthState::Frozen,
            "neither still nor moving"
        );
        assert_eq!(c.second(3000), HealthState::Ok);
        // A quiet street at night is no frozen picture.
        assert_eq!(c.seconds(600, 400), HealthState::Ok);
        // Neither is a new, lower resolution.
        assert_eq!(c.seconds(100, 9000), HealthState::Ok);
        c.judge.encoder_changed();
        assert_eq!(c.seconds(60, 300), HealthState::Ok);
    }

    #[test]
    fn a_picture_that_never_moved_is_not_judged() {
        let mut c = Camera::new();
        assert_eq!(c.seconds(300, 40), HealthState::Ok);
        assert_eq!(c.seconds(300, 1), HealthState::Ok);
    }

    #[test]
    fn losses_and_clocks_show_until_they_are_good_again() {
        let mut c = Camera::new();
        c.signs.lost = 5;
        assert_eq!(c.second(5000), HealthState::Ok, "one per cent is not more");
        c.signs.lost = 6;
        assert_eq!(c.second(5000), HealthState::Lossy);
        c.signs.lost = 3;
        assert_eq!(c.second(5000), HealthState::Lossy);
        c.signs.lost = 2;
        assert_eq!(c.second(5000), HealthState::Ok);
        c.signs.drift = Some((-150.0, 60.0));
        assert_eq!(c.second(5000), HealthState::Ok, "not sure yet");
        c.signs.drift = Some((-150.0, 40.0));
        assert_eq!(c.second(5000), HealthState::ClockDrift);
        c.signs.drift = Some((-120.0, 30.0));
        assert_eq!(c.second(5000), HealthState::ClockDrift);
        c.signs.drift = Some((-20.0, 30.0));
        assert_eq!(c.second(5000), HealthState::Ok);
        c.signs.jumps = 1;
        assert_eq!(c.seconds(60, 5000), HealthState::ClockDrift);
        assert_eq!(c.second(5000), HealthState::Ok);
    }
}
