//! A publisher's RTP packets to the media of its stream, and what we ask of it: lost packets again, a key frame,
//! reports.
//!
//! Not here: SRTP, sockets, frames (`stream::Ingress`), when a reader needs a key frame (the stream tells).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::MediumKind;
use kerbside_codecs::rtp::extension::{self, CaptureTime};
use kerbside_codecs::rtp::rtcp::{self, Reception, Report};
use kerbside_codecs::rtp::{ExtendSeq, Packet, Window};

use super::feedback;
use super::metrics::dropped;
use super::plan::Plan;

/// A gap is waited for while its packets are asked for again.
pub const WINDOW: Window = Window {
    packets_max: 512,
    wait_max: Duration::from_millis(300),
};
/// A missing packet may only be late: it is asked for after this.
const NACK_AFTER: Duration = Duration::from_millis(10);
const NACK_AGAIN: Duration = Duration::from_millis(80);
const NACK_TIMES: u8 = 4;
const MISSING_MAX: usize = 512;
/// A gap larger than this is no loss but a new start of the sender.
const GAP_MAX: u64 = 1000;
/// Shortest time between two key frames asked for because frames were lost.
const PLI_EVERY: Duration = Duration::from_secs(1);

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
}

struct Lane {
    medium: usize,
    payload_type: u8,
    is_video: bool,
    nack: bool,
    capture_time: Option<u8>,
    reception: Reception,
    source: Option<u32>,
    missing: Missing,
}

impl Lanes {
    pub fn new(plan: &Plan) -> Self {
        let lanes = plan
            .media
            .iter()
            .map(|a| Lane {
                medium: usize::from(a.medium),
                payload_type: a.format.payload_type,
                is_video: a.codec.codec.kind() == MediumKind::Video,
                nack: a.format.nack,
                capture_time: a.abs_capture_time,
                reception: Reception::new(a.codec.clock_rate),
                source: None,
                missing: Missing::default(),
            })
            .collect();
        Self {
            lanes,
            own: rand::random::<u32>() | 1,
            last_pli: None,
            key_frame_due: false,
            asked: (0, 0),
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
        let Some(lane) = self
            .lanes
            .iter_mut()
            .find(|l| l.payload_type == header.payload_type)
        else {
            dropped("payload_type_not_agreed");
            return None;
        };
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
        self.lanes.iter().filter_map(|l| l.missing.next()).min()
    }

    /// A receiver report for each source.
    pub fn reports(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let own = self.own;
        self.lanes
            .iter_mut()
            .filter_map(|l| l.reception.receiver_report(own, now))
            .collect()
    }
}

/// Sequence numbers that did not come yet.
#[derive(Default)]
struct Missing {
    extend: ExtendSeq,
    next: Option<u64>,
    /// When it is due to be asked for, and how often it was.
    asked: BTreeMap<u64, (Instant, u8)>,
}

impl Missing {
    fn received(&mut self, seq: u16, now: Instant) {
        let seq = self.extend.extend(seq);
        let next = self.next.unwrap_or(seq);
        if seq < next {
            self.asked.remove(&seq);
            return;
        }
        if seq - next > GAP_MAX {
            self.asked.clear();
        } else {
            for gap in next..seq {
                self.asked.insert(gap, (now + NACK_AFTER, 0));
            }
            while self.asked.len() > MISSING_MAX {
                self.asked.pop_first();
            }
        }
        self.next = Some(seq + 1);
    }

    fn due(&mut self, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        self.asked.retain(|seq, (at, times)| {
            if *at > now {
                return true;
            }
            if *times >= NACK_TIMES {
                return false;
            }
            *times += 1;
            *at = now + NACK_AGAIN;
            #[allow(clippy::cast_possible_truncation, reason = "the low part is meant")]
            out.push(*seq as u16);
            true
        });
        out
    }

    fn next(&self) -> Option<Instant> {
        self.asked.values().map(|(at, _)| *at).min()
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
        Lanes::new(&agreed)
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
        assert_eq!(l.reports(now).len(), 1);
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
        let l = Lanes::new(&agreed);
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
        let mut nacks = 0;
        while let Some(at) = l.poll_timeout() {
            nacks += l.repairs(at, false).len();
        }
        assert_eq!(nacks, usize::from(NACK_TIMES) - 1);
        assert_eq!(l.asked(), (2 + u64::from(NACK_TIMES) - 1, 0), "packets");
        assert_eq!(l.asked(), (0, 0), "since the last call");
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
