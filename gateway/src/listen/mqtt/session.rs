//! The protocol state of one accepted connection: packets in, bytes out. Pure: no clock, no socket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kerbside_codecs::telemetry::{Codecs, Fault};

use super::connect::Will;
use super::down::{self, Delivery, Down, NotUnderWay};
use super::end::End;
use super::packet::{self, Bad, Packet, Publish, Version, Wanted};
use super::up::{Outcome, Pushed, Up};
use super::write::{self, Takes, reason};
use crate::clock::Now;
use crate::device::{Downlink, Downlinks, Retained, Uplink, downlink_dropped};
use crate::ids::DeviceId;
use crate::registry::Issue;

/// Topic aliases a v5 client may set; a device has few topics.
pub(super) const ALIASES_MAX: u16 = 16;
/// Longest topic that an alias may stand for; those of a device are far shorter.
const ALIASED_BYTES_MAX: usize = 512;
/// Bytes not yet taken by the client, beyond which nothing more is done for it.
const OUT_BYTES_MAX: usize = 64 << 10;

/// What of a session outlives its connection.
pub(super) struct Kept {
    /// Whose it is: a device that was revoked and added again is another one.
    pub issue: Issue,
    pub down: Down,
    pub received: BTreeSet<u16>,
    pub queue: Arc<Downlinks>,
    /// A will that waits for its delay.
    pub will: Option<(Instant, Will)>,
    pub until: Instant,
}

/// Whose session it is, and what the gateway has for it.
pub(super) struct Party {
    pub device: DeviceId,
    pub codecs: Arc<Codecs>,
    /// What the device is told whenever it subscribes.
    pub retained: Arc<Retained>,
}

pub(super) struct Session {
    party: Party,
    takes: Takes,
    up: Up,
    down: Down,
    aliases: Vec<Option<Arc<str>>>,
    /// How long it outlives the connection by its CONNECT, and by its DISCONNECT.
    expiry_s: u32,
    expiry_asked_s: Option<u32>,
    /// What the client did against the rules and was not closed for.
    faults: Vec<Fault>,
    /// It began to listen since [`Self::poll_listening`].
    listens: bool,
    /// Bytes for the client, in order.
    pub out: BytesMut,
}

impl Session {
    /// A session on a new connection; `kept` is what it remembers of the former one.
    pub fn new(
        party: Party,
        takes: Takes,
        receive_max: u16,
        expiry_s: u32,
        kept: Option<Kept>,
    ) -> Self {
        let (down, received) = kept.map(|k| (k.down, k.received)).unwrap_or_default();
        Self {
            party,
            takes,
            up: Up::new(takes, receive_max, received),
            listens: down.is_listening(),
            down,
            aliases: Vec::new(),
            expiry_s,
            expiry_asked_s: None,
            faults: Vec::new(),
            out: BytesMut::new(),
        }
    }

    pub fn version(&self) -> Version {
        self.takes.version
    }

    /// May more packets be taken from the client?
    pub fn wants_packets(&self) -> bool {
        self.up.has_room() && self.out.len() < OUT_BYTES_MAX
    }

    /// May more messages be sent to the client?
    pub fn wants_downlinks(&self) -> bool {
        self.down.has_room(self.takes) && self.out.len() < OUT_BYTES_MAX
    }

    /// What the client did against the rules since the last call. One packet gives one at most.
    pub fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// A packet came in. Err: the connection ends.
    pub fn handle_packet(&mut self, packet: Packet, now: Now) -> Result<(), End> {
        let takes = self.takes;
        match packet {
            Packet::Publish(p) => return self.handle_publish(p, now),
            Packet::Puback { id } => {
                let done = self.down.puback(id);
                self.answered(done, now);
            }
            Packet::Pubrec { id, taken } => {
                let done = self.down.pubrec(&mut self.out, takes, id, taken);
                self.answered(done, now);
            }
            Packet::Pubrel { id } => {
                if !self.up.release(&mut self.out, id) {
                    self.faults.push(Fault::MqttPacketId);
                }
            }
            Packet::Pubcomp { id } => {
                let done = self.down.pubcomp(id);
                self.answered(done, now);
            }
            Packet::Subscribe {
                id,
                wanted,
                identifier,
            } => self.handle_subscribe(id, &wanted, identifier, now),
            Packet::Unsubscribe { id, filters } => {
                let codes: Vec<u8> = filters.iter().map(|f| self.down.unsubscribe(f)).collect();
                write::unsuback(&mut self.out, takes, id, &codes);
            }
            Packet::Pingreq => write::pingresp(&mut self.out),
            Packet::Disconnect {
                with_will,
                expiry_s,
            } => {
                if self.expiry_s == 0 && expiry_s.is_some_and(|s| s > 0) {
                    // A session that was to end with its connection cannot be kept (v5 §3.14.2.2.2).
                    return Err(End::Bad(Bad::Protocol));
                }
                self.expiry_asked_s = expiry_s;
                return Err(if with_will {
                    End::LeftWithWill
                } else {
                    End::Left
                });
            }
        }
        Ok(())
    }

