//! OwnTracks (its booklet's "JSON"): `owntracks/{user}/{phone}` and what is below. The user is the device id, and a phone
//! calls itself what it likes; or the phone is the device id, whoever the user is.
//!
//! Here: positions and last wills. What else the apps send (waypoints, cards, steps) is taken and not used.

use super::document::{Document, Item, Object};
use super::field::{self, Names, TEXT_MAX};
use super::report::{Property, Value};
use super::{Codec, Decoded, Fault, Fix, Message, Report, is_id};

/// Most objects in one message.
const OBJECTS_MAX: usize = 256;

pub const CODEC: Codec = Codec {
    uplinks: &["owntracks/+/+", "owntracks/+/+/event"],
    up,
    or: phone,
    down,
    for_sub_devices: false,
    decode,
};

/// User, phone and the levels below.
fn split(topic: &str) -> Option<(&str, &str, &str)> {
    let (user, rest) = topic.strip_prefix("owntracks/")?.split_once('/')?;
    let (phone, channel) = rest.split_once('/').unwrap_or((rest, ""));
    (is_id(user) && !phone.is_empty()).then_some((user, phone, channel))
}

fn up(topic: &str) -> Option<(&str, &str)> {
    let (user, _, channel) = split(topic)?;
    let is_ours = matches!(
        channel,
        "" | "event" | "waypoint" | "waypoints" | "dump" | "step" | "beacon" | "status" | "info"
    );
    is_ours.then_some((user, channel))
}

fn phone(topic: &str) -> Option<&str> {
    split(topic).map(|(_, phone, _)| phone)
}

fn down(device: &str, filter: &str) -> bool {
    split(filter).is_some_and(|(user, phone, channel)| {
        user == device && channel == "cmd" && (phone == "+" || !phone.contains(['+', '#', '\0']))
    })
}

fn decode(m: &Message<'_>) -> Decoded {
    let document = match Document::parse(m.payload) {
        Ok(document) => document,
        Err(fault) => return Decoded::refused(fault),
    };
    let root = document.root();
    let mut decoded = Decoded::default();
    if let Some(o) = root.as_object() {
        one(m, o, &mut decoded);
    } else if let Some(list) = root.as_list() {
        for (i, item) in list.enumerate() {
            if i == OBJECTS_MAX {
                decoded.faults.push(Fault::TooLarge);
                break;
            }
            match item.as_object() {
                Some(o) => one(m, o, &mut decoded),
                None => decoded.faults.push(Fault::NotJson),
            }
        }
    } else {
        decoded.faults.push(Fault::NotJson);
    }
    decoded.note_quirks(document.quirks())
}

fn one(m: &Message<'_>, o: Object<'_>, decoded: &mut Decoded) {
    match o.get("_type").and_then(Item::as_text) {
        Some("location" | "transition") => decoded.reports.push(location(m, o)),
        // Its time is that of the connection which has ended.
        Some("lwt") => decoded.reports.push(Report {
            device: m.speaker.to_owned(),
            online: Some(false),
            ..Report::default()
        }),
        Some("encrypted") => decoded.faults.push(Fault::Encrypted),
        Some(
            "waypoint" | "waypoints" | "card" | "beacon" | "steps" | "status" | "dump"
            | "configuration" | "cmd" | "request",
        ) => {}
        _ => decoded.faults.push(Fault::UnknownMethod),
    }
}

