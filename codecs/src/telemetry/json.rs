//! Our own JSON over MQTT (gateway/API.md): `kerbside/v1/{device}/report`, `/sos`, `/ack` and `/online`.
//!
//! A faulty part is refused and the rest stands. A call for help stands whatever else is wrong with it.

use super::document::{Document, Item, Object};
use super::field::{self, Names, TEXT_MAX};
use super::report::{ALARMS_MAX, Alarm, AlarmLevel, Property, Sight};
use super::{Answer, Codec, Datum, Decoded, Fault, Fix, Message, Report, Said, Sos, is_id};

/// Most reports, or answers, in one message.
const REPORTS_MAX: usize = 256;
/// Most corners of a picture on the ground.
const CORNERS_MAX: usize = 8;
const NOTE_MAX: usize = 1024;
const COORDINATES: Names = Names {
    lat: "lat",
    lon: "lon",
};

pub const CODEC: Codec = Codec {
    uplinks: &[
        "kerbside/v1/+/report",
        "kerbside/v1/+/sos",
        "kerbside/v1/+/ack",
        "kerbside/v1/+/online",
    ],
    up,
    or: |_| None,
    down,
    for_sub_devices: false,
    decode,
};

fn up(topic: &str) -> Option<(&str, &str)> {
    let (device, channel) = topic.strip_prefix("kerbside/v1/")?.split_once('/')?;
    let is_ours = matches!(channel, "report" | "sos" | "ack" | "online");
    (is_ours && is_id(device)).then_some((device, channel))
}

/// Below `down/` a device may use wildcards: they cannot leave it.
fn down(device: &str, filter: &str) -> bool {
    let below = filter
        .strip_prefix("kerbside/v1/")
        .and_then(|rest| rest.strip_prefix(device))
        .and_then(|rest| rest.strip_prefix("/down/"));
    let Some(below) = below.filter(|b| !b.is_empty()) else {
        return false;
    };
    let mut levels = below.split('/').peekable();
    while let Some(level) = levels.next() {
        let fine = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            other => !other.contains(['#', '+', '\0']),
        };
        if !fine {
            return false;
        }
    }
    true
}

fn decode(m: &Message<'_>) -> Decoded {
    let document = Document::parse(m.payload);
    let root = document.as_ref().map(Document::root).map_err(|f| *f);
    let mut decoded = Decoded::default();
    match (m.channel, root) {
        ("sos", root) => decoded.reports.push(help(m, root)),
        (_, Err(fault)) => decoded.faults.push(fault),
        ("report", Ok(root)) => {
            let reports = each(root, &mut decoded.faults, |o, _| Some(report(m, o)));
            decoded.reports = reports;
        }
        ("ack", Ok(root)) => {
            let answers = each(root, &mut decoded.faults, answer);
            decoded.answers = answers;
        }
        (_, Ok(root)) => match root.as_object().and_then(|o| o.get("online")?.as_flag()) {
            Some(online) => decoded.reports.push(Report {
                device: m.speaker.to_owned(),
                online: Some(online),
                ..Report::default()
            }),
            None => decoded.faults.push(Fault::BadField),
        },
    }
    decoded.note_quirks(document.iter().flat_map(Document::quirks))
}

