//! One server session: what each request asks for, whether it may come now, and which tracks were set up.
//!
//! Methods come in any order the standard allows (SETUP without DESCRIBE is legal). [`Session::check`] reads a request
//! and changes nothing; the owner does what it asks for and then tells the session ([`Session::announced`] …).

use rtsp_types::{Method, headers};

use super::framing::Request;
use super::message::{Response, Status};
use super::sdp::{Offer, payload_type};
use super::transport::{Transport, Wish, wishes};
use crate::media::Medium;

pub const METHODS: &str = "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// Told to clients: without a sign of life for so long the session ends.
pub const TIMEOUT_SECONDS: u64 = 60;

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was set up.
    Init,
    Announced,
    /// Tracks are set up.
    ReadyToPlay,
    ReadyToRecord,
    Playing,
    Recording,
}

/// What a request is about: `rtsp://host/{device}/{camera}/{control}`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Target {
    /// `{device}/{camera}`, not checked any further.
    pub stream: String,
    pub control: String,
}

impl Target {
    /// None when the path has not two parts. Queries are ignored, but a control behind one is found.
    pub fn parse(url: &str) -> Option<Self> {
        let rest = url.split_once("://").map_or(url, |(_, r)| r);
        let path = if rest.len() == url.len() {
            rest
        } else {
            &rest[rest.find('/')?..]
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts = path.split('/').filter(|p| !p.is_empty());
        let stream = format!("{}/{}", parts.next()?, parts.next()?);
        let behind_query = query.split_once('/').map(|(_, c)| c);
        let control =
            behind_query.map_or_else(|| parts.collect::<Vec<_>>().join("/"), str::to_owned);
        Some(Self { stream, control })
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Options,
    Describe(Target),
    Announce(Target, Offer),
    /// For reading, or for publishing when `record`.
    SetUp {
        target: Target,
        record: bool,
        transport: Transport,
    },
    Play,
    Pause,
    Record,
    Teardown,
    /// GET_PARAMETER, SET_PARAMETER: a sign of life.
    KeepAlive,
}

/// The answer to a request that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Response);

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self(Response::new(status))
    }
}

/// A medium that was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    /// Of the offer when recording, of the stream when playing.
    pub index: usize,
    pub transport: Transport,
    pub payload_type: u8,
}

#[derive(Debug)]
pub struct Session {
    id: String,
    /// The connection is encrypted: media must not leave it.
    secure: bool,
    phase: Phase,
    stream: String,
    offer: Option<Offer>,
    media: Vec<Medium>,
    tracks: Vec<Track>,
}

