//! The line of a WebRTC reader: ICE checks (RFC 8445, one component, host candidates), DTLS and SRTP on one socket.
//!
//! Here: datagrams in and out, in no thread of its own. Not here: who agreed on the session (`signal`).

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use rtc::stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use rtc::stun::textattrs::Username;
use rtc::stun::xoraddr::XorMappedAddress;

use super::meter::Meter;
use super::sdp::Local;
use super::secure::{Identity, Secure};
use super::signal::Joined;
use crate::camera::now_ns;

/// Checks before there is a path, and as consent (RFC 7675) afterwards.
const CHECK_EVERY: Duration = Duration::from_millis(50);
const CONSENT_EVERY: Duration = Duration::from_secs(4);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A hello that nobody heard is said again after this, then after twice this, and so on, as libwebrtc does; the DTLS
/// library would wait a second, and servers that are not yet ready drop the first one.
const HELLO_AGAIN: Duration = Duration::from_millis(50);
const PRIORITY: u32 = 1_862_270_975;

pub struct Rtc {
    pub socket: UdpSocket,
    local: Local,
    joined: Joined,
    identity: Identity,
    secure: Secure,
    path: Option<SocketAddr>,
    check_at: Instant,
    report_at: Instant,
    /// Our first flight, until the server answers; when it is sent again, and the wait before that.
    hello: Vec<Bytes>,
    hello_at: Option<(Instant, Duration)>,
    heard: bool,
    /// Of the last video packet.
    ssrc: u32,
}

