//! The feed: changes of the picture, as screens get them.
//!
//! There is no queue per screen. The feed holds the newest state of every item with the number of its last change; a
//! screen is a cursor into these numbers and takes everything behind it. A slow screen so skips the states in
//! between, never an item, and costs nothing. An item is written once per change, not once per screen.
//!
//! Here: items, cursors, messages, pace. Not here: what an item says (`view`), the WebSocket (`screen`).

mod items;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub use items::{Body, Change, Key};
use items::{Item, Items, Trail};

use crate::clock::unix_ms;
use crate::ledger;

/// Shortest time between two messages to one screen: a burst becomes one message.
const GAP_MIN: Duration = Duration::from_millis(50);
/// An idle feed says so.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How far one screen is.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    seq: u64,
    /// None: resumed, its past is not in this account.
    changes: Option<u64>,
}

/// Items of one message, taken under the lock and written outside of it.
#[derive(Default)]
struct Taken {
    seq: u64,
    devices: Vec<(Body, Option<Trail>)>,
    streams: Vec<Body>,
    events: Vec<Body>,
    gone: Vec<Key>,
}

impl Taken {
    fn item(&mut self, key: &Key, item: &Item, with_trail: bool) {
        let body = item.body.clone();
        match key {
            Key::Device(_) => {
                let trail = item.trail.as_deref().filter(|_| with_trail).cloned();
                self.devices.push((body, trail));
            }
            Key::Stream(_) => self.streams.push(body),
            Key::Event(_) => self.events.push(body),
        }
    }

    fn len(&self) -> usize {
        self.devices.len() + self.streams.len() + self.events.len() + self.gone.len()
    }

    fn write(mut self, kind: &str, epoch: &str, now_ms: i64) -> String {
        let bodies = self.devices.iter().map(|(b, _)| b);
        let room: usize = bodies
            .chain(&self.streams)
            .chain(&self.events)
            .map(Body::size)
            .sum();
        let mut out = String::with_capacity(room + 200);
        let _ = write!(
            out,
            r#"{{"type":"{kind}","epoch":"{epoch}","seq":{},"now_ms":{now_ms},"devices":["#,
            self.seq
        );
        for (i, (body, trail)) in self.devices.iter_mut().enumerate() {
            if i > 0 {
                out.push(',');
            }
            let (points, anchor) = trail.as_mut().map_or((&[][..], [0.0; 2]), |t| {
                (&*t.points.make_contiguous(), t.anchor)
            });
            body.write(&mut out, now_ms, points, anchor);
        }
        for (name, list) in [("streams", &self.streams), ("events", &self.events)] {
            let _ = write!(out, r#"],"{name}":["#);
            for (i, body) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                body.write(&mut out, now_ms, &[], [0.0; 2]);
            }
        }
        out.push(']');
        if kind == "change" {
            out.push_str(r#","gone":["#);
            for (i, key) in self.gone.iter().enumerate() {
                // Ids need no escaping.
                let _ = write!(out, r#"{}"{key}""#, if i > 0 { "," } else { "" });
            }
            out.push(']');
        }
        out.push('}');
        out
    }
}

/// The feed of this box.
#[derive(Debug)]
pub struct Feed {
    epoch: String,
    items: Mutex<Items>,
    wake: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            epoch: format!("{:08x}", rand::random::<u32>()),
            items: Mutex::default(),
            wake: watch::channel(0).0,
        }
    }
}

