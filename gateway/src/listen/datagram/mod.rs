//! Telemetry in UDP datagrams: MAVLink, KLV, NMEA, or our JSON report, from the sources of `devices.toml`.
//!
//! Here: ports, whose a datagram is, how many of one source are taken, sessions that last while a source is heard. Not
//! here: formats (`codecs::telemetry::datagram`), what reports mean (`picture`).
//!
//! A source is known by the address its datagrams come from, which anybody on an open network can forge, or by a MAVLink
//! signing key. UDP has no acknowledgement: what finds no room is shed and counted, and the next one says it anew.
//!
//! `roster`: whose is it; pure. `desk`: one source, its state and its session.

mod desk;
mod roster;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use kerbside_codecs::telemetry::Codecs;
use kerbside_codecs::telemetry::datagram::{BYTES_MAX, Format};
use prometheus::IntCounterVec;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::Now;
use crate::config::Source;
use crate::device::{Fleet, Uplink};
use crate::log::Sparing;
use crate::metrics;
use crate::registry::Registry;
use roster::{Roster, Whose};

static DATAGRAMS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_datagrams_total",
        "Datagrams of telemetry by what became of them at the port",
        &["outcome"],
    )
});

/// Datagrams of one source that wait for it to be handled.
const WAITING_MAX: usize = 64;
/// Read without looking at anything else.
const AT_ONCE: usize = 32;

/// What all ports share. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    pub registry: Registry,
    pub fleet: Fleet,
    pub codecs: Arc<Codecs>,
}

/// Addresses that sources are heard at, each once: `common` and those of their own.
pub fn addresses(common: Option<SocketAddr>, sources: &[Source]) -> Vec<SocketAddr> {
    let mut all: Vec<_> = common
        .into_iter()
        .chain(sources.iter().filter_map(|s| s.listen))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Serves one port for the sources that are heard at it until `shutdown` turns true. Must run inside a `LocalSet`, on the
/// thread of the device actors.
pub async fn serve(
    socket: UdpSocket,
    sources: Vec<Source>,
    shared: Shared,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut desks = Vec::new();
    for source in &sources {
        let (tx, rx) = mpsc::channel(WAITING_MAX);
        desks.push(tx);
        tasks.spawn_local(desk::run(source.clone(), rx, shared.clone()));
    }
    let mut port = Port {
        roster: Roster::new(sources),
        desks,
        strangers: Sparing::default(),
    };
    let mut buffer = vec![0; BYTES_MAX];
    loop {
        tokio::select! {
            heard = socket.recv_from(&mut buffer) => match heard {
                Ok((size, from)) => {
                    port.hand_out(&buffer[..size], from);
                    for _ in 1..AT_ONCE {
                        let Ok((size, from)) = socket.try_recv_from(&mut buffer) else {
                            break;
                        };
                        port.hand_out(&buffer[..size], from);
                    }
                    tokio::task::yield_now().await;
                }
                // Not of this socket: an answer to nothing that we sent.
                Err(e) => tracing::debug!(error = %e, "a datagram could not be read"),
            },
            _ = shutdown.wait_for(|stop| *stop) => break,
        }
    }
    drop(port);
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            tracing::error!(error = %e, "the task of a source had died");
        }
    }
}

struct Port {
    roster: Roster,
    /// In the order of the roster's sources.
    desks: Vec<mpsc::Sender<Uplink>>,
    strangers: Sparing,
}

impl Port {
    fn hand_out(&mut self, datagram: &[u8], from: SocketAddr) {
        let now = Now::read();
        let count = |outcome| DATAGRAMS.with_label_values(&[outcome]).inc();
        let format = Format::of(datagram);
        match self.roster.whose(datagram, format, from, now.mono) {
            Whose::Nobodys(reason) => {
                count(reason);
                self.complain(from, reason, now.mono);
            }
            Whose::Of(sources) => {
                let payload = Bytes::copy_from_slice(datagram);
                let topic: Arc<str> =
                    format!("datagram/{}", format.map_or("unknown", Format::name)).into();
                for (at, may) in sources {
                    let up = Uplink::new(Arc::clone(&topic), payload.clone(), now);
                    if !may {
                        count("too_many");
                        up.shed("too_many");
                    } else if let Err(refused) = self.desks[at].try_send(up) {
                        count("no_room");
                        refused.into_inner().shed("no_room");
                    } else {
                        count("taken");
                    }
                }
            }
        }
    }

    fn complain(&self, from: SocketAddr, reason: &str, now: Instant) {
        if self.strangers.may_say(from.ip(), now) {
            tracing::info!(%from, reason, "a datagram that no [[source]] of devices.toml stands for");
        }
    }
}
