//! One RTSP reader's side of the fan-out: a frame is one vectored write into its connection, or one burst of datagrams.
//!
//! While a reader plays over TCP its connection is written here alone; the connection's task leaves its answers in the
//! [`Desk`] and gets the connection back when playing ends. A write that was cut short goes on from where it was: the
//! frame itself is the buffer.

use std::io::IoSlice;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

use super::play::{HEAD_BYTES, Lanes, Numbers};
use super::ports::Pair;
use crate::metrics;
use crate::stream::{At, Flow, Frame, Kick, Outlet, Reader};
use crate::udp::{self, Burst};

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_rtsp_datagrams_dropped_total",
        "Datagrams to RTSP readers that were not sent",
        &["reason"],
    )
});

/// Payloads in one vectored write: two slices each, and the system takes 1,024.
const PAYLOADS_MAX: usize = 500;

pub(super) fn dropped(reason: &'static str, n: usize) {
    DROPPED.with_label_values(&[reason]).inc_by(n as u64);
}

/// The writing half of a connection.
pub type Wire = Box<dyn AsyncWrite + Send + Unpin>;

/// What a connection's task and the outlet hand each other.
#[derive(Default)]
pub struct Desk {
    papers: Mutex<Papers>,
    /// Something is there for the task.
    pub called: Notify,
}

#[derive(Default)]
struct Papers {
    answers: BytesMut,
    leave: bool,
    left: Option<Left>,
}

/// What comes back when playing is over.
pub struct Left {
    /// None: it was never given, or it is broken.
    pub wire: Option<Wire>,
    /// Still to be written before anything else.
    pub rest: BytesMut,
    pub reason: &'static str,
}

/// The connection's hold of its outlet; dropping it ends the outlet.
pub struct Playing {
    pub desk: Arc<Desk>,
    kick: Kick,
}

impl Playing {
    pub fn new(desk: Arc<Desk>, kick: Kick) -> Self {
        Self { desk, kick }
    }

    /// Leaves answers to be written; what is over `max` bytes stays in `answers`.
    pub fn answer(&self, answers: &mut BytesMut, max: usize) {
        if answers.is_empty() {
            return;
        }
        {
            let mut papers = self.desk.papers.lock();
            if papers.answers.len() >= max {
                return;
            }
            papers.answers.unsplit(answers.split());
        }
        self.kick.kick();
    }

    /// Did it end by itself?
    pub fn left(&self) -> Option<Left> {
        self.desk.papers.lock().left.take()
    }

    /// Asks it to end; then wait for [`Self::left`].
    pub fn leave(&self) {
        self.desk.papers.lock().leave = true;
        self.kick.kick();
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A frame whose writing was begun.
struct Partial {
    frame: Arc<Frame>,
    numbers: Numbers,
    /// Payload in whose head or body the cursor stands, and how far into both.
    payload: usize,
    done: usize,
}

pub struct RtspOutlet {
    lanes: Lanes,
    desk: Arc<Desk>,
    wire: Option<Wire>,
    /// Whole messages to be written before the next frame: answers, reports.
    before: BytesMut,
    partial: Option<Partial>,
    unflushed: bool,
    answers_wait: bool,
    broken: bool,
    ended: bool,
    peer: IpAddr,
}

impl RtspOutlet {
    pub fn new(lanes: Lanes, desk: Arc<Desk>, wire: Option<Wire>, peer: IpAddr) -> Self {
        Self {
            lanes,
            desk,
            wire,
            before: BytesMut::new(),
            partial: None,
            unflushed: false,
            answers_wait: false,
            broken: false,
            ended: false,
            peer,
        }
    }

    /// Writes what there is, as far as the connection takes it.
    fn write(&mut self, cx: &mut Context<'_>) -> Flow {
        let mut moved = false;
        loop {
            let written = {
                let Some(wire) = self.wire.as_mut() else {
                    // Datagrams only: reports to tracks in the connection do not exist.
                    self.before.clear();
                    self.partial = None;
                    return Flow::Go;
                };
                let mut heads = Vec::new();
                let iov = slices(&self.before, self.partial.as_ref(), &mut heads);
                if iov.is_empty() {
                    break;
                }
                Pin::new(wire).poll_write_vectored(cx, &iov)
            };
            match written {
                Poll::Ready(Ok(n)) if n > 0 => {
                    moved = true;
                    self.unflushed = true;
                    self.advance(n);
                }
                Poll::Pending => return blocked(moved),
                Poll::Ready(_) => return self.fail(),
            }
        }
        if self.before.capacity() > 4096 {
            self.before = BytesMut::new();
        }
        if self.unflushed
            && let Some(wire) = self.wire.as_mut()
        {
            match Pin::new(wire).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Pending => return blocked(moved),
                Poll::Ready(Err(_)) => return self.fail(),
            }
        }
        Flow::Go
    }

    fn take_answers(&mut self) {
        self.answers_wait = false;
        let mut papers = self.desk.papers.lock();
        if !papers.answers.is_empty() {
            self.before.unsplit(papers.answers.split());
            self.desk.called.notify_one();
        }
    }

    fn hand_back(&mut self, left: Left) {
        self.ended = true;
        self.desk.papers.lock().left = Some(left);
        self.desk.called.notify_one();
    }

    fn fail(&mut self) -> Flow {
        self.broken = true;
        Flow::Over("broken")
    }

    fn advance(&mut self, n: usize) {
        let of_before = n.min(self.before.len());
        // A frame that was begun is finished first, so nothing stands before its rest.
        self.before.advance(of_before);
        let mut n = n - of_before;
        let Some(p) = &mut self.partial else {
            return;
        };
        while let Some(payload) = p.frame.payloads.get_slice(p.payload) {
            let left = HEAD_BYTES + payload.len() - p.done;
            if n < left {
                p.done += n;
                return;
            }
            n -= left;
            p.payload += 1;
            p.done = 0;
        }
        self.partial = None;
    }

    /// What was begun and what waits, as bytes.
    fn rest(&mut self) -> BytesMut {
        let mut rest = BytesMut::new();
        if let Some(mut p) = self.partial.take()
            && (p.payload, p.done) != (0, 0)
        {
            let nothing = BytesMut::new();
            while p.payload < p.frame.payloads.len() {
                let mut heads = Vec::new();
                for s in slices(&nothing, Some(&p), &mut heads) {
                    rest.extend_from_slice(&s);
                }
                p.payload += PAYLOADS_MAX;
                p.done = 0;
            }
        }
        rest.unsplit(self.before.split());
        rest.unsplit(self.desk.papers.lock().answers.split());
        rest
    }
}

fn blocked(moved: bool) -> Flow {
    if moved { Flow::Slow } else { Flow::Blocked }
}

/// What is to be written next, without copying: `before`, then the rest of the frame. Once a frame was begun it comes
/// first, because nothing may stand inside it.
fn slices<'a>(
    before: &'a BytesMut,
    partial: Option<&'a Partial>,
    heads: &'a mut Vec<[u8; HEAD_BYTES]>,
) -> Vec<IoSlice<'a>> {
    let mut out = Vec::new();
    if !before.is_empty() {
        out.push(IoSlice::new(before));
    }
    let Some(p) = partial else {
        return out;
    };
    let end = p.frame.payloads.len().min(p.payload + PAYLOADS_MAX);
    let payloads = || (p.payload..end).filter_map(|i| Some((i, p.frame.payloads.get_slice(i)?)));
    heads.reserve(end.saturating_sub(p.payload));
    heads.extend(payloads().map(|(i, b)| p.numbers.head(i, b.len())));
    out.reserve(heads.len() * 2);
    let mut done = p.done;
    for (head, (_, body)) in heads.iter().zip(payloads()) {
        if done < HEAD_BYTES {
            out.push(IoSlice::new(&head[done..]));
            out.push(IoSlice::new(body));
        } else {
            out.push(IoSlice::new(&body[done - HEAD_BYTES..]));
        }
        done = 0;
    }
    out
}

