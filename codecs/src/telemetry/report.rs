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

impl Datum {
    pub const ALL: [Self; 3] = [Self::Wgs84, Self::Gcj02, Self::Bd09];

    pub fn name(self) -> &'static str {
        match self {
            Self::Wgs84 => "wgs84",
            Self::Gcj02 => "gcj02",
            Self::Bd09 => "bd09",
        }
    }

    /// By its name in any case.
    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|d| d.name().eq_ignore_ascii_case(s))
    }
}

/// A position in WGS-84, valid by construction: finite, on the earth, not a "no fix" placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// Degrees north, −90..=90.
    pub lat: f64,
    /// Degrees east, −180..=180.
    pub lon: f64,
    /// Metres above the WGS-84 ellipsoid; above the sea where the property `alt_reference` says `msl`.
    pub alt_m: Option<f64>,
    /// Radius of 68 % confidence, metres, as stated by the device.
    pub accuracy_m: Option<f64>,
    /// Over the ground.
    pub speed_mps: Option<f64>,
    /// Where the device points, degrees clockwise from true north, 0..360.
    pub heading_deg: Option<f64>,
    /// Where the device moves over the ground, degrees clockwise from true north, 0..360.
    pub course_deg: Option<f64>,
    /// Upwards, m/s.
    pub climb_mps: Option<f64>,
    /// Datum on the wire, before conversion.
    pub source_datum: Datum,
}

impl Fix {
    /// A position without its quality. `lat`, `lon`: WGS-84 already.
    pub fn at(lat: f64, lon: f64, source_datum: Datum) -> Self {
        Self {
            lat,
            lon,
            alt_m: None,
            accuracy_m: None,
            speed_mps: None,
            heading_deg: None,
            course_deg: None,
            climb_mps: None,
            source_datum,
        }
    }
}

/// Where a camera of the device looks. Either the centre of its picture on the ground is told, or the angles from which
/// it follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sight {
    /// Of the camera's axis, degrees clockwise from true north, 0..360.
    pub azimuth_deg: Option<f64>,
    /// Of the camera's axis over the horizon, degrees; −90 looks straight down.
    pub elevation_deg: Option<f64>,
    /// Whole field of view, degrees.
    pub hfov_deg: Option<f64>,
    pub vfov_deg: Option<f64>,
    /// Of the camera above the ground, metres.
    pub height_m: Option<f64>,
    /// `(lat, lon)` of the middle of the picture on the ground, WGS-84.
    pub centre: Option<(f64, f64)>,
    /// `(lat, lon)` of the picture's corners on the ground, in order, as the device says.
    pub corners: Vec<(f64, f64)>,
    /// From the camera to the middle of the picture, metres (laser range or computed).
    pub slant_range_m: Option<f64>,
    /// What the laser range finder points at, WGS-84.
    pub target: Option<(f64, f64)>,
}

/// One thing that a device says is wrong with it. A report's list is complete: what is not in it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// The maker's code.
    pub code: String,
    pub level: AlarmLevel,
    /// Text for people, when the device gave one.
    pub text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlarmLevel {
    Notice,
    Caution,
    Warning,
}

/// Any other thing a device tells of itself. The name has the unit: `wind_speed_mps`, `link_quality`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Property {
    pub name: Cow<'static, str>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Number(f64),
    Flag(bool),
    Text(String),
}

/// How late the live video of one camera is, as the device measured it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VideoDelay {
    /// The maker's name of the camera, e.g. `52-0-0/normal-0`.
    pub camera: String,
    pub delay_ms: u32,
}

/// What a device answers to an order (`POST /api/v1/devices/{id}/orders`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The order's id, as it was sent.
    pub order: String,
    pub said: Said,
    /// In the device's words or code.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// The device has it.
    Delivered,
    /// Its bearer has seen it, or the device has done it.
    Read,
    Refused,
}

/// A call for help (C9). `id` is the device's own, if it gave one: a resent SOS has the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sos {
    pub id: Option<String>,
    pub note: Option<String>,
}

