//! A reader's cursor on a ring.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use kerbside_codecs::media::{Captured, Medium, MediumKind};

use super::about::{About, READERS_ENDED};
use super::fanout::Listener;
use super::registry::Stream;
use super::retime::Retime;
use super::ring::Frame;
use super::status::{Phase, StreamsLimits};
use crate::ids::StreamId;
use crate::ledger::FRAMES;

/// A reader that lost its picture gets the group of pictures again at most so often.
const RESYNC_EVERY: Duration = Duration::from_secs(1);
/// A larger group is not sent again; the publisher is asked for a key frame.
const RESYNC_BYTES_MAX: u64 = 2 << 20;

/// Frames handed out before they are entered into the ledger.
const SETTLE_FRAMES: u64 = 32;

/// What a reader gets next.
#[derive(Debug)]
pub enum Item {
    /// A frame; `time` is rewritten for this reader (ticks of the medium's clock, continuous, 64 bits).
    Frame { frame: Arc<Frame>, time: u64 },
    /// The reader was too slow (or the ring too small): so many frames are lost, a key frame follows.
    Skipped { frames: u64 },
    /// The publisher changed its media; parameter sets are in-band as well. Same number and kinds of media.
    Media(Arc<[Medium]>),
    /// No publisher for longer than the grace, or the media no longer fit what this reader negotiated: over.
    Ended(&'static str),
}

/// Takes frames from one stream. Dropping it leaves the stream.
pub struct Reader {
    stream: Arc<Stream>,
    media: Arc<[Medium]>,
    next_seq: u64,
    /// Waiting for a video key frame before anything is given out.
    need_key: bool,
    /// Of the frame given out last: another publisher's frames cannot be decoded on top of the former's.
    epoch: Option<u32>,
    retime: Vec<Retime>,
    /// Newest frame of each medium at the join or jump, as given to this reader: what a replay leads up to.
    edges: Vec<Option<(Captured, u64)>>,
    /// Not yet at the live edge since the join or jump.
    catching_up: bool,
    /// First sequence number after the join or jump.
    replay_until: u64,
    resynced: Option<Instant>,
    lost: u64,
    pending: u64,
    about: Arc<About>,
}

impl Reader {
    pub(super) fn new(stream: Arc<Stream>, media: Arc<[Medium]>) -> Self {
        stream.readers_changed(1);
        let retime = media.iter().map(|m| Retime::new(m.clock_rate)).collect();
        let edges = vec![None; media.len()];
        let mut r = Self {
            stream,
            media,
            edges,
            catching_up: true,
            replay_until: 0,
            resynced: None,
            about: Arc::default(),
            next_seq: 0,
            need_key: true,
            epoch: None,
            retime,
            lost: 0,
            pending: 0,
        };
        r.jump();
        r
    }

    /// The media as they were at the join: what this reader negotiates on.
    pub fn media(&self) -> &Arc<[Medium]> {
        &self.media
    }

    /// Frames lost so far because this reader was too slow.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Who reads since when, for who asks about the stream's readers.
    pub fn introduce(
        &mut self,
        who: &str,
        protocol: &'static str,
        peer: SocketAddr,
        asked: Instant,
    ) {
        self.about = About::new(who, protocol, peer, asked);
        let mut list = self.stream.readers_list.lock();
        // Those who left make room before the list grows.
        if list.len() == list.capacity() {
            list.retain(|r| r.strong_count() > 0);
        }
        list.push(Arc::downgrade(&self.about));
    }

    /// What is measured about this reader.
    pub fn about(&self) -> &Arc<About> {
        &self.about
    }

    pub fn stream_id(&self) -> &StreamId {
        &self.stream.id
    }

    pub fn limits(&self) -> &StreamsLimits {
        &self.stream.limits
    }

    /// The newest frame of a medium when the reader joined or jumped: when it was captured, and its time for this
    /// reader. Frames before it are squeezed and say nothing about the clock.
    pub fn edge(&self, medium: usize) -> Option<(Captured, u64)> {
        self.edges.get(medium).copied().flatten()
    }

    /// Is this frame older than the live edge at the join or jump?
    pub fn is_replay(&self, frame: &Frame) -> bool {
        self.retime
            .get(usize::from(frame.medium))
            .is_some_and(|r| r.is_replay(frame.seq))
    }

