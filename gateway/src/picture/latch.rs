//! Why a rule that stays true raises one event and not one per report: a latch per rule and subject.
//!
//! A latch closes when the event is raised, is settled when the outbox owns it, and opens again when the condition
//! was false or when the outbox could not take the event.

use std::time::Duration;

use crate::clock::Now;

/// One rule that is true for one subject (a device or a stream).
#[derive(Clone, Copy, Debug)]
struct Latch {
    rule: u16,
    /// What caused the event: another key is another event.
    key: u64,
    closed: Now,
    settled: bool,
}

/// The closed latches of one subject; mostly none.
#[derive(Clone, Debug, Default)]
pub struct Latches(Vec<Latch>);

/// Is there to be an event?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Raise,
    /// The same cause has an event that the outbox owns.
    Settled,
    /// The same cause has an event on its way into the outbox.
    Pending,
}

impl Latches {
    /// The rule is true by this cause.
    pub fn close(&mut self, rule: u16, key: u64, closed: Now) -> Verdict {
        let next = Latch {
            rule,
            key,
            closed,
            settled: false,
        };
        match self.0.iter_mut().find(|l| l.rule == rule) {
            Some(l) if l.key == key && l.settled => Verdict::Settled,
            Some(l) if l.key == key => Verdict::Pending,
            Some(l) => {
                *l = next;
                Verdict::Raise
            }
            None => {
                self.0.push(next);
                Verdict::Raise
            }
        }
    }

    /// The rule is false.
    pub fn open(&mut self, rule: u16) {
        self.0.retain(|l| l.rule != rule);
    }

    /// A latch of this rule that was closed `age` ago or longer opens.
    pub fn expire(&mut self, rule: u16, age: Duration, now: Now) {
        self.0
            .retain(|l| l.rule != rule || now.mono.saturating_duration_since(l.closed.mono) < age);
    }

    /// When the latch of this rule was closed, if that is less than `window` ago.
    pub fn closed_within(&self, rule: u16, window: Duration, now: Now) -> Option<Now> {
        self.0
            .iter()
            .find(|l| l.rule == rule)
            .map(|l| l.closed)
            .filter(|t| now.mono.saturating_duration_since(t.mono) < window)
    }

    /// The outbox owns the event.
    pub fn settle(&mut self, rule: u16, key: u64) {
        if let Some(l) = self.0.iter_mut().find(|l| l.rule == rule && l.key == key) {
            l.settled = true;
        }
    }

    /// The outbox could not take the event: the next report raises it again.
    pub fn retract(&mut self, rule: u16, key: u64) {
        self.0
            .retain(|l| l.settled || l.rule != rule || l.key != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_until_it_was_false_or_not_owned() {
        let (mut l, now) = (Latches::default(), Now::read());
        assert_eq!(l.close(1, 0, now), Verdict::Raise);
        assert_eq!(l.close(1, 0, now), Verdict::Pending);
        l.retract(1, 0);
        assert_eq!(l.close(1, 0, now), Verdict::Raise);
        l.settle(1, 0);
        l.retract(1, 0);
        assert_eq!(l.close(1, 0, now), Verdict::Settled);
        assert_eq!(l.close(2, 0, now), Verdict::Raise, "another rule");
        assert_eq!(l.close(1, 7, now), Verdict::Raise, "another cause");
        l.open(1);
        assert_eq!(l.close(1, 7, now), Verdict::Raise);
    }
}
