//! The clock of one device: when something happened by our clock, out of the device's own time and the arrival.
//!
//! Here: offset and drift of the device's clock, how sure that is, and whether a report is newer than what is known.
//! Not here: reading clocks (the caller gives them), positions.
//!
//! A report cannot arrive before it was made. The least late reports of the last half hour are a line below all others:
//! that line is the device's clock as ours sees it, its slope is the drift. What all reports share (the quickest way
//! through the network) cannot be seen; it is taken as 0 to 0.3 s, the same way as for video (`codecs::rtp::Clock`).
//! A report far above the line was kept back by an outage and keeps its own time. Reports that stay above the line in
//! step with the arrivals, or fall below it twice, show that the clock was set.

use serde::Serialize;

/// From the fix to us, when nobody tells, milliseconds.
const DELAY_USUAL_MS: i64 = 150;
/// The quickest report of a device whose clock is right comes within this.
const DELAY_QUICK_MS: i64 = 300;
/// A clock that is off by more is plainly wrong: nothing of the difference is delay.
const CLOCK_OFF_MS: i64 = 3_000;
/// Below the line by more: the clock was set forward, or this one time is garbage.
const AHEAD_MS: i64 = 1_000;
/// Above the line by more: kept back, or the clock was set back.
const LATE_MS: i64 = 2_000;
/// Reports in step that show a clock that was set back, over this time at least …
const SET_BACK_REPORTS: u8 = 3;
const SET_BACK_AFTER_MS: i64 = 20_000;
/// … and when it is off by more than this: two.
const SET_BACK_FAR_MS: i64 = 3_600_000;
/// The same device time for longer: its clock stands still.
const FROZEN_AFTER_MS: i64 = 2_000;
/// The line is kept in so many parts of so much time.
const PARTS: usize = 8;
const PART_MS: i64 = 240_000;
/// Believed of a clock nobody measured, and of any clock, parts of one.
const DRIFT_USUAL: f64 = 50e-6;
const DRIFT_MAX: f64 = 500e-6;

/// Where a report stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// After everything that is known.
    Newest,
    /// Of the same device time as the newest.
    Same,
    /// Before the newest, or said to be history.
    Older,
}

/// When a report happened, by our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970 UTC; never after the arrival.
    pub at_ms: i64,
    /// One standard deviation of it.
    pub sigma_ms: u32,
    /// The part of it that the device's next report does not share.
    pub jitter_ms: u32,
    pub order: Order,
}

/// A device's clock against ours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Deviation {
    /// How far it is behind ours; negative: ahead.
    pub behind_ms: i64,
    pub sigma_ms: u32,
    /// How much it gains, millionths; None in the first ten minutes.
    pub drift_ppm: Option<f32>,
    /// How often it was set.
    pub jumps: u16,
}

/// The least late report of some minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Since the line began, milliseconds.
    at_ms: i32,
    /// Lateness against the line's base, milliseconds.
    low_ms: i32,
}

/// Reports beside the line that may be a new one.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    since_ms: i64,
    late_ms: i64,
    device_ms: i64,
    arrived_ms: i64,
    reports: u8,
}

#[derive(Clone, Debug)]
struct Line {
    /// Arrival minus device time of its first report, and that arrival.
    base_ms: i64,
    began_ms: i64,
    parts: [Part; PARTS],
    used: u8,
    reports: u8,
    /// Lateness gained per time, parts of one.
    slope: Option<f32>,
    newest_ms: i64,
    newest_arrived_ms: i64,
    /// Some device time was no whole second.
    fine: bool,
}

/// The clock of one device. Small: there are 10,000.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    line: Option<Box<Line>>,
    candidate: Option<Box<Candidate>>,
    jumps: u16,
}

