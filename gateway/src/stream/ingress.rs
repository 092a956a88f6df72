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
#[path = "ingress_tests.rs"]
mod tests;
