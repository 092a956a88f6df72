//! Fan-out: threads (one per core) that move frames from streams to readers, each with readers of its own.
//!
//! A thread wakes once per frame of a stream and loops over its readers of that stream: no queue and no task per
//! reader. Here: the threads, which one a reader is on, pace, stalls. Not here: how a frame is written; that is the
//! reader's [`Outlet`], built by the protocols.
//!
//! The contract: all calls of one outlet come from one thread and none may block. An outlet that cannot go on says
//! [`Flow::Blocked`] and is called again after its waker was woken or its [`Kick`] was used. An outlet that is dropped
//! without [`Outlet::end`] met a fault: whoever waits for it must learn that from the drop.

mod pace;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Wake, Waker};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::{HistogramVec, IntGaugeVec};
use tokio::sync::Notify;

use super::reader::{Item, Reader};
use super::ring::Frame;
use crate::metrics;
use crate::udp::Burst;

static ON_THREAD: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_fanout_readers",
        "Readers on each fan-out thread",
        &["thread"],
    )
});
static LATENCY: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_s(
        "kerbside_reader_added_latency_seconds",
        "From the arrival of a live frame to its sending to a reader",
        &["protocol"],
    )
});

/// Can an outlet go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Go,
    /// Not before its waker or kick.
    Blocked,
    /// As blocked, but something was taken.
    Slow,
    /// The reader is over, for this reason.
    Over(&'static str),
}

/// What a call of an outlet happens in.
pub struct At<'a> {
    pub now: Instant,
    /// Of the thread, to build datagrams in.
    pub burst: &'a mut Burst,
    /// Makes the thread call the outlet again.
    pub waker: &'a Waker,
}

/// Where the frames of one reader go: a protocol's side of it.
pub trait Outlet: Send {
    /// Label of metrics: `rtsp_tcp`, `rtsp_udp`, `whep`.
    fn protocol(&self) -> &'static str;

