//! Hundreds of readers of one stream in one process, against any server.
//!
//! Readers join one after another. Every tenth is sampled: its packets are read at once, decrypted, and its frames'
//! ages taken. The others are read by a second thread every few milliseconds, for the clear RTP header alone, so that
//! the swarm stays cheaper than what it measures. Two threads in all; their own processor time is in the result.

mod join;
mod line;
mod meter;
mod rtc;
mod sdp;
mod secure;
mod signal;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::watch;

use join::Entered;
pub use join::Entrance;
use line::Line;
use meter::{Meter, Tally};
pub use secure::Identity;
pub use signal::Signalling;

use crate::camera::now_ns;
use crate::process::{Memory, Process};
use crate::result::Window;

/// A first key frame has to come within this.
const JOIN_MAX: Duration = Duration::from_secs(20);
/// The first reader waits so long for the stream to be there.
const STREAM_MAX: Duration = Duration::from_secs(15);
/// From the last join to the window, and from the stall to its window.
const SETTLE: Duration = Duration::from_secs(2);
/// A server that keeps the last seconds of a stream has them all by then, and they are not counted as its readers'.
const HISTORY: Duration = Duration::from_secs(11);
/// Between two rounds of the counting thread.
const ROUND: Duration = Duration::from_millis(5);
const DATAGRAM_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub struct Plan {
    pub entrance: Entrance,
    pub readers: usize,
    pub seconds: u64,
    pub join_per_second: f64,
    /// Every so many-th reader is sampled.
    pub sample_every: usize,
    /// Readers that stop reading in a second window.
    pub stalled: usize,
    /// The server, if it runs on this machine.
    pub pid: Option<u32>,
}

/// What a swarm saw.
pub struct Outcome {
    pub joined: usize,
    /// Why readers did not join or were lost.
    pub faults: Vec<String>,
    /// From PLAY, POST or watch to the first whole key frame, sorted.
    pub join_ms: Vec<f64>,
    /// The same from the first connect.
    pub whole_join_ms: Vec<f64>,
    pub profiles: BTreeSet<&'static str>,
    pub before: Option<Memory>,
    pub after: Option<Memory>,
    pub window: Window,
    /// With `stalled` readers not reading.
    pub stalled: Option<Window>,
}

/// One reader, as the swarm knows it.
struct Reader {
    sampled: bool,
    meter: Mutex<Meter>,
    stalled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun_ns: u64,
    asked_ns: u64,
    joined: bool,
    fault: Option<String>,
    profile: Option<&'static str>,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

type Handed = (Line, Arc<Reader>);

/// Joins all readers, measures, and lets them leave. Has to run on a current-thread runtime.
pub async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    allow_many_files();
    let process = plan.pid.map(Process::of);
    let memory = || process.as_ref().map(Process::memory).transpose();
    let (stop, stopping) = watch::channel(false);
    let (hand, handed) = mpsc::channel::<Handed>();
    let counting = {
        let stopping = stopping.clone();
        std::thread::Builder::new()
            .name("count".to_owned())
            .spawn(move || count(&handed, &stopping))?
    };

    let readers: Vec<Arc<Reader>> = (0..plan.readers)
        .map(|i| {
            Arc::new(Reader {
                sampled: i % plan.sample_every.max(1) == 0,
                meter: Mutex::default(),
                stalled: AtomicBool::default(),
                state: Mutex::default(),
            })
        })
        .collect();
    // The stream may still be on its way; whoever finds it is no reader of the measurement.
    probe(&plan.entrance).await.context("no stream to read")?;
    tokio::time::sleep(HISTORY).await;
    let before = memory()?;
    let mut tasks = Vec::with_capacity(plan.readers);
    let mut every = tokio::time::interval(Duration::from_secs_f64(1.0 / plan.join_per_second));
    for reader in &readers {
        every.tick().await;
        let (entrance, reader) = (plan.entrance.clone(), Arc::clone(reader));
        let (hand, stopping) = (hand.clone(), stopping.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = read(&entrance, &reader, hand, stopping).await {
                locked(&reader.state).fault = Some(format!("{error:#}"));
            }
        }));
    }
    let until = Instant::now() + JOIN_MAX;
    while Instant::now() < until && readers.iter().any(|r| r.is_on_its_way()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLE).await;
    let after = memory()?;

    let window = measure(plan, process.as_ref(), &readers).await?;
    let stalled = if plan.stalled > 0 {
        let quiet = readers.iter().filter(|r| !r.sampled).take(plan.stalled);
        quiet.for_each(|r| r.stalled.store(true, Ordering::Relaxed));
        tokio::time::sleep(SETTLE).await;
        Some(measure(plan, process.as_ref(), &readers).await?)
    } else {
        None
    };

    stop.send(true).context("nobody is left to stop")?;
    for task in tasks {
        task.await?;
    }
    drop(hand);
    if counting.join().is_err() {
        bail!("the counting thread panicked");
    }
    Ok(outcome(&readers, before, after, window, stalled))
}

