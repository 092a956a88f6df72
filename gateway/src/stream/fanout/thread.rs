//! One fan-out thread: its readers, what wakes it, and the round over them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use prometheus::local::LocalHistogram;
use tokio::time::sleep_until;

use super::pace::Pace;
use super::{At, Bell, Flow, Join, LATENCY, Letters, Listener, Mailbox, ON_THREAD, Outlet};
use crate::stream::reader::{Item, Reader};
use crate::udp::Burst;

/// One reader that catches up does not hold up the others: after so many bytes it is their turn.
const TURN_BYTES: usize = 256 << 10;
/// A start is paced for so long at most.
const START_MAX: Duration = Duration::from_secs(5);
/// How often stalls are looked for and measurements are handed over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A deadline that is over already comes again after this: it must not spin.
const OVERDUE: Duration = Duration::from_millis(1);

/// One reader on this thread.
struct Slot {
    bell: Arc<Bell>,
    waker: Waker,
    reader: Reader,
    held: Option<Item>,
    outlet: Box<dyn Outlet>,
    group: usize,
    pace: Option<Pace>,
    /// The pace holds until then: a stream that is faster than it must come to an end of its start.
    paced_until: Instant,
    blocked_since: Option<Instant>,
    /// The earliest alarm that stands for it.
    alarm: Option<Instant>,
    /// Stands in the list of those whose turn was over before they were done.
    again: bool,
}

/// Readers of one stream.
struct Group {
    stream: usize,
    dirty: Arc<AtomicBool>,
    members: Vec<usize>,
}

