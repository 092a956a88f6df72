//! DJI Cloud API envelopes over MQTT: a drone with its remote control under one serial number.

use serde_json::{Value, json};

use super::Device;
use super::motion::Moment;

/// Model key of an M30T aircraft: domain 0, type 67, sub type 1.
const AIRCRAFT: (u32, u32) = (67, 1);

pub(super) fn osd_topic(sn: &str) -> String {
    format!("thing/product/{sn}/osd")
}

pub(super) fn state_topic(sn: &str) -> String {
    format!("thing/product/{sn}/state")
}

pub(super) fn events_topic(sn: &str) -> String {
    format!("thing/product/{sn}/events")
}

pub(super) fn status_topic(sn: &str) -> String {
    format!("sys/product/{sn}/status")
}

/// What the gateway may send to this drone.
pub(super) fn down_filters(sn: &str) -> Vec<String> {
    vec![
        format!("sys/product/{sn}/status_reply"),
        format!("thing/product/{sn}/services"),
        format!("thing/product/{sn}/events_reply"),
        format!("thing/product/{sn}/requests_reply"),
        format!("thing/product/{sn}/property/set"),
    ]
}

fn envelope(sn: &str, tid: &str, now_ms: u64, method: Option<&str>, data: &Value) -> Vec<u8> {
    let mut envelope =
        json!({"tid": tid, "bid": tid, "timestamp": now_ms, "gateway": sn, "data": data});
    if let Some(method) = method {
        envelope["method"] = method.into();
    }
    envelope.to_string().into_bytes()
}

/// The first thing it says; must be answered with result 0. Aircraft and remote control are one device of the registry,
/// so that it announces itself and no sub-devices.
pub(super) fn update_topo(device: &Device, tid: &str, now_ms: u64) -> Vec<u8> {
    let data = json!({
        "domain": "0", "type": AIRCRAFT.0, "sub_type": AIRCRAFT.1, "device_secret": "", "nonce": "",
        "thing_version": "1.1.2", "sub_devices": [],
    });
    envelope(&device.id, tid, now_ms, Some("update_topo"), &data)
}

/// True if this is the answer to `tid` with result 0.
pub(super) fn accepts(payload: &[u8], tid: &str) -> bool {
    serde_json::from_slice::<Value>(payload).is_ok_and(|reply| {
        reply["tid"] == tid && reply.pointer("/data/result") == Some(&Value::from(0))
    })
}

/// Properties at 0.5 Hz. Coordinates keep all digits of a double, as the real devices do.
pub(super) fn osd(device: &Device, moment: &Moment, tid: &str, now_ms: u64) -> Vec<u8> {
    // The vendor states the heading from -180 to 180.
    let heading = if moment.heading_deg > 180.0 {
        moment.heading_deg - 360.0
    } else {
        moment.heading_deg
    };
    let data = json!({
        "67-0-0": {"payload_index": "67-0-0", "gimbal_pitch": -35.5, "gimbal_roll": 0, "gimbal_yaw": heading,
            "zoom_factor": 1, "measure_target_error_state": 1, "measure_target_latitude": 0,
            "measure_target_longitude": 0, "measure_target_distance": 0},
        "attitude_head": heading, "attitude_pitch": -3.2, "attitude_roll": 1.1,
        "battery": {"capacity_percent": moment.battery_pct.round() as i64, "landing_power": 10,
            "return_home_power": 25, "remain_flight_time": (moment.battery_pct * 20.0) as i64,
            "batteries": [{"capacity_percent": moment.battery_pct.round() as i64, "index": 0, "loop_times": 137,
                "sn": "4BUPJ99DAD009W", "temperature": 33.3, "voltage": 24303}]},
        "elevation": 60.000_000_000_000_003, "firmware_version": "05.01.0214", "gear": 1, "height": moment.alt_m,
        "height_limit": 120, "home_distance": 91.700_012_207_031_25, "horizontal_speed": moment.speed_mps,
        "vertical_speed": 0, "latitude": moment.lat, "longitude": moment.lon, "mode_code": 5, "mode_code_reason": 0,
        "position_state": {"gps_number": 19, "is_fixed": 2, "quality": 5, "rtk_number": 0},
        "storage": {"total": 60_000_000, "used": 1_200_000}, "track_id": "", "wind_direction": 3, "wind_speed": 21,
    });
    envelope(&device.id, tid, now_ms, None, &data)
}

/// A property that is pushed when it changes.
pub(super) fn state(device: &Device, tid: &str, now_ms: u64) -> Vec<u8> {
    let data = json!({"live_capacity": {"available_video_number": 1, "coexist_video_number_max": 1, "device_list": [
        {"sn": device.id, "available_video_number": 1, "coexist_video_number_max": 1, "camera_list": [
            {"camera_index": "67-0-0", "available_video_number": 1, "coexist_video_number_max": 1,
             "video_list": [{"video_index": "normal-0", "video_type": "normal"}]}]}]}});
    envelope(&device.id, tid, now_ms, None, &data)
}

/// All that is wrong with it now: strong wind for the one whose number is odd, nothing for the other.
pub(super) fn hms(device: &Device, now_ms: u64) -> Vec<u8> {
    let is_odd = device.id.bytes().last().is_some_and(|b| b % 2 == 1);
    let list = if is_odd {
        json!([{"level": 1, "module": 3, "in_the_sky": 1, "code": "0x16100083", "imminent": 1,
            "device_type": "0-67-1", "args": {"component_index": 0, "sensor_index": 0}}])
    } else {
        json!([])
    };
    let tid = format!("{}-hms-{now_ms}", device.id);
    envelope(
        &device.id,
        &tid,
        now_ms,
        Some("hms"),
        &json!({"list": list}),
    )
}
