//! Who moves how in the simulated city: the truth, second by second, in metres east and north of its middle.

use std::f64::consts::PI;

use super::Kind;

/// When the day begins, milliseconds since 1970 UTC.
pub const BEGIN_MS: i64 = 1_795_219_200_000;
const MIDDLE: (f64, f64) = (37.69, 112.75);
const DEGREE_M: f64 = 111_195.08;

/// A seeded source of numbers (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut me = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        me.next();
        me
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn within(&mut self, from: f64, to: f64) -> f64 {
        from + self.part() * (to - from)
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.part() < p
    }

    /// Normal, of variance one.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.part().max(1e-12).ln()).sqrt() * (2.0 * PI * self.part()).cos()
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.part().max(1e-12).ln()
    }
}

/// One moment of the truth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Truth {
    pub at: [f64; 2],
    pub speed_mps: f64,
    /// Where it goes, radians from east, counter-clockwise.
    pub way: f64,
    /// Among high houses or in one: reception is bad.
    pub is_covered: bool,
}

/// Degrees of a point of the plane: (lat, lon).
pub fn degrees(at: [f64; 2]) -> (f64, f64) {
    let east = DEGREE_M * MIDDLE.0.to_radians().cos();
    (MIDDLE.0 + at[1] / DEGREE_M, MIDDLE.1 + at[0] / east)
}

pub fn plane(lat: f64, lon: f64) -> [f64; 2] {
    let east = DEGREE_M * MIDDLE.0.to_radians().cos();
    [(lon - MIDDLE.1) * east, (lat - MIDDLE.0) * DEGREE_M]
}

pub fn apart_m(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// How one kind gets about.
struct Habit {
    /// Between the corners it goes to, metres.
    leg_m: (f64, f64),
    speed_mps: (f64, f64),
    acceleration: f64,
    /// Speed at a corner where it turns.
    turn_mps: f64,
    /// It goes straight on at a corner …
    straight: f64,
    /// … or stops there, for a while: chance, seconds.
    stops: f64,
    stop_s: (f64, f64),
    /// It stays somewhere on the way (a shop, a kerb, a hover): chance at a corner, mean seconds.
    stays: f64,
    stay_s: f64,
    /// Streets are at right angles; in the air they are not.
    has_streets: bool,
}

impl Habit {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Foot => Self {
                leg_m: (30.0, 120.0),
                speed_mps: (1.0, 1.6),
                acceleration: 1.0,
                turn_mps: 1.0,
                straight: 0.5,
                stops: 0.2,
                stop_s: (5.0, 40.0),
                stays: 0.35,
                stay_s: 150.0,
                has_streets: true,
            },
            Kind::Vehicle => Self {
                leg_m: (120.0, 450.0),
                speed_mps: (8.3, 16.7),
                acceleration: 1.8,
                turn_mps: 5.0,
                straight: 0.6,
                stops: 0.4,
                stop_s: (5.0, 60.0),
                stays: 0.06,
                stay_s: 240.0,
                has_streets: true,
            },
            Kind::Drone => Self {
                leg_m: (150.0, 600.0),
                speed_mps: (6.0, 15.0),
                acceleration: 2.5,
                turn_mps: 3.0,
                straight: 0.1,
                stops: 0.4,
                stop_s: (5.0, 30.0),
                stays: 0.2,
                stay_s: 90.0,
                has_streets: false,
            },
        }
    }
}

/// One that moves.
pub struct Mover {
    habit: Habit,
    now: Truth,
    left_m: f64,
    cruise_mps: f64,
    end_mps: f64,
    next_way: f64,
    rest_s: f64,
    covered_next: f64,
}

impl Mover {
    pub fn new(kind: Kind, random: &mut Random) -> Self {
        let mut me = Self {
            habit: Habit::of(kind),
            now: Truth {
                at: [random.within(-4e3, 4e3), random.within(-4e3, 4e3)],
                ..Truth::default()
            },
            left_m: 0.0,
            cruise_mps: 0.0,
            end_mps: 0.0,
            next_way: 0.0,
            rest_s: random.within(0.0, 30.0),
            covered_next: if kind == Kind::Foot { 0.4 } else { 0.0 },
        };
        me.corner(random);
        me
    }

    /// The truth at each full second.
    pub fn go(mut self, seconds: u32, random: &mut Random) -> Vec<Truth> {
        const STEPS: u32 = 10;
        (0..=seconds)
            .map(|_| {
                let now = self.now;
                for _ in 0..STEPS {
                    self.step(1.0 / f64::from(STEPS), random);
                }
                now
            })
            .collect()
    }

    fn step(&mut self, dt: f64, random: &mut Random) {
        if self.rest_s > 0.0 {
            self.rest_s -= dt;
            self.now.speed_mps = 0.0;
            if self.rest_s <= 0.0 {
                self.now.is_covered = false;
            }
            return;
        }
        let h = &self.habit;
        // As fast as it may be and still be slow enough at the corner.
        let allowed = (self.end_mps.powi(2) + 2.0 * h.acceleration * self.left_m.max(0.0)).sqrt();
        let goal = self.cruise_mps.min(allowed).max(0.3);
        let change =
            (goal - self.now.speed_mps).clamp(-2.0 * h.acceleration * dt, h.acceleration * dt);
        self.now.speed_mps += change;
        let way = self.now.speed_mps * dt;
        self.now.at[0] += way * self.now.way.cos();
        self.now.at[1] += way * self.now.way.sin();
        self.left_m -= way;
        if self.left_m <= 0.0 {
            self.now.way = self.next_way;
            if self.end_mps == 0.0 {
                let h = &self.habit;
                self.rest_s = if random.chance(h.stays / (h.stays + h.stops)) {
                    self.now.is_covered = random.chance(self.covered_next);
                    random.exponential(h.stay_s) + 10.0
                } else {
                    random.within(h.stop_s.0, h.stop_s.1)
                };
            }
            self.corner(random);
        }
    }

    /// Where it goes next, and how it gets round the corner there.
    fn corner(&mut self, random: &mut Random) {
        let h = &self.habit;
        self.left_m = random.within(h.leg_m.0, h.leg_m.1);
        self.cruise_mps = random.within(h.speed_mps.0, h.speed_mps.1);
        let straight = random.chance(h.straight);
        self.end_mps = if random.chance(h.stops + h.stays) {
            0.0
        } else if straight {
            self.cruise_mps
        } else {
            h.turn_mps
        };
        let home = (-self.now.at[1]).atan2(-self.now.at[0]);
        self.next_way = if straight {
            self.now.way
        } else if !h.has_streets {
            random.within(0.0, 2.0 * PI)
        } else {
            let left = self.now.way + PI / 2.0;
            let right = self.now.way - PI / 2.0;
            // Nobody leaves the city.
            let far = self.now.at[0].hypot(self.now.at[1]) > 6e3;
            let is_left_home = (left - home).cos() > 0.0;
            if if far {
                is_left_home
            } else {
                random.chance(0.5)
            } {
                left
            } else {
                right
            }
        };
    }
}
