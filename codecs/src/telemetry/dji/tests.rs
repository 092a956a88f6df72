use serde_json::Value;

use super::super::report::{Property, Value as Told};
use super::super::{Codecs, Speaker, decode};
use super::*;

const NOW: i64 = 1_795_219_200_500;

/// Aircraft on the ground, dock2/00.properties.md.
const AIRCRAFT_OSD: &str = r#"{"bid":"b","tid":"t","timestamp":1795219200000,"data":{"52-0-0":{"measure_target_altitude":0,
    "measure_target_distance":591.70001220703125,"measure_target_error_state":1,"measure_target_latitude":0,
    "measure_target_longitude":0,"payload_index":"52-0-0","version":1},"attitude_head":41.7,"attitude_pitch":2.7,
    "attitude_roll":0,"battery":{"batteries":[{"capacity_percent":95,"index":0,"loop_times":137,"sn":"4BUPJ99DAD009W",
    "temperature":33.3,"voltage":24303},{"capacity_percent":85,"index":1,"temperature":32,"voltage":24311}],
    "capacity_percent":90,"landing_power":0,"remain_flight_time":0,"return_home_power":0},"elevation":0,
    "firmware_version":"05.01.0214","gear":1,"height":38.417465209960938,"height_limit":120,"home_distance":0,
    "horizontal_speed":0,"latitude":0,"longitude":0,"mode_code":0,
    "position_state":{"gps_number":0,"is_fixed":0,"quality":0,"rtk_number":0},"storage":{"total":0,"used":0},"track_id":""}}"#;

fn osd(payload: &str) -> Report {
    let mut d = decode("dock1", "thing/product/uav1/osd", payload.as_bytes(), NOW);
    assert_eq!(d.reports.len(), 1, "{d:?}");
    d.reports.remove(0)
}

#[test]
fn an_aircraft_without_fix_has_no_position() {
    let r = osd(AIRCRAFT_OSD);
    assert_eq!(r.device, "uav1");
    assert_eq!(r.fix, None);
    assert_eq!(r.faults, [Fault::NoFix]);
    assert_eq!(r.battery_pct, Some(90.0));
    assert_eq!(r.kind.as_deref(), Some("drone"));
    assert_eq!(r.mode.as_deref(), Some("standby"));
    assert_eq!(r.device_time_ms, Some(1_795_219_200_000));

    let near = AIRCRAFT_OSD.replace(
        r#""latitude":0,"longitude":0"#,
        r#""latitude":1e-7,"longitude":0"#,
    );
    assert_eq!(osd(&near).faults, [Fault::NoFix], "no satellite at all");
}

