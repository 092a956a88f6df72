//! The clock model of one medium: media time to the UTC moment of capture, with how sure that is.
//!
//! Here: what the sender says of its clock (abs-capture-time, sender reports: `said`), what the arrivals say
//! (`arrivals`), and which is believed. Not here: reading clocks (the caller gives them), jumps of RTP time
//! (`time::Timeline` takes those out).
//!
//! Arrivals: a frame cannot come before it was captured, and the least delayed ones come evenly. The line below all
//! delays of the last minutes is the sender's clock as ours sees it; its slope is the drift. It knows nothing of the
//! delay that all frames share.
//!
//! What the sender says is believed while it fits the arrivals: captured before it came, and not long before. A camera
//! whose clock is wrong is corrected to the arrivals; its reports then serve the alignment of its media alone.

mod arrivals;
mod said;

use std::time::Instant;

use super::rtcp::utc_us_of;
use crate::media::Captured;
use arrivals::Arrivals;
use said::Said;

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

    /// The sender says: media time `time` was at `ntp` (64-bit NTP). Zero says that it has no clock. True when this
    /// shows that its clock was set.
    pub fn said(&mut self, source: Source, time: u64, ntp: u64) -> bool {
        let time = self.begin(time);
        let said = match source {
            Source::SenderReports if ntp != 0 => &mut self.reports,
            Source::CaptureTime if ntp != 0 => &mut self.captures,
            _ => return false,
        };
        let was_set = said.take(time, utc_us_of(ntp));
        self.jumps += u64::from(was_set);
        was_set
    }

    /// The sender's clock was set, as the reports of another medium show: its reports on this one are of before.
    pub fn forget_reports(&mut self) {
        self.reports = Said::default();
    }

    /// When the frame of media time `time` was captured. `wall`: our clocks now.
    pub fn captured(&mut self, time: u64, wall: Wall) -> (Captured, Source) {
        let Some(base) = self.base.filter(|_| self.arrivals.has_begun()) else {
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

/// The middle value; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests;
