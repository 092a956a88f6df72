//! Readers on fan-out threads, with outlets that are made of channels: what comes out, who is cut, who is not.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use kerbside_codecs::media::{Captured, Codec, Medium, Payloads};

use super::*;
use crate::ids::StreamId;
use crate::stream::{NewFrame, Publisher, Streams, StreamsLimits};

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Frame(u64, usize),
    Skipped(u64),
    Ended(&'static str),
}

/// Tells what it gets; takes frames while its gate is open.
struct Probe {
    seen: Sender<Seen>,
    open: Arc<AtomicBool>,
    waker: Arc<Mutex<Option<Waker>>>,
    paced: bool,
    faulty: bool,
    deadline: Option<Instant>,
}

impl Outlet for Probe {
    fn protocol(&self) -> &'static str {
        "probe"
    }

    fn ready(&mut self, at: &mut At<'_>) -> Flow {
        if self.open.load(Ordering::SeqCst) {
            return Flow::Go;
        }
        *self.waker.lock() = Some(at.waker.clone());
        Flow::Blocked
    }

    fn frame(&mut self, frame: &Arc<Frame>, _: u64, _: &Reader, _: &mut At<'_>) {
        assert!(!self.faulty, "a fault of this outlet");
        let thread: usize = std::thread::current()
            .name()
            .and_then(|n| n.strip_prefix("fanout-")?.parse().ok())
            .unwrap();
        let _ = self.seen.send(Seen::Frame(frame.time, thread));
    }

    fn woken(&mut self, _: &mut Reader, _: &mut At<'_>) -> Flow {
        Flow::Go
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn skipped(&mut self, frames: u64, _: &Reader, _: &mut At<'_>) {
        let _ = self.seen.send(Seen::Skipped(frames));
    }

    fn is_paced(&self) -> bool {
        self.paced
    }

    fn end(self: Box<Self>, reason: &'static str, _: &Reader, _: &mut At<'_>) {
        let _ = self.seen.send(Seen::Ended(reason));
    }
}

struct Watched {
    seen: Receiver<Seen>,
    open: Arc<AtomicBool>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Watched {
    fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn frame(&self) -> u64 {
        match self.next() {
            Seen::Frame(time, _) => time,
            other => panic!("{other:?}"),
        }
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        if let Some(w) = self.waker.lock().take() {
            w.wake();
        }
    }
}

struct Street {
    fanout: Fanout,
    streams: Streams,
    publisher: Publisher,
    id: StreamId,
}

impl Street {
    fn new(limits: StreamsLimits) -> Self {
        let streams = Streams::new(limits);
        let id = StreamId::new("bc-01", "main").unwrap();
        let video = Medium {
            codec: Codec::H264 {
                sps: Bytes::new(),
                pps: Bytes::new(),
            },
            clock_rate: 90_000,
        };
        let publisher = streams.publish(&id, vec![video], "test").unwrap();
        Self {
            fanout: Fanout::start(2).unwrap(),
            streams,
            publisher,
            id,
        }
    }

    fn push(&self, n: u64, key: bool, bytes: usize) {
        let frame = NewFrame {
            medium: 0,
            key,
            time: n,
            arrived: Instant::now(),
            captured: Captured {
                utc_us: 0,
                uncertainty_us: 0,
            },
            payloads: Payloads::single(vec![0; bytes].into()),
        };
        self.publisher.push(frame).unwrap();
    }

    async fn join(&self, open: bool, adjust: impl FnOnce(&mut Probe)) -> Watched {
        let (seen, watched) = channel();
        let mut probe = Probe {
            seen,
            open: Arc::new(AtomicBool::new(open)),
            waker: Arc::default(),
            paced: false,
            faulty: false,
            deadline: None,
        };
        adjust(&mut probe);
        let out = Watched {
            seen: watched,
            open: probe.open.clone(),
            waker: probe.waker.clone(),
        };
        let reader = self.streams.read(&self.id, Duration::ZERO).await.unwrap();
        let place = self.fanout.place(None);
        self.fanout.join(&place, reader, None, Box::new(probe));
        out
    }
}

#[tokio::test]
async fn every_reader_gets_every_frame_from_its_one_thread() {
    let street = Street::new(StreamsLimits::default());
    street.push(0, true, 10);
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(street.join(true, |_| ()).await);
    }
    for n in 1..100 {
        street.push(n, false, 10);
    }
    let mut on = [0, 0];
    for r in &readers {
        let mut threads = Vec::new();
        for n in 0..100 {
            match r.next() {
                Seen::Frame(time, thread) => {
                    assert_eq!(time, n);
                    threads.push(thread);
                }
                other => panic!("{other:?}"),
            }
        }
        threads.dedup();
        assert_eq!(threads.len(), 1);
        on[threads[0]] += 1;
    }
    assert_eq!(on, [10, 10], "spread over the threads");
    street.fanout.stop();
    for r in &readers {
        assert_eq!(r.next(), Seen::Ended("gateway_stops"));
    }
}

