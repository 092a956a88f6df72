//! Packets of one medium to frames for a stream, whatever protocol brought them.
//!
//! The way: source (SSRC) → order → time → depacketize → parameter sets → payloads of our size.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::format::{Cut, Format};
use super::packet::Packet;
use super::reorder::{Ordered, Reorder, Window};
use super::shown::ShownOrder;
use super::time::Timeline;
use crate::media::{Medium, MediumKind, Payloads};

/// Packets of another SSRC are strangers until the one we follow was silent for this long.
const SSRC_SILENCE: Duration = Duration::from_millis(500);

/// A frame, ready for a stream.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// A decoder can start here; always true for audio.
    pub key: bool,
    /// Ticks of the medium's clock, extended, without jumps.
    pub time: u64,
    /// When the packet that completed it arrived.
    pub arrived: Instant,
    pub payloads: Payloads,
}

/// What happened so far. All grow only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub packets: u64,
    pub lost: u64,
    pub late: u64,
    pub duplicates: u64,
    /// Packets of an SSRC we do not follow.
    pub foreign: u64,
    /// Jumps of the sender's clock that were taken out.
    pub clock_jumps: u64,
    /// Frames dropped, by reason: `lost`, `too_large`, `malformed`, `no_parameter_sets`.
    pub dropped: HashMap<&'static str, u64>,
}

/// Turns packets of one medium into frames.
#[derive(Debug)]
pub struct Assembler {
    medium: Medium,
    format: Format,
    window: Window,
    reorder: Reorder,
    timeline: Timeline,
    shown: ShownOrder,
    /// The source we follow and when it was heard last.
    source: Option<(u32, Instant)>,
    changed: bool,
    key_frame_due: bool,
    stats: Stats,
    /// Counts of reorder windows of former sources.
    former: [u64; 3],
}

impl Assembler {
    /// Waits for gaps differently from now on.
    pub fn set_window(&mut self, window: Window) {
        self.window = window;
        self.reorder.set_window(window);
    }

    /// With the window for UDP.
    pub fn new(medium: &Medium) -> Self {
        Self::with_window(medium, Window::UDP)
    }

    pub fn with_window(medium: &Medium, window: Window) -> Self {
        Self {
            medium: medium.clone(),
            format: Format::new(medium),
            window,
            reorder: Reorder::new(window),
            timeline: Timeline::new(medium.clock_rate, None),
            shown: ShownOrder::default(),
            source: None,
            changed: false,
            key_frame_due: false,
            stats: Stats::default(),
            former: [0; 3],
        }
    }

    /// The media of one publisher share the moment their times count from.
    #[must_use]
    pub fn with_origin(mut self, origin: Instant) -> Self {
        self.timeline = Timeline::new(self.medium.clock_rate, Some(origin));
        self
    }

    /// Where a time near the newest packet's lies among the times given out; None before the first packet.
    pub fn locate(&self, time: u32) -> Option<u64> {
        self.timeline.locate(time)
    }

    /// Moves the times given out from now on, in ticks: to align media by their sender reports.
    pub fn shift(&mut self, ticks: i64) {
        self.timeline.shift(ticks);
    }

    /// The source that is followed.
    pub fn ssrc(&self) -> Option<u32> {
        self.source.map(|(ssrc, _)| ssrc)
    }

    /// Takes a packet and gives the frames it completed (mostly none or one).
    pub fn push(&mut self, packet: Packet, arrived: Instant) -> Vec<Assembled> {
        self.stats.packets += 1;
        let ssrc = packet.header.ssrc;
        match self.source {
            Some((followed, heard)) if followed != ssrc => {
                if arrived.saturating_duration_since(heard) < SSRC_SILENCE {
                    self.stats.foreign += 1;
                    return Vec::new();
                }
                self.follow_another_source();
            }
            _ => {}
        }
        self.source = Some((ssrc, arrived));
        self.reorder.push(packet, arrived);
        self.poll(arrived)
    }

    /// Frames that are complete because a gap was waited for long enough. Needed only when packets stop coming.
    pub fn poll(&mut self, now: Instant) -> Vec<Assembled> {
        let mut out = Vec::new();
        while let Some(ordered) = self.reorder.pop(now) {
            self.take(&ordered, &mut out);
        }
        out
    }

    /// The medium with its new parameter sets, if they changed since the last call.
    pub fn medium_changed(&mut self) -> Option<Medium> {
        std::mem::take(&mut self.changed).then(|| self.medium.clone())
    }

    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// Does the video come in another order than it is shown (B-frames)? As seen in its newest frames.
    pub fn b_frames(&self) -> bool {
        self.shown.has_b_frames()
    }

    /// Was a video frame lost or damaged since the last call? Then a key frame heals the picture.
    pub fn key_frame_due(&mut self) -> bool {
        std::mem::take(&mut self.key_frame_due)
    }

    pub fn stats(&self) -> Stats {
        Stats {
            lost: self.former[0] + self.reorder.lost(),
            late: self.former[1] + self.reorder.late(),
            duplicates: self.former[2] + self.reorder.duplicates(),
            clock_jumps: self.timeline.jumps(),
            ..self.stats.clone()
        }
    }

    /// Jumps of the sender's clock so far: as in [`Stats::clock_jumps`], for every frame to ask.
    pub fn clock_jumps(&self) -> u64 {
        self.timeline.jumps()
    }

    fn follow_another_source(&mut self) {
        let old = std::mem::replace(&mut self.reorder, Reorder::new(self.window));
        for (sum, n) in self
            .former
            .iter_mut()
            .zip([old.lost(), old.late(), old.duplicates()])
        {
            *sum += n;
        }
        self.format.restart();
    }

    fn take(&mut self, ordered: &Ordered, out: &mut Vec<Assembled>) {
        let Packet { header, payload } = &ordered.packet;
        let lost = ordered.lost > 0;
        // Padding only (a bandwidth probe): it has its place in the order and nothing else.
        if payload.is_empty() && !lost {
            return;
        }
        let time = self.timeline.apply(header.time, ordered.arrived);
        let is_video = self.medium.codec.kind() == MediumKind::Video;
        self.key_frame_due |= lost && is_video;
        let mut cuts = Vec::new();
        self.format
            .push(payload, time, header.marker, lost, &mut cuts);
        for cut in cuts {
            match cut {
                Ok(cut) => out.push(self.frame(cut, ordered.arrived)),
                Err(reason) => {
                    self.key_frame_due |= is_video;
                    self.drop_frame(reason);
                }
            }
        }
        if let Some(codec) = self.format.learned() {
            self.changed |= codec != self.medium.codec;
            self.medium.codec = codec;
        }
    }

    fn frame(&mut self, cut: Cut, arrived: Instant) -> Assembled {
        let Cut {
            key,
            time,
            payloads,
        } = cut;
        let codec = &self.medium.codec;
        let payloads = match codec.kind() {
            MediumKind::Video => self.shown.frame(codec, time, payloads),
            MediumKind::Audio => payloads,
        };
        Assembled {
            key,
            time,
            arrived,
            payloads,
        }
    }

    fn drop_frame(&mut self, reason: &'static str) {
        *self.stats.dropped.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
