//! One real gateway with its configuration and state in a temporary directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, free_port};
use crate::process::{Process, command};

const READY_MAX: Duration = Duration::from_secs(20);

/// What differs between scenarios.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Platforms as (name, URL).
    pub platforms: Vec<(String, String)>,
    /// Further text of `platforms.toml` in each platform's table.
    pub platform_keys: String,
    /// Text of `rules.toml`; empty: SOS, zone left, battery low, stream lost.
    pub rules: String,
    /// Text of `grid.geojson`.
    pub grid: Option<String>,
    /// Text of `formats.toml`.
    pub formats: Option<String>,
    /// Further text of `gateway.toml`, after `[listen]`.
    pub more: String,
    /// Open the TLS ports too; with `[tls]` in `more`, or with the gateway's own certificate.
    pub tls: bool,
    /// Where the state is kept instead of in the temporary directory.
    pub state: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub mqtt: u16,
    pub rtsp: u16,
    pub http: u16,
    pub webrtc: u16,
    /// These three are served if [`Setup::tls`].
    pub mqtts: u16,
    pub rtsps: u16,
    pub https: u16,
}

pub struct Gateway {
    dir: TempDir,
    state: PathBuf,
    pub ports: Ports,
    process: Option<Process>,
    secrets: Mutex<BTreeMap<String, String>>,
}

const RULES: &str = r#"
[[rule]]
name = "sos"
when = "report.sos"
severity = "critical"
priority = "P0"

[[rule]]
name = "zone_left"
when = "size(track.left_zones) > 0"
severity = "major"

[[rule]]
name = "battery_low"
when = "report.battery_pct < 15.0"
severity = "minor"

[[rule]]
name = "stream_lost"
when = 'stream.phase == "lost"'
severity = "minor"
"#;

/// The gateway's program: `KERBSIDE_BIN`, or beside the directory of this test's own program.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("KERBSIDE_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("own program");
    let beside = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("kerbside"))
        .find(|path| path.is_file());
    beside.expect("the gateway's program is not built: run `cargo build -p kerbside` first, or set KERBSIDE_BIN")
}

/// The root of the project.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ has a parent")
        .to_owned()
}

impl Gateway {
    /// Writes the configuration, starts the gateway and waits until it is ready.
    pub async fn start(setup: Setup) -> Gateway {
        let mut gateway = Gateway::prepare(&setup);
        gateway.run().await;
        gateway
    }

    /// Writes the configuration only.
    pub fn prepare(setup: &Setup) -> Gateway {
        let dir = tempfile::Builder::new()
            .prefix("kerbside-e2e-")
            .tempdir()
            .expect("temporary directory");
        let ports = Ports {
            mqtt: free_port(),
            rtsp: free_port(),
            http: free_port(),
            webrtc: free_port(),
            mqtts: free_port(),
            rtsps: free_port(),
            https: free_port(),
        };
        let state = setup
            .state
            .clone()
            .unwrap_or_else(|| dir.path().join("state"));
        std::fs::create_dir_all(&state).expect("state directory");
        let config = dir.path().join("config");
        std::fs::create_dir(&config).expect("configuration directory");
        let write = |name: &str, text: &str| {
            std::fs::write(config.join(name), text).expect("configuration file");
        };
        let Ports {
            mqtt,
            rtsp,
            http,
            webrtc,
            mqtts,
            rtsps,
            https,
        } = ports;
        let secure = |port| match setup.tls {
            true => format!("127.0.0.1:{port}"),
            false => "off".to_owned(),
        };
        let (mqtts, rtsps, https) = (secure(mqtts), secure(rtsps), secure(https));
        write(
            "gateway.toml",
            &format!(
                "box_id = \"e2e\"\ndrain_s_max = 5\n\n[listen]\nmqtt = \"127.0.0.1:{mqtt}\"\nrtsp = \"127.0.0.1:{rtsp}\"\n\
                 http = \"127.0.0.1:{http}\"\nwebrtc = \"127.0.0.1:{webrtc}\"\n\
                 mqtts = \"{mqtts}\"\nrtsps = \"{rtsps}\"\nhttps = \"{https}\"\n\n{}",
                setup.more
            ),
        );
        write(
            "rules.toml",
            if setup.rules.is_empty() {
                RULES
            } else {
                &setup.rules
            },
        );
        let mut platforms = String::new();
        for (name, url) in &setup.platforms {
            writeln!(
                platforms,
                "[[platform]]\nname = \"{name}\"\nurl = \"{url}\"\n{}\n",
                setup.platform_keys
            )
            .expect("text grows");
        }
        write("platforms.toml", &platforms);
        if let Some(grid) = &setup.grid {
            write("grid.geojson", grid);
        }
        if let Some(formats) = &setup.formats {
            write("formats.toml", formats);
        }
        Gateway {
            dir,
            state,
            ports,
            process: None,
            secrets: Mutex::default(),
        }
    }

