//! Certificates that devices show: who signed them (files that may change while the gateway runs), and which device one
//! names.
//!
//! Here: checking and reading. Not here: whether the device is registered (`registry`), what follows (`listen::mqtt`).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{LOOK_EVERY, RELOADS, Stamp, TlsError, stamp};
use crate::ids::is_id;

/// In front of a device id in a URI of a certificate's subject alternative name.
const URN: &str = "urn:kerbside:device:";
/// Host names of one certificate that are looked at.
const NAMES_MAX: usize = 16;

/// Which certificates devices may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCerts {
    /// Who signs them, PEM.
    pub ca_file: PathBuf,
    /// Which of them are withdrawn, PEM.
    pub crl_file: Option<PathBuf>,
    /// Nobody comes in without one.
    pub is_required: bool,
}

impl ClientCerts {
    fn stamps(&self) -> [Stamp; 2] {
        [
            stamp(&self.ca_file),
            self.crl_file.as_deref().and_then(stamp),
        ]
    }

    fn load(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let bad_ca = |reason: String| TlsError::ClientCa {
            path: self.ca_file.clone(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        let certs = CertificateDer::pem_file_iter(&self.ca_file);
        for cert in certs.map_err(|e| bad_ca(e.to_string()))? {
            let cert = cert.map_err(|e| bad_ca(e.to_string()))?;
            roots.add(cert).map_err(|e| bad_ca(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad_ca("no certificate in it".to_owned()));
        }
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if let Some(path) = &self.crl_file {
            let bad_crl = |reason: String| TlsError::ClientCrl {
                path: path.clone(),
                reason,
            };
            let lists: Vec<_> = CertificateRevocationListDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|e| bad_crl(e.to_string()))?;
            if lists.is_empty() {
                return Err(bad_crl("no revocation list in it".to_owned()));
            }
            // One list says nothing of the certificates of another authority.
            builder = builder
                .with_crls(lists)
                .only_check_end_entity_revocation()
                .allow_unknown_revocation_status();
        }
        if !self.is_required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|e| match &self.crl_file {
            Some(path) => TlsError::ClientCrl {
                path: path.clone(),
                reason: e.to_string(),
            },
            None => bad_ca(e.to_string()),
        })
    }
}

/// The current rules, read again when their files change; files that cannot be used leave the former in force.
pub(super) struct Verifier {
    certs: ClientCerts,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

struct Current {
    verifier: Arc<dyn ClientCertVerifier>,
    stamps: [Stamp; 2],
    looked: Instant,
}

impl Verifier {
    pub fn new(
        certs: ClientCerts,
        provider: Arc<CryptoProvider>,
        now: Instant,
    ) -> Result<Self, TlsError> {
        // Stamps first: a change during the reading is then seen at the next look.
        let current = Current {
            stamps: certs.stamps(),
            verifier: certs.load(&provider)?,
            looked: now,
        };
        Ok(Self {
            certs,
            provider,
            current: Mutex::new(current),
        })
    }

    fn at(&self, now: Instant) -> Arc<dyn ClientCertVerifier> {
        let mut current = self.current.lock();
        if now.saturating_duration_since(current.looked) >= LOOK_EVERY {
            current.looked = now;
            let stamps = self.certs.stamps();
            if stamps != current.stamps {
                current.stamps = stamps;
                let result = match self.certs.load(&self.provider) {
                    Ok(verifier) => {
                        current.verifier = verifier;
                        tracing::info!(ca_file = %self.certs.ca_file.display(), "new rules for devices' certificates in use");
                        "taken"
                    }
                    Err(e) => {
                        tracing::error!(error = %e, "the new rules for devices' certificates cannot be used; the old ones stay in use");
                        "refused"
                    }
                };
                RELOADS.with_label_values(&[result]).inc();
            }
        }
        current.verifier.clone()
    }

    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        self.at(Instant::now())
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.certs.is_required
    }

    /// None: they may change, and a device has one certificate anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.now()
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.certs.ca_file.display())
    }
}

/// The devices that a checked certificate may speak for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    names: Vec<String>,
}

