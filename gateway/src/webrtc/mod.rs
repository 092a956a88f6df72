//! WebRTC: one UDP port (and the same TCP port) for all peers that publish into a stream (WHIP) or read from it (WHEP).
//!
//! Here: offers to answers and sessions, ICE-lite, DTLS, SRTP, RTP of one peer. Not here: HTTP (`screen::whip`,
//! `screen::whep`), who may do what (`registry`), frames (`stream`).
//!
//! `offer`, `plan`, `answer`, `ice`, `hello`, `secure`, `feedback`, `missing`, `bandwidth`, `notices`, `egress`, `ingress` are pure: bytes and time in, bytes and frames
//! out. `hub` and `tcp` receive, `session` is the task that owns one peer.
//!
//! The library's peer connection is not used, only its DTLS, SRTP and STUN: the answers, the payload types and the
//! way of a packet are ours, so a frame is cut once for all readers and retransmissions come from the ring.

mod answer;
mod bandwidth;
#[cfg(test)]
mod corpus_tests;
mod egress;
mod feedback;
#[cfg(test)]
#[path = "../../../codecs/fuzz/src/webrtc.rs"]
mod fuzzed;
mod hello;
mod hub;
mod ice;
mod inbox;
mod ingress;
#[cfg(test)]
mod lossy_tests;
mod metrics;
mod missing;
mod notices;
mod offer;
mod plan;
mod seal;
mod secure;
mod session;
mod sessions;
mod tcp;
mod transport;
mod viewer;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config;
use crate::ids::StreamId;
use crate::registry::{Principal, Registry};
use crate::stream::{Fanout, Streams, SubscribeError};
use crate::udp::Port;
use answer::Local;
use ice::Lite;
use inbox::Inbox;
use offer::Offer;
use plan::Plan;
use secure::{Identity, Secure};
use session::Session;
use sessions::{Entry, Role, Sessions};
use transport::{Sockets, Transport};

/// How long a reader waits for a camera that is pulled on demand.
const PULL_MAX: Duration = Duration::from_secs(10);

/// The WebRTC room. Cheap to clone.
#[derive(Clone)]
pub struct WebRtc {
    shared: Arc<Shared>,
}

struct Shared {
    io: tokio::runtime::Handle,
    registry: Registry,
    fanout: Fanout,
    sockets: Sockets,
    address: SocketAddr,
    addresses: Vec<IpAddr>,
    identity: Identity,
    sessions: Sessions,
    streams: Streams,
}

impl Shared {
    /// How a session with these credentials is reached.
    fn local(&self, ufrag: &str, password: &str) -> Local {
        Local {
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
            fingerprint: self.identity.fingerprint,
            addresses: self.addresses.clone(),
            port: self.address.port(),
        }
    }
}

/// What the client gets for its offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub sdp: String,
    /// Names the session in its URL: 128 random bits.
    pub id: String,
    /// Entity tag with its quotes.
    pub etag: String,
}

/// Why an offer was not taken; the text is for the client.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OfferError {
    /// 400
    #[error("{0}")]
    BadSdp(String),
    /// 403
    #[error("a device may publish only under its own id, and only devices publish")]
    Forbidden,
    /// 404
    #[error("no stream of this name is live")]
    NotFound,
    /// 406
    #[error("{0}")]
    Media(String),
    /// 415: nothing that a publisher offers can be carried.
    #[error("{0}")]
    NotCarried(String),
    /// 503
    #[error("as many WebRTC sessions as allowed ({0}) are open; end one, or try again later")]
    Full(usize),
    /// 504
    #[error("the camera did not deliver within {} s", PULL_MAX.as_secs())]
    Timeout,
}

/// What became of a PATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patched {
    /// 204: taken notice of; an ICE-lite side needs no candidates.
    Accepted,
    /// 200: an ICE restart (RFC 9725 §4.3.3). The fragment with our new credentials, and the new entity tag.
    Restarted { fragment: String, etag: String },
    /// 404
    NotFound,
    /// 412: another entity tag.
    Stale,
    /// 400: a new user fragment without its password.
    BadFragment,
}

