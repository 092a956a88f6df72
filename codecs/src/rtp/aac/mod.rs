//! AAC in RTP (RFC 3640, mpeg4-generic, modes AAC-hbr and AAC-lbr): AU headers, packets to access units and back.
//!
//! Not here: MP4A-LATM (RFC 6416), which is not carried; interleaving.

mod config;
mod depacketize;
mod packetize;
#[cfg(test)]
pub(super) mod tests;

pub use config::{AudioConfig, Packing};
pub use depacketize::AacDepacketizer;
pub use packetize::packetize_aac;
