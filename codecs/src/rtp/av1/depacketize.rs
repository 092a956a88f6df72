//! RTP payloads to temporal units (AV1 payload format §4): aggregates and fragments, lengths that lie, losses.

use bytes::Bytes;

use super::super::units::{Completed, Fault, Piece, Units};
use super::obu::{ObuType, leb128, without_size};

/// Puts packets together. Feed it in order; each call gives what became complete. The units' `key` is not set: whether a
/// coded video sequence begins is told by the frame and its sequence header (`Sequence`).
#[derive(Debug, Default)]
pub struct Av1Depacketizer {
    units: Units,
}

impl Av1Depacketizer {
    /// `lost`: packets are missing right before this one.
    pub fn push(&mut self, payload: &Bytes, time: u64, marker: bool, lost: bool) -> Completed {
        self.units.packet(time, lost, lost && starts_unit(payload));
        let taken = self.take(payload);
        self.units.complete(marker, taken)
    }

    fn take(&mut self, payload: &Bytes) -> Result<(), Fault> {
        let Some(header) = payload.first() else {
            return Err(Fault::Malformed);
        };
        let continues = header & 0x80 != 0;
        let continued = header & 0x40 != 0;
        let count = usize::from(header >> 4 & 3);
        if !continues && self.units.in_fragment() {
            return Err(Fault::Malformed);
        }
        let mut at = 1;
        let mut index = 0;
        while at < payload.len() {
            index += 1;
            let (size, field) = if index == count {
                (payload.len() - at, 0)
            } else {
                leb128(&payload[at..]).ok_or(Fault::Malformed)?
            };
            let start = at + field;
            let end = start
                .checked_add(size)
                .filter(|end| *end <= payload.len())
                .ok_or(Fault::Malformed)?;
            if count != 0 && index > count {
                return Err(Fault::Malformed);
            }
            at = end;
            let element = payload.slice(start..end);
            let last = at == payload.len();
            let begins = index > 1 || !continues;
            let ends = !(last && continued);
            if begins && ends {
                self.obu(&element)?;
            } else {
                let header = begins.then_some(&[][..]);
                if let Some(obu) = self.units.fragment(header, &element, ends)? {
                    self.obu(&obu)?;
                }
            }
        }
        Ok(())
    }

    fn obu(&mut self, obu: &Bytes) -> Result<(), Fault> {
        if obu.is_empty() {
            return Ok(());
        }
        let obu = without_size(obu).ok_or(Fault::Malformed)?;
        let Some(kind) = ObuType::of(&obu) else {
            return Err(Fault::Malformed);
        };
        let what = Piece {
            picture: kind.is_picture(),
            precedes: kind == ObuType::TEMPORAL_DELIMITER,
            dropped: matches!(
                kind,
                ObuType::TEMPORAL_DELIMITER | ObuType::TILE_LIST | ObuType::PADDING
            ),
            ..Piece::default()
        };
        self.units.piece(obu, what)
    }
}

/// Does this payload begin a new temporal unit for certain: the first of a coded video sequence (N), a sequence header
/// or a temporal delimiter? A frame alone may be the second one of its unit.
fn starts_unit(payload: &[u8]) -> bool {
    let Some(header) = payload.first() else {
        return false;
    };
    if header & 0x80 != 0 {
        return false;
    }
    let field = match header >> 4 & 3 {
        1 => 0,
        _ => leb128(&payload[1..]).map_or(0, |(_, field)| field),
    };
    header & 0x08 != 0
        || matches!(
            payload.get(1 + field..).and_then(ObuType::of),
            Some(ObuType::SEQUENCE_HEADER | ObuType::TEMPORAL_DELIMITER)
        )
}
