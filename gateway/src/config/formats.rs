//! `formats.toml`: vendors' JSON, compiled into mappings.
//!
//! Here: keys, and their faults. Not here: how a message is read (`codecs::telemetry::mapping`).

use kerbside_codecs::telemetry::Datum;
use kerbside_codecs::telemetry::mapping::{
    Fields, Mapping, Number, Path, Quantity, Scale, Test, Time, Topic,
};

use super::table::{Found, Source, Table, Unique};

/// Formats, and keys of one table; more are a fault of whoever generates the file.
const FORMATS_MAX: usize = 64;
const KEYS_MAX: usize = 32;

pub(super) fn formats(source: &Source) -> Vec<Mapping> {
    let Some(mut top) = source.parse() else {
        return Vec::new();
    };
    let mut names = Unique::default();
    let list = top.tables("format");
    if list.len() > FORMATS_MAX {
        top.at.fault(format!("has more than {FORMATS_MAX} formats"));
    }
    top.finish();
    list.into_iter()
        .filter_map(|t| format(t, &mut names))
        .collect()
}

fn format(mut t: Table<'_>, names: &mut Unique) -> Option<Mapping> {
    let name = t.required("name", "a name").and_then(|f| {
        let at = f.at.clone();
        let name = f.read(super::id)?;
        names.note(&at, &name);
        Some(name)
    });
    let topic = t
        .required(
            "topic",
            "what devices publish to, e.g. \"acme/{device}/pos\"",
        )
        .and_then(|f| f.read(Topic::parse));
    let down = t.optional("down").and_then(|f| f.read(Topic::parse_down));
    let positions = t.optional("positions").and_then(|f| f.read(Path::parse));
    let datum = t.optional("datum").and_then(|f| {
        f.read(|s| {
            Datum::parse(s)
                .ok_or_else(|| format!("is {s:?}, but must be \"wgs84\", \"gcj02\" or \"bd09\""))
        })
    });
    let when = pairs(t.optional_table("when"), |path, found| {
        let at = found.at.clone();
        let path = Path::parse(path).map_err(|e| at.fault(e)).ok()?;
        let values = values(found)?;
        Some(Test { path, values })
    });
    let properties = pairs(t.optional_table("properties"), |name, found| {
        let at = found.at.clone();
        let name = super::id(name).map_err(|e| at.fault(e)).ok()?;
        Some((name, found.read(Path::parse)?))
    });
    let fields = match t.optional_table("fields") {
        Some(fields) => self::fields(fields),
        None => Fields::default(),
    };
    if fields == Fields::default() && properties.is_empty() {
        t.at.fault("takes nothing from a message: add [format.fields]");
    }
    t.finish();
    Some(Mapping {
        name: name?,
        topic: topic?,
        down,
        when,
        positions,
        datum,
        fields,
        properties,
    })
}

fn pairs<T>(table: Option<Table<'_>>, read: impl Fn(&str, Found<'_>) -> Option<T>) -> Vec<T> {
    let Some(table) = table else {
        return Vec::new();
    };
    let at = table.at.clone();
    let all = table.rest();
    if all.len() > KEYS_MAX {
        at.fault(format!("has more than {KEYS_MAX} keys"));
    }
    all.into_iter()
        .filter_map(|(key, found)| read(&key, found))
        .collect()
}

/// One value, or a list of which any is right.
fn values(found: Found<'_>) -> Option<Vec<String>> {
    if found.is_list() {
        found.list()?.into_iter().map(Found::scalar).collect()
    } else {
        Some(vec![found.scalar()?])
    }
}

