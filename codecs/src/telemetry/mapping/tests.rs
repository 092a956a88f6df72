use super::*;
use crate::telemetry::Codecs;

const NOW: i64 = 1_795_219_200_500;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn number(text: &str, of: Quantity, unit: &str) -> Option<Number> {
    Some(Number {
        path: path(text),
        scale: of.unit(unit).unwrap(),
    })
}

fn test(text: &str, values: &[&str]) -> Test {
    Test {
        path: path(text),
        values: values.iter().map(|v| (*v).to_owned()).collect(),
    }
}

pub fn mapping(topic: &str) -> Mapping {
    Mapping {
        name: "acme".into(),
        topic: Topic::parse(topic).unwrap(),
        down: Some(Topic::parse_down("acme/{device}/cmd").unwrap()),
        when: Vec::new(),
        positions: None,
        datum: None,
        fields: Fields {
            lat: number("gps.lat", Quantity::Coordinate, "deg"),
            lon: number("gps.lon", Quantity::Coordinate, "deg"),
            speed: number("spd", Quantity::Speed, "km/h"),
            course: number("dir", Quantity::Angle, "deg"),
            battery: number("bat", Quantity::Battery, "0..1"),
            time: Some((path("t"), Time::Local { zone_min: 480 })),
            fix: Some(test("gps.valid", &["A"])),
            sos: Some(test("key", &["help", "1"])),
            mode: Some(path("state")),
            ..Fields::default()
        },
        properties: vec![("signal_dbm".into(), path("rssi"))],
    }
}

fn say(codecs: &Codecs, topic: &str, payload: &str) -> Decoded {
    let speaker = Speaker {
        device: "a",
        ..Speaker::default()
    };
    codecs.decode(speaker, topic, payload.as_bytes(), NOW)
}

#[test]
fn a_vendors_message() {
    let codecs = Codecs::new(vec![mapping("acme/{device}/pos")]);
    let d = say(
        &codecs,
        "acme/a/pos",
        r#"{"gps":{"lat":"37.69","lon":112.75,"valid":"A"},"spd":36,"dir":-90,"bat":0.5,"t":"2026-11-21 08:00:00",
            "key":1,"state":"patrol","rssi":-71}"#,
    );
    assert_eq!(d.faults, []);
    let r = &d.reports[0];
    assert_eq!((&*r.device, &r.faults[..]), ("a", &[][..]));
    let f = r.fix.unwrap();
    assert_eq!((f.lat, f.lon), (37.69, 112.75));
    assert_eq!((f.speed_mps, f.course_deg), (Some(10.0), Some(270.0)));
    assert_eq!(r.battery_pct, Some(50.0));
    assert_eq!(r.device_time_ms, Some(1_795_219_200_000));
    assert!(r.sos.is_some());
    assert_eq!(r.mode.as_deref(), Some("patrol"));
    assert_eq!(r.properties[0].name, "signal_dbm");
    assert_eq!(r.properties[0].value, Value::Number(-71.0));
}

