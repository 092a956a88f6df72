//! How long one message takes to decode, per protocol: `cargo run --release -p kerbside-codecs --example decode_rate`.
//!
//! Each figure is the quickest of many rounds: the machine is shared, and nothing makes a round too quick.

use std::hint::black_box;
use std::time::{Duration, Instant};

use kerbside_codecs::telemetry::mapping::{Fields, Number, Path, Quantity, Time, Topic};
use kerbside_codecs::telemetry::{Codecs, Mapping, Speaker};

const NOW_MS: i64 = 1_795_219_200_500;
const ROUNDS: u32 = 60;
const ROUND: Duration = Duration::from_millis(10);

/// Name, topic and payload.
const MESSAGES: [(&str, &str, &str); 8] = [
    (
        "own JSON, one report",
        "kerbside/v1/a/report",
        r#"{"time_ms":1795219200000,"position":{"lat":37.6901,"lon":112.7502,"alt_m":801.5,"accuracy_m":5.0,"speed_mps":1.2,"heading_deg":270.0},"battery_pct":83,"kind":"bodycam","model":"X5","mode":"patrol"}"#,
    ),
    (
        "DJI, osd of an aircraft",
        "thing/product/a/osd",
        r#"{"bid":"b","data":{"52-0-0":{"gimbal_pitch":-30.5,"gimbal_roll":0,"gimbal_yaw":117.8,"measure_target_altitude":0,"measure_target_distance":591.70001220703125,"measure_target_error_state":1,"measure_target_latitude":0,"measure_target_longitude":0,"payload_index":"52-0-0","version":1,"zoom_factor":2.0},"attitude_head":41.7,"attitude_pitch":2.7,"attitude_roll":0,"battery":{"batteries":[{"capacity_percent":95,"index":0,"loop_times":137,"sn":"4BUPJ99DAD009W","temperature":33.3,"voltage":24303},{"capacity_percent":85,"index":1,"temperature":32,"voltage":24311}],"capacity_percent":90,"landing_power":0,"remain_flight_time":1200,"return_home_power":20},"elevation":60.5,"firmware_version":"05.01.0214","gear":1,"height":838.417465209960938,"height_limit":120,"home_distance":140.2,"horizontal_speed":8.1,"vertical_speed":0.1,"latitude":37.690123456,"longitude":112.750123456,"mode_code":5,"position_state":{"gps_number":21,"is_fixed":2,"quality":5,"rtk_number":31},"storage":{"total":60000000,"used":51772},"track_id":"","wind_direction":3,"wind_speed":41},"tid":"t","timestamp":1795219200000,"gateway":"dock_sn"}"#,
    ),
    (
        "DJI, osd of a dock (a third)",
        "thing/product/a/osd",
        r#"{"tid":"t","bid":"b","timestamp":1795219200000,"data":{"network_state":{"type":2,"quality":0,"rate":5.0970001220703125},"drone_charge_state":{"state":0,"capacity_percent":100},"drone_in_dock":1,"rainfall":0,"wind_speed":0,"environment_temperature":24,"temperature":24.9,"humidity":62,"latitude":22.907809968,"longitude":113.703482143,"height":34.174125671386719,"alternate_land_point":{"latitude":22.907898319908661,"longitude":113.70347329676635,"safe_land_height":0,"is_configured":1},"first_power_on":1631945855969,"position_state":{"is_calibration":1,"is_fixed":2,"quality":5,"gps_number":6,"rtk_number":25},"storage":{"total":82045336,"used":51772},"mode_code":1,"cover_state":0,"supplement_light_state":0,"emergency_stop_state":0,"air_conditioner_mode":0,"battery_store_mode":1,"alarm_state":0,"putter_state":0,"sub_device":{"device_sn":"1581F5BKD225D00BP891","device_model_key":"0-67-0","device_online_status":0,"device_paired":1}},"gateway":"dock_sn"}"#,
    ),
    (
        "DJI, drc/up osd_info_push",
        "thing/product/a/drc/up",
        r#"{"method":"osd_info_push","timestamp":1795219200100,"data":{"attitude_head":60.1,"latitude":37.690123456,"longitude":112.750123456,"height":880.5,"speed_x":3.1,"speed_y":-4.2,"speed_z":0.1,"gimbal_pitch":-30.1,"gimbal_roll":0,"gimbal_yaw":60.1}}"#,
    ),
    (
        "DJI, events hms with a reply",
        "thing/product/a/events",
        r#"{"bid":"b","data":{"list":[{"args":{"component_index":0,"sensor_index":0},"code":"0x16100083","device_type":"0-67-0","imminent":1,"in_the_sky":0,"level":2,"module":3}]},"tid":"t","timestamp":1795219200000,"method":"hms","need_reply":1}"#,
    ),
    (
        "OwnTracks, location",
        "owntracks/a/phone",
        r#"{"_type":"location","lat":37.6901,"lon":112.7502,"tst":1795219190,"created_at":1795219199,"acc":13,"alt":801,"vel":36,"cog":270,"batt":72,"bs":1,"vac":3,"t":"u","conn":"m","m":2,"tid":"p1"}"#,
    ),
    (
        "a vendor's format",
        "acme/a/pos",
        r#"{"gps":{"lat":37.6901,"lon":112.7502,"valid":"A"},"spd":36,"dir":90,"bat":0.5,"t":1795219200}"#,
    ),
    (
        "bytes that are no JSON",
        "kerbside/v1/a/report",
        "{\"time_ms\":17952192\u{7f}",
    ),
];

fn main() {
    let codecs = Codecs::new(vec![acme()]);
    println!("| message | bytes | ns | messages/s |\n|---|---|---|---|");
    for (name, topic, payload) in MESSAGES {
        let ns = quickest(&codecs, topic, payload.as_bytes());
        println!("| {name} | {} | {ns:.0} | {:.0} |", payload.len(), 1e9 / ns);
    }
}

/// Nanoseconds of one message.
fn quickest(codecs: &Codecs, topic: &str, payload: &[u8]) -> f64 {
    let speaker = Speaker {
        device: "a",
        aircraft: Some("a"),
        ..Speaker::default()
    };
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let (start, mut done) = (Instant::now(), 0u32);
        while start.elapsed() < ROUND {
            for _ in 0..100 {
                black_box(codecs.decode(speaker, black_box(topic), black_box(payload), NOW_MS));
            }
            done += 100;
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(done));
    }
    best
}

fn acme() -> Mapping {
    let path = |p: &str| Path::parse(p).expect("a path");
    let number = |p: &str, of: Quantity, unit: &str| {
        let scale = of.unit(unit).expect("a unit");
        Some(Number {
            path: path(p),
            scale,
        })
    };
    Mapping {
        name: "acme".into(),
        topic: Topic::parse("acme/{device}/pos").expect("a topic"),
        down: None,
        when: Vec::new(),
        positions: None,
        datum: None,
        fields: Fields {
            lat: number("gps.lat", Quantity::Coordinate, "deg"),
            lon: number("gps.lon", Quantity::Coordinate, "deg"),
            speed: number("spd", Quantity::Speed, "km/h"),
            course: number("dir", Quantity::Angle, "deg"),
            battery: number("bat", Quantity::Battery, "0..1"),
            time: Some((path("t"), Time::Seconds)),
            ..Fields::default()
        },
        properties: Vec::new(),
    }
}
