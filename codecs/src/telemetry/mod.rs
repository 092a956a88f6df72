//! What devices say, decoded: one file per device protocol, one [`Report`] for all of them.

pub mod report;

pub use report::{Datum, Fault, Fix, Report, Sos};
