//! From the RTP packets of one publisher to its stream, the same for every protocol that brings RTP.
//!
//! Here: assembling, alignment of the media by sender reports, parameter sets that change, counters.
//! Not here: where the packets come from.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use kerbside_codecs::media::{Captured, Medium, MediumKind};
use kerbside_codecs::rtp::{Assembled, Assembler, Packet, Stats, Window};
use prometheus::IntCounterVec;

use super::registry::{Publisher, Superseded};
use super::ring::NewFrame;
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

/// NTP fractions (2^-32 s) that media may be apart before they are aligned: 15 ms.
const APART_MIN: i128 = (15 << 32) / 1000;
/// Farther apart than this the sender reports are wrong: 5 s.
const APART_MAX: i128 = 5 << 32;

/// A publisher with an assembler per medium.
#[derive(Debug)]
pub struct Ingress {
    publisher: Publisher,
    protocol: &'static str,
    media: Vec<Input>,
}

#[derive(Debug)]
struct Input {
    assembler: Assembler,
    clock_rate: u32,
    /// NTP time of this medium's time zero, in 2^-32 s, by the last sender report.
    zero: Option<i128>,
    counted: Stats,
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
                clock_rate: m.clock_rate.max(1),
                zero: None,
                counted: Stats::default(),
            })
            .collect();
        Self {
            publisher,
            protocol,
            media,
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
        let frames = input.assembler.push(packet, arrived);
        self.publish(index, frames)
    }

    /// Takes a sender report: NTP time and media time of one moment (RFC 3550 §6.4.1).
    pub fn sender_report(&mut self, index: usize, ssrc: u32, ntp: u64, time: u32) {
        let Some(input) = self.media.get_mut(index) else {
            return;
        };
        let Some(at) = input
            .assembler
            .locate(time)
            .filter(|_| input.assembler.ssrc() == Some(ssrc))
        else {
            return;
        };
        let rate = i128::from(input.clock_rate);
        let zero = i128::from(ntp) - (i128::from(at) << 32) / rate;
        input.zero = Some(zero);
        // All align with the picture: its times are never moved.
        let is_video = |m: &Input| m.assembler.medium().codec.kind() == MediumKind::Video;
        let first = self.media.iter().position(is_video).unwrap_or(0);
        let Some(reference) = self.media.get(first).and_then(|m| m.zero) else {
            return;
        };
        for (i, input) in self.media.iter_mut().enumerate() {
            let Some(zero) = input.zero.as_mut().filter(|_| i != first) else {
                continue;
            };
            let apart = *zero - reference;
            if (APART_MIN..APART_MAX).contains(&apart.abs()) {
                let ticks = (apart * i128::from(input.clock_rate)) >> 32;
                input.assembler.shift(i64::try_from(ticks).unwrap_or(0));
                *zero = reference;
            }
        }
    }

    /// Frames whose missing packets were waited for long enough, and counters. Call about once a second.
    ///
    /// # Errors
    /// [`Superseded`]: end the session.
    pub fn tick(&mut self, now: Instant) -> Result<(), Superseded> {
        for index in 0..self.media.len() {
            let frames = self.media[index].assembler.poll(now);
            self.publish(index, frames)?;
        }
        self.count();
        if self.publisher.is_superseded() {
            return Err(Superseded);
        }
        Ok(())
    }

    /// Was video lost since the last call, so that a key frame should be asked for?
    pub fn key_frame_due(&mut self) -> bool {
        self.media
            .iter_mut()
            .fold(false, |due, m| m.assembler.key_frame_due() | due)
    }

    fn publish(&mut self, index: usize, frames: Vec<Assembled>) -> Result<(), Superseded> {
        if self.media[index].assembler.medium_changed().is_some() {
            let media = self
                .media
                .iter()
                .map(|m| m.assembler.medium().clone())
                .collect();
            self.publisher.set_media(media)?;
        }
        for f in frames {
            self.publisher.push(NewFrame {
                medium: u8::try_from(index).unwrap_or(u8::MAX),
                key: f.key,
                time: f.time,
                arrived: f.arrived,
                captured: by_arrival(f.arrived),
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

/// Cameras send what they captured within this, as long as nothing better is known: 0.5 s.
const ARRIVAL_UNCERTAINTY_US: u32 = 500_000;

fn by_arrival(arrived: Instant) -> Captured {
    let ago = i64::try_from(arrived.elapsed().as_micros()).unwrap_or(i64::MAX);
    Captured {
        utc_us: clock::unix_us().saturating_sub(ago),
        uncertainty_us: ARRIVAL_UNCERTAINTY_US,
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
    }
}
