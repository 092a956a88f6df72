//! The clock model of one medium: media time to the UTC moment of capture, with how sure that is.
//!
//! Here: what the sender says of its clock (abs-capture-time, sender reports), what the arrivals say, and which is
//! believed. Not here: reading clocks (the caller gives them), jumps of RTP time (`time::Timeline` takes those out).
//!
//! Arrivals: a frame cannot come before it was captured, and the least delayed ones come evenly. The line below all
//! delays of the last minutes is the sender's clock as ours sees it; its slope is the drift. It knows nothing of the
//! delay that all frames share.
//!
//! What the sender says is believed while it fits the arrivals: captured before it came, and not long before. A camera
//! whose clock is wrong is corrected to the arrivals; its reports then serve the alignment of its media alone.

use std::collections::VecDeque;
use std::time::Instant;

use super::rtcp::utc_us_of;
use crate::media::Captured;

/// Our two clocks, read together.
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    pub mono: Instant,
    /// Microseconds since 1970 UTC.
    pub utc_us: i64,
}

impl Wall {
    /// UTC of another moment, by this reading.
    pub fn utc_of(&self, at: Instant) -> i64 {
        self.utc_us.saturating_add(signed_us(at, self.mono))
    }
}

/// Where capture times come from, the most trusted last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Arrival,
    /// RTCP sender reports (RFC 3550 §6.4.1).
    SenderReports,
    /// The header extension abs-capture-time.
    CaptureTime,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::SenderReports => "sender_reports",
            Self::CaptureTime => "capture_time",
        }
    }
}

/// From the lens to us in at most so much, when nobody tells: encoder, network, reordering.
const DELAY_USUAL_US: f64 = 500_000.0;
/// A sender that says more than this before the arrival has a wrong clock rather than a slow network.
const DELAY_MAX_US: f64 = 3_000_000.0;
/// A sender may say it was captured so much after it arrived: its clock and ours are kept by NTP over other ways.
const AHEAD_MAX_US: f64 = 150_000.0;
/// How well a device that is kept by NTP knows UTC.
const SENDER_UNCERTAINTY_US: f64 = 50_000.0;
/// No stated uncertainty is less than this.
const UNCERTAINTY_MIN_US: f64 = 1_000.0;
/// No clock that is of any use drifts more.
const DRIFT_MAX: f64 = 1e-3;

/// The clock model of one medium.
#[derive(Debug)]
pub struct Clock {
    rate: f64,
    /// What arrivals count from.
    origin: Instant,
    /// What media times count from: the first one.
    base: Option<u64>,
    arrivals: Arrivals,
    reports: Said,
    captures: Said,
    jumps: u64,
}

impl Clock {
    /// `rate`: ticks per second. `origin`: any moment near the first arrival.
    pub fn new(rate: u32, origin: Instant) -> Self {
        Self {
            rate: f64::from(rate.max(1)),
            origin,
            base: None,
            arrivals: Arrivals::default(),
            reports: Said::default(),
            captures: Said::default(),
            jumps: 0,
        }
    }

    /// A frame of media time `time` (extended, without jumps) came.
    pub fn frame(&mut self, time: u64, arrived: Instant) {
        let time = self.begin(time);
        #[allow(clippy::cast_precision_loss, reason = "microseconds of years")]
        let at = signed_us(arrived, self.origin) as f64;
        if self.arrivals.frame(time, at) {
            self.jumps += 1;
        }
    }

    /// The sender says: media time `time` was at `ntp` (64-bit NTP). Zero says that it has no clock.
    pub fn said(&mut self, source: Source, time: u64, ntp: u64) {
        let time = self.begin(time);
        let said = match source {
            Source::SenderReports if ntp != 0 => &mut self.reports,
            Source::CaptureTime if ntp != 0 => &mut self.captures,
            _ => return,
        };
        if said.take(time, utc_us_of(ntp)) {
            self.jumps += 1;
        }
    }

