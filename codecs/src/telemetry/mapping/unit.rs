//! What numbers and times of a format are counted in.

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime};

use crate::telemetry::document::Item;

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    Coordinate,
    Length,
    Speed,
    Angle,
    Battery,
}

/// How a number becomes ours: degrees, metres, m/s, percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    Times(f64),
    /// Degrees and minutes as NMEA 0183 writes them: 3741.4 is 37°41.4′.
    DegreesMinutes,
}

impl Quantity {
    /// The units it may be counted in; the first one is ours.
    pub fn units(self) -> &'static [(&'static str, Scale)] {
        use Scale::{DegreesMinutes, Times};
        match self {
            Self::Coordinate => &[
                ("deg", Times(1.0)),
                ("1e-5 deg", Times(1e-5)),
                ("1e-6 deg", Times(1e-6)),
                ("1e-7 deg", Times(1e-7)),
                ("ddmm.mm", DegreesMinutes),
            ],
            Self::Length => &[
                ("m", Times(1.0)),
                ("dm", Times(0.1)),
                ("cm", Times(0.01)),
                ("mm", Times(0.001)),
                ("ft", Times(0.3048)),
            ],
            Self::Speed => &[
                ("m/s", Times(1.0)),
                ("km/h", Times(1.0 / 3.6)),
                ("0.1 km/h", Times(0.1 / 3.6)),
                ("cm/s", Times(0.01)),
                ("kn", Times(1852.0 / 3600.0)),
                ("mph", Times(0.447_04)),
            ],
            Self::Angle => &[
                ("deg", Times(1.0)),
                ("0.1 deg", Times(0.1)),
                ("0.01 deg", Times(0.01)),
                ("rad", Times(180.0 / std::f64::consts::PI)),
            ],
            Self::Battery => &[
                ("%", Times(1.0)),
                ("0..1", Times(100.0)),
                ("0.1 %", Times(0.1)),
            ],
        }
    }

    /// By its name; None: not of this quantity.
    pub fn unit(self, name: &str) -> Option<Scale> {
        let units = self.units().iter();
        units.copied().find(|(n, _)| *n == name).map(|(_, s)| s)
    }
}

impl Scale {
    pub(super) fn read(self, item: Item<'_>) -> Option<f64> {
        let n = item.as_number()?;
        Some(match self {
            Self::Times(scale) => n * scale,
            Self::DegreesMinutes => {
                let degrees = (n / 100.0).trunc();
                let minutes = n - degrees * 100.0;
                if minutes.abs() >= 60.0 {
                    return None;
                }
                degrees + minutes / 60.0
            }
        })
    }
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Since 1970 UTC.
    Seconds,
    Milliseconds,
    Microseconds,
    /// RFC 3339, with its zone.
    Rfc3339,
    /// Year, month, day, hour, minute, second with anything between them (`2026-11-22 08:00:00.5`, `20261122080000`), by
    /// the clock on the wall so many minutes east of UTC.
    Local {
        zone_min: i32,
    },
}

impl Time {
    /// Milliseconds since 1970 UTC.
    pub(super) fn read(self, item: Item<'_>) -> Option<i64> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "saturates; the range is checked later"
        )]
        let times = |scale: f64| item.as_number().map(|n| (n * scale).round() as i64);
        match self {
            Self::Seconds => match item.as_integer() {
                // With a fraction or not.
                Some(_) => times(1000.0),
                None => None,
            },
            Self::Milliseconds => item.as_integer(),
            Self::Microseconds => item.as_integer().map(|us| us.div_euclid(1000)),
            Self::Rfc3339 => {
                let t = OffsetDateTime::parse(item.as_text()?.trim(), &Rfc3339).ok()?;
                i64::try_from(t.unix_timestamp_nanos() / 1_000_000).ok()
            }
            Self::Local { zone_min } => {
                let ms = wall_clock(&item.to_text()?)?;
                Some(ms - i64::from(zone_min) * 60_000)
            }
        }
    }
}

