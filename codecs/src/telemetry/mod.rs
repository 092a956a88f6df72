//! What devices say, decoded: one file per device protocol, one [`Report`] for all of them.
//!
//! Here: which topic belongs to which protocol, who may use it, bytes to reports. Not here: MQTT itself, and what
//! the reports mean together (gateway `picture`). A new protocol is one file and one line in [`CODECS`]; a vendor's
//! JSON needs no program at all, but a [`Mapping`] in the configuration.

pub mod datagram;
mod dji;
mod document;
mod field;
mod json;
pub mod klv;
pub mod mapping;
pub mod mavlink;
pub mod nmea;
pub mod order;
mod owntracks;
pub mod report;
mod topics;

pub use mapping::Mapping;
pub use report::{Answer, Datum, Fault, Fix, Report, Said, Sos};

/// Longest payload that is looked at, bytes.
pub const PAYLOAD_MAX: usize = 256 * 1024;
/// Device time may be this far ahead of arrival, milliseconds.
pub const FUTURE_MAX_MS: i64 = 5 * 60 * 1000;
/// What a clock is ahead at most; a time beyond is garbage.
const CLOCK_AHEAD_MAX_MS: i64 = 36 * 3600 * 1000;

/// What one message came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Oldest first. Faults of a report's parts are in the report.
    pub reports: Vec<Report>,
    /// To be published to the device that sent the message.
    pub replies: Vec<Reply>,
    /// The aircraft that a dock or a remote control now speaks for; replaces what it announced before.
    pub topology: Option<Vec<SubDevice>>,
    /// To orders that the device was given.
    pub answers: Vec<Answer>,
    /// Faults of the message that belong to no report.
    pub faults: Vec<Fault>,
}

impl Decoded {
    fn refused(fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            ..Self::default()
        }
    }

    /// What was taken in spite of its form is counted with the device that it is of.
    fn note_quirks(mut self, quirks: impl Iterator<Item = Fault>) -> Self {
        let report = self.reports.first_mut();
        report
            .map_or(&mut self.faults, |r| &mut r.faults)
            .extend(quirks);
        self
    }

    /// A device time ahead of the arrival is counted. It stays, because the clock that told it is measured by it, unless
    /// no clock is so wrong.
    fn note_future_times(&mut self, arrived_ms: i64) {
        for report in &mut self.reports {
            let ahead_ms = report.device_time_ms.map(|t| t.saturating_sub(arrived_ms));
            if ahead_ms.is_some_and(|ms| ms > FUTURE_MAX_MS) {
                report.faults.push(Fault::FromFuture);
            }
            if ahead_ms.is_some_and(|ms| ms > CLOCK_AHEAD_MAX_MS) {
                report.device_time_ms = None;
            }
        }
    }
}

/// An answer that the protocol demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub topic: String,
    pub payload: String,
}

/// A device without a session of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubDevice {
    /// A valid device id.
    pub sn: String,
    /// `drone`, `dock`…; None: unknown to us.
    pub kind: Option<&'static str>,
    /// Name, or the maker's model key when we know no name.
    pub model: Option<String>,
}

/// What the gateway knows of the device that speaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speaker<'a> {
    /// Its id.
    pub device: &'a str,
    /// Of positions that do not name their own.
    pub datum: Datum,
    /// The one aircraft it flies: itself, if it is one. None: none or several.
    pub aircraft: Option<&'a str>,
}

/// One message as it arrived.
struct Message<'a> {
    /// Of positions that do not name their own.
    datum: Datum,
    /// See [`Speaker::aircraft`].
    aircraft: Option<&'a str>,
    /// The device id in the topic.
    speaker: &'a str,
    /// The topic's part behind the device id.
    channel: &'a str,
    topic: &'a str,
    payload: &'a [u8],
    arrived_ms: i64,
}

/// One protocol over MQTT.
struct Codec {
    /// Filters over its uplink topics, for all devices; none matches what is said to devices.
    uplinks: &'static [&'static str],
    /// An uplink topic → device id and channel; None: not of this protocol.
    up: fn(topic: &str) -> Option<(&str, &str)>,
    /// Another part of such a topic that may be the device id instead.
    or: fn(topic: &str) -> Option<&str>,
    /// Is this filter within the downlink of the device?
    down: fn(device: &str, filter: &str) -> bool,
    /// May a device speak for the aircraft it announced?
    for_sub_devices: bool,
    decode: fn(&Message<'_>) -> Decoded,
}

const CODECS: [Codec; 3] = [json::CODEC, dji::CODEC, owntracks::CODEC];
fn find(topic: &str) -> Option<(&'static Codec, &str, &str)> {
    CODECS.iter().find_map(|codec| {
        let (speaker, channel) = (codec.up)(topic)?;
        Some((codec, speaker, channel))
    })
}

/// The protocols of this box: those that are built in, and the formats of its configuration.
#[derive(Debug, Default)]
pub struct Codecs {
    mappings: Vec<Mapping>,
}

