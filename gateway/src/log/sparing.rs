//! Lines that a stranger or a faulty device can cause again and again: one a second per address or name, after a few at
//! once. What is left out is counted elsewhere (each caller has a metric of the same thing).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const EACH: Duration = Duration::from_secs(1);
/// At once: a session's beginning and end come close together, and an office's devices share an address.
const AT_ONCE: u32 = 20;
const CAUSES_MAX: usize = 1024;

/// Until when the lines of each address (or name) are paid for, at one a second.
pub struct Sparing<K = IpAddr>(Mutex<HashMap<K, Instant>>);

impl<K> Default for Sparing<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Sparing<K> {
    /// May this one cause another line?
    pub fn may_say(&self, cause: K, now: Instant) -> bool {
        let mut paid = self.0.lock();
        if paid.len() >= CAUSES_MAX && !paid.contains_key(&cause) {
            paid.retain(|_, until| *until > now);
            if paid.len() >= CAUSES_MAX {
                return false;
            }
        }
        let until = paid.entry(cause).or_insert(now);
        let next = (*until).max(now) + EACH;
        let may = next <= now + EACH * AT_ONCE;
        if may {
            *until = next;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_lines_a_second() {
        let (s, now) = (Sparing::default(), Instant::now());
        let said = |at| {
            (0..1000)
                .filter(|_| s.may_say(IpAddr::from([10, 0, 0, 1]), at))
                .count()
        };
        assert_eq!(said(now), AT_ONCE as usize);
        assert!(s.may_say([10, 0, 0, 2].into(), now), "another one");
        assert_eq!(said(now + EACH), 1);
        assert_eq!(said(now + 4 * EACH), 3);
        assert_eq!(said(now + 600 * EACH), AT_ONCE as usize);
        for n in 0..2 * CAUSES_MAX as u32 {
            s.may_say(IpAddr::V4(n.into()), now);
        }
        assert!(s.0.lock().len() <= CAUSES_MAX);
    }
}