impl Timing {
    /// A report that arrived at `arrived_ms`. `device_ms`: what it says of its time; `back_fill`: said late on purpose.
    /// Milliseconds since 1970 UTC.
    pub fn take(&mut self, device_ms: Option<i64>, back_fill: bool, arrived_ms: i64) -> Moment {
        let Some(device_ms) = device_ms else {
            return untold(arrived_ms, back_fill);
        };
        let lateness = arrived_ms.saturating_sub(device_ms);
        let Some(line) = &mut self.line else {
            if back_fill {
                return Moment {
                    at_ms: device_ms.min(arrived_ms),
                    sigma_ms: LATE_MS.unsigned_abs() as u32,
                    ..untold(arrived_ms, true)
                };
            }
            let line = self.line.insert(Box::new(Line::new(device_ms, arrived_ms)));
            return line.moment(device_ms, arrived_ms, Order::Newest);
        };
        let step_ms = device_ms.checked_sub(line.newest_ms);
        if back_fill {
            return line.moment(device_ms, arrived_ms, Order::Older);
        }
        if step_ms == Some(0) && arrived_ms - line.newest_arrived_ms > FROZEN_AFTER_MS {
            return untold(arrived_ms, false);
        }
        let late = lateness.saturating_sub(line.low(arrived_ms));
        if !(-AHEAD_MS..=LATE_MS).contains(&late) {
            let beside = self.candidate.take();
            let next = Candidate::after(beside.as_deref(), late, device_ms, arrived_ms);
            if next.is_proven() {
                self.jumps = self.jumps.saturating_add(1);
                **line = Line::new(device_ms, arrived_ms);
                return line.moment(device_ms, arrived_ms, Order::Newest);
            }
            self.candidate = Some(Box::new(next));
            let is_behind = |c: &Candidate| late < 0 && c.late_ms < 0 && device_ms < c.device_ms;
            if beside.as_deref().is_some_and(is_behind) {
                return line.moment(device_ms, arrived_ms, Order::Older);
            }
            if late < 0 {
                // Not believed yet, so it is not the newest time that is known either.
                return Moment {
                    sigma_ms: 1000,
                    ..untold(arrived_ms, false)
                };
            }
        } else {
            self.candidate = None;
            line.learn(device_ms, lateness, arrived_ms);
        }
        let order = match step_ms {
            Some(0) => Order::Same,
            Some(s) if s < 0 => Order::Older,
            _ => Order::Newest,
        };
        if order == Order::Newest {
            line.newest_ms = device_ms;
            line.newest_arrived_ms = arrived_ms;
        }
        line.moment(device_ms, arrived_ms, order)
    }

    /// How often the clock was set.
    pub fn jumps(&self) -> u16 {
        self.jumps
    }

    /// None: it tells no time.
    pub fn deviation(&self) -> Option<Deviation> {
        let line = self.line.as_ref()?;
        let now = line.newest_arrived_ms;
        #[allow(clippy::cast_possible_truncation, reason = "a few hundred at most")]
        Some(Deviation {
            behind_ms: line.behind(now),
            sigma_ms: line.sigma(now),
            drift_ppm: line.slope.map(|s| (-s * 1e7).round() / 10.0),
            jumps: self.jumps,
        })
    }
}

/// Without a device time that could be used.
fn untold(arrived_ms: i64, back_fill: bool) -> Moment {
    Moment {
        at_ms: arrived_ms - DELAY_USUAL_MS,
        sigma_ms: 300,
        jitter_ms: 200,
        order: if back_fill {
            Order::Older
        } else {
            Order::Newest
        },
    }
}

impl Candidate {
    fn after(beside: Option<&Self>, late_ms: i64, device_ms: i64, arrived_ms: i64) -> Self {
        let in_step = |c: &Self| {
            let own = device_ms.saturating_sub(c.device_ms);
            let ours = arrived_ms - c.arrived_ms;
            (c.late_ms < 0) == (late_ms < 0)
                && own > 0
                && (own - ours).abs() < own / 10 * 3 + 300
                && late_ms.saturating_sub(c.late_ms).abs() < AHEAD_MS
        };
        match beside.filter(|c| in_step(c)) {
            Some(c) => Self {
                reports: c.reports.saturating_add(1),
                device_ms,
                arrived_ms,
                ..*c
            },
            None => Self {
                since_ms: arrived_ms,
                late_ms,
                device_ms,
                arrived_ms,
                reports: 1,
            },
        }
    }

    fn is_proven(&self) -> bool {
        if self.late_ms < 0 || self.late_ms > SET_BACK_FAR_MS {
            return self.reports >= 2;
        }
        self.reports >= SET_BACK_REPORTS && self.arrived_ms - self.since_ms >= SET_BACK_AFTER_MS
    }
}

impl Line {
    fn new(device_ms: i64, arrived_ms: i64) -> Self {
        Self {
            base_ms: arrived_ms.saturating_sub(device_ms),
            began_ms: arrived_ms,
            parts: [Part::default(); PARTS],
            used: 1,
            reports: 1,
            slope: None,
            newest_ms: device_ms,
            newest_arrived_ms: arrived_ms,
            fine: device_ms % 1000 != 0,
        }
    }

    fn since(&self, arrived_ms: i64) -> i32 {
        i32::try_from(arrived_ms - self.began_ms).unwrap_or(i32::MAX)
    }

    /// Arrival minus device time of the least late report, as it would be now.
    #[allow(clippy::cast_possible_truncation, reason = "milliseconds of hours")]
    fn low(&self, arrived_ms: i64) -> i64 {
        let now = self.since(arrived_ms);
        let slope = f64::from(self.slope.unwrap_or(0.0));
        let low = self.parts[..usize::from(self.used)]
            .iter()
            .map(|p| f64::from(p.low_ms) + slope * f64::from(now.saturating_sub(p.at_ms)))
            .fold(f64::INFINITY, f64::min);
        self.base_ms + low as i64
    }