impl Identity {
    /// Reads the names: `urn:kerbside:device:{id}` of the subject alternative name alone if there is one, else its host
    /// names and the common name, as far as they are device ids. None, when it cannot be read or names no device.
    pub fn of(cert: &CertificateDer<'_>) -> Self {
        let Ok((_, cert)) = X509Certificate::from_der(cert) else {
            return Self::default();
        };
        let (mut urns, mut hosts) = (Vec::new(), Vec::new());
        let extensions = cert.extensions().iter();
        for name in extensions
            .filter_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => Some(&san.general_names),
                _ => None,
            })
            .flatten()
            .take(NAMES_MAX)
        {
            match name {
                GeneralName::URI(uri) => urns.extend(uri.strip_prefix(URN)),
                GeneralName::DNSName(host) => hosts.push(*host),
                _ => {}
            }
        }
        let common = cert.subject().iter_common_name().next();
        let common = common.and_then(|n| n.as_str().ok());
        let mut names: Vec<String> = Vec::new();
        // The common name first: who gives no user name is that one.
        let all = if urns.is_empty() {
            common.into_iter().chain(hosts).collect()
        } else {
            urns
        };
        for name in all {
            if is_id(name) && !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        }
        Self { names }
    }

    /// The device that comes with this user name, or without one; None: the certificate is not of that device.
    pub fn device(&self, user: Option<&str>) -> Option<&str> {
        let mut names = self.names.iter().map(String::as_str);
        match user {
            Some(user) => names.find(|n| *n == user),
            None => names.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
        KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    };
    use rustls::crypto::aws_lc_rs;

    use super::*;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        fn new() -> Self {
            let mut p = CertificateParams::new(Vec::new()).unwrap();
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = KeyPair::generate().unwrap();
            let pem = p.self_signed(&key).unwrap().pem();
            Self {
                issuer: Issuer::new(p, key),
                pem,
            }
        }

        fn signs(&self, common: &str, names: &[&str], serial: u64) -> CertificateDer<'static> {
            let mut p = CertificateParams::new(Vec::new()).unwrap();
            p.distinguished_name = rcgen::DistinguishedName::new();
            if !common.is_empty() {
                p.distinguished_name.push(DnType::CommonName, common);
            }
            let alternative = |n: &&str| match n.contains(':') {
                true => SanType::URI((*n).try_into().unwrap()),
                false => SanType::DnsName((*n).try_into().unwrap()),
            };
            p.subject_alt_names = names.iter().map(alternative).collect();
            p.serial_number = Some(SerialNumber::from(serial));
            let key = KeyPair::generate().unwrap();
            p.signed_by(&key, &self.issuer).unwrap().der().clone()
        }

        fn withdraws(&self, serial: u64) -> String {
            let now = rcgen::date_time_ymd(2026, 1, 1);
            let params = CertificateRevocationListParams {
                this_update: now,
                next_update: rcgen::date_time_ymd(2099, 1, 1),
                crl_number: SerialNumber::from(1u64),
                issuing_distribution_point: None,
                revoked_certs: vec![RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: now,
                    reason_code: None,
                    invalidity_date: None,
                }],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(&self.issuer).unwrap().pem().unwrap()
        }
    }

    #[test]
    fn which_device_a_certificate_names() {
        let ca = Authority::new();
        for (common, names, user, device) in [
            ("bc-01", &[][..], None, Some("bc-01")),
            ("bc-01", &[], Some("bc-01"), Some("bc-01")),
            ("bc-01", &[], Some("bc-02"), None),
            ("bc-01", &["bc-02"], Some("bc-02"), Some("bc-02")),
            ("", &["bc-02"], None, Some("bc-02")),
            ("bc-01", &["urn:kerbside:device:uav-7"], None, Some("uav-7")),
            ("bc-01", &["urn:kerbside:device:uav-7"], Some("bc-01"), None),
            ("Zhang San 42", &[], None, None),
            ("", &["urn:kerbside:device:a/b"], None, None),
        ] {
            let identity = Identity::of(&ca.signs(common, names, 7));
            assert_eq!(identity.device(user), device, "{common} {names:?} {user:?}");
        }
        let junk = CertificateDer::from(vec![0x30, 0x82]);
        assert_eq!(Identity::of(&junk).device(None), None);
    }

    #[test]
    fn who_signed_and_what_is_withdrawn_follow_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Authority::new(), Authority::new());
        let certs = ClientCerts {
            ca_file: dir.path().join("ca.pem"),
            crl_file: Some(dir.path().join("crl.pem")),
            is_required: true,
        };
        let write = |ca: &str, crl: &str| {
            std::fs::write(&certs.ca_file, ca).unwrap();
            std::fs::write(dir.path().join("crl.pem"), crl).unwrap();
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let start = Instant::now();
        let open = || Verifier::new(certs.clone(), provider.clone(), start);
        let fault = |v: Result<Verifier, TlsError>| v.err().unwrap().to_string();
        assert!(fault(open()).contains("ca.pem"));
        write("", &old.withdraws(9));
        assert!(fault(open()).contains("no certificate"));
        write(&old.pem, "");
        assert!(fault(open()).contains("no revocation list"));
        write(&old.pem, &old.withdraws(9));
        let v = open().unwrap();
        let takes = |after: Duration, cert: &CertificateDer<'_>| {
            let now = UnixTime::now();
            v.at(start + after)
                .verify_client_cert(cert, &[], now)
                .is_ok()
        };
        let (good, withdrawn) = (old.signs("d", &[], 8), old.signs("d", &[], 9));
        let foreign = new.signs("d", &[], 8);
        assert!(takes(Duration::ZERO, &good));
        assert!(!takes(Duration::ZERO, &withdrawn));
        assert!(!takes(Duration::ZERO, &foreign));
        write(&new.pem, &new.withdraws(10));
        assert!(takes(LOOK_EVERY, &foreign) && !takes(LOOK_EVERY, &good));
        write("half", &new.withdraws(8));
        assert!(takes(2 * LOOK_EVERY, &foreign), "the old rules stay");
        write(&new.pem, &new.withdraws(8));
        assert!(!takes(3 * LOOK_EVERY, &foreign));
    }
}
