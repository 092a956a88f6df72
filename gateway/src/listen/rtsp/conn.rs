//! One connection: its task, its session, and the requests of its client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kerbside_codecs::rtsp::{
    Call, Framer, Incoming, Phase, Request, Response, Session, Status, Target, Transport,
};
use rtsp_types::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::auth::{Purpose, Refusal, identify, permit};
use super::play::Play;
use super::ports::{Datagram, Inbox, Pair};
use super::push::{Push, PushEnd};
use super::{GREETING_MAX, Shared};
use crate::ids::StreamId;
use crate::registry::Principal;
use crate::stream::{Item, SubscribeError};

/// Without a sign of life for so long a session ends: what we tell clients, and some patience.
const SILENCE_MAX: Duration = Duration::from_secs(70);
/// Time to log in.
const LOGIN_MAX: Duration = Duration::from_secs(30);
/// A client that takes nothing for so long is gone.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How long DESCRIBE waits for a camera that is pulled on demand.
const CAMERA_WAIT: Duration = Duration::from_secs(10);
/// Answers waiting to be sent; above it the client is not read.
const OUT_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 32 << 10;
/// Time to take the last answer before the connection is closed.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// 401s to one connection.
const CHALLENGES_MAX: u32 = 8;

/// The two ends of a connection, and whether it is encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub secure: bool,
}

/// Serves a connection until it ends; gives the reason.
pub async fn run<S: AsyncRead + AsyncWrite>(
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
    let reason = conn.serve(stream).await;
    if conn.push.is_some() || conn.play.is_some() {
        tracing::info!(stream = conn.session.stream(), peer = %ends.peer, reason, "RTSP session ended");
    }
    reason
}

struct Conn {
    ends: Ends,
    shared: Arc<Shared>,
    session: Session,
    out: BytesMut,
    principal: Option<Principal>,
    /// Sockets and SSRCs of the session's tracks, in their order.
    pairs: Vec<Option<Pair>>,
    ssrcs: Vec<u32>,
    inbox: Inbox,
    play: Option<Play>,
    push: Option<Push>,
    began: Instant,
    /// Last sign of life.
    heard: Instant,
    /// Since when the client takes nothing of what waits for it.
    blocked: Option<Instant>,
    requests: u64,
    challenges: u32,
}

