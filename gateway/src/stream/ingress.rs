//! From the RTP packets of one publisher to its stream, the same for every protocol that brings RTP.
//!
//! Here: assembling, the capture time of each frame, alignment of the media by sender reports, parameter sets that
//! change, counters. Not here: where the packets come from, the clock model (`codecs::rtp::Clock`).

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use kerbside_codecs::media::{Captured, Medium, MediumKind};
use kerbside_codecs::rtp::extension::CaptureTime;
use kerbside_codecs::rtp::{Assembled, Assembler, Clock, Packet, Source, Stats, Wall, Window};
use prometheus::{Histogram, IntCounterVec};

use super::health::{HealthState, Judge, Signs};
use super::meter::{ClockStats, Meter, PublisherStats, tenths};
use super::publisher::{Publisher, Superseded};
use super::ring::NewFrame;
use super::series::LATENCY;
use crate::{clock, metrics};

static PACKETS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_rtp_packets_total",
        "RTP packets received from publishers",
        &["protocol"],
    )
});
static FAULTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_rtp_faults_total",
        "Faults of received RTP: packet_* are packets, frame_* dropped frames, clock_jump repaired times",
        &["protocol", "fault"],
    )
});

/// Counts a packet that was dropped before it reached an [`Ingress`]; `fault`: one of a fixed few, `packet_…`.
pub fn packet_dropped(protocol: &'static str, fault: &'static str) {
    FAULTS.with_label_values(&[protocol, fault]).inc();
}

/// Microseconds that media may be apart before they are aligned.
const APART_MIN: i64 = 15_000;
/// Farther apart than this the sender reports are wrong.
const APART_MAX: i64 = 5_000_000;
/// How often figures and health are told.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two journal lines about one publisher's health.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// A publisher with an assembler per medium.
#[derive(Debug)]
pub struct Ingress {
    publisher: Publisher,
    protocol: &'static str,
    media: Vec<Input>,
    judge: Judge,
    told: Instant,
    line: Option<Instant>,
    groups_cut: u64,
    nacks: u64,
    key_frame_requests: u64,
    latency: Histogram,
}

#[derive(Debug)]
struct Input {
    assembler: Assembler,
    clock: Clock,
    clock_rate: u32,
    /// Jumps of the assembler's times that the clock knows of.
    jumps: u64,
    meter: Meter,
    newest: Option<(u64, Captured, Source)>,
    counted: Stats,
}

impl Input {
    fn is_video(&self) -> bool {
        self.assembler.medium().codec.kind() == MediumKind::Video
    }

    /// When a frame was captured. Frames are to be told once each, in their order.
    fn captured(&mut self, time: u64, arrived: Instant, wall: Wall) -> Captured {
        if std::mem::replace(&mut self.jumps, self.assembler.clock_jumps()) != self.jumps {
            self.clock.restart();
        }
        self.clock.frame(time, arrived);
        let (captured, source) = self.clock.captured(time, wall);
        self.newest = Some((time, captured, source));
        captured
    }
}

impl Ingress {
    /// `media`: those the publisher began with.
    pub fn new(
        publisher: Publisher,
        protocol: &'static str,
        media: &[Medium],
        window: Window,
        now: Instant,
    ) -> Self {
        let media = media
            .iter()
            .map(|m| Input {
                assembler: Assembler::with_window(m, window).with_origin(now),
                clock: Clock::new(m.clock_rate, now),
                clock_rate: m.clock_rate.max(1),
                jumps: 0,
                meter: Meter::new(m, now),
                newest: None,
                counted: Stats::default(),
            })
            .collect();
        Self {
            groups_cut: publisher.groups_cut(),
            publisher,
            protocol,
            media,
            judge: Judge::new(clock::unix_ms()),
            told: now,
            line: None,
            nacks: 0,
            key_frame_requests: 0,
            latency: LATENCY.with_label_values(&[protocol]),
        }
    }

