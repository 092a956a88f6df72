//! Access units of video, whatever the codec: put together from pieces, ended by marker bits that are not always right,
//! dropped when something of them is missing.
//!
//! Here: where a unit begins and ends, its limits, fragments. Not here: payload formats (`h264`, `h265`, `av1`), which
//! know what a piece is.

use std::mem;

use bytes::{Bytes, BytesMut};

/// An access unit larger than this is dropped.
pub const UNIT_BYTES_MAX: usize = 4 << 20;
/// An access unit of more NAL units (or OBUs) than this is dropped.
pub const NALS_MAX: usize = 1024;

/// A whole access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// NAL units without start code (AV1: OBUs without size field), none empty, as they came, without delimiters and
    /// filler.
    pub nals: Vec<Bytes>,
    /// A decoder can start here.
    pub key: bool,
    /// Media time, extended.
    pub time: u64,
}

/// Why an access unit (or a packet) was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A packet of it was lost.
    Lost,
    /// Over [`UNIT_BYTES_MAX`] or [`NALS_MAX`].
    TooLarge,
    /// Not as the payload format says, or of a mode we do not take (interleaved).
    Malformed,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
        }
    }
}

/// What one packet completed: at most the former unit and the one this packet ends.
pub type Completed = [Option<Result<AccessUnit, Fault>>; 2];

/// What a codec knows about a piece (NAL unit, OBU).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Piece {
    /// Coded data of a picture.
    pub picture: bool,
    /// The first such piece of its picture.
    pub first: bool,
    /// Comes only before the first coded data of a unit.
    pub precedes: bool,
    /// Of no use to a decoder: it marks a place and is not kept.
    pub dropped: bool,
    /// A decoder can start with this unit.
    pub key: bool,
}

/// Units in the making. For each packet: [`Self::packet`], then its pieces, then [`Self::complete`].
#[derive(Debug, Default)]
pub(super) struct Units {
    unit: Unit,
    former: Option<Result<AccessUnit, Fault>>,
    /// A piece that began and did not end yet.
    fragment: Option<BytesMut>,
    /// Time of the unit given out last.
    last_time: Option<u64>,
    /// A marker bit was followed by the rest of its picture: from then on units end when the next one begins.
    markers_lie: bool,
}

#[derive(Debug, Default)]
struct Unit {
    time: u64,
    nals: Vec<Bytes>,
    bytes: usize,
    has_picture: bool,
    key: bool,
    fault: Option<Fault>,
    begun: bool,
}

impl Units {
    /// A packet begins. `lost`: packets are missing right before it; `starts`: it begins a new unit for certain, so
    /// that what was lost belongs to others.
    pub fn packet(&mut self, time: u64, lost: bool, starts: bool) {
        if lost {
            self.unit.damage(Fault::Lost);
            self.fragment = None;
        }
        if self.unit.begun && self.unit.time != time {
            self.former = self.finish();
        }
        self.begin(time);
        if lost && !starts {
            self.unit.damage(Fault::Lost);
        }
    }

    /// The packet is over.
    pub fn complete(&mut self, marker: bool, taken: Result<(), Fault>) -> Completed {
        if let Err(fault) = taken {
            self.unit.damage(fault);
            self.fragment = None;
        }
        let ends = marker && !self.markers_lie && self.fragment.is_none();
        let ended = if ends && (self.unit.has_picture || self.unit.fault.is_some()) {
            self.finish()
        } else {
            None
        };
        [self.former.take(), ended]
    }

    /// Part of a piece in several packets; the whole one with its last part. `header`: what the piece begins with, in
    /// its first part only.
    pub fn fragment(
        &mut self,
        header: Option<&[u8]>,
        part: &[u8],
        last: bool,
    ) -> Result<Option<Bytes>, Fault> {
        if let Some(header) = header {
            if self.fragment.is_some() {
                return Err(Fault::Malformed);
            }
            let mut piece = BytesMut::with_capacity(part.len() * 4);
            piece.extend_from_slice(header);
            self.fragment = Some(piece);
        }
        let Some(piece) = self.fragment.as_mut() else {
            return Err(if self.unit.fault.is_some() {
                Fault::Lost
            } else {
                Fault::Malformed
            });
        };
        if self.unit.bytes + piece.len() + part.len() > UNIT_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        piece.extend_from_slice(part);
        if !last {
            return Ok(None);
        }
        Ok(self.fragment.take().map(BytesMut::freeze))
    }

    /// Has a piece begun that did not end yet?
    pub fn in_fragment(&self) -> bool {
        self.fragment.is_some()
    }

    /// The pieces of the unit so far.
    pub fn nals(&self) -> &[Bytes] {
        &self.unit.nals
    }

    /// Takes a whole piece.
    pub fn piece(&mut self, nal: Bytes, what: Piece) -> Result<(), Fault> {
        if self.unit.has_picture && (what.first || what.precedes) {
            // The next picture begins although time stands still or the marker was missing.
            let time = self.unit.time;
            let done = self.finish();
            if self.former.is_none() {
                self.former = done;
            }
            self.begin(time);
        } else if what.picture
            && !what.first
            && !self.unit.has_picture
            && self.unit.nals.is_empty()
            && self.unit.fault.is_none()
            && self.last_time == Some(self.unit.time)
        {
            // The rest of a picture whose marker came too early.
            self.markers_lie = true;
        }
        let unit = &mut self.unit;
        if what.dropped || unit.fault.is_some() {
            return Ok(());
        }
        if unit.nals.len() >= NALS_MAX || unit.bytes + nal.len() > UNIT_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        unit.bytes += nal.len();
        unit.has_picture |= what.picture;
        unit.key |= what.key;
        unit.nals.push(nal);
        Ok(())
    }

    fn begin(&mut self, time: u64) {
        if !self.unit.begun {
            self.unit.begun = true;
            self.unit.time = time;
        }
    }

    fn finish(&mut self) -> Option<Result<AccessUnit, Fault>> {
        if self.fragment.take().is_some() {
            self.unit.damage(Fault::Malformed);
        }
        let unit = mem::take(&mut self.unit);
        self.last_time = Some(unit.time);
        if let Some(fault) = unit.fault {
            return Some(Err(fault));
        }
        (!unit.nals.is_empty()).then_some(Ok(AccessUnit {
            nals: unit.nals,
            key: unit.key,
            time: unit.time,
        }))
    }
}

impl Unit {
    fn damage(&mut self, fault: Fault) {
        if self.fault.is_none() && (self.begun || fault != Fault::Lost) {
            self.fault = Some(fault);
            self.nals.clear();
            self.bytes = 0;
        }
    }
}
