//! The way down of one session: its subscriptions, and messages under way to it until the client has them. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;

use super::packet::Wanted;
use super::write::{self, Ack, Takes, reason};
use crate::device::{Downlink, RETAINED_MAX};

/// Filters of one session; it has few topics to listen to.
const SUBSCRIPTIONS_MAX: usize = 32;
/// QoS 1 and 2 messages under way at once.
const FLYING_MAX: usize = 16;
/// Longest filter; those of a device's own topics are far shorter.
pub(super) const FILTER_BYTES_MAX: usize = 512;

struct Flying {
    id: u16,
    stage: Stage,
}

enum Stage {
    /// Sent on a former connection; to be sent once more on this one (v5 §4.4).
    Again { down: Downlink, qos: u8 },
    /// Sent; waits for PUBACK (QoS 1) or PUBREC (QoS 2).
    Sent { down: Downlink, qos: u8 },
    /// The client has it; waits for PUBCOMP.
    Released,
}

struct Subscription {
    filter: String,
    qos: u8,
    /// v5: to be put on its messages.
    identifier: Option<u32>,
    as_published: bool,
}

/// What became of a message for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Written,
    NotSubscribed,
    TooLarge,
    Expired,
}

/// An answer of the client to a message that is not under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUnderWay;

/// Survives the connection when the session does.
#[derive(Default)]
pub(super) struct Down {
    subscriptions: Vec<Subscription>,
    flying: VecDeque<Flying>,
    /// Retained messages that a subscription asked for; bounded, newest of each topic.
    retained: VecDeque<Downlink>,
    last_id: u16,
}

impl Down {
    /// Adds or replaces a subscription; gives the SUBACK code (the granted QoS, or 0x97 when there are too many) and
    /// whether there was none with this filter.
    pub fn subscribe(&mut self, w: &Wanted, identifier: Option<u32>) -> (u8, bool) {
        let new = Subscription {
            filter: w.filter.clone(),
            qos: w.qos,
            identifier,
            as_published: w.as_published,
        };
        let same = |s: &Subscription| s.filter == w.filter;
        match self.subscriptions.iter().position(same) {
            Some(at) => {
                self.subscriptions[at] = new;
                (w.qos, false)
            }
            None if self.subscriptions.len() >= SUBSCRIPTIONS_MAX => {
                (reason::QUOTA_EXCEEDED, false)
            }
            None => {
                self.subscriptions.push(new);
                (w.qos, true)
            }
        }
    }

