//! MQTT v3.1.1 and v5 for devices: sockets, sessions, acknowledgements.
//!
//! Here: who may connect, publish and subscribe; when a message is acknowledged; sessions that outlive connections.
//! Not here: what messages mean (`codecs::telemetry`), whom they concern (`device`, `picture`). There is no broker:
//! devices publish to the gateway and hear from it, never from each other. What a device publishes with RETAIN is a
//! message like any other; what is retained for it is the fleet's (`device::Retained`).
//!
//! `read`, `connect`, `packet`, `write`: bytes. `up`, `down`, `session`: pure state. `admit`, `pace`, `task`, `sessions`:
//! connections.

mod admit;
mod connect;
#[cfg(test)]
mod corpus_tests;
mod down;
mod end;
#[cfg(test)]
#[path = "../../../../codecs/fuzz/src/mqtt.rs"]
mod fuzzed;
mod pace;
mod packet;
mod read;
mod session;
mod sessions;
mod task;
#[cfg(test)]
mod tests;
mod up;
mod write;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kerbside_codecs::telemetry::Codecs;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::device::Fleet;
use crate::ids::SessionId;
use crate::metrics;
use crate::registry::{Guard, Registry};
use crate::tls::Identity;
use end::End;
use pace::Pace;
use sessions::Sessions;

static CLOSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_mqtt_closed_total",
        "MQTT connections by why they ended",
        &["reason"],
    )
});
static CONNECTED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_mqtt_connections",
        "MQTT connections: authenticated, or before that",
        &["state"],
    )
});

/// Connections that are not authenticated yet may take this part of the places.
const ARRIVING_PART: usize = 4;
const ARRIVING_MIN: usize = 64;
/// How often kept sessions are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Time for connections to end when the gateway stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What all MQTT connections, of all listeners, share.
pub struct Shared {
    registry: Registry,
    guard: Arc<Guard>,
    fleet: Fleet,
    codecs: Arc<Codecs>,
    limits: config::Mqtt,
    sessions: Sessions,
    arriving: Places,
    connected: Places,
    arriving_from: Mutex<HashMap<IpAddr, usize>>,
    pace: Pace,
    complaints: Mutex<HashMap<IpAddr, Instant>>,
}

/// Who is at the other end.
struct Peer {
    addr: IpAddr,
    /// Of its certificate, which the handshake has checked; None: it gave none, or there is no TLS.
    identity: Option<Identity>,
}

impl Shared {
    pub fn new(
        registry: Registry,
        guard: Arc<Guard>,
        fleet: Fleet,
        codecs: Arc<Codecs>,
        limits: config::Mqtt,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            guard,
            fleet,
            codecs,
            limits,
            sessions: Sessions::default(),
            arriving: Places::new("arriving"),
            connected: Places::new("authenticated"),
            arriving_from: Mutex::default(),
            pace: Pace::default(),
            complaints: Mutex::default(),
        })
    }

    /// A place for somebody who is not authenticated yet. While half of `max` are taken, one address may not have more
    /// than a quarter of them: a flood from there leaves places for others.
    fn arrive(self: &Arc<Self>, from: IpAddr, max: usize) -> Option<Arrival> {
        let mut all = self.arriving_from.lock();
        let theirs = all.get(&from).copied().unwrap_or(0);
        if self.arriving.taken.load(Ordering::Relaxed) >= max / 2 && theirs >= max / 4 {
            return None;
        }
        let room = self.arriving.enter(max)?;
        all.insert(from, theirs + 1);
        Some(Arrival {
            shared: Arc::clone(self),
            from,
            _room: room,
        })
    }

    /// Counts the end of a connection; says so at most once a second per address when the other side is at fault.
    fn count_end(&self, end: End, peer: IpAddr) {
        CLOSED.with_label_values(&[end.reason()]).inc();
        if end.is_fault() && self.may_complain(peer, Instant::now()) {
            tracing::warn!(%peer, reason = end.reason(), "MQTT connection closed");
        }
    }

    fn may_complain(&self, peer: IpAddr, now: Instant) -> bool {
        const GAP: Duration = Duration::from_secs(1);
        const PEERS_MAX: usize = 1024;
        let mut said = self.complaints.lock();
        if said
            .get(&peer)
            .is_some_and(|at| now.saturating_duration_since(*at) < GAP)
        {
            return false;
        }
        if said.len() >= PEERS_MAX {
            said.retain(|_, at| now.saturating_duration_since(*at) < GAP);
            if said.len() >= PEERS_MAX {
                return false;
            }
        }
        said.insert(peer, now);
        true
    }
}

