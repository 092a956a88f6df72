//! From CONNECT to CONNACK: who is it, may it come in, and which session does it go on with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::{oneshot, watch};

use super::connect::{self, Connect, Will};
use super::down::Takes;
use super::end::End;
use super::packet::{Bad, Frame, Version};
use super::session::{ALIASES_MAX, Session};
use super::sessions::{Claim, TakeOver};
use super::write::{self, Offer};
use super::{Room, Shared};
use crate::device::{Downlinks, Uplink};
use crate::ids::{DeviceId, SessionId};
use crate::registry::{self, Verdict};

/// A session outlives its connection at most so long.
const EXPIRY_MAX_S: u32 = 3600;
/// Longest keep-alive; a client that wants longer or none is told this one (v5).
const KEEP_ALIVE_MAX_S: u16 = 1200;
const CLIENT_ID_BYTES_MAX: usize = 128;

/// An accepted connection.
pub(super) struct Admitted {
    pub device: DeviceId,
    pub principal: registry::Principal,
    pub client_id: Arc<str>,
    pub id: SessionId,
    pub session: Session,
    pub queue: Arc<Downlinks>,
    pub topology: watch::Receiver<Arc<[String]>>,
    pub taken_over: oneshot::Receiver<TakeOver>,
    pub will: Option<Will>,
    /// None: off (a v3.1.1 client that wants none; TCP keep-alive finds a dead one).
    pub keep_alive: Option<Duration>,
    /// How long the session outlives the connection; zero: not.
    pub expiry: Duration,
    /// The place among the connections, given back when dropped.
    pub _room: Room,
}

/// A refused connection: the CONNACK to send (empty: none) and the reason to count.
pub(super) struct Refusal {
    pub connack: BytesMut,
    pub end: End,
}

fn refusal(version: Version, v311: u8, v5: u8, end: End) -> Box<Refusal> {
    let mut connack = BytesMut::new();
    write::refuse(&mut connack, version, v311, v5);
    Box::new(Refusal { connack, end })
}

/// The CONNACK for a first packet that is not a good CONNECT.
fn bad_first(bad: Bad) -> Box<Refusal> {
    let mut connack = BytesMut::new();
    if bad == Bad::Version {
        write::refuse(&mut connack, Version::V311, 1, 0x84);
    }
    let end = End::Bad(bad);
    Box::new(Refusal { connack, end })
}

/// Decides on the first packet. A refused peer that guesses passwords waits here.
pub(super) async fn admit(
    shared: &Arc<Shared>,
    first: Result<Frame, Bad>,
    peer: IpAddr,
) -> Result<Admitted, Box<Refusal>> {
    let frame = first.map_err(bad_first)?;
    let connect = connect::connect(&frame).map_err(bad_first)?;
    let v = connect.version;
    if connect.wants_auth {
        return Err(refusal(v, 5, 0x8c, End::Credentials));
    }
    let registered = authenticate(shared, &connect, peer).await?;
    let Ok(device) = DeviceId::parse(&registered.id) else {
        return Err(refusal(v, 5, 0x86, End::Credentials));
    };
    let Some(room) = shared.connected.enter(shared.limits.connections_max) else {
        return Err(refusal(v, 3, 0x89, End::Busy));
    };
    if connect.client_id.len() > CLIENT_ID_BYTES_MAX
        || (v == Version::V311 && connect.client_id.is_empty() && !connect.clean)
    {
        return Err(refusal(v, 2, 0x85, End::ClientId));
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
        return Err(refusal(v, 5, 0x87, End::NotAuthorized));
    }

    let id = SessionId::next();
    let claim = shared.sessions.claim(&device, &client_id, id).await;
    let Claim {
        taken_over,
        replaces,
        mut kept,
    } = claim;
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
        return Err(refusal(v, 3, 0x97, End::Busy));
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
    let takes = Takes {
        version: v,
        receive_max: connect.receive_max,
        packet_bytes_max: connect.packet_bytes_max,
    };
    let mut session = Session::new(
        device.clone(),
        Arc::clone(&shared.codecs),
        takes,
        shared.limits.receive_max,
        kept,
    );
    write::connack(&mut session.out, v, &offer);
    session.send_again();
    Ok(Admitted {
        device,
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
        expiry: Duration::from_secs(u64::from(expiry_s)),
        _room: room,
    })
}

async fn authenticate(
    shared: &Shared,
    connect: &Connect,
    peer: IpAddr,
) -> Result<registry::Device, Box<Refusal>> {
    let user = connect.user.as_deref().unwrap_or_default();
    if let Ok(device) = shared.registry.check_device(user, &connect.password) {
        return Ok(device);
    }
    if let Verdict::SlowDown(wait) = shared.guard.failed("mqtt", peer, user, Instant::now()) {
        tokio::time::sleep(wait).await;
    }
    Err(refusal(connect.version, 5, 0x86, End::Credentials))
}

impl Shared {
    /// Publishes a will as if the device had sent it now.
    pub(super) async fn publish_will(&self, device: &DeviceId, session: SessionId, will: Will) {
        let up = Uplink::new(will.topic.into(), will.payload, crate::clock::Now::read());
        if let Err(e) = self.fleet.message(device, session, up).await {
            tracing::debug!(%device, error = %e, "a will was not taken");
        }
    }
}