/// `acc`, `alt`, `cog`, `vac` and `vel` are left out when they are zero or unknown: absent is not zero.
fn location(m: &Message<'_>, o: Object<'_>) -> Report {
    const NAMES: Names = Names {
        lat: "lat",
        lon: "lon",
    };
    const KMH_MAX: f64 = field::SPEED_MAX_MPS * 3.6;
    let mut faults = Vec::new();
    let mut number = |key, min, max| field::number(o, key, min, max, &mut faults);
    let (alt_m, accuracy_m) = (
        number("alt", field::ALT_MIN_M, field::ALT_MAX_M),
        number("acc", 0.0, field::ACCURACY_MAX_M),
    );
    let speed_mps = number("vel", 0.0, KMH_MAX).map(|kmh| kmh / 3.6);
    let course_deg = number("cog", 0.0, 360.0).map(field::turn);
    let battery_pct = number("batt", 0.0, 100.0);
    let fix = field::position(o, &NAMES, m.datum)
        .map_err(|fault| faults.push(fault))
        .ok();
    Report {
        device: m.speaker.to_owned(),
        // When it was there; `created_at` is when the message was made.
        device_time_ms: o.get("tst").and_then(|t| {
            let ms = t.as_integer().and_then(|s| s.checked_mul(1000));
            field::or_fault(ms.filter(field::is_time_ms), &mut faults)
        }),
        fix: fix.map(|fix| Fix {
            alt_m,
            accuracy_m,
            speed_mps,
            course_deg,
            ..fix
        }),
        battery_pct,
        mode: o.get("m").and_then(Item::as_integer).and_then(|m| {
            let mode = match m {
                -1 => "quiet",
                0 => "manual",
                1 => "significant changes",
                2 => "move",
                _ => return None,
            };
            Some(mode.to_owned())
        }),
        properties: properties(o, &mut faults),
        faults,
        ..Report::default()
    }
}