/// What `read` makes of an object, or of each object of a list.
fn each<T>(
    root: Item<'_>,
    faults: &mut Vec<Fault>,
    read: impl Fn(Object<'_>, &mut Vec<Fault>) -> Option<T>,
) -> Vec<T> {
    let Some(list) = root.as_list() else {
        return match root.as_object() {
            Some(o) => read(o, faults).into_iter().collect(),
            None => {
                faults.push(Fault::NotJson);
                Vec::new()
            }
        };
    };
    // The newest are at the end.
    let more = list.clone().count().saturating_sub(REPORTS_MAX);
    if more > 0 {
        faults.push(Fault::TooLarge);
    }
    let mut all = Vec::new();
    for item in list.skip(more) {
        match item.as_object() {
            Some(o) => all.extend(read(o, faults)),
            None => faults.push(Fault::NotJson),
        }
    }
    all
}

/// The topic alone says "help": a payload that cannot be read does not silence it.
fn help(m: &Message<'_>, root: Result<Item<'_>, Fault>) -> Report {
    let Some(o) = root.ok().and_then(Item::as_object) else {
        return Report {
            device: m.speaker.to_owned(),
            sos: Some(Sos::default()),
            faults: if m.payload.is_empty() {
                Vec::new()
            } else {
                vec![root.err().unwrap_or(Fault::NotJson)]
            },
            ..Report::default()
        };
    };
    let mut r = report(m, o);
    let inner = r.sos.take().unwrap_or_default();
    r.sos = Some(Sos {
        id: field::text(o, "id", TEXT_MAX, &mut r.faults).or(inner.id),
        note: field::text(o, "note", NOTE_MAX, &mut r.faults).or(inner.note),
    });
    r
}

fn answer(o: Object<'_>, faults: &mut Vec<Fault>) -> Option<Answer> {
    let said = o.get("said").and_then(Item::as_text).and_then(|s| match s {
        "delivered" => Some(Said::Delivered),
        "read" => Some(Said::Read),
        "refused" => Some(Said::Refused),
        _ => None,
    });
    let order = field::text(o, "order", TEXT_MAX, faults);
    let note = field::text(o, "note", NOTE_MAX, faults);
    let answer = order
        .zip(said)
        .map(|(order, said)| Answer { order, said, note });
    field::or_fault(answer, faults)
}

fn report(m: &Message<'_>, o: Object<'_>) -> Report {
    let mut faults = Vec::new();
    let position = o
        .get("position")
        .and_then(|p| field::or_fault(p.as_object(), &mut faults));
    // A datum nobody knows would put the marker hundreds of metres away: no position then.
    let datum = match position.and_then(|p| p.get("datum")) {
        None => Ok(m.datum),
        Some(named) => named
            .as_text()
            .and_then(Datum::parse)
            .ok_or(Fault::BadField),
    };
    let is_back_fill = o.get("is_back_fill").map(Item::as_flag);
    Report {
        device: m.speaker.to_owned(),
        device_time_ms: field::time_ms(o, "time_ms", &mut faults),
        fix: position.and_then(|p| fix(p, datum, &mut faults)),
        battery_pct: field::number(o, "battery_pct", 0.0, 100.0, &mut faults),
        kind: field::text(o, "kind", TEXT_MAX, &mut faults).map(Into::into),
        model: field::text(o, "model", TEXT_MAX, &mut faults),
        mode: field::text(o, "mode", TEXT_MAX, &mut faults),
        sos: call(o, &mut faults),
        sight: sight(o, datum.unwrap_or(m.datum), &mut faults),
        alarms: alarms(o, &mut faults),
        properties: properties(o, &mut faults),
        is_back_fill: is_back_fill.and_then(|b| field::or_fault(b, &mut faults)) == Some(true),
        faults,
        ..Report::default()
    }
}

fn fix(p: Object<'_>, datum: Result<Datum, Fault>, faults: &mut Vec<Fault>) -> Option<Fix> {
    match datum.and_then(|d| field::position(p, &COORDINATES, d)) {
        Ok(fix) => Some(Fix {
            alt_m: field::number(p, "alt_m", field::ALT_MIN_M, field::ALT_MAX_M, faults),
            accuracy_m: field::number(p, "accuracy_m", 0.0, field::ACCURACY_MAX_M, faults),
            speed_mps: field::number(p, "speed_mps", 0.0, field::SPEED_MAX_MPS, faults),
            heading_deg: field::heading(p, "heading_deg", faults),
            course_deg: field::heading(p, "course_deg", faults),
            climb_mps: field::number(
                p,
                "climb_mps",
                -field::SPEED_MAX_MPS,
                field::SPEED_MAX_MPS,
                faults,
            ),
            ..fix
        }),
        Err(fault) => {
            faults.push(fault);
            None
        }
    }
}

/// Places on the ground are of the same datum as the position.
fn sight(o: Object<'_>, datum: Datum, faults: &mut Vec<Fault>) -> Option<Box<Sight>> {
    let s = field::or_fault(o.get("sight")?.as_object(), faults)?;
    let place = |item: Item<'_>, faults: &mut Vec<Fault>| {
        let place = item.as_object().ok_or(Fault::BadField);
        match place.and_then(|p| field::position(p, &COORDINATES, datum)) {
            Ok(fix) => Some((fix.lat, fix.lon)),
            Err(fault) => {
                faults.push(fault);
                None
            }
        }
    };
    let mut corners = Vec::new();
    if let Some(list) = s.get("corners") {
        // All of them or none: a picture on the ground with a corner missing is another one.
        let all: Option<Vec<_>> = list.as_list().and_then(|all| {
            all.take(CORNERS_MAX + 1)
                .map(|c| place(c, faults))
                .collect()
        });
        corners =
            field::or_fault(all.filter(|all| all.len() <= CORNERS_MAX), faults).unwrap_or_default();
    }
    Some(Box::new(Sight {
        azimuth_deg: field::heading(s, "azimuth_deg", faults),
        elevation_deg: field::number(s, "elevation_deg", -90.0, 90.0, faults),
        hfov_deg: field::number(s, "hfov_deg", 0.0, 360.0, faults),
        vfov_deg: field::number(s, "vfov_deg", 0.0, 180.0, faults),
        height_m: field::number(s, "height_m", field::ALT_MIN_M, field::ALT_MAX_M, faults),
        slant_range_m: field::number(s, "slant_range_m", 0.0, field::ALT_MAX_M, faults),
        centre: s.get("centre").and_then(|p| place(p, faults)),
        target: s.get("target").and_then(|p| place(p, faults)),
        corners,
    }))
}

