//! DTLS and SRTP (RFC 5764) of one WebRTC reader, over `rtc`'s sans-IO crates; the profiles in Chromium's order.
//!
//! Here: the handshake as either side, keys, decryption. Not here: sockets; the server's certificate is not checked,
//! the swarm measures it and trusts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;
use sha2::{Digest, Sha256};

/// As Chromium offers them: a server that cares takes GCM.
const PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
];
/// The tunnel has no addresses of its own.
const TUNNEL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);

/// One certificate for the whole swarm.
#[derive(Clone)]
pub struct Identity {
    pub crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    pub fingerprint: String,
}

impl Identity {
    pub fn generate() -> anyhow::Result<Self> {
        let crypto = rtc::crypto::default_provider().map_err(|e| anyhow::anyhow!("{e}"))?;
        let certificate =
            Certificate::generate_self_signed(vec!["bench".to_owned()], crypto.crypto())?;
        let der = certificate.certificate.first().context("no certificate")?;
        let digest: Vec<String> = Sha256::digest(der.as_ref())
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        Ok(Self {
            crypto,
            certificate,
            fingerprint: digest.join(":"),
        })
    }

    fn config(&self, is_client: bool) -> Result<Arc<HandshakeConfig>, Error> {
        Ok(Arc::new(
            ConfigBuilder::default()
                .with_crypto_provider(self.crypto.clone())
                .with_certificates(vec![self.certificate.clone()])
                .with_srtp_protection_profiles(PROFILES.to_vec())
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                .with_insecure_skip_verify(true)
                .with_extended_master_secret(ExtendedMasterSecretType::Request)
                .build(is_client, None)?,
        ))
    }
}

pub struct Secure {
    identity: Identity,
    endpoint: Endpoint,
    is_client: bool,
    begun: bool,
    keys: Option<(Context, Context)>,
    profile: Option<&'static str>,
}

impl Secure {
    pub fn new(identity: Identity, is_client: bool) -> anyhow::Result<Self> {
        let mut endpoint = Endpoint::new(TUNNEL, TransportProtocol::UDP, None);
        if !is_client {
            endpoint.set_server_config(Some(identity.config(false)?));
        }
        Ok(Self {
            identity,
            endpoint,
            is_client,
            begun: false,
            keys: None,
            profile: None,
        })
    }

    /// What was agreed, once it was.
    pub fn profile(&self) -> Option<&'static str> {
        self.profile
    }

    /// There is a path: a client says hello.
    pub fn path_found(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.is_client && !std::mem::replace(&mut self.begun, true) {
            let config = self.identity.config(true)?;
            self.endpoint.connect(now, TUNNEL, config, None)?;
        }
        Ok(())
    }

    pub fn handle(&mut self, now: Instant, datagram: &[u8]) -> anyhow::Result<()> {
        if self.is_client && !self.begun {
            return Ok(());
        }
        for event in self
            .endpoint
            .read(now, TUNNEL, None, BytesMut::from(datagram))?
        {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self
                        .endpoint
                        .get_connection_state(TUNNEL)
                        .context("no DTLS state")?;
                    let (keys, profile) = keys(state, &self.identity)?;
                    self.keys = Some(keys);
                    self.profile = Some(profile);
                }
                EndpointEvent::PeerClosed => anyhow::bail!("the server closed DTLS"),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn handle_timeout(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.endpoint.get_connection_state(TUNNEL).is_some() {
            self.endpoint.handle_timeout(TUNNEL, now)?;
        }
        Ok(())
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&TUNNEL)
    }

    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        Some(self.endpoint.poll_transmit()?.message.freeze())
    }

    /// SRTP to RTP; None before the keys, or when it is not authentic.
    pub fn open(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.keys.as_mut()?.1.decrypt_rtp(packet).ok()
    }

    /// RTCP to SRTCP.
    pub fn seal_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.keys.as_mut()?.0.encrypt_rtcp(packet).ok()
    }

    pub fn close(&mut self, now: Instant) {
        // Leaving anyway: a server that is not told finds out by itself.
        if self.endpoint.close(now).is_err() {
            self.keys = None;
        }
    }
}

/// Our and their SRTP keys out of the handshake (RFC 5764 §4.2).
fn keys(state: &State, identity: &Identity) -> Result<((Context, Context), &'static str), Error> {
    let (profile, name) = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => {
            (ProtectionProfile::AeadAes128Gcm, "AES-128-GCM")
        }
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => {
            (ProtectionProfile::AeadAes256Gcm, "AES-256-GCM")
        }
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => {
            (ProtectionProfile::Aes128CmHmacSha1_80, "AES-CM-SHA1")
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
    let context = |key: &[u8], salt: &[u8]| {
        Context::new(key, salt, profile, None, None, identity.crypto.crypto())
    };
    let k = &config.keys;
    let ours = context(&k.local_master_key, &k.local_master_salt)?;
    let theirs = context(&k.remote_master_key, &k.remote_master_salt)?;
    Ok(((ours, theirs), name))
}
