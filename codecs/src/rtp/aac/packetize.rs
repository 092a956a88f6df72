//! An AAC access unit to RTP payloads (RFC 3640 §3.3.6, AAC-hbr): one packet, or fragments when it is too big.

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::Payloads;

/// AU-headers-length, and one AU header of 13 + 3 bits.
const HEADER_BYTES: usize = 4;

/// Cuts an access unit of at most 8,191 bytes; None when it is larger or empty.
pub fn packetize_aac(au: &[u8], max_payload: usize) -> Option<Payloads> {
    let size = u16::try_from(au.len())
        .ok()
        .filter(|s| (1..1 << 13).contains(s))?;
    let part = max_payload.max(16) - HEADER_BYTES;
    let count = au.len().div_ceil(part);
    let mut data = BytesMut::with_capacity(au.len() + count * HEADER_BYTES);
    let mut ends = Vec::with_capacity(count);
    for part in au.chunks(part) {
        data.put_u16(16);
        data.put_u16(size << 3);
        data.put_slice(part);
        ends.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }
    Some(Payloads::new(Bytes::from(data), ends))
}
