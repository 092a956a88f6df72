//! RTSP/TCP readers of one camera: processor time of the server per reader-second, frame latency, join time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::camera;
use crate::process::{Gateway, RTSP, quantile};
use crate::report::Fanout;
use crate::rtsp_client::RtspClient;

/// What one reader saw.
#[derive(Default)]
pub struct Seen {
    pub join_ms: f64,
    pub frames: u64,
    pub latency_ms: Vec<f64>,
}

pub async fn run(kerbside: &Path, readers: usize, seconds: u64) -> anyhow::Result<Fanout> {
    let (gateway, passwords, token) = Gateway::start(kerbside, &["cam".to_owned()])?;
    let password = passwords[0].clone();
    let publisher =
        tokio::spawn(async move { camera::publish(RTSP, "cam/main", "cam", &password).await });
    let idle_rss = gateway.server.rss()?;
    let (tx, mut rx) = mpsc::channel(readers.max(1));
    let (count_tx, count) = tokio::sync::watch::channel(false);
    for _ in 0..readers {
        let (token, tx, count) = (token.clone(), tx.clone(), count.clone());
        tokio::spawn(async move {
            let seen = read(&token, seconds, count).await;
            let _ = tx.send(seen).await;
        });
    }
    drop(tx);
    // Joins are over after 5 s; then the clock runs.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cpu = gateway.server.cpu()?;
    let rss = gateway.server.rss()?;
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
    Ok(Fanout::of(
        "RTSP/TCP",
        readers,
        wall,
        cpu,
        rss.saturating_sub(idle_rss),
        &all,
    ))
}

async fn read(
    token: &str,
    seconds: u64,
    mut count: tokio::sync::watch::Receiver<bool>,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let started = Instant::now();
    let (mut client, asked) = loop {
        let asked = Instant::now();
        let mut c = RtspClient::connect(RTSP, "cam/main", "bench", token).await?;
        // The publisher may still be on its way.
        match c.play().await {
            Ok(()) => break (c, asked),
            Err(e) if started.elapsed() > Duration::from_secs(4) => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let mut buf = std::mem::take(&mut client.rest);
    buf.reserve(64 << 10);
    let mut deadline: Option<tokio::time::Instant> = None;
    let mut stamp = None;
    loop {
        let mut at = 0;
        while buf.len() >= at + 4 {
            if buf[at] != b'$' {
                anyhow::bail!("the server sent something else than interleaved data");
            }
            let len = usize::from(u16::from_be_bytes([buf[at + 2], buf[at + 3]]));
            if buf.len() < at + 4 + len {
                break;
            }
            let packet = &buf[at + 4..at + 4 + len];
            if buf[at + 1] == 0 && packet.len() > 12 {
                stamp = camera::age_ms(&packet[12..])
                    .map(|age| (age, Instant::now()))
                    .or(stamp);
                if packet[1] & 0x80 != 0 {
                    if seen.join_ms == 0.0 {
                        seen.join_ms = asked.elapsed().as_secs_f64() * 1e3;
                    }
                    if let (Some((age, at)), true) = (stamp.take(), deadline.is_some()) {
                        seen.frames += 1;
                        seen.latency_ms.push(age + at.elapsed().as_secs_f64() * 1e3);
                    }
                }
            }
            at += 4 + len;
        }
        buf.drain(..at);
        let wait =
            deadline.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            n = client.stream.read_buf(&mut buf) => {
                if n? == 0 {
                    anyhow::bail!("the server closed the connection");
                }
            }
            _ = count.changed(), if deadline.is_none() => {
                deadline = Some(tokio::time::Instant::now() + Duration::from_secs(seconds));
            }
            () = tokio::time::sleep_until(wait) => return Ok(seen),
        }
    }
}

/// p50 and p99 over all readers.
pub fn latencies(all: &[Seen]) -> (f64, f64) {
    let mut l: Vec<f64> = all
        .iter()
        .flat_map(|s| s.latency_ms.iter().copied())
        .collect();
    l.sort_by(f64::total_cmp);
    (quantile(&l, 0.5), quantile(&l, 0.99))
}