impl Codecs {
    /// Of several mappings of one topic the first whose conditions hold is used.
    pub fn new(mappings: Vec<Mapping>) -> Self {
        Self { mappings }
    }

    /// Decodes what `speaker` published. `arrived_ms`: wallclock of the gateway, ms since 1970 UTC. Never fails: what
    /// cannot be read is a [`Fault`]. Whether the device may use the topic is [`Self::may_publish`]'s question.
    pub fn decode(
        &self,
        speaker: Speaker<'_>,
        topic: &str,
        payload: &[u8],
        arrived_ms: i64,
    ) -> Decoded {
        let mut decoded = match find(topic) {
            Some((codec, named, channel)) => {
                let named = match (codec.or)(topic) {
                    Some(other) if other == speaker.device => other,
                    _ => named,
                };
                if named != speaker.device && !codec.for_sub_devices {
                    return Decoded::refused(Fault::UnknownTopic);
                }
                (codec.decode)(&Message {
                    datum: speaker.datum,
                    aircraft: speaker.aircraft,
                    speaker: named,
                    channel,
                    topic,
                    payload,
                    arrived_ms,
                })
            }
            None => mapping::decode(self.mapped(speaker.device, topic), speaker, payload),
        };
        decoded.note_future_times(arrived_ms);
        decoded
    }

    /// May this device publish to this topic: its own uplink, or that of an aircraft it announced?
    pub fn may_publish(&self, device: &str, sub_devices: &[String], topic: &str) -> bool {
        match find(topic) {
            Some((codec, speaker, _)) => {
                speaker == device
                    || (codec.or)(topic) == Some(device)
                    || codec.for_sub_devices && sub_devices.iter().any(|s| s == speaker)
            }
            None => self.mapped(device, topic).next().is_some(),
        }
    }

    /// May this device subscribe to this filter: is all of it within its own downlink?
    pub fn may_subscribe(&self, device: &str, filter: &str) -> bool {
        is_id(device)
            && (CODECS.iter().any(|codec| (codec.down)(device, filter))
                || self.mappings.iter().any(|m| m.is_down(device, filter)))
    }

    /// The mappings by which this topic is the device's own.
    fn mapped(&self, device: &str, topic: &str) -> impl Iterator<Item = &Mapping> {
        let is_own = move |m: &&Mapping| m.topic.device(topic) == Some(device);
        self.mappings.iter().filter(is_own)
    }
}

/// A valid device id: `[A-Za-z0-9._-]{1,64}` and not only dots.
fn is_id(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && s.bytes().any(|b| b != b'.')
}