#[test]
fn bad_parts_are_refused_and_absent_ones_are_none() {
    let codecs = Codecs::new(vec![mapping("acme/{device}/pos")]);
    let faults = |payload: &str| {
        let d = say(&codecs, "acme/a/pos", payload);
        assert!(d.reports.iter().all(|r| r.fix.is_none()), "{payload}");
        let parts = d.reports.into_iter().flat_map(|r| r.faults);
        parts.chain(d.faults).collect::<Vec<_>>()
    };
    for (payload, expected) in [
        (r#"{"gps":{"lat":0,"lon":0}}"#, &[Fault::NoFix][..]),
        (r#"{"gps":{"lat":1,"lon":2,"valid":"V"}}"#, &[Fault::NoFix]),
        (r#"{"gps":{"lat":113.4,"lon":23.4}}"#, &[Fault::Swapped]),
        (r#"{"gps":{"lat":1}}"#, &[Fault::BadField]),
        (r#"{"gps":{"lat":1,"lon":"x"}}"#, &[Fault::BadField]),
        (r#"{"bat":2,"t":"soon"}"#, &[Fault::BadField; 2]),
        ("{}", &[]),
        ("[]", &[Fault::NotJson]),
        ("x", &[Fault::NotJson]),
    ] {
        assert_eq!(faults(payload), expected, "{payload}");
    }
    let late = r#"{"t":"2030-11-21 08:00:00"}"#;
    assert_eq!(faults(late), [Fault::FromFuture]);
    let help = |key: &str| {
        let d = say(&codecs, "acme/a/pos", &format!(r#"{{"key":{key}}}"#));
        d.reports[0].sos.is_some()
    };
    assert!(help("\"help\"") && help("1") && !help("0") && !help("true"));
}

#[test]
fn several_formats_of_one_topic() {
    let mut status = mapping("acme/{device}/up");
    status.when = vec![test("type", &["2", "status"])];
    status.fields = Fields {
        model: Some(path("m")),
        ..Fields::default()
    };
    let mut position = mapping("acme/{device}/up");
    position.when = vec![test("type", &["1"]), test("gps", &[])];
    position.datum = Some(Datum::Gcj02);
    let codecs = Codecs::new(vec![status, position]);
    let d = say(&codecs, "acme/a/up", r#"{"type":"status","m":"X5"}"#);
    assert_eq!(d.reports[0].model.as_deref(), Some("X5"));
    let d = say(
        &codecs,
        "acme/a/up",
        r#"{"type":1,"gps":{"lat":37.6906807,"lon":112.7564918}}"#,
    );
    let f = d.reports[0].fix.unwrap();
    assert!((f.lat - 37.69).abs() < 1e-6 && f.source_datum == Datum::Gcj02);
    let d = say(&codecs, "acme/a/up", r#"{"type":3}"#);
    assert_eq!(d.faults, [Fault::UnknownMethod]);
}

#[test]
fn a_list_of_positions_is_told_oldest_first() {
    let mut batch = mapping("acme/{device}/track");
    batch.positions = Some(path("points"));
    batch.fields = Fields {
        lat: number("[1]", Quantity::Coordinate, "deg"),
        lon: number("[0]", Quantity::Coordinate, "deg"),
        time: Some((path("[2]"), Time::Seconds)),
        battery: number("$.bat", Quantity::Battery, "%"),
        back_fill: Some(test("$.cached", &[])),
        ..Fields::default()
    };
    let codecs = Codecs::new(vec![batch]);
    let d = say(
        &codecs,
        "acme/a/track",
        r#"{"bat":40,"cached":true,"points":[[112.75,37.69,1795219200],[112.74,37.68,1795219190],7]}"#,
    );
    assert_eq!(d.reports.len(), 3);
    let d = say(
        &codecs,
        "acme/a/track",
        r#"{"bat":40,"cached":true,"points":[[112.75,37.69,1795219200],[112.74,37.68,1795219190]]}"#,
    );
    let lats: Vec<_> = d.reports.iter().map(|r| r.fix.unwrap().lat).collect();
    assert_eq!(lats, [37.68, 37.69]);
    let rest = |r: &Report| r.battery_pct == Some(40.0) && r.is_back_fill;
    assert!(d.reports.iter().all(rest));

    let points = vec!["[1,2]"; 300].join(",");
    let d = say(
        &codecs,
        "acme/a/track",
        &format!(r#"{{"points":[{points}]}}"#),
    );
    assert_eq!(
        (d.reports.len(), &d.faults[..]),
        (256, &[Fault::TooLarge][..])
    );
    assert_eq!(say(&codecs, "acme/a/track", "{}").faults, [Fault::BadField]);
}

#[test]
fn nobody_speaks_or_listens_for_another() {
    let codecs = Codecs::new(vec![
        mapping("acme/{device}/+"),
        mapping("acme/+/{device}"),
        mapping("{device}/product/a/osd"),
    ]);
    assert!(codecs.may_publish("a", &[], "acme/a/x"));
    assert!(codecs.may_publish("a", &[], "acme/x/a"));
    assert!(!codecs.may_publish("a", &["b".into()], "acme/b/x"));
    assert!(!codecs.may_publish("thing", &[], "thing/product/a/osd"));
    assert!(codecs.may_publish("a", &[], "thing/product/a/osd"));
    assert!(codecs.may_subscribe("a", "acme/a/cmd"));
    assert!(!codecs.may_subscribe("a", "acme/b/cmd"));
    assert!(!codecs.may_subscribe("a", "acme/+/cmd"));
    let filters = codecs.uplinks();
    for wanted in ["acme/+/+", "+/product/a/osd", "kerbside/v1/+/report"] {
        assert_eq!(
            filters.iter().filter(|f| *f == wanted).count(),
            1,
            "{wanted}"
        );
    }
    assert_eq!(codecs.speaker_of("acme/b/x"), Some("b"));
    let other = say(&codecs, "acme/b/x", r#"{"gps":{"lat":1,"lon":2}}"#);
    assert_eq!(other, Decoded::refused(Fault::UnknownTopic));
}

#[test]
fn a_broker_is_asked_for_the_formats_too() {
    let codecs = Codecs::new(vec![
        mapping("acme/+/{device}/pos"),
        mapping("acme/+/{device}/pos"),
    ]);
    let asked = codecs.uplinks();
    let ours = asked.iter().filter(|f| *f == "acme/+/+/pos").count();
    assert_eq!(ours, 1, "{asked:?}");
    assert_eq!(codecs.speaker_of("acme/v1/bc-01/pos"), Some("bc-01"));
    assert_eq!(codecs.speaker_of("acme/v1/bc-01/cmd"), None);
}
