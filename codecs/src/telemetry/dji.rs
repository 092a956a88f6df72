//! DJI Cloud API over MQTT (Cloud-API-Doc 1.11): `thing/product/{sn}/…` and `sys/product/{sn}/status`.
//!
//! A dock or a remote control has the session and speaks for its aircraft. Properties (`osd`, `state`) become
//! reports; `update_topo`, events and requests are answered, because docks stop without the answer. Models nobody
//! knows still give a position. Not here: commands to aircraft, live video, health messages.

use serde_json::{Value, json};

use super::field::{self, Names, Object};
use super::{Codec, Datum, Decoded, Fault, Fix, Message, Reply, Report, SubDevice, is_id};

/// Most aircraft of one dock.
const SUB_DEVICES_MAX: usize = 16;
const TEXT_MAX: usize = 128;
/// What DJI sends for "unknown".
const UNKNOWN: f64 = 32767.0;
/// `result` of a request that the gateway does not serve; any value but 0 is an error to the device.
const RESULT_UNSUPPORTED: i64 = 1;

pub const CODEC: Codec = Codec {
    up,
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
        "osd" | "state" | "events" | "requests" | "services_reply" | "property/set_reply" => {
            root == "thing"
        }
        _ => false,
    };
    ours.then_some((sn, channel))
}

fn down(device: &str, filter: &str) -> bool {
    split(filter).is_some_and(|(root, sn, channel)| {
        sn == device
            && match channel {
                "status_reply" => matches!(root, "thing" | "sys"),
                "services" | "events_reply" | "requests_reply" | "property/set" => root == "thing",
                _ => false,
            }
    })
}

fn decode(m: &Message<'_>) -> Decoded {
    let envelope = match field::parse(m.payload) {
        Ok(Value::Object(o)) => o,
        Ok(_) => return Decoded::refused(Fault::NotJson),
        Err(fault) => return Decoded::refused(fault),
    };
    match m.channel {
        "osd" | "state" => properties(m, &envelope),
        "status" => status(m, &envelope),
        "events" => events(m, &envelope),
        "requests" => requests(m, &envelope),
        _ => Decoded::default(),
    }
}

/// The answer goes beside the question, with its `tid` and `bid`.
fn reply(m: &Message<'_>, envelope: &Object, data: &Value) -> Reply {
    let mut payload = json!({"timestamp": m.arrived_ms, "data": data});
    for key in ["tid", "bid", "method"] {
        if let Some(text) = field::get(envelope, key)
            .and_then(Value::as_str)
            .filter(|t| t.len() <= TEXT_MAX)
        {
            payload[key] = text.into();
        }
    }
    Reply {
        topic: format!("{}_reply", m.topic),
        payload: payload.to_string(),
    }
}

fn data(envelope: &Object) -> Option<&Object> {
    field::get(envelope, "data").and_then(Value::as_object)
}

fn properties(m: &Message<'_>, envelope: &Object) -> Decoded {
    let Some(data) = data(envelope) else {
        return Decoded::refused(Fault::BadField);
    };
    let mut faults = Vec::new();
    let kind = kind_by_properties(data);
    let known = |key: &str| {
        field::get(data, key)
            .and_then(field::as_number)
            .is_some_and(|n| n != UNKNOWN)
    };
    let fix = fix(data, &mut faults).map(|fix| Fix {
        alt_m: known("height")
            .then(|| {
                field::number(
                    data,
                    "height",
                    field::ALT_MIN_M,
                    field::ALT_MAX_M,
                    &mut faults,
                )
            })
            .flatten(),
        speed_mps: known("horizontal_speed")
            .then(|| {
                field::number(
                    data,
                    "horizontal_speed",
                    0.0,
                    field::SPEED_MAX_MPS,
                    &mut faults,
                )
            })
            .flatten(),
        heading_deg: known("attitude_head")
            .then(|| field::heading(data, "attitude_head", &mut faults))
            .flatten(),
        ..fix
    });
    let battery = match field::get(data, "battery").and_then(Value::as_object) {
        Some(battery) => battery,
        None => data,
    };
    let report = Report {
        device: m.speaker.to_owned(),
        device_time_ms: field::time_ms(envelope, "timestamp", &mut faults),
        fix,
        battery_pct: field::number(battery, "capacity_percent", 0.0, 100.0, &mut faults),
        mode: field::get(data, "mode_code")
            .and_then(field::as_integer)
            .and_then(|code| mode(kind, code)),
        kind: kind.map(Into::into),
        faults,
        ..Report::default()
    };
    Decoded {
        reports: vec![report],
        ..Decoded::default()
    }
}

