//! The packets of one source that did not come yet: when each is asked for again, and when it is given up.
//!
//! Bounded in number and in time: what would come after the reorder window is over is of no use. Not here: the window
//! itself (`codecs::rtp::Reorder`), RTCP.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kerbside_codecs::rtp::ExtendSeq;

use super::ingress::WINDOW;

/// A missing packet may only be late: it is asked for after this.
const ASK_AFTER: Duration = Duration::from_millis(10);
/// Between two requests for the same packet: as long as an answer takes, within these.
const AGAIN_MIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_millis(150);
/// As long as it is not known how long an answer takes.
const AGAIN_FIRST: Duration = Duration::from_millis(80);
const ASK_TIMES: u8 = 8;
const MISSING_MAX: usize = 512;
/// A gap larger than this is no loss but a new start of the sender.
const GAP_MAX: u64 = 1000;

/// Sequence numbers that did not come yet.
#[derive(Default)]
pub struct Missing {
    extend: ExtendSeq,
    next: Option<u64>,
    asked: BTreeMap<u64, Ask>,
    /// Smoothed time from a request to its answer.
    answer: Option<Duration>,
    lost: u64,
    received: u64,
}

struct Ask {
    noticed: Instant,
    /// When it is asked for next.
    due: Instant,
    times: u8,
}

impl Missing {
    /// A packet came the first time it was sent, or again under its own number.
    pub fn received(&mut self, seq: u16, now: Instant) {
        self.received += 1;
        let seq = self.extend.extend(seq);
        let next = self.next.unwrap_or(seq);
        if seq < next {
            self.found(seq, now);
            return;
        }
        if seq - next > GAP_MAX {
            self.asked.clear();
        } else {
            for gap in next..seq {
                let ask = Ask {
                    noticed: now,
                    due: now + ASK_AFTER,
                    times: 0,
                };
                self.asked.insert(gap, ask);
            }
            while self.asked.len() > MISSING_MAX {
                self.asked.pop_first();
            }
        }
        self.next = Some(seq + 1);
    }

    /// A retransmission of `seq` came (RFC 4588). False when it is not missing: it was never asked for, came twice, or
    /// is too late.
    pub fn retransmitted(&mut self, seq: u16, now: Instant) -> bool {
        if self.next.is_none() {
            return false;
        }
        let mut extend = self.extend;
        self.found(extend.extend(seq), now)
    }

    fn found(&mut self, seq: u64, now: Instant) -> bool {
        let Some(ask) = self.asked.remove(&seq) else {
            return false;
        };
        // The first request only: of more it is not known which one was answered.
        if ask.times == 1 {
            let took = now.saturating_duration_since(ask.noticed + ASK_AFTER);
            self.answer = Some(self.answer.map_or(took, |a| (a * 3 + took) / 4));
        }
        true
    }

    /// The numbers to ask for now, ascending.
    pub fn due(&mut self, now: Instant) -> Vec<u16> {
        let again = self
            .answer
            .map_or(AGAIN_FIRST, |a| a + a / 4)
            .clamp(AGAIN_MIN, AGAIN_MAX);
        let mut out = Vec::new();
        let lost = &mut self.lost;
        self.asked.retain(|seq, ask| {
            if ask.due > now {
                return true;
            }
            let age = now.saturating_duration_since(ask.noticed);
            if ask.times >= ASK_TIMES || age >= WINDOW.wait_max {
                return false;
            }
            if ask.times == 0 {
                *lost += 1;
            }
            ask.times += 1;
            ask.due = now + again;
            #[allow(clippy::cast_possible_truncation, reason = "the low part is meant")]
            out.push(*seq as u16);
            true
        });
        out
    }

    /// When [`Self::due`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asked.values().map(|a| a.due).min()
    }

    /// Packets lost on the way so far, repaired or not, and packets that came.
    pub fn counts(&self) -> (u64, u64) {
        (self.lost, self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn asked_as_often_as_answers_take_and_given_up_with_the_window() {
        let t = Instant::now();
        let ms = Duration::from_millis;
        let mut m = Missing::default();
        m.received(65_534, t);
        m.received(2, t);
        assert!(m.due(t).is_empty(), "they may only be late");
        m.received(65_535, t + ms(2));
        assert_eq!(m.due(t + ms(10)), [0, 1]);
        // The answer took 30 ms: the next request goes out after 37.
        assert!(m.retransmitted(0, t + ms(40)));
        assert!(!m.retransmitted(0, t + ms(41)), "twice");
        assert!(!m.retransmitted(9, t + ms(41)), "nobody asked");
        let mut times = 1;
        let mut last = t;
        while let Some(at) = m.poll_timeout() {
            times += m.due(at).len();
            last = at;
        }
        assert!(times > 4 && times <= usize::from(ASK_TIMES), "{times}");
        assert!(last <= t + WINDOW.wait_max + AGAIN_MAX);
        assert!(!m.retransmitted(1, last), "too late");
        assert_eq!(m.counts(), (2, 3), "65,535 was only late");
    }

    #[test]
    fn a_leap_is_no_loss_and_the_list_is_bounded() {
        let t = Instant::now();
        let mut m = Missing::default();
        m.received(0, t);
        m.received(2000, t);
        assert!(m.poll_timeout().is_none());
        m.received(2900, t);
        assert_eq!(m.asked.len(), MISSING_MAX);
    }

    proptest! {
        #[test]
        fn any_numbers(seqs: Vec<u16>) {
            let mut now = Instant::now();
            let mut m = Missing::default();
            for s in seqs {
                m.received(s, now);
                m.retransmitted(s ^ 1, now);
                now += Duration::from_millis(7);
                m.due(now);
                prop_assert!(m.asked.len() <= MISSING_MAX);
            }
        }
    }
}
