//! The way down of one session: its subscriptions, and messages under way to it until the client has them. Pure.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::packet::Version;
use super::write::{self, Ack, reason};
use crate::device::Downlink;

/// Filters of one session; it has few topics to listen to.
const SUBSCRIPTIONS_MAX: usize = 32;
/// QoS 1 and 2 messages under way at once.
const FLYING_MAX: usize = 16;

struct Flying {
    id: u16,
    stage: Stage,
}

enum Stage {
    /// Sent; waits for PUBACK (QoS 1) or PUBREC (QoS 2).
    Sent { down: Downlink, qos: u8 },
    /// The client has it; waits for PUBCOMP.
    Released,
}

/// What became of a message for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Written,
    NotSubscribed,
    TooLarge,
}

/// Survives the connection when the session does.
#[derive(Default)]
pub(super) struct Down {
    subscriptions: Vec<(String, u8)>,
    flying: VecDeque<Flying>,
    last_id: u16,
}

/// What this connection of the client takes.
#[derive(Clone, Copy)]
pub(super) struct Takes {
    pub version: Version,
    pub receive_max: u16,
    pub packet_bytes_max: u32,
}

impl Down {
    /// Adds or replaces a subscription; gives the SUBACK code: the granted QoS, or 0x97 when there are too many.
    pub fn subscribe(&mut self, filter: String, qos: u8) -> u8 {
        if let Some(s) = self.subscriptions.iter_mut().find(|s| s.0 == filter) {
            s.1 = qos;
        } else if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return reason::QUOTA_EXCEEDED;
        } else {
            self.subscriptions.push((filter, qos));
        }
        qos
    }

    /// Gives the UNSUBACK code.
    pub fn unsubscribe(&mut self, filter: &str) -> u8 {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|s| s.0 != filter);
        if self.subscriptions.len() < before {
            reason::SUCCESS
        } else {
            reason::NO_SUBSCRIPTION
        }
    }

    /// May another message be sent?
    pub fn has_room(&self, takes: Takes) -> bool {
        self.flying.len() < FLYING_MAX.min(usize::from(takes.receive_max))
    }

    /// Writes a message to the client, if it listens to it.
    pub fn send(&mut self, out: &mut BytesMut, takes: Takes, d: Downlink) -> Delivery {
        let granted = self
            .subscriptions
            .iter()
            .filter(|(f, _)| matches(f, &d.topic))
            .map(|(_, q)| *q)
            .max();
        let Some(granted) = granted else {
            if let Some(r) = &d.receipt {
                r.note("the device does not listen to its orders");
            }
            return Delivery::NotSubscribed;
        };
        let qos = d.qos.min(granted);
        let v = takes.version;
        if write::publish_len(v, &d, qos) > takes.packet_bytes_max as usize {
            if let Some(r) = &d.receipt {
                r.refused("it is larger than what the device takes");
            }
            return Delivery::TooLarge;
        }
        if let Some(r) = &d.receipt {
            r.written();
        }
        if qos == 0 {
            write::publish(out, v, &d, 0, 0, false);
            return Delivery::Written;
        }
        let id = self.free_id();
        write::publish(out, v, &d, qos, id, false);
        let stage = Stage::Sent { down: d, qos };
        self.flying.push_back(Flying { id, stage });
        Delivery::Written
    }

    /// A packet id not under way; there are far fewer than 65,535 of those.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.flying.iter().all(|f| f.id != self.last_id) {
                return self.last_id;
            }
        }
    }

    /// PUBACK: done. One that does not fit is ignored, as a client may answer twice after a resume.
    pub fn puback(&mut self, id: u16) {
        let done = self.remove(|f| f.id == id && matches!(f.stage, Stage::Sent { qos: 1, .. }));
        taken_by_device(done.as_ref().map(|f| &f.stage));
    }

    /// PUBREC: the client has it (or refused it, v5).
    pub fn pubrec(&mut self, out: &mut BytesMut, version: Version, id: u16, taken: bool) {
        let found = self
            .flying
            .iter_mut()
            .find(|f| f.id == id && !matches!(f.stage, Stage::Sent { qos: 1, .. }));
        match found {
            Some(f) if taken => {
                taken_by_device(Some(&f.stage));
                f.stage = Stage::Released;
                write::ack(out, version, Ack::Pubrel, id, reason::SUCCESS);
            }
            Some(_) => {
                let refused = self.remove(|f| f.id == id);
                if let Some(Stage::Sent { down, .. }) = refused.map(|f| f.stage)
                    && let Some(r) = &down.receipt
                {
                    r.refused("the device refused the message (PUBREC)");
                }
            }
            None => write::ack(out, version, Ack::Pubrel, id, reason::PACKET_ID_NOT_FOUND),
        }
    }

    /// PUBCOMP: done.
    pub fn pubcomp(&mut self, id: u16) {
        drop(self.remove(|f| f.id == id && matches!(f.stage, Stage::Released)));
    }

    fn remove(&mut self, which: impl Fn(&Flying) -> bool) -> Option<Flying> {
        let at = self.flying.iter().position(which)?;
        let gone = self.flying.remove(at);
        if self.flying.is_empty() {
            self.flying = VecDeque::new();
        }
        gone
    }

    /// Does the client listen to anything?
    pub fn is_listening(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// After a resume: everything under way once more, in order (v5 §4.4).
    pub fn send_again(&self, out: &mut BytesMut, version: Version) {
        for f in &self.flying {
            match &f.stage {
                Stage::Sent { down, qos } => {
                    write::publish(out, version, down, *qos, f.id, true);
                }
                Stage::Released => write::ack(out, version, Ack::Pubrel, f.id, reason::SUCCESS),
            }
        }
    }
}

