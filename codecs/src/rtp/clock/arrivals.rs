//! Media time against arrival: the line below all delays.
//!
//! Here: its fit, and when it is doubted. Not here: what the sender says (`said`).

use std::collections::VecDeque;

use super::{DELAY_USUAL_US, DRIFT_MAX, median};

/// Points of the lower envelope that are kept.
pub(super) const POINTS_MAX: usize = 64;
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
pub struct Arrivals {
    /// (media time, delay) of the least delayed frame of each stretch, oldest first.
    pub(super) points: VecDeque<(f64, f64)>,
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
    pub fn frame(&mut self, time: f64, at: f64) -> bool {
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

    pub fn restart(&mut self) {
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

    /// Did a frame come?
    pub fn has_begun(&self) -> bool {
        self.now.is_some()
    }

    /// When a frame came at the earliest.
    pub fn came(&self, time: f64) -> f64 {
        time + self.line.0 + self.line.1 * time
    }

    /// How far `came` may be off.
    pub fn unsure(&self) -> f64 {
        self.spread + self.doubt + self.late()
    }

    /// How late everything is just now: congestion, or a jump that is not sure yet.
    pub fn late(&self) -> f64 {
        let least = self.recent.least();
        if least > LATE_US { least } else { 0.0 }
    }

    pub fn drift(&self) -> Option<(f64, f64)> {
        let span = self.span();
        (span >= DRIFT_AFTER_US).then(|| {
            // Delay that grows is a clock that is slow.
            let ppm = (1.0 / (1.0 + self.line.1) - 1.0) * 1e6;
            (ppm, 2.0 * (self.spread + 1000.0) / span * 1e6)
        })
    }

    pub fn shift(&mut self, us: f64) {
        // The same frame has a later media time now, so a lesser delay.
        let moved = |p: &mut (f64, f64)| *p = (p.0 + us, p.1 - us);
        self.points.iter_mut().for_each(moved);
        if let Some((_, least)) = &mut self.now {
            moved(least);
        }
        self.line.0 -= us + self.line.1 * us;
    }
}
