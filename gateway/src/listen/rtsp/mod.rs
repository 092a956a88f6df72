//! RTSP: devices push, screens play, both at one port (RFC 2326; media over TCP interleaved or UDP).
//!
//! Here: sockets, who may do what, and the way between packets and streams. Not here: the protocol
//! (`kerbside_codecs::rtsp`), frames and readers' cursors (`stream`).
//!
//! One task per connection. It reads only while its answers are taken, so a client that does not read is not read
//! either; frames that it does not take are lost for it alone.

mod auth;
mod conn;
mod outlet;
mod play;
pub(super) mod ports;
mod push;
mod requests;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kerbside_codecs::rtsp::Status;
use kerbside_codecs::rtsp::digest::Nonces;
use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config;
use crate::log::Sparing;
use crate::metrics;
use crate::registry::{Guard, Registry};
use crate::stream::{Fanout, Streams};

static CONNECTIONS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| metrics::gauge("kerbside_rtsp_connections", "RTSP connections now", &[]));
static CLOSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_rtsp_closed_total",
        "RTSP connections by why they ended",
        &["reason"],
    )
});

static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_rtsp_refused_total",
        "RTSP requests that were not granted, by the status of the answer",
        &["status"],
    )
});

/// Time for TLS, and then for the first request.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// What all connections share.
pub struct Shared {
    pub registry: Registry,
    pub guard: Arc<Guard>,
    pub streams: Streams,
    pub fanout: Fanout,
    pub limits: config::Rtsp,
    nonces: Nonces,
    /// A camera that comes and goes all the time does not fill the log.
    lines: Sparing,
    began: Instant,
}

impl Shared {
    pub fn new(registry: Registry, guard: Arc<Guard>, streams: Streams, fanout: Fanout) -> Self {
        Self {
            registry,
            guard,
            streams,
            fanout,
            limits: config::Rtsp::default(),
            nonces: Nonces::new(rand::random()),
            lines: Sparing::default(),
            began: Instant::now(),
        }
    }
}

impl Shared {
    /// The next moment at which connections look at the clock.
    fn next_tick(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.began).as_nanos();
        let behind = since % conn::TICK.as_nanos();
        let left = conn::TICK.as_nanos() - behind;
        now + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
    }

    fn may_say(&self, peer: SocketAddr) -> bool {
        self.lines.may_say(peer.ip(), Instant::now())
    }
}

/// Serves until `shutdown` says true; then the connections are closed. With `tls`, media over UDP are refused.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared>,
    mut shutdown: watch::Receiver<bool>,
) {
    let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(e) = ended
                    && e.is_panic()
                {
                    tracing::error!(error = %e, "an RTSP connection ended by a fault of the gateway");
                }
                continue;
            }
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((_, _)) if connections.len() >= shared.limits.connections_max => {
                CLOSED.with_label_values(&["too_many"]).inc();
            }
            Ok((stream, peer)) => {
                failing = false;
                connections.spawn(connection(stream, peer, acceptor.clone(), shared.clone()));
            }
            Err(e) => {
                // Out of file descriptors, mostly: wait for some to come back.
                if !failing {
                    tracing::warn!(error = %e, "RTSP connections cannot be accepted; trying on");
                }
                failing = true;
                CLOSED.with_label_values(&["accept_failed"]).inc();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    shared: Arc<Shared>,
) {
    let _open = Open::new();
    let Ok(local) = stream.local_addr() else {
        return;
    };
    tune(&stream);
    let ends = conn::Ends {
        local: SocketAddr::new(local.ip().to_canonical(), local.port()),
        peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
        secure: acceptor.is_some(),
    };
    let reason = match acceptor {
        None => conn::run(stream, ends, shared).await,
        Some(acceptor) => match tokio::time::timeout(GREETING_MAX, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => conn::run(stream, ends, shared).await,
            Ok(Err(_)) => "tls_failed",
            Err(_) => "tls_timeout",
        },
    };
    CLOSED.with_label_values(&[reason]).inc();
}

fn refused(status: Status) {
    REFUSED
        .with_label_values(&[&status.code().to_string()])
        .inc();
}

/// Little unsent data in the kernel: what is late is better lost here, from a key frame on.
fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    let done = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        .and_then(|()| socket.set_tcp_notsent_lowat(128 << 10));
    if let Err(e) = done {
        tracing::debug!(error = %e, "an RTSP socket could not be tuned");
    }
}

/// Counts a connection while it lives.
struct Open;

impl Open {
    fn new() -> Self {
        CONNECTIONS.with_label_values::<&str>(&[]).inc();
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        CONNECTIONS.with_label_values::<&str>(&[]).dec();
    }
}
