//! The gateway: rooms from the top of the house to the ground floor. Imports only go down this list.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(test)]
#[path = "../../codecs/fuzz/src/corpus.rs"]
mod corpus;
pub mod device;
pub mod event;
pub mod history;
pub mod ids;
pub mod ledger;
pub mod listen;
pub mod log;
pub mod media;
pub mod metrics;
pub mod notify;
pub mod outbox;
pub mod picture;
pub mod registry;
pub mod screen;
pub mod sink;
pub mod stream;
pub mod tls;
pub mod udp;
pub mod webrtc;