    fn learn(&mut self, device_ms: i64, lateness: i64, arrived_ms: i64) {
        self.reports = self.reports.saturating_add(1);
        self.fine |= device_ms % 1000 != 0;
        let at_ms = self.since(arrived_ms);
        if at_ms == i32::MAX {
            // Weeks without a jump: it begins anew where it stands.
            let low = self.low(arrived_ms);
            self.parts = [Part::default(); PARTS];
            (self.base_ms, self.began_ms, self.used) = (low, arrived_ms, 1);
            return;
        }
        let low_ms = i32::try_from(lateness - self.base_ms).unwrap_or(i32::MAX);
        let last = &mut self.parts[usize::from(self.used) - 1];
        if i64::from(at_ms) / PART_MS == i64::from(last.at_ms) / PART_MS {
            if low_ms < last.low_ms {
                *last = Part { at_ms, low_ms };
            }
            return;
        }
        if usize::from(self.used) == PARTS {
            self.parts.rotate_left(1);
            self.used -= 1;
        }
        self.slope = self.measured_slope();
        self.parts[usize::from(self.used)] = Part { at_ms, low_ms };
        self.used += 1;
    }

    /// The median of the slopes between all parts.
    #[allow(clippy::cast_possible_truncation, reason = "a part of one")]
    fn measured_slope(&self) -> Option<f32> {
        let parts = &self.parts[..usize::from(self.used)];
        let mut slopes = [0.0_f64; PARTS * PARTS / 2];
        let mut n = 0;
        for (i, a) in parts.iter().enumerate() {
            for b in &parts[i + 1..] {
                slopes[n] = (f64::from(b.low_ms) - f64::from(a.low_ms))
                    / f64::from((b.at_ms - a.at_ms).max(1));
                n += 1;
            }
        }
        if parts.len() < 3 {
            return None;
        }
        let slopes = &mut slopes[..n];
        slopes.sort_unstable_by(f64::total_cmp);
        Some(slopes[n / 2].clamp(-DRIFT_MAX, DRIFT_MAX) as f32)
    }

    /// How far the device's clock is behind ours: what of the least lateness is not delay.
    fn behind(&self, arrived_ms: i64) -> i64 {
        let low = self.low(arrived_ms);
        if low.abs() > CLOCK_OFF_MS {
            low - DELAY_USUAL_MS
        } else {
            low - low.clamp(0, DELAY_QUICK_MS)
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of hours, none negative"
    )]
    fn sigma(&self, arrived_ms: i64) -> u32 {
        let last = self.parts[usize::from(self.used) - 1];
        let silent = f64::from(self.since(arrived_ms).saturating_sub(last.at_ms));
        let delay = if self.behind(arrived_ms) == 0 {
            50.0
        } else {
            150.0
        };
        let young = if self.reports < 5 { 300.0 } else { 0.0 };
        let drift = silent * DRIFT_USUAL;
        (self.jitter().powi(2) + f64::powi(delay, 2) + f64::powi(young, 2) + drift.powi(2)).sqrt()
            as u32
    }