    /// When the frame of media time `time` was captured. `wall`: our clocks now.
    pub fn captured(&mut self, time: u64, wall: Wall) -> (Captured, Source) {
        let Some(base) = self.base.filter(|_| self.arrivals.now.is_some()) else {
            let half = DELAY_USUAL_US / 2.0;
            return (captured(wall.utc_us, -half, half), Source::Arrival);
        };
        let time = self.us(time, base);
        let zero_utc_us = wall.utc_of(self.origin);
        // When it came at the earliest, in our UTC since `zero`.
        let came = self.arrivals.came(time);
        let unsure = self.arrivals.unsure();
        for (said, source) in [
            (&mut self.captures, Source::CaptureTime),
            (&mut self.reports, Source::SenderReports),
        ] {
            let Some((at, doubt)) = said.at(time, zero_utc_us) else {
                continue;
            };
            let delay = came - at;
            if said.is_believed(delay, unsure) {
                let far = if delay > DELAY_USUAL_US {
                    delay
                } else {
                    -delay
                };
                let unsure = SENDER_UNCERTAINTY_US.max(far) + doubt + self.arrivals.late();
                return (captured(zero_utc_us, at.min(came), unsure), source);
            }
        }
        let half = DELAY_USUAL_US / 2.0;
        let utc = captured(zero_utc_us, came - half, half + unsure);
        (utc, Source::Arrival)
    }

    /// By the sender's reports, right or wrong: its UTC of media time `time`, in microseconds since 1970. For the
    /// alignment of media whose reports come from one clock.
    pub fn reported(&self, time: u64) -> Option<i64> {
        let (at, _) = self.reports.at(self.us(time, self.base?), 0)?;
        Some(whole(at))
    }

    /// The sender's clock runs so many millionths faster than ours; None before it was watched for half a minute.
    pub fn drift_ppm(&self) -> Option<f64> {
        self.arrivals.drift().map(|(ppm, _)| ppm)
    }

    /// Half the range in which the drift lies, in millionths.
    pub fn drift_uncertainty_ppm(&self) -> Option<f64> {
        self.arrivals.drift().map(|(_, unsure)| unsure)
    }

    /// Jumps of the media time or of the sender's UTC that this model saw.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// All times from now on are moved by so many ticks (`Timeline::shift`).
    pub fn shift(&mut self, ticks: i64) {
        #[allow(clippy::cast_precision_loss, reason = "an alignment is seconds")]
        let us = ticks as f64 * 1e6 / self.rate;
        self.arrivals.shift(us);
        self.reports.shift(us);
        self.captures.shift(us);
    }

    /// The sender's clock jumped: what was learned of it is void.
    pub fn restart(&mut self) {
        self.jumps += 1;
        self.arrivals.restart();
        self.reports = Said::default();
        self.captures = Said::default();
    }

    fn begin(&mut self, time: u64) -> f64 {
        let base = *self.base.get_or_insert(time);
        self.us(time, base)
    }

    fn us(&self, time: u64, base: u64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "2^53 ticks are years")]
        let ticks = time.wrapping_sub(base).cast_signed() as f64;
        ticks * 1e6 / self.rate
    }
}

fn captured(zero_utc_us: i64, us: f64, unsure: f64) -> Captured {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is positive"
    )]
    let uncertainty_us = unsure.max(UNCERTAINTY_MIN_US) as u32;
    Captured {
        utc_us: zero_utc_us.saturating_add(whole(us)),
        uncertainty_us,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "saturates")]
fn whole(us: f64) -> i64 {
    us as i64
}

fn signed_us(at: Instant, origin: Instant) -> i64 {
    let us = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    if at >= origin {
        us(at - origin)
    } else {
        -us(origin - at)
    }
}

