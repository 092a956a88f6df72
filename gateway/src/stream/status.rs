//! What is told about streams, and the limits that hold for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::health::Health;
use super::meter::PublisherStats;
use super::publisher::{Publisher, Superseded};
use super::registry::StreamState;
use super::series;
use crate::ids::StreamId;

/// Limits that hold for every stream.
#[derive(Clone, Debug)]
pub struct StreamsLimits {
    /// Ring: at most this old, but always the newest group of pictures.
    pub ring_age_max: Duration,
    /// Ring: at most so many bytes, even if that cuts the newest group.
    pub ring_bytes_max: usize,
    /// A reader further behind the live edge jumps to the newest key frame.
    pub reader_behind_max: Duration,
    /// The same in bytes.
    pub reader_behind_bytes_max: u64,
    /// A reader that takes nothing for so long is cut.
    pub reader_stall_max: Duration,
    /// Pace of the group of pictures that a reader over UDP begins with.
    pub start_bits_per_second_max: u64,
    /// How long a stream without publisher waits for its return before it is lost.
    pub publisher_grace: Duration,
    /// Shortest time between two key-frame requests to one publisher.
    pub key_frame_request_interval: Duration,
    pub streams_max: usize,
}

impl Default for StreamsLimits {
    fn default() -> Self {
        Self {
            ring_age_max: Duration::from_secs(10),
            ring_bytes_max: 32 << 20,
            reader_behind_max: Duration::from_secs(3),
            reader_behind_bytes_max: 16 << 20,
            reader_stall_max: Duration::from_secs(10),
            start_bits_per_second_max: 40_000_000,
            publisher_grace: Duration::from_secs(15),
            key_frame_request_interval: Duration::from_secs(1),
            streams_max: 2048,
        }
    }
}

/// Where a stream is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Configured for pull on demand; nobody publishes because nobody reads.
    Idle,
    /// A publisher is connected.
    Live,
    /// The publisher left at this moment; readers stay and wait for it.
    Waiting(Instant),
    /// The grace is over.
    Lost,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Live => "live",
            Self::Waiting(_) => "waiting",
            Self::Lost => "lost",
        }
    }
}

/// What operators see of a stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamStatus {
    pub stream: StreamId,
    /// `idle`, `live`, `waiting`, `lost`; `gone`: forgotten, to make room for another one.
    pub phase: &'static str,
    /// How it is published: `rtsp`, `whip`, `pull`.
    pub protocol: Option<&'static str>,
    pub codecs: Vec<&'static str>,
    pub readers: usize,
    /// Frames published since the start of the gateway.
    pub frames: u64,
    pub ring_bytes: usize,
    /// What the publisher delivers; None without one, and in its first second.
    pub publisher: Option<Arc<PublisherStats>>,
    /// None without a publisher.
    pub health: Option<Health>,
    /// Its video has B-frames: pictures are sent in another order than they are shown.
    pub b_frames: bool,
    /// Its newest key frame is not held (it did not come yet, or more than the ring takes came behind it): new readers
    /// wait for the next one.
    pub awaits_key_frame: bool,
}

impl StreamStatus {
    pub(super) fn gone(id: &StreamId) -> Self {
        Self {
            stream: id.clone(),
            phase: "gone",
            protocol: None,
            codecs: Vec::new(),
            readers: 0,
            frames: 0,
            ring_bytes: 0,
            publisher: None,
            health: None,
            b_frames: false,
            awaits_key_frame: false,
        }
    }
}

impl StreamState {
    pub fn awaits_key_frame(&self) -> bool {
        self.phase == Phase::Live && self.has_video() && self.ring.newest_key().is_none()
    }
}

impl Publisher {
    /// How often this stream's ring gave up its only key frame because more came behind it than it takes.
    pub(super) fn groups_cut(&self) -> u64 {
        self.stream.state.lock().ring.groups_cut()
    }

    /// Tells what this publisher delivers, once a second. `changed`: its health did.
    ///
    /// # Errors
    /// [`Superseded`].
    pub(super) fn tell(
        &self,
        stats: PublisherStats,
        health: Health,
        changed: bool,
    ) -> Result<(), Superseded> {
        let stats = Arc::new(stats);
        let former = {
            let mut state = self.stream.state.lock();
            if state.epoch != self.epoch {
                return Err(Superseded);
            }
            state.told.replace((stats.clone(), health))
        };
        let label = self.stream.id.to_string();
        series::tell(&label, &stats, former.as_ref().map(|t| &*t.0));
        if changed || former.is_none() {
            series::tell_health(&label, health);
            self.stream.changed.mark(&self.stream.id);
        }
        Ok(())
    }
}

/// Why somebody cannot publish or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubscribeError {
    #[error("no stream of this name is live")]
    NotFound,
    #[error("the camera did not deliver within the time limit")]
    Timeout,
    #[error("too many streams: the limit is {0}")]
    TooMany(usize),
    #[error("the offer has no medium that can be carried")]
    NoMedia,
}
