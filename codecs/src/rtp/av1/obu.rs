//! Open bitstream units (AV1 specification §5.3): their types, and the few fields we read inside.

use bytes::Bytes;

use super::super::bits::Bits;

/// The 4-bit `obu_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObuType(pub u8);

impl ObuType {
    pub const SEQUENCE_HEADER: Self = Self(1);
    pub const TEMPORAL_DELIMITER: Self = Self(2);
    pub const FRAME_HEADER: Self = Self(3);
    pub const TILE_GROUP: Self = Self(4);
    pub const FRAME: Self = Self(6);
    pub const REDUNDANT_FRAME_HEADER: Self = Self(7);
    pub const TILE_LIST: Self = Self(8);
    pub const PADDING: Self = Self(15);

    /// Of an OBU; None when it is empty.
    pub fn of(obu: &[u8]) -> Option<Self> {
        obu.first().map(|b| Self(b >> 3 & 0x0f))
    }

    /// Coded data of a picture.
    pub fn is_picture(self) -> bool {
        matches!(self.0, 3 | 4 | 6 | 7)
    }
}

const HAS_EXTENSION: u8 = 4;
const HAS_SIZE: u8 = 2;

/// Bytes of the header: 1, or 2 with the extension; None when the OBU ends inside.
fn header_bytes(obu: &[u8]) -> Option<usize> {
    let bytes = 1 + usize::from(obu.first()? & HAS_EXTENSION != 0);
    (obu.len() >= bytes).then_some(bytes)
}

/// The OBU without its size field, as RTP wants it (§5 of the payload format); None when it is malformed.
pub(super) fn without_size(obu: &Bytes) -> Option<Bytes> {
    let header = header_bytes(obu)?;
    if obu[0] & HAS_SIZE == 0 {
        return Some(obu.clone());
    }
    let (size, field) = leb128(&obu[header..])?;
    let body = obu.get(header + field..)?.get(..size)?;
    let mut out = Vec::with_capacity(header + size);
    out.extend_from_slice(&obu[..header]);
    out[0] &= !HAS_SIZE;
    out.extend_from_slice(body);
    Some(out.into())
}

/// A number of up to 32 bits, 7 in each byte (§4.10.5), and the bytes it takes.
pub(super) fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (i, b) in bytes.iter().take(8).enumerate() {
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((usize::try_from(value).ok()?, i + 1));
        }
    }
    None
}

/// What we read of a sequence header (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub profile: u8,
    /// `seq_level_idx` of the first operating point; 31: none of the levels.
    pub level_idx: u8,
    pub tier: u8,
    /// Every frame is a key frame and its header says nothing.
    reduced: bool,
}

impl Sequence {
    /// None when the bytes are not a sequence header without size field.
    pub fn parse(obu: &[u8]) -> Option<Self> {
        if ObuType::of(obu) != Some(ObuType::SEQUENCE_HEADER) || obu[0] & HAS_SIZE != 0 {
            return None;
        }
        let mut b = Bits::plain(&obu[header_bytes(obu)?..]);
        let profile = byte(b.bits(3)?);
        b.bit()?;
        let reduced = b.bit()? == 1;
        if reduced {
            return Some(Self {
                profile,
                level_idx: byte(b.bits(5)?),
                tier: 0,
                reduced,
            });
        }
        if b.bit()? == 1 {
            b.bits(32)?;
            b.bits(32)?;
            if b.bit()? == 1 {
                // uvlc (§4.10.3) is ue(v) of H.264.
                b.ue()?;
            }
            if b.bit()? == 1 {
                b.bits(5)?;
                b.bits(32)?;
                b.bits(5 + 5)?;
            }
        }
        b.bit()?;
        b.bits(5)?;
        b.bits(12)?;
        let level_idx = byte(b.bits(5)?);
        let tier = if level_idx > 7 { byte(b.bit()?) } else { 0 };
        Some(Self {
            profile,
            level_idx,
            tier,
            reduced,
        })
    }
}

fn byte(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// Is this frame (or frame header) a key frame that is shown: does a new coded video sequence begin (§5.9.2)?
pub fn is_key_frame(obu: &[u8], sequence: &Sequence) -> bool {
    if !matches!(
        ObuType::of(obu),
        Some(ObuType::FRAME | ObuType::FRAME_HEADER)
    ) {
        return false;
    }
    let first = header_bytes(obu).and_then(|h| obu.get(h));
    // show_existing_frame (1), frame_type (2): 0 is a key frame, show_frame (1)
    first.is_some_and(|b| sequence.reduced || b & 0b1111_0000 == 0b0001_0000)
}
