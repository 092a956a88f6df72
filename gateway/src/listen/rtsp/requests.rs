//! The requests of a connection's client: who may do it, what is done, what is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kerbside_codecs::media::Medium;
use kerbside_codecs::rtsp::{Call, METHODS, Phase, Request, Response, Status, Target, Transport};
use rtsp_types::Method;

use super::auth::{Purpose, Refusal, identify, permit};
use super::conn::{Conn, End};
use super::outlet::{Desk, Playing, RtspOutlet};
use super::play::Lanes;
use super::ports::{Inbox, Pair};
use super::push::Push;
use super::refused;
use crate::ids::StreamId;
use crate::registry::{Principal, User};
use crate::stream::SubscribeError;

/// How long DESCRIBE waits for a camera that is pulled on demand.
const CAMERA_WAIT: Duration = Duration::from_secs(10);
/// 401s to one connection.
const CHALLENGES_MAX: u32 = 8;

impl Conn {
    /// Answers a request.
    pub(super) async fn request(&mut self, request: &Request) -> Result<(), End> {
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
        if let Some(response) = answered.unwrap_or_else(Some) {
            if response.status != Status::Ok {
                refused(response.status);
            }
            response.write(request, &mut self.out);
        }
        Ok(())
    }

    async fn refuse(&mut self, request: &Request, refusal: Refusal) -> Result<(), End> {
        self.challenges += 1;
        refused(Status::Unauthorized);
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

    /// None: answered already.
    async fn call(&mut self, request: &Request, call: Call) -> Result<Option<Response>, Response> {
        let ok = Response::new(Status::Ok);
        let answered = match call {
            Call::Options => Ok(ok.with("Public", METHODS)),
            Call::KeepAlive => Ok(self.in_session(ok)),
            Call::Describe(target) => self.describe(request, target).await,
            Call::Announce(target, offer) => {
                self.permit(Purpose::Publish, &target)?;
                stream_id(&target)?;
                for m in offer.media.iter().filter(|m| m.medium.is_none()) {
                    if self.shared.may_say(self.ends.peer) {
                        tracing::info!(
                            stream = target.stream,
                            encoding = m.encoding,
                            "this medium is not carried; its packets are discarded"
                        );
                    }
                }
                self.release().await;
                self.session.announced(target.stream, offer);
                Ok(ok)
            }
            Call::SetUp {
                target,
                record,
                transport,
            } => self.set_up(&target, record, transport).await,
            Call::Play => return self.start_play(request).await,
            Call::Record => self.start_push(),
            Call::Pause => {
                self.stop_play().await;
                self.session.paused();
                Ok(self.in_session(ok))
            }
            Call::Teardown => {
                self.release().await;
                self.session.reset();
                Ok(ok)
            }
        };
        answered.map(Some)
    }

    fn permit(&self, purpose: Purpose, target: &Target) -> Result<(), Response> {
        match &self.principal {
            Some(Principal::User(user)) if !self.may_see(user, target) => {
                Err(Response::new(Status::NotFound))
            }
            Some(p) => permit(p, purpose, target),
            None => Err(Response::new(Status::Unauthorized)),
        }
    }

    /// Of a restricted device nothing is known without the grant.
    fn may_see(&self, user: &User, target: &Target) -> bool {
        let device = target.stream.split('/').next().unwrap_or_default();
        self.shared.registry.may_see(user, device)
    }

    fn in_session(&self, response: Response) -> Response {
        match self.session.phase() {
            Phase::Init | Phase::Announced => response,
            _ => response.with("Session", self.session.header()),
        }
    }

    /// Lets go of everything the session holds.
    async fn release(&mut self) {
        self.stop_play().await;
        self.push = None;
        self.inbox = Inbox::new();
        self.pairs.clear();
        self.ssrcs.clear();
    }

    async fn describe(&mut self, request: &Request, target: Target) -> Result<Response, Response> {
        let media = self.learn(&target).await?;
        let base = request
            .request_uri()
            .map(|u| base_url(u.as_str()))
            .unwrap_or_default();
        let mut response = Response::new(Status::Ok)
            .with("Content-Type", "application/sdp")
            .with("Content-Base", format!("{base}/"));
        response.body = kerbside_codecs::rtsp::describe(&target.stream, &media);
        Ok(response)
    }

    /// Learns the media of a stream that a user wants to play. A session that has tracks keeps those of its own stream.
    async fn learn(&mut self, target: &Target) -> Result<Arc<[Medium]>, Response> {
        self.permit(Purpose::Play, target)?;
        let id = stream_id(target)?;
        let reader = self
            .shared
            .streams
            .read(&id, CAMERA_WAIT)
            .await
            .map_err(|e| unreadable(&e))?;
        let media = reader.media().clone();
        self.session
            .described(target.stream.clone(), media.to_vec());
        Ok(media)
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
                let bound = Pair::bind(self.ends.local.ip(), self.shared.limits.udp_ports.as_ref());
                Some(bound.map_err(|e| {
                    if self.shared.may_say(self.ends.peer) {
                        tracing::warn!(error = %e, "no UDP ports for an RTSP track");
                    }
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

    /// None: answered already.
    async fn start_play(&mut self, request: &Request) -> Result<Option<Response>, Response> {
        let ok = Response::new(Status::Ok);
        if self.play.is_some() {
            return Ok(Some(self.in_session(ok)));
        }
        let asked = Instant::now();
        let target = Target {
            stream: self.session.stream().to_owned(),
            control: String::new(),
        };
        self.permit(Purpose::Play, &target)?;
        let id = stream_id(&target)?;
        let mut reader = self
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
        let peer = self.ends.peer;
        let user = self
            .principal
            .as_ref()
            .map_or("", Principal::name)
            .to_owned();
        let lanes = Lanes::new(&reader, &self.session, &self.pairs, &self.ssrcs, peer.ip());
        let has_wire = lanes.interleaved();
        let protocol = if has_wire { "rtsp_tcp" } else { "rtsp_udp" };
        reader.introduce(&user, protocol, peer, asked);
        let first = reader.poll();
        let base = request
            .request_uri()
            .map(|u| base_url(u.as_str()))
            .unwrap_or_default();
        let info = lanes.rtp_info(&base, first.as_ref());
        self.session.playing();
        tracing::info!(target: "audit", user, stream = %id, peer = %peer, "look at a stream");
        let answer = self.in_session(ok.with("Range", "npt=now-").with("RTP-Info", info));
        // The answer goes before the first frame.
        answer.write(request, &mut self.out);
        let desk = Arc::new(Desk::default());
        let place = self.shared.fanout.place(None);
        let playing = Playing::new(desk.clone(), place.clone());
        let wire = if has_wire { self.wire.take() } else { None };
        if has_wire {
            playing.answer(&mut self.out, usize::MAX);
        }
        let outlet = RtspOutlet::new(lanes, desk, wire, peer.ip());
        self.shared
            .fanout
            .join(&place, reader, first, Box::new(outlet));
        self.play = Some(playing);
        Ok(None)
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
            if self.shared.may_say(self.ends.peer) {
                tracing::warn!(stream = %id, error = %e, "a publisher was refused");
            }
            Response::new(match e {
                SubscribeError::NoMedia => Status::UnsupportedMediaType,
                _ => Status::Unavailable,
            })
        })?);
        self.session.recording();
        if self.shared.may_say(self.ends.peer) {
            tracing::info!(stream = %id, peer = %self.ends.peer, "RTSP publisher records");
        }
        Ok(self.in_session(ok))
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
