//! TLS on every port, judged by openssl, curl, mosquitto and ffmpeg: the gateway's own certificate, the operator's, and
//! its change while sessions go on.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use kerbside_sim::harness::tools::{self, ffmpeg_pull, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually, until};
use kerbside_sim::process::Process;

use crate::LIMIT;

fn all_there() -> bool {
    ["openssl", "curl", "ffmpeg", "mosquitto_pub"]
        .into_iter()
        .all(have)
}

/// The SHA-256 fingerprint of the certificate that a port shows to somebody new.
async fn shown(port: u16) -> String {
    let text = format!(
        "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
    );
    let said = tools::run(LIMIT, "sh", &["-c", &text]).await;
    let fingerprint = said.out.trim().split_once('=');
    fingerprint.map_or(String::new(), |(_, f)| f.to_owned())
}

async fn curl(ca: &Path, more: &[&str], url: &str) -> tools::Said {
    let mut args = vec!["-sS", "--max-time", "15", "--cacert", ca.to_str().unwrap()];
    args.extend(more);
    args.push(url);
    tools::run(LIMIT, "curl", &args).await
}

#[tokio::test]
async fn a_box_without_a_certificate_makes_its_own() {
    if !all_there() {
        return;
    }
    let mut gateway = Gateway::prepare(&Setup {
        tls: true,
        ..Setup::default()
    });
    assert_eq!(
        gateway.cli(&["check"]).unwrap(),
        "ok\n",
        "nothing is made by looking"
    );
    gateway.run().await;
    let ports = gateway.ports;
    let file = gateway.state().join("self-signed.pem");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = shown(ports.https).await;
    assert_eq!(first.len(), 95, "{first}");
    for port in [ports.mqtts, ports.rtsps] {
        assert_eq!(shown(port).await, first);
    }
    // Told where an operator looks: in the log, and by `check`.
    assert!(gateway.logged().contains(&first), "{}", gateway.logged());
    let told = gateway.cli(&["check"]).unwrap();
    assert!(
        told.contains(&first) && told.contains("valid until"),
        "{told}"
    );
    // It names this machine; old protocols are refused; no page is bound to it for later.
    for host in ["127.0.0.1", "localhost"] {
        for tls in ["1.2", "1.3"] {
            let url = format!("https://{host}:{}/readyz", ports.https);
            let said = curl(&file, &["-i", "--tls-max", tls], &url)
                .await
                .succeeded();
            assert!(
                said.out.contains("200 OK") && said.out.ends_with("ready"),
                "{said:?}"
            );
            assert!(
                !said.out.to_lowercase().contains("strict-transport"),
                "{said:?}"
            );
        }
    }
    let url = format!("https://127.0.0.1:{}/readyz", ports.https);
    let old = ["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"];
    assert!(!curl(&file, &old, &url).await.status.success());

    // The same after a restart; a new one, and a word about it, when it is damaged.
    gateway.kill().await;
    gateway.run().await;
    assert_eq!(shown(ports.https).await, first);
    gateway.kill().await;
    std::fs::write(&file, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    gateway.run().await;
    let second = shown(ports.https).await;
    assert!(second.len() == 95 && second != first, "{second}");
    assert!(gateway.logged().contains("certificate was replaced"));
}

/// A certificate for 127.0.0.1 by openssl, into the configuration directory.
async fn make(dir: &Path, cert: &str, key: &str) {
    let (cert, key) = (dir.join(cert), dir.join(key));
    let args = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=box",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        cert.to_str().unwrap(),
    ];
    tools::run(LIMIT, "openssl", &args).await.succeeded();
}

/// mosquitto_pub on one TLS session; what is written into the file is published line by line.
fn reporter(gateway: &Gateway, ca: &Path) -> (Process, std::fs::File) {
    let fifo = gateway.dir().join("reports");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    let text = format!(
        "exec mosquitto_pub -h 127.0.0.1 -p {} --cafile {} -u bc-01 -P '{}' -i bc-01 -q 1 -t kerbside/v1/bc-01/report -l <>{}",
        gateway.ports.mqtts,
        ca.display(),
        gateway.secret("bc-01"),
        fifo.display()
    );
    let process = tools::start(gateway.dir(), "reporter", "sh", &["-c", &text]);
    // For both ways, so that it opens before the other side has.
    let lines = std::fs::File::options().read(true).write(true).open(&fifo);
    (process, lines.unwrap())
}

