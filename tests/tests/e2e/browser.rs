//! Chromium as an operator: logs in, sees devices move, watches live video, sees an event become delivered.

use std::time::Duration;

use kerbside_sim::harness::{Gateway, Setup, tools};
use kerbside_sim::platform::{Behaviour, Platform};

#[tokio::test]
async fn an_operator_watches_a_call_for_help_live() {
    if !tools::have("chromium") || !tools::have("node") {
        return;
    }
    let browser = kerbside_sim::harness::gateway::project().join("tests/browser");
    let console = kerbside_sim::harness::gateway::project().join("gateway/console/dist/index.html");
    if !browser.join("node_modules/playwright-core").is_dir() || !console.is_file() {
        assert!(
            std::env::var("KERBSIDE_E2E").is_ok_and(|value| value != "required"),
            "run `make console browser` before this test, or set KERBSIDE_E2E=optional to skip it"
        );
        return;
    }
    let any = "127.0.0.1:0".parse().unwrap();
    let platform = Platform::start(any, Behaviour::default()).await.unwrap();
    let gateway = Gateway::start(Setup {
        platforms: vec![("joint".into(), format!("http://{}/events", platform.addr))],
        ..Setup::default()
    })
    .await;
    let mut lines = String::new();
    for (id, kind) in [
        ("bc-01", "bodycam"),
        ("uav-01", "drone"),
        ("ev-01", "vehicle"),
    ] {
        let password = gateway.device(id, kind, Some("patrol-1"));
        lines.push_str(
            &serde_json::json!({"id": id, "password": password, "kind": kind}).to_string(),
        );
        lines.push('\n');
    }
    let token = gateway.user("eve", "operator");
    let devices = gateway.dir().join("devices.jsonl");
    std::fs::write(&devices, lines).unwrap();
    let (mqtt, http, rtsp) = (
        gateway.mqtt(),
        gateway.http(),
        format!("127.0.0.1:{}", gateway.ports.rtsp),
    );
    let args = [
        "fleet",
        "--devices",
        devices.to_str().unwrap(),
        "--mqtt",
        &mqtt,
        "--http",
        &http,
        "--rtsp",
        &rtsp,
        "--sos-every",
        "3",
    ];
    let _fleet = tools::start(
        gateway.dir(),
        "fleet",
        env!("CARGO_BIN_EXE_kerbside-sim"),
        &args,
    );
    let script = browser.join("console.mjs");
    let chromium = tools::find("chromium").unwrap();
    let shots = gateway.dir().join("screen.png");
    let args = [
        script.to_str().unwrap(),
        &http,
        &token,
        chromium.to_str().unwrap(),
        shots.to_str().unwrap(),
    ];
    let said = tools::run(Duration::from_secs(150), "node", &args).await;
    if !said.status.success() {
        let kept = std::env::temp_dir().join("kerbside-browser-failed.png");
        if std::fs::copy(&shots, &kept).is_ok() {
            eprintln!("what the browser showed: {}", kept.display());
        }
    }
    let said = said.succeeded();
    for step in [
        "logged in",
        "moves",
        "plays bc-01",
        "plays uav-01",
        "delivered",
        "language",
    ] {
        assert!(
            said.out.contains(step),
            "{step:?} is missing: {}",
            said.all()
        );
    }
}
