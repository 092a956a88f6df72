//! What is known of one vehicle, and the report it makes.

use mavlink::dialects::common as m;

use super::super::report::{Alarm, AlarmLevel, Property, Sight, Value};
use super::super::{Datum, Fault, Fix, Report};
use super::{gimbal, modes};
use crate::geo;

/// How long what was said counts beside a newer position, milliseconds.
const FRESH_MS: i64 = 5_000;
/// Between two reports without a position, milliseconds.
const IDLE_MS: i64 = 1_000;
/// Positions closer together than this are thinned, milliseconds.
const POSITIONS_MS: i64 = 95;
/// How long a text of the vehicle stands among its alarms, milliseconds.
const ALARM_MS: i64 = 60_000;
const ALARMS_MAX: usize = 8;
const BATTERIES_MAX: usize = 4;
const VIDEOS_MAX: usize = 4;
/// Metres of error for a dilution of precision of 1, where the receiver states no accuracy.
const ERROR_AT_DOP_1_M: f64 = 5.0;
/// Below this speed the direction of movement is noise, m/s.
const COURSE_SPEED_MIN: f64 = 0.2;
/// MAV_COMP_ID_AUTOPILOT1.
const AUTOPILOT: u8 = 1;
const UNKNOWN_U16: u16 = u16::MAX;

/// Something said at a time.
type Said<T> = Option<(i64, T)>;

fn fresh<T: Clone>(said: &Said<T>, now: i64) -> Option<T> {
    let (at, value) = said.as_ref()?;
    (now.saturating_sub(*at) <= FRESH_MS).then(|| value.clone())
}

#[derive(Clone, Copy, Debug)]
struct Gps {
    has_fix: bool,
    accuracy_m: Option<f64>,
    /// Of the ellipsoid's height above the one over the sea, metres.
    geoid_m: Option<f64>,
    satellites: Option<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct Vehicle {
    kind: Option<&'static str>,
    mode: Option<String>,
    armed: Option<bool>,
    state: Option<&'static str>,
    /// Unix ms at the start of the vehicle's own clock.
    booted_ms: Option<i64>,
    boot_clock_ms: u32,
    gps: Said<Gps>,
    /// Of its nose, degrees.
    heading: Said<f64>,
    /// Above where it took off, metres.
    height_m: Said<f64>,
    batteries_pct: [Option<f64>; BATTERIES_MAX],
    voltage_v: Option<f64>,
    camera: Said<Sight>,
    /// Azimuth and elevation.
    gimbal: Said<(Option<f64>, f64)>,
    alarms: Vec<(i64, Alarm)>,
    told_alarms: bool,
    videos: Vec<(u8, String)>,
    /// A position that is to be reported, with its device time.
    fix: Option<(Fix, Option<i64>)>,
    alt_is_msl: Option<bool>,
    positioned: Said<()>,
    reported_ms: Option<i64>,
}

impl Vehicle {
    /// True: it is time for a report without a position.
    pub fn heartbeat(&mut self, component: u8, beat: &m::HEARTBEAT_DATA, now: i64) -> bool {
        let is_vehicle = beat.autopilot != m::MavAutopilot::MAV_AUTOPILOT_INVALID;
        if !is_vehicle && component != AUTOPILOT {
            return false;
        }
        self.kind = modes::kind(beat.mavtype as u8);
        self.mode = modes::mode(beat).map(Into::into);
        self.armed = Some(
            beat.base_mode
                .contains(m::MavModeFlag::MAV_MODE_FLAG_SAFETY_ARMED),
        );
        self.state = Some(modes::state(beat.system_status as u8));
        self.reported_ms
            .is_none_or(|at| now.saturating_sub(at) >= IDLE_MS)
    }

    pub fn system_time(&mut self, t: &m::SYSTEM_TIME_DATA) {
        let unix_ms = i64::try_from(t.time_unix_usec / 1000).unwrap_or(0);
        // 0, or a clock that counts from the start, is no wallclock: 13 digits are 2001 to 2286.
        self.booted_ms = (1_000_000_000_000..10_000_000_000_000)
            .contains(&unix_ms)
            .then(|| unix_ms - i64::from(t.time_boot_ms));
        self.boot_clock_ms = t.time_boot_ms;
    }

    fn device_time(&mut self, boot_ms: u32) -> Option<i64> {
        if boot_ms.saturating_add(10_000) < self.boot_clock_ms {
            // It started anew: what was known of its clock is over.
            self.booted_ms = None;
        }
        self.boot_clock_ms = boot_ms;
        Some(self.booted_ms? + i64::from(boot_ms))
    }

