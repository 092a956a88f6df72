//! `drc/up`: what comes up to 30 times a second while somebody flies by hand.
//!
//! The topic has the serial number of the dock or remote control; the position is that of its one aircraft.

use super::properties::{fix, heading};
use super::{Envelope, Item, Message, number, sight};
use crate::telemetry::field::{self, TEXT_MAX};
use crate::telemetry::report::VideoDelay;
use crate::telemetry::{Decoded, Fault, Fix, Report};

/// Most videos of one message.
const VIDEOS_MAX: usize = 16;
/// Greatest delay that is believed, ms.
const DELAY_MAX_MS: i64 = 600_000;

pub fn decode(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    match e.text("method") {
        Some("osd_info_push") => position(m, e),
        Some("delay_info_push") => delays(m, e),
        // Obstacles around the aircraft, heart-beats, acknowledgements of sticks: of no use here, and no fault.
        _ => Decoded::default(),
    }
}

fn position(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    let Some(data) = e.data() else {
        return Decoded::refused(Fault::BadField);
    };
    // On the dock's marker it would be a wrong fix.
    let Some(aircraft) = m.aircraft else {
        return Decoded::refused(Fault::Unannounced);
    };
    let mut faults = Vec::new();
    let mut speed = |key| {
        let max = field::SPEED_MAX_MPS;
        number(data, key, -max, max, &mut faults)
    };
    // Over the ground, x northwards and y eastwards. Which way z counts is not documented: no climb then.
    let over_ground = speed("speed_x").zip(speed("speed_y"));
    let fix = fix(data, &mut faults).map(|fix| Fix {
        speed_mps: over_ground.map(|(north, east)| north.hypot(east)),
        course_deg: over_ground
            .filter(|(north, east)| north.hypot(*east) > 0.0)
            .map(|(north, east)| field::turn(east.atan2(north).to_degrees())),
        heading_deg: heading(data, &mut faults),
        ..fix
    });
    Decoded {
        reports: vec![Report {
            device: aircraft.to_owned(),
            kind: Some("drone".into()),
            device_time_ms: e.time_ms(&mut faults),
            sight: sight::of_gimbal(data, &mut faults).map(Box::new),
            fix,
            faults,
            ..Report::default()
        }],
        ..Decoded::default()
    }
}

/// The only place where a maker tells how late its video is. `video_id` is `{sn}/{camera}/{video}`.
fn delays(m: &Message<'_>, e: Envelope<'_>) -> Decoded {
    let list = e
        .data()
        .and_then(|d| d.get("liveview_delay_list")?.as_list());
    let Some(list) = list else {
        return Decoded::refused(Fault::BadField);
    };
    let mut faults = Vec::new();
    let mut reports: Vec<Report> = Vec::new();
    for item in list.take(VIDEOS_MAX) {
        let told = item.as_object().and_then(|v| {
            let id = v.get("video_id")?.as_text()?;
            let (sn, camera) = id.split_once('/').filter(|_| id.len() <= TEXT_MAX)?;
            let delay = v.get("liveview_delay_time").and_then(Item::as_integer)?;
            let delay_ms = u32::try_from(delay)
                .ok()
                .filter(|_| delay <= DELAY_MAX_MS)?;
            Some((sn, camera.to_owned(), delay_ms))
        });
        let Some((sn, camera, delay_ms)) = field::or_fault(told, &mut faults) else {
            continue;
        };
        // The aircraft's, or a camera of the dock itself; nobody else's.
        let Some(device) = [m.aircraft, Some(m.speaker)]
            .into_iter()
            .flatten()
            .find(|d| *d == sn)
        else {
            faults.push(Fault::Unannounced);
            continue;
        };
        let delay = VideoDelay { camera, delay_ms };
        match reports.iter_mut().find(|r| r.device == device) {
            Some(r) => r.video_delays.push(delay),
            None => reports.push(Report {
                device: device.to_owned(),
                video_delays: vec![delay],
                ..Report::default()
            }),
        }
    }
    let device_time_ms = e.time_ms(&mut faults);
    for r in &mut reports {
        r.device_time_ms = device_time_ms;
    }
    Decoded {
        reports,
        faults,
        ..Decoded::default()
    }
}