impl Feed {
    /// All changes of one fact, in order.
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut items = self.items.lock();
        let before = items.seq;
        for change in changes {
            items.apply(change);
        }
        let seq = items.seq;
        drop(items);
        if seq > before {
            self.wake.send_replace(seq);
        }
    }

    /// A screen. `since` is `{epoch}-{seq}` of the last message it saw.
    pub fn subscribe(self: &Arc<Self>, since: Option<&str>) -> FeedReader {
        let cursor = since
            .and_then(|s| s.rsplit_once('-'))
            .filter(|(epoch, _)| *epoch == self.epoch)
            .and_then(|(_, seq)| seq.parse().ok())
            .filter(|seq| *seq <= self.items.lock().seq)
            .map(|seq| Cursor { seq, changes: None });
        FeedReader {
            wake: self.wake.subscribe(),
            feed: self.clone(),
            cursor,
            last: None,
        }
    }

    /// The whole picture as one message of type `snapshot`.
    pub fn snapshot(&self) -> String {
        self.take_all().0.write("snapshot", &self.epoch, unix_ms())
    }

    fn take_all(&self) -> (Taken, Cursor) {
        let items = self.items.lock();
        let mut taken = Taken {
            seq: items.seq,
            ..Taken::default()
        };
        for key in items
            .by_seq
            .values()
            .filter(|k| !matches!(k, Key::Event(_)))
        {
            if let Some(item) = items.map.get(key) {
                taken.item(key, item, true);
            }
        }
        for id in items.events.iter().rev() {
            let key = Key::Event(*id);
            if let Some(item) = items.map.get(&key) {
                taken.item(&key, item, false);
            }
        }
        let cursor = Cursor {
            seq: items.seq,
            changes: Some(items.changes),
        };
        (taken, cursor)
    }

    /// What changed behind the cursor; None: nothing, and `always` is false.
    fn message(&self, at: &mut Option<Cursor>, always: bool, now_ms: i64) -> Option<String> {
        let mut items = self.items.lock();
        let Some(from) = at.filter(|c| c.seq >= items.complete_from) else {
            drop(items);
            let (taken, cursor) = self.take_all();
            account(taken.len(), *at, cursor);
            *at = Some(cursor);
            return Some(taken.write("snapshot", &self.epoch, now_ms));
        };
        if items.changes == from.changes.unwrap_or(u64::MAX) || items.seq == from.seq {
            if !always {
                return None;
            }
            // Each message has a number of its own.
            items.seq += 1;
        }
        let mut taken = Taken {
            seq: items.seq,
            ..Taken::default()
        };
        for (_, key) in items.by_seq.range(from.seq + 1..) {
            if let Some(item) = items.map.get(key) {
                taken.item(key, item, false);
            }
        }
        let left = items
            .gone
            .iter()
            .rev()
            .take_while(|(seq, _)| *seq > from.seq);
        taken.gone = left.map(|(_, key)| key.clone()).collect();
        let cursor = Cursor {
            seq: items.seq,
            changes: Some(items.changes),
        };
        drop(items);
        account(taken.len(), Some(from), cursor);
        *at = Some(cursor);
        Some(taken.write("change", &self.epoch, now_ms))
    }
}

/// Every change since the cursor was offered to this screen; those that are not in the message were replaced.
fn account(sent: usize, from: Option<Cursor>, to: Cursor) {
    let sent = sent as u64;
    let offered = match (from.and_then(|c| c.changes), to.changes) {
        (Some(a), Some(b)) => (b - a).max(sent),
        _ => sent,
    };
    ledger::CHANGES.take(offered);
    ledger::CHANGES.delivered(sent);
    ledger::CHANGES.conflated(offered - sent);
}

/// One screen's place in the feed.
#[derive(Debug)]
pub struct FeedReader {
    feed: Arc<Feed>,
    wake: watch::Receiver<u64>,
    cursor: Option<Cursor>,
    last: Option<Instant>,
}

impl FeedReader {
    /// The next message: a snapshot (or what was missed) at once, then changes at most every 50 ms, and an empty
    /// change after 10 s without any. Cancel-safe.
    pub async fn next(&mut self) -> String {
        let Some(last) = self.last else {
            return self.send(true).unwrap_or_default();
        };
        sleep_until(last + GAP_MIN).await;
        loop {
            self.wake.mark_unchanged();
            if let Some(message) = self.send(false) {
                return message;
            }
            tokio::select! {
                // The sender lives in the feed that this reader holds.
                _ = self.wake.changed() => {}
                () = sleep_until(last + HEARTBEAT) => return self.send(true).unwrap_or_default(),
            }
        }
    }

    fn send(&mut self, always: bool) -> Option<String> {
        let message = self.feed.message(&mut self.cursor, always, unix_ms())?;
        self.last = Some(Instant::now());
        Some(message)
    }
}

#[cfg(test)]
mod tests;
