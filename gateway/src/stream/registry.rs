//! All streams by name: who publishes and who reads each, and which are forgotten. Not here: pushing (`publisher`), reading
//! (`reader`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use kerbside_codecs::media::{Medium, MediumKind};
use parking_lot::{Mutex, RwLock};
use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::sync::{Notify, watch};

use super::about::{About, ReaderStatus};
use super::fanout::Listener;
use super::health::Health;
use super::meter::PublisherStats;
use super::publisher::Publisher;
use super::reader::Reader;
use super::ring::Ring;
use super::series;
use super::status::{Phase, StreamStatus, StreamsLimits, SubscribeError};
use crate::ids::{DeviceId, StreamId};
use crate::metrics;

static FRAMES_IN: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_stream_frames_total",
        "Frames published",
        &["stream"],
    )
});
static BYTES_IN: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_stream_bytes_total",
        "Payload bytes published",
        &["stream"],
    )
});
static READERS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| metrics::gauge("kerbside_stream_readers", "Readers now", &["stream"]));

/// Names one device may have published under; the configuration is not bound by it. A recorder has a camera for each
/// channel, but who invents a name each time must not take the places of all the others.
pub(super) const NAMES_OF_A_DEVICE_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct StreamState {
    pub ring: Ring,
    pub media: Arc<[Medium]>,
    pub phase: Phase,
    /// Grows with each publisher; only the newest one may push.
    pub epoch: u32,
    /// Fan-out threads that have readers of this stream.
    pub listeners: Arc<[Listener]>,
    pub publisher: Option<&'static str>,
    /// What is told of the publisher.
    pub told: Option<(Arc<PublisherStats>, Health)>,
    last_key_request: Option<Instant>,
    pub b_frames: bool,
}

impl StreamState {
    pub fn has_video(&self) -> bool {
        self.media
            .iter()
            .any(|m| m.codec.kind() == MediumKind::Video)
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub id: StreamId,
    pub limits: StreamsLimits,
    pub state: Mutex<StreamState>,
    /// Woken once per frame and at each change: readers that have a task of their own.
    pub wake: Notify,
    /// Readers that said who they are.
    pub readers_list: Mutex<Vec<Weak<About>>>,
    readers: watch::Sender<usize>,
    pub key_wanted: Notify,
    pub frames: AtomicU64,
    on_demand: bool,
    pub changed: Arc<Changed>,
    pub epoch_now: AtomicU32,
}

/// Streams whose status changed and was not taken yet: a set, so a burst of changes is one entry.
#[derive(Debug, Default)]
pub(super) struct Changed {
    set: Mutex<HashSet<StreamId>>,
    wake: Notify,
}

impl Changed {
    pub fn mark(&self, id: &StreamId) {
        self.set.lock().insert(id.clone());
        self.wake.notify_one();
    }
}

impl Stream {
    pub fn readers_changed(&self, by: isize) {
        self.readers
            .send_modify(|n| *n = n.saturating_add_signed(by));
        READERS
            .with_label_values(&[&self.id.to_string()])
            .add(by as i64);
        self.changed.mark(&self.id);
    }

    pub fn want_key_frame(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let due = state.last_key_request.is_none_or(|t| {
            now.saturating_duration_since(t) >= self.limits.key_frame_request_interval
        });
        if due {
            state.last_key_request = Some(now);
            drop(state);
            self.key_wanted.notify_one();
        }
    }

    /// Something is new for the readers. Not with the state locked.
    pub fn wake_readers(&self) {
        let listeners = self.state.lock().listeners.clone();
        listeners.iter().for_each(Listener::wake);
        self.wake.notify_waiters();
    }

    /// Lost, and nobody holds it. To be asked with the table locked, so that nobody takes it meanwhile.
    fn is_abandoned(self: &Arc<Self>) -> bool {
        !self.on_demand
            && Arc::strong_count(self) == 1
            && matches!(self.state.lock().phase, Phase::Idle | Phase::Lost)
    }

