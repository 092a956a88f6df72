//! What a device measures and says of the truth, and when it arrives: errors of the receiver, wrong clocks, lines that
//! break.

use kerbside_codecs::geo;
use kerbside_codecs::telemetry::Datum;
use serde_json::{Value, json};

use super::Kind;
use super::world::{BEGIN_MS, Random, Truth, degrees};

/// For how long the slow error of a receiver lasts, seconds.
const SLOW_S: f64 = 45.0;

/// One message on its way.
pub struct Letter {
    pub json: String,
    pub arrives_ms: i64,
}

/// One device's receiver, clock and line.
pub struct Receiver {
    kind: Kind,
    is_clean: bool,
    /// Of the whole error on each axis, metres, and the slow part of its variance.
    sigma_m: f64,
    slow: f64,
    datum: Datum,
    tells_speed: bool,
    tells_accuracy: bool,
    /// None: it tells no time.
    clock: Option<Clock>,
    /// Some of its fixes are 0,0.
    has_zeros: bool,
    /// What it kept during an outage comes as arrays.
    in_arrays: bool,
    delay_ms: f64,
}

struct Clock {
    ahead_ms: f64,
    drift: f64,
    step_ms: i64,
    /// When it is set right, if ever.
    set_at_s: f64,
}

impl Receiver {
    pub fn new(kind: Kind, is_clean: bool, random: &mut Random) -> Self {
        let sigma_m = match kind {
            Kind::Foot => random.within(2.5, 5.0),
            Kind::Vehicle => random.within(2.0, 4.0),
            Kind::Drone => random.within(0.8, 2.0),
        };
        let ahead_ms = match random.part() {
            p if p < 0.6 => random.within(-50.0, 50.0),
            p if p < 0.8 => random.within(-8e3, 8e3),
            p if p < 0.9 => random.within(-240e3, 240e3),
            // A time zone off, and behind: ahead it would not be believed at all.
            _ => -8.0 * 3600e3 + random.within(-2e3, 2e3),
        };
        let clock = Clock {
            ahead_ms,
            drift: random.within(-50e-6, 50e-6),
            step_ms: if random.chance(0.5) { 1000 } else { 1 },
            set_at_s: if random.chance(0.2) {
                1800.0
            } else {
                f64::INFINITY
            },
        };
        let has_clock = !random.chance(0.1);
        let me = Self {
            kind,
            is_clean,
            sigma_m,
            slow: 0.6,
            datum: if random.chance(0.2) {
                Datum::Gcj02
            } else {
                Datum::Wgs84
            },
            tells_speed: random.chance(0.5),
            tells_accuracy: random.chance(0.8),
            clock: has_clock.then_some(clock),
            has_zeros: random.chance(0.2),
            in_arrays: random.chance(0.5),
            delay_ms: random.within(40.0, 150.0),
        };
        if !is_clean {
            return me;
        }
        Self {
            sigma_m: 0.0,
            clock: Some(Clock {
                ahead_ms: 0.0,
                drift: 0.0,
                step_ms: 1,
                set_at_s: f64::INFINITY,
            }),
            has_zeros: false,
            delay_ms: 50.0,
            ..me
        }
    }

    /// All its messages in the order of their arrival.
    pub fn letters(&self, truth: &[Truth], interval_s: u32, random: &mut Random) -> Vec<Letter> {
        // The errors are those of a receiver that measures each second, whatever is sent of it.
        let errors = self.errors(truth, random);
        let outages = self.outages(truth.len(), random);
        let mut letters: Vec<Letter> = Vec::new();
        let mut kept: Vec<Value> = Vec::new();
        let mut free_ms = 0;
        for second in (random.within(0.0, f64::from(interval_s)) as usize..truth.len())
            .step_by(interval_s as usize)
        {
            let made_ms = BEGIN_MS + second as i64 * 1000;
            let report = self.report(&truth[second], &errors[second], second as f64, random);
            let is_out = |s: usize| outages.iter().any(|(from, to)| (*from..*to).contains(&s));
            if is_out(second) {
                kept.push(report);
                continue;
            }
            let delay = if self.is_clean {
                50.0
            } else {
                let congested = if random.chance(0.01) {
                    random.exponential(1500.0)
                } else {
                    0.0
                };
                self.delay_ms + random.exponential(60.0) + congested
            };
            // The line keeps the order.
            let mut arrives_ms = (made_ms + delay as i64).max(free_ms);
            if self.in_arrays && !kept.is_empty() {
                let json = Value::Array(std::mem::take(&mut kept)).to_string();
                letters.push(Letter { json, arrives_ms });
            }
            for old in kept.drain(..) {
                let json = old.to_string();
                letters.push(Letter { json, arrives_ms });
                arrives_ms += 15;
            }
            free_ms = arrives_ms + 1;
            let json = report.to_string();
            letters.push(Letter { json, arrives_ms });
        }
        letters
    }