/// Milliseconds from 1970 of the date and time in a text, as if it were UTC.
fn wall_clock(text: &str) -> Option<i64> {
    let mut digits = [0u8; 14];
    let mut found = 0;
    let mut ms = 0;
    let mut chars = text.trim().chars().take(40);
    while found < digits.len() {
        match chars.next()? {
            c @ '0'..='9' => {
                digits[found] = u8::try_from(c).ok()? - b'0';
                found += 1;
            }
            '-' | '/' | ':' | '.' | ' ' | 'T' | 't' | '_' => {}
            _ => return None,
        }
    }
    match chars.next() {
        None => {}
        Some('.' | ',') => {
            for scale in [100, 10, 1] {
                ms += match chars.next() {
                    Some(c) => scale * i64::from(c.to_digit(10)?),
                    None => 0,
                };
            }
            if !chars.all(|c| c.is_ascii_digit()) {
                return None;
            }
        }
        // More digits, or a zone, which is not what was promised.
        Some(_) => return None,
    }
    let two = |at: usize| digits[at] * 10 + digits[at + 1];
    let year = i32::from(two(0)) * 100 + i32::from(two(2));
    let date = Date::from_calendar_date(year, Month::try_from(two(4)).ok()?, two(6)).ok()?;
    let time = date.with_hms(two(8), two(10), two(12)).ok()?;
    Some(time.assume_utc().unix_timestamp() * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::document::Document;

    fn time(time: Time, json: &str) -> Option<i64> {
        time.read(Document::parse(json.as_bytes()).unwrap().root())
    }

    #[test]
    fn one_moment_in_all_its_writings() {
        const AT: i64 = 1_795_219_200_000;
        let east = Time::Local { zone_min: 480 };
        for (kind, text) in [
            (Time::Seconds, "1795219200"),
            (Time::Seconds, "\"1795219200\""),
            (Time::Milliseconds, "1795219200000"),
            (Time::Microseconds, "1795219200000999"),
            (Time::Rfc3339, "\"2026-11-21T00:00:00Z\""),
            (Time::Rfc3339, "\"2026-11-21T08:00:00+08:00\""),
            (east, "\"2026-11-21 08:00:00\""),
            (east, "\"2026/11/21T08:00:00.0004\""),
            (east, "20261121080000"),
        ] {
            assert_eq!(time(kind, text), Some(AT), "{kind:?} {text}");
        }
        assert_eq!(time(Time::Seconds, "1795219200.25"), Some(AT + 250));
        assert_eq!(time(east, "\"2026-11-21 08:00:00.5\""), Some(AT + 500));
        for (kind, text) in [
            (east, "\"2026-11-21\""),
            (east, "\"2026-11-21 08:00:00Z\""),
            (east, "\"2026-13-21 08:00:00\""),
            (east, "\"202611210800001\""),
            (Time::Rfc3339, "\"2026-11-21 08:00\""),
            (Time::Seconds, "true"),
        ] {
            assert_eq!(time(kind, text), None, "{kind:?} {text}");
        }
    }

    #[test]
    fn numbers_are_scaled() {
        let read = |of: Quantity, unit: &str, json: &str| {
            let document = Document::parse(json.as_bytes()).unwrap();
            of.unit(unit).unwrap().read(document.root())
        };
        assert_eq!(read(Quantity::Speed, "km/h", "36"), Some(10.0));
        assert_eq!(
            read(Quantity::Coordinate, "1e-7 deg", "376900000"),
            Some(37.69)
        );
        let minutes = read(Quantity::Coordinate, "ddmm.mm", "\"3741.4\"").unwrap();
        assert!((minutes - 37.69).abs() < 1e-12);
        assert_eq!(read(Quantity::Coordinate, "ddmm.mm", "3761"), None);
        assert_eq!(read(Quantity::Battery, "0..1", "0.5"), Some(50.0));
        assert_eq!(Quantity::Length.unit("km/h"), None);
    }
}
