//! The publisher's side of a stream: the right to push into it, until another one takes over or it is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kerbside_codecs::media::{Medium, MediumKind};

use super::fanout::Listener;
use super::registry::Stream;
use super::ring::NewFrame;
use super::series;
use super::status::Phase;
use crate::ids::StreamId;

/// Another publisher took the stream over, or the device was revoked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this publisher no longer owns its stream")]
pub struct Superseded;

/// The right to push into one stream. Dropping it starts the grace.
#[derive(Debug)]
pub struct Publisher {
    pub(super) stream: Arc<Stream>,
    pub(super) epoch: u32,
    pub(super) frames: prometheus::IntCounter,
    pub(super) bytes: prometheus::IntCounter,
}

impl Publisher {
    pub fn id(&self) -> &StreamId {
        &self.stream.id
    }

    /// Has another publisher taken over, or was the device revoked?
    pub fn is_superseded(&self) -> bool {
        self.stream.epoch_now.load(Ordering::Acquire) != self.epoch
    }

    /// # Errors
    /// [`Superseded`]: stop publishing and close the session.
    pub fn push(&self, frame: NewFrame) -> Result<(), Superseded> {
        let mut state = self.stream.state.lock();
        if state.epoch != self.epoch {
            return Err(Superseded);
        }
        let Some(medium) = state.media.get(usize::from(frame.medium)) else {
            return Ok(());
        };
        let is_video = medium.codec.kind() == MediumKind::Video;
        self.bytes.inc_by(frame.payloads.bytes() as u64);
        state.ring.push(frame, self.epoch, is_video);
        let listeners = state.listeners.clone();
        drop(state);
        listeners.iter().for_each(Listener::wake);
        self.frames.inc();
        self.stream.frames.fetch_add(1, Ordering::Relaxed);
        self.stream.wake.notify_waiters();
        Ok(())
    }

    /// The media changed (new parameter sets). The kinds must stay; otherwise readers are ended.
    ///
    /// # Errors
    /// [`Superseded`].
    pub fn set_media(&self, media: Vec<Medium>) -> Result<(), Superseded> {
        let mut state = self.stream.state.lock();
        if state.epoch != self.epoch {
            return Err(Superseded);
        }
        state.media = media.into();
        drop(state);
        self.stream.wake_readers();
        self.stream.changed.mark(&self.stream.id);
        Ok(())
    }

    /// Says whether the video has B-frames.
    pub fn set_b_frames(&self, b_frames: bool) {
        let mut state = self.stream.state.lock();
        if state.epoch == self.epoch && state.b_frames != b_frames {
            state.b_frames = b_frames;
            drop(state);
            self.stream.changed.mark(&self.stream.id);
        }
    }

    /// Waits until a reader needs a key frame (or the publisher was cut: check [`Self::is_superseded`]).
    /// Cancel-safe.
    pub async fn key_frame_wanted(&self) {
        self.stream.key_wanted.notified().await;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut state = self.stream.state.lock();
        if state.epoch == self.epoch && state.phase == Phase::Live {
            state.phase = Phase::Waiting(Instant::now());
            state.publisher = None;
            state.told = None;
            drop(state);
            series::left(&self.stream.id.to_string());
            self.stream.changed.mark(&self.stream.id);
        }
    }
}
