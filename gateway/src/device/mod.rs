//! One actor per device, and the fleet that replaces dead ones.
//!
//! Here: which sessions a device has, decoding what it says, handing its reports to the picture, taking messages and orders down
//! to it, living on when its actor dies. Not here: how devices connect (`listen`), what reports mean (`picture`).

mod actor;
mod downlink;
mod faults;
mod fleet;
#[cfg(test)]
mod kill_tests;
pub mod orders;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod uplink;

pub(crate) use downlink::dropped as downlink_dropped;
pub use downlink::{Downlink, Downlinks, RETAINED_MAX, Retained};
pub use fleet::{Busy, Fleet, NotOwned, Opened, Unreachable};
pub use state::Sent;
pub use uplink::Uplink;

/// Live sessions of one device.
pub const SESSIONS_MAX: usize = 4;
/// Devices that one device may speak for (a dock for its aircraft).
pub const SUB_DEVICES_MAX: usize = 16;
