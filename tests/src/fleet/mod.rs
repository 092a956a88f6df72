//! The fleet: devices with a deterministic life (by seed) on the real wire formats.
//!
//! Here: which devices there are, their tasks, and the account of what they sent. Each protocol has its own file.

mod dji;
mod json;
pub mod link;
pub mod motion;
mod roster;
mod unit;
pub mod video;
pub mod whip;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use roster::{Device, Kind, read_devices};

/// Body cameras and drones that offer video, by default all of the demonstration's.
const VIDEO_DEFAULT: usize = 10;

#[derive(clap::Args, Debug)]
pub struct FleetArgs {
    /// File with one device per line: {"id","password","kind","unit"}.
    #[arg(long)]
    pub devices: PathBuf,
    /// HOST:PORT of the gateway's MQTT.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub mqtt: String,
    /// HOST:PORT of the gateway's RTSP.
    #[arg(long, default_value = "127.0.0.1:8554")]
    pub rtsp: String,
    /// Address of the gateway's HTTP, for WHIP.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub http: String,
    /// GeoJSON with zones; devices of a zone's units stay in it (all but one, which strays now and then).
    #[arg(long)]
    pub grid: Option<PathBuf>,
    /// Body cameras and drones that push video, in the order of the file.
    #[arg(long, default_value_t = VIDEO_DEFAULT)]
    pub video: usize,
    /// Picture size of the videos.
    #[arg(long, default_value = "640x360")]
    pub size: video::Size,
    /// Pictures per second of the videos.
    #[arg(long, default_value_t = 15)]
    pub fps: u32,
    /// Reports per second and device (drones: 0.5, as the Cloud API has it).
    #[arg(long, default_value_t = 1.0)]
    pub rate: f64,
    /// Seconds between calls for help, 0: none.
    #[arg(long, default_value_t = 45)]
    pub sos_every: u64,
    /// The same seed gives the same ways.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds between summary lines.
    #[arg(long, default_value_t = 10)]
    pub summary_every: u64,
}

/// What the fleet did, summed over all devices.
#[derive(Debug, Default)]
pub struct Counters {
    pub connected: AtomicU64,
    pub published: AtomicU64,
    pub acknowledged: AtomicU64,
    /// Reports that had no connection to go out on.
    pub unsent: AtomicU64,
    pub sos_sent: AtomicU64,
    pub sos_acknowledged: AtomicU64,
    pub reconnects: AtomicU64,
    /// Streams being pushed right now.
    pub streaming: AtomicU64,
    /// Answers from the gateway (DJI replies, downlink).
    pub downlinks: AtomicU64,
}

/// `kerbside-sim fleet`.
pub async fn run(args: FleetArgs) -> anyhow::Result<()> {
    let devices = read_devices(&args.devices)?;
    anyhow::ensure!(
        !devices.is_empty(),
        "{} lists no devices",
        args.devices.display()
    );
    anyhow::ensure!(
        args.rate > 0.0 && args.rate <= 100.0,
        "--rate must be above 0 and at most 100"
    );
    let zones = match &args.grid {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            motion::zones(&text).with_context(|| path.display().to_string())?
        }
        None => Vec::new(),
    };
    if args.video > 0 {
        gstreamer::init().context("GStreamer does not start; run without video with --video 0")?;
    }
    let (stop, stopping) = watch::channel(false);
    let counters = Arc::new(Counters::default());
    let mut tasks = JoinSet::new();
    tracing::info!(devices = devices.len(), gateway = %args.mqtt, "fleet starts");
    spawn_devices(&args, &devices, &zones, &counters, &stopping, &mut tasks);
    tasks.spawn(summarise(
        counters.clone(),
        args.summary_every,
        stopping.clone(),
    ));

    stopped().await;
    tracing::info!("fleet stops");
    stop.send_replace(true);
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), all)
        .await
        .is_err()
    {
        tracing::warn!("some devices did not stop within 5 s");
    }
    tracing::info!("{}", summary(&counters));
    Ok(())
}

