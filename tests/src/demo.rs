//! The demonstration that `make run` starts: a gateway, a command platform and a fleet, and one way to stop them all.
//!
//! Here: the order of starting and stopping, and what the person at the terminal reads. Not here: what the parts do.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::process::{Process, command, read_from};

const READY_MAX: Duration = Duration::from_secs(30);
const FLEET_STOP_MAX: Duration = Duration::from_secs(8);
const GATEWAY_STOP_MAX: Duration = Duration::from_secs(20);

#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// The gateway's program.
    #[arg(long)]
    pub kerbside: PathBuf,
    #[arg(long, default_value = "configs/demo")]
    pub config: PathBuf,
    /// Directory for state and logs, kept afterwards. Not given: a temporary one, removed at the end.
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Addresses that the configuration gives to the gateway.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub mqtt: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8554")]
    pub rtsp: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8189")]
    pub webrtc: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8883")]
    pub mqtts: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8322")]
    pub rtsps: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub https: SocketAddr,
    /// Where the configuration sends events to.
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub platform: SocketAddr,
    #[arg(long, default_value_t = 8)]
    pub bodycams: usize,
    #[arg(long, default_value_t = 2)]
    pub drones: usize,
    #[arg(long, default_value_t = 30)]
    pub vehicles: usize,
    #[arg(long, default_value_t = 6)]
    pub radios: usize,
    /// Seconds between calls for help.
    #[arg(long, default_value_t = 45)]
    pub sos_every: u64,
}

#[derive(Deserialize)]
struct Secret {
    password: String,
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

/// `kerbside-sim demo`.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    free(&args)?;
    let temporary = match &args.state {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("kerbside-demo-")
                .tempdir()
                .context("no temporary directory")?,
        ),
    };
    let state = match (&args.state, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.path().to_owned(),
        (None, None) => bail!("no state directory"),
    };
    std::fs::create_dir_all(&state).with_context(|| state.display().to_string())?;
    println!(
        "[demo] registering {} devices",
        args.bodycams + args.drones + args.vehicles + args.radios
    );
    let devices = register(&args, &state).await?;
    let login: Login = cli(
        &args,
        &state,
        &[
            "user",
            "add",
            "operator",
            "--role",
            "operator",
            "--restricted",
            "--json",
        ],
    )
    .await?;

    let mut parts: Vec<Process> = Vec::new();
    let outcome = tokio::select! {
        outcome = start_and_watch(&args, &state, &devices, &login, &mut parts) => outcome,
        () = crate::fleet::stopped() => Ok(()),
    };
    println!("[demo] stopping");
    // In reverse: those who send first, those who receive last.
    for mut part in parts.into_iter().rev() {
        let limit = if part.name == "gateway" {
            GATEWAY_STOP_MAX
        } else {
            FLEET_STOP_MAX
        };
        if part.ended().is_none() && part.stop(limit).await.is_none() {
            println!(
                "[demo] {} did not stop within {} s and was killed",
                part.name,
                limit.as_secs()
            );
        }
    }
    println!("[demo] stopped");
    outcome
}

/// Starts the parts in order and ends with an error when one of them dies.
async fn start_and_watch(
    args: &DemoArgs,
    state: &Path,
    devices: &Path,
    login: &Login,
    parts: &mut Vec<Process>,
) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("own program not found")?;
    let mut platform = command(&own);
    platform
        .arg("platform")
        .arg("--listen")
        .arg(args.platform.to_string());
    parts.push(Process::start(
        "platform",
        platform,
        &state.join("platform.log"),
    )?);

    let mut gateway = command(&args.kerbside);
    gateway
        .arg("run")
        .arg("--config")
        .arg(&args.config)
        .arg("--state")
        .arg(state);
    parts.push(Process::start(
        "gateway",
        gateway,
        &state.join("gateway.log"),
    )?);
    println!("[demo] waiting for the gateway");
    ready(args, parts).await?;

    let mut fleet = command(&own);
    fleet.arg("fleet").arg("--devices").arg(devices);
    fleet.args([
        "--mqtt",
        &args.mqtt.to_string(),
        "--rtsp",
        &args.rtsp.to_string(),
    ]);
    fleet.args([
        "--http",
        &format!("http://{}", args.http),
        "--sos-every",
        &args.sos_every.to_string(),
    ]);
    let grid = args.config.join("grid.geojson");
    if grid.exists() {
        fleet.arg("--grid").arg(grid);
    }
    parts.push(Process::start("fleet", fleet, &state.join("fleet.log"))?);

    println!(
        "{}",
        welcome(
            &format!("http://{}/", args.http),
            &format!("https://{}/", args.https),
            &login.token,
            state
        )
    );
    let mut seen: Vec<u64> = vec![0; parts.len()];
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        ticks.tick().await;
        for (part, seen) in parts.iter_mut().zip(&mut seen) {
            follow(part, seen);
            if let Some(status) = part.ended() {
                bail!(
                    "{} ended unexpectedly ({status}). Its last lines:\n{}",
                    part.name,
                    part.tail(20)
                );
            }
        }
    }
}

/// Prints what a part logged since the last time: of the gateway only what needs attention, the rest is in its file.
fn follow(part: &Process, seen: &mut u64) {
    let Ok(text) = read_from(&part.log, *seen) else {
        return;
    };
    let Some(end) = text.rfind('\n') else { return };
    *seen += end as u64 + 1;
    for line in text[..end].lines() {
        if part.name != "gateway" || line.contains("WARN") || line.contains("ERROR") {
            println!("[{}] {line}", part.name);
        }
    }
}

