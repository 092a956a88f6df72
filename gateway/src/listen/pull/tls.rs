//! TLS to cameras (`rtsps://`): the certificate is one the operator named, by its fingerprint or its authority.
//!
//! No public authorities: a camera in a street has none of their certificates.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::ClientFault;
use crate::config::CameraTrust;

/// The handshake over a connection. Without `trust` nothing is trusted.
pub async fn connect(
    stream: TcpStream,
    host: &str,
    trust: Option<&CameraTrust>,
) -> Result<TlsStream<TcpStream>, ClientFault> {
    let fault = |e: &dyn std::fmt::Display| ClientFault::Tls(e.to_string());
    let name = ServerName::try_from(host.to_owned()).map_err(|e| fault(&e))?;
    let config = client_config(trust).map_err(|e| fault(&e))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|e| fault(&e))
}

fn client_config(trust: Option<&CameraTrust>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    Ok(match trust {
        Some(CameraTrust::Fingerprint(sha256)) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                sha256: *sha256,
                provider,
            }))
            .with_no_client_auth(),
        Some(CameraTrust::Authority(path)) => {
            let mut roots = RootCertStore::empty();
            let unreadable = |e: rustls::pki_types::pem::Error| {
                Error::General(format!("{}: {e}", path.display()))
            };
            for c in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                roots.add(c.map_err(unreadable)?)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    })
}

/// Exactly one certificate, whoever signed it and whatever name it bears.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown: [u8; 32] = Sha256::digest(end_entity).into();
        if shown == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
