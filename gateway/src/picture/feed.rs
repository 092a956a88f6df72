//! The feed: changes of the picture, as screens get them.
//!
//! There is no queue per screen. The feed holds the newest state of every item with the number of its last change; a
//! screen is a cursor into these numbers and takes everything behind it. A slow screen so skips the states in
//! between, never an item, and costs nothing. Every 20 ms what has changed becomes one batch: it is written once, and
//! all screens that keep up share the bytes. Who is behind, or wants a part only, gets a message of its own.
//!
//! Here: items, cursors, messages, pace, who may see what. Not here: what an item says (`view`), the WebSocket (`screen`).

mod items;
mod message;
mod order;
mod reader;
mod tags;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

pub use items::{Body, Change, Key};
pub use reader::FeedReader;
pub use tags::{Audience, Filter, Tags, Wanted};

use items::Items;
use message::{Batch, Message, wants};

use crate::clock::unix_ms;
use crate::ids::DeviceId;
use crate::ledger;

/// Shortest time between two batches: a burst becomes one message.
const PULSE: Duration = Duration::from_millis(20);
/// An idle feed says so.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A snapshot of so many bytes is shared …
const SHELF_BYTES: usize = 1 << 20;
/// … for so long, milliseconds.
const SHELF_MS: i64 = 1000;

/// The feed of this box.
#[derive(Debug)]
pub struct Feed {
    epoch: String,
    /// Version of the grid in force.
    grid: Mutex<Arc<str>>,
    inner: Mutex<Inner>,
    /// Something changed.
    bell: Notify,
    /// The newest batch ends here.
    wake: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    items: Items,
    batch: Arc<Batch>,
    /// The last large snapshots, without and with what is restricted: when many screens come at once they share one.
    shelf: [Option<(Bytes, Arc<Taken>)>; 2],
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            epoch: format!("{:08x}", rand::random::<u32>()),
            grid: Mutex::default(),
            inner: Mutex::default(),
            bell: Notify::new(),
            wake: watch::channel(0).0,
        }
    }
}

impl Feed {
    /// A feed with its pulse; call inside a runtime. `restricted`: devices whose items are for who has the grant.
    pub fn start(restricted: impl IntoIterator<Item = DeviceId>) -> Arc<Self> {
        let me = Arc::new(Self::default());
        me.inner.lock().items.restrict(restricted);
        // Ends by itself with the feed.
        drop(tokio::spawn(pulse(Arc::downgrade(&me))));
        me
    }

    /// Every message says which version of the grid is in force.
    pub fn set_grid(&self, version: &str) {
        *self.grid.lock() = version.into();
    }

    fn grid(&self) -> Arc<str> {
        self.grid.lock().clone()
    }

    /// All changes of one fact, in order.
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut inner = self.inner.lock();
        let before = inner.items.seq;
        for change in changes {
            inner.items.apply(change);
        }
        let changed = inner.items.seq > before;
        drop(inner);
        if changed {
            self.bell.notify_one();
        }
    }

    /// Closes the batch of what changed since the last one; `beat`: also when nothing did.
    fn seal(&self, now_ms: i64, beat: bool) {
        let mut inner = self.inner.lock();
        let from = inner.batch.to;
        if beat && inner.items.seq == from {
            // Each message has a number of its own.
            inner.items.seq += 1;
        }
        let to = inner.items.seq;
        if to == from {
            return;
        }
        let entries = inner.items.between(from, to);
        let gone = inner.items.left_between(from, to);
        let changes = inner.items.changes;
        for shelf in &mut inner.shelf {
            shelf.take_if(|(_, taken)| now_ms - taken.now_ms >= SHELF_MS);
        }
        let former = std::mem::replace(
            &mut inner.batch,
            Arc::new(Batch::new(from, to, changes, now_ms, entries, gone)),
        );
        drop(inner);
        drop(former);
        self.wake.send_replace(to);
    }

    /// A screen. `since` is `{epoch}-{seq}` of the last message it saw.
    pub fn subscribe(self: &Arc<Self>, since: Option<&str>, audience: Audience) -> FeedReader {
        FeedReader::new(self, since, audience)
    }

    /// The whole picture as one message of type `snapshot`.
    pub fn snapshot(&self, audience: &Audience) -> Bytes {
        let (text, _) = self.take_all(audience, unix_ms());
        text
    }

    /// A snapshot for a screen, which then gets what came since: a large one may be a second old.
    fn take_first(&self, audience: &Audience, now_ms: i64) -> (Bytes, Arc<Taken>) {
        let shelf = usize::from(audience.sees_restricted);
        if audience.filter.is_none()
            && let Some((text, taken)) = &self.inner.lock().shelf[shelf]
            && now_ms - taken.now_ms < SHELF_MS
        {
            return (text.clone(), Arc::clone(taken));
        }
        let (text, taken) = self.take_all(audience, now_ms);
        let taken = Arc::new(taken);
        if audience.filter.is_none() && text.len() > SHELF_BYTES {
            self.inner.lock().shelf[shelf] = Some((text.clone(), Arc::clone(&taken)));
        }
        (text, taken)
    }

    /// The snapshot and what it holds.
    fn take_all(&self, audience: &Audience, now_ms: i64) -> (Bytes, Taken) {
        let inner = self.inner.lock();
        let all = inner.items.all();
        let (seq, changes) = (inner.items.seq, inner.items.changes);
        drop(inner);
        let entries: Vec<_> = all
            .iter()
            .filter(|(e, _)| wants(audience, e))
            .map(|(e, trail)| (e, trail.as_deref()))
            .collect();
        let text = Message {
            kind: "snapshot",
            epoch: &self.epoch,
            grid: &self.grid(),
            seq,
            now_ms,
            entries: &entries,
            gone: &[],
        }
        .write();
        let devices = entries.iter().filter_map(|(e, _)| match &e.shown.key {
            Key::Device(id) => Some(id.clone()),
            _ => None,
        });
        let taken = Taken {
            seq,
            changes,
            now_ms,
            count: entries.len(),
            devices: devices.collect(),
        };
        (text, taken)
    }
}

/// What a snapshot held.
#[derive(Debug)]
struct Taken {
    seq: u64,
    changes: u64,
    now_ms: i64,
    count: usize,
    devices: Vec<DeviceId>,
}

/// Seals a batch after each change, at most one a pulse, and one without content when nothing happens for long.
async fn pulse(feed: Weak<Feed>) {
    let mut sealed = Instant::now();
    loop {
        let Some(me) = feed.upgrade() else {
            return;
        };
        let rung = timeout_at(sealed + HEARTBEAT, me.bell.notified()).await;
        if rung.is_ok() {
            sleep_until(sealed + PULSE).await;
        }
        me.seal(unix_ms(), rung.is_err());
        sealed = Instant::now();
    }
}

/// Every change since the cursor was offered to this screen; those that are not in the message were replaced.
fn account(sent: usize, offered: Option<u64>) {
    let sent = sent as u64;
    let offered = offered.unwrap_or(sent).max(sent);
    ledger::CHANGES.take(offered);
    ledger::CHANGES.delivered(sent);
    ledger::CHANGES.conflated(offered - sent);
}

#[cfg(test)]
mod tests;
