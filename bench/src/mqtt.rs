//! MQTT publishers with QoS 1: processor time of the server per message, beside mosquitto in the same run.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{Gateway, MQTT, Server};

const MOSQUITTO: &str = "127.0.0.1:21884";

fn string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend_from_slice(&u16::try_from(s.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(s);
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut n = body.len();
    loop {
        let b = (n % 128) as u8;
        n /= 128;
        out.push(if n > 0 { b | 0x80 } else { b });
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

async fn connect(addr: &str, id: &str, login: Option<&str>) -> anyhow::Result<TcpStream> {
    let mut s = TcpStream::connect(addr).await?;
    s.set_nodelay(true)?;
    let mut body = Vec::new();
    string(&mut body, b"MQTT");
    body.push(4);
    body.push(if login.is_some() { 0xc2 } else { 0x02 });
    body.extend_from_slice(&600u16.to_be_bytes());
    string(&mut body, id.as_bytes());
    if let Some(password) = login {
        string(&mut body, id.as_bytes());
        string(&mut body, password.as_bytes());
    }
    s.write_all(&packet(0x10, &body)).await?;
    let mut ack = [0; 4];
    s.read_exact(&mut ack).await?;
    if ack[0] != 0x20 || ack[3] != 0 {
        bail!("{id}: CONNACK {ack:?}");
    }
    Ok(s)
}

/// A report of 259 bytes of payload, as a body camera sends it.
fn report(n: u64) -> Vec<u8> {
    let lat = 37.69 + (n % 1000) as f64 * 1e-6;
    let text = format!(
        r#"{{"time_ms":{},"position":{{"lat":{lat:.7},"lon":112.7501234,"alt_m":801.5,"accuracy_m":5.0,"speed_mps":1.25,"heading_deg":271.5}},"battery_pct":83,"kind":"bodycam","model":"X5","mode":"patrol""#,
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_millis())
    );
    let pad = 259usize.saturating_sub(text.len() + 9);
    format!("{text},\"pad\":\"{}\"}}", "x".repeat(pad.saturating_sub(1))).into_bytes()
}

/// Sends `per_second` messages a second over all connections; every one must be acknowledged.
async fn load(
    addr: &'static str,
    ids: &[(String, Option<String>)],
    per_second: u64,
    seconds: u64,
) -> anyhow::Result<u64> {
    let mut tasks = Vec::new();
    let gap = Duration::from_secs_f64(ids.len() as f64 / per_second as f64);
    for device in ids {
        let (id, password) = device.clone();
        tasks.push(tokio::spawn(async move {
            let mut s = connect(addr, &id, password.as_deref()).await?;
            let topic = format!("kerbside/v1/{id}/report");
            let mut every = tokio::time::interval(gap);
            let until = Instant::now() + Duration::from_secs(seconds);
            let mut sent = 0u64;
            while Instant::now() < until {
                every.tick().await;
                let mut body = Vec::with_capacity(320);
                string(&mut body, topic.as_bytes());
                let pid = u16::try_from(sent % 65_535)? + 1;
                body.extend_from_slice(&pid.to_be_bytes());
                body.extend_from_slice(&report(sent));
                s.write_all(&packet(0x32, &body)).await?;
                let mut ack = [0; 4];
                s.read_exact(&mut ack).await.context("PUBACK")?;
                if ack != [0x40, 2, body[2 + topic.len()], body[3 + topic.len()]] {
                    bail!("{id}: expected PUBACK, got {ack:?}");
                }
                sent += 1;
            }
            Ok::<u64, anyhow::Error>(sent)
        }));
    }
    let mut sent = 0;
    for t in tasks {
        sent += t.await??;
    }
    Ok(sent)
}

pub struct MqttRow {
    pub name: &'static str,
    pub messages: u64,
    pub us_per_message: f64,
}

pub async fn run(
    kerbside: &Path,
    connections: usize,
    per_second: u64,
    seconds: u64,
) -> anyhow::Result<Vec<MqttRow>> {
    let ids: Vec<String> = (0..connections).map(|i| format!("dev-{i:05}")).collect();
    let mut rows = Vec::new();
    {
        let (gateway, passwords, _) = Gateway::start(kerbside, &ids, None)?;
        let logins: Vec<_> = ids
            .iter()
            .cloned()
            .zip(passwords.into_iter().map(Some))
            .collect();
        let cpu = gateway.server.cpu()?;
        let messages = load(MQTT, &logins, per_second, seconds).await?;
        let cpu = gateway.server.cpu()? - cpu;
        rows.push(MqttRow {
            name: "kerbside (decoded, fused, fed)",
            messages,
            us_per_message: us(cpu, messages),
        });
    }
    let dir = tempfile::tempdir()?;
    let conf = dir.path().join("mosquitto.conf");
    let port = MOSQUITTO.rsplit(':').next().unwrap_or_default();
    std::fs::write(
        &conf,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n"),
    )?;
    let mosquitto = Server::spawn(Command::new("mosquitto").arg("-c").arg(&conf))
        .context("mosquitto is not installed: run `make test` once")?;
    let until = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(MOSQUITTO).await.is_err() {
        if Instant::now() > until {
            bail!("mosquitto did not start");
        }
        tokio::task::yield_now().await;
    }
    let consumer = Server::spawn(Command::new("mosquitto_sub").args([
        "-h",
        "127.0.0.1",
        "-p",
        port,
        "-t",
        "#",
        "-q",
        "1",
    ]))?;
    let logins: Vec<_> = ids.into_iter().map(|i| (i, None)).collect();
    let (broker, eater) = (mosquitto.cpu()?, consumer.cpu()?);
    let messages = load(MOSQUITTO, &logins, per_second, seconds).await?;
    let (broker, eater) = (mosquitto.cpu()? - broker, consumer.cpu()? - eater);
    rows.push(MqttRow {
        name: "mosquitto alone",
        messages,
        us_per_message: us(broker, messages),
    });
    rows.push(MqttRow {
        name: "mosquitto + mosquitto_sub",
        messages,
        us_per_message: us(broker + eater, messages),
    });
    Ok(rows)
}

fn us(cpu: Duration, messages: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / messages.max(1) as f64
}

/// Resident memory per idle, connected device.
pub async fn idle(kerbside: &Path, devices: usize) -> anyhow::Result<(u64, f64)> {
    let ids: Vec<String> = (0..devices).map(|i| format!("dev-{i:05}")).collect();
    let (gateway, passwords, _) = Gateway::start(kerbside, &ids, None)?;
    let before = gateway.server.process().memory()?.rss;
    let mut held = Vec::with_capacity(devices);
    for (id, password) in ids.iter().zip(&passwords) {
        held.push(connect(MQTT, id, Some(password)).await?);
    }
    let after = gateway.server.process().memory()?.rss;
    drop(held);
    Ok((
        before,
        (after.saturating_sub(before)) as f64 / devices as f64 / 1024.0,
    ))
}