fn fields(mut t: Table<'_>) -> Fields {
    if t.has("lat") != t.has("lon") {
        t.at.fault("has lat or lon alone: a position needs both");
    }
    let mut number = |key, of| t.optional(key).and_then(|f| self::number(f, of));
    let fields = Fields {
        lat: number("lat", Quantity::Coordinate),
        lon: number("lon", Quantity::Coordinate),
        alt: number("alt", Quantity::Length),
        accuracy: number("accuracy", Quantity::Length),
        speed: number("speed", Quantity::Speed),
        heading: number("heading", Quantity::Angle),
        course: number("course", Quantity::Angle),
        climb: number("climb", Quantity::Speed),
        battery: number("battery", Quantity::Battery),
        time: t.optional("time").and_then(time),
        fix: t.optional("fix").and_then(test),
        sos: t.optional("sos").and_then(test),
        back_fill: t.optional("back_fill").and_then(test),
        mode: t.optional("mode").and_then(|f| f.read(Path::parse)),
        kind: t.optional("kind").and_then(|f| f.read(Path::parse)),
        model: t.optional("model").and_then(|f| f.read(Path::parse)),
    };
    t.finish();
    fields
}

/// A path, or a table with the path and more.
fn path(found: Found<'_>) -> Option<(Path, Option<Table<'_>>)> {
    if !found.is_table() {
        return Some((found.read(Path::parse)?, None));
    }
    let mut t = found.table()?;
    let path = t
        .required("path", "where it is in the message, e.g. \"gps.lat\"")
        .and_then(|f| f.read(Path::parse));
    // Without a path its other keys are not judged: one fault is enough.
    Some((path?, Some(t)))
}

fn number(found: Found<'_>, of: Quantity) -> Option<Number> {
    let (path, more) = path(found)?;
    let mut scale = of.units().first().map(|(_, scale)| *scale);
    if let Some(mut t) = more {
        if let Some(unit) = t.optional("unit") {
            scale = unit.read(|u| self::unit(of, u));
        }
        t.finish();
    }
    Some(Number {
        path,
        scale: scale?,
    })
}

fn unit(of: Quantity, name: &str) -> Result<Scale, String> {
    of.unit(name).ok_or_else(|| {
        let known: Vec<_> = of.units().iter().map(|(n, _)| format!("{n:?}")).collect();
        format!("is {name:?}, but must be {}", known.join(", "))
    })
}

fn time(found: Found<'_>) -> Option<(Path, Time)> {
    let (path, more) = path(found)?;
    let mut time = Some(Time::Milliseconds);
    if let Some(mut t) = more {
        let zone = t.optional("zone").map(|f| f.read(zone));
        if let Some(unit) = t.optional("unit") {
            let at = unit.at.clone();
            time = unit.read(|u| match u {
                "ms" => Ok(Time::Milliseconds),
                "s" => Ok(Time::Seconds),
                "us" => Ok(Time::Microseconds),
                "rfc3339" => Ok(Time::Rfc3339),
                "local" => Ok(Time::Local { zone_min: 0 }),
                _ => Err(format!(
                    "is {u:?}, but must be \"ms\", \"s\", \"us\", \"rfc3339\" or \"local\""
                )),
            });
            if let Some(Time::Local { .. }) = time {
                match zone {
                    Some(zone_min) => time = zone_min.map(|zone_min| Time::Local { zone_min }),
                    None => {
                        at.fault("is \"local\": add zone, e.g. zone = \"+08:00\"");
                        time = None;
                    }
                }
            } else if zone.is_some() && time.is_some() {
                at.fault("has a zone, which is for \"local\" only: remove it");
            }
        } else if zone.is_some() {
            t.at.fault("has a zone, but no unit = \"local\"");
        }
        t.finish();
    }
    Some((path, time?))
}

/// `+08:00` → minutes east of UTC.
fn zone(text: &str) -> Result<i32, String> {
    let wrong = || format!("is {text:?}, but must be like \"+08:00\" or \"-03:30\"");
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(wrong()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
    let two = |s: &str, max: i32| -> Result<i32, String> {
        let is_two = s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
        let n = s.parse().ok().filter(|n: &i32| is_two && *n <= max);
        n.ok_or_else(wrong)
    };
    Ok(sign * (two(hours, 14)? * 60 + two(minutes, 59)?))
}

fn test(found: Found<'_>) -> Option<Test> {
    let (path, more) = path(found)?;
    let mut is = Some(Vec::new());
    if let Some(mut t) = more {
        is = t.optional("value").map_or(is, values);
        t.finish();
    }
    Some(Test { path, values: is? })
}
