//! Frames of a stream to RTP packets for one reader, and what the reader asks for.
//!
//! Retransmissions come from the stream's ring: per frame sent we keep a weak reference, no packets. Not here: SRTP,
//! sockets.

use kerbside_codecs::media::{Captured, MediumKind};
use kerbside_codecs::rtp::extension::{self, CAPTURE_TIME_BLOCK_BYTES};
use kerbside_codecs::rtp::{HEADER_BYTES, Header, rtcp};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::plan::Plan;
use crate::stream::Frame;

/// Packets that can be asked for again: some seconds.
const SENT_MAX: usize = 1024;
/// Retransmissions are at most a quarter of what was sent, after a start of so many packets.
const RESEND_START: u32 = 256;
const RESEND_SAVED_MAX: u32 = 1024;

/// The sending side of one session.
pub struct Egress {
    tracks: Vec<Track>,
}

struct Track {
    medium: u8,
    is_video: bool,
    payload_type: u8,
    /// Id of the abs-capture-time extension, if it was agreed: it goes with the last packet of
    /// each frame, which is the shortest: datagrams of unequal size cannot be sent together.
    capture_time: Option<u8>,
    ssrc: u32,
    clock_rate: u32,
    /// Extended sequence number: rollover counter and sequence number.
    next_index: u64,
    packets: u32,
    bytes: u32,
    sent: VecDeque<Sent>,
    sent_packets: usize,
    /// Retransmissions allowed, in quarters of a packet.
    resend_quarters: u32,
    /// Of the newest live frame: captured (µs since 1970), and its media time.
    live: Option<(i64, u32)>,
}

/// A header of at most 12 bytes and one extension block.
struct HeaderBytes {
    bytes: [u8; HEADER_BYTES + CAPTURE_TIME_BLOCK_BYTES],
    len: usize,
}

impl HeaderBytes {
    fn from(fixed: [u8; HEADER_BYTES]) -> Self {
        let mut bytes = [0; HEADER_BYTES + CAPTURE_TIME_BLOCK_BYTES];
        bytes[..HEADER_BYTES].copy_from_slice(&fixed);
        Self {
            bytes,
            len: HEADER_BYTES,
        }
    }

    fn extend(&mut self, block: &[u8; CAPTURE_TIME_BLOCK_BYTES]) {
        self.bytes[0] |= extension::EXTENSION_BIT;
        self.bytes[HEADER_BYTES..].copy_from_slice(block);
        self.len = self.bytes.len();
    }
}

impl std::ops::Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

struct Sent {
    first: u64,
    count: u16,
    time: u32,
    frame: Weak<Frame>,
}

/// What became of a request for lost packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    pub packets: u32,
    /// No longer in the ring, or never sent.
    pub gone: u32,
    /// Over the budget.
    pub refused: u32,
}

impl Egress {
    pub fn new(plan: &Plan) -> Self {
        let tracks = plan
            .media
            .iter()
            .map(|a| Track {
                medium: a.medium,
                is_video: a.codec.codec.kind() == MediumKind::Video,
                payload_type: a.format.payload_type,
                capture_time: a.abs_capture_time,
                ssrc: a.ssrc,
                clock_rate: a.codec.clock_rate,
                // Below the middle, so that the first packets cannot wrap (RFC 3711 §3.3.1).
                next_index: u64::from(rand::random::<u16>() >> 1),
                packets: 0,
                bytes: 0,
                sent: VecDeque::new(),
                sent_packets: 0,
                resend_quarters: RESEND_START * 4,
                live: None,
            })
            .collect();
        Self { tracks }
    }

    /// Gives the packets of a frame to `out` as header, payload and extended sequence number; none when its medium
    /// was not agreed. `live`: not one of a replay, whose times are squeezed.
    pub fn frame(
        &mut self,
        frame: &Arc<Frame>,
        time: u64,
        live: bool,
        mut out: impl FnMut(&[u8], &[u8], u64),
    ) {
        let Some(track) = self.tracks.iter_mut().find(|t| t.medium == frame.medium) else {
            return;
        };
        #[allow(clippy::cast_possible_truncation, reason = "RTP time is the low half")]
        let time = time as u32;
        let payloads = frame.payloads.in_order();
        let count = payloads.len();
        let first = track.next_index;
        for (index, payload) in (first..).zip(payloads.iter()) {
            let last = index + 1 == first + count as u64;
            let header = track.header(index, time, last);
            let header = track.extended(&header, last, frame.captured);
            out(&header, payload, index);
        }
        track.next_index += count as u64;
        track.packets = track
            .packets
            .wrapping_add(u32::try_from(count).unwrap_or(0));
        track.bytes = track
            .bytes
            .wrapping_add(u32::try_from(payloads.bytes()).unwrap_or(0));
        if live && count > 0 {
            track.live = Some((frame.captured.utc_us, time));
        }
        track.remember(first, count, time, frame);
    }

