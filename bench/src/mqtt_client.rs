//! A device as cheap as it can be: MQTT v3.1.1 over TCP or TLS, one message at a time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connected device.
pub struct Device {
    io: Box<dyn Io>,
    topic: String,
    packet: Vec<u8>,
    next_id: u16,
}

/// Who connects to what.
#[derive(Clone)]
pub struct Target {
    pub addr: &'static str,
    /// None: plain TCP.
    pub tls: Option<TlsConnector>,
}

fn string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend_from_slice(&u16::try_from(s.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(s);
}

fn packet(out: &mut Vec<u8>, kind: u8, body: &[&[u8]]) {
    out.push(kind);
    let mut n: usize = body.iter().map(|b| b.len()).sum();
    loop {
        let b = (n % 128) as u8;
        n /= 128;
        out.push(if n > 0 { b | 0x80 } else { b });
        if n == 0 {
            break;
        }
    }
    body.iter().for_each(|b| out.extend_from_slice(b));
}

impl Device {
    pub async fn connect(
        target: &Target,
        id: &str,
        password: Option<&str>,
    ) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.addr).await?;
        tcp.set_nodelay(true)?;
        let mut io: Box<dyn Io> = match &target.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(tls.connect(ServerName::try_from("localhost")?, tcp).await?),
        };
        let mut body = Vec::new();
        string(&mut body, b"MQTT");
        body.push(4);
        body.push(if password.is_some() { 0xc2 } else { 0x02 });
        body.extend_from_slice(&1200u16.to_be_bytes());
        string(&mut body, id.as_bytes());
        if let Some(password) = password {
            string(&mut body, id.as_bytes());
            string(&mut body, password.as_bytes());
        }
        let mut connect = Vec::new();
        packet(&mut connect, 0x10, &[&body]);
        io.write_all(&connect).await?;
        let mut ack = [0; 4];
        io.read_exact(&mut ack).await?;
        if ack[0] != 0x20 || ack[3] != 0 {
            bail!("{id}: CONNACK {ack:?}");
        }
        let mut topic = Vec::new();
        string(&mut topic, format!("kerbside/v1/{id}/report").as_bytes());
        Ok(Self {
            io,
            topic: String::from_utf8(topic)?,
            packet: Vec::with_capacity(512),
            next_id: 0,
        })
    }

    /// Sends a message and waits for all that its quality of service wants.
    pub async fn send(&mut self, payload: &[u8], qos: u8) -> anyhow::Result<()> {
        self.packet.clear();
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let id = self.next_id.to_be_bytes();
        let id_part: &[u8] = if qos > 0 { &id } else { &[] };
        packet(
            &mut self.packet,
            0x30 | qos << 1,
            &[self.topic.as_bytes(), id_part, payload],
        );
        self.io.write_all(&self.packet).await?;
        match qos {
            0 => Ok(()),
            1 => self.expect(0x40, id).await.context("PUBACK"),
            _ => {
                self.expect(0x50, id).await.context("PUBREC")?;
                self.io.write_all(&[0x62, 2, id[0], id[1]]).await?;
                self.expect(0x70, id).await.context("PUBCOMP")
            }
        }
    }

    async fn expect(&mut self, kind: u8, id: [u8; 2]) -> anyhow::Result<()> {
        let mut ack = [0; 4];
        self.io.read_exact(&mut ack).await?;
        if ack != [kind, 2, id[0], id[1]] {
            bail!("got {ack:02x?}");
        }
        Ok(())
    }
}

/// A TLS client that takes any certificate: the load generator trusts itself.
pub fn any_certificate() -> anyhow::Result<TlsConnector> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A report of 259 bytes, as a body camera sends it. `mode`: any text of up to 20 characters.
pub fn report(n: u64, mode: &str) -> Vec<u8> {
    let lat = 37.69 + (n % 1000) as f64 * 1e-6;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.map_or(0, |d| d.as_millis());
    let text = format!(
        r#"{{"time_ms":{now_ms},"position":{{"lat":{lat:.7},"lon":112.7501234,"alt_m":801.5,"accuracy_m":5.0,"speed_mps":1.25,"heading_deg":271.5}},"battery_pct":83,"kind":"bodycam","model":"X5","mode":"{mode}""#,
    );
    let pad = 259usize.saturating_sub(text.len() + 9);
    format!("{text},\"pad\":\"{}\"}}", "x".repeat(pad)).into_bytes()
}

/// Waits until something answers on the address.
pub async fn up(addr: &str) -> anyhow::Result<()> {
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(addr).await.is_err() {
        if std::time::Instant::now() > until {
            bail!("nothing answers on {addr}");
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
