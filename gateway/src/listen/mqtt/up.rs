//! The way up of one session: messages in order, one handed over at a time, each acknowledged when it is owned.
//! Pure; bounded by count and bytes. QoS 2 (v5 §4.3.3, method B): a message is handed over on PUBLISH, and its packet
//! id is remembered from ownership to PUBREL so that a repetition is acknowledged but not handed over again.

use std::collections::{BTreeSet, VecDeque};

use bytes::BytesMut;

use super::end::End;
use super::packet::Version;
use super::write::{self, Ack, reason};
use crate::device::Uplink;

/// Bytes of messages taken in and not yet owned, beyond which the socket is not read.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// QoS 2 messages of a v3.1.1 client (which knows no Receive Maximum) between PUBREC and PUBREL.
const RECEIVED_V311_MAX: usize = 1024;

/// How handing over a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Owned,
    /// The device may not publish there.
    Unauthorized,
    /// Nobody could take it now.
    Refused,
    /// It can never be handled; sending it again is of no use.
    Hopeless,
}

struct Waiting {
    up: Uplink,
    qos: u8,
    id: u16,
}

pub(super) struct Up {
    version: Version,
    receive_max: usize,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The first of `waiting` is being handed over.
    handing: bool,
    /// Owned QoS 2 messages whose PUBREL has not come.
    received: BTreeSet<u16>,
}

impl Up {
    pub fn new(version: Version, receive_max: u16, received: BTreeSet<u16>) -> Self {
        Self {
            version,
            receive_max: usize::from(receive_max),
            waiting: VecDeque::new(),
            bytes: 0,
            handing: false,
            received,
        }
    }

    /// May more be read from the socket? A v5 client that keeps to its Receive Maximum is always read, so that its
    /// PINGREQ finds an answer however long messages are held back; one that does not is closed by [`Self::push`].
    pub fn has_room(&self) -> bool {
        let (free, held) = self.counts();
        self.bytes < WAITING_BYTES_MAX
            && free < self.receive_max
            && (self.version == Version::V5 || held < self.receive_max)
    }

    /// Waiting messages of QoS 0, and of QoS 1 and 2.
    fn counts(&self) -> (usize, usize) {
        let held = self.waiting.iter().filter(|w| w.qos > 0).count();
        (self.waiting.len() - held, held)
    }

    /// A message came in.
    pub fn push(&mut self, out: &mut BytesMut, up: Uplink, qos: u8, id: u16) -> Result<(), End> {
        if qos > 0 {
            if self.waiting.iter().any(|w| w.qos > 0 && w.id == id) {
                // Sent again before its acknowledgement: one answer will do for both.
                up.shed("repeated");
                return Ok(());
            }
            if qos == 2 && self.received.contains(&id) {
                up.shed("repeated");
                write::ack(out, self.version, Ack::Pubrec, id, reason::SUCCESS);
                return Ok(());
            }
            let held = self.received.len() + self.counts().1;
            let max = match self.version {
                Version::V5 => self.receive_max,
                Version::V311 => RECEIVED_V311_MAX,
            };
            if held >= max {
                up.shed("receive_maximum");
                return Err(End::ReceiveMaximum);
            }
        }
        self.bytes += up.bytes();
        self.waiting.push_back(Waiting { up, qos, id });
        Ok(())
    }

    /// The next message to hand over, unless one is under way. Answer with [`Self::ended`].
    pub fn next(&mut self) -> Option<Uplink> {
        if self.handing {
            return None;
        }
        let first = self.waiting.front()?;
        self.handing = true;
        Some(first.up.clone())
    }

    /// The message from [`Self::next`] came to its end: acknowledges it.
    pub fn ended(&mut self, out: &mut BytesMut, outcome: Outcome) -> Result<(), End> {
        self.handing = false;
        let Some(w) = self.waiting.pop_front() else {
            return Ok(());
        };
        self.bytes -= w.up.bytes();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        let reason = match outcome {
            Outcome::Owned => reason::SUCCESS,
            Outcome::Unauthorized if self.version == Version::V311 => {
                return Err(End::NotAuthorized);
            }
            Outcome::Refused if self.version == Version::V311 && w.qos > 0 => {
                return Err(End::NotOwned);
            }
            // A v3.1.1 client would send it for ever: it is acknowledged and dropped, counted and logged.
            Outcome::Hopeless if self.version == Version::V311 => reason::SUCCESS,
            Outcome::Unauthorized => reason::NOT_AUTHORIZED,
            Outcome::Refused => reason::QUOTA_EXCEEDED,
            Outcome::Hopeless => reason::UNSPECIFIED,
        };
        match w.qos {
            0 => {}
            1 => write::ack(out, self.version, Ack::Puback, w.id, reason),
            _ => {
                if reason == reason::SUCCESS {
                    self.received.insert(w.id);
                }
                write::ack(out, self.version, Ack::Pubrec, w.id, reason);
            }
        }
        Ok(())
    }

