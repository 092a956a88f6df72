//! MAVLink 1 and 2 from one vehicle (common dialect): position, attitude, battery, gimbal and camera, remote id.
//!
//! A vehicle says each thing in a message of its own. Here they are joined: a report is made when the position comes,
//! with the newest of everything else, or once a second while there is no position. Positions are WGS-84 whatever the
//! registry says. Message definitions and checksum seeds are the crate `mavlink`'s; frames and signatures are read by
//! `frame.rs` and `signing.rs`; `vehicle.rs` is what is known of the vehicle.
//!
//! Not here: sockets, which address may speak for which vehicle, when a vehicle that says nothing is lost.

mod frame;
mod gimbal;
mod modes;
mod signing;
mod vehicle;

use mavlink::dialects::common as m;
use mavlink::{MavlinkVersion, MessageData};

use super::{Decoded, Fault};
use frame::{Found, Frame, Frames};
use signing::{Signed, Verdict};
use vehicle::Vehicle;

pub use frame::has_frame;
pub(super) use gimbal::direction;
pub use signing::{Key, stamp_of};

/// Radios on the way send this without a signature (message signing, "Accepting unsigned packets").
const RADIO_STATUS: u32 = 109;
/// Fully decoded frames of one datagram.
const FRAMES_MAX: usize = 256;

/// One vehicle as it comes in: its system id, its key, and what it said last.
#[derive(Clone, Debug)]
pub struct Link {
    system: u8,
    signed: Option<Signed>,
    vehicle: Vehicle,
}

impl Link {
    /// `key`: only frames signed with it are believed.
    pub fn new(system: u8, key: Option<Key>) -> Self {
        Self {
            system,
            signed: key.map(Signed::new),
            vehicle: Vehicle::default(),
        }
    }

    /// Takes the frames of one datagram. Frames of other systems are passed over. `arrived_ms`: wallclock of the
    /// gateway, ms since 1970 UTC. No report: nothing to tell yet.
    pub fn handle(&mut self, device: &str, datagram: &[u8], arrived_ms: i64) -> Decoded {
        let mut decoded = Decoded::default();
        let mut frames = 0;
        for found in Frames::new(datagram) {
            let frame = match found {
                Found::Frame(f) if f.system == self.system => f,
                Found::Frame(_) | Found::Unknown => continue,
                Found::BadChecksum => {
                    decoded.faults.push(Fault::BadChecksum);
                    continue;
                }
                Found::Garbage => {
                    decoded.faults.push(Fault::Garbage);
                    continue;
                }
            };
            frames += 1;
            if frames > FRAMES_MAX {
                decoded.faults.push(Fault::TooLarge);
                break;
            }
            if let Err(fault) = self.admit(&frame, arrived_ms) {
                decoded.faults.push(fault);
                continue;
            }
            if frame.message == RADIO_STATUS {
                continue;
            }
            match self.message(&frame, arrived_ms) {
                Ok(true) => {
                    let report = self.vehicle.report(device, arrived_ms);
                    decoded.reports.push(report);
                }
                Ok(false) => {}
                Err(fault) => decoded.faults.push(fault),
            }
        }
        decoded
    }

    fn admit(&mut self, frame: &Frame<'_>, arrived_ms: i64) -> Result<(), Fault> {
        let Some(signed) = &mut self.signed else {
            return Ok(());
        };
        match &frame.signature {
            None if frame.message == RADIO_STATUS => Ok(()),
            None => Err(Fault::Unsigned),
            Some(s) => match signed.check(frame.component, s, arrived_ms) {
                Verdict::Good => Ok(()),
                Verdict::Wrong => Err(Fault::BadChecksum),
                Verdict::Old => Err(Fault::Stale),
            },
        }
    }

    /// True: it is time for a report.
    fn message(&mut self, f: &Frame<'_>, now: i64) -> Result<bool, Fault> {
        let v = &mut self.vehicle;
        match f.message {
            m::HEARTBEAT_DATA::ID => return Ok(v.heartbeat(f.component, &read(f)?, now)),
            m::SYSTEM_TIME_DATA::ID => v.system_time(&read(f)?),
            m::GPS_RAW_INT_DATA::ID => v.gps(&read(f)?, now),
            m::ATTITUDE_DATA::ID => v.attitude(&read(f)?, now),
            m::GLOBAL_POSITION_INT_DATA::ID => return v.position(&read(f)?, now),
            m::BATTERY_STATUS_DATA::ID => v.battery(&read(f)?)?,
            m::STATUSTEXT_DATA::ID => v.text(&read(f)?, now),
            m::VIDEO_STREAM_INFORMATION_DATA::ID => v.video(&read(f)?),
            m::CAMERA_FOV_STATUS_DATA::ID => v.camera(&read(f)?, now),
            m::GIMBAL_DEVICE_ATTITUDE_STATUS_DATA::ID => v.gimbal(&read(f)?, now),
            m::OPEN_DRONE_ID_LOCATION_DATA::ID => return v.remote_id(&read(f)?, now),
            _ => {}
        }
        Ok(false)
    }
}

/// Which systems speak in this datagram, of those asked for.
pub fn speaks(datagram: &[u8], system: u8) -> bool {
    Frames::new(datagram).any(|found| matches!(found, Found::Frame(f) if f.system == system))
}

/// A payload as its message. An enumeration value we do not know makes it one that cannot be read.
fn read<D: MessageData>(frame: &Frame<'_>) -> Result<D, Fault> {
    let version = match frame.version {
        frame::Version::V1 => MavlinkVersion::V1,
        frame::Version::V2 => MavlinkVersion::V2,
    };
    D::deser(version, frame.payload).map_err(|_| Fault::BadField)
}

#[cfg(test)]
mod tests;
