//! Messages that the broker gave us and that are not acknowledged. Pure.
//!
//! Acknowledgements leave in the order in which the messages came (v5 §4.6), whoever is done first.

use std::collections::VecDeque;

use super::{WINDOW_BYTES_MAX, WINDOW_MAX};

/// A message under way, by the order of its arrival.
pub(super) type Ticket = u64;

struct Slot<A> {
    /// What acknowledges it; None: QoS 0.
    ack: Option<A>,
    bytes: usize,
    done: bool,
}

/// `A`: what acknowledges a message.
pub(super) struct Window<A> {
    slots: VecDeque<Slot<A>>,
    /// Ticket of the first slot.
    first: Ticket,
    bytes: usize,
}

impl<A> Default for Window<A> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            bytes: 0,
        }
    }
}

impl<A> Window<A> {
    /// May another message be taken?
    pub fn has_room(&self) -> bool {
        self.slots.len() < usize::from(WINDOW_MAX) && self.bytes < WINDOW_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Tickets below belong to a connection that is gone.
    pub fn floor(&self) -> Ticket {
        self.first
    }

    pub fn push(&mut self, ack: Option<A>, bytes: usize) -> Ticket {
        self.bytes += bytes;
        self.slots.push_back(Slot {
            ack,
            bytes,
            done: false,
        });
        self.first + self.slots.len() as u64 - 1
    }

    /// The message is owned, or of no use. Gives what may be acknowledged now, in order. A ticket of a former
    /// connection changes nothing.
    pub fn done(&mut self, ticket: Ticket) -> Vec<A> {
        let at = ticket
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok());
        if let Some(slot) = at.and_then(|at| self.slots.get_mut(at)) {
            slot.done = true;
        }
        let mut acks = Vec::new();
        while self.slots.front().is_some_and(|s| s.done)
            && let Some(slot) = self.slots.pop_front()
        {
            self.first += 1;
            self.bytes -= slot.bytes;
            acks.extend(slot.ack);
        }
        acks
    }

    /// The connection is gone: the broker gives what is not acknowledged again.
    pub fn reset(&mut self) {
        self.first += self.slots.len() as u64;
        self.slots.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn acknowledgements_keep_the_order_of_arrival() {
        let mut w = Window::default();
        let (a, b, c) = (w.push(Some("a"), 1), w.push(None, 1), w.push(Some("c"), 1));
        assert!(w.done(c).is_empty());
        assert_eq!(w.done(a), ["a"]);
        assert_eq!(w.done(b), ["c"], "QoS 0 has no answer");
        assert!(w.is_empty());
    }

    #[test]
    fn what_a_former_connection_brought_is_not_acknowledged_on_the_next() {
        let mut w = Window::default();
        let old = w.push(Some("old"), 1);
        w.reset();
        let new = w.push(Some("new"), 1);
        assert!(old < w.floor() && new >= w.floor());
        assert!(w.done(old).is_empty());
        assert!(!w.is_empty());
        assert_eq!(w.done(new), ["new"]);
    }

    #[test]
    fn it_is_bounded_by_count_and_bytes() {
        let mut w = Window::default();
        for _ in 0..WINDOW_MAX {
            assert!(w.has_room());
            w.push(Some(()), 1);
        }
        assert!(!w.has_room());
        w.done(0);
        assert!(w.has_room());
        w.reset();
        w.push(Some(()), WINDOW_BYTES_MAX);
        assert!(!w.has_room());
    }

    proptest! {
        /// Each message is acknowledged once, in order, and only when it and all before it are done.
        #[test]
        fn none_is_lost_or_early(order in proptest::collection::vec(0usize..50, 0..200)) {
            let mut w = Window::default();
            let tickets: Vec<_> = (0..50u64).map(|n| w.push(Some(n), 1)).collect();
            let mut done = [false; 50];
            let mut acked = Vec::new();
            for n in order {
                done[n] = true;
                acked.extend(w.done(tickets[n]));
                let ready = done.iter().take_while(|d| **d).count() as u64;
                prop_assert_eq!(&acked, &(0..ready).collect::<Vec<_>>());
            }
        }
    }
}
