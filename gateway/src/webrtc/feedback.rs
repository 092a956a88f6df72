//! RTCP feedback (RFC 4585, RFC 5104): what a reader asks of us, and what we ask of a publisher.
//!
//! Not here: reports (`codecs::rtp::rtcp`).

const RECEIVER_REPORT: u8 = 201;
const RTPFB: u8 = 205;
const PSFB: u8 = 206;
const NACK: u8 = 1;
const PLI: u8 = 1;
const FIR: u8 = 4;
/// Application layer feedback.
const ALFB: u8 = 15;

/// Sequence numbers one compound packet can ask for; more are not looked at.
const NACK_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// These packets were lost.
    Nack { ssrc: u32, seqs: Vec<u16> },
    /// A key frame is needed (PLI or FIR).
    KeyFrame { ssrc: u32 },
    /// A report block of a receiver (RFC 3550 §6.4.1): loss as a share of 256, jitter in ticks of the medium's clock.
    Report {
        ssrc: u32,
        fraction_lost: u8,
        jitter: u32,
    },
}

/// The feedback in a compound packet; stops at the first thing that is not RTCP.
pub fn parse(mut packet: &[u8]) -> Vec<Feedback> {
    let mut out = Vec::new();
    let mut asked = 0;
    while let Some([first, kind, len @ ..]) = packet.first_chunk::<4>() {
        let size = usize::from(u16::from_be_bytes(*len)) * 4 + 4;
        if first >> 6 != 2 || size > packet.len() {
            break;
        }
        let (this, rest) = packet.split_at(size);
        packet = rest;
        let word = |i: usize| Some(u32::from_be_bytes(*this.get(i..)?.first_chunk()?));
        match (*kind, first & 0x1f) {
            (RTPFB, NACK) => {
                let Some(ssrc) = word(8) else { continue };
                let mut seqs = Vec::new();
                for pair in this.get(12..).unwrap_or_default().chunks_exact(4) {
                    let base = u16::from_be_bytes([pair[0], pair[1]]);
                    let mask = u16::from_be_bytes([pair[2], pair[3]]);
                    seqs.push(base);
                    seqs.extend(
                        (0..16)
                            .filter(|b| mask >> b & 1 == 1)
                            .map(|b| base.wrapping_add(b + 1)),
                    );
                    asked += 17;
                    if asked > NACK_MAX {
                        break;
                    }
                }
                out.push(Feedback::Nack { ssrc, seqs });
                if asked > NACK_MAX {
                    break;
                }
            }
            (PSFB, PLI) => out.extend(word(8).map(|ssrc| Feedback::KeyFrame { ssrc })),
            // FIR names its target in the entry, not in the header (RFC 5104 §4.3.1).
            (PSFB, FIR) => out.extend(word(12).map(|ssrc| Feedback::KeyFrame { ssrc })),
            (RECEIVER_REPORT, n) => {
                let blocks = this.get(8..).unwrap_or_default().chunks_exact(24);
                for block in blocks.take(usize::from(n)) {
                    let word = |i| {
                        u32::from_be_bytes([block[i], block[i + 1], block[i + 2], block[i + 3]])
                    };
                    out.push(Feedback::Report {
                        ssrc: word(0),
                        fraction_lost: block[4],
                        jitter: word(12),
                    });
                }
            }
            _ => {}
        }
    }
    out
}

/// Picture loss indication.
pub fn pli(own: u32, source: u32) -> Vec<u8> {
    let mut p = vec![0x80 | PLI, PSFB, 0, 2];
    p.extend(own.to_be_bytes());
    p.extend(source.to_be_bytes());
    p
}