    /// Waits for gaps of medium `index` differently from now on.
    pub fn set_window(&mut self, index: usize, window: Window) {
        if let Some(input) = self.media.get_mut(index) {
            input.assembler.set_window(window);
        }
    }

    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Takes a packet of medium `index`; one of an unknown medium is ignored.
    ///
    /// # Errors
    /// [`Superseded`]: end the session.
    pub fn packet(
        &mut self,
        index: usize,
        packet: Packet,
        arrived: Instant,
    ) -> Result<(), Superseded> {
        let Some(input) = self.media.get_mut(index) else {
            return Ok(());
        };
        input.meter.packet(&packet, arrived);
        let frames = input.assembler.push(packet, arrived);
        self.publish(index, frames)
    }

    /// Takes a sender report: NTP time and media time of one moment (RFC 3550 §6.4.1).
    pub fn sender_report(&mut self, index: usize, ssrc: u32, ntp: u64, time: u32) {
        let Some(input) = self.media.get_mut(index) else {
            return;
        };
        let Some(at) = located(input, ssrc, time) else {
            return;
        };
        if input.clock.said(Source::SenderReports, at, ntp) {
            let others = self.media.iter_mut().enumerate();
            others
                .filter(|(i, _)| *i != index)
                .for_each(|(_, m)| m.clock.forget_reports());
        }
        self.align(index, at);
    }

    /// Takes what a packet says of the moment its frame was captured; `time` is the packet's media time.
    pub fn capture_time(&mut self, index: usize, ssrc: u32, time: u32, told: CaptureTime) {
        if let Some(input) = self.media.get_mut(index)
            && let Some(at) = located(input, ssrc, time)
        {
            input.clock.said(Source::CaptureTime, at, told.by_sender());
        }
    }

    /// What the publisher was asked for since the last call, for its statistics: packets again, key frames.
    pub fn asked(&mut self, nacks: u64, key_frames: u64) {
        self.nacks += nacks;
        self.key_frame_requests += key_frames;
    }

    /// Moves media so that what is of one moment by the sender's clock has one time. All align with the picture: its
    /// times are never moved. `at`: a time of medium `index` that its sender reports just told.
    fn align(&mut self, index: usize, at: u64) {
        let first = self.picture();
        let rate = u128::from(self.media[index].clock_rate);
        let in_ticks_of = |m: &Input| {
            u64::try_from(u128::from(at) * u128::from(m.clock_rate) / rate).unwrap_or(u64::MAX)
        };
        let reference = &self.media[first];
        let Some(right) = reference.clock.reported(in_ticks_of(reference)) else {
            return;
        };
        for (i, input) in self.media.iter_mut().enumerate() {
            let Some(own) = input.clock.reported(in_ticks_of(input)) else {
                continue;
            };
            let apart = own.saturating_sub(right);
            if i != first && (APART_MIN..APART_MAX).contains(&apart.abs()) {
                let ticks = apart * i64::from(input.clock_rate) / 1_000_000;
                input.assembler.shift(ticks);
                input.clock.shift(ticks);
            }
        }
    }

    /// The medium whose clock and health stand for the whole: the first video, or else the first of all.
    fn picture(&self) -> usize {
        self.media.iter().position(Input::is_video).unwrap_or(0)
    }

    /// Frames whose missing packets were waited for long enough, counters, figures and health. Call about once a
    /// second, also when nothing comes.
    ///
    /// # Errors
    /// [`Superseded`]: end the session.
    pub fn tick(&mut self, now: Instant) -> Result<(), Superseded> {
        for index in 0..self.media.len() {
            let frames = self.media[index].assembler.poll(now);
            self.publish(index, frames)?;
        }
        let b_frames = self.media.iter().any(|m| m.assembler.b_frames());
        self.publisher.set_b_frames(b_frames);
        self.count();
        if self.publisher.is_superseded() {
            return Err(Superseded);
        }
        if now.saturating_duration_since(self.told) >= TOLD_EVERY {
            self.told = now;
            self.tell(now)?;
        }
        Ok(())
    }