    /// Half an hour apart about, for half a minute to five minutes: (from, to) in seconds.
    fn outages(&self, seconds: usize, random: &mut Random) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        let mut at = random.exponential(2400.0) as usize;
        while at < seconds && !self.is_clean {
            let to = at + random.within(20.0, 240.0) as usize;
            all.push((at, to));
            at = to + 300 + random.exponential(2400.0) as usize;
        }
        all
    }

    fn errors(&self, truth: &[Truth], random: &mut Random) -> Vec<[f64; 3]> {
        let fade = (-1.0 / SLOW_S).exp();
        let slow_sigma = self.sigma_m * self.slow.sqrt();
        let mut slow = [random.normal() * slow_sigma, random.normal() * slow_sigma];
        let mut mirrored = ([0.0; 2], 0_u32);
        truth
            .iter()
            .map(|t| {
                let worse = if t.is_covered { 3.0 } else { 1.0 };
                let fast = self.sigma_m * (1.0 - self.slow).sqrt();
                // Reflections: the receiver is sure of a place some houses away, for some seconds.
                if mirrored.1 == 0 && random.chance(1.0 / 900.0) && self.kind != Kind::Drone {
                    let (far, way) = (
                        random.within(25.0, 90.0),
                        random.within(0.0, std::f64::consts::TAU),
                    );
                    mirrored = (
                        [far * way.cos(), far * way.sin()],
                        random.within(1.0, 8.0) as u32,
                    );
                }
                let mirror = if mirrored.1 > 0 && self.sigma_m > 0.0 {
                    mirrored.1 -= 1;
                    mirrored.0
                } else {
                    [0.0; 2]
                };
                let mut error = [0.0; 3];
                for i in 0..2 {
                    slow[i] =
                        slow[i] * fade + random.normal() * slow_sigma * (1.0 - fade * fade).sqrt();
                    error[i] = worse * (slow[i] + random.normal() * fast) + mirror[i];
                }
                // Half of the receivers notice that reception is bad.
                error[2] = if self.tells_speed { worse } else { 1.0 };
                error
            })
            .collect()
    }

    fn report(&self, t: &Truth, error: &[f64; 3], second: f64, random: &mut Random) -> Value {
        let (lat, lon) = degrees([t.at[0] + error[0], t.at[1] + error[1]]);
        let (lat, lon) = geo::from_wgs84(self.datum, lat, lon);
        let mut position = json!({"lat": lat, "lon": lon, "datum": self.datum.name()});
        if self.has_zeros && random.chance(0.02) {
            position["lat"] = 0.into();
            position["lon"] = 0.into();
        }
        if self.tells_accuracy {
            let sigma = self.sigma_m.max(1.0) * error[2] * random.within(0.8, 1.25);
            position["accuracy_m"] = (sigma * 1.515).into();
        }
        if self.tells_speed {
            let noise = if self.is_clean {
                0.0
            } else {
                0.2 * random.normal()
            };
            position["speed_mps"] = (t.speed_mps + noise).max(0.0).into();
            if self.kind == Kind::Vehicle {
                let heading = (90.0 - t.way.to_degrees()).rem_euclid(360.0);
                position["heading_deg"] = heading.into();
            }
        }
        let mut report = json!({ "position": position });
        if let Some(c) = &self.clock {
            let ahead = if second < c.set_at_s {
                c.ahead_ms + second * 1e3 * c.drift
            } else {
                0.0
            };
            let ms = BEGIN_MS as f64 + second * 1e3 + ahead;
            report["time_ms"] = (ms as i64 / c.step_ms * c.step_ms).into();
        }
        report
    }
}
