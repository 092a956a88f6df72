//! What a publisher delivers, measured over the last seconds: rates, groups of pictures, losses, its clock.
//!
//! Here: counting per packet and per frame (additions only), and the figures once a second. Not here: whether they are
//! healthy (`health`), metrics (`series`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kerbside_codecs::media::{Codec, Medium, MediumKind};
use kerbside_codecs::rtp::h264::Sps;
use kerbside_codecs::rtp::rtcp::Jitter;
use kerbside_codecs::rtp::{Assembled, Packet, Stats};
use serde::Serialize;

/// Seconds that rates are measured over.
const WINDOW: usize = 5;
/// Longer pauses between frames are no interval of a camera.
const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// What operators see of a publisher. Since its begin, where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PublisherStats {
    pub media: Vec<MediumStats>,
    /// Packets that this gateway asked for again (NACK).
    pub nacks: u64,
    /// Key frames that it asked for (PLI).
    pub key_frame_requests: u64,
    pub clock: ClockStats,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MediumStats {
    pub kind: MediumKind,
    /// RTP payload, over the last 5 s.
    pub bitrate_bps: u64,
    /// Frames a second, over the last 5 s.
    pub frame_rate: f64,
    /// RFC 3550 A.8.
    pub jitter_ms: f64,
    pub packets: u64,
    /// Never came, or too late.
    pub lost: u64,
    pub late: u64,
    pub duplicates: u64,
    /// Lost of all that were sent, over the last 5 s.
    pub loss_pct: f64,
    /// Frames and seconds from one key frame to the next, the last time; null without two key frames, and for audio.
    pub gop_frames: Option<u32>,
    pub gop_s: Option<f64>,
    /// Pixels, if the parameter sets tell.
    pub width: Option<u32>,
    pub height: Option<u32>,
}

/// The clock model of the picture (of the first medium when there is none).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClockStats {
    /// `arrival`, `sender_reports`, `capture_time`; empty before the first frame.
    pub source: &'static str,
    pub uncertainty_ms: f64,
    /// Positive: the device's clock is fast. Null before it was watched for half a minute.
    pub drift_ppm: Option<f64>,
    /// Jumps of media time or of the device's UTC.
    pub jumps: u64,
}

/// What was counted in one second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    /// How long it really was, in seconds.
    took: f64,
    bytes: u64,
    packets: u64,
    lost: u64,
    frames: u32,
    /// Frames that are no key frames: their size tells whether the picture moves.
    pub deltas: u32,
    pub delta_bytes: u64,
}

/// Measures one medium.
#[derive(Debug)]
pub(super) struct Meter {
    kind: MediumKind,
    clock_rate: f64,
    jitter: Jitter,
    now: Second,
    since: Instant,
    seconds: VecDeque<Second>,
    counted: (u64, u64),
    /// Frames of the running group, and media time of its key frame.
    group: Option<(u32, u64)>,
    gop: Option<(u32, f64)>,
    heard: Instant,
    interval: Option<Duration>,
}

impl Meter {
    pub fn new(medium: &Medium, now: Instant) -> Self {
        Self {
            kind: medium.codec.kind(),
            clock_rate: f64::from(medium.clock_rate.max(1)),
            jitter: Jitter::new(medium.clock_rate),
            now: Second::default(),
            since: now,
            seconds: VecDeque::with_capacity(WINDOW),
            counted: (0, 0),
            group: None,
            gop: None,
            heard: now,
            interval: None,
        }
    }

    pub fn packet(&mut self, packet: &Packet, arrived: Instant) {
        self.now.bytes += packet.payload.len() as u64;
        self.jitter.packet(packet.header.time, arrived);
    }

    pub fn frame(&mut self, f: &Assembled) {
        self.now.frames += 1;
        let passed = f.arrived.saturating_duration_since(self.heard);
        if self.now.frames > 1 || !self.seconds.is_empty() {
            let passed = passed.min(INTERVAL_MAX);
            self.interval = Some(self.interval.map_or(passed, |i| (i * 7 + passed) / 8));
        }
        self.heard = f.arrived;
        if self.kind != MediumKind::Video {
            return;
        }
        if f.key {
            if let Some((frames, time)) = self.group.replace((1, f.time)) {
                #[allow(clippy::cast_precision_loss, reason = "seconds of one group")]
                let ticks = f.time.saturating_sub(time) as f64;
                self.gop = Some((frames, ticks / self.clock_rate));
            }
            return;
        }
        self.now.deltas += 1;
        self.now.delta_bytes += f.payloads.bytes() as u64;
        if let Some((frames, _)) = &mut self.group {
            *frames = frames.saturating_add(1);
        }
    }