    /// The figures of the last seconds and the camera's health, to its stream.
    fn tell(&mut self, now: Instant) -> Result<(), Superseded> {
        self.look_for_cut_groups(now);
        let picture = self.picture();
        let mut stats = PublisherStats {
            nacks: self.nacks,
            key_frame_requests: self.key_frame_requests,
            ..PublisherStats::default()
        };
        let mut signs = None;
        let (mut lost, mut sent) = (0, 0);
        for (i, m) in self.media.iter_mut().enumerate() {
            let second = m.meter.tick(now, &m.counted);
            stats
                .media
                .push(m.meter.stats(m.assembler.medium(), &m.counted));
            let losses = m.meter.losses();
            lost += losses.0;
            sent += losses.1;
            if i == picture {
                let drift = m.clock.drift_ppm().zip(m.clock.drift_uncertainty_ppm());
                stats.clock = clock_stats(m);
                signs = Some(Signs {
                    heard: m.meter.heard(),
                    interval: m.meter.interval(),
                    second,
                    lost: 0,
                    sent: 0,
                    drift,
                    jumps: m.clock.jumps(),
                });
            }
        }
        let Some(mut signs) = signs else {
            return Ok(());
        };
        (signs.lost, signs.sent) = (lost, sent);
        let (health, changed) = self.judge.judge(&signs, now, clock::unix_ms());
        if changed {
            self.say(health.state, now);
        }
        self.publisher.tell(stats, health, changed)
    }

    /// Groups of pictures that are larger than the ring: who joins then waits, and has to be told why.
    fn look_for_cut_groups(&mut self, now: Instant) {
        let cut = self.publisher.groups_cut();
        let more = cut - std::mem::replace(&mut self.groups_cut, cut);
        if more == 0 {
            return;
        }
        FAULTS
            .with_label_values(&[self.protocol, "group_larger_than_ring"])
            .inc_by(more);
        if self.rested(now) {
            tracing::warn!(stream = %self.publisher.id(), "key frames come too seldom: new viewers wait for the next one");
        }
    }

    /// May another line be written? Then it has to be.
    fn rested(&mut self, now: Instant) -> bool {
        let rested = self
            .line
            .is_none_or(|at| now.saturating_duration_since(at) >= LINE_EVERY);
        if rested {
            self.line = Some(now);
        }
        rested
    }

    fn say(&mut self, state: HealthState, now: Instant) {
        if !self.rested(now) {
            return;
        }
        let (stream, protocol) = (self.publisher.id(), self.protocol);
        let state = state.name();
        if state == HealthState::Ok.name() {
            tracing::info!(%stream, protocol, "the camera is healthy again");
        } else {
            tracing::warn!(%stream, protocol, state, "the camera is not healthy");
        }
    }

    /// Was video lost since the last call, so that a key frame should be asked for?
    pub fn key_frame_due(&mut self) -> bool {
        self.media
            .iter_mut()
            .fold(false, |due, m| m.assembler.key_frame_due() | due)
    }

    fn publish(&mut self, index: usize, frames: Vec<Assembled>) -> Result<(), Superseded> {
        if self.media[index].assembler.medium_changed().is_some() {
            self.judge.encoder_changed();
            let media = self
                .media
                .iter()
                .map(|m| m.assembler.medium().clone())
                .collect();
            self.publisher.set_media(media)?;
        }
        if frames.is_empty() {
            return Ok(());
        }
        let wall = Wall {
            mono: Instant::now(),
            utc_us: clock::unix_us(),
        };
        let input = &mut self.media[index];
        for f in frames {
            input.meter.frame(&f);
            let captured = input.captured(f.time, f.arrived, wall);
            if input.is_video() && input.newest.is_some_and(|n| n.2 != Source::Arrival) {
                #[allow(clippy::cast_precision_loss, reason = "seconds")]
                let us = (wall.utc_of(f.arrived) - captured.utc_us).max(0) as f64;
                self.latency.observe(us / 1e6);
            }
            self.publisher.push(NewFrame {
                medium: u8::try_from(index).unwrap_or(u8::MAX),
                key: f.key,
                time: f.time,
                arrived: f.arrived,
                captured,
                payloads: f.payloads,
            })?;
        }
        Ok(())
    }

