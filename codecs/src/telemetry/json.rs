//! Our own JSON over MQTT (gateway/API.md): `kerbside/v1/{device}/report` and `/sos`.
//!
//! A faulty part is refused and the rest stands. A call for help stands whatever else is wrong with it.

use serde_json::Value;

use super::field::{self, Names, Object};
use super::{Codec, Datum, Decoded, Fault, Fix, Message, Report, Sos, is_id};

/// Most reports in one message.
const REPORTS_MAX: usize = 256;
const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;
/// Greatest accuracy radius that is believed, metres.
const ACCURACY_MAX_M: f64 = 1e6;

pub const CODEC: Codec = Codec {
    up,
    down,
    for_sub_devices: false,
    decode,
};

fn up(topic: &str) -> Option<(&str, &str)> {
    let (device, channel) = topic.strip_prefix("kerbside/v1/")?.split_once('/')?;
    (is_id(device) && matches!(channel, "report" | "sos")).then_some((device, channel))
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
    let parsed = field::parse(m.payload);
    if m.channel == "sos" {
        return sos(m, parsed);
    }
    let mut decoded = Decoded::default();
    match parsed {
        Ok(Value::Object(o)) => decoded.reports.push(report(m, &o)),
        Ok(Value::Array(mut all)) => {
            if all.len() > REPORTS_MAX {
                // The newest are at the end.
                all.drain(..all.len() - REPORTS_MAX);
                decoded.faults.push(Fault::TooLarge);
            }
            for v in &all {
                match v {
                    Value::Object(o) => decoded.reports.push(report(m, o)),
                    _ => decoded.faults.push(Fault::NotJson),
                }
            }
        }
        Ok(_) => decoded.faults.push(Fault::NotJson),
        Err(fault) => decoded.faults.push(fault),
    }
    decoded
}

/// The topic alone says "help": a payload that cannot be read does not silence it.
fn sos(m: &Message<'_>, parsed: Result<Value, Fault>) -> Decoded {
    let mut help = match parsed {
        Ok(Value::Object(o)) => {
            let mut r = report(m, &o);
            let id = field::text(&o, "id", TEXT_MAX, &mut r.faults);
            let note = field::text(&o, "note", NOTE_MAX, &mut r.faults);
            let inner = r.sos.take();
            let (inner_id, inner_note) = inner.map_or((None, None), |s| (s.id, s.note));
            r.sos = Some(Sos {
                id: id.or(inner_id),
                note: note.or(inner_note),
            });
            r
        }
        other => Report {
            device: m.speaker.to_owned(),
            faults: if m.payload.is_empty() {
                Vec::new()
            } else {
                vec![other.err().unwrap_or(Fault::NotJson)]
            },
            ..Report::default()
        },
    };
    help.sos.get_or_insert(Sos {
        id: None,
        note: None,
    });
    Decoded {
        reports: vec![help],
        ..Decoded::default()
    }
}

fn report(m: &Message<'_>, o: &Object) -> Report {
    let mut faults = Vec::new();
    Report {
        device: m.speaker.to_owned(),
        device_time_ms: field::time_ms(o, "time_ms", &mut faults),
        fix: fix(m.datum, o, &mut faults),
        battery_pct: field::number(o, "battery_pct", 0.0, 100.0, &mut faults),
        kind: field::text(o, "kind", TEXT_MAX, &mut faults).map(Into::into),
        model: field::text(o, "model", TEXT_MAX, &mut faults),
        mode: field::text(o, "mode", TEXT_MAX, &mut faults),
        sos: call(o, &mut faults),
        faults,
        ..Report::default()
    }
}