struct Round {
    mailbox: Arc<Mailbox>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_key: HashMap<u64, usize>,
    groups: Vec<Option<Group>>,
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Readers whose turn was over before they were done.
    again: Vec<u64>,
    burst: Burst,
    /// By protocol; there are three.
    latency: Vec<(&'static str, LocalHistogram)>,
    look_at: Instant,
}

/// Closes the mailbox when the thread ends, by a fault too.
struct Closing(Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(super) async fn run(mailbox: Arc<Mailbox>) {
    let _closing = Closing(mailbox.clone());
    let mut round = Round {
        mailbox: mailbox.clone(),
        slots: Vec::new(),
        free: Vec::new(),
        by_key: HashMap::new(),
        groups: Vec::new(),
        alarms: BinaryHeap::new(),
        again: Vec::new(),
        burst: Burst::default(),
        latency: Vec::new(),
        look_at: Instant::now() + LOOK_EVERY,
    };
    let timer = sleep_until(round.look_at.into());
    tokio::pin!(timer);
    loop {
        if round.again.is_empty() {
            let due = round.due();
            if timer.deadline() != due.into() {
                timer.as_mut().reset(due.into());
            }
            tokio::select! {
                biased;
                () = mailbox.wake.notified() => {}
                () = timer.as_mut() => {}
            }
        } else {
            // The receiving task of this thread gets its turn too.
            tokio::task::yield_now().await;
        }
        let letters = std::mem::take(&mut *mailbox.letters.lock());
        if letters.stop {
            for join in letters.joins {
                round.join(join);
            }
            round.end_all();
            return;
        }
        round.turn(letters);
    }
}

impl Round {
    fn due(&self) -> Instant {
        let alarm = self.alarms.peek().map(|Reverse((at, _))| *at);
        alarm.map_or(self.look_at, |a| a.min(self.look_at))
    }

    fn turn(&mut self, letters: Letters) {
        for group in letters.groups {
            let Some(Some(g)) = self.groups.get(group) else {
                continue;
            };
            // Before the readers look: what comes later wakes us again.
            g.dirty.store(false, Ordering::Release);
            // From the end: who leaves gives the place to one that was served already.
            for i in (0..g.members.len()).rev() {
                let members = self.groups[group].as_ref().map(|g| &g.members);
                if let Some(&slot) = members.and_then(|m| m.get(i)) {
                    self.serve(slot, false);
                }
            }
        }
        for join in letters.joins {
            self.join(join);
        }
        for key in letters.kicked {
            if let Some(&slot) = self.by_key.get(&key) {
                self.serve(slot, true);
            }
        }
        for key in std::mem::take(&mut self.again) {
            if let Some(&slot) = self.by_key.get(&key) {
                if let Some(s) = &mut self.slots[slot] {
                    s.again = false;
                }
                self.serve(slot, false);
            }
        }
        let now = Instant::now();
        while let Some(Reverse((at, key))) = self.alarms.peek().copied()
            && at <= now
        {
            self.alarms.pop();
            if let Some(&slot) = self.by_key.get(&key) {
                if let Some(s) = &mut self.slots[slot]
                    && s.alarm.is_some_and(|a| a <= now)
                {
                    s.alarm = None;
                }
                self.serve(slot, true);
            }
        }
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            self.look(now);
        }
    }

    fn join(&mut self, join: Join) {
        let key = join.bell.key;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let group = self.group(&join.reader);
        if let Some(g) = &mut self.groups[group] {
            g.members.push(slot);
        }
        let pace = join.outlet.is_paced().then(|| {
            Pace::new(
                join.reader.limits().start_bits_per_second_max,
                Instant::now(),
            )
        });
        self.slots[slot] = Some(Slot {
            waker: Waker::from(join.bell.clone()),
            bell: join.bell,
            reader: join.reader,
            held: join.first,
            outlet: join.outlet,
            group,
            pace,
            paced_until: Instant::now() + START_MAX,
            blocked_since: None,
            alarm: None,
            again: false,
        });
        self.by_key.insert(key, slot);
        let thread = self.mailbox.index.to_string();
        ON_THREAD.with_label_values(&[&thread]).inc();
        self.serve(slot, true);
    }

    /// The group of a reader's stream.
    fn group(&mut self, reader: &Reader) -> usize {
        let key = reader.stream_key();
        let same = |g: &Option<Group>| g.as_ref().is_some_and(|g| g.stream == key);
        if let Some(i) = self.groups.iter().position(same) {
            return i;
        }
        let free = self.groups.iter().position(Option::is_none);
        let i = free.unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        let dirty = Arc::new(AtomicBool::new(false));
        reader.listen(Listener {
            group: i,
            dirty: dirty.clone(),
            mailbox: self.mailbox.clone(),
        });
        self.groups[i] = Some(Group {
            stream: key,
            dirty,
            members: Vec::new(),
        });
        i
    }

    /// One reader's turn: `woken` when something other than a frame may be the reason. A fault in it is its end alone.
    fn serve(&mut self, index: usize, woken: bool) {
        let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let (burst, latency) = (&mut self.burst, &mut self.latency);
        let served = catch_unwind(AssertUnwindSafe(|| slot.serve(woken, burst, latency)));
        match served {
            Ok(Served::Idle) => {}
            Ok(Served::Again) => {
                if !std::mem::replace(&mut slot.again, true) {
                    self.again.push(slot.bell.key);
                }
            }
            Ok(Served::Over(reason)) => return self.remove(index, reason),
            Err(_) => {
                tracing::error!(
                    stream = %slot.reader.stream_id(),
                    protocol = slot.outlet.protocol(),
                    "a reader ended by a fault of the gateway"
                );
                slot.reader.ended("fault");
                // Not `end`: nobody knows what state the outlet is in.
                drop(self.take(index));
                return;
            }
        }
        let due = [
            slot.outlet.deadline(),
            slot.pace.and_then(|p| p.wait_until(Instant::now())),
        ];
        if let Some(at) = due.into_iter().flatten().min()
            && slot.alarm.is_none_or(|a| at < a)
        {
            let at = at.max(Instant::now() + OVERDUE);
            if slot.alarm.is_none_or(|a| at < a) {
                slot.alarm = Some(at);
                self.alarms.push(Reverse((at, slot.bell.key)));
            }
        }
    }

    fn remove(&mut self, index: usize, reason: &'static str) {
        if let Some(slot) = self.take(index) {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let mut at = At {
                    now: Instant::now(),
                    burst: &mut self.burst,
                    waker: &slot.waker,
                };
                slot.reader.ended(reason);
                slot.outlet.end(reason, &slot.reader, &mut at);
            }));
            if ended.is_err() {
                tracing::error!(reason, "a reader's end failed by a fault of the gateway");
            }
        }
    }

    fn take(&mut self, index: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(index)?.take()?;
        self.free.push(index);
        self.by_key.remove(&slot.bell.key);
        if let Some(Some(group)) = self.groups.get_mut(slot.group) {
            if let Some(i) = group.members.iter().position(|m| *m == index) {
                group.members.swap_remove(i);
            }
            if group.members.is_empty() {
                slot.reader.unlisten(&group.dirty);
                self.groups[slot.group] = None;
            }
        }
        self.mailbox.readers.fetch_sub(1, Ordering::Relaxed);
        let thread = self.mailbox.index.to_string();
        ON_THREAD.with_label_values(&[&thread]).dec();
        Some(slot)
    }

    fn look(&mut self, now: Instant) {
        for (_, l) in &self.latency {
            l.flush();
        }
        let stalled: Vec<usize> = (0..self.slots.len())
            .filter(|i| {
                self.slots[*i].as_ref().is_some_and(|s| {
                    s.blocked_since.is_some_and(|t| {
                        now.saturating_duration_since(t) >= s.reader.limits().reader_stall_max
                    })
                })
            })
            .collect();
        for i in stalled {
            self.remove(i, "stalled");
        }
    }

    fn end_all(&mut self) {
        for i in 0..self.slots.len() {
            self.remove(i, "gateway_stops");
        }
    }
}