    fn count(&mut self) {
        for m in &mut self.media {
            let stats = m.assembler.stats();
            let former = std::mem::replace(&mut m.counted, stats);
            let stats = &m.counted;
            PACKETS
                .with_label_values(&[self.protocol])
                .inc_by(stats.packets - former.packets);
            let fault = |name: &str, now: u64, before: u64| {
                if now > before {
                    FAULTS
                        .with_label_values(&[self.protocol, name])
                        .inc_by(now - before);
                }
            };
            fault("packet_lost", stats.lost, former.lost);
            fault("packet_late", stats.late, former.late);
            fault("packet_duplicate", stats.duplicates, former.duplicates);
            fault("packet_foreign", stats.foreign, former.foreign);
            fault("clock_jump", stats.clock_jumps, former.clock_jumps);
            let before: &HashMap<_, _> = &former.dropped;
            for (reason, n) in &stats.dropped {
                fault(
                    &format!("frame_{reason}"),
                    *n,
                    before.get(reason).copied().unwrap_or(0),
                );
            }
        }
    }
}

/// Where a time of the followed source lies among the times given out.
fn located(input: &Input, ssrc: u32, time: u32) -> Option<u64> {
    let known = input.assembler.ssrc() == Some(ssrc);
    input.assembler.locate(time).filter(|_| known)
}

