//! RTSP/TCP readers of one camera: processor time of the server per reader-second, frame latency, join time.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::camera;
use crate::fanout::{Fanout, Seen};
use crate::process::RTSP;
use crate::rtsp_client::RtspClient;

pub async fn run(kerbside: &Path, readers: usize, seconds: u64) -> anyhow::Result<Fanout> {
    Fanout::measure(
        "RTSP/TCP",
        kerbside,
        readers,
        seconds,
        |token, count| async move { read(&token, seconds, count).await },
    )
    .await
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
