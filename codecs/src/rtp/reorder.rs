//! Packets of one source in order: a window bounded by packets and time; duplicates dropped, losses counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::packet::Packet;
use super::time::ExtendSeq;

/// How long a gap is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub packets_max: usize,
    pub wait_max: Duration,
}

impl Window {
    /// For TCP: packets come in order, a gap is a loss at the sender.
    pub const IN_ORDER: Self = Self {
        packets_max: 0,
        wait_max: Duration::ZERO,
    };
    /// For UDP.
    pub const UDP: Self = Self {
        packets_max: 256,
        wait_max: Duration::from_millis(100),
    };
}

/// A step of more packets than this is a new start of the sender (RFC 3550 A.1: MAX_DROPOUT).
const STEP_MAX: u64 = 3000;
/// Packets older than the newest one by up to this are late; more is a new start (RFC 3550 A.1: MAX_MISORDER, widened
/// for retransmission).
const LATE_MAX: u64 = 1000;

/// A packet in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    pub packet: Packet,
    pub arrived: Instant,
    /// Packets missing right before this one.
    pub lost: u64,
}

#[derive(Debug)]
pub struct Reorder {
    window: Window,
    extend: ExtendSeq,
    next: Option<u64>,
    held: BTreeMap<u64, (Instant, Packet)>,
    lost: u64,
    duplicates: u64,
    late: u64,
}

impl Reorder {
    pub fn new(window: Window) -> Self {
        Self {
            window,
            extend: ExtendSeq::default(),
            next: None,
            held: BTreeMap::new(),
            lost: 0,
            duplicates: 0,
            late: 0,
        }
    }

    /// Waits for gaps differently from now on.
    pub fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    /// Takes a packet in; then call [`Self::pop`] until it gives nothing.
    pub fn push(&mut self, packet: Packet, now: Instant) {
        let mut extend = self.extend;
        let seq = extend.extend(packet.header.seq);
        match self.next {
            None => self.next = Some(seq),
            Some(next) if seq + LATE_MAX < next || seq > next + STEP_MAX => {
                // The sender began anew: what is held belongs to its former life.
                self.held.clear();
                self.lost += 1;
                self.extend = ExtendSeq::default();
                let seq = self.extend.extend(packet.header.seq);
                self.next = Some(seq);
                self.held.insert(seq, (now, packet));
                return;
            }
            Some(next) if seq < next => {
                self.late += 1;
                return;
            }
            Some(_) => {}
        }
        self.extend = extend;
        if let std::collections::btree_map::Entry::Vacant(e) = self.held.entry(seq) {
            e.insert((now, packet));
        } else {
            self.duplicates += 1;
        }
    }

    /// The next packet in order, or the one behind a gap that was waited for long enough.
    pub fn pop(&mut self, now: Instant) -> Option<Ordered> {
        let next = self.next?;
        let (&seq, (arrived, _)) = self.held.first_key_value()?;
        let lost = seq - next;
        let due = lost == 0
            || self.held.len() > self.window.packets_max
            || now.saturating_duration_since(*arrived) >= self.window.wait_max;
        if !due {
            return None;
        }
        let (_, (arrived, packet)) = self.held.pop_first()?;
        self.next = Some(seq + 1);
        self.lost += lost;
        Some(Ordered {
            packet,
            arrived,
            lost,
        })
    }

    /// Packets that never came (or too late). A new start of the sender counts as one.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Packets that came after their turn: already counted as lost, or duplicates of old ones.
    pub fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::Header;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn packet(seq: u16) -> Packet {
        Packet {
            header: Header {
                marker: false,
                payload_type: 96,
                seq,
                time: 0,
                ssrc: 1,
            },
            payload: Bytes::new(),
        }
    }

    fn drain(r: &mut Reorder, now: Instant) -> Vec<(u16, u64)> {
        std::iter::from_fn(|| r.pop(now))
            .map(|o| (o.packet.header.seq, o.lost))
            .collect()
    }

    #[test]
    fn a_gap_is_waited_for_and_then_counted() {
        let t = Instant::now();
        let mut r = Reorder::new(Window::UDP);
        for s in [65_534, 1, 0, 65_535, 0] {
            r.push(packet(s), t);
        }
        assert_eq!(drain(&mut r, t), [(65_534, 0), (65_535, 0), (0, 0), (1, 0)]);
        assert_eq!(r.duplicates(), 1);
        r.push(packet(4), t);
        assert_eq!(drain(&mut r, t), []);
        assert_eq!(drain(&mut r, t + Window::UDP.wait_max), [(4, 2)]);
        r.push(packet(3), t);
        assert_eq!(drain(&mut r, t), []);
        assert_eq!((r.lost(), r.late()), (2, 1));
    }

    #[test]
    fn a_sender_that_begins_anew_is_followed_at_once() {
        let t = Instant::now();
        let mut r = Reorder::new(Window::UDP);
        r.push(packet(10), t);
        drain(&mut r, t);
        r.push(packet(40_000), t);
        assert_eq!(drain(&mut r, t), [(40_000, 0)]);
        assert_eq!(r.lost(), 1);
    }

    proptest! {
        #[test]
        fn order_holds_and_the_window_is_bounded(seqs in prop::collection::vec(0u16..600, 0..800)) {
            let t = Instant::now();
            let mut r = Reorder::new(Window { packets_max: 32, wait_max: Duration::from_secs(1) });
            let mut last = None;
            for s in seqs {
                r.push(packet(s), t);
                while let Some(o) = r.pop(t) {
                    prop_assert!(last.is_none_or(|l| l < o.packet.header.seq));
                    last = Some(o.packet.header.seq);
                }
                prop_assert!(r.held.len() <= 32);
            }
        }
    }
}