fn fix(data: &Object, faults: &mut Vec<Fault>) -> Option<Fix> {
    let names = Names {
        lat: "latitude",
        lon: "longitude",
    };
    if field::get(data, names.lat).is_none() && field::get(data, names.lon).is_none() {
        return None;
    }
    let fix = field::position(data, &names, Datum::Wgs84).and_then(|fix| {
        if sees_no_satellite(data) {
            Err(Fault::NoFix)
        } else {
            Ok(fix)
        }
    });
    fix.map_err(|fault| faults.push(fault)).ok()
}

/// `is_fixed` alone is the convergence of RTK: an aircraft without RTK has a good position and never converges.
fn sees_no_satellite(data: &Object) -> bool {
    field::get(data, "position_state")
        .and_then(Value::as_object)
        .is_some_and(|state| {
            ["is_fixed", "gps_number", "rtk_number"]
                .iter()
                .all(|key| field::get(state, key).and_then(field::as_integer) == Some(0))
        })
}

/// Properties do not name the kind of their device; some are of one kind only.
fn kind_by_properties(data: &Object) -> Option<&'static str> {
    let any = |keys: &[&str]| keys.iter().any(|k| data.contains_key(*k));
    if any(&[
        "cover_state",
        "drone_in_dock",
        "drone_charge_state",
        "putter_state",
    ]) {
        Some("dock")
    } else if any(&[
        "attitude_head",
        "attitude_pitch",
        "gear",
        "horizontal_speed",
    ]) {
        Some("drone")
    } else {
        None
    }
}

fn mode(kind: Option<&str>, code: i64) -> Option<String> {
    const AIRCRAFT: [&str; 20] = [
        "standby",
        "take-off preparation",
        "ready",
        "manual flight",
        "automatic take-off",
        "wayline flight",
        "panorama",
        "tracking",
        "ADS-B avoidance",
        "return to home",
        "automatic landing",
        "forced landing",
        "three-blade landing",
        "upgrading",
        "not connected",
        "APAS",
        "virtual stick",
        "live flight controls",
        "RTK fixing",
        "dock address selecting",
    ];
    const DOCK: [&str; 5] = [
        "idle",
        "on-site debugging",
        "remote debugging",
        "upgrading",
        "working",
    ];
    let names: &[&str] = match kind? {
        "dock" => &DOCK,
        _ => &AIRCRAFT,
    };
    Some(
        usize::try_from(code)
            .ok()
            .and_then(|i| names.get(i))
            .map_or_else(|| format!("mode {code}"), |name| (*name).to_owned()),
    )
}