impl Outlet for RtspOutlet {
    fn protocol(&self) -> &'static str {
        if self.lanes.interleaved() {
            "rtsp_tcp"
        } else {
            "rtsp_udp"
        }
    }

    fn ready(&mut self, at: &mut At<'_>) -> Flow {
        if self.broken {
            return Flow::Over("broken");
        }
        if self.partial.is_none() && self.before.is_empty() && !self.unflushed {
            return Flow::Go;
        }
        let cx = &mut Context::from_waker(at.waker);
        let flow = self.write(cx);
        if flow == Flow::Go && self.answers_wait {
            self.take_answers();
            return self.write(cx);
        }
        flow
    }

    fn frame(&mut self, frame: &Arc<Frame>, time: u64, reader: &Reader, at: &mut At<'_>) {
        let numbered = self
            .lanes
            .number(frame, time, reader, &mut self.before, at.now);
        let Some((numbers, lane)) = numbered else {
            return;
        };
        if let Some((pair, to)) = lane.datagrams(self.peer) {
            at.burst.clear();
            for (i, payload) in frame.payloads.iter().enumerate() {
                at.burst.push(&[&numbers.header(i), payload]);
            }
            send(pair, to, at.burst);
            return;
        }
        self.partial = Some(Partial {
            frame: frame.clone(),
            numbers,
            payload: 0,
            done: 0,
        });
        // What could not be written now is seen by `ready`.
        if let Flow::Over(_) = self.write(&mut Context::from_waker(at.waker)) {
            self.partial = None;
        }
    }

    fn woken(&mut self, _: &mut Reader, _: &mut At<'_>) -> Flow {
        if self.broken {
            return Flow::Over("broken");
        }
        if self.desk.papers.lock().leave {
            return Flow::Over("left");
        }
        // Not into a frame that was begun, and not on top of what is not taken: a client that asks and never reads
        // must not be kept in mind without end.
        self.answers_wait = self.partial.is_some() || !self.before.is_empty();
        if !self.answers_wait {
            self.take_answers();
        }
        Flow::Go
    }

    fn skipped(&mut self, frames: u64, reader: &Reader, _: &mut At<'_>) {
        tracing::debug!(
            stream = %reader.stream_id(),
            frames,
            "a slow RTSP reader skipped to the newest key frame"
        );
    }

    fn is_paced(&self) -> bool {
        !self.lanes.interleaved()
    }

    fn end(mut self: Box<Self>, reason: &'static str, _: &Reader, _: &mut At<'_>) {
        let mut rest = self.rest();
        if reason != "left" {
            self.lanes.bye(&mut rest);
        }
        let wire = self.wire.take().filter(|_| !self.broken);
        self.hand_back(Left { wire, rest, reason });
    }
}

impl Drop for RtspOutlet {
    /// By a fault, or because its thread had ended: the connection must not wait for ever.
    fn drop(&mut self) {
        if !self.ended {
            self.hand_back(Left {
                wire: None,
                rest: BytesMut::new(),
                reason: "fault",
            });
        }
    }
}

fn send(pair: &Pair, to: std::net::SocketAddr, burst: &Burst) {
    match udp::send(&*pair.rtp, to, burst) {
        Ok(sent) => dropped("buffer_full", sent.dropped),
        Err(_) => dropped("unreachable", burst.len()),
    }
}

#[cfg(test)]
#[path = "outlet_tests.rs"]
mod tests;
