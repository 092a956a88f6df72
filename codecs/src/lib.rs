//! Bytes to values and protocol state.
//!
//! Here: parsers, packetizers, coordinate conversion and protocol state machines that take `now`.
//! Not here: sockets, clocks, tasks, files. Nothing in this crate may import tokio, actix or `std::net` I/O.

pub mod geo;
pub mod media;
pub mod rtp;
pub mod rtsp;
pub mod telemetry;
