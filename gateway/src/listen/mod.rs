//! Devices come in: sockets, authentication, and the hand-over of what they send to the rooms below.

pub mod broker;
pub mod datagram;
pub mod mqtt;
pub mod pull;
pub mod rtsp;
