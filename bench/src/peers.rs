//! The servers of a comparison: the gateway, and what Debian ships. Each is started with a camera of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;

use crate::process::{Gateway, HTTP, RTSP, Server, pinned};
use crate::swarm::{Entrance, Identity, Signalling};

const GST_RTSP: u16 = 28_654;
const GST_RTP: u16 = 28_754;
const JANUS_HTTP: u16 = 28_088;
const JANUS_RTP: u16 = 28_854;
const JANUS_MOUNTPOINT: u64 = 1;
/// Debian's, for Debian's bindings; the PATH may have another one first.
const PYTHON: &str = "/usr/bin/python3";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    Kerbside,
    GstRtspServer,
    Janus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    Tcp,
    Udp,
    Whep,
    Janus,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "RTSP/TCP",
            Self::Udp => "RTSP/UDP",
            Self::Whep => "WHEP",
            Self::Janus => "WebRTC (Janus API)",
        }
    }
}

/// What runs, where, and on which CPUs.
#[derive(Clone)]
pub struct Site {
    pub kerbside: PathBuf,
    pub gop_s: u32,
    /// CPU of the servers, and of camera and swarm.
    pub pins: Option<(usize, usize)>,
}

impl Site {
    /// Moves this process, the swarm, to its CPU. To be called before it has threads.
    pub fn take_place(&self) -> anyhow::Result<()> {
        if let Some((_, load)) = self.pins {
            let mut cpus = rustix::thread::CpuSet::new();
            cpus.set(load);
            rustix::thread::sched_setaffinity(None, &cpus)?;
        }
        Ok(())
    }
}

/// A server with a camera; both end when dropped.
pub struct Running {
    pub pid: u32,
    rtsp: Option<(String, Option<(String, String)>)>,
    signalling: Option<Signalling>,
    _camera: Server,
    _server: Kept,
}

/// A server, and its files as long as it runs.
enum Kept {
    Gateway {
        _gateway: Gateway,
    },
    Other {
        _server: Server,
        _dir: tempfile::TempDir,
    },
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kerbside => "kerbside",
            Self::GstRtspServer => "gst-rtsp-server",
            Self::Janus => "Janus",
        }
    }

    pub fn transports(self) -> &'static [Transport] {
        match self {
            Self::Kerbside => &[Transport::Tcp, Transport::Udp, Transport::Whep],
            Self::GstRtspServer => &[Transport::Tcp, Transport::Udp],
            Self::Janus => &[Transport::Janus],
        }
    }

    /// Why it cannot run here.
    pub fn missing(self) -> Option<String> {
        let runs = |program: &str, args: &[&str]| {
            Command::new(program)
                .args(args)
                .output()
                .is_ok_and(|o| o.status.success())
        };
        let imports = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer";
        let there = match self {
            Self::Kerbside => true,
            Self::GstRtspServer => runs(PYTHON, &["-c", imports]),
            Self::Janus => runs("janus", &["--help"]),
        };
        (!there).then(|| {
            format!(
                "{} is not on this machine: `sh tests/deps.sh bench`",
                self.name()
            )
        })
    }

    pub fn start(self, site: &Site) -> anyhow::Result<Running> {
        match self {
            Self::Kerbside => kerbside(site),
            Self::GstRtspServer => gst_rtsp_server(site),
            Self::Janus => janus(site),
        }
    }
}

impl Running {
    /// None when this server does not speak it.
    pub fn entrance(&self, transport: Transport) -> anyhow::Result<Option<Entrance>> {
        Ok(match (transport, &self.rtsp, &self.signalling) {
            (Transport::Tcp | Transport::Udp, Some((url, login)), _) => Some(Entrance::Rtsp {
                url: url.clone(),
                udp: transport == Transport::Udp,
                login: login.clone(),
            }),
            (Transport::Whep | Transport::Janus, _, Some(signalling)) => Some(Entrance::Rtc {
                signalling: signalling.clone(),
                http: reqwest::Client::new(),
                identity: Identity::generate()?,
            }),
            _ => None,
        })
    }
}

fn camera(site: &Site, args: &[&str]) -> anyhow::Result<Server> {
    let us = std::env::current_exe().context("our own program")?;
    Server::spawn_heard(
        pinned(us, site.pins.map(|(_, load)| load))
            .arg("camera")
            .args(args)
            .args(["--gop-s", &site.gop_s.to_string()]),
    )
}

