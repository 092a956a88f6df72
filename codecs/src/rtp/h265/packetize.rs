//! An access unit to RTP payloads (RFC 7798 §4.4, no DONL): single NAL units, aggregation packets, fragmentation units.

use bytes::{BufMut, Bytes, BytesMut};

use super::nal::NalType;
use crate::media::Payloads;
use crate::rtp::cut::{NalHeaders, cut};

/// Cuts NAL units (without start codes, none shorter than its header) into payloads of at most `max_payload` bytes:
/// neighbours that fit together share an aggregation packet, one that is too big becomes fragmentation units of equal
/// size but the last.
pub fn packetize_h265(nals: &[Bytes], max_payload: usize) -> Payloads {
    cut::<H265>(nals, max_payload)
}

struct H265;

impl NalHeaders for H265 {
    const BYTES: usize = 2;

    /// Layer and temporal id are the lowest of those inside (RFC 7798 §4.4.2).
    fn put_aggregation(nals: &[Bytes], out: &mut BytesMut) {
        let header = |n: &Bytes| n.first_chunk::<2>().map_or(0, |h| u16::from_be_bytes(*h));
        let forbidden = nals.iter().fold(0, |f, n| f | (header(n) & 0x8000));
        let layer = nals.iter().map(|n| header(n) & 0x01f8).min().unwrap_or(0);
        let temporal = nals.iter().map(|n| header(n) & 0x0007).min().unwrap_or(1);
        out.put_u16(forbidden | u16::from(NalType::AGGREGATION.0) << 9 | layer | temporal);
    }

    fn put_fragment(nal: &[u8], flags: u8, out: &mut BytesMut) {
        let [a, b] = nal.first_chunk().copied().unwrap_or([0; 2]);
        let kind = a >> 1 & 0x3f;
        out.put_slice(&[a & 0x81 | NalType::FRAGMENT.0 << 1, b, flags | kind]);
    }
}
