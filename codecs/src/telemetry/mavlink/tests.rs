//! Golden frames (made with pymavlink 2.4.50, common dialect; also the corpus of the fuzz target) and what they come to.

use proptest::prelude::*;

use super::super::report::{AlarmLevel, Report, Value};
use super::*;
use crate::geo;

const NOW_MS: i64 = 1_795_219_200_000;

const HEARTBEAT: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/heartbeat");
const POSITION: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/position");
const ATTITUDE: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/attitude");
const BATTERY: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/battery");
const SIGNED: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/signed");
const GPS: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/gps");
const NOFIX: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/nofix");
const SYSTIME: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/systime");
const STATUS: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/status");
const VIDEO: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/video");
const FOV: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/fov");
const GIMBAL: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/gimbal");
const GIMBAL_E: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/gimbal_e");
const ODID: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/odid");
const ODID_OTHER: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/odid_other");
const GPI_V1: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/gpi_v1");
const GPI_NOHDG: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/gpi_nohdg");
const GPI_ZERO: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/gpi_zero");
const BAT_UNKNOWN: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/bat_unknown");
const RADIO: &[u8] = include_bytes!("../../../fuzz/corpus/mavlink/radio");

fn link() -> Link {
    Link::new(1, None)
}

/// Reports of these datagrams, 100 ms apart.
fn reports(link: &mut Link, datagrams: &[&[u8]]) -> Vec<Report> {
    let times = (NOW_MS..).step_by(100);
    datagrams
        .iter()
        .zip(times)
        .flat_map(|(data, at)| link.handle("uav-1", data, at).reports)
        .collect()
}

fn last(datagrams: &[&[u8]]) -> Report {
    reports(&mut link(), datagrams).pop().expect("a report")
}

#[track_caller]
fn near(a: Option<f64>, b: f64) {
    let a = a.expect("a number");
    assert!((a - b).abs() < 1e-3, "{a} is not {b}");
}

fn property<'r>(r: &'r Report, name: &str) -> Option<&'r Value> {
    r.properties
        .iter()
        .find(|p| p.name == name)
        .map(|p| &p.value)
}

#[test]
fn a_heartbeat_tells_what_the_vehicle_is() {
    let r = last(&[HEARTBEAT]);
    assert_eq!(r.kind.as_deref(), Some("drone"));
    assert_eq!(property(&r, "armed"), Some(&Value::Flag(false)));
    assert_eq!(
        property(&r, "system_status"),
        Some(&Value::Text("active".into()))
    );
    assert_eq!((r.fix, r.mode), (None, None));
}

#[test]
fn a_position_with_its_movement() {
    let r = last(&[POSITION]);
    let fix = r.fix.unwrap();
    near(Some(fix.lat), 37.69);
    near(Some(fix.lon), 112.75);
    near(fix.alt_m, 812.345);
    near(fix.speed_mps, 1.677_051);
    near(fix.course_deg, 333.434_949);
    near(fix.climb_mps, 0.2);
    near(fix.heading_deg, 90.0);
    assert_eq!((fix.accuracy_m, r.device_time_ms), (None, None));
    assert_eq!(
        property(&r, "alt_reference"),
        Some(&Value::Text("msl".into()))
    );
    assert_eq!(
        property(&r, "height_above_home_m"),
        Some(&Value::Number(60.0))
    );
    assert_eq!(
        last(&[GPI_V1]).fix.map(|f| (f.lat, f.lon)),
        Some((37.69, 112.75))
    );
}

#[test]
fn what_other_messages_said_joins_the_position() {
    let r = last(&[SYSTIME, GPS, BATTERY, HEARTBEAT, POSITION]);
    let fix = r.fix.unwrap();
    near(fix.accuracy_m, 1.5);
    near(fix.alt_m, 800.345);
    assert_eq!(
        property(&r, "alt_reference"),
        Some(&Value::Text("ellipsoid".into()))
    );
    assert_eq!(property(&r, "satellites"), Some(&Value::Number(14.0)));
    assert_eq!(r.battery_pct, Some(87.0));
    let Some(Value::Number(volts)) = property(&r, "battery_voltage_v") else {
        panic!("{r:?}");
    };
    near(Some(*volts), 12.449);
    // SYSTEM_TIME said 100,000 ms after its start.
    assert_eq!(r.device_time_ms, Some(NOW_MS + 23_456));
    assert_eq!(last(&[BATTERY, BAT_UNKNOWN, POSITION]).battery_pct, None);
}