    fn status(&self) -> StreamStatus {
        let state = self.state.lock();
        StreamStatus {
            stream: self.id.clone(),
            phase: state.phase.name(),
            protocol: state.publisher,
            codecs: state.media.iter().map(|m| m.codec.name()).collect(),
            readers: *self.readers.borrow(),
            frames: self.frames.load(Ordering::Relaxed),
            ring_bytes: state.ring.bytes(),
            publisher: state.told.as_ref().map(|t| t.0.clone()),
            health: state.told.as_ref().map(|t| t.1),
            b_frames: state.b_frames,
            awaits_key_frame: state.awaits_key_frame(),
        }
    }
}

/// All streams of this box. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    map: Arc<RwLock<HashMap<StreamId, Arc<Stream>>>>,
    limits: StreamsLimits,
    changed: Arc<Changed>,
}

impl Streams {
    pub fn new(limits: StreamsLimits) -> Self {
        Self {
            map: Arc::default(),
            limits,
            changed: Arc::default(),
        }
    }

    fn entry(&self, id: &StreamId, on_demand: bool) -> Result<Arc<Stream>, SubscribeError> {
        if let Some(s) = self.map.read().get(id) {
            return Ok(s.clone());
        }
        let mut map = self.map.write();
        if !map.contains_key(id) {
            let own = |s: &StreamId| s.device == id.device;
            if !on_demand {
                self.make_room(&mut map, NAMES_OF_A_DEVICE_MAX, own)?;
            }
            self.make_room(&mut map, self.limits.streams_max, |_| true)?;
        }
        Ok(map
            .entry(id.clone())
            .or_insert_with(|| {
                Arc::new(Stream {
                    id: id.clone(),
                    limits: self.limits.clone(),
                    state: Mutex::new(StreamState {
                        ring: Ring::new(self.limits.ring_age_max, self.limits.ring_bytes_max),
                        media: Arc::from([]),
                        phase: Phase::Idle,
                        epoch: 0,
                        listeners: Arc::from([]),
                        publisher: None,
                        told: None,
                        last_key_request: None,
                        b_frames: false,
                    }),
                    wake: Notify::new(),
                    readers_list: Mutex::default(),
                    readers: watch::channel(0).0,
                    key_wanted: Notify::new(),
                    frames: AtomicU64::new(0),
                    on_demand,
                    changed: self.changed.clone(),
                    epoch_now: AtomicU32::new(0),
                })
            })
            .clone())
    }

    /// Lets a lost stream go when there are already `max` of this kind.
    fn make_room(
        &self,
        map: &mut HashMap<StreamId, Arc<Stream>>,
        max: usize,
        kind: impl Fn(&StreamId) -> bool,
    ) -> Result<(), SubscribeError> {
        if map.keys().filter(|id| kind(id)).count() < max {
            return Ok(());
        }
        let gone = map
            .values()
            .find(|s| kind(&s.id) && s.is_abandoned())
            .map(|s| s.id.clone())
            .ok_or(SubscribeError::TooMany(max))?;
        map.remove(&gone);
        let label = [&*gone.to_string()];
        // A metric that was never touched has no such line.
        drop(FRAMES_IN.remove_label_values(&label));
        drop(BYTES_IN.remove_label_values(&label));
        drop(READERS.remove_label_values(&label));
        series::gone(label[0]);
        self.changed.mark(&gone);
        Ok(())
    }

    /// Registers a camera that is pulled when somebody reads. The returned watch holds the number of readers.
    ///
    /// # Errors
    /// [`SubscribeError::TooMany`].
    pub fn declare(&self, id: &StreamId) -> Result<watch::Receiver<usize>, SubscribeError> {
        Ok(self.entry(id, true)?.readers.subscribe())
    }

    /// Begins to publish; a former publisher of the same stream is cut (the device reconnected).
    ///
    /// # Errors
    /// [`SubscribeError::TooMany`], [`SubscribeError::NoMedia`].
    pub fn publish(
        &self,
        id: &StreamId,
        media: Vec<Medium>,
        protocol: &'static str,
    ) -> Result<Publisher, SubscribeError> {
        if media.is_empty() || media.len() > 8 {
            return Err(SubscribeError::NoMedia);
        }
        let stream = self.entry(id, false)?;
        let mut state = stream.state.lock();
        state.epoch += 1;
        state.media = media.into();
        state.phase = Phase::Live;
        state.publisher = Some(protocol);
        state.told = None;
        state.b_frames = false;
        state.ring.clear();
        let epoch = state.epoch;
        drop(state);
        series::left(&id.to_string());
        stream.epoch_now.store(epoch, Ordering::Release);
        stream.wake_readers();
        stream.key_wanted.notify_one();
        self.changed.mark(id);
        let label = id.to_string();
        Ok(Publisher {
            frames: FRAMES_IN.with_label_values(&[&label]),
            bytes: BYTES_IN.with_label_values(&[&label]),
            stream,
            epoch,
        })
    }