    /// Gives the packets asked for again to `out`, as far as they are still there.
    pub fn resend(
        &mut self,
        ssrc: u32,
        seqs: &[u16],
        mut out: impl FnMut(&[u8], &[u8], u64),
    ) -> Resent {
        let mut resent = Resent::default();
        let Some(track) = self.tracks.iter_mut().find(|t| t.ssrc == ssrc) else {
            resent.gone = u32::try_from(seqs.len()).unwrap_or(u32::MAX);
            return resent;
        };
        for &seq in seqs {
            let Some((header, payload, index)) = track.find(seq) else {
                resent.gone += 1;
                continue;
            };
            let Some(left) = track.resend_quarters.checked_sub(4) else {
                resent.refused += 1;
                continue;
            };
            track.resend_quarters = left;
            out(&header, &payload, index);
            resent.packets += 1;
        }
        resent
    }

    /// A sender report for each medium: a moment of capture and its media time. `edge` gives that of the live edge at
    /// the join, for media that have sent nothing live yet.
    pub fn reports(&self, edge: impl Fn(usize) -> Option<(Captured, u64)>) -> Vec<Vec<u8>> {
        self.tracks
            .iter()
            .filter_map(|t| {
                #[allow(clippy::cast_possible_truncation, reason = "RTP time is the low half")]
                let edge = || edge(usize::from(t.medium)).map(|(c, time)| (c.utc_us, time as u32));
                let (utc_us, time) = t.live.or_else(edge)?;
                let ntp = rtcp::ntp_of(utc_us);
                Some(rtcp::sender_report(t.ssrc, ntp, time, t.packets, t.bytes))
            })
            .collect()
    }

    /// RTP clock of our source `ssrc`.
    pub fn clock_rate(&self, ssrc: u32) -> Option<u32> {
        let track = self.tracks.iter().find(|t| t.ssrc == ssrc)?;
        Some(track.clock_rate)
    }
}

