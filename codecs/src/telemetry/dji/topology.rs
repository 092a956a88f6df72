//! `update_topo`: what the gateway device is, and which aircraft it now has. Without the answer a dock stays off line.

use serde_json::json;

use super::{Envelope, Item, Message, Object, SubDevice, is_id};
use crate::telemetry::{Decoded, Fault, Report};

/// Most aircraft of one dock.
const SUB_DEVICES_MAX: usize = 16;

pub fn decode(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    if e.text("method") != Some("update_topo") {
        return Decoded::refused(Fault::UnknownMethod);
    }
    let mut decoded = Decoded {
        replies: vec![e.reply(m, &json!({"result": 0}))],
        ..Decoded::default()
    };
    let Some(data) = e.data() else {
        decoded.faults.push(Fault::BadField);
        return decoded;
    };
    let mut faults = Vec::new();
    let device_time_ms = e.time_ms(&mut faults);
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
    let listed = data.get("sub_devices").map(Item::as_list);
    if listed
        .as_ref()
        .map_or(data.has("sub_devices"), Option::is_none)
    {
        decoded.faults.push(Fault::BadField);
    }
    for item in listed.flatten().into_iter().flatten() {
        let sub = item.as_object();
        let sn = sub.and_then(|s| s.get("sn")?.as_text());
        let (Some(sub), Some(sn)) = (sub, sn.filter(|sn| is_id(sn))) else {
            decoded.faults.push(Fault::BadField);
            continue;
        };
        let (kind, model) = self::model(sub);
        if sn == m.speaker {
            // An aircraft that shares the serial number of its remote control: the entry tells what it really is.
            (all[0].kind, all[0].model) = (kind.map(Into::into), model);
            continue;
        }
        if topology.len() == SUB_DEVICES_MAX {
            decoded.faults.push(Fault::TooLarge);
            break;
        }
        all.push(Report {
            online: Some(true),
            ..introduce(sn, kind, model.clone())
        });
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
fn model(o: Object<'_>) -> (Option<&'static str>, Option<String>) {
    let part = |key| o.get(key).and_then(Item::as_integer);
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