impl WebRtc {
    /// Binds the port (UDP and TCP) and begins to serve.
    ///
    /// # Errors
    /// When the port cannot be bound, or the system gives no random numbers.
    pub fn start(
        io: &tokio::runtime::Handle,
        bind: SocketAddr,
        cfg: &config::WebRtc,
        streams: Streams,
        fanout: Fanout,
        registry: Registry,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let _runtime = io.enter();
        let (udp, tcp) = hub::bind(bind, fanout.len())?;
        let sockets: Sockets = (0..)
            .zip(udp)
            .map(|(thread, socket)| {
                // Its thread hears it.
                let _its = fanout.runtime(thread).enter();
                Port::new(socket).map(Arc::new)
            })
            .collect::<io::Result<_>>()?;
        let listener = TcpListener::from_std(tcp)?;
        let address = listener.local_addr()?;
        let interfaces: Vec<IpAddr> = rtc::shared::ifaces::ifaces()?
            .into_iter()
            .filter_map(|i| Some(i.addr?.ip()))
            .collect();
        let addresses = answer::addresses(&cfg.announce, address, &interfaces);
        let identity = Identity::generate().map_err(io::Error::other)?;
        let sessions = Sessions::new(cfg.sessions_max);
        tracing::info!(%address, ?addresses, "WebRTC port open");
        tracing::info!(
            gso = crate::udp::has_gso(),
            "datagrams are sent with UDP segmentation, or by sendmmsg without it"
        );
        for (thread, socket) in sockets.iter().enumerate() {
            fanout.runtime(thread).spawn(hub::receive(
                thread,
                socket.clone(),
                sessions.clone(),
                shutdown.clone(),
            ));
        }
        io.spawn(tcp::accept(listener, sessions.clone(), shutdown.clone()));
        io.spawn(end_sessions(sessions.clone(), registry.clone(), shutdown));
        Ok(Self {
            shared: Arc::new(Shared {
                io: io.clone(),
                registry,
                fanout,
                sockets,
                address,
                addresses,
                identity,
                sessions,
                streams,
            }),
        })
    }

    /// Where the port is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Waits until all sessions have said goodbye; for the way out, after the shutdown signal.
    pub async fn all_left(&self) {
        self.shared.sessions.all_left().await;
    }

    /// A reader's offer.
    ///
    /// # Errors
    /// [`OfferError`].
    pub async fn whep(
        &self,
        stream: &StreamId,
        offer_sdp: &str,
        viewer: Principal,
    ) -> Result<Answer, OfferError> {
        let offered = Instant::now();
        let offer = parse(offer_sdp)?;
        if let Principal::User(user) = &viewer
            && !self.shared.registry.may_see(user, stream.device.as_str())
        {
            return Err(OfferError::NotFound);
        }
        let reader = self
            .shared
            .streams
            .read(stream, PULL_MAX)
            .await
            .map_err(|e| match e {
                SubscribeError::Timeout => OfferError::Timeout,
                SubscribeError::NotFound | SubscribeError::TooMany(_) => OfferError::NotFound,
                SubscribeError::NoMedia => OfferError::Media(e.to_string()),
            })?;
        let plan = plan::play(&offer, reader.media()).map_err(OfferError::Media)?;
        let (answer, session) = self.open(stream, &offer, plan, viewer, Role::Play, offered)?;
        self.shared.io.spawn(session.play(reader));
        Ok(answer)
    }

