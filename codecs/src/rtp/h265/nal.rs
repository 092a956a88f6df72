//! NAL units (H.265 §7.3.1, §7.4.2): their types, and the few fields we read inside.

use super::super::bits::Bits;

/// The 6-bit `nal_unit_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NalType(pub u8);

impl NalType {
    pub const TRAIL_R: Self = Self(1);
    pub const IDR_W_RADL: Self = Self(19);
    pub const CRA: Self = Self(21);
    pub const VPS: Self = Self(32);
    pub const SPS: Self = Self(33);
    pub const PPS: Self = Self(34);
    pub const AUD: Self = Self(35);
    pub const FILLER: Self = Self(38);
    pub const SEI_PREFIX: Self = Self(39);
    /// Payload structures of RFC 7798 §4.4.
    pub const AGGREGATION: Self = Self(48);
    pub const FRAGMENT: Self = Self(49);

    /// Of a NAL unit without start code; None when it is shorter than its header of two bytes.
    pub fn of(nal: &[u8]) -> Option<Self> {
        (nal.len() >= 2).then(|| Self(nal[0] >> 1 & 0x3f))
    }

    /// Coded slice segment: part of a picture.
    pub fn is_vcl(self) -> bool {
        self.0 < 32
    }

    /// Intra random access point: a decoder can start here (H.265 §3: IRAP picture).
    pub fn is_irap(self) -> bool {
        (16..=23).contains(&self.0)
    }

    /// Comes before the first slice segment of an access unit only (H.265 §7.4.2.4.4).
    pub fn precedes_picture(self) -> bool {
        matches!(self.0, 32..=35 | 39 | 41..=44)
    }

    /// VPS, SPS or PPS.
    pub fn is_parameter_set(self) -> bool {
        (32..=34).contains(&self.0)
    }
}

/// `nuh_layer_id`: 0 is the picture itself, others are enhancements of it. `nal` has at least its header.
pub fn layer(nal: &[u8]) -> u8 {
    match nal {
        [a, b, ..] => (a & 1) << 5 | b >> 3,
        _ => 0,
    }
}

/// Is this slice segment the first one of its picture (`first_slice_segment_in_pic_flag`)?
pub fn starts_picture(nal: &[u8]) -> bool {
    NalType::of(nal).is_some_and(NalType::is_vcl) && nal.get(2).is_some_and(|b| b & 0x80 != 0)
}

/// What we read of a sequence parameter set (H.265 §7.3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    pub id: u32,
    /// `general_profile_idc`: 1 Main, 2 Main 10, 3 Main Still Picture.
    pub profile: u8,
    /// `general_profile_compatibility_flag[i]` is bit 31 - i.
    pub compatible: u32,
    /// High tier?
    pub high_tier: bool,
    /// 30 times the level's number.
    pub level: u8,
    /// Pixels, cropped.
    pub width: u32,
    pub height: u32,
}

impl Sps {
    /// None when the bytes are not an SPS of a size a decoder would take.
    pub fn parse(nal: &[u8]) -> Option<Self> {
        if NalType::of(nal) != Some(NalType::SPS) {
            return None;
        }
        let mut b = Bits::new(&nal[2..]);
        b.bits(4)?;
        let sub_layers = b.bits(3)?;
        b.bit()?;
        // profile_tier_level, H.265 §7.3.3
        b.bits(2)?;
        let high_tier = b.bit()? == 1;
        let profile = u8::try_from(b.bits(5)?).ok()?;
        let compatible = b.bits(32)?;
        b.bits(32)?;
        b.bits(16)?;
        let level = u8::try_from(b.bits(8)?).ok()?;
        let mut present = [(0, 0); 8];
        for p in present.iter_mut().take(sub_layers as usize) {
            *p = (b.bit()?, b.bit()?);
        }
        if sub_layers > 0 {
            b.bits(2 * (8 - sub_layers))?;
        }
        for (has_profile, has_level) in present {
            b.bits(has_profile * 32)?;
            b.bits(has_profile * 32)?;
            b.bits(has_profile * 24)?;
            b.bits(has_level * 8)?;
        }
        let id = b.ue().filter(|id| *id < 16)?;
        let chroma = b.ue()?;
        if chroma == 3 {
            b.bit()?;
        }
        let (mut width, mut height) = (b.ue()?, b.ue()?);
        if b.bit()? == 1 {
            let (x, y) = match chroma {
                1 => (2, 2),
                2 => (2, 1),
                _ => (1, 1),
            };
            let crop = [b.ue()?, b.ue()?, b.ue()?, b.ue()?];
            let horizontal = crop[0].checked_add(crop[1])?.checked_mul(x)?;
            let vertical = crop[2].checked_add(crop[3])?.checked_mul(y)?;
            width = width.checked_sub(horizontal)?;
            height = height.checked_sub(vertical)?;
        }
        (1..=16_384).contains(&width).then_some(())?;
        (1..=16_384).contains(&height).then_some(Self {
            id,
            profile,
            compatible,
            high_tier,
            level,
            width,
            height,
        })
    }

    /// Can a decoder of this `profile-id` (RFC 7798 §7.1) decode it?
    pub fn decodable_by(&self, profile: u8) -> bool {
        self.profile == profile
            || profile < 32 && self.compatible >> (31 - profile) & 1 == 1
            // Main 10 decoders take Main (H.265 §A.3.3).
            || (self.profile, profile) == (1, 2)
    }
}
