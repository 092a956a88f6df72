//! What one reader measures on the RTP packets it gets: loss, frames, latency, the first whole key frame.
//!
//! Here: packets to figures, with the time passed in. Not here: sockets, encryption, who reads.

use crate::camera;

/// The clear part of an RTP or SRTP packet (RFC 3550 §5.1), as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub time: u32,
    /// Where the payload begins.
    pub payload: usize,
}

impl Header {
    /// None when it is no RTP.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; 12] = packet.first_chunk()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let mut payload = 12 + 4 * usize::from(fixed[0] & 15);
        if fixed[0] & 0x10 != 0 {
            let words = packet.get(payload + 2..payload + 4)?;
            payload += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        (payload <= packet.len()).then_some(Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            time: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            payload,
        })
    }
}

/// What was counted since the window began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub packets: u64,
    pub frames: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// From the camera's stamp to the frame's last packet; of sampled readers only.
    pub latency_ms: Vec<f32>,
}

#[derive(Debug, Default)]
pub struct Meter {
    /// Other payload types (audio, retransmissions) are not counted. None: all are video.
    payload_type: Option<u8>,
    /// Are payloads shown to it after the join, too?
    sampled: bool,
    next: Option<u16>,
    frame: Option<u32>,
    /// The key frame under way: its RTP time, and nothing of it was lost.
    key: Option<(u32, bool)>,
    stamp: Option<(u32, u64)>,
    joined_ns: Option<u64>,
    tally: Tally,
}

impl Meter {
    pub fn new(payload_type: Option<u8>, sampled: bool) -> Self {
        Self {
            payload_type,
            sampled,
            ..Self::default()
        }
    }

    /// Has to see the payload of the packets, not just headers.
    pub fn is_curious(&self) -> bool {
        self.sampled || self.joined_ns.is_none()
    }

    /// When the first whole key frame was there.
    pub fn joined_ns(&self) -> Option<u64> {
        self.joined_ns
    }

    /// The figures so far; a new window begins.
    pub fn take(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Counts a packet, clear or encrypted. None: not a video packet.
    pub fn packet(&mut self, packet: &[u8]) -> Option<Header> {
        let h = Header::parse(packet)?;
        if self.payload_type.is_some_and(|pt| pt != h.payload_type) {
            return None;
        }
        self.tally.packets += 1;
        let ahead = h.seq.wrapping_sub(self.next.unwrap_or(h.seq));
        if ahead < 0x8000 {
            self.next = Some(h.seq.wrapping_add(1));
            self.tally.lost += u64::from(ahead);
            if ahead > 0
                && let Some((_, whole)) = &mut self.key
            {
                *whole = false;
            }
        } else {
            self.tally.lost = self.tally.lost.saturating_sub(1);
        }
        if h.marker && self.frame.replace(h.time) != Some(h.time) {
            self.tally.frames += 1;
        }
        Some(h)
    }

    /// Looks into the payload (RFC 6184) of a packet that [`Self::packet`] counted.
    pub fn payload(&mut self, h: Header, payload: &[u8], now_ns: u64) {
        if begins_key_frame(payload) && self.key.is_none_or(|(time, _)| time != h.time) {
            self.key = Some((h.time, true));
        }
        if self.sampled
            && let Some(sent) = camera::stamp_of(payload)
        {
            self.stamp = Some((h.time, sent));
        }
        if !h.marker {
            return;
        }
        if self.key == Some((h.time, true)) {
            self.joined_ns.get_or_insert(now_ns);
        }
        if let Some((time, sent)) = self.stamp.take()
            && time == h.time
        {
            let age = now_ns.saturating_sub(sent) as f64 / 1e6;
            self.tally.latency_ms.push(age as f32);
        }
    }
}

/// Does an IDR slice begin in this payload, alone, aggregated or fragmented?
fn begins_key_frame(payload: &[u8]) -> bool {
    const IDR: u8 = 5;
    const STAP_A: u8 = 24;
    const FU_A: u8 = 28;
    match payload {
        [nal, ..] if nal & 31 == IDR => true,
        [nal, fu, ..] if nal & 31 == FU_A => fu & 0x80 != 0 && fu & 31 == IDR,
        [nal, rest @ ..] if nal & 31 == STAP_A => {
            let mut rest = rest;
            while let [l0, l1, tail @ ..] = rest {
                if tail.first().is_some_and(|nal| nal & 31 == IDR) {
                    return true;
                }
                let length = usize::from(u16::from_be_bytes([*l0, *l1]));
                rest = tail.get(length..).unwrap_or_default();
            }
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(seq: u16, time: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0x80, 96 | if marker { 0x80 } else { 0 }];
        p.extend(seq.to_be_bytes());
        p.extend(time.to_be_bytes());
        p.extend([0, 0, 0, 7]);
        p.extend(payload);
        p
    }

    fn shown(meter: &mut Meter, packet: &[u8], now_ns: u64) {
        let h = meter.packet(packet).unwrap();
        meter.payload(h, &packet[h.payload..], now_ns);
    }

    #[test]
    fn a_hole_is_lost_and_a_late_packet_is_not() {
        let mut m = Meter::new(Some(96), false);
        for seq in [65_534, 65_535, 2, 0, 3] {
            m.packet(&rtp(seq, 0, false, b"x")).unwrap();
        }
        let t = m.take();
        assert_eq!((t.packets, t.lost), (5, 1));
        assert!(m.packet(&rtp(9, 0, false, b"x")).is_some());
        assert_eq!(m.take().lost, 5, "the next window counts on");
    }

    #[test]
    fn other_payload_types_and_junk_do_not_count() {
        let mut m = Meter::new(Some(97), false);
        assert!(m.packet(&rtp(0, 0, true, b"x")).is_none());
        assert!(m.packet(&[0x80, 97]).is_none());
        assert!(
            m.packet(&[0x90, 97, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                .is_none()
        );
        assert_eq!(m.take(), Tally::default());
    }

    #[test]
    fn the_first_whole_key_frame_is_the_join() {
        let mut m = Meter::new(None, false);
        shown(&mut m, &rtp(0, 1, true, &[0x41, 0]), 10);
        // Its middle is lost.
        shown(&mut m, &rtp(1, 2, false, &[28, 0x85]), 20);
        shown(&mut m, &rtp(3, 2, true, &[28, 0x45]), 30);
        assert!(m.is_curious());
        shown(
            &mut m,
            &rtp(4, 3, false, &[24, 0, 1, 0x67, 0, 2, 0x65, 0]),
            40,
        );
        shown(&mut m, &rtp(5, 3, true, &[0x65, 0]), 50);
        assert_eq!(m.joined_ns(), Some(50));
        assert!(!m.is_curious());
        assert_eq!(m.take().frames, 3);
    }

    #[test]
    fn latency_runs_from_the_stamp_to_the_last_packet() {
        let mut m = Meter::new(None, true);
        shown(
            &mut m,
            &rtp(0, 1, false, &camera::sei(1_000_000)),
            2_000_000,
        );
        shown(&mut m, &rtp(1, 1, true, &[0x41, 0]), 4_500_000);
        shown(&mut m, &rtp(2, 2, true, &[0x41, 0]), 5_000_000);
        assert_eq!(m.take().latency_ms, [3.5]);
    }
}
