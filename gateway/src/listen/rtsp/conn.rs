//! One connection: its task, and what wakes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kerbside_codecs::rtsp::{Framer, Incoming, Phase, Session};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::outlet::{Left, Playing, Wire};
use super::ports::{Datagram, Inbox, Pair};
use super::push::{Push, PushEnd};
use super::{GREETING_MAX, Shared};
use crate::registry::Principal;

/// Without a sign of life for so long a session ends: what we tell clients, and some patience.
const SILENCE_MAX: Duration = Duration::from_secs(70);
/// Time to log in.
const LOGIN_MAX: Duration = Duration::from_secs(30);
/// A client that takes nothing for so long is gone.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Answers waiting to be sent; above it the client is not read.
const OUT_BYTES_MAX: usize = 256 << 10;
pub(super) const TICK: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 32 << 10;
/// Time to take the last answer before the connection is closed.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// The two ends of a connection, and whether it is encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub secure: bool,
}

/// Serves a connection until it ends; gives the reason.
pub async fn run<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    ends: Ends,
    shared: Arc<Shared>,
) -> &'static str {
    let now = Instant::now();
    let mut conn = Conn {
        session: Session::new(format!("{:032x}", rand::random::<u128>()), ends.secure),
        ends,
        shared,
        out: BytesMut::new(),
        wire: None,
        principal: None,
        pairs: Vec::new(),
        ssrcs: Vec::new(),
        inbox: Inbox::new(),
        play: None,
        push: None,
        began: now,
        heard: now,
        blocked: None,
        requests: 0,
        challenges: 0,
    };
    let (from, to) = tokio::io::split(stream);
    conn.wire = Some(Box::new(to));
    let reason = conn.serve(from).await;
    tracing::debug!(peer = %ends.peer, reason, "RTSP connection ended");
    if !matches!(conn.session.phase(), Phase::Init | Phase::Announced)
        && conn.shared.may_say(ends.peer)
    {
        tracing::info!(stream = conn.session.stream(), peer = %ends.peer, reason, "RTSP session ended");
    }
    reason
}

pub(super) struct Conn {
    pub(super) ends: Ends,
    pub(super) shared: Arc<Shared>,
    pub(super) session: Session,
    pub(super) out: BytesMut,
    /// Writes the connection; None while an outlet does.
    pub(super) wire: Option<Wire>,
    pub(super) principal: Option<Principal>,
    /// Sockets and SSRCs of the session's tracks, in their order.
    pub(super) pairs: Vec<Option<Pair>>,
    pub(super) ssrcs: Vec<u32>,
    pub(super) inbox: Inbox,
    pub(super) play: Option<Playing>,
    pub(super) push: Option<Push>,
    pub(super) began: Instant,
    /// Last sign of life.
    pub(super) heard: Instant,
    /// Since when the client takes nothing of what waits for it.
    pub(super) blocked: Option<Instant>,
    pub(super) requests: u64,
    pub(super) challenges: u32,
}

/// What woke the task.
enum Event {
    Read(std::io::Result<usize>),
    Written(std::io::Result<Written>),
    /// The outlet took answers, or is over.
    Called,
    Datagram(Datagram),
    Revoked,
    Tick,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    Some,
    Flushed,
}

