//! Orders to devices: what may be asked of one, and how each dialect is told. Pure.
//!
//! Here: reading an order strictly, our JSON and the services of DJI. Not here: who may order, what became of it
//! (gateway `device::orders`), the answers of devices (each codec's own).

use serde_json::{Map, Value, json};

use super::{Datum, is_id};
use crate::geo;

/// Longest text for people, characters.
pub const TEXT_CHARS_MAX: usize = 2000;
/// Longest address of a stream, bytes.
pub const URL_BYTES_MAX: usize = 512;
/// How long an order may wait for its device, seconds.
pub const EXPIRES_S_MAX: u32 = 24 * 3600;
/// Between two reports, seconds.
pub const INTERVAL_S_MAX: u32 = 3600;

/// What a device is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Shows a text to the bearer.
    Message {
        text: String,
    },
    /// Goes somewhere, or to an event. At least one of the three is there.
    Dispatch {
        text: Option<String>,
        /// `(lat, lon)`, WGS-84.
        position: Option<(f64, f64)>,
        event: Option<String>,
    },
    LiveStart {
        camera: Option<String>,
        /// Where to publish; None: to this box.
        url: Option<String>,
        quality: Quality,
    },
    LiveStop {
        camera: String,
    },
    ReportInterval {
        seconds: u32,
    },
}

/// How good live video shall be. DJI: `video_quality` 0 to 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quality {
    #[default]
    Auto,
    /// 960×540, 512 kbit/s.
    Low,
    /// 1280×720, 1 Mbit/s.
    Standard,
    /// 1280×720, 1.5 Mbit/s.
    High,
    /// 1920×1080, 3 Mbit/s.
    Full,
}

impl Quality {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Auto, "auto"),
        (Self::Low, "low"),
        (Self::Standard, "standard"),
        (Self::High, "high"),
        (Self::Full, "full"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// An order as it is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub task: Task,
    /// How long it may wait for the device, 1 to [`EXPIRES_S_MAX`] seconds.
    pub expires_s: u32,
}

/// What a device understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `kerbside/v1/{device}/down/order`.
    Kerbside,
    /// DJI Cloud API 1.11: `thing/product/{gateway}/services`.
    Dji,
}

impl Dialect {
    /// The dialect of whoever publishes to this topic; None: it tells nothing.
    pub fn of_topic(topic: &str) -> Option<Self> {
        if topic.starts_with("kerbside/v1/") {
            Some(Self::Kerbside)
        } else if topic.starts_with("thing/product/") || topic.starts_with("sys/product/") {
            Some(Self::Dji)
        } else {
            None
        }
    }
}

/// Of one order, as the device has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Comes back in the answers.
    pub id: &'a str,
    /// Whom it is for.
    pub device: &'a str,
    /// Who has the session: the device itself, or the dock it hangs on.
    pub speaker: &'a str,
    pub task: &'a Task,
    /// Where to publish, for [`Task::LiveStart`] without an address of its own.
    pub own_url: Option<&'a str>,
    /// Of the gateway, ms since 1970 UTC.
    pub now_ms: i64,
    pub expires_ms: i64,
}

/// A message for the speaker, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub topic: String,
    pub payload: String,
}

impl Task {
    pub const KINDS: [&'static str; 5] = [
        "message",
        "dispatch",
        "live_start",
        "live_stop",
        "report_interval",
    ];

    pub fn kind(&self) -> &'static str {
        Self::KINDS[match self {
            Self::Message { .. } => 0,
            Self::Dispatch { .. } => 1,
            Self::LiveStart { .. } => 2,
            Self::LiveStop { .. } => 3,
            Self::ReportInterval { .. } => 4,
        }]
    }

    /// Its fields with their names in [`Wanted::read`], without the kind.
    pub fn fields(&self) -> Map<String, Value> {
        let mut o = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                o.insert(key.to_owned(), value);
            }
        };
        match self {
            Self::Message { text } => put("text", text.as_str().into()),
            Self::Dispatch {
                text,
                position,
                event,
            } => {
                put("text", text.clone().into());
                put("event", event.clone().into());
                if let Some((lat, lon)) = position {
                    put(
                        "position",
                        json!({"lat": lat, "lon": lon, "datum": Datum::Wgs84.name()}),
                    );
                }
            }
            Self::LiveStart {
                camera,
                url,
                quality,
            } => {
                put("camera", camera.clone().into());
                put("url", url.clone().into());
                put("quality", quality.name().into());
            }
            Self::LiveStop { camera } => put("camera", camera.as_str().into()),
            Self::ReportInterval { seconds } => put("seconds", (*seconds).into()),
        }
        o
    }
}

