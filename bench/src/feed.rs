//! From a device's fix to the screens: many devices, many screens with a feed, some of which have stalled.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mqtt_client::{Device, Target, report};
use crate::process::{Gateway, HTTP, MQTT};
use crate::result::quantile;

/// What is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    pub devices: usize,
    pub screens: usize,
    pub stalled: usize,
    pub seconds: u64,
    pub pin: Option<usize>,
}

/// Of so many screens every fix is timed; the others count bytes.
const TIMED: usize = 4;
const MARK: &[u8] = b"\"mode\":\"";

/// Messages, from the marks in which the devices wrote when they sent.
#[derive(Default)]
struct Seen {
    fixes: AtomicU64,
    bytes: AtomicU64,
}

pub struct Outcome {
    pub messages: u64,
    /// Of the gateway, in all.
    pub us_per_message: f64,
    pub cpu_percent: f64,
    /// p50, p99, p99.9, ms.
    pub fix_to_screen_ms: [f64; 3],
    /// Fixes that timed screens got, of those sent (without those conflated).
    pub fixes_timed: usize,
    pub mbyte_s_per_screen: f64,
    /// Resident memory before the load, in its middle, at its end, MB.
    pub memory_mb: [f64; 3],
    /// A stalled screen that reads again: after so long it has the newest fix of every device.
    pub caught_up: Option<(Duration, usize)>,
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

pub async fn run(kerbside: &Path, plan: Plan) -> anyhow::Result<Outcome> {
    let ids: Vec<String> = (0..plan.devices).map(|i| format!("dev-{i:05}")).collect();
    let (gateway, passwords, token) = Gateway::start(kerbside, &ids, plan.pin)?;
    let target = Target {
        addr: MQTT,
        tls: None,
    };
    let mut devices = Vec::new();
    for (id, password) in ids.iter().zip(&passwords) {
        devices.push(Device::connect(&target, id, Some(password)).await?);
    }
    let seen = Arc::new(Seen::default());
    let measuring = Arc::new(AtomicBool::new(false));
    let mut timed = Vec::new();
    let mut counted = Vec::new();
    let mut stalled = Vec::new();
    for i in 0..plan.screens {
        let mut screen = Screen::open(&token, "").await?;
        if i < plan.stalled {
            let at = place(screen.message().await?);
            stalled.push((screen, at));
        } else if timed.len() < TIMED {
            let measuring = Arc::clone(&measuring);
            timed.push(tokio::spawn(screen.time(measuring)));
        } else {
            counted.push(tokio::spawn(screen.count(Arc::clone(&seen))));
        }
    }
    // The devices begin spread over a second; two seconds later all is as it stays.
    let gap = Duration::from_secs(1);
    let begin = tokio::time::Instant::now() + Duration::from_millis(200);
    let until = begin + Duration::from_secs(plan.seconds + 2);
    let mut senders = Vec::new();
    for (i, mut device) in devices.into_iter().enumerate() {
        let first = begin + gap.mul_f64(i as f64 / plan.devices as f64);
        senders.push(tokio::spawn(async move {
            let mut every = tokio::time::interval_at(first, gap);
            let mut sent = 0u64;
            loop {
                let due = every.tick().await;
                if due >= until {
                    return Ok::<_, anyhow::Error>((device, sent));
                }
                device.send(&report(sent, &now_us().to_string()), 1).await?;
                sent += 1;
            }
        }));
    }
    tokio::time::sleep_until(begin + Duration::from_secs(2)).await;
    let rss = || -> anyhow::Result<f64> { Ok(gateway.server.process().memory()?.rss as f64 / 1e6) };
    let (cpu, clock) = (gateway.server.cpu()?, Instant::now());
    let bytes = seen.bytes.load(Ordering::Relaxed);
    measuring.store(true, Ordering::Relaxed);
    let m0 = rss()?;
    tokio::time::sleep_until(begin + Duration::from_secs(2 + plan.seconds / 2)).await;
    let m1 = rss()?;
    tokio::time::sleep_until(until).await;
    measuring.store(false, Ordering::Relaxed);
    let (cpu, clock) = (gateway.server.cpu()? - cpu, clock.elapsed());
    let bytes = seen.bytes.load(Ordering::Relaxed) - bytes;
    let m2 = rss()?;
    let mut held = Vec::new();
    let mut messages = 0;
    for s in senders {
        let (device, sent) = s.await??;
        messages += sent;
        held.push(device);
    }
    let caught_up = match stalled.pop() {
        Some((screen, at)) => Some(
            screen
                .catch_up(&token, &at, plan.devices, &mut held)
                .await?,
        ),
        None => None,
    };
    drop(held);
    drop(gateway);
    let mut ages: Vec<f64> = Vec::new();
    for t in timed {
        ages.extend(t.await?);
    }
    ages.sort_by(f64::total_cmp);
    for c in counted {
        c.abort();
    }
    let in_window = plan.devices as f64 * clock.as_secs_f64();
    Ok(Outcome {
        messages,
        us_per_message: cpu.as_secs_f64() * 1e6 / in_window,
        cpu_percent: 100.0 * cpu.as_secs_f64() / clock.as_secs_f64(),
        fix_to_screen_ms: [0.5, 0.99, 0.999].map(|q| quantile(&ages, q)),
        fixes_timed: ages.len(),
        mbyte_s_per_screen: bytes as f64
            / 1e6
            / clock.as_secs_f64()
            / plan.screens.saturating_sub(plan.stalled + TIMED).max(1) as f64,
        memory_mb: [m0, m1, m2],
        caught_up,
    })
}

/// One command screen's feed: a WebSocket (RFC 6455), read only.
struct Screen {
    tcp: TcpStream,
    buffer: Vec<u8>,
}

impl Screen {
    /// `since`: empty, or `?since=` and the place of the last message.
    async fn open(token: &str, since: &str) -> anyhow::Result<Self> {
        let mut tcp = TcpStream::connect(HTTP).await?;
        let ask = format!(
            "GET /api/v1/feed{since} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        );
        tcp.write_all(ask.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await?);
            if head.len() > 4096 {
                bail!("no end of the answer's head");
            }
        }
        if !head.starts_with(b"HTTP/1.1 101") {
            bail!("the feed answered {}", String::from_utf8_lossy(&head));
        }
        Ok(Self {
            tcp,
            buffer: Vec::new(),
        })
    }

