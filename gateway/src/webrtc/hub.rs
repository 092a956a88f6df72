//! The one UDP port: datagrams in, each to its session.
//!
//! Each fan-out thread has a socket of its own on the port (SO_REUSEPORT): the kernel gives all datagrams of one pair
//! of addresses to the same socket, and a reader is put on the thread that heard its checks. Datagrams that come by
//! another one nevertheless (ICE-TCP, a moved address) find their session by the same table.
//!
//! Whatever is not for a living session costs one look-up and a count. Not here: ICE-TCP (`tcp`), sending.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use super::ice::{self, Kind};
use super::metrics::dropped;
use super::sessions::{Datagram, Sessions, Via};
use crate::udp::Port;

/// Receive and send buffers of the socket: a key frame for many readers at once.
const SOCKET_BYTES: usize = 8 << 20;

/// So many UDP sockets and the TCP listener on the same port. The TCP port is taken alone, so a second gateway cannot
/// share the UDP port unnoticed.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(
    addr: SocketAddr,
    sockets: usize,
) -> io::Result<(Vec<std::net::UdpSocket>, std::net::TcpListener)> {
    // Port 0: the port that TCP was given may be taken for UDP.
    let mut tries = if addr.port() == 0 { 16 } else { 1 };
    loop {
        tries -= 1;
        let tcp = std::net::TcpListener::bind(addr)?;
        let at = SocketAddr::new(addr.ip(), tcp.local_addr()?.port());
        match (0..sockets.max(1)).map(|_| bind_udp(at)).collect() {
            Ok(udp) => {
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(e) if tries == 0 => return Err(e),
            Err(_) => {}
        }
    }
}

fn bind_udp(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(true)?;
    // The system may give less; it then says so in its own counters.
    for r in [
        socket.set_recv_buffer_size(SOCKET_BYTES),
        socket.set_send_buffer_size(SOCKET_BYTES),
    ] {
        if let Err(error) = r {
            tracing::debug!(%error, "the socket buffer of the WebRTC port keeps the system's size");
        }
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Reads the socket of fan-out thread `thread` until the gateway stops.
pub async fn receive(
    thread: usize,
    socket: Arc<Port>,
    sessions: Sessions,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let received = tokio::select! {
            _ = shutdown.wait_for(|s| *s) => return,
            r = socket.recv() => r,
        };
        match received {
            Ok((data, from)) => {
                let via = Via::Udp(thread);
                deliver(&sessions, Datagram { from, via, data });
            }
            // An ICMP error of an earlier send; the session notices by itself.
            Err(error) => {
                tracing::trace!(%error, "WebRTC socket");
                dropped("socket_error");
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Gives a datagram to its session, or counts why not.
pub fn deliver(sessions: &Sessions, datagram: Datagram) {
    let inbox = match ice::kind(&datagram.data) {
        Kind::Stun => match ice::ufrag_of(&datagram.data) {
            Some(ufrag) => sessions.by_ufrag(ufrag).ok_or("unknown_ufrag"),
            None => Err("not_a_check"),
        },
        Kind::Dtls | Kind::Rtp => sessions.by_address(&datagram.from).ok_or("unknown_peer"),
        Kind::Other => Err("not_webrtc"),
    };
    match inbox.map(|i| i.put(datagram)) {
        Ok(Ok(())) => {}
        Ok(Err((refused, _))) => dropped(refused.name()),
        Err(reason) => dropped(reason),
    }
}