    /// Times in whole seconds are taken as true to a part of one: receivers measure at the full second.
    fn jitter(&self) -> f64 {
        if self.fine { 10.0 } else { 150.0 }
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "10 or 150"
    )]
    fn moment(&self, device_ms: i64, arrived_ms: i64, order: Order) -> Moment {
        Moment {
            at_ms: device_ms
                .saturating_add(self.behind(arrived_ms))
                .min(arrived_ms),
            sigma_ms: self.sigma(arrived_ms),
            jitter_ms: self.jitter() as u32,
            order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: i64 = 1_795_219_200_000;

    /// A device whose clock is `behind_ms` behind and which reports each second, 80 ms or more on the way.
    struct Device {
        timing: Timing,
        behind_ms: i64,
        drift: f64,
    }

    impl Device {
        fn new(behind_ms: i64) -> Self {
            Self {
                timing: Timing::default(),
                behind_ms,
                drift: 0.0,
            }
        }

        fn clock(&self, s: f64) -> i64 {
            BEGIN + (s * 1e3 * (1.0 + self.drift)) as i64 - self.behind_ms
        }

        /// Of second `s`, `delay_ms` on the way: how far the moment is from the truth, and its order.
        fn report(&mut self, s: f64, delay_ms: i64) -> (i64, Moment) {
            let truth = BEGIN + (s * 1e3) as i64;
            let m = self
                .timing
                .take(Some(self.clock(s)), false, truth + delay_ms);
            (m.at_ms - truth, m)
        }

        fn run(&mut self, seconds: std::ops::Range<u32>) {
            for s in seconds {
                self.report(f64::from(s), 80 + i64::from(s * 37 % 200));
            }
        }
    }

    #[test]
    fn a_right_clock_is_believed_and_a_wrong_one_is_corrected() {
        for behind_ms in [0, 40, -60, 5_000, -4_000, 240_000, 28_800_000] {
            let mut d = Device::new(behind_ms);
            d.run(0..60);
            let (off, m) = d.report(60.0, 180);
            assert!(off.abs() <= 300, "{behind_ms}: {off}");
            assert!(i64::from(m.sigma_ms) * 3 > off.abs(), "{behind_ms}: {m:?}");
            let said = d.timing.deviation().unwrap();
            assert!((said.behind_ms - behind_ms).abs() <= 300, "{said:?}");
            assert_eq!(said.jumps, 0);
        }
    }

    #[test]
    fn reports_of_an_outage_keep_their_own_time() {
        let mut d = Device::new(28_800_000);
        d.run(0..60);
        for s in 60..360_i64 {
            let (off, m) = d.report(s as f64, (360 - s) * 1000 + 100);
            assert!(off.abs() < 400, "{s}: {off}");
            assert_eq!(m.order, Order::Newest);
        }
        assert_eq!(d.timing.jumps(), 0);
    }

    /// The first thing that is heard of a device is what it kept; then one of those once more.
    #[test]
    fn an_old_report_after_a_first_burst_is_old() {
        let mut timing = Timing::default();
        for i in 0..10 {
            let m = timing.take(Some(BEGIN + i * 5_000), false, BEGIN + 100_000);
            assert_eq!(m.order, Order::Newest);
        }
        let m = timing.take(Some(BEGIN + 5_000), false, BEGIN + 100_100);
        assert_eq!(m.order, Order::Older);
        for s in 101..110 {
            let m = timing.take(Some(BEGIN + s * 1_000), false, BEGIN + s * 1_000 + 80);
            assert_eq!(m.order, Order::Newest);
        }
    }

    #[test]
    fn a_clock_set_forward_is_seen_at_the_second_report_and_one_wrong_time_is_not_believed() {
        let mut d = Device::new(0);
        d.run(0..60);
        let wild = d.timing.take(Some(BEGIN + 200_000), false, BEGIN + 60_100);
        assert!(wild.at_ms <= BEGIN + 60_100);
        let (off, m) = d.report(61.0, 100);
        assert!(off.abs() < 100 && m.order == Order::Newest, "{off} {m:?}");
        assert_eq!(d.timing.jumps(), 0);
        d.behind_ms = -200_000;
        d.report(62.0, 100);
        let (off, m) = d.report(63.0, 100);
        assert!(off.abs() < 300 && m.order == Order::Newest);
        assert_eq!(d.timing.jumps(), 1);
    }

    #[test]
    fn a_clock_set_back_is_seen_when_it_stays_in_step() {
        for (behind_ms, seen_at) in [(60_000, 80), (28_800_000, 61)] {
            let mut d = Device::new(0);
            d.run(0..60);
            d.behind_ms = behind_ms;
            for s in 60..90 {
                let (_, m) = d.report(f64::from(s), 100);
                let seen = m.order != Order::Older;
                assert_eq!(seen, s >= seen_at, "at {s}");
            }
            assert_eq!(d.timing.jumps(), 1);
            let (off, _) = d.report(91.0, 100);
            assert!(off.abs() < 300);
        }
    }

    #[test]
    fn drift_is_measured_and_followed() {
        let mut d = Device::new(0);
        d.drift = 80e-6;
        d.run(0..3600);
        let said = d.timing.deviation().unwrap();
        assert!((said.drift_ppm.unwrap() - 80.0).abs() < 15.0, "{said:?}");
        let (off, _) = d.report(3600.0, 120);
        assert!(off.abs() < 300, "{off}");
        assert_eq!(said.jumps, 0);
    }

    #[test]
    fn a_clock_that_stands_still_or_says_nothing_is_not_used() {
        let mut timing = Timing::default();
        assert!(timing.deviation().is_none());
        assert_eq!(timing.take(None, false, BEGIN).order, Order::Newest);
        for s in 0..20 {
            let m = timing.take(Some(1), false, BEGIN + s * 3000);
            assert_eq!(m.order, Order::Newest, "{s}");
            assert!(BEGIN + s * 3000 - m.at_ms < 500);
        }
    }

    #[test]
    fn history_teaches_nothing() {
        let mut d = Device::new(0);
        d.run(0..10);
        let m = d.timing.take(Some(BEGIN - 500_000), true, BEGIN + 10_000);
        assert_eq!((m.order, m.at_ms), (Order::Older, BEGIN - 500_000));
        assert_eq!(d.timing.deviation().unwrap().jumps, 0);
        let first = Timing::default().take(Some(BEGIN + 9), true, BEGIN);
        assert_eq!((first.order, first.at_ms), (Order::Older, BEGIN));
    }
}
