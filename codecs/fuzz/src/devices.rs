//! What devices publish in JSON. The first byte, a digit in the corpora, chooses the topic; then comes the payload.

use kerbside_codecs::geo;
use kerbside_codecs::telemetry::mapping::{Fields, Number, Path, Quantity, Test, Time, Topic};
use kerbside_codecs::telemetry::report::{ALARMS_MAX, PROPERTIES_MAX};
use kerbside_codecs::telemetry::{Codecs, FUTURE_MAX_MS, Mapping, Report, Speaker};

/// What is fuzzed; it panics for a fault.
pub type Target = fn(&[u8]);

/// Each by its name.
pub const TARGETS: [(&str, Target); 5] = [
    ("own_json", own_json),
    ("dji", dji),
    ("owntracks", owntracks),
    ("mapping", mapping),
    ("format_text", format_text),
];

const NOW_MS: i64 = 1_795_219_200_000;

pub fn own_json(data: &[u8]) {
    let topics = ["report", "sos", "ack", "online"].map(|c| format!("kerbside/v1/a/{c}"));
    say(&Codecs::default(), &topics, data);
}

pub fn dji(data: &[u8]) {
    let thing = [
        "osd",
        "state",
        "events",
        "requests",
        "services_reply",
        "property/set_reply",
        "drc/up",
        "status",
    ];
    say(
        &Codecs::default(),
        &thing.map(|c| format!("thing/product/a/{c}")),
        data,
    );
}

pub fn owntracks(data: &[u8]) {
    let topics = ["owntracks/a/phone", "owntracks/a/phone/event"].map(str::to_owned);
    say(&Codecs::default(), &topics, data);
}

/// Through formats that use everything: one report, a list, a choice.
pub fn mapping(data: &[u8]) {
    let path = |p: &str| Path::parse(p).expect("a path");
    let number = |p: &str, of: Quantity, unit: &str| {
        let scale = of.unit(unit).expect("a unit");
        Some(Number {
            path: path(p),
            scale,
        })
    };
    let test = |p: &str, values: &[&str]| {
        Some(Test {
            path: path(p),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        })
    };
    let one = Mapping {
        name: "acme".into(),
        topic: Topic::parse("acme/{device}/0").expect("a topic"),
        down: None,
        when: test("type", &["1"]).into_iter().collect(),
        positions: None,
        datum: None,
        fields: Fields {
            lat: number("gps.lat", Quantity::Coordinate, "ddmm.mm"),
            lon: number("gps.lon", Quantity::Coordinate, "1e-7 deg"),
            alt: number("gps.alt", Quantity::Length, "ft"),
            speed: number("spd", Quantity::Speed, "km/h"),
            course: number("dir", Quantity::Angle, "rad"),
            battery: number("bat", Quantity::Battery, "0..1"),
            time: Some((path("t"), Time::Local { zone_min: 480 })),
            fix: test("gps.valid", &["A"]),
            sos: test("key", &[]),
            mode: Some(path("state")),
            ..Fields::default()
        },
        properties: vec![("signal_dbm".into(), path("rssi"))],
    };
    let list = Mapping {
        when: Vec::new(),
        positions: Some(path("$.points")),
        fields: Fields {
            lat: number("[1]", Quantity::Coordinate, "deg"),
            lon: number("[0]", Quantity::Coordinate, "deg"),
            time: Some((path("[2]"), Time::Rfc3339)),
            back_fill: test("$.cached", &[]),
            ..Fields::default()
        },
        ..one.clone()
    };
    say(
        &Codecs::new(vec![one, list]),
        &["acme/a/0".to_owned()],
        data,
    );
}

/// Paths and topics as an operator may write them, and topics that devices use.
pub fn format_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (format, topic) = text.split_once('\n').unwrap_or((text, text));
    drop(Path::parse(format));
    if let Ok(parsed) = Topic::parse(format) {
        let mapping = Mapping {
            name: "x".into(),
            topic: parsed,
            down: Topic::parse_down(format).ok(),
            when: Vec::new(),
            positions: None,
            datum: None,
            fields: Fields::default(),
            properties: Vec::new(),
        };
        let codecs = Codecs::new(vec![mapping]);
        let levels = || topic.split('/');
        if codecs.may_publish("a", &[], topic) || codecs.may_subscribe("a", topic) {
            assert!(levels().any(|l| l == "a"), "{topic} is nobody's own");
        }
        // What a device hears, nobody else hears.
        if codecs.may_subscribe("a", topic) {
            assert!(!codecs.may_subscribe("b", topic), "{topic}");
        }
    }
}

fn say(codecs: &Codecs, topics: &[String], data: &[u8]) {
    let Some((which, payload)) = data.split_first() else {
        return;
    };
    let topic = &topics[usize::from(which.wrapping_sub(b'0')) % topics.len()];
    let speaker = Speaker {
        device: "a",
        aircraft: Some("uav1"),
        ..Speaker::default()
    };
    let decoded = codecs.decode(speaker, topic, payload, NOW_MS);
    assert!(decoded.reports.len() <= 256 && decoded.answers.len() <= 256);
    assert!(decoded.faults.len() <= 300);
    for report in &decoded.reports {
        check(report, payload.len());
    }
    for reply in &decoded.replies {
        assert!(reply.payload.len() <= 4096, "a reply explodes");
        assert!(is_object(&reply.payload));
    }
}

fn is_object(text: &str) -> bool {
    text.starts_with('{') && text.ends_with('}')
}

fn check(r: &Report, bytes: usize) {
    assert!(r.faults.len() <= bytes + 16);
    assert!(r.device_time_ms.is_none_or(|t| t <= NOW_MS + FUTURE_MAX_MS));
    assert!(r.battery_pct.is_none_or(|b| (0.0..=100.0).contains(&b)));
    assert!(r.properties.len() <= PROPERTIES_MAX);
    assert!(r.alarms.as_ref().is_none_or(|a| a.len() <= ALARMS_MAX));
    assert!(r.video_delays.len() <= 16);
    let turn = |h: Option<f64>| h.is_none_or(|h| (0.0..360.0).contains(&h));
    let place = |p: Option<(f64, f64)>| p.is_none_or(|(lat, lon)| geo::valid(lat, lon));
    if let Some(f) = &r.fix {
        assert!(geo::valid(f.lat, f.lon) && (f.lat, f.lon) != (0.0, 0.0));
        assert!(f.accuracy_m.is_none_or(|a| a.is_finite() && a >= 0.0));
        assert!(f.speed_mps.is_none_or(|a| (0.0..=2000.0).contains(&a)));
        assert!(turn(f.heading_deg) && turn(f.course_deg));
    }
    if let Some(s) = &r.sight {
        assert!(turn(s.azimuth_deg) && place(s.centre) && place(s.target));
        assert!(s.elevation_deg.is_none_or(|e| (-90.0..=90.0).contains(&e)));
        assert!(s.corners.len() <= 8);
    }
}
