//! The event: a flagged fact on its way to the command platforms.

use std::time::Duration;

use kerbside_codecs::telemetry::Fix;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{DeviceId, EventId};

/// Grade of an event; 1 is the gravest (four grades, C8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Critical,
    Major,
    Minor,
    Notice,
}

/// How long two events with the same key are one. A device that sends a call again does so within minutes; one that
/// counts its calls from 1 after each start must be heard again.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(3600);

/// Lane of an event; P0 goes first and neither is ever shed (architecture.md, priorities).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    P0,
    P1,
}

/// A flagged fact. `id` is its idempotency key on every way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub id: EventId,
    /// Name of the rule's kind: `sos`, `zone_left`, `battery_low`, `stream_lost`…
    pub kind: String,
    /// The rule that raised it.
    pub rule: String,
    pub severity: Severity,
    pub priority: Priority,
    pub device: DeviceId,
    pub unit: Option<String>,
    /// When the gateway knew, ms since 1970 UTC.
    pub raised_ms: i64,
    /// When the device says it happened, ms since 1970 UTC; not trusted.
    pub device_time_ms: Option<i64>,
    /// Last known position, WGS-84.
    pub position: Option<Fix>,
    /// Arrival time of that position, ms since 1970 UTC.
    pub position_ms: Option<i64>,
    pub cell: Option<String>,
    /// Live streams of the device at that moment, `{device}/{camera}`.
    pub streams: Vec<String>,
    /// Free text for people (from the device or the rule).
    pub note: Option<String>,
    /// Two events with the same key within [`DEDUP_WINDOW`] are one: a message that a device sent again. Never leaves the gateway.
    #[serde(skip)]
    pub dedup_key: Option<String>,
}

/// A new event id for an event raised now.
pub fn new_event_id() -> EventId {
    Uuid::now_v7()
}

/// How far one event is on its way to one platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// The platform refused it; an operator has to look.
    Parked,
}

/// One platform's answer so far, as shown to operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    pub platform: String,
    pub state: DeliveryState,
    pub attempts: u32,
    /// Last error in words, if any.
    pub error: Option<String>,
    /// ms since 1970 UTC of the last change.
    pub updated_ms: i64,
}
