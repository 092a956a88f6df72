//! AV1 in RTP ("RTP Payload Format For AV1" 1.0): OBUs, packets to temporal units and back.
//!
//! Not here: the dependency descriptor extension; it is never negotiated, so streams have one layer or are decoded whole.

mod depacketize;
mod obu;
mod packetize;
#[cfg(test)]
pub(super) mod tests;

pub use depacketize::Av1Depacketizer;
pub use obu::{ObuType, Sequence, is_key_frame};
pub use packetize::packetize_av1;