/// `update_topo`: what the gateway device is, and which aircraft it now has. Without the answer a dock stays off line.
fn status(m: &Message<'_>, envelope: &Object) -> Decoded {
    if field::get(envelope, "method").and_then(Value::as_str) != Some("update_topo") {
        return Decoded::refused(Fault::UnknownMethod);
    }
    let mut decoded = Decoded {
        replies: vec![reply(m, envelope, &json!({"result": 0}))],
        ..Decoded::default()
    };
    let Some(data) = data(envelope) else {
        decoded.faults.push(Fault::BadField);
        return decoded;
    };
    let mut faults = Vec::new();
    let device_time_ms = field::time_ms(envelope, "timestamp", &mut faults);
    let introduce = |sn: &str, kind: Option<&'static str>, model: Option<String>| Report {
        device: sn.to_owned(),
        device_time_ms,
        kind: kind.map(Into::into),
        model,
        ..Report::default()
    };
    let (kind, model) = model(data);
    let mut all = vec![Report {
        faults,
        ..introduce(m.speaker, kind, model)
    }];
    let mut topology = Vec::new();
    let listed = field::get(data, "sub_devices").and_then(Value::as_array);
    if listed.is_none() && data.contains_key("sub_devices") {
        decoded.faults.push(Fault::BadField);
    }
    for v in listed.map(Vec::as_slice).unwrap_or_default() {
        let sub = v.as_object();
        let sn = sub
            .and_then(|s| field::get(s, "sn"))
            .and_then(Value::as_str)
            .filter(|sn| is_id(sn));
        let (Some(sub), Some(sn)) = (sub, sn) else {
            decoded.faults.push(Fault::BadField);
            continue;
        };
        if sn == m.speaker {
            // An aircraft that shares the serial number of its remote control: the entry tells what it really is.
            let (kind, model) = self::model(sub);
            (all[0].kind, all[0].model) = (kind.map(Into::into), model);
            continue;
        }
        if topology.len() == SUB_DEVICES_MAX {
            decoded.faults.push(Fault::TooLarge);
            break;
        }
        let (kind, model) = self::model(sub);
        all.push(introduce(sn, kind, model.clone()));
        topology.push(SubDevice {
            sn: sn.to_owned(),
            kind,
            model,
        });
    }
    decoded.reports = all;
    decoded.topology = Some(topology);
    decoded
}

/// Kind and model by the key `domain-type-sub_type`; an unknown key is its own name.
fn model(o: &Object) -> (Option<&'static str>, Option<String>) {
    let part = |key| field::get(o, key).and_then(field::as_integer);
    let domain = part("domain");
    let kind = match domain {
        Some(0) => Some("drone"),
        Some(2) => Some("terminal"),
        Some(3) => Some("dock"),
        _ => None,
    };
    let (Some(domain), Some(of)) = (domain, part("type")) else {
        return (kind, None);
    };
    let sub = part("sub_type").unwrap_or(0);
    let name = match (domain, of, sub) {
        (0, 60, _) => "DJI M300 RTK",
        (0, 67, 0) => "DJI M30",
        (0, 67, 1) => "DJI M30T",
        (0, 77, 0) => "DJI Mavic 3E",
        (0, 77, 1) => "DJI Mavic 3T",
        (0, 89, _) => "DJI M350 RTK",
        (0, 91, 0) => "DJI M3D",
        (0, 91, 1) => "DJI M3TD",
        (2, 119, _) => "DJI RC Plus",
        (2, 144, _) => "DJI RC Pro",
        (3, 1, _) => "DJI Dock",
        (3, 2, _) => "DJI Dock 2",
        _ => return (kind, Some(format!("DJI {domain}-{of}-{sub}"))),
    };
    (kind, Some(name.to_owned()))
}

fn events(m: &Message<'_>, envelope: &Object) -> Decoded {
    let wanted = match field::get(envelope, "need_reply") {
        Some(Value::Bool(b)) => *b,
        Some(v) => field::as_integer(v).is_some_and(|n| n != 0),
        None => false,
    };
    Decoded {
        replies: if wanted {
            vec![reply(m, envelope, &json!({"result": 0}))]
        } else {
            Vec::new()
        },
        ..Decoded::default()
    }
}

/// No request is served yet; a device that gets no answer asks for ever.
fn requests(m: &Message<'_>, envelope: &Object) -> Decoded {
    Decoded {
        replies: vec![reply(
            m,
            envelope,
            &json!({"result": RESULT_UNSUPPORTED, "output": {}}),
        )],
        faults: vec![Fault::UnknownMethod],
        ..Decoded::default()
    }
}

#[cfg(test)]
mod tests;
