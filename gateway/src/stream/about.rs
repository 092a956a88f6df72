//! What is told about one reader: who it is, what it got, what it lost. Counters that its thread writes and others read.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use prometheus::{HistogramVec, IntCounterVec};
use serde::Serialize;

use super::ring::Frame;
use crate::{clock, metrics};

pub(super) static READERS_ENDED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_readers_ended_total",
        "Readers of streams by why they ended",
        &["protocol", "reason"],
    )
});

static JOIN: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_s(
        "kerbside_reader_join_seconds",
        "From a reader's PLAY or offer to its first frame",
        &["protocol"],
    )
});

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// One reader, as its thread counts it.
#[derive(Debug, Default)]
pub struct About {
    number: u64,
    who: String,
    protocol: &'static str,
    peer: Option<SocketAddr>,
    since_unix_ms: i64,
    asked: Option<Instant>,
    /// Microseconds.
    join_us: AtomicU32,
    frames: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
    skips: AtomicU64,
    nacks: AtomicU64,
    resent: AtomicU64,
    key_frame_requests: AtomicU64,
    lost_permille: AtomicU32,
    jitter_us: AtomicU32,
    latency_us: AtomicU32,
}

/// What operators see of a reader.
#[derive(Clone, Debug, Serialize)]
pub struct ReaderStatus {
    /// Counts up over the life of the gateway.
    pub reader: u64,
    pub who: String,
    /// `rtsp_tcp`, `rtsp_udp`, `whep`.
    pub protocol: &'static str,
    pub peer: Option<SocketAddr>,
    pub since: String,
    /// From its PLAY or offer to its first frame; None: there was none yet.
    pub join_ms: Option<f64>,
    pub frames: u64,
    pub bytes: u64,
    /// Frames it lost because it was too slow, and how often it jumped.
    pub skipped_frames: u64,
    pub skips: u64,
    /// Packets it asked for again, and those it got again.
    pub nacks: u64,
    pub resent_packets: u64,
    pub key_frame_requests: u64,
    /// By its newest receiver report; None: there was none.
    pub lost_percent: Option<f64>,
    pub jitter_ms: Option<f64>,
    /// Of the newest frame, from its arrival here to its sending.
    pub added_latency_ms: f64,
}

/// Stands for "no report yet".
const NONE: u32 = u32::MAX;

impl About {
    pub(super) fn new(
        who: &str,
        protocol: &'static str,
        peer: SocketAddr,
        asked: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            who: who.to_owned(),
            protocol,
            peer: Some(peer),
            since_unix_ms: clock::unix_ms(),
            asked: Some(asked),
            join_us: AtomicU32::new(NONE),
            lost_permille: AtomicU32::new(NONE),
            jitter_us: AtomicU32::new(NONE),
            ..Self::default()
        })
    }

    pub(super) fn protocol(&self) -> &'static str {
        self.protocol
    }

    pub(super) fn sent(&self, frame: &Frame, now: Instant) {
        if self.frames.fetch_add(1, Ordering::Relaxed) == 0
            && let Some(asked) = self.asked
        {
            let took = now.saturating_duration_since(asked);
            JOIN.with_label_values(&[self.protocol])
                .observe(took.as_secs_f64());
            let us = u32::try_from(took.as_micros()).unwrap_or(NONE - 1);
            self.join_us.store(us, Ordering::Relaxed);
        }
        self.bytes
            .fetch_add(frame.payloads.bytes() as u64, Ordering::Relaxed);
        let latency = now.saturating_duration_since(frame.arrived).as_micros();
        self.latency_us.store(
            u32::try_from(latency).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
    }

    pub(super) fn skipped(&self, frames: u64) {
        self.skipped.fetch_add(frames, Ordering::Relaxed);
        self.skips.fetch_add(1, Ordering::Relaxed);
    }

    /// Packets were asked for again, and so many of them went out.
    pub fn nacked(&self, asked: u64, resent: u64) {
        self.nacks.fetch_add(asked, Ordering::Relaxed);
        self.resent.fetch_add(resent, Ordering::Relaxed);
    }

    pub fn key_frame_requested(&self) {
        self.key_frame_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A receiver report (RFC 3550 §6.4.2): loss as a share of 256, jitter in microseconds.
    pub fn reported(&self, fraction_lost: u8, jitter_us: u32) {
        self.lost_permille
            .store(u32::from(fraction_lost) * 1000 / 256, Ordering::Relaxed);
        self.jitter_us
            .store(jitter_us.min(NONE - 1), Ordering::Relaxed);
    }

    pub(super) fn status(&self) -> ReaderStatus {
        let of = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let reported = |a: &AtomicU32, unit: f64| match a.load(Ordering::Relaxed) {
            NONE => None,
            n => Some(f64::from(n) / unit),
        };
        ReaderStatus {
            reader: self.number,
            who: self.who.clone(),
            protocol: self.protocol,
            peer: self.peer,
            since: clock::rfc3339(self.since_unix_ms),
            join_ms: reported(&self.join_us, 1000.0),
            frames: of(&self.frames),
            bytes: of(&self.bytes),
            skipped_frames: of(&self.skipped),
            skips: of(&self.skips),
            nacks: of(&self.nacks),
            resent_packets: of(&self.resent),
            key_frame_requests: of(&self.key_frame_requests),
            lost_percent: reported(&self.lost_permille, 10.0),
            jitter_ms: reported(&self.jitter_us, 1000.0),
            added_latency_ms: f64::from(self.latency_us.load(Ordering::Relaxed)) / 1000.0,
        }
    }
}
