//! What a stream is made of: media (video, audio), their codecs, and frames cut into RTP payloads.
//!
//! Here: the values that publishers and readers exchange. Not here: how they are stored (gateway `stream`).

use std::sync::LazyLock;

use bytes::Bytes;
use serde::Serialize;

use crate::rtp::aac::Packing;

/// One component of a media stream, as an `m=` line of an SDP (RFC 8866 §5.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    pub codec: Codec,
    /// RTP clock, ticks per second.
    pub clock_rate: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediumKind {
    Video,
    Audio,
}

/// A codec with its out-of-band parameters, as last seen (in the SDP or in-band).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    /// RFC 6184. Parameter sets are NAL units without start code; empty until known.
    H264 { sps: Bytes, pps: Bytes },
    /// RFC 7798. Parameter sets as for H.264.
    H265 { vps: Bytes, sps: Bytes, pps: Bytes },
    /// AV1 payload format 1.0; as its sequence header says, or the SDP.
    Av1 {
        profile: u8,
        level_idx: u8,
        tier: u8,
    },
    /// RFC 7587; clock 48,000.
    Opus { channels: u8 },
    /// G.711 A-law, RFC 3551; clock 8,000.
    Pcma,
    /// G.711 µ-law, RFC 3551; clock 8,000.
    Pcmu,
    /// RFC 3640 (mpeg4-generic); never for WebRTC.
    Aac {
        /// AudioSpecificConfig (ISO/IEC 14496-3).
        config: Bytes,
        channels: u8,
        /// How the publisher packs it; readers get AAC-hbr.
        packing: Packing,
    },
}

impl Codec {
    pub fn kind(&self) -> MediumKind {
        match self {
            Self::H264 { .. } | Self::H265 { .. } | Self::Av1 { .. } => MediumKind::Video,
            Self::Opus { .. } | Self::Pcma | Self::Pcmu | Self::Aac { .. } => MediumKind::Audio,
        }
    }

    /// The encoding name of `a=rtpmap` (RFC 8866 §6.6).
    pub fn encoding_name(&self) -> &'static str {
        match self {
            Self::Aac { .. } => "mpeg4-generic",
            _ => self.name(),
        }
    }

    /// For people: `H264`, `H265`, `AV1`, `opus`, `PCMA`, `PCMU`, `AAC`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::H264 { .. } => "H264",
            Self::H265 { .. } => "H265",
            Self::Av1 { .. } => "AV1",
            Self::Opus { .. } => "opus",
            Self::Pcma => "PCMA",
            Self::Pcmu => "PCMU",
            Self::Aac { .. } => "AAC",
        }
    }

    /// Does the marker bit of RTP tell the last packet of a frame (video; RFC 3640 §3.1)?
    pub fn marks_end(&self) -> bool {
        self.kind() == MediumKind::Video || matches!(self, Self::Aac { .. })
    }
}

/// When a frame was captured, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Microseconds since 1970 UTC.
    pub utc_us: i64,
    /// The true moment lies within this many microseconds of `utc_us`, as far as the stream's clock model can tell.
    pub uncertainty_us: u32,
}

/// The RTP payloads of one frame, back to back: built once, shared by all readers.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    data: Bytes,
    ends: Box<[u32]>,
    steps_back: bool,
}

static NOTHING: LazyLock<Payloads> = LazyLock::new(Payloads::default);

impl Payloads {
    /// `ends[i]` is the offset behind payload `i` in `data`; the last one must be `data.len()`.
    pub fn new(data: Bytes, ends: Vec<u32>) -> Self {
        debug_assert_eq!(ends.last().map_or(0, |e| *e as usize), data.len());
        Self {
            data,
            ends: ends.into_boxed_slice(),
            steps_back: false,
        }
    }

    /// One payload: a whole audio frame.
    pub fn single(data: Bytes) -> Self {
        let end = u32::try_from(data.len()).unwrap_or(u32::MAX);
        Self {
            data,
            ends: Box::new([end]),
            steps_back: false,
        }
    }

    /// Marks a frame that is shown before one that came earlier.
    pub(crate) fn that_steps_back(self) -> Self {
        Self {
            steps_back: true,
            ..self
        }
    }

    /// The payloads for a viewer whose decoder shows pictures in the order they come (WebRTC; `rtp::shown`). Empty for
    /// a frame that such a viewer does not get.
    pub fn in_order(&self) -> &Payloads {
        if self.steps_back { &NOTHING } else { self }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all payloads together.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Payload `i`, without copying.
    pub fn get(&self, i: usize) -> Option<Bytes> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        Some(self.data.slice(start..end))
    }

    /// Payload `i`, borrowed.
    pub fn get_slice(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.data.get(start..end)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
            &self.data[start..self.ends[i] as usize]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_slices_of_one_buffer() {
        let p = Payloads::new(Bytes::from_static(b"aabbbc"), vec![2, 5, 6]);
        assert_eq!(p.iter().collect::<Vec<_>>(), [&b"aa"[..], b"bbb", b"c"]);
        assert_eq!(p.get(1).as_deref(), Some(&b"bbb"[..]));
        assert_eq!(p.get(3), None);
        assert_eq!(p.len(), 3);
    }
}
