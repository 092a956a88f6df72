//! MQTT publishers: processor time of the server per message, beside mosquitto with one subscriber in the same run.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::mqtt_client::{Device, Target, any_certificate, report, up};
use crate::process::{Gateway, MQTT, MQTTS, Server};

const MOSQUITTO: &str = "127.0.0.1:21884";

/// What is sent.
#[derive(Clone, Copy)]
pub struct Load {
    pub connections: usize,
    pub per_second: u64,
    pub seconds: u64,
    pub qos: u8,
    pub tls: bool,
}

impl Load {
    fn target(self, plain: &'static str, secure: &'static str) -> anyhow::Result<Target> {
        Ok(Target {
            addr: if self.tls { secure } else { plain },
            tls: self.tls.then(any_certificate).transpose()?,
        })
    }

    /// Connects, waits for the clock to start, sends; every message must be acknowledged as its quality of service
    /// wants, the last one always. Gives messages and what the servers took for them.
    async fn run(
        self,
        target: &Target,
        logins: &[(String, Option<String>)],
        servers: &[&Server],
    ) -> anyhow::Result<(u64, Vec<[Duration; 2]>)> {
        let mut devices = Vec::new();
        for (id, password) in logins {
            devices.push(Device::connect(target, id, password.as_deref()).await?);
        }
        let cpu = |s: &[&Server]| {
            s.iter()
                .map(|s| s.process().times())
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let before = cpu(servers)?;
        let gap = Duration::from_secs_f64(logins.len() as f64 / self.per_second as f64);
        let mut tasks = Vec::new();
        for (i, mut device) in devices.into_iter().enumerate() {
            let first = tokio::time::Instant::now() + gap.mul_f64(i as f64 / logins.len() as f64);
            tasks.push(tokio::spawn(async move {
                let mut every = tokio::time::interval_at(first, gap);
                let until = Instant::now() + Duration::from_secs(self.seconds);
                let mut sent = 0u64;
                while Instant::now() < until {
                    every.tick().await;
                    device.send(&report(sent, "patrol"), self.qos).await?;
                    sent += 1;
                }
                // All before it are through then.
                device
                    .send(&report(sent, "patrol"), self.qos.max(1))
                    .await?;
                Ok::<u64, anyhow::Error>(sent + 1)
            }));
        }
        let mut sent = 0;
        for t in tasks {
            sent += t.await??;
        }
        let after = cpu(servers)?;
        let spent = after
            .iter()
            .zip(&before)
            .map(|(a, b)| [a[0] - b[0], a[1] - b[1]]);
        Ok((sent, spent.collect()))
    }
}

pub struct MqttRow {
    pub name: &'static str,
    pub messages: u64,
    /// User and system.
    pub us_per_message: f64,
    /// User alone.
    pub user_us: f64,
}

pub async fn run(kerbside: &Path, load: Load) -> anyhow::Result<Vec<MqttRow>> {
    let ids: Vec<String> = (0..load.connections)
        .map(|i| format!("dev-{i:05}"))
        .collect();
    let mut rows = Vec::new();
    let mut add = |name, messages: u64, [user, system]: [Duration; 2]| {
        let us = |d: Duration| d.as_secs_f64() * 1e6 / messages.max(1) as f64;
        rows.push(MqttRow {
            name,
            messages,
            us_per_message: us(user + system),
            user_us: us(user),
        });
    };
    {
        let (gateway, passwords, _) = Gateway::start(kerbside, &ids, None)?;
        let passwords = passwords.into_iter().map(Some);
        let logins: Vec<_> = ids.iter().cloned().zip(passwords).collect();
        let target = load.target(MQTT, MQTTS)?;
        let (messages, cpu) = load.run(&target, &logins, &[&gateway.server]).await?;
        add("kerbside (decoded, fused, fed)", messages, cpu[0]);
    }
    let dir = tempfile::tempdir()?;
    let conf = dir.path().join("mosquitto.conf");
    let port = MOSQUITTO.rsplit(':').next().unwrap_or_default();
    let mut text =
        format!("allow_anonymous true\nlog_dest none\nuser root\nlistener {port} 127.0.0.1\n");
    if load.tls {
        let (cert, key) = certificate(dir.path())?;
        text = format!("{text}certfile {cert}\nkeyfile {key}\n");
        // The consumer comes without TLS, as it would on the same machine.
        text += "listener 21885 127.0.0.1\n";
    }
    std::fs::write(&conf, text)?;
    let mosquitto = Server::spawn(Command::new("mosquitto").arg("-c").arg(&conf))
        .context("mosquitto is not installed: run `make test` once")?;
    let plain = if load.tls { "21885" } else { port };
    up(MOSQUITTO).await.context("mosquitto did not start")?;
    let qos = load.qos.to_string();
    let consumer = Server::spawn(Command::new("mosquitto_sub").args([
        "-h",
        "127.0.0.1",
        "-p",
        plain,
        "-t",
        "#",
        "-q",
        &qos,
    ]))?;
    let logins: Vec<_> = ids.into_iter().map(|i| (i, None)).collect();
    let target = load.target(MOSQUITTO, MOSQUITTO)?;
    let (messages, cpu) = load.run(&target, &logins, &[&mosquitto, &consumer]).await?;
    add("mosquitto alone", messages, cpu[0]);
    let both = [cpu[0][0] + cpu[1][0], cpu[0][1] + cpu[1][1]];
    add("mosquitto + mosquitto_sub", messages, both);
    Ok(rows)
}

/// A certificate of its own for whoever needs one: its file and that of its key.
pub fn certificate(dir: &Path) -> anyhow::Result<(String, String)> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .context("openssl is not installed: run `make test` once")?;
    if !made.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok((cert.display().to_string(), key.display().to_string()))
}

/// Resident memory per idle, connected device.
pub async fn idle(kerbside: &Path, devices: usize) -> anyhow::Result<(u64, f64)> {
    let ids: Vec<String> = (0..devices).map(|i| format!("dev-{i:05}")).collect();
    let (gateway, passwords, _) = Gateway::start(kerbside, &ids, None)?;
    let before = gateway.server.process().memory()?.rss;
    let mut held = Vec::with_capacity(devices);
    let target = Target {
        addr: MQTT,
        tls: None,
    };
    for (id, password) in ids.iter().zip(&passwords) {
        held.push(Device::connect(&target, id, Some(password)).await?);
    }
    let after = gateway.server.process().memory()?.rss;
    drop(held);
    Ok((
        before,
        (after.saturating_sub(before)) as f64 / devices as f64 / 1024.0,
    ))
}
