//! Sessions by device and client id: who is connected, who may come back, and how a new connection takes over.
//!
//! Client ids are names within one device: no device can reach another's session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::connect::Will;
use super::session::Kept;
use crate::ids::{DeviceId, SessionId};
use crate::registry::Issue;

/// Sessions without a connection that one device may leave behind; the oldest goes first.
const KEPT_MAX: usize = 4;
/// How long a connection that is taken over may need to hand over its session.
const HANDOVER_MAX: Duration = Duration::from_secs(5);

/// Asks a connection to end and to give its session.
pub(super) type TakeOver = oneshot::Sender<Option<Kept>>;

enum Slot {
    Live {
        session: SessionId,
        take_over: oneshot::Sender<TakeOver>,
    },
    Kept(Box<Kept>),
}

struct Named {
    client_id: Arc<str>,
    slot: Slot,
}

#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<DeviceId, Vec<Named>>>);

/// A claimed client id.
pub(super) struct Claim {
    /// Ask for this session's end comes here.
    pub taken_over: oneshot::Receiver<TakeOver>,
    /// The former connection with this client id, which is gone now.
    pub replaces: Option<SessionId>,
    /// The former session.
    pub kept: Option<Kept>,
}

impl Sessions {
    /// Makes `session` the one with this client id, ending a former connection first.
    pub async fn claim(
        &self,
        device: &DeviceId,
        client_id: &Arc<str>,
        session: SessionId,
    ) -> Claim {
        let (take_over, taken_over) = oneshot::channel();
        let slot = Slot::Live { session, take_over };
        let former = {
            let mut all = self.0.lock();
            let named = all.entry(device.clone()).or_default();
            match named.iter_mut().find(|n| n.client_id == *client_id) {
                Some(n) => Some(std::mem::replace(&mut n.slot, slot)),
                None => {
                    named.push(Named {
                        client_id: Arc::clone(client_id),
                        slot,
                    });
                    None
                }
            }
        };
        let (replaces, kept) = match former {
            None => (None, None),
            Some(Slot::Kept(kept)) => (None, Some(*kept)),
            Some(Slot::Live { session, take_over }) => {
                let (give, given) = oneshot::channel();
                // A connection that is already ending hands over as well; only one that hangs does not.
                let kept = if take_over.send(give).is_ok() {
                    tokio::time::timeout(HANDOVER_MAX, given)
                        .await
                        .ok()
                        .and_then(Result::ok)
                        .flatten()
                } else {
                    None
                };
                (Some(session), kept)
            }
        };
        Claim {
            taken_over,
            replaces,
            kept: kept.filter(|k| k.until > Instant::now()),
        }
    }

    /// The connection of `session` is gone; `kept` is what may be resumed. Nothing happens when it was taken over.
    /// Gives the will of a session that had to make room.
    pub fn release(
        &self,
        device: &DeviceId,
        client_id: &str,
        session: SessionId,
        kept: Option<Kept>,
    ) -> Option<Will> {
        let mut all = self.0.lock();
        let named = all.get_mut(device)?;
        let at = named.iter().position(|n| {
            &*n.client_id == client_id
                && matches!(n.slot, Slot::Live { session: s, .. } if s == session)
        })?;
        let mut evicted = None;
        let mut mine = named.remove(at);
        if let Some(kept) = kept {
            mine.slot = Slot::Kept(Box::new(kept));
            named.push(mine);
            let is_kept = |n: &Named| matches!(n.slot, Slot::Kept(_));
            if named.iter().filter(|n| is_kept(n)).count() > KEPT_MAX
                && let Some(oldest) = named.iter().position(is_kept)
                && let Slot::Kept(gone) = named.remove(oldest).slot
            {
                evicted = gone.will.map(|(_, will)| will);
            }
        }
        if named.is_empty() {
            all.remove(device);
        }
        evicted
    }

    /// Ends sessions that nobody resumed in time; gives the wills that are due, and whose they are.
    pub fn sweep(&self, now: Instant) -> Vec<(DeviceId, Issue, Will)> {
        let mut due = Vec::new();
        self.0.lock().retain(|device, named| {
            named.retain_mut(|n| {
                let Slot::Kept(kept) = &mut n.slot else {
                    return true;
                };
                let expired = kept.until <= now;
                if kept
                    .will
                    .as_ref()
                    .is_some_and(|(at, _)| *at <= now || expired)
                    && let Some((_, will)) = kept.will.take()
                {
                    due.push((device.clone(), kept.issue, will));
                }
                !expired
            });
            !named.is_empty()
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn kept(until: Instant, will: Option<Instant>) -> Kept {
        Kept {
            issue: Default::default(),
            down: Default::default(),
            received: Default::default(),
            queue: Arc::default(),
            will: will.map(|at| {
                let will = Will {
                    topic: "t".into(),
                    payload: Bytes::new(),
                    delay_s: 0,
                };
                (at, will)
            }),
            until,
        }
    }

    fn device(s: &str) -> DeviceId {
        DeviceId::parse(s).unwrap()
    }

    #[tokio::test]
    async fn the_second_gets_what_the_first_gives() {
        let s = Arc::new(Sessions::default());
        let (d, id): (_, Arc<str>) = (device("d"), "c".into());
        let (one, two) = (SessionId::next(), SessionId::next());
        let first = s.claim(&d, &id, one).await;
        assert!(first.replaces.is_none() && first.kept.is_none());
        let later = Instant::now() + Duration::from_secs(60);
        let giver = async {
            let give = first.taken_over.await.unwrap();
            assert!(give.send(Some(kept(later, None))).is_ok());
        };
        let (second, ()) = tokio::join!(s.claim(&d, &id, two), giver);
        assert_eq!(second.replaces, Some(one));
        assert!(second.kept.is_some());
        s.release(&d, &id, one, None);
        assert_eq!(
            s.0.lock().len(),
            1,
            "a late release of the first frees nothing"
        );
        s.release(&d, &id, two, None);
        assert!(s.0.lock().is_empty());
    }

    #[tokio::test]
    async fn client_ids_are_names_within_one_device() {
        let s = Sessions::default();
        let id: Arc<str> = "c".into();
        let first = s.claim(&device("a"), &id, SessionId::next()).await;
        let second = s.claim(&device("b"), &id, SessionId::next()).await;
        assert!(second.replaces.is_none());
        assert!(!first.taken_over.is_terminated());
    }

    #[tokio::test]
    async fn kept_sessions_expire_are_bounded_and_leave_their_will() {
        let s = Sessions::default();
        let d = device("d");
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        for n in 0..=KEPT_MAX {
            let id: Arc<str> = n.to_string().into();
            let session = SessionId::next();
            s.claim(&d, &id, session).await;
            let evicted = s.release(&d, &id, session, Some(kept(later, Some(later))));
            assert_eq!(evicted.is_some(), n == KEPT_MAX);
        }
        assert_eq!(s.0.lock()[&d].len(), KEPT_MAX);
        assert!(s.sweep(now).is_empty());
        let back = s.claim(&d, &"1".into(), SessionId::next()).await;
        assert!(back.kept.is_some());
        assert_eq!(s.sweep(later).len(), KEPT_MAX - 1);
        assert_eq!(s.0.lock()[&d].len(), 1, "the live one stays");
    }
}
