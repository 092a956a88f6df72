//! What this room counts.

use std::sync::LazyLock;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use crate::metrics;

pub static SESSIONS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_webrtc_sessions",
        "WebRTC sessions now (play, publish)",
        &["role"],
    )
});

/// Labels: `in`, `out` (media), `resent` (to readers), `repaired` (retransmissions of publishers that were missing).
pub static PACKETS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_webrtc_packets_total",
        "RTP packets of WebRTC sessions",
        &["way"],
    )
});

/// Of [`PACKETS`]: looked up once, not per frame and reader.
pub static PACKETS_OUT: LazyLock<IntCounter> =
    LazyLock::new(|| PACKETS.with_label_values(&["out"]));

pub static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_webrtc_dropped_total",
        "Datagrams and packets of the WebRTC port that were dropped",
        &["reason"],
    )
});

pub static ENDED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_webrtc_sessions_ended_total",
        "WebRTC sessions that ended",
        &["role", "reason"],
    )
});

pub static JOIN: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_s(
        "kerbside_webrtc_join_seconds",
        "From the offer to the first frame sent or received",
        &["role"],
    )
});

pub fn dropped(reason: &'static str) {
    DROPPED.with_label_values(&[reason]).inc();
}

pub fn count(reason: &'static str, n: usize) {
    if n > 0 {
        DROPPED.with_label_values(&[reason]).inc_by(n as u64);
    }
}
