//! The metrics of publishers, one series per stream: set once a second, removed with the publisher or the stream.

use std::sync::LazyLock;

use kerbside_codecs::media::MediumKind;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

use super::health::{Health, HealthState};
use super::meter::{MediumStats, PublisherStats};
use crate::metrics;

static BITRATE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_stream_bitrate_bps",
        "RTP payload from the publisher, over 5 s",
        &["stream", "medium"],
    )
});
static FRAME_RATE: LazyLock<GaugeVec> = LazyLock::new(|| {
    metrics::gauge_f64(
        "kerbside_stream_frame_rate",
        "Video frames a second from the publisher, over 5 s",
        &["stream"],
    )
});
static GOP: LazyLock<GaugeVec> = LazyLock::new(|| {
    metrics::gauge_f64(
        "kerbside_stream_gop_seconds",
        "From one key frame of the publisher to the next",
        &["stream"],
    )
});
static JITTER: LazyLock<GaugeVec> = LazyLock::new(|| {
    metrics::gauge_f64(
        "kerbside_stream_jitter_seconds",
        "Jitter of the publisher's packets (RFC 3550)",
        &["stream", "medium"],
    )
});
static DRIFT: LazyLock<GaugeVec> = LazyLock::new(|| {
    metrics::gauge_f64(
        "kerbside_stream_clock_drift_ppm",
        "How fast the device's clock runs, beyond ours",
        &["stream"],
    )
});
static UNCERTAINTY: LazyLock<GaugeVec> = LazyLock::new(|| {
    metrics::gauge_f64(
        "kerbside_stream_clock_uncertainty_seconds",
        "How far the stated capture times may be off",
        &["stream"],
    )
});
static HEALTH: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_stream_health",
        "1 for the state the camera is in (ok, no_frames, frozen, lossy, clock_drift), 0 for the others",
        &["stream", "state"],
    )
});
static FAULTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_stream_packet_faults_total",
        "Packets of publishers that were lost, late or duplicate",
        &["stream", "fault"],
    )
});
static ASKED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_stream_asked_total",
        "What publishers were asked for: packets again (nack), key frames (pli)",
        &["stream", "what"],
    )
});
pub(super) static LATENCY: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_s(
        "kerbside_stream_publisher_latency_seconds",
        "From the capture of a video frame to its arrival, where the device tells its clock and is believed",
        &["protocol"],
    )
});

const KINDS: [(MediumKind, &str); 2] = [(MediumKind::Video, "video"), (MediumKind::Audio, "audio")];

/// Tells what a publisher delivers now. `former`: the figures told last, for what only grows.
pub(super) fn tell(stream: &str, now: &PublisherStats, former: Option<&PublisherStats>) {
    for (kind, name) in KINDS {
        let of = || now.media.iter().filter(|m| m.kind == kind);
        if of().next().is_none() {
            continue;
        }
        let bps: u64 = of().map(|m| m.bitrate_bps).sum();
        BITRATE
            .with_label_values(&[stream, name])
            .set(i64::try_from(bps).unwrap_or(i64::MAX));
        let jitter_ms = of().fold(0.0, |most: f64, m| most.max(m.jitter_ms));
        JITTER
            .with_label_values(&[stream, name])
            .set(jitter_ms / 1000.0);
    }
    if let Some(video) = now.media.iter().find(|m| m.kind == MediumKind::Video) {
        FRAME_RATE
            .with_label_values(&[stream])
            .set(video.frame_rate);
        if let Some(s) = video.gop_s {
            GOP.with_label_values(&[stream]).set(s);
        }
    }
    if let Some(ppm) = now.clock.drift_ppm {
        DRIFT.with_label_values(&[stream]).set(ppm);
    }
    UNCERTAINTY
        .with_label_values(&[stream])
        .set(now.clock.uncertainty_ms / 1000.0);
    let sum = |of: fn(&MediumStats) -> u64| {
        let all = |s: &PublisherStats| s.media.iter().map(of).sum::<u64>();
        all(now).saturating_sub(former.map_or(0, all))
    };
    let faults = [
        ("lost", sum(|m| m.lost)),
        ("late", sum(|m| m.late)),
        ("duplicate", sum(|m| m.duplicates)),
    ];
    for (fault, n) in faults {
        FAULTS.with_label_values(&[stream, fault]).inc_by(n);
    }
    let grown = |of: fn(&PublisherStats) -> u64| of(now).saturating_sub(former.map_or(0, of));
    for (what, n) in [
        ("nack", grown(|s| s.nacks)),
        ("pli", grown(|s| s.key_frame_requests)),
    ] {
        ASKED.with_label_values(&[stream, what]).inc_by(n);
    }
}

pub(super) fn tell_health(stream: &str, health: Health) {
    for state in HealthState::ALL {
        HEALTH
            .with_label_values(&[stream, state.name()])
            .set(i64::from(state == health.state));
    }
}

/// The publisher left: what it delivered is no more.
pub(super) fn left(stream: &str) {
    // A series that was never touched cannot be removed; that is no fault.
    for (_, name) in KINDS {
        drop(BITRATE.remove_label_values(&[stream, name]));
        drop(JITTER.remove_label_values(&[stream, name]));
    }
    for gauge in [&FRAME_RATE, &GOP, &DRIFT, &UNCERTAINTY] {
        drop(gauge.remove_label_values(&[stream]));
    }
    for state in HealthState::ALL {
        drop(HEALTH.remove_label_values(&[stream, state.name()]));
    }
}

/// The stream is forgotten.
pub(super) fn gone(stream: &str) {
    left(stream);
    for fault in ["lost", "late", "duplicate"] {
        drop(FAULTS.remove_label_values(&[stream, fault]));
    }
    for what in ["nack", "pli"] {
        drop(ASKED.remove_label_values(&[stream, what]));
    }
}
