//! The report: what a device said once, decoded. SI units, degrees, WGS-84.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Geodetic datum of a position as the device gave it. Inside the gateway all positions are WGS-84.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Datum {
    #[default]
    Wgs84,
    Gcj02,
    Bd09,
}

/// A position in WGS-84, valid by construction: finite, on the earth, not a "no fix" placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// Degrees north, −90..=90.
    pub lat: f64,
    /// Degrees east, −180..=180.
    pub lon: f64,
    /// Metres above the WGS-84 ellipsoid.
    pub alt_m: Option<f64>,
    /// Radius of 68 % confidence, metres, as stated by the device.
    pub accuracy_m: Option<f64>,
    pub speed_mps: Option<f64>,
    /// Degrees clockwise from true north, 0..360.
    pub heading_deg: Option<f64>,
    /// Datum on the wire, before conversion.
    pub source_datum: Datum,
}

/// A call for help (C9). `id` is the device's own, if it gave one: a resent SOS has the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sos {
    pub id: Option<String>,
    pub note: Option<String>,
}

/// One report of one device. Everything is optional: a device says what it knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The device it speaks of; a dock speaks for its drone.
    pub device: String,
    /// Device kind as the report itself tells it (`drone`, `dock`…, or a text nobody knows); None: as registered.
    pub kind: Option<Cow<'static, str>>,
    /// Model, as the device named it.
    pub model: Option<String>,
    /// Device time, milliseconds since 1970 UTC. Recorded, never trusted.
    pub device_time_ms: Option<i64>,
    pub fix: Option<Fix>,
    /// 0..=100.
    pub battery_pct: Option<f64>,
    pub sos: Option<Sos>,
    /// Free text state, e.g. a drone's flight mode.
    pub mode: Option<String>,
    /// Parts of the message that were refused; the rest stands.
    pub faults: Vec<Fault>,
}

/// Why a message, or a part of it, was refused. The name is the metric label and the text shown to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Not JSON, or not an object.
    NotJson,
    /// A field of the wrong type or out of its range.
    BadField,
    /// Position outside the world or not a number.
    OutsideWorld,
    /// 0,0 or the device says it has no fix.
    NoFix,
    /// Device time more than the tolerance ahead of arrival.
    FromFuture,
    /// Older than what is already known.
    Stale,
    /// No codec for this topic.
    UnknownTopic,
    /// A protocol method the gateway does not know.
    UnknownMethod,
    TooLarge,
}

impl Fault {
    pub const ALL: [Self; 9] = [
        Self::NotJson,
        Self::BadField,
        Self::OutsideWorld,
        Self::NoFix,
        Self::FromFuture,
        Self::Stale,
        Self::UnknownTopic,
        Self::UnknownMethod,
        Self::TooLarge,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::BadField => "bad_field",
            Self::OutsideWorld => "outside_world",
            Self::NoFix => "no_fix",
            Self::FromFuture => "from_future",
            Self::Stale => "stale",
            Self::UnknownTopic => "unknown_topic",
            Self::UnknownMethod => "unknown_method",
            Self::TooLarge => "too_large",
        }
    }
}
