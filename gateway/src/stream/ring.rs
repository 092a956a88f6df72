//! The ring: recent frames of one stream, bounded by time and bytes, never less than the newest group of pictures
//! unless that alone is over the byte limit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kerbside_codecs::media::{Captured, Payloads};

/// What a frame costs beside its payloads: many small frames are no way around the limit.
const FRAME_BYTES: usize = 256;

/// A frame on its way into a ring.
#[derive(Clone, Debug)]
pub struct NewFrame {
    /// Index into the stream's media.
    pub medium: u8,
    /// A decoder can start here. Always true for audio.
    pub key: bool,
    /// Media time in ticks of the medium's clock, extended to 64 bits, never wrapping.
    pub time: u64,
    pub arrived: Instant,
    pub captured: Captured,
    pub payloads: Payloads,
}

/// A frame in the ring.
#[derive(Debug)]
pub struct Frame {
    /// Position in the stream, over all media, without gaps.
    pub seq: u64,
    /// Changes when the publisher changed: times of different epochs cannot be compared.
    pub epoch: u32,
    pub medium: u8,
    pub key: bool,
    pub time: u64,
    pub arrived: Instant,
    pub captured: Captured,
    /// Bytes published before it.
    pub offset: u64,
    pub payloads: Payloads,
}

#[derive(Debug)]
pub(super) struct Ring {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    next_seq: u64,
    offset: u64,
    /// Sequence numbers of the video key frames held, oldest first.
    keys: VecDeque<u64>,
    groups_cut: u64,
    max_age: Duration,
    max_bytes: usize,
}

impl Ring {
    pub fn new(max_age: Duration, max_bytes: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            next_seq: 0,
            offset: 0,
            keys: VecDeque::new(),
            groups_cut: 0,
            max_age,
            max_bytes,
        }
    }

    pub fn push(&mut self, frame: NewFrame, epoch: u32, is_video: bool) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.bytes += frame.payloads.bytes();
        let offset = self.offset;
        self.offset += frame.payloads.bytes() as u64;
        if is_video && frame.key {
            self.keys.push_back(seq);
        }
        let NewFrame {
            medium,
            key,
            time,
            arrived,
            captured,
            payloads,
        } = frame;
        self.frames.push_back(Arc::new(Frame {
            seq,
            epoch,
            medium,
            key,
            time,
            arrived,
            captured,
            offset,
            payloads,
        }));
        self.trim(arrived);
    }

    /// Drops what is too old, then what is too much. Age never cuts into the newest group of pictures; bytes may.
    fn trim(&mut self, now: Instant) {
        let newest_key = self.keys.back().copied().unwrap_or(u64::MAX);
        while let Some(front) = self.frames.front() {
            let too_old = now.saturating_duration_since(front.arrived) > self.max_age
                && front.seq < newest_key;
            if !(too_old || (self.held() > self.max_bytes && self.frames.len() > 1)) {
                break;
            }
            self.bytes -= front.payloads.bytes();
            if self.keys.front() == Some(&front.seq) {
                self.keys.pop_front();
                self.groups_cut += u64::from(self.keys.is_empty());
            }
            self.frames.pop_front();
        }
    }

    /// Memory of the frames held.
    fn held(&self) -> usize {
        self.bytes + self.frames.len() * FRAME_BYTES
    }

    /// How often the only key frame held had to go.
    pub fn groups_cut(&self) -> u64 {
        self.groups_cut
    }

    /// Forgets all frames; sequence numbers go on.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.keys.clear();
        self.bytes = 0;
    }

    pub fn get(&self, seq: u64) -> Option<&Arc<Frame>> {
        let first = self.frames.front()?.seq;
        self.frames
            .get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub fn newest_key(&self) -> Option<u64> {
        self.keys.back().copied()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn newest(&self) -> Option<&Arc<Frame>> {
        self.frames.back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(key: bool, at: Instant, size: usize) -> NewFrame {
        NewFrame {
            medium: 0,
            key,
            time: 0,
            arrived: at,
            captured: Captured {
                utc_us: 0,
                uncertainty_us: 0,
            },
            payloads: Payloads::single(Bytes::from(vec![0; size])),
        }
    }

    #[test]
    fn keeps_the_newest_group_whatever_its_age() {
        let t = Instant::now();
        let mut ring = Ring::new(Duration::from_secs(1), 1 << 20);
        ring.push(frame(true, t, 10), 0, true);
        for i in 1..100 {
            ring.push(frame(false, t + Duration::from_secs(i), 10), 0, true);
        }
        assert_eq!(ring.newest_key(), Some(0));
        assert!(ring.get(0).is_some());
        ring.push(frame(true, t + Duration::from_secs(100), 10), 0, true);
        assert!(
            ring.get(0).is_none(),
            "the old group goes once a new one has begun"
        );
        assert_eq!(ring.newest_key(), Some(100));
    }

    #[test]
    fn bytes_are_a_hard_limit() {
        let t = Instant::now();
        let mut ring = Ring::new(Duration::from_secs(600), 1000);
        ring.push(frame(true, t, 400), 0, true);
        for _ in 0..1000 {
            ring.push(frame(false, t, 100), 0, true);
        }
        assert!(ring.bytes() <= 1000);
        assert_eq!(
            ring.newest_key(),
            None,
            "a group larger than the ring has lost its key frame"
        );
        assert_eq!(ring.next_seq(), 1001);
    }

    #[test]
    fn many_small_frames_are_bounded_too() {
        let t = Instant::now();
        let mut ring = Ring::new(Duration::from_secs(600), 1 << 20);
        ring.push(frame(true, t, 1), 0, true);
        for _ in 0..100_000 {
            ring.push(frame(false, t, 1), 0, true);
        }
        assert!(ring.frames.len() <= (1 << 20) / FRAME_BYTES);
    }

    #[test]
    fn one_frame_larger_than_the_ring_is_still_held() {
        let mut ring = Ring::new(Duration::from_secs(1), 100);
        ring.push(frame(true, Instant::now(), 5000), 0, true);
        assert!(ring.get(0).is_some());
    }
}
