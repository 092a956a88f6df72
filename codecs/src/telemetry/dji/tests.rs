use super::super::decode;
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
    assert!(r.faults.is_empty(), "{:?}", r.faults);
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
        (None, &[Fault::OutsideWorld][..])
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
    assert_eq!(say("services_reply", "{}"), Decoded::default());
    assert_eq!(
        decode("d", "sys/product/d/status", br#"{"method":"x"}"#, NOW).faults,
        [Fault::UnknownMethod]
    );
}
