//! Devices that log in with a certificate: made by openssl, shown by mosquitto_pub.

use std::path::{Path, PathBuf};

use kerbside_sim::harness::tools::{self, Said, have};
use kerbside_sim::harness::{Feed, Gateway, Setup, eventually};

use crate::{LIMIT, report};

async fn openssl(dir: &Path, line: &str) {
    let text = format!("cd {} && openssl {line}", dir.display());
    tools::run(LIMIT, "sh", &["-c", &text]).await.succeeded();
}

/// A certificate of `name` with this subject alternative name, signed by `ca` of the same directory.
async fn sign(dir: &Path, ca: &str, name: &str, alternative: &str) {
    let subject = format!("/CN={name}");
    openssl(
        dir,
        &format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"),
    )
    .await;
    std::fs::write(
        dir.join("extensions"),
        format!("extendedKeyUsage=clientAuth\nsubjectAltName={alternative}\n"),
    )
    .unwrap();
    openssl(
        dir,
        &format!("x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 30 -extfile extensions -out {name}.pem"),
    )
    .await;
}

async fn authority(dir: &Path, ca: &str) {
    openssl(
        dir,
        &format!("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={ca} -addext keyUsage=keyCertSign,cRLSign -keyout {ca}.key -out {ca}.pem"),
    )
    .await;
}

struct Street {
    gateway: Gateway,
    dir: PathBuf,
}

impl Street {
    async fn start(asks: &str) -> Self {
        let mut gateway = Gateway::prepare(&Setup {
            tls: true,
            more: format!(
                "[tls]\nclient_ca_file = \"ca.pem\"\nclient_crl_file = \"crl.pem\"\nmqtts_client_cert = \"{asks}\"\n"
            ),
            ..Setup::default()
        });
        let dir = gateway.config();
        for ca in ["ca", "foreign"] {
            authority(&dir, ca).await;
        }
        sign(&dir, "ca", "bc-01", "URI:urn:kerbside:device:bc-01").await;
        sign(&dir, "ca", "bc-02", "DNS:bc-02").await;
        sign(&dir, "foreign", "bc-03", "DNS:bc-03").await;
        std::fs::write(dir.join("index.txt"), "").unwrap();
        std::fs::write(
            dir.join("openssl.cnf"),
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=30\n\
             crl_extensions=crl\n[crl]\nauthorityKeyIdentifier=keyid\n",
        )
        .unwrap();
        std::fs::write(dir.join("crlnumber"), "01\n").unwrap();
        withdraw(&dir, None).await;
        gateway.run().await;
        for device in ["bc-01", "bc-02", "bc-03"] {
            gateway.device(device, "bodycam", None);
        }
        Self { gateway, dir }
    }