    /// Ends a second, and gives it.
    pub fn tick(&mut self, now: Instant, stats: &Stats) -> Second {
        let mut second = std::mem::take(&mut self.now);
        second.took = now.saturating_duration_since(self.since).as_secs_f64();
        second.packets = stats.packets - self.counted.0;
        second.lost = stats.lost - self.counted.1;
        self.counted = (stats.packets, stats.lost);
        self.since = now;
        if self.seconds.len() == WINDOW {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
        second
    }

    /// Since when no frame came.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Usual time between two frames.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// (lost, sent) of the window.
    pub fn losses(&self) -> (u64, u64) {
        let lost = self.seconds.iter().map(|s| s.lost).sum();
        let came: u64 = self.seconds.iter().map(|s| s.packets).sum();
        (lost, came + lost)
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of seconds")]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn stats(&self, medium: &Medium, stats: &Stats) -> MediumStats {
        let took: f64 = self.seconds.iter().map(|s| s.took).sum::<f64>().max(1e-3);
        let bytes: u64 = self.seconds.iter().map(|s| s.bytes).sum();
        let frames: u32 = self.seconds.iter().map(|s| s.frames).sum();
        let (lost, sent) = self.losses();
        let size = resolution(&medium.codec);
        MediumStats {
            kind: self.kind,
            bitrate_bps: (bytes as f64 * 8.0 / took) as u64,
            frame_rate: tenths(f64::from(frames) / took),
            jitter_ms: tenths(self.jitter.ms()),
            packets: stats.packets,
            lost: stats.lost,
            late: stats.late,
            duplicates: stats.duplicates,
            loss_pct: tenths(lost as f64 * 100.0 / sent.max(1) as f64),
            gop_frames: self.gop.map(|g| g.0),
            gop_s: self.gop.map(|g| (g.1 * 1000.0).round() / 1000.0),
            width: size.map(|s| s.0),
            height: size.map(|s| s.1),
        }
    }
}

/// Rounded for people.
pub(super) fn tenths(v: f64) -> f64 {
    (v * 10.0).round() / 10.0
}

/// Width and height in pixels.
fn resolution(codec: &Codec) -> Option<(u32, u32)> {
    match codec {
        Codec::H264 { sps, .. } => Sps::parse(sps).map(|s| (s.width, s.height)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kerbside_codecs::media::Payloads;
    use kerbside_codecs::rtp::Header;

    #[test]
    fn a_camera_of_25_frames_and_two_seconds_a_group() {
        let t = Instant::now();
        // 1280×720, from x264.
        let sps = b"\x67\x64\x00\x1f\xac\xd9\x40\x50\x05\xbb\x01\x10\x00\x00\x03\x00\x10\x00\x00\x03\x03\x20\xf1\x83\x19\x60";
        let medium = Medium {
            codec: Codec::H264 {
                sps: Bytes::from_static(sps),
                pps: Bytes::new(),
            },
            clock_rate: 90_000,
        };
        let mut meter = Meter::new(&medium, t);
        let mut stats = Stats::default();
        for i in 0..250_u32 {
            let arrived = t + Duration::from_millis(40) * i;
            let payload = Bytes::from(vec![0; 1000]);
            for seq in 0..2 {
                let header = Header {
                    marker: seq == 1,
                    payload_type: 96,
                    seq,
                    time: i * 3600,
                    ssrc: 1,
                };
                let payload = payload.clone();
                meter.packet(&Packet { header, payload }, arrived);
            }
            stats.packets += 2;
            meter.frame(&Assembled {
                key: i % 50 == 0,
                time: u64::from(i) * 3600,
                arrived,
                payloads: Payloads::single(Bytes::from(vec![0; 2000])),
            });
            if i % 25 == 24 {
                if i > 200 {
                    stats.lost += 10;
                }
                meter.tick(arrived + Duration::from_millis(40), &stats);
            }
        }
        let s = meter.stats(&medium, &stats);
        assert_eq!(s.bitrate_bps, 400_000);
        assert_eq!(s.frame_rate, 25.0);
        assert_eq!((s.gop_frames, s.gop_s), (Some(50), Some(2.0)));
        assert_eq!((s.width, s.height), (Some(1280), Some(720)));
        assert_eq!(meter.losses(), (20, 270));
        assert_eq!(s.loss_pct, 7.4);
        assert_eq!(meter.interval(), Some(Duration::from_millis(40)));
    }
}
