//! What is counted about cameras that we fetch.

use std::sync::LazyLock;

use prometheus::IntCounterVec;

use crate::metrics;

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_pull_dropped_total",
        "Packets of pulled cameras that were dropped before their stream: early came in masses before PLAY was \
         answered, channel belongs to no medium, payload_type is not the described one, bad_rtp is none",
        &["reason"],
    )
});
static CONNECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_pull_connections_total",
        "Connections to cameras by how they ended",
        &["end"],
    )
});

pub fn dropped(reason: &'static str) {
    DROPPED.with_label_values(&[reason]).inc();
}

pub fn ended(end: &'static str) {
    CONNECTIONS.with_label_values(&[end]).inc();
}
