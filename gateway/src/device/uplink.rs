//! A message from a device, with its line in the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use kerbside_codecs::telemetry::Decoded;

use crate::clock::Now;
use crate::ledger::MESSAGES;

/// A message a device sent. Taken into the ledger when made; the clone that knows the end writes it, and when nobody
/// did before the last clone is gone, it was shed as abandoned (its session ended, or the gateway stops).
#[derive(Clone)]
pub struct Uplink {
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub arrived: Now,
    /// By whoever heard it, where that needs what was said before; else the device's actor decodes it.
    pub decoded: Option<Arc<Decoded>>,
    entry: Arc<Entry>,
}

struct Entry(AtomicBool);

impl Uplink {
    pub fn new(topic: Arc<str>, payload: Bytes, arrived: Now) -> Self {
        MESSAGES.take(1);
        Self {
            topic,
            payload,
            arrived,
            decoded: None,
            entry: Arc::new(Entry(AtomicBool::new(false))),
        }
    }

    /// The picture (and the outbox) own it.
    pub fn delivered(&self) {
        if self.entry.end() {
            MESSAGES.delivered(1);
        }
    }

    /// It adds to what the next one says, or came too soon after the last.
    pub fn conflated(&self) {
        if self.entry.end() {
            MESSAGES.conflated(1);
        }
    }

    pub fn shed(&self, reason: &str) {
        if self.entry.end() {
            MESSAGES.shed(reason, 1);
        }
    }

    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

impl Entry {
    /// True once.
    fn end(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.end() {
            MESSAGES.shed("abandoned", 1);
        }
    }
}
