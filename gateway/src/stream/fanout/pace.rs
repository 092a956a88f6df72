//! The pace of a start: a group of pictures from the ring is not one burst that a mobile network drops.
//!
//! Pure: a bucket of bytes that fills with time. Frames are not cut: a large one is sent whole and paid off afterwards.

use std::time::{Duration, Instant};

/// Sent at once before the pace holds.
const BURST_BYTES: u64 = 32 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When everything sent so far is paid off.
    paid_at: Instant,
}

impl Pace {
    pub fn new(bits_per_second: u64, now: Instant) -> Self {
        Self {
            bytes_per_second: (bits_per_second / 8).max(1),
            paid_at: now,
        }
    }

    /// So many bytes went out.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_second;
        self.paid_at = self.paid_at.max(now) + Duration::from_nanos(nanos);
    }

    /// When the next frame may go; None: now.
    pub fn wait_until(&self, now: Instant) -> Option<Instant> {
        let burst = Duration::from_nanos(BURST_BYTES * 1_000_000_000 / self.bytes_per_second);
        let at = self.paid_at.checked_sub(burst)?;
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_megabyte_takes_its_time_and_small_things_none() {
        let t = Instant::now();
        let mut p = Pace::new(8_000_000, t);
        p.sent(10_000, t);
        assert_eq!(p.wait_until(t), None);
        for _ in 0..10 {
            p.sent(100_000, t);
        }
        let until = p.wait_until(t).unwrap();
        let ms = (until - t).as_millis();
        assert!(
            (970..1010).contains(&ms),
            "{ms} ms for 1.01 MB less the burst"
        );
        assert_eq!(p.wait_until(until), None);
        // A pause does not save up more than the burst.
        let later = t + Duration::from_secs(60);
        p.sent(100_000, later);
        assert!(p.wait_until(later).is_some());
    }
}