    pub fn gps(&mut self, g: &m::GPS_RAW_INT_DATA, now: i64) {
        let has_fix = g.fix_type as u8 >= m::GpsFixType::GPS_FIX_TYPE_2D_FIX as u8;
        let stated = (g.h_acc > 0 && g.h_acc < 1_000_000_000).then(|| f64::from(g.h_acc) / 1e3);
        let by_dop = (g.eph > 0 && g.eph != UNKNOWN_U16)
            .then(|| f64::from(g.eph) / 100.0 * ERROR_AT_DOP_1_M);
        let geoid = f64::from(g.alt_ellipsoid) / 1e3 - f64::from(g.alt) / 1e3;
        self.gps = Some((
            now,
            Gps {
                has_fix,
                accuracy_m: stated.or(by_dop),
                // The geoid is −107 to +86 m from the ellipsoid.
                geoid_m: (g.alt_ellipsoid != 0 && geoid.abs() < 120.0).then_some(geoid),
                satellites: (g.satellites_visible != u8::MAX).then_some(g.satellites_visible),
            },
        ));
    }

    pub fn attitude(&mut self, a: &m::ATTITUDE_DATA, now: i64) {
        if a.yaw.is_finite() {
            self.heading = Some((now, gimbal::turn(f64::from(a.yaw).to_degrees())));
        }
    }

    /// True: a position to report; an error: there is none, and why.
    pub fn position(&mut self, p: &m::GLOBAL_POSITION_INT_DATA, now: i64) -> Result<bool, Fault> {
        let gps = fresh(&self.gps, now);
        let time = self.device_time(p.time_boot_ms);
        let (lat, lon) = degrees(p.lat, p.lon)?;
        if gps.is_some_and(|g| !g.has_fix) {
            return Err(Fault::NoFix);
        }
        let mut fix = Fix::at(lat, lon, Datum::Wgs84);
        let (north, east) = (f64::from(p.vx) / 100.0, f64::from(p.vy) / 100.0);
        let speed = north.hypot(east);
        fix.speed_mps = Some(speed);
        fix.course_deg =
            (speed >= COURSE_SPEED_MIN).then(|| gimbal::turn(east.atan2(north).to_degrees()));
        fix.climb_mps = Some(-f64::from(p.vz) / 100.0);
        if p.hdg < 36_000 {
            self.heading = Some((now, f64::from(p.hdg) / 100.0));
        }
        fix.heading_deg = fresh(&self.heading, now);
        fix.accuracy_m = gps.and_then(|g| g.accuracy_m);
        let geoid = gps.and_then(|g| g.geoid_m);
        fix.alt_m = Some(f64::from(p.alt) / 1e3 + geoid.unwrap_or(0.0));
        self.alt_is_msl = Some(geoid.is_none());
        self.height_m = Some((now, f64::from(p.relative_alt) / 1e3));
        let last = self.positioned.replace((now, ()));
        if last.is_some_and(|(at, ())| (0..POSITIONS_MS).contains(&(now - at))) {
            self.positioned = last;
            return Ok(false);
        }
        self.fix = Some((fix, time));
        Ok(true)
    }

    /// As [`Self::position`], for vehicles that tell no other.
    pub fn remote_id(
        &mut self,
        p: &m::OPEN_DRONE_ID_LOCATION_DATA,
        now: i64,
    ) -> Result<bool, Fault> {
        // With an address it is about somebody else's aircraft that was heard.
        if p.id_or_mac != [0; 20] || fresh(&self.positioned, now).is_some() {
            return Ok(false);
        }
        let (lat, lon) = degrees(p.latitude, p.longitude)?;
        let mut fix = Fix::at(lat, lon, Datum::Wgs84);
        fix.alt_m = Some(f64::from(p.altitude_geodetic))
            .filter(|a| a.is_finite() && *a > -1000.0 && *a < 100_000.0);
        self.alt_is_msl = fix.alt_m.map(|_| false);
        fix.speed_mps =
            (p.speed_horizontal < 25_500).then(|| f64::from(p.speed_horizontal) / 100.0);
        fix.climb_mps =
            (p.speed_vertical.unsigned_abs() <= 6_200).then(|| f64::from(p.speed_vertical) / 100.0);
        fix.course_deg = (p.direction < 36_000).then(|| f64::from(p.direction) / 100.0);
        fix.accuracy_m = odid_accuracy(p.horizontal_accuracy as u8);
        self.fix = Some((fix, in_hour(p.timestamp, now)));
        Ok(true)
    }

