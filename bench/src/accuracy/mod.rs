//! How near the track is to the truth: a simulated day of a city, through the real decoding and the real track.
//!
//! Here: the plan of a run and its table. `world` moves the devices, `receiver` is what they measure and say, `score`
//! compares. Everything is seeded: the same numbers at each run.

mod receiver;
mod score;
mod world;

use std::time::{Duration, Instant};

use kerbside::clock::Now;
use kerbside::picture::track::{DRONE, FOOT, Motion, Track, VEHICLE};
use kerbside_codecs::telemetry::{Codecs, Datum, Speaker};

use receiver::{Letter, Receiver};
use score::{Score, Sample};
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
        if plan.is_clean { ", without errors" } else { "" }
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
        if std::env::var("LIVE").is_ok() && track.freshness() != kerbside::picture::track::Freshness::Live { continue; }
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

#[cfg(test)]
mod tests;