#[tokio::test]
async fn a_blocked_reader_holds_nobody_up_and_goes_on_when_it_can() {
    let street = Street::new(StreamsLimits {
        reader_behind_bytes_max: 5000,
        ..StreamsLimits::default()
    });
    street.push(0, true, 100);
    let slow = street.join(false, |_| ()).await;
    let quick = street.join(true, |_| ()).await;
    assert_eq!(quick.frame(), 0);
    for n in 1..200 {
        street.push(n, n % 30 == 0, 100);
        assert_eq!(quick.frame(), n);
    }
    slow.open();
    // More than 5,000 bytes behind: on to the newest key frame, and told.
    let first = match slow.next() {
        Seen::Skipped(frames) => frames,
        other => panic!("{other:?}"),
    };
    assert_eq!(first, 179, "the frame it would have begun with is no loss");
    for n in 180..200 {
        assert_eq!(slow.frame(), n);
    }
    street.push(200, false, 100);
    assert_eq!(slow.frame(), 200);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut() {
    let street = Street::new(StreamsLimits {
        reader_stall_max: Duration::from_millis(100),
        ..StreamsLimits::default()
    });
    street.push(0, true, 100);
    let stalled = street.join(false, |_| ()).await;
    assert_eq!(stalled.next(), Seen::Ended("stalled"));
    assert!(stalled.seen.recv().is_err(), "the outlet is gone");
}

#[tokio::test]
async fn a_fault_ends_its_reader_alone() {
    let street = Street::new(StreamsLimits::default());
    let mut faulty = Vec::new();
    for _ in 0..4 {
        faulty.push(street.join(true, |p| p.faulty = true).await);
    }
    let sound = street.join(true, |_| ()).await;
    for n in 0..10 {
        street.push(n, n == 0, 10);
        assert_eq!(sound.frame(), n);
    }
    for f in faulty {
        assert!(f.seen.recv_timeout(Duration::from_secs(20)).is_err());
    }
}

#[tokio::test]
async fn a_start_over_datagrams_is_paced() {
    let street = Street::new(StreamsLimits {
        // So slow that the group cannot be sent within this test.
        start_bits_per_second_max: 8 * 1000,
        ..StreamsLimits::default()
    });
    street.push(0, true, 100_000);
    for n in 1..30 {
        street.push(n, false, 10_000);
    }
    let paced = street.join(true, |p| p.paced = true).await;
    let free = street.join(true, |_| ()).await;
    for n in 0..30 {
        assert_eq!(free.frame(), n);
    }
    assert_eq!(paced.frame(), 0, "the key frame comes at once");
    assert!(paced.seen.try_recv().is_err(), "the rest has to wait");
}

#[tokio::test]
async fn a_deadline_that_stays_overdue_holds_nobody_up() {
    let street = Street::new(StreamsLimits::default());
    street.push(0, true, 10);
    let overdue = Instant::now();
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(street.join(true, |p| p.deadline = Some(overdue)).await);
        readers.push(street.join(true, |_| ()).await);
    }
    for n in 1..20 {
        street.push(n, false, 10);
    }
    for r in readers {
        for n in 0..20 {
            assert_eq!(r.frame(), n);
        }
    }
}

#[tokio::test]
async fn who_comes_when_the_threads_have_ended_is_told_so() {
    let street = Street::new(StreamsLimits::default());
    street.push(0, true, 10);
    let before = street.join(true, |_| ()).await;
    assert_eq!(before.frame(), 0);
    let place = street.fanout.place(None);
    street.fanout.stop();
    assert_eq!(before.next(), Seen::Ended("gateway_stops"));
    let late = street.join(true, |_| ()).await;
    assert!(late.seen.recv().is_err(), "its outlet is dropped");
    place.kick();
    let letters = place.0.mailbox.letters.lock();
    assert!(
        letters.joins.is_empty() && letters.kicked.is_empty(),
        "nothing piles up where nobody reads"
    );
}
