//! A publisher behind a line that loses, repeats, delays and reorders, both ways: seeded, on a clock of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::rtp::h264::packetize_h264;
use kerbside_codecs::rtp::{Header, PAYLOAD_BYTES_MAX};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::feedback::{self, Feedback};
use super::ingress::{self, Lanes, WINDOW};
use super::{offer, plan};
use crate::ids::StreamId;
use crate::stream::{Ingress, Item, Reader, Streams, StreamsLimits};

const VIDEO: u8 = 102;
const RTX: u8 = 103;
const AUDIO: u8 = 111;
const SECONDS: u32 = 20;

/// One way of the line.
struct Line {
    rng: StdRng,
    /// Of 1000.
    loss: u32,
    /// Arrival and order of sending, so that equal times keep it.
    under_way: BTreeMap<(Instant, u64), Bytes>,
    sent: u64,
}

impl Line {
    fn new(seed: u64, loss: u32) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            loss,
            under_way: BTreeMap::new(),
            sent: 0,
        }
    }

    /// The first packets of a source begin its order, and the last ones show what was lost before: the line is good
    /// for them.
    fn send_well(&mut self, now: Instant, packet: Bytes) {
        self.sent += 1;
        self.under_way.insert((now, self.sent), packet);
    }

    fn send(&mut self, now: Instant, packet: &Bytes) {
        let copies = 1 + u32::from(self.rng.random_range(0..100) == 0);
        for _ in 0..copies {
            if self.rng.random_range(0..1000) < self.loss {
                continue;
            }
            let mut way = 15_000 + self.rng.random_range(0..5000);
            if self.rng.random_range(0..50) == 0 {
                way += 15_000;
            }
            self.sent += 1;
            let at = now + Duration::from_micros(way);
            self.under_way.insert((at, self.sent), packet.clone());
        }
    }

    fn arrived(&mut self, now: Instant) -> Option<(Instant, Bytes)> {
        let entry = self.under_way.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let ((at, _), packet) = entry.remove_entry();
        Some((at, packet))
    }
}

/// The camera: what it sent, for retransmission.
#[derive(Default)]
struct Publisher {
    seqs: HashMap<u8, u16>,
    sent: HashMap<u16, (Header, Bytes)>,
    key_due: bool,
    plis: u32,
    resent: u32,
}

impl Publisher {
    fn next(&mut self, payload_type: u8) -> u16 {
        let seq = self.seqs.entry(payload_type).or_insert(65_000);
        *seq = seq.wrapping_add(1);
        *seq
    }

    fn frame(&mut self, n: u32) -> Vec<Bytes> {
        let mut nals = Vec::new();
        if n == 0 || std::mem::take(&mut self.key_due) {
            nals.push(Bytes::from_static(&[0x67, 66, 0, 30, 0x80, 1]));
            nals.push(Bytes::from_static(&[0x68, 0x80]));
            nals.push([vec![0x65, 0x88], vec![1; 30_000]].concat().into());
        } else {
            nals.push([vec![0x41, 0x9a], vec![2; 9000]].concat().into());
        }
        let payloads = packetize_h264(&nals, PAYLOAD_BYTES_MAX);
        let count = payloads.len();
        let mut out = Vec::new();
        for (i, payload) in payloads.iter().enumerate() {
            let header = Header {
                marker: i + 1 == count,
                payload_type: VIDEO,
                seq: self.next(VIDEO),
                time: n * 3600,
                ssrc: 7,
            };
            self.sent
                .insert(header.seq, (header, Bytes::copy_from_slice(payload)));
            out.push([&header.to_bytes()[..], payload].concat().into());
        }
        let header = Header {
            marker: false,
            payload_type: AUDIO,
            seq: self.next(AUDIO),
            time: n * 1920,
            ssrc: 8,
        };
        out.push([&header.to_bytes()[..], &[9; 80]].concat().into());
        out
    }

    fn hear(&mut self, rtcp: &[u8]) -> Vec<Bytes> {
        let mut out = Vec::new();
        for f in feedback::parse(rtcp) {
            match f {
                Feedback::Report { .. } => {}
                Feedback::KeyFrame { .. } => {
                    self.plis += 1;
                    self.key_due = true;
                }
                Feedback::Nack { ssrc, seqs } => {
                    assert_eq!(ssrc, 7, "only video agreed on it");
                    for seq in seqs {
                        let Some((header, payload)) = self.sent.get(&seq).cloned() else {
                            continue;
                        };
                        self.resent += 1;
                        let header = Header {
                            payload_type: RTX,
                            seq: self.next(RTX),
                            ssrc: 70,
                            ..header
                        };
                        let parts = [&header.to_bytes()[..], &seq.to_be_bytes(), &payload];
                        out.push(parts.concat().into());
                    }
                }
            }
        }
        out
    }
}

