//! Counters and gauges of the whole gateway, as Prometheus text at `/metrics`.
//!
//! Here: the registry and how to make a metric. A metric lives beside the code that counts it, in a `LazyLock`.

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder,
};

/// A counter family `name{labels}`. Panics only on a name that is not a Prometheus name: a programming error.
#[allow(
    clippy::expect_used,
    reason = "names are literals; a bad one fails the first test that touches it"
)]
pub fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let c = IntCounterVec::new(Opts::new(name, help), labels).expect("metric name");
    prometheus::default_registry()
        .register(Box::new(c.clone()))
        .expect("metric registered once");
    c
}

/// A gauge family `name{labels}`.
#[allow(clippy::expect_used, reason = "as for counters")]
pub fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let g = IntGaugeVec::new(Opts::new(name, help), labels).expect("metric name");
    prometheus::default_registry()
        .register(Box::new(g.clone()))
        .expect("metric registered once");
    g
}

/// A gauge family `name{labels}` of fractions.
#[allow(clippy::expect_used, reason = "as for counters")]
pub fn gauge_f64(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let g = GaugeVec::new(Opts::new(name, help), labels).expect("metric name");
    prometheus::default_registry()
        .register(Box::new(g.clone()))
        .expect("metric registered once");
    g
}

/// A histogram family of seconds, 1 ms to 30 s.
#[allow(clippy::expect_used, reason = "as for counters")]
pub fn histogram_s(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let buckets = vec![
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
    ];
    let h = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)
        .expect("metric name");
    prometheus::default_registry()
        .register(Box::new(h.clone()))
        .expect("metric registered once");
    h
}

/// All metrics in the Prometheus text format 0.0.4.
pub fn text() -> String {
    let mut out = Vec::new();
    if let Err(e) = TextEncoder::new().encode(&prometheus::gather(), &mut out) {
        tracing::error!(error = %e, "metrics could not be written");
    }
    String::from_utf8(out).unwrap_or_default()
}
