//! The way of one session's datagrams: ICE, DTLS, SRTP, and sending.
//!
//! Here: what a datagram is, the deadlines of the connection, faults. Not here: media.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::shared::error::Error;
use tokio::sync::mpsc::error::TrySendError;

use super::feedback::is_rtcp;
use super::ice::{self, Kind, Lite};
use super::metrics::{count, dropped};
use super::secure::{Sealer, Secure};
use super::sessions::{Datagram, Seat, Via};
use super::tcp;
use crate::stream::Kick;
use crate::udp::{self, Burst, Port};

/// One per fan-out thread, all on the one port.
pub type Sockets = Arc<[Arc<Port>]>;

/// ICE and DTLS have to be done within this.
const SETUP_MAX: Duration = Duration::from_secs(15);
/// Places in the queue of a TCP connection that media leave to the handshake and reports.
const TCP_ROOM: usize = 8;
/// Faulty datagrams in the handshake before it is given up.
const DTLS_FAULTS_MAX: u32 = 32;
/// Senders (SSRC) one session may have, and datagrams of unknown ones that are tried: the SRTP context remembers
/// every SSRC it is shown, also those of forged packets.
const SOURCES_MAX: usize = 16;
const STRANGERS_MAX: u32 = 256;

/// Why a session is over; the label of a metric and a word for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(pub &'static str);

/// What came out of the encryption.
#[derive(Debug)]
pub enum Input {
    Rtp(Bytes),
    Rtcp(Bytes),
    /// SCTP packets of data channels.
    Data(Vec<BytesMut>),
}

pub struct Transport {
    sockets: Sockets,
    seat: Seat,
    ice: Lite,
    secure: Secure,
    setup_until: Instant,
    /// How the selected remote is reached.
    via: Via,
    control: Vec<(SocketAddr, Via, Bytes)>,
    rtp_sources: Sources,
    rtcp_sources: Sources,
    faults: u32,
}

impl Transport {
    pub fn new(sockets: Sockets, seat: Seat, ice: Lite, secure: Secure, now: Instant) -> Self {
        Self {
            sockets,
            seat,
            ice,
            secure,
            setup_until: now + SETUP_MAX,
            via: Via::Udp(0),
            control: Vec::new(),
            rtp_sources: Sources::default(),
            rtcp_sources: Sources::default(),
            faults: 0,
        }
    }

    /// Can media be sent?
    pub fn is_ready(&self) -> bool {
        self.secure.is_ready() && self.ice.remote().is_some()
    }

    /// When [`Self::handle_timeout`] is due at the latest.
    pub fn deadline(&self) -> Instant {
        let life = if self.secure.is_ready() {
            self.ice.consent_until().unwrap_or(self.setup_until)
        } else {
            self.setup_until
        };
        self.secure.poll_timeout().map_or(life, |t| t.min(life))
    }

