//! The certificate that the gateway makes for itself when it was given none: key and certificate in one file of the
//! state directory, so that they are replaced together.
//!
//! Nobody vouches for it: whoever connects for the first time compares its fingerprint with the one in the log.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::CryptoProvider;
use time::OffsetDateTime;

use super::{Files, TlsError, Told};

/// Private key and certificate, PEM, mode 0600.
pub const FILE: &str = "self-signed.pem";
const VALID: Duration = Duration::from_secs(2 * 365 * 86_400);
/// A new one is made so long before the end of the old one.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// 2026-01-01: a clock that says less has not been set yet.
const CLOCK_MIN: i64 = 1_767_225_600;

/// Who the certificate is for.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    path: PathBuf,
    box_id: String,
}

impl SelfSigned {
    pub fn new(state_dir: &Path, box_id: &str) -> Self {
        Self {
            path: state_dir.join(FILE),
            box_id: box_id.to_owned(),
        }
    }

    pub(super) fn files(&self) -> Files {
        Files {
            cert: self.path.clone(),
            key: self.path.clone(),
        }
    }

    /// Makes one if there is none, or none that is good for another month. `now`: seconds since 1970 UTC.
    ///
    /// # Errors
    /// [`TlsError::SelfSigned`] when it cannot be made or written.
    pub(super) fn ensure(&self, provider: &CryptoProvider, now: i64) -> Result<(), TlsError> {
        let reason = match self.files().load(provider) {
            Ok((_, told)) if !is_due(&told, now) => return Ok(()),
            Ok(_) => Some("it ends soon".to_owned()),
            Err(e) => self.path.exists().then(|| e.to_string()),
        };
        self.make(now).map_err(|reason| TlsError::SelfSigned {
            path: self.path.clone(),
            reason,
        })?;
        let file = self.path.display();
        match reason {
            None => tracing::info!(%file, "a self-signed certificate was made"),
            Some(reason) => {
                tracing::warn!(%file, reason, "the self-signed certificate was replaced: clients that trust the old one must be told the new fingerprint");
            }
        }
        Ok(())
    }

    fn make(&self, now: i64) -> Result<(), String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| text(&e))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("kerbside {}", self.box_id));
        params.subject_alt_names = names(&self.box_id);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let from = now.max(CLOCK_MIN);
        // A day ago: clocks of devices are not all right.
        params.not_before =
            OffsetDateTime::from_unix_timestamp(from - 86_400).map_err(|e| text(&e))?;
        params.not_after = params.not_before + VALID;
        let cert = params.self_signed(&key).map_err(|e| text(&e))?;
        let pem = format!("{}{}", key.serialize_pem(), cert.pem());
        write(&self.path, &pem).map_err(|e| text(&e))
    }
}

/// Does it end within a month?
pub(super) fn is_due(told: &Told, now: i64) -> bool {
    now.saturating_add(RENEW_BEFORE.as_secs().cast_signed()) >= told.expires
}

/// Names and addresses that this machine is reached by, as far as it knows.
fn names(box_id: &str) -> Vec<SanType> {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let mut dns = vec![box_id.to_owned(), host, "localhost".to_owned()];
    dns.dedup();
    let here = [
        IpAddr::from([127, 0, 0, 1]),
        std::net::Ipv6Addr::LOCALHOST.into(),
    ];
    let mut all: Vec<IpAddr> = match rtc::shared::ifaces::ifaces() {
        Ok(found) => found
            .into_iter()
            .filter_map(|i| Some(i.addr?.ip()))
            .collect(),
        Err(e) => {
            tracing::warn!(error = %e, "the addresses of this machine are not known; the certificate holds its names only");
            Vec::new()
        }
    };
    all.extend(here);
    all.sort_unstable();
    all.dedup();
    let dns = dns
        .into_iter()
        .filter_map(|name| Some(SanType::DnsName(name.try_into().ok()?)));
    dns.chain(all.into_iter().map(SanType::IpAddress)).collect()
}

/// All or nothing, and nobody else can read it.
fn write(path: &Path, pem: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    // Left over by a crash, perhaps with another mode.
    if let Err(e) = std::fs::remove_file(&new)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::crypto::aws_lc_rs;
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    use super::*;

    /// 2026-11-21.
    const NOW: i64 = 1_795_219_200;

    fn told(own: &SelfSigned, now: i64) -> Told {
        let provider = aws_lc_rs::default_provider();
        own.ensure(&provider, now).unwrap();
        own.files().load(&provider).unwrap().1
    }

    #[test]
    fn made_once_and_renewed_before_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let own = SelfSigned::new(dir.path(), "yuci-1");
        let first = told(&own, NOW);
        assert_eq!(first.expires, NOW - 86_400 + VALID.as_secs().cast_signed());
        let mode = std::fs::metadata(&own.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let month = RENEW_BEFORE.as_secs().cast_signed();
        let last = first.expires - month - 1;
        assert_eq!(told(&own, last).fingerprint, first.fingerprint);
        let renewed = told(&own, last + 1);
        assert_ne!(renewed.fingerprint, first.fingerprint);
        assert!(renewed.expires > first.expires);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let own = SelfSigned::new(dir.path(), "yuci-1");
        let first = told(&own, NOW);
        let pem = std::fs::read_to_string(&own.path).unwrap();
        let other = tempfile::tempdir().unwrap();
        let another = SelfSigned::new(other.path(), "yuci-1");
        told(&another, NOW);
        let stranger = std::fs::read_to_string(&another.path).unwrap();
        let (key, cert) = (
            pem.split_inclusive("-----END PRIVATE KEY-----\n")
                .next()
                .unwrap(),
            stranger
                .split_once("-----END PRIVATE KEY-----\n")
                .unwrap()
                .1,
        );
        for damage in [
            String::new(),
            pem[..pem.len() / 2].to_owned(),
            format!("{key}{cert}"),
        ] {
            std::fs::write(&own.path, damage).unwrap();
            let next = told(&own, NOW);
            assert_ne!(next.fingerprint, first.fingerprint);
        }
    }

    #[test]
    fn a_clock_that_was_never_set_makes_one_that_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let own = SelfSigned::new(dir.path(), "yuci-1");
        let made = told(&own, 1000);
        assert!(made.expires > CLOCK_MIN);
        let set = told(&own, CLOCK_MIN + 86_400);
        assert_eq!(set.fingerprint, made.fingerprint);
    }

    #[test]
    fn it_names_the_box_and_its_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let own = SelfSigned::new(dir.path(), "yuci-1");
        told(&own, NOW);
        let provider = aws_lc_rs::default_provider();
        let (key, _) = own.files().load(&provider).unwrap();
        let (_, cert) = X509Certificate::from_der(&key.cert[0]).unwrap();
        let names = cert.subject_alternative_name().unwrap().unwrap();
        let names = &names.value.general_names;
        for dns in ["yuci-1", "localhost"] {
            assert!(names.contains(&GeneralName::DNSName(dns)), "{names:?}");
        }
        assert!(
            names.contains(&GeneralName::IPAddress(&[127, 0, 0, 1])),
            "{names:?}"
        );
    }
}