/// What woke the task.
enum Event {
    Read(std::io::Result<usize>),
    Written(std::io::Result<Written>),
    Frame(Item),
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
struct End(&'static str);

impl From<PushEnd> for End {
    fn from(e: PushEnd) -> Self {
        Self(match e {
            PushEnd::Superseded => "superseded",
            PushEnd::Silent => "publisher_silent",
        })
    }
}

impl Conn {
    async fn serve<S: AsyncRead + AsyncWrite>(&mut self, stream: S) -> &'static str {
        let (mut from, mut to) = tokio::io::split(stream);
        let mut framer = Framer::default();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut revocations = self.shared.registry.revocations();
        let mut flush = false;
        loop {
            framer.buffer().reserve(READ_BYTES);
            let event = tokio::select! {
                r = write(&mut to, &mut self.out), if flush || !self.out.is_empty() => Event::Written(r),
                r = from.read_buf(framer.buffer()), if self.out.len() < OUT_BYTES_MAX => Event::Read(r),
                item = frame(&mut self.play), if self.out.is_empty() => Event::Frame(item),
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
                Event::Frame(item) => self.item(&item, now),
                Event::Datagram(d) => self.datagram(&d, now),
                Event::Revoked => self.revoked(),
                Event::Tick => self.tick(now),
            };
            if let Err(End(reason)) = done {
                // What is left, if the client takes it at once: the last answer, BYE.
                let last = async {
                    to.write_all_buf(&mut self.out).await?;
                    to.shutdown().await
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

    fn item(&mut self, item: &Item, now: Instant) -> Result<(), End> {
        let Some(play) = &mut self.play else {
            return Ok(());
        };
        match item {
            Item::Frame { frame, time } => {
                play.frame(frame, *time, &mut self.out, now);
            }
            Item::Skipped { frames } => {
                tracing::debug!(
                    stream = self.session.stream(),
                    frames,
                    "RTSP reader is too slow"
                );
            }
            // Parameter sets are in-band as well.
            Item::Media(_) => {}
            Item::Ended(_) => {
                play.bye(&mut self.out);
                return Err(End("stream_ended"));
            }
        }
        Ok(())
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
        if self.out.is_empty() {
            self.blocked = None;
        } else if since(*self.blocked.get_or_insert(now)) >= STALL_MAX {
            return Err(End("stalled"));
        }
        if let Some(push) = &mut self.push {
            push.tick(now, &mut self.out)?;
        }
        Ok(())
    }

    /// Answers a request.
    async fn request(&mut self, request: &Request) -> Result<(), End> {
        if self.principal.is_none() && request.method() != Method::Options {
            match identify(&self.shared, request, self.ends.peer.ip(), self.ends.secure) {
                Ok(p) => self.principal = Some(p),
                Err(refusal) => return self.refuse(request, refusal).await,
            }
        }
        let answered = match self.session.check(request) {
            Ok(call) => self.call(request, call).await,
            Err(refused) => Err(refused.0),
        };
        let response = answered.unwrap_or_else(|r| r);
        response.write(request, &mut self.out);
        Ok(())
    }

    async fn refuse(&mut self, request: &Request, refusal: Refusal) -> Result<(), End> {
        self.challenges += 1;
        let (response, over) = match refusal {
            Refusal::Challenge(r) => (r, self.challenges >= CHALLENGES_MAX),
            Refusal::SlowDown(wait, r) => {
                tokio::time::sleep(wait).await;
                (r, true)
            }
        };
        response.write(request, &mut self.out);
        if over {
            Err(End("unauthorized"))
        } else {
            Ok(())
        }
    }

    async fn call(&mut self, request: &Request, call: Call) -> Result<Response, Response> {
        let ok = Response::new(Status::Ok);
        match call {
            Call::Options => Ok(ok.with("Public", kerbside_codecs::rtsp::METHODS)),
            Call::KeepAlive => Ok(self.in_session(ok)),
            Call::Describe(target) => self.describe(request, target).await,
            Call::Announce(target, offer) => {
                self.permit(Purpose::Publish, &target)?;
                stream_id(&target)?;
                for m in offer.media.iter().filter(|m| m.medium.is_none()) {
                    tracing::info!(
                        stream = target.stream,
                        encoding = m.encoding,
                        "this medium is not carried; its packets are discarded"
                    );
                }
                self.release();
                self.session.announced(target.stream, offer);
                Ok(ok)
            }
            Call::SetUp {
                target,
                record,
                transport,
            } => self.set_up(&target, record, transport).await,
            Call::Play => self.start_play(request).await,
            Call::Record => self.start_push(),
            Call::Pause => {
                self.play = None;
                self.session.paused();
                Ok(self.in_session(ok))
            }
            Call::Teardown => {
                self.release();
                self.session.reset();
                Ok(ok)
            }
        }
    }

    fn permit(&self, purpose: Purpose, target: &Target) -> Result<(), Response> {
        match &self.principal {
            Some(p) => permit(p, purpose, target),
            None => Err(Response::new(Status::Unauthorized)),
        }
    }

    fn in_session(&self, response: Response) -> Response {
        match self.session.phase() {
            Phase::Init | Phase::Announced => response,
            _ => response.with("Session", self.session.header()),
        }
    }

    /// Lets go of everything the session holds.
    fn release(&mut self) {
        self.play = None;
        self.push = None;
        self.inbox = Inbox::new();
        self.pairs.clear();
        self.ssrcs.clear();
    }

    async fn describe(&mut self, request: &Request, target: Target) -> Result<Response, Response> {
        self.learn(&target).await?;
        let base = request
            .request_uri()
            .map(|u| base_url(u.as_str()))
            .unwrap_or_default();
        let mut response = Response::new(Status::Ok)
            .with("Content-Type", "application/sdp")
            .with("Content-Base", format!("{base}/"));
        response.body = kerbside_codecs::rtsp::describe(&target.stream, self.session.media());
        Ok(response)
    }

    /// Learns the media of a stream that a user wants to play.
    async fn learn(&mut self, target: &Target) -> Result<(), Response> {
        self.permit(Purpose::Play, target)?;
        let id = stream_id(target)?;
        let reader = self
            .shared
            .streams
            .read(&id, CAMERA_WAIT)
            .await
            .map_err(|e| unreadable(&e))?;
        self.session
            .described(target.stream.clone(), reader.media().to_vec());
        Ok(())
    }

    async fn set_up(
        &mut self,
        target: &Target,
        record: bool,
        transport: Transport,
    ) -> Result<Response, Response> {
        if record {
            self.permit(Purpose::Publish, target)?;
        } else if self.session.knows(target) {
            self.permit(Purpose::Play, target)?;
        } else {
            self.learn(target).await?;
        }
        let pair = match transport {
            Transport::Tcp { .. } => None,
            Transport::Udp { .. } => {
                let bound = Pair::bind(self.ends.local.ip(), self.shared.udp_ports.as_ref());
                Some(bound.map_err(|e| {
                    tracing::warn!(error = %e, "no UDP ports for an RTSP track");
                    Response::new(Status::Unavailable)
                })?)
            }
        };
        let track = self
            .session
            .set_up(target, record, transport)
            .map_err(|r| r.0)?;
        let ssrc: u32 = rand::random();
        let mut header = track.transport.to_string();
        if let Some(pair) = &pair {
            header += &format!(";server_port={}-{}", pair.port, pair.port + 1);
        }
        header += &if record {
            ";mode=record".to_owned()
        } else {
            format!(";ssrc={ssrc:08X}")
        };
        if let Some(pair) = &pair {
            self.inbox
                .listen(self.pairs.len(), pair, self.ends.peer.ip());
        }
        self.pairs.push(pair);
        self.ssrcs.push(ssrc);
        Ok(self.in_session(Response::new(Status::Ok).with("Transport", header)))
    }

    async fn start_play(&mut self, request: &Request) -> Result<Response, Response> {
        let ok = Response::new(Status::Ok);
        if self.play.is_some() {
            return Ok(self.in_session(ok));
        }
        let target = Target {
            stream: self.session.stream().to_owned(),
            control: String::new(),
        };
        self.permit(Purpose::Play, &target)?;
        let id = stream_id(&target)?;
        let reader = self
            .shared
            .streams
            .read(&id, CAMERA_WAIT)
            .await
            .map_err(|e| unreadable(&e))?;
        let same = reader.media().iter().map(|m| m.codec.encoding_name());
        if !same.eq(self.session.media().iter().map(|m| m.codec.encoding_name())) {
            // The publisher came back with other media since DESCRIBE.
            return Err(Response::new(Status::NotFound));
        }
        let play = Play::start(
            reader,
            &self.session,
            &self.pairs,
            &self.ssrcs,
            self.ends.peer.ip(),
        );
        let base = request
            .request_uri()
            .map(|u| base_url(u.as_str()))
            .unwrap_or_default();
        let info = play.rtp_info(&base);
        self.play = Some(play);
        self.session.playing();
        tracing::info!(stream = %id, peer = %self.ends.peer, "RTSP reader plays");
        Ok(self.in_session(ok.with("Range", "npt=now-").with("RTP-Info", info)))
    }

    fn start_push(&mut self) -> Result<Response, Response> {
        let ok = Response::new(Status::Ok);
        if self.push.is_some() {
            return Ok(self.in_session(ok));
        }
        let target = Target {
            stream: self.session.stream().to_owned(),
            control: String::new(),
        };
        self.permit(Purpose::Publish, &target)?;
        let id = stream_id(&target)?;
        let peer = self.ends.peer.ip();
        let push = Push::start(
            &self.shared.streams,
            &id,
            &self.session,
            &self.pairs,
            peer,
            Instant::now(),
        );
        self.push = Some(push.map_err(|e| {
            tracing::warn!(stream = %id, error = %e, "a publisher was refused");
            Response::new(match e {
                SubscribeError::NoMedia => Status::UnsupportedMediaType,
                _ => Status::Unavailable,
            })
        })?);
        self.session.recording();
        tracing::info!(stream = %id, peer = %self.ends.peer, "RTSP publisher records");
        Ok(self.in_session(ok))
    }
}

/// Waits for ever without a reader.
async fn frame(play: &mut Option<Play>) -> Item {
    match play {
        Some(p) => p.next().await,
        None => std::future::pending().await,
    }
}

/// Sends what waits, or what TLS still holds. Cancel-safe.
async fn write<W: AsyncWrite + Unpin>(to: &mut W, out: &mut BytesMut) -> std::io::Result<Written> {
    if out.is_empty() {
        to.flush().await?;
        return Ok(Written::Flushed);
    }
    match to.write_buf(out).await? {
        0 => Ok(Written::Nothing),
        _ => Ok(Written::Some),
    }
}

fn stream_id(target: &Target) -> Result<StreamId, Response> {
    StreamId::parse(&target.stream).map_err(|_| Response::new(Status::NotFound))
}

fn unreadable(e: &SubscribeError) -> Response {
    Response::new(match e {
        SubscribeError::NotFound | SubscribeError::NoMedia => Status::NotFound,
        SubscribeError::Timeout => Status::GatewayTimeout,
        SubscribeError::TooMany(_) => Status::Unavailable,
    })
}

/// `scheme://host/{device}/{camera}`: without control, query, credentials and a slash at the end.
fn base_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return String::new();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match Target::parse(url) {
        Some(t) => format!("{scheme}://{host}/{}", t.stream),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_has_neither_credentials_nor_control() {
        assert_eq!(
            base_url("rtsp://u:p@h:8554/a/b/trackID=1?x=y"),
            "rtsp://h:8554/a/b"
        );
        assert_eq!(base_url("rtsp://h/a/b/"), "rtsp://h/a/b");
    }
}
