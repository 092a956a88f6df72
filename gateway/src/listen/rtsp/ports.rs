//! Pairs of UDP ports for RTP (even) and RTCP (the next one), and the tasks that receive from them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::stream::packet_dropped;
use crate::udp::Port;

/// Attempts to find two free neighbours.
const ATTEMPTS_MAX: usize = 64;
const BUFFER_BYTES: usize = 1 << 20;
/// Datagrams waiting for their connection's task; when full, the kernel's buffer fills, then the network drops.
const WAITING_MAX: usize = 512;

/// The sockets of one track.
#[derive(Clone, Debug)]
pub struct Pair {
    pub rtp: Arc<Port>,
    pub rtcp: Arc<Port>,
    /// Of RTP; RTCP has the next one.
    pub port: u16,
}

/// What came in on a pair.
#[derive(Debug)]
pub struct Datagram {
    /// The track's place in the session.
    pub track: usize,
    pub rtcp: bool,
    pub data: Bytes,
    pub arrived: Instant,
}

impl Pair {
    pub fn bind(ip: IpAddr, range: Option<&RangeInclusive<u16>>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::AddrInUse, "no two free UDP ports");
        for _ in 0..ATTEMPTS_MAX {
            match Self::attempt(ip, range) {
                Ok(pair) => return Ok(pair),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn attempt(ip: IpAddr, range: Option<&RangeInclusive<u16>>) -> io::Result<Self> {
        let (rtp, rtcp) = match range {
            Some(range) => {
                let port = rand::random_range(range.clone()) & !1;
                (socket(ip, port.max(2))?, socket(ip, port.max(2) + 1)?)
            }
            None => {
                let first = socket(ip, 0)?;
                let port = first.local_addr()?.port();
                let second = socket(ip, port ^ 1)?;
                if port.is_multiple_of(2) {
                    (first, second)
                } else {
                    (second, first)
                }
            }
        };
        let port = rtp.local_addr()?.port();
        Ok(Self {
            rtp: Arc::new(rtp),
            rtcp: Arc::new(rtcp),
            port,
        })
    }
}

/// Receives on the sockets of one session until it is dropped.
#[derive(Debug)]
pub struct Inbox {
    sender: mpsc::Sender<Datagram>,
    receiver: mpsc::Receiver<Datagram>,
    tasks: JoinSet<()>,
}

impl Inbox {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            sender,
            receiver,
            tasks: JoinSet::new(),
        }
    }

    /// Receives on both sockets of a track, from `peer` only.
    pub fn listen(&mut self, track: usize, pair: &Pair, peer: IpAddr) {
        for (socket, rtcp) in [(&pair.rtp, false), (&pair.rtcp, true)] {
            self.tasks.spawn(receive(
                socket.clone(),
                track,
                rtcp,
                peer,
                self.sender.clone(),
            ));
        }
    }

    /// Cancel-safe; waits for ever when there is nothing to receive on.
    pub async fn next(&mut self) -> Datagram {
        match self.receiver.recv().await {
            Some(d) => d,
            None => std::future::pending().await,
        }
    }
}

fn socket(ip: IpAddr, port: u16) -> io::Result<Port> {
    let addr = SocketAddr::new(ip, port);
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::DGRAM,
        None,
    )?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    socket.bind(&addr.into())?;
    Port::new(socket.into())
}

async fn receive(
    socket: Arc<Port>,
    track: usize,
    rtcp: bool,
    peer: IpAddr,
    to: mpsc::Sender<Datagram>,
) {
    loop {
        // An error is an ICMP message about something we sent.
        let Ok((data, from)) = socket.recv().await else {
            tokio::task::yield_now().await;
            continue;
        };
        if from.ip().to_canonical() != peer {
            packet_dropped("rtsp", "packet_stranger");
            continue;
        }
        let arrived = Instant::now();
        if to
            .send(Datagram {
                track,
                rtcp,
                data,
                arrived,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pairs_are_even_and_next_to_each_other() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let any = Pair::bind(ip, None).unwrap();
        let chosen = Pair::bind(ip, Some(&(40_000..=41_000))).unwrap();
        for p in [&any, &chosen] {
            assert!(p.port.is_multiple_of(2));
            assert_eq!(p.rtcp.local_addr().unwrap().port(), p.port + 1);
        }
        assert!((40_000..=41_000).contains(&chosen.port));
        let taken = Pair::bind(ip, Some(&(chosen.port..=chosen.port)));
        assert!(taken.is_err());
    }
}
