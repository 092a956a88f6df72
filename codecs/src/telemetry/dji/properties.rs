//! `osd` and `state`: what an aircraft, a dock or a remote control tells of itself, in parts. Every part is a report of
//! what it has; the picture puts them together.

use super::{Envelope, Item, Message, Object, UNKNOWN, number, sight};
use crate::telemetry::field::{self, Names, TEXT_MAX};
use crate::telemetry::report::{Property, Value};
use crate::telemetry::{Datum, Decoded, Fault, Fix, Report};

/// Longest list of videos, characters.
const VIDEOS_CHARS_MAX: usize = 1024;

pub fn decode(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    let Some(data) = e.data() else {
        return Decoded::refused(Fault::BadField);
    };
    let mut faults = Vec::new();
    let kind = kind(data);
    let fix = fix(data, &mut faults).map(|fix| {
        let max = field::SPEED_MAX_MPS;
        Fix {
            // How fast, and not where to.
            speed_mps: number(data, "horizontal_speed", 0.0, max, &mut faults),
            climb_mps: number(data, "vertical_speed", -max, max, &mut faults),
            heading_deg: heading(data, &mut faults),
            ..fix
        }
    });
    let battery = data.get("battery").and_then(Item::as_object);
    let report = Report {
        device: m.speaker.to_owned(),
        device_time_ms: e.time_ms(&mut faults),
        fix,
        battery_pct: number(
            battery.unwrap_or(data),
            "capacity_percent",
            0.0,
            100.0,
            &mut faults,
        ),
        mode: data
            .get("mode_code")
            .and_then(Item::as_integer)
            .and_then(|code| mode(kind, code)),
        kind: kind.map(Into::into),
        sight: sight::of_payloads(data, &mut faults).map(Box::new),
        properties: properties(data, kind, &mut faults),
        faults,
        ..Report::default()
    };
    Decoded {
        reports: vec![report],
        ..Decoded::default()
    }
}

/// Position and height; WGS-84 by the document.
pub fn fix(data: Object<'_>, faults: &mut Vec<Fault>) -> Option<Fix> {
    let names = Names {
        lat: "latitude",
        lon: "longitude",
    };
    if data.get(names.lat).is_none() && data.get(names.lon).is_none() {
        return None;
    }
    let fix = field::position(data, &names, Datum::Wgs84).and_then(|fix| {
        if sees_no_satellite(data) {
            Err(Fault::NoFix)
        } else {
            Ok(fix)
        }
    });
    let fix = fix.map_err(|fault| faults.push(fault)).ok()?;
    let (min, max) = (field::ALT_MIN_M, field::ALT_MAX_M);
    Some(Fix {
        alt_m: number(data, "height", min, max, faults),
        ..fix
    })
}

/// Yaw over true north: an integer in the document and 41.7 in its sample, −180..180.
pub fn heading(data: Object<'_>, faults: &mut Vec<Fault>) -> Option<f64> {
    number(data, "attitude_head", -360.0, 360.0, faults).map(field::turn)
}

/// `is_fixed` alone is the convergence of RTK: an aircraft without RTK has a good position and never converges.
fn sees_no_satellite(data: Object<'_>) -> bool {
    let state = data.get("position_state").and_then(Item::as_object);
    state.is_some_and(|state| {
        ["is_fixed", "gps_number", "rtk_number"]
            .iter()
            .all(|key| state.get(key).and_then(Item::as_integer) == Some(0))
    })
}

