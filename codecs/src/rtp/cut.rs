//! NAL units to RTP payloads, the same for H.264 and H.265: small neighbours share a packet, large units are cut into
//! fragments of equal size but the last, so that a frame's datagrams can be sent together.
//!
//! Not here: the bytes of the headers; those are each format's own.

use bytes::{BufMut, Bytes, BytesMut};

use crate::media::Payloads;

pub(super) const FRAGMENT_STARTS: u8 = 0x80;
pub(super) const FRAGMENT_ENDS: u8 = 0x40;

/// What one payload format writes before NAL units and their parts.
pub(super) trait NalHeaders {
    /// Bytes of a NAL unit's header; an aggregation packet's is as long, a fragment's one byte longer.
    const BYTES: usize;

    /// The header of a packet that holds all these.
    fn put_aggregation(nals: &[Bytes], out: &mut BytesMut);

    /// The header of a part of this unit, `flags`: [`FRAGMENT_STARTS`], [`FRAGMENT_ENDS`].
    fn put_fragment(nal: &[u8], flags: u8, out: &mut BytesMut);
}

/// Cuts NAL units (without start codes, none shorter than its header) into payloads of at most `max_payload` bytes.
pub(super) fn cut<F: NalHeaders>(nals: &[Bytes], max_payload: usize) -> Payloads {
    let max = max_payload.max(16);
    let fragment = F::BYTES + 1;
    let total: usize = nals
        .iter()
        .map(|n| n.len() + n.len() / (max - fragment) * fragment + fragment + 3)
        .sum();
    let mut data = BytesMut::with_capacity(total);
    let mut ends = Vec::with_capacity(total / max + nals.len());
    let mut rest = nals;
    while let Some(nal) = rest.first() {
        let group = aggregated::<F>(rest, max);
        if group > 1 {
            let nals = &rest[..group];
            F::put_aggregation(nals, &mut data);
            for n in nals {
                data.put_u16(u16::try_from(n.len()).unwrap_or(u16::MAX));
                data.put_slice(n);
            }
            push_end(&mut ends, &data);
        } else if nal.len() <= max {
            data.put_slice(nal);
            push_end(&mut ends, &data);
        } else {
            let mut parts = nal[F::BYTES..].chunks(max - fragment).peekable();
            let mut flags = FRAGMENT_STARTS;
            while let Some(part) = parts.next() {
                if parts.peek().is_none() {
                    flags |= FRAGMENT_ENDS;
                }
                F::put_fragment(nal, flags, &mut data);
                data.put_slice(part);
                push_end(&mut ends, &data);
                flags = 0;
            }
        }
        rest = &rest[group.max(1)..];
    }
    Payloads::new(data.freeze(), ends)
}

fn push_end(ends: &mut Vec<u32>, data: &BytesMut) {
    ends.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
}

/// How many NAL units from the first one on fit into one aggregation packet.
fn aggregated<F: NalHeaders>(nals: &[Bytes], max: usize) -> usize {
    let mut size = F::BYTES;
    nals.iter()
        .take_while(|n| {
            size += 2 + n.len();
            size <= max && n.len() <= usize::from(u16::MAX)
        })
        .count()
}
