//! DTLS 1.2 and SRTP of one session (RFC 5764), over `rtc`'s sans-IO crates: bytes in, bytes out, no sockets.
//!
//! Here: our certificate, the handshake, the check of the other side's certificate against the offer, encryption.
//! Not here: what is inside the packets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::config::{
    ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig,
    VerifyPeerCertificateFn,
};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;
use sha2::{Digest, Sha256};

use super::hello::Hello;
pub use super::seal::Sealer;

/// GCM first: half the cost of AES-CM with SHA-1, and every current browser has it.
const PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];
/// The library takes the client's first choice, and browsers put AES-CM first: clients that know AES-128-GCM are
/// offered nothing else.
const GCM_ONLY: [SrtpProtectionProfile; 1] = [SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm];
/// Packets; wide enough for retransmissions of a second of video.
const SRTP_REPLAY_WINDOW: usize = 2048;
const SRTCP_REPLAY_WINDOW: usize = 128;
/// Messages of data channels waiting for the session.
const DATA_MAX: usize = 64;

/// What all sessions share: crypto and our certificate, made anew at each start.
#[derive(Clone)]
pub struct Identity {
    pub crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    pub fingerprint: [u8; 32],
}

impl Identity {
    /// # Errors
    /// When no crypto backend is built in or key generation fails.
    pub fn generate() -> Result<Self, Error> {
        let crypto = rtc::crypto::default_provider().map_err(|e| Error::Crypto(e.to_string()))?;
        let certificate =
            Certificate::generate_self_signed(vec!["kerbside".to_owned()], crypto.crypto())?;
        let der = certificate
            .certificate
            .first()
            .ok_or(Error::ErrNonCertificate)?;
        let fingerprint = Sha256::digest(der.as_ref()).into();
        Ok(Self {
            crypto,
            certificate,
            fingerprint,
        })
    }

    fn config(
        &self,
        theirs: [u8; 32],
        is_client: bool,
        profiles: &[SrtpProtectionProfile],
    ) -> Result<Arc<HandshakeConfig>, Error> {
        let verify: VerifyPeerCertificateFn = Arc::new(move |certificates, _| {
            let shown: [u8; 32] = certificates
                .first()
                .map(Sha256::digest)
                .ok_or(Error::ErrNonCertificate)?
                .into();
            if shown == theirs {
                Ok(())
            } else {
                Err(Error::ErrNoMatchingCertificateFingerprint)
            }
        });
        Ok(Arc::new(
            ConfigBuilder::default()
                .with_crypto_provider(self.crypto.clone())
                .with_certificates(vec![self.certificate.clone()])
                .with_srtp_protection_profiles(profiles.to_vec())
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                // No CA in WebRTC: `verify` compares the fingerprint.
                .with_insecure_skip_verify(true)
                .with_verify_peer_certificate(Some(verify))
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .build(is_client, None)?,
        ))
    }
}

/// The tunnel has no addresses of its own: ICE may move it.
const TUNNEL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// We have to begin, once there is a path.
    OurTurn,
    /// The other side has to begin, or has with the first part of its hello.
    TheirTurn,
    Yes,
}

struct Keys {
    media: Sealer,
    /// Ours for RTCP, theirs for everything.
    ours: Context,
    theirs: Context,
}

/// One session's DTLS and SRTP.
pub struct Secure {
    identity: Identity,
    endpoint: Endpoint,
    /// The certificate the other side has to show.
    theirs: [u8; 32],
    begun: Begun,
    hello: Hello,
    keys: Option<Keys>,
    data: Vec<BytesMut>,
    closed: bool,
}

impl Secure {
    /// `theirs`: the fingerprint in the offer. `active`: we begin the handshake.
    pub fn new(identity: Identity, theirs: [u8; 32], active: bool) -> Self {
        Self {
            identity,
            endpoint: Endpoint::new(TUNNEL, TransportProtocol::UDP, None),
            theirs,
            begun: if active {
                Begun::OurTurn
            } else {
                Begun::TheirTurn
            },
            hello: Hello::default(),
            keys: None,
            data: Vec::new(),
            closed: false,
        }
    }

    /// Are there keys to send with?
    pub fn is_ready(&self) -> bool {
        self.keys.is_some()
    }