fn welcome(address: &str, secure: &str, token: &str, state: &Path) -> String {
    let lines = [
        "Kerbside is running.".to_owned(),
        String::new(),
        format!("Console:  {address}#token={token}"),
        format!("With TLS: {secure}   (its own certificate: the browser warns once)"),
        format!("Token:    {token}   (user operator, of this run only)"),
        format!("Logs:     {}/*.log", state.display()),
        String::new(),
        "Ctrl-C stops everything.".to_owned(),
    ];
    let width = lines
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let edge = "=".repeat(width + 4);
    let mut text = format!("\n{edge}\n");
    for line in lines {
        text.push_str(&format!("| {line:width$} |\n"));
    }
    text + &edge + "\n"
}

async fn ready(args: &DemoArgs, parts: &mut [Process]) -> anyhow::Result<()> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(2))
        .build()?;
    let url = format!("http://{}/readyz", args.http);
    let deadline = tokio::time::Instant::now() + READY_MAX;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        for part in parts.iter_mut() {
            if let Some(status) = part.ended() {
                bail!(
                    "{} ended at start ({status}). Its last lines:\n{}",
                    part.name,
                    part.tail(20)
                );
            }
        }
        let reason = match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(fault) => fault.to_string(),
        };
        if tokio::time::Instant::now() > deadline {
            bail!(
                "the gateway is not ready after {} s: {reason}",
                READY_MAX.as_secs()
            );
        }
    }
}

/// Adds the devices and writes their credentials for the fleet (mode 0600).
async fn register(args: &DemoArgs, state: &Path) -> anyhow::Result<PathBuf> {
    let path = state.join("devices.jsonl");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    for member in roster(args) {
        let Member { id, kind, unit, .. } = &member;
        let mut arguments = vec!["device", "add", id, "--kind", kind, "--unit", unit];
        arguments.extend(["--agency", member.agency]);
        if let Some(person) = &member.person {
            arguments.extend(["--person", person]);
        }
        if member.is_restricted {
            arguments.push("--restricted");
        }
        arguments.push("--json");
        let secret: Secret = cli(args, state, &arguments).await?;
        let device = serde_json::json!({"id": id, "password": secret.password, "kind": kind, "unit": unit,
            "person": member.person});
        writeln!(file, "{device}")?;
    }
    Ok(path)
}

/// One device of the demonstration.
struct Member {
    id: String,
    kind: &'static str,
    unit: String,
    agency: &'static str,
    person: Option<String>,
    is_restricted: bool,
}

/// Three patrols of three agencies; who bears a radio bears the body camera of the same number too. The last vehicle is
/// on restricted duty.
fn roster(args: &DemoArgs) -> Vec<Member> {
    const PATROLS: [&str; 3] = ["chengguan", "jiaojing", "xunte"];
    let kinds = [
        ("bc", "bodycam", "patrol", args.bodycams),
        ("uav", "drone", "air", args.drones),
        ("ev", "vehicle", "mobile", args.vehicles),
        ("radio", "radio", "patrol", args.radios),
    ];
    let mut all = Vec::new();
    for (prefix, kind, squad, count) in kinds {
        for number in 1..=count {
            let patrol = (number - 1) % PATROLS.len();
            let (unit, agency, person) = match squad {
                "patrol" => (
                    format!("patrol-{}", patrol + 1),
                    PATROLS[patrol],
                    Some(format!("officer-{number:02}")),
                ),
                "air" => ("air-1".to_owned(), "xunte", None),
                _ => (format!("{squad}-1"), PATROLS[number % 2], None),
            };
            all.push(Member {
                id: format!("{prefix}-{number:02}"),
                kind,
                unit,
                agency,
                person,
                is_restricted: kind == "vehicle" && number > 1 && number == count,
            });
        }
    }
    all
}

/// Runs a command of the gateway that answers in JSON.
async fn cli<T: serde::de::DeserializeOwned>(
    args: &DemoArgs,
    state: &Path,
    words: &[&str],
) -> anyhow::Result<T> {
    let output = tokio::process::Command::new(&args.kerbside)
        .arg("--config")
        .arg(&args.config)
        .arg("--state")
        .arg(state)
        .args(words)
        .output()
        .await
        .with_context(|| {
            format!(
                "cannot start {}; build it with `make build`",
                args.kerbside.display()
            )
        })?;
    let told = words[..3.min(words.len())].join(" ");
    if !output.status.success() {
        bail!(
            "kerbside {told}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("kerbside {told}: unexpected answer"))
}

/// Says which address is taken, before anything is started.
fn free(args: &DemoArgs) -> anyhow::Result<()> {
    let taken = |what: &str, addr: SocketAddr, fault: &std::io::Error| {
        anyhow::anyhow!(
            "{what} cannot use {addr} ({fault}). Find the program with `ss -lptun sport = :{}`, stop it, and try again",
            addr.port()
        )
    };
    for (what, addr) in [
        ("MQTT", args.mqtt),
        ("RTSP", args.rtsp),
        ("HTTP", args.http),
        ("MQTT with TLS", args.mqtts),
        ("RTSP with TLS", args.rtsps),
        ("HTTPS", args.https),
        ("the command platform", args.platform),
    ] {
        TcpListener::bind(addr).map_err(|fault| taken(what, addr, &fault))?;
    }
    UdpSocket::bind(args.webrtc).map_err(|fault| taken("WebRTC", args.webrtc, &fault))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_closed_on_all_sides() {
        let (plain, secure) = ("http://127.0.0.1:8080/", "https://127.0.0.1:8443/");
        let text = welcome(plain, secure, "secret", Path::new("/tmp/x"));
        let widths: Vec<usize> = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.chars().count())
            .collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
        assert!(text.contains("http://127.0.0.1:8080/#token=secret"));
    }
}
