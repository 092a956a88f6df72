//! The items of the feed: the newest state of each, in the order of their last changes.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::{self, Write};
use std::sync::Arc;

use super::order::Order;
use super::tags::Tags;
use crate::ids::{DeviceId, EventId, StreamId};

/// Events that a snapshot holds.
pub const EVENTS_MAX: usize = 200;
/// Points of a device's trail.
pub const TRAIL_MAX: usize = 60;
/// Restricted devices of which nothing is shown any more are remembered up to so many: docks may announce aircraft
/// after aircraft.
const RESTRICTED_SWEPT: usize = 4096;
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
    json: String,
    /// Where the age's `0` stands, and when the position arrived.
    age: Option<(usize, i64)>,
}

impl Body {
    /// Bytes it takes in a message, about.
    pub fn size(&self) -> usize {
        self.json.len() + 16
    }

    /// `json`: an object. `age`: where in it the age's `0` stands, and when the position arrived.
    pub fn new(json: String, age: Option<(usize, i64)>) -> Self {
        Self { json, age }
    }

    pub fn write(&self, out: &mut String, now_ms: i64, trail: Option<&Trail>) {
        match self.age {
            Some((at, arrived_ms)) => {
                out.push_str(&self.json[..at]);
                let _ = write!(out, "{}", (now_ms - arrived_ms).max(0));
                out.push_str(&self.json[at + 1..]);
            }
            None => out.push_str(&self.json),
        }
        let Some(trail) = trail.filter(|t| !t.points.is_empty()) else {
            return;
        };
        out.pop();
        out.push_str(",\"trail\":[");
        for (i, [lon, lat]) in trail.points.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            out.push_str(comma);
            out.push('[');
            push_degrees(out, trail.anchor[0] + f64::from(*lon));
            out.push(',');
            push_degrees(out, trail.anchor[1] + f64::from(*lat));
            out.push(']');
        }
        out.push_str("]}");
    }
}