/// Generic NACK for ascending sequence numbers.
pub fn nack(own: u32, source: u32, seqs: &[u16]) -> Vec<u8> {
    let mut pairs: Vec<(u16, u16)> = Vec::new();
    for &s in seqs.iter().take(NACK_MAX) {
        match pairs.last_mut() {
            Some((base, mask)) if (1..=16).contains(&s.wrapping_sub(*base)) => {
                *mask |= 1 << (s.wrapping_sub(*base) - 1);
            }
            _ => pairs.push((s, 0)),
        }
    }
    let words = u16::try_from(2 + pairs.len()).unwrap_or(2);
    let mut p = vec![0x80 | NACK, RTPFB];
    p.extend(words.to_be_bytes());
    p.extend(own.to_be_bytes());
    p.extend(source.to_be_bytes());
    for (base, mask) in pairs {
        p.extend(base.to_be_bytes());
        p.extend(mask.to_be_bytes());
    }
    p
}

/// How much may be sent by these sources together, bits per second (draft-alvestrand-rmcat-remb-03 §2.2).
pub fn remb(own: u32, sources: &[u32], bits_per_second: u64) -> Vec<u8> {
    const SOURCES_MAX: usize = 8;
    let sources = &sources[..sources.len().min(SOURCES_MAX)];
    let exponent = (64 - bits_per_second.leading_zeros()).saturating_sub(18);
    let mantissa = u32::try_from(bits_per_second >> exponent).unwrap_or(0x3_ffff);
    let count = u32::try_from(sources.len()).unwrap_or(0);
    let mut p = vec![0x80 | ALFB, PSFB];
    p.extend(u16::try_from(4 + sources.len()).unwrap_or(4).to_be_bytes());
    p.extend(own.to_be_bytes());
    p.extend([0; 4]);
    p.extend(b"REMB");
    p.extend((count << 24 | exponent << 18 | mantissa).to_be_bytes());
    for s in sources {
        p.extend(s.to_be_bytes());
    }
    p
}

/// Is this RTCP rather than RTP (RFC 5761 §4)?
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet.get(1), Some(192..=223))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_compound_of_all() {
        let mut p = vec![0x80, 201, 0, 1, 0, 0, 0, 1]; // an empty receiver report
        p.extend([0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 7, 64, 0, 0, 0]);
        p.extend([0, 0, 0, 0, 0, 0, 0, 90, 0, 0, 0, 0, 0, 0, 0, 0]);
        p.extend(pli(1, 7));
        p.extend(nack(1, 8, &[65_534, 65_535, 3, 100]));
        p.extend([
            0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 5, 0, 0, 0,
        ]);
        assert_eq!(
            parse(&p),
            [
                Feedback::Report {
                    ssrc: 7,
                    fraction_lost: 64,
                    jitter: 90
                },
                Feedback::KeyFrame { ssrc: 7 },
                Feedback::Nack {
                    ssrc: 8,
                    seqs: vec![65_534, 65_535, 3, 100]
                },
                Feedback::KeyFrame { ssrc: 9 },
            ]
        );
        assert!(is_rtcp(&p) && !is_rtcp(&[0x80, 96]));
    }

    /// Checked against the draft's layout by hand: 1,500,000 is 187,500 times 2^3.
    #[test]
    fn remb_is_laid_out_as_in_the_draft() {
        let p = remb(1, &[0xa, 0xb], 1_500_000);
        let wanted = [
            &[0x8f, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0][..],
            b"REMB",
            &[2, 3 << 2 | 2, 0xdc, 0x6c, 0, 0, 0, 0xa, 0, 0, 0, 0xb],
        ];
        assert_eq!(p, wanted.concat());
        assert!(parse(&p).is_empty());
        assert_eq!(remb(1, &[], 100)[16..], [0, 0, 0, 100]);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let n: usize = parse(&bytes).iter().map(|f| match f {
                Feedback::Nack { seqs, .. } => seqs.len(),
                Feedback::KeyFrame { .. } | Feedback::Report { .. } => 1,
            }).sum();
            prop_assert!(n <= NACK_MAX + 17 + bytes.len());
        }

        #[test]
        fn nacks_read_back(mut seqs in prop::collection::vec(0u16..5000, 1..100)) {
            seqs.sort_unstable();
            seqs.dedup();
            let p = nack(1, 2, &seqs);
            prop_assert_eq!(p.len() % 4, 0);
            if seqs.len() < 25 {
                prop_assert_eq!(parse(&p), [Feedback::Nack { ssrc: 2, seqs }]);
            }
        }
    }
}
