//! RTP payloads to access units (RFC 6184 §5.6–5.8), for senders that are not always right: marker bits that are
//! missing, early or on every packet; losses; aggregates made to exhaust memory.

use bytes::{Buf, Bytes};

use super::super::units::{Completed, Fault, Piece, Units};
use super::nal::{NalType, is_recovery_point, starts_picture};

/// Puts packets together. Feed it in order; each call gives what became complete.
#[derive(Debug, Default)]
pub struct H264Depacketizer {
    units: Units,
}

impl H264Depacketizer {
    /// `lost`: packets are missing right before this one.
    pub fn push(&mut self, payload: &Bytes, time: u64, marker: bool, lost: bool) -> Completed {
        self.units.packet(time, lost, lost && starts_unit(payload));
        let taken = self.take(payload);
        self.units.complete(marker, taken)
    }

    fn take(&mut self, payload: &Bytes) -> Result<(), Fault> {
        match NalType::of(payload).0 {
            1..=23 => self.nal(payload.clone()),
            24 => self.stap_a(payload.slice(1..)),
            28 => self.fu_a(payload),
            _ => Err(Fault::Malformed),
        }
    }

    fn stap_a(&mut self, mut rest: Bytes) -> Result<(), Fault> {
        while rest.has_remaining() {
            if rest.len() < 2 {
                return Err(Fault::Malformed);
            }
            let size = usize::from(rest.get_u16());
            if size > rest.len() {
                return Err(Fault::Malformed);
            }
            let nal = rest.split_to(size);
            if !(1..=23).contains(&NalType::of(&nal).0) {
                if nal.is_empty() {
                    continue;
                }
                return Err(Fault::Malformed);
            }
            self.nal(nal)?;
        }
        Ok(())
    }

    fn fu_a(&mut self, payload: &Bytes) -> Result<(), Fault> {
        let [indicator, fu, ..] = payload[..] else {
            return Err(Fault::Malformed);
        };
        let header = [indicator & 0xe0 | fu & 0x1f];
        let header = (fu & 0x80 != 0).then_some(&header[..]);
        match self.units.fragment(header, &payload[2..], fu & 0x40 != 0)? {
            Some(nal) => self.nal(nal),
            None => Ok(()),
        }
    }

    fn nal(&mut self, nal: Bytes) -> Result<(), Fault> {
        let kind = NalType::of(&nal);
        let key = kind == NalType::IDR
            || is_recovery_point(&nal)
                && self
                    .units
                    .nals()
                    .iter()
                    .any(|n| NalType::of(n) == NalType::SPS);
        let what = Piece {
            picture: kind.is_vcl(),
            first: starts_picture(&nal),
            precedes: kind.precedes_picture(),
            dropped: matches!(kind, NalType::AUD | NalType::FILLER),
            key,
        };
        self.units.piece(nal, what)
    }
}

/// Does this payload begin a new access unit for certain (so that what was lost before it belongs to others)?
fn starts_unit(payload: &[u8]) -> bool {
    let begins = |nal: &[u8]| NalType::of(nal).precedes_picture() || starts_picture(nal);
    match NalType::of(payload).0 {
        24 => payload.get(3..).is_some_and(begins),
        28 => match payload {
            [_, fu, first, ..] => fu & 0x80 != 0 && starts_picture(&[fu & 0x1f, *first]),
            _ => false,
        },
        _ => begins(payload),
    }
}
