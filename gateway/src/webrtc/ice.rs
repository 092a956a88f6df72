//! ICE-lite (RFC 8445 §2.5): we answer connectivity checks and never send any. The address that the other side
//! nominates is where we send to; its checks are also its consent (RFC 7675).
//!
//! Here: STUN binding requests to responses, the nominated remote, consent. Not here: sockets, which session a
//! packet belongs to (`hub` asks [`ufrag_of`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use rtc::stun::xoraddr::XorMappedAddress;

/// Without a check for so long the other side is gone (RFC 7675 §5.1: 30 s).
pub const CONSENT: Duration = Duration::from_secs(30);

/// First byte of a datagram tells what it is (RFC 7983 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stun,
    Dtls,
    /// RTP or RTCP.
    Rtp,
    Other,
}

pub fn kind(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(0..=3) if datagram.len() >= 20 => Kind::Stun,
        Some(20..=63) => Kind::Dtls,
        Some(128..=191) if datagram.len() >= 8 => Kind::Rtp,
        _ => Kind::Other,
    }
}

/// Our user fragment in the USERNAME of a binding request (`ours:theirs`), without checking anything else.
pub fn ufrag_of(datagram: &[u8]) -> Option<&str> {
    const BINDING: [u8; 2] = [0, 1];
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    if datagram.get(..2)? != BINDING || datagram.get(4..8)? != COOKIE {
        return None;
    }
    let mut rest = datagram.get(20..)?;
    while let [t0, t1, l0, l1, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = tail.get(..len)?;
        if [*t0, *t1] == ATTR_USERNAME.0.to_be_bytes() {
            return std::str::from_utf8(value)
                .ok()?
                .split_once(':')
                .map(|u| u.0);
        }
        rest = tail.get(len.next_multiple_of(4)..)?;
    }
    None
}

/// Why a check was not answered with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed,
    /// Not for this session, or the password is wrong.
    NotOurs,
}

/// A check that was right.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    pub response: Bytes,
    /// This address is now the one to send to, and was not before.
    pub selected: bool,
}

/// What the other side proves itself by, towards us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub password: String,
}

/// Credentials of an ICE restart, until the first right check with them (RFC 8445 §2.4): the former ones serve so long.
pub type Restart = Arc<Mutex<Option<Credentials>>>;

/// The ICE state of one session.
pub struct Lite {
    crypto: Arc<dyn RTCCryptoProvider>,
    ufrag: String,
    password: String,
    restart: Restart,
    remote: Option<SocketAddr>,
    last_check: Option<Instant>,
}

impl Lite {
    pub fn new(crypto: Arc<dyn RTCCryptoProvider>, ufrag: &str, password: &str) -> Self {
        Self {
            crypto,
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
            restart: Restart::default(),
            remote: None,
            last_check: None,
        }
    }

    /// Looks into `restart` for new credentials.
    #[must_use]
    pub fn with_restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Where to send to, once known.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// When consent ends, once there was a check.
    pub fn consent_until(&self) -> Option<Instant> {
        Some(self.last_check? + CONSENT)
    }

    /// Answers a binding request from `from`.
    ///
    /// # Errors
    /// [`Refused`]; nothing is sent then, so that nobody can use us to shout at others.
    pub fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Checked, Refused> {
        let asked = ufrag_of(datagram).ok_or(Refused::NotOurs)?;
        let renewed = if asked == self.ufrag {
            None
        } else {
            let next = self.restart.lock().clone();
            Some(next.filter(|c| c.ufrag == asked).ok_or(Refused::NotOurs)?)
        };
        let mut request = Message::new();
        request
            .unmarshal_binary(datagram)
            .map_err(|_| Refused::Malformed)?;
        if request.typ != BINDING_REQUEST {
            return Err(Refused::Malformed);
        }
        let crypto = self.crypto.crypto();
        let password = renewed.as_ref().map_or(&self.password, |c| &c.password);
        MessageIntegrity::check(&mut request, password.as_bytes(), crypto)
            .map_err(|_| Refused::NotOurs)?;
        let restarted = renewed.is_some();
        if let Some(c) = renewed {
            (self.ufrag, self.password) = (c.ufrag, c.password);
            let mut next = self.restart.lock();
            if next.as_ref().is_some_and(|n| n.ufrag == self.ufrag) {
                *next = None;
            }
        }
        if request.contains(ATTR_ICE_CONTROLLED) && !request.contains(ATTR_ICE_CONTROLLING) {
            // Role conflict: a lite agent is always controlled (RFC 8445 §7.3.1.1).
            let response = self.respond(&request, None).ok_or(Refused::Malformed)?;
            return Ok(Checked {
                response,
                selected: false,
            });
        }
        let response = self
            .respond(&request, Some(from))
            .ok_or(Refused::Malformed)?;
        self.last_check = Some(now);
        // Before the nomination the first checked pair serves: with regular nomination it is soon replaced.
        let nominated = request.contains(ATTR_USE_CANDIDATE);
        let selected =
            (nominated || restarted || self.remote.is_none()) && self.remote != Some(from);
        if selected {
            self.remote = Some(from);
        }
        Ok(Checked { response, selected })
    }