    /// Has it not reached the live edge yet, since the join or jump?
    pub fn is_catching_up(&self) -> bool {
        self.catching_up
    }

    /// A frame went out.
    pub(super) fn sent(&self, frame: &Frame, now: Instant) {
        self.about.sent(frame, now);
    }

    /// It is over, for this reason.
    pub(super) fn ended(&self, reason: &'static str) {
        READERS_ENDED
            .with_label_values(&[self.about.protocol(), reason])
            .inc();
    }

    /// Names the stream among those a fan-out thread serves, as long as this reader lives.
    pub(super) fn stream_key(&self) -> usize {
        Arc::as_ptr(&self.stream) as usize
    }

    pub(super) fn listen(&self, listener: Listener) {
        let mut state = self.stream.state.lock();
        state.listeners = state.listeners.iter().cloned().chain([listener]).collect();
    }

    pub(super) fn unlisten(&self, dirty: &Arc<AtomicBool>) {
        let mut state = self.stream.state.lock();
        state.listeners = state
            .listeners
            .iter()
            .filter(|l| !l.is(dirty))
            .cloned()
            .collect();
    }

    /// The reader lost its picture: it gets the newest group of pictures again, squeezed behind what it has. The
    /// publisher is asked for a key frame only when there is none here, or the group has grown large.
    pub fn resync(&mut self, now: Instant) {
        self.about.key_frame_requested();
        let often = self
            .resynced
            .is_some_and(|t| now.saturating_duration_since(t) < RESYNC_EVERY);
        if often || self.catching_up {
            return;
        }
        self.resynced = Some(now);
        let state = self.stream.state.lock();
        let head = state.ring.next_seq();
        let key = state.ring.newest_key().filter(|k| *k < self.next_seq);
        let group = key.and_then(|k| state.ring.get(k)).map(|f| f.offset);
        let newest = state.ring.newest().map(|n| n.offset);
        drop(state);
        match (key, group, newest) {
            (Some(key), Some(first), Some(newest)) if newest - first <= RESYNC_BYTES_MAX => {
                self.next_seq = key;
                self.need_key = false;
                self.catching_up = true;
                self.replay_until = head;
                for r in &mut self.retime {
                    r.again(key, head);
                }
            }
            _ => self.stream.want_key_frame(),
        }
    }

    /// Starts anew at the newest key frame, squeezed to the live edge; without one, waits for it and asks for it.
    fn jump(&mut self) {
        self.catching_up = true;
        let state = self.stream.state.lock();
        self.replay_until = state.ring.next_seq();
        match state.ring.newest_key() {
            Some(key) => {
                self.next_seq = key;
                self.need_key = false;
                let edge = state.ring.next_seq().saturating_sub(1);
                for (i, r) in self.retime.iter_mut().enumerate() {
                    // Also one from before the key frame: it says where this medium stands.
                    if let Some(f) = (0..=edge)
                        .rev()
                        .map_while(|s| state.ring.get(s))
                        .find(|f| usize::from(f.medium) == i)
                    {
                        let time = r.start(f.seq, f.time, f.arrived, f.epoch);
                        self.edges[i] = Some((f.captured, time));
                    }
                }
            }
            None => {
                self.next_seq = state.ring.next_seq();
                self.need_key = state.has_video();
                drop(state);
                if self.need_key {
                    self.stream.want_key_frame();
                }
            }
        }
    }