    /// Gives the UNSUBACK code.
    pub fn unsubscribe(&mut self, filter: &str) -> u8 {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|s| s.filter != filter);
        if self.subscriptions.len() < before {
            reason::SUCCESS
        } else {
            reason::NO_SUBSCRIPTION
        }
    }

    /// A retained message that a subscription asked for: sent by [`Self::send_waiting`].
    pub fn tell_retained(&mut self, d: Downlink) {
        self.retained.retain(|r| r.topic != d.topic);
        if self.retained.len() < RETAINED_MAX {
            self.retained.push_back(d);
        }
    }

    /// May another message be sent? Not before those of a former connection went out again.
    pub fn has_room(&self, takes: Takes) -> bool {
        self.retained.is_empty() && !self.repeats() && self.is_free(takes)
    }

    fn repeats(&self) -> bool {
        let again = |f: &Flying| matches!(f.stage, Stage::Again { .. });
        self.flying.iter().any(again)
    }

    /// Is there a place in the client's Receive Maximum, and in ours?
    fn is_free(&self, takes: Takes) -> bool {
        let again = |f: &&Flying| matches!(f.stage, Stage::Again { .. });
        let waiting = self.flying.iter().filter(again).count();
        self.flying.len() < FLYING_MAX + waiting
            && self.flying.len() - waiting < usize::from(takes.receive_max)
    }

    /// Sends what waits for a place: what a resumed session had under way, in order, then retained messages.
    pub fn send_waiting(
        &mut self,
        out: &mut BytesMut,
        takes: Takes,
        now: Instant,
        mut dropped: impl FnMut(Delivery),
    ) {
        while self.repeats() && self.is_free(takes) {
            let Some(at) = self
                .flying
                .iter()
                .position(|f| matches!(f.stage, Stage::Again { .. }))
            else {
                break;
            };
            let id = self.flying[at].id;
            let Stage::Again { down, qos } =
                std::mem::replace(&mut self.flying[at].stage, Stage::Released)
            else {
                break;
            };
            let ids = self.identifiers(&down.topic);
            let p = publish(&down, qos, id, true, false, now, &ids);
            if p.len(takes.version) > takes.packet_bytes_max as usize {
                self.flying.remove(at);
                dropped(Delivery::TooLarge);
                continue;
            }
            p.write(out, takes.version);
            self.flying[at].stage = Stage::Sent { down, qos };
        }
        while !self.repeats()
            && self.is_free(takes)
            && let Some(d) = self.retained.pop_front()
        {
            match self.send_as(out, takes, d, true, now) {
                Delivery::Written => {}
                other => dropped(other),
            }
        }
    }

    fn matching(&self, topic: &str) -> impl Iterator<Item = &Subscription> {
        self.subscriptions
            .iter()
            .filter(move |s| matches(&s.filter, topic))
    }

    fn identifiers(&self, topic: &str) -> Vec<u32> {
        self.matching(topic).filter_map(|s| s.identifier).collect()
    }

    /// Writes a message to the client, if it listens to it.
    pub fn send(
        &mut self,
        out: &mut BytesMut,
        takes: Takes,
        d: Downlink,
        now: Instant,
    ) -> Delivery {
        let kept = d.retain && self.matching(&d.topic).any(|s| s.as_published);
        self.send_as(out, takes, d, kept, now)
    }

    fn send_as(
        &mut self,
        out: &mut BytesMut,
        takes: Takes,
        d: Downlink,
        retain: bool,
        now: Instant,
    ) -> Delivery {
        let Some(granted) = self.matching(&d.topic).map(|s| s.qos).max() else {
            if let Some(r) = &d.receipt {
                r.note("the device does not listen to its orders");
            }
            return Delivery::NotSubscribed;
        };
        if d.is_expired(now) {
            return Delivery::Expired;
        }
        let qos = d.qos.min(granted);
        let id = if qos > 0 { self.free_id() } else { 0 };
        let ids = self.identifiers(&d.topic);
        let p = publish(&d, qos, id, false, retain, now, &ids);
        if p.len(takes.version) > takes.packet_bytes_max as usize {
            if let Some(r) = &d.receipt {
                r.refused("it is larger than what the device takes");
            }
            return Delivery::TooLarge;
        }
        if let Some(r) = &d.receipt {
            r.written();
        }
        p.write(out, takes.version);
        if qos > 0 {
            let stage = Stage::Sent { down: d, qos };
            self.flying.push_back(Flying { id, stage });
        }
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

    /// PUBACK: done. One that does not fit changes nothing.
    pub fn puback(&mut self, id: u16) -> Result<(), NotUnderWay> {
        let done = self.remove(|f| f.id == id && matches!(f.stage, Stage::Sent { qos: 1, .. }))?;
        taken_by_device(&done.stage);
        Ok(())
    }

    /// PUBREC: the client has it (or refused it, v5).
    pub fn pubrec(
        &mut self,
        out: &mut BytesMut,
        takes: Takes,
        id: u16,
        taken: bool,
    ) -> Result<(), NotUnderWay> {
        let mut flying = self.flying.iter_mut();
        let found = flying.find(|f| {
            f.id == id && matches!(f.stage, Stage::Sent { qos: 2, .. } | Stage::Released)
        });
        match found {
            Some(f) if taken => {
                taken_by_device(&f.stage);
                f.stage = Stage::Released;
                write::ack(out, takes, Ack::Pubrel, id, reason::SUCCESS);
                Ok(())
            }
            Some(_) => {
                let refused = self.remove(|f| f.id == id)?;
                if let Stage::Sent { down, .. } = refused.stage
                    && let Some(r) = &down.receipt
                {
                    r.refused("the device refused the message (PUBREC)");
                }
                Ok(())
            }
            None => {
                if taken {
                    let code = reason::PACKET_ID_NOT_FOUND;
                    write::ack(out, takes, Ack::Pubrel, id, code);
                }
                Err(NotUnderWay)
            }
        }
    }

    /// PUBCOMP: done.
    pub fn pubcomp(&mut self, id: u16) -> Result<(), NotUnderWay> {
        self.remove(|f| f.id == id && matches!(f.stage, Stage::Released))?;
        Ok(())
    }

    fn remove(&mut self, which: impl Fn(&Flying) -> bool) -> Result<Flying, NotUnderWay> {
        let at = self.flying.iter().position(which).ok_or(NotUnderWay)?;
        let gone = self.flying.remove(at).ok_or(NotUnderWay)?;
        if self.flying.is_empty() {
            self.flying = VecDeque::new();
        }
        Ok(gone)
    }

    /// Does the client listen to anything?
    pub fn is_listening(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// After a resume: PUBREL for what the client has; everything else is to be sent again.
    pub fn resume(&mut self, out: &mut BytesMut, takes: Takes) {
        for f in &mut self.flying {
            match std::mem::replace(&mut f.stage, Stage::Released) {
                Stage::Released => write::ack(out, takes, Ack::Pubrel, f.id, reason::SUCCESS),
                Stage::Sent { down, qos } | Stage::Again { down, qos } => {
                    f.stage = Stage::Again { down, qos };
                }
            }
        }
    }

    /// QoS 1 and 2 messages that this connection's client has not acknowledged.
    #[cfg(test)]
    pub fn in_flight(&self) -> usize {
        let sent = |f: &&Flying| !matches!(f.stage, Stage::Again { .. });
        self.flying.iter().filter(sent).count()
    }
}

/// What is left of the life of a message is told in whole seconds, rounded up.
fn publish<'a>(
    d: &'a Downlink,
    qos: u8,
    id: u16,
    again: bool,
    retain: bool,
    now: Instant,
    subscription_ids: &'a [u32],
) -> write::Publish<'a> {
    let left = |t: Instant| t.saturating_duration_since(now).as_secs_f64().ceil();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative; a float that is too large becomes the largest"
    )]
    let expiry_s = d.expires.map(|t| left(t) as u32);
    write::Publish {
        topic: &d.topic,
        payload: &d.payload,
        qos,
        id,
        again,
        retain,
        expiry_s,
        subscription_ids,
    }
}

