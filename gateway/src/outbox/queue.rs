//! What waits for the writing thread: two bounded lanes, safety events before everything else. When a lane is full,
//! the one who brings something waits; nothing is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Appended, OutboxError, Outcome};
use crate::event::{Event, Priority};
use crate::ids::EventId;

/// Places per lane.
const WAITING_MAX: usize = 4096;

pub(super) enum Work {
    Append {
        event: Box<Event>,
        reply: oneshot::Sender<Result<Appended, OutboxError>>,
    },
    Report {
        event: EventId,
        platform: String,
        outcome: Outcome,
        /// None: already answered, still to be written.
        reply: Option<oneshot::Sender<()>>,
    },
    Retry {
        event: EventId,
        platform: String,
        reply: oneshot::Sender<Result<bool, OutboxError>>,
    },
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Safety,
    Other,
}

impl From<Priority> for Kind {
    fn from(p: Priority) -> Self {
        match p {
            Priority::P0 => Self::Safety,
            Priority::P1 => Self::Other,
        }
    }
}

#[derive(Default)]
struct Lanes {
    safety: VecDeque<(Work, OwnedSemaphorePermit)>,
    other: VecDeque<(Work, OwnedSemaphorePermit)>,
    closed: bool,
}

pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    filled: Condvar,
    safety: Arc<Semaphore>,
    other: Arc<Semaphore>,
}

impl Queue {
    pub fn new() -> Self {
        Self {
            lanes: Mutex::default(),
            filled: Condvar::new(),
            safety: Arc::new(Semaphore::new(WAITING_MAX)),
            other: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// # Errors
    /// [`OutboxError::Closed`]; the work was then not taken.
    pub async fn push(&self, kind: Kind, work: Work) -> Result<(), OutboxError> {
        let places = match kind {
            Kind::Safety => &self.safety,
            Kind::Other => &self.other,
        };
        let place = places
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| OutboxError::Closed)?;
        let mut lanes = self.lanes.lock();
        if lanes.closed {
            return Err(OutboxError::Closed);
        }
        match kind {
            Kind::Safety => lanes.safety.push_back((work, place)),
            Kind::Other => lanes.other.push_back((work, place)),
        }
        drop(lanes);
        self.filled.notify_one();
        Ok(())
    }

    /// Moves up to `max` pieces of work to `batch`, waiting at most `wait` for the first. False: closed and empty.
    pub fn take(&self, batch: &mut Vec<Work>, max: usize, wait: Duration) -> bool {
        let mut lanes = self.lanes.lock();
        if lanes.safety.is_empty() && lanes.other.is_empty() && !lanes.closed {
            self.filled.wait_for(&mut lanes, wait);
        }
        while batch.len() < max {
            let next = lanes.safety.pop_front().or_else(|| lanes.other.pop_front());
            let Some((work, _place)) = next else { break };
            batch.push(work);
        }
        !(lanes.closed && batch.is_empty())
    }

    /// From now on nothing is taken in; what is queued is still written.
    pub fn close(&self) {
        self.lanes.lock().closed = true;
        self.safety.close();
        self.other.close();
        self.filled.notify_one();
    }
}

/// Answers one who asked; one who went away meanwhile wants no answer.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::trace!("the asker is gone");
    }
}
