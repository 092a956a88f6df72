//! The filter of one track: fixes in, position and velocity with their covariance out.
//!
//! Here: a plane of metres around the device, two motion models (it moves, it stands) and how likely each is, the
//! device's own speed as a measurement, outliers, prediction. Not here: time stamps, what is done with an outlier.
//!
//! Moving is a constant velocity that fades (Ornstein–Uhlenbeck): after the memory of its kind nothing is left of it,
//! so a prediction comes to rest instead of running away. Both axes have the same noise, so they share one 2×2
//! covariance. The two models are mixed by how well each foretells the fixes (IMM): a standing officer does not wander
//! with the jitter of the receiver, a moving one is not held back.
//!
//! The error of a receiver is mostly the same from one fix to the next; averaging does not remove that part. It is
//! taken out of what a fix says (`COMMON`) and added again to what is stated.

use kerbside_codecs::geo;

/// How a kind of device moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Motion {
    /// Standard deviation of its velocity on each axis while it moves, m/s.
    pub speed_mps: f32,
    /// How long it keeps its velocity, seconds.
    pub memory_s: f32,
    /// How far it is foretold, in seconds of its velocity: shorter than `memory_s`, because to be wrong costs more than
    /// to be behind.
    pub coast_s: f32,
    /// How much a velocity must outweigh its own variance to be foretold with.
    pub doubt: f32,
    /// It stands for so long at a time, and moves for so long, seconds.
    pub stands_s: f32,
    pub moves_s: f32,
    /// Radius of 68 % confidence when the device states none, metres.
    pub accuracy_m: f32,
}

pub const FOOT: Motion = Motion {
    speed_mps: 0.9,
    memory_s: 30.0,
    coast_s: 20.0,
    doubt: 2.0,
    stands_s: 60.0,
    moves_s: 120.0,
    accuracy_m: 10.0,
};
pub const VEHICLE: Motion = Motion {
    speed_mps: 7.0,
    memory_s: 15.0,
    coast_s: 10.0,
    doubt: 2.0,
    stands_s: 40.0,
    moves_s: 60.0,
    accuracy_m: 8.0,
};
pub const DRONE: Motion = Motion {
    speed_mps: 7.0,
    memory_s: 20.0,
    coast_s: 20.0,
    doubt: 1.0,
    stands_s: 40.0,
    moves_s: 60.0,
    accuracy_m: 3.0,
};

/// Radius of 68 % confidence in standard deviations of one axis.
pub const RADIUS_68: f32 = 1.515;
/// No stated accuracy is believed below and above this, metres.
const ACCURACY_MIN_M: f32 = 1.0;
const ACCURACY_MAX_M: f32 = 5_000.0;
/// Part of a fix' variance that the next ones share, and for how long, seconds.
const COMMON: f32 = 0.6;
const COMMON_S: f32 = 40.0;
/// Likely enough to move that it is not resting; and for how long a rest is averaged, seconds.
const MOVES_PERHAPS: f32 = 0.3;
const REST_S: f32 = 30.0;
/// Unrest of what stands, m²/s.
const STANDING_UNREST: f32 = 0.02;
/// Of a velocity that a receiver measured, m/s, and parts of its speed.
const DOPPLER_MPS: f32 = 0.3;
const DOPPLER_PART: f32 = 0.05;
/// Slower than this is standing, by the device's own word, m/s.
const REST_MPS: f32 = 0.25;
/// The plane is laid anew when the device is so far from its middle, metres.
const PLANE_M: f32 = 2_000.0;
/// Of a device whose way nobody knows yet, in usual speeds of its kind.
const UNKNOWN: f32 = 2.0;
/// Nothing of a street is faster on an axis, m/s.
const SPEED_MAX_MPS: f32 = 120.0;
/// Neither model is ever given up.
const LIKELY_MIN: f32 = 0.01;

/// One fix, as the filter takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub lat: f64,
    pub lon: f64,
    /// Radius of 68 % confidence, metres.
    pub accuracy_m: Option<f32>,
    /// Of its moment, seconds; a moving device is blurred by it.
    pub jitter_s: f32,
    pub speed_mps: Option<f32>,
    /// Over the ground, degrees.
    pub course_deg: Option<f32>,
}

impl Measured {
    /// Variance on each axis, m².
    pub fn variance(&self, motion: &Motion) -> f32 {
        let radius = self.accuracy_m.unwrap_or(motion.accuracy_m);
        (radius.clamp(ACCURACY_MIN_M, ACCURACY_MAX_M) / RADIUS_68).powi(2)
    }
}

/// Where a device is, by all that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub lat: f64,
    pub lon: f64,
    /// Standard deviation of the position on each axis, metres.
    pub sigma_m: f32,
    /// Velocity to foretell with, east and north, m/s; as sure as it is, so less than measured when it is doubtful.
    pub velocity_mps: (f32, f32),
    /// How likely it moves, 0..=1.
    pub moves: f32,
}

