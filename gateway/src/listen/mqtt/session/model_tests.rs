//! A model of both ends: whatever a client does in whatever order, over connections that break and come back, a session
//! keeps the promises of MQTT. Packets are well-formed; `packet` and `no_packets_break_it` see to the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf, Bytes};
use proptest::prelude::*;

use super::*;

const RECEIVE_MAX: u16 = 4;
const FILTER: &str = "kerbside/v1/bc-01/down/#";

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish {
        qos: u8,
        id: u16,
        again: bool,
    },
    Pubrel(u16),
    Puback(u16),
    Pubrec {
        id: u16,
        taken: bool,
    },
    Pubcomp(u16),
    Subscribe {
        qos: u8,
        filter: usize,
    },
    Unsubscribe,
    Ping,
    /// The message under way comes to its end.
    Outcome(usize),
    Order {
        qos: u8,
        large: bool,
    },
    /// The connection breaks, and another one with these limits goes on with the session.
    Resume {
        receive_max: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1u16..6;
    prop_oneof![
        4 => (0u8..3, id.clone(), any::<bool>()).prop_map(|(qos, id, again)| Step::Publish { qos, id, again: again && qos > 0 }),
        2 => id.clone().prop_map(Step::Pubrel),
        2 => id.clone().prop_map(Step::Puback),
        2 => (id.clone(), any::<bool>()).prop_map(|(id, taken)| Step::Pubrec { id, taken }),
        2 => id.prop_map(Step::Pubcomp),
        2 => (0u8..3, 0usize..3).prop_map(|(qos, filter)| Step::Subscribe { qos, filter }),
        1 => Just(Step::Unsubscribe),
        1 => Just(Step::Ping),
        4 => (0usize..4).prop_map(Step::Outcome),
        3 => (0u8..3, any::<bool>()).prop_map(|(qos, large)| Step::Order { qos, large }),
        1 => (1u16..4).prop_map(|receive_max| Step::Resume { receive_max }),
    ]
}

/// What must be true, beside the session.
struct Model {
    session: Session,
    version: Version,
    now: Now,
    receive_max: u16,
    queue: Arc<Downlinks>,
    /// QoS and id of messages taken in, in order; the first may be under way.
    taken: VecDeque<(u8, u16)>,
    handing: bool,
    /// QoS 2 ids that were owned and not released: they must not be handed over again.
    owned: BTreeSet<u16>,
    /// Messages to the client that it has not acknowledged on this connection, by id.
    flying: BTreeMap<u16, u8>,
}

fn takes(version: Version, receive_max: u16) -> Takes {
    Takes {
        receive_max,
        packet_bytes_max: 200,
        reasons: true,
        ..Takes::just(version)
    }
}

impl Model {
    fn new(version: Version) -> Self {
        let retained: Arc<Retained> = Arc::default();
        retained.put(&Downlink::new("kerbside/v1/bc-01/down/every", "5", 1));
        let party = Party {
            device: DeviceId::parse("bc-01").unwrap(),
            codecs: Arc::default(),
            retained,
        };
        let session = Session::new(party, takes(version, 3), RECEIVE_MAX, 600, None);
        Self {
            session,
            version,
            now: Now::read(),
            receive_max: 3,
            queue: Arc::default(),
            taken: VecDeque::new(),
            handing: false,
            owned: BTreeSet::new(),
            flying: BTreeMap::new(),
        }
    }

    /// False: the session ended, as it had to.
    fn step(&mut self, step: Step) -> bool {
        let (s, now) = (&mut self.session, self.now);
        let mut expected = Vec::new();
        let mut may_end = false;
        let result = match step {
            Step::Publish { qos, id, again } => {
                let p = Publish {
                    topic: "kerbside/v1/bc-01/report".into(),
                    alias: None,
                    qos,
                    id: if qos > 0 { id } else { 0 },
                    again,
                    payload: Bytes::new(),
                };
                let waits = self.taken.iter().any(|t| t.0 > 0 && t.1 == id);
                if qos == 0 || !(waits || qos == 2 && self.owned.contains(&id)) {
                    self.taken.push_back((qos, if qos > 0 { id } else { 0 }));
                    may_end = qos > 0;
                } else if qos == 2 && !waits {
                    expected.push((5, id));
                }
                s.handle_packet(Packet::Publish(p), now)
            }
            Step::Pubrel(id) => {
                expected.push((7, id));
                self.owned.remove(&id);
                s.handle_packet(Packet::Pubrel { id }, now)
            }
            Step::Puback(id) => {
                if self.flying.get(&id) == Some(&1) {
                    self.flying.remove(&id);
                }
                s.handle_packet(Packet::Puback { id }, now)
            }
            Step::Pubrec { id, taken } => {
                match self.flying.get(&id).copied() {
                    Some(2 | 3) if taken => {
                        self.flying.insert(id, 3);
                    }
                    Some(2 | 3) => {
                        self.flying.remove(&id);
                    }
                    _ => {}
                }
                if taken {
                    expected.push((6, id));
                }
                s.handle_packet(Packet::Pubrec { id, taken }, now)
            }
            Step::Pubcomp(id) => {
                if self.flying.get(&id) == Some(&3) {
                    self.flying.remove(&id);
                }
                s.handle_packet(Packet::Pubcomp { id }, now)
            }
            Step::Subscribe { qos, filter } => {
                expected.push((9, 77));
                let w = Wanted {
                    filter: [FILTER, "#", "$share/a/b"][filter].into(),
                    qos,
                    as_published: false,
                    retained: Default::default(),
                };
                let wanted = vec![w];
                let p = Packet::Subscribe {
                    id: 77,
                    wanted,
                    identifier: Some(9),
                };
                s.handle_packet(p, now)
            }
            Step::Unsubscribe => {
                expected.push((11, 77));
                let filters = vec![FILTER.to_owned()];
                s.handle_packet(Packet::Unsubscribe { id: 77, filters }, now)
            }
            Step::Ping => {
                expected.push((13, 0));
                s.handle_packet(Packet::Pingreq, now)
            }
            Step::Outcome(n) if self.handing => {
                let outcomes = [
                    Outcome::Owned,
                    Outcome::Unauthorized,
                    Outcome::Refused,
                    Outcome::Hopeless,
                ];
                self.handing = false;
                let outcome = outcomes[n];
                let (qos, id) = self.taken.pop_front().unwrap();
                may_end = self.version == Version::V311 && outcome != Outcome::Owned;
                let success = outcome == Outcome::Owned
                    || (outcome == Outcome::Hopeless && self.version == Version::V311);
                if qos == 2 && success {
                    self.owned.insert(id);
                }
                if qos > 0 {
                    expected.push((3 + qos, id));
                }
                s.handle_outcome(outcome)
            }
            Step::Outcome(_) => Ok(()),
            Step::Order { qos, large } => {
                let payload = vec![b'x'; if large { 300 } else { 3 }];
                let d = Downlink::new("kerbside/v1/bc-01/down/go", payload, qos);
                self.queue.push(d);
                Ok(())
            }
            Step::Resume { receive_max } => {
                self.resume(receive_max);
                return true;
            }
        };
        if result.is_err() {
            assert!(may_end, "ended for nothing: {result:?}");
            return false;
        }
        while self.session.wants_downlinks()
            && let Some(d) = self.queue.pop()
        {
            self.session.handle_downlink(d, self.now.mono);
        }
        if !self.handing && self.session.poll_uplink().is_some() {
            self.handing = true;
            let (qos, id) = self.taken[0];
            assert!(
                !(qos == 2 && self.owned.contains(&id)),
                "handed over twice: {id}"
            );
        }
        self.read(expected);
        self.bounds();
        true
    }

