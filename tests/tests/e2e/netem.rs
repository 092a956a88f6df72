//! Viewers behind a network of its own: a namespace, joined to this machine by a line that loses, delays and reorders,
//! is cut, and gives the viewer another address. Needs root; skipped with a message where the machine does not allow it.

use std::process::Command;

use kerbside_sim::harness::tools::{self, ffmpeg_push, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};
use kerbside_sim::process::Process;

use crate::LIMIT;
use crate::uplink::{aiortc, frames};

/// A namespace and the line to it.
struct Line {
    space: String,
    near: String,
    far: String,
    /// `10.213.N.`: 1 is this machine, 2 and 3 the viewer.
    net: String,
}

fn ip(args: &str) -> Result<(), String> {
    run("ip", args)
}

fn run(program: &str, args: &str) -> Result<(), String> {
    let output = Command::new(program)
        .args(args.split_whitespace())
        .output()
        .map_err(|fault| format!("{program}: {fault}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {args}: {}", said.trim()))
}

impl Line {
    /// None, and a message: this machine gives no namespaces.
    fn lay() -> Option<Line> {
        let id = std::process::id();
        let line = Line {
            space: format!("kerbside-{id}"),
            near: format!("kbn{id}"),
            far: format!("kbf{id}"),
            net: format!("10.213.{}.", id % 250),
        };
        let Line {
            space,
            near,
            far,
            net,
        } = &line;
        let steps = [
            format!("netns add {space}"),
            format!("link add {near} type veth peer name {far} netns {space}"),
            format!("addr add {net}1/24 dev {near}"),
            format!("link set {near} up"),
            format!("-n {space} addr add {net}2/24 dev {far}"),
            format!("-n {space} link set {far} up"),
            format!("-n {space} link set lo up"),
        ];
        match steps.iter().try_for_each(|step| ip(step)) {
            Ok(()) => Some(line),
            Err(why) => {
                eprintln!("skipped: no network namespaces here ({why})");
                None
            }
        }
    }

    /// 3 % loss, 40 ± 10 ms each way, some packets out of order.
    fn spoil(&self) {
        let how = "root netem delay 40ms 10ms loss 3% reorder 5%";
        let (space, near, far) = (&self.space, &self.near, &self.far);
        let there = run("tc", &format!("qdisc add dev {near} {how}"));
        let back = run("tc", &format!("-n {space} qdisc add dev {far} {how}"));
        if let Err(why) = there.and(back) {
            eprintln!("skipped: loss, delay and reordering; the kernel has no netem ({why})");
        }
    }

    fn set(&self, state: &str) {
        ip(&format!("link set {} {state}", self.near)).unwrap();
    }

    fn change_address(&self) {
        let (space, far, net) = (&self.space, &self.far, &self.net);
        ip(&format!("-n {space} addr del {net}2/24 dev {far}")).unwrap();
        ip(&format!("-n {space} addr add {net}3/24 dev {far}")).unwrap();
    }

    /// Starts a program at the far end.
    fn start(&self, gateway: &Gateway, name: &str, program: &str, args: &[&str]) -> Process {
        let mut all = vec!["netns", "exec", &self.space, program];
        all.extend(args);
        tools::start(gateway.dir(), name, "ip", &all)
    }

    fn player(&self, gateway: &Gateway, name: &str, transport: &str) -> Process {
        let (token, port) = (gateway.secret("eve"), gateway.ports.rtsp);
        let url = format!("rtsp://eve:{token}@{}1:{port}/bc-01/main", self.net);
        let words = format!(
            "-loglevel error -rtsp_transport {transport} -i {url} -an -progress pipe:1 -stats_period 0.2 -f null -"
        );
        let args: Vec<&str> = words.split(' ').collect();
        self.start(gateway, name, "ffmpeg", &args)
    }

    fn browser(&self, gateway: &Gateway) -> Option<Process> {
        let python = aiortc()?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/aiortc_peer.py");
        let url = format!(
            "http://{}1:{}/bc-01/main/whep",
            self.net, gateway.ports.http
        );
        let token = gateway.secret("eve");
        let args = [script, "view", &url, &token];
        Some(self.start(gateway, "whep", python.to_str().unwrap(), &args))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The line goes with its end in the namespace; parts may be missing when laying it failed.
        for step in [
            format!("link del {}", self.near),
            format!("netns del {}", self.space),
        ] {
            if let Err(why) = ip(&step) {
                eprintln!("{why}");
            }
        }
    }
}

/// Waits until each viewer has decoded so many frames more.
async fn all_see(viewers: &[Process], more: usize, when: &str) {
    for viewer in viewers {
        let until = frames(viewer, "") + more;
        let what = format!("{} sees {more} frames {when}", viewer.name);
        eventually(LIMIT, &what, async || {
            (frames(viewer, "") >= until).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn viewers_live_with_a_bad_line_a_cut_and_another_address() {
    if !have("ip") || !have("tc") || !have("ffmpeg") {
        return;
    }
    let Some(line) = Line::lay() else {
        return;
    };
    line.spoil();
    let mut gateway = Gateway::prepare(&Setup::default());
    let file = gateway.config().join("gateway.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    let ports = gateway.ports;
    for port in [ports.rtsp, ports.http, ports.webrtc] {
        text = text.replace(&format!("127.0.0.1:{port}"), &format!("0.0.0.0:{port}"));
    }
    std::fs::write(&file, text).unwrap();
    gateway.run().await;
    gateway.device("bc-01", "bodycam", None);
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    let url = gateway.rtsp_as("bc-01", "bc-01/main");
    let _camera = ffmpeg_push(gateway.dir(), &url, "tcp");
    feed.until_phase(LIMIT, "bc-01/main", "live").await;

    let mut viewers = vec![
        line.player(&gateway, "rtsp-tcp", "tcp"),
        line.player(&gateway, "rtsp-udp", "udp"),
    ];
    viewers.extend(line.browser(&gateway));
    all_see(&viewers, 20, "over a bad line").await;

    // Two seconds without a line, by the camera's frames.
    let published = async || {
        gateway
            .metric("kerbside_stream_frames_total", &["bc-01/main"])
            .await
    };
    let until = published().await + 30.0;
    line.set("down");
    eventually(LIMIT, "two seconds", async || {
        (published().await >= until).then_some(())
    })
    .await;
    line.set("up");
    all_see(&viewers, 20, "after the cut").await;
    let ended = gateway.metric("kerbside_readers_ended_total", &[]).await;
    assert_eq!(ended, 0.0, "nobody had to join again");

    // Another address: who comes from there has a picture at once, and who went is no burden.
    line.change_address();
    let again = [line.player(&gateway, "rtsp-again", "tcp")];
    all_see(&again, 20, "from another address").await;
}
