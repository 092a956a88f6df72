//! The other side of the gateway: devices that report, a command platform that receives, and the harness of the
//! end-to-end scenarios. What belongs here speaks the gateway's wire formats and nothing else.
//!
//! Not here: anything of the gateway itself. This crate does not link it; what it knows comes from `gateway/API.md`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod city;
pub mod demo;
pub mod fleet;
pub mod harness;
pub mod platform;
pub mod process;
