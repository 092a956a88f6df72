//! A reader's cursor on a ring.

use std::sync::Arc;

use kerbside_codecs::media::{Medium, MediumKind};

use super::registry::Stream;
use super::retime::Retime;
use super::ring::Frame;
use super::status::Phase;
use crate::ledger::FRAMES;

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
    lost: u64,
    pending: u64,
}

impl Reader {
    pub(super) fn new(stream: Arc<Stream>, media: Arc<[Medium]>) -> Self {
        stream.readers_changed(1);
        let retime = media.iter().map(|m| Retime::new(m.clock_rate)).collect();
        let mut r = Self {
            stream,
            media,
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

    /// Asks the publisher for a key frame (rate-limited per stream).
    pub fn want_key_frame(&self) {
        self.stream.want_key_frame();
    }

    /// Starts anew at the newest key frame, squeezed to the live edge; without one, waits for it and asks for it.
    fn jump(&mut self) {
        let state = self.stream.state.lock();
        match state.ring.newest_key() {
            Some(key) => {
                self.next_seq = key;
                self.need_key = false;
                let edge = state.ring.next_seq().saturating_sub(1);
                for (i, r) in self.retime.iter_mut().enumerate() {
                    if let Some(f) = (key..=edge)
                        .rev()
                        .filter_map(|s| state.ring.get(s))
                        .find(|f| usize::from(f.medium) == i)
                    {
                        r.start(f.seq, f.time);
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
            if !Arc::ptr_eq(&state.media, &self.media) && *state.media != *self.media {
                let media = state.media.clone();
                drop(state);
                if !same_shape(&media, &self.media) {
                    return Some(Item::Ended("the publisher changed its media"));
                }
                self.media = media.clone();
                return Some(Item::Media(media));
            }
            let head = state.ring.next_seq();
            if self.next_seq >= head {
                return None;
            }
            let Some(frame) = state.ring.get(self.next_seq).cloned() else {
                // Fell out of the ring.
                let first = state.ring.newest_key().unwrap_or(head);
                let frames = first.saturating_sub(self.next_seq);
                drop(state);
                return Some(self.skip(frames));
            };
            let behind = state
                .ring
                .newest()
                .map(|n| n.arrived.saturating_duration_since(frame.arrived));
            let newest_key = state.ring.newest_key();
            drop(state);
            if behind.is_some_and(|b| b > self.stream.limits.reader_behind_max)
                && let Some(key) = newest_key
                && key > self.next_seq
            {
                return Some(self.skip(key - self.next_seq));
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
            FRAMES.take(1);
            self.settle();
            self.pending = 1;
            return Some(Item::Frame { frame, time });
        }
    }

    /// A frame handed out counts as delivered once the reader comes for the next item.
    fn settle(&mut self) {
        FRAMES.delivered(self.pending);
        self.pending = 0;
    }

    fn skip(&mut self, frames: u64) -> Item {
        self.lost += frames;
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
