//! A key frame on its way from RTP payloads to a decoder: put together again, and checked before anything is decoded.

use bytes::Bytes;
use kerbside_codecs::media::{Captured, Codec, Payloads};
use kerbside_codecs::rtp::h264::{H264Depacketizer, NalType, Sps};

use super::Fault;

/// Larger pictures are not decoded: 5,120 × 2,880 and 4:3 cameras of 12 megapixels pass. One decoded picture is then at
/// most 24 MB.
pub const PIXELS_MAX: u32 = 16_000_000;

/// What the decoder is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Annex B byte stream, one access unit.
    H264,
}

/// A key frame with its parameter sets, in the form that its decoder takes.
#[derive(Clone, Debug)]
pub struct Still {
    pub format: Format,
    pub data: Bytes,
    pub captured: Captured,
}

impl Still {
    /// From the RTP payloads of a key frame; parameter sets must be among them.
    ///
    /// # Errors
    /// [`Fault::Codec`] for what no decoder here takes, [`Fault::Damaged`] when the payloads are no key frame, or one
    /// larger than [`PIXELS_MAX`].
    pub fn new(codec: &Codec, payloads: &Payloads, captured: Captured) -> Result<Self, Fault> {
        // A further codec: its format, its depacketizer here, its caps and decoders in `decode`.
        let (format, data) = match codec {
            Codec::H264 { .. } => (Format::H264, h264(payloads)?),
            other => return Err(Fault::Codec(other.encoding_name())),
        };
        Ok(Self {
            format,
            data,
            captured,
        })
    }
}

/// RFC 6184 payloads to an Annex B access unit (H.264 Annex B, start codes of four bytes).
fn h264(payloads: &Payloads) -> Result<Bytes, Fault> {
    let damaged = |why: &str| Fault::Damaged(why.to_owned());
    let mut depacketizer = H264Depacketizer::default();
    let mut unit = None;
    for i in 0..payloads.len() {
        let Some(payload) = payloads.get(i) else {
            break;
        };
        let last = i + 1 == payloads.len();
        let done = depacketizer.push(&payload, 0, last, false);
        if let Some(done) = done.into_iter().flatten().next() {
            unit = Some(done.map_err(|f| damaged(f.name()))?);
            break;
        }
    }
    let unit = unit.ok_or_else(|| damaged("it is not whole"))?;
    let mut data = Vec::with_capacity(payloads.bytes() + 4 * unit.nals.len());
    let (mut sps, mut pps) = (false, false);
    for nal in &unit.nals {
        match NalType::of(nal) {
            NalType::SPS => {
                let size = Sps::parse(nal).ok_or_else(|| damaged("its SPS is not one"))?;
                if size.width.saturating_mul(size.height) > PIXELS_MAX {
                    return Err(damaged(&too_large(size.width, size.height)));
                }
                sps = true;
            }
            NalType::PPS => pps = true,
            _ => {}
        }
        data.extend_from_slice(&[0, 0, 0, 1]);
        data.extend_from_slice(nal);
    }
    if !(sps && pps) {
        return Err(damaged("its parameter sets are missing"));
    }
    Ok(data.into())
}

/// The refusal of a picture above [`PIXELS_MAX`].
pub(super) fn too_large(width: u32, height: u32) -> String {
    let megapixels = PIXELS_MAX / 1_000_000;
    format!("{width}×{height} is larger than {megapixels} megapixels")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// x264, Main profile, 64×48: the left half red, the right half blue.
    pub const SPS: &[u8] =
        b"\x67\x4d\x40\x0a\xec\xa2\x3d\x80\x88\x00\x00\x03\x00\x08\x00\x00\x03\x00\x10\x78\x91\x2c\xb0";
    pub const PPS: &[u8] = b"\x68\xeb\xe1\xb2\xc8";
    pub const IDR: &[u8] =
        b"\x65\x88\x84\x00\xff\xfe\xbd\x67\xe6\x58\xdf\x1c\x74\x91\x6d\x28\x43\xd9\x86\x0c\xbe\x65\
\xd3\xff\x08\x00\xf4\xee\xfa\xb9\xae\x28\x03\xe5\xd9\xd6\x32\x4d\x6f\x57\x1b\xc1";
    pub const WHEN: Captured = Captured {
        utc_us: 1_795_219_200_123_000,
        uncertainty_us: 40_000,
    };

    pub fn codec() -> Codec {
        Codec::H264 {
            sps: Bytes::new(),
            pps: Bytes::new(),
        }
    }

    /// One payload for each part.
    pub fn payloads(parts: &[&[u8]]) -> Payloads {
        let ends = parts.iter().scan(0, |end, part| {
            *end += part.len() as u32;
            Some(*end)
        });
        Payloads::new(Bytes::from(parts.concat()), ends.collect())
    }

    pub fn still(parts: &[&[u8]]) -> Result<Still, Fault> {
        Still::new(&codec(), &payloads(parts), WHEN)
    }

    /// Baseline, 16,016 × 16,016.
    pub fn huge_sps() -> Vec<u8> {
        let side = "0000000001111101001";
        let bits = ["1111", "010", "0", side, side, "11", "00", "1", "0000000"].concat();
        let bytes = bits.as_bytes().chunks_exact(8).map(|byte| {
            let bits = std::str::from_utf8(byte).unwrap();
            u8::from_str_radix(bits, 2).unwrap()
        });
        [0x67, 66, 0, 62].into_iter().chain(bytes).collect()
    }

    #[test]
    fn payloads_become_annex_b() {
        let start = &[0, 0, 0, 1];
        let whole = [&start[..], SPS, start, PPS, start, IDR].concat();
        assert_eq!(still(&[SPS, PPS, IDR]).unwrap().data, whole);
        // The same as a STAP-A and two FU-A.
        let len = |nal: &[u8]| (nal.len() as u16).to_be_bytes();
        let stap = [&[0x78][..], &len(SPS), SPS, &len(PPS), PPS].concat();
        let first = [&[0x7c, 0x85][..], &IDR[1..20]].concat();
        let second = [&[0x7c, 0x45][..], &IDR[20..]].concat();
        assert_eq!(still(&[&stap, &first, &second]).unwrap().data, whole);
    }

    #[test]
    fn what_is_no_key_frame_is_refused_before_a_decoder_sees_it() {
        let why = |parts: &[&[u8]]| still(parts).unwrap_err().to_string();
        assert!(why(&[]).contains("not whole"));
        assert!(why(&[IDR]).contains("parameter sets"));
        assert!(why(&[SPS, IDR]).contains("parameter sets"));
        assert!(why(&[&SPS[..5], PPS, IDR]).contains("SPS"));
        assert!(why(&[SPS, PPS, &[0x7c, 0x85, 1, 2]]).contains("cannot be decoded"));
        let huge = huge_sps();
        assert!(why(&[&huge, PPS, IDR]).contains("megapixels"));
        let opus = Still::new(&Codec::Opus { channels: 2 }, &payloads(&[&[1]]), WHEN);
        assert_eq!(opus.unwrap_err(), Fault::Codec("opus"));
    }

    proptest::proptest! {
        #[test]
        fn any_payloads(parts: Vec<Vec<u8>>) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let bytes: usize = parts.iter().map(|p| p.len()).sum();
            if let Ok(still) = still(&parts) {
                proptest::prop_assert!(still.data.len() <= 8 * bytes.max(1));
            }
        }
    }
}
