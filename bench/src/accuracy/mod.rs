//! How near the track is to the truth: a simulated day of a city, through the real decoding and the real track.
//!
//! Here: the plan of a run, its table, and how fast the filter is. `world` moves the devices, `receiver` is what they measure and say, `score`
//! compares. Everything is seeded: the same numbers at each run.

mod receiver;
mod score;
mod world;

use std::time::{Duration, Instant};

use kerbside::clock::Now;
use kerbside::picture::track::{DRONE, FOOT, Freshness, Motion, Track, VEHICLE};
use kerbside_codecs::telemetry::{Codecs, Datum, Fix, Speaker};

use crate::process::Process;
use receiver::{Letter, Receiver};
use score::{Sample, Score};
use world::{Mover, Random};

/// Seconds between the reports that are left.
pub const INTERVALS_S: [u32; 4] = [2, 5, 10, 30];

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Devices of each kind.
    pub devices: u32,
    pub seconds: u32,
    pub seed: u64,
    /// Without any error of receivers, clocks and lines: what prediction alone gains and costs.
    pub is_clean: bool,
    /// Only while the track says of itself that it is live: without the minutes of the outages.
    pub is_live_only: bool,
}

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Foot,
    Vehicle,
    Drone,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Foot, Self::Vehicle, Self::Drone];

    pub fn name(self) -> &'static str {
        match self {
            Self::Foot => "foot",
            Self::Vehicle => "vehicle",
            Self::Drone => "drone",
        }
    }

    fn motion(self) -> Motion {
        match self {
            Self::Foot => FOOT,
            Self::Vehicle => VEHICLE,
            Self::Drone => DRONE,
        }
    }
}

/// One row of the table.
pub struct Row {
    pub kind: Option<Kind>,
    pub interval_s: u32,
    pub score: Score,
}

/// All kinds and intervals; the rows of all kinds together have no kind.
pub fn run(plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    for interval_s in INTERVALS_S {
        let mut all = Score::default();
        for kind in Kind::ALL {
            let mut score = Score::default();
            for n in 0..plan.devices {
                drive(plan, kind, n, interval_s, &mut score);
            }
            all.add(&score);
            rows.push(Row {
                kind: Some(kind),
                interval_s,
                score,
            });
        }
        rows.push(Row {
            kind: None,
            interval_s,
            score: all,
        });
    }
    rows
}

pub fn print(plan: &Plan) {
    println!(
        "{} devices of each kind, {:.1} h each, seed {}{}\n",
        plan.devices,
        f64::from(plan.seconds) / 3600.0,
        plan.seed,
        match (plan.is_clean, plan.is_live_only) {
            (true, _) => ", without errors",
            (_, true) => ", while live",
            _ => "",
        }
    );
    println!("{}", Score::head());
    for row in run(plan) {
        let name = row.kind.map_or("all", Kind::name);
        println!("| {} s | {name} | {}", row.interval_s, row.score.line());
    }
}

/// One device through its day; looked at once a second.
fn drive(plan: &Plan, kind: Kind, n: u32, interval_s: u32, score: &mut Score) {
    // The same day at every interval: only the thinning differs.
    let mut random = Random::new(plan.seed ^ u64::from(n) << 8 ^ (kind as u64) << 40);
    let truth = Mover::new(kind, &mut random).go(plan.seconds, &mut random);
    let receiver = Receiver::new(kind, plan.is_clean, &mut random);
    let mut letters = receiver
        .letters(&truth, interval_s, &mut random)
        .into_iter()
        .peekable();
    let begin = Now {
        mono: Instant::now(),
        unix_ms: world::BEGIN_MS,
    };
    let codecs = Codecs::default();
    let mut track = Track::default();
    let mut told = score::Told::default();
    for second in 60..plan.seconds {
        let now_ms = world::BEGIN_MS + i64::from(second) * 1000;
        while let Some(letter) = letters.next_if(|l| l.arrives_ms <= now_ms) {
            let now = begin.plus(Duration::from_millis(
                (letter.arrives_ms - world::BEGIN_MS).unsigned_abs(),
            ));
            hear(&codecs, &letter, kind, &mut track, &mut told, now);
        }
        let (Some(ours), Some(hold), Some(naive)) = (
            track.at(kind.motion(), now_ms),
            told.hold(),
            told.extrapolate(now_ms),
        ) else {
            continue;
        };
        let at = truth[second as usize].at;
        track.age(begin.plus(Duration::from_secs(second.into())));
        if plan.is_live_only && track.freshness() != Freshness::Live {
            continue;
        }
        score.take(&Sample {
            ours: world::apart_m(at, world::plane(ours.lat, ours.lon)),
            sigma_m: f64::from(ours.sigma_m),
            hold: world::apart_m(at, hold),
            naive: world::apart_m(at, naive),
            accuracy_m: told.accuracy_m(),
        });
    }
}

fn hear(
    codecs: &Codecs,
    letter: &Letter,
    kind: Kind,
    track: &mut Track,
    told: &mut score::Told,
    now: Now,
) {
    let speaker = Speaker {
        device: "d",
        datum: Datum::Wgs84,
        ..Speaker::default()
    };
    let decoded = codecs.decode(
        speaker,
        "kerbside/v1/d/report",
        letter.json.as_bytes(),
        now.unix_ms,
    );
    for report in decoded.reports {
        let moment = track.hear(report.device_time_ms, report.is_back_fill, now);
        let Some(fix) = report.fix else { continue };
        track.take(fix, report.device_time_ms, moment, kind.motion(), now);
        told.fix(&fix, report.device_time_ms, now.unix_ms);
    }
}

fn own_cpu() -> anyhow::Result<Duration> {
    Process::of(std::process::id()).cpu()
}

/// Filter updates a second of one core, by processor time, the clock model included.
pub fn filter_rate(devices: u32, rounds: u32) -> anyhow::Result<f64> {
    let begin = Now {
        mono: Instant::now(),
        unix_ms: world::BEGIN_MS,
    };
    let mut random = Random::new(1);
    let mut tracks: Vec<Track> = (0..devices).map(|_| Track::default()).collect();
    let (lat, lon) = world::degrees([0.0; 2]);
    let noise: Vec<f64> = (0..4096).map(|_| random.normal() * 4e-5).collect();
    let cpu = own_cpu()?;
    for round in 0..rounds {
        let now = begin.plus(Duration::from_secs(round.into()));
        for (i, track) in tracks.iter_mut().enumerate() {
            let at = (i * 7 + round as usize * 13) % 4096;
            let way = f64::from(round) * 1e-5;
            let fix = Fix {
                accuracy_m: Some(5.0),
                ..Fix::at(lat + way + noise[at], lon + noise[4095 - at], Datum::Wgs84)
            };
            let moment = track.hear(Some(now.unix_ms - 80), false, now);
            track.take(fix, Some(now.unix_ms - 80), moment, VEHICLE, now);
        }
    }
    let spent = own_cpu()? - cpu;
    Ok(f64::from(devices) * f64::from(rounds) / spent.as_secs_f64())
}

#[cfg(test)]
mod tests;