fn alarms(o: Object<'_>, faults: &mut Vec<Fault>) -> Option<Vec<Alarm>> {
    let list = field::or_fault(o.get("alarms")?.as_list(), faults)?;
    let mut all = Vec::new();
    for item in list {
        if all.len() == ALARMS_MAX {
            faults.push(Fault::TooLarge);
            break;
        }
        let alarm = item.as_object().and_then(|a| {
            let level = match a.get("level").map(Item::as_text) {
                None => AlarmLevel::Warning,
                Some(Some("notice")) => AlarmLevel::Notice,
                Some(Some("caution")) => AlarmLevel::Caution,
                Some(Some("warning")) => AlarmLevel::Warning,
                Some(_) => return None,
            };
            Some(Alarm {
                code: field::text(a, "code", TEXT_MAX, faults)?,
                level,
                text: field::text(a, "text", NOTE_MAX, faults),
            })
        });
        all.extend(field::or_fault(alarm, faults));
    }
    Some(all)
}

/// Names have the shape of ids, so that they may stand anywhere.
fn properties(o: Object<'_>, faults: &mut Vec<Fault>) -> Vec<Property> {
    let mut all = Vec::new();
    let told = o.get("properties");
    let Some(told) = told.and_then(|p| field::or_fault(p.as_object(), faults)) else {
        return all;
    };
    for (name, item) in told.members().filter(|(_, v)| !v.is_null()) {
        let name = field::or_fault(Some(name).filter(|n| is_id(n)), faults);
        if let Some((name, value)) = name.zip(field::value(item, faults)) {
            field::property(&mut all, name.to_owned(), value, faults);
        }
    }
    all
}

/// Anything but null and false is a call for help, however badly it is written.
fn call(o: Object<'_>, faults: &mut Vec<Fault>) -> Option<Sos> {
    let told = o.get("sos")?;
    match (told.as_flag(), told.as_object()) {
        (Some(false), _) => None,
        (_, Some(s)) => Some(Sos {
            id: field::text(s, "id", TEXT_MAX, faults),
            note: field::text(s, "note", NOTE_MAX, faults),
        }),
        (is_flag, _) => {
            field::or_fault(is_flag, faults);
            Some(Sos::default())
        }
    }
}

#[cfg(test)]
mod tests;
