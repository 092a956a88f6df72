//! An access unit to RTP payloads (RFC 6184 §5.4, packetization mode 1).

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::Payloads;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Cuts NAL units (without start codes, none empty) into payloads of at most `max_payload` bytes: neighbours that fit
/// together share a STAP-A, one that is too big becomes FU-As of equal size but the last.
pub fn packetize_h264(nals: &[Bytes], max_payload: usize) -> Payloads {
    let max = max_payload.max(16);
    let total: usize = nals
        .iter()
        .map(|n| n.len() + n.len() / (max - 2) * 2 + 4)
        .sum();
    let mut data = BytesMut::with_capacity(total);
    let mut ends = Vec::with_capacity(total / max + nals.len());
    let mut rest = nals;
    while let Some(nal) = rest.first() {
        let group = aggregated(rest, max);
        if group > 1 {
            put_stap_a(&mut data, &rest[..group]);
            push_end(&mut ends, &data);
        } else if nal.len() <= max {
            data.put_slice(nal);
            push_end(&mut ends, &data);
        } else {
            put_fu_a(&mut data, &mut ends, nal, max);
        }
        rest = &rest[group.max(1)..];
    }
    Payloads::new(data.freeze(), ends)
}

fn push_end(ends: &mut Vec<u32>, data: &BytesMut) {
    ends.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
}

/// How many NAL units from the first one on fit into one STAP-A.
fn aggregated(nals: &[Bytes], max: usize) -> usize {
    let mut size = 1;
    nals.iter()
        .take_while(|n| {
            size += 2 + n.len();
            size <= max && n.len() <= usize::from(u16::MAX)
        })
        .count()
}

fn put_stap_a(data: &mut BytesMut, nals: &[Bytes]) {
    let header = |n: &Bytes| n.first().copied().unwrap_or(0);
    let forbidden = nals.iter().fold(0, |f, n| f | (header(n) & 0x80));
    let importance = nals.iter().map(|n| header(n) & 0x60).max().unwrap_or(0);
    data.put_u8(forbidden | importance | STAP_A);
    for n in nals {
        data.put_u16(u16::try_from(n.len()).unwrap_or(u16::MAX));
        data.put_slice(n);
    }
}

fn put_fu_a(data: &mut BytesMut, ends: &mut Vec<u32>, nal: &[u8], max: usize) {
    let Some((&header, body)) = nal.split_first() else {
        return;
    };
    let indicator = header & 0xe0 | FU_A;
    let count = body.len().div_ceil(max - 2);
    for (i, part) in body.chunks(max - 2).enumerate() {
        let start = u8::from(i == 0) << 7;
        let end = u8::from(i + 1 == count) << 6;
        data.put_u8(indicator);
        data.put_u8(start | end | header & 0x1f);
        data.put_slice(part);
        push_end(ends, data);
    }
}