    fn handle_publish(&mut self, p: Publish, now: Now) -> Result<(), End> {
        let topic = match p.alias {
            None => p.topic,
            Some(alias) => self.aliased(alias, p.topic)?,
        };
        let up = Uplink::new(topic, p.payload, now);
        if self.up.push(&mut self.out, up, p.qos, p.id, p.again)? == Pushed::IdInUse {
            self.faults.push(Fault::MqttPacketId);
        }
        Ok(())
    }

    /// Sets an alias, or looks it up when the topic is empty (v5 §3.3.2.3.4).
    fn aliased(&mut self, alias: u16, topic: Arc<str>) -> Result<Arc<str>, End> {
        if !(1..=ALIASES_MAX).contains(&alias) {
            return Err(End::Bad(Bad::Alias));
        }
        let at = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = self.aliases.get(at).cloned().flatten();
            return known.ok_or(End::Bad(Bad::Alias));
        }
        if topic.len() > ALIASED_BYTES_MAX {
            return Err(End::Bad(Bad::TopicName));
        }
        if self.aliases.len() <= at {
            self.aliases.resize(at + 1, None);
        }
        self.aliases[at] = Some(Arc::clone(&topic));
        Ok(topic)
    }

    fn handle_subscribe(&mut self, id: u16, wanted: &[Wanted], identifier: Option<u32>, now: Now) {
        let mut codes = Vec::with_capacity(wanted.len());
        for w in wanted {
            let (code, is_new) = self.subscribe(w, identifier);
            codes.push(code);
            let tell = match w.retained {
                packet::Retained::Send => true,
                packet::Retained::IfNew => is_new,
                packet::Retained::No => false,
            };
            if code < 0x80 && tell {
                let matches = |topic: &str| down::matches(&w.filter, topic);
                for d in self.party.retained.wanted(now.mono, matches) {
                    self.down.tell_retained(d);
                }
            }
        }
        if codes.iter().any(|c| *c >= 0x80) {
            self.faults.push(Fault::MqttSubscription);
        }
        write::suback(&mut self.out, self.takes, id, &codes);
        self.send_waiting(now);
    }

    fn subscribe(&mut self, w: &Wanted, identifier: Option<u32>) -> (u8, bool) {
        let device = self.party.device.as_str();
        if w.filter.starts_with("$share/") {
            (reason::SHARED_NOT_SUPPORTED, false)
        } else if !down::is_filter(&w.filter) {
            (reason::FILTER_INVALID, false)
        } else if self.party.codecs.may_subscribe(device, &w.filter) {
            self.listens = true;
            self.down.subscribe(w, identifier)
        } else {
            (reason::NOT_AUTHORIZED, false)
        }
    }

    /// The client answered to a message of ours; there may be place for the next.
    fn answered(&mut self, answer: Result<(), NotUnderWay>, now: Now) {
        if answer == Err(NotUnderWay) {
            self.faults.push(Fault::MqttPacketId);
        }
        self.send_waiting(now);
    }

    fn send_waiting(&mut self, now: Now) {
        let (out, takes) = (&mut self.out, self.takes);
        self.down.send_waiting(out, takes, now.mono, count_dropped);
    }

    /// The next message to hand over, unless one is under way.
    pub fn poll_uplink(&mut self) -> Option<Uplink> {
        self.up.next()
    }

    /// The message from [`Self::poll_uplink`] came to its end.
    pub fn handle_outcome(&mut self, outcome: Outcome) -> Result<(), End> {
        if outcome == Outcome::Unauthorized {
            self.faults.push(Fault::MqttNotAuthorized);
        }
        self.up.ended(&mut self.out, outcome)
    }

    /// A message for the device.
    pub fn handle_downlink(&mut self, d: Downlink, now: Instant) {
        count_dropped(self.down.send(&mut self.out, self.takes, d, now));
    }

    /// True once after the client subscribed, or came back to its subscriptions.
    pub fn poll_listening(&mut self) -> bool {
        std::mem::take(&mut self.listens)
    }

    /// After CONNACK of a resumed session: what was under way goes on.
    pub fn resume(&mut self, now: Now) {
        self.down.resume(&mut self.out, self.takes);
        self.send_waiting(now);
    }

    /// Tells the client why it is closed, if its protocol can.
    pub fn say_goodbye(&mut self, end: End) {
        if self.takes.version == Version::V5
            && let Some(reason) = end.disconnect_v5()
        {
            write::disconnect_v5(&mut self.out, self.takes, reason, end.advice());
        }
    }

    /// How long the session shall outlive its connection, by its DISCONNECT if that said so (v5 §3.14.2.2.2).
    pub fn expiry(&self, max_s: u32) -> Duration {
        let asked = self.expiry_asked_s.unwrap_or(self.expiry_s);
        Duration::from_secs(asked.min(max_s).into())
    }

    pub fn into_kept(
        self,
        issue: Issue,
        queue: Arc<Downlinks>,
        will: Option<(Instant, Will)>,
        until: Instant,
    ) -> Kept {
        Kept {
            issue,
            down: self.down,
            received: self.up.into_received(),
            queue,
            will,
            until,
        }
    }
}

