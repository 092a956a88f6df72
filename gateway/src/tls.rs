//! TLS for the listeners: one certificate, read again when its files change. Sessions that are there go on with the
//! old one; new handshakes get the new one.
//!
//! A certificate that cannot be used (half written, key of another one) is told once and the old one stays.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Least time between two looks at the files; a look happens with a handshake.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("tls.cert_file {path}: {reason}; it must hold the certificate and its chain in PEM")]
    Cert { path: PathBuf, reason: String },
    #[error(
        "tls.key_file {path}: {reason}; it must hold the certificate's private key in PEM (PKCS#8, PKCS#1 or SEC1)"
    )]
    Key { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A server configuration (TLS 1.2 and 1.3, no client certificates) that follows the files.
///
/// # Errors
/// [`TlsError`] when the files cannot be read now, or do not belong together.
pub fn server_config(cert_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let files = Files {
        cert: cert_file.to_owned(),
        key: key_file.to_owned(),
    };
    let follower = Follower::new(files, provider.clone(), Instant::now())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(follower));
    Ok(Arc::new(config))
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What tells one version of a file from the next.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        let stamp = |m: Metadata| (m.ino(), m.len(), m.mtime(), m.mtime_nsec());
        [&self.cert, &self.key].map(|path| std::fs::metadata(path).ok().map(stamp))
    }

    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let bad_cert = |reason: String| TlsError::Cert {
            path: self.cert.clone(),
            reason,
        };
        let bad_key = |reason: String| TlsError::Key {
            path: self.key.clone(),
            reason,
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.cert)
            .map_err(|e| bad_cert(e.to_string()))?
            .collect::<Result<_, _>>()
            .map_err(|e| bad_cert(e.to_string()))?;
        if chain.is_empty() {
            return Err(bad_cert("no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| bad_key(e.to_string()))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|e| bad_key(e.to_string()))
    }
}

/// The current certificate.
struct Follower {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    stamps: [Stamp; 2],
    looked: Instant,
}

impl Follower {
    fn new(files: Files, provider: Arc<CryptoProvider>, now: Instant) -> Result<Self, TlsError> {
        // Stamps first: a change during the reading is then seen at the next look.
        let stamps = files.stamps();
        let key = Arc::new(files.load(&provider)?);
        Ok(Self {
            files,
            provider,
            current: Mutex::new(Current {
                key,
                stamps,
                looked: now,
            }),
        })
    }

    fn at(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut current = self.current.lock();
        if now.saturating_duration_since(current.looked) >= LOOK_EVERY {
            current.looked = now;
            let stamps = self.files.stamps();
            if stamps != current.stamps {
                current.stamps = stamps;
                match self.files.load(&self.provider) {
                    Ok(key) => {
                        current.key = Arc::new(key);
                        tracing::info!(cert_file = %self.files.cert.display(), "new TLS certificate in use");
                    }
                    Err(e) => {
                        tracing::error!(error = %e, "the new TLS certificate cannot be used; the old one stays in use");
                    }
                }
            }
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for Follower {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Instant::now()))
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follower({})", self.files.cert.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        cert_pem: String,
        key_pem: String,
        der: CertificateDer<'static>,
    }

    fn pair() -> Pair {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Pair {
            cert_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    fn write(dir: &Path, cert: &str, key: &str) -> Files {
        let files = Files {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        };
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    #[test]
    fn follows_its_files_and_keeps_the_old_one_when_the_new_one_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (pair(), pair());
        let files = write(dir.path(), &old.cert_pem, &old.key_pem);
        let mut now = Instant::now();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let follower = Follower::new(files, provider, now).unwrap();
        let mut used = |after: Duration| {
            now += after;
            follower.at(now).cert[0].clone()
        };
        // The certificate is there, its key is not yet.
        write(dir.path(), &new.cert_pem, &old.key_pem);
        assert_eq!(used(LOOK_EVERY), old.der);
        write(dir.path(), &new.cert_pem, &new.key_pem);
        assert_eq!(
            used(Duration::ZERO),
            old.der,
            "files are not looked at with every handshake"
        );
        assert_eq!(used(LOOK_EVERY), new.der);
        std::fs::remove_file(dir.path().join("key.pem")).unwrap();
        assert_eq!(used(LOOK_EVERY), new.der);
    }

    #[test]
    fn faults_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (pair(), pair());
        let told = |cert: &str, key: &str| {
            let f = write(dir.path(), cert, key);
            server_config(&f.cert, &f.key).unwrap_err().to_string()
        };
        assert!(told("", &one.key_pem).contains("cert.pem: no certificate"));
        assert!(told(&one.cert_pem, "junk").contains("key.pem"));
        assert!(told(&one.cert_pem, &other.key_pem).contains("key.pem"));
        let missing = dir.path().join("missing.pem");
        let text = server_config(&missing, &missing).unwrap_err().to_string();
        assert!(text.contains("missing.pem"), "{text}");
    }

    #[tokio::test]
    async fn a_handshake_and_a_request_over_it() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let dir = tempfile::tempdir().unwrap();
        let made = pair();
        let files = write(dir.path(), &made.cert_pem, &made.key_pem);
        let config = server_config(&files.cert, &files.key).unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = tokio_rustls::TlsAcceptor::from(config)
                .accept(tcp)
                .await
                .unwrap();
            let mut head = [0; 4];
            tls.read_exact(&mut head).await.unwrap();
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            tls.shutdown().await.unwrap();
            head
        });
        let root = reqwest::Certificate::from_pem(made.cert_pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder()
            .tls_certs_only([root])
            .no_proxy()
            .build()
            .unwrap();
        let answer = client
            .get(format!("https://localhost:{port}/"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.text().await.unwrap(), "ok");
        assert_eq!(&server.await.unwrap(), b"GET ");
    }
}
