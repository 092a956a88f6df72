//! (being built)

pub mod whep;
pub mod whip;
