//! The feed: changes of the picture, as screens get them.
//!
//! There is no queue per screen. The feed holds the newest state of every item with the number of its last change; a
//! screen is a cursor into these numbers and takes everything behind it. A slow screen so skips the states in
//! between, never an item, and costs nothing. An item is written once per change, not once per screen.
//!
//! Here: items, cursors, messages, pace. Not here: what an item says (`view`), the WebSocket (`screen`).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::clock::unix_ms;
use crate::ids::{DeviceId, EventId, StreamId};
use crate::ledger;

/// Shortest time between two messages to one screen: a burst becomes one message.
const GAP_MIN: Duration = Duration::from_millis(50);
/// An idle feed says so.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Events that a snapshot holds.
const EVENTS_MAX: usize = 200;
/// Points of a device's trail.
const TRAIL_MAX: usize = 60;
/// Gone items that are remembered; a screen that is behind the oldest gets a snapshot.
const GONE_MAX: usize = 1024;

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
    /// `json`: an object; with `arrived_ms`, it has `"age_ms":0` once.
    pub fn new(json: String, arrived_ms: Option<i64>) -> Self {
        // A key cannot be mistaken for text: quotes in texts are escaped.
        let age = arrived_ms.and_then(|ms| Some((json.find(AGE)? + AGE.len(), ms)));
        Self {
            json: json.into(),
            age,
        }
    }

    fn write(&self, out: &mut String, now_ms: i64, trail: &[[f32; 2]], anchor: [f64; 2]) {
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
struct Trail {
    anchor: [f64; 2],
    points: VecDeque<[f32; 2]>,
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
struct Item {
    seq: u64,
    body: Body,
    trail: Option<Box<Trail>>,
}

#[derive(Debug, Default)]
struct Items {
    seq: u64,
    /// All changes so far, for the ledger; `seq` grows by heartbeats too.
    changes: u64,
    map: HashMap<Key, Item>,
    by_seq: BTreeMap<u64, Key>,
    events: BTreeSet<EventId>,
    gone: VecDeque<(u64, Key)>,
    /// Cursors before this have missed forgotten departures.
    complete_from: u64,
}

impl Items {
    fn apply(&mut self, change: Change) {
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
        let size = |b: &Body| b.json.len() + 16;
        let bodies = self.devices.iter().map(|(b, _)| b);
        let room: usize = bodies
            .chain(&self.streams)
            .chain(&self.events)
            .map(size)
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
mod tests {
    use serde_json::Value;

    use super::*;

    fn put(id: &str, n: u32) -> Change {
        Change::Put {
            key: Key::Device(DeviceId::parse(id).unwrap()),
            body: Body::new(
                format!(r#"{{"id":"{id}","n":{n},"position":{{"age_ms":0}}}}"#),
                Some(1000),
            ),
            moved_to: Some([112.0 + f64::from(n) * 0.001, 37.0]),
        }
    }

    fn gone(id: &str) -> Change {
        Change::Gone(Key::Device(DeviceId::parse(id).unwrap()))
    }

    fn read(feed: &Feed, at: &mut Option<Cursor>) -> Value {
        serde_json::from_str(&feed.message(at, true, 1500).unwrap()).unwrap()
    }

    #[test]
    fn a_slow_screen_sees_the_newest_of_every_device_once() {
        let feed = Feed::default();
        let mut at = None;
        assert_eq!(read(&feed, &mut at)["type"], "snapshot");
        for round in 0..100 {
            feed.publish((0..50).map(|i| put(&format!("d{i}"), round)));
        }
        let change = read(&feed, &mut at);
        assert_eq!(change["type"], "change");
        let devices = change["devices"].as_array().unwrap();
        assert_eq!(devices.len(), 50);
        assert!(
            devices
                .iter()
                .all(|d| d["n"] == 99 && d["position"]["age_ms"] == 500)
        );
        assert!(devices.iter().all(|d| d.get("trail").is_none()));
        let items = feed.items.lock();
        assert_eq!(
            (items.map.len(), items.by_seq.len()),
            (50, 50),
            "memory does not grow"
        );
        assert!(
            items
                .map
                .values()
                .all(|i| i.trail.as_ref().unwrap().points.len() == TRAIL_MAX)
        );
        drop(items);
        let next = feed.message(&mut at, false, 0);
        assert_eq!(next, None, "nothing twice");
    }

    #[test]
    fn a_resumed_screen_gets_what_it_missed() {
        let feed = Arc::new(Feed::default());
        feed.publish([put("a", 1), put("b", 1)]);
        let mut at = None;
        let snapshot = read(&feed, &mut at);
        assert_eq!(snapshot["devices"][0]["trail"].as_array().unwrap().len(), 1);
        let since = format!(
            "{}-{}",
            snapshot["epoch"].as_str().unwrap(),
            snapshot["seq"]
        );
        feed.publish([put("c", 1), gone("a"), put("b", 2)]);

        let mut again = feed.subscribe(Some(&since)).cursor;
        let change = read(&feed, &mut again);
        assert_eq!(change["type"], "change");
        let ids: Vec<_> = change["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| &d["id"])
            .collect();
        assert_eq!(ids, ["c", "b"]);
        assert_eq!(change["gone"], serde_json::json!(["device:a"]));

        let later = format!("{}-999", snapshot["epoch"].as_str().unwrap());
        for stranger in ["", "x", "-1", "00-1", &later] {
            let mut at = feed.subscribe(Some(stranger)).cursor;
            assert_eq!(read(&feed, &mut at)["type"], "snapshot", "{stranger}");
        }
    }

    #[test]
    fn departures_are_bounded() {
        let feed = Feed::default();
        let mut at = None;
        read(&feed, &mut at);
        for i in 0..GONE_MAX + 1 {
            let id = format!("d{i}");
            feed.publish([put(&id, 0), gone(&id)]);
        }
        assert_eq!(feed.items.lock().gone.len(), GONE_MAX);
        assert_eq!(
            read(&feed, &mut at)["type"],
            "snapshot",
            "it missed one departure"
        );
        feed.publish([put("back", 0), gone("back"), put("back", 1)]);
        let change = read(&feed, &mut at);
        assert_eq!(change["gone"], serde_json::json!([]));
        assert_eq!(change["devices"][0]["n"], 1);
    }

    #[test]
    fn an_idle_feed_counts_on() {
        let feed = Feed::default();
        let mut at = None;
        let first = read(&feed, &mut at)["seq"].as_u64().unwrap();
        let beat = read(&feed, &mut at);
        assert_eq!(beat["type"], "change");
        assert!(beat["seq"].as_u64().unwrap() > first);
        assert_eq!(beat["devices"], serde_json::json!([]));
    }

    #[test]
    fn the_newest_events_stay() {
        let feed = Feed::default();
        let ids: Vec<_> = (0..EVENTS_MAX + 10)
            .map(|_| crate::event::new_event_id())
            .collect();
        for id in &ids {
            feed.publish([Change::Put {
                key: Key::Event(*id),
                body: Body::new(format!(r#"{{"id":"{id}"}}"#), None),
                moved_to: None,
            }]);
        }
        let all: Value = serde_json::from_str(&feed.snapshot()).unwrap();
        let events = all["events"].as_array().unwrap();
        assert_eq!(events.len(), EVENTS_MAX);
        assert_eq!(events[0]["id"], ids[EVENTS_MAX + 9].to_string());
        assert_eq!(feed.items.lock().map.len(), EVENTS_MAX);
    }

    #[tokio::test]
    async fn a_waiting_screen_is_woken_and_bursts_are_one_message() {
        let feed = Arc::new(Feed::default());
        let mut reader = feed.subscribe(None);
        assert!(reader.next().await.contains("\"snapshot\""));
        for n in 0..1000 {
            feed.publish([put("a", n)]);
        }
        let message = reader.next().await;
        assert!(message.contains(r#""n":999"#) && message.matches("\"n\":").count() == 1);
        let other = feed.clone();
        let (message, ()) =
            tokio::join!(reader.next(), async move { other.publish([put("b", 7)]) });
        assert!(message.contains(r#""n":7"#));
    }
}