    fn resume(&mut self, receive_max: u16) {
        let party = Party {
            device: DeviceId::parse("bc-01").unwrap(),
            codecs: Arc::default(),
            retained: Arc::default(),
        };
        let fresh = Session::new(party, takes(self.version, 3), RECEIVE_MAX, 600, None);
        let old = std::mem::replace(&mut self.session, fresh);
        let queue = Arc::clone(&self.queue);
        let kept = old.into_kept(Issue::default(), queue, None, self.now.mono);
        let party = Party {
            device: DeviceId::parse("bc-01").unwrap(),
            codecs: Arc::default(),
            retained: Arc::default(),
        };
        let takes = takes(self.version, receive_max);
        self.session = Session::new(party, takes, RECEIVE_MAX, 600, Some(kept));
        self.receive_max = receive_max;
        // What was not owned is sent again by the client; what was is remembered.
        self.taken.clear();
        self.handing = false;
        self.flying.retain(|_, qos| *qos == 3);
        let released = self.flying.keys().map(|id| (6, *id)).collect();
        self.session.resume(self.now);
        self.read(released);
        self.bounds();
    }

    /// Everything written is expected, or a message that the client has room for.
    fn read(&mut self, mut expected: Vec<(u8, u16)>) {
        let out = &mut self.session.out;
        while !out.is_empty() {
            let first = out[0];
            let (mut len, mut at) = (0usize, 1);
            loop {
                len |= usize::from(out[at] & 0x7f) << (7 * (at - 1));
                at += 1;
                if out[at - 1] & 0x80 == 0 {
                    break;
                }
            }
            assert!(at + len <= 200, "larger than the client takes");
            out.advance(at);
            let body = out.split_to(len).freeze();
            let kind = first >> 4;
            if kind == 3 {
                let qos = (first >> 1) & 3;
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                if qos > 0 {
                    let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
                    let known = self.flying.insert(id, qos);
                    assert_eq!(known, None, "packet id {id} is under way");
                }
                continue;
            }
            let id = if kind == 13 {
                0
            } else {
                u16::from_be_bytes([body[0], body[1]])
            };
            let at = expected.iter().position(|e| *e == (kind, id));
            assert!(
                at.is_some(),
                "answer to nothing: {kind} {id}, expected {expected:?}"
            );
            expected.remove(at.unwrap());
        }
        assert!(expected.is_empty(), "not answered: {expected:?}");
    }

    fn bounds(&self) {
        let s = &self.session;
        // PUBRELs of a former connection may be more than the new client takes at once; messages may not.
        let sent = self.flying.values().filter(|q| **q < 3).count();
        assert!(sent <= usize::from(self.receive_max), "{:?}", self.flying);
        assert_eq!(s.down.in_flight(), self.flying.len());
        assert!(s.aliases.len() <= usize::from(ALIASES_MAX));
        let held = self.taken.iter().filter(|t| t.0 > 0).count();
        assert!(held <= 1024 && self.owned.len() <= 1024);
        if self.version == Version::V5 {
            assert!(held <= usize::from(RECEIVE_MAX));
        }
    }
}

proptest! {
    #[test]
    fn the_promises_hold_in_any_order(steps in proptest::collection::vec(step(), 0..80), v5: bool) {
        let mut model = Model::new(if v5 { Version::V5 } else { Version::V311 });
        for step in steps {
            // As the connection does: what has no room is not read.
            if !model.session.wants_packets() && !matches!(step, Step::Outcome(_) | Step::Order { .. } | Step::Resume { .. }) {
                continue;
            }
            if !model.step(step) {
                break;
            }
            model.session.take_faults();
        }
    }
}
