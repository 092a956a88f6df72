//! What was measured, as rows of a table.

use std::time::Duration;

use crate::swarm::Outcome;

/// Some seconds of all readers.
pub struct Window {
    pub wall: Duration,
    pub reading: usize,
    pub server_cpu: Option<Duration>,
    pub swarm_cpu: Duration,
    pub packets: u64,
    pub frames: u64,
    pub lost: u64,
    /// Of sampled readers, sorted.
    pub latency_ms: Vec<f64>,
}

/// The value below which the share `q` of the sorted samples lies.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

/// The columns of a row, in the table's order.
const COLUMNS: [(&str, usize); 15] = [
    ("joined", 0),
    ("ms CPU per reader-second", 2),
    ("µs per packet", 2),
    ("latency p50 ms", 1),
    ("p99 ms", 1),
    ("join p50 ms", 1),
    ("p99 ms", 1),
    ("from connect p50 ms", 1),
    ("p99 ms", 1),
    ("loss %", 3),
    ("frames per reader-second", 1),
    ("kB RSS per reader", 0),
    ("kB PSS per reader", 0),
    ("threads", 0),
    ("swarm's CPU %", 0),
];

/// Readers that get less than this share of the frames are not served.
const WHOLE: f64 = 0.95;

/// One measurement: figures by column, NaN where there is none.
#[derive(Clone, Debug)]
pub struct Row {
    pub server: String,
    pub transport: String,
    pub readers: usize,
    figures: [f64; COLUMNS.len()],
}

impl Row {
    /// `window`: the one to show, of this outcome.
    pub fn new(server: &str, transport: &str, readers: usize, o: &Outcome, w: &Window) -> Self {
        let reader_seconds = w.wall.as_secs_f64() * w.reading.max(1) as f64;
        let cpu = w.server_cpu.map_or(f64::NAN, |c| c.as_secs_f64());
        let per_reader = |of: fn(&crate::process::Memory) -> u64| match (&o.before, &o.after) {
            (Some(a), Some(b)) => (of(b) as f64 - of(a) as f64) / 1024.0 / o.joined.max(1) as f64,
            _ => f64::NAN,
        };
        Self {
            server: server.to_owned(),
            transport: transport.to_owned(),
            readers,
            figures: [
                o.joined as f64,
                cpu * 1e3 / reader_seconds,
                cpu * 1e6 / w.packets.max(1) as f64,
                quantile(&w.latency_ms, 0.5),
                quantile(&w.latency_ms, 0.99),
                quantile(&o.join_ms, 0.5),
                quantile(&o.join_ms, 0.99),
                quantile(&o.whole_join_ms, 0.5),
                quantile(&o.whole_join_ms, 0.99),
                w.lost as f64 * 100.0 / (w.packets + w.lost).max(1) as f64,
                w.frames as f64 / reader_seconds,
                per_reader(|m| m.rss),
                per_reader(|m| m.pss),
                o.after.as_ref().map_or(f64::NAN, |m| m.threads as f64),
                w.swarm_cpu.as_secs_f64() * 100.0 / w.wall.as_secs_f64(),
            ],
        }
    }

    /// Figure by figure the median of several runs of the same row. None without runs.
    pub fn median(runs: &[Self]) -> Option<Self> {
        let mut row = runs.first()?.clone();
        for (i, figure) in row.figures.iter_mut().enumerate() {
            let mut all: Vec<f64> = runs.iter().map(|r| r.figures[i]).collect();
            all.sort_by(f64::total_cmp);
            *figure = quantile(&all, 0.5);
        }
        Some(row)
    }

    pub fn head() -> String {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        format!(
            "| server | transport | readers | {} |\n|---|---|---|{}",
            names.join(" | "),
            "---|".repeat(COLUMNS.len())
        )
    }

    pub fn line(&self) -> String {
        let figures: Vec<String> = self
            .figures
            .iter()
            .zip(COLUMNS)
            .map(|(f, (_, digits))| {
                if f.is_nan() {
                    "–".to_owned()
                } else {
                    format!("{f:.digits$}")
                }
            })
            .collect();
        format!(
            "| {} | {} | {} | {} |",
            self.server,
            self.transport,
            self.readers,
            figures.join(" | ")
        )
    }
}

/// What goes with the rows: what was agreed, and what went wrong.
///
/// `fps`: of the camera, where it is known.
pub fn notes(o: &Outcome, fps: Option<u32>) -> Vec<String> {
    const FAULTS_SHOWN: usize = 3;
    let mut notes = Vec::new();
    for w in [Some(&o.window), o.stalled.as_ref()].into_iter().flatten() {
        let rate = w.frames as f64 / (w.wall.as_secs_f64() * w.reading.max(1) as f64);
        if fps.is_some_and(|fps| rate < f64::from(fps) * WHOLE) {
            notes.push(format!(
                "readers got {rate:.1} frames a second: the server or the machine had no processor time left; \
                 of its row only the CPU per packet says something"
            ));
        }
    }
    if !o.profiles.is_empty() {
        let profiles: Vec<_> = o.profiles.iter().copied().collect();
        notes.push(format!(
            "SRTP: {}; the readers' DTLS handshakes cost this machine's processors, too, and are part of the join times",
            profiles.join(", ")
        ));
    }
    let mut faults: Vec<(usize, &str)> = Vec::new();
    for f in &o.faults {
        match faults.iter_mut().find(|(_, known)| known == f) {
            Some((n, _)) => *n += 1,
            None => faults.push((1, f)),
        }
    }
    faults.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    for (n, fault) in faults.iter().take(FAULTS_SHOWN) {
        notes.push(format!("{n} readers: {fault}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let row = |a: f64, b: f64| {
            let mut figures = [f64::NAN; COLUMNS.len()];
            figures[1] = a;
            figures[2] = b;
            Row {
                server: "s".to_owned(),
                transport: "t".to_owned(),
                readers: 1,
                figures,
            }
        };
        let m = Row::median(&[row(1.0, 9.0), row(3.0, 7.0), row(2.0, 8.0)]).unwrap();
        assert!(
            m.line().starts_with("| s | t | 1 | – | 2.00 | 8.00 | –"),
            "{}",
            m.line()
        );
        assert_eq!(
            Row::head().lines().next().unwrap().matches('|').count(),
            m.line().matches('|').count()
        );
        assert!(Row::median(&[]).is_none());
    }
}
