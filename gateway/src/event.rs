//! The event: a flagged fact on its way to the command platforms.

use std::time::Duration;

use kerbside_codecs::telemetry::{Datum, Fix};
use serde::{Deserialize, Serialize, Serializer};
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
    /// Last known position, WGS-84, and so it says where it is written.
    #[serde(serialize_with = "with_datum")]
    pub position: Option<Fix>,
    /// Arrival time of that position, ms since 1970 UTC.
    pub position_ms: Option<i64>,
    pub cell: Option<String>,
    /// Live streams of the device at that moment, `{device}/{camera}`.
    pub streams: Vec<String>,
    /// Free text for people (from the device or the rule).
    pub note: Option<String>,
    /// The device was restricted when it was raised: only for who has the grant. Platforms get it and are told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restricted: bool,
    /// Two events with the same key within [`DEDUP_WINDOW`] are one: a message that a device sent again. Never leaves the gateway.
    #[serde(skip)]
    pub dedup_key: Option<String>,
}

#[derive(Serialize)]
struct Placed<'a> {
    #[serde(flatten)]
    fix: &'a Fix,
    datum: Datum,
}

#[allow(clippy::ref_option, reason = "as serde gives it")]
fn with_datum<S: Serializer>(position: &Option<Fix>, s: S) -> Result<S::Ok, S::Error> {
    let placed = |fix| Placed {
        fix,
        datum: Datum::Wgs84,
    };
    position.as_ref().map(placed).serialize(s)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_says_its_datum_and_comes_back() {
        #[derive(Serialize, Deserialize)]
        struct Just {
            #[serde(serialize_with = "with_datum")]
            position: Option<Fix>,
        }
        let fix = Fix::at(37.69, 112.75, Datum::Gcj02);
        let text = serde_json::to_string(&Just {
            position: Some(fix),
        })
        .unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let told = &told["position"];
        assert_eq!(
            (&told["datum"], &told["lat"]),
            (&"wgs84".into(), &37.69.into())
        );
        assert_eq!(told["source_datum"], "gcj02");
        let back: Just = serde_json::from_str(&text).unwrap();
        assert_eq!(back.position, Some(fix));
    }
}
