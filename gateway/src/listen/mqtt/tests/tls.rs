//! The same over TLS.

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::*;

#[actix::test]
async fn a_device_connects_over_tls_and_plain_bytes_do_not() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .unwrap();
    let (y, desk) = yard_on(Some(Arc::new(server)), |_| {}).await;
    desk.own_all();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(y.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut io = TlsConnector::from(Arc::new(client))
        .connect(name, tcp)
        .await
        .unwrap();
    let mut hello = connect(V311, "d", &y.password);
    hello.extend(publish(4, 1, 7, REPORT, FIX));
    io.write_all(&hello).await.unwrap();
    let mut answer = [0; 8];
    timeout(LIMIT, io.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0, 0x40, 2, 0, 7]);

    let mut plain = Client::raw(&y, 4).await;
    plain.send(&connect(V311, "d", &y.password)).await;
    // A TLS alert at most, then the end.
    let mut rest = Vec::new();
    let end = timeout(LIMIT, plain.io.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(end.is_err() || rest.first().is_none_or(|b| *b == 0x15));
}

/// A certificate and its key that `ca` signed for a device.
fn device_cert(
    ca: &rcgen::Issuer<'_, rcgen::KeyPair>,
    common: &str,
) -> (
    rustls::pki_types::CertificateDer<'static>,
    PrivateKeyDer<'static>,
) {
    let mut p = rcgen::CertificateParams::new(Vec::new()).unwrap();
    p.distinguished_name = rcgen::DistinguishedName::new();
    p.distinguished_name.push(rcgen::DnType::CommonName, common);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = p.signed_by(&key, ca).unwrap().der().clone();
    (cert, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

#[actix::test]
async fn a_certificate_logs_its_device_in_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut p = rcgen::CertificateParams::new(Vec::new()).unwrap();
    p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, p.self_signed(&key).unwrap().pem()).unwrap();
    let ca = rcgen::Issuer::new(p, key);
    let own = crate::tls::SelfSigned::new(dir.path(), "yuci-1");
    let server = crate::tls::Server::open(crate::tls::Source::Own(own)).unwrap();
    let config = |is_required| {
        let clients = crate::tls::ClientCerts {
            ca_file: ca_file.clone(),
            crl_file: None,
            is_required,
        };
        server.config_for(clients).unwrap()
    };
    let pem = std::fs::read(dir.path().join("self-signed.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let cert: rustls::pki_types::CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    roots.add(cert).unwrap();
    // CONNACK's code; None: closed without one.
    let knock = async |y: &Yard, common: Option<&str>, user: &str, password: &str| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        let client = match common {
            None => client.with_no_client_auth(),
            Some(common) => {
                let (cert, key) = device_cert(&ca, common);
                client.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        let tcp = TcpStream::connect(y.addr).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut io = TlsConnector::from(Arc::new(client))
            .connect(name, tcp)
            .await
            .ok()?;
        io.write_all(&connect(V5, user, password)).await.ok()?;
        let mut answer = [0; 4];
        let read = timeout(LIMIT, io.read_exact(&mut answer)).await.unwrap();
        read.ok().map(|_| (answer[3], io))
    };
    let code = |answer: Option<(u8, _)>| answer.map(|(code, _)| code);

    let (y, desk) = yard_on(Some(config(true)), |_| {}).await;
    desk.own_all();
    let password = y.password.as_str();
    assert_eq!(code(knock(&y, Some("d"), "", "").await), Some(0));
    assert_eq!(code(knock(&y, Some("d"), "d", "").await), Some(0));
    assert_eq!(code(knock(&y, Some("d"), "d", password).await), Some(0));
    assert_eq!(code(knock(&y, Some("d"), "d", "wrong").await), Some(0x86));
    assert_eq!(code(knock(&y, Some("e"), "d", password).await), Some(0x86));
    assert_eq!(code(knock(&y, Some("d"), "e", "").await), Some(0x86));
    assert_eq!(code(knock(&y, Some("e"), "", "").await), Some(0x87));
    assert_eq!(code(knock(&y, None, "d", password).await), None);
    let (_, mut live) = knock(&y, Some("d"), "", "").await.unwrap();
    y.registry.revoke_device("d").unwrap();
    let mut rest = Vec::new();
    let end = timeout(LIMIT, live.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.ends_with(&[0xe0, 1, 0x98]), "{rest:x?}");
    assert_eq!(code(knock(&y, Some("d"), "", "").await), Some(0x87));

    let (y, desk) = yard_on(Some(config(false)), |_| {}).await;
    desk.own_all();
    assert_eq!(code(knock(&y, None, "d", &y.password).await), Some(0));
    assert_eq!(code(knock(&y, None, "d", "").await), Some(0x86));
    assert_eq!(code(knock(&y, Some("d"), "", "").await), Some(0));
}
