//! Parameter sets of one medium: learned from the SDP and in-band, put in front of every key frame.

use bytes::Bytes;

use super::super::bits::Bits;
use super::super::sets::put;
use super::nal::{NalType, Sps};

/// A parameter set larger than this is not one.
const SET_BYTES_MAX: usize = 1024;

/// The SPS and PPS last seen, by their ids, in the order they first came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    sps: Vec<(u32, Bytes)>,
    pps: Vec<(u32, Bytes)>,
}

impl ParameterSets {
    /// From the SDP (`sprop-parameter-sets`); empty NAL units are ignored.
    pub fn new(sps: &Bytes, pps: &Bytes) -> Self {
        let mut sets = Self::default();
        sets.learn(sps);
        sets.learn(pps);
        sets
    }

    /// Takes in a NAL unit if it is a parameter set; true when it is new or differs from the one known.
    pub fn learn(&mut self, nal: &Bytes) -> bool {
        if nal.len() > SET_BYTES_MAX {
            return false;
        }
        match NalType::of(nal) {
            NalType::SPS if nal.len() > 4 => Bits::new(&nal[4..])
                .ue()
                .is_some_and(|id| put(&mut self.sps, id, nal)),
            NalType::PPS => Bits::new(&nal[1..])
                .ue()
                .is_some_and(|id| put(&mut self.pps, id, nal)),
            _ => false,
        }
    }

    /// Can a decoder start with these?
    pub fn is_complete(&self) -> bool {
        !self.sps.is_empty() && !self.pps.is_empty()
    }

    /// All sets, SPS first.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.sps.iter().chain(&self.pps).map(|(_, nal)| nal)
    }

    /// The first SPS and PPS, empty when unknown.
    pub fn first(&self) -> (Bytes, Bytes) {
        let first =
            |sets: &[(u32, Bytes)]| sets.first().map(|(_, nal)| nal.clone()).unwrap_or_default();
        (first(&self.sps), first(&self.pps))
    }

    pub fn parsed(&self) -> Option<Sps> {
        Sps::parse(&self.sps.first()?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_replaced_by_id() {
        let sps = Bytes::from_static(&[0x67, 66, 0, 30, 0x80, 1]);
        let pps = Bytes::from_static(&[0x68, 0x80]);
        let mut sets = ParameterSets::new(&sps, &Bytes::new());
        assert!(!sets.is_complete());
        assert!(sets.learn(&pps));
        assert!(!sets.learn(&pps), "the same again is no change");
        let second = Bytes::from_static(&[0x68, 0b0100_0000]);
        assert!(sets.learn(&second));
        let changed = Bytes::from_static(&[0x67, 66, 0, 31, 0x80, 1]);
        assert!(sets.learn(&changed));
        assert_eq!(
            sets.iter().cloned().collect::<Vec<_>>(),
            [changed, pps, second]
        );
        assert!(sets.is_complete());
    }
}
