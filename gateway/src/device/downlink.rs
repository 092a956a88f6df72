//! The way down: one bounded queue per session, which outlives the connection when the session does.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::Notify;

use super::orders::Receipt;
use crate::metrics;

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_downlink_dropped_total",
        "Messages to devices that were dropped",
        &["reason"],
    )
});

/// Messages waiting for one session; beyond that the oldest is dropped.
const WAITING_MAX: usize = 100;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A message to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downlink {
    pub topic: String,
    pub payload: Bytes,
    /// 0, 1 or 2; a session lowers it to what the device subscribed with.
    pub qos: u8,
    /// Of no use from then on: dropped, or (v5) sent with what is left.
    pub expires: Option<Instant>,
    /// The newest of its topic is told again whenever the device subscribes, until the gateway ends ([`Retained`]).
    pub retain: bool,
    /// Who wants to know what became of it.
    pub receipt: Option<Receipt>,
}

impl Downlink {
    /// One that never expires, is not retained, and that nobody follows.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>, qos: u8) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            expires: None,
            retain: false,
            receipt: None,
        }
    }

    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|t| t <= now)
    }

    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// Counts a message that did not go down.
pub(crate) fn dropped(reason: &str) {
    DROPPED.with_label_values(&[reason]).inc();
}

/// Retained messages of one device; with one more the oldest goes.
pub const RETAINED_MAX: usize = 8;
/// A larger one is sent and not retained.
const RETAINED_BYTES_MAX: usize = 4096;

/// The newest message of each topic that a device is to know whenever it subscribes (v5 §3.3.1.3): settings, mostly.
#[derive(Debug, Default)]
pub struct Retained(Mutex<Vec<Downlink>>);

impl Retained {
    /// Replaces the one of this topic; an empty payload only removes it.
    pub fn put(&self, d: &Downlink) {
        let mut all = self.0.lock();
        all.retain(|r| r.topic != d.topic);
        if d.payload.is_empty() {
            return;
        }
        if d.bytes() > RETAINED_BYTES_MAX {
            return dropped("too_large_to_retain");
        }
        if all.len() >= RETAINED_MAX {
            all.remove(0);
            dropped("retained_full");
        }
        all.push(Downlink {
            // It is followed as the message that it was, not as what is told again.
            receipt: None,
            ..d.clone()
        });
    }

    /// Those that are still of use and whose topic `is_wanted`, oldest first.
    pub fn wanted(&self, now: Instant, is_wanted: impl Fn(&str) -> bool) -> Vec<Downlink> {
        let mut all = self.0.lock();
        all.retain(|r| !r.is_expired(now));
        let wanted = all.iter().filter(|r| is_wanted(&r.topic));
        wanted.cloned().collect()
    }
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Downlink>,
    bytes: usize,
    /// No connection: QoS 0 is not kept.
    offline: bool,
}

/// What waits for one session.
#[derive(Default)]
pub struct Downlinks {
    waiting: Mutex<Waiting>,
    bell: Notify,
    /// The session has no way down.
    deaf: bool,
}

impl Downlinks {
    /// Of a session that only speaks: nothing goes down, and nothing waits.
    pub fn deaf() -> Arc<Self> {
        let mut queue = Self::default();
        queue.deaf = true;
        Arc::new(queue)
    }

    pub fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Adds at the end; a full queue loses its oldest, counted.
    pub fn push(&self, d: Downlink) {
        if self.deaf {
            return dropped("no_way_down");
        }
        let mut w = self.waiting.lock();
        if w.offline && d.qos == 0 {
            return dropped("offline");
        }
        w.bytes += d.bytes();
        w.items.push_back(d);
        while w.items.len() > WAITING_MAX || w.bytes > WAITING_BYTES_MAX {
            let Some(old) = w.items.pop_front() else {
                break;
            };
            w.bytes -= old.bytes();
            dropped("queue_full");
        }
        drop(w);
        self.bell.notify_one();
    }

    /// The oldest message that is still of use.
    pub fn pop(&self) -> Option<Downlink> {
        loop {
            let d = {
                let mut w = self.waiting.lock();
                let d = w.items.pop_front()?;
                w.bytes -= d.bytes();
                d
            };
            if !d.is_expired(Instant::now()) {
                return Some(d);
            }
            dropped("expired");
        }
    }

    /// Waits for the next `push`; one that came since the last wait counts. Cancel-safe.
    pub async fn pushed(&self) {
        self.bell.notified().await;
    }

    /// Whether a connection takes from this queue.
    pub fn set_online(&self, online: bool) {
        self.waiting.lock().offline = !online;
    }
}

impl Drop for Downlinks {
    fn drop(&mut self) {
        for _ in 0..self.waiting.lock().items.len() {
            dropped("session_ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(n: u32, qos: u8) -> Downlink {
        Downlink::new(n.to_string(), "", qos)
    }

    #[test]
    fn the_newest_of_each_topic_is_retained_and_there_are_few() {
        let (r, now) = (Retained::default(), Instant::now());
        let told = |topic: &str| {
            let all = r.wanted(now, |t| t == topic);
            all.into_iter().map(|d| d.payload).collect::<Vec<_>>()
        };
        r.put(&Downlink::new("a", "1", 1));
        r.put(&Downlink::new("a", "2", 1));
        assert_eq!(told("a"), ["2"]);
        r.put(&Downlink::new("a", "", 1));
        assert!(told("a").is_empty());
        let old = Downlink {
            expires: Some(now),
            ..Downlink::new("a", "3", 1)
        };
        r.put(&old);
        assert!(told("a").is_empty());
        r.put(&Downlink::new("a", vec![0; RETAINED_BYTES_MAX], 1));
        assert!(told("a").is_empty());
        for n in 0..=RETAINED_MAX {
            r.put(&Downlink::new(n.to_string(), "x", 1));
        }
        assert_eq!(r.wanted(now, |_| true).len(), RETAINED_MAX);
        assert!(told("0").is_empty());
    }

    #[test]
    fn a_full_queue_keeps_the_newest() {
        let q = Downlinks::default();
        for n in 0..150 {
            q.push(d(n, 1));
        }
        assert_eq!(q.pop().unwrap().topic, "50");
        let big = Downlink {
            payload: vec![0; WAITING_BYTES_MAX].into(),
            ..d(1, 1)
        };
        q.push(big);
        assert!(
            q.pop().is_none(),
            "one larger than the bound empties the queue"
        );
    }

    #[test]
    fn a_session_that_only_speaks_keeps_nothing() {
        let q = Downlinks::deaf();
        q.push(d(0, 1));
        assert!(q.is_deaf() && q.pop().is_none());
    }

    #[test]
    fn what_is_too_late_is_not_sent() {
        let (q, now) = (Downlinks::default(), Instant::now());
        q.push(Downlink {
            expires: Some(now),
            ..d(1, 1)
        });
        q.push(Downlink {
            expires: Some(now + std::time::Duration::from_secs(60)),
            ..d(2, 1)
        });
        let next = q.pop().unwrap();
        assert_eq!(next.topic, "2");
    }

    #[test]
    fn offline_keeps_only_what_is_to_arrive() {
        let q = Downlinks::default();
        q.set_online(false);
        q.push(d(0, 0));
        q.push(d(1, 1));
        assert_eq!(q.pop().unwrap().topic, "1");
        assert!(q.pop().is_none());
    }
}
