//! An access unit to RTP payloads (RFC 6184 §5.4, packetization mode 1): single NAL units, STAP-A, FU-A.

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::Payloads;
use crate::rtp::cut::{NalHeaders, cut};

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Cuts NAL units (without start codes, none empty) into payloads of at most `max_payload` bytes: neighbours that fit
/// together share a STAP-A, one that is too big becomes FU-As of equal size but the last.
pub fn packetize_h264(nals: &[Bytes], max_payload: usize) -> Payloads {
    cut::<H264>(nals, max_payload)
}

struct H264;

impl NalHeaders for H264 {
    const BYTES: usize = 1;

    fn put_aggregation(nals: &[Bytes], out: &mut BytesMut) {
        let header = |n: &Bytes| n.first().copied().unwrap_or(0);
        let forbidden = nals.iter().fold(0, |f, n| f | (header(n) & 0x80));
        let importance = nals.iter().map(|n| header(n) & 0x60).max().unwrap_or(0);
        out.put_u8(forbidden | importance | STAP_A);
    }

    fn put_fragment(nal: &[u8], flags: u8, out: &mut BytesMut) {
        let header = nal.first().copied().unwrap_or(0);
        out.put_slice(&[header & 0xe0 | FU_A, flags | header & 0x1f]);
    }
}