    /// Did the other side close?
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// ICE has a path: begins the handshake if that is our part.
    ///
    /// # Errors
    /// Faults of the DTLS library.
    pub fn path_found(&mut self, now: Instant) -> Result<(), Error> {
        if self.begun != Begun::OurTurn {
            return Ok(());
        }
        self.begun = Begun::Yes;
        let config = self.identity.config(self.theirs, true, &PROFILES)?;
        self.endpoint.connect(now, TUNNEL, config, None)
    }

    /// Takes a DTLS datagram.
    ///
    /// # Errors
    /// The handshake failed: wrong certificate, nothing in common, malformed.
    pub fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Error> {
        if self.closed || self.begun == Begun::OurTurn {
            return Ok(());
        }
        if self.begun == Begun::Yes {
            return self.read(now, datagram);
        }
        if !self.hello.push(datagram) {
            return Ok(());
        }
        self.begun = Begun::Yes;
        let hello = std::mem::take(&mut self.hello);
        let profiles: &[_] = if hello.knows_aes_128_gcm() {
            &GCM_ONLY
        } else {
            &PROFILES
        };
        let config = self.identity.config(self.theirs, false, profiles)?;
        self.endpoint.set_server_config(Some(config));
        hello.into_datagrams().try_for_each(|d| self.read(now, &d))
    }

    fn read(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Error> {
        for event in self
            .endpoint
            .read(now, TUNNEL, None, BytesMut::from(datagram))?
        {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self
                        .endpoint
                        .get_connection_state(TUNNEL)
                        .ok_or(Error::HandshakeInProgress)?;
                    self.keys = Some(keys(state, &self.identity)?);
                }
                EndpointEvent::ApplicationData(d) if self.data.len() < DATA_MAX => {
                    self.data.push(d);
                }
                EndpointEvent::PeerClosed => self.closed = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// # Errors
    /// The handshake was repeated too often without an answer.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.endpoint.get_connection_state(TUNNEL).is_none() {
            return Ok(());
        }
        self.endpoint.handle_timeout(TUNNEL, now)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&TUNNEL)
    }

    /// The next DTLS datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        Some(self.endpoint.poll_transmit()?.message.freeze())
    }

    /// Decrypted application data (SCTP) since the last call.
    pub fn take_data(&mut self) -> Vec<BytesMut> {
        std::mem::take(&mut self.data)
    }

    /// Sends application data (SCTP) once the handshake is done.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn write_data(&mut self, now: Instant, data: &[u8]) -> Result<(), Error> {
        self.endpoint.write(now, TUNNEL, data)
    }

    /// Tells the other side that we leave; then drain [`Self::poll_transmit`].
    pub fn close(&mut self, now: Instant) {
        self.closed = true;
        if let Err(error) = self.endpoint.close(now) {
            tracing::trace!(%error, "close_notify not sent");
        }
    }

    /// What encrypts media, once there are keys.
    pub fn sealer(&mut self) -> Option<&mut Sealer> {
        self.keys.as_mut().map(|k| &mut k.media)
    }

    /// RTCP to SRTCP.
    ///
    /// # Errors
    /// No keys yet, or the packet is malformed.
    pub fn protect_rtcp(&mut self, packet: &[u8]) -> Result<Bytes, Error> {
        let ours = &mut self.keys.as_mut().ok_or(Error::HandshakeInProgress)?.ours;
        Ok(ours.encrypt_rtcp(packet)?.freeze())
    }

    /// SRTP to RTP.
    ///
    /// # Errors
    /// No keys yet, wrong tag, replayed.
    pub fn open_rtp(&mut self, packet: &[u8]) -> Result<Bytes, Error> {
        let theirs = &mut self.keys.as_mut().ok_or(Error::HandshakeInProgress)?.theirs;
        Ok(theirs.decrypt_rtp(packet)?.freeze())
    }

    /// SRTCP to RTCP.
    ///
    /// # Errors
    /// As [`Self::open_rtp`].
    pub fn open_rtcp(&mut self, packet: &[u8]) -> Result<Bytes, Error> {
        let theirs = &mut self.keys.as_mut().ok_or(Error::HandshakeInProgress)?.theirs;
        Ok(theirs.decrypt_rtcp(packet)?.freeze())
    }
}

