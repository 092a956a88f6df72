//! Where the camera of an aircraft looks: gimbal angles, zoom, laser target.

use super::{Item, Object, number};
use crate::telemetry::field::{self, Names};
use crate::telemetry::report::Sight;
use crate::telemetry::{Datum, Fault};

/// Types of cameras whose zoom factor counts from a wide lens of 24 mm: H20, H20T, M30, M30T, M3E, M3T, M3D, M3TD, H30,
/// H30T. (Its data sheets: 84° over the diagonal.)
const FROM_24_MM: [u32; 10] = [42, 43, 52, 53, 66, 67, 80, 81, 82, 83];
/// Of that wide lens: half the width and height of a 16:9 picture over the focal length.
const HALF_WIDTH: f64 = 18.85 / 24.0;
const HALF_HEIGHT: f64 = 10.6 / 24.0;
const TARGET: Names = Names {
    lat: "measure_target_latitude",
    lon: "measure_target_longitude",
};

/// `{type}-{subtype}-{gimbal}` → type and gimbal.
fn camera(key: &str) -> Option<(u32, u32)> {
    if !key.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let mut parts = key.split('-').map(|p| p.parse().ok());
    let camera = (parts.next()??, parts.next()??, parts.next()??);
    let (of, _, gimbal): (u32, u32, u32) = camera;
    parts.next().is_none().then_some((of, gimbal))
}

/// Of the first gimbal that says where it looks. Fixed cameras in the nose do not.
pub fn of_payloads(data: Object<'_>, faults: &mut Vec<Fault>) -> Option<Sight> {
    let (_, of, payload) = data
        .members()
        .filter_map(|(key, v)| {
            let (of, gimbal) = camera(key)?;
            Some((gimbal, of, v.as_object()?))
        })
        .filter(|(_, _, p)| {
            p.has("gimbal_pitch") || p.has("gimbal_yaw") || p.has("measure_target_error_state")
        })
        .min_by_key(|(gimbal, _, _)| *gimbal)?;
    let mut sight = of_gimbal(payload, faults).unwrap_or_default();
    let lens =
        number(payload, "zoom_factor", 1.0, 400.0, faults).filter(|_| FROM_24_MM.contains(&of));
    let angle = |half: f64, zoom: f64| 2.0 * (half / zoom).atan().to_degrees();
    sight.hfov_deg = lens.map(|zoom| angle(HALF_WIDTH, zoom));
    sight.vfov_deg = lens.map(|zoom| angle(HALF_HEIGHT, zoom));
    // 0 normal, 1 too close, 2 too far, 3 no signal.
    if payload
        .get("measure_target_error_state")
        .and_then(Item::as_integer)
        == Some(0)
    {
        match field::position(payload, &TARGET, Datum::Wgs84) {
            Ok(at) => sight.target = Some((at.lat, at.lon)),
            Err(fault) => faults.push(fault),
        }
        let range = number(payload, "measure_target_distance", 0.0, 1e5, faults);
        sight.slant_range_m = range.filter(|_| sight.target.is_some());
    }
    let is_known = sight != Sight::default();
    // Over the take-off point, which is as near to the ground as it tells.
    sight.height_m = number(data, "elevation", 0.1, field::ALT_MAX_M, &mut Vec::new());
    is_known.then_some(sight)
}

/// Yaw is over true north, pitch over the horizon.
pub fn of_gimbal(o: Object<'_>, faults: &mut Vec<Fault>) -> Option<Sight> {
    let yaw = number(o, "gimbal_yaw", -360.0, 360.0, faults);
    let pitch = number(o, "gimbal_pitch", -180.0, 180.0, faults);
    // A gimbal that looks down passes the plumb line by a little: it then looks backwards.
    let beyond = pitch.is_some_and(|p| p.abs() > 90.0);
    let elevation_deg = pitch.map(|p| if beyond { p.signum() * 180.0 - p } else { p });
    let azimuth_deg = yaw.map(|y| field::turn(if beyond { y + 180.0 } else { y }));
    (yaw.is_some() || pitch.is_some()).then(|| Sight {
        azimuth_deg,
        elevation_deg,
        ..Sight::default()
    })
}
