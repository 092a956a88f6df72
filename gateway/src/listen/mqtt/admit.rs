//! From CONNECT to CONNACK: who is it, may it come in, and which session does it go on with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kerbside_codecs::telemetry::Fault;
use tokio::sync::{oneshot, watch};

use super::connect::{self, BadConnect, Connect, Will};
use super::end::End;
use super::packet::{Bad, Frame, Version};
use super::session::{ALIASES_MAX, Party, Session};
use super::sessions::{Claim, TakeOver};
use super::write::{self, Offer, Takes};
use super::{Peer, Room, Shared};
use crate::clock::Now;
use crate::device::{Downlinks, Uplink};
use crate::ids::{DeviceId, SessionId};
use crate::registry::{self, Verdict};
use crate::tls::Identity;

/// A session outlives its connection at most so long.
pub(super) const EXPIRY_MAX_S: u32 = 3600;
/// Longest keep-alive; a client that wants longer or none is told this one (v5).
const KEEP_ALIVE_MAX_S: u16 = 1200;
const CLIENT_ID_BYTES_MAX: usize = 128;
/// Who connects too often waits so long for its refusal.
const TOO_OFTEN_WAIT: Duration = Duration::from_secs(1);

/// An accepted connection.
pub(super) struct Admitted {
    pub device: DeviceId,
    pub principal: registry::Principal,
    pub issue: registry::Issue,
    pub client_id: Arc<str>,
    pub id: SessionId,
    pub session: Session,
    pub queue: Arc<Downlinks>,
    pub topology: watch::Receiver<Arc<[String]>>,
    pub taken_over: oneshot::Receiver<TakeOver>,
    pub will: Option<Will>,
    /// None: off (a v3.1.1 client that wants none; TCP keep-alive finds a dead one).
    pub keep_alive: Option<Duration>,
    /// The place among the connections, given back when dropped.
    pub _room: Room,
}

/// A refused connection: the CONNACK to send (empty: none) and the reason to count.
pub(super) struct Refusal {
    pub connack: BytesMut,
    pub end: End,
}

