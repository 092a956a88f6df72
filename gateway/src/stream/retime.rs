//! Timestamps of one reader: continuous over the instant start, jumps and changes of publisher.
//!
//! Frames older than the live edge at the join are squeezed into the milliseconds before it, so that a player shows
//! the newest picture at once instead of a fast-forward film; from the live edge on media time is kept as it is.
//! When the publisher changes, the new times are shifted so that they follow by the time that passed.

use std::time::Instant;

/// Squeezed distance of two frames, as a fraction of a second.
const SQUEEZE_PER_SECOND: u64 = 1000;

/// A replay behind the live edge takes at most this part of a second: less than there is between two frames.
const AGAIN_PER_SECOND: u64 = 200;

/// The newest frame that is no replay; at a join or jump that of the live edge, which the replay leads up to.
#[derive(Debug, Clone, Copy)]
struct Last {
    out: u64,
    arrived: Instant,
    epoch: u32,
}

#[derive(Debug)]
pub(super) struct Retime {
    clock_rate: u64,
    /// Sequence number and time of this medium's newest frame when the reader joined or jumped.
    live_edge: Option<(u64, u64)>,
    /// A replay behind the live edge: its first frame, what was given out last before it, and the distance of frames.
    again: Option<(u64, u64, u64)>,
    /// Added to media time, modulo 2^64.
    offset: u64,
    last: Option<Last>,
    /// The latest time given out: what is squeezed in stays behind it.
    latest: Option<u64>,
}

impl Retime {
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate: u64::from(clock_rate.max(1)),
            live_edge: None,
            again: None,
            offset: 0,
            last: None,
            latest: None,
        }
    }

    /// From here on frames before `seq` are a replay; the live edge has media time `time`.
    /// Gives the edge's time for this reader.
    pub fn start(&mut self, seq: u64, time: u64, arrived: Instant, epoch: u32) -> u64 {
        self.live_edge = Some((seq, time));
        self.again = None;
        self.follow(time, arrived, epoch);
        let out = time.wrapping_add(self.offset);
        self.last = Some(Last {
            out,
            arrived,
            epoch,
        });
        out
    }

    /// Frames from `first` to before `edge` come once more, although the live edge was reached: squeezed behind what
    /// was given out last, before the next live frame is due.
    pub fn again(&mut self, first: u64, edge: u64) {
        let Some(latest) = self.latest else {
            return;
        };
        let room = self.clock_rate / AGAIN_PER_SECOND;
        let step = (room / (edge - first).max(1)).max(1);
        self.again = Some((first, latest, step));
        self.live_edge = Some((edge, 0));
    }

    /// Another publisher: its times go on from the former's.
    fn follow(&mut self, time: u64, arrived: Instant, epoch: u32) {
        if let Some(last) = self.last
            && last.epoch != epoch
        {
            let passed = arrived.saturating_duration_since(last.arrived).as_micros();
            let passed = u64::try_from(passed)
                .unwrap_or(0)
                .saturating_mul(self.clock_rate)
                / 1_000_000;
            let out = last.out.wrapping_add(passed.max(1));
            self.offset = self.behind_latest(out).wrapping_sub(time);
            self.last = None;
        }
    }

    /// `out`, or the next moment after all that was given out.
    fn behind_latest(&self, out: u64) -> u64 {
        match self.latest {
            Some(latest) if !is_later(out, latest) => latest.wrapping_add(1),
            _ => out,
        }
    }

    pub fn apply(&mut self, seq: u64, time: u64, arrived: Instant, epoch: u32) -> u64 {
        self.follow(time, arrived, epoch);
        let out = match (self.again, self.live_edge) {
            (Some((first, base, step)), Some((edge_seq, _))) if seq < edge_seq => {
                base.wrapping_add(seq.saturating_sub(first).saturating_add(1) * step)
            }
            (None, Some((edge_seq, edge_time))) if seq < edge_seq => {
                let before = (edge_seq - seq) * self.clock_rate / SQUEEZE_PER_SECOND;
                let out = edge_time.wrapping_sub(before).wrapping_add(self.offset);
                self.behind_latest(out)
            }
            _ => {
                let out = time.wrapping_add(self.offset);
                self.last = Some(Last {
                    out,
                    arrived,
                    epoch,
                });
                out
            }
        };
        if self.latest.is_none_or(|latest| is_later(out, latest)) {
            self.latest = Some(out);
        }
        out
    }

    /// Is frame `seq` older than the live edge at the join?
    pub fn is_replay(&self, seq: u64) -> bool {
        self.live_edge.is_some_and(|(edge, _)| seq < edge)
    }
}

/// Of two times that may have wrapped.
fn is_later(a: u64, b: u64) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn replay_is_squeezed_and_runs_into_live_without_a_step() {
        let t = Instant::now();
        let mut r = Retime::new(90_000);
        // A group of 30 frames at 30 fps, the viewer joins at frame 29.
        r.start(29, 29 * 3000, t, 0);
        let out: Vec<u64> = (0..=40).map(|i| r.apply(i, i * 3000, t, 0)).collect();
        assert!(out.windows(2).all(|w| w[0] < w[1]), "{out:?}");
        assert!(
            out[29] - out[0] <= 90 * 30,
            "replay lasts 30 ms, not a second"
        );
        assert_eq!(out[29], 29 * 3000);
        assert_eq!(out[40] - out[39], 3000);
    }

    #[test]
    fn a_replay_after_a_loss_stays_between_what_was_and_what_comes() {
        let t = Instant::now();
        let mut r = Retime::new(90_000);
        r.start(0, 0, t, 0);
        let mut out: Vec<u64> = (0..300).map(|i| r.apply(i, i * 3000, t, 0)).collect();
        r.again(0, 300);
        out.extend((0..300).map(|i| r.apply(i, i * 3000, t, 0)));
        out.extend((300..310).map(|i| r.apply(i, i * 3000, t, 0)));
        assert!(out.windows(2).all(|w| w[0] < w[1]), "{out:?}");
        assert_eq!(out[600], 300 * 3000, "live times are as they were");
    }

    #[test]
    fn a_new_publisher_continues_after_the_time_that_passed() {
        let t = Instant::now();
        let mut r = Retime::new(90_000);
        let a = r.apply(0, 5_000_000, t, 0);
        let b = r.apply(1, 17, t + Duration::from_secs(2), 1);
        assert_eq!(b - a, 180_000);
        let c = r.apply(2, 17 + 3000, t + Duration::from_secs(2), 1);
        assert_eq!(c - b, 3000);
    }
}
