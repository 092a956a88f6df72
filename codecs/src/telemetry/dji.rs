//! DJI Cloud API over MQTT (Cloud-API-Doc 1.11): `thing/product/{sn}/…` and `sys/product/{sn}/status`.
//!
//! A dock or a remote control has the session and speaks for its aircraft. Properties (`osd`, `state`, `drc/up`)
//! become reports; `update_topo`, events and requests are answered, because docks stop without the answer; replies to
//! services become answers to orders. Models nobody knows still give a position. Not here: commands to aircraft.
//!
//! Here: topics, the envelope, events and requests. `properties`: what devices tell of themselves. `sight`: where their
//! cameras look. `topology`: who flies with whom. `drc`: the fast channel while somebody flies by hand.

mod drc;
mod properties;
mod sight;
mod topology;

use serde_json::json;

use super::document::{Document, Item, Object};
use super::field::{self, TEXT_MAX};
use super::report::{ALARMS_MAX, Alarm, AlarmLevel};
use super::{Answer, Codec, Decoded, Fault, Message, Reply, Report, Said, SubDevice, is_id};

/// What DJI sends for "unknown".
const UNKNOWN: f64 = 32767.0;
/// `result` of a request that the gateway does not serve; any value but 0 is an error to the device.
const RESULT_UNSUPPORTED: i64 = 1;
/// Requests of the API that are for a flight platform, which the gateway is not: organizations, licences, waylines,
/// uploads, maps.
const REQUESTS: [&str; 9] = [
    "config",
    "airport_bind_status",
    "airport_organization_get",
    "airport_organization_bind",
    "flighttask_resource_get",
    "flighttask_progress_get",
    "flight_areas_get",
    "offline_map_get",
    "storage_config_get",
];

pub const CODEC: Codec = Codec {
    uplinks: &[
        "thing/product/+/osd",
        "thing/product/+/state",
        "thing/product/+/status",
        "thing/product/+/events",
        "thing/product/+/requests",
        "thing/product/+/services_reply",
        "thing/product/+/property/set_reply",
        "thing/product/+/drc/up",
        "sys/product/+/status",
    ],
    up,
    or: |_| None,
    down,
    for_sub_devices: true,
    decode,
};

fn split(topic: &str) -> Option<(&str, &str, &str)> {
    let (root, rest) = topic.split_once("/product/")?;
    let (sn, channel) = rest.split_once('/')?;
    is_id(sn).then_some((root, sn, channel))
}

fn up(topic: &str) -> Option<(&str, &str)> {
    let (root, sn, channel) = split(topic)?;
    // Some remote controls send the topology below `thing` instead of `sys`.
    let ours = match channel {
        "status" => matches!(root, "thing" | "sys"),
        "osd" | "state" | "events" | "requests" | "services_reply" | "property/set_reply"
        | "drc/up" => root == "thing",
        _ => false,
    };
    ours.then_some((sn, channel))
}

fn down(device: &str, filter: &str) -> bool {
    split(filter).is_some_and(|(root, sn, channel)| {
        sn == device
            && match channel {
                "status_reply" => matches!(root, "thing" | "sys"),
                "services" | "events_reply" | "requests_reply" | "property/set" | "drc/down" => {
                    root == "thing"
                }
                _ => false,
            }
    })
}

fn decode(m: &Message<'_>) -> Decoded {
    let document = match Document::parse(m.payload) {
        Ok(document) => document,
        Err(fault) => return Decoded::refused(fault),
    };
    let Some(envelope) = document.root().as_object() else {
        return Decoded::refused(Fault::NotJson);
    };
    let e = Envelope(envelope);
    let decoded = match m.channel {
        "osd" | "state" => properties::decode(m, e),
        "status" => topology::decode(m, e),
        "events" => events(m, e),
        "requests" => requests(m, e),
        "drc/up" => drc::decode(m, e),
        _ => answers(m, e),
    };
    let is_nameless = !matches!(m.channel, "osd" | "state") && !envelope.has("method");
    let nameless = is_nameless.then_some(Fault::NoMethod);
    decoded.note_quirks(document.quirks().chain(nameless))
}

/// `tid`, `bid`, `timestamp`, `method` and `data` of any message.
#[derive(Clone, Copy)]
struct Envelope<'d>(Object<'d>);

impl<'d> Envelope<'d> {
    /// An id or a name, unless it is longer than any of theirs.
    fn text(self, key: &str) -> Option<&'d str> {
        let text = self.0.get(key)?.as_text();
        text.filter(|t| !t.is_empty() && t.len() <= TEXT_MAX)
    }

    fn data(self) -> Option<Object<'d>> {
        self.0.get("data")?.as_object()
    }

    fn time_ms(self, faults: &mut Vec<Fault>) -> Option<i64> {
        field::time_ms(self.0, "timestamp", faults)
    }

    /// The answer goes beside the question, with its `tid` and `bid`.
    fn reply(self, m: &Message<'_>, data: &serde_json::Value) -> Reply {
        let mut payload = json!({"timestamp": m.arrived_ms, "data": data});
        for key in ["tid", "bid", "method"] {
            if let Some(text) = self.text(key) {
                payload[key] = text.into();
            }
        }
        Reply {
            topic: format!("{}_reply", m.topic),
            payload: payload.to_string(),
        }
    }
}