fn taken_by_device(stage: Option<&Stage>) {
    if let Some(Stage::Sent { down, .. }) = stage
        && let Some(r) = &down.receipt
    {
        r.acknowledged();
    }
}

/// Does a topic filter match a topic name (v5 §4.7)?
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for f in filter.split('/') {
        match (f, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (f, Some(t)) if f == t => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const TAKES: Takes = Takes {
        version: Version::V5,
        receive_max: 2,
        packet_bytes_max: 100,
    };

    fn order(topic: &str, qos: u8) -> Downlink {
        Downlink::new(topic.into(), Bytes::from_static(b"go"), qos)
    }

    #[test]
    fn filters() {
        for (f, t) in [
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("a/+/c", "a/b/c"),
            ("#", "a"),
            ("a", "a"),
            ("+", ""),
        ] {
            assert!(matches(f, t), "{f} {t}");
        }
        for (f, t) in [
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("a", "a/b"),
            ("#", "$SYS/x"),
            ("a/b", "a"),
        ] {
            assert!(!matches(f, t), "{f} {t}");
        }
    }

    #[test]
    fn qos_is_the_lower_of_both_and_unwanted_is_not_sent() {
        let (mut d, mut out) = (Down::default(), BytesMut::new());
        assert_eq!(
            d.send(&mut out, TAKES, order("a", 1)),
            Delivery::NotSubscribed
        );
        d.subscribe("a".into(), 0);
        assert_eq!(d.send(&mut out, TAKES, order("a", 2)), Delivery::Written);
        assert_eq!(out[0], 0x30);
        let big = Downlink {
            payload: vec![0; 100].into(),
            ..order("a", 0)
        };
        assert_eq!(d.send(&mut out, TAKES, big), Delivery::TooLarge);
    }

    #[test]
    fn qos_2_down_and_a_resume_in_the_middle() {
        let (mut d, mut out) = (Down::default(), BytesMut::new());
        d.subscribe("a".into(), 2);
        d.send(&mut out, TAKES, order("a", 2));
        d.send(&mut out, TAKES, order("a", 1));
        assert!(!d.has_room(TAKES));
        out.clear();
        d.pubrec(&mut out, Version::V5, 1, true);
        assert_eq!(&out[..], [0x62, 2, 0, 1]);
        out.clear();
        d.send_again(&mut out, Version::V5);
        assert_eq!(&out[..4], [0x62, 2, 0, 1], "the client has it: only PUBREL");
        assert_eq!(out[4], 0x3a, "PUBLISH QoS 1 with DUP");
        d.puback(1);
        d.pubcomp(2);
        assert!(!d.has_room(TAKES), "answers that do not fit change nothing");
        d.pubcomp(1);
        d.puback(2);
        assert!(d.has_room(TAKES) && d.flying.is_empty());
    }
}
