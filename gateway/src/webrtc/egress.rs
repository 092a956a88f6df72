//! Frames of a stream to RTP packets for one reader, and what the reader asks for.
//!
//! Retransmissions come from the stream's ring: per frame sent we keep a weak reference, no packets. Not here: SRTP,
//! sockets.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kerbside_codecs::media::MediumKind;
use kerbside_codecs::rtp::{HEADER_BYTES, Header, rtcp};

use super::plan::Plan;
use crate::stream::Frame;

/// Packets that can be asked for again.
const SENT_MAX: usize = 2048;
/// Retransmissions are at most a quarter of what was sent, after a start of so many packets.
const RESEND_START: u32 = 256;
const RESEND_SAVED_MAX: u32 = 1024;

/// The sending side of one session.
pub struct Egress {
    tracks: Vec<Track>,
    packet: Vec<u8>,
}

struct Track {
    medium: u8,
    is_video: bool,
    payload_type: u8,
    ssrc: u32,
    clock_rate: u32,
    next_seq: u16,
    packets: u32,
    bytes: u32,
    sent: VecDeque<Sent>,
    sent_packets: usize,
    /// Retransmissions allowed, in quarters of a packet.
    resend_quarters: u32,
    /// Media time of the newest frame and when it arrived here.
    newest: Option<(u32, Instant)>,
}

struct Sent {
    first: u16,
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
                ssrc: a.ssrc,
                clock_rate: a.codec.clock_rate,
                // Below the middle, so that the first packets cannot wrap (RFC 3711 §3.3.1).
                next_seq: rand::random::<u16>() >> 1,
                packets: 0,
                bytes: 0,
                sent: VecDeque::new(),
                sent_packets: 0,
                resend_quarters: RESEND_START * 4,
                newest: None,
            })
            .collect();
        Self {
            tracks,
            packet: Vec::with_capacity(1500),
        }
    }

    /// Gives the packets of a frame to `out`; none when its medium was not agreed.
    pub fn frame(&mut self, frame: &Arc<Frame>, time: u64, mut out: impl FnMut(&[u8])) {
        let Some(track) = self.tracks.iter_mut().find(|t| t.medium == frame.medium) else {
            return;
        };
        #[allow(clippy::cast_possible_truncation, reason = "RTP time is the low half")]
        let time = time as u32;
        let payloads = frame.payloads.in_order();
        let count = payloads.len();
        let first = track.next_seq;
        for (i, payload) in payloads.iter().enumerate() {
            let header = track.header(track.next_seq, time, i + 1 == count);
            track.next_seq = track.next_seq.wrapping_add(1);
            track.packets = track.packets.wrapping_add(1);
            track.bytes = track
                .bytes
                .wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
            put(&mut self.packet, &header, payload);
            out(&self.packet);
        }
        if count > 0 {
            track.newest = Some((time, frame.arrived));
        }
        track.remember(first, count, time, frame);
    }

    /// Gives the packets asked for again to `out`, as far as they are still there.
    pub fn resend(&mut self, ssrc: u32, seqs: &[u16], mut out: impl FnMut(&[u8])) -> Resent {
        let mut resent = Resent::default();
        let Some(track) = self.tracks.iter_mut().find(|t| t.ssrc == ssrc) else {
            resent.gone = u32::try_from(seqs.len()).unwrap_or(u32::MAX);
            return resent;
        };
        for &seq in seqs {
            let Some((header, payload)) = track.find(seq) else {
                resent.gone += 1;
                continue;
            };
            let Some(left) = track.resend_quarters.checked_sub(4) else {
                resent.refused += 1;
                continue;
            };
            track.resend_quarters = left;
            put(&mut self.packet, &header, &payload);
            out(&self.packet);
            resent.packets += 1;
        }
        resent
    }

    /// A sender report for each medium that has sent something.
    pub fn reports(&self, now: Instant, since_1970: Duration) -> Vec<Vec<u8>> {
        let ntp = rtcp::ntp(since_1970);
        self.tracks
            .iter()
            .filter_map(|t| {
                let (time, arrived) = t.newest?;
                let passed = now.saturating_duration_since(arrived).as_micros();
                let ticks = passed * u128::from(t.clock_rate) / 1_000_000;
                #[allow(clippy::cast_possible_truncation, reason = "RTP time is the low half")]
                let time = time.wrapping_add(ticks as u32);
                Some(rtcp::sender_report(t.ssrc, ntp, time, t.packets, t.bytes))
            })
            .collect()
    }
}

