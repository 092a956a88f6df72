//! When a zone is in force: from one moment to another, on days of the week, in hours of the day. Local time is a
//! fixed offset from UTC.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MINUTE_MS: i64 = 60_000;
const DAY_MIN: i64 = 24 * 60;
const OFFSET_MIN_MAX: i64 = 14 * 60;
/// Spans of hours of one zone.
const HOURS_MAX: usize = 24;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When a zone is in force. The default: always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// Milliseconds since 1970 UTC; `until` is not in it.
    from_ms: Option<i64>,
    until_ms: Option<i64>,
    /// Minutes of the local day, beginning and end; an end that is not later is that of the next day. Empty: all day.
    hours: Vec<(i64, i64)>,
    /// Bit 0 is Monday. 0: every day. A span over midnight belongs to the day it begins on.
    weekdays: u8,
    offset_min: i64,
}

impl Validity {
    /// From the properties of a feature. `offset_min`: of the file, minutes east of UTC.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(p: &Map<String, Value>, offset_min: i64) -> Result<Self, String> {
        let me = Self {
            from_ms: moment(p, "from")?,
            until_ms: moment(p, "until")?,
            hours: hours(p.get("hours"))?,
            weekdays: weekdays(p.get("weekdays"))?,
            offset_min: offset(p.get("utc_offset"))?.unwrap_or(offset_min),
        };
        if let (Some(from), Some(until)) = (me.from_ms, me.until_ms)
            && until <= from
        {
            return Err("properties.until must be later than properties.from".into());
        }
        Ok(me)
    }

    pub fn is_always(&self) -> bool {
        *self
            == Self {
                offset_min: self.offset_min,
                ..Self::default()
            }
    }

    pub fn holds(&self, unix_ms: i64) -> bool {
        if self.from_ms.is_some_and(|t| unix_ms < t) || self.until_ms.is_some_and(|t| unix_ms >= t)
        {
            return false;
        }
        if self.hours.is_empty() && self.weekdays == 0 {
            return true;
        }
        let minutes = unix_ms.div_euclid(MINUTE_MS) + self.offset_min;
        let (day, minute) = (minutes.div_euclid(DAY_MIN), minutes.rem_euclid(DAY_MIN));
        if self.hours.is_empty() {
            return self.is_on(day);
        }
        self.hours.iter().any(|&(from, to)| {
            if from < to {
                (from..to).contains(&minute) && self.is_on(day)
            } else {
                (minute >= from && self.is_on(day)) || (minute < to && self.is_on(day - 1))
            }
        })
    }

    /// `day`: since 1970-01-01, a Thursday.
    fn is_on(&self, day: i64) -> bool {
        self.weekdays == 0 || self.weekdays >> (day + 3).rem_euclid(7) & 1 == 1
    }
}

/// RFC 3339 to milliseconds since 1970 UTC.
pub fn rfc3339_ms(text: &str) -> Option<i64> {
    let t = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(t.unix_timestamp_nanos() / 1_000_000).ok()
}

fn moment(p: &Map<String, Value>, key: &str) -> Result<Option<i64>, String> {
    match p.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => v.as_str().and_then(rfc3339_ms).map(Some).ok_or_else(|| {
            format!("properties.{key} must be a time as 2026-12-31T18:00:00+08:00 (RFC 3339)")
        }),
    }
}

/// Minutes east of UTC of `"+08:00"`.
///
/// # Errors
/// What is wrong, in words.
pub fn offset(v: Option<&Value>) -> Result<Option<i64>, String> {
    let Some(v) = v.filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let parsed = v.as_str().and_then(|t| {
        let (sign, rest) = match t.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        minute_of_day(rest).map(|m| sign * m)
    });
    parsed
        .filter(|m| m.abs() <= OFFSET_MIN_MAX)
        .map(Some)
        .ok_or_else(|| r#"utc_offset must be as "+08:00""#.into())
}

fn hours(v: Option<&Value>) -> Result<Vec<(i64, i64)>, String> {
    let bad = || r#"properties.hours must be as "07:00-13:00", or a list of such spans"#.to_owned();
    let span = |v: &Value| {
        let (from, to) = v.as_str()?.split_once('-')?;
        let (from, to) = (minute_of_day(from.trim())?, minute_of_day(to.trim())?);
        (from != to && from < DAY_MIN).then_some((from, to))
    };
    match v {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(all)) if (1..=HOURS_MAX).contains(&all.len()) => {
            all.iter().map(|v| span(v).ok_or_else(bad)).collect()
        }
        Some(one) => Ok(vec![span(one).ok_or_else(bad)?]),
    }
}

