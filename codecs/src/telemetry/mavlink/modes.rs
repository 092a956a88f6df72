//! Names of a vehicle's kind, state and flight mode.
//!
//! `custom_mode` means what the autopilot's makers say: here are PX4's main modes and ArduPilot's of copters, planes and
//! rovers. Any other is told by its number.

use std::borrow::Cow;

use mavlink::dialects::common::{HEARTBEAT_DATA, MavAutopilot, MavModeFlag};

/// MAV_TYPE → our kinds; None: not a vehicle (a ground station, gimbal, camera…), or one we have no word for.
pub fn kind(mav_type: u8) -> Option<&'static str> {
    match mav_type {
        // Fixed wing, quadrotor, coaxial, helicopter; airship, balloon; hexa, octo, tri; VTOLs; parafoil, dodeca; deca.
        1..=4 | 7 | 8 | 13..=15 | 19..=25 | 28 | 29 | 35 | 43 => Some("drone"),
        // Ground rover, surface boat.
        10 | 11 => Some("vehicle"),
        _ => None,
    }
}

/// MAV_STATE.
pub fn state(mav_state: u8) -> &'static str {
    match mav_state {
        1 => "boot",
        2 => "calibrating",
        3 => "standby",
        4 => "active",
        5 => "critical",
        6 => "emergency",
        7 => "poweroff",
        8 => "flight_termination",
        _ => "unknown",
    }
}

/// Flight mode; None when the vehicle uses no custom modes.
pub fn mode(beat: &HEARTBEAT_DATA) -> Option<Cow<'static, str>> {
    if !beat
        .base_mode
        .contains(MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED)
    {
        return None;
    }
    let custom = beat.custom_mode;
    let known = match beat.autopilot {
        MavAutopilot::MAV_AUTOPILOT_PX4 if custom == 0 => return None,
        MavAutopilot::MAV_AUTOPILOT_PX4 => px4(custom),
        MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA => ardupilot(beat.mavtype as u8, custom),
        _ => None,
    };
    Some(known.map_or_else(|| Cow::Owned(format!("custom {custom}")), Cow::Borrowed))
}

/// Main mode in the third byte, sub-mode of "auto" in the fourth.
fn px4(custom: u32) -> Option<&'static str> {
    let [_, _, main, sub] = custom.to_le_bytes();
    Some(match (main, sub) {
        (1, _) => "manual",
        (2, _) => "altitude",
        (3, _) => "position",
        (4, 2) => "takeoff",
        (4, 3) => "loiter",
        (4, 4) => "mission",
        (4, 5) => "return",
        (4, 6) => "land",
        (4, 8) => "follow",
        (4, _) => "auto",
        (5, _) => "acro",
        (6, _) => "offboard",
        (7, _) => "stabilized",
        _ => return None,
    })
}

fn ardupilot(mav_type: u8, custom: u32) -> Option<&'static str> {
    Some(match (mav_type, custom) {
        (1 | 19..=25, 0) | (10 | 11, 0) => "manual",
        (1 | 19..=25, 5) => "fly-by-wire",
        (1 | 19..=25, 10) | (10 | 11, 10) => "auto",
        (1 | 19..=25, 11) | (10 | 11, 11) => "return",
        (1 | 19..=25, 12) => "loiter",
        (1 | 19..=25, 15) | (10 | 11, 15) => "guided",
        (10 | 11, 4) => "hold",
        (1 | 10 | 11 | 19..=25, _) => return None,
        (_, 0) => "stabilized",
        (_, 2) => "altitude",
        (_, 3) => "auto",
        (_, 4) => "guided",
        (_, 5) => "loiter",
        (_, 6) => "return",
        (_, 9) => "land",
        (_, 16) => "position",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mavlink::dialects::common::MavType;

    #[test]
    fn modes_of_both_autopilots() {
        let beat = |autopilot, mavtype, custom_mode| HEARTBEAT_DATA {
            autopilot,
            mavtype,
            custom_mode,
            base_mode: MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED,
            ..HEARTBEAT_DATA::default()
        };
        let (px4, apm) = (
            MavAutopilot::MAV_AUTOPILOT_PX4,
            MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA,
        );
        let (quad, plane) = (MavType::MAV_TYPE_QUADROTOR, MavType::MAV_TYPE_FIXED_WING);
        for (autopilot, mav_type, custom, name) in [
            (px4, quad, 0x0404_0000, "mission"),
            (px4, plane, 0x0003_0000, "position"),
            (apm, quad, 6, "return"),
            (apm, plane, 10, "auto"),
            (apm, quad, 77, "custom 77"),
        ] {
            let told = mode(&beat(autopilot, mav_type, custom));
            assert_eq!(told.as_deref(), Some(name));
        }
        assert_eq!(mode(&beat(px4, quad, 0)), None);
    }
}