/// What moves: position, velocity, and the covariance that both axes share.
#[derive(Clone, Copy, Debug, Default)]
struct Moving {
    x: [f32; 2],
    v: [f32; 2],
    pp: f32,
    pv: f32,
    vv: f32,
}

/// What stands.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    x: [f32; 2],
    pp: f32,
}

/// The state of one track. About 80 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Middle of the plane, and metres of a degree there.
    lat: f64,
    lon: f64,
    east_m: f32,
    moving: Moving,
    standing: Standing,
    /// Where it is shown while it stands: the mean of where it stood.
    rest: [f32; 2],
    /// How likely it moves.
    moves: f32,
    /// Variance on each axis of what the fixes share, m².
    common: f32,
}

const DEGREE_M: f32 = 111_195.08;

impl Filter {
    /// From its first fix.
    pub fn new(z: &Measured, motion: &Motion) -> Self {
        let variance = z.variance(motion);
        let own = variance * (1.0 - COMMON);
        let mut me = Self {
            lat: z.lat,
            lon: z.lon,
            east_m: east_m(z.lat),
            moving: Moving {
                pp: own,
                vv: (UNKNOWN * motion.speed_mps).powi(2),
                ..Moving::default()
            },
            standing: Standing {
                pp: own,
                ..Standing::default()
            },
            rest: [0.0; 2],
            moves: motion.moves_s / (motion.moves_s + motion.stands_s),
            common: variance * COMMON,
        };
        me.hear_speed(z);
        me
    }

    /// Anew at a fix that shows that the track was wrong; it keeps nothing.
    pub fn restart(&mut self, z: &Measured, motion: &Motion) {
        *self = Self::new(z, motion);
    }

    /// It came from `from` in `dt_s`: the velocity of that way, as doubtful as two fixes are.
    pub fn set_way(&mut self, from: (f64, f64), dt_s: f32, z: &Measured, motion: &Motion) {
        if dt_s < 0.5 {
            return;
        }
        let way = minus(self.plane(z.lat, z.lon), self.plane(from.0, from.1));
        let m = &mut self.moving;
        m.v = way.map(|d| (d / dt_s).clamp(-SPEED_MAX_MPS, SPEED_MAX_MPS));
        m.vv = (2.0 * z.variance(motion) / (dt_s * dt_s)).min(m.vv) + 1.0;
        m.pv = m.pp / dt_s * (1.0 - COMMON);
    }

    fn plane(&self, lat: f64, lon: f64) -> [f32; 2] {
        let mut east = lon - self.lon;
        if east.abs() > 180.0 {
            east -= 360.0_f64.copysign(east);
        }
        #[allow(clippy::cast_possible_truncation, reason = "metres in a city")]
        [
            (east * f64::from(self.east_m)) as f32,
            ((lat - self.lat) * f64::from(DEGREE_M)) as f32,
        ]
    }

    fn earth(&self, p: [f32; 2]) -> (f64, f64) {
        let lat = (self.lat + f64::from(p[1]) / f64::from(DEGREE_M)).clamp(-90.0, 90.0);
        let lon = self.lon + f64::from(p[0]) / f64::from(self.east_m);
        if lon.abs() > 180.0 {
            return (lat, (lon + 180.0).rem_euclid(360.0) - 180.0);
        }
        (lat, lon)
    }

    /// Squared distance of a fix from where it should be after `dt_s`, in units of its variance there: of the model
    /// that foretells it better.
    pub fn surprise(&self, z: &Measured, dt_s: f32, motion: &Motion) -> f32 {
        let mut ahead = *self;
        ahead.predict(dt_s, motion);
        let at = ahead.plane(z.lat, z.lon);
        let r = ahead.noise(z, motion) + 2.0 * ahead.common.max(z.variance(motion) * COMMON);
        let moving = square(minus(at, ahead.moving.x)) / (ahead.moving.pp + r);
        let standing = square(minus(at, ahead.standing.x)) / (ahead.standing.pp + r);
        moving.min(standing)
    }

    /// Variance of what a fix says alone, m².
    fn noise(&self, z: &Measured, motion: &Motion) -> f32 {
        let speed = square(self.moving.v) * self.moves;
        z.variance(motion) * (1.0 - COMMON) + speed * z.jitter_s.powi(2)
    }