/// Is it a topic filter at all (v5 §4.7.1)? A wildcard stands alone in its level, `#` at the end.
pub(super) fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    let mut good = !filter.is_empty() && filter.len() <= FILTER_BYTES_MAX;
    while let Some(level) = levels.next() {
        good &= match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            text => !text.contains(['+', '#']),
        };
    }
    good
}

fn taken_by_device(stage: &Stage) {
    if let Stage::Sent { down, .. } = stage
        && let Some(r) = &down.receipt
    {
        r.acknowledged();
    }
}

/// Does a topic filter match a topic name (v5 §4.7)?
pub(super) fn matches(filter: &str, topic: &str) -> bool {
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
    use crate::listen::mqtt::packet::Version;

    const TAKES: Takes = Takes {
        version: Version::V5,
        receive_max: 2,
        packet_bytes_max: 100,
        reasons: false,
    };

    fn order(topic: &str, qos: u8) -> Downlink {
        Downlink::new(topic, "go", qos)
    }

    fn wanted(filter: &str, qos: u8) -> Wanted {
        Wanted {
            filter: filter.into(),
            qos,
            as_published: false,
            retained: Default::default(),
        }
    }

    fn never(d: Delivery) {
        panic!("dropped: {d:?}");
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
    fn what_is_a_filter() {
        for good in ["a", "/", "a/+/b", "#", "a/#", "+", "a//b", "$share/g/a"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "a+/b", "##", &"/".repeat(65_535)] {
            assert!(!is_filter(bad), "{bad:.20}");
        }
    }

    #[test]
    fn qos_is_the_lower_of_both_and_unwanted_is_not_sent() {
        let (mut d, mut out, now) = (Down::default(), BytesMut::new(), Instant::now());
        let none = d.send(&mut out, TAKES, order("a", 1), now);
        assert_eq!(none, Delivery::NotSubscribed);
        assert_eq!(d.subscribe(&wanted("a", 0), None), (0, true));
        assert_eq!(d.subscribe(&wanted("a", 0), None), (0, false));
        assert_eq!(
            d.send(&mut out, TAKES, order("a", 2), now),
            Delivery::Written
        );
        assert_eq!(out[0], 0x30);
        let big = Downlink::new("a", vec![0; 100], 0);
        assert_eq!(d.send(&mut out, TAKES, big, now), Delivery::TooLarge);
    }

    #[test]
    fn a_message_tells_its_subscriptions_and_what_is_left_of_its_life() {
        let (mut d, mut out, now) = (Down::default(), BytesMut::new(), Instant::now());
        d.subscribe(&wanted("a/#", 0), Some(7));
        d.subscribe(&wanted("a/b", 0), Some(8));
        d.subscribe(&wanted("+/b", 0), None);
        let until = |ms| Downlink {
            expires: Some(now + std::time::Duration::from_millis(ms)),
            ..order("a/b", 0)
        };
        assert_eq!(d.send(&mut out, TAKES, until(4100), now), Delivery::Written);
        assert_eq!(
            &out[..],
            b"\x30\x11\0\x03a/b\x09\x02\0\0\0\x05\x0b\x07\x0b\x08go"
        );
        assert_eq!(d.send(&mut out, TAKES, until(0), now), Delivery::Expired);
        out.clear();
        let old = Takes {
            version: Version::V311,
            ..TAKES
        };
        d.send(&mut out, old, until(4100), now);
        assert_eq!(&out[..], b"\x30\x07\0\x03a/bgo");
    }

    #[test]
    fn retained_messages_follow_a_subscription_within_the_receive_maximum() {
        let (mut d, mut out, now) = (Down::default(), BytesMut::new(), Instant::now());
        d.subscribe(&wanted("a/#", 1), None);
        for topic in ["a/1", "a/2", "a/3", "a/3"] {
            d.tell_retained(order(topic, 1));
        }
        d.send_waiting(&mut out, TAKES, now, never);
        assert_eq!(out[0], 0x33, "with RETAIN");
        assert_eq!((d.in_flight(), d.has_room(TAKES)), (2, false));
        d.puback(1).unwrap();
        assert!(!d.has_room(TAKES), "the third goes first");
        d.send_waiting(&mut out, TAKES, now, never);
        assert_eq!((d.in_flight(), d.retained.len()), (2, 0));
        d.puback(2).unwrap();
        d.puback(3).unwrap();
        // To who listens already it is a message like any other, but to who asked to be told.
        out.clear();
        let retain = || Downlink {
            retain: true,
            ..order("a/1", 0)
        };
        d.send(&mut out, TAKES, retain(), now);
        assert_eq!(out[0], 0x30);
        let w = Wanted {
            as_published: true,
            ..wanted("a/#", 1)
        };
        d.subscribe(&w, None);
        out.clear();
        d.send(&mut out, TAKES, retain(), now);
        assert_eq!(out[0], 0x31);
    }

    #[test]
    fn qos_2_down_and_a_resume_in_the_middle() {
        let (mut d, mut out, now) = (Down::default(), BytesMut::new(), Instant::now());
        d.subscribe(&wanted("a", 2), None);
        d.send(&mut out, TAKES, order("a", 2), now);
        d.send(&mut out, TAKES, order("a", 1), now);
        assert!(!d.has_room(TAKES));
        out.clear();
        d.pubrec(&mut out, TAKES, 1, true).unwrap();
        assert_eq!(&out[..], [0x62, 2, 0, 1]);
        out.clear();
        d.resume(&mut out, TAKES);
        d.send_waiting(&mut out, TAKES, now, never);
        assert_eq!(&out[..4], [0x62, 2, 0, 1], "the client has it: only PUBREL");
        assert_eq!(out[4], 0x3a, "PUBLISH QoS 1 with DUP");
        assert_eq!(d.puback(1), Err(NotUnderWay));
        assert_eq!(d.pubcomp(2), Err(NotUnderWay));
        assert!(!d.has_room(TAKES), "answers that do not fit change nothing");
        d.pubcomp(1).unwrap();
        d.puback(2).unwrap();
        assert!(d.has_room(TAKES) && d.flying.is_empty());
    }

    #[test]
    fn a_resumed_client_that_takes_less_gets_no_more_than_that() {
        let (mut d, mut out, now) = (Down::default(), BytesMut::new(), Instant::now());
        d.subscribe(&wanted("a", 1), None);
        let large = Downlink::new("a", vec![0; 60], 1);
        for m in [order("a", 1), large, order("a", 1)] {
            d.send(
                &mut out,
                Takes {
                    receive_max: 9,
                    ..TAKES
                },
                m,
                now,
            );
        }
        let less = Takes {
            receive_max: 1,
            packet_bytes_max: 40,
            ..TAKES
        };
        let mut dropped = Vec::new();
        out.clear();
        d.resume(&mut out, less);
        d.send_waiting(&mut out, less, now, |d| dropped.push(d));
        assert_eq!((d.in_flight(), out[0]), (1, 0x3a));
        assert!(!d.has_room(less));
        d.puback(1).unwrap();
        d.send_waiting(&mut out, less, now, |d| dropped.push(d));
        assert_eq!(
            (d.in_flight(), &dropped[..]),
            (1, &[Delivery::TooLarge][..])
        );
        d.puback(3).unwrap();
        assert!(d.has_room(less));
    }
}
