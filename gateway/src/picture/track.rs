//! The track of one device: where it is by all that it said, how sure that is, how fresh.
//!
//! Here: order in time, outliers, live → stale → coasting → lost. `timing` says when a fix happened, `filter` what
//! follows from it. All pure: `now` is passed in. Not here: cells and zones, rules, the feed, anything about sessions.

mod filter;
mod timing;

use std::time::Duration;

use kerbside_codecs::telemetry::Fix;

use crate::clock::Now;
pub use filter::{DRONE, Estimate, FOOT, Motion, RADIUS_68, VEHICLE};
use filter::{Filter, Measured, apart_m};
use timing::Timing;
pub use timing::{Deviation, Moment, Order};

/// Fastest thing of a street, m/s: farther than this is no way but a fault.
const SPEED_MAX_MPS: f64 = 120.0;
/// After so many seconds without a fix a track begins anew, unless nothing could have come so far.
const FORGOTTEN_S: f32 = 120.0;
/// A fix this improbable waits for a second one: squared distance in units of its variance.
const GATE: f32 = 16.0;
/// Most reflections between houses are over by then.
const REFLECTION_MS: i64 = 4_000;
/// Reports without a time that come closer together were kept back: their order is all they tell.
const BURST: Duration = Duration::from_millis(700);
/// An officer this fast rides, and is taken as a vehicle for so long.
const RIDING_MPS: f32 = 3.5;
const RIDING_MS: i64 = 90_000;
/// A position is stale after so many of its own intervals, at least …
const STALE_INTERVALS: u32 = 3;
const STALE_MIN: Duration = Duration::from_secs(10);
/// … coasting after so many, at least …
const COASTING_INTERVALS: u32 = 6;
const COASTING_MIN: Duration = Duration::from_secs(30);
/// … and lost after so many, at least …
const LOST_INTERVALS: u32 = 10;
const LOST_MIN: Duration = Duration::from_secs(60);
/// Longest interval that is learnt: a device that was off is not slow.
const INTERVAL_MAX_MS: i64 = 600_000;

/// How a device of this kind moves; of what nobody knows: as a vehicle, which can be anywhere sooner.
pub fn motion_of(kind: &str) -> Motion {
    match kind {
        "drone" => DRONE,
        "bodycam" | "terminal" | "radio" | "camera" | "sensor" | "dock" => FOOT,
        _ => VEHICLE,
    }
}

/// How fresh the position is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Never gave a position.
    #[default]
    Silent,
    Live,
    /// Its next fix is overdue.
    Stale,
    /// It has missed so many that only the prediction is left, which comes to rest.
    Coasting,
    /// Where it was last known; it can be anywhere.
    Lost,
}

impl Freshness {
    pub const ALL: [Self; 5] = [
        Self::Silent,
        Self::Live,
        Self::Stale,
        Self::Coasting,
        Self::Lost,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Coasting => "coasting",
            Self::Lost => "lost",
        }
    }
}

/// What became of a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The position follows it.
    Moved,
    /// Too far from where the device should be: it waits for a second one that agrees.
    Held,
    /// Older than what is known: history.
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

/// A fix with its times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    pub fix: Fix,
    pub device_time_ms: Option<i64>,
    /// When it happened, by our clock.
    pub moment: Moment,
    /// When we knew.
    pub arrived: Now,
    /// How often the device's clock had been set by then.
    jumps: u16,
}

/// A fix beside the track, and how many there were in a row.
#[derive(Clone, Copy, Debug)]
struct Held {
    known: Known,
    in_a_row: u8,
    /// When the first of them happened.
    since_ms: i64,
}

/// Where a device is. Small: there are 10,000.
#[derive(Clone, Debug, Default)]
pub struct Track {
    timing: Timing,
    last: Option<Known>,
    filter: Option<Filter>,
    held: Option<Box<Held>>,
    freshness: Freshness,
    /// Milliseconds between the last fixes.
    intervals_ms: [u32; 5],
    intervals: u8,
    /// When it was last as fast as a vehicle, milliseconds since 1970 UTC.
    rode_ms: Option<i64>,
    /// It does not move and does not age: a camera on its pole.
    fixed: bool,
}

impl Track {
    /// Puts a device that does not move where it stands.
    pub fn fix_at(&mut self, fix: Fix, now: Now) {
        self.fixed = true;
        self.filter = None;
        self.freshness = Freshness::Live;
        self.last = Some(Known {
            fix,
            device_time_ms: None,
            moment: Timing::default().take(None, false, now.unix_ms),
            arrived: now,
            jumps: 0,
        });
    }

    /// The newest fix that was believed, as the device gave it.
    pub fn last(&self) -> Option<&Known> {
        self.last.as_ref()
    }

    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// None: it tells no time.
    pub fn deviation(&self) -> Option<Deviation> {
        self.timing.deviation()
    }