    /// `dt_s` passes; then the fix is heard.
    pub fn update(&mut self, z: &Measured, dt_s: f32, motion: &Motion) {
        self.predict(dt_s, motion);
        let common = z.variance(motion) * COMMON;
        // A fix with another error than the last ones: what they shared is not shared with it.
        let changed = (common - self.common).abs();
        self.common = common;
        let r = self.noise(z, motion) + changed;
        let at = self.plane(z.lat, z.lon);
        let m = &mut self.moving;
        let miss = minus(at, m.x);
        let s = m.pp + r;
        let log_moving = -0.5 * square(miss) / s - s.ln();
        let (kp, kv) = (m.pp / s, m.pv / s);
        for (i, d) in miss.iter().enumerate() {
            m.x[i] += kp * d;
            m.v[i] = (m.v[i] + kv * d).clamp(-SPEED_MAX_MPS, SPEED_MAX_MPS);
        }
        m.vv -= kv * m.pv;
        m.pv *= 1.0 - kp;
        m.pp *= 1.0 - kp;
        let st = &mut self.standing;
        let miss = minus(at, st.x);
        let s = st.pp + r;
        let log_standing = -0.5 * square(miss) / s - s.ln();
        let k = st.pp / s;
        for (i, d) in miss.iter().enumerate() {
            st.x[i] += k * d;
        }
        st.pp *= 1.0 - k;
        self.judge(log_moving, log_standing);
        self.hear_speed(z);
        let apart = square(minus(self.rest, self.standing.x));
        let settle = if self.moves > MOVES_PERHAPS || apart > 2.0 * self.common {
            1.0
        } else {
            1.0 - (-dt_s / REST_S).exp()
        };
        self.rest = between(self.rest, self.standing.x, settle);
        if square(self.moving.x) > PLANE_M * PLANE_M {
            self.lay_plane();
        }
    }

    /// Both models after `dt_s`, mixed by how often devices start and stop.
    fn predict(&mut self, dt_s: f32, motion: &Motion) {
        let dt = dt_s.clamp(0.0, 3600.0);
        let stop = 1.0 - (-dt / motion.moves_s).exp();
        let start = 1.0 - (-dt / motion.stands_s).exp();
        let (m, s) = (self.moving, self.standing);
        let stays_moving = self.moves * (1.0 - stop);
        let stopped = self.moves * stop;
        let started = (1.0 - self.moves) * start;
        let apart = square(minus(m.x, s.x)) / 2.0;
        let moves = stays_moving + started;
        let w = started / moves.max(LIKELY_MIN);
        let any = motion.speed_mps.powi(2);
        let mut to = Moving {
            x: between(m.x, s.x, w),
            v: between(m.v, [0.0; 2], w),
            pp: mix(m.pp, s.pp, w) + w * (1.0 - w) * apart,
            pv: mix(m.pv, 0.0, w),
            vv: mix(m.vv, any, w) + w * (1.0 - w) * square(m.v) / 2.0,
        };
        let w = stopped / (1.0 - moves).max(LIKELY_MIN);
        self.standing = Standing {
            x: between(s.x, m.x, w),
            pp: mix(s.pp, m.pp, w) + w * (1.0 - w) * apart,
        };
        // What the fixes share wanders, and the estimate follows it.
        let wander = 2.0 * self.common * (1.0 - (-dt / COMMON_S).exp());
        self.standing.pp += STANDING_UNREST * dt + wander;
        let (fade, reach, walked) = motion.wander(dt);
        for i in 0..2 {
            to.x[i] += to.v[i] * reach;
            to.v[i] *= fade;
        }
        to.pp += 2.0 * reach * to.pv + reach * reach * to.vv + walked + wander;
        to.pv = fade * (to.pv + reach * to.vv) + any * reach * (1.0 - fade);
        to.vv = fade * fade * to.vv + any * (1.0 - fade * fade);
        self.moving = to;
        self.moves = moves.clamp(LIKELY_MIN, 1.0 - LIKELY_MIN);
    }

    fn judge(&mut self, log_moving: f32, log_standing: f32) {
        let odds = ((log_standing - log_moving).clamp(-20.0, 20.0)).exp();
        let moves = self.moves / (self.moves + (1.0 - self.moves) * odds);
        self.moves = moves.clamp(LIKELY_MIN, 1.0 - LIKELY_MIN);
    }

    /// What the device says of its own speed.
    fn hear_speed(&mut self, z: &Measured) {
        let Some(speed) = z.speed_mps.filter(|s| s.is_finite()) else {
            return;
        };
        let mut r = (DOPPLER_MPS + DOPPLER_PART * speed).powi(2);
        let v = match z.course_deg {
            _ if speed < REST_MPS => [0.0; 2],
            Some(course) => {
                let (sin, cos) = course.to_radians().sin_cos();
                [speed * sin, speed * cos]
            }
            None => {
                let known = square(self.moving.v).sqrt();
                if known < 3.0 * self.moving.vv.sqrt() {
                    // No direction is known either.
                    return self.judge(0.0, -0.5 * speed * speed / r);
                }
                r += self.moving.vv;
                self.moving.v.map(|v| v * speed / known)
            }
        };
        let m = &mut self.moving;
        let miss = minus(v, m.v);
        let s = m.vv + r;
        let log_moving = -0.5 * square(miss) / s - s.ln();
        let log_standing = -0.5 * square(v) / r - r.ln();
        let (kp, kv) = (m.pv / s, m.vv / s);
        for (i, d) in miss.iter().enumerate() {
            m.x[i] += kp * d;
            m.v[i] += kv * d;
        }
        m.pp -= kp * m.pv;
        m.pv *= 1.0 - kv;
        m.vv *= 1.0 - kv;
        self.judge(log_moving, log_standing);
    }