fn count_dropped(d: Delivery) {
    match d {
        Delivery::Written => {}
        Delivery::NotSubscribed => downlink_dropped("not_subscribed"),
        Delivery::TooLarge => downlink_dropped("too_large"),
        Delivery::Expired => downlink_dropped("expired"),
    }
}

#[cfg(test)]
mod model_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::mqtt::packet::{next_frame, packet};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn session(version: Version) -> Session {
        let party = Party {
            device: DeviceId::parse("bc-01").unwrap(),
            codecs: Arc::default(),
            retained: Arc::default(),
        };
        let takes = Takes {
            reasons: false,
            ..Takes::just(version)
        };
        Session::new(party, takes, 20, 0, None)
    }

    fn publish(topic: &str, alias: Option<u16>) -> Packet {
        Packet::Publish(Publish {
            topic: topic.into(),
            alias,
            qos: 0,
            id: 0,
            again: false,
            payload: Bytes::new(),
        })
    }

    #[test]
    fn aliases_live_for_the_connection_and_are_bounded() {
        let mut s = session(Version::V5);
        let now = Now::read();
        s.handle_packet(publish("a/b", Some(3)), now).unwrap();
        s.handle_packet(publish("", Some(3)), now).unwrap();
        let first = s.poll_uplink().unwrap();
        s.handle_outcome(Outcome::Owned).unwrap();
        assert_eq!(
            (&*first.topic, &*s.poll_uplink().unwrap().topic),
            ("a/b", "a/b")
        );
        for (topic, alias) in [("", 4), ("x", 0), ("x", ALIASES_MAX + 1)] {
            assert_eq!(
                s.handle_packet(publish(topic, Some(alias)), now),
                Err(End::Bad(Bad::Alias))
            );
        }
    }

    #[test]
    fn a_device_listens_only_to_itself() {
        let mut s = session(Version::V5);
        let wanted = [
            "kerbside/v1/bc-01/down/#",
            "kerbside/v1/bc-02/down/#",
            "#",
            "$share/g/kerbside/v1/bc-01/down/#",
            "kerbside/v1/bc-01/down/#/a",
        ]
        .map(|f| Wanted {
            filter: f.into(),
            qos: 1,
            as_published: false,
            retained: Default::default(),
        });
        let p = Packet::Subscribe {
            id: 9,
            wanted: wanted.into(),
            identifier: None,
        };
        s.handle_packet(p, Now::read()).unwrap();
        assert_eq!(&s.out[..], [0x90, 8, 0, 9, 0, 1, 0x87, 0x87, 0x9e, 0x8f]);
        assert_eq!(s.take_faults(), [Fault::MqttSubscription]);
    }

    #[test]
    fn topics_and_filters_without_end_are_not_kept() {
        let mut s = session(Version::V5);
        let now = Now::read();
        let deep = "/".repeat(65_535);
        let bad = s.handle_packet(publish(&deep, Some(1)), now);
        assert_eq!(bad, Err(End::Bad(Bad::TopicName)));
        let w = Wanted {
            filter: format!("kerbside/v1/bc-01/down/{}", "a/".repeat(300)),
            qos: 1,
            as_published: false,
            retained: Default::default(),
        };
        assert_eq!(s.subscribe(&w, None), (reason::FILTER_INVALID, false));
    }

    #[test]
    fn a_session_that_was_to_end_cannot_be_kept_at_the_last_moment() {
        let bye = || Packet::Disconnect {
            with_will: false,
            expiry_s: Some(600),
        };
        let mut s = session(Version::V5);
        let end = s.handle_packet(bye(), Now::read());
        assert_eq!(end, Err(End::Bad(Bad::Protocol)));
        let mut s = session(Version::V5);
        s.expiry_s = 60;
        let end = s.handle_packet(bye(), Now::read());
        assert_eq!(end, Err(End::Left));
        assert_eq!(s.expiry(3600), Duration::from_secs(600));
        assert_eq!(s.expiry(300), Duration::from_secs(300));
    }

    proptest! {
        /// Whatever an authenticated client sends, a session neither panics nor grows beyond its bounds.
        #[test]
        fn no_packets_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..400), v5: bool) {
            let version = if v5 { Version::V5 } else { Version::V311 };
            let mut s = session(version);
            let mut buf = BytesMut::from(&bytes[..]);
            while s.wants_packets() && let Ok(Some(frame)) = next_frame(&mut buf, 1 << 12) {
                let Ok(p) = packet(version, &frame) else { break };
                if s.handle_packet(p, Now::read()).is_err() {
                    break;
                }
            }
            prop_assert!(s.aliases.len() <= usize::from(ALIASES_MAX));
        }
    }
}
