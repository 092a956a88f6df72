//! Lines that a stranger or a faulty device can cause again and again: over a minute at most one a second per address or
//! name. What is left out is counted elsewhere (each caller has a metric of the same thing).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);
/// One a second on average; a session's beginning and end come close together.
const LINES_MAX: u32 = 60;
const CAUSES_MAX: usize = 1024;

/// How many lines each address (or name) has caused in its running minute.
pub struct Sparing<K = IpAddr>(Mutex<HashMap<K, (Instant, u32)>>);

impl<K> Default for Sparing<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Sparing<K> {
    /// May this one cause another line?
    pub fn may_say(&self, cause: K, now: Instant) -> bool {
        let over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        let mut said = self.0.lock();
        if said.len() >= CAUSES_MAX && !said.contains_key(&cause) {
            said.retain(|_, (since, _)| !over(*since));
            if said.len() >= CAUSES_MAX {
                return false;
            }
        }
        let (since, lines) = said.entry(cause).or_insert((now, 0));
        if over(*since) {
            (*since, *lines) = (now, 0);
        }
        *lines = lines.saturating_add(1);
        *lines <= LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_lines_a_minute() {
        let (s, now) = (Sparing::default(), Instant::now());
        let said = |at| {
            (0..1000)
                .filter(|_| s.may_say(IpAddr::from([10, 0, 0, 1]), at))
                .count()
        };
        assert_eq!(said(now), LINES_MAX as usize);
        assert!(s.may_say([10, 0, 0, 2].into(), now), "another one");
        assert_eq!(said(now + WINDOW), LINES_MAX as usize);
        for n in 0..2 * CAUSES_MAX as u32 {
            s.may_say(IpAddr::V4(n.into()), now);
        }
        assert!(s.0.lock().len() <= CAUSES_MAX);
    }
}