/// Points of the lower envelope that are kept.
const POINTS_MAX: usize = 64;
/// A point is the least delay of so long; it doubles up to the last when all places are taken.
const POINT_MIN_US: f64 = 1e6;
const POINT_MAX_US: f64 = 4e6;
/// Shorter than this nothing is said of drift.
const DRIFT_AFTER_US: f64 = 30e6;
/// Frames that all come so much after their line are doubtful, and after so long the line is given up: media time
/// was set back, or the way became longer.
const LATE_US: f64 = 150_000.0;
const LATE_MAX_US: f64 = 10e6;
/// "All" are those of so long.
const RECENT_US: f64 = 300_000.0;
/// Frames so much before their line: media time jumped; or, without many points, the way was slow at the beginning.
const EARLY_US: f64 = 200_000.0;
const LEARNED_POINTS: usize = 10;

/// Media time against arrival: the line below all delays. Microseconds since the base of the clock.
#[derive(Debug)]
struct Arrivals {
    /// (media time, delay) of the least delayed frame of each stretch, oldest first.
    points: VecDeque<(f64, f64)>,
    stretch: f64,
    /// The stretch that runs: since which arrival, and its least delayed frame so far.
    now: Option<(f64, (f64, f64))>,
    /// Delay at media time zero, and how it grows.
    line: (f64, f64),
    /// Median distance of the points from the line.
    spread: f64,
    /// Of a fit that was begun anew: shrinks with each point.
    doubt: f64,
    recent: Recent,
    /// Since which arrival all frames are late.
    late_since: Option<f64>,
}

/// The least distance from the line of the newest frames.
#[derive(Debug, Default)]
struct Recent {
    since: f64,
    least: f64,
    before: f64,
}

impl Recent {
    fn frame(&mut self, at: f64, above: f64) {
        if at - self.since >= RECENT_US {
            self.since = at;
            self.before = std::mem::replace(&mut self.least, above);
        }
        self.least = self.least.min(above);
    }

    fn least(&self) -> f64 {
        self.least.min(self.before)
    }
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            points: VecDeque::new(),
            stretch: POINT_MIN_US,
            now: None,
            line: (0.0, 0.0),
            spread: 0.0,
            doubt: 0.0,
            recent: Recent::default(),
            late_since: None,
        }
    }
}

impl Arrivals {
    /// True when this frame shows that media time jumped.
    fn frame(&mut self, time: f64, at: f64) -> bool {
        let point = (time, at - time);
        let Some((since, least)) = &mut self.now else {
            self.begin(at, point);
            return false;
        };
        if point.1 < least.1 {
            *least = point;
        }
        let (since, least) = (*since, *least);
        let above = point.1 - (self.line.0 + self.line.1 * time);
        if above < -EARLY_US {
            let is_jump = self.points.len() >= LEARNED_POINTS;
            self.begin_anew(-above);
            self.begin(at, point);
            return is_jump;
        }
        if above < 0.0 {
            self.line.0 += above;
        }
        self.recent.frame(at, above.max(0.0));
        if self.late() > 0.0 {
            let late_since = *self.late_since.get_or_insert(at);
            if at - late_since > LATE_MAX_US {
                self.begin_anew(self.late());
                self.begin(at, point);
                return false;
            }
        } else {
            self.late_since = None;
        }
        if at - since >= self.stretch {
            self.now = Some((at, point));
            self.put(least);
        }
        false
    }

    fn begin(&mut self, at: f64, point: (f64, f64)) {
        self.line = (point.1, 0.0);
        self.now = Some((at, point));
        self.recent.since = at;
    }

    fn put(&mut self, point: (f64, f64)) {
        self.doubt /= 2.0;
        self.points.push_back(point);
        if self.points.len() > POINTS_MAX {
            if self.stretch < POINT_MAX_US {
                self.stretch *= 2.0;
                self.halve();
            } else {
                self.points.pop_front();
            }
        }
        self.fit();
    }

    /// Two neighbours become the lesser one.
    fn halve(&mut self) {
        let all: Vec<_> = self.points.drain(..).collect();
        self.points.extend(all.chunks(2).map(|two| match *two {
            [a, b] if b.1 < a.1 => b,
            _ => two[0],
        }));
    }

