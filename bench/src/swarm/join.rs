//! How a reader gets its line: RTSP over TCP or UDP, WHEP, Janus; and how it leaves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::line::{Datagrams, Interleaved, Line, Words};
use super::meter::Meter;
use super::rtc::Rtc;
use super::sdp::Local;
use super::secure::Identity;
use super::signal::{Seat, Signalling};
use crate::camera::now_ns;
use crate::rtsp_client::{Lower, RtspClient};

/// What the kernel holds while a reader is not looking: some seconds of a group of pictures sent at once.
const RECEIVE_BYTES: usize = 2 << 20;

/// How readers come in.
#[derive(Clone)]
pub enum Entrance {
    Rtsp {
        url: String,
        udp: bool,
        login: Option<(String, String)>,
    },
    Rtc {
        signalling: Signalling,
        http: reqwest::Client,
        identity: Identity,
    },
}

/// What remains of the handshake once media flow elsewhere.
pub enum Control {
    /// The line is the connection.
    Line,
    Rtsp {
        stream: Box<TcpStream>,
        words: Words,
    },
    Seat {
        seat: Seat,
        http: reqwest::Client,
    },
}

pub struct Entered {
    pub line: Line,
    pub control: Control,
    pub meter: Meter,
    /// When the stream was asked for: PLAY, POST or watch.
    pub asked_ns: u64,
}

impl Entrance {
    pub async fn enter(&self, sampled: bool) -> anyhow::Result<Entered> {
        match self {
            Self::Rtsp { url, udp, login } => {
                let mut client = RtspClient::connect(url, login.clone()).await?;
                if *udp {
                    rtsp_udp(client, sampled).await
                } else {
                    let agreed = client.set_up(Lower::Tcp).await?;
                    let asked_ns = now_ns();
                    client.play().await?;
                    let words = words(&mut client);
                    let line = Interleaved::new(
                        client.stream.into_std()?,
                        agreed.channel,
                        &client.rest,
                        words,
                    );
                    Ok(Entered {
                        line: Line::Tcp(line),
                        control: Control::Line,
                        meter: Meter::new(Some(agreed.payload_type), sampled),
                        asked_ns,
                    })
                }
            }
            Self::Rtc {
                signalling,
                http,
                identity,
            } => {
                let socket = bind(Ipv4Addr::UNSPECIFIED.into(), 0)?;
                let local = Local {
                    ufrag: format!("b{:07x}", rand_like(&socket)?),
                    password: format!("{:032x}", u128::from(now_ns()) << 20),
                    fingerprint: identity.fingerprint.clone(),
                    address: SocketAddr::new(
                        address_towards(signalling.url())?,
                        socket.local_addr()?.port(),
                    ),
                };
                let joined = signalling.join(http, &local).await?;
                let meter = Meter::new(Some(joined.remote.payload_type), sampled);
                let (asked_ns, seat) = (joined.asked_ns, joined.seat.clone());
                let line = Rtc::new(socket, local, joined, identity, Instant::now())?;
                Ok(Entered {
                    line: Line::Rtc(Box::new(line)),
                    control: Control::Seat {
                        seat,
                        http: http.clone(),
                    },
                    meter,
                    asked_ns,
                })
            }
        }
    }
}

async fn rtsp_udp(mut client: RtspClient, sampled: bool) -> anyhow::Result<Entered> {
    let local = client.stream.local_addr()?.ip();
    let peer = client.stream.peer_addr()?.ip();
    let (rtp, rtcp) = pair(local)?;
    let (a, b) = (rtp.local_addr()?.port(), rtcp.local_addr()?.port());
    let agreed = client.set_up(Lower::Udp(a, b)).await?;
    let asked_ns = now_ns();
    client.play().await?;
    let words = words(&mut client);
    let reports_to = agreed.rtcp_port.map(|port| SocketAddr::new(peer, port));
    Ok(Entered {
        line: Line::Udp(Datagrams::new(rtp, rtcp, reports_to)),
        control: Control::Rtsp {
            stream: Box::new(client.stream),
            words,
        },
        meter: Meter::new(Some(agreed.payload_type), sampled),
        asked_ns,
    })
}

fn words(client: &mut RtspClient) -> Words {
    Words {
        keep: client.last_words("OPTIONS"),
        teardown: client.last_words("TEARDOWN"),
        every: Duration::from_secs((client.timeout_s / 2).clamp(1, 25)),
    }
}

fn bind(ip: IpAddr, port: u16) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, port))?;
    socket.set_nonblocking(true)?;
    // Only root may go beyond net.core.rmem_max.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES).is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BYTES)?;
    }
    Ok(socket)
}

/// An even port and the next one (RFC 3550 §11).
fn pair(ip: IpAddr) -> anyhow::Result<(UdpSocket, UdpSocket)> {
    const ATTEMPTS: usize = 200;
    for _ in 0..ATTEMPTS {
        let rtp = bind(ip, 0)?;
        let port = rtp.local_addr()?.port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = bind(ip, port + 1)
        {
            return Ok((rtp, rtcp));
        }
    }
    anyhow::bail!("no pair of UDP ports is free")
}

/// The address of ours that the server at `url` sees.
fn address_towards(url: &str) -> anyhow::Result<IpAddr> {
    let url: reqwest::Url = url.parse()?;
    let host = url.host_str().context("the address has no host")?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket
        .connect((host, url.port_or_known_default().unwrap_or(80)))
        .with_context(|| host.to_owned())?;
    Ok(socket.local_addr()?.ip())
}

/// Different for each reader of this machine at a time; a user fragment has to be no more.
fn rand_like(socket: &UdpSocket) -> anyhow::Result<u64> {
    Ok((now_ns() << 16 | u64::from(socket.local_addr()?.port())) & 0x0fff_ffff)
}

impl Control {
    /// Keeps the session until dropped.
    pub async fn keep(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Line => std::future::pending().await,
            Self::Rtsp { stream, words } => {
                let mut answers = vec![0; 4096];
                let mut every = tokio::time::interval(words.every);
                every.tick().await;
                loop {
                    tokio::select! {
                        _ = every.tick() => stream.write_all(words.keep.as_bytes()).await?,
                        n = stream.read(&mut answers) => {
                            anyhow::ensure!(n? > 0, "the server closed the connection");
                        }
                    }
                }
            }
            Self::Seat { seat, http } => loop {
                tokio::time::sleep(Seat::EVERY).await;
                seat.keep(http).await?;
            },
        }
    }

    pub async fn leave(self) -> anyhow::Result<()> {
        match self {
            Self::Line => Ok(()),
            Self::Rtsp { mut stream, words } => {
                Ok(stream.write_all(words.teardown.as_bytes()).await?)
            }
            Self::Seat { seat, http } => seat.leave(&http).await,
        }
    }
}