#[test]
fn an_aircraft_in_the_air() {
    let flying = AIRCRAFT_OSD
        .replace(
            r#""latitude":0,"longitude":0"#,
            r#""latitude":37.69,"longitude":"112.75""#,
        )
        .replace(r#""gps_number":0"#, r#""gps_number":21"#)
        .replace(r#""attitude_head":41.7"#, r#""attitude_head":"-91.40""#)
        .replace(r#""mode_code":0"#, r#""mode_code":5"#);
    let r = osd(&flying);
    let f = r.fix.unwrap();
    assert_eq!((f.lat, f.lon), (37.69, 112.75));
    assert_eq!(f.alt_m, Some(38.417_465_209_960_94));
    assert_eq!(f.heading_deg, Some(360.0 - 91.4));
    assert_eq!(r.mode.as_deref(), Some("wayline flight"));
    assert_eq!(r.faults, [Fault::NumberAsText]);
}

#[test]
fn an_unknown_model_still_has_a_position() {
    let r = osd(r#"{"data":{"latitude":37.69,"longitude":112.75,"mode_code":99}}"#);
    assert!(r.fix.is_some());
    assert_eq!((r.kind, r.device_time_ms), (None, None));
}

#[test]
fn quirks() {
    for timestamp in ["146052438362", "14605243836200", "\"soon\""] {
        let r = osd(&format!(
            r#"{{"timestamp":{timestamp},"data":{{"latitude":37.69,"longitude":112.75}}}}"#
        ));
        assert_eq!(r.device_time_ms, None);
        assert_eq!(r.faults, [Fault::BadField]);
        assert!(r.fix.is_some());
    }
    // The sample of the situation-awareness document has them swapped.
    let swapped = osd(r#"{"data":{"latitude":113.44444,"longitude":23.45656}}"#);
    assert_eq!(
        (swapped.fix, &swapped.faults[..]),
        (None, &[Fault::Swapped][..])
    );
    let twice =
        osd(r#"{"method":"a","method":"b","data":{"latitude":1,"latitude":2,"longitude":3}}"#);
    assert_eq!(twice.fix.unwrap().lat, 2.0);
    let unknown =
        osd(r#"{"data":{"latitude":1,"longitude":3,"height":32767,"horizontal_speed":32767}}"#);
    let f = unknown.fix.unwrap();
    assert_eq!((f.alt_m, f.speed_mps), (None, None));
    assert!(unknown.faults.is_empty());
}

#[test]
fn a_part_of_a_dock() {
    let r = osd(
        r#"{"timestamp":1795219200000,"data":{"cover_state":0,"drone_in_dock":1,"mode_code":4,
            "latitude":37.6,"longitude":112.7,"drone_charge_state":{"capacity_percent":55}}}"#,
    );
    assert_eq!(r.kind.as_deref(), Some("dock"));
    assert_eq!(r.mode.as_deref(), Some("working"));
    assert_eq!(r.battery_pct, None, "that is the drone's");
}

const TOPO: &str = r#"{"tid":"t1","bid":"b1","method":"update_topo","timestamp":1234567890123,"data":{"domain":"3","type":119,
    "sub_type":0,"device_secret":"secret","nonce":"nonce","thing_version":"1.1.2","sub_devices":[{"sn":"drone001",
    "domain":"0","type":60,"sub_type":0,"index":"A","device_secret":"secret","nonce":"nonce","thing_version":"1.1.2"}]}}"#;

#[test]
fn an_aircraft_under_the_number_of_its_remote_control_is_an_aircraft() {
    let topo = TOPO.replace("drone001", "dock001");
    let d = decode(
        "dock001",
        "sys/product/dock001/status",
        topo.as_bytes(),
        NOW,
    );
    assert_eq!(d.faults, []);
    assert_eq!(d.topology, Some(vec![]));
    assert_eq!(d.reports[0].kind.as_deref(), Some("drone"));
}

#[test]
fn a_topology_is_learnt_and_answered() {
    for topic in ["sys/product/dock1/status", "thing/product/dock1/status"] {
        let d = decode("dock1", topic, TOPO.as_bytes(), NOW);
        assert_eq!(
            d.topology.unwrap(),
            [SubDevice {
                sn: "drone001".into(),
                kind: Some("drone"),
                model: Some("DJI M300 RTK".into())
            }]
        );
        assert_eq!(d.replies.len(), 1);
        assert_eq!(d.replies[0].topic, format!("{topic}_reply"));
        let sent: Value = serde_json::from_str(&d.replies[0].payload).unwrap();
        assert_eq!(
            sent,
            json!({"tid":"t1","bid":"b1","method":"update_topo","timestamp":NOW,"data":{"result":0}})
        );
        assert_eq!(d.reports.len(), 2);
        assert_eq!(d.reports[0].model.as_deref(), Some("DJI 3-119-0"));
        assert_eq!(d.reports[1].device, "drone001");
        assert_eq!(d.reports[1].online, Some(true));
    }
    let off = TOPO.replace(r#"{"sn":"drone001","#, r#"{"sn":"a/b","#);
    let d = decode("dock1", "sys/product/dock1/status", off.as_bytes(), NOW);
    assert_eq!(d.topology, Some(vec![]));
    assert_eq!(d.faults, [Fault::BadField]);
}

#[test]
fn events_and_requests_are_answered() {
    let say = |channel: &str, payload: &str| {
        decode(
            "d",
            &format!("thing/product/d/{channel}"),
            payload.as_bytes(),
            NOW,
        )
    };
    let d = say(
        "events",
        r#"{"tid":"t","bid":"b","method":"hms","need_reply":1,"data":{"list":[]}}"#,
    );
    assert_eq!(d.replies[0].topic, "thing/product/d/events_reply");
    assert!(d.replies[0].payload.contains(r#""result":0"#));
    assert!(
        say("events", r#"{"method":"hms","need_reply":0}"#)
            .replies
            .is_empty()
    );

    let d = say(
        "requests",
        r#"{"tid":"t","bid":"b","method":"fly_me","data":{}}"#,
    );
    assert_eq!(d.replies[0].topic, "thing/product/d/requests_reply");
    assert!(d.replies[0].payload.contains(r#""result":1"#));
    assert_eq!(d.faults, [Fault::UnknownMethod]);
    for method in REQUESTS {
        let d = say("requests", &format!(r#"{{"tid":"t","method":"{method}"}}"#));
        assert!(d.replies[0].payload.contains(r#""result":1"#), "{method}");
        assert_eq!(d.faults, [], "{method}");
    }
    assert_eq!(
        decode("d", "sys/product/d/status", br#"{"method":"x"}"#, NOW).faults,
        [Fault::UnknownMethod]
    );
}

fn named<'r>(r: &'r Report, name: &str) -> Option<&'r Property> {
    r.properties.iter().find(|p| p.name == name)
}

#[track_caller]
fn tells(r: &Report, all: &[(&str, f64)]) {
    for (name, value) in all {
        let told = named(r, name).map(|p| &p.value);
        assert_eq!(told, Some(&Told::Number(*value)), "{name}");
    }
}

/// README of pktiuk/DJI_Cloud_API_minimal: an aircraft in a room.
#[test]
fn a_real_capture_without_a_fix() {
    let r = osd(
        r#"{"data":{"61-0-0":{"gimbal_pitch":0,"gimbal_roll":0,"gimbal_yaw":117.8,"measure_target_altitude":0,
            "measure_target_distance":4.2,"measure_target_error_state":3,"measure_target_latitude":0,
            "measure_target_longitude":0,"payload_index":"61-0-0","zoom_factor":1},"attitude_head":10.4,"elevation":0,
            "height":16.160583,"latitude":0,"longitude":0,
            "position_state":{"gps_number":0,"is_fixed":0,"quality":0,"rtk_number":0}}}"#,
    );
    assert_eq!((r.fix, &r.faults[..]), (None, &[Fault::NoFix][..]));
    let sight = r.sight.unwrap();
    assert_eq!(sight.azimuth_deg, Some(117.8));
    assert_eq!((sight.target, sight.slant_range_m), (None, None));
    assert_eq!(sight.height_m, None, "on the ground");
}

#[test]
fn gimbal_zoom_and_laser_are_a_sight() {
    let r = osd(
        r#"{"data":{"39-0-7":{"payload_index":"39-0-7"},"53-0-0":{"gimbal_pitch":-45,"gimbal_roll":0,
            "gimbal_yaw":"-91.40","zoom_factor":2,"measure_target_error_state":0,"measure_target_latitude":37.691,
            "measure_target_longitude":112.751,"measure_target_distance":591.7},"elevation":60.5,
            "latitude":37.69,"longitude":112.75,"vertical_speed":-1.5,"horizontal_speed":8,"wind_speed":21,
            "wind_direction":8,"1-2":{"gimbal_yaw":1}}}"#,
    );
    assert_eq!(r.faults, [Fault::NumberAsText]);
    let f = r.fix.unwrap();
    assert_eq!(
        (f.speed_mps, f.climb_mps, f.course_deg),
        (Some(8.0), Some(-1.5), None)
    );
    let s = r.sight.as_deref().unwrap();
    assert_eq!(s.azimuth_deg, Some(360.0 - 91.4));
    assert_eq!((s.elevation_deg, s.height_m), (Some(-45.0), Some(60.5)));
    assert_eq!(
        (s.target, s.slant_range_m),
        (Some((37.691, 112.751)), Some(591.7))
    );
    // 24 mm over the diagonal is 84°; twice the focal length is half the tangent.
    let (h, v) = (s.hfov_deg.unwrap(), s.vfov_deg.unwrap());
    let half = |deg: f64| (deg / 2.0).to_radians().tan();
    let diagonal = 2.0 * (2.0 * half(h).hypot(half(v))).atan().to_degrees();
    assert!((diagonal - 84.0).abs() < 0.5, "{diagonal}");
    tells(
        &r,
        &[
            ("wind_speed_raw", 21.0),
            ("wind_direction_deg", 315.0),
            ("height_over_takeoff_m", 60.5),
        ],
    );
    let beyond = osd(r#"{"data":{"53-0-0":{"gimbal_pitch":-91,"gimbal_yaw":10}}}"#);
    let s = beyond.sight.unwrap();
    assert_eq!((s.elevation_deg, s.azimuth_deg), (Some(-89.0), Some(190.0)));
    let unknown =
        osd(r#"{"data":{"999-0-0":{"gimbal_pitch":-30,"gimbal_yaw":10,"zoom_factor":5}}}"#);
    assert_eq!(unknown.sight.unwrap().hfov_deg, None, "a lens nobody knows");
    let zero = osd(
        r#"{"data":{"53-0-0":{"measure_target_error_state":0,"measure_target_latitude":0,"measure_target_longitude":0}}}"#,
    );
    assert_eq!((zero.sight, &zero.faults[..]), (None, &[Fault::NoFix][..]));
}

/// The three messages of topic-definition.md: each is a report of what it has.
#[test]
fn a_dock_in_three_messages() {
    let works = osd(
        r#"{"tid":"t","bid":"b","timestamp":1667220873846,"data":{"job_number":492,"acc_time":1859010,"activation_time":0,
            "maintain_status":{"maintain_status_array":[{"state":0,"last_maintain_type":17,"last_maintain_time":0,
            "last_maintain_work_sorties":0}]},"electric_supply_voltage":231,"working_voltage":25440,
            "working_current":1120,"backup_battery":{"voltage":26631,"temperature":27.9,"switch":1},
            "drone_battery_maintenance_info":{"maintenance_state":0,"maintenance_time_left":0}},"gateway":"dock_sn"}"#,
    );
    tells(
        &works,
        &[("supply_voltage_v", 231.0), ("backup_battery_mv", 26631.0)],
    );
    let link = osd(
        r#"{"bid":"b","data":{"flighttask_step_code":255,"media_file_detail":{"remain_upload":0},"wireless_link":{
            "4g_freq_band":2.4,"4g_gnd_quality":0,"4g_link_state":0,"4g_quality":3,"4g_uav_quality":0,"dongle_number":0,
            "link_workmode":0,"sdr_freq_band":2.4,"sdr_link_state":0,"sdr_quality":5}},"tid":"t",
            "timestamp":1667220881576,"gateway":"dock_sn"}"#,
    );
    tells(
        &link,
        &[("lte_quality_0_to_5", 3.0), ("sdr_quality_0_to_5", 5.0)],
    );
    let weather = osd(
        r#"{"tid":"t","bid":"b","timestamp":1667220916697,"data":{"network_state":{"type":2,"quality":0,
            "rate":5.0970001220703125},"drone_charge_state":{"state":0,"capacity_percent":100},"drone_in_dock":1,
            "rainfall":0,"wind_speed":0.5,"environment_temperature":24,"temperature":32767,"humidity":62,
            "latitude":22.907809968,"longitude":113.703482143,"height":34.174125671386719,"alternate_land_point":{
            "latitude":22.907898319908661,"longitude":113.70347329676635,"safe_land_height":0,"is_configured":1},
            "first_power_on":1631945855969,"position_state":{"is_calibration":1,"is_fixed":2,"quality":5,"gps_number":6,
            "rtk_number":25},"storage":{"total":82045336,"used":51772},"mode_code":1,"cover_state":0,
            "supplement_light_state":0,"emergency_stop_state":0,"air_conditioner_mode":0,"battery_store_mode":1,
            "alarm_state":0,"putter_state":0,"sub_device":{"device_sn":"1581F5BKD225D00BP891","device_model_key":"0-67-0",
            "device_online_status":0,"device_paired":1}},"gateway":"dock_sn"}"#,
    );
    for part in [&works, &link, &weather] {
        assert_eq!(part.faults, []);
        assert_eq!(part.kind.as_deref(), Some("dock"));
    }
    assert!(works.fix.is_none() && link.fix.is_none());
    assert_eq!(weather.fix.unwrap().lat, 22.907_809_968);
    assert_eq!(weather.mode.as_deref(), Some("on-site debugging"));
    tells(
        &weather,
        &[
            ("wind_speed_mps", 0.5),
            ("outside_temperature_c", 24.0),
            ("aircraft_battery_pct", 100.0),
            ("network_rate_kb_s", 5.097_000_122_070_312_5),
        ],
    );
    assert!(named(&weather, "inside_temperature_c").is_none(), "32767");
    assert_eq!(
        named(&weather, "drone_in_dock").unwrap().value,
        Told::Flag(true)
    );
    let aircraft = named(&weather, "aircraft").unwrap();
    assert_eq!(aircraft.value, Told::Text("1581F5BKD225D00BP891".into()));
}

