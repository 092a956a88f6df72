//! The way up of one session: messages in order, one handed over at a time, each acknowledged when it is owned.
//! Pure; bounded by count and bytes. QoS 2 (v5 §4.3.3, method B): a message is handed over on PUBLISH, and its packet
//! id is remembered from ownership to PUBREL so that a repetition is acknowledged but not handed over again.

use std::collections::{BTreeSet, VecDeque};

use bytes::BytesMut;

use super::end::End;
use super::packet::Version;
use super::write::{self, Ack, Takes, reason};
use crate::device::Uplink;

/// Bytes of messages taken in and not yet owned, beyond which the socket is not read.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// QoS 2 messages of a session between PUBREC and PUBREL, those of its former connections too. v3.1.1 knows no Receive
/// Maximum; that of v5 is of one connection (v5 §4.9).
const RECEIVED_MAX: usize = 1024;

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

/// What is odd about a message that was taken all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Fine,
    /// Its packet id is that of another message under way, and it does not say that it repeats it.
    IdInUse,
}

pub(super) struct Up {
    takes: Takes,
    receive_max: usize,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The first of `waiting` is being handed over.
    handing: bool,
    /// Owned QoS 2 messages whose PUBREL has not come. Those of this connection count for its Receive Maximum.
    received: BTreeSet<u16>,
    /// Of former connections.
    former: BTreeSet<u16>,
}

impl Up {
    pub fn new(takes: Takes, receive_max: u16, former: BTreeSet<u16>) -> Self {
        Self {
            takes,
            receive_max: usize::from(receive_max),
            waiting: VecDeque::new(),
            bytes: 0,
            handing: false,
            received: BTreeSet::new(),
            former,
        }
    }

    /// May more be read from the socket? A v5 client that keeps to its Receive Maximum is always read, so that its
    /// PINGREQ finds an answer however long messages are held back; one that does not is closed by [`Self::push`].
    pub fn has_room(&self) -> bool {
        let (free, held) = self.counts();
        self.bytes < WAITING_BYTES_MAX
            && free < self.receive_max
            && (self.takes.version == Version::V5 || held < self.receive_max)
    }

    /// Waiting messages of QoS 0, and of QoS 1 and 2.
    fn counts(&self) -> (usize, usize) {
        let held = self.waiting.iter().filter(|w| w.qos > 0).count();
        (self.waiting.len() - held, held)
    }