fn kerbside(site: &Site) -> anyhow::Result<Running> {
    let cpu = site.pins.map(|(server, _)| server);
    let (gateway, passwords, token) = Gateway::start(&site.kerbside, &["cam".to_owned()], cpu)?;
    let password = &passwords[0];
    let push = format!("rtsp://{RTSP}/cam/main");
    Ok(Running {
        pid: gateway.server.pid(),
        rtsp: Some((push.clone(), Some(("bench".to_owned(), token.clone())))),
        signalling: Some(Signalling::Whep {
            url: format!("http://{HTTP}/cam/main/whep"),
            token: Some(token),
        }),
        _camera: camera(
            site,
            &["--url", &push, "--user", "cam", "--password", password],
        )?,
        _server: Kept::Gateway { _gateway: gateway },
    })
}

fn gst_rtsp_server(site: &Site) -> anyhow::Result<Running> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("relay.py");
    std::fs::write(&script, include_str!("../gst_relay.py"))?;
    let server = Server::spawn_heard(
        pinned(PYTHON, site.pins.map(|(server, _)| server))
            .arg(&script)
            .args([GST_RTSP.to_string(), GST_RTP.to_string()]),
    )?;
    Ok(Running {
        pid: server.pid(),
        rtsp: Some((format!("rtsp://127.0.0.1:{GST_RTSP}/cam"), None)),
        signalling: None,
        _camera: camera(site, &["--rtp", &format!("127.0.0.1:{GST_RTP}")])?,
        _server: Kept::Other {
            _server: server,
            _dir: dir,
        },
    })
}

fn janus(site: &Site) -> anyhow::Result<Running> {
    let dir = tempfile::tempdir()?;
    janus_configuration(dir.path())?;
    let server = Server::spawn(
        pinned("janus", site.pins.map(|(server, _)| server))
            .arg("--configs-folder")
            .arg(dir.path())
            .args(["--debug-level", "0"]),
    )?;
    Ok(Running {
        pid: server.pid(),
        rtsp: None,
        signalling: Some(Signalling::Janus {
            url: format!("http://127.0.0.1:{JANUS_HTTP}/janus"),
            mountpoint: JANUS_MOUNTPOINT,
        }),
        _camera: camera(site, &["--rtp", &format!("127.0.0.1:{JANUS_RTP}")])?,
        _server: Kept::Other {
            _server: server,
            _dir: dir,
        },
    })
}

/// The streaming plugin and its HTTP API alone, ICE-lite as the gateway. `bufferkf`: a viewer begins with the last key frame.
fn janus_configuration(dir: &Path) -> anyhow::Result<()> {
    std::fs::write(
        dir.join("janus.jcfg"),
        "general: {\n  debug_level = 0\n  session_timeout = 0\n}\n\
         nat: {\n  ice_lite = true\n}\n\
         plugins: {\n  disable = \"libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,libjanus_nosip.so,\
         libjanus_recordplay.so,libjanus_sip.so,libjanus_textroom.so,libjanus_videocall.so,libjanus_videoroom.so,libjanus_voicemail.so\"\n}\n\
         transports: {\n  disable = \"libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so,libjanus_websockets.so\"\n}\n\
         events: {\n  broadcast = false\n}\n",
    )?;
    std::fs::write(
        dir.join("janus.transport.http.jcfg"),
        format!(
            "general: {{\n  json = \"compact\"\n  base_path = \"/janus\"\n  http = true\n  port = {JANUS_HTTP}\n  ip = \"127.0.0.1\"\n  https = false\n}}\n\
             admin: {{\n  admin_http = false\n  admin_https = false\n}}\n"
        ),
    )?;
    std::fs::write(
        dir.join("janus.plugin.streaming.jcfg"),
        format!(
            "cam: {{\n  type = \"rtp\"\n  id = {JANUS_MOUNTPOINT}\n  description = \"cam\"\n  media = (\n    {{ type = \"video\", mid = \"v\", label = \"cam\", \
             port = {JANUS_RTP}, pt = 96, codec = \"h264\", fmtp = \"profile-level-id=42c01f;packetization-mode=1\", bufferkf = true }}\n  )\n}}\n"
        ),
    )?;
    Ok(())
}
