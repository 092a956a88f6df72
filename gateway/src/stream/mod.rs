//! Live streams: a ring of recent frames each, one publisher, any number of readers.
//!
//! Here: who publishes what and how healthy it is, the frames of the last seconds, readers' cursors and their
//! timestamps.
//! Not here: protocols. A publisher pushes frames already cut into RTP payloads; a reader takes them and writes them.
//!
//! A reader is a cursor: it costs no memory and cannot hold anybody up. One that falls out of the ring, or too far
//! behind the live edge, jumps to the newest key frame and is told how many frames it lost.

mod about;
mod fanout;
mod health;
mod ingress;
mod meter;
mod publisher;
mod reader;
mod registry;
mod retime;
mod ring;
mod series;
mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod times_tests;

pub use about::{About, ReaderStatus};
pub use fanout::{At, Fanout, Flow, Kick, Outlet};
pub use health::{Health, HealthState};
pub use ingress::{Ingress, packet_dropped};
pub use meter::PublisherStats;
pub use publisher::{Publisher, Superseded};
pub use reader::{Item, Reader};
pub use registry::Streams;
pub use ring::{Frame, NewFrame};
pub use status::{Phase, StreamStatus, StreamsLimits, SubscribeError};