fn clock_stats(m: &Input) -> ClockStats {
    let (uncertainty_us, source) = m
        .newest
        .map_or((0, ""), |(_, c, source)| (c.uncertainty_us, source.name()));
    ClockStats {
        source,
        uncertainty_ms: tenths(f64::from(uncertainty_us) / 1000.0),
        drift_ppm: m.clock.drift_ppm().map(tenths),
        jumps: m.clock.jumps(),
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StreamId;
    use crate::stream::{Item, Streams, StreamsLimits};
    use bytes::Bytes;
    use kerbside_codecs::media::Codec;
    use kerbside_codecs::rtp::Header;
    use std::time::Duration;

    struct Camera {
        streams: Streams,
        ingress: Ingress,
        reader: crate::stream::Reader,
        start: Wall,
        seq: u16,
        /// Added to media time.
        leap: u32,
    }

    impl Camera {
        /// G.711, so that each packet is a frame.
        async fn open() -> Self {
            let streams = Streams::new(StreamsLimits::default());
            let id = StreamId::parse("bc-01/sound").unwrap();
            let medium = Medium {
                codec: Codec::Pcma,
                clock_rate: 8000,
            };
            let start = Wall {
                mono: Instant::now(),
                utc_us: clock::unix_us(),
            };
            let media = [medium];
            let publisher = streams.publish(&id, media.to_vec(), "test").unwrap();
            let reader = streams.read(&id, Duration::ZERO).await.unwrap();
            Self {
                ingress: Ingress::new(publisher, "test", &media, Window::IN_ORDER, start.mono),
                streams,
                reader,
                start,
                seq: 0,
                leap: 0,
            }
        }

        /// A frame captured so many ms after the start, here 80 ms later. Gives the error of its stated capture time
        /// in ms, and its uncertainty.
        fn frame(&mut self, ms: u32, said: Option<Source>) -> (i64, u32) {
            let utc_us = self.start.utc_us + i64::from(ms) * 1000;
            let (ntp, time) = (
                kerbside_codecs::rtp::rtcp::ntp_of(utc_us),
                ms * 8 + self.leap,
            );
            self.seq += 1;
            let header = Header {
                marker: false,
                payload_type: 8,
                seq: self.seq,
                time,
                ssrc: 1,
            };
            let payload = Bytes::from_static(b"sound");
            let arrived = self.start.mono + Duration::from_millis(u64::from(ms) + 80);
            self.ingress
                .packet(0, Packet { header, payload }, arrived)
                .unwrap();
            match said {
                Some(Source::CaptureTime) => {
                    let told = CaptureTime { ntp, offset: None };
                    self.ingress.capture_time(0, 1, time, told);
                }
                Some(_) => self.ingress.sender_report(0, 1, ntp, time),
                None => {}
            }
            let Some(Item::Frame { frame, .. }) = self.reader.poll() else {
                panic!("no frame");
            };
            let c = frame.captured;
            ((c.utc_us - utc_us) / 1000, c.uncertainty_us / 1000)
        }

        fn tick(&mut self, ms: u64) -> (PublisherStats, HealthState) {
            self.ingress
                .tick(self.start.mono + Duration::from_millis(ms))
                .unwrap();
            let status = self.streams.status().remove(0);
            let stats = (*status.publisher.unwrap()).clone();
            (stats, status.health.unwrap().state)
        }
    }

    #[tokio::test]
    async fn frames_carry_when_they_were_captured() {
        let mut c = Camera::open().await;
        let (error, unsure) = c.frame(0, None);
        assert!(
            error.unsigned_abs() <= u64::from(unsure),
            "{error} ± {unsure}"
        );
        assert!(unsure >= 250, "by arrival alone: {unsure}");
        c.frame(20, Some(Source::SenderReports));
        let (error, unsure) = c.frame(40, None);
        assert!(error.abs() <= 2 && unsure <= 60, "{error} ± {unsure}");
        assert_eq!(c.tick(1000).0.clock.source, "sender_reports");
        c.frame(1040, Some(Source::CaptureTime));
        let (error, _) = c.frame(1060, None);
        assert!(error.abs() <= 2, "{error}");
        let clock = c.tick(2000).0.clock;
        assert_eq!((clock.source, clock.jumps), ("capture_time", 0));
        // A clock that leaps: less sure for a while.
        c.leap = 1 << 30;
        let (_, unsure) = c.frame(2060, None);
        assert!(unsure > 400, "{unsure}");
        assert_eq!(c.tick(3000).0.clock.jumps, 1);
    }

    #[tokio::test]
    async fn what_a_publisher_delivers_is_told_until_it_leaves() {
        let mut c = Camera::open().await;
        for i in 0..150 {
            c.frame(i * 20, None);
            if i % 50 == 49 {
                c.tick(u64::from(i + 1) * 20);
            }
        }
        c.ingress.asked(3, 1);
        let (stats, health) = c.tick(4000);
        let m = &stats.media[0];
        assert_eq!((m.frame_rate, m.bitrate_bps, m.packets), (37.5, 1500, 150));
        assert_eq!((stats.nacks, stats.key_frame_requests), (3, 1));
        assert_eq!(health, HealthState::Ok);
        assert_eq!(c.tick(5000).1, HealthState::Ok);
        c.streams.changes().await;
        assert_eq!(c.tick(6000).1, HealthState::NoFrames);
        let changed = c.streams.changes().await;
        assert_eq!(changed[0].health.unwrap().state, HealthState::NoFrames);
        let series = |name: &str| {
            let start = format!("{name}{{");
            metrics::text()
                .lines()
                .find(|l| l.starts_with(&start) && l.contains("\"bc-01/sound\""))
                .map(str::to_owned)
        };
        assert!(series("kerbside_stream_bitrate_bps").is_some());
        assert!(series("kerbside_stream_health").is_some());
        let asked = series("kerbside_stream_asked_total").unwrap();
        assert!(asked.ends_with(" 3"), "{asked}");
        drop(c.ingress);
        let status = c.streams.status().remove(0);
        assert!(status.publisher.is_none() && status.health.is_none());
        assert_eq!(series("kerbside_stream_bitrate_bps"), None);
        assert_eq!(series("kerbside_stream_health"), None);
    }

    /// A video camera of 25 frames a second, a key frame each second; `size` of the others, and how far its clock is
    /// off after so many ms. Gives its health after each second.
    struct Video {
        camera: Camera,
        ms: u32,
        drift_ppm: i64,
    }

    impl Video {
        async fn open() -> Self {
            let mut camera = Camera::open().await;
            let id = StreamId::parse("bc-01/video").unwrap();
            let media = [Medium {
                codec: Codec::H264 {
                    sps: Bytes::from_static(&[0x67, 66, 0, 30, 0x80, 1]),
                    pps: Bytes::from_static(&[0x68, 0x80]),
                },
                clock_rate: 90_000,
            }];
            let streams = Streams::new(StreamsLimits::default());
            let publisher = streams.publish(&id, media.to_vec(), "test").unwrap();
            let start = camera.start.mono;
            camera.ingress = Ingress::new(publisher, "test", &media, Window::IN_ORDER, start);
            camera.streams = streams;
            Self {
                camera,
                ms: 0,
                drift_ppm: 0,
            }
        }

        /// One second; of its 25 packets so many are lost.
        fn second(&mut self, size: usize, lost: usize) -> HealthState {
            let c = &mut self.camera;
            for i in 0..25 {
                let captured_us = i64::from(self.ms) * (1_000_000 + self.drift_ppm) / 1000;
                self.ms += 40;
                c.seq = c.seq.wrapping_add(1);
                if i > 0 && i <= lost {
                    continue;
                }
                let mut nal = vec![0x55; if i == 0 { 1000 } else { size }];
                nal[..2].copy_from_slice(&[if i == 0 { 0x65 } else { 0x61 }, 0x80]);
                let header = Header {
                    marker: true,
                    payload_type: 96,
                    seq: c.seq,
                    time: u32::try_from(captured_us * 9 / 100).unwrap(),
                    ssrc: 1,
                };
                let payload = nal.into();
                let arrived = c.start.mono + Duration::from_millis(self.ms.into());
                c.ingress
                    .packet(0, Packet { header, payload }, arrived)
                    .unwrap();
            }
            c.tick(self.ms.into()).1
        }

        fn seconds(&mut self, n: u32, size: usize) -> HealthState {
            (0..n).map(|_| self.second(size, 0)).last().unwrap()
        }
    }

    #[tokio::test]
    async fn a_frozen_picture_losses_and_a_drifting_clock_are_told() {
        let mut v = Video::open().await;
        assert_eq!(v.seconds(30, 900), HealthState::Ok);
        let stats = v.camera.tick(30_000).0;
        assert_eq!(stats.media[0].gop_frames, Some(25));
        assert_eq!(v.second(900, 2), HealthState::Lossy);
        assert_eq!(v.seconds(5, 900), HealthState::Ok);
        // Key frames go on as they were.
        assert_eq!(v.seconds(10, 20), HealthState::Ok);
        assert_eq!(v.seconds(1, 20), HealthState::Frozen);
        assert_eq!(v.seconds(1, 900), HealthState::Ok);

        let mut v = Video::open().await;
        v.drift_ppm = 300;
        assert_eq!(v.seconds(120, 900), HealthState::ClockDrift);
        let clock = v.camera.tick(u64::from(v.ms) + 1000).0.clock;
        let drift = clock.drift_ppm.unwrap();
        assert!((drift - 300.0).abs() < 20.0, "{drift}");
    }

    #[tokio::test]
    async fn media_are_aligned_by_their_sender_reports() {
        let streams = Streams::new(StreamsLimits::default());
        let id = StreamId::parse("bc-01/main").unwrap();
        let media: Vec<_> = [Codec::Pcma, Codec::Pcmu]
            .map(|codec| Medium {
                codec,
                clock_rate: 8000,
            })
            .into();
        let publisher = streams.publish(&id, media.clone(), "test").unwrap();
        let t = Instant::now();
        let mut ingress = Ingress::new(publisher, "test", &media, Window::IN_ORDER, t);
        let mut reader = streams.read(&id, Duration::ZERO).await.unwrap();
        let mut send = |ingress: &mut Ingress, medium: usize, seq, time| {
            let header = Header {
                marker: false,
                payload_type: 0,
                seq,
                time,
                ssrc: 1,
            };
            let payload = Bytes::from_static(b"sound");
            ingress
                .packet(medium, Packet { header, payload }, t)
                .unwrap();
            match reader.poll() {
                Some(Item::Frame { time, .. }) => time,
                other => panic!("{other:?}"),
            }
        };
        // Both arrive together, but the second medium is of a moment 0.5 s later.
        let first = send(&mut ingress, 0, 1, 1000);
        assert_eq!(send(&mut ingress, 1, 1, 70_000), first);
        ingress.sender_report(0, 1, 100 << 32, 1000);
        ingress.sender_report(1, 1, (100 << 32) + (1 << 31), 70_000);
        assert_eq!(send(&mut ingress, 1, 2, 70_160), first + 4000 + 160);
        assert_eq!(send(&mut ingress, 0, 2, 1160), first + 160);
        // Nonsense is not followed.
        ingress.sender_report(1, 1, 7, 70_160);
        assert_eq!(send(&mut ingress, 1, 3, 70_320), first + 4000 + 320);
        // The sender's clock is set: what it says of one medium is not held against what it said of the other.
        let says = |ingress: &mut Ingress, medium: usize, time: u32| {
            let ntp = (102 << 32) + if medium == 1 { 1 << 31 } else { 0 };
            let (zero, ticks) = ([1000_u32, 70_000][medium], u64::from(time));
            let ntp = ntp + ((ticks << 32) / 8000);
            ingress.sender_report(medium, 1, ntp, zero + time);
        };
        for (medium, time) in [
            (0, 8000),
            (0, 16_000),
            (1, 16_000),
            (1, 24_000),
            (0, 24_000),
        ] {
            says(&mut ingress, medium, time);
        }
        assert_eq!(send(&mut ingress, 1, 4, 70_480), first + 4000 + 480);
    }

    #[tokio::test]
    async fn b_frames_are_stated_and_a_new_publisher_has_none() {
        let streams = Streams::new(StreamsLimits::default());
        let id = StreamId::parse("bc-01/main").unwrap();
        let media = [Medium {
            codec: Codec::H264 {
                sps: Bytes::from_static(&[0x67, 77, 0, 31, 0x80]),
                pps: Bytes::from_static(&[0x68, 0x80]),
            },
            clock_rate: 90_000,
        }];
        let publisher = streams.publish(&id, media.to_vec(), "test").unwrap();
        let t = Instant::now();
        let mut ingress = Ingress::new(publisher, "test", &media, Window::IN_ORDER, t);
        let mut reader = streams.read(&id, Duration::ZERO).await.unwrap();
        // I P B B P B: a player gets all, in the order of decoding.
        let order = [
            (0x65, 0u32),
            (0x41, 3),
            (0x01, 1),
            (0x01, 2),
            (0x41, 5),
            (0x01, 4),
        ];
        let (mut times, mut browser) = (Vec::new(), 0);
        for (seq, (nal, shown)) in (0..).zip(order) {
            let header = Header {
                marker: true,
                payload_type: 96,
                seq,
                time: shown * 3000,
                ssrc: 1,
            };
            let payload = Bytes::copy_from_slice(&[nal, 0x80, 7]);
            ingress.packet(0, Packet { header, payload }, t).unwrap();
            let Some(Item::Frame { frame, time }) = reader.poll() else {
                panic!("a frame for each packet");
            };
            times.push(time);
            browser += usize::from(!frame.payloads.in_order().is_empty());
        }
        assert!(times[2] < times[1] && times[5] < times[4], "{times:?}");
        assert_eq!(browser, 3, "I and two P");
        assert!(!streams.status()[0].b_frames);
        ingress.tick(t).unwrap();
        assert!(streams.status()[0].b_frames);
        let _next = streams.publish(&id, media.to_vec(), "test").unwrap();
        assert!(!streams.status()[0].b_frames);
    }
}