/// Our and their SRTP keys out of the handshake (RFC 5764 §4.2).
fn keys(state: &State, identity: &Identity) -> Result<Keys, Error> {
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => {
            ProtectionProfile::Aes128CmHmacSha1_80
        }
        _ => return Err(Error::ErrNoSuchSrtpProfile),
    };
    let mut config = Config {
        profile,
        ..Config::default()
    };
    let material = state.export_keying_material(
        LABEL_EXTRACTOR_DTLS_SRTP,
        &[],
        config.keying_material_len(),
    )?;
    config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
    let crypto = identity.crypto.crypto();
    let (key, salt) = (
        &config.keys.local_master_key,
        &config.keys.local_master_salt,
    );
    let context = || Context::new(key, salt, profile, None, None, crypto);
    let ours = context()?;
    let media = match profile {
        ProtectionProfile::AeadAes128Gcm => Sealer::gcm(key, salt, crypto)?,
        _ => Sealer::Library(Box::new(context()?)),
    };
    let theirs = Context::new(
        &config.keys.remote_master_key,
        &config.keys.remote_master_salt,
        profile,
        Some(srtp_replay_protection(SRTP_REPLAY_WINDOW)),
        Some(srtcp_replay_protection(SRTCP_REPLAY_WINDOW)),
        crypto,
    )?;
    Ok(Keys {
        media,
        ours,
        theirs,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::udp::Burst;

    /// Carries datagrams both ways until nothing moves.
    pub fn shake(a: &mut Secure, b: &mut Secure, now: Instant) -> Result<(), Error> {
        loop {
            let mut moved = false;
            while let Some(d) = a.poll_transmit() {
                b.handle_dtls(now, &d)?;
                moved = true;
            }
            while let Some(d) = b.poll_transmit() {
                a.handle_dtls(now, &d)?;
                moved = true;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    #[test]
    fn two_sides_share_keys_and_nobody_else() {
        let now = Instant::now();
        let (x, y) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut client = Secure::new(x.clone(), y.fingerprint, true);
        let mut server = Secure::new(y.clone(), x.fingerprint, false);
        client.path_found(now).unwrap();
        shake(&mut client, &mut server, now).unwrap();
        assert!(client.is_ready() && server.is_ready());

        let mut rtp = vec![0x80, 96, 0, 1, 0, 0, 0, 9, 0, 0, 0, 5];
        rtp.extend(b"payload");
        let mut burst = Burst::default();
        let mut protect = |rtp: &[u8], index| {
            burst.clear();
            let sealer = server.sealer().unwrap();
            sealer
                .seal(&rtp[..12], &rtp[12..], index, &mut burst)
                .unwrap();
            burst.iter().next().unwrap().to_vec()
        };
        let sealed = protect(&rtp, 1);
        assert_eq!(sealed.len(), rtp.len() + 16, "AES-GCM was agreed");
        assert_eq!(&client.open_rtp(&sealed).unwrap()[..], &rtp[..]);
        assert!(client.open_rtp(&sealed).is_err(), "replayed");
        // A retransmission of an older packet is the same bytes again.
        let mut next = rtp.clone();
        next[3] = 2;
        let other = protect(&next, 2);
        assert_eq!(protect(&rtp, 1), sealed);
        assert_eq!(&client.open_rtp(&other).unwrap()[..], &next[..]);
        // Sequence numbers wrap, and the library follows.
        for index in (2..140_000u64).step_by(20_000) {
            next[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            let sealed = protect(&next, index);
            if index > 2 {
                assert_eq!(&client.open_rtp(&sealed).unwrap()[..], &next[..], "{index}");
            }
        }

        server.close(now);
        shake(&mut client, &mut server, now).unwrap();
        assert!(client.is_closed());
    }

    #[test]
    fn a_certificate_that_was_not_offered_is_refused() {
        let now = Instant::now();
        let (x, y) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut client = Secure::new(x, y.fingerprint, true);
        let mut server = Secure::new(y, [0; 32], false);
        client.path_found(now).unwrap();
        assert!(shake(&mut client, &mut server, now).is_err());
        assert!(!server.is_ready());
    }
}