/// The connection is over, for this reason.
pub(super) struct End(pub(super) &'static str);

impl From<PushEnd> for End {
    fn from(e: PushEnd) -> Self {
        Self(match e {
            PushEnd::Superseded => "superseded",
            PushEnd::Silent => "publisher_silent",
        })
    }
}

impl Conn {
    async fn serve(&mut self, mut from: impl AsyncRead + Unpin) -> &'static str {
        let mut framer = Framer::default();
        // All connections at the same moments: one wake-up for all of them.
        let first = self.shared.next_tick(Instant::now());
        let mut tick = tokio::time::interval_at(first.into(), TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut revocations = self.shared.registry.revocations();
        let mut flush = false;
        loop {
            // A player says little, a publisher much.
            let room = if self.push.is_some() {
                READ_BYTES
            } else {
                2048
            };
            framer.buffer().reserve(room);
            if let Some(p) = self.play.as_ref().filter(|_| self.wire.is_none()) {
                p.answer(&mut self.out, OUT_BYTES_MAX);
            }
            let event = tokio::select! {
                r = write(self.wire.as_mut(), &mut self.out), if flush || !self.out.is_empty() => Event::Written(r),
                r = from.read_buf(framer.buffer()), if self.out.len() < OUT_BYTES_MAX => Event::Read(r),
                () = called(self.play.as_ref()) => Event::Called,
                d = self.inbox.next() => Event::Datagram(d),
                Ok(()) = revocations.changed() => Event::Revoked,
                _ = tick.tick() => Event::Tick,
            };
            let now = Instant::now();
            let done = match event {
                Event::Written(Ok(Written::Nothing)) | Event::Read(Ok(0)) => Err(End("closed")),
                Event::Written(Err(_)) | Event::Read(Err(_)) => Err(End("broken")),
                Event::Written(Ok(written)) => {
                    flush = self.ends.secure && written != Written::Flushed;
                    self.blocked = None;
                    Ok(())
                }
                Event::Read(Ok(_)) => self.read(&mut framer, now).await,
                Event::Called => self.called(),
                Event::Datagram(d) => self.datagram(&d, now),
                Event::Revoked => self.revoked(),
                Event::Tick => self.tick(now),
            };
            if let Err(End(reason)) = done {
                // What is left, if the client takes it at once: the last answer, BYE.
                let last = async {
                    self.stop_play().await;
                    match self.wire.as_mut() {
                        Some(to) => {
                            to.write_all_buf(&mut self.out).await?;
                            to.shutdown().await
                        }
                        None => Ok(()),
                    }
                };
                if let Ok(Err(e)) = tokio::time::timeout(LAST_WORDS_MAX, last).await {
                    tracing::trace!(error = %e, "last bytes of an RTSP connection were not taken");
                }
                return reason;
            }
        }
    }

    async fn read(&mut self, framer: &mut Framer, now: Instant) -> Result<(), End> {
        loop {
            match framer.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Incoming::Request(request))) => {
                    self.heard = Instant::now();
                    self.requests += 1;
                    self.request(&request).await?;
                }
                Ok(Some(Incoming::Data { channel, data })) => {
                    if let Some(push) = &mut self.push {
                        self.heard = now;
                        push.interleaved(channel, &data, now)?;
                    } else if self.play.is_some() {
                        self.heard = now;
                    }
                }
                Ok(Some(Incoming::Response)) => self.heard = now,
                Err(e) => {
                    tracing::debug!(peer = %self.ends.peer, error = %e, "RTSP stream cannot be followed");
                    return Err(End("malformed"));
                }
            }
        }
    }

    /// The outlet has something to say.
    fn called(&mut self) -> Result<(), End> {
        match self.play.as_ref().and_then(Playing::left) {
            Some(left) => {
                let reason = left.reason;
                self.take_back(left);
                Err(End(reason))
            }
            None => Ok(()),
        }
    }

    /// Playing is over: the connection and what has still to be written come back.
    fn take_back(&mut self, left: Left) {
        self.play = None;
        if left.wire.is_some() {
            self.wire = left.wire;
        }
        let mut rest = left.rest;
        rest.unsplit(self.out.split());
        self.out = rest;
    }

    /// Ends playing, if there is any.
    pub(super) async fn stop_play(&mut self) {
        let Some(playing) = &self.play else {
            return;
        };
        playing.leave();
        let left = loop {
            if let Some(left) = playing.left() {
                break left;
            }
            playing.desk.called.notified().await;
        };
        self.take_back(left);
    }

    fn datagram(&mut self, d: &Datagram, now: Instant) -> Result<(), End> {
        self.heard = now;
        if let Some(push) = &mut self.push {
            push.take(d)?;
        }
        Ok(())
    }

    fn revoked(&self) -> Result<(), End> {
        match &self.principal {
            Some(p) if !self.shared.registry.is_valid(p) => Err(End("revoked")),
            _ => Ok(()),
        }
    }

    fn tick(&mut self, now: Instant) -> Result<(), End> {
        let since = |t| now.saturating_duration_since(t);
        if self.requests == 0 && since(self.began) >= GREETING_MAX {
            return Err(End("no_request"));
        }
        if self.principal.is_none() && since(self.began) >= LOGIN_MAX {
            return Err(End("no_login"));
        }
        if since(self.heard) >= SILENCE_MAX {
            return Err(End("session_timeout"));
        }
        if self.out.is_empty() || self.wire.is_none() {
            self.blocked = None;
        } else if since(*self.blocked.get_or_insert(now)) >= STALL_MAX {
            return Err(End("stalled"));
        }
        if let Some(push) = &mut self.push {
            push.tick(now, &mut self.out)?;
        }
        Ok(())
    }
}

/// Waits for ever without a reader.
async fn called(playing: Option<&Playing>) {
    match playing {
        Some(p) => p.desk.called.notified().await,
        None => std::future::pending().await,
    }
}

/// Sends what waits, or what TLS still holds; waits for ever while the connection is not ours. Cancel-safe.
async fn write(to: Option<&mut Wire>, out: &mut BytesMut) -> std::io::Result<Written> {
    let Some(to) = to else {
        return std::future::pending().await;
    };
    if out.is_empty() {
        to.flush().await?;
        return Ok(Written::Flushed);
    }
    match to.write_buf(out).await? {
        0 => Ok(Written::Nothing),
        _ => Ok(Written::Some),
    }
}

#[cfg(test)]
#[path = "conn_tests.rs"]
mod tests;
