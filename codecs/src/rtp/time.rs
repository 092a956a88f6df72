//! Numbers that wrap, made long; and media time that does not jump.

use std::time::{Duration, Instant};

/// Where extended values start, so that steps back never reach zero.
const BASE: u64 = 1 << 48;

/// Extends 32-bit RTP time to 64 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extend {
    last: Option<u64>,
}

impl Extend {
    /// The value nearest to the last one.
    pub fn extend(&mut self, time: u32) -> u64 {
        #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
        let long = match self.last {
            None => BASE + u64::from(time),
            Some(last) => {
                last.saturating_add_signed(i64::from(time.wrapping_sub(last as u32).cast_signed()))
            }
        };
        self.last = Some(long);
        long
    }
}

/// Extends 16-bit sequence numbers to 64 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtendSeq {
    last: Option<u64>,
}

impl ExtendSeq {
    /// The value nearest to the newest one so far; only newer ones move it.
    pub fn extend(&mut self, seq: u16) -> u64 {
        let Some(last) = self.last else {
            let first = BASE + u64::from(seq);
            self.last = Some(first);
            return first;
        };
        #[allow(clippy::cast_possible_truncation, reason = "the low part is meant")]
        let step = seq.wrapping_sub(last as u16).cast_signed();
        let long = last.saturating_add_signed(i64::from(step));
        self.last = Some(last.max(long));
        long
    }
}

/// Media time of the origin, in seconds: high, so that nothing reaches zero from there.
const ORIGIN_SECONDS: u64 = 1 << 20;
/// More media time than this beyond the time that passed is a jump of the sender's clock, not a pause.
const AHEAD_MAX: Duration = Duration::from_secs(10);
/// B-frames step back by less than this.
const BACK_MAX: Duration = Duration::from_secs(2);

/// Media time of one medium, extended to 64 bits and without jumps: when the sender's clock leaps (camera rebooted,
/// clock set), time goes on by what passed between the arrivals, and keeps the sender's pace from there.
///
/// All media of a publisher share an origin: equal times in seconds are the same moment, as near as arrival tells
/// until sender reports tell better ([`Self::shift`]).
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    clock_rate: u32,
    origin: Option<Instant>,
    extend: Extend,
    /// Added to extended time, modulo 2^64.
    offset: u64,
    last: Option<(u64, Instant)>,
    jumps: u64,
}

impl Timeline {
    /// Without an origin the first arrival is it.
    pub fn new(clock_rate: u32, origin: Option<Instant>) -> Self {
        Self {
            clock_rate: clock_rate.max(1),
            origin,
            extend: Extend::default(),
            offset: 0,
            last: None,
            jumps: 0,
        }
    }

    pub fn apply(&mut self, time: u32, arrived: Instant) -> u64 {
        let long = self.extend.extend(time);
        if self.last.is_none() {
            let since = self
                .origin
                .map_or(Duration::ZERO, |o| arrived.saturating_duration_since(o));
            let begin = ORIGIN_SECONDS * u64::from(self.clock_rate) + self.ticks(since);
            self.offset = begin.wrapping_sub(long);
        }
        let mut out = long.wrapping_add(self.offset);
        if let Some((last, last_arrived)) = self.last
            && out != last
        {
            let passed = arrived.saturating_duration_since(last_arrived);
            let jumped = if out > last {
                out - last > self.ticks(passed + AHEAD_MAX)
            } else {
                last - out > self.ticks(BACK_MAX)
            };
            if jumped {
                self.jumps += 1;
                out = last + self.ticks(passed).max(1);
                self.offset = out.wrapping_sub(long);
            }
        }
        self.last = Some((out, arrived));
        out
    }

    /// Where a time near the newest one lies; None before the first packet.
    pub fn locate(&self, time: u32) -> Option<u64> {
        self.last?;
        let mut extend = self.extend;
        Some(extend.extend(time).wrapping_add(self.offset))
    }

    /// Moves all times from now on by so many ticks.
    pub fn shift(&mut self, ticks: i64) {
        self.offset = self.offset.wrapping_add_signed(ticks);
        if let Some((last, _)) = &mut self.last {
            *last = last.saturating_add_signed(ticks);
        }
    }

    /// Jumps of the sender's clock so far.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    fn ticks(&self, d: Duration) -> u64 {
        let ticks = d.as_micros() * u128::from(self.clock_rate) / 1_000_000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wraps_go_on_and_steps_back_stay_near() {
        let mut e = Extend::default();
        let a = e.extend(u32::MAX - 10);
        let b = e.extend(20);
        assert_eq!(b - a, 31);
        assert_eq!(b - e.extend(u32::MAX), 21);
        let mut s = ExtendSeq::default();
        let a = s.extend(65_534);
        assert_eq!(s.extend(1) - a, 3);
        assert_eq!(s.extend(65_535) - a, 1);
        assert_eq!(s.extend(2) - a, 4);
    }

    #[test]
    fn a_leap_of_the_clock_becomes_the_time_that_passed() {
        let t = Instant::now();
        let frame = Duration::from_millis(40);
        let mut line = Timeline::new(90_000, None);
        let a = line.apply(1_000_000, t);
        let b = line.apply(7, t + frame);
        assert_eq!(b - a, 3600);
        assert_eq!(line.apply(3607, t + frame * 2) - b, 3600);
        let c = line.apply(900_000_000, t + frame * 3);
        assert_eq!(c - a, 3600 * 3);
        assert_eq!(line.jumps(), 2);
    }

    #[test]
    fn pauses_bursts_and_b_frames_are_no_leaps() {
        let t = Instant::now();
        let mut line = Timeline::new(90_000, None);
        let a = line.apply(0, t);
        assert_eq!(
            line.apply(90_000 * 20, t + Duration::from_secs(20)) - a,
            90_000 * 20
        );
        assert_eq!(
            line.apply(90_000 * 20 - 7200, t + Duration::from_secs(20)) - a,
            90_000 * 20 - 7200
        );
        // Held up in the network for a minute, then everything at once.
        assert_eq!(
            line.apply(90_000 * 20 + 3600, t + Duration::from_secs(80)) - a,
            90_000 * 20 + 3600
        );
        assert_eq!(line.jumps(), 0);
    }

    #[test]
    fn media_of_one_origin_share_their_seconds() {
        let t = Instant::now();
        let mut video = Timeline::new(90_000, Some(t));
        let mut sound = Timeline::new(8000, Some(t));
        let v = video.apply(u32::MAX, t + Duration::from_secs(1));
        let a = sound.apply(5, t + Duration::from_millis(1500));
        assert_eq!(v * 8000 + 4000 * 90_000, a * 90_000);
        assert_eq!(video.locate(89_999), Some(v + 90_000));
        sound.shift(-80);
        assert_eq!(sound.apply(165, t + Duration::from_millis(1520)), a + 80);
    }

    proptest! {
        #[test]
        fn extended_values_keep_their_low_bits(times: Vec<u32>, seqs: Vec<u16>) {
            let mut e = Extend::default();
            for t in times {
                prop_assert_eq!(e.extend(t) as u32, t);
            }
            let mut s = ExtendSeq::default();
            for q in seqs {
                prop_assert_eq!(s.extend(q) as u16, q);
            }
        }
    }
}
