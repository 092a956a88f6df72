//! How often a device may connect: a burst, then one a second, counted for each device at each address. A device that
//! connects in a tight loop is slowed down, and nobody else; whoever uses its secret elsewhere does not shut it out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ids::DeviceId;

/// Connections at once after a pause.
const BURST: f64 = 30.0;
/// Then one in this time.
const EACH: Duration = Duration::from_secs(1);
/// Devices at addresses that are watched; further ones are let in unwatched.
const WATCHED_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Pace(Mutex<HashMap<(DeviceId, IpAddr), Bucket>>);

struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed / EACH.as_secs_f64()).min(BURST);
        self.at = now;
    }
}

impl Pace {
    /// May this device connect from there now?
    pub fn allows(&self, device: &DeviceId, from: IpAddr, now: Instant) -> bool {
        let mut all = self.0.lock();
        let key = (device.clone(), from);
        if all.len() >= WATCHED_MAX && !all.contains_key(&key) {
            return true;
        }
        let bucket = all.entry(key).or_insert(Bucket {
            left: BURST,
            at: now,
        });
        bucket.fill(now);
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }

    /// Forgets who has been quiet for long enough.
    pub fn sweep(&self, now: Instant) {
        self.0.lock().retain(|_, bucket| {
            bucket.fill(now);
            bucket.left < BURST
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tight_loop_is_slowed_down_and_nobody_else() {
        let (pace, start) = (Pace::default(), Instant::now());
        let [d, e] = ["d", "e"].map(|id| DeviceId::parse(id).unwrap());
        let [here, there] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        // 10,000 a minute.
        let step = Duration::from_millis(6);
        let tries = (0..10_000u32).map(|n| start + step * n);
        let let_in = tries.filter(|now| pace.allows(&d, here, *now)).count();
        assert!((85..=91).contains(&let_in), "{let_in}");
        let now = start + step * 10_000;
        assert!(pace.allows(&e, here, now) && pace.allows(&d, there, now));
        // Who connects again every two seconds never hears of it.
        let later = now + Duration::from_secs(60);
        assert!((0..100u32).all(|n| pace.allows(&d, here, later + 2 * EACH * n)));
        pace.sweep(later + 2 * EACH * 100 + EACH * 60);
        assert!(pace.0.lock().is_empty());
    }
}