    pub fn battery(&mut self, b: &m::BATTERY_STATUS_DATA) -> Result<(), Fault> {
        let Some(of) = self.batteries_pct.get_mut(usize::from(b.id)) else {
            return Ok(());
        };
        *of = match b.battery_remaining {
            -1 => None,
            pct @ 0..=100 => Some(f64::from(pct)),
            _ => return Err(Fault::BadField),
        };
        let cells = b.voltages.iter().take_while(|v| **v != UNKNOWN_U16);
        let sum: f64 = cells.map(|v| f64::from(*v) / 1e3).sum();
        if b.id == 0 {
            self.voltage_v = (sum > 0.0).then_some(sum);
        }
        Ok(())
    }

    pub fn text(&mut self, t: &m::STATUSTEXT_DATA, now: i64) {
        // The parts behind the first one of a long text add nothing that must be shown.
        if t.chunk_seq > 0 {
            return;
        }
        let level = match t.severity as u8 {
            0..=3 => AlarmLevel::Warning,
            4 => AlarmLevel::Caution,
            _ => return,
        };
        let text = plain(&t.text[..]);
        self.alarms.retain(|(_, a)| a.text.as_ref() != Some(&text));
        if self.alarms.len() >= ALARMS_MAX {
            self.alarms.remove(0);
        }
        let alarm = Alarm {
            code: format!("statustext_{}", t.severity as u8),
            level,
            text: Some(text),
        };
        self.alarms.push((now + ALARM_MS, alarm));
    }

    pub fn video(&mut self, v: &m::VIDEO_STREAM_INFORMATION_DATA) {
        let uri = without_credentials(&plain(&v.uri[..]));
        self.videos.retain(|(id, _)| *id != v.stream_id);
        if !uri.is_empty() && self.videos.len() < VIDEOS_MAX {
            self.videos.push((v.stream_id, uri));
        }
    }

    pub fn camera(&mut self, c: &m::CAMERA_FOV_STATUS_DATA, now: i64) {
        let angle = |a: f32| Some(f64::from(a)).filter(|a| *a > 0.0 && *a <= 360.0);
        let place = |lat, lon| {
            (lat != i32::MAX && lon != i32::MAX)
                .then(|| degrees(lat, lon).ok())
                .flatten()
        };
        let (azimuth_deg, elevation_deg) = match gimbal::axis(c.q) {
            Some((azimuth, elevation)) => (azimuth, Some(elevation)),
            None => (None, None),
        };
        let known = c.alt_camera != i32::MAX && c.alt_image != i32::MAX;
        let height = f64::from(c.alt_camera) / 1e3 - f64::from(c.alt_image) / 1e3;
        let sight = Sight {
            azimuth_deg,
            elevation_deg,
            hfov_deg: angle(c.hfov),
            vfov_deg: angle(c.vfov),
            height_m: (known && height > 0.0).then_some(height),
            centre: place(c.lat_image, c.lon_image),
            ..Sight::default()
        };
        self.camera = Some((now, sight));
    }

    pub fn gimbal(&mut self, g: &m::GIMBAL_DEVICE_ATTITUDE_STATUS_DATA, now: i64) {
        let Some((azimuth, elevation)) = gimbal::axis(g.q) else {
            return;
        };
        use m::GimbalDeviceFlags as F;
        // Without either flag of the frame, a locked yaw is that of the earth (protocol before 2022).
        let in_earth = g.flags.contains(F::GIMBAL_DEVICE_FLAGS_YAW_IN_EARTH_FRAME)
            || g.flags.contains(F::GIMBAL_DEVICE_FLAGS_YAW_LOCK)
                && !g
                    .flags
                    .contains(F::GIMBAL_DEVICE_FLAGS_YAW_IN_VEHICLE_FRAME);
        let azimuth = match in_earth {
            true => azimuth,
            false => azimuth
                .zip(fresh(&self.heading, now))
                .map(|(a, nose)| gimbal::turn(a + nose)),
        };
        self.gimbal = Some((now, (azimuth, elevation)));
    }