#[test]
fn an_unknown_heading_is_that_of_the_attitude_or_none() {
    let fix = last(&[GPI_NOHDG]).fix.unwrap();
    assert_eq!((fix.heading_deg, fix.course_deg), (None, None));
    assert_eq!(fix.speed_mps, Some(0.0));
    near(
        last(&[ATTITUDE, GPI_NOHDG]).fix.unwrap().heading_deg,
        90.000_21,
    );
}

#[test]
fn no_fix_is_no_position() {
    for data in [vec![GPI_ZERO], vec![NOFIX, POSITION]] {
        let mut link = link();
        let all: Vec<_> = data
            .iter()
            .map(|d| link.handle("uav-1", d, NOW_MS))
            .collect();
        assert!(all.iter().all(|d| d.reports.is_empty()));
        assert_eq!(all.last().unwrap().faults, [Fault::NoFix]);
    }
    // What the receiver said long ago no longer counts.
    let mut link = link();
    link.handle("uav-1", NOFIX, NOW_MS);
    assert_eq!(
        link.handle("uav-1", POSITION, NOW_MS + 6_000).reports.len(),
        1
    );
}

#[test]
fn positions_are_thinned_to_ten_a_second() {
    let mut link = link();
    let told = (0..100)
        .map(|n| link.handle("uav-1", POSITION, NOW_MS + n * 10))
        .filter(|d| !d.reports.is_empty())
        .count();
    assert_eq!(told, 10);
}

#[test]
fn the_camera_looks_where_gimbal_and_nose_say() {
    let sight = last(&[FOV, POSITION]).sight.unwrap();
    near(sight.azimuth_deg, 90.0);
    near(sight.elevation_deg, -30.0);
    near(sight.hfov_deg, 60.0);
    near(sight.vfov_deg, 34.0);
    near(sight.height_m, 60.0);
    assert_eq!(sight.centre, Some((37.6905, 112.751)));
    // The nose points east, and the gimbal east of it.
    near(
        last(&[POSITION, GIMBAL, POSITION])
            .sight
            .unwrap()
            .azimuth_deg,
        180.0,
    );
    near(
        last(&[POSITION, GIMBAL_E, POSITION])
            .sight
            .unwrap()
            .azimuth_deg,
        90.0,
    );
    let blind = last(&[GIMBAL, GPI_NOHDG]).sight.unwrap();
    assert_eq!(blind.azimuth_deg, None, "nobody said where the nose points");
    near(blind.elevation_deg, -30.0);
}

#[test]
fn texts_are_alarms_for_a_minute() {
    let mut link = link();
    let first = &reports(&mut link, &[STATUS, STATUS, POSITION])[0];
    let alarms = first.alarms.as_ref().unwrap();
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].level, AlarmLevel::Warning);
    assert_eq!(alarms[0].text.as_deref(), Some("Engine failure"));
    let later = |link: &mut Link, s: i64| {
        link.handle("uav-1", POSITION, NOW_MS + s * 1000)
            .reports
            .remove(0)
    };
    assert_eq!(later(&mut link, 61).alarms, Some(Vec::new()));
    assert_eq!(later(&mut link, 62).alarms, None);
}

#[test]
fn a_video_address_comes_without_its_password() {
    let r = last(&[VIDEO, POSITION]);
    assert_eq!(
        property(&r, "video_uri_1"),
        Some(&Value::Text("rtsp://192.0.2.20:8554/main".into()))
    );
}

