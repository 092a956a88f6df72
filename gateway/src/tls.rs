//! TLS for the listeners: one certificate, read again when its files change. Sessions that are there go on with the
//! old one; new handshakes get the new one.
//!
//! A certificate that cannot be used (half written, key of another one) is told once and the old one stays. Whoever gives
//! no certificate gets one of the gateway's own (`self_signed`).

mod clients;
mod self_signed;

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use clients::{ClientCerts, Identity};
pub use self_signed::SelfSigned;

use crate::{clock, metrics};

static RELOADS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_tls_reloads_total",
        "Certificates read again after their files changed",
        &["result"],
    )
});
static EXPIRES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_tls_certificate_expires_seconds",
        "When the certificate in use ends, seconds since 1970 UTC",
        &[],
    )
});

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
    #[error("{path}: {reason}; the gateway keeps the certificate there that it makes for itself")]
    SelfSigned { path: PathBuf, reason: String },
    #[error(
        "tls.client_ca_file {path}: {reason}; it must hold the certificates of who signs devices' certificates, in PEM"
    )]
    ClientCa { path: PathBuf, reason: String },
    #[error("tls.client_crl_file {path}: {reason}; it must hold revocation lists in PEM")]
    ClientCrl { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The operator's, in PEM.
    Given {
        cert: PathBuf,
        key: PathBuf,
    },
    Own(SelfSigned),
}

/// The gateway's side of TLS (1.2 and 1.3), with one certificate that follows its files.
pub struct Server {
    provider: Arc<CryptoProvider>,
    follower: Arc<Follower>,
}

impl Server {
    /// # Errors
    /// [`TlsError`] when the files cannot be read now, or do not belong together; when an own one cannot be made.
    pub fn open(source: Source) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let now = (Instant::now(), clock::unix_ms() / 1000);
        let follower = Arc::new(Follower::new(source, provider.clone(), now)?);
        Ok(Self { provider, follower })
    }

    /// For who is asked for no certificate: browsers, players, cameras.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.follower.clone());
        Ok(Arc::new(config))
    }

    /// For devices that show a certificate. Handshakes are never resumed: a certificate that was revoked meanwhile
    /// would not be looked at again.
    ///
    /// # Errors
    /// [`TlsError`] when the files of `clients` cannot be read now.
    pub fn config_for(&self, clients: ClientCerts) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = clients::Verifier::new(clients, self.provider.clone(), Instant::now())?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(self.follower.clone());
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// The configuration of [`Server::config`], for who needs no other.
///
/// # Errors
/// As [`Server::open`].
pub fn server_config(source: Source) -> Result<Arc<ServerConfig>, TlsError> {
    Server::open(source)?.config()
}

/// What people are told about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// SHA-256 of the certificate, as browsers and `openssl x509 -fingerprint -sha256` show it.
    pub fingerprint: String,
    /// Seconds since 1970 UTC.
    pub expires: i64,
}

impl Told {
    fn of(cert: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(cert).map_err(|e| e.to_string())?;
        let digest = Sha256::digest(cert);
        let digest: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self {
            fingerprint: digest.join(":"),
            expires: parsed.validity().not_after.timestamp(),
        })
    }

    /// RFC 3339.
    pub fn expires_at(&self) -> String {
        clock::rfc3339(self.expires.saturating_mul(1000))
    }
}

/// The gateway's own certificate, if it was made and this user may read it.
pub fn own(state_dir: &Path) -> Option<Told> {
    let files = SelfSigned::new(state_dir, "").files();
    Some(files.load(&aws_lc_rs::default_provider()).ok()?.1)
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What tells one version of a file from the next; its rights count too.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let of = |m: Metadata| (m.ino(), m.len(), m.ctime(), m.ctime_nsec());
    std::fs::metadata(path).ok().map(of)
}

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        [&self.cert, &self.key].map(|path| stamp(path))
    }

    fn load(&self, provider: &CryptoProvider) -> Result<(CertifiedKey, Told), TlsError> {
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
        let Some(first) = chain.first() else {
            return Err(bad_cert("no certificate in it".to_owned()));
        };
        let told = Told::of(first).map_err(bad_cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| bad_key(e.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, provider);
        Ok((key.map_err(|e| bad_key(e.to_string()))?, told))
    }
}

/// The current certificate.
struct Follower {
    files: Files,
    /// Of the gateway's own.
    own: Option<SelfSigned>,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    told: Told,
    stamps: [Stamp; 2],
    looked: Instant,
}

/// Monotonic, and seconds since 1970 UTC.
type Now = (Instant, i64);