/// A number that is known: not 32767.
fn number(o: Object<'_>, key: &str, min: f64, max: f64, faults: &mut Vec<Fault>) -> Option<f64> {
    let is_known = o.get(key)?.as_number() != Some(UNKNOWN);
    is_known
        .then(|| field::number(o, key, min, max, faults))
        .flatten()
}

/// Every event that asks for it is answered, also those nobody knows: docks send them again for ever.
fn events(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    let mut decoded = Decoded::default();
    let asks = e.0.get("need_reply");
    if asks.is_some_and(|v| v.as_flag().unwrap_or_else(|| v.as_integer() != Some(0))) {
        decoded.replies.push(e.reply(m, &json!({"result": 0})));
    }
    let list = e.data().and_then(|data| data.get("list"));
    let is_health = match e.text("method") {
        Some(method) => method == "hms",
        // The sample of the document has no method.
        None => list.is_some(),
    };
    if is_health {
        let mut faults = Vec::new();
        let alarms = alarms(list, &mut faults);
        decoded.reports.push(Report {
            device: m.speaker.to_owned(),
            device_time_ms: e.time_ms(&mut faults),
            alarms,
            faults,
            ..Report::default()
        });
    }
    decoded
}

/// All that is wrong with a dock and its aircraft now. A list that cannot be read says nothing.
fn alarms(list: Option<Item<'_>>, faults: &mut Vec<Fault>) -> Option<Vec<Alarm>> {
    let list = field::or_fault(list.and_then(Item::as_list), faults)?;
    let mut all = Vec::new();
    for item in list {
        if all.len() == ALARMS_MAX {
            faults.push(Fault::TooLarge);
            break;
        }
        let alarm = item.as_object().and_then(|a| {
            let is = |key| a.get(key).and_then(Item::as_integer) == Some(1);
            let device = a.get("device_type").and_then(Item::as_text);
            let text = device.filter(|d| d.starts_with("0-")).map(|_| {
                let place = if is("in_the_sky") {
                    ", in flight"
                } else {
                    ", on the ground"
                };
                format!("aircraft{place}")
            });
            Some(Alarm {
                code: field::text(a, "code", TEXT_MAX, faults)?,
                level: match a.get("level").and_then(Item::as_integer) {
                    Some(0) => AlarmLevel::Notice,
                    Some(1) => AlarmLevel::Caution,
                    _ => AlarmLevel::Warning,
                },
                text,
            })
        });
        all.extend(field::or_fault(alarm, faults));
    }
    Some(all)
}

/// No request is served; a device that gets no answer asks for ever.
fn requests(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    let is_known = e.text("method").is_some_and(|m| REQUESTS.contains(&m));
    let result = json!({"result": RESULT_UNSUPPORTED, "output": {}});
    Decoded {
        replies: vec![e.reply(m, &result)],
        faults: if is_known {
            Vec::new()
        } else {
            vec![Fault::UnknownMethod]
        },
        ..Decoded::default()
    }
}

/// `services_reply` and `property/set_reply`: the order is known by `tid`, else by `bid`; several have no `method`.
fn answers(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    let result = |o: Object<'_>| o.get("result").and_then(Item::as_integer);
    let (Some(order), Some(data)) = (e.text("tid").or_else(|| e.text("bid")), e.data()) else {
        return Decoded::refused(Fault::BadField);
    };
    // Of several properties that were set the first failure is the answer.
    let each = |o: Object<'_>| {
        let mut all = o.members().filter_map(|(_, v)| result(v.as_object()?));
        all.clone().find(|r| *r != 0).or_else(|| all.next())
    };
    let found = match m.channel {
        "property/set_reply" => result(data).or_else(|| each(data)),
        _ => result(data),
    };
    let Some(result) = found else {
        return Decoded::refused(Fault::BadField);
    };
    let output = data.get("output").and_then(Item::as_object);
    let status = output.and_then(|o| o.get("status")?.as_text());
    let said = match (result, status) {
        (0, Some("sent" | "in_progress" | "paused")) => Said::Delivered,
        (0, Some("failed" | "rejected" | "canceled" | "timeout")) => Said::Refused,
        (0, _) => Said::Read,
        _ => Said::Refused,
    };
    let note = match (result, status) {
        (0, status) => status.map(|s| s.chars().take(TEXT_MAX).collect()),
        (code, _) => Some(format!("result {code}")),
    };
    let order = order.to_owned();
    Decoded {
        answers: vec![Answer { order, said, note }],
        ..Decoded::default()
    }
}

#[cfg(test)]
mod tests;
