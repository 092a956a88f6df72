//! H.265 in RTP (RFC 7798), without decoding order numbers: NAL units, parameter sets, packets to access units and back.

mod depacketize;
mod nal;
mod packetize;
mod parameters;
#[cfg(test)]
pub(super) mod tests;

pub use depacketize::H265Depacketizer;
pub use nal::{NalType, Sps, starts_picture};
pub use packetize::packetize_h265;
pub use parameters::ParameterSets;
