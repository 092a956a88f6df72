//! A publisher's RTP packets to the media of its stream, and what we ask of it: lost packets again, a key frame,
//! reports.
//!
//! Not here: SRTP, sockets, frames (`stream::Ingress`), when a reader needs a key frame (the stream tells).

use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::MediumKind;
use kerbside_codecs::rtp::extension::{self, CaptureTime};
use kerbside_codecs::rtp::rtcp::{self, Reception, Report};
use kerbside_codecs::rtp::{Packet, Window};

use super::bandwidth::Bandwidth;
use super::feedback;
use super::metrics::{PACKETS, dropped};
use super::missing::Missing;
use super::plan::Plan;

/// A gap is waited for while its packets are asked for again.
pub const WINDOW: Window = Window {
    packets_max: 512,
    wait_max: Duration::from_millis(300),
};
/// Nothing is asked for again: only what comes in the wrong order is waited for, so that sound does not stop for each
/// lost packet.
const WINDOW_WITHOUT_NACK: Window = Window {
    packets_max: 64,
    wait_max: Duration::from_millis(60),
};
/// Shortest time between two key frames asked for because frames were lost.
const PLI_EVERY: Duration = Duration::from_secs(1);

/// How long each medium of a plan waits for gaps.
pub fn windows(plan: &Plan) -> impl Iterator<Item = (usize, Window)> {
    plan.media.iter().map(|a| {
        let window = if a.format.nack {
            WINDOW
        } else {
            WINDOW_WITHOUT_NACK
        };
        (usize::from(a.medium), window)
    })
}

/// The receiving side of one session: a lane per medium.
pub struct Lanes {
    lanes: Vec<Lane>,
    /// Our SSRC in reports.
    own: u32,
    last_pli: Option<Instant>,
    /// A key frame is needed and could not be asked for yet.
    key_frame_due: bool,
    /// Packets and key frames asked for since the last call of [`Self::asked`].
    asked: (u64, u64),
    /// What the publisher may send, where it wants to be told.
    bandwidth: Option<Bandwidth>,
}

struct Lane {
    medium: usize,
    payload_type: u8,
    /// Payload type of retransmissions.
    rtx: Option<u8>,
    is_video: bool,
    nack: bool,
    capture_time: Option<u8>,
    reception: Reception,
    source: Option<u32>,
    missing: Missing,
}

impl Lane {
    /// A retransmission (RFC 4588 §4) as the packet it repeats; None when it is of no use. Padding that probes the line
    /// comes this way too.
    fn unwrap(&mut self, mut packet: Packet, now: Instant) -> Option<Packet> {
        let (Some(source), Some(number)) = (self.source, packet.payload.first_chunk::<2>()) else {
            dropped("rtx_of_nothing");
            return None;
        };
        let seq = u16::from_be_bytes(*number);
        // Only what was asked for: an old number would look like a new start of the source.
        if !self.missing.retransmitted(seq, now) {
            dropped("rtx_not_missing");
            return None;
        }
        PACKETS.with_label_values(&["repaired"]).inc();
        packet.payload = packet.payload.slice(2..);
        packet.header.seq = seq;
        packet.header.ssrc = source;
        packet.header.payload_type = self.payload_type;
        Some(packet)
    }
}

impl Lanes {
    pub fn new(plan: &Plan, now: Instant) -> Self {
        let lanes = plan
            .media
            .iter()
            .map(|a| Lane {
                medium: usize::from(a.medium),
                payload_type: a.format.payload_type,
                rtx: a.rtx,
                is_video: a.codec.codec.kind() == MediumKind::Video,
                nack: a.format.nack,
                capture_time: a.abs_capture_time,
                reception: Reception::new(a.codec.clock_rate),
                source: None,
                missing: Missing::default(),
            })
            .collect();
        let wants_bandwidth = plan.media.iter().find(|a| a.format.remb);
        Self {
            lanes,
            own: rand::random::<u32>() | 1,
            last_pli: None,
            key_frame_due: false,
            asked: (0, 0),
            bandwidth: wants_bandwidth.map(|a| Bandwidth::new(a.codec.clock_rate, now)),
        }
    }

    /// Takes an RTP packet and gives its medium; None when it is not of any.
    pub fn rtp(&mut self, now: Instant, bytes: &Bytes) -> Option<(usize, Packet)> {
        let packet = match Packet::parse(bytes) {
            Ok(p) => p,
            Err(error) => {
                tracing::trace!(%error, "RTP");
                dropped("bad_rtp");
                return None;
            }
        };
        let header = packet.header;
        let of =
            |l: &Lane| l.payload_type == header.payload_type || l.rtx == Some(header.payload_type);
        let Some(lane) = self.lanes.iter_mut().find(|l| of(l)) else {
            dropped("payload_type_not_agreed");
            return None;
        };
        if lane.rtx == Some(header.payload_type) {
            if let Some(b) = &mut self.bandwidth {
                b.packet(bytes.len(), None, now);
            }
            return Some((lane.medium, lane.unwrap(packet, now)?));
        }
        if let Some(b) = &mut self.bandwidth {
            b.packet(bytes.len(), lane.is_video.then_some(header.time), now);
        }
        lane.reception.packet(&header, now);
        if lane.source != Some(header.ssrc) {
            lane.source = Some(header.ssrc);
            lane.missing = Missing::default();
        }
        lane.missing.received(header.seq, now);
        Some((lane.medium, packet))
    }

