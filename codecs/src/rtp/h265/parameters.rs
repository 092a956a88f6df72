//! Parameter sets of one medium: learned from the SDP and in-band, put in front of every key frame.

use bytes::Bytes;

use super::super::bits::Bits;
use super::super::sets::put;
use super::nal::{NalType, Sps};

/// A parameter set larger than this is not one.
const SET_BYTES_MAX: usize = 4096;

/// The VPS, SPS and PPS last seen, by their ids, in the order they first came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    vps: Vec<(u32, Bytes)>,
    sps: Vec<(u32, Bytes)>,
    pps: Vec<(u32, Bytes)>,
}

impl ParameterSets {
    /// From the SDP (`sprop-vps`, `sprop-sps`, `sprop-pps`); empty NAL units are ignored.
    pub fn new(vps: &Bytes, sps: &Bytes, pps: &Bytes) -> Self {
        let mut sets = Self::default();
        for nal in [vps, sps, pps] {
            sets.learn(nal);
        }
        sets
    }

    /// Takes in a NAL unit if it is a parameter set; true when it is new or differs from the one known.
    pub fn learn(&mut self, nal: &Bytes) -> bool {
        if nal.len() > SET_BYTES_MAX {
            return false;
        }
        match NalType::of(nal) {
            Some(NalType::VPS) => Bits::new(&nal[2..])
                .bits(4)
                .is_some_and(|id| put(&mut self.vps, id, nal)),
            Some(NalType::SPS) => Sps::parse(nal).is_some_and(|s| put(&mut self.sps, s.id, nal)),
            Some(NalType::PPS) => Bits::new(&nal[2..])
                .ue()
                .is_some_and(|id| put(&mut self.pps, id, nal)),
            _ => false,
        }
    }

    /// Can a decoder start with these?
    pub fn is_complete(&self) -> bool {
        !self.vps.is_empty() && !self.sps.is_empty() && !self.pps.is_empty()
    }

    /// All sets: VPS, SPS, PPS.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.vps
            .iter()
            .chain(&self.sps)
            .chain(&self.pps)
            .map(|(_, nal)| nal)
    }

    /// The first VPS, SPS and PPS, empty when unknown.
    pub fn first(&self) -> [Bytes; 3] {
        [&self.vps, &self.sps, &self.pps]
            .map(|sets| sets.first().map(|(_, nal)| nal.clone()).unwrap_or_default())
    }
}
