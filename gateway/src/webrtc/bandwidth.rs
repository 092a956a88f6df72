//! How much a publisher may send, told to it once a second (REMB, draft-alvestrand-rmcat-remb): browsers and OBS send
//! no more than they are told, and begin low.
//!
//! Two signs of a full line: packets lost, and a standing queue, that is, even the fastest packet of a second took
//! longer than the fastest one of the last half minute. Not here: RTCP, which packets were lost (`missing`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bits per second.
const FIRST: u64 = 1_000_000;
const LEAST: u64 = 150_000;
const MOST: u64 = 20_000_000;
/// A queue that stands longer than this is one (0.5 ‰ of clock drift make 15 ms in half a minute).
const STANDING_MAX_US: i64 = 50_000;
const MINIMA: usize = 30;
/// The sender's clock began anew.
const JUMP_US: i64 = 5_000_000;
/// Of 256: losses that are the radio's, not the queue's; and losses that say that the line is full.
const LOSS_FINE: u64 = 5;
const LOSS_BAD: u64 = 26;

pub struct Bandwidth {
    clock_rate: i64,
    began: Instant,
    estimate: u64,
    /// No sign of a full line so far: grows fast.
    fast: bool,
    bytes: u64,
    since: Option<Instant>,
    /// Media time, extended, of the packet before.
    time: Option<(u32, i64)>,
    /// Least way of this second, and of the seconds before: arrival less media time, µs; only differences mean something.
    least: Option<i64>,
    minima: VecDeque<i64>,
    counted: (u64, u64),
}

impl Bandwidth {
    /// `clock_rate`: of the medium whose times are looked at.
    pub fn new(clock_rate: u32, now: Instant) -> Self {
        Self {
            clock_rate: i64::from(clock_rate.max(1)),
            began: now,
            estimate: FIRST,
            fast: true,
            bytes: 0,
            since: None,
            time: None,
            least: None,
            minima: VecDeque::new(),
            counted: (0, 0),
        }
    }

    /// A packet of `bytes`; `time`: its media time, if it is of the medium that is looked at and was sent only once.
    pub fn packet(&mut self, bytes: usize, time: Option<u32>, now: Instant) {
        self.since.get_or_insert(now);
        self.bytes += bytes as u64;
        let Some(time) = time else { return };
        let long = match self.time {
            None => 0,
            Some((last, long)) => long + i64::from(time.wrapping_sub(last).cast_signed()),
        };
        self.time = Some((time, long));
        let arrived = now.saturating_duration_since(self.began).as_micros();
        let way = i64::try_from(arrived).unwrap_or(i64::MAX)
            - long.saturating_mul(1_000_000) / self.clock_rate;
        let newest = self.least.or(self.minima.back().copied());
        if newest.is_some_and(|w| (way - w).abs() > JUMP_US) {
            self.minima.clear();
            self.least = None;
        }
        self.least = Some(self.least.map_or(way, |l| l.min(way)));
    }