impl Track {
    fn header(&self, index: u64, time: u32, last: bool) -> Header {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the sequence number is the low part"
        )]
        let seq = index as u16;
        Header {
            marker: last && self.is_video,
            payload_type: self.payload_type,
            seq,
            time,
            ssrc: self.ssrc,
        }
    }

    fn remember(&mut self, first: u64, count: usize, time: u32, frame: &Arc<Frame>) {
        let Some(n) = u16::try_from(count).ok().filter(|n| *n > 0) else {
            return;
        };
        self.resend_quarters = self
            .resend_quarters
            .saturating_add(u32::from(n))
            .min(RESEND_SAVED_MAX * 4);
        self.sent_packets += count;
        self.sent.push_back(Sent {
            first,
            count: n,
            time,
            frame: Arc::downgrade(frame),
        });
        while self.sent_packets > SENT_MAX
            && self.sent.len() > 1
            && let Some(old) = self.sent.pop_front()
        {
            self.sent_packets -= usize::from(old.count);
        }
    }

    /// The header's bytes; a packet that is sent again must be the same in every bit.
    fn extended(&self, header: &Header, last: bool, captured: Captured) -> HeaderBytes {
        let mut bytes = HeaderBytes::from(header.to_bytes());
        if let Some(id) = self.capture_time.filter(|_| last) {
            bytes.extend(&extension::write_capture_time(id, captured));
        }
        bytes
    }

    fn find(&self, seq: u16) -> Option<(HeaderBytes, bytes::Bytes, u64)> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the sequence number is the low part"
        )]
        let back = (self.next_index as u16).wrapping_sub(1).wrapping_sub(seq);
        // The newest packet of this number. Not walked to: who asks for what is long gone must not cost a walk each.
        let index = self.next_index.checked_sub(1 + u64::from(back))?;
        let place = self.sent.partition_point(|s| s.first <= index);
        let sent = self.sent.get(place.checked_sub(1)?)?;
        let i = u16::try_from(index - sent.first)
            .ok()
            .filter(|i| *i < sent.count)?;
        let frame = sent.frame.upgrade()?;
        let payload = frame.payloads.in_order().get(usize::from(i))?;
        let last = i + 1 == sent.count;
        let header = self.header(index, sent.time, last);
        let header = self.extended(&header, last, frame.captured);
        Some((header, payload, index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{offer, plan};
    use super::*;
    use bytes::Bytes;
    use kerbside_codecs::media::{Codec, Medium, Payloads};

    fn egress() -> (Egress, u32) {
        let offer = offer::parse(offer::tests::CHROMIUM).unwrap();
        let video = Medium {
            codec: Codec::H264 {
                sps: Bytes::new(),
                pps: Bytes::new(),
            },
            clock_rate: 90_000,
        };
        let agreed = plan::play(&offer, &[video]).unwrap();
        (Egress::new(&agreed), agreed.media[0].ssrc)
    }

    fn frame(medium: u8, packets: u32) -> Arc<Frame> {
        let data = vec![7; packets as usize * 10];
        let ends = (1..=packets).map(|i| i * 10).collect();
        Arc::new(Frame {
            seq: 0,
            epoch: 0,
            medium,
            key: true,
            time: 0,
            arrived: std::time::Instant::now(),
            offset: 0,
            captured: kerbside_codecs::media::Captured {
                utc_us: 0,
                uncertainty_us: 0,
            },
            payloads: Payloads::new(data.into(), ends),
        })
    }

    #[test]
    fn a_frame_is_numbered_and_its_last_packet_marked() {
        let (mut e, ssrc) = egress();
        let mut seen = Vec::new();
        e.frame(&frame(0, 3), (1 << 32) + 5, true, |p, _, _| {
            seen.push(Header::parse(p).unwrap().0);
        });
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|h| h.ssrc == ssrc && h.time == 5));
        assert_eq!(seen[2].seq, seen[0].seq.wrapping_add(2));
        let markers: Vec<_> = seen.iter().map(|h| h.marker).collect();
        assert_eq!(markers, [false, false, true]);
        e.frame(&frame(9, 3), 5, true, |_, _, _| {
            panic!("medium 9 was not agreed")
        });
    }

    #[test]
    fn the_capture_time_goes_with_the_last_packet_and_again_with_its_repetition() {
        let (mut e, ssrc) = egress();
        e.tracks[0].capture_time = Some(5);
        let f = frame(0, 3);
        let mut seen = Vec::new();
        e.frame(&f, 1, true, |h, _, _| seen.push(h.to_vec()));
        let told: Vec<_> = seen
            .iter()
            .map(|h| extension::find(h, 5).is_some())
            .collect();
        assert_eq!(told, [false, false, true]);
        let seq = Header::parse(&seen[2]).unwrap().0.seq;
        let mut again = Vec::new();
        e.resend(ssrc, &[seq], |h, _, _| again.push(h.to_vec()));
        assert_eq!(again, seen[2..]);
    }

    #[test]
    fn what_is_asked_again_comes_from_the_ring_or_not_at_all() {
        let (mut e, ssrc) = egress();
        let (kept, gone) = (frame(0, 2), frame(0, 2));
        let mut first = Vec::new();
        e.frame(&kept, 1, true, |h, p, i| {
            first.push((h.to_vec(), p.to_vec(), i));
        });
        e.frame(&gone, 2, true, |h, p, i| {
            first.push((h.to_vec(), p.to_vec(), i));
        });
        drop(gone);
        let seqs: Vec<u16> = first
            .iter()
            .map(|(h, _, _)| Header::parse(h).unwrap().0.seq)
            .collect();
        let mut again = Vec::new();
        let resent = e.resend(ssrc, &seqs, |h, p, i| {
            again.push((h.to_vec(), p.to_vec(), i));
        });
        assert_eq!(again, first[..2]);
        assert_eq!((resent.packets, resent.gone), (2, 2));
        assert_eq!(e.resend(1, &seqs, |_, _, _| ()).gone, 4);
    }

    #[test]
    fn a_reader_cannot_ask_without_end() {
        let (mut e, ssrc) = egress();
        let f = frame(0, 1);
        let mut seq = 0;
        e.frame(&f, 1, true, |p, _, _| seq = Header::parse(p).unwrap().0.seq);
        let resent = e.resend(ssrc, &[seq; 10_000], |_, _, _| ());
        assert_eq!(resent.packets, RESEND_START);
        assert_eq!(resent.refused, 10_000 - RESEND_START);
    }

    /// A packet that is sent again with other bytes would be encrypted with the same nonce: the end of GCM's secrecy.
    #[test]
    fn a_number_stands_for_one_packet_also_where_it_wraps() {
        let (mut e, ssrc) = egress();
        e.tracks[0].capture_time = Some(5);
        e.tracks[0].next_index = (3 << 16) - 700;
        let frames: Vec<_> = (1..55).map(|n| frame(0, 1 + n % 40)).collect();
        let mut sent = std::collections::BTreeMap::new();
        for (n, f) in (0..).zip(&frames) {
            e.frame(f, n * 3000, true, |h, p, i| {
                sent.insert(i, (h.to_vec(), p.to_vec()));
            });
        }
        let newest = *sent.keys().last().unwrap();
        assert!(newest >> 16 > 2, "the sequence number wrapped");
        let mut again = 0;
        for seq in 0..=u16::MAX {
            e.tracks[0].resend_quarters = 4;
            e.resend(ssrc, &[seq], |h, p, i| {
                assert_eq!(sent.get(&i), Some(&(h.to_vec(), p.to_vec())));
                again += 1;
            });
        }
        assert_eq!(again, sent.len());
    }

    #[test]
    fn the_history_is_bounded() {
        let (mut e, _) = egress();
        let f = frame(0, 100);
        for _ in 0..1000 {
            e.frame(&f, 1, true, |_, _, _| ());
        }
        assert!(e.tracks[0].sent_packets <= SENT_MAX);
    }
}