    /// PUBREL: the packet id is free again.
    pub fn release(&mut self, out: &mut BytesMut, id: u16) {
        let reason = if self.received.remove(&id) {
            reason::SUCCESS
        } else {
            reason::PACKET_ID_NOT_FOUND
        };
        write::ack(out, self.version, Ack::Pubcomp, id, reason);
    }

    /// What a resumed session has to remember.
    pub fn into_received(self) -> BTreeSet<u16> {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;

    fn message(n: usize) -> Uplink {
        Uplink::new(
            "kerbside/v1/d/report".into(),
            vec![b'x'; n].into(),
            Now::read(),
        )
    }

    fn up(version: Version, receive_max: u16) -> (Up, BytesMut) {
        (
            Up::new(version, receive_max, BTreeSet::new()),
            BytesMut::new(),
        )
    }

    #[test]
    fn nothing_is_acknowledged_before_it_is_owned_and_the_order_holds() {
        let (mut u, mut out) = up(Version::V5, 10);
        for id in 1..=3 {
            u.push(&mut out, message(1), 1, id).unwrap();
        }
        assert!(u.next().is_some());
        assert!(u.next().is_none(), "one at a time");
        assert!(out.is_empty());
        u.ended(&mut out, Outcome::Owned).unwrap();
        assert_eq!(&out[..], [0x40, 2, 0, 1]);
        assert!(u.next().is_some());
        u.ended(&mut out, Outcome::Refused).unwrap();
        assert_eq!(&out[4..], [0x40, 3, 0, 2, 0x97]);
    }

    #[test]
    fn qos_2_is_handed_over_once_until_released() {
        let (mut u, mut out) = up(Version::V311, 10);
        u.push(&mut out, message(1), 2, 7).unwrap();
        u.push(&mut out, message(1), 2, 7).unwrap();
        assert!(u.next().is_some());
        assert!(out.is_empty(), "a repetition does not hurry the answer");
        u.ended(&mut out, Outcome::Owned).unwrap();
        assert_eq!(&out[..], [0x50, 2, 0, 7]);
        assert!(u.next().is_none());
        out.clear();

        let mut u = Up::new(Version::V311, 10, u.into_received());
        u.push(&mut out, message(1), 2, 7).unwrap();
        assert_eq!(&out[..], [0x50, 2, 0, 7], "also after a resume");
        assert!(u.next().is_none());
        out.clear();
        u.release(&mut out, 7);
        assert_eq!(&out[..], [0x70, 2, 0, 7]);
        u.push(&mut out, message(1), 2, 7).unwrap();
        assert!(u.next().is_some(), "the id is free for a new message");
    }

    #[test]
    fn v311_is_closed_where_v5_gets_a_reason() {
        let (mut u, mut out) = up(Version::V311, 10);
        u.push(&mut out, message(1), 1, 1).unwrap();
        u.next();
        assert_eq!(u.ended(&mut out, Outcome::Refused), Err(End::NotOwned));
        u.push(&mut out, message(1), 0, 0).unwrap();
        u.next();
        assert_eq!(
            u.ended(&mut out, Outcome::Unauthorized),
            Err(End::NotAuthorized)
        );
        assert!(out.is_empty());
        let (mut u, mut out) = up(Version::V5, 10);
        u.push(&mut out, message(1), 2, 9).unwrap();
        u.next();
        u.ended(&mut out, Outcome::Unauthorized).unwrap();
        assert_eq!(&out[..], [0x50, 3, 0, 9, 0x87]);
    }

    #[test]
    fn the_window_is_bounded_by_count_and_bytes() {
        let (mut u, mut out) = up(Version::V5, 2);
        u.push(&mut out, message(1), 1, 1).unwrap();
        assert!(u.has_room());
        u.push(&mut out, message(1), 1, 2).unwrap();
        assert!(u.has_room(), "a PINGREQ may follow");
        assert_eq!(u.push(&mut out, message(1), 1, 3), Err(End::ReceiveMaximum));
        u.push(&mut out, message(1), 0, 0).unwrap();
        u.push(&mut out, message(1), 0, 0).unwrap();
        assert!(!u.has_room());
        let (mut u, mut out) = up(Version::V311, 2);
        u.push(&mut out, message(1), 1, 1).unwrap();
        u.push(&mut out, message(1), 2, 2).unwrap();
        assert!(!u.has_room());
        let (mut u, mut out) = up(Version::V5, 100);
        u.push(&mut out, message(WAITING_BYTES_MAX), 0, 0).unwrap();
        assert!(!u.has_room());
        u.next();
        u.ended(&mut out, Outcome::Owned).unwrap();
        assert!(u.has_room());
        assert!(out.is_empty(), "QoS 0 has no answer");
    }
}
