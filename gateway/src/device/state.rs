//! What a device's actor knows: its sessions and what it last said. Pure.

use std::sync::{Arc, Weak};

use super::{Downlink, Downlinks, SESSIONS_MAX};
use crate::clock::Now;
use crate::ids::SessionId;
use crate::registry;

/// One live session.
#[derive(Clone)]
pub(super) struct Open {
    pub id: SessionId,
    pub protocol: &'static str,
    pub down: Arc<Downlinks>,
}

pub(super) struct State {
    pub device: Arc<registry::Device>,
    open: Vec<Open>,
    /// Queues of sessions without a connection, kept by whoever may resume them.
    away: Vec<Weak<Downlinks>>,
    /// Arrival of the last message.
    pub last_seen: Option<Now>,
    /// Parts of messages refused so far.
    pub faults: u64,
}

/// Did the device come or go?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Same,
    Online,
    Offline,
}

/// How far a message went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// To this many live sessions.
    Live(usize),
    /// Kept for when the device comes back.
    Kept,
    Nowhere,
}

impl State {
    pub fn new(device: registry::Device, open: Vec<Open>) -> Self {
        Self {
            device: Arc::new(device),
            open,
            away: Vec::new(),
            last_seen: None,
            faults: 0,
        }
    }

    /// A session begins; `replaces` is the one it took over. None: there are too many.
    pub fn open(
        &mut self,
        device: registry::Device,
        session: Open,
        replaces: Option<SessionId>,
    ) -> Option<Presence> {
        let was_online = !self.open.is_empty();
        self.open.retain(|o| Some(o.id) != replaces);
        if self.open.len() >= SESSIONS_MAX {
            return None;
        }
        self.device = Arc::new(device);
        self.away
            .retain(|w| w.upgrade().is_some_and(|q| !Arc::ptr_eq(&q, &session.down)));
        session.down.set_online(true);
        self.open.push(session);
        Some(if was_online {
            Presence::Same
        } else {
            Presence::Online
        })
    }

    /// A session ended. Its queue still takes messages for as long as somebody keeps it.
    pub fn close(&mut self, id: SessionId) -> Presence {
        let Some(at) = self.open.iter().position(|o| o.id == id) else {
            return Presence::Same;
        };
        let gone = self.open.swap_remove(at);
        gone.down.set_online(false);
        self.away.retain(|w| w.strong_count() > 0);
        self.away.push(Arc::downgrade(&gone.down));
        if self.open.is_empty() {
            Presence::Offline
        } else {
            Presence::Same
        }
    }

    /// The device said something; `faults` parts of it were refused.
    pub fn heard(&mut self, arrived: Now, faults: usize) {
        self.last_seen = Some(arrived);
        self.faults += faults as u64;
    }

    /// Has it a live session?
    pub fn is_online(&self) -> bool {
        !self.open.is_empty()
    }

    /// Protocols of the live sessions.
    pub fn protocols(&self) -> Vec<&'static str> {
        self.open.iter().map(|o| o.protocol).collect()
    }

    /// Where answers to this session go.
    pub fn queue(&self, session: SessionId) -> Option<Arc<Downlinks>> {
        self.open
            .iter()
            .find(|o| o.id == session)
            .map(|o| Arc::clone(&o.down))
    }

    /// To every live session; without any to those that may come back.
    pub fn send(&self, d: &Downlink) -> Sent {
        let hearing = self.open.iter().filter(|o| !o.down.is_deaf());
        let mut sessions = 0;
        for o in hearing {
            o.down.push(d.clone());
            sessions += 1;
        }
        if sessions > 0 {
            return Sent::Live(sessions);
        }
        let mut kept = Sent::Nowhere;
        if d.qos > 0 {
            for q in self.away.iter().filter_map(Weak::upgrade) {
                q.push(d.clone());
                kept = Sent::Kept;
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::DeviceKind;

    fn device() -> registry::Device {
        registry::Device::new("bc-01", DeviceKind::Bodycam)
    }

    fn session() -> Open {
        Open {
            id: SessionId::next(),
            protocol: "mqtt",
            down: Arc::default(),
        }
    }

    fn order() -> Downlink {
        Downlink::new("kerbside/v1/bc-01/down/x", "{}", 1)
    }

    #[test]
    fn a_device_is_online_from_its_first_session_to_its_last() {
        let mut s = State::new(device(), Vec::new());
        let (a, b) = (session(), session());
        assert_eq!(s.open(device(), a.clone(), None), Some(Presence::Online));
        assert_eq!(s.open(device(), b.clone(), None), Some(Presence::Same));
        assert_eq!(s.close(a.id), Presence::Same);
        assert_eq!(s.close(a.id), Presence::Same);
        assert_eq!(s.close(b.id), Presence::Offline);
    }

    #[test]
    fn taking_over_is_no_absence_and_needs_no_room() {
        let mut s = State::new(device(), Vec::new());
        let all: Vec<_> = (0..SESSIONS_MAX).map(|_| session()).collect();
        for o in &all {
            assert!(s.open(device(), o.clone(), None).is_some());
        }
        assert_eq!(s.open(device(), session(), None), None);
        assert_eq!(
            s.open(device(), session(), Some(all[0].id)),
            Some(Presence::Same)
        );
        assert_eq!(s.open.len(), SESSIONS_MAX);
    }

    #[test]
    fn who_only_speaks_is_not_reached() {
        let mut s = State::new(device(), Vec::new());
        let deaf = Open {
            down: Downlinks::deaf(),
            ..session()
        };
        s.open(device(), deaf.clone(), None);
        assert_eq!(s.send(&order()), Sent::Nowhere);
        let hearing = session();
        s.open(device(), hearing, None);
        assert_eq!(s.send(&order()), Sent::Live(1));
    }

    #[test]
    fn orders_wait_for_a_session_that_may_come_back() {
        let mut s = State::new(device(), Vec::new());
        assert_eq!(s.send(&order()), Sent::Nowhere);
        let a = session();
        s.open(device(), a.clone(), None);
        assert_eq!(s.send(&order()), Sent::Live(1));
        s.close(a.id);
        assert_eq!(s.send(&order()), Sent::Kept);
        assert_eq!(a.down.pop(), Some(order()));
        assert_eq!(a.down.pop(), Some(order()));
        drop(a);
        assert_eq!(s.send(&order()), Sent::Nowhere);
    }
}