    /// What to tell the publisher now, bits per second; once a second. `lost`, `received`: packets so far.
    pub fn report(&mut self, lost: u64, received: u64, now: Instant) -> u64 {
        let passed = self
            .since
            .map_or(Duration::ZERO, |s| now.saturating_duration_since(s));
        let former = std::mem::replace(&mut self.counted, (lost, received));
        let lost = lost.saturating_sub(former.0);
        let sent = lost + received.saturating_sub(former.1);
        if passed < Duration::from_millis(500) || sent == 0 {
            return self.estimate;
        }
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1);
        let incoming = self.bytes.saturating_mul(8_000_000) / micros;
        self.bytes = 0;
        self.since = Some(now);
        let loss = lost * 256 / sent;
        let queue = self.standing();
        if queue > STANDING_MAX_US {
            self.fast = false;
            self.estimate = self.estimate.min(incoming * 85 / 100);
        } else if loss > LOSS_BAD {
            self.fast = false;
            self.estimate -= self.estimate * loss / 512;
        } else if loss <= LOSS_FINE || self.fast {
            let (grown, most) = if self.fast {
                (self.estimate * 3 / 2, incoming * 2 + 200_000)
            } else {
                (self.estimate * 108 / 100, incoming * 3 / 2 + 100_000)
            };
            // What was not tried is not promised; what was told already is not taken back without a sign.
            self.estimate = self.estimate.max(grown.min(most));
        }
        self.estimate = self.estimate.clamp(LEAST, MOST);
        self.estimate
    }

    /// µs that the fastest packet since the last report waited, and a new second begins.
    fn standing(&mut self) -> i64 {
        let Some(least) = self.least.take() else {
            return 0;
        };
        if self.minima.len() >= MINIMA {
            self.minima.pop_front();
        }
        self.minima.push_back(least);
        least - self.minima.iter().copied().min().unwrap_or(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of `capacity` bits per second with a queue of `queue_ms` behind a sender that sends what it is told, at
    /// most `wanted`; gives the last rate and what was lost at last, of 256.
    fn line(
        capacity: u64,
        queue_ms: u64,
        wanted: u64,
        seconds: u64,
        radio_loss: u64,
    ) -> (u64, u64) {
        let t = Instant::now();
        let mut b = Bandwidth::new(90_000, t);
        let (mut lost, mut received) = (0, 0);
        let mut free_us = 0;
        let mut told = FIRST;
        let mut last_loss = 0;
        for second in 0..seconds {
            let packets = told.min(wanted) / 8 / 1000;
            let before = (lost, received);
            for p in 0..packets {
                let at_us = second * 1_000_000 + p * 1_000_000 / packets;
                let waits = free_us.max(at_us) - at_us;
                if waits > queue_ms * 1000 || p % 256 < radio_loss {
                    lost += 1;
                    continue;
                }
                free_us = free_us.max(at_us) + 8_000_000_000 / capacity;
                received += 1;
                let time = u32::try_from(at_us * 9 / 100).unwrap();
                b.packet(
                    1000,
                    Some(time),
                    t + Duration::from_micros(free_us + 20_000),
                );
            }
            told = b.report(lost, received, t + Duration::from_secs(second + 1));
            let gone = lost - before.0;
            last_loss = gone * 256 / (gone + received - before.1).max(1);
        }
        (told, last_loss)
    }

    #[test]
    fn a_free_line_is_used_in_seconds() {
        let (told, _) = line(50_000_000, 300, 6_000_000, 8, 0);
        assert!(told >= 6_000_000, "{told}");
        assert!(told <= MOST);
    }

    #[test]
    fn a_full_line_is_not_kept_full() {
        for queue_ms in [40, 1000] {
            let (told, loss) = line(2_000_000, queue_ms, 8_000_000, 60, 0);
            assert!((1_000_000..2_600_000).contains(&told), "{queue_ms}: {told}");
            assert!(loss < LOSS_BAD * 2, "{queue_ms}: {loss}");
        }
    }

    #[test]
    fn a_radio_that_loses_one_in_fifty_is_no_full_line() {
        let (told, _) = line(50_000_000, 300, 4_000_000, 12, 5);
        assert!(told >= 4_000_000, "{told}");
    }

    #[test]
    fn a_clock_that_jumps_is_no_queue() {
        let t = Instant::now();
        let mut b = Bandwidth::new(90_000, t);
        let mut told = 0;
        for n in 0..40u32 {
            let time = if n < 20 {
                n * 9000
            } else {
                n * 9000 + 2_000_000_000
            };
            let now = t + Duration::from_millis(u64::from(n) * 100);
            b.packet(12_500, Some(time), now);
            if n % 10 == 9 {
                told = b.report(0, u64::from(n), now + Duration::from_millis(99));
            }
        }
        assert!(told >= FIRST, "{told}");
    }
}
