//! Distances to the truth, of the track and of what is compared with it, and how honest the stated uncertainty is.

use kerbside_codecs::telemetry::Fix;

use super::world::plane;

/// One look at one device.
pub struct Sample {
    /// Distances to the truth, metres.
    pub ours: f64,
    pub hold: f64,
    pub naive: f64,
    /// What the track says of itself, on each axis.
    pub sigma_m: f64,
    /// Radius of 68 % of the fix that is held.
    pub accuracy_m: f64,
}

/// The fixes as they came, for those who hold and those who extrapolate.
#[derive(Default)]
pub struct Told {
    last: Option<([f64; 2], Option<i64>, i64)>,
    before: Option<([f64; 2], Option<i64>, i64)>,
    accuracy_m: f64,
}

impl Told {
    pub fn fix(&mut self, fix: &Fix, device_ms: Option<i64>, arrived_ms: i64) {
        self.before = self.last;
        self.last = Some((plane(fix.lat, fix.lon), device_ms, arrived_ms));
        self.accuracy_m = fix.accuracy_m.unwrap_or(6.0);
    }

    pub fn accuracy_m(&self) -> f64 {
        self.accuracy_m
    }

    pub fn hold(&self) -> Option<[f64; 2]> {
        Some(self.last?.0)
    }

    /// Along the line of the last two fixes.
    pub fn extrapolate(&self, now_ms: i64) -> Option<[f64; 2]> {
        let (b, b_ms, b_arrived) = self.last?;
        let (a, a_ms, a_arrived) = self.before?;
        let step = b_ms.zip(a_ms).map_or(b_arrived - a_arrived, |(b, a)| b - a);
        if step < 500 {
            return Some(b);
        }
        let ahead = (now_ms - b_arrived) as f64 / step as f64;
        Some([b[0] + (b[0] - a[0]) * ahead, b[1] + (b[1] - a[1]) * ahead])
    }
}

/// Distances of one way to place the marker.
#[derive(Clone, Default)]
struct Errors(Vec<f32>);

impl Errors {
    fn rmse(&self) -> f64 {
        let sum: f64 = self.0.iter().map(|e| f64::from(*e).powi(2)).sum();
        (sum / self.0.len().max(1) as f64).sqrt()
    }

    fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = (sorted.len().saturating_sub(1) as f64 * q).round() as usize;
        sorted.get(at).copied().map_or(f64::NAN, f64::from)
    }
}

#[derive(Clone, Default)]
pub struct Score {
    ours: Errors,
    hold: Errors,
    naive: Errors,
    nees: f64,
    /// Inside the ellipse that should hold 95 %.
    inside: u32,
    worse: u32,
    worse_1m: u32,
    worse_accuracy: u32,
    naive_worse_1m: u32,
}

impl Score {
    pub fn take(&mut self, s: &Sample) {
        self.ours.0.push(s.ours as f32);
        self.hold.0.push(s.hold as f32);
        self.naive.0.push(s.naive as f32);
        let nees = (s.ours / s.sigma_m.max(1e-3)).powi(2);
        self.nees += nees;
        self.inside += u32::from(nees <= 5.991);
        // A centimetre is a tie.
        self.worse += u32::from(s.ours > s.hold + 0.01);
        self.worse_1m += u32::from(s.ours > s.hold + 1.0);
        self.worse_accuracy += u32::from(s.ours > s.hold + s.accuracy_m.max(1.0));
        self.naive_worse_1m += u32::from(s.naive > s.hold + 1.0);
    }

    pub fn add(&mut self, other: &Self) {
        self.ours.0.extend(&other.ours.0);
        self.hold.0.extend(&other.hold.0);
        self.naive.0.extend(&other.naive.0);
        self.nees += other.nees;
        self.inside += other.inside;
        self.worse += other.worse;
        self.worse_1m += other.worse_1m;
        self.worse_accuracy += other.worse_accuracy;
        self.naive_worse_1m += other.naive_worse_1m;
    }

    fn share(&self, n: u32) -> f64 {
        f64::from(n) / self.ours.0.len().max(1) as f64
    }

    /// The share of looks at which it is farther from the truth than the held fix by more than that fix' accuracy.
    #[cfg(test)]
    pub fn worse_than_accuracy(&self) -> f64 {
        self.share(self.worse_accuracy)
    }

    #[cfg(test)]
    pub fn p95(&self) -> [f64; 3] {
        [&self.ours, &self.hold, &self.naive].map(|e| e.quantile(0.95))
    }

    #[cfg(test)]
    pub fn rmse(&self) -> [f64; 3] {
        [&self.ours, &self.hold, &self.naive].map(Errors::rmse)
    }

    /// Mean of the squared error in units of the stated variance; 2 when it is honest.
    pub fn nees(&self) -> f64 {
        self.nees / self.ours.0.len().max(1) as f64
    }

    pub fn inside_95(&self) -> f64 {
        self.share(self.inside)
    }

    pub fn head() -> String {
        "| thinned | kind | RMSE m: ours, hold, extrapolated | p50 m | p95 m | worse than hold: at all, by > 1 m, by > its accuracy | \
         extrapolated worse by > 1 m | NEES (2) | inside 95 % |\n|---|---|---|---|---|---|---|---|---|"
            .to_owned()
    }

    pub fn line(&self) -> String {
        let three = |f: &dyn Fn(&Errors) -> f64| {
            [&self.ours, &self.hold, &self.naive]
                .map(|e| format!("{:.1}", f(e)))
                .join(", ")
        };
        format!(
            "{} | {} | {} | {:.1}, {:.1}, {:.1} % | {:.1} % | {:.2} | {:.1} % |",
            three(&Errors::rmse),
            three(&|e| e.quantile(0.5)),
            three(&|e| e.quantile(0.95)),
            self.share(self.worse) * 100.0,
            self.share(self.worse_1m) * 100.0,
            self.share(self.worse_accuracy) * 100.0,
            self.share(self.naive_worse_1m) * 100.0,
            self.nees(),
            self.inside_95() * 100.0
        )
    }
}