/// `HH:MM`, 00:00 to 24:00.
fn minute_of_day(text: &str) -> Option<i64> {
    let (h, m) = text.split_once(':')?;
    let two = |s: &str| {
        (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?
    };
    let (h, m): (i64, i64) = (two(h)?, two(m)?);
    (m < 60 && h * 60 + m <= DAY_MIN).then_some(h * 60 + m)
}

fn weekdays(v: Option<&Value>) -> Result<u8, String> {
    let bad = || {
        r#"properties.weekdays must be a list of 1 (Monday) to 7, or of "mon" to "sun""#.to_owned()
    };
    let day = |v: &Value| match v {
        Value::String(s) => DAYS.iter().position(|d| d.eq_ignore_ascii_case(s)),
        _ => usize::try_from(v.as_u64()?)
            .ok()?
            .checked_sub(1)
            .filter(|d| *d < 7),
    };
    match v {
        None | Some(Value::Null) => Ok(0),
        Some(Value::Array(all)) if !all.is_empty() => all
            .iter()
            .try_fold(0, |days, v| day(v).map(|d| days | 1 << d).ok_or_else(bad)),
        Some(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(v: &Value) -> Result<Validity, String> {
        Validity::read(v.as_object().unwrap(), 8 * 60)
    }

    fn ms(text: &str) -> i64 {
        rfc3339_ms(text).unwrap()
    }

    #[test]
    fn shifts_days_and_moments() {
        // 2026-11-20 is a Friday.
        for (zone, moment, holds) in [
            (json!({}), "2026-11-20T12:00:00+08:00", true),
            (
                json!({"from":"2026-11-20T08:00:00+08:00"}),
                "2026-11-20T07:59:59+08:00",
                false,
            ),
            (
                json!({"from":"2026-11-20T00:00:00Z"}),
                "2026-11-20T08:00:00+08:00",
                true,
            ),
            (
                json!({"until":"2026-11-20T08:00:00+08:00"}),
                "2026-11-20T08:00:00+08:00",
                false,
            ),
            (
                json!({"hours":"07:00-13:00"}),
                "2026-11-20T07:00:00+08:00",
                true,
            ),
            (
                json!({"hours":"07:00-13:00"}),
                "2026-11-20T13:00:00+08:00",
                false,
            ),
            (
                json!({"hours":["07:00-13:00","19:00-24:00"]}),
                "2026-11-20T23:59:00+08:00",
                true,
            ),
            (
                json!({"hours":"22:00-07:00"}),
                "2026-11-20T06:59:00+08:00",
                true,
            ),
            (
                json!({"hours":"22:00-07:00"}),
                "2026-11-20T07:00:00+08:00",
                false,
            ),
            (
                json!({"hours":"22:00-07:00","weekdays":["fri"]}),
                "2026-11-21T06:00:00+08:00",
                true,
            ),
            (
                json!({"hours":"22:00-07:00","weekdays":["fri"]}),
                "2026-11-20T06:00:00+08:00",
                false,
            ),
            (
                json!({"weekdays":[6, 7]}),
                "2026-11-20T23:59:59+08:00",
                false,
            ),
            (
                json!({"weekdays":[6, 7]}),
                "2026-11-21T00:00:00+08:00",
                true,
            ),
            (
                json!({"hours":"07:00-13:00","utc_offset":"+00:00"}),
                "2026-11-20T07:00:00Z",
                true,
            ),
            (
                json!({"hours":"07:00-13:00","utc_offset":"-03:30"}),
                "2026-11-20T10:29:00Z",
                false,
            ),
        ] {
            assert_eq!(
                read(&zone).unwrap().holds(ms(moment)),
                holds,
                "{zone} {moment}"
            );
        }
        assert!(read(&json!({"utc_offset":"+00:00"})).unwrap().is_always());
        assert!(!read(&json!({"weekdays":["sun"]})).unwrap().is_always());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (zone, told) in [
            (json!({"from":"tomorrow"}), "RFC 3339"),
            (
                json!({"from":"2026-11-20T08:00:00Z","until":"2026-11-20T08:00:00Z"}),
                "later",
            ),
            (json!({"hours":"7-13"}), "07:00-13:00"),
            (json!({"hours":"07:00-07:00"}), "07:00-13:00"),
            (json!({"hours":"24:30-01:00"}), "07:00-13:00"),
            (json!({"hours":[]}), "07:00-13:00"),
            (json!({"weekdays":[0]}), "Monday"),
            (json!({"weekdays":["someday"]}), "Monday"),
            (json!({"utc_offset":"8"}), "+08:00"),
            (json!({"utc_offset":"+15:00"}), "+08:00"),
        ] {
            assert!(read(&zone).unwrap_err().contains(told), "{zone}");
        }
    }
}
