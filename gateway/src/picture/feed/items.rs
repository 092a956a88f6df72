//! The items of the feed: the newest state of each, in the order of their last changes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::Arc;

use crate::ids::{DeviceId, EventId, StreamId};

/// Events that a snapshot holds.
pub const EVENTS_MAX: usize = 200;
/// Points of a device's trail.
pub const TRAIL_MAX: usize = 60;
/// Gone items that are remembered; a screen that is behind the oldest gets a snapshot.
pub const GONE_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Device(DeviceId),
    Stream(StreamId),
    Event(EventId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => write!(f, "device:{id}"),
            Self::Stream(id) => write!(f, "stream:{id}"),
            Self::Event(id) => write!(f, "event:{id}"),
        }
    }
}

/// One item as JSON. The age of a position is written in when the item is sent.
#[derive(Clone, Debug)]
pub struct Body {
    json: Arc<str>,
    /// Where the age's `0` stands, and when the position arrived.
    age: Option<(usize, i64)>,
}

const AGE: &str = "\"age_ms\":";

impl Body {
    /// Bytes it takes in a message, about.
    pub fn size(&self) -> usize {
        self.json.len() + 16
    }

    /// `json`: an object; with `arrived_ms`, it has `"age_ms":0` once.
    pub fn new(json: String, arrived_ms: Option<i64>) -> Self {
        // A key cannot be mistaken for text: quotes in texts are escaped.
        let age = arrived_ms.and_then(|ms| Some((json.find(AGE)? + AGE.len(), ms)));
        Self {
            json: json.into(),
            age,
        }
    }

    pub fn write(&self, out: &mut String, now_ms: i64, trail: &[[f32; 2]], anchor: [f64; 2]) {
        match self.age {
            Some((at, arrived_ms)) => {
                out.push_str(&self.json[..at]);
                let _ = write!(out, "{}", (now_ms - arrived_ms).max(0));
                out.push_str(&self.json[at + 1..]);
            }
            None => out.push_str(&self.json),
        }
        if trail.is_empty() {
            return;
        }
        out.pop();
        out.push_str(",\"trail\":[");
        for (i, [lon, lat]) in trail.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{comma}[{:.6},{:.6}]",
                anchor[0] + f64::from(*lon),
                anchor[1] + f64::from(*lat)
            );
        }
        out.push_str("]}");
    }
}

/// What happened to one item.
#[derive(Clone, Debug)]
pub enum Change {
    /// Its newest state; `moved_to` (lon, lat) is a new point of its trail.
    Put {
        key: Key,
        body: Body,
        moved_to: Option<[f64; 2]>,
    },
    Gone(Key),
}

/// The last positions of a device, as small offsets from the first one.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    pub anchor: [f64; 2],
    pub points: VecDeque<[f32; 2]>,
}

impl Trail {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "degrees beside the anchor; 0.1 m at 100 km"
    )]
    fn push(&mut self, p: [f64; 2]) {
        if self.points.is_empty() {
            self.anchor = p;
        }
        let point = [
            (p[0] - self.anchor[0]) as f32,
            (p[1] - self.anchor[1]) as f32,
        ];
        if self.points.back() == Some(&point) {
            return;
        }
        if self.points.len() == TRAIL_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}

#[derive(Debug)]
pub struct Item {
    pub seq: u64,
    pub body: Body,
    pub trail: Option<Box<Trail>>,
}

#[derive(Debug, Default)]
pub struct Items {
    pub seq: u64,
    /// All changes so far, for the ledger; `seq` grows by heartbeats too.
    pub changes: u64,
    pub map: HashMap<Key, Item>,
    pub by_seq: BTreeMap<u64, Key>,
    pub events: BTreeSet<EventId>,
    pub gone: VecDeque<(u64, Key)>,
    /// Cursors before this have missed forgotten departures.
    pub complete_from: u64,
}

impl Items {
    pub fn apply(&mut self, change: Change) {
        self.seq += 1;
        self.changes += 1;
        match change {
            Change::Put {
                key,
                body,
                moved_to,
            } => self.put(key, body, moved_to),
            Change::Gone(key) => {
                if let Some(item) = self.map.remove(&key) {
                    self.by_seq.remove(&item.seq);
                    if self.gone.len() == GONE_MAX
                        && let Some((seq, _)) = self.gone.pop_front()
                    {
                        self.complete_from = seq;
                    }
                    self.gone.push_back((self.seq, key));
                }
            }
        }
    }

    fn put(&mut self, key: Key, body: Body, moved_to: Option<[f64; 2]>) {
        let seq = self.seq;
        if let Key::Event(id) = key {
            self.events.insert(id);
            if self.events.len() > EVENTS_MAX
                && let Some(oldest) = self.events.pop_first()
            {
                if let Some(item) = self.map.remove(&Key::Event(oldest)) {
                    self.by_seq.remove(&item.seq);
                }
                if oldest == id {
                    return;
                }
            }
        }
        self.by_seq.insert(seq, key.clone());
        let item = match self.map.entry(key) {
            Entry::Occupied(e) => {
                let item = e.into_mut();
                self.by_seq.remove(&item.seq);
                item.seq = seq;
                item.body = body;
                item
            }
            Entry::Vacant(e) => {
                self.gone.retain(|(_, k)| k != e.key());
                e.insert(Item {
                    seq,
                    body,
                    trail: None,
                })
            }
        };
        if let Some(point) = moved_to {
            item.trail.get_or_insert_default().push(point);
        }
    }
}
