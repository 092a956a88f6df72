//! Media time against the UTC that the sender says.
//!
//! Here: the middle of its words, and whether they fit the arrivals. Not here: the arrivals.

use std::collections::VecDeque;

use super::{AHEAD_MAX_US, DELAY_MAX_US, DRIFT_MAX, SENDER_UNCERTAINTY_US, median};

/// What the sender says is looked at once in so long.
const SAID_EVERY_US: f64 = 1e6;
pub(super) const SAID_MAX: usize = 16;
/// A word that is so far from the former ones is a slip; two that agree: the sender's clock was set, or its media
/// time jumped.
const SAID_APART_US: f64 = 250_000.0;
/// Words over a shorter time tell no rate.
const SAID_SPAN_MIN_US: f64 = 20e6;

/// Media time against the sender's UTC: the middle of what it says.
#[derive(Debug, Default)]
pub struct Said {
    /// (media time, UTC - media time), oldest first. UTC counts from `zero_us`.
    pub(super) points: VecDeque<(f64, f64)>,
    zero_us: i64,
    /// UTC - media time at media time zero, and how it grows.
    line: (f64, f64),
    spread: f64,
    /// The last word, if it was far from the former ones.
    odd: Option<(f64, f64)>,
    /// Of a fit that was begun anew.
    doubt: f64,
    is_believed: bool,
}

impl Said {
    /// True when the sender's clock jumped.
    pub fn take(&mut self, time: f64, utc_us: i64) -> bool {
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
            let agrees = |odd: (f64, f64)| (odd.1 - point.1).abs() < SAID_APART_US;
            if !self.odd.replace(point).is_some_and(agrees) {
                return false;
            }
            *self = Self {
                zero_us: utc_us,
                doubt: SENDER_UNCERTAINTY_US * 2.0,
                ..Self::default()
            };
            self.points.push_back((time, -time));
            self.fit();
            return true;
        }
        self.odd = None;
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
    pub fn at(&self, time: f64, zero_utc_us: i64) -> Option<(f64, f64)> {
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
    pub fn is_believed(&mut self, delay: f64, spread: f64) -> bool {
        let more = if self.is_believed { 1.3 } else { 1.0 };
        let range = -(AHEAD_MAX_US * more + spread)..DELAY_MAX_US * more;
        self.is_believed = range.contains(&delay);
        self.is_believed
    }

    pub fn shift(&mut self, us: f64) {
        for p in self.points.iter_mut().chain(&mut self.odd) {
            *p = (p.0 + us, p.1 - us);
        }
        self.line.0 -= us + self.line.1 * us;
    }
}
