//! Many readers of one camera: how they are started and what is measured; a row of bench/RESULTS.md.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use crate::camera;
use crate::process::{Gateway, RTSP, quantile};

/// Time for all readers to join; then the clock runs.
const SETTLE: Duration = Duration::from_secs(8);

/// What one reader saw.
#[derive(Default)]
pub struct Seen {
    pub join_ms: f64,
    pub frames: u64,
    pub latency_ms: Vec<f64>,
}

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
    /// Starts a gateway with one camera and so many readers; `read` is one reader, given its token and a watch that
    /// turns true when frames count.
    pub async fn measure<F, R>(
        name: &'static str,
        kerbside: &Path,
        readers: usize,
        seconds: u64,
        read: F,
    ) -> anyhow::Result<Self>
    where
        F: Fn(String, watch::Receiver<bool>) -> R,
        R: Future<Output = anyhow::Result<Seen>> + Send + 'static,
    {
        let (gateway, passwords, token) = Gateway::start(kerbside, &["cam".to_owned()])?;
        let password = passwords[0].clone();
        let publisher =
            tokio::spawn(async move { camera::publish(RTSP, "cam/main", "cam", &password).await });
        let idle_rss = gateway.server.rss()?;
        let (tx, mut rx) = mpsc::channel(readers.max(1));
        let (count_tx, count) = watch::channel(false);
        for _ in 0..readers {
            let (reader, tx) = (read(token.clone(), count.clone()), tx.clone());
            tokio::spawn(async move { tx.send(reader.await).await });
        }
        drop(tx);
        tokio::time::sleep(SETTLE).await;
        let cpu = gateway.server.cpu()?;
        let rss = gateway.server.rss()?.saturating_sub(idle_rss);
        let started = Instant::now();
        count_tx.send(true).context("no reader is left")?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let cpu = gateway.server.cpu()? - cpu;
        let wall = started.elapsed();
        let mut all = Vec::new();
        while let Some(seen) = rx.recv().await {
            all.push(seen?);
        }
        publisher.abort();
        Ok(Self::of(name, readers, wall, cpu, rss, &all))
    }

    fn of(
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

/// p50 and p99 over all readers.
fn latencies(all: &[Seen]) -> (f64, f64) {
    let mut l: Vec<f64> = all
        .iter()
        .flat_map(|s| s.latency_ms.iter().copied())
        .collect();
    l.sort_by(f64::total_cmp);
    (quantile(&l, 0.5), quantile(&l, 0.99))
}