impl Rtc {
    pub fn new(
        socket: UdpSocket,
        local: Local,
        joined: Joined,
        identity: &Identity,
        now: Instant,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            socket,
            local,
            secure: Secure::new(identity.clone(), joined.remote.we_are_client)?,
            joined,
            identity: identity.clone(),
            path: None,
            check_at: now,
            report_at: now + REPORT_EVERY,
            hello: Vec::new(),
            hello_at: None,
            heard: false,
            ssrc: 0,
        })
    }

    pub fn profile(&self) -> Option<&'static str> {
        self.secure.profile()
    }

    /// When [`Self::tick`] is due.
    pub fn due(&self) -> Instant {
        let own = self.check_at.min(self.report_at);
        let own = self.hello_at.map_or(own, |(t, _)| t.min(own));
        self.secure.poll_timeout().map_or(own, |t| t.min(own))
    }

    pub fn tick(&mut self, now: Instant, meter: &Meter) -> anyhow::Result<()> {
        if now >= self.check_at {
            match self.path {
                Some(path) => self.check(path)?,
                None => {
                    for to in self.joined.remote.candidates.clone() {
                        self.check(to)?;
                    }
                }
            }
            self.check_at = now
                + if self.path.is_some() {
                    CONSENT_EVERY
                } else {
                    CHECK_EVERY
                };
        }
        if now >= self.report_at {
            self.report_at = now + REPORT_EVERY;
            self.report(meter)?;
        }
        if let (Some((at, wait)), Some(path)) = (self.hello_at, self.path)
            && now >= at
        {
            self.hello_at = Some((now + wait * 2, wait * 2));
            for d in &self.hello {
                self.send(d, path)?;
            }
        }
        if self.secure.poll_timeout().is_some_and(|t| now >= t) {
            self.secure.handle_timeout(now)?;
        }
        self.flush()
    }

    /// An empty receiver report (RFC 3550 §6.4.2); with a PLI (RFC 4585 §6.3.1) as long as there is no key frame.
    fn report(&mut self, meter: &Meter) -> anyhow::Result<()> {
        const OURS: [u8; 4] = [0, 0, 0, 1];
        let mut packet = vec![0x80, 201, 0, 1];
        packet.extend(OURS);
        if meter.joined_ns().is_none() && self.ssrc != 0 {
            packet.extend([0x81, 206, 0, 2]);
            packet.extend(OURS);
            packet.extend(self.ssrc.to_be_bytes());
        }
        if let (Some(sealed), Some(path)) = (self.secure.seal_rtcp(&packet), self.path) {
            self.send(&sealed, path)?;
        }
        Ok(())
    }

    /// Takes all that is there.
    pub fn drain(&mut self, meter: &mut Meter, scratch: &mut [u8]) -> anyhow::Result<()> {
        loop {
            let (n, from) = match self.socket.recv_from(scratch) {
                Ok(got) => got,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return self.flush(),
                // A candidate where nobody listens.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => continue,
                Err(e) => return Err(e.into()),
            };
            let data = &scratch[..n];
            match data {
                [128..=191, 192..=223, ..] => {}
                [128..=191, ..] => self.media(meter, data),
                [20..=63, ..] => {
                    (self.heard, self.hello_at) = (true, None);
                    self.secure.handle(Instant::now(), data)?;
                }
                [0..=3, ..] => self.stun(from, data)?,
                _ => {}
            }
        }
    }

    fn media(&mut self, meter: &mut Meter, data: &[u8]) {
        let Some(header) = meter.packet(data) else {
            return;
        };
        if !meter.is_curious() {
            return;
        }
        if let Some(ssrc) = data[8..].first_chunk() {
            self.ssrc = u32::from_be_bytes(*ssrc);
        }
        if let Some(clear) = self.secure.open(data)
            && let Some(payload) = clear.get(header.payload..)
        {
            meter.payload(header, payload, now_ns());
        }
    }

    /// The offerer nominates, a lite agent never (RFC 8445 §6.1.1).
    fn we_nominate(&self) -> bool {
        !self.joined.we_answered || self.joined.remote.lite
    }

    fn stun(&mut self, from: SocketAddr, data: &[u8]) -> anyhow::Result<()> {
        let mut m = Message::new();
        if m.unmarshal_binary(data).is_err() {
            return Ok(());
        }
        let nominated = if m.typ == BINDING_REQUEST {
            let answer = self.success(&m, from)?;
            self.send(&answer, from)?;
            !self.we_nominate() && m.contains(ATTR_USE_CANDIDATE)
        } else {
            m.typ == BINDING_SUCCESS && self.we_nominate()
        };
        if nominated && self.path.is_none() {
            self.path = Some(from);
            self.secure.path_found(Instant::now())?;
        }
        Ok(())
    }

    fn success(&self, request: &Message, from: SocketAddr) -> anyhow::Result<Vec<u8>> {
        let mut m = Message::new();
        m.typ = BINDING_SUCCESS;
        m.transaction_id = request.transaction_id;
        m.write_header();
        XorMappedAddress {
            ip: from.ip(),
            port: from.port(),
        }
        .add_to(&mut m)?;
        self.seal(m, &self.local.password)
    }

    fn check(&mut self, to: SocketAddr) -> anyhow::Result<()> {
        let remote = &self.joined.remote;
        let mut m = Message::new();
        m.typ = BINDING_REQUEST;
        m.new_transaction_id()?;
        m.write_header();
        let user = format!("{}:{}", remote.ufrag, self.local.ufrag);
        Username::new(ATTR_USERNAME, user).add_to(&mut m)?;
        m.add(ATTR_PRIORITY, &PRIORITY.to_be_bytes());
        if self.we_nominate() {
            m.add(ATTR_ICE_CONTROLLING, &[1; 8]);
            m.add(ATTR_USE_CANDIDATE, &[]);
        } else {
            m.add(ATTR_ICE_CONTROLLED, &[1; 8]);
        }
        let request = self.seal(m, &remote.password)?;
        self.send(&request, to)
    }

    fn seal(&self, mut m: Message, password: &str) -> anyhow::Result<Vec<u8>> {
        MessageIntegrity::new_short_term_integrity_with_provider(
            password.to_owned(),
            self.identity.crypto.crypto(),
        )
        .add_to(&mut m)?;
        FINGERPRINT.add_to(&mut m)?;
        Ok(m.raw)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let Some(path) = self.path else {
            return Ok(());
        };
        while let Some(d) = self.secure.poll_transmit() {
            self.send(&d, path)?;
            if !self.heard && self.hello_at.is_none() {
                self.hello.push(d);
            }
        }
        if !self.heard && self.hello_at.is_none() && !self.hello.is_empty() {
            self.hello_at = Some((Instant::now() + HELLO_AGAIN, HELLO_AGAIN));
        }
        Ok(())
    }

    fn send(&self, data: &[u8], to: SocketAddr) -> anyhow::Result<()> {
        match self.socket.send_to(data, to) {
            Ok(_) => Ok(()),
            // Lost, as datagrams are.
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(e) if self.path.is_none() => {
                // A candidate we have no route to.
                if self.joined.remote.candidates.len() < 2 {
                    bail!("{to}: {e}");
                }
                Ok(())
            }
            Err(e) => Err(e).with_context(|| to.to_string()),
        }
    }

    /// Says goodbye in DTLS.
    pub fn leave(&mut self) {
        self.secure.close(Instant::now());
        if self.flush().is_err() {
            self.path = None;
        }
    }
}