    fn begin_anew(&mut self, doubt: f64) {
        *self = Self {
            doubt,
            ..Self::default()
        };
    }

    fn restart(&mut self) {
        self.begin_anew(DELAY_USUAL_US / 2.0);
    }

    /// The line below all points that is nearest to them on the whole: the edge of their lower hull above their mean
    /// (Moon, Skelly, Towsley: Estimation and Removal of Clock Skew from Network Delay Measurements, 1999).
    fn fit(&mut self) {
        let mut hull: Vec<(f64, f64)> = Vec::with_capacity(self.points.len());
        for &p in &self.points {
            while let [.., a, b] = hull[..]
                && (b.1 - a.1) * (p.0 - a.0) >= (p.1 - a.1) * (b.0 - a.0)
            {
                hull.pop();
            }
            hull.push(p);
        }
        let n = f64::from(u32::try_from(self.points.len()).unwrap_or(1));
        let mean = self.points.iter().map(|p| p.0).sum::<f64>() / n;
        let slope = hull
            .windows(2)
            .find(|w| w[1].0 >= mean)
            .filter(|_| self.span() >= DRIFT_AFTER_US / 3.0)
            .map_or(0.0, |w| (w[1].1 - w[0].1) / (w[1].0 - w[0].0).max(1.0))
            .clamp(-DRIFT_MAX, DRIFT_MAX);
        let least = |sum: f64, p: &(f64, f64)| sum.min(p.1 - slope * p.0);
        let zero = self.points.iter().fold(f64::INFINITY, least);
        self.line = (zero, slope);
        let mut far: Vec<f64> = self
            .points
            .iter()
            .map(|p| p.1 - (zero + slope * p.0))
            .collect();
        self.spread = median(&mut far);
    }

    fn span(&self) -> f64 {
        match (self.points.front(), self.points.back()) {
            (Some(a), Some(b)) => b.0 - a.0,
            _ => 0.0,
        }
    }

    /// When a frame came at the earliest.
    fn came(&self, time: f64) -> f64 {
        time + self.line.0 + self.line.1 * time
    }

    /// How far `came` may be off.
    fn unsure(&self) -> f64 {
        self.spread + self.doubt + self.late()
    }

    /// How late everything is just now: congestion, or a jump that is not sure yet.
    fn late(&self) -> f64 {
        let least = self.recent.least();
        if least > LATE_US { least } else { 0.0 }
    }

    fn drift(&self) -> Option<(f64, f64)> {
        let span = self.span();
        (span >= DRIFT_AFTER_US).then(|| {
            // Delay that grows is a clock that is slow.
            let ppm = (1.0 / (1.0 + self.line.1) - 1.0) * 1e6;
            (ppm, 2.0 * (self.spread + 1000.0) / span * 1e6)
        })
    }

    fn shift(&mut self, us: f64) {
        // The same frame has a later media time now, so a lesser delay.
        let moved = |p: &mut (f64, f64)| *p = (p.0 + us, p.1 - us);
        self.points.iter_mut().for_each(moved);
        if let Some((_, least)) = &mut self.now {
            moved(least);
        }
        self.line.0 -= us + self.line.1 * us;
    }
}

/// What the sender says is looked at once in so long.
const SAID_EVERY_US: f64 = 1e6;
const SAID_MAX: usize = 16;
/// A word that is so far from the former ones: the sender's clock was set, or its media time jumped.
const SAID_APART_US: f64 = 250_000.0;
/// Words over a shorter time tell no rate.
const SAID_SPAN_MIN_US: f64 = 20e6;

/// Media time against the sender's UTC: the middle of what it says.
#[derive(Debug, Default)]
struct Said {
    /// (media time, UTC - media time), oldest first. UTC counts from `zero_us`.
    points: VecDeque<(f64, f64)>,
    zero_us: i64,
    /// UTC - media time at media time zero, and how it grows.
    line: (f64, f64),
    spread: f64,
    /// Of a fit that was begun anew.
    doubt: f64,
    is_believed: bool,
}

