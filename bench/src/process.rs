//! A server under measurement: its processor time and memory, by pid, from /proc.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A child that is killed when dropped.
pub struct Server {
    child: Child,
}

impl Server {
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?} could not be started"))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system time used so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let after = stat.rsplit_once(')').context("unexpected /proc stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory, bytes.
    pub fn rss(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find(|l| l.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        let kb: u64 = line
            .split_whitespace()
            .nth(1)
            .context("no VmRSS")?
            .parse()?;
        Ok(kb * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway with a state directory of its own.
pub struct Gateway {
    pub server: Server,
    _dir: tempfile::TempDir,
    /// From exec to `/readyz` = 200.
    pub ready_after: Duration,
}

pub const MQTT: &str = "127.0.0.1:21883";
pub const RTSP: &str = "127.0.0.1:28554";
pub const HTTP: &str = "127.0.0.1:28080";
pub const WEBRTC: &str = "127.0.0.1:28189";

impl Gateway {
    /// Registers the devices (`id`, as body cameras), a user `bench`, and starts the gateway.
    pub fn start(
        kerbside: &Path,
        devices: &[String],
    ) -> anyhow::Result<(Self, Vec<String>, String)> {
        let dir = tempfile::tempdir()?;
        std::fs::write(
            dir.path().join("gateway.toml"),
            format!(
                "box_id = \"bench\"\n[listen]\nmqtt = \"{MQTT}\"\nrtsp = \"{RTSP}\"\nhttp = \"{HTTP}\"\nwebrtc = \"{WEBRTC}\"\n[tls]\nself_signed = false\n"
            ),
        )?;
        let registry = kerbside::registry::Registry::open(&dir.path().join("state"))?;
        let mut passwords = Vec::new();
        for id in devices {
            passwords.push(registry.add_device(
                id,
                kerbside::registry::DeviceKind::Bodycam,
                None,
            )?);
        }
        let token = registry.add_user("bench", kerbside::registry::Role::Operator)?;
        drop(registry);
        let started = Instant::now();
        let server = Server::spawn(
            Command::new(kerbside)
                .arg("run")
                .arg("--config")
                .arg(dir.path())
                .arg("--state")
                .arg(dir.path().join("state"))
                .env("RUST_LOG", "warn"),
        )?;
        while !is_ready() {
            if started.elapsed() > Duration::from_secs(20) {
                bail!("the gateway was not ready within 20 s");
            }
            std::thread::yield_now();
        }
        let ready_after = started.elapsed();
        Ok((
            Self {
                server,
                _dir: dir,
                ready_after,
            },
            passwords,
            token,
        ))
    }
}

fn is_ready() -> bool {
    use std::io::{Read, Write};
    let Ok(mut s) = std::net::TcpStream::connect(HTTP) else {
        return false;
    };
    let _ = s.set_read_timeout(Some(Duration::from_secs(1)));
    if s.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        .is_err()
    {
        return false;
    }
    let mut answer = [0; 12];
    s.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 200"
}

/// Median, p50/p99 helper: the value below which the share `q` of the sorted samples lies.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let i = ((sorted.len() - 1) as f64 * q).round() as usize;
    sorted[i]
}
