//! The protocol state of one accepted connection: packets in, bytes out. Pure: no clock, no socket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kerbside_codecs::telemetry::Codecs;

use super::connect::Will;
use super::down::{Delivery, Down, Takes};
use super::end::End;
use super::packet::{Bad, Packet, Publish, Version, Wanted};
use super::up::{Outcome, Up};
use super::write::{self, reason};
use crate::clock::Now;
use crate::device::{Downlink, Downlinks, Uplink, downlink_dropped};
use crate::ids::DeviceId;

/// Topic aliases a v5 client may set; a device has few topics.
pub(super) const ALIASES_MAX: u16 = 16;
/// Bytes not yet taken by the client, beyond which nothing more is done for it.
const OUT_BYTES_MAX: usize = 64 << 10;

/// What of a session outlives its connection.
pub(super) struct Kept {
    pub down: Down,
    pub received: BTreeSet<u16>,
    pub queue: Arc<Downlinks>,
    /// A will that waits for its delay.
    pub will: Option<(Instant, Will)>,
    pub until: Instant,
}

pub(super) struct Session {
    device: DeviceId,
    codecs: Arc<Codecs>,
    takes: Takes,
    up: Up,
    down: Down,
    aliases: Vec<Option<Arc<str>>>,
    expiry_asked: Option<Duration>,
    /// It began to listen since [`Self::poll_listening`].
    listens: bool,
    /// Bytes for the client, in order.
    pub out: BytesMut,
}

impl Session {
    /// A session on a new connection; `kept` is what it remembers of the former one.
    pub fn new(
        device: DeviceId,
        codecs: Arc<Codecs>,
        takes: Takes,
        receive_max: u16,
        kept: Option<Kept>,
    ) -> Self {
        let (down, received) = kept.map(|k| (k.down, k.received)).unwrap_or_default();
        Self {
            device,
            codecs,
            takes,
            up: Up::new(takes.version, receive_max, received),
            listens: down.is_listening(),
            down,
            aliases: Vec::new(),
            expiry_asked: None,
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

    /// A packet came in. Err: the connection ends.
    pub fn handle_packet(&mut self, packet: Packet, now: Now) -> Result<(), End> {
        let version = self.takes.version;
        match packet {
            Packet::Publish(p) => return self.handle_publish(p, now),
            Packet::Puback { id } => self.down.puback(id),
            Packet::Pubrec { id, taken } => self.down.pubrec(&mut self.out, version, id, taken),
            Packet::Pubrel { id } => self.up.release(&mut self.out, id),
            Packet::Pubcomp { id } => self.down.pubcomp(id),
            Packet::Subscribe {
                has_identifier: true,
                ..
            } => return Err(End::SubscriptionIdentifier),
            Packet::Subscribe { id, wanted, .. } => {
                let codes: Vec<u8> = wanted.into_iter().map(|w| self.subscribe(w)).collect();
                write::suback(&mut self.out, version, id, &codes);
            }
            Packet::Unsubscribe { id, filters } => {
                let codes: Vec<u8> = filters.iter().map(|f| self.down.unsubscribe(f)).collect();
                write::unsuback(&mut self.out, version, id, &codes);
            }
            Packet::Pingreq => write::pingresp(&mut self.out),
            Packet::Disconnect {
                with_will,
                expiry_s,
            } => {
                self.expiry_asked = expiry_s.map(|s| Duration::from_secs(s.into()));
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
        self.up.push(&mut self.out, up, p.qos, p.id)
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
        if self.aliases.len() <= at {
            self.aliases.resize(at + 1, None);
        }
        self.aliases[at] = Some(Arc::clone(&topic));
        Ok(topic)
    }

    fn subscribe(&mut self, w: Wanted) -> u8 {
        if w.filter.starts_with("$share/") {
            reason::SHARED_NOT_SUPPORTED
        } else if self.codecs.may_subscribe(self.device.as_str(), &w.filter) {
            self.listens = true;
            self.down.subscribe(w.filter, w.qos)
        } else {
            reason::NOT_AUTHORIZED
        }
    }

    /// The next message to hand over, unless one is under way.
    pub fn poll_uplink(&mut self) -> Option<Uplink> {
        self.up.next()
    }

    /// The message from [`Self::poll_uplink`] came to its end.
    pub fn handle_outcome(&mut self, outcome: Outcome) -> Result<(), End> {
        self.up.ended(&mut self.out, outcome)
    }

    /// A message for the device.
    pub fn handle_downlink(&mut self, d: Downlink) {
        match self.down.send(&mut self.out, self.takes, d) {
            Delivery::Written => {}
            Delivery::NotSubscribed => downlink_dropped("not_subscribed"),
            Delivery::TooLarge => downlink_dropped("too_large"),
        }
    }

    /// True once after the client subscribed, or came back to its subscriptions.
    pub fn poll_listening(&mut self) -> bool {
        std::mem::take(&mut self.listens)
    }

    /// After CONNACK of a resumed session.
    pub fn send_again(&mut self) {
        self.down.send_again(&mut self.out, self.takes.version);
    }

    /// Tells the client why it is closed, if its protocol can.
    pub fn say_goodbye(&mut self, end: End) {
        if self.takes.version == Version::V5
            && let Some(reason) = end.disconnect_v5()
        {
            write::disconnect_v5(&mut self.out, reason);
        }
    }

    /// How long the session shall outlive its connection, if DISCONNECT said so (v5 §3.14.2.2.2).
    pub fn expiry_asked(&self) -> Option<Duration> {
        self.expiry_asked
    }

    pub fn into_kept(
        self,
        queue: Arc<Downlinks>,
        will: Option<(Instant, Will)>,
        until: Instant,
    ) -> Kept {
        Kept {
            down: self.down,
            received: self.up.into_received(),
            queue,
            will,
            until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::mqtt::packet::{next_frame, packet};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn session(version: Version) -> Session {
        let takes = Takes {
            version,
            receive_max: 20,
            packet_bytes_max: u32::MAX,
        };
        Session::new(
            DeviceId::parse("bc-01").unwrap(),
            Arc::default(),
            takes,
            20,
            None,
        )
    }

    fn publish(topic: &str, alias: Option<u16>) -> Packet {
        Packet::Publish(Publish {
            topic: topic.into(),
            alias,
            qos: 0,
            id: 0,
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
        ]
        .map(|f| Wanted {
            filter: f.into(),
            qos: 1,
        });
        let p = Packet::Subscribe {
            id: 9,
            wanted: wanted.into(),
            has_identifier: false,
        };
        s.handle_packet(p, Now::read()).unwrap();
        assert_eq!(&s.out[..], [0x90, 7, 0, 9, 0, 1, 0x87, 0x87, 0x9e]);
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
