//! What an SDP says about AAC: the AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) and the widths of AU headers.

use super::super::bits::Bits;

/// Widths of the fields of an AU header in bits (RFC 3640 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    pub size: u8,
    pub index: u8,
    pub index_delta: u8,
}

impl Packing {
    /// AAC-hbr (§3.3.6): what we send.
    pub const HBR: Self = Self {
        size: 13,
        index: 3,
        index_delta: 3,
    };
}

/// What we read of an AudioSpecificConfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioConfig {
    /// `audioObjectType`: 2 is AAC-LC.
    pub object_type: u8,
    /// Of the core coder, Hz; with SBR half of what is played.
    pub sampling_rate: u32,
    /// `channelConfiguration`; 0: said elsewhere.
    pub channels: u8,
    /// Samples of one access unit at `sampling_rate`.
    pub frame_samples: u32,
}

const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

impl AudioConfig {
    /// None when the bytes are not a config of AAC.
    pub fn parse(config: &[u8]) -> Option<Self> {
        let mut b = Bits::plain(config);
        let mut object_type = object_type(&mut b)?;
        let sampling_rate = rate(&mut b)?;
        let channels = u8::try_from(b.bits(4)?).ok()?;
        if matches!(object_type, 5 | 29) {
            rate(&mut b)?;
            object_type = self::object_type(&mut b)?;
        }
        let short = b.bit().unwrap_or(0) == 1;
        let frame_samples = match (object_type, short) {
            (1..=4 | 17, false) => 1024,
            (1..=4 | 17, true) => 960,
            (23 | 39, false) => 512,
            (23 | 39, true) => 480,
            _ => return None,
        };
        Some(Self {
            object_type: u8::try_from(object_type).ok()?,
            sampling_rate,
            channels,
            frame_samples,
        })
    }

    /// Ticks of one access unit in a medium of this clock.
    pub fn frame_ticks(&self, clock_rate: u32) -> u64 {
        u64::from(self.frame_samples) * u64::from(clock_rate) / u64::from(self.sampling_rate.max(1))
    }
}

fn object_type(b: &mut Bits<'_>) -> Option<u32> {
    match b.bits(5)? {
        31 => Some(32 + b.bits(6)?),
        n => Some(n),
    }
}

fn rate(b: &mut Bits<'_>) -> Option<u32> {
    match b.bits(4)? {
        15 => b.bits(24),
        n => RATES.get(n as usize).copied(),
    }
    .filter(|r| (1000..=192_000).contains(r))
}
