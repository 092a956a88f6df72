//! Reading one field of a device's JSON: what is right is taken, what is wrong is a [`Fault`], what is absent is None.
//!
//! Here: numbers that come as text, ranges, times, positions. Not here: names of fields (each codec's own).

use serde_json::{Map, Value};

use super::{Datum, Fault, Fix, PAYLOAD_MAX};
use crate::geo;

pub type Object = Map<String, Value>;

/// The payload as JSON. Of duplicate keys the last one counts; depth is bounded by `serde_json` (128).
pub fn parse(payload: &[u8]) -> Result<Value, Fault> {
    if payload.len() > PAYLOAD_MAX {
        return Err(Fault::TooLarge);
    }
    serde_json::from_slice(payload).map_err(|_| Fault::NotJson)
}

/// The field, unless it is absent or null.
pub fn get<'a>(o: &'a Object, key: &str) -> Option<&'a Value> {
    o.get(key).filter(|v| !v.is_null())
}

/// A finite number, also when it comes as text.
pub fn as_number(v: &Value) -> Option<f64> {
    match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
    .filter(|f: &f64| f.is_finite())
}

/// A whole number, also when it comes as text or with a fraction of zero.
pub fn as_integer(v: &Value) -> Option<i64> {
    match v {
        Value::Number(n) if n.is_i64() => n.as_i64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
    .or_else(|| {
        #[allow(clippy::cast_possible_truncation, reason = "checked to be small")]
        as_number(v)
            .filter(|f| f.abs() < 9e15)
            .map(|f| f.trunc() as i64)
    })
}

/// A number within `min..=max`.
pub fn number(o: &Object, key: &str, min: f64, max: f64, faults: &mut Vec<Fault>) -> Option<f64> {
    let v = get(o, key)?;
    let n = as_number(v).filter(|n| (min..=max).contains(n));
    if n.is_none() {
        faults.push(Fault::BadField);
    }
    n
}

/// Text of at most `chars_max` characters; a longer one is cut.
pub fn text(o: &Object, key: &str, chars_max: usize, faults: &mut Vec<Fault>) -> Option<String> {
    let s = match get(o, key)? {
        Value::String(s) => s.clone(),
        Value::Number(n) => n.to_string(),
        _ => {
            faults.push(Fault::BadField);
            return None;
        }
    };
    match s.char_indices().nth(chars_max) {
        Some((end, _)) => {
            faults.push(Fault::BadField);
            Some(s[..end].to_owned())
        }
        None => Some(s).filter(|s| !s.is_empty()),
    }
}

/// Milliseconds since 1970 UTC with 13 digits (2001 to 2286). Devices also send 12 or 14: no time rather than a wrong one.
pub fn time_ms(o: &Object, key: &str, faults: &mut Vec<Fault>) -> Option<i64> {
    let v = get(o, key)?;
    let t = as_integer(v).filter(|t| (1_000_000_000_000..10_000_000_000_000).contains(t));
    if t.is_none() {
        faults.push(Fault::BadField);
    }
    t
}

/// Degrees clockwise from north, 0..360, from anything within a turn.
pub fn heading(o: &Object, key: &str, faults: &mut Vec<Fault>) -> Option<f64> {
    let h = number(o, key, -360.0, 360.0, faults)?.rem_euclid(360.0);
    // A tiny negative angle rounds up to a full turn.
    Some(if h < 360.0 { h } else { 0.0 })
}

/// Names of the two coordinates in one protocol.
pub struct Names {
    pub lat: &'static str,
    pub lon: &'static str,
}

/// A position without its quality, in WGS-84; or why there is none.
pub fn position(o: &Object, names: &Names, datum: Datum) -> Result<Fix, Fault> {
    let coordinate = |key| get(o, key).and_then(as_number).ok_or(Fault::BadField);
    let (lat, lon) = (coordinate(names.lat)?, coordinate(names.lon)?);
    if lat == 0.0 && lon == 0.0 {
        return Err(Fault::NoFix);
    }
    if !geo::valid(lat, lon) {
        return Err(Fault::OutsideWorld);
    }
    let (lat, lon) = geo::to_wgs84(datum, lat, lon);
    if !geo::valid(lat, lon) {
        return Err(Fault::OutsideWorld);
    }
    Ok(Fix::at(lat, lon, datum))
}

/// Greatest speed that is believed, m/s.
pub const SPEED_MAX_MPS: f64 = 1000.0;
/// Altitudes that are believed, metres.
pub const ALT_MIN_M: f64 = -1000.0;
pub const ALT_MAX_M: f64 = 100_000.0;