    /// Takes RTCP and gives its sender reports with their media; None when the publisher said goodbye to all.
    pub fn rtcp(&mut self, now: Instant, packet: &[u8]) -> Option<Vec<(usize, Report)>> {
        let mut reports = Vec::new();
        for report in rtcp::parse(packet) {
            let (Report::Sender { ssrc, .. } | Report::Bye { ssrc }) = report;
            let Some(lane) = self.lanes.iter_mut().find(|l| l.source == Some(ssrc)) else {
                continue;
            };
            lane.reception.report(report, now);
            match report {
                Report::Sender { .. } => reports.push((lane.medium, report)),
                Report::Bye { .. } => {
                    lane.source = None;
                    lane.missing = Missing::default();
                    if self.lanes.iter().all(|l| l.source.is_none()) {
                        return None;
                    }
                }
            }
        }
        Some(reports)
    }

    /// A key frame is wanted by a reader: the PLI to send now; later, when the source is not known yet.
    pub fn key_frame_request(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.key_frame_due = true;
        let source = self.lanes.iter().find(|l| l.is_video)?.source?;
        self.key_frame_due = false;
        self.asked.1 += 1;
        self.last_pli = Some(now);
        Some(feedback::pli(self.own, source))
    }

    /// What to ask for because packets are missing, or because video was `damaged` by losses.
    pub fn repairs(&mut self, now: Instant, damaged: bool) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for lane in &mut self.lanes {
            let due = lane.missing.due(now);
            if let Some(source) = lane.source
                && lane.nack
                && !due.is_empty()
            {
                self.asked.0 += due.len() as u64;
                out.push(feedback::nack(self.own, source, &due));
            }
        }
        let rested = self
            .last_pli
            .is_none_or(|t| now.saturating_duration_since(t) >= PLI_EVERY);
        self.key_frame_due |= damaged;
        if self.key_frame_due && rested {
            out.extend(self.key_frame_request(now));
        }
        out
    }

    /// What a packet of `medium` says of its frame's capture, if that was agreed.
    pub fn capture_time(&self, medium: usize, bytes: &[u8]) -> Option<CaptureTime> {
        let lane = self.lanes.iter().find(|l| l.medium == medium)?;
        CaptureTime::parse(extension::find(bytes, lane.capture_time?)?)
    }

    /// Packets and key frames asked for since the last call.
    pub fn asked(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.asked)
    }

    /// When [`Self::repairs`] has something to do, if nothing comes in.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lanes
            .iter()
            .filter_map(|l| l.missing.poll_timeout())
            .min()
    }

    /// A receiver report for each source, and how much may be sent.
    pub fn reports(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let own = self.own;
        let mut out: Vec<_> = self
            .lanes
            .iter_mut()
            .filter_map(|l| l.reception.receiver_report(own, now))
            .collect();
        let sources: Vec<u32> = self.lanes.iter().filter_map(|l| l.source).collect();
        if let Some(b) = &mut self.bandwidth
            && !sources.is_empty()
        {
            let (lost, received) = self
                .lanes
                .iter()
                .map(|l| l.missing.counts())
                .fold((0, 0), |a, c| (a.0 + c.0, a.1 + c.1));
            out.push(feedback::remb(own, &sources, b.report(lost, received, now)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::feedback::Feedback;
    use super::super::{offer, plan};
    use super::*;
    use kerbside_codecs::rtp::Header;

    fn lanes() -> Lanes {
        let text = offer::tests::CHROMIUM.replace("recvonly", "sendonly");
        let agreed = plan::publish(&offer::parse(&text).unwrap()).unwrap();
        Lanes::new(&agreed, Instant::now())
    }

    fn packet(payload_type: u8, seq: u16) -> Bytes {
        let header = Header {
            marker: true,
            payload_type,
            seq,
            time: u32::from(seq) * 960,
            ssrc: 7,
        };
        let mut p = header.to_bytes().to_vec();
        p.extend(b"media");
        p.into()
    }

    #[test]
    fn packets_go_by_payload_type_and_strangers_nowhere() {
        let mut l = lanes();
        let now = Instant::now();
        assert_eq!(
            l.rtp(now, &packet(111, 1)).unwrap().0,
            1,
            "video is medium 0"
        );
        assert!(l.rtp(now, &packet(99, 1)).is_none());
        assert!(l.rtp(now, &Bytes::from_static(b"short")).is_none());
        assert_eq!(l.reports(now).len(), 2, "reception and bandwidth");
        assert!(l.key_frame_request(now).is_none(), "no video source yet");
        l.rtp(now, &packet(102, 1));
        assert_eq!(l.repairs(now, false).len(), 1, "now there is one");
    }

    #[test]
    fn capture_times_are_read_where_they_were_agreed() {
        let line = format!("a=mid:1\r\na=extmap:3 {}\r\n", extension::CAPTURE_TIME_URI);
        let text = offer::tests::CHROMIUM
            .replace("recvonly", "sendonly")
            .replace("a=mid:1\r\n", &line);
        let agreed = plan::publish(&offer::parse(&text).unwrap()).unwrap();
        let l = Lanes::new(&agreed, Instant::now());
        let captured = kerbside_codecs::media::Captured {
            utc_us: 1_795_219_200_000_000,
            uncertainty_us: 0,
        };
        let mut p = packet(102, 1).to_vec();
        p[0] |= extension::EXTENSION_BIT;
        p.splice(12..12, extension::write_capture_time(3, captured));
        let told = l.capture_time(0, &p).unwrap();
        assert_eq!(rtcp::utc_us_of(told.by_sender()), captured.utc_us);
        assert_eq!(l.capture_time(1, &p), None, "not agreed for audio");
        assert_eq!(l.capture_time(0, &packet(102, 1)), None);
    }

    #[test]
    fn lost_video_is_asked_for_and_then_given_up() {
        let mut l = lanes();
        let t = Instant::now();
        l.rtp(t, &packet(102, 10));
        l.rtp(t, &packet(102, 13));
        assert!(l.repairs(t, false).is_empty(), "they may only be late");
        let due = l.poll_timeout().unwrap();
        let asked = l.repairs(due, false);
        let nack = Feedback::Nack {
            ssrc: 7,
            seqs: vec![11, 12],
        };
        assert_eq!(feedback::parse(&asked[0]), [nack]);
        l.rtp(due, &packet(102, 11));
        let (mut nacks, mut last) = (0, due);
        while let Some(at) = l.poll_timeout() {
            nacks += l.repairs(at, false).len();
            last = at;
        }
        assert!((2..8).contains(&nacks), "{nacks}");
        assert!(last < t + WINDOW.wait_max * 2);
        assert_eq!(l.asked().0, 2 + nacks as u64, "packets");
        assert_eq!(l.asked(), (0, 0), "since the last call");
    }

    #[test]
    fn retransmissions_come_back_in_their_place() {
        let mut l = lanes();
        let t = Instant::now();
        let rtx = |osn: u16, ssrc: u32| {
            let mut p = packet(103, 900).to_vec();
            p[8..12].copy_from_slice(&ssrc.to_be_bytes());
            p.splice(12..12, osn.to_be_bytes());
            Bytes::from(p)
        };
        assert!(l.rtp(t, &rtx(1, 70)).is_none(), "of no source yet");
        l.rtp(t, &packet(102, 10));
        l.rtp(t, &packet(102, 12));
        let due = l.poll_timeout().unwrap();
        assert_eq!(l.repairs(due, false).len(), 1);
        let (medium, p) = l.rtp(due, &rtx(11, 70)).unwrap();
        assert_eq!((medium, p.header.seq, p.header.ssrc), (0, 11, 7));
        assert_eq!(
            (p.header.payload_type, &p.payload[..]),
            (102, &b"media"[..])
        );
        for padding in [
            rtx(11, 70),
            rtx(9, 70),
            rtx(40_000, 70),
            packet(103, 1).slice(..12),
        ] {
            assert!(l.rtp(due, &padding).is_none());
        }
        assert!(l.poll_timeout().is_none(), "nothing is missing");
    }

    #[test]
    fn a_publisher_that_wants_it_is_told_how_much_to_send() {
        let mut l = lanes();
        let t = Instant::now();
        assert!(l.reports(t).is_empty());
        l.rtp(t, &packet(102, 1));
        let told = l.reports(t);
        let remb = told.last().unwrap();
        assert_eq!((remb[1], &remb[12..16]), (206, &b"REMB"[..]));
    }

    #[test]
    fn a_damaged_picture_asks_for_one_key_frame_at_a_time() {
        let mut l = lanes();
        let t = Instant::now();
        l.rtp(t, &packet(102, 10));
        let asked = l.repairs(t, true);
        assert_eq!(feedback::parse(&asked[0]), [Feedback::KeyFrame { ssrc: 7 }]);
        assert!(l.repairs(t, true).is_empty());
        assert_eq!(l.repairs(t + PLI_EVERY, false).len(), 1);
        assert!(l.repairs(t + PLI_EVERY * 2, false).is_empty());
        assert_eq!(l.asked(), (0, 2));
    }

    #[test]
    fn reports_and_goodbyes_are_of_known_sources() {
        let mut l = lanes();
        let now = Instant::now();
        l.rtp(now, &packet(111, 1));
        let report = rtcp::sender_report(7, 1, 2, 3, 4);
        let heard = l.rtcp(now, &report).unwrap();
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].0, 1);
        assert!(
            l.rtcp(now, &rtcp::sender_report(8, 1, 2, 3, 4))
                .unwrap()
                .is_empty()
        );
        assert!(l.rtcp(now, &[0x81, 203, 0, 1, 0, 0, 0, 8]).is_some());
        assert!(l.rtcp(now, &[0x81, 203, 0, 1, 0, 0, 0, 7]).is_none());
    }
}