impl Follower {
    fn new(source: Source, provider: Arc<CryptoProvider>, now: Now) -> Result<Self, TlsError> {
        let (files, own) = match source {
            Source::Given { cert, key } => (Files { cert, key }, None),
            Source::Own(own) => {
                own.ensure(&provider, now.1)?;
                (own.files(), Some(own))
            }
        };
        // Stamps first: a change during the reading is then seen at the next look.
        let stamps = files.stamps();
        let (key, told) = files.load(&provider)?;
        let (fingerprint, expires) = (&told.fingerprint, told.expires_at());
        EXPIRES.with_label_values::<&str>(&[]).set(told.expires);
        if own.is_some() {
            tracing::info!(%fingerprint, expires, "TLS with a self-signed certificate: compare its SHA-256 fingerprint at the first connection");
        } else {
            tracing::info!(%fingerprint, expires, "TLS certificate in use");
        }
        Ok(Self {
            files,
            own,
            provider,
            current: Mutex::new(Current {
                key: Arc::new(key),
                told,
                stamps,
                looked: now.0,
            }),
        })
    }

    fn at(&self, now: Now) -> Arc<CertifiedKey> {
        let mut current = self.current.lock();
        if now.0.saturating_duration_since(current.looked) >= LOOK_EVERY {
            current.looked = now.0;
            if let Some(own) = &self.own
                && self_signed::is_due(&current.told, now.1)
                && let Err(e) = own.ensure(&self.provider, now.1)
            {
                tracing::error!(error = %e, "the self-signed certificate cannot be renewed; the old one stays in use");
            }
            let stamps = self.files.stamps();
            if stamps != current.stamps {
                current.stamps = stamps;
                self.take(&mut current);
            }
        }
        current.key.clone()
    }

    /// Takes what the files hold now, or keeps what it has.
    fn take(&self, current: &mut Current) {
        let result = match self.files.load(&self.provider) {
            Ok((key, told)) => {
                let (fingerprint, expires) = (&told.fingerprint, told.expires_at());
                tracing::info!(cert_file = %self.files.cert.display(), %fingerprint, expires, "new TLS certificate in use");
                EXPIRES.with_label_values::<&str>(&[]).set(told.expires);
                (current.key, current.told) = (Arc::new(key), told);
                "taken"
            }
            Err(e) => {
                tracing::error!(error = %e, "the new TLS certificate cannot be used; the old one stays in use");
                "refused"
            }
        };
        RELOADS.with_label_values(&[result]).inc();
    }
}

impl ResolvesServerCert for Follower {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at((Instant::now(), clock::unix_ms() / 1000)))
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

    fn write(dir: &Path, cert: &str, key: &str) -> Source {
        let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert_file, cert).unwrap();
        std::fs::write(&key_file, key).unwrap();
        Source::Given {
            cert: cert_file,
            key: key_file,
        }
    }

    #[test]
    fn follows_its_files_and_keeps_the_old_one_when_the_new_one_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (pair(), pair());
        let files = write(dir.path(), &old.cert_pem, &old.key_pem);
        let mut now = (Instant::now(), 1_795_219_200);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let follower = Follower::new(files, provider, now).unwrap();
        let refused = RELOADS.with_label_values(&["refused"]).get();
        let mut used = |after: Duration| {
            now.0 += after;
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
        assert!(RELOADS.with_label_values(&["refused"]).get() >= refused + 2);
    }

    #[test]
    fn an_own_one_is_renewed_while_the_gateway_runs() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Own(SelfSigned::new(dir.path(), "yuci-1"));
        let (start, today) = (Instant::now(), 1_795_219_200);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let follower = Follower::new(source, provider, (start, today)).unwrap();
        let first = follower.at((start + LOOK_EVERY, today));
        assert_eq!(own(dir.path()).unwrap(), Told::of(&first.cert[0]).unwrap());
        let later = follower.at((start + 2 * LOOK_EVERY, today + 2 * 365 * 86_400));
        assert_ne!(later.cert, first.cert);
        assert_eq!(own(dir.path()).unwrap(), Told::of(&later.cert[0]).unwrap());
    }

    #[test]
    fn faults_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (pair(), pair());
        let told = |cert: &str, key: &str| {
            let given = write(dir.path(), cert, key);
            Server::open(given).err().unwrap().to_string()
        };
        assert!(told("", &one.key_pem).contains("cert.pem: no certificate"));
        assert!(told(&one.cert_pem, "junk").contains("key.pem"));
        assert!(told(&one.cert_pem, &other.key_pem).contains("key.pem"));
        let missing = dir.path().join("missing.pem");
        let given = Source::Given {
            cert: missing.clone(),
            key: missing,
        };
        let text = Server::open(given).err().unwrap().to_string();
        assert!(text.contains("missing.pem"), "{text}");
    }

    #[tokio::test]
    async fn a_handshake_and_a_request_over_it() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let dir = tempfile::tempdir().unwrap();
        let made = pair();
        let files = write(dir.path(), &made.cert_pem, &made.key_pem);
        let config = Server::open(files).unwrap().config().unwrap();
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