/// As a device without a datum of its own, by the protocols that are built in.
#[cfg(test)]
fn decode(device: &str, topic: &str, payload: &[u8], arrived_ms: i64) -> Decoded {
    let speaker = Speaker {
        device,
        ..Speaker::default()
    };
    Codecs::default().decode(speaker, topic, payload, arrived_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geo;

    #[test]
    fn a_device_publishes_under_its_own_name_only() {
        for (topic, may) in [
            ("kerbside/v1/bc-01/report", true),
            ("kerbside/v1/bc-01/sos", true),
            ("kerbside/v1/bc-02/report", false),
            ("kerbside/v1/bc-01/down/x", false),
            ("kerbside/v1/bc-01/report/x", false),
            ("kerbside/v1/uav-1/report", false),
            ("thing/product/bc-01/osd", true),
            ("thing/product/uav-1/osd", true),
            ("thing/product/uav-2/osd", false),
            ("thing/product/bc-01/services", false),
            ("sys/product/bc-01/status", true),
            ("thing/product/bc-01/status", true),
            ("sys/product/bc-01/osd", false),
            ("thing/product/bc-01/drc/up", true),
            ("thing/product/bc-01/drc/down", false),
            ("kerbside/v1/bc-01/ack", true),
            ("kerbside/v1/bc-02/online", false),
            ("", false),
            ("$SYS/x", false),
        ] {
            assert_eq!(
                Codecs::default().may_publish("bc-01", &["uav-1".to_owned()], topic),
                may,
                "{topic}"
            );
        }
    }

    #[test]
    fn a_device_hears_its_own_downlink_only() {
        for (filter, may) in [
            ("kerbside/v1/bc-01/down/#", true),
            ("kerbside/v1/bc-01/down/+/x", true),
            ("kerbside/v1/bc-01/down/orders", true),
            ("kerbside/v1/bc-01/down/", false),
            ("kerbside/v1/bc-01/#", false),
            ("kerbside/v1/+/down/#", false),
            ("kerbside/v1/bc-02/down/#", false),
            ("kerbside/v1/bc-01/down/a#", false),
            ("kerbside/v1/bc-01/down/#/a", false),
            ("kerbside/v1/bc-01/down/a+", false),
            ("#", false),
            ("+/v1/bc-01/down/#", false),
            ("$share/g/kerbside/v1/bc-01/down/#", false),
            ("thing/product/bc-01/services", true),
            ("thing/product/bc-01/events_reply", true),
            ("thing/product/bc-01/requests_reply", true),
            ("thing/product/bc-01/property/set", true),
            ("sys/product/bc-01/status_reply", true),
            ("thing/product/bc-01/drc/down", true),
            ("thing/product/bc-01/#", false),
            ("thing/product/+/services", false),
            ("thing/product/bc-01/osd", false),
        ] {
            assert_eq!(
                Codecs::default().may_subscribe("bc-01", filter),
                may,
                "{filter}"
            );
        }
        assert!(!Codecs::default().may_subscribe("+", "kerbside/v1/+/down/#"));
    }

    #[test]
    fn an_unknown_topic_is_a_fault() {
        assert_eq!(
            decode("a", "other/topic", b"{}", 0),
            Decoded::refused(Fault::UnknownTopic)
        );
    }

    #[test]
    fn a_time_from_the_future_is_counted_and_all_of_it_stays() {
        let d = decode(
            "a",
            "kerbside/v1/a/report",
            br#"{"time_ms":1795219500001,"position":{"lat":37.7,"lon":112.7}}"#,
            1_795_219_200_000,
        );
        assert_eq!(d.reports[0].device_time_ms, Some(1_795_219_500_001));
        assert_eq!(d.reports[0].faults, [Fault::FromFuture]);
        assert!(d.reports[0].fix.is_some());
    }

    const TOPICS: [&str; 14] = [
        "acme/a/pos",
        "kerbside/v1/a/report",
        "kerbside/v1/a/sos",
        "kerbside/v1/a/ack",
        "kerbside/v1/a/online",
        "owntracks/a/phone",
        "thing/product/a/osd",
        "thing/product/a/state",
        "thing/product/a/events",
        "thing/product/a/requests",
        "sys/product/a/status",
        "thing/product/a/services_reply",
        "thing/product/a/property/set_reply",
        "thing/product/a/drc/up",
    ];

    fn check(topic: &str, payload: &[u8]) {
        let arrived_ms = 1_795_219_200_000;
        let speaker = Speaker {
            device: "a",
            datum: Datum::Gcj02,
            aircraft: Some("uav-1"),
        };
        let codecs = Codecs::new(vec![mapping::tests::mapping("acme/{device}/pos")]);
        let d = codecs.decode(speaker, topic, payload, arrived_ms);
        assert!(d.reports.len() <= 256);
        for r in &d.reports {
            assert!(is_id(&r.device));
            let is_ahead = |t: i64| t > arrived_ms + FUTURE_MAX_MS;
            let told = r.faults.contains(&Fault::FromFuture);
            assert!(told || !r.device_time_ms.is_some_and(is_ahead));
            assert!(
                r.device_time_ms
                    .is_none_or(|t| t <= arrived_ms + CLOCK_AHEAD_MAX_MS)
            );
            assert!(r.battery_pct.is_none_or(|b| (0.0..=100.0).contains(&b)));
            if let Some(f) = &r.fix {
                assert!(geo::valid(f.lat, f.lon) && (f.lat, f.lon) != (0.0, 0.0));
                assert!(f.accuracy_m.is_none_or(|a| a.is_finite() && a >= 0.0));
                assert!(f.heading_deg.is_none_or(|h| (0.0..360.0).contains(&h)));
            }
        }
    }

    /// JSON that looks like what devices send, with any value in any place.
    fn value() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-200.0..200.0_f64).prop_map(Value::from),
            "[a-z0-9.+-]{0,20}".prop_map(Value::from),
            (-200.0..200.0_f64).prop_map(|f| Value::from(f.to_string())),
        ];
        let key = prop::sample::select(vec![
            "time_ms",
            "timestamp",
            "position",
            "lat",
            "lon",
            "alt_m",
            "accuracy_m",
            "speed_mps",
            "heading_deg",
            "datum",
            "battery_pct",
            "kind",
            "sos",
            "id",
            "note",
            "data",
            "method",
            "latitude",
            "longitude",
            "height",
            "attitude_head",
            "battery",
            "capacity_percent",
            "position_state",
            "is_fixed",
            "gps_number",
            "rtk_number",
            "sub_devices",
            "sn",
            "domain",
            "type",
            "sub_type",
            "need_reply",
            "tid",
            "bid",
            "mode_code",
            "gps",
            "valid",
            "spd",
            "t",
            "sight",
            "corners",
            "target",
            "alarms",
            "properties",
            "_type",
            "52-0-0",
            "gimbal_pitch",
            "gimbal_yaw",
            "live_capacity",
            "list",
            "result",
        ]);
        leaf.prop_recursive(4, 64, 12, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..12)
                    .prop_map(|m| m.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(topic in prop::sample::select(&TOPICS[..]), payload in any::<Vec<u8>>()) {
            check(topic, &payload);
        }

        #[test]
        fn any_json_is_harmless(topic in prop::sample::select(&TOPICS[..]), payload in value()) {
            check(topic, payload.to_string().as_bytes());
        }
    }
}
