//! What waits for one session: datagrams, and the word that it is over. For a session with a task of its own, and for
//! a reader on a fan-out thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::sessions::Datagram;
use crate::stream::Kick;

/// Datagrams waiting for one session; more are dropped and counted.
pub const INBOX_MAX: usize = 512;

/// ICE-TCP connections of one session at once: a new one, the one before it, and one of each other network.
pub const CONNECTIONS_MAX: usize = 4;

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Full,
    Closed,
}

impl Refused {
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "session_busy",
            Self::Closed => "session_ended",
        }
    }
}

#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    /// There is something for the session's task.
    called: Notify,
    /// The session has to end.
    ending: Notify,
    /// There is room again, or it is closed: for who has to wait.
    room: Notify,
    kick: OnceLock<Kick>,
    over: OnceLock<&'static str>,
    connections: AtomicUsize,
}

/// The place of one ICE-TCP connection in its session.
pub struct Place(Arc<Inbox>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<Datagram>,
    closed: bool,
}

impl Inbox {
    /// A place for one more ICE-TCP connection; None: there are enough.
    pub fn connection(self: &Arc<Self>) -> Option<Place> {
        let more = |n| (n < CONNECTIONS_MAX).then_some(n + 1);
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()?;
        Some(Place(self.clone()))
    }

    /// # Errors
    /// [`Refused`], and the datagram.
    pub fn put(&self, datagram: Datagram) -> Result<(), (Refused, Datagram)> {
        let mut w = self.waiting.lock();
        if w.closed {
            return Err((Refused::Closed, datagram));
        }
        if w.datagrams.len() >= INBOX_MAX {
            return Err((Refused::Full, datagram));
        }
        w.datagrams.push_back(datagram);
        drop(w);
        self.call();
        Ok(())
    }

    /// Waits for room. False: the session is gone.
    pub async fn put_when_room(&self, mut datagram: Datagram) -> bool {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.put(datagram) {
                Ok(()) => return true,
                Err((Refused::Closed, _)) => return false,
                Err((Refused::Full, d)) => datagram = d,
            }
            room.await;
        }
    }

    pub fn pop(&self) -> Option<Datagram> {
        let mut w = self.waiting.lock();
        let was_full = w.datagrams.len() >= INBOX_MAX;
        let d = w.datagrams.pop_front();
        if w.datagrams.is_empty() && w.datagrams.capacity() > 32 {
            w.datagrams = VecDeque::new();
        }
        drop(w);
        if was_full {
            self.room.notify_waiters();
        }
        d
    }

    /// Waits for a datagram. Cancel-safe.
    pub async fn next(&self) -> Datagram {
        loop {
            if let Some(d) = self.pop() {
                return d;
            }
            self.called.notified().await;
        }
    }

    /// The session has to end, for this reason; the first one holds.
    pub fn end(&self, reason: &'static str) {
        if self.over.set(reason).is_ok() {
            self.ending.notify_one();
            self.call();
        }
    }

    /// Has it to end?
    pub fn over(&self) -> Option<&'static str> {
        self.over.get().copied()
    }

    /// Waits until it has to end. Cancel-safe.
    pub async fn until_over(&self) -> &'static str {
        loop {
            if let Some(reason) = self.over() {
                return reason;
            }
            self.ending.notified().await;
        }
    }

    /// From now on calls kick this reader.
    pub fn serve_by(&self, kick: &Kick) {
        if self.kick.set(kick.clone()).is_ok() {
            kick.kick();
        }
    }

    /// Nobody takes what comes any more.
    pub fn close(&self) {
        let mut w = self.waiting.lock();
        w.closed = true;
        w.datagrams = VecDeque::new();
        drop(w);
        self.room.notify_waiters();
    }

    /// Waits until it is closed.
    pub async fn until_closed(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.waiting.lock().closed {
                return;
            }
            room.await;
        }
    }

    fn call(&self) {
        match self.kick.get() {
            Some(k) => k.kick(),
            None => self.called.notify_one(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_few_connections() {
        let inbox = Arc::<Inbox>::default();
        let mut places: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| inbox.connection().unwrap())
            .collect();
        assert!(inbox.connection().is_none());
        places.pop();
        assert!(inbox.connection().is_some());
    }
}