    /// # Errors
    /// The session is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), End> {
        if !self.secure.is_ready() && now >= self.setup_until {
            return Err(End("setup_timeout"));
        }
        if self.ice.consent_until().is_some_and(|t| now >= t) {
            return Err(End("consent_lost"));
        }
        self.secure
            .handle_timeout(now)
            .map_err(|_| End("dtls_timeout"))
    }

    /// Takes a datagram; media comes out, the rest is answered by [`Self::flush`].
    ///
    /// # Errors
    /// The session is over.
    pub fn handle(&mut self, now: Instant, datagram: &Datagram) -> Result<Option<Input>, End> {
        let data = &datagram.data;
        match ice::kind(data) {
            Kind::Stun => self.stun(now, datagram),
            Kind::Dtls => {
                if let Err(error) = self.secure.handle_dtls(now, data) {
                    self.dtls_fault(&error)?;
                }
                if self.secure.is_closed() {
                    return Err(End("peer_closed"));
                }
                let data = self.secure.take_data();
                if !data.is_empty() {
                    return Ok(Some(Input::Data(data)));
                }
            }
            Kind::Rtp if is_rtcp(data) => return Ok(self.open(data, true).map(Input::Rtcp)),
            Kind::Rtp => return Ok(self.open(data, false).map(Input::Rtp)),
            Kind::Other => dropped("not_webrtc"),
        }
        Ok(None)
    }

    fn stun(&mut self, now: Instant, datagram: &Datagram) {
        let from = datagram.from;
        let checked = match self.ice.handle(now, from, &datagram.data) {
            Ok(c) => c,
            Err(ice::Refused::Malformed) => return dropped("bad_check"),
            Err(ice::Refused::NotOurs) => return dropped("wrong_check"),
        };
        self.control
            .push((from, datagram.via.clone(), checked.response));
        if matches!(datagram.via, Via::Udp(_)) {
            self.seat.route(from);
        }
        if checked.selected {
            tracing::debug!(remote = %from, tcp = matches!(datagram.via, Via::Tcp(_)), "WebRTC path");
            self.via = datagram.via.clone();
            if let Err(error) = self.secure.path_found(now) {
                tracing::debug!(%error, "DTLS could not be begun");
            }
        } else if self.ice.remote() == Some(from) {
            // The same address over a new TCP connection.
            self.via = datagram.via.clone();
        }
    }

    /// Junk with a forged sender must not end a session; a handshake that cannot succeed must.
    fn dtls_fault(&mut self, error: &Error) -> Result<(), End> {
        dropped("bad_dtls");
        tracing::debug!(%error, "DTLS");
        if self.secure.is_ready() {
            return Ok(());
        }
        self.faults += 1;
        match error {
            Error::ErrNoMatchingCertificateFingerprint => Err(End("wrong_certificate")),
            _ if self.faults > DTLS_FAULTS_MAX => Err(End("dtls_failed")),
            _ => Ok(()),
        }
    }

    fn open(&mut self, data: &Bytes, rtcp: bool) -> Option<Bytes> {
        let (sources, at) = if rtcp {
            (&mut self.rtcp_sources, 4)
        } else {
            (&mut self.rtp_sources, 8)
        };
        let ssrc = u32::from_be_bytes(*data.get(at..)?.first_chunk()?);
        if !sources.may_try(ssrc) {
            dropped("too_many_sources");
            return None;
        }
        let opened = if rtcp {
            self.secure.open_rtcp(data)
        } else {
            self.secure.open_rtp(data)
        };
        match opened {
            Ok(b) => {
                sources.is_genuine(ssrc);
                Some(b)
            }
            Err(error) => {
                tracing::trace!(%error, "SRTP");
                dropped(match error {
                    Error::SrtpSsrcDuplicated(..) | Error::SrtcpSsrcDuplicated(..) => "replayed",
                    _ => "bad_srtp",
                });
                None
            }
        }
    }

    /// Sends what the handshake and the checks left to send.
    pub fn flush(&mut self, burst: &mut Burst) {
        if let Some(remote) = self.ice.remote() {
            while let Some(d) = self.secure.poll_transmit() {
                self.control.push((remote, self.via.clone(), d));
            }
        }
        if self.control.is_empty() {
            return;
        }
        for (to, via, d) in std::mem::take(&mut self.control) {
            burst.clear();
            burst.push(&[&d]);
            self.send(to, &via, burst);
        }
    }

    /// What encrypts media, once there are keys.
    pub fn sealer(&mut self) -> Option<&mut Sealer> {
        self.secure.sealer()
    }

    /// Can another frame be taken? Over UDP always: what the socket does not take is dropped, as a network would. When
    /// a TCP connection cannot, it kicks the reader once it can again.
    pub fn has_room(&self, reader: &Kick) -> bool {
        match &self.via {
            Via::Udp(_) => true,
            Via::Tcp(path) => {
                // First, so that what is written from now on kicks. Each connection of a session has its own.
                path.room.get_or_init(|| reader.clone());
                path.queue.capacity() > TCP_ROOM
            }
        }
    }

    /// Is the selected path a TCP connection?
    pub fn is_tcp(&self) -> bool {
        matches!(self.via, Via::Tcp(_))
    }

    /// The fan-out thread whose socket hears the other side; None: not by UDP.
    pub fn thread(&self) -> Option<usize> {
        match self.via {
            Via::Udp(thread) => Some(thread),
            Via::Tcp(_) => None,
        }
    }

    /// The selected remote.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.ice.remote()
    }

    /// Sends protected packets to the selected remote: those of one frame together.
    pub fn transmit(&self, packets: &Burst) {
        if let Some(remote) = self.ice.remote() {
            self.send(remote, &self.via, packets);
        }
    }

    fn send(&self, to: SocketAddr, via: &Via, packets: &Burst) {
        if packets.is_empty() {
            return;
        }
        match via {
            Via::Udp(thread) => {
                match udp::send(&*self.sockets[thread % self.sockets.len()], to, packets) {
                    Ok(sent) => count("send_buffer_full", sent.dropped),
                    // The path may come back, or consent runs out; RTCP tells what was lost.
                    Err(error) => {
                        tracing::trace!(%error, "WebRTC send");
                        count("send_failed", packets.len());
                    }
                }
            }
            Via::Tcp(path) => match path.queue.try_send(tcp::frame(packets.iter())) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => count("tcp_busy", packets.len()),
                // The connection is gone; checks over another path may come.
                Err(TrySendError::Closed(_)) => dropped("tcp_closed"),
            },
        }
    }

    /// Encrypts and sends RTCP packets.
    pub fn transmit_rtcp(&mut self, packets: &[Vec<u8>], burst: &mut Burst) {
        burst.clear();
        for p in packets {
            match self.secure.protect_rtcp(p) {
                Ok(b) => burst.push(&[&b]),
                Err(error) => {
                    tracing::debug!(%error, "SRTCP");
                    dropped("not_encrypted");
                }
            }
        }
        self.transmit(burst);
    }

    /// Sends data channel packets with the next [`Self::flush`].
    pub fn write_data(&mut self, now: Instant, packets: &[Bytes]) {
        for p in packets {
            if let Err(error) = self.secure.write_data(now, p) {
                tracing::debug!(%error, "data channel");
                dropped("data_not_sent");
            }
        }
    }

    /// Tells the other side that it is over.
    pub fn close(&mut self, now: Instant, burst: &mut Burst) {
        self.secure.close(now);
        self.flush(burst);
    }
}

/// SSRCs that were authentic, and how many others were tried.
#[derive(Default)]
struct Sources {
    genuine: Vec<u32>,
    strangers: u32,
}

impl Sources {
    fn may_try(&mut self, ssrc: u32) -> bool {
        if self.genuine.contains(&ssrc) {
            return true;
        }
        self.strangers += 1;
        self.genuine.len() < SOURCES_MAX && self.strangers <= STRANGERS_MAX
    }

    fn is_genuine(&mut self, ssrc: u32) {
        if !self.genuine.contains(&ssrc) {
            self.genuine.push(ssrc);
            self.strangers = self.strangers.saturating_sub(1);
        }
    }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