    /// Sends what is left of the former frame. Frames come only after [`Flow::Go`].
    fn ready(&mut self, at: &mut At<'_>) -> Flow;

    /// Takes a frame; `time` is its media time for this reader.
    fn frame(&mut self, frame: &Arc<Frame>, time: u64, reader: &Reader, at: &mut At<'_>);

    /// It was kicked, woken, or its deadline came.
    fn woken(&mut self, reader: &mut Reader, at: &mut At<'_>) -> Flow;

    /// When [`Self::woken`] is due at the latest.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// So many frames were lost because it was too slow.
    fn skipped(&mut self, frames: u64, reader: &Reader, at: &mut At<'_>);

    /// Do datagrams need a pace at the start? TCP has its own.
    fn is_paced(&self) -> bool;

    /// It is over: says goodbye.
    fn end(self: Box<Self>, reason: &'static str, reader: &Reader, at: &mut At<'_>);
}

/// Wakes one reader's outlet, from anywhere. Kicks that were not served yet are one.
#[derive(Clone)]
pub struct Kick(Arc<Bell>);

struct Bell {
    key: u64,
    rung: AtomicBool,
    mailbox: Arc<Mailbox>,
}

impl Kick {
    pub fn kick(&self) {
        self.0.ring();
    }

    /// The thread it is on.
    pub fn thread(&self) -> usize {
        self.0.mailbox.index
    }
}

impl std::fmt::Debug for Kick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kick({} on {})", self.0.key, self.thread())
    }
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.mailbox.leave(|l| l.kicked.push(self.key));
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// What other threads leave for a fan-out thread. Bounded: each reader and each stream stands in it at most once.
struct Mailbox {
    index: usize,
    letters: Mutex<Letters>,
    wake: Notify,
    readers: AtomicUsize,
}

impl Mailbox {
    /// Leaves a letter, unless nobody reads it any more.
    fn leave(&self, letter: impl FnOnce(&mut Letters)) {
        let mut letters = self.letters.lock();
        if !letters.closed {
            letter(&mut letters);
            drop(letters);
            self.wake.notify_one();
        }
    }

    /// The thread is gone: what lies here, and what comes, goes. Readers learn it from the drop.
    fn close(&self) {
        let mut letters = self.letters.lock();
        letters.closed = true;
        let left = std::mem::take(&mut *letters);
        letters.closed = true;
        drop(letters);
        drop(left);
    }
}

#[derive(Default)]
struct Letters {
    joins: Vec<Join>,
    kicked: Vec<u64>,
    /// Groups (by stream) that have something new.
    groups: Vec<usize>,
    stop: bool,
    /// The thread is gone: nobody reads this any more.
    closed: bool,
}

struct Join {
    bell: Arc<Bell>,
    reader: Reader,
    first: Option<Item>,
    outlet: Box<dyn Outlet>,
}

/// A stream's way to wake the readers that a fan-out thread has of it.
#[derive(Clone)]
pub(super) struct Listener {
    group: usize,
    dirty: Arc<AtomicBool>,
    mailbox: Arc<Mailbox>,
}

impl Listener {
    pub fn wake(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel) {
            self.mailbox.leave(|l| l.groups.push(self.group));
        }
    }

    /// Is it the one with this flag?
    pub fn is(&self, dirty: &Arc<AtomicBool>) -> bool {
        Arc::ptr_eq(&self.dirty, dirty)
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({} on {})", self.group, self.mailbox.index)
    }
}

/// The fan-out threads. Cheap to clone.
#[derive(Clone)]
pub struct Fanout {
    threads: Arc<Threads>,
}

struct Threads {
    all: Vec<Thread>,
    keys: AtomicU64,
}

struct Thread {
    mailbox: Arc<Mailbox>,
    runtime: tokio::runtime::Handle,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Fanout {
    /// Starts so many threads.
    ///
    /// # Errors
    /// When the system gives no more threads or descriptors.
    pub fn start(threads: usize) -> io::Result<Self> {
        let all = (0..threads.max(1))
            .map(Thread::start)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            threads: Arc::new(Threads {
                all,
                keys: AtomicU64::new(1),
            }),
        })
    }

    /// How many threads there are.
    pub fn len(&self) -> usize {
        self.threads.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.threads.all.is_empty()
    }

    /// The runtime of a thread, for the task that receives for its readers.
    pub fn runtime(&self, thread: usize) -> &tokio::runtime::Handle {
        &self.threads.all[thread % self.len()].runtime
    }

    /// A place for a reader, on this thread or the one with the fewest readers.
    pub fn place(&self, thread: Option<usize>) -> Kick {
        let all = &self.threads.all;
        let thread = match thread {
            Some(i) => &all[i % all.len()],
            None => all
                .iter()
                .min_by_key(|t| t.mailbox.readers.load(Ordering::Relaxed))
                .unwrap_or(&all[0]),
        };
        Kick(Arc::new(Bell {
            key: self.threads.keys.fetch_add(1, Ordering::Relaxed),
            rung: AtomicBool::new(false),
            mailbox: thread.mailbox.clone(),
        }))
    }

    /// From now on the reader's frames go to `outlet`, first the item that was already taken from it. When the thread
    /// has ended, both are dropped.
    pub fn join(&self, place: &Kick, reader: Reader, first: Option<Item>, outlet: Box<dyn Outlet>) {
        let mailbox = &place.0.mailbox;
        let join = Join {
            bell: place.0.clone(),
            reader,
            first,
            outlet,
        };
        let mut letters = mailbox.letters.lock();
        if letters.closed {
            // An outlet may take other locks when it is dropped.
            drop(letters);
            tracing::debug!(
                thread = mailbox.index,
                "a reader came to a fan-out thread that has ended"
            );
            return drop(join);
        }
        letters.joins.push(join);
        drop(letters);
        mailbox.readers.fetch_add(1, Ordering::Relaxed);
        mailbox.wake.notify_one();
    }

    /// Ends all readers, then the threads.
    pub fn stop(&self) {
        for t in &self.threads.all {
            t.mailbox.letters.lock().stop = true;
            t.mailbox.wake.notify_one();
        }
        for t in &self.threads.all {
            if let Some(handle) = t.handle.lock().take()
                && handle.join().is_err()
            {
                tracing::error!(
                    thread = t.mailbox.index,
                    "a fan-out thread had died; its readers were cut"
                );
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for t in &self.all {
            t.mailbox.letters.lock().stop = true;
            t.mailbox.wake.notify_one();
        }
    }
}

impl Thread {
    fn start(index: usize) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox {
            index,
            letters: Mutex::default(),
            wake: Notify::new(),
            readers: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let its = mailbox.clone();
        let thread = std::thread::Builder::new()
            .name(format!("fanout-{index}"))
            // Without tokio's budget of operations: one turn serves all readers.
            .spawn(move || {
                runtime.block_on(tokio::task::coop::unconstrained(thread::run(its)));
            })?;
        Ok(Self {
            mailbox,
            runtime: handle,
            handle: Mutex::new(Some(thread)),
        })
    }
}