enum Served {
    Idle,
    Again,
    Over(&'static str),
}

impl Slot {
    fn serve(
        &mut self,
        woken: bool,
        burst: &mut Burst,
        latency: &mut Vec<(&'static str, LocalHistogram)>,
    ) -> Served {
        let mut at = At {
            now: Instant::now(),
            burst,
            waker: &self.waker,
        };
        if woken {
            // First, so that a kick from now on is served again.
            self.bell.rung.store(false, Ordering::Release);
            if let Flow::Over(reason) = self.outlet.woken(&mut self.reader, &mut at) {
                return Served::Over(reason);
            }
        } else if self.blocked_since.is_some() {
            return Served::Idle;
        }
        let mut bytes = 0;
        loop {
            match self.outlet.ready(&mut at) {
                Flow::Go => self.blocked_since = None,
                Flow::Blocked => {
                    self.blocked_since.get_or_insert(at.now);
                    return Served::Idle;
                }
                Flow::Slow => {
                    self.blocked_since = Some(at.now);
                    return Served::Idle;
                }
                Flow::Over(reason) => return Served::Over(reason),
            }
            if self.held.is_none()
                && self.reader.is_catching_up()
                && at.now < self.paced_until
                && self.pace.is_some_and(|p| p.wait_until(at.now).is_some())
            {
                return Served::Idle;
            }
            if bytes >= TURN_BYTES {
                return Served::Again;
            }
            let Some(item) = self.held.take().or_else(|| self.reader.poll()) else {
                return Served::Idle;
            };
            match item {
                Item::Frame { frame, time } => {
                    self.outlet.frame(&frame, time, &self.reader, &mut at);
                    let size = frame.payloads.bytes();
                    bytes += size;
                    at.now = Instant::now();
                    if self.reader.is_catching_up() {
                        if let Some(p) = &mut self.pace {
                            p.sent(size, at.now);
                        }
                    } else {
                        let passed = at.now.saturating_duration_since(frame.arrived);
                        observe(latency, self.outlet.protocol(), passed);
                    }
                    self.reader.sent(&frame, at.now);
                }
                Item::Skipped { frames } => {
                    self.paced_until = at.now + START_MAX;
                    self.outlet.skipped(frames, &self.reader, &mut at);
                }
                // Parameter sets are in-band as well.
                Item::Media(_) => {}
                Item::Ended(_) => return Served::Over("stream_ended"),
            }
        }
    }
}

fn observe(
    latency: &mut Vec<(&'static str, LocalHistogram)>,
    protocol: &'static str,
    passed: Duration,
) {
    let i = latency
        .iter()
        .position(|(p, _)| *p == protocol)
        .unwrap_or_else(|| {
            latency.push((protocol, LATENCY.with_label_values(&[protocol]).local()));
            latency.len() - 1
        });
    latency[i].1.observe(passed.as_secs_f64());
}