fn fix(usual: Datum, o: &Object, faults: &mut Vec<Fault>) -> Option<Fix> {
    let Value::Object(p) = field::get(o, "position")? else {
        faults.push(Fault::BadField);
        return None;
    };
    // A datum nobody knows would put the marker hundreds of metres away: no position then.
    let datum = match field::get(p, "datum") {
        None => Some(usual),
        Some(named) => named.as_str().and_then(Datum::parse),
    };
    let names = Names {
        lat: "lat",
        lon: "lon",
    };
    match datum
        .ok_or(Fault::BadField)
        .and_then(|d| field::position(p, &names, d))
    {
        Ok(fix) => Some(Fix {
            alt_m: field::number(p, "alt_m", field::ALT_MIN_M, field::ALT_MAX_M, faults),
            accuracy_m: field::number(p, "accuracy_m", 0.0, ACCURACY_MAX_M, faults),
            speed_mps: field::number(p, "speed_mps", 0.0, field::SPEED_MAX_MPS, faults),
            heading_deg: field::heading(p, "heading_deg", faults),
            ..fix
        }),
        Err(fault) => {
            faults.push(fault);
            None
        }
    }
}

/// Anything but null and false is a call for help, however badly it is written.
fn call(o: &Object, faults: &mut Vec<Fault>) -> Option<Sos> {
    match field::get(o, "sos")? {
        Value::Bool(false) => None,
        Value::Object(s) => Some(Sos {
            id: field::text(s, "id", TEXT_MAX, faults),
            note: field::text(s, "note", NOTE_MAX, faults),
        }),
        other => {
            if other != &Value::Bool(true) {
                faults.push(Fault::BadField);
            }
            Some(Sos {
                id: None,
                note: None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use crate::geo;

    const NOW: i64 = 1_795_219_200_500;

    fn one(json: &str) -> Report {
        let mut d = decode("bc-01", "kerbside/v1/bc-01/report", json.as_bytes(), NOW);
        assert_eq!(d.reports.len(), 1, "{d:?}");
        d.reports.remove(0)
    }

    #[test]
    fn the_report_of_the_contract() {
        let r = one(
            r#"{"time_ms":1795219200000,"position":{"lat":37.6901,"lon":112.7502,"alt_m":801.5,"accuracy_m":5.0,
                "speed_mps":1.2,"heading_deg":270.0},"battery_pct":83,"kind":"bodycam","model":"X5","mode":"patrol",
                "sos":{"id":"a1","note":"help"},"later":[1]}"#,
        );
        assert_eq!(
            r,
            Report {
                device: "bc-01".into(),
                kind: Some("bodycam".into()),
                model: Some("X5".into()),
                device_time_ms: Some(1_795_219_200_000),
                fix: Some(Fix {
                    alt_m: Some(801.5),
                    accuracy_m: Some(5.0),
                    speed_mps: Some(1.2),
                    heading_deg: Some(270.0),
                    ..Fix::at(37.6901, 112.7502, Datum::Wgs84)
                }),
                battery_pct: Some(83.0),
                sos: Some(Sos {
                    id: Some("a1".into()),
                    note: Some("help".into())
                }),
                mode: Some("patrol".into()),
                ..Report::default()
            }
        );
    }

    #[test]
    fn a_bad_part_is_refused_and_the_rest_stands() {
        let r = one(
            r#"{"time_ms":179521920000,"position":{"lat":37.69,"lon":112.75,"accuracy_m":-1,"heading_deg":-90},
                "battery_pct":101,"mode":7,"model":{}}"#,
        );
        assert_eq!(r.device_time_ms, None);
        assert_eq!(r.battery_pct, None);
        let f = r.fix.unwrap();
        assert_eq!((f.accuracy_m, f.heading_deg), (None, Some(270.0)));
        assert_eq!(r.mode.as_deref(), Some("7"));
        assert_eq!(r.faults, [Fault::BadField; 4]);
    }

    #[test]
    fn positions_that_are_none() {
        for (position, fault) in [
            (r#"{"lat":0,"lon":0}"#, Fault::NoFix),
            (r#"{"lat":"0.0","lon":-0.0}"#, Fault::NoFix),
            (r#"{"lat":91,"lon":10}"#, Fault::OutsideWorld),
            (r#"{"lat":10,"lon":-180.5}"#, Fault::OutsideWorld),
            (r#"{"lat":"NaN","lon":10}"#, Fault::BadField),
            (r#"{"lat":10}"#, Fault::BadField),
            (r#"{"lat":10,"lon":10,"datum":"cgcs"}"#, Fault::BadField),
            ("[1,2]", Fault::BadField),
        ] {
            let r = one(&format!(r#"{{"position":{position},"battery_pct":50}}"#));
            assert_eq!(r.fix, None, "{position}");
            assert_eq!(r.faults, [fault], "{position}");
            assert_eq!(r.battery_pct, Some(50.0));
        }
        assert!(one(r#"{"position":null}"#).faults.is_empty());
    }

    #[test]
    fn numbers_as_text_and_other_datums() {
        let r = one(
            r#"{"position":{"lat":"37.6906807","lon":"112.7564918","datum":"GCJ02"},"battery_pct":"12.5","kind":"hoverboard"}"#,
        );
        let f = r.fix.unwrap();
        assert!(geo::distance_m((f.lat, f.lon), (37.69, 112.75)) < 0.02);
        assert_eq!(f.source_datum, Datum::Gcj02);
        assert_eq!(r.battery_pct, Some(12.5));
        assert_eq!(r.kind.as_deref(), Some("hoverboard"));
    }

    #[test]
    fn arrays_keep_their_order_and_their_limit() {
        let d = decode(
            "a",
            "kerbside/v1/a/report",
            br#"[{"battery_pct":1},7,{"battery_pct":2}]"#,
            NOW,
        );
        assert_eq!(d.faults, [Fault::NotJson]);
        let levels: Vec<_> = d.reports.iter().map(|r| r.battery_pct).collect();
        assert_eq!(levels, [Some(1.0), Some(2.0)]);

        let many: Vec<_> = (0..300)
            .map(|i| serde_json::json!({"mode": i.to_string()}))
            .collect();
        let d = decode(
            "a",
            "kerbside/v1/a/report",
            Value::from(many).to_string().as_bytes(),
            NOW,
        );
        assert_eq!(d.faults, [Fault::TooLarge]);
        assert_eq!(d.reports.len(), 256);
        assert_eq!(d.reports[255].mode.as_deref(), Some("299"));
    }

    #[test]
    fn help_is_heard_however_it_is_written() {
        let sos = |payload: &[u8]| {
            decode("a", "kerbside/v1/a/sos", payload, NOW)
                .reports
                .remove(0)
        };
        let good =
            sos(br#"{"id":"a1","note":"n","time_ms":1795219200000,"position":{"lat":1,"lon":2}}"#);
        assert_eq!(good.sos.unwrap().id.as_deref(), Some("a1"));
        assert!(good.fix.is_some() && good.faults.is_empty());
        assert_eq!(sos(b"").faults, []);
        for bad in [&b"\xff"[..], b"[]", b"1", &[b' '; 300_000]] {
            let r = sos(bad);
            assert!(r.sos.is_some());
            assert_eq!(r.faults.len(), 1);
        }
        assert!(one(r#"{"sos":true}"#).sos.is_some());
        assert!(one(r#"{"sos":"please"}"#).sos.is_some());
        assert!(one(r#"{"sos":false}"#).sos.is_none());
    }

    #[test]
    fn too_large_too_deep_or_no_json() {
        let faults = |p: &[u8]| decode("a", "kerbside/v1/a/report", p, NOW).faults;
        assert_eq!(faults(&vec![b' '; 256 * 1024 + 1]), [Fault::TooLarge]);
        assert_eq!(faults("[".repeat(200).as_bytes()), [Fault::NotJson]);
        assert_eq!(faults(b"{"), [Fault::NotJson]);
        assert_eq!(faults(b"\"x\""), [Fault::NotJson]);
    }
}
