//! RTP payloads to access units (RFC 7798 §4.4), for senders that are not always right: marker bits that are missing,
//! early or on every packet; losses; aggregates made to exhaust memory.
//!
//! Enhancement layers are dropped: the base layer plays by itself, and viewers' decoders know nothing else.

use bytes::{Buf, Bytes};

use super::super::units::{Completed, Fault, Piece, Units};
use super::nal::{NalType, layer, starts_picture};

/// Puts packets together. Feed it in order; each call gives what became complete.
#[derive(Debug, Default)]
pub struct H265Depacketizer {
    units: Units,
}

impl H265Depacketizer {
    /// `lost`: packets are missing right before this one.
    pub fn push(&mut self, payload: &Bytes, time: u64, marker: bool, lost: bool) -> Completed {
        self.units.packet(time, lost, lost && starts_unit(payload));
        let taken = self.take(payload);
        self.units.complete(marker, taken)
    }

    fn take(&mut self, payload: &Bytes) -> Result<(), Fault> {
        match NalType::of(payload) {
            Some(NalType(0..=47)) => self.nal(payload.clone()),
            Some(NalType::AGGREGATION) => self.aggregation(payload.slice(2..)),
            Some(NalType::FRAGMENT) => self.fragment(payload),
            // PACI (50) is for senders that were told its extensions; none are.
            _ => Err(Fault::Malformed),
        }
    }

    fn aggregation(&mut self, mut rest: Bytes) -> Result<(), Fault> {
        while rest.has_remaining() {
            if rest.len() < 2 {
                return Err(Fault::Malformed);
            }
            let size = usize::from(rest.get_u16());
            if size > rest.len() {
                return Err(Fault::Malformed);
            }
            let nal = rest.split_to(size);
            match NalType::of(&nal) {
                Some(NalType(0..=47)) => self.nal(nal)?,
                None if nal.is_empty() => {}
                _ => return Err(Fault::Malformed),
            }
        }
        Ok(())
    }

    fn fragment(&mut self, payload: &Bytes) -> Result<(), Fault> {
        let [a, b, fu, ..] = payload[..] else {
            return Err(Fault::Malformed);
        };
        let header = [a & 0x81 | (fu & 0x3f) << 1, b];
        let header = (fu & 0x80 != 0).then_some(&header[..]);
        match self.units.fragment(header, &payload[3..], fu & 0x40 != 0)? {
            Some(nal) if NalType::of(&nal).is_some_and(|t| t.0 < 48) => self.nal(nal),
            Some(_) => Err(Fault::Malformed),
            None => Ok(()),
        }
    }

    fn nal(&mut self, nal: Bytes) -> Result<(), Fault> {
        let Some(kind) = NalType::of(&nal) else {
            return Err(Fault::Malformed);
        };
        let base = layer(&nal) == 0;
        let what = Piece {
            picture: base && kind.is_vcl(),
            first: base && starts_picture(&nal),
            precedes: base && kind.precedes_picture(),
            dropped: !base || matches!(kind, NalType::AUD | NalType::FILLER),
            key: base && kind.is_irap(),
        };
        self.units.piece(nal, what)
    }
}

/// Does this payload begin a new access unit for certain (so that what was lost before it belongs to others)?
fn starts_unit(payload: &[u8]) -> bool {
    let begins = |nal: &[u8]| {
        layer(nal) == 0
            && (NalType::of(nal).is_some_and(NalType::precedes_picture) || starts_picture(nal))
    };
    match NalType::of(payload) {
        Some(NalType::AGGREGATION) => payload.get(4..).is_some_and(begins),
        Some(NalType::FRAGMENT) => match payload {
            [a, b, fu, first, ..] => {
                fu & 0x80 != 0 && begins(&[a & 0x81 | (fu & 0x3f) << 1, *b, *first])
            }
            _ => false,
        },
        Some(_) => begins(payload),
        None => false,
    }
}