    /// Begins to read. A stream that is pulled on demand is waited for, at most `wait`.
    ///
    /// # Errors
    /// [`SubscribeError::NotFound`], [`SubscribeError::Timeout`].
    pub async fn read(&self, id: &StreamId, wait: Duration) -> Result<Reader, SubscribeError> {
        let stream = self
            .map
            .read()
            .get(id)
            .cloned()
            .ok_or(SubscribeError::NotFound)?;
        let _demand = Demand::new(&stream);
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let woken = stream.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let (phase, media) = {
                let s = stream.state.lock();
                (s.phase, s.media.clone())
            };
            match phase {
                Phase::Live | Phase::Waiting(_) if !media.is_empty() => {
                    return Ok(Reader::new(stream.clone(), media));
                }
                Phase::Lost if !stream.on_demand => return Err(SubscribeError::NotFound),
                _ => {}
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return Err(SubscribeError::Timeout);
            }
        }
    }

    /// Ends the grace of streams whose publisher did not come back. Call about once a second.
    pub fn sweep(&self, now: Instant) {
        for s in self.map.read().values() {
            let mut state = s.state.lock();
            if let Phase::Waiting(since) = state.phase
                && now.saturating_duration_since(since) >= self.limits.publisher_grace
            {
                state.phase = if s.on_demand {
                    Phase::Idle
                } else {
                    Phase::Lost
                };
                state.ring.clear();
                drop(state);
                s.wake_readers();
                self.changed.mark(&s.id);
            }
        }
    }

    /// Cuts all publishers of a device; their next push fails.
    pub fn cut(&self, device: &DeviceId) {
        for s in self.map.read().values().filter(|s| s.id.device == *device) {
            let mut state = s.state.lock();
            if state.phase == Phase::Live {
                state.epoch += 1;
                state.phase = Phase::Waiting(Instant::now());
                state.told = None;
                s.epoch_now.store(state.epoch, Ordering::Release);
                drop(state);
                series::left(&s.id.to_string());
                s.key_wanted.notify_one();
                self.changed.mark(&s.id);
            }
        }
    }

    pub fn status(&self) -> Vec<StreamStatus> {
        let mut all: Vec<_> = self.map.read().values().map(|s| s.status()).collect();
        all.sort_by(|a, b| a.stream.cmp(&b.stream));
        all
    }

    /// The readers of a stream that said who they are; None: there is no such stream.
    pub fn readers(&self, id: &StreamId) -> Option<Vec<ReaderStatus>> {
        let stream = self.map.read().get(id).cloned()?;
        let mut list = stream.readers_list.lock();
        list.retain(|r| r.strong_count() > 0);
        Some(
            list.iter()
                .filter_map(Weak::upgrade)
                .map(|r| r.status())
                .collect(),
        )
    }

    /// Waits until the status of some streams changed, and gives it. For one consumer.
    pub async fn changes(&self) -> Vec<StreamStatus> {
        loop {
            let ids = std::mem::take(&mut *self.changed.set.lock());
            if !ids.is_empty() {
                let map = self.map.read();
                return ids
                    .iter()
                    .map(|id| {
                        map.get(id)
                            .map_or_else(|| StreamStatus::gone(id), |s| s.status())
                    })
                    .collect();
            }
            self.changed.wake.notified().await;
        }
    }
}

/// Counts as a reader while it lives, so that an on-demand pull starts and stays.
struct Demand<'a>(&'a Stream);

impl<'a> Demand<'a> {
    fn new(stream: &'a Stream) -> Self {
        stream.readers_changed(1);
        Self(stream)
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        self.0.readers_changed(-1);
    }
}
