//! Items of the feed as JSON, exactly as API.md says.

use kerbside_codecs::telemetry::report::{Alarm, Property, VideoDelay};
use kerbside_codecs::telemetry::{Datum, Fault};
use serde::{Serialize, Serializer};

use super::feed::{Body, Change, Key, Tags};
use super::grid::{Grid, Path};
use super::sight::Footprint;
use super::track::{Deviation, Motion, Track};
use crate::event::{Delivery, Event};
use crate::ids::DeviceId;
use crate::stream::StreamStatus;

/// What a screen sees of a device.
#[derive(Serialize)]
pub struct DeviceView<'a> {
    pub id: &'a DeviceId,
    pub kind: &'a str,
    pub unit: Option<&'a str>,
    pub agency: Option<&'a str>,
    pub model: Option<&'a str>,
    pub mode: Option<&'a str>,
    pub state: &'static str,
    pub online: bool,
    pub person: Option<&'a str>,
    pub primary: bool,
    /// Said only of those that are: whoever gets them may know it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restricted: bool,
    pub position: Option<PositionView>,
    pub clock: Option<Deviation>,
    pub cell: Option<&'a str>,
    /// From the coarsest to `cell`.
    pub cells: Path,
    pub zones: Vec<&'a str>,
    pub battery_pct: Option<f32>,
    pub sos: bool,
    pub alarms: &'a [Alarm],
    #[serde(serialize_with = "as_object")]
    pub properties: &'a [Property],
    pub video_delays: &'a [VideoDelay],
    pub footprint: Option<&'a Footprint>,
    #[serde(serialize_with = "as_map")]
    pub faults: &'a [(Fault, u32)],
    /// What it is chosen by; not shown itself.
    #[serde(skip)]
    pub tags: Tags,
}

/// Field names as in the contract.
#[derive(Serialize)]
pub struct PositionView {
    lat: f64,
    lon: f64,
    sigma_m: f32,
    motion: Option<MotionView>,
    raw: [f64; 2],
    alt_m: Option<f64>,
    accuracy_m: Option<f64>,
    speed_mps: Option<f64>,
    heading_deg: Option<f64>,
    time_ms: Option<i64>,
    happened_ms: i64,
    happened_sigma_ms: u32,
    arrived_ms: i64,
    /// Written when the item is sent.
    age_ms: u8,
    datum: Datum,
    source_datum: Datum,
}

/// With what it moves on until its next fix.
#[derive(Serialize)]
struct MotionView {
    speed_mps: f32,
    course_deg: f32,
    coast_s: f32,
}

/// Slower than this a marker stays where it is, m/s.
const MOTION_MIN_MPS: f32 = 0.2;

impl PositionView {
    pub fn of(track: &Track, motion: Motion) -> Option<Self> {
        let known = track.last()?;
        let at = track.estimate(motion)?;
        let (east, north) = at.velocity_mps;
        let speed = east.hypot(north);
        let f = &known.fix;
        // To a centimetre: more digits would only lengthen the feed.
        let degrees = |deg: f64| (deg * 1e7).round() / 1e7;
        Some(Self {
            lat: degrees(at.lat),
            lon: degrees(at.lon),
            sigma_m: tenths(at.sigma_m),
            motion: (speed >= MOTION_MIN_MPS).then(|| MotionView {
                speed_mps: tenths(speed),
                course_deg: tenths(east.atan2(north).to_degrees().rem_euclid(360.0)) % 360.0,
                coast_s: track.coast_s(motion),
            }),
            raw: [degrees(f.lon), degrees(f.lat)],
            alt_m: f.alt_m,
            accuracy_m: f.accuracy_m,
            speed_mps: f.speed_mps,
            heading_deg: f.heading_deg,
            time_ms: known.device_time_ms,
            happened_ms: known.moment.at_ms,
            happened_sigma_ms: known.moment.sigma_ms,
            arrived_ms: known.arrived.unix_ms,
            age_ms: 0,
            datum: Datum::Wgs84,
            source_datum: f.source_datum,
        })
    }
}

fn tenths(v: f32) -> f32 {
    (v * 10.0).round() / 10.0
}

fn as_object<S: Serializer>(properties: &&[Property], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(properties.iter().map(|p| (&p.name, &p.value)))
}

fn as_map<S: Serializer>(faults: &&[(Fault, u32)], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(faults.iter().map(|(f, n)| (f.name(), n)))
}

impl DeviceView<'_> {
    /// `moved`: the position is new.
    pub fn change(&self, moved: bool) -> Change {
        let position = self.position.as_ref();
        Change::Put {
            key: Key::Device(self.id.clone()),
            body: Body::new(json(self), position.map(|p| p.arrived_ms)),
            moved_to: position.filter(|_| moved).map(|p| [p.lon, p.lat]),
            tags: self.tags.clone(),
            of: None,
        }
    }
}

/// Names of zones by their numbers.
pub fn zone_names(grid: &Grid, zones: impl IntoIterator<Item = u16>) -> Vec<&str> {
    zones
        .into_iter()
        .filter_map(|z| grid.zone(z))
        .map(|z| z.id.as_str())
        .collect()
}

#[derive(Serialize)]
struct StreamView<'a> {
    stream: String,
    device: &'a DeviceId,
    phase: &'a str,
    protocol: Option<&'a str>,
    codecs: &'a [&'a str],
    readers: usize,
    health: Option<&'a str>,
    b_frames: bool,
}

pub fn stream_change(s: &StreamStatus) -> Change {
    Change::Put {
        key: Key::Stream(s.stream.clone()),
        body: Body::new(
            json(&StreamView {
                stream: s.stream.to_string(),
                device: &s.stream.device,
                phase: s.phase,
                protocol: s.protocol,
                codecs: &s.codecs,
                readers: s.readers,
                health: s.health.map(|h| h.state.name()),
                b_frames: s.b_frames,
            }),
            None,
        ),
        moved_to: None,
        tags: Tags::default(),
        of: Some(s.stream.device.clone()),
    }
}

#[derive(Serialize)]
struct EventView<'a> {
    #[serde(flatten)]
    event: &'a Event,
    deliveries: &'a [Delivery],
}

pub fn event_change(event: &Event, deliveries: &[Delivery]) -> Change {
    Change::Put {
        key: Key::Event(event.id),
        body: Body::new(json(&EventView { event, deliveries }), None),
        moved_to: None,
        tags: Tags::default(),
        of: Some(event.device.clone()),
    }
}

/// Most items fit into this.
const JSON_BYTES: usize = 768;

fn json(v: &impl Serialize) -> String {
    let mut out = Vec::with_capacity(JSON_BYTES);
    // Only maps with keys that are no text can fail, and there are none.
    let written = serde_json::to_writer(&mut out, v).map_err(|e| e.to_string());
    let text = written.and_then(|()| String::from_utf8(out).map_err(|e| e.to_string()));
    text.unwrap_or_else(|e| {
        tracing::error!(error = %e, "an item of the picture could not be written");
        "{}".to_owned()
    })
}