/// What is told: return code of v3.1.1, reason code of v5, and what to do.
type Code = (u8, u8, &'static str);

const NO_AUTH: Code = (
    5,
    0x8c,
    "no AUTH exchange here: give user name and password, or a certificate",
);
const CREDENTIALS: Code = (
    5,
    0x86,
    "the user name is the device id, the password that of the registry",
);
const CERTIFICATE: Code = (
    5,
    0x86,
    "the certificate names no device, or another one than the user name",
);
const NOT_REGISTERED: Code = (
    5,
    0x87,
    "the device of this certificate is not registered, or was revoked",
);
const FULL: Code = (3, 0x89, "all connections are taken: try again later");
const CLIENT_ID: Code = (
    2,
    0x85,
    "a client id has at most 128 bytes; without one the session must be clean",
);
const WILL: Code = (
    5,
    0x87,
    "the will must go to an uplink topic of the device's own id",
);
const TOO_OFTEN: Code = (3, 0x9f, "connected too often: wait 30 s");
const TOO_MANY: Code = (
    3,
    0x97,
    "the device has as many sessions as it may: close one",
);

fn refusal(takes: Takes, (v311, v5, text): Code, end: End) -> Box<Refusal> {
    let mut connack = BytesMut::new();
    write::refuse(&mut connack, takes, v311, v5, text);
    Box::new(Refusal { connack, end })
}

/// The CONNACK for a first packet that is not a good CONNECT.
fn bad_first(BadConnect { version, bad }: BadConnect) -> Box<Refusal> {
    let mut connack = BytesMut::new();
    let end = End::Bad(bad);
    if bad == Bad::Version {
        write::refuse(&mut connack, Takes::just(Version::V311), 1, 0x84, "");
    } else if version == Some(Version::V5)
        && let Some(code) = end.disconnect_v5()
    {
        let takes = Takes::just(Version::V5);
        write::refuse(&mut connack, takes, 0, code, end.advice());
    }
    Box::new(Refusal { connack, end })
}

/// Decides on the first packet. A refused peer that guesses passwords waits here.
pub(super) async fn admit(
    shared: &Arc<Shared>,
    first: Result<Frame, Bad>,
    peer: &Peer,
) -> Result<Admitted, Box<Refusal>> {
    let frame = first.map_err(|bad| bad_first(bad.into()))?;
    let connect = connect::connect(&frame).map_err(bad_first)?;
    let v = connect.version;
    let takes = Takes {
        version: v,
        receive_max: connect.receive_max,
        packet_bytes_max: connect.packet_bytes_max,
        reasons: connect.wants_reasons,
    };
    if connect.wants_auth {
        return Err(refusal(takes, NO_AUTH, End::Credentials));
    }
    let registered = authenticate(shared, &connect, takes, peer).await?;
    let Ok(device) = DeviceId::parse(&registered.id) else {
        return Err(refusal(takes, CREDENTIALS, End::Credentials));
    };
    if !shared.pace.allows(&device, peer.addr, Instant::now()) {
        shared.fleet.fault(&device, Fault::MqttTooOften);
        tokio::time::sleep(TOO_OFTEN_WAIT).await;
        return Err(refusal(takes, TOO_OFTEN, End::TooOften));
    }
    let Some(room) = shared.connected.enter(shared.limits.connections_max) else {
        return Err(refusal(takes, FULL, End::Busy));
    };
    if connect.client_id.len() > CLIENT_ID_BYTES_MAX
        || (v == Version::V311 && connect.client_id.is_empty() && !connect.clean)
    {
        return Err(refusal(takes, CLIENT_ID, End::ClientId));
    }
    let assigned = connect.client_id.is_empty();
    let client_id: Arc<str> = if assigned {
        uuid::Uuid::new_v4().simple().to_string().into()
    } else {
        connect.client_id.as_str().into()
    };
    if let Some(will) = &connect.will
        && !shared.codecs.may_publish(device.as_str(), &[], &will.topic)
    {
        shared.fleet.fault(&device, Fault::MqttWill);
        return Err(refusal(takes, WILL, End::NotAuthorized));
    }

    let id = SessionId::next();
    let claim = shared.sessions.claim(&device, &client_id, id).await;
    let Claim {
        taken_over,
        replaces,
        mut kept,
    } = claim;
    // A device that was registered anew is another one: neither its session nor its will.
    kept = kept.filter(|k| k.issue == registered.issue);
    if connect.clean
        && let Some(dropped) = kept.take()
        && let Some((_, will)) = dropped.will
    {
        shared.publish_will(&device, id, will).await;
    }
    let queue = kept
        .as_ref()
        .map_or_else(Arc::default, |k| Arc::clone(&k.queue));
    let opened = shared
        .fleet
        .open(registered.clone(), id, replaces, "mqtt", Arc::clone(&queue))
        .await;
    let Ok(opened) = opened else {
        if let Some(old) = replaces {
            shared.fleet.close(&device, old).await;
        }
        let evicted = shared.sessions.release(&device, &client_id, id, kept);
        if let Some(will) = evicted {
            shared.publish_will(&device, id, will).await;
        }
        shared.fleet.fault(&device, Fault::MqttTooMany);
        return Err(refusal(takes, TOO_MANY, End::Busy));
    };

    let keep_alive_s = match connect.keep_alive_s {
        0 | KEEP_ALIVE_MAX_S.. if v == Version::V5 => KEEP_ALIVE_MAX_S,
        asked => asked,
    };
    let expiry_s = connect.expiry_s.min(EXPIRY_MAX_S);
    let offer = Offer {
        session_present: kept.is_some(),
        receive_max: shared.limits.receive_max,
        packet_bytes_max: shared.limits.packet_bytes_max,
        topic_alias_max: ALIASES_MAX,
        assigned_client_id: assigned.then_some(&client_id),
        keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        expiry_s: (expiry_s != connect.expiry_s).then_some(expiry_s),
    };
    let party = Party {
        device: device.clone(),
        codecs: Arc::clone(&shared.codecs),
        retained: opened.retained,
    };
    let resumes = kept.is_some();
    let receive_max = shared.limits.receive_max;
    let mut session = Session::new(party, takes, receive_max, connect.expiry_s, kept);
    write::connack(&mut session.out, v, &offer);
    if resumes {
        session.resume(Now::read());
    }
    Ok(Admitted {
        device,
        issue: registered.issue,
        principal: registry::Principal::Device(registered),
        client_id,
        id,
        session,
        queue,
        topology: opened.topology,
        taken_over,
        will: connect.will,
        keep_alive: (keep_alive_s > 0)
            .then(|| Duration::from_millis(u64::from(keep_alive_s) * 1500)),
        _room: room,
    })
}

async fn authenticate(
    shared: &Shared,
    connect: &Connect,
    takes: Takes,
    peer: &Peer,
) -> Result<registry::Device, Box<Refusal>> {
    let user = connect.user.as_deref().unwrap_or_default();
    let (code, end) = match &peer.identity {
        Some(identity) => match certified(shared, connect, identity) {
            Ok(device) => return Ok(device),
            Err(refused) => refused,
        },
        None => {
            let password = connect.password.as_deref().unwrap_or_default();
            match shared.registry.check_device(user, password) {
                Ok(device) => return Ok(device),
                Err(_) => (CREDENTIALS, End::Credentials),
            }
        }
    };
    if let Verdict::SlowDown(wait) = shared.guard.failed("mqtt", peer.addr, user, Instant::now()) {
        tokio::time::sleep(wait).await;
    }
    Err(refusal(takes, code, end))
}

/// The device of a client certificate, which the handshake has checked. A user name must agree with it and a password
/// must be right, but neither is needed.
fn certified(
    shared: &Shared,
    connect: &Connect,
    identity: &Identity,
) -> Result<registry::Device, (Code, End)> {
    let user = connect.user.as_deref().filter(|u| !u.is_empty());
    let named = identity.device(user);
    let id = named.ok_or((CERTIFICATE, End::Certificate))?;
    let device = match connect.password.as_deref().filter(|p| !p.is_empty()) {
        Some(password) => shared
            .registry
            .check_device(id, password)
            .map_err(|_| (CREDENTIALS, End::Credentials))?,
        None => shared
            .registry
            .device(id)
            .ok_or((NOT_REGISTERED, End::Certificate))?,
    };
    Ok(device)
}

impl Shared {
    /// Publishes a will as if the device had sent it now.
    pub(super) async fn publish_will(&self, device: &DeviceId, session: SessionId, will: Will) {
        let up = Uplink::new(will.topic.into(), will.payload, Now::read());
        if let Err(e) = self.fleet.message(device, session, up).await {
            tracing::debug!(%device, error = %e, "a will was not taken");
        }
    }
}
