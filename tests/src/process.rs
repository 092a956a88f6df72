//! A child process with a log file that never outlives its parent.
//!
//! Here: start, signals, waiting, the end of the log. Not here: what the processes are for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A running program. Dropping it kills it.
pub struct Process {
    pub name: String,
    pub log: PathBuf,
    child: Child,
}

/// A command whose process is killed by the kernel when the thread that starts it is gone (`kill -9` included), in a
/// process group of its own: Ctrl-C at the terminal reaches us alone and we stop the others in order.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .process_group(0)
        .kill_on_drop(true);
    command
}

impl Process {
    /// Starts `command` (made by [`command`]); its output goes to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Process> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name} (setpriv of util-linux is needed)"))?;
        Ok(Process {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
        })
    }

    /// Process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// False when it is gone already.
    pub fn signal(&self, signal: Signal) -> bool {
        self.child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// How it ended, or None while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end; None after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(limit, self.child.wait())
            .await
            .ok()
            .and_then(Result::ok)
    }

    /// SIGTERM, and SIGKILL after `limit`. The status if it ended by itself in time.
    pub async fn stop(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let status = self.wait(limit).await;
        if status.is_none() {
            self.kill().await;
        }
        status
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        if let Err(fault) = self.child.kill().await {
            tracing::warn!(name = %self.name, %fault, "cannot be killed");
        }
    }

    /// Memory it holds that is in the machine's (RSS); 0 when it is gone.
    pub fn resident_bytes(&self) -> u64 {
        self.of_status("VmRSS:").unwrap_or(0) << 10
    }

    /// Its threads now.
    pub fn threads(&self) -> u64 {
        self.of_status("Threads:").unwrap_or(0)
    }

    /// File descriptors open now.
    pub fn open_files(&self) -> usize {
        let id = self.id().unwrap_or(0);
        std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
    }

    /// A number of `/proc/ID/status`.
    fn of_status(&self, name: &str) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let rest = text.lines().find_map(|l| l.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// The last lines of its log.
    pub fn tail(&self, lines: usize) -> String {
        let text = read_from(&self.log, 0).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// The text of a growing file from byte `from` on.
pub fn read_from(path: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