fn spawn_devices(
    args: &FleetArgs,
    devices: &[Device],
    zones: &[motion::Zone],
    counters: &Arc<Counters>,
    stopping: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) {
    let callers = devices
        .iter()
        .filter(|device| device.kind == Kind::Bodycam)
        .count() as u64;
    let (mut caller, mut videos) = (0, 0);
    for (index, device) in devices.iter().enumerate() {
        let (way, bearer) = way_of(devices, index);
        let sos = (device.kind == Kind::Bodycam && args.sos_every > 0).then(|| {
            caller += 1;
            // The calls take turns: one every `sos_every`, each camera every `callers` times that.
            unit::SosPlan {
                first: Duration::from_secs(args.sos_every * caller),
                every: Duration::from_secs(args.sos_every * callers),
            }
        });
        let plan = unit::Plan {
            device: device.clone(),
            broker: args.mqtt.clone(),
            // Both protocol versions are in the field.
            version: if index % 3 == 1 {
                link::Version::V311
            } else {
                link::Version::V5
            },
            walker: motion::Walker::new(
                bearer.kind,
                bearer.unit.as_deref(),
                zones,
                args.seed,
                way as u64,
            ),
            every: Duration::from_secs_f64(if device.kind == Kind::Drone {
                2.0
            } else {
                1.0 / args.rate
            }),
            // The golden ratio spreads any number of devices evenly.
            phase: (0.3 + index as f64 * 0.618_034).fract(),
            sos,
        };
        tasks.spawn(unit::live(plan, counters.clone(), stopping.clone()));
        if device.kind.has_camera() && videos < args.video {
            let picture = video::Picture {
                size: args.size,
                fps: args.fps,
                pattern: videos,
            };
            videos += 1;
            let device = device.clone();
            let (counters, stopping) = (counters.clone(), stopping.clone());
            if device.kind == Kind::Drone {
                let http = args.http.clone();
                tasks.spawn(async move {
                    whip::push(&device, &http, picture, counters, stopping).await;
                });
            } else {
                let rtsp = args.rtsp.clone();
                tasks.spawn(async move {
                    video::push_rtsp(&device, &rtsp, picture, counters, stopping).await;
                });
            }
        }
    }
}

/// Whose way the device `index` goes: that of the first device of its person, or its own.
fn way_of(devices: &[Device], index: usize) -> (usize, &Device) {
    let device = &devices[index];
    let first = devices
        .iter()
        .enumerate()
        .find(|(_, other)| device.person.is_some() && other.person == device.person);
    first.unwrap_or((index, device))
}

async fn summarise(counters: Arc<Counters>, every: u64, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(every.max(1)));
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => tracing::info!("{}", summary(&counters)),
            () = halted(&mut stopping) => return,
        }
    }
}

fn summary(counters: &Counters) -> String {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "connected {}, streams {}, published {}, acknowledged {}, unsent {}, SOS {} (acknowledged {}), reconnects {}, downlinks {}",
        get(&counters.connected),
        get(&counters.streaming),
        get(&counters.published),
        get(&counters.acknowledged),
        get(&counters.unsent),
        get(&counters.sos_sent),
        get(&counters.sos_acknowledged),
        get(&counters.reconnects),
        get(&counters.downlinks),
    )
}

/// Resolves at SIGINT or SIGTERM.
pub async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        (Err(fault), _) | (_, Err(fault)) => {
            tracing::error!(%fault, "cannot listen for signals; stopping");
        }
    }
}

/// Resolves when the fleet is to stop.
pub(crate) async fn halted(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("nobody is left to stop us");
    }
}

/// Waits before a new attempt: doubles from 500 ms to 10 s, and back to the start after a success.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(500) * 2u32.pow(self.failures.min(5));
        self.failures += 1;
        wait.min(Duration::from_secs(10))
    }

    /// Waits; false when the fleet stops meanwhile.
    pub(crate) async fn wait(&mut self, stopping: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            () = tokio::time::sleep(self.next()) => true,
            () = halted(stopping) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_person_bears_goes_one_way() {
        let device = |id: &str, person: Option<&str>| Device {
            id: id.into(),
            password: String::new(),
            kind: Kind::Radio,
            unit: None,
            person: person.map(str::to_owned),
        };
        let devices = [
            device("a", None),
            device("b", Some("p-1")),
            device("c", None),
            device("d", Some("p-1")),
        ];
        let ways: Vec<usize> = (0..4).map(|i| way_of(&devices, i).0).collect();
        assert_eq!(ways, [0, 1, 2, 1]);
    }

    #[test]
    fn backoff_grows_to_its_limit_and_starts_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next().as_millis() as u64).collect();
        assert_eq!(
            waits,
            [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]
        );
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 500);
    }
}
