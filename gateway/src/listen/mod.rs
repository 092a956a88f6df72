//! Devices come in: accept, identify, hand over.

pub mod mqtt;
