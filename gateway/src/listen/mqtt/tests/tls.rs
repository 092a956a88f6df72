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
