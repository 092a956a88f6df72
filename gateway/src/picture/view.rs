//! Items of the feed as JSON, exactly as API.md says.

use kerbside_codecs::telemetry::report::{Alarm, Property, VideoDelay};
use kerbside_codecs::telemetry::{Datum, Fault};
use serde::Serialize;

use super::feed::{Body, Change, Key, Tags};
use super::grid::{Grid, Path};
use super::sight::Footprint;
use super::track::{Deviation, Motion, Track};
use crate::event::{Delivery, Event};
use crate::ids::DeviceId;
use crate::stream::StreamStatus;

/// What a screen sees of a device.
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
    pub properties: &'a [Property],
    pub video_delays: &'a [VideoDelay],
    pub footprint: Option<&'a Footprint>,
    pub faults: &'a [(Fault, u32)],
    /// What it is chosen by; not shown itself.
    pub tags: Tags,
}

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
    source_datum: Datum,
}

/// With what it moves on until its next fix.
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
            source_datum: f.source_datum,
        })
    }
}

fn tenths(v: f32) -> f32 {
    (v * 10.0).round() / 10.0
}

/// Before the age of a position, which is written when the item is sent.
const BEFORE_AGE: &str = ",\"age_ms\":";

/// An object of JSON, field by field. Ten thousand devices are written each second: names that need no escaping are
/// copied as they are, which a derived writer does not do.
struct Fields(Vec<u8>);

impl Fields {
    /// `name`: with all that stands before the value.
    fn put(&mut self, name: &'static str, value: &impl Serialize) {
        self.0.extend_from_slice(name.as_bytes());
        // Into memory; only maps with keys that are no text could fail, and there are none.
        if let Err(e) = serde_json::to_writer(&mut self.0, value) {
            tracing::error!(error = %e, name, "a field of the picture could not be written");
        }
    }

    fn raw(&mut self, text: &'static str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// An object with names of the maker's or ours.
    fn map<K: Serialize, V: Serialize>(
        &mut self,
        name: &'static str,
        all: impl Iterator<Item = (K, V)>,
    ) {
        self.raw(name);
        self.raw("{");
        for (i, (key, value)) in all.enumerate() {
            self.put(if i > 0 { "," } else { "" }, &key);
            self.put(":", &value);
        }
        self.raw("}");
    }
}

impl PositionView {
    /// Gives the place of the age.
    fn write(&self, out: &mut Fields) -> usize {
        out.put("{\"lat\":", &self.lat);
        out.put(",\"lon\":", &self.lon);
        out.put(",\"sigma_m\":", &self.sigma_m);
        match &self.motion {
            None => out.raw(",\"motion\":null"),
            Some(m) => {
                out.put(",\"motion\":{\"speed_mps\":", &m.speed_mps);
                out.put(",\"course_deg\":", &m.course_deg);
                out.put(",\"coast_s\":", &m.coast_s);
                out.raw("}");
            }
        }
        out.put(",\"raw\":", &self.raw);
        out.put(",\"alt_m\":", &self.alt_m);
        out.put(",\"accuracy_m\":", &self.accuracy_m);
        out.put(",\"speed_mps\":", &self.speed_mps);
        out.put(",\"heading_deg\":", &self.heading_deg);
        out.put(",\"time_ms\":", &self.time_ms);
        out.put(",\"happened_ms\":", &self.happened_ms);
        out.put(",\"happened_sigma_ms\":", &self.happened_sigma_ms);
        out.put(",\"arrived_ms\":", &self.arrived_ms);
        out.raw(BEFORE_AGE);
        let age = out.0.len();
        out.raw("0,\"datum\":\"wgs84\"");
        out.put(",\"source_datum\":", &self.source_datum);
        out.raw("}");
        age
    }
}

impl DeviceView<'_> {
    /// `moved`: the position is new.
    pub fn change(self, moved: bool) -> Change {
        let position = self.position.as_ref();
        Change::Put {
            key: Key::Device(self.id.clone()),
            body: self.body(),
            moved_to: position.filter(|_| moved).map(|p| [p.lon, p.lat]),
            tags: self.tags,
            of: None,
        }
    }

    /// As the contract has it (gateway/API.md).
    fn body(&self) -> Body {
        let mut age = None;
        let mut out = Fields(Vec::with_capacity(JSON_BYTES));
        out.put("{\"id\":", self.id);
        out.put(",\"kind\":", &self.kind);
        out.put(",\"unit\":", &self.unit);
        out.put(",\"agency\":", &self.agency);
        out.put(",\"model\":", &self.model);
        out.put(",\"mode\":", &self.mode);
        out.put(",\"state\":", &self.state);
        out.put(",\"online\":", &self.online);
        out.put(",\"person\":", &self.person);
        out.put(",\"primary\":", &self.primary);
        match &self.position {
            None => out.raw(",\"position\":null"),
            Some(p) => {
                out.raw(",\"position\":");
                age = Some((p.write(&mut out), p.arrived_ms));
            }
        }
        out.put(",\"clock\":", &self.clock);
        out.put(",\"cell\":", &self.cell);
        out.put(",\"cells\":", &self.cells);
        out.put(",\"zones\":", &self.zones);
        out.put(",\"battery_pct\":", &self.battery_pct);
        out.put(",\"sos\":", &self.sos);
        out.put(",\"alarms\":", &self.alarms);
        out.map(
            ",\"properties\":",
            self.properties.iter().map(|p| (&p.name, &p.value)),
        );
        out.put(",\"video_delays\":", &self.video_delays);
        out.put(",\"footprint\":", &self.footprint);
        if self.restricted {
            out.raw(",\"restricted\":true");
        }
        out.map(
            ",\"faults\":",
            self.faults.iter().map(|(f, n)| (f.name(), n)),
        );
        out.raw("}");
        match String::from_utf8(out.0) {
            Ok(json) => Body::new(json, age),
            Err(e) => {
                tracing::error!(error = %e, device = %self.id, "a device could not be written");
                Body::new("{}".to_owned(), None)
            }
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
        tags: Tags {
            restricted: event.restricted,
            ..Tags::default()
        },
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
