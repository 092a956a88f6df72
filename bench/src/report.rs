//! Rows of bench/RESULTS.md.

use std::time::Duration;

use crate::process::quantile;
use crate::rtsp::{Seen, latencies};

pub struct Fanout {
    pub name: &'static str,
    pub readers: usize,
    pub cpu_ms_per_reader_second: f64,
    pub latency_ms: (f64, f64),
    pub join_ms: (f64, f64),
    pub frames_per_reader_second: f64,
    pub kb_per_reader: f64,
}

impl Fanout {
    pub fn of(
        name: &'static str,
        readers: usize,
        wall: Duration,
        cpu: Duration,
        rss: u64,
        all: &[Seen],
    ) -> Self {
        let reader_seconds = wall.as_secs_f64() * readers as f64;
        let frames: u64 = all.iter().map(|s| s.frames).sum();
        let mut join: Vec<f64> = all.iter().map(|s| s.join_ms).collect();
        join.sort_by(f64::total_cmp);
        Self {
            name,
            readers,
            cpu_ms_per_reader_second: cpu.as_secs_f64() * 1e3 / reader_seconds,
            latency_ms: latencies(all),
            join_ms: (quantile(&join, 0.5), quantile(&join, 0.99)),
            frames_per_reader_second: frames as f64 / reader_seconds,
            kb_per_reader: rss as f64 / 1024.0 / readers as f64,
        }
    }

    pub fn print(&self) {
        println!(
            "| {} | {} readers | {:.2} ms CPU per reader-second | latency p50 {:.1} / p99 {:.1} ms | join p50 {:.0} / p99 {:.0} ms | {:.1} frames per reader-second | {:.0} kB per reader |",
            self.name,
            self.readers,
            self.cpu_ms_per_reader_second,
            self.latency_ms.0,
            self.latency_ms.1,
            self.join_ms.0,
            self.join_ms.1,
            self.frames_per_reader_second,
            self.kb_per_reader
        );
    }
}
