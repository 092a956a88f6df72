//! Failed logins: answered, counted, logged once a minute per address, slowed down when they come in numbers.
//! Right credentials are never slowed down: the secrets are random, so only the log and the processor need a guard.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntCounterVec;

use crate::metrics;

static FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_login_failures_total",
        "Refused credentials",
        &["protocol"],
    )
});

const WINDOW: Duration = Duration::from_secs(60);
const FAILURES_FREE: u32 = 20;
const ADDRESSES_MAX: usize = 4096;

/// What to do after a failed login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer "unauthorized".
    Refuse,
    /// Answer "too many requests" (or wait so long, then close).
    SlowDown(Duration),
}

#[derive(Default)]
pub struct Guard {
    seen: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Guard {
    /// Notes a failure. `name` is what the other side claimed; the secret it sent is never logged.
    pub fn failed(
        &self,
        protocol: &'static str,
        peer: IpAddr,
        name: &str,
        now: Instant,
    ) -> Verdict {
        FAILURES.with_label_values(&[protocol]).inc();
        let mut seen = self.seen.lock();
        if seen.len() >= ADDRESSES_MAX && !seen.contains_key(&peer) {
            seen.retain(|_, (since, _)| now.saturating_duration_since(*since) < WINDOW);
            if seen.len() >= ADDRESSES_MAX {
                return Verdict::SlowDown(Duration::from_secs(1));
            }
        }
        let entry = seen.entry(peer).or_insert((now, 0));
        if now.saturating_duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
        let count = entry.1;
        drop(seen);
        if count == 1 || count == FAILURES_FREE + 1 {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            tracing::warn!(protocol, peer = %peer, name, count, "login refused; further ones from here are counted, not logged, for a minute");
        }
        if count > FAILURES_FREE {
            Verdict::SlowDown(Duration::from_secs(1))
        } else {
            Verdict::Refuse
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_slow_down_and_time_heals() {
        let g = Guard::default();
        let t = Instant::now();
        let ip = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..FAILURES_FREE {
            assert_eq!(g.failed("mqtt", ip, "x", t), Verdict::Refuse);
        }
        assert!(matches!(g.failed("mqtt", ip, "x", t), Verdict::SlowDown(_)));
        assert_eq!(
            g.failed("mqtt", IpAddr::from([192, 0, 2, 2]), "x", t),
            Verdict::Refuse
        );
        assert_eq!(g.failed("mqtt", ip, "x", t + WINDOW), Verdict::Refuse);
    }
}