#[test]
fn videos_that_may_be_asked_for() {
    let r = osd(
        r#"{"data":{"live_capacity":{"available_video_number":1,"coexist_video_number_max":1,"device_list":[{"sn":"uav1",
            "available_video_number":1,"camera_list":[{"camera_index":"52-0-0","video_list":[
            {"video_index":"normal-0","video_type":"normal"}]},{"camera_index":"39-0-7","video_list":[
            {"video_index":"normal-0"}]}]}]},"live_status":[{"video_id":"uav1/52-0-0/normal-0","status":1},
            {"video_id":"uav1/39-0-7/normal-0","status":0}]}}"#,
    );
    assert_eq!(r.faults, []);
    let text = |name| match &named(&r, name).unwrap().value {
        Told::Text(t) => t.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text("videos"), "uav1/52-0-0/normal-0 uav1/39-0-7/normal-0");
    assert_eq!(text("videos_running"), "uav1/52-0-0/normal-0");
    let odd = osd(r#"{"data":{"live_capacity":7,"live_status":{}}}"#);
    assert_eq!(odd.faults, [Fault::BadField; 2]);
}

#[test]
fn health_is_a_complete_snapshot() {
    let say = |payload: &str| decode("d", "thing/product/d/events", payload.as_bytes(), NOW);
    let item = r#"{"args":{"component_index":0,"sensor_index":0},"code":"0x16100083","device_type":"0-67-0","imminent":1,
        "in_the_sky":0,"level":2,"module":3}"#;
    let sample = format!(
        r#"{{"bid":"b","data":{{"list":[{item}]}},"tid":"t","timestamp:":1654070968655,"method":"hms"}}"#
    );
    let alarm = Alarm {
        code: "0x16100083".into(),
        level: AlarmLevel::Warning,
        text: Some("aircraft, on the ground".into()),
    };
    let d = say(&sample);
    assert_eq!(d.reports[0].alarms, Some(vec![alarm.clone()]));
    assert!(d.replies.is_empty() && d.reports[0].faults.is_empty());
    // As the document shows it, without a method.
    let d = say(&sample.replace(r#","method":"hms""#, ""));
    assert_eq!(d.reports[0].alarms, Some(vec![alarm]));
    let d = say(r#"{"method":"hms","need_reply":1,"data":{"list":[]}}"#);
    assert_eq!(d.reports[0].alarms, Some(vec![]), "all is well again");
    assert_eq!(d.replies.len(), 1);
    let d = say(r#"{"method":"hms","data":{"list":7}}"#);
    assert_eq!(d.reports[0].alarms, None);
    assert_eq!(d.reports[0].faults, [Fault::BadField]);
    let d = say(r#"{"method":"hms","data":{"list":[{"level":0},{"code":"0x1","level":0}]}}"#);
    assert_eq!(d.reports[0].alarms.as_ref().unwrap().len(), 1);
    assert_eq!(d.reports[0].faults, [Fault::BadField]);
    let many = vec![item; 100].join(",");
    let d = say(&format!(r#"{{"method":"hms","data":{{"list":[{many}]}}}}"#));
    assert_eq!(d.reports[0].alarms.as_ref().unwrap().len(), ALARMS_MAX);
}

#[test]
fn an_event_whose_data_is_a_list_is_answered() {
    let d = decode(
        "d",
        "thing/product/d/events",
        br#"{"bid":"b","data":[{"altitude":100,"icao":"B-5931","latitude":12.23,"longitude":12.23,"warning_level":3}],
            "need_reply":1,"tid":"t","timestamp":16540709686556}"#,
        NOW,
    );
    assert_eq!(d.replies.len(), 1);
    assert_eq!((d.reports.len(), d.faults), (0, vec![Fault::NoMethod]));
}

fn drc(aircraft: Option<&str>, payload: &str) -> Decoded {
    let speaker = Speaker {
        device: "dock1",
        aircraft,
        ..Speaker::default()
    };
    let topic = "thing/product/dock1/drc/up";
    Codecs::default().decode(speaker, topic, payload.as_bytes(), NOW)
}

const DRC_OSD: &str = r#"{"method":"osd_info_push","timestamp":1795219200100,"data":{"attitude_head":60,
    "latitude":37.69,"longitude":112.75,"height":80.5,"speed_x":3,"speed_y":-4,"speed_z":1,"gimbal_pitch":-30,
    "gimbal_roll":0,"gimbal_yaw":60}}"#;

#[test]
fn the_fast_channel_moves_the_aircraft_and_not_the_dock() {
    let d = drc(Some("uav1"), DRC_OSD);
    let r = &d.reports[0];
    assert_eq!((&*r.device, &r.faults[..]), ("uav1", &[][..]));
    assert_eq!(r.device_time_ms, Some(1_795_219_200_100));
    let f = r.fix.unwrap();
    assert_eq!((f.lat, f.lon, f.alt_m), (37.69, 112.75, Some(80.5)));
    assert_eq!(
        (f.speed_mps, f.heading_deg, f.climb_mps),
        (Some(5.0), Some(60.0), None)
    );
    assert!((f.course_deg.unwrap() - 306.869_897_645_844).abs() < 1e-9);
    let s = r.sight.as_deref().unwrap();
    assert_eq!((s.azimuth_deg, s.elevation_deg), (Some(60.0), Some(-30.0)));

    let nobody = drc(None, DRC_OSD);
    assert_eq!(nobody, Decoded::refused(Fault::Unannounced));
    let hovering = DRC_OSD.replace(
        "\"speed_x\":3,\"speed_y\":-4",
        "\"speed_x\":0,\"speed_y\":0",
    );
    let f = drc(Some("uav1"), &hovering).reports[0].fix.unwrap();
    assert_eq!((f.speed_mps, f.course_deg), (Some(0.0), None));
    let unfixed = DRC_OSD.replace("37.69", "0").replace("112.75", "0");
    assert_eq!(
        drc(Some("uav1"), &unfixed).reports[0].faults,
        [Fault::NoFix]
    );
}

#[test]
fn delays_of_live_video() {
    let d = drc(
        Some("1581BN210004555439234"),
        r#"{"data":{"liveview_delay_list":[{"liveview_delay_time":60,"video_id":"1581BN210004555439234/52-0-0/normal-0"},
            {"liveview_delay_time":80,"video_id":"1581BN210004555439234/39-0-7/normal-0"},
            {"liveview_delay_time":-1,"video_id":"1581BN210004555439234/1-0-7/normal-0"},
            {"liveview_delay_time":9,"video_id":"other/1-0-7/normal-0"}],"sdr_cmd_delay":10},
            "method":"delay_info_push","timestamp":1795219200100}"#,
    );
    assert_eq!(d.faults, [Fault::BadField, Fault::Unannounced]);
    assert_eq!(d.reports.len(), 1);
    assert_eq!(d.reports[0].device, "1581BN210004555439234");
    let delays: Vec<_> = d.reports[0]
        .video_delays
        .iter()
        .map(|v| (&*v.camera, v.delay_ms))
        .collect();
    assert_eq!(delays, [("52-0-0/normal-0", 60), ("39-0-7/normal-0", 80)]);
}

