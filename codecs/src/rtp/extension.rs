//! Header extensions of RTP packets (RFC 8285) and the one we read and write: the absolute capture time.
//!
//! Here: elements of both forms out of a packet, one block in. Not here: which ids were negotiated.

use super::packet::HEADER_BYTES;
use super::rtcp;
use crate::media::Captured;

/// The URI of `a=extmap` (<http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time>).
pub const CAPTURE_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// Bytes of the block that [`write_capture_time`] gives.
pub const CAPTURE_TIME_BLOCK_BYTES: usize = 16;
/// The largest id of the one-byte form (RFC 8285 §4.2).
pub const ONE_BYTE_ID_MAX: u8 = 14;
/// In the first byte of an RTP header: an extension follows (RFC 3550 §5.1).
pub const EXTENSION_BIT: u8 = 0x10;

/// "One-byte header" (RFC 8285 §4.2) and "two-byte header" (§4.3; the low four bits are free).
const ONE_BYTE: u16 = 0xbede;
const TWO_BYTES: u16 = 0x1000;

/// The elements of a packet's header extension as (id, data), in their order; ends at the first one that is broken.
pub fn elements(packet: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let (form, mut rest) = block(packet).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let (&first, behind) = rest.split_first()?;
            if first == 0 {
                rest = behind;
                continue;
            }
            let (id, len, data) = if form == ONE_BYTE {
                (first >> 4, usize::from(first & 0x0f) + 1, behind)
            } else if form & 0xfff0 == TWO_BYTES {
                let (&len, data) = behind.split_first()?;
                (first, usize::from(len), data)
            } else {
                return None;
            };
            // RFC 8285 §4.2: id 15 ends the block; id 0 with a length is padding that carries bytes.
            if form == ONE_BYTE && id == 15 {
                return None;
            }
            let (this, behind) = data.split_at_checked(len)?;
            rest = behind;
            if id != 0 {
                return Some((id, this));
            }
        }
    })
}

/// The data of the first element with this id.
pub fn find(packet: &[u8], id: u8) -> Option<&[u8]> {
    elements(packet).find_map(|(i, data)| (i == id).then_some(data))
}

/// Profile and data of the extension (RFC 3550 §5.3.1).
fn block(packet: &[u8]) -> Option<(u16, &[u8])> {
    let first = *packet.first()?;
    if first >> 6 != 2 || first & EXTENSION_BIT == 0 {
        return None;
    }
    let behind = packet.get(HEADER_BYTES + usize::from(first & 0x0f) * 4..)?;
    let (&[p0, p1, l0, l1], data) = behind.split_first_chunk()?;
    let bytes = usize::from(u16::from_be_bytes([l0, l1])) * 4;
    Some((u16::from_be_bytes([p0, p1]), data.get(..bytes)?))
}

/// What abs-capture-time says of the frame a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureTime {
    /// When it was captured, 64-bit NTP by the clock of the capturing system.
    pub ntp: u64,
    /// That clock minus the sender's, in 2^-32 s, if the sender knows.
    pub offset: Option<i64>,
}

impl CaptureTime {
    /// Of the element's data: 8 bytes, or 16 with the offset.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (ntp, rest) = data.split_first_chunk()?;
        let offset = match rest.len() {
            0 => None,
            8 => rest.first_chunk().map(|b| i64::from_be_bytes(*b)),
            _ => return None,
        };
        Some(Self {
            ntp: u64::from_be_bytes(*ntp),
            offset,
        })
    }

    /// The moment by the clock of the sender, the one its sender reports go by. 64-bit NTP.
    pub fn by_sender(&self) -> u64 {
        self.ntp.wrapping_sub_signed(self.offset.unwrap_or(0))
    }
}

/// A whole extension of one element in the one-byte form: goes right behind a header without CSRCs whose first byte
/// has [`EXTENSION_BIT`]. `id`: 1 to [`ONE_BYTE_ID_MAX`], as negotiated.
pub fn write_capture_time(id: u8, captured: Captured) -> [u8; CAPTURE_TIME_BLOCK_BYTES] {
    debug_assert!((1..=ONE_BYTE_ID_MAX).contains(&id));
    let mut b = [0; CAPTURE_TIME_BLOCK_BYTES];
    b[..2].copy_from_slice(&ONE_BYTE.to_be_bytes());
    b[3] = 3; // words: id and length, 8 bytes, 3 of padding
    b[4] = id << 4 | 7;
    b[5..13].copy_from_slice(&rtcp::ntp_of(captured.utc_us).to_be_bytes());
    b
}

