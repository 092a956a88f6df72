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
        "lat": round(lat, 7), "lon": round(lon, 7),
        // A radio has the simplest receiver.
        "accuracy_m": if device.kind == Kind::Radio { 15.0 } else { 5.0 },
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
        "alarms": alarms(device), "properties": properties(device, moment),
    })
    .to_string()
    .into_bytes()
}

/// One vehicle and one body camera in ten have something wrong, always the same ones.
fn alarms(device: &Device) -> Value {
    match device.kind {
        Kind::Vehicle if device.id.ends_with('3') => {
            json!([{"code": "T02", "level": "caution", "text": "胎压偏低 / tyre pressure low"}])
        }
        Kind::Bodycam if device.id.ends_with('5') => {
            json!([{"code": "S90", "level": "warning", "text": "存储将满 / storage nearly full"}])
        }
        _ => json!([]),
    }
}

fn properties(device: &Device, moment: &Moment) -> Value {
    let signal_dbm = -95 + (moment.battery_pct / 4.0).round() as i64;
    match device.kind {
        Kind::Bodycam => json!({"signal_dbm": signal_dbm, "network": "5G", "storage_used_pct": 64}),
        Kind::Vehicle => {
            json!({"signal_dbm": signal_dbm, "network": "4G", "lamp": moment.speed_mps > 0.0})
        }
        _ => json!({"signal_dbm": signal_dbm}),
    }
}

pub(super) fn ack_topic(device: &str) -> String {
    format!("kerbside/v1/{device}/ack")
}

/// What the bearer answers to an order; None for what is no order.
pub(super) fn answer(payload: &[u8]) -> Option<Vec<u8>> {
    let order: Value = serde_json::from_slice(payload).ok()?;
    let id = order["order"].as_str()?;
    let answer = match order["kind"].as_str()? {
        // Its camera streams anyhow, and a message is read at once.
        "message" | "dispatch" | "live_start" => json!({"order": id, "said": "read"}),
        kind => json!({"order": id, "said": "refused", "note": format!("{kind} is not simulated")}),
    };
    Some(answer.to_string().into_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_what_is_not_simulated_refused() {
        let said = |order: &str| {
            answer(order.as_bytes())
                .map(|a| serde_json::from_slice::<Value>(&a).unwrap()["said"].clone())
        };
        assert_eq!(
            said(r#"{"order":"1","kind":"message","text":"x"}"#),
            Some("read".into())
        );
        assert_eq!(
            said(r#"{"order":"1","kind":"live_stop"}"#),
            Some("refused".into())
        );
        assert_eq!(said("{}"), None);
        assert_eq!(said("garbage"), None);
    }
}