impl Wanted {
    /// Reads `{"kind": …, …, "expires_s"?}`. Strict: an order that is half understood is worse than none.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn read(body: &Value) -> Result<Self, String> {
        let Value::Object(o) = body else {
            return Err("an order is a JSON object with \"kind\"".to_owned());
        };
        let mut o = Fields(o.clone());
        let kinds = Task::KINDS.join(", ");
        let kind = o
            .text("kind", 32)?
            .ok_or_else(|| format!("\"kind\" is missing: one of {kinds}"))?;
        let task = match kind.as_str() {
            "message" => Task::Message {
                text: o
                    .text("text", TEXT_CHARS_MAX)?
                    .ok_or("\"text\" is missing: what the bearer shall read")?,
            },
            "dispatch" => dispatch(&mut o)?,
            "live_start" => Task::LiveStart {
                camera: o.camera()?,
                url: o.url()?,
                quality: o.quality()?,
            },
            "live_stop" => Task::LiveStop {
                camera: o
                    .camera()?
                    .ok_or("\"camera\" is missing: which camera shall stop")?,
            },
            "report_interval" => Task::ReportInterval {
                seconds: o
                    .whole("seconds", INTERVAL_S_MAX)?
                    .ok_or("\"seconds\" is missing: how long between two reports")?,
            },
            _ => return Err(format!("kind {kind:?} is unknown: one of {kinds}")),
        };
        // Who reads a message may be at lunch; live video is for now.
        let usual_s = match task {
            Task::Message { .. } | Task::Dispatch { .. } | Task::ReportInterval { .. } => 3600,
            Task::LiveStart { .. } | Task::LiveStop { .. } => 60,
        };
        let expires_s = o.whole("expires_s", EXPIRES_S_MAX)?.unwrap_or(usual_s);
        match o.0.keys().next() {
            Some(key) => {
                let key: String = key.chars().take(40).collect();
                Err(format!(
                    "{key:?} does not belong to an order of kind {kind}"
                ))
            }
            None => Ok(Self { task, expires_s }),
        }
    }
}

fn dispatch(o: &mut Fields) -> Result<Task, String> {
    let text = o.text("text", TEXT_CHARS_MAX)?;
    let event = o.text("event", 64)?;
    if event.as_deref().is_some_and(|e| !is_id(e)) {
        return Err("\"event\" must be the id of an event".to_owned());
    }
    let position = match o.0.remove("position") {
        None | Some(Value::Null) => None,
        Some(Value::Object(p)) => Some(position(&mut Fields(p))?),
        Some(_) => return Err("\"position\" must be an object with lat and lon".to_owned()),
    };
    if text.is_none() && event.is_none() && position.is_none() {
        return Err("a dispatch needs \"position\", \"event\" or \"text\"".to_owned());
    }
    Ok(Task::Dispatch {
        text,
        position,
        event,
    })
}

fn position(p: &mut Fields) -> Result<(f64, f64), String> {
    let datum = match p.text("datum", 16)? {
        None => Datum::Wgs84,
        Some(name) => Datum::parse(&name)
            .ok_or_else(|| format!("datum {name:?} is unknown: wgs84, gcj02 or bd09"))?,
    };
    let mut degrees = |key| {
        p.0.remove(key)
            .and_then(|v| v.as_f64())
            .ok_or_else(|| format!("\"position.{key}\" must be a number of degrees"))
    };
    let (lat, lon) = (degrees("lat")?, degrees("lon")?);
    if let Some(key) = p.0.keys().next() {
        let key: String = key.chars().take(40).collect();
        return Err(format!("{key:?} does not belong to a position"));
    }
    let outside = || format!("{lat}, {lon} is no place on earth");
    if !geo::valid(lat, lon) || (lat, lon) == (0.0, 0.0) {
        return Err(outside());
    }
    let (lat, lon) = geo::to_wgs84(datum, lat, lon);
    if geo::valid(lat, lon) {
        Ok((lat, lon))
    } else {
        Err(outside())
    }
}

/// Fields not yet read.
struct Fields(Map<String, Value>);