    fn lay_plane(&mut self) {
        let middle = self.moving.x;
        let (lat, lon) = self.earth(middle);
        let standing = self.earth(self.standing.x);
        let rest = self.earth(self.rest);
        (self.lat, self.lon, self.east_m) = (lat, lon, east_m(lat));
        self.moving.x = [0.0; 2];
        self.standing.x = self.plane(standing.0, standing.1);
        self.rest = self.plane(rest.0, rest.1);
    }

    /// Where it is at its last fix.
    pub fn estimate(&self, motion: &Motion) -> Estimate {
        let (m, s, w) = (&self.moving, &self.standing, self.moves);
        let at = between(self.rest, m.x, w);
        let apart = square(minus(m.x, s.x)) / 2.0;
        let (lat, lon) = self.earth(at);
        let trust = trust(square(m.v), m.vv, motion.doubt) * w;
        Estimate {
            lat,
            lon,
            sigma_m: (mix(s.pp, m.pp, w) + w * (1.0 - w) * apart + self.common).sqrt(),
            velocity_mps: (m.v[0] * trust, m.v[1] * trust),
            moves: w,
        }
    }

    /// How fast it is, m/s; not shrunk by doubt.
    pub fn speed_mps(&self) -> f32 {
        square(self.moving.v).sqrt() * self.moves
    }

    /// Where it is after `ahead_s` without a fix. It only grows less sure.
    pub fn at(&self, ahead_s: f32, motion: &Motion) -> Estimate {
        let now = self.estimate(motion);
        let dt = ahead_s.clamp(0.0, 3600.0);
        let coast = motion.coast_s * (1.0 - (-dt / motion.coast_s).exp());
        let here = self.plane(now.lat, now.lon);
        let (lat, lon) = self.earth([
            here[0] + now.velocity_mps.0 * coast,
            here[1] + now.velocity_mps.1 * coast,
        ]);
        let m = &self.moving;
        let (fade, reach, walked) = motion.wander(dt);
        let moving = m.pp + 2.0 * reach * m.pv.max(0.0) + reach * reach * m.vv + walked;
        // It may have begun to move since.
        let moves = self.moves + (1.0 - self.moves) * (1.0 - (-dt / motion.stands_s).exp());
        let standing = self.standing.pp + STANDING_UNREST * dt;
        // What of its way is not foretold.
        let left = square(m.v) * (reach - coast).powi(2) / 2.0 * self.moves * fade;
        let grown = mix(standing, moving, moves) + self.common + left;
        Estimate {
            lat,
            lon,
            sigma_m: now.sigma_m.max(grown.sqrt()),
            ..now
        }
    }
}

impl Motion {
    /// Over `dt_s`: what is left of a velocity, how far it carries (seconds), and the variance of the position that
    /// comes from new velocities (m²).
    fn wander(&self, dt_s: f32) -> (f32, f32, f32) {
        let tau = self.memory_s;
        let fade = (-dt_s / tau).exp();
        let shape = (2.0 * dt_s / tau - 3.0 + 4.0 * fade - fade * fade).max(0.0);
        let walked = (self.speed_mps * tau).powi(2) * shape;
        (fade, tau * (1.0 - fade), walked)
    }
}

/// How much of a velocity is believed, of its square and its variance on each axis: none when it may be noise.
fn trust(speed2: f32, vv: f32, doubt: f32) -> f32 {
    (1.0 - doubt * vv / speed2.max(1e-6)).max(0.0)
}

fn east_m(lat: f64) -> f32 {
    #[allow(clippy::cast_possible_truncation, reason = "a factor")]
    let cos = lat.to_radians().cos().max(1e-3) as f32;
    DEGREE_M * cos
}

fn minus(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

fn square(a: [f32; 2]) -> f32 {
    a[0] * a[0] + a[1] * a[1]
}

fn mix(a: f32, b: f32, part_of_b: f32) -> f32 {
    a + (b - a) * part_of_b
}

fn between(a: [f32; 2], b: [f32; 2], part_of_b: f32) -> [f32; 2] {
    [mix(a[0], b[0], part_of_b), mix(a[1], b[1], part_of_b)]
}

/// Metres between two positions of the earth.
pub fn apart_m(a: (f64, f64), b: (f64, f64)) -> f64 {
    geo::distance_m(a, b)
}