#[test]
fn a_remote_id_is_a_position_when_there_is_no_other() {
    let r = last(&[ODID]);
    let fix = r.fix.unwrap();
    assert_eq!((fix.lat, fix.lon), (37.691, 112.751));
    near(fix.alt_m, 790.0);
    near(fix.course_deg, 270.0);
    near(fix.speed_mps, 5.2);
    near(fix.climb_mps, -1.0);
    near(fix.accuracy_m, 5.0);
    // Half an hour after a full hour; NOW_MS is a full hour.
    assert_eq!(
        r.device_time_ms.map(|t| (t - NOW_MS).abs()),
        Some(1_800_500 - 1000)
    );
    assert!(
        reports(&mut link(), &[ODID_OTHER]).is_empty(),
        "another aircraft"
    );
    assert_eq!(reports(&mut link(), &[POSITION, ODID]).len(), 1);
}

#[test]
fn a_log_with_its_time_stamp_and_junk_is_resynchronised() {
    let mut log = 47_333_000_u64.to_be_bytes().to_vec();
    log.extend(BATTERY);
    log.extend([0xfd, 0x00, 0xfe, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(log.len(), 70);
    let mut link = link();
    let d = link.handle("uav-1", &log, NOW_MS);
    assert_eq!(d.faults, [Fault::Garbage, Fault::Garbage]);
    let r = link.handle("uav-1", POSITION, NOW_MS).reports.remove(0);
    assert_eq!(r.battery_pct, Some(87.0));
}

#[test]
fn with_a_key_only_signed_frames_are_believed_and_once() {
    let key = Key(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    let mut link = Link::new(1, Some(key));
    let then = 1_421_070_400_000;
    assert_eq!(
        link.handle("uav-1", POSITION, then).faults,
        [Fault::Unsigned]
    );
    assert_eq!(link.handle("uav-1", GPI_V1, then).faults, [Fault::Unsigned]);
    assert_eq!(link.handle("uav-1", RADIO, then).faults, []);
    assert_eq!(link.handle("uav-1", SIGNED, then).reports.len(), 1);
    assert_eq!(link.handle("uav-1", SIGNED, then).faults, [Fault::Stale]);
    let mut other = Link::new(1, Some(Key([7; 32])));
    assert_eq!(
        other.handle("uav-1", SIGNED, then).faults,
        [Fault::BadChecksum]
    );
}

#[test]
fn other_systems_are_passed_over() {
    let mut link = Link::new(2, None);
    assert_eq!(link.handle("uav-2", POSITION, NOW_MS), Decoded::default());
    assert!(speaks(POSITION, 1) && !speaks(POSITION, 2));
}

proptest! {
    #[test]
    fn any_bytes_are_harmless(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                prop::sample::select(vec![POSITION.to_vec(), GPS.to_vec(), FOV.to_vec(), STATUS.to_vec()]),
            ],
            0..12,
        ),
    ) {
        let d = link().handle("uav-1", &parts.concat(), NOW_MS);
        for f in d.reports.iter().filter_map(|r| r.fix.as_ref()) {
            prop_assert!(geo::valid(f.lat, f.lon));
        }
    }

    /// Whatever the fields hold: frames with right checksums and any payload.
    #[test]
    fn any_payload_is_harmless(
        id in prop::sample::select(vec![0u32, 2, 24, 30, 33, 147, 253, 269, 271, 285, 12_901]),
        payload in prop::collection::vec(any::<u8>(), 1..255),
    ) {
        use mavlink::Message;
        let [low, mid, high, _] = id.to_le_bytes();
        let size = u8::try_from(payload.len()).unwrap();
        let mut data = vec![0xfd, size, 0, 0, 0, 1, 1, low, mid, high];
        data.extend(&payload);
        let crc = frame::checksum(&data[1..], m::MavMessage::extra_crc(id));
        data.extend(crc.to_le_bytes());
        let mut link = link();
        link.handle("uav-1", &data, NOW_MS);
        let d = link.handle("uav-1", POSITION, NOW_MS + 200);
        for r in &d.reports {
            let f = r.fix.as_ref().unwrap();
            prop_assert!(f.heading_deg.is_none_or(|h| (0.0..360.0).contains(&h)));
            prop_assert!(f.alt_m.is_none_or(f64::is_finite));
            prop_assert!(r.battery_pct.is_none_or(|b| (0.0..=100.0).contains(&b)));
        }
    }
}