    /// Where it was at its newest fix, by all that is known.
    pub fn estimate(&self, motion: Motion) -> Option<Estimate> {
        let last = self.last.as_ref()?;
        let Some(filter) = &self.filter else {
            return Some(standing(&last.fix));
        };
        let motion = self.motion(motion, last.moment.at_ms);
        Some(with_time(filter.estimate(&motion), &last.moment))
    }

    /// Where it is now: its way goes on and comes to rest.
    pub fn at(&self, motion: Motion, now_ms: i64) -> Option<Estimate> {
        let last = self.last.as_ref()?;
        let Some(filter) = &self.filter else {
            return Some(standing(&last.fix));
        };
        let ahead_s = seconds(now_ms.saturating_sub(last.moment.at_ms)).max(0.0);
        let motion = self.motion(motion, last.moment.at_ms);
        Some(with_time(filter.at(ahead_s, &motion), &last.moment))
    }

    /// How far it is foretold, in seconds of its velocity.
    pub fn coast_s(&self, motion: Motion) -> f32 {
        let at_ms = self.last.as_ref().map_or(0, |l| l.moment.at_ms);
        self.motion(motion, at_ms).coast_s
    }

    /// As the device says, else as its way tells.
    pub fn speed_mps(&self) -> Option<f64> {
        let said = self.last.as_ref()?.fix.speed_mps;
        said.or_else(|| Some(self.filter.as_ref()?.speed_mps().into()))
    }

    /// When a report happened; to be asked for every report of the device, once, in the order of their arrival.
    pub fn hear(&mut self, device_time_ms: Option<i64>, back_fill: bool, now: Now) -> Moment {
        self.timing.take(device_time_ms, back_fill, now.unix_ms)
    }

    /// Takes the fix of a report that happened at `moment` ([`Self::hear`]).
    pub fn take(
        &mut self,
        fix: Fix,
        device_time_ms: Option<i64>,
        moment: Moment,
        motion: Motion,
        now: Now,
    ) -> Taken {
        if moment.order == Order::Older {
            return Taken::Stale;
        }
        let next = Known {
            fix,
            device_time_ms,
            moment,
            arrived: now,
            jumps: self.timing.jumps(),
        };
        let motion = self.motion(motion, moment.at_ms);
        let z = measured(&next, &motion);
        let (Some(last), Some(filter)) = (&self.last, &mut self.filter) else {
            self.filter = Some(Filter::new(&z, &motion));
            self.accept(next, None);
            return Taken::Moved;
        };
        let dt = step_s(last, &next);
        let pause = now.mono.saturating_duration_since(last.arrived.mono);
        let burst = device_time_ms.is_none() && pause < BURST;
        if moment.order == Order::Same && (fix.lat, fix.lon) == (last.fix.lat, last.fix.lon) {
            // The same again.
            self.accept(next, None);
            return Taken::Moved;
        }
        let is_jump = is_jump(last, &next);
        if dt >= FORGOTTEN_S && !is_jump {
            // It may have gone anywhere since then: the former way foretells nothing.
            filter.restart(&z, &motion);
            self.accept(next, Some(dt));
            return Taken::Moved;
        }
        let surprising = is_jump || !burst && filter.surprise(&z, dt, &motion) > GATE;
        if !surprising {
            if burst {
                filter.restart(&z, &motion);
            } else {
                filter.update(&z, dt, &motion);
            }
            self.accept(next, Some(dt));
            return Taken::Moved;
        }
        if let Some(held) = self
            .held
            .as_deref()
            .filter(|h| h.agrees(last, &next, &motion))
        {
            filter.restart(&z, &motion);
            let from = (held.known.fix.lat, held.known.fix.lon);
            filter.set_way(from, step_s(&held.known, &next), &z, &motion);
            self.accept(next, Some(dt));
            return Taken::Moved;
        }
        let (in_a_row, since_ms) = match &self.held {
            Some(h) => (h.in_a_row.saturating_add(1), h.since_ms),
            None => (1, moment.at_ms),
        };
        self.held = Some(Box::new(Held {
            known: next,
            in_a_row,
            since_ms,
        }));
        Taken::Held
    }

    /// An officer in a car moves as the car does.
    fn motion(&self, own: Motion, at_ms: i64) -> Motion {
        let rides = self
            .rode_ms
            .is_some_and(|t| at_ms.saturating_sub(t) < RIDING_MS);
        if rides && own == FOOT { VEHICLE } else { own }
    }