#[test]
fn the_rest_of_the_fast_channel_is_taken() {
    use Fault::{DuplicateKey, NoMethod};
    for (payload, faults) in [
        (
            r#"{"method":"heart_beat","data":{"timestamp":1670415891013},"method":"heart_beat"}"#,
            vec![DuplicateKey],
        ),
        (
            r#"{"method":"hsi_info_push","data":{"up_distance":10,"around_distance":[10,8]}}"#,
            vec![],
        ),
        (
            r#"{"method":"drone_control","data":{"result":0,"output":{"seq":1}}}"#,
            vec![],
        ),
        (r#"{"data":{"result":0}}"#, vec![NoMethod]),
    ] {
        let expected = Decoded {
            faults,
            ..Decoded::default()
        };
        assert_eq!(drc(Some("uav1"), payload), expected, "{payload}");
    }
    assert_eq!(drc(None, "x").faults, [Fault::NotJson]);
}

#[test]
fn replies_are_answers_to_orders() {
    let say = |channel: &str, payload: &str| {
        let topic = format!("thing/product/d/{channel}");
        decode("d", &topic, payload.as_bytes(), NOW)
    };
    let answer = |order: &str, said, note: Option<&str>| Answer {
        order: order.into(),
        said,
        note: note.map(Into::into),
    };
    for (channel, payload, expected) in [
        (
            "services_reply",
            r#"{"bid":"b","data":{"result":0},"tid":"t","timestamp":1654070968655,"method":"live_start_push"}"#,
            answer("t", Said::Read, None),
        ),
        (
            "services_reply",
            r#"{"bid":"b","data":{"result":"513003"}}"#,
            answer("b", Said::Refused, Some("result 513003")),
        ),
        (
            "services_reply",
            r#"{"tid":"t","data":{"result":0,"output":{"status":"in_progress"}}}"#,
            answer("t", Said::Delivered, Some("in_progress")),
        ),
        (
            "services_reply",
            r#"{"tid":"t","data":{"result":0,"output":{"status":"failed"}}}"#,
            answer("t", Said::Refused, Some("failed")),
        ),
        (
            "property/set_reply",
            r#"{"tid":"t","bid":"b","data":{"height_limit":{"result":0},"rth_altitude":{"result":2}}}"#,
            answer("t", Said::Refused, Some("result 2")),
        ),
        (
            "property/set_reply",
            r#"{"tid":"t","data":{"height_limit":{"result":0}}}"#,
            answer("t", Said::Read, None),
        ),
    ] {
        let d = say(channel, payload);
        assert_eq!(d.answers, [expected], "{payload}");
        let has = |f| d.faults.contains(&f);
        assert_eq!(has(Fault::NoMethod), !payload.contains("method"));
        assert_eq!(has(Fault::NumberAsText), payload.contains("\"513003"));
    }
    for bad in [
        "{}",
        r#"{"tid":"t"}"#,
        r#"{"data":{"result":0}}"#,
        r#"{"tid":"t","data":{}}"#,
    ] {
        assert_eq!(
            say("services_reply", bad).faults,
            [Fault::BadField, Fault::NoMethod],
            "{bad}"
        );
    }
}