    /// A success response, or 487 (role conflict) without a mapped address.
    fn respond(&self, request: &Message, mapped: Option<SocketAddr>) -> Option<Bytes> {
        let integrity = MessageIntegrity::new_short_term_integrity_with_provider(
            self.password.clone(),
            self.crypto.crypto(),
        );
        let mut m = Message::new();
        m.transaction_id = request.transaction_id;
        m.typ = if mapped.is_some() {
            BINDING_SUCCESS
        } else {
            BINDING_ERROR
        };
        m.write_header();
        if let Some(from) = mapped {
            let ip = from.ip().to_canonical();
            XorMappedAddress {
                ip,
                port: from.port(),
            }
            .add_to(&mut m)
            .ok()?;
        } else {
            rtc::stun::error_code::CODE_ROLE_CONFLICT
                .add_to(&mut m)
                .ok()?;
        }
        integrity.add_to(&mut m).ok()?;
        FINGERPRINT.add_to(&mut m).ok()?;
        Some(Bytes::from(m.raw))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtc::stun::message::TransactionId;
    use rtc::stun::textattrs::Username;

    pub fn request(username: &str, password: &str, nominate: bool) -> Vec<u8> {
        let provider = rtc::crypto::default_provider().unwrap();
        let mut m = Message::new();
        m.typ = BINDING_REQUEST;
        m.transaction_id = TransactionId([7; 12]);
        m.write_header();
        Username::new(ATTR_USERNAME, username.to_owned())
            .add_to(&mut m)
            .unwrap();
        m.add(ATTR_ICE_CONTROLLING, &[1; 8]);
        if nominate {
            m.add(ATTR_USE_CANDIDATE, &[]);
        }
        MessageIntegrity::new_short_term_integrity_with_provider(
            password.to_owned(),
            provider.crypto(),
        )
        .add_to(&mut m)
        .unwrap();
        FINGERPRINT.add_to(&mut m).unwrap();
        m.raw
    }

    fn lite() -> Lite {
        Lite::new(rtc::crypto::default_provider().unwrap(), "ours", "secret")
    }

    #[test]
    fn a_right_check_is_answered_and_nominates() {
        let mut l = lite();
        let now = Instant::now();
        let (a, b): (SocketAddr, SocketAddr) =
            (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
        let req = request("ours:theirs", "secret", false);
        assert_eq!(kind(&req), Kind::Stun);
        assert_eq!(ufrag_of(&req), Some("ours"));
        let ok = l.handle(now, a, &req).unwrap();
        assert!(ok.selected);
        let mut response = Message::new();
        response.unmarshal_binary(&ok.response).unwrap();
        assert_eq!(response.typ, BINDING_SUCCESS);
        let provider = rtc::crypto::default_provider().unwrap();
        MessageIntegrity::check(&mut response, b"secret", provider.crypto()).unwrap();
        // Another pair moves the session only when it is nominated.
        assert!(!l.handle(now, b, &req).unwrap().selected);
        let nominated = request("ours:theirs", "secret", true);
        assert!(l.handle(now, b, &nominated).unwrap().selected);
        assert_eq!(l.remote(), Some(b));
        assert_eq!(l.consent_until(), Some(now + CONSENT));
    }

    #[test]
    fn a_restart_takes_over_with_its_first_right_check() {
        let restart = Restart::default();
        let mut l = lite().with_restart(restart.clone());
        let now = Instant::now();
        let (a, b): (SocketAddr, SocketAddr) =
            (([192, 0, 2, 1], 1).into(), ([198, 51, 100, 2], 2).into());
        let old = request("ours:theirs", "secret", true);
        let new = request("renewed:others", "fresh", false);
        l.handle(now, a, &old).unwrap();
        assert_eq!(l.handle(now, b, &new), Err(Refused::NotOurs), "none yet");
        *restart.lock() = Some(Credentials {
            ufrag: "renewed".into(),
            password: "fresh".into(),
        });
        let wrong = request("renewed:others", "secret", true);
        assert_eq!(l.handle(now, b, &wrong), Err(Refused::NotOurs));
        assert!(
            l.handle(now, a, &old).is_ok(),
            "the former ones still serve"
        );
        assert!(l.handle(now, b, &new).unwrap().selected);
        assert_eq!(l.remote(), Some(b));
        assert_eq!(l.handle(now, a, &old), Err(Refused::NotOurs), "over");
        assert_eq!(*restart.lock(), None);
    }

    #[test]
    fn a_wrong_check_moves_nothing() {
        let mut l = lite();
        let now = Instant::now();
        let from = ([192, 0, 2, 1], 1).into();
        for req in [
            request("ours:theirs", "wrong", true),
            request("other:theirs", "secret", true),
        ] {
            assert_eq!(l.handle(now, from, &req), Err(Refused::NotOurs));
        }
        assert_eq!(l.remote(), None);
        assert_eq!(l.consent_until(), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = ufrag_of(&bytes);
            let _ = kind(&bytes);
            let _ = lite().handle(Instant::now(), ([127, 0, 0, 1], 9).into(), &bytes);
        }

        #[test]
        fn any_damage(at in 0usize..60, with: u8) {
            let mut req = request("ours:theirs", "secret", true);
            req[at] = with;
            let _ = lite().handle(Instant::now(), ([127, 0, 0, 1], 9).into(), &req);
        }
    }
}