    /// The next message, into `buffer`.
    async fn message(&mut self) -> anyhow::Result<&[u8]> {
        loop {
            let first = self.tcp.read_u8().await?;
            let n = match self.tcp.read_u8().await? {
                126 => u64::from(self.tcp.read_u16().await?),
                127 => self.tcp.read_u64().await?,
                n => n.into(),
            };
            let n = usize::try_from(n)?;
            if self.buffer.len() < n {
                self.buffer.resize(n, 0);
            }
            self.tcp.read_exact(&mut self.buffer[..n]).await?;
            match first & 0x0f {
                1 => return Ok(&self.buffer[..n]),
                9 => {
                    // A pong without content, with a mask of zeros.
                    self.tcp.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await?;
                }
                8 => bail!("the feed was closed"),
                _ => {}
            }
        }
    }

    async fn time(mut self, measuring: Arc<AtomicBool>) -> Vec<f64> {
        let mut ages = Vec::new();
        while let Ok(text) = self.message().await {
            let now = now_us();
            if measuring.load(Ordering::Relaxed) {
                each_mark(text, |sent| {
                    ages.push(now.saturating_sub(sent) as f64 / 1e3);
                });
            }
        }
        ages
    }

    async fn count(mut self, seen: Arc<Seen>) {
        let mut scratch = vec![0; 1 << 16];
        while let Ok(n) = self.tcp.read(&mut scratch).await {
            if n == 0 {
                return;
            }
            seen.bytes.fetch_add(n as u64, Ordering::Relaxed);
            seen.fixes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads again after the stall, until the newest fix of every device is there: all devices send once more for it.
    /// A screen that was let go in the meantime comes back where it was.
    async fn catch_up(
        mut self,
        token: &str,
        at: &str,
        devices: usize,
        held: &mut [Device],
    ) -> anyhow::Result<(Duration, usize)> {
        let last = now_us();
        for device in held {
            device.send(&report(0, &now_us().to_string()), 1).await?;
        }
        let began = Instant::now();
        let mut newest = 0;
        let mut messages = 0;
        while newest < devices {
            let limit = Duration::from_secs(10);
            let read = tokio::time::timeout(limit, self.message()).await;
            let Ok(text) = read.context("the stalled screen did not catch up")? else {
                self = Self::open(token, &format!("?since={at}")).await?;
                newest = 0;
                continue;
            };
            messages += 1;
            each_mark(text, |sent| newest += usize::from(sent >= last));
        }
        Ok((began.elapsed(), messages))
    }
}

/// `EPOCH-SEQ` of a message.
fn place(text: &[u8]) -> String {
    let head = String::from_utf8_lossy(&text[..text.len().min(120)]);
    let after = |key: &str| {
        let rest = head.split_once(key).map(|(_, r)| r).unwrap_or_default();
        let end = rest.find(['"', ',']).unwrap_or(0);
        rest[..end].to_owned()
    };
    format!("{}-{}", after("\"epoch\":\""), after("\"seq\":"))
}

/// Each time of sending in a message.
fn each_mark(text: &[u8], mut take: impl FnMut(u64)) {
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, MARK) {
        rest = &rest[at + MARK.len()..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let sent = std::str::from_utf8(&rest[..digits])
            .ok()
            .and_then(|d| d.parse().ok());
        if let Some(sent) = sent {
            take(sent);
        }
    }
}

impl Outcome {
    pub fn print(&self, plan: &Plan) {
        let [p50, p99, p999] = self.fix_to_screen_ms;
        let [m0, m1, m2] = self.memory_mb;
        println!(
            "| {} devices at 1 Hz, {} screens, {} of them stalled | fix to screen p50 {p50:.1}, p99 {p99:.1}, p99.9 {p999:.1} ms ({} fixes timed) | {:.1} µs CPU per message, {:.0} % of a CPU | {:.2} MB/s per screen | memory {m0:.0}, {m1:.0}, {m2:.0} MB | {} messages |",
            plan.devices,
            plan.screens,
            plan.stalled,
            self.fixes_timed,
            self.us_per_message,
            self.cpu_percent,
            self.mbyte_s_per_screen,
            self.messages
        );
        if let Some((after, messages)) = self.caught_up {
            println!(
                "a screen that had stalled all the time read again: the newest fix of every device after {:.0} ms, in {messages} messages",
                after.as_secs_f64() * 1e3
            );
        }
    }
}
