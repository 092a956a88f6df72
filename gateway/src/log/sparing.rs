//! Lines that a stranger or a faulty device can cause again and again: only so many of them per address. What is left
//! out is counted elsewhere (each caller has a metric of the same thing).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);
const LINES_MAX: u32 = 120;
const ADDRESSES_MAX: usize = 1024;

/// How many lines each address has caused in its running minute.
#[derive(Default)]
pub struct Sparing(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Sparing {
    /// May this address cause another line?
    pub fn may_say(&self, peer: IpAddr, now: Instant) -> bool {
        let over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        let mut said = self.0.lock();
        if said.len() >= ADDRESSES_MAX && !said.contains_key(&peer) {
            said.retain(|_, (since, _)| !over(*since));
            if said.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let (since, lines) = said.entry(peer).or_insert((now, 0));
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
                .filter(|_| s.may_say([10, 0, 0, 1].into(), at))
                .count()
        };
        assert_eq!(said(now), LINES_MAX as usize);
        assert!(s.may_say([10, 0, 0, 2].into(), now), "another one");
        assert_eq!(said(now + WINDOW), LINES_MAX as usize);
        for n in 0..2 * ADDRESSES_MAX as u32 {
            s.may_say(IpAddr::V4(n.into()), now);
        }
        assert!(s.0.lock().len() <= ADDRESSES_MAX);
    }
}
