//! Passes: a secret in an address, by which a device that cannot send its password may publish one stream.
//!
//! DJI devices are given an address and nothing else. A pass is made for one order, holds for one stream and for a
//! day, and is gone when that stream is ordered to stop, and at a restart.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng;
use subtle::ConstantTimeEq;

use crate::ids::StreamId;

/// The oldest makes room.
const PASSES_MAX: usize = 1024;
const HOLDS: Duration = Duration::from_secs(24 * 3600);

struct Pass {
    secret: String,
    stream: StreamId,
    until: Instant,
}

/// All passes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Passes(Arc<Mutex<VecDeque<Pass>>>);

impl Passes {
    /// A new secret for the stream: 32 hexadecimal digits.
    pub fn make(&self, stream: StreamId, now: Instant) -> String {
        let secret = format!("{:032x}", rand::rng().random::<u128>());
        let mut all = self.0.lock();
        all.retain(|p| p.until > now);
        if all.len() >= PASSES_MAX {
            all.pop_front();
        }
        all.push_back(Pass {
            secret: secret.clone(),
            stream,
            until: now + HOLDS,
        });
        secret
    }

    /// May who has this secret publish the stream?
    pub fn is_valid(&self, secret: &str, stream: &StreamId, now: Instant) -> bool {
        let all = self.0.lock();
        let of_stream = all.iter().filter(|p| p.stream == *stream && p.until > now);
        // All are compared, each in constant time.
        of_stream.fold(false, |found, p| {
            found | bool::from(p.secret.as_bytes().ct_eq(secret.as_bytes()))
        })
    }

    pub fn end(&self, stream: &StreamId) {
        self.0.lock().retain(|p| p.stream != *stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_for_one_stream_and_a_day() {
        let (passes, now) = (Passes::default(), Instant::now());
        let stream = |c: &str| StreamId::new("dock-1", c).unwrap();
        let secret = passes.make(stream("a"), now);
        assert_eq!(secret.len(), 32);
        assert!(passes.is_valid(&secret, &stream("a"), now));
        assert!(!passes.is_valid(&secret, &stream("b"), now));
        assert!(!passes.is_valid("", &stream("a"), now));
        assert!(!passes.is_valid(&secret, &stream("a"), now + HOLDS));
        passes.end(&stream("a"));
        assert!(!passes.is_valid(&secret, &stream("a"), now));
        for n in 0..2 * PASSES_MAX {
            passes.make(stream(&format!("c{n}")), now);
        }
        assert_eq!(passes.0.lock().len(), PASSES_MAX);
    }
}
