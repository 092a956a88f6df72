//! A temporal unit to RTP payloads (AV1 payload format §4.4, §4.5).

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::Payloads;

/// OBUs in one packet: as many as the W field can count, so that the last one needs no length.
const ELEMENTS_MAX: usize = 3;

/// Cuts OBUs (without size field, none empty) into payloads of at most `max_payload` bytes: neighbours share a packet,
/// one that does not fit goes on in the next, so that all payloads but the last are nearly equal.
/// `begins_sequence`: the unit is the first of a coded video sequence.
pub fn packetize_av1(obus: &[Bytes], begins_sequence: bool, max_payload: usize) -> Payloads {
    let space_max = max_payload.max(16) - 1;
    let total: usize = obus.iter().map(|o| o.len() + 3).sum();
    let packets_max = total / (space_max - 4) + obus.len() / ELEMENTS_MAX + 2;
    let mut data = BytesMut::with_capacity(total + packets_max);
    let mut ends = Vec::with_capacity(packets_max);
    // The OBU that comes next, and how much of it was sent.
    let (mut i, mut sent) = (0, 0);
    while i < obus.len() {
        let header = data.len();
        let continues = sent > 0;
        let first = begins_sequence && ends.is_empty();
        data.put_u8(u8::from(continues) << 7 | u8::from(first) << 3);
        let mut space = space_max;
        let mut continued = false;
        for element in 1..=ELEMENTS_MAX {
            let rest = &obus[i][sent..];
            let length = leb128_bytes(rest.len());
            // Behind it the next one needs a byte at least.
            let more = element < ELEMENTS_MAX && i + 1 < obus.len();
            if more && rest.len() + length < space {
                put_leb128(&mut data, rest.len());
                data.put_slice(rest);
                space -= rest.len() + length;
                (i, sent) = (i + 1, 0);
                continue;
            }
            let part = rest.len().min(space);
            data.put_slice(&rest[..part]);
            continued = part < rest.len();
            (i, sent) = if continued {
                (i, sent + part)
            } else {
                (i + 1, 0)
            };
            let count = u8::try_from(element).unwrap_or(0);
            data[header] |= u8::from(continued) << 6 | count << 4;
            break;
        }
        debug_assert!(continued || sent == 0, "the whole OBU was sent");
        ends.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }
    Payloads::new(data.freeze(), ends)
}

fn leb128_bytes(value: usize) -> usize {
    (1..8).find(|n| value >> (7 * n) == 0).unwrap_or(8)
}

fn put_leb128(data: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        data.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    data.put_u8(u8::try_from(value).unwrap_or(0));
}
