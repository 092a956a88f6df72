//! Operation: configuration faults, taken ports, health, metrics, SIGTERM.

use std::time::{Duration, Instant};

use kerbside_sim::harness::tools::{ffmpeg_push, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, until};
use rustix::process::Signal;

use crate::LIMIT;
use crate::crash::{Caller, call};

#[test]
fn configuration_faults_name_file_line_key_and_reason() {
    let gateway = Gateway::prepare(&Setup {
        more: "[mqttt]\nx = 1\n".into(),
        ..Setup::default()
    });
    let fault = gateway.cli(&["check"]).unwrap_err();
    assert!(fault.contains("gateway.toml:13: mqttt:"), "{fault}");
    let rules = "[[rule]]\nname = \"broken\"\nwhen = \"report.sos &&\"\nseverity = \"major\"\n";
    let gateway = Gateway::prepare(&Setup {
        rules: rules.into(),
        ..Setup::default()
    });
    let fault = gateway.cli(&["check"]).unwrap_err();
    assert!(fault.contains("rules.toml:3:"), "{fault}");
    let gateway = Gateway::prepare(&Setup::default());
    assert_eq!(gateway.cli(&["check"]).unwrap().trim(), "ok");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let mut gateway = Gateway::prepare(&Setup::default());
    let _taken = std::net::TcpListener::bind(("127.0.0.1", gateway.ports.rtsp)).unwrap();
    gateway.spawn();
    let status = gateway
        .process()
        .wait(LIMIT)
        .await
        .expect("the gateway does not run without its ports");
    assert_eq!(status.code(), Some(1));
    let port = format!(":{}", gateway.ports.rtsp);
    assert!(gateway.logged().contains(&port), "{}", gateway.logged());
}

#[tokio::test]
async fn health_needs_no_login_and_metrics_balance() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    for path in ["/healthz", "/readyz"] {
        let answer = reqwest::get(format!("{}{path}", gateway.http()))
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
    }
    call(&gateway, "bc-01", "metrics").await;
    let mut caller = Caller::open(&gateway, "bc-01").await;
    for _ in 0..10 {
        assert!(caller.say("kerbside/v1/bc-01/report", &crate::report(37.69, 50)));
    }
    caller.all_acknowledged(LIMIT).await;
    // Everything taken in ended somehow or is in flight: once nothing is under way, the sums are equal.
    kerbside_sim::harness::eventually(LIMIT, "the ledger balances", async || {
        let taken = gateway
            .metric("kerbside_ledger_taken_total", &["message"])
            .await;
        let ended = gateway
            .metric("kerbside_ledger_ended_total", &["message"])
            .await;
        (taken >= 11.0 && taken == ended).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sigterm_drains_and_ends_within_its_limit() {
    let mut gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let mut feed = Feed::open(&gateway, &token).await;
    let _publisher = have("ffmpeg").then(|| {
        ffmpeg_push(
            gateway.dir(),
            &gateway.rtsp_as("bc-01", "bc-01/main"),
            "tcp",
        )
    });
    if have("ffmpeg") {
        feed.until_phase(LIMIT, "bc-01/main", "live").await;
    }
    let mut caller = Caller::open(&gateway, "bc-01").await;
    for number in 0..100 {
        caller.call(&format!("drain-{number}"));
    }
    caller.some_acknowledged(LIMIT, 1).await;
    let begun = Instant::now();
    gateway.process().signal(Signal::TERM);
    // drain_s_max is 5.
    let status = gateway
        .process()
        .wait(Duration::from_secs(8))
        .await
        .expect("the gateway ends within its limit");
    assert!(status.success(), "{status}");
    assert!(
        begun.elapsed() < Duration::from_secs(7),
        "{:?}",
        begun.elapsed()
    );
    caller.disconnected(LIMIT).await;
    // What was acknowledged before the end is there after the start.
    gateway.run().await;
    let mut feed = Feed::open(&gateway, &token).await;
    let wanted = caller.acknowledged.len();
    feed.until(LIMIT, "acknowledged calls are there", |feed| {
        (feed.events.len() >= wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn configured_cameras_are_pulled_from_another_server() {
    if !have("ffmpeg") {
        return;
    }
    // One gateway plays the camera of another.
    let camera = Gateway::start(Setup::default()).await;
    camera.device("cam", "camera", None);
    let token = camera.user("puller", "operator");
    let mut seen = Feed::open(&camera, &token).await;
    let _publisher = ffmpeg_push(camera.dir(), &camera.rtsp_as("cam", "cam/main"), "tcp");
    seen.until_phase(LIMIT, "cam/main", "live").await;

    let mut gateway = Gateway::prepare(&Setup::default());
    let secret = gateway.dir().join("camera-password");
    std::fs::write(&secret, &token).unwrap();
    let text = format!(
        "[[camera]]\nstream = \"gate-1/main\"\nurl = \"rtsp://127.0.0.1:{}/cam/main\"\nusername = \"puller\"\npassword_file = \"{}\"\non_demand = false\n",
        camera.ports.rtsp,
        secret.display()
    );
    std::fs::write(gateway.config().join("devices.toml"), text).unwrap();
    gateway.run().await;
    let token = gateway.user("eve", "operator");
    let mut feed = Feed::open(&gateway, &token).await;
    feed.until_phase(LIMIT, "gate-1/main", "live").await;
    kerbside_sim::harness::tools::ffmpeg_pull(&gateway.rtsp_as("eve", "gate-1/main"), "tcp", 20)
        .await;
}

#[tokio::test]
async fn nothing_answers_without_credentials_and_no_secret_is_logged() {
    let gateway = Gateway::start(Setup::default()).await;
    let password = gateway.device("bc-01", "bodycam", None);
    let token = gateway.user("eve", "operator");
    let caller = Caller::open(&gateway, "bc-01").await;
    let feed = Feed::open(&gateway, &token).await;
    drop((caller, feed));
    until(LIMIT, "it logs at all", || {
        (!gateway.logged().is_empty()).then_some(())
    })
    .await;
    let log = gateway.logged();
    assert!(
        !log.contains(&password) && !log.contains(&token),
        "a secret is in the log"
    );
    // Neither is one in the state: only hashes.
    for entry in std::fs::read_dir(gateway.state()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        for secret in [&password, &token] {
            assert!(
                !bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes()),
                "a secret is in the state"
            );
        }
    }
}