fn outcome(
    readers: &[Arc<Reader>],
    before: Option<Memory>,
    after: Option<Memory>,
    window: Window,
    stalled: Option<Window>,
) -> Outcome {
    let mut o = Outcome {
        joined: 0,
        faults: Vec::new(),
        join_ms: Vec::new(),
        whole_join_ms: Vec::new(),
        profiles: BTreeSet::new(),
        before,
        after,
        window,
        stalled,
    };
    for r in readers {
        let state = locked(&r.state);
        o.profiles.extend(state.profile);
        o.faults.extend(state.fault.clone());
        if let (true, Some(at)) = (state.joined, locked(&r.meter).joined_ns()) {
            o.joined += 1;
            o.join_ms
                .push(at.saturating_sub(state.asked_ns) as f64 / 1e6);
            o.whole_join_ms
                .push(at.saturating_sub(state.begun_ns) as f64 / 1e6);
        }
    }
    o.join_ms.sort_by(f64::total_cmp);
    o.whole_join_ms.sort_by(f64::total_cmp);
    o
}

impl Reader {
    fn is_on_its_way(&self) -> bool {
        let state = locked(&self.state);
        !state.joined && state.fault.is_none()
    }
}

/// Joins and leaves once; tries again until the stream is there.
async fn probe(entrance: &Entrance) -> anyhow::Result<()> {
    let until = Instant::now() + STREAM_MAX;
    loop {
        match visit(entrance).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Joins, waits for the first whole key frame, and leaves.
pub async fn visit(entrance: &Entrance) -> anyhow::Result<()> {
    let reader = Reader {
        sampled: false,
        meter: Mutex::default(),
        stalled: AtomicBool::default(),
        state: Mutex::default(),
    };
    let Entered {
        mut line,
        control,
        meter,
        ..
    } = tokio::time::timeout(JOIN_MAX, entrance.enter(false))
        .await
        .context("no answer")??;
    *locked(&reader.meter) = meter;
    let seen = joined(&mut line, &reader).await;
    line.leave()?;
    drop(line);
    control.leave().await?;
    seen
}

/// One reader from its first connect until the swarm stops.
async fn read(
    entrance: &Entrance,
    reader: &Arc<Reader>,
    hand: mpsc::Sender<Handed>,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    locked(&reader.state).begun_ns = now_ns();
    let Entered {
        mut line,
        mut control,
        meter,
        asked_ns,
    } = tokio::time::timeout(JOIN_MAX, entrance.enter(reader.sampled))
        .await
        .context("no answer")??;
    locked(&reader.state).asked_ns = asked_ns;
    *locked(&reader.meter) = meter;
    joined(&mut line, reader).await?;
    {
        let mut state = locked(&reader.state);
        state.joined = true;
        state.profile = line.profile();
    }
    let stopped = async {
        // An error is a swarm that is gone.
        let _gone = stopping.wait_for(|s| *s).await;
    };
    if reader.sampled {
        tokio::select! {
            () = stopped => {}
            lost = follow(&mut line, reader, |_| false) => lost?,
            lost = control.keep() => lost?,
        }
        line.leave()?;
        drop(line);
    } else {
        hand.send((line, Arc::clone(reader)))
            .ok()
            .context("the counting thread is gone")?;
        tokio::select! {
            () = stopped => {}
            lost = control.keep() => lost?,
        }
    }
    control.leave().await
}

async fn joined(line: &mut Line, reader: &Reader) -> anyhow::Result<()> {
    tokio::time::timeout(JOIN_MAX, follow(line, reader, |m| m.joined_ns().is_some()))
        .await
        .context("no key frame")?
}

/// Reads as soon as there is something, until `enough`.
async fn follow(
    line: &mut Line,
    reader: &Reader,
    enough: fn(&Meter) -> bool,
) -> anyhow::Result<()> {
    let readiness = line.readiness()?;
    let mut scratch = vec![0; DATAGRAM_BYTES];
    loop {
        {
            let mut meter = locked(&reader.meter);
            line.drain(&mut meter, &mut scratch)?;
            let now = Instant::now();
            if now >= line.due() {
                line.tick(now, &meter)?;
            }
            if enough(&meter) {
                return Ok(());
            }
        }
        tokio::select! {
            got = readiness.wait() => got?,
            () = tokio::time::sleep_until(line.due().into()) => {}
        }
    }
}

/// The counting thread: all handed lines, round after round. It yields to the sampled readers.
fn count(handed: &mpsc::Receiver<Handed>, stopping: &watch::Receiver<bool>) {
    const NICE: i32 = 10;
    let polite = rustix::process::nice(NICE).is_ok();
    debug_assert!(polite, "one may always be nicer");
    let mut lines: Vec<Handed> = Vec::new();
    let mut scratch = vec![0; DATAGRAM_BYTES];
    loop {
        let began = Instant::now();
        lines.extend(handed.try_iter());
        lines.retain_mut(|(line, reader)| {
            if reader.stalled.load(Ordering::Relaxed) {
                return true;
            }
            let mut meter = locked(&reader.meter);
            let mut done = line.drain(&mut meter, &mut scratch);
            if done.is_ok() && began >= line.due() {
                done = line.tick(began, &meter);
            }
            // A session that is being left may close its line first.
            if let Err(error) = &done
                && !*stopping.borrow()
            {
                locked(&reader.state).fault = Some(format!("lost: {error:#}"));
            }
            done.is_ok()
        });
        if *stopping.borrow() {
            for (line, reader) in &mut lines {
                if let Err(error) = line.leave() {
                    locked(&reader.state).fault = Some(format!("leaving: {error:#}"));
                }
            }
            return;
        }
        std::thread::sleep(ROUND.saturating_sub(began.elapsed()));
    }
}

/// Counts for the plan's seconds. Readers that stall do not count.
async fn measure(
    plan: &Plan,
    process: Option<&Process>,
    readers: &[Arc<Reader>],
) -> anyhow::Result<Window> {
    let ours = Process::of(std::process::id());
    let cpu = || process.map(Process::cpu).transpose();
    for r in readers {
        locked(&r.meter).take();
    }
    let (began, server, own) = (Instant::now(), cpu()?, ours.cpu()?);
    tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
    let (wall, server_after, own_after) = (began.elapsed(), cpu()?, ours.cpu()?);
    let mut sum = Tally::default();
    let mut reading = 0;
    for r in readers {
        let tally = locked(&r.meter).take();
        if r.stalled.load(Ordering::Relaxed) || !locked(&r.state).joined {
            continue;
        }
        reading += 1;
        sum.packets += tally.packets;
        sum.frames += tally.frames;
        sum.lost += tally.lost;
        sum.latency_ms.extend(tally.latency_ms);
    }
    sum.latency_ms.sort_by(f32::total_cmp);
    Ok(Window {
        wall,
        reading,
        server_cpu: server.zip(server_after).map(|(a, b)| b - a),
        swarm_cpu: own_after - own,
        packets: sum.packets,
        frames: sum.frames,
        lost: sum.lost,
        latency_ms: sum.latency_ms.iter().map(|l| f64::from(*l)).collect(),
    })
}

/// Three sockets a reader are more than the usual soft limit.
pub fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("note: the limit of open files stays as it is: {error}");
    }
}
