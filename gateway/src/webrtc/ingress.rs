//! A publisher's RTP packets to frames, and what we ask of it: lost packets again, a key frame, reports.
//!
//! Not here: SRTP, sockets, when a reader needs a key frame (the stream tells).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::{Medium, MediumKind};
use kerbside_codecs::rtp::rtcp::{self, Reception};
use kerbside_codecs::rtp::{Assembler, ExtendSeq, Packet, Window};

use super::answer::Plan;
use super::feedback;
use super::metrics::dropped;
use crate::stream::NewFrame;

/// A gap is waited for while its packets are asked for again.
const WINDOW: Window = Window {
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

/// The receiving side of one session.
pub struct Ingress {
    lanes: Vec<Lane>,
    /// Our SSRC in reports.
    own: u32,
    last_pli: Option<Instant>,
}

struct Lane {
    medium: u8,
    payload_type: u8,
    is_video: bool,
    nack: bool,
    assembler: Assembler,
    reception: Reception,
    source: Option<u32>,
    missing: Missing,
}

impl Ingress {
    pub fn new(plan: &Plan) -> Self {
        let lanes = plan
            .media
            .iter()
            .map(|a| Lane {
                medium: a.medium,
                payload_type: a.format.payload_type,
                is_video: a.codec.codec.kind() == MediumKind::Video,
                nack: a.format.nack,
                assembler: Assembler::with_window(&a.codec, WINDOW),
                reception: Reception::new(a.codec.clock_rate),
                source: None,
                missing: Missing::default(),
            })
            .collect();
        Self {
            lanes,
            own: rand::random::<u32>() | 1,
            last_pli: None,
        }
    }

    /// Takes an RTP packet and gives the frames it completed.
    pub fn rtp(&mut self, now: Instant, bytes: &Bytes) -> Vec<NewFrame> {
        let packet = match Packet::parse(bytes) {
            Ok(p) => p,
            Err(error) => {
                tracing::trace!(%error, "RTP");
                dropped("bad_rtp");
                return Vec::new();
            }
        };
        let header = packet.header;
        let Some(lane) = self
            .lanes
            .iter_mut()
            .find(|l| l.payload_type == header.payload_type)
        else {
            dropped("payload_type_not_agreed");
            return Vec::new();
        };
        lane.reception.packet(&header, now);
        if lane.source != Some(header.ssrc) {
            lane.source = Some(header.ssrc);
            lane.missing = Missing::default();
        }
        lane.missing.received(header.seq, now);
        let frames = lane.assembler.push(packet, now);
        frames.into_iter().map(|f| lane.frame(f)).collect()
    }

    /// Takes RTCP; true when the publisher said goodbye to all its media.
    pub fn rtcp(&mut self, now: Instant, packet: &[u8]) -> bool {
        for report in rtcp::parse(packet) {
            for lane in &mut self.lanes {
                lane.reception.report(report, now);
                if let rtcp::Report::Bye { ssrc } = report
                    && lane.source == Some(ssrc)
                {
                    lane.source = None;
                    lane.missing = Missing::default();
                    if self.lanes.iter().all(|l| l.source.is_none()) {
                        return true;
                    }
                    break;
                }
            }
        }
        false
    }

    /// Frames that were held up by a gap which was waited for long enough.
    pub fn poll(&mut self, now: Instant) -> Vec<NewFrame> {
        let mut out = Vec::new();
        for lane in &mut self.lanes {
            let frames = lane.assembler.poll(now);
            out.extend(frames.into_iter().map(|f| lane.frame(f)));
        }
        out
    }

    /// The media, when parameter sets changed since the last call.
    pub fn media_changed(&mut self) -> Option<Vec<Medium>> {
        let mut changed = false;
        for lane in &mut self.lanes {
            changed |= lane.assembler.medium_changed().is_some();
        }
        changed.then(|| {
            self.lanes
                .iter()
                .map(|l| l.assembler.medium().clone())
                .collect()
        })
    }

    /// A key frame is wanted by a reader: the PLI to send, if the source is known.
    pub fn key_frame_request(&mut self, now: Instant) -> Option<Vec<u8>> {
        let source = self.lanes.iter().find(|l| l.is_video)?.source?;
        self.last_pli = Some(now);
        Some(feedback::pli(self.own, source))
    }

    /// What to ask for because packets are missing or frames were lost.
    pub fn repairs(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut damaged = false;
        for lane in &mut self.lanes {
            damaged |= lane.is_video && lane.assembler.key_frame_due();
            let due = lane.missing.due(now);
            if let Some(source) = lane.source
                && lane.nack
                && !due.is_empty()
            {
                out.push(feedback::nack(self.own, source, &due));
            }
        }
        let rested = self
            .last_pli
            .is_none_or(|t| now.saturating_duration_since(t) >= PLI_EVERY);
        if damaged && rested {
            out.extend(self.key_frame_request(now));
        }
        out
    }

    /// When [`Self::repairs`] and [`Self::poll`] have something to do, if nothing comes in.
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

impl Lane {
    fn frame(&self, f: kerbside_codecs::rtp::Assembled) -> NewFrame {
        NewFrame {
            medium: self.medium,
            key: f.key,
            time: f.time,
            arrived: f.arrived,
            payloads: f.payloads,
        }
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
    use super::super::{answer, offer};
    use super::*;
    use kerbside_codecs::rtp::Header;

    fn ingress() -> Ingress {
        let text = offer::tests::CHROMIUM.replace("recvonly", "sendonly");
        let plan = answer::publish(&offer::parse(&text).unwrap()).unwrap();
        Ingress::new(&plan)
    }

    fn packet(payload_type: u8, seq: u16, payload: &[u8]) -> Bytes {
        let header = Header {
            marker: true,
            payload_type,
            seq,
            time: u32::from(seq) * 960,
            ssrc: 7,
        };
        let mut p = header.to_bytes().to_vec();
        p.extend(payload);
        p.into()
    }

    #[test]
    fn audio_passes_and_strangers_do_not() {
        let mut i = ingress();
        let now = Instant::now();
        let frames = i.rtp(now, &packet(111, 1, b"opus"));
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].medium, 1, "video is medium 0");
        assert!(i.rtp(now, &packet(99, 1, b"?")).is_empty());
        assert_eq!(i.reports(now).len(), 1);
        assert!(i.key_frame_request(now).is_none(), "no video source yet");
    }

    #[test]
    fn lost_video_is_asked_for_and_then_given_up() {
        let mut i = ingress();
        let t = Instant::now();
        i.rtp(t, &packet(102, 10, &[0x41, 1]));
        i.rtp(t, &packet(102, 13, &[0x41, 1]));
        assert!(i.repairs(t).is_empty(), "they may only be late");
        let due = i.poll_timeout().unwrap();
        let asked = i.repairs(due);
        assert_eq!(
            feedback::parse(&asked[0]),
            [feedback::Feedback::Nack {
                ssrc: 7,
                seqs: vec![11, 12]
            }]
        );
        i.rtp(due, &packet(102, 11, &[0x41, 1]));
        let mut now = due;
        let mut nacks = 0;
        while let Some(at) = i.poll_timeout() {
            now = at;
            nacks += i.repairs(now).len();
        }
        assert_eq!(nacks, usize::from(NACK_TIMES) - 1);
        i.poll(now + WINDOW.wait_max);
        let repair = i.repairs(now + WINDOW.wait_max);
        assert_eq!(
            feedback::parse(&repair[0]),
            [feedback::Feedback::KeyFrame { ssrc: 7 }]
        );
        assert!(
            i.repairs(now + WINDOW.wait_max).is_empty(),
            "once is enough"
        );
    }

    #[test]
    fn goodbye_ends_when_all_media_said_it() {
        let mut i = ingress();
        let now = Instant::now();
        i.rtp(now, &packet(111, 1, b"opus"));
        assert!(!i.rtcp(now, &[0x81, 203, 0, 1, 0, 0, 0, 8]));
        assert!(i.rtcp(now, &[0x81, 203, 0, 1, 0, 0, 0, 7]));
    }
}