    /// The next item if there is one now. Never blocks.
    pub fn poll(&mut self) -> Option<Item> {
        loop {
            let state = self.stream.state.lock();
            if let Phase::Lost = state.phase {
                return Some(Item::Ended(
                    "the stream was lost: its publisher did not come back",
                ));
            }
            if !Arc::ptr_eq(&state.media, &self.media) {
                let media = state.media.clone();
                if *media != *self.media {
                    drop(state);
                    if !same_shape(&media, &self.media) {
                        return Some(Item::Ended("the publisher changed its media"));
                    }
                    self.media = media.clone();
                    return Some(Item::Media(media));
                }
                // The same again, from a publisher that came back: not to be compared with each frame.
                self.media = media;
            }
            let head = state.ring.next_seq();
            if self.next_seq >= head {
                self.catching_up = false;
                return None;
            }
            let Some(frame) = state.ring.get(self.next_seq).cloned() else {
                // Fell out of the ring.
                let first = state.ring.newest_key().unwrap_or(head);
                let frames = first.saturating_sub(self.next_seq);
                drop(state);
                return Some(self.skip(frames));
            };
            let limits = &self.stream.limits;
            let behind = state.ring.newest().is_some_and(|n| {
                n.arrived.saturating_duration_since(frame.arrived) > limits.reader_behind_max
                    || n.offset - frame.offset > limits.reader_behind_bytes_max
            });
            let newest_key = state.ring.newest_key();
            drop(state);
            if let Some(key) = newest_key.filter(|k| *k > self.next_seq && !self.need_key) {
                // A replay is history: what of it is left out is no loss.
                let lost = key.saturating_sub(self.next_seq.max(self.replay_until));
                if behind && lost > 0 {
                    return Some(self.skip(lost));
                }
                if self.catching_up {
                    // A newer start came while the older one was still on its way.
                    self.jump();
                    continue;
                }
            }
            self.next_seq += 1;
            let medium = usize::from(frame.medium);
            let Some(info) = self.media.get(medium) else {
                continue;
            };
            let is_video = info.codec.kind() == MediumKind::Video;
            if self.epoch.is_some_and(|e| e != frame.epoch) {
                self.need_key = self
                    .media
                    .iter()
                    .any(|m| m.codec.kind() == MediumKind::Video);
            }
            self.epoch = Some(frame.epoch);
            if self.need_key {
                if !(is_video && frame.key) {
                    continue;
                }
                self.need_key = false;
            }
            // Old audio is not replayed: it would run ahead of the picture.
            let replay = self.retime[medium].is_replay(frame.seq);
            if replay && !is_video {
                continue;
            }
            let time = self.retime[medium].apply(frame.seq, frame.time, frame.arrived, frame.epoch);
            if self.pending >= SETTLE_FRAMES {
                self.settle();
            }
            self.pending += 1;
            return Some(Item::Frame { frame, time });
        }
    }

    /// Enters frames into the ledger, some at a time: its accounts are shared by all threads.
    fn settle(&mut self) {
        FRAMES.take(self.pending);
        FRAMES.delivered(self.pending);
        self.pending = 0;
    }

    fn skip(&mut self, frames: u64) -> Item {
        self.lost += frames;
        self.about.skipped(frames);
        FRAMES.take(frames);
        FRAMES.shed("reader_behind", frames);
        self.jump();
        Item::Skipped { frames }
    }

    /// Waits for the next item. Cancel-safe: nothing is taken until it returns.
    pub async fn next(&mut self) -> Item {
        loop {
            let stream = self.stream.clone();
            let woken = stream.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if let Some(item) = self.poll() {
                return item;
            }
            woken.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.settle();
        self.stream.readers_changed(-1);
    }
}

fn same_shape(a: &[Medium], b: &[Medium]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            a.clock_rate == b.clock_rate && a.codec.encoding_name() == b.codec.encoding_name()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Streams;
    use bytes::Bytes;
    use kerbside_codecs::media::Codec;

    #[tokio::test]
    async fn who_left_is_forgotten_though_nobody_asks_for_the_list() {
        let streams = Streams::new(StreamsLimits::default());
        let id = StreamId::new("bc-01", "main").unwrap();
        let codec = Codec::H264 {
            sps: Bytes::new(),
            pps: Bytes::new(),
        };
        let video = Medium {
            codec,
            clock_rate: 90_000,
        };
        let _publisher = streams.publish(&id, vec![video], "test").unwrap();
        let mut stays = streams.read(&id, Duration::ZERO).await.unwrap();
        stays.introduce("anna", "probe", ([192, 0, 2, 1], 5).into(), Instant::now());
        for _ in 0..10_000 {
            let mut r = streams.read(&id, Duration::ZERO).await.unwrap();
            r.introduce("bob", "probe", ([192, 0, 2, 2], 5).into(), Instant::now());
        }
        assert!(stays.stream.readers_list.lock().len() < 16);
        assert_eq!(streams.readers(&id).unwrap()[0].who, "anna");
    }
}
