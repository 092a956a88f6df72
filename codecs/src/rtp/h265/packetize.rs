//! An access unit to RTP payloads (RFC 7798 §4.4, no DONL).

use bytes::{BufMut, Bytes, BytesMut};

use super::nal::NalType;
use crate::media::Payloads;

/// Cuts NAL units (without start codes, none shorter than its header) into payloads of at most `max_payload` bytes:
/// neighbours that fit together share an aggregation packet, one that is too big becomes fragmentation units of equal
/// size but the last.
pub fn packetize_h265(nals: &[Bytes], max_payload: usize) -> Payloads {
    let max = max_payload.max(16);
    let total: usize = nals
        .iter()
        .map(|n| n.len() + n.len() / (max - 3) * 3 + 6)
        .sum();
    let mut data = BytesMut::with_capacity(total);
    let mut ends = Vec::with_capacity(total / max + nals.len());
    let mut rest = nals;
    while let Some(nal) = rest.first() {
        let group = aggregated(rest, max);
        if group > 1 {
            put_aggregation(&mut data, &rest[..group]);
            push_end(&mut ends, &data);
        } else if nal.len() <= max {
            data.put_slice(nal);
            push_end(&mut ends, &data);
        } else {
            put_fragments(&mut data, &mut ends, nal, max);
        }
        rest = &rest[group.max(1)..];
    }
    Payloads::new(data.freeze(), ends)
}

fn push_end(ends: &mut Vec<u32>, data: &BytesMut) {
    ends.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
}

/// How many NAL units from the first one on fit into one aggregation packet.
fn aggregated(nals: &[Bytes], max: usize) -> usize {
    let mut size = 2;
    nals.iter()
        .take_while(|n| {
            size += 2 + n.len();
            size <= max && n.len() <= usize::from(u16::MAX)
        })
        .count()
}

/// Layer and temporal id are the lowest of those inside (RFC 7798 §4.4.2).
fn put_aggregation(data: &mut BytesMut, nals: &[Bytes]) {
    let header = |n: &Bytes| n.first_chunk::<2>().map_or(0, |h| u16::from_be_bytes(*h));
    let forbidden = nals.iter().fold(0, |f, n| f | (header(n) & 0x8000));
    let layer = nals.iter().map(|n| header(n) & 0x01f8).min().unwrap_or(0);
    let temporal = nals.iter().map(|n| header(n) & 0x0007).min().unwrap_or(1);
    data.put_u16(forbidden | u16::from(NalType::AGGREGATION.0) << 9 | layer | temporal);
    for n in nals {
        data.put_u16(u16::try_from(n.len()).unwrap_or(u16::MAX));
        data.put_slice(n);
    }
}

fn put_fragments(data: &mut BytesMut, ends: &mut Vec<u32>, nal: &[u8], max: usize) {
    let Some((&[a, b], body)) = nal.split_first_chunk::<2>() else {
        return;
    };
    let kind = a >> 1 & 0x3f;
    let count = body.len().div_ceil(max - 3);
    for (i, part) in body.chunks(max - 3).enumerate() {
        let start = u8::from(i == 0) << 7;
        let end = u8::from(i + 1 == count) << 6;
        data.put_slice(&[a & 0x81 | NalType::FRAGMENT.0 << 1, b, start | end | kind]);
        data.put_slice(part);
        push_end(ends, data);
    }
}