impl Said {
    /// True when the sender's clock jumped.
    fn take(&mut self, time: f64, utc_us: i64) -> bool {
        if self.points.is_empty() {
            self.zero_us = utc_us;
        }
        #[allow(clippy::cast_precision_loss, reason = "microseconds of years")]
        let utc = utc_us.saturating_sub(self.zero_us) as f64;
        let point = (time, utc - time);
        let Some(last) = self.points.back() else {
            self.points.push_back(point);
            self.fit();
            return false;
        };
        let apart = (point.1 - (self.line.0 + self.line.1 * time)).abs();
        if apart > SAID_APART_US {
            *self = Self {
                zero_us: utc_us,
                doubt: SENDER_UNCERTAINTY_US * 2.0,
                ..Self::default()
            };
            self.points.push_back((time, -time));
            self.fit();
            return true;
        }
        if (time - last.0).abs() < SAID_EVERY_US {
            return false;
        }
        self.doubt /= 2.0;
        if self.points.len() == SAID_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.fit();
        false
    }

    /// Middle slope of all pairs (Theil, Sen), middle offset. At most 120 pairs, once in a second at most.
    fn fit(&mut self) {
        let p = &self.points;
        let mut slopes = Vec::new();
        for (i, a) in p.iter().enumerate() {
            let far = p.iter().skip(i + 1).filter(|b| b.0 - a.0 > SAID_EVERY_US);
            slopes.extend(far.map(|b| (b.1 - a.1) / (b.0 - a.0)));
        }
        let span = p.back().map_or(0.0, |b| b.0) - p.front().map_or(0.0, |a| a.0);
        let slope = if span >= SAID_SPAN_MIN_US && slopes.len() >= 3 {
            median(&mut slopes).clamp(-DRIFT_MAX, DRIFT_MAX)
        } else {
            0.0
        };
        // Without a slope the newest words count alone: drift has moved the others.
        let newest = if slope == 0.0 { 3 } else { SAID_MAX };
        let recent = || p.iter().rev().take(newest);
        let mut offsets: Vec<f64> = recent().map(|p| p.1 - slope * p.0).collect();
        let zero = median(&mut offsets);
        let mut far: Vec<f64> = recent()
            .map(|p| (p.1 - (zero + slope * p.0)).abs())
            .collect();
        self.line = (zero, slope);
        self.spread = 2.0 * median(&mut far);
    }

    /// The sender's UTC of a media time since `zero_utc_us`, and how unsure it is beside the sender's clock.
    fn at(&self, time: f64, zero_utc_us: i64) -> Option<(f64, f64)> {
        let (last, _) = self.points.back()?;
        #[allow(clippy::cast_precision_loss, reason = "microseconds of years")]
        let zero = self.zero_us.saturating_sub(zero_utc_us) as f64;
        // What it has not said for long may have drifted away.
        let old = (time - last).abs();
        let drifted = old * if self.line.1 == 0.0 { 6e-4 } else { 5e-5 };
        let at = zero + time + self.line.0 + self.line.1 * time;
        Some((at, self.spread + self.doubt + drifted))
    }

    /// `delay`: between what it says and the arrival; a sender at the edge keeps what it is.
    fn is_believed(&mut self, delay: f64, spread: f64) -> bool {
        let more = if self.is_believed { 1.3 } else { 1.0 };
        let range = -(AHEAD_MAX_US * more + spread)..DELAY_MAX_US * more;
        self.is_believed = range.contains(&delay);
        self.is_believed
    }

    fn shift(&mut self, us: f64) {
        for p in &mut self.points {
            *p = (p.0 + us, p.1 - us);
        }
        self.line.0 -= us + self.line.1 * us;
    }
}

/// The middle value; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