    fn accept(&mut self, next: Known, dt_s: Option<f32>) {
        if let Some(dt) = dt_s {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "at most ten minutes"
            )]
            let ms = (dt * 1000.0).clamp(0.0, INTERVAL_MAX_MS as f32) as u32;
            self.intervals_ms.rotate_right(1);
            self.intervals_ms[0] = ms;
            self.intervals = (self.intervals + 1).min(5);
        }
        #[allow(clippy::cast_possible_truncation, reason = "a speed")]
        let fast = |s: f64| s as f32 > RIDING_MPS;
        self.held = None;
        self.last = Some(next);
        if self.speed_mps().is_some_and(fast) {
            self.rode_ms = Some(next.moment.at_ms);
        }
        self.age(next.arrived);
    }

    /// Time passed. True when the freshness changed.
    pub fn age(&mut self, now: Now) -> bool {
        let Some(last) = self.last.as_ref().filter(|_| !self.fixed) else {
            return false;
        };
        let on_the_way = last.arrived.unix_ms.saturating_sub(last.moment.at_ms);
        let silence = now.mono.saturating_duration_since(last.arrived.mono)
            + Duration::from_millis(on_the_way.max(0).unsigned_abs());
        let interval = self.median_interval();
        let after = |intervals: u32, least: Duration| silence >= (interval * intervals).max(least);
        let next = if after(LOST_INTERVALS, LOST_MIN) {
            Freshness::Lost
        } else if after(COASTING_INTERVALS, COASTING_MIN) {
            Freshness::Coasting
        } else if after(STALE_INTERVALS, STALE_MIN) {
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

impl Held {
    /// Two fixes beside the track tell of one place, or three of one way. A reflection between houses does that, too, but
    /// not for long; what no reflection explains is believed at once.
    fn agrees(&self, last: &Known, next: &Known, motion: &Motion) -> bool {
        if is_jump(&self.known, next) {
            return false;
        }
        let lasts = next.moment.at_ms.saturating_sub(self.since_ms) >= REFLECTION_MS;
        if !lasts && self.in_a_row < 2 && !is_jump(last, next) {
            return false;
        }
        let near = f64::from(4.0 * motion.speed_mps * step_s(&self.known, next))
            + 2.0 * blur_m(&self.known, next, motion);
        self.in_a_row >= 2 || way_m(&self.known, next) <= near
    }
}

fn measured(k: &Known, motion: &Motion) -> Measured {
    #[allow(clippy::cast_possible_truncation, reason = "metres and degrees")]
    let narrow = |v: Option<f64>| v.map(|v| v as f32);
    let f = &k.fix;
    // A vehicle points where it goes; a body camera does not.
    let course = f.course_deg.or_else(|| {
        let drives = *motion == VEHICLE && f.speed_mps.is_some_and(|s| s > 2.0);
        f.heading_deg.filter(|_| drives)
    });
    Measured {
        lat: f.lat,
        lon: f.lon,
        accuracy_m: narrow(f.accuracy_m),
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of seconds")]
        jitter_s: k.moment.jitter_ms as f32 / 1000.0,
        speed_mps: narrow(f.speed_mps),
        course_deg: narrow(course),
    }
}

/// What does not move, or was never filtered.
fn standing(fix: &Fix) -> Estimate {
    #[allow(clippy::cast_possible_truncation, reason = "metres")]
    Estimate {
        lat: fix.lat,
        lon: fix.lon,
        sigma_m: fix.accuracy_m.unwrap_or(0.0) as f32 / RADIUS_68,
        velocity_mps: (0.0, 0.0),
        moves: 0.0,
    }
}

/// A device that moves is blurred by what is not known of the moment.
fn with_time(e: Estimate, moment: &Moment) -> Estimate {
    let speed = e.velocity_mps.0.hypot(e.velocity_mps.1);
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of seconds")]
    let blur = speed * moment.sigma_ms as f32 / 1000.0;
    Estimate {
        sigma_m: e.sigma_m.hypot(blur / std::f32::consts::SQRT_2),
        ..e
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "milliseconds of hours"
)]
fn seconds(ms: i64) -> f32 {
    ms as f32 / 1000.0
}

/// From one fix to the next: by the device's clock when it told both times and was not set between, else by ours.
fn step_s(a: &Known, b: &Known) -> f32 {
    let own = a
        .device_time_ms
        .zip(b.device_time_ms)
        .filter(|_| a.jumps == b.jumps)
        .map(|(a, b)| b.saturating_sub(a))
        .filter(|ms| *ms > 0);
    seconds(
        own.unwrap_or_else(|| b.moment.at_ms.saturating_sub(a.moment.at_ms))
            .max(0),
    )
}

fn way_m(a: &Known, b: &Known) -> f64 {
    apart_m((a.fix.lat, a.fix.lon), (b.fix.lat, b.fix.lon))
}

fn blur_m(a: &Known, b: &Known, motion: &Motion) -> f64 {
    let of = |k: &Known| k.fix.accuracy_m.unwrap_or(motion.accuracy_m.into());
    of(a) + of(b)
}

/// Farther than anything gets, by the more generous of the two clocks, beyond both stated accuracies.
fn is_jump(a: &Known, b: &Known) -> bool {
    let arrivals_s = b.arrived.mono.saturating_duration_since(a.arrived.mono);
    let s = f64::from(step_s(a, b)).min(3600.0);
    let reach_m = SPEED_MAX_MPS * arrivals_s.as_secs_f64().max(s).max(1.0);
    let said = |k: &Known| k.fix.accuracy_m.unwrap_or(0.0);
    way_m(a, b) > reach_m + said(a) + said(b)
}

#[cfg(test)]
pub(super) mod tests;