fn properties(o: Object<'_>, faults: &mut Vec<Fault>) -> Vec<Property> {
    let mut all = Vec::new();
    let mut add = |name, value: Option<Value>, faults: &mut Vec<Fault>| {
        if let Some(value) = value {
            field::property(&mut all, name, value, faults);
        }
    };
    let vertical = field::number(o, "vac", 0.0, field::ACCURACY_MAX_M, faults);
    add("alt_accuracy_m", vertical.map(Value::Number), faults);
    let network = o.get("conn").and_then(Item::as_text).and_then(|c| match c {
        "w" => Some("wifi"),
        "m" => Some("mobile"),
        "o" => Some("offline"),
        _ => None,
    });
    add("network", network.map(|n| Value::Text(n.into())), faults);
    let charging = o.get("bs").and_then(Item::as_integer).filter(|b| *b != 0);
    add("charging", charging.map(|b| Value::Flag(b >= 2)), faults);
    if let Some(event) = field::text(o, "event", TEXT_MAX, faults) {
        let place = field::text(o, "desc", TEXT_MAX, faults).unwrap_or_default();
        let event = format!("{event} {place}").trim_end().to_owned();
        add("region_event", Some(Value::Text(event)), faults);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::{Codecs, decode};
    use super::*;
    use crate::telemetry::Datum;

    const NOW: i64 = 1_795_219_200_500;

    fn say(payload: &str) -> Decoded {
        decode("p1", "owntracks/p1/phone", payload.as_bytes(), NOW)
    }

    #[test]
    fn a_location_of_the_booklet() {
        let d = say(
            r#"{"_type":"location","lat":37.69,"lon":112.75,"tst":1795219190,"created_at":1795219199,"acc":13,"alt":801,
                "vel":36,"cog":270,"batt":72,"bs":1,"vac":3,"t":"u","conn":"m","m":2,"tid":"p1"}"#,
        );
        assert_eq!(d.faults, []);
        let r = &d.reports[0];
        assert_eq!((&*r.device, &r.faults[..]), ("p1", &[][..]));
        assert_eq!(
            r.device_time_ms,
            Some(1_795_219_190_000),
            "tst, not created_at"
        );
        let expected = Fix {
            alt_m: Some(801.0),
            accuracy_m: Some(13.0),
            speed_mps: Some(10.0),
            course_deg: Some(270.0),
            ..Fix::at(37.69, 112.75, Datum::Wgs84)
        };
        assert_eq!(r.fix, Some(expected));
        assert_eq!(r.battery_pct, Some(72.0));
        assert_eq!(r.mode.as_deref(), Some("move"));
        let named: Vec<_> = r.properties.iter().map(|p| (&*p.name, &p.value)).collect();
        assert_eq!(
            named,
            [
                ("alt_accuracy_m", &Value::Number(3.0)),
                ("network", &Value::Text("mobile".into())),
                ("charging", &Value::Flag(false)),
            ]
        );
    }

    #[test]
    fn what_is_absent_is_not_zero() {
        let d = say(r#"{"_type":"location","lat":37.69,"lon":112.75,"tst":1795219190}"#);
        let f = d.reports[0].fix.unwrap();
        assert_eq!(
            (f.speed_mps, f.course_deg, f.accuracy_m, f.alt_m),
            (None, None, None, None)
        );
    }

    #[test]
    fn bad_parts_are_refused() {
        let d = say(r#"{"_type":"location","lat":0,"lon":0,"tst":1795219190000,"batt":101}"#);
        let r = &d.reports[0];
        assert_eq!((r.fix, r.device_time_ms, r.battery_pct), (None, None, None));
        assert_eq!(r.faults.len(), 3);
        assert!(r.faults.contains(&Fault::NoFix));
        let overflow = say(r#"{"_type":"location","lat":1,"lon":1,"tst":9223372036854775807}"#);
        assert_eq!(overflow.reports[0].faults, [Fault::BadField]);
    }

    #[test]
    fn other_types() {
        let lwt = say(r#"{"_type":"lwt","tst":1795219190}"#);
        assert_eq!(lwt.reports[0].online, Some(false));
        let enter = decode(
            "p1",
            "owntracks/p1/phone/event",
            br#"{"_type":"transition","event":"enter","desc":"market","lat":37.69,"lon":112.75,"tst":1795219190,"wtst":1}"#,
            NOW,
        );
        let r = &enter.reports[0];
        assert!(r.fix.is_some());
        assert_eq!(r.properties[0].value, Value::Text("enter market".into()));
        for quiet in [
            r#"{"_type":"waypoint"}"#,
            r#"[{"_type":"card"},{"_type":"steps"}]"#,
        ] {
            assert_eq!(say(quiet), Decoded::default(), "{quiet}");
        }
        assert_eq!(
            say(r#"{"_type":"encrypted","data":"x"}"#).faults,
            [Fault::Encrypted]
        );
        assert_eq!(say(r#"{"lat":1,"lon":2}"#).faults, [Fault::UnknownMethod]);
        assert_eq!(say("7").faults, [Fault::NotJson]);
        let many = format!("[{}]", vec![r#"{"_type":"lwt"}"#; 300].join(","));
        let d = say(&many);
        assert_eq!(
            (d.reports.len(), &d.faults[..]),
            (256, &[Fault::TooLarge][..])
        );
    }

    #[test]
    fn the_user_or_the_phone_is_the_device() {
        let codecs = Codecs::default();
        let text = br#"{"_type":"location","lat":37.69,"lon":112.75}"#;
        for topic in ["owntracks/p1/p2", "owntracks/p2/p1", "owntracks/p1/p1"] {
            let d = decode("p1", topic, text, NOW);
            assert_eq!(d.reports[0].device, "p1", "{topic}");
        }
        let other = decode("p1", "owntracks/p2/p3", text, NOW);
        assert_eq!(other, Decoded::refused(Fault::UnknownTopic));
        for (topic, may) in [
            ("owntracks/p1/phone", true),
            ("owntracks/p1/any thing", true),
            ("owntracks/p1/phone/event", true),
            ("owntracks/p1/phone/cmd", false),
            ("owntracks/p1/phone/x", false),
            ("owntracks/p2/phone", false),
            ("owntracks/p2/p1", true),
            ("owntracks/p2/p1/event", true),
            ("owntracks/p2/p1/cmd", false),
            ("owntracks/p1", false),
            ("owntracks/p1/", false),
        ] {
            assert_eq!(
                codecs.may_publish("p1", &["p2".into()], topic),
                may,
                "{topic}"
            );
        }
        for (filter, may) in [
            ("owntracks/p1/phone/cmd", true),
            ("owntracks/p1/+/cmd", true),
            ("owntracks/+/+", false),
            ("owntracks/+/+/cmd", false),
            ("owntracks/p1/#", false),
            ("owntracks/p2/phone/cmd", false),
        ] {
            assert_eq!(codecs.may_subscribe("p1", filter), may, "{filter}");
        }
    }
}
