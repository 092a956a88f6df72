//! Reading one field of a device's JSON: what is right is taken, what is wrong is a [`Fault`], what is absent is None.
//!
//! Here: ranges, times, texts, positions, properties. Not here: names of fields (each codec's own).

use std::borrow::Cow;

use super::document::{Item, Object};
use super::report::{PROPERTIES_MAX, Property, Value};
use super::{Datum, Fault, Fix};
use crate::geo;

/// Greatest speed that is believed, m/s.
pub const SPEED_MAX_MPS: f64 = 1000.0;
/// Altitudes that are believed, metres.
pub const ALT_MIN_M: f64 = -1000.0;
pub const ALT_MAX_M: f64 = 100_000.0;
/// Greatest accuracy radius that is believed, metres.
pub const ACCURACY_MAX_M: f64 = 1e6;
/// Longest name, model, mode or value of a property, characters.
pub const TEXT_MAX: usize = 128;

/// `value`, or a fault when there is none.
pub fn or_fault<T>(value: Option<T>, faults: &mut Vec<Fault>) -> Option<T> {
    if value.is_none() {
        faults.push(Fault::BadField);
    }
    value
}

/// A number within `min..=max`.
pub fn number(
    o: Object<'_>,
    key: &str,
    min: f64,
    max: f64,
    faults: &mut Vec<Fault>,
) -> Option<f64> {
    let n = o.get(key)?.as_number();
    or_fault(n.filter(|n| (min..=max).contains(n)), faults)
}

/// Text of at most `chars_max` characters; a longer one is cut.
pub fn text(o: Object<'_>, key: &str, chars_max: usize, faults: &mut Vec<Fault>) -> Option<String> {
    let s = or_fault(o.get(key)?.to_text(), faults)?;
    Some(cut(s, chars_max, faults)).filter(|s| !s.is_empty())
}

/// At most `chars_max` characters of it.
pub fn cut(s: Cow<'_, str>, chars_max: usize, faults: &mut Vec<Fault>) -> String {
    match s.char_indices().nth(chars_max) {
        Some((end, _)) => {
            faults.push(Fault::BadField);
            s[..end].to_owned()
        }
        None => s.into_owned(),
    }
}

/// Is it a time of ours: 13 digits of milliseconds since 1970 UTC (2001 to 2286)?
pub fn is_time_ms(t: &i64) -> bool {
    (1_000_000_000_000..10_000_000_000_000).contains(t)
}

/// Milliseconds since 1970 UTC with 13 digits. Devices also send 12 or 14: no time rather than a wrong one.
pub fn time_ms(o: Object<'_>, key: &str, faults: &mut Vec<Fault>) -> Option<i64> {
    or_fault(o.get(key)?.as_integer().filter(is_time_ms), faults)
}

/// A direction as degrees clockwise from north, 0..360.
pub fn turn(degrees: f64) -> f64 {
    let h = degrees.rem_euclid(360.0);
    // A tiny negative angle rounds up to a full turn.
    if h < 360.0 { h } else { 0.0 }
}

/// Degrees clockwise from north, 0..360, from anything within a turn.
pub fn heading(o: Object<'_>, key: &str, faults: &mut Vec<Fault>) -> Option<f64> {
    number(o, key, -360.0, 360.0, faults).map(turn)
}

/// Names of the two coordinates in one protocol.
pub struct Names {
    pub lat: &'static str,
    pub lon: &'static str,
}

/// A position without its quality, in WGS-84; or why there is none.
pub fn position(o: Object<'_>, names: &Names, datum: Datum) -> Result<Fix, Fault> {
    let coordinate = |key| {
        let n = o.get(key).and_then(Item::as_number);
        n.ok_or(Fault::BadField)
    };
    place(coordinate(names.lat)?, coordinate(names.lon)?, datum)
}

/// The place `lat`, `lon` of `datum`; 0,0 is none.
pub fn place(lat: f64, lon: f64, datum: Datum) -> Result<Fix, Fault> {
    if lat == 0.0 && lon == 0.0 {
        return Err(Fault::NoFix);
    }
    if !geo::valid(lat, lon) {
        // Told apart, because it is mended at another place: in the device's program.
        let is_swapped = geo::valid(lon, lat);
        return Err(if is_swapped {
            Fault::Swapped
        } else {
            Fault::OutsideWorld
        });
    }
    let (lat, lon) = geo::to_wgs84(datum, lat, lon);
    if !geo::valid(lat, lon) {
        return Err(Fault::OutsideWorld);
    }
    Ok(Fix::at(lat, lon, datum))
}

/// The first [`PROPERTIES_MAX`] properties of a report.
pub fn property(
    properties: &mut Vec<Property>,
    name: impl Into<Cow<'static, str>>,
    value: Value,
    faults: &mut Vec<Fault>,
) {
    if properties.len() < PROPERTIES_MAX {
        let name = name.into();
        properties.push(Property { name, value });
    } else if !faults.contains(&Fault::TooLarge) {
        faults.push(Fault::TooLarge);
    }
}

/// A number, a flag or a text.
pub fn value(item: Item<'_>, faults: &mut Vec<Fault>) -> Option<Value> {
    let value = match (item.as_flag(), item.as_text()) {
        (Some(b), _) => Some(Value::Flag(b)),
        (_, Some(s)) => Some(Value::Text(cut(s.into(), TEXT_MAX, faults))),
        _ => item.as_number().map(Value::Number),
    };
    or_fault(value, faults)
}
