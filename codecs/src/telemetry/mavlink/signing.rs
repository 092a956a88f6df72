//! Signed MAVLink 2: who may speak for a drone, and that nobody repeats what it said.
//!
//! Here: the signature, the order of time stamps of each stream. Not here: where keys come from (the gateway's
//! configuration). The crate `mavlink` can do this too, but reads the clock itself and keeps streams without bound.

use std::fmt;

use sha2::{Digest, Sha256};

use super::frame::Signature;

/// Milliseconds since 1970 of 2015-01-01, where time stamps begin.
const EPOCH_MS: i64 = 1_420_070_400_000;
/// How far a stream's first time stamp may be behind the gateway's clock, in 10 µs: one minute.
const BEHIND_MAX: u64 = 60 * 100_000;
/// Streams (component and link) of one system.
const STREAMS_MAX: usize = 64;

/// A shared secret of 32 bytes. Its Debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Made with another key, or changed on the way.
    Wrong,
    /// Said before: its time stamp is not newer than the stream's last one, or a new stream is more than a minute old.
    Old,
}

/// The key of one system and the newest time stamp of each of its streams.
#[derive(Clone, Debug)]
pub struct Signed {
    key: Key,
    /// Component, link, time stamp.
    streams: Vec<(u8, u8, u64)>,
}

impl Signed {
    pub fn new(key: Key) -> Self {
        Self {
            key,
            streams: Vec::new(),
        }
    }

    /// `arrived_ms`: wallclock of the gateway, ms since 1970 UTC.
    pub fn check(&mut self, component: u8, s: &Signature<'_>, arrived_ms: i64) -> Verdict {
        if !self.matches(s) {
            return Verdict::Wrong;
        }
        let is_full = self.streams.len() >= STREAMS_MAX;
        let stream = self
            .streams
            .iter_mut()
            .find(|(c, l, _)| (*c, *l) == (component, s.link));
        match stream {
            Some((_, _, newest)) if s.stamp <= *newest => return Verdict::Old,
            Some((_, _, newest)) => *newest = s.stamp,
            None if s.stamp.saturating_add(BEHIND_MAX) < stamp_of(arrived_ms) => {
                return Verdict::Old;
            }
            // Only who has the key comes so far: this many streams are a fault of its own.
            None if is_full => return Verdict::Wrong,
            None => self.streams.push((component, s.link, s.stamp)),
        }
        Verdict::Good
    }

    fn matches(&self, s: &Signature<'_>) -> bool {
        let hash = Sha256::new()
            .chain_update(self.key.0)
            .chain_update(s.signed)
            .finalize();
        let differing = hash.iter().zip(s.digest).fold(0, |d, (a, b)| d | (a ^ b));
        s.digest.len() == 6 && differing == 0
    }
}

/// A time stamp of this moment.
pub fn stamp_of(unix_ms: i64) -> u64 {
    u64::try_from(unix_ms.saturating_sub(EPOCH_MS)).unwrap_or(0) * 100
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Found, Frames};
    use super::*;

    const SIGNED: [u8; 34] = [
        0xfd, 9, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0x0c, 0x51, 4, 3, 0xfc, 0x8c, 7, 0x00,
        0xe8, 0x76, 0x48, 0x17, 0x00, 0xbf, 0x32, 0xb4, 0x65, 0x4b, 0x9b,
    ];
    /// 1,000,000 s after the beginning of 2015.
    const THEN_MS: i64 = EPOCH_MS + 1_000_000_000;

    fn key() -> Key {
        Key(std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    fn signature(data: &[u8]) -> Signature<'_> {
        match Frames::new(data).next() {
            Some(Found::Frame(f)) => f.signature.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_golden_frame_is_good_once() {
        let s = signature(&SIGNED);
        assert_eq!((s.link, s.stamp), (7, 100_000_000_000));
        assert_eq!(stamp_of(THEN_MS), s.stamp);
        let mut signed = Signed::new(key());
        assert_eq!(signed.check(1, &s, THEN_MS), Verdict::Good);
        assert_eq!(signed.check(1, &s, THEN_MS), Verdict::Old, "a replay");
    }

    #[test]
    fn an_old_stream_does_not_begin() {
        let s = signature(&SIGNED);
        for (late_ms, verdict) in [
            (-1_000_000, Verdict::Good),
            (60_000, Verdict::Good),
            (60_001, Verdict::Old),
        ] {
            let mut signed = Signed::new(key());
            assert_eq!(signed.check(1, &s, THEN_MS + late_ms), verdict, "{late_ms}");
        }
    }

    #[test]
    fn another_key_or_a_changed_byte_is_wrong() {
        let s = signature(&SIGNED);
        assert_eq!(
            Signed::new(Key([0; 32])).check(1, &s, THEN_MS),
            Verdict::Wrong
        );
        for at in SIGNED.len() - 13..SIGNED.len() {
            let mut bad = SIGNED;
            bad[at] ^= 1;
            let verdict = Signed::new(key()).check(1, &signature(&bad), THEN_MS);
            assert_eq!(verdict, Verdict::Wrong, "byte {at}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Signed::new(key()).key), "Key(…)");
    }
}
