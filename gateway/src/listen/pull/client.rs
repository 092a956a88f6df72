//! One connection to a camera: requests and their replies, login, media on the same connection.
//!
//! Here: the socket, the order of requests, what a camera may leave unanswered. Not here: bytes to replies
//! (`codecs::rtsp`), when to connect and for how long (`super`), packets into the stream (`media`).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kerbside_codecs::rtsp::{
    AnsweredTransport, BadReply, BadSdp, Heard, Login, LoginFault, Offer, Reply, ReplyFramer, base,
    control, session_control,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::keepalive::KeepAlive;
use super::metrics::dropped;
use super::tls;
use crate::config::Camera;

/// Some cameras never answer OPTIONS; what it says is not needed.
const OPTIONS_MAX: Duration = Duration::from_secs(2);
/// A camera that takes nothing for so long is gone.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long TEARDOWN may take.
const TEARDOWN_MAX: Duration = Duration::from_secs(1);
/// 401s in a row for one request.
const CHALLENGES_MAX: usize = 3;
/// Interleaved packets kept that came before the answer to PLAY.
const EARLY_MAX: usize = 512;
const READ_BYTES: usize = 64 << 10;

/// Why a connection to a camera failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    #[error("cannot be reached: {0}")]
    Io(#[from] std::io::Error),
    #[error("its certificate is not the configured one: {0}")]
    Tls(String),
    #[error("{0}")]
    Framing(#[from] BadReply),
    #[error("{0}")]
    Login(#[from] LoginFault),
    #[error("{0}")]
    Sdp(#[from] BadSdp),
    /// 461 to an UDP transport.
    #[error("it does not send over UDP")]
    UdpRefused,
    #[error("{method} was answered with {status} {reason}")]
    Status {
        method: &'static str,
        status: u16,
        reason: String,
    },
    #[error("the camera closed the connection")]
    Closed,
    #[error("it takes no more requests")]
    Stuck,
}

/// How packets are to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Tcp,
    /// Our ports.
    Udp {
        rtp: u16,
        rtcp: u16,
    },
}

pub struct Client {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    local: SocketAddr,
    peer: SocketAddr,
    framer: ReplyFramer,
    login: Login,
    /// As asked for: the camera's answers may name another.
    url: String,
    cseq: u32,
    session: Option<String>,
    pub keep_alive: KeepAlive,
    /// Where PLAY, keep-alive and TEARDOWN go.
    aggregate: String,
    early: VecDeque<(u8, Bytes)>,
}

/// What a camera describes.
pub struct Description {
    pub offer: Offer,
    base: String,
}

impl Client {
    /// # Errors
    /// [`ClientFault`].
    pub async fn connect(camera: &Camera) -> Result<Self, ClientFault> {
        let secure = camera.url.scheme() == "rtsps";
        let host = camera.url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = camera.url.port().unwrap_or(if secure { 322 } else { 554 });
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let (reader, writer): (
            Box<dyn AsyncRead + Send + Unpin>,
            Box<dyn AsyncWrite + Send + Unpin>,
        ) = if secure {
            let stream = tls::connect(stream, host, camera.trust.as_ref()).await?;
            let (r, w) = tokio::io::split(stream);
            (Box::new(r), Box::new(w))
        } else {
            let (r, w) = stream.into_split();
            (Box::new(r), Box::new(w))
        };
        let account = camera
            .username
            .clone()
            .map(|u| (u, camera.password.clone().unwrap_or_default()));
        let url = camera.url.to_string();
        Ok(Self {
            reader,
            writer,
            local,
            peer,
            framer: ReplyFramer::default(),
            login: Login::new(account, secure || camera.basic_auth),
            aggregate: url.clone(),
            url,
            cseq: 0,
            session: None,
            keep_alive: KeepAlive::new(),
            early: VecDeque::new(),
        })
    }

    pub fn local_ip(&self) -> IpAddr {
        self.local.ip()
    }

    pub fn peer_ip(&self) -> IpAddr {
        self.peer.ip()
    }

    /// OPTIONS and DESCRIBE.
    ///
    /// # Errors
    /// [`ClientFault`].
    pub async fn describe(&mut self) -> Result<Description, ClientFault> {
        let url = self.url.clone();
        let options = tokio::time::timeout(OPTIONS_MAX, self.request("OPTIONS", &url, &[])).await;
        match options {
            Ok(Ok(reply)) => self.keep_alive.methods(reply.header("Public")),
            Ok(Err(e @ (ClientFault::Io(_) | ClientFault::Login(_) | ClientFault::Closed))) => {
                return Err(e);
            }
            Ok(Err(_)) | Err(_) => {}
        }
        let accept = [("Accept", "application/sdp".to_owned())];
        let reply = success("DESCRIBE", self.request("DESCRIBE", &url, &accept).await?)?;
        let base = base(
            reply.header("Content-Base"),
            reply.header("Content-Location"),
            &url,
        );
        self.aggregate = control(&base, session_control(&reply.body).as_deref());
        Ok(Description {
            offer: Offer::parse(&reply.body)?,
            base,
        })
    }

    /// Sets up the `m=` line `index` of the description.
    ///
    /// # Errors
    /// [`ClientFault`].
    pub async fn setup(
        &mut self,
        described: &Description,
        index: usize,
        way: Way,
    ) -> Result<AnsweredTransport, ClientFault> {
        let written = described
            .offer
            .media
            .get(index)
            .and_then(|m| m.control.as_deref());
        let url = control(&described.base, written);
        let transport = match way {
            Way::Tcp => {
                let rtp = index * 2;
                format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{}", rtp + 1)
            }
            Way::Udp { rtp, rtcp } => format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}"),
        };
        let reply = self
            .request("SETUP", &url, &[("Transport", transport)])
            .await?;
        if reply.status == 461 && way != Way::Tcp {
            return Err(ClientFault::UdpRefused);
        }
        let reply = success("SETUP", reply)?;
        if let Some((id, timeout)) = reply.session() {
            // The first one counts: some cameras name another with each medium.
            if self.session.is_none() {
                self.session = Some(id.to_owned());
                self.keep_alive.timeout(Duration::from_secs(timeout));
            }
        }
        let mut answered = AnsweredTransport::parse(reply.header("Transport").unwrap_or_default());
        if way != Way::Tcp && answered.is_tcp {
            return Err(ClientFault::UdpRefused);
        }
        if way == Way::Tcp && answered.channels.is_none() {
            answered.channels = u8::try_from(index * 2)
                .ok()
                .map(|c| (c, c.saturating_add(1)));
        }
        Ok(answered)
    }

    /// # Errors
    /// [`ClientFault`].
    pub async fn play(&mut self) -> Result<(), ClientFault> {
        let url = self.aggregate.clone();
        let range = [("Range", "npt=0.000-".to_owned())];
        let reply = self.request("PLAY", &url, &range).await?;
        success("PLAY", reply)?;
        self.keep_alive.begin(Instant::now());
        Ok(())
    }

    /// The next packet on this connection: its channel. Replies to keep-alives are taken on the way. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientFault`].
    pub async fn next(&mut self) -> Result<(u8, Bytes), ClientFault> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        loop {
            match self.heard().await? {
                Heard::Data { channel, data } => return Ok((channel, data)),
                Heard::Reply(reply) => self.keep_alive_answered(&reply)?,
                // ANNOUNCE and the like: nothing that changes what we do.
                Heard::Request { method, .. } => tracing::trace!(method, "a camera asks"),
            }
        }
    }

    fn keep_alive_answered(&mut self, reply: &Reply) -> Result<(), ClientFault> {
        match reply.status {
            // The nonce is stale: the next one is answered right, and now.
            401 => {
                self.login.challenged(reply)?;
                self.keep_alive.again();
            }
            454 => {
                return Err(ClientFault::Status {
                    method: "keep-alive",
                    status: 454,
                    reason: reply.reason.clone(),
                });
            }
            _ => {
                self.login.accepted();
                self.keep_alive.answered(reply.cseq(), reply.status);
            }
        }
        Ok(())
    }

    /// Asks for the session to be kept if it is time; the reply comes by [`Self::next`].
    ///
    /// # Errors
    /// [`ClientFault`].
    pub async fn keep(&mut self, now: Instant) -> Result<(), ClientFault> {
        let Some(method) = self.keep_alive.due(now, self.cseq + 1) else {
            return Ok(());
        };
        let url = self.aggregate.clone();
        self.send(method, &url, &[]).await.map(drop)
    }

    /// Sends an interleaved packet: receiver reports.
    ///
    /// # Errors
    /// [`ClientFault`].
    pub async fn interleaved(&mut self, channel: u8, data: &[u8]) -> Result<(), ClientFault> {
        let Ok(len) = u16::try_from(data.len()) else {
            return Ok(());
        };
        let mut out = BytesMut::with_capacity(4 + data.len());
        out.extend_from_slice(&[b'$', channel]);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(data);
        self.write(&out).await
    }

    /// Says goodbye, so that the camera need not wait for its own timeout. It may not answer.
    pub async fn teardown(mut self) {
        if self.session.is_none() {
            return;
        }
        let url = self.aggregate.clone();
        let said = tokio::time::timeout(TEARDOWN_MAX, self.request("TEARDOWN", &url, &[])).await;
        if !matches!(said, Ok(Ok(_))) {
            tracing::debug!(url = %self.url, "the camera did not answer TEARDOWN");
        }
    }

    async fn request(
        &mut self,
        method: &'static str,
        url: &str,
        headers: &[(&str, String)],
    ) -> Result<Reply, ClientFault> {
        for _ in 0..=CHALLENGES_MAX {
            let cseq = self.send(method, url, headers).await?;
            let reply = self.reply(cseq).await?;
            if reply.status != 401 {
                self.login.accepted();
                return Ok(reply);
            }
            self.login.challenged(&reply)?;
        }
        Err(LoginFault::Refused.into())
    }

    /// The reply to request `cseq`. Packets that come before it are kept.
    async fn reply(&mut self, cseq: u32) -> Result<Reply, ClientFault> {
        loop {
            match self.heard().await? {
                Heard::Reply(r) if r.cseq().is_none_or(|n| n == cseq) => return Ok(r),
                // Late, to something given up.
                Heard::Reply(_) | Heard::Request { .. } => {}
                Heard::Data { channel, data } => {
                    if self.early.len() >= EARLY_MAX {
                        self.early.pop_front();
                        dropped("early");
                    }
                    self.early.push_back((channel, data));
                }
            }
        }
    }

    async fn heard(&mut self) -> Result<Heard, ClientFault> {
        loop {
            if let Some(heard) = self.framer.next()? {
                return Ok(heard);
            }
            let buffer = self.framer.buffer();
            buffer.reserve(READ_BYTES);
            if self.reader.read_buf(buffer).await? == 0 {
                return Err(ClientFault::Closed);
            }
        }
    }

    async fn send(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
    ) -> Result<u32, ClientFault> {
        self.cseq += 1;
        let mut text = format!(
            "{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: kerbside\r\n",
            self.cseq
        );
        let mut put = |name: &str, value: &str| {
            let clean: String = value.chars().filter(|c| !c.is_control()).collect();
            text.extend([name, ": ", &clean, "\r\n"]);
        };
        if let Some(id) = &self.session {
            put("Session", id);
        }
        let cnonce = format!("{:016x}", rand::random::<u64>());
        if let Some(login) = self.login.authorization(method, url, &cnonce) {
            put("Authorization", &login);
        }
        for (name, value) in headers {
            put(name, value);
        }
        text.push_str("\r\n");
        self.write(text.as_bytes()).await?;
        Ok(self.cseq)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientFault> {
        let write = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        match tokio::time::timeout(WRITE_MAX, write).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(ClientFault::Stuck),
        }
    }
}

fn success(method: &'static str, reply: Reply) -> Result<Reply, ClientFault> {
    if (200..300).contains(&reply.status) {
        return Ok(reply);
    }
    let clean = |s: &str| s.chars().filter(|c| !c.is_control()).take(80).collect();
    // Not followed: another address is another camera, and would get its password.
    let reason = match reply.header("Location") {
        Some(to) if (300..400).contains(&reply.status) => {
            format!("(it is at {} now)", clean_url(to))
        }
        _ => clean(&reply.reason),
    };
    Err(ClientFault::Status {
        method,
        status: reply.status,
        reason,
    })
}

/// A place for the log: without what may be a password.
fn clean_url(text: &str) -> String {
    url::Url::parse(text).map_or_else(
        |_| "another place".to_owned(),
        |u| format!("{}://{}", u.scheme(), u.host_str().unwrap_or_default()),
    )
}
