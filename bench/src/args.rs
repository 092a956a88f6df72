//! The command line, and what it means.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use crate::camera::Output;
use crate::compare::{Comparison, SAMPLE_EVERY};
use crate::peers::{Peer, Site, Transport};
use crate::swarm::{Entrance, Identity, Plan, Signalling};

/// The server's CPU, and that of camera and swarm, with `--pin`.
const PINS: (usize, usize) = (0, 1);

#[derive(Parser)]
#[command(
    about = "Measures the gateway and its peers: processor time, latency, joins, loss, memory"
)]
pub struct Args {
    /// The gateway's binary (release).
    #[arg(long, default_value = "target/release/kerbside")]
    pub kerbside: PathBuf,
    #[command(subcommand)]
    pub what: What,
}

#[derive(Subcommand)]
pub enum What {
    /// Many readers of one stream of any server.
    Swarm(SwarmArgs),
    /// A 4 Mbit/s 30 fps camera whose frames say when they were sent.
    Camera(CameraArgs),
    /// The gateway and the peers that are on this machine, in one table.
    Compare(CompareArgs),
    /// Joins and leaves of the gateway; then its memory, open files and threads.
    Soak {
        #[arg(long, default_value_t = 10_000)]
        joins: usize,
        /// The server on one CPU, the readers on another.
        #[arg(long)]
        pin: bool,
    },
    /// What the kernel alone takes to send frames to readers.
    Floor {
        #[arg(long, default_value_t = 200)]
        readers: usize,
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Devices at 1 Hz and screens that watch the feed: from fix to screen.
    Feed {
        #[arg(long, default_value_t = 10_000)]
        devices: usize,
        #[arg(long, default_value_t = 50)]
        screens: usize,
        #[arg(long, default_value_t = 5)]
        stalled: usize,
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// The gateway on one CPU.
        #[arg(long)]
        pin: bool,
    },
    /// MQTT messages, beside mosquitto.
    Mqtt {
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        #[arg(long)]
        tls: bool,
        #[arg(long, default_value_t = 100)]
        connections: usize,
        #[arg(long, default_value_t = 4000)]
        per_second: u64,
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// How near the track is to the truth of a simulated day: at each interval of reports, for each kind of device.
    Accuracy {
        /// Devices of each kind.
        #[arg(long, default_value_t = 100)]
        devices: u32,
        #[arg(long, default_value_t = 4)]
        hours: u32,
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// Filter updates of one core: device time, outliers, both models.
    Filter {
        #[arg(long, default_value_t = 10_000)]
        devices: u32,
        /// Fixes of each device.
        #[arg(long, default_value_t = 300)]
        rounds: u32,
    },
    /// Ready time, idle memory, memory per idle device.
    Idle {
        #[arg(long, default_value_t = 2000)]
        devices: usize,
    },
}

#[derive(clap::Args)]
pub struct SwarmArgs {
    /// rtsp://host:port/path, the WHEP endpoint, or Janus' API (http://host:8088/janus).
    #[arg(long)]
    url: String,
    #[arg(long, value_enum)]
    pub transport: Transport,
    /// RTSP login (Digest or Basic, as the server asks).
    #[arg(long)]
    user: Option<String>,
    #[arg(long, default_value = "")]
    password: String,
    /// WHEP Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// Janus' mountpoint.
    #[arg(long, default_value_t = 1)]
    mountpoint: u64,
    #[arg(long, default_value_t = 200)]
    readers: usize,
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Joins are spread, so that one does not wait for the handshakes of all others.
    #[arg(long, default_value_t = 20.0)]
    join_per_second: f64,
    /// Every so many-th reader takes the age of its frames (and decrypts them); the others count.
    #[arg(long, default_value_t = SAMPLE_EVERY)]
    sample_every: usize,
    /// So many readers stop reading for a second measurement.
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    /// The server's process, when it runs on this machine.
    #[arg(long)]
    pid: Option<u32>,
}

impl SwarmArgs {
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let entrance = match self.transport {
            Transport::Tcp | Transport::Udp => Entrance::Rtsp {
                url: self.url.clone(),
                udp: self.transport == Transport::Udp,
                login: self.user.clone().map(|u| (u, self.password.clone())),
            },
            Transport::Whep => rtc(Signalling::Whep {
                url: self.url.clone(),
                token: self.token.clone(),
            })?,
            Transport::Janus => rtc(Signalling::Janus {
                url: self.url.trim_end_matches('/').to_owned(),
                mountpoint: self.mountpoint,
            })?,
        };
        let counting = self.readers - self.readers.div_ceil(self.sample_every.max(1));
        if self.stalled > counting {
            bail!(
                "--stalled: sampled readers do not stall, so at most {counting} of {} can",
                self.readers
            );
        }
        Ok(Plan {
            entrance,
            readers: self.readers,
            seconds: self.seconds,
            join_per_second: self.join_per_second.max(0.1),
            sample_every: self.sample_every,
            stalled: self.stalled,
            pid: self.pid,
        })
    }
}

fn rtc(signalling: Signalling) -> anyhow::Result<Entrance> {
    Ok(Entrance::Rtc {
        signalling,
        http: reqwest::Client::new(),
        identity: Identity::generate()?,
    })
}

#[derive(clap::Args)]
pub struct CameraArgs {
    /// Where to push, by RTSP over TCP.
    #[arg(long, conflicts_with = "rtp")]
    url: Option<String>,
    /// Where to send plain RTP: host:port.
    #[arg(long)]
    rtp: Option<String>,
    #[arg(long)]
    user: Option<String>,
    #[arg(long, default_value = "")]
    password: String,
    /// Seconds from key frame to key frame.
    #[arg(long, default_value_t = 1)]
    pub gop_s: u32,
}

impl CameraArgs {
    pub async fn output(&self) -> anyhow::Result<Output> {
        if let Some(to) = &self.rtp {
            return Output::rtp(to).await;
        }
        let url = self.url.as_ref().context("--url or --rtp is needed")?;
        let login = self.user.clone().map(|u| (u, self.password.clone()));
        Output::rtsp(url, login).await
    }
}

#[derive(clap::Args)]
pub struct CompareArgs {
    /// Numbers of readers, a row each.
    #[arg(long, value_delimiter = ',', default_value = "200")]
    readers: Vec<usize>,
    /// 50, 200 and 800 readers.
    #[arg(long)]
    scale: bool,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The median of so many runs of each row.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    #[arg(long, default_value_t = 20.0)]
    join_per_second: f64,
    /// So many readers stop reading for a second row.
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    #[arg(long, default_value_t = 1)]
    gop_s: u32,
    /// Servers on CPU 0, camera and swarm on CPU 1.
    #[arg(long)]
    pin: bool,
    /// Only these servers.
    #[arg(long, value_enum, value_delimiter = ',')]
    server: Vec<Peer>,
    /// Only these transports (Janus' is WHEP's).
    #[arg(long, value_enum, value_delimiter = ',')]
    transport: Vec<Transport>,
}

impl CompareArgs {
    pub fn comparison(self, kerbside: PathBuf) -> Comparison {
        let all = |given: Vec<Peer>| match given.is_empty() {
            true => vec![Peer::Kerbside, Peer::GstRtspServer, Peer::Janus],
            false => given,
        };
        Comparison {
            site: site(kerbside, self.gop_s, self.pin),
            peers: all(self.server),
            transports: if self.transport.is_empty() {
                vec![Transport::Tcp, Transport::Udp, Transport::Whep]
            } else {
                self.transport
            },
            readers: if self.scale {
                vec![50, 200, 800]
            } else {
                self.readers
            },
            seconds: self.seconds,
            join_per_second: self.join_per_second.max(0.1),
            stalled: self.stalled,
            runs: self.runs,
        }
    }
}

pub fn site(kerbside: PathBuf, gop_s: u32, pin: bool) -> Site {
    Site {
        kerbside,
        gop_s,
        pins: pin.then_some(PINS),
    }
}
