//! One screen's place in the feed.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::items::{Entry, Gone, Key};
use super::message::{Batch, Message, wants};
use super::tags::Audience;
use super::{Feed, HEARTBEAT, account};
use crate::clock::unix_ms;
use crate::ids::DeviceId;

/// How far one screen is.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    seq: u64,
    /// None: resumed, its past is not in this account.
    changes: Option<u64>,
}

/// A screen. Holds no messages: it takes them when it can.
#[derive(Debug)]
pub struct FeedReader {
    feed: Arc<Feed>,
    wake: watch::Receiver<u64>,
    pub(super) audience: Audience,
    cursor: Option<Cursor>,
    /// Devices that a screen with a filter has; they are told as gone when they leave what it wants.
    shown: HashSet<DeviceId>,
    last: Instant,
}

impl FeedReader {
    pub(super) fn new(feed: &Arc<Feed>, since: Option<&str>, audience: Audience) -> Self {
        let newest = feed.inner.lock().items.seq;
        let cursor = since
            .and_then(|s| s.rsplit_once('-'))
            .filter(|(epoch, _)| *epoch == feed.epoch)
            .and_then(|(_, seq)| seq.parse().ok())
            .filter(|seq| *seq <= newest)
            .map(|seq| Cursor { seq, changes: None });
        Self {
            feed: Arc::clone(feed),
            wake: feed.wake.subscribe(),
            audience,
            cursor,
            shown: HashSet::new(),
            last: Instant::now(),
        }
    }

    /// The next message, UTF-8: a snapshot (or what was missed) at once, then changes at most every 20 ms, and an
    /// empty change after 10 s without any. Cancel-safe.
    pub async fn next(&mut self) -> Bytes {
        loop {
            self.wake.mark_unchanged();
            let beat = self.last.elapsed() >= HEARTBEAT;
            if let Some(message) = self.take(beat, unix_ms()) {
                self.last = Instant::now();
                return message;
            }
            // The sender lives in the feed that this reader holds.
            let _ = self.wake.changed().await;
        }
    }

    /// What is behind the cursor; None: nothing for this screen. `beat`: an empty message then, if the feed went on.
    pub(super) fn take(&mut self, beat: bool, now_ms: i64) -> Option<Bytes> {
        let Some(from) = self.cursor else {
            return Some(self.take_all(None, now_ms));
        };
        let mut inner = self.feed.inner.lock();
        let batch = Arc::clone(&inner.batch);
        if from.changes.is_some() && from.seq >= batch.from {
            drop(inner);
            if from.seq >= batch.to {
                return None;
            }
            return self.take_batch(&batch, from, beat);
        }
        if from.seq < inner.items.complete_from {
            drop(inner);
            return Some(self.take_all(Some(from), now_ms));
        }
        // Behind, or resumed: all since then in one message.
        if inner.items.seq == from.seq {
            // Each message has a number of its own.
            inner.items.seq += 1;
        }
        let newest = inner.items.seq;
        let entries = inner.items.between(from.seq, newest);
        let gone = inner.items.left_between(from.seq, newest);
        let changes = inner.items.changes;
        if self.audience.filter.is_some() && from.changes.is_none() {
            // What it had of before is not known: all that it would have now is enough to tell departures.
            let all = inner.items.all();
            drop(inner);
            let wanted = all.iter().filter(|(e, _)| wants(&self.audience, e));
            self.shown = wanted.filter_map(|(e, _)| device(e)).collect();
            let changed = entries.iter().filter(|e| may_see(&self.audience, e));
            self.shown.extend(changed.filter_map(device));
        } else {
            drop(inner);
        }
        // A resumed screen is answered at once, also when it missed nothing.
        let beat = beat || from.changes.is_none();
        let batch = Batch::new(from.seq, newest, changes, now_ms, entries, gone);
        self.take_batch(&batch, from, beat)
    }

    fn take_all(&mut self, from: Option<Cursor>, now_ms: i64) -> Bytes {
        let (text, taken) = self.feed.take_first(&self.audience, now_ms);
        let before = from.and_then(|c| c.changes);
        account(taken.count, before.map(|b| taken.changes.saturating_sub(b)));
        if self.audience.filter.is_some() {
            self.shown = taken.devices.iter().cloned().collect();
        }
        self.cursor = Some(Cursor {
            seq: taken.seq,
            changes: Some(taken.changes),
        });
        text
    }

    fn take_batch(&mut self, batch: &Batch, from: Cursor, beat: bool) -> Option<Bytes> {
        self.cursor = Some(Cursor {
            seq: batch.to,
            changes: Some(batch.changes),
        });
        if self.audience.filter.is_none() {
            let (text, count) = batch.text(
                &self.feed.epoch,
                &self.feed.grid(),
                self.audience.sees_restricted,
            );
            let offered = from.changes.map(|b| batch.changes.saturating_sub(b));
            account(count, offered);
            return Some(text);
        }
        let (entries, gone) = self.choose(batch);
        if entries.is_empty() && gone.is_empty() && !beat {
            return None;
        }
        account(entries.len() + gone.len(), None);
        let entries: Vec<_> = entries.into_iter().map(|e| (e, None)).collect();
        let gone: Vec<_> = gone.iter().collect();
        let message = Message {
            kind: "change",
            epoch: &self.feed.epoch,
            grid: &self.feed.grid(),
            seq: batch.to,
            now_ms: batch.now_ms,
            entries: &entries,
            gone: &gone,
        };
        Some(message.write())
    }

    /// What of a batch a screen with a filter gets; devices that left its part are gone.
    fn choose<'b>(&mut self, batch: &'b Batch) -> (Vec<&'b Entry>, Vec<Key>) {
        let mut entries = Vec::new();
        let mut gone = Vec::new();
        for entry in &batch.entries {
            let wanted = wants(&self.audience, entry);
            if wanted {
                entries.push(entry);
            }
            let Key::Device(id) = &entry.shown.key else {
                continue;
            };
            if !wanted && self.shown.remove(id) {
                gone.push(entry.shown.key.clone());
            } else if wanted && !self.shown.contains(id) {
                self.shown.insert(id.clone());
            }
        }
        let mut left = |g: &&Gone| {
            g.is_for(self.audience.sees_restricted)
                && match &g.key {
                    Key::Device(id) => self.shown.remove(id),
                    _ => true,
                }
        };
        gone.extend(batch.gone.iter().filter(|g| left(g)).map(|g| g.key.clone()));
        (entries, gone)
    }
}

fn may_see(audience: &Audience, entry: &Entry) -> bool {
    audience.sees_restricted || !entry.restricted
}

fn device(entry: &Entry) -> Option<DeviceId> {
    match &entry.shown.key {
        Key::Device(id) => Some(id.clone()),
        _ => None,
    }
}
