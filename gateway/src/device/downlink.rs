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
    /// Of no use after this moment; None: always.
    pub until: Option<Instant>,
    /// What is left of that, seconds rounded up, when it was taken from the queue: Message Expiry (v5 §3.3.2.3.3).
    pub left_s: Option<u32>,
    /// Who wants to know what became of it.
    pub receipt: Option<Receipt>,
}

impl Downlink {
    /// A message that nobody follows.
    pub fn new(topic: String, payload: Bytes, qos: u8) -> Self {
        Self {
            topic,
            payload,
            qos,
            until: None,
            left_s: None,
            receipt: None,
        }
    }

    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// Counts a message that did not go down.
pub(crate) fn dropped(reason: &str) {
    DROPPED.with_label_values(&[reason]).inc();
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
            let mut d = {
                let mut w = self.waiting.lock();
                let d = w.items.pop_front()?;
                w.bytes -= d.bytes();
                d
            };
            let Some(until) = d.until else {
                return Some(d);
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                dropped("expired");
                continue;
            }
            let left_s = left.as_millis().div_ceil(1000);
            d.left_s = Some(u32::try_from(left_s).unwrap_or(u32::MAX));
            return Some(d);
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
        Downlink::new(n.to_string(), Bytes::new(), qos)
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
            until: Some(now),
            ..d(1, 1)
        });
        q.push(Downlink {
            until: Some(now + std::time::Duration::from_secs(60)),
            ..d(2, 1)
        });
        let next = q.pop().unwrap();
        assert_eq!((next.topic.as_str(), next.left_s), ("2", Some(60)));
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