/// A counted number of places.
struct Places {
    taken: Arc<AtomicUsize>,
    state: &'static str,
}

/// One taken place.
struct Room {
    taken: Arc<AtomicUsize>,
    state: &'static str,
}

impl Places {
    fn new(state: &'static str) -> Self {
        Self {
            taken: Arc::default(),
            state,
        }
    }

    /// None: all of `max` are taken.
    fn enter(&self, max: usize) -> Option<Room> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < max).then_some(n + 1)
            })
            .ok()?;
        CONNECTED.with_label_values(&[self.state]).inc();
        Some(Room {
            taken: Arc::clone(&self.taken),
            state: self.state,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        CONNECTED.with_label_values(&[self.state]).dec();
    }
}

/// The place of one who is not authenticated yet.
struct Arrival {
    shared: Arc<Shared>,
    from: IpAddr,
    _room: Room,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut all = self.shared.arriving_from.lock();
        if let Some(n) = all.get_mut(&self.from) {
            *n -= 1;
            if *n == 0 {
                all.remove(&self.from);
            }
        }
    }
}

/// Accepts devices until `shutdown` turns true, then ends their connections. Must run inside a `LocalSet`, on the
/// thread of the device actors: a message then never crosses threads on its way to the picture.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared>,
    mut shutdown: watch::Receiver<bool>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let stop = shutdown.clone();
    let arriving_max = (shared.limits.connections_max / ARRIVING_PART).max(ARRIVING_MIN);
    let mut tasks = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    let Some(room) = shared.arrive(peer.ip(), arriving_max) else {
                        shared.count_end(End::Busy, peer.ip());
                        continue;
                    };
                    let (shared, tls, shutdown) = (Arc::clone(&shared), tls.clone(), stop.clone());
                    tasks.spawn_local(connection(tcp, peer.ip(), tls, shared, room, shutdown));
                }
                Err(e) => {
                    // Out of descriptors, mostly: others must end before more can come.
                    if shared.may_complain(IpAddr::from([0, 0, 0, 0]), Instant::now()) {
                        tracing::warn!(error = %e, "an MQTT connection could not be accepted; waiting a moment");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            _ = sweep.tick() => {
                shared.pace.sweep(Instant::now());
                for (device, issue, will) in shared.sessions.sweep(Instant::now()) {
                    let registered = shared.registry.device(device.as_str());
                    if registered.is_none_or(|d| d.issue != issue) {
                        continue;
                    }
                    let shared = Arc::clone(&shared);
                    tasks.spawn_local(async move {
                        shared.publish_will(&device, SessionId::next(), will).await;
                    });
                }
            }
            _ = shutdown.wait_for(|stop| *stop) => break,
        }
    }
    drop(listener);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!(left = tasks.len(), "MQTT connections were cut");
    }
}

async fn connection(
    tcp: TcpStream,
    peer: IpAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    room: Arrival,
    shutdown: watch::Receiver<bool>,
) {
    if let Err(e) = tune(&tcp) {
        tracing::debug!(%peer, error = %e, "socket options were not all set");
    }
    let mut who = Peer {
        addr: peer,
        identity: None,
    };
    let Some(tls) = tls else {
        return task::serve(tcp, who, shared, room, shutdown).await;
    };
    let shaken = Box::pin(tokio::time::timeout(
        shared.limits.connect_timeout,
        tls.accept(tcp),
    ))
    .await;
    match shaken {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates();
            who.identity = shown.and_then(<[_]>::first).map(Identity::of);
            Box::pin(task::serve(stream, who, shared, room, shutdown)).await;
        }
        Ok(Err(e)) => {
            tracing::debug!(%peer, error = %e, "TLS handshake failed");
            shared.count_end(End::Tls, peer);
        }
        Err(_) => shared.count_end(End::ConnectTimeout, peer),
    }
}

/// Small packets at once; a peer that vanished is found without MQTT's help.
fn tune(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(120))
        .with_interval(Duration::from_secs(20))
        .with_retries(4);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}