#[tokio::test]
async fn a_certificate_is_changed_and_no_session_notices() {
    if !all_there() {
        return;
    }
    let mut gateway = Gateway::prepare(&Setup {
        tls: true,
        more: "[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n".into(),
        ..Setup::default()
    });
    let config = gateway.config();
    make(&config, "cert.pem", "key.pem").await;
    gateway.run().await;
    let old_ca = gateway.dir().join("old.pem");
    std::fs::copy(config.join("cert.pem"), &old_ca).unwrap();
    let ports = gateway.ports;
    let old = shown(ports.https).await;
    assert!(gateway.logged().contains(&old));
    assert!(!gateway.state().join("self-signed.pem").exists());

    // RTSPS: a camera and a viewer. MQTTS: reports. HTTPS: a feed.
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut feed = Feed::open(&gateway, &token).await;
    let plain = format!(":{}/", ports.rtsp);
    let secure = |name| {
        let url = gateway
            .rtsp_as(name, "bc-01/main")
            .replace("rtsp://", "rtsps://");
        url.replace(&plain, &format!(":{}/", ports.rtsps))
    };
    let mut camera = tools::ffmpeg_push(gateway.dir(), &secure("bc-01"), "tcp");
    feed.until_phase(LIMIT, "bc-01/main", "live").await;
    let url = secure("eve");
    let args = [
        "-loglevel",
        "error",
        "-rtsp_transport",
        "tcp",
        "-i",
        &url,
        "-an",
        "-progress",
        "pipe:1",
        "-f",
        "null",
        "-",
    ];
    let mut viewer = tools::start(gateway.dir(), "viewer", "ffmpeg", &args);
    let frames = |viewer: &Process| {
        let text = viewer.tail(40);
        let frame = |line: &str| line.strip_prefix("frame=")?.trim().parse::<u32>().ok();
        text.lines().rev().find_map(frame).unwrap_or(0)
    };
    until(LIMIT, "the viewer decodes", || {
        (frames(&viewer) > 15).then_some(())
    })
    .await;
    let (mut device, mut reports) = reporter(&gateway, &old_ca);
    writeln!(reports, "{}", crate::report(37.61, 50)).unwrap();
    let charged = |feed: &Feed, pct: f64| {
        let of = feed.devices.get("bc-01")?.get("battery_pct")?.as_f64()?;
        (of == pct).then_some(())
    };
    feed.until(LIMIT, "a report over MQTTS", |f| charged(f, 50.0))
        .await;
    let https = format!("https://127.0.0.1:{}", ports.https);
    let bearer = format!("Authorization: Bearer {token}");
    let feed_url = format!("{https}/api/v1/feed");
    let args = [
        "-sSN",
        "--http1.1",
        "--cacert",
        old_ca.to_str().unwrap(),
        "-H",
        &bearer,
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "-a",
        "--output",
        "-",
        &feed_url,
    ];
    let screen = tools::start(gateway.dir(), "screen", "curl", &args);
    until(LIMIT, "the feed over HTTPS", || {
        screen.tail(50).contains("\"battery_pct\":50").then_some(())
    })
    .await;

    // Half of the change: the certificate without its key. It is refused, told and counted; everybody goes on.
    make(&config, "new.pem", "new-key.pem").await;
    std::fs::rename(config.join("new.pem"), config.join("cert.pem")).unwrap();
    eventually(LIMIT, "the refusal", async || {
        assert_eq!(shown(ports.mqtts).await, old);
        gateway
            .logged()
            .contains("the new TLS certificate cannot be used")
            .then_some(())
    })
    .await;
    let refused = gateway
        .metric("kerbside_tls_reloads_total", &["refused"])
        .await;
    assert!(refused >= 1.0);
    // The other half.
    std::fs::rename(config.join("new-key.pem"), config.join("key.pem")).unwrap();
    let new = eventually(LIMIT, "the new certificate", async || {
        let now = shown(ports.rtsps).await;
        (now != old).then_some(now)
    })
    .await;
    assert_eq!(shown(ports.https).await, new);
    assert_eq!(shown(ports.mqtts).await, new);
    assert!(gateway.logged().contains(&new));

    // Who was there goes on.
    let before = frames(&viewer);
    until(LIMIT, "the viewer goes on", || {
        (frames(&viewer) > before + 30).then_some(())
    })
    .await;
    writeln!(reports, "{}", crate::report(37.61, 49)).unwrap();
    feed.until(LIMIT, "the device goes on", |f| charged(f, 49.0))
        .await;
    until(LIMIT, "the feed goes on", || {
        screen.tail(50).contains("\"battery_pct\":49").then_some(())
    })
    .await;
    for process in [&mut camera, &mut viewer, &mut device] {
        assert!(
            process.ended().is_none(),
            "{} ended: {}",
            process.name,
            process.tail(10)
        );
    }

    // Who comes trusts the new one alone.
    let ca = config.join("cert.pem");
    let snapshot = format!("{https}/bc-01/main/snapshot.jpg");
    let jpeg = gateway.dir().join("snapshot.jpg");
    let fetch = ["-f", "-H", &bearer, "-o", jpeg.to_str().unwrap()];
    curl(&ca, &fetch, &snapshot).await.succeeded();
    assert_eq!(std::fs::read(&jpeg).unwrap()[..2], [0xff, 0xd8]);
    assert!(!curl(&old_ca, &fetch, &snapshot).await.status.success());
    let offer = [
        "-H",
        &bearer,
        "-H",
        "Content-Type: application/sdp",
        "-d",
        "v=0",
        "-w",
        "%{http_code}",
    ];
    let said = curl(&ca, &offer, &format!("{https}/bc-01/main/whep"))
        .await
        .succeeded();
    assert!(
        said.out.ends_with("400") && said.out.contains("error"),
        "{said:?}"
    );
    ffmpeg_pull(&secure("eve"), "tcp", 15).await;
    let (device, sos) = (gateway.secret("bc-01"), "kerbside/v1/bc-01/sos");
    let (port, ca) = (ports.mqtts.to_string(), ca.to_str().unwrap());
    let call = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "--cafile",
        ca,
        "-u",
        "bc-01",
        "-P",
        &device,
        "-q",
        "1",
        "-t",
        sos,
        "-m",
        "{}",
    ];
    tools::run(Duration::from_secs(15), "mosquitto_pub", &call)
        .await
        .succeeded();
    feed.until(LIMIT, "the call for help", |feed| {
        feed.events
            .values()
            .any(|e| e["kind"] == "sos")
            .then_some(())
    })
    .await;
}
