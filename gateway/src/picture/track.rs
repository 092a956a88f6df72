//! The track of one device: where it is, how fresh that is.
//!
//! Here: order in time, implausible jumps, live → stale → lost. All pure: `now` is passed in. Not here: cells and zones
//! (`borders`), rules, the feed, anything about sessions.

use std::time::{Duration, Instant};

use kerbside_codecs::geo;
use kerbside_codecs::telemetry::Fix;

use crate::clock::Now;

/// Fastest thing on the ground, m/s.
const GROUND_SPEED_MAX_MPS: f64 = 120.0;
/// Fixes in a row older than the last one are taken as a clock set back when nothing newer came for so long.
const CLOCK_STEP_AFTER: Duration = Duration::from_secs(30);
/// A track is stale after so many of its own intervals, at least …
const STALE_INTERVALS: u32 = 3;
const STALE_MIN: Duration = Duration::from_secs(10);
/// … and lost after so many, at least …
const LOST_INTERVALS: u32 = 10;
const LOST_MIN: Duration = Duration::from_secs(60);
/// Longest interval that is learnt: a device that was off is not slow.
const INTERVAL_MAX: Duration = Duration::from_secs(600);

/// How fresh the position is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Never gave a position.
    #[default]
    Silent,
    Live,
    Stale,
    Lost,
}

impl Freshness {
    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Lost => "lost",
        }
    }
}

/// What became of a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the position now.
    Moved,
    /// Too far from the last one: it waits for a second one that agrees.
    Held,
    /// Older than what is known.
    Stale,
}

impl Taken {
    pub fn name(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Held => "held",
            Self::Stale => "stale",
        }
    }
}

/// A position with its times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    pub fix: Fix,
    pub device_time_ms: Option<i64>,
    pub arrived: Now,
}

/// Where a device is. Small: there are 10,000.
#[derive(Clone, Debug, Default)]
pub struct Track {
    last: Option<Known>,
    held: Option<Box<Known>>,
    freshness: Freshness,
    /// Milliseconds between the last fixes.
    intervals_ms: [u32; 5],
    intervals: u8,
    derived_speed_mps: Option<f32>,
    /// It does not move and does not age: a camera on its pole.
    fixed: bool,
}

impl Track {
    /// Puts a device that does not move where it stands.
    pub fn fix_at(&mut self, fix: Fix, now: Now) {
        self.fixed = true;
        self.accept(Known {
            fix,
            device_time_ms: None,
            arrived: now,
        });
    }

    pub fn last(&self) -> Option<&Known> {
        self.last.as_ref()
    }

    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// As the device says, else from its last two positions.
    pub fn speed_mps(&self) -> Option<f64> {
        self.last
            .as_ref()
            .and_then(|l| l.fix.speed_mps)
            .or(self.derived_speed_mps.map(f64::from))
    }

    /// Is a report with this device time older than what is known? Such a one never moves the marker back.
    pub fn is_older(&self, device_time_ms: Option<i64>, now: Now) -> bool {
        let Some(last) = &self.last else {
            return false;
        };
        matches!((device_time_ms, last.device_time_ms), (Some(t), Some(known)) if t < known)
            && since(last.arrived.mono, now.mono) < CLOCK_STEP_AFTER
    }

    /// Takes a fix. `on_ground`: it cannot be faster than a car.
    pub fn take(
        &mut self,
        fix: Fix,
        device_time_ms: Option<i64>,
        on_ground: bool,
        now: Now,
    ) -> Taken {
        if self.is_older(device_time_ms, now) {
            return Taken::Stale;
        }
        let next = Known {
            fix,
            device_time_ms,
            arrived: now,
        };
        let jumps = |from: &Known| on_ground && is_jump(from, &next);
        if self.last.as_ref().is_some_and(jumps) && self.held.as_deref().is_none_or(jumps) {
            self.held = Some(Box::new(next));
            return Taken::Held;
        }
        self.accept(next);
        Taken::Moved
    }

    fn accept(&mut self, next: Known) {
        if let Some(last) = &self.last {
            let interval = since(last.arrived.mono, next.arrived.mono).min(INTERVAL_MAX);
            let ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
            self.intervals_ms.rotate_right(1);
            self.intervals_ms[0] = ms;
            self.intervals = (self.intervals + 1).min(5);
            #[allow(clippy::cast_possible_truncation, reason = "a speed")]
            if let Some(s) = seconds_between(last, &next).filter(|s| *s > 0.0) {
                self.derived_speed_mps = Some((distance_m(last, &next) / s) as f32);
            }
        }
        self.held = None;
        self.freshness = Freshness::Live;
        self.last = Some(next);
    }

    /// Time passed. True when the freshness changed.
    pub fn age(&mut self, now: Now) -> bool {
        let Some(last) = self.last.as_ref().filter(|_| !self.fixed) else {
            return false;
        };
        let silence = since(last.arrived.mono, now.mono);
        let interval = self.median_interval();
        let next = if silence >= (interval * LOST_INTERVALS).max(LOST_MIN) {
            Freshness::Lost
        } else if silence >= (interval * STALE_INTERVALS).max(STALE_MIN) {
            Freshness::Stale
        } else {
            Freshness::Live
        };
        std::mem::replace(&mut self.freshness, next) != next
    }

    fn median_interval(&self) -> Duration {
        let n = usize::from(self.intervals);
        let mut known = self.intervals_ms;
        let known = &mut known[..n];
        known.sort_unstable();
        Duration::from_millis(known.get(n / 2).copied().unwrap_or(0).into())
    }
}

fn since(then: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(then)
}

fn distance_m(a: &Known, b: &Known) -> f64 {
    geo::distance_m((a.fix.lat, a.fix.lon), (b.fix.lat, b.fix.lon))
}

/// By the device's clock, or by ours when it tells no time.
fn seconds_between(a: &Known, b: &Known) -> Option<f64> {
    let ms = match (a.device_time_ms, b.device_time_ms) {
        (Some(x), Some(y)) => i32::try_from(y.checked_sub(x)?).ok()?,
        _ => i32::try_from(since(a.arrived.mono, b.arrived.mono).as_millis()).ok()?,
    };
    Some(f64::from(ms) / 1000.0)
}

/// Farther than a ground vehicle gets, by the more generous of the two clocks, beyond both stated accuracies.
fn is_jump(a: &Known, b: &Known) -> bool {
    let arrival_s = since(a.arrived.mono, b.arrived.mono).as_secs_f64();
    let seconds = seconds_between(a, b).unwrap_or(0.0).min(3600.0);
    let reach_m = GROUND_SPEED_MAX_MPS * arrival_s.max(seconds).max(1.0);
    let blur_m = a.fix.accuracy_m.unwrap_or(0.0) + b.fix.accuracy_m.unwrap_or(0.0);
    distance_m(a, b) > reach_m + blur_m
}

#[cfg(test)]
pub(super) mod tests;