    /// Starts the process and waits until it is ready.
    pub async fn run(&mut self) {
        self.spawn();
        let url = format!("{}/readyz", self.http());
        let client = reqwest::Client::new();
        let deadline = tokio::time::Instant::now() + READY_MAX;
        eventually(
            READY_MAX + Duration::from_secs(1),
            "the gateway is ready",
            async || {
                let process = self.process.as_mut()?;
                if let Some(status) = process.ended() {
                    panic!("the gateway ended at start: {status}\n{}", process.tail(30));
                }
                let ready = client
                    .get(&url)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success());
                if !ready && tokio::time::Instant::now() > deadline {
                    panic!("the gateway is not ready\n{}", process.tail(30));
                }
                ready.then_some(())
            },
        )
        .await;
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        let mut run = command(program());
        run.arg("run")
            .arg("--config")
            .arg(self.config())
            .arg("--state")
            .arg(&self.state);
        if std::env::var_os("RUST_LOG").is_none() {
            run.env("RUST_LOG", "info,kerbside=debug");
        }
        self.process = Some(Process::start("gateway", run, &self.log()).expect("gateway starts"));
    }

    /// Puts another `grid.geojson` in place, as a careful editor does: whole.
    pub fn change_grid(&self, text: &str) {
        let new = self.dir().join("grid.new");
        std::fs::write(&new, text).expect("new grid");
        std::fs::rename(&new, self.config().join("grid.geojson")).expect("grid in place");
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Scratch space of the scenario.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("gateway.log")
    }

    /// Everything it logged so far.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    pub fn mqtt(&self) -> String {
        format!("127.0.0.1:{}", self.ports.mqtt)
    }

    /// `rtsp://NAME:SECRET@HOST/stream` for somebody added before.
    pub fn rtsp_as(&self, name: &str, stream: &str) -> String {
        format!(
            "rtsp://{name}:{}@127.0.0.1:{}/{stream}",
            self.secret(name),
            self.ports.rtsp
        )
    }

    /// Runs a command of the gateway on the same configuration and state; its output as text if it succeeds.
    pub fn cli(&self, words: &[&str]) -> Result<String, String> {
        let output = std::process::Command::new(program())
            .arg("--config")
            .arg(self.config())
            .arg("--state")
            .arg(&self.state)
            .args(words)
            .output()
            .expect("gateway's program runs");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Adds somebody with a command (`device add ID …`); the secret under that key of the answer, which is kept.
    pub fn add(&self, words: &[&str], secret: &str) -> String {
        let told = self
            .cli(words)
            .unwrap_or_else(|fault| panic!("kerbside {words:?}: {fault}"));
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let secret = told[secret].as_str().expect("a secret").to_owned();
        self.secrets
            .lock()
            .expect("secrets")
            .insert(words[2].to_owned(), secret.clone());
        secret
    }

    /// Adds a device; its password.
    pub fn device(&self, id: &str, kind: &str, unit: Option<&str>) -> String {
        let mut words = vec!["device", "add", id, "--kind", kind, "--json"];
        words.extend(unit.map(|unit| ["--unit", unit]).into_iter().flatten());
        self.add(&words, "password")
    }

    /// Adds a device that only users with the grant may see; its password.
    pub fn restricted_device(&self, id: &str, kind: &str) -> String {
        let words = [
            "device",
            "add",
            id,
            "--kind",
            kind,
            "--restricted",
            "--json",
        ];
        self.add(&words, "password")
    }

    /// Adds a user; their token.
    pub fn user(&self, name: &str, role: &str) -> String {
        self.add(&["user", "add", name, "--role", role, "--json"], "token")
    }

    /// The password or token of somebody added before.
    pub fn secret(&self, name: &str) -> String {
        let secrets = self.secrets.lock().expect("secrets");
        secrets
            .get(name)
            .unwrap_or_else(|| panic!("{name} was not added"))
            .clone()
    }

    /// GET with a user's token; status and body.
    pub async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        let answer = reqwest::Client::new()
            .get(format!("{}{path}", self.http()))
            .bearer_auth(token)
            .send()
            .await
            .unwrap_or_else(|fault| panic!("GET {path}: {fault}"));
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// The value of a metric: the sum over its series whose line contains all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = match reqwest::get(format!("{}/metrics", self.http())).await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => return f64::NAN,
        };
        let series = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Its process, while it was started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the gateway was started")
    }

    /// SIGKILL, as a power failure does it.
    pub async fn kill(&mut self) {
        self.process().signal(Signal::KILL);
        let gone = self.process().wait(Duration::from_secs(5)).await;
        assert!(gone.is_some(), "the gateway survives SIGKILL");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(process) = &self.process
        {
            eprintln!(
                "---- the gateway's last lines ----\n{}\n----",
                process.tail(80)
            );
        }
    }
}
