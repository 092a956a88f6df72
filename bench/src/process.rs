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

    /// As [`Self::spawn`]; what it complains about is seen.
    pub fn spawn_heard(command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?} could not be started"))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn process(&self) -> Process {
        Process::of(self.pid())
    }

    /// User and system time used so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.process().cpu()
    }
}

/// Any process of this machine, ours or not.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
}

/// Bytes, counts.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub rss: u64,
    /// Shared pages by share; falls back to the resident ones when it may not be read.
    pub pss: u64,
    pub threads: u64,
    /// Open file descriptors; 0 when they may not be counted.
    pub files: u64,
}

impl Process {
    pub fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// User and system time used so far, in steps of 10 ms.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let [user, system] = self.times()?;
        Ok(user + system)
    }

    /// User time and system time, one by one.
    pub fn times(&self) -> anyhow::Result<[Duration; 2]> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .with_context(|| format!("process {} is gone", self.pid))?;
        let after = stat.rsplit_once(')').context("unexpected /proc stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |i: usize| anyhow::Ok(Duration::from_millis(fields[i].parse::<u64>()? * 10));
        Ok([ticks(11)?, ticks(12)?])
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))
            .with_context(|| format!("process {} is gone", self.pid))?;
        let rss = number(&status, "VmRSS:").context("no VmRSS")? * 1024;
        let pss = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))
            .ok()
            .and_then(|s| number(&s, "Pss:"))
            .map_or(rss, |kb| kb * 1024);
        Ok(Memory {
            rss,
            pss,
            threads: number(&status, "Threads:").context("no Threads")?,
            files: std::fs::read_dir(format!("/proc/{}/fd", self.pid))
                .map_or(0, |d| d.count() as u64),
        })
    }
}

/// The number behind `name` at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|l| l.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// A command that runs on one CPU, if one is named, and ends with us however we end.
pub fn pinned(program: impl AsRef<std::ffi::OsStr>, cpu: Option<usize>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(cpu) = cpu {
        command.args(["taskset", "--cpu-list", &cpu.to_string()]);
    }
    command.arg(program);
    command
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
pub const MQTTS: &str = "127.0.0.1:28883";
pub const RTSP: &str = "127.0.0.1:28554";
pub const HTTP: &str = "127.0.0.1:28080";
pub const WEBRTC: &str = "127.0.0.1:28189";

impl Gateway {
    /// Registers the devices (`id`, as body cameras), a user `bench`, and starts the gateway, on one CPU if it is named.
    pub fn start(
        kerbside: &Path,
        devices: &[String],
        cpu: Option<usize>,
    ) -> anyhow::Result<(Self, Vec<String>, String)> {
        let dir = tempfile::tempdir()?;
        std::fs::write(
            dir.path().join("gateway.toml"),
            format!(
                "box_id = \"bench\"\n[listen]\nmqtt = \"{MQTT}\"\nrtsp = \"{RTSP}\"\nhttp = \"{HTTP}\"\nwebrtc = \"{WEBRTC}\"\n\
                 mqtts = \"{MQTTS}\"\nrtsps = \"off\"\nhttps = \"off\"\n\
                 [mqtt]\nconnections_max = 20000\n[webrtc]\nsessions_max = 4096\n"
            ),
        )?;
        let registry = kerbside::registry::Registry::open(&dir.path().join("state"))?;
        let kind = kerbside::registry::DeviceKind::Bodycam;
        let all = devices
            .iter()
            .map(|id| kerbside::registry::Device::new(id, kind));
        let passwords = registry.enrol_all(all.collect())?;
        let token = registry.add_user("bench", kerbside::registry::Role::Operator)?;
        drop(registry);
        let started = Instant::now();
        let server = Server::spawn(
            pinned(kerbside, cpu)
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