    /// A message came in. `again`: the client says that it sent it before.
    pub fn push(
        &mut self,
        out: &mut BytesMut,
        up: Uplink,
        qos: u8,
        id: u16,
        again: bool,
    ) -> Result<Pushed, End> {
        let mut pushed = Pushed::Fine;
        if qos > 0 {
            let waits = self.waiting.iter().any(|w| w.qos > 0 && w.id == id);
            let known = self.received.contains(&id) || self.former.contains(&id);
            if (waits || known) && !again {
                pushed = Pushed::IdInUse;
            }
            if waits {
                // Sent again before its acknowledgement: one answer will do for both.
                up.shed("repeated");
                return Ok(pushed);
            }
            if qos == 2 && known {
                up.shed("repeated");
                write::ack(out, self.takes, Ack::Pubrec, id, reason::SUCCESS);
                return Ok(pushed);
            }
            let held = self.received.len() + self.counts().1;
            let most = match self.takes.version {
                Version::V5 => self.receive_max,
                Version::V311 => RECEIVED_MAX,
            };
            let all = held + self.former.len();
            if held >= most || (qos == 2 && all >= RECEIVED_MAX.max(self.receive_max)) {
                up.shed("receive_maximum");
                return Err(End::ReceiveMaximum);
            }
        }
        self.bytes += up.bytes();
        self.waiting.push_back(Waiting { up, qos, id });
        Ok(pushed)
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
            Outcome::Unauthorized if self.takes.version == Version::V311 => {
                return Err(End::NotAuthorized);
            }
            Outcome::Refused if self.takes.version == Version::V311 && w.qos > 0 => {
                return Err(End::NotOwned);
            }
            // A v3.1.1 client would send it for ever: it is acknowledged and dropped, counted and logged.
            Outcome::Hopeless if self.takes.version == Version::V311 => reason::SUCCESS,
            Outcome::Unauthorized => reason::NOT_AUTHORIZED,
            Outcome::Refused => reason::QUOTA_EXCEEDED,
            Outcome::Hopeless => reason::UNSPECIFIED,
        };
        match w.qos {
            0 => {}
            1 => write::ack(out, self.takes, Ack::Puback, w.id, reason),
            _ => {
                if reason == reason::SUCCESS {
                    self.received.insert(w.id);
                }
                write::ack(out, self.takes, Ack::Pubrec, w.id, reason);
            }
        }
        Ok(())
    }

    /// PUBREL: the packet id is free again. False: no message has it.
    pub fn release(&mut self, out: &mut BytesMut, id: u16) -> bool {
        let known = self.received.remove(&id) || self.former.remove(&id);
        let reason = if known {
            reason::SUCCESS
        } else {
            reason::PACKET_ID_NOT_FOUND
        };
        write::ack(out, self.takes, Ack::Pubcomp, id, reason);
        known
    }

    /// What a resumed session has to remember.
    pub fn into_received(mut self) -> BTreeSet<u16> {
        self.received.append(&mut self.former);
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
        let takes = Takes {
            reasons: false,
            ..Takes::just(version)
        };
        (
            Up::new(takes, receive_max, BTreeSet::new()),
            BytesMut::new(),
        )
    }

    #[test]
    fn nothing_is_acknowledged_before_it_is_owned_and_the_order_holds() {
        let (mut u, mut out) = up(Version::V5, 10);
        for id in 1..=3 {
            u.push(&mut out, message(1), 1, id, false).unwrap();
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
        u.push(&mut out, message(1), 2, 7, false).unwrap();
        let odd = u.push(&mut out, message(1), 2, 7, false).unwrap();
        assert_eq!(odd, Pushed::IdInUse);
        let repeated = u.push(&mut out, message(1), 2, 7, true).unwrap();
        assert_eq!(repeated, Pushed::Fine);
        assert!(u.next().is_some());
        assert!(out.is_empty(), "a repetition does not hurry the answer");
        u.ended(&mut out, Outcome::Owned).unwrap();
        assert_eq!(&out[..], [0x50, 2, 0, 7]);
        assert!(u.next().is_none());
        out.clear();

        let mut u = Up::new(Takes::just(Version::V311), 10, u.into_received());
        u.push(&mut out, message(1), 2, 7, false).unwrap();
        assert_eq!(&out[..], [0x50, 2, 0, 7], "also after a resume");
        assert!(u.next().is_none());
        out.clear();
        assert!(u.release(&mut out, 7));
        assert_eq!(&out[..], [0x70, 2, 0, 7]);
        assert!(!u.release(&mut out, 7), "released already");
        u.push(&mut out, message(1), 2, 7, false).unwrap();
        assert!(u.next().is_some(), "the id is free for a new message");
    }

    #[test]
    fn v311_is_closed_where_v5_gets_a_reason() {
        let (mut u, mut out) = up(Version::V311, 10);
        u.push(&mut out, message(1), 1, 1, false).unwrap();
        u.next();
        assert_eq!(u.ended(&mut out, Outcome::Refused), Err(End::NotOwned));
        u.push(&mut out, message(1), 0, 0, false).unwrap();
        u.next();
        assert_eq!(
            u.ended(&mut out, Outcome::Unauthorized),
            Err(End::NotAuthorized)
        );
        assert!(out.is_empty());
        let (mut u, mut out) = up(Version::V5, 10);
        u.push(&mut out, message(1), 2, 9, false).unwrap();
        u.next();
        u.ended(&mut out, Outcome::Unauthorized).unwrap();
        assert_eq!(&out[..], [0x50, 3, 0, 9, 0x87]);
    }

    #[test]
    fn the_window_is_bounded_by_count_and_bytes() {
        let (mut u, mut out) = up(Version::V5, 2);
        u.push(&mut out, message(1), 1, 1, false).unwrap();
        assert!(u.has_room());
        u.push(&mut out, message(1), 1, 2, false).unwrap();
        assert!(u.has_room(), "a PINGREQ may follow");
        assert_eq!(
            u.push(&mut out, message(1), 1, 3, false),
            Err(End::ReceiveMaximum)
        );
        u.push(&mut out, message(1), 0, 0, false).unwrap();
        u.push(&mut out, message(1), 0, 0, false).unwrap();
        assert!(!u.has_room());
        let (mut u, mut out) = up(Version::V311, 2);
        u.push(&mut out, message(1), 1, 1, false).unwrap();
        u.push(&mut out, message(1), 2, 2, false).unwrap();
        assert!(!u.has_room());
        let (mut u, mut out) = up(Version::V5, 100);
        u.push(&mut out, message(WAITING_BYTES_MAX), 0, 0, false)
            .unwrap();
        assert!(!u.has_room());
        u.next();
        u.ended(&mut out, Outcome::Owned).unwrap();
        assert!(u.has_room());
        assert!(out.is_empty(), "QoS 0 has no answer");
    }

    #[test]
    fn what_was_never_released_is_bounded_over_all_connections() {
        let takes = Takes::just(Version::V5);
        let (mut former, mut out) = (BTreeSet::new(), BytesMut::new());
        let mut ids = 1u16..;
        loop {
            let mut u = Up::new(takes, 64, former);
            let first = u.push(&mut out, message(1), 2, ids.next().unwrap(), false);
            if first == Err(End::ReceiveMaximum) {
                former = u.into_received();
                break;
            }
            // On its own connection each may owe the whole Receive Maximum (v5 §4.9).
            for id in ids.by_ref().take(63) {
                assert_eq!(u.push(&mut out, message(1), 2, id, false), Ok(Pushed::Fine));
            }
            while u.next().is_some() {
                u.ended(&mut out, Outcome::Owned).unwrap();
            }
            let more = u.push(&mut out, message(1), 1, 60_000, false);
            assert_eq!(more, Err(End::ReceiveMaximum));
            former = u.into_received();
            out.clear();
        }
        assert_eq!(former.len(), RECEIVED_MAX);
    }
}