    /// A publisher's offer.
    ///
    /// # Errors
    /// [`OfferError`].
    #[allow(
        clippy::unused_async,
        reason = "as `whep`; callers need not know which one waits"
    )]
    pub async fn whip(
        &self,
        stream: &StreamId,
        offer_sdp: &str,
        device: Principal,
    ) -> Result<Answer, OfferError> {
        let offered = Instant::now();
        match &device {
            Principal::Device(d) if d.id == stream.device.as_str() => {}
            _ => return Err(OfferError::Forbidden),
        }
        let offer = parse(offer_sdp)?;
        let plan = plan::publish(&offer).map_err(OfferError::NotCarried)?;
        let (answer, session) = self.open(stream, &offer, plan, device, Role::Publish, offered)?;
        self.shared.io.spawn(session.publish());
        Ok(answer)
    }

    /// Ends a session. False when there is none of this id that belongs to `who`.
    #[allow(clippy::unused_async, reason = "part of the room's asynchronous face")]
    pub async fn delete(&self, id: &str, who: &Principal) -> bool {
        self.shared.sessions.close(id, who)
    }

    /// A trickled fragment (RFC 8840). `if_match`: the entity tag the client believes in.
    #[allow(clippy::unused_async, reason = "part of the room's asynchronous face")]
    pub async fn patch(
        &self,
        id: &str,
        who: &Principal,
        if_match: Option<&str>,
        fragment: &str,
    ) -> Patched {
        let Some((etag, remote_ufrag)) = self.shared.sessions.find(id, who) else {
            return Patched::NotFound;
        };
        // The quoted asterisk is that of RFC 9725's examples.
        if if_match.is_some_and(|m| !["*", "\"*\"", &etag].contains(&m)) {
            return Patched::Stale;
        }
        let of = |name: &str| {
            let mut lines = fragment.lines();
            lines
                .find_map(|l| l.trim().strip_prefix(name))
                .map(str::trim)
        };
        let Some(theirs) = of("a=ice-ufrag:").filter(|u| *u != remote_ufrag) else {
            return Patched::Accepted;
        };
        if of("a=ice-pwd:").is_none_or(str::is_empty) || !(4..=256).contains(&theirs.len()) {
            return Patched::BadFragment;
        }
        let s = &*self.shared;
        let new = ice::Credentials {
            ufrag: random_hex::<8>(),
            password: random_hex::<16>(),
        };
        let Some(etag) = s.sessions.restart(id, who, theirs, &new) else {
            return Patched::NotFound;
        };
        if session::may_say(who) {
            tracing::info!(who = who.name(), "WebRTC session restarts ICE");
        }
        let local = s.local(&new.ufrag, &new.password);
        let fragment = answer::fragment(fragment, &local);
        Patched::Restarted { fragment, etag }
    }

    fn open(
        &self,
        stream: &StreamId,
        offer: &Offer,
        plan: Plan,
        owner: Principal,
        role: Role,
        now: Instant,
    ) -> Result<(Answer, Session), OfferError> {
        let s = &*self.shared;
        let (ufrag, password) = (random_hex::<8>(), random_hex::<16>());
        let secure = Secure::new(s.identity.clone(), offer.fingerprint, offer.wants_us_active);
        let inbox = Arc::<Inbox>::default();
        let restart = ice::Restart::default();
        let id = random_hex::<16>();
        let entry = Entry {
            id: id.as_str().into(),
            owner: owner.clone(),
            role,
            remote_ufrag: offer.ice_ufrag.clone(),
            inbox: inbox.clone(),
            restart: restart.clone(),
        };
        let seat = s.sessions.open(&ufrag, entry).map_err(OfferError::Full)?;
        let ice = Lite::new(s.identity.crypto.clone(), &ufrag, &password).with_restart(restart);
        let sdp = answer::write(offer, &plan, &s.local(&ufrag, &password));
        let session = Session {
            stream: stream.clone(),
            streams: s.streams.clone(),
            plan,
            transport: Transport::new(s.sockets.clone(), seat, ice, secure, now),
            inbox,
            owner,
            fanout: s.fanout.clone(),
            offered: now,
        };
        let etag = sessions::etag(&ufrag);
        Ok((Answer { sdp, id, etag }, session))
    }
}

/// Ends sessions of accounts that were revoked, and all when the gateway stops.
async fn end_sessions(sessions: Sessions, registry: Registry, mut shutdown: watch::Receiver<bool>) {
    let mut revocations = registry.revocations();
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|s| *s) => break,
            changed = revocations.changed() => {
                if changed.is_err() {
                    break;
                }
                sessions.end_where("revoked", |owner| !registry.is_valid(owner));
            }
        }
    }
    sessions.end_where("gateway_stops", |_| true);
}

fn parse(offer_sdp: &str) -> Result<Offer, OfferError> {
    offer::parse(offer_sdp).map_err(|e| OfferError::BadSdp(e.to_string()))
}

fn random_hex<const BYTES: usize>() -> String {
    use std::fmt::Write;
    let bytes: [u8; BYTES] = rand::random::<[u8; 16]>()
        .first_chunk()
        .copied()
        .unwrap_or([0; BYTES]);
    bytes
        .iter()
        .fold(String::with_capacity(BYTES * 2), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
}