impl Track {
    fn header(&self, seq: u16, time: u32, last: bool) -> Header {
        Header {
            marker: last && self.is_video,
            payload_type: self.payload_type,
            seq,
            time,
            ssrc: self.ssrc,
        }
    }

    fn remember(&mut self, first: u16, count: usize, time: u32, frame: &Arc<Frame>) {
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

    fn find(&self, seq: u16) -> Option<(Header, bytes::Bytes)> {
        let sent = self
            .sent
            .iter()
            .rev()
            .find(|s| seq.wrapping_sub(s.first) < s.count)?;
        let i = seq.wrapping_sub(sent.first);
        let payload = sent
            .frame
            .upgrade()?
            .payloads
            .in_order()
            .get(usize::from(i))?;
        Some((self.header(seq, sent.time, i + 1 == sent.count), payload))
    }
}

fn put(packet: &mut Vec<u8>, header: &Header, payload: &[u8]) {
    packet.clear();
    packet.reserve(HEADER_BYTES + payload.len());
    packet.extend(header.to_bytes());
    packet.extend(payload);
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
            arrived: Instant::now(),
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
        e.frame(&frame(0, 3), (1 << 32) + 5, |p| {
            seen.push(Header::parse(p).unwrap().0);
        });
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|h| h.ssrc == ssrc && h.time == 5));
        assert_eq!(seen[2].seq, seen[0].seq.wrapping_add(2));
        let markers: Vec<_> = seen.iter().map(|h| h.marker).collect();
        assert_eq!(markers, [false, false, true]);
        e.frame(&frame(9, 3), 5, |_| panic!("medium 9 was not agreed"));
    }

    #[test]
    fn what_is_asked_again_comes_from_the_ring_or_not_at_all() {
        let (mut e, ssrc) = egress();
        let (kept, gone) = (frame(0, 2), frame(0, 2));
        let mut first = Vec::new();
        e.frame(&kept, 1, |p| first.push(p.to_vec()));
        e.frame(&gone, 2, |p| first.push(p.to_vec()));
        drop(gone);
        let seqs: Vec<u16> = first
            .iter()
            .map(|p| Header::parse(p).unwrap().0.seq)
            .collect();
        let mut again = Vec::new();
        let resent = e.resend(ssrc, &seqs, |p| again.push(p.to_vec()));
        assert_eq!(again, first[..2]);
        assert_eq!((resent.packets, resent.gone), (2, 2));
        assert_eq!(e.resend(1, &seqs, |_| ()).gone, 4);
    }

    #[test]
    fn a_reader_cannot_ask_without_end() {
        let (mut e, ssrc) = egress();
        let f = frame(0, 1);
        let mut seq = 0;
        e.frame(&f, 1, |p| seq = Header::parse(p).unwrap().0.seq);
        let resent = e.resend(ssrc, &[seq; 10_000], |_| ());
        assert_eq!(resent.packets, RESEND_START);
        assert_eq!(resent.refused, 10_000 - RESEND_START);
    }

    #[test]
    fn the_history_is_bounded() {
        let (mut e, _) = egress();
        let f = frame(0, 100);
        for _ in 0..1000 {
            e.frame(&f, 1, |_| ());
        }
        assert!(e.tracks[0].sent_packets <= SENT_MAX);
    }
}