    /// mosquitto_pub of a report with a certificate, if one is named, and further arguments.
    async fn publish(&self, device: &str, cert: Option<&str>, lat: f64, more: &[&str]) -> Said {
        let file = |name: String| self.dir.join(name).to_str().unwrap().to_owned();
        let ca = self.gateway.state().join("self-signed.pem");
        let (port, topic) = (
            self.gateway.ports.mqtts.to_string(),
            format!("kerbside/v1/{device}/report"),
        );
        let report = report(lat, 80);
        let mut args: Vec<String> = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "--cafile",
            ca.to_str().unwrap(),
            "-V",
            "mqttv5",
            "-q",
            "1",
            "-t",
            &topic,
            "-m",
            &report,
        ]
        .map(str::to_owned)
        .into();
        if let Some(cert) = cert {
            let (pem, key) = (file(format!("{cert}.pem")), file(format!("{cert}.key")));
            args.extend(["--cert".to_owned(), pem, "--key".to_owned(), key]);
        }
        args.extend(more.iter().map(|&a| a.to_owned()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        tools::run(LIMIT, "mosquitto_pub", &args).await
    }
}

/// Writes the list of withdrawn certificates, with one more.
async fn withdraw(dir: &Path, withdrawn: Option<&str>) {
    let how = "ca -config openssl.cnf -cert ca.pem -keyfile ca.key";
    if let Some(name) = withdrawn {
        openssl(dir, &format!("{how} -revoke {name}.pem")).await;
    }
    openssl(dir, &format!("{how} -gencrl -out new.pem")).await;
    std::fs::rename(dir.join("new.pem"), dir.join("crl.pem")).unwrap();
}

fn all_there() -> bool {
    ["openssl", "mosquitto_pub", "curl"].into_iter().all(have)
}

#[tokio::test]
async fn a_certificate_is_a_password_until_the_device_is_revoked() {
    if !all_there() {
        return;
    }
    let street = Street::start("optional").await;
    let gateway = &street.gateway;
    let mut feed = Feed::open(gateway, &gateway.user("eve", "operator")).await;
    let password = gateway.secret("bc-01");
    street
        .publish("bc-01", Some("bc-01"), 37.71, &[])
        .await
        .succeeded();
    feed.until_at(LIMIT, "bc-01", 37.71).await;
    street
        .publish("bc-02", Some("bc-02"), 37.72, &["-u", "bc-02"])
        .await
        .succeeded();
    feed.until_at(LIMIT, "bc-02", 37.72).await;
    // Without one the password still counts.
    let with_password = ["-u", "bc-01", "-P", &password];
    street
        .publish("bc-01", None, 37.73, &with_password)
        .await
        .succeeded();
    let refused = async |said: Said, why: &str| {
        assert!(!said.status.success(), "{why}: {said:?}");
    };
    let other = street
        .publish("bc-01", Some("bc-02"), 1.0, &with_password)
        .await;
    refused(other, "the certificate is of another device").await;
    let foreign = street.publish("bc-03", Some("bc-03"), 1.0, &[]).await;
    refused(foreign, "nobody here vouches for it").await;
    let topic = street.publish("bc-01", Some("bc-02"), 1.0, &[]).await;
    assert!(topic.all().contains("Not authorized"), "{topic:?}");
    // Browsers and players are not asked.
    let url = format!("https://127.0.0.1:{}/readyz", gateway.ports.https);
    let text = format!(
        "openssl s_client -connect 127.0.0.1:{} </dev/null 2>&1 | grep -c 'Acceptable client certificate\\|Requested Signature' || true",
        gateway.ports.https
    );
    let asked = tools::run(LIMIT, "sh", &["-c", &text]).await;
    assert_eq!(asked.out.trim(), "0", "https asks for a certificate");
    let said = tools::run(LIMIT, "curl", &["-sSk", "--max-time", "15", &url]).await;
    assert_eq!(said.succeeded().out, "ready");

    gateway.cli(&["device", "revoke", "bc-01"]).unwrap();
    let gone = street.publish("bc-01", Some("bc-01"), 1.0, &[]).await;
    refused(gone, "the device was revoked").await;
    let counted = gateway
        .metric("kerbside_mqtt_closed_total", &["reason=\"certificate\""])
        .await;
    assert!(counted >= 2.0, "{counted}");
}

#[tokio::test]
async fn required_means_nobody_without_one_and_a_withdrawn_one_is_none() {
    if !all_there() {
        return;
    }
    let street = Street::start("required").await;
    let gateway = &street.gateway;
    let password = gateway.secret("bc-01");
    let none = street
        .publish("bc-01", None, 1.0, &["-u", "bc-01", "-P", &password])
        .await;
    assert!(!none.status.success(), "{none:?}");
    for device in ["bc-01", "bc-02"] {
        street
            .publish(device, Some(device), 37.71, &[])
            .await
            .succeeded();
    }
    withdraw(&street.dir, Some("bc-02")).await;
    // The files are looked at with a handshake, every few seconds at most.
    eventually(LIMIT, "the withdrawn one is refused", async || {
        let said = street.publish("bc-02", Some("bc-02"), 37.72, &[]).await;
        let too_often = said.all().contains("rate exceeded");
        (!said.status.success() && !too_often).then_some(())
    })
    .await;
    street
        .publish("bc-01", Some("bc-01"), 37.71, &[])
        .await
        .succeeded();
    // Half a file: told, and the rules of before stay.
    std::fs::write(street.dir.join("ca.pem"), "half").unwrap();
    eventually(LIMIT, "the log tells", async || {
        // It may come too often by now; the files are looked at with the handshake.
        drop(street.publish("bc-01", Some("bc-01"), 37.71, &[]).await);
        let told = gateway.logged();
        told.contains("the new rules for devices' certificates cannot be used")
            .then_some(())
    })
    .await;
}
