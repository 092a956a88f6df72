//! RTP payloads to access units (RFC 6184 §5.6–5.8), for senders that are not always right: marker bits that are
//! missing, early or on every packet; losses; aggregates made to exhaust memory.

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use super::nal::{NalType, is_recovery_point, starts_picture};

/// An access unit larger than this is dropped.
pub const UNIT_BYTES_MAX: usize = 4 << 20;
/// An access unit of more NAL units than this is dropped.
pub const NALS_MAX: usize = 1024;

/// A whole access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// NAL units without start code, none empty, as they came, without AUD and filler.
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
    /// Not as RFC 6184 says, or of a mode we do not take (interleaved).
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

/// Puts packets together. Feed it in order; each call gives what became complete.
#[derive(Debug, Default)]
pub struct H264Depacketizer {
    unit: Unit,
    /// A FU-A that began and did not end yet.
    fragment: Option<BytesMut>,
    /// Time and end of the unit given out last.
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

/// What one packet completed: at most the former unit and the one this packet ends.
pub type Completed = [Option<Result<AccessUnit, Fault>>; 2];

impl H264Depacketizer {
    /// `lost`: packets are missing right before this one.
    pub fn push(&mut self, payload: &Bytes, time: u64, marker: bool, lost: bool) -> Completed {
        let mut former = None;
        if lost {
            self.unit.damage(Fault::Lost);
            self.fragment = None;
        }
        if self.unit.begun && self.unit.time != time {
            former = self.finish();
        }
        self.begin(time);
        if lost && !starts_unit(payload) {
            self.unit.damage(Fault::Lost);
        }
        if let Err(fault) = self.take(payload, &mut former) {
            self.unit.damage(fault);
            self.fragment = None;
        }
        let ends = marker && !self.markers_lie && self.fragment.is_none();
        let ended = if ends && (self.unit.has_picture || self.unit.fault.is_some()) {
            self.finish()
        } else {
            None
        };
        [former, ended]
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

    fn take(
        &mut self,
        payload: &Bytes,
        former: &mut Option<Result<AccessUnit, Fault>>,
    ) -> Result<(), Fault> {
        match NalType::of(payload).0 {
            1..=23 => self.nal(payload.clone(), former),
            24 => self.stap_a(payload.slice(1..), former),
            28 => self.fu_a(payload, former),
            _ => Err(Fault::Malformed),
        }
    }

    fn stap_a(
        &mut self,
        mut rest: Bytes,
        former: &mut Option<Result<AccessUnit, Fault>>,
    ) -> Result<(), Fault> {
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
            self.nal(nal, former)?;
        }
        Ok(())
    }

    fn fu_a(
        &mut self,
        payload: &Bytes,
        former: &mut Option<Result<AccessUnit, Fault>>,
    ) -> Result<(), Fault> {
        let [indicator, fu, ..] = payload[..] else {
            return Err(Fault::Malformed);
        };
        let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
        if start {
            if self.fragment.is_some() {
                return Err(Fault::Malformed);
            }
            let mut nal = BytesMut::with_capacity(payload.len() * 4);
            nal.extend_from_slice(&[indicator & 0xe0 | fu & 0x1f]);
            self.fragment = Some(nal);
        }
        let Some(nal) = self.fragment.as_mut() else {
            return Err(if self.unit.fault.is_some() {
                Fault::Lost
            } else {
                Fault::Malformed
            });
        };
        if self.unit.bytes + nal.len() + payload.len() > UNIT_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        nal.extend_from_slice(&payload[2..]);
        if end && let Some(nal) = self.fragment.take() {
            return self.nal(nal.freeze(), former);
        }
        Ok(())
    }

    fn nal(
        &mut self,
        nal: Bytes,
        former: &mut Option<Result<AccessUnit, Fault>>,
    ) -> Result<(), Fault> {
        let kind = NalType::of(&nal);
        let first = starts_picture(&nal);
        if self.unit.has_picture && (first || kind.precedes_picture()) {
            // The next picture begins although time stands still or the marker was missing.
            let time = self.unit.time;
            let done = self.finish();
            if former.is_none() {
                *former = done;
            }
            self.begin(time);
        } else if kind.is_vcl()
            && !first
            && !self.unit.has_picture
            && self.unit.nals.is_empty()
            && self.unit.fault.is_none()
            && self.last_time == Some(self.unit.time)
        {
            // The rest of a picture whose marker came too early.
            self.markers_lie = true;
        }
        if matches!(kind, NalType::AUD | NalType::FILLER) {
            return Ok(());
        }
        let unit = &mut self.unit;
        if unit.fault.is_some() {
            return Ok(());
        }
        if unit.nals.len() >= NALS_MAX || unit.bytes + nal.len() > UNIT_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        unit.bytes += nal.len();
        unit.has_picture |= kind.is_vcl();
        unit.key |= kind == NalType::IDR
            || is_recovery_point(&nal) && unit.nals.iter().any(|n| NalType::of(n) == NalType::SPS);
        unit.nals.push(nal);
        Ok(())
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
