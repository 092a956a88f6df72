//! Orders and how far they came. Pure: time is given.
//!
//! Here: the ladder, the bounds, whose answer counts. Not here: sending (`Orders`), the disk (`journal`).

use std::collections::{BTreeMap, HashMap, VecDeque};

use kerbside_codecs::telemetry::Said;
use kerbside_codecs::telemetry::order::{Task, Wanted};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::ids::DeviceId;

/// Order id: UUIDv7, its order is the order of time.
pub type OrderId = Uuid;

/// Orders that are remembered, of one device and in all; the oldest finished ones make room.
const PER_DEVICE_MAX: usize = 100;
const ORDERS_MAX: usize = 5000;
/// Steps that are kept of one order.
const STEPS_MAX: usize = 16;
/// Characters of a device's note.
const NOTE_CHARS_MAX: usize = 200;
/// How long an order is remembered, milliseconds.
pub(super) const KEEP_MS: i64 = 24 * 3600 * 1000;

/// How far an order came. Only forward: a later variant never gives way to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// On disk.
    Accepted,
    /// The device is away, or does not listen to its orders.
    Waiting,
    /// Written to a live session.
    Sent,
    /// The device has it.
    Delivered,
    /// Its bearer has seen it, or the device has done it.
    Read,
    /// By the device, or because it has no way to do it.
    Refused,
    /// It did not reach the device in time.
    Expired,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }

    pub fn is_final(self) -> bool {
        self >= Self::Read
    }
}

/// One rung of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub state: Stage,
    pub at_ms: i64,
    /// In the device's words or code, or why.
    pub note: Option<String>,
    /// Said after the order had come to its end: on record, and changes nothing.
    pub late: bool,
}

/// Who gave an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Giver {
    pub by: String,
    pub role: String,
    /// IP address.
    pub peer: String,
}

/// An order as screens see it and the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub id: OrderId,
    pub device: DeviceId,
    /// Who had the session: the device, or the dock it hangs on.
    pub via: Option<DeviceId>,
    #[serde(flatten)]
    pub giver: Giver,
    pub given_ms: i64,
    pub expires_ms: i64,
    pub state: Stage,
    pub steps: Vec<Step>,
    /// Kind and fields, as in the request.
    #[serde(flatten)]
    pub asked: Map<String, Value>,
}

impl Order {
    pub fn new(id: OrderId, device: DeviceId, wanted: &Wanted, giver: Giver, now_ms: i64) -> Self {
        let mut asked = wanted.task.fields();
        asked.insert("kind".to_owned(), wanted.task.kind().into());
        Self {
            id,
            device,
            via: None,
            giver,
            given_ms: now_ms,
            expires_ms: now_ms + i64::from(wanted.expires_s) * 1000,
            state: Stage::Accepted,
            steps: vec![Step {
                state: Stage::Accepted,
                at_ms: now_ms,
                note: None,
                late: false,
            }],
            asked,
        }
    }

    /// What is asked; None: by a gateway that knew other kinds.
    pub fn task(&self) -> Option<Task> {
        let asked = Value::Object(self.asked.clone());
        Wanted::read(&asked).ok().map(|w| w.task)
    }

    pub fn kind(&self) -> &str {
        self.asked
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn is_over(&self, now_ms: i64) -> bool {
        self.state.is_final() || now_ms >= self.expires_ms
    }

    /// Takes a step. False: it is none (backwards, or said before).
    fn step(&mut self, state: Stage, note: Option<String>, at_ms: i64) -> bool {
        let late = self.state.is_final();
        let answers = [Stage::Delivered, Stage::Read, Stage::Refused];
        if late && (!answers.contains(&state) || self.steps.iter().any(|s| s.state == state))
            || !late && state <= self.state
            || self.steps.len() >= STEPS_MAX
        {
            return false;
        }
        if !late {
            self.state = state;
        }
        let note = note.map(|n| n.chars().take(NOTE_CHARS_MAX).collect());
        self.steps.push(Step {
            state,
            at_ms,
            note,
            late,
        });
        true
    }
}

/// As many unfinished orders as are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many orders are under way")]
pub struct Full;

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Taken,
    /// After the order's end: recorded.
    Late,
    /// Nothing new.
    Again,
    Unknown,
    /// From a device that was not asked.
    Foreign,
}