/// Most [`Alarm`]s of one report.
pub const ALARMS_MAX: usize = 64;
/// Most [`Property`]s of one report.
pub const PROPERTIES_MAX: usize = 32;

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
    /// The device says that it comes or goes (a last will, a topology without it).
    pub online: Option<bool>,
    /// All that is wrong with it now; None: not said.
    pub alarms: Option<Vec<Alarm>>,
    /// Where its camera looks.
    pub sight: Option<Box<Sight>>,
    /// At most [`PROPERTIES_MAX`]; merged with what was told before.
    pub properties: Vec<Property>,
    pub video_delays: Vec<VideoDelay>,
    /// Said late on purpose: history, not the present.
    pub is_back_fill: bool,
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
    /// A checksum or a signature that does not match.
    BadChecksum,
    /// Bytes between frames that belong to none.
    Garbage,
    /// Latitude and longitude in each other's place.
    Swapped,
    /// Of a system or a source that is not registered, or signed by nobody who may.
    Unsigned,
    /// Encrypted with a key that the gateway does not have.
    Encrypted,
    /// Of an aircraft that nobody announced.
    Unannounced,
    /// An object has a key twice; the last one counts.
    DuplicateKey,
    /// A number in quotes; taken all the same.
    NumberAsText,
    /// An answer or an event that does not say which method it is of; taken all the same.
    NoMethod,
    /// From here on: of a session, not of a message. Bytes that are no MQTT packet.
    MqttMalformed,
    /// A packet that may not come now, or a property that may not be in it.
    MqttProtocol,
    /// A packet larger than announced.
    MqttTooLarge,
    /// A topic alias that is not known or not allowed.
    MqttTopicAlias,
    /// More unacknowledged messages than announced.
    MqttReceiveMaximum,
    /// Published to a topic that is not its own.
    MqttNotAuthorized,
    /// Wanted to listen to topics that are not its own, or a shared subscription.
    MqttSubscription,
    /// A will on a topic that is not its own.
    MqttWill,
    /// A packet id that is in use, or an answer to nothing.
    MqttPacketId,
    /// Said nothing for longer than it promised.
    MqttKeepAlive,
    /// Does not read what it is sent.
    MqttNotReading,
    /// Connected more often than allowed.
    MqttTooOften,
    /// More sessions at once than allowed.
    MqttTooMany,
}

impl Fault {
    pub const ALL: [Self; 31] = [
        Self::NotJson,
        Self::BadField,
        Self::OutsideWorld,
        Self::NoFix,
        Self::FromFuture,
        Self::Stale,
        Self::UnknownTopic,
        Self::UnknownMethod,
        Self::TooLarge,
        Self::BadChecksum,
        Self::Garbage,
        Self::Swapped,
        Self::Unsigned,
        Self::Encrypted,
        Self::Unannounced,
        Self::DuplicateKey,
        Self::NumberAsText,
        Self::NoMethod,
        Self::MqttMalformed,
        Self::MqttProtocol,
        Self::MqttTooLarge,
        Self::MqttTopicAlias,
        Self::MqttReceiveMaximum,
        Self::MqttNotAuthorized,
        Self::MqttSubscription,
        Self::MqttWill,
        Self::MqttPacketId,
        Self::MqttKeepAlive,
        Self::MqttNotReading,
        Self::MqttTooOften,
        Self::MqttTooMany,
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
            Self::BadChecksum => "bad_checksum",
            Self::Garbage => "garbage",
            Self::Swapped => "swapped",
            Self::Unsigned => "unsigned",
            Self::Encrypted => "encrypted",
            Self::Unannounced => "unannounced",
            Self::DuplicateKey => "duplicate_key",
            Self::NumberAsText => "number_as_text",
            Self::NoMethod => "no_method",
            Self::MqttMalformed => "mqtt_malformed",
            Self::MqttProtocol => "mqtt_protocol",
            Self::MqttTooLarge => "mqtt_too_large",
            Self::MqttTopicAlias => "mqtt_topic_alias",
            Self::MqttReceiveMaximum => "mqtt_receive_maximum",
            Self::MqttNotAuthorized => "mqtt_not_authorized",
            Self::MqttSubscription => "mqtt_subscription",
            Self::MqttWill => "mqtt_will",
            Self::MqttPacketId => "mqtt_packet_id",
            Self::MqttKeepAlive => "mqtt_keep_alive",
            Self::MqttNotReading => "mqtt_not_reading",
            Self::MqttTooOften => "mqtt_too_often",
            Self::MqttTooMany => "mqtt_too_many",
        }
    }
}
