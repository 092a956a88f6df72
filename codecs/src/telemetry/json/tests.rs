use serde_json::Value;

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
        (r#"{"lat":191,"lon":10}"#, Fault::OutsideWorld),
        (r#"{"lat":113.4,"lon":23.4}"#, Fault::Swapped),
        (r#"{"lat":10,"lon":-180.5}"#, Fault::OutsideWorld),
        (r#"{"lat":"NaN","lon":10}"#, Fault::BadField),
        (r#"{"lat":10}"#, Fault::BadField),
        (r#"{"lat":10,"lon":10,"datum":"cgcs"}"#, Fault::BadField),
        ("[1,2]", Fault::BadField),
    ] {
        let r = one(&format!(r#"{{"position":{position},"battery_pct":50}}"#));
        assert_eq!(r.fix, None, "{position}");
        let is_text = position.contains("\"0.0");
        let quirk = is_text.then_some(Fault::NumberAsText);
        let expected: Vec<_> = [fault].into_iter().chain(quirk).collect();
        assert_eq!(r.faults, expected, "{position}");
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
    assert_eq!(r.faults, [Fault::NumberAsText]);
    let r =
        one(r#"{"position":{"lat":1,"lat":37.69,"lon":112.75},"battery_pct":1,"battery_pct":2}"#);
    assert_eq!((r.fix.unwrap().lat, r.battery_pct), (37.69, Some(2.0)));
    assert_eq!(r.faults, [Fault::DuplicateKey], "once a message");
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

#[test]
fn the_wider_report() {
    let r = one(
        r#"{"position":{"lat":37.69,"lon":112.75,"course_deg":361,"climb_mps":-2.5},"is_back_fill":true,
            "sight":{"azimuth_deg":-10,"elevation_deg":-30,"hfov_deg":60,"vfov_deg":40,"height_m":80,"slant_range_m":160,
            "centre":{"lat":37.691,"lon":112.75},"target":{"lat":0,"lon":0},
            "corners":[{"lat":1,"lon":1},{"lat":1,"lon":2},{"lat":2,"lon":2},{"lat":2,"lon":1}]},
            "alarms":[{"code":"E1","level":"caution","text":"hot"},{"code":"E2"},{"level":"notice"}],
            "properties":{"load_pct":12.5,"lamp":true,"net":"5G","bad":[1],"no name":1,"none":null}}"#,
    );
    let f = r.fix.unwrap();
    assert_eq!((f.course_deg, f.climb_mps), (None, Some(-2.5)));
    assert!(r.is_back_fill);
    let s = r.sight.as_deref().unwrap();
    assert_eq!((s.azimuth_deg, s.elevation_deg), (Some(350.0), Some(-30.0)));
    assert_eq!((s.hfov_deg, s.vfov_deg), (Some(60.0), Some(40.0)));
    assert_eq!((s.height_m, s.slant_range_m), (Some(80.0), Some(160.0)));
    assert_eq!((s.centre, s.target), (Some((37.691, 112.75)), None));
    assert_eq!(s.corners.len(), 4);
    let alarms = r.alarms.unwrap();
    let told: Vec<_> = alarms.iter().map(|a| (&*a.code, a.level)).collect();
    assert_eq!(
        told,
        [("E1", AlarmLevel::Caution), ("E2", AlarmLevel::Warning)]
    );
    let names: Vec<_> = r.properties.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["load_pct", "lamp", "net"]);
    // course, target, an alarm without a code, a list, a name.
    let mut faults = vec![Fault::BadField; 4];
    faults.insert(1, Fault::NoFix);
    assert_eq!(r.faults, faults);
    assert_eq!(one(r#"{"alarms":[]}"#).alarms, Some(vec![]));
    assert_eq!(one(r#"{"alarms":7}"#).alarms, None);
    assert!(
        one(r#"{"sight":{"corners":[{"lat":1,"lon":1},7]}}"#)
            .sight
            .unwrap()
            .corners
            .is_empty()
    );
}

#[test]
fn a_report_is_bounded() {
    let properties: Vec<_> = (0..100).map(|i| format!("\"p{i}\":{i}")).collect();
    let r = one(&format!("{{\"properties\":{{{}}}}}", properties.join(",")));
    assert_eq!(r.properties.len(), crate::telemetry::report::PROPERTIES_MAX);
    assert_eq!(r.faults, [Fault::TooLarge]);
    let alarms = vec![r#"{"code":"E"}"#; 100].join(",");
    let r = one(&format!("{{\"alarms\":[{alarms}]}}"));
    assert_eq!(r.alarms.unwrap().len(), ALARMS_MAX);
    assert_eq!(r.faults, [Fault::TooLarge]);
}

#[test]
fn orders_are_answered() {
    let ack = |payload: &str| decode("a", "kerbside/v1/a/ack", payload.as_bytes(), NOW);
    let d = ack(
        r#"[{"order":"o1","said":"delivered"},{"order":"o1","said":"read"},{"order":7,"said":"refused","note":"busy"}]"#,
    );
    assert_eq!(d.faults, []);
    let told: Vec<_> = d
        .answers
        .iter()
        .map(|a| (&*a.order, a.said, a.note.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("o1", Said::Delivered, None),
            ("o1", Said::Read, None),
            ("7", Said::Refused, Some("busy")),
        ]
    );
    assert_eq!(
        ack(r#"{"order":"o1","said":"perhaps"}"#).faults,
        [Fault::BadField]
    );
    assert_eq!(ack(r#"{"said":"read"}"#).faults, [Fault::BadField]);
    assert_eq!(ack("7").faults, [Fault::NotJson]);
}

#[test]
fn a_last_will() {
    let say = |payload: &str| decode("a", "kerbside/v1/a/online", payload.as_bytes(), NOW);
    assert_eq!(say(r#"{"online":false}"#).reports[0].online, Some(false));
    assert_eq!(say(r#"{"online":true}"#).reports[0].online, Some(true));
    for bad in ["{}", "false", r#"{"online":"no"}"#] {
        assert_eq!(say(bad).faults, [Fault::BadField], "{bad}");
    }
}
