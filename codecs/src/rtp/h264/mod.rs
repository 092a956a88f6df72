//! H.264 in RTP (RFC 6184), non-interleaved mode: NAL units, parameter sets, packets to access units and back.

mod depacketize;
mod nal;
mod packetize;
mod parameters;

pub use super::units::{AccessUnit, Fault, NALS_MAX, UNIT_BYTES_MAX};
pub use depacketize::H264Depacketizer;
pub use nal::{NalType, Sps, starts_picture};
pub use packetize::packetize_h264;
pub use parameters::ParameterSets;