impl Fields {
    /// Text of 1 to `chars_max` characters that people can read.
    fn text(&mut self, key: &str, chars_max: usize) -> Result<Option<String>, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) if s.trim().is_empty() => Err(format!("{key:?} is empty")),
            Some(Value::String(s)) if s.chars().count() > chars_max => {
                Err(format!("{key:?} is longer than {chars_max} characters"))
            }
            Some(Value::String(s))
                if s.chars()
                    .any(|c| c.is_control() && !matches!(c, '\n' | '\t')) =>
            {
                Err(format!("{key:?} has control characters"))
            }
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => Err(format!("{key:?} must be text")),
        }
    }

    fn whole(&mut self, key: &str, max: u32) -> Result<Option<u32>, String> {
        let Some(v) = self.0.remove(key).filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        v.as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| (1..=max).contains(n))
            .map(Some)
            .ok_or_else(|| format!("{key:?} must be a whole number from 1 to {max}"))
    }

    /// A camera's name; DJI's has two parts, `39-0-7/normal-0`.
    fn camera(&mut self) -> Result<Option<String>, String> {
        let Some(c) = self.text("camera", 64)? else {
            return Ok(None);
        };
        if c.split('/').count() <= 2 && c.split('/').all(is_id) {
            Ok(Some(c))
        } else {
            Err(format!(
                "camera {c:?} is no name of a camera, e.g. \"main\", or \"39-0-7/normal-0\" of a DJI aircraft"
            ))
        }
    }

    fn url(&mut self) -> Result<Option<String>, String> {
        let Some(url) = self.text("url", URL_BYTES_MAX)? else {
            return Ok(None);
        };
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let known = ["rtsp", "rtsps", "rtmp", "rtmps", "http", "https"].contains(&scheme);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain = url.len() <= URL_BYTES_MAX && url.bytes().all(|b| b.is_ascii_graphic());
        if !known || host.is_empty() || !plain {
            return Err(format!(
                "\"url\" must be an address to publish to, at most {URL_BYTES_MAX} bytes: rtsp(s)://, rtmp(s)://, or http(s):// for WHIP"
            ));
        }
        if host.contains('@') {
            return Err("\"url\" must not hold a password: orders are kept and shown".to_owned());
        }
        Ok(Some(url))
    }

    fn quality(&mut self) -> Result<Quality, String> {
        let Some(name) = self.text("quality", 16)? else {
            return Ok(Quality::Auto);
        };
        let known = Quality::ALL.into_iter().find(|(_, n)| *n == name);
        known.map(|(q, _)| q).ok_or_else(|| {
            format!("quality {name:?} is unknown: auto, low, standard, high or full")
        })
    }
}

/// The message for the device, or why its dialect has none for this.
///
/// # Errors
/// The reason, for the operator.
pub fn tell(dialect: Dialect, order: &Order<'_>) -> Result<Told, String> {
    match dialect {
        Dialect::Kerbside => Ok(ours(order)),
        Dialect::Dji => dji(order),
    }
}

fn ours(order: &Order<'_>) -> Told {
    let mut o = order.task.fields();
    o.insert("order".to_owned(), order.id.into());
    o.insert("kind".to_owned(), order.task.kind().into());
    o.insert("expires_ms".to_owned(), order.expires_ms.into());
    if let (Task::LiveStart { url: None, .. }, Some(url)) = (order.task, order.own_url) {
        o.insert("url".to_owned(), url.into());
    }
    Told {
        topic: format!("kerbside/v1/{}/down/order", order.speaker),
        payload: Value::Object(o).to_string(),
    }
}

/// `live_start_push` and `live_stop_push` (Cloud-API-Doc 1.11, `services` of dock and remote control).
fn dji(order: &Order<'_>) -> Result<Told, String> {
    let (method, data) = match order.task {
        Task::LiveStart {
            camera,
            url,
            quality,
        } => {
            let camera = camera.as_deref().ok_or(
                "a DJI device has to be told which camera: \"camera\": \"TYPE-SUBTYPE-GIMBAL\", e.g. \"39-0-7\"",
            )?;
            let url = url
                .as_deref()
                .or(order.own_url)
                .ok_or("this box has no WHIP address for the device: set orders.host")?;
            let url_type = match url.split_once("://").unwrap_or_default().0 {
                "rtmp" | "rtmps" => 1,
                "http" | "https" => 4,
                _ => {
                    return Err(
                        "DJI devices publish by RTMP or WHIP: give such a \"url\"".to_owned()
                    );
                }
            };
            (
                "live_start_push",
                json!({
                    "url": url, "url_type": url_type, "video_id": video_id(order.device, camera),
                    "video_quality": *quality as u8,
                }),
            )
        }
        Task::LiveStop { camera } => (
            "live_stop_push",
            json!({"video_id": video_id(order.device, camera)}),
        ),
        other => return Err(format!("DJI devices have no service for {}", other.kind())),
    };
    let payload = json!({
        "tid": order.id, "bid": order.id, "timestamp": order.now_ms, "gateway": order.speaker,
        "method": method, "data": data,
    });
    Ok(Told {
        topic: format!("thing/product/{}/services", order.speaker),
        payload: payload.to_string(),
    })
}

/// `{sn}/{camera_index}/{video_index}`; without the last part the usual lens.
fn video_id(device: &str, camera: &str) -> String {
    match camera.contains('/') {
        true => format!("{device}/{camera}"),
        false => format!("{device}/{camera}/normal-0"),
    }
}

#[cfg(test)]
mod tests;
