//! RTP (RFC 3550) and its payload formats: packets to access units and back.
//!
//! Here: headers, RTCP, order and time of packets, the payload formats we carry, and [`Assembler`], which turns the
//! packets of one medium into frames for a stream whatever protocol brought them. Not here: SRTP, sockets, sessions.

pub mod aac;
mod assemble;
pub mod av1;
mod bits;
mod clock;
mod cut;
pub mod extension;
mod format;
pub mod h264;
pub mod h265;
mod packet;
mod reorder;
pub mod rtcp;
mod sets;
mod shown;
mod time;
mod units;

pub use assemble::{Assembled, Assembler, Stats};
pub use clock::{Clock, Source, Wall};
pub use packet::{BadRtp, HEADER_BYTES, Header, Packet};
pub use reorder::{Ordered, Reorder, Window};
pub use time::{Extend, ExtendSeq, Timeline};

/// Largest RTP payload we send: leaves room for IPv6, UDP, RTP with extensions, SRTP and a tunnel in 1,500 bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1200;