impl Heard {
    pub fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Late => "late",
            Self::Again => "again",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
        }
    }
}

struct Entry {
    order: Order,
    /// A message with it is on its way, or waits in a queue.
    handed: bool,
    /// Its end is on record.
    closed: bool,
}

/// An order that changed.
#[derive(Debug)]
pub struct Changed {
    pub order: Order,
    /// It just came to its end.
    pub ended: bool,
}

#[derive(Default)]
pub(super) struct Book {
    orders: BTreeMap<OrderId, Entry>,
    by_device: HashMap<DeviceId, VecDeque<OrderId>>,
}

impl Book {
    /// Adds an order, held until [`Self::release`]. Gives the ids that made room for it.
    ///
    /// # Errors
    /// [`Full`].
    pub fn give(&mut self, order: Order, now_ms: i64) -> Result<Vec<OrderId>, Full> {
        let mut gone = Vec::new();
        let mine = self.by_device.get(&order.device);
        if mine.is_some_and(|ids| ids.len() >= PER_DEVICE_MAX) {
            let over = |id: &&OrderId| self.orders.get(id).is_none_or(|e| e.order.is_over(now_ms));
            let oldest = mine.into_iter().flatten().find(over).copied().ok_or(Full)?;
            gone.push(oldest);
        } else if self.orders.len() >= ORDERS_MAX {
            let over = |e: &Entry| e.order.is_over(now_ms);
            let oldest = self.orders.iter().find(|(_, e)| over(e));
            gone.push(*oldest.ok_or(Full)?.0);
        }
        for id in &gone {
            self.remove(*id);
        }
        self.put(order, true, false);
        Ok(gone)
    }

    /// An order of the journal.
    pub fn restore(&mut self, order: Order, now_ms: i64) {
        let known = self.by_device.get(&order.device).map_or(0, VecDeque::len);
        if known < PER_DEVICE_MAX && self.orders.len() < ORDERS_MAX {
            // One that ran out while the gateway was down still gets its end.
            let closed =
                order.state.is_final() || order.state == Stage::Delivered && order.is_over(now_ms);
            self.put(order, false, closed);
        }
    }

    fn put(&mut self, order: Order, handed: bool, closed: bool) {
        let ids = self.by_device.entry(order.device.clone()).or_default();
        ids.push_back(order.id);
        let entry = Entry {
            order,
            handed,
            closed,
        };
        self.orders.insert(entry.order.id, entry);
    }