/// Properties do not name the kind of their device; some are of one kind only.
fn kind(data: Object<'_>) -> Option<&'static str> {
    let mut found = None;
    for (key, _) in data.members() {
        match key {
            "cover_state"
            | "drone_in_dock"
            | "drone_charge_state"
            | "putter_state"
            | "backup_battery"
            | "electric_supply_voltage"
            | "flighttask_step_code" => return Some("dock"),
            "attitude_head" | "attitude_pitch" | "gear" | "horizontal_speed" => {
                found = Some("drone");
            }
            _ => {}
        }
    }
    found
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

/// How a property is read.
#[derive(Clone, Copy)]
enum Shape {
    Number,
    /// 0 or 1.
    Flag,
    Text,
}

/// Our name and the shape of a property at the top.
fn known(key: &str, kind: Option<&str>) -> Option<(&'static str, Shape)> {
    use Shape::{Flag, Number, Text};
    Some(match key {
        "elevation" => ("height_over_takeoff_m", Number),
        "attitude_pitch" => ("pitch_deg", Number),
        "attitude_roll" => ("roll_deg", Number),
        "home_distance" => ("home_distance_m", Number),
        // A dock's has a unit, an aircraft's has none in the document.
        "wind_speed" if kind == Some("dock") => ("wind_speed_mps", Number),
        "wind_speed" => ("wind_speed_raw", Number),
        "mode_code_reason" => ("mode_reason", Number),
        "best_link_gateway" => ("best_link_gateway", Text),
        "firmware_version" => ("firmware_version", Text),
        "drone_in_dock" => ("drone_in_dock", Flag),
        "rainfall" => ("rainfall_0_to_3", Number),
        "environment_temperature" => ("outside_temperature_c", Number),
        "temperature" => ("inside_temperature_c", Number),
        "humidity" => ("inside_humidity_pct", Number),
        "cover_state" => ("cover_state", Number),
        "emergency_stop_state" => ("emergency_stop", Flag),
        "supplement_light_state" => ("supplement_light", Flag),
        "alarm_state" => ("alarm_light", Flag),
        "electric_supply_voltage" => ("supply_voltage_v", Number),
        "working_voltage" => ("working_voltage_mv", Number),
        "working_current" => ("working_current_ma", Number),
        "flighttask_step_code" => ("flight_task_step", Number),
        _ => return None,
    })
}

/// The same of a property inside another one.
fn known_within(outer: &str, key: &str) -> Option<(&'static str, Shape)> {
    use Shape::{Flag, Number, Text};
    Some(match (outer, key) {
        ("battery", "remain_flight_time") => ("remaining_flight_s", Number),
        ("battery", "return_home_power") => ("return_home_battery_pct", Number),
        ("battery", "landing_power") => ("landing_battery_pct", Number),
        ("position_state", "gps_number") => ("gps_satellites", Number),
        ("position_state", "rtk_number") => ("rtk_satellites", Number),
        ("position_state", "quality") => ("fix_quality", Number),
        ("position_state", "is_fixed") => ("rtk_state", Number),
        ("storage", "total") => ("storage_total_kb", Number),
        ("storage", "used") => ("storage_used_kb", Number),
        ("network_state", "type") => ("network_type", Number),
        ("network_state", "quality") => ("network_quality_0_to_5", Number),
        ("network_state", "rate") => ("network_rate_kb_s", Number),
        ("sub_device", "device_sn") => ("aircraft", Text),
        ("sub_device", "device_model_key" | "product_type") => ("aircraft_model", Text),
        ("sub_device", "device_online_status") => ("aircraft_powered", Flag),
        ("sub_device", "device_paired") => ("aircraft_paired", Flag),
        ("wireless_link", "sdr_quality") => ("sdr_quality_0_to_5", Number),
        ("wireless_link", "4g_quality") => ("lte_quality_0_to_5", Number),
        ("drone_charge_state", "capacity_percent") => ("aircraft_battery_pct", Number),
        ("drone_charge_state", "state") => ("aircraft_charging", Flag),
        ("backup_battery", "voltage") => ("backup_battery_mv", Number),
        ("backup_battery", "temperature") => ("backup_battery_c", Number),
        _ => return None,
    })
}

fn properties(data: Object<'_>, kind: Option<&str>, faults: &mut Vec<Fault>) -> Vec<Property> {
    let mut all = Vec::new();
    for (key, item) in data.members().filter(|(_, v)| !v.is_null()) {
        if let Some((name, shape)) = known(key, kind) {
            add(&mut all, name, value(shape, item, faults), faults);
            continue;
        }
        match key {
            "wind_direction" => {
                add(&mut all, "wind_direction_deg", eighth(item), faults);
            }
            "live_capacity" => {
                let videos = field::or_fault(capacity(item), faults);
                add(&mut all, "videos", videos.map(Value::Text), faults);
            }
            "live_status" => {
                let videos = field::or_fault(running(item), faults);
                add(&mut all, "videos_running", videos.map(Value::Text), faults);
            }
            outer => {
                let inner = item.as_object().map(Object::members);
                for (key, item) in inner.into_iter().flatten().filter(|(_, v)| !v.is_null()) {
                    if let Some((name, shape)) = known_within(outer, key) {
                        add(&mut all, name, value(shape, item, faults), faults);
                    }
                }
            }
        }
    }
    all
}

fn add(all: &mut Vec<Property>, name: &'static str, value: Option<Value>, faults: &mut Vec<Fault>) {
    if let Some(value) = value {
        field::property(all, name, value, faults);
    }
}

/// 1 is north, 2 north-east, … 8 north-west; anything else says nothing.
fn eighth(item: Item<'_>) -> Option<Value> {
    let eighth = item.as_integer().filter(|d| (1..=8).contains(d))?;
    let eighth = u8::try_from(eighth - 1).ok()?;
    Some(Value::Number(45.0 * f64::from(eighth)))
}

fn value(shape: Shape, item: Item<'_>, faults: &mut Vec<Fault>) -> Option<Value> {
    match shape {
        Shape::Number => {
            let n = field::or_fault(item.as_number(), faults)?;
            Some(n).filter(|n| *n != UNKNOWN).map(Value::Number)
        }
        Shape::Flag => {
            let flag = item.as_flag().or_else(|| item.as_integer().map(|n| n != 0));
            field::or_fault(flag, faults).map(Value::Flag)
        }
        Shape::Text => {
            let text = field::or_fault(item.to_text(), faults)?;
            let text = Some(field::cut(text, TEXT_MAX, faults));
            text.filter(|t| !t.is_empty()).map(Value::Text)
        }
    }
}

/// What `live_start_push` may be asked for: `{sn}/{camera}/{video}` with blanks between.
fn capacity(item: Item<'_>) -> Option<String> {
    let mut videos = String::new();
    for device in item.as_object()?.get("device_list")?.as_list()? {
        let device = device.as_object()?;
        let sn = device.get("sn")?.as_text()?;
        for camera in device.get("camera_list")?.as_list()? {
            let camera = camera.as_object()?;
            let index = camera.get("camera_index")?.as_text()?;
            for video in camera.get("video_list")?.as_list()? {
                let video = video.as_object()?.get("video_index")?.as_text()?;
                append(&mut videos, &[sn, index, video]);
            }
        }
    }
    Some(videos)
}

/// The videos that are sent now, named as above.
fn running(item: Item<'_>) -> Option<String> {
    let mut videos = String::new();
    for video in item.as_list()? {
        let video = video.as_object()?;
        if video.get("status").and_then(Item::as_integer) == Some(1) {
            append(&mut videos, &[video.get("video_id")?.as_text()?]);
        }
    }
    Some(videos)
}

fn append(videos: &mut String, parts: &[&str]) {
    let name = parts.join("/");
    if videos.len() + name.len() < VIDEOS_CHARS_MAX {
        if !videos.is_empty() {
            videos.push(' ');
        }
        videos.push_str(&name);
    }
}
