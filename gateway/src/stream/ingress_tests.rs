//! From packets to frames with capture times, figures and health.

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
