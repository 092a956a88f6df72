//! The RTP header (RFC 3550 §5.1). Reading borrows and slices, writing fills an array: nothing is allocated.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of a header without CSRC and extension: the only kind we write.
pub const HEADER_BYTES: usize = 12;

/// The fixed part of an RTP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    /// 7 bits.
    pub payload_type: u8,
    pub seq: u16,
    /// Media time, low 32 bits.
    pub time: u32,
    pub ssrc: u32,
}

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRtp {
    #[error("RTP packet of {0} bytes ends inside its header")]
    Short(usize),
    #[error("RTP version {0} instead of 2")]
    Version(u8),
    #[error("RTP padding of {0} bytes does not fit the packet")]
    Padding(u8),
}

impl Header {
    /// Reads a header; the range is the payload, without CSRCs, extension and padding.
    ///
    /// # Errors
    /// [`BadRtp`].
    pub fn parse(packet: &[u8]) -> Result<(Self, Range<usize>), BadRtp> {
        let short = BadRtp::Short(packet.len());
        let fixed: &[u8; HEADER_BYTES] = packet.first_chunk().ok_or(short)?;
        let version = fixed[0] >> 6;
        if version != 2 {
            return Err(BadRtp::Version(version));
        }
        let mut start = HEADER_BYTES + usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] & 0x10 != 0 {
            let ext = packet.get(start..start + 4).ok_or(short)?;
            start += 4 + usize::from(u16::from_be_bytes([ext[2], ext[3]])) * 4;
        }
        let mut end = packet.len();
        if start > end {
            return Err(short);
        }
        if fixed[0] & 0x20 != 0 {
            let pad = packet[end - 1];
            if pad == 0 || usize::from(pad) > end - start {
                return Err(BadRtp::Padding(pad));
            }
            end -= usize::from(pad);
        }
        let header = Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            time: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        };
        Ok((header, start..end))
    }

    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        b[0] = 0x80;
        b[1] = u8::from(self.marker) << 7 | (self.payload_type & 0x7f);
        b[2..4].copy_from_slice(&self.seq.to_be_bytes());
        b[4..8].copy_from_slice(&self.time.to_be_bytes());
        b[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        b
    }
}

/// A packet as it came in; the payload is a slice of the receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub header: Header,
    pub payload: Bytes,
}

impl Packet {
    /// # Errors
    /// [`BadRtp`].
    pub fn parse(bytes: &Bytes) -> Result<Self, BadRtp> {
        let (header, range) = Header::parse(bytes)?;
        Ok(Self {
            header,
            payload: bytes.slice(range),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn csrc_extension_and_padding_are_not_payload() {
        let mut p = vec![
            0x80 | 0x20 | 0x10 | 2,
            0x80 | 96,
            0,
            7,
            0,
            0,
            0,
            9,
            1,
            2,
            3,
            4,
        ];
        p.extend([0; 8]); // two CSRCs
        p.extend([0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        p.extend(b"data");
        p.extend([0, 0, 3]);
        let packet = Packet::parse(&p.into()).unwrap();
        assert_eq!(&packet.payload[..], b"data");
        assert_eq!(packet.header.seq, 7);
        assert_eq!(packet.header.payload_type, 96);
        assert!(packet.header.marker);
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(Header::parse(&[0x80; 5]), Err(BadRtp::Short(5)));
        assert_eq!(Header::parse(&[0; 12]), Err(BadRtp::Version(0)));
        let mut p = [0u8; 13];
        p[0] = 0xa0;
        p[12] = 2;
        assert_eq!(Header::parse(&p), Err(BadRtp::Padding(2)));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            if let Ok((_, range)) = Header::parse(&bytes) {
                prop_assert!(bytes.get(range).is_some());
            }
        }

        #[test]
        fn round_trip(marker: bool, payload_type in 0u8..128, seq: u16, time: u32, ssrc: u32) {
            let h = Header { marker, payload_type, seq, time, ssrc };
            prop_assert_eq!(Header::parse(&h.to_bytes()), Ok((h, 12..12)));
        }
    }
}