    pub fn remove(&mut self, id: OrderId) {
        if let Some(e) = self.orders.remove(&id)
            && let Some(ids) = self.by_device.get_mut(&e.order.device)
        {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                self.by_device.remove(&e.order.device);
            }
        }
    }

    pub fn get(&self, id: OrderId) -> Option<&Order> {
        self.orders.get(&id).map(|e| &e.order)
    }

    /// Newest first.
    pub fn of_device(&self, device: &DeviceId, limit: usize) -> Vec<Order> {
        let ids = self.by_device.get(device).into_iter().flatten().rev();
        ids.filter_map(|id| self.get(*id).cloned())
            .take(limit)
            .collect()
    }

    /// Orders that may be sent to the device now; they are handed out until they are [`Self::returned`].
    pub fn take(&mut self, device: &DeviceId, now_ms: i64) -> Vec<Order> {
        let mut taken = Vec::new();
        for id in self.by_device.get(device).into_iter().flatten() {
            if let Some(e) = self.orders.get_mut(id)
                && e.is_open(now_ms)
                && !e.handed
            {
                e.handed = true;
                taken.push(e.order.clone());
            }
        }
        taken
    }

    /// Has the device orders that it may be sent?
    pub fn has_open(&self, device: &DeviceId, now_ms: i64) -> bool {
        let ids = self.by_device.get(device).into_iter().flatten();
        ids.filter_map(|id| self.orders.get(id))
            .any(|e| e.is_open(now_ms) && !e.handed)
    }

    /// Devices with orders that were not sent yet and are in nobody's hands.
    pub fn unsent(&self, now_ms: i64) -> Vec<DeviceId> {
        let waits = |e: &&Entry| e.is_open(now_ms) && !e.handed && e.order.state < Stage::Sent;
        let mut devices: Vec<_> = self
            .orders
            .values()
            .filter(waits)
            .map(|e| e.order.device.clone())
            .collect();
        devices.sort();
        devices.dedup();
        devices
    }

    /// Orders of this kind that the device has and has not done yet.
    pub fn delivered(&self, kind: &str) -> Vec<Order> {
        let all = self.orders.values().map(|e| &e.order);
        all.filter(|o| o.state == Stage::Delivered && o.kind() == kind)
            .cloned()
            .collect()
    }

    /// Who is asked to pass the order on.
    pub fn set_via(&mut self, id: OrderId, via: &DeviceId) {
        if let Some(e) = self.orders.get_mut(&id) {
            e.order.via = Some(via.clone());
        }
    }

    /// The order may be sent now.
    pub fn release(&mut self, id: OrderId) {
        if let Some(e) = self.orders.get_mut(&id) {
            e.handed = false;
        }
    }

    /// The order is in nobody's hands any more: it waits, unless it was sent.
    pub fn returned(&mut self, id: OrderId, note: Option<String>, now_ms: i64) -> Option<Changed> {
        self.release(id);
        self.step(id, Stage::Waiting, note, now_ms)
    }

    /// Takes a step, if it is one.
    pub fn step(
        &mut self,
        id: OrderId,
        state: Stage,
        note: Option<String>,
        now_ms: i64,
    ) -> Option<Changed> {
        let e = self.orders.get_mut(&id)?;
        if !e.order.step(state, note, now_ms) {
            return None;
        }
        let ended = e.order.state.is_final() && !e.closed;
        e.closed |= ended;
        Some(Changed {
            order: e.order.clone(),
            ended,
        })
    }

    /// A device answers.
    pub fn answer(
        &mut self,
        speaker: &DeviceId,
        id: OrderId,
        said: Said,
        note: Option<String>,
        now_ms: i64,
    ) -> (Heard, Option<Changed>) {
        let Some(e) = self.orders.get(&id) else {
            return (Heard::Unknown, None);
        };
        if e.order.device != *speaker && e.order.via.as_ref() != Some(speaker) {
            return (Heard::Foreign, None);
        }
        let state = match said {
            Said::Delivered => Stage::Delivered,
            Said::Read => Stage::Read,
            Said::Refused => Stage::Refused,
        };
        let late = e.order.state.is_final();
        match self.step(id, state, note, now_ms) {
            Some(changed) if late => (Heard::Late, Some(changed)),
            Some(changed) => (Heard::Taken, Some(changed)),
            None => (Heard::Again, None),
        }
    }

    /// Ends what ran out; what the device has stays delivered. Forgets what is too old.
    pub fn tick(&mut self, now_ms: i64) -> (Vec<Changed>, Vec<OrderId>) {
        let mut ended = Vec::new();
        let over: Vec<OrderId> = self
            .orders
            .values_mut()
            .filter(|e| !e.closed && now_ms >= e.order.expires_ms)
            .map(|e| e.order.id)
            .collect();
        for id in over {
            let has_it = self.get(id).is_some_and(|o| o.state == Stage::Delivered);
            if has_it && let Some(e) = self.orders.get_mut(&id) {
                e.closed = true;
                let order = e.order.clone();
                ended.push(Changed { order, ended: true });
            } else {
                ended.extend(self.step(id, Stage::Expired, None, now_ms));
            }
        }
        let old = |e: &&Entry| e.closed && now_ms >= e.order.given_ms.saturating_add(KEEP_MS);
        let forgotten: Vec<OrderId> = self
            .orders
            .values()
            .filter(old)
            .map(|e| e.order.id)
            .collect();
        for id in &forgotten {
            self.remove(*id);
        }
        (ended, forgotten)
    }
}

impl Entry {
    fn is_open(&self, now_ms: i64) -> bool {
        self.order.state < Stage::Delivered && now_ms < self.order.expires_ms
    }
}

#[cfg(test)]
mod tests;