/// With six decimals, 0.1 m. A picture has a million of these: `{:.6}` would take ten times as long.
fn push_degrees(out: &mut String, degrees: f64) {
    #[allow(clippy::cast_possible_truncation, reason = "degrees")]
    let micro = (degrees * 1e6).round() as i64;
    if micro < 0 {
        out.push('-');
    }
    let micro = micro.unsigned_abs();
    let _ = write!(out, "{}.", micro / 1_000_000);
    let mut rest = micro % 1_000_000;
    let mut digits = [b'0'; 6];
    for d in digits.iter_mut().rev() {
        *d += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend(digits.map(char::from));
}

/// What happened to one item.
#[derive(Clone, Debug)]
pub enum Change {
    /// Its newest state; `moved_to` (lon, lat) is a new point of its trail. `tags`: of devices. `of`: the device that a
    /// stream or an event belongs to.
    Put {
        key: Key,
        body: Body,
        moved_to: Option<[f64; 2]>,
        tags: Tags,
        of: Option<DeviceId>,
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

/// The newest state of an item, as all screens share it.
#[derive(Debug)]
pub struct Shown {
    pub key: Key,
    pub body: Body,
    /// A stream and an event have those of their device when they were made.
    pub tags: Tags,
    pub of: Option<DeviceId>,
}

/// An item in a message.
#[derive(Clone, Debug)]
pub struct Entry {
    pub shown: Arc<Shown>,
    /// Only for who may see restricted devices.
    pub restricted: bool,
}

#[derive(Debug)]
struct Slot {
    shown: Arc<Shown>,
    /// Shared with the snapshots under way.
    trail: Option<Arc<Trail>>,
}

/// Something that left.
#[derive(Clone, Debug)]
pub struct Gone {
    pub seq: u64,
    pub key: Key,
    pub to: To,
}

/// To whom a departure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    All,
    /// Who may see restricted devices: only they had it.
    Granted,
    /// Everybody else: it is restricted from now on, and stays for those with the grant.
    Others,
}

impl Gone {
    pub fn is_for(&self, sees_restricted: bool) -> bool {
        match self.to {
            To::All => true,
            To::Granted => sees_restricted,
            To::Others => !sees_restricted,
        }
    }
}

#[derive(Debug, Default)]
pub struct Items {
    pub seq: u64,
    /// All changes so far, for the ledger; `seq` grows by heartbeats too.
    pub changes: u64,
    places: HashMap<Key, u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Slots by their last change.
    order: Order,
    events: BTreeSet<EventId>,
    pub gone: VecDeque<Gone>,
    /// Cursors before this have missed forgotten departures.
    pub complete_from: u64,
    /// Devices that are, or were, restricted: what belongs to them stays so.
    restricted: HashSet<DeviceId>,
    /// With so many, those of which nothing is shown are forgotten.
    restricted_max: usize,
}

impl Items {
    /// Devices known to be restricted before they are shown.
    pub fn restrict(&mut self, devices: impl IntoIterator<Item = DeviceId>) {
        self.restricted.extend(devices);
    }

    pub fn apply(&mut self, change: Change) {
        self.seq += 1;
        self.changes += 1;
        match change {
            Change::Put {
                key,
                body,
                moved_to,
                tags,
                of,
            } => self.put(
                Shown {
                    key,
                    body,
                    tags,
                    of,
                },
                moved_to,
            ),
            Change::Gone(key) => self.leave(key),
        }
    }

    fn leave(&mut self, key: Key) {
        let Some(slot) = self.remove(&key) else {
            return;
        };
        let to = match self.is_restricted(&slot.shown) {
            true => To::Granted,
            false => To::All,
        };
        self.tell_gone(key, to);
    }

    fn tell_gone(&mut self, key: Key, to: To) {
        if self.gone.len() == GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.complete_from = oldest.seq;
        }
        self.gone.push_back(Gone {
            seq: self.seq,
            key,
            to,
        });
    }

    fn remove(&mut self, key: &Key) -> Option<Slot> {
        let place = self.places.remove(key)?;
        self.order.remove(place);
        self.free.push(place);
        self.slots.get_mut(place as usize)?.take()
    }

    fn slot(&self, key: &Key) -> Option<&Slot> {
        let place = *self.places.get(key)?;
        self.slots.get(place as usize)?.as_ref()
    }

    fn put(&mut self, mut shown: Shown, moved_to: Option<[f64; 2]>) {
        if let Key::Event(id) = shown.key {
            self.events.insert(id);
            if self.events.len() > EVENTS_MAX
                && let Some(oldest) = self.events.pop_first()
            {
                self.remove(&Key::Event(oldest));
                if oldest == id {
                    return;
                }
            }
        }
        if let Key::Device(id) = &shown.key {
            if shown.tags.restricted && !self.restricted.contains(id) {
                self.hide(id);
            }
        } else {
            let restricted = shown.tags.restricted;
            shown.tags = self.inherited(&shown);
            shown.tags.restricted |= restricted;
        }
        let place = self.places.get(&shown.key).copied();
        let place = place.unwrap_or_else(|| self.make_place(&shown.key));
        self.order.touch(place, self.seq);
        let Some(slot) = self.slots.get_mut(place as usize) else {
            return;
        };
        let mut trail = slot.take().and_then(|s| s.trail);
        if let Some(point) = moved_to {
            Arc::make_mut(trail.get_or_insert_default()).push(point);
        }
        *slot = Some(Slot {
            shown: Arc::new(shown),
            trail,
        });
    }

    /// A device is restricted from now on: whoever has no grant loses what is shown of it.
    fn hide(&mut self, id: &DeviceId) {
        let is_of = |s: &Shown| s.of.as_ref() == Some(id) || s.key == Key::Device(id.clone());
        let all = self.slots.iter().flatten().map(|slot| &slot.shown);
        let had: Vec<_> = all
            .filter(|s| is_of(s) && !self.is_restricted(s))
            .map(|s| s.key.clone())
            .collect();
        for key in had {
            self.tell_gone(key, To::Others);
        }
        for gone in &mut self.gone {
            if gone.to == To::All && gone.key == Key::Device(id.clone()) {
                gone.to = To::Others;
            }
        }
        if self.restricted.len() >= self.restricted_max.max(RESTRICTED_SWEPT) {
            let of = |s: &Shown| match &s.key {
                Key::Device(id) => Some(id.clone()),
                _ => s.of.clone(),
            };
            let shown: HashSet<DeviceId> = self
                .slots
                .iter()
                .flatten()
                .filter_map(|s| of(&s.shown))
                .collect();
            self.restricted.retain(|id| shown.contains(id));
            self.restricted_max = self.restricted.len() * 2;
        }
        self.restricted.insert(id.clone());
    }

    /// An event keeps the tags it was raised with; a stream has those of its device now.
    fn inherited(&self, shown: &Shown) -> Tags {
        let raised = match shown.key {
            Key::Event(_) => self.slot(&shown.key),
            _ => None,
        };
        raised
            .or_else(|| self.slot(&Key::Device(shown.of.clone()?)))
            .map(|s| s.shown.tags.clone())
            .unwrap_or_default()
    }

    fn make_place(&mut self, key: &Key) -> u32 {
        // Who has no grant does not get what is restricted now, and still has to hear that it left.
        self.gone.retain(|g| g.key != *key || g.to == To::Others);
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.places.insert(key.clone(), place);
        place
    }

    fn is_restricted(&self, shown: &Shown) -> bool {
        let device = match &shown.key {
            Key::Device(id) => Some(id),
            _ => shown.of.as_ref(),
        };
        shown.tags.restricted || device.is_some_and(|id| self.restricted.contains(id))
    }

    fn entry(&self, place: u32) -> Option<Entry> {
        let slot = self.slots.get(place as usize)?.as_ref()?;
        Some(Entry {
            shown: Arc::clone(&slot.shown),
            restricted: self.is_restricted(&slot.shown),
        })
    }

    /// What changed last after `from` and not after `to`, oldest first.
    pub fn between(&self, from: u64, to: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self
            .order
            .newest_first()
            .take_while(|(_, seq)| *seq > from)
            .filter(|(_, seq)| *seq <= to)
            .filter_map(|(place, _)| self.entry(place))
            .collect();
        entries.reverse();
        entries
    }

    /// What left after `from` and not after `to`.
    pub fn left_between(&self, from: u64, to: u64) -> Vec<Gone> {
        let since = self.gone.iter().rev().take_while(|g| g.seq > from);
        since.filter(|g| g.seq <= to).cloned().collect()
    }

    /// Everything: devices and streams by their last change, events newest first; with the trails of devices.
    pub fn all(&self) -> Vec<(Entry, Option<Arc<Trail>>)> {
        let of_slot = |place: u32| {
            let trail = &self.slots.get(place as usize)?.as_ref()?.trail;
            Some((self.entry(place)?, trail.clone()))
        };
        let mut all: Vec<_> = self
            .order
            .newest_first()
            .filter_map(|(place, _)| of_slot(place))
            .filter(|(e, _)| !matches!(e.shown.key, Key::Event(_)))
            .collect();
        all.reverse();
        let newest = self.events.iter().rev();
        all.extend(newest.filter_map(|id| of_slot(*self.places.get(&Key::Event(*id))?)));
        all
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.places.len()
    }
}