#[derive(Debug, Default)]
struct Outcome {
    sent: u32,
    video: u32,
    audio: u32,
    plis: u32,
    resent: u32,
    /// Longest time from the arrival of a sound to the stream.
    sound_late: Duration,
}

/// Twenty seconds of 25 frames over a line that loses `loss` of 1000 packets each way.
async fn run(seed: u64, loss: u32) -> Outcome {
    let text = offer::tests::CHROMIUM.replace("recvonly", "sendonly");
    let plan = plan::publish(&offer::parse(&text).unwrap()).unwrap();
    let streams = Streams::new(StreamsLimits::default());
    let id = StreamId::parse("bc-01/main").unwrap();
    let media: Vec<_> = plan.media.iter().map(|a| a.codec.clone()).collect();
    let begin = Instant::now();
    let publisher = streams.publish(&id, media.clone(), "test").unwrap();
    let mut ingress = Ingress::new(publisher, "test", &media, WINDOW, begin);
    for (medium, window) in ingress::windows(&plan) {
        ingress.set_window(medium, window);
    }
    let mut reader = streams.read(&id, Duration::ZERO).await.unwrap();
    let mut lanes = Lanes::new(&plan, begin);
    let (mut there, mut back) = (Line::new(seed, loss), Line::new(seed + 1, loss));
    let mut camera = Publisher::default();
    let mut outcome = Outcome::default();
    // A second more for what is under way.
    for ms in 0..(SECONDS + 1) * 1000 {
        let now = begin + Duration::from_millis(u64::from(ms));
        if ms % 40 == 0 && ms < SECONDS * 1000 {
            outcome.sent += 1;
            for p in camera.frame(ms / 40) {
                if ms == 0 || ms == SECONDS * 1000 - 40 {
                    there.send_well(now, p);
                } else {
                    there.send(now, &p);
                }
            }
        }
        while let Some((_, rtcp)) = back.arrived(now) {
            for p in camera.hear(&rtcp) {
                there.send(now, &p);
            }
        }
        while let Some((at, packet)) = there.arrived(now) {
            if let Some((medium, packet)) = lanes.rtp(at, &packet) {
                ingress.packet(medium, packet, at).unwrap();
            }
        }
        if lanes.poll_timeout().is_some_and(|t| t <= now) || ms % 1000 == 0 {
            ingress.tick(now).unwrap();
        }
        for ask in lanes.repairs(now, ingress.key_frame_due()) {
            back.send(now, &ask.into());
        }
        if ms % 1000 == 0 {
            for report in lanes.reports(now) {
                back.send(now, &report.into());
            }
        }
        take(&mut reader, &mut outcome, now);
    }
    outcome.plis = camera.plis;
    outcome.resent = camera.resent;
    outcome
}

fn take(reader: &mut Reader, outcome: &mut Outcome, now: Instant) {
    while let Some(item) = reader.poll() {
        let Item::Frame { frame, .. } = item else {
            continue;
        };
        if frame.medium == 0 {
            outcome.video += 1;
            continue;
        }
        outcome.audio += 1;
        outcome.sound_late = outcome
            .sound_late
            .max(now.saturating_duration_since(frame.arrived));
    }
}

#[tokio::test]
async fn at_one_in_twenty_no_picture_is_lost() {
    for seed in 1..6 {
        let o = run(seed, 50).await;
        assert_eq!(o.video, o.sent, "seed {seed}: {o:?}");
        assert!(o.plis <= 1, "seed {seed}: only at the join: {o:?}");
        assert!(o.resent > 50, "seed {seed}: {o:?}");
        assert!(o.audio > o.sent * 9 / 10, "seed {seed}: {o:?}");
    }
}

#[tokio::test]
async fn at_one_in_five_the_session_lives_and_sound_does_not_wait_for_the_picture() {
    for seed in 1..4 {
        let o = run(seed, 200).await;
        assert!(o.video > o.sent / 2, "seed {seed}: {o:?}");
        assert!(o.audio > o.sent * 7 / 10, "seed {seed}: {o:?}");
        assert!(o.plis <= SECONDS + 2, "seed {seed}: {o:?}");
        // Requests are bounded: each lost packet is asked for eight times at most.
        assert!(o.resent < o.sent * 9 / 5 * 8, "seed {seed}: {o:?}");
        assert!(
            o.sound_late <= Duration::from_millis(120),
            "seed {seed}: {o:?}"
        );
    }
}

#[tokio::test]
async fn a_good_line_is_not_asked_for_anything() {
    let o = run(7, 0).await;
    assert_eq!((o.video, o.audio), (o.sent, o.sent), "{o:?}");
    assert!(o.plis <= 1, "{o:?}");
}