    /// The gimbal is newer and more exact than the angles in the camera's message.
    fn sight(&self, now: i64) -> Option<Sight> {
        let (camera, gimbal) = (fresh(&self.camera, now), fresh(&self.gimbal, now));
        if camera.is_none() && gimbal.is_none() {
            return None;
        }
        let mut sight = camera.unwrap_or_default();
        if let Some((azimuth, elevation)) = gimbal {
            sight.azimuth_deg = azimuth.or(sight.azimuth_deg);
            sight.elevation_deg = Some(elevation);
        }
        if sight.height_m.is_none() {
            sight.height_m = fresh(&self.height_m, now).filter(|h| *h > 0.0);
        }
        Some(sight)
    }

    /// Everything that is known now, and the position that came last if it was not reported yet.
    pub fn report(&mut self, device: &str, now: i64) -> Report {
        self.reported_ms = Some(now);
        let (fix, device_time_ms) = self.fix.take().unzip();
        self.alarms.retain(|(until, _)| *until > now);
        // An empty list once said that they are over.
        let has_alarms = !self.alarms.is_empty();
        let alarms = (has_alarms || self.told_alarms)
            .then(|| self.alarms.iter().map(|(_, a)| a.clone()).collect());
        self.told_alarms = has_alarms;
        Report {
            device: device.to_owned(),
            kind: self.kind.map(Into::into),
            mode: self.mode.clone(),
            device_time_ms: device_time_ms.flatten(),
            fix,
            battery_pct: self
                .batteries_pct
                .iter()
                .flatten()
                .copied()
                .reduce(f64::min),
            alarms,
            sight: self.sight(now).map(Box::new),
            properties: self.properties(now),
            ..Report::default()
        }
    }

    fn properties(&self, now: i64) -> Vec<Property> {
        let mut all = Vec::new();
        let mut tell = |name: &'static str, value: Option<Value>| {
            all.extend(value.map(|value| Property {
                name: name.into(),
                value,
            }));
        };
        let text = |t: &str| Value::Text(t.to_owned());
        tell("armed", self.armed.map(Value::Flag));
        tell("system_status", self.state.map(text));
        tell("battery_voltage_v", self.voltage_v.map(Value::Number));
        let gps = fresh(&self.gps, now);
        let satellites = gps.and_then(|g| g.satellites).map(f64::from);
        tell("satellites", satellites.map(Value::Number));
        let height = fresh(&self.height_m, now).map(Value::Number);
        tell("height_above_home_m", height);
        let reference = |msl: bool| text(if msl { "msl" } else { "ellipsoid" });
        tell("alt_reference", self.alt_is_msl.map(reference));
        all.extend(self.videos.iter().map(|(id, uri)| Property {
            name: format!("video_uri_{id}").into(),
            value: text(uri),
        }));
        all
    }
}

/// A position in 1e-7 degrees.
fn degrees(lat: i32, lon: i32) -> Result<(f64, f64), Fault> {
    if (lat, lon) == (0, 0) {
        return Err(Fault::NoFix);
    }
    let (lat, lon) = (f64::from(lat) / 1e7, f64::from(lon) / 1e7);
    match geo::valid(lat, lon) {
        true => Ok((lat, lon)),
        false => Err(Fault::OutsideWorld),
    }
}

/// MAV_ODID_HOR_ACC, 95 % in metres; as a radius of 68 %, half of it.
fn odid_accuracy(class: u8) -> Option<f64> {
    let of_95 = match class {
        1 => 18_520.0,
        2 => 7_408.0,
        3 => 3_704.0,
        4 => 1_852.0,
        5 => 926.0,
        6 => 555.6,
        7 => 185.2,
        8 => 92.6,
        9 => 30.0,
        10 => 10.0,
        11 => 3.0,
        12 => 1.0,
        _ => return None,
    };
    Some(of_95 / 2.0)
}

/// Seconds after a full hour, as the time nearest to `now`.
fn in_hour(seconds: f32, now: i64) -> Option<i64> {
    const HOUR: i64 = 3_600_000;
    if !(0.0..=3600.0).contains(&seconds) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "up to 3,600,000")]
    let within = (f64::from(seconds) * 1e3) as i64;
    let this = now - now.rem_euclid(HOUR) + within;
    [this - HOUR, this, this + HOUR]
        .into_iter()
        .min_by_key(|t| (t - now).abs())
}

/// Text of a fixed field: to its first zero, control characters out.
fn plain(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end])
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// `rtsp://name:secret@host/x` → `rtsp://host/x`.
fn without_credentials(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}