#[cfg(test)]
mod tests {
    use super::super::packet::Header;
    use super::*;
    use proptest::prelude::*;

    fn packet(extension: &[u8]) -> Vec<u8> {
        let header = Header {
            marker: true,
            payload_type: 96,
            seq: 1,
            time: 2,
            ssrc: 3,
        };
        let mut p = header.to_bytes().to_vec();
        p[0] |= EXTENSION_BIT;
        p.extend(extension);
        p.extend(b"payload");
        p
    }

    #[test]
    fn what_we_write_reads_back() {
        let utc_us = 1_795_219_200_123_456;
        let captured = Captured {
            utc_us,
            uncertainty_us: 9,
        };
        let p = packet(&write_capture_time(5, captured));
        assert_eq!(Header::parse(&p).unwrap().1, 12 + 16..p.len());
        assert_eq!(find(&p, 4), None);
        let read = CaptureTime::parse(find(&p, 5).unwrap()).unwrap();
        assert_eq!(read.offset, None);
        assert_eq!(rtcp::utc_us_of(read.by_sender()), utc_us);
    }

    #[test]
    fn both_forms_with_padding_between() {
        let p = packet(&[
            0xbe, 0xde, 0, 3, 0, 0x10, 9, 0, 0, 0x21, 7, 8, 0xf0, 1, 2, 3,
        ]);
        let all: Vec<_> = elements(&p).collect();
        assert_eq!(all, [(1, &[9][..]), (2, &[7, 8][..])], "15 ends it");
        let p = packet(&[
            0x10, 0x05, 0, 3, 1, 0, 0, 200, 2, 5, 6, 15, 1, 4, 0, 0, // padding
        ]);
        let all: Vec<_> = elements(&p).collect();
        assert_eq!(
            all,
            [(1, &[][..]), (200, &[5, 6][..]), (15, &[4][..])],
            "ids of two bytes go to 255, elements may be empty"
        );
        assert_eq!(elements(&packet(&[0, 1, 0, 1, 1, 2, 3, 4])).count(), 0);
    }

    #[test]
    fn an_offset_brings_the_time_to_the_senders_clock() {
        let mut data = (100_u64 << 32).to_be_bytes().to_vec();
        data.extend((-(3_i64 << 32)).to_be_bytes());
        let read = CaptureTime::parse(&data).unwrap();
        assert_eq!(read.by_sender(), 103 << 32);
        assert_eq!(CaptureTime::parse(&data[..9]), None);
        assert_eq!(CaptureTime::parse(&data[..7]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes: Vec<u8>, with: bool) {
            if let Some(b) = bytes.first_mut().filter(|_| with) {
                *b = 0x90;
            }
            let n: usize = elements(&bytes).map(|(_, data)| data.len() + 1).sum();
            prop_assert!(n <= bytes.len());
            for (_, data) in elements(&bytes) {
                let _ = CaptureTime::parse(data);
            }
        }

        #[test]
        fn one_byte_elements_read_back(
            all in prop::collection::vec((1u8..15, prop::collection::vec(any::<u8>(), 1..=16)), 0..8),
        ) {
            let mut data = Vec::new();
            for (id, bytes) in &all {
                data.push(id << 4 | u8::try_from(bytes.len() - 1).unwrap());
                data.extend(bytes);
            }
            data.resize(data.len().next_multiple_of(4), 0);
            let mut block = vec![0xbe, 0xde];
            block.extend(u16::try_from(data.len() / 4).unwrap().to_be_bytes());
            block.extend(data);
            let p = packet(&block);
            let read: Vec<_> = elements(&p).map(|(id, d)| (id, d.to_vec())).collect();
            prop_assert_eq!(read, all);
        }

        #[test]
        fn two_byte_elements_read_back(
            all in prop::collection::vec((1u8.., prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let mut data = Vec::new();
            for (id, bytes) in &all {
                data.push(*id);
                data.push(u8::try_from(bytes.len()).unwrap());
                data.extend(bytes);
            }
            data.resize(data.len().next_multiple_of(4), 0);
            let mut block = vec![0x10, 0];
            block.extend(u16::try_from(data.len() / 4).unwrap().to_be_bytes());
            block.extend(data);
            let p = packet(&block);
            let read: Vec<_> = elements(&p).map(|(id, d)| (id, d.to_vec())).collect();
            prop_assert_eq!(read, all);
        }
    }
}