impl Session {
    /// `id`: unguessable.
    pub fn new(id: String, secure: bool) -> Self {
        Self {
            id,
            secure,
            phase: Phase::Init,
            stream: String::new(),
            offer: None,
            media: Vec::new(),
            tracks: Vec::new(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// `{device}/{camera}` announced, described or set up.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    pub fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    /// The media as they were described.
    pub fn media(&self) -> &[Medium] {
        &self.media
    }

    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Value of the `Session` header.
    pub fn header(&self) -> String {
        format!("{};timeout={TIMEOUT_SECONDS}", self.id)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// The answer to one that is malformed or comes at the wrong time.
    pub fn check(&self, request: &Request) -> Result<Call, Refused> {
        if request.header(&headers::REQUIRE).is_some() {
            let named = request.header(&headers::REQUIRE).map_or("", |v| v.as_str());
            return Err(Refused(
                Response::new(Status::OptionNotSupported).with("Unsupported", named),
            ));
        }
        if let Some(given) = request.header(&headers::SESSION) {
            let given = given.as_str().split(';').next().unwrap_or_default().trim();
            if given != self.id {
                return Err(Status::SessionNotFound.into());
            }
        }
        let wrong_time: Refused = Status::NotValidInThisState.into();
        let target = || {
            request
                .request_uri()
                .and_then(|u| Target::parse(u.as_str()))
                .ok_or(Refused::from(Status::NotFound))
        };
        match request.method() {
            Method::Options => Ok(Call::Options),
            Method::GetParameter | Method::SetParameter => Ok(Call::KeepAlive),
            Method::Describe => match self.phase {
                Phase::Init | Phase::ReadyToPlay => Ok(Call::Describe(target()?)),
                _ => Err(wrong_time),
            },
            Method::Announce => match self.phase {
                Phase::Init | Phase::Announced => {
                    let offer = Offer::parse(request.body()).map_err(|e| {
                        let status = match e {
                            super::BadSdp::Syntax(_) => Status::BadRequest,
                            _ => Status::UnsupportedMediaType,
                        };
                        Refused(Response::new(status).with("X-Reason", e.to_string()))
                    })?;
                    Ok(Call::Announce(target()?, offer))
                }
                _ => Err(wrong_time),
            },
            Method::Setup => self.check_set_up(request, target()?),
            Method::Play => match self.phase {
                Phase::ReadyToPlay | Phase::Playing => Ok(Call::Play),
                _ => Err(wrong_time),
            },
            Method::Record => match self.phase {
                Phase::ReadyToRecord | Phase::Recording => Ok(Call::Record),
                _ => Err(wrong_time),
            },
            Method::Pause => match self.phase {
                Phase::Init | Phase::Announced => Err(wrong_time),
                _ => Ok(Call::Pause),
            },
            Method::Teardown => Ok(Call::Teardown),
            _ => Err(Refused(
                Response::new(Status::NotImplemented).with("Public", METHODS),
            )),
        }
    }

    fn check_set_up(&self, request: &Request, target: Target) -> Result<Call, Refused> {
        let record = match self.phase {
            Phase::Init | Phase::ReadyToPlay => false,
            Phase::Announced | Phase::ReadyToRecord => true,
            Phase::Playing | Phase::Recording => return Err(Status::NotValidInThisState.into()),
        };
        let bound = record || !self.tracks.is_empty();
        if bound && target.stream != self.stream {
            return Err(Status::NotValidInThisState.into());
        }
        let header = request
            .header(&headers::TRANSPORT)
            .map_or("", |h| h.as_str());
        let transport = wishes(header)
            .into_iter()
            .find_map(|w| self.choose(w))
            .ok_or(Refused::from(Status::UnsupportedTransport))?;
        Ok(Call::SetUp {
            target,
            record,
            transport,
        })
    }

    fn choose(&self, wish: Wish) -> Option<Transport> {
        let taken = |c: u8| {
            self.tracks.iter().any(
                |t| matches!(t.transport, Transport::Tcp { rtp, rtcp } if rtp == c || rtcp == c),
            )
        };
        match wish {
            Wish::Udp(..) if self.secure => None,
            Wish::Udp(rtp, rtcp) => Some(Transport::Udp { rtp, rtcp }),
            Wish::Tcp(Some((rtp, rtcp))) if rtp != rtcp && !taken(rtp) && !taken(rtcp) => {
                Some(Transport::Tcp { rtp, rtcp })
            }
            Wish::Tcp(_) => (0..=254)
                .step_by(2)
                .find(|c| !taken(*c) && !taken(c + 1))
                .map(|c| Transport::Tcp {
                    rtp: c,
                    rtcp: c + 1,
                }),
        }
    }

    /// ANNOUNCE was granted.
    pub fn announced(&mut self, stream: String, offer: Offer) {
        self.stream = stream;
        self.offer = Some(offer);
        self.tracks.clear();
        self.phase = Phase::Announced;
    }

    /// The media of a stream are known (DESCRIBE, or SETUP without it).
    pub fn described(&mut self, stream: String, media: Vec<Medium>) {
        if self.tracks.is_empty() {
            self.stream = stream;
            self.media = media;
        }
    }

    /// Is the stream of this target the one whose media are known?
    pub fn knows(&self, target: &Target) -> bool {
        target.stream == self.stream && !self.media.is_empty()
    }

    /// SETUP was granted: adds the track. What is asked for by name, number or, failing that, order.
    ///
    /// # Errors
    /// 404: no such track; 455: it is set up already.
    pub fn set_up(
        &mut self,
        target: &Target,
        record: bool,
        transport: Transport,
    ) -> Result<Track, Refused> {
        let count = match (&self.offer, record) {
            (Some(offer), true) => offer.media.len(),
            _ => self.media.len(),
        };
        let index = self
            .index_of(&target.control, record, count)
            .ok_or(Refused::from(Status::NotFound))?;
        if self.tracks.iter().any(|t| t.index == index) {
            return Err(Status::NotValidInThisState.into());
        }
        let payload_type = match (&self.offer, record) {
            (Some(offer), true) => offer.media[index].payload_type,
            _ => payload_type(index, &self.media[index].codec),
        };
        let track = Track {
            index,
            transport,
            payload_type,
        };
        self.tracks.push(track);
        self.phase = if record {
            Phase::ReadyToRecord
        } else {
            Phase::ReadyToPlay
        };
        Ok(track)
    }

    fn index_of(&self, control: &str, record: bool, count: usize) -> Option<usize> {
        if record && let Some(offer) = &self.offer {
            let named = |c: &str| {
                let c = Target::parse(c)
                    .filter(|_| c.contains("://"))
                    .map_or(c.to_owned(), |t| t.control);
                c.trim_matches('/') == control
            };
            let by_name = offer
                .media
                .iter()
                .position(|m| m.control.as_deref().is_some_and(named));
            if by_name.is_some() && !control.is_empty() {
                return by_name;
            }
        }
        let digits = control.len() - control.bytes().rev().take_while(u8::is_ascii_digit).count();
        match control[digits..].parse::<usize>() {
            Ok(n) => (n < count).then_some(n),
            // No number in it: the next one.
            Err(_) => (0..count).find(|i| self.tracks.iter().all(|t| t.index != *i)),
        }
    }

    pub fn playing(&mut self) {
        self.phase = Phase::Playing;
    }

    pub fn paused(&mut self) {
        if self.phase == Phase::Playing {
            self.phase = Phase::ReadyToPlay;
        }
    }

    pub fn recording(&mut self) {
        self.phase = Phase::Recording;
    }

    /// TEARDOWN: as at the beginning.
    pub fn reset(&mut self) {
        self.phase = Phase::Init;
        self.offer = None;
        self.media.clear();
        self.tracks.clear();
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
