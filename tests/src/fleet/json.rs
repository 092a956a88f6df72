//! Our own JSON over MQTT (`gateway/API.md`): body cameras, vehicles, radios.

use serde_json::{Value, json};

use super::motion::{Moment, gcj02};
use super::{Device, Kind};

pub(super) fn report_topic(device: &str) -> String {
    format!("kerbside/v1/{device}/report")
}

pub(super) fn sos_topic(device: &str) -> String {
    format!("kerbside/v1/{device}/sos")
}

pub(super) fn down_filter(device: &str) -> String {
    format!("kerbside/v1/{device}/down/#")
}

/// The position as this device states it: every third one speaks GCJ-02, as devices made for Chinese maps do.
fn position(device: &Device, moment: &Moment) -> Value {
    let chinese = device.id.bytes().map(u32::from).sum::<u32>() % 3 == 0;
    let (lat, lon) = if chinese {
        gcj02(moment.lat, moment.lon)
    } else {
        (moment.lat, moment.lon)
    };
    let mut position = json!({
        "lat": round(lat, 7), "lon": round(lon, 7), "accuracy_m": 5.0,
        "speed_mps": round(moment.speed_mps, 2), "heading_deg": round(moment.heading_deg, 1),
    });
    if chinese {
        position["datum"] = "gcj02".into();
    }
    position
}

pub(super) fn report(device: &Device, moment: &Moment, now_ms: u64) -> Vec<u8> {
    let model = match device.kind {
        Kind::Bodycam => "X5",
        Kind::Vehicle => "E-200",
        Kind::Radio => "PDC-680",
        _ => "sim",
    };
    json!({
        "time_ms": now_ms, "position": position(device, moment), "battery_pct": moment.battery_pct.round(),
        "kind": device.kind.as_str(), "model": model, "mode": if moment.speed_mps > 0.0 { "patrol" } else { "standing" },
    })
    .to_string()
    .into_bytes()
}

pub(super) fn sos(device: &Device, moment: &Moment, id: &str, now_ms: u64) -> Vec<u8> {
    json!({"id": id, "note": "需要支援 / officer needs help", "time_ms": now_ms, "position": position(device, moment)})
        .to_string()
        .into_bytes()
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
