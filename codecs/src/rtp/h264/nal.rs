//! NAL units (H.264 §7.3.1, §7.4.1): their types, and the few fields we read inside.

use super::super::bits::Bits;

/// The 5-bit `nal_unit_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NalType(pub u8);

impl NalType {
    pub const SLICE: Self = Self(1);
    pub const IDR: Self = Self(5);
    pub const SEI: Self = Self(6);
    pub const SPS: Self = Self(7);
    pub const PPS: Self = Self(8);
    pub const AUD: Self = Self(9);
    pub const FILLER: Self = Self(12);

    /// Of a NAL unit without start code; an empty one is type 0 (unspecified).
    pub fn of(nal: &[u8]) -> Self {
        Self(nal.first().map_or(0, |b| b & 0x1f))
    }

    /// Coded slice data: part of a picture.
    pub fn is_vcl(self) -> bool {
        (1..=5).contains(&self.0)
    }

    /// Comes before the first slice of an access unit only (H.264 §7.4.1.2.3).
    pub fn precedes_picture(self) -> bool {
        (6..=9).contains(&self.0) || (15..=18).contains(&self.0)
    }
}

/// Is this slice the first one of its picture (`first_mb_in_slice` is 0)?
pub fn starts_picture(nal: &[u8]) -> bool {
    // ue(v) 0 is a single 1 bit.
    matches!(NalType::of(nal).0, 1 | 2 | 5) && nal.get(1).is_some_and(|b| b & 0x80 != 0)
}

/// A SEI recovery point: a decoder may start here although it is no IDR picture (H.264 §D.2.8).
pub fn is_recovery_point(nal: &[u8]) -> bool {
    NalType::of(nal) == NalType::SEI && nal.get(1) == Some(&6)
}

/// What we read of a sequence parameter set (H.264 §7.3.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    pub profile: u8,
    /// Constraint flags, as in the second byte of `profile-level-id`.
    pub constraints: u8,
    pub level: u8,
    /// Pixels, cropped.
    pub width: u32,
    pub height: u32,
}

impl Sps {
    /// None when the bytes are not an SPS of a size a decoder would take.
    pub fn parse(nal: &[u8]) -> Option<Self> {
        if NalType::of(nal) != NalType::SPS {
            return None;
        }
        let mut b = Bits::new(&nal[1..]);
        let profile = u8::try_from(b.bits(8)?).ok()?;
        let constraints = u8::try_from(b.bits(8)?).ok()?;
        let level = u8::try_from(b.bits(8)?).ok()?;
        b.ue()?;
        let mut chroma = 1;
        if matches!(
            profile,
            100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
        ) {
            chroma = b.ue()?;
            if chroma == 3 {
                b.bit()?;
            }
            b.ue()?;
            b.ue()?;
            b.bit()?;
            if b.bit()? == 1 {
                for i in 0..if chroma == 3 { 12 } else { 8 } {
                    if b.bit()? == 1 {
                        skip_scaling_list(&mut b, if i < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        b.ue()?;
        match b.ue()? {
            0 => {
                b.ue()?;
            }
            1 => {
                b.bit()?;
                b.se()?;
                b.se()?;
                let cycle = b.ue()?;
                if cycle > 255 {
                    return None;
                }
                for _ in 0..cycle {
                    b.se()?;
                }
            }
            _ => {}
        }
        b.ue()?;
        b.bit()?;
        let width_mbs = b.ue()?.checked_add(1)?;
        let height_units = b.ue()?.checked_add(1)?;
        let frame_mbs_only = b.bit()?;
        if frame_mbs_only == 0 {
            b.bit()?;
        }
        b.bit()?;
        let field = 2 - frame_mbs_only;
        let mut width = width_mbs.checked_mul(16)?;
        let mut height = height_units.checked_mul(16 * field)?;
        if b.bit()? == 1 {
            let (x, y) = match chroma {
                1 => (2, 2),
                2 => (2, 1),
                _ => (1, 1),
            };
            let crop = [b.ue()?, b.ue()?, b.ue()?, b.ue()?];
            let horizontal = crop[0].checked_add(crop[1])?.checked_mul(x)?;
            let vertical = crop[2].checked_add(crop[3])?.checked_mul(y * field)?;
            width = width.checked_sub(horizontal)?;
            height = height.checked_sub(vertical)?;
        }
        (1..=16_384).contains(&width).then_some(())?;
        (1..=16_384).contains(&height).then_some(Self {
            profile,
            constraints,
            level,
            width,
            height,
        })
    }
}

fn skip_scaling_list(b: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + b.se()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// x264: 1280×720 High, and 640×360 Constrained Baseline, cropped from 368.
    #[test]
    fn sps_of_x264() {
        let high = b"\x67\x64\x00\x1f\xac\xd9\x40\x50\x05\xbb\x01\x10\x00\x00\x03\x00\x10\x00\x00\x03\x03\x20\xf1\x83\x19\x60";
        let baseline = b"\x67\x42\xc0\x1e\xd9\x00\xa0\x2f\xf9\x70\x11\x00\x00\x03\x00\x01\x00\x00\x03\x00\x32\x0f\x16\x2e\x48";
        for (nal, profile, constraints, level, width, height) in [
            (&high[..], 100, 0, 31, 1280, 720),
            (&baseline[..], 66, 0xc0, 30, 640, 360),
        ] {
            let expected = Sps {
                profile,
                constraints,
                level,
                width,
                height,
            };
            assert_eq!(Sps::parse(nal), Some(expected));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes: Vec<u8>) {
            bytes.insert(0, 0x67);
            if let Some(sps) = Sps::parse(&bytes) {
                prop_assert!(sps.width <= 16_384 && sps.height <= 16_384);
            }
        }
    }
}
