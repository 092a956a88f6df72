//! The loader, through whole directories: every class of fault with its line.

use std::fs;
use std::path::{Path, PathBuf};

use kerbside_codecs::telemetry::Datum;
use kerbside_codecs::telemetry::mapping::{Number, Path as Where, Scale, Time, Topic};

use super::load::load_with;
use super::secret::Credentials;
use super::{CameraTransport, CameraTrust, Checks, Config, ConfigFault, Rule, Tls};
use crate::event::Priority;

const CHECKS: Checks = Checks {
    rule: |r: &Rule| {
        if r.when.contains("((") {
            Err("unexpected end".to_owned())
        } else {
            Ok(())
        }
    },
    grid: |text| {
        if text.contains("bowtie") {
            vec![(2, "crosses itself".to_owned())]
        } else {
            Vec::new()
        }
    },
};

fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn load(dir: &Path) -> Result<Config, Vec<ConfigFault>> {
    let credentials = Credentials {
        dir: None,
        may_be_unseen: false,
    };
    load_with(dir, &CHECKS, &credentials)
}

/// The faults as shown, without the directory before the file.
fn faults(files: &[(&str, &str)]) -> Vec<String> {
    let dir = dir(files);
    let prefix = format!("{}/", dir.path().display());
    load(dir.path())
        .expect_err("no fault found")
        .iter()
        .map(|f| f.to_string().replace(&prefix, ""))
        .collect()
}

const GATEWAY: (&str, &str) = ("gateway.toml", "box_id = \"b\"\n");

#[test]
fn one_key_is_enough() {
    let dir = dir(&[GATEWAY]);
    let c = load(dir.path()).unwrap();
    assert_eq!(c.box_id, "b");
    let l = c.listen;
    let shown: Vec<_> = [l.mqtt, l.rtsp, l.http, l.webrtc, l.mqtts, l.rtsps, l.https]
        .iter()
        .map(|a| a.map(|a| a.to_string()))
        .collect();
    assert_eq!(
        shown,
        [
            Some("127.0.0.1:1883".to_owned()),
            Some("127.0.0.1:8554".to_owned()),
            Some("127.0.0.1:8080".to_owned()),
            Some("0.0.0.0:8189".to_owned()),
            Some("0.0.0.0:8883".to_owned()),
            Some("0.0.0.0:8322".to_owned()),
            Some("0.0.0.0:8443".to_owned()),
        ]
    );
    assert_eq!(c.tls, Tls::SelfSigned);
    assert_eq!(
        c.rules.len(),
        1,
        "an SOS is an event without rules.toml too"
    );
    assert_eq!(c.rules[0].priority, Priority::P0);
}

#[test]
fn tls_opens_the_secure_ports() {
    let dir = dir(&[
        (
            "gateway.toml",
            "box_id = \"b\"\n[tls]\ncert_file = \"c.pem\"\nkey_file = \"k.pem\"\n[listen]\nrtsps = \"off\"\n",
        ),
        ("c.pem", "x"),
        ("k.pem", "x"),
    ]);
    let c = load(dir.path()).unwrap();
    assert_eq!(c.listen.mqtts.unwrap().to_string(), "0.0.0.0:8883");
    assert_eq!(c.listen.https.unwrap().to_string(), "0.0.0.0:8443");
    assert_eq!(c.listen.rtsps, None);
    let files = Tls::Files {
        cert_file: dir.path().join("c.pem"),
        key_file: dir.path().join("k.pem"),
    };
    assert_eq!(c.tls, files);
}

#[test]
fn certificates_of_devices_are_asked_for_as_written() {
    let of = |more: &str| {
        let text = format!("box_id = \"b\"\n[tls]\n{more}");
        let dir = dir(&[("gateway.toml", &text), ("ca.pem", ""), ("crl.pem", "")]);
        let c = load(dir.path()).map_err(|f| f.iter().map(ToString::to_string).collect::<String>());
        c.map(|c| {
            c.client_certs
                .map(|c| (c.is_required, c.crl_file.is_some()))
        })
    };
    let (ca, crl) = (
        "client_ca_file = \"ca.pem\"\n",
        "client_crl_file = \"crl.pem\"\n",
    );
    assert_eq!(of(""), Ok(None));
    assert_eq!(of(ca), Ok(Some((false, false))));
    assert_eq!(
        of(&format!("{ca}{crl}mqtts_client_cert = \"required\"\n")),
        Ok(Some((true, true)))
    );
    assert_eq!(of(&format!("{ca}mqtts_client_cert = \"off\"\n")), Ok(None));
    for (text, told) in [
        (crl, "client_ca_file: is missing"),
        (
            "mqtts_client_cert = \"optional\"\n",
            "client_ca_file: is missing",
        ),
        (
            "mqtts_client_cert = \"yes\"\n",
            "write \"off\", \"optional\" or \"required\"",
        ),
        ("client_ca_file = \"none.pem\"\n", "none.pem cannot be used"),
    ] {
        let fault = of(text).unwrap_err();
        assert!(fault.contains(told), "{fault}");
    }
}

#[test]
fn tls_can_be_turned_off() {
    let dir = dir(&[(
        "gateway.toml",
        "box_id = \"b\"\n[tls]\nself_signed = false\n",
    )]);
    let c = load(dir.path()).unwrap();
    assert_eq!(c.tls, Tls::Off);
    let l = c.listen;
    assert_eq!((l.mqtts, l.rtsps, l.https), (None, None, None));
}

#[test]
fn tls_ports_of_an_own_certificate_are_asked_for_when_they_are_written() {
    let of = |more: &str| {
        let text = format!("box_id = \"b\"\n{more}");
        let dir = dir(&[("gateway.toml", &text), ("c.pem", ""), ("k.pem", "")]);
        load(dir.path()).unwrap().listen.unasked
    };
    assert_eq!(of(""), ["mqtts", "rtsps", "https"]);
    assert_eq!(
        of("[listen]\nrtsps = \"0.0.0.0:8322\"\n"),
        ["mqtts", "https"]
    );
    let given = of("[tls]\ncert_file = \"c.pem\"\nkey_file = \"k.pem\"\n");
    assert!(given.is_empty(), "{given:?}");
}

#[test]
fn media_ports_are_a_range() {
    let of = |ports: &str| {
        let text = format!("box_id = \"b\"\n[rtsp]\nudp_ports = \"{ports}\"\n");
        let dir = dir(&[("gateway.toml", &text)]);
        load(dir.path()).map(|c| c.rtsp.udp_ports)
    };
    assert_eq!(of("40000-40003").unwrap(), Some(40_000..=40_003));
    for bad in [
        "40000",
        "40003-40000",
        "40000-40000",
        "80-90",
        "a-b",
        "40000-70000",
    ] {
        let faults = of(bad).unwrap_err();
        assert_eq!(faults[0].key, "rtsp.udp_ports", "{bad}");
    }
}

#[test]
fn all_faults_of_a_file_at_once() {
    let text = r#"# the box
box_id = "a b"
drain_s_max = "5"
colour = "blue"

[listen]
mqtt = "localhost:1883"
mqtts = "0.0.0.0:8883"
htp = "127.0.0.1:8080"
http = "127.0.0.1:9000"
rtsp = "0.0.0.0:9000"
webrtc = 8189

[mqtt]
receive_max = 0
packet_bytes_max = 99999999
connections_max = -1

[webrtc]
announce = ["203.0.113.7",
  "0.0.0.0", 7]

[strems]
ring_s_max = 3

[tls]
cert_file = "missing.pem"
"#;
    let found = faults(&[("gateway.toml", text)]);
    let start: Vec<&str> = found
        .iter()
        .map(|f| f.splitn(4, ':').take(3).map(str::len).sum::<usize>() + 2)
        .zip(&found)
        .map(|(n, f)| &f[..n])
        .collect();
    assert_eq!(
        start,
        [
            "gateway.toml:2: box_id",
            "gateway.toml:3: drain_s_max",
            "gateway.toml:4: colour",
            "gateway.toml:7: listen.mqtt",
            "gateway.toml:9: listen.htp",
            "gateway.toml:11: listen.rtsp",
            "gateway.toml:12: listen.webrtc",
            "gateway.toml:15: mqtt.receive_max",
            "gateway.toml:16: mqtt.packet_bytes_max",
            "gateway.toml:17: mqtt.connections_max",
            "gateway.toml:21: webrtc.announce[1]",
            "gateway.toml:21: webrtc.announce[2]",
            "gateway.toml:23: strems",
            "gateway.toml:26: tls.key_file",
            "gateway.toml:27: tls.cert_file",
        ]
    );
    let all = found.join("\n");
    for part in [
        "listen.htp: unknown key; did you mean \"http\"?",
        "strems: unknown key; did you mean \"streams\"?",
        "listen.rtsp: 0.0.0.0:9000 is already taken by listen.http",
        "mqtt.receive_max: is 0, but must be a whole number from 1 to 65535",
        "drain_s_max: is a text, but must be a whole number from 1 to 80",
        "tls.key_file: is missing; give the private key (PEM)",
        "colour: unknown key; known here: box_id,",
    ] {
        assert!(all.contains(part), "{part}\nis not in\n{all}");
    }
}

#[test]
fn a_secure_port_needs_a_certificate() {
    assert_eq!(
        faults(&[(
            "gateway.toml",
            "box_id = \"b\"\n[listen]\nhttps = \"0.0.0.0:8443\"\n[tls]\nself_signed = false\n"
        )]),
        [
            "gateway.toml:3: listen.https: needs a certificate: take self_signed = false out of [tls], or give it cert_file and key_file"
        ]
    );
}

#[test]
fn a_port_taken_by_a_default_is_told_where_it_was_given() {
    assert_eq!(
        faults(&[(
            "gateway.toml",
            "box_id = \"b\"\n\n[listen]\nmqtt = \"127.0.0.1:8080\"\n"
        )]),
        ["gateway.toml:4: listen.mqtt: 127.0.0.1:8080 is already taken by listen.http"]
    );
}

#[test]
fn missing_files_and_keys() {
    let found = faults(&[("rules.toml", "")]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("gateway.toml:1: file: cannot be read: "),
        "{}",
        found[0]
    );
    assert_eq!(
        faults(&[("gateway.toml", "drain_s_max = 5\n")]),
        ["gateway.toml:1: box_id: is missing; give this box a name, e.g. box_id = \"yuci-1\""]
    );
}

#[test]
fn misspelt_file_names() {
    assert_eq!(
        faults(&[GATEWAY, ("rule.toml", "")]),
        ["rule.toml:1: file: is not read by anybody; did you mean rules.toml?"]
    );
}

#[test]
fn one_syntax_fault_a_file_and_the_other_files_are_still_read() {
    let found = faults(&[
        ("gateway.toml", "box_id = \"b\"\nlisten = = 3\nnext = ]\n"),
        ("rules.toml", "[[rule]]\nname = \"x\nwhen = 1\n"),
        ("platforms.toml", "[[platform]]\nname = \"joint\"\n"),
    ]);
    assert!(
        found[0].starts_with("gateway.toml:2: syntax: "),
        "{found:?}"
    );
    assert!(found[1].starts_with("rules.toml:2: syntax: "), "{found:?}");
    assert!(
        found[2].starts_with("platforms.toml:1: platform[0].url: is missing"),
        "{found:?}"
    );
    assert_eq!(found.len(), 3);
}

#[test]
fn not_utf8() {
    let dir = dir(&[GATEWAY]);
    fs::write(dir.path().join("rules.toml"), b"# ok\n# \xff\n").unwrap();
    let found = load(dir.path()).unwrap_err();
    assert_eq!((found[0].line, found[0].key.as_str()), (2, "file"));
}

#[test]
fn faults_of_rules() {
    let text = r#"[[rule]]
name = "sos"
when = "report.sos"
severity = "critical"

[[rule]]
name = "sos"
kind = "S O S"
when = "(("
severity = "awful"
priority = "P7"

[[rule]]
whn = "true"
"#;
    let found = faults(&[GATEWAY, ("rules.toml", text)]);
    assert_eq!(
        found,
        [
            "rules.toml:7: rule[1].name: \"sos\" is already used at line 2",
            "rules.toml:8: rule[1].kind: \"S O S\" is not a kind: a-z, 0-9 and _, at most 64",
            "rules.toml:9: rule[1].when: unexpected end",
            "rules.toml:10: rule[1].severity: is \"awful\", but must be critical, major, minor or notice",
            "rules.toml:11: rule[1].priority: is \"P7\", but must be \"P0\" (safety, goes first) or \"P1\"",
            "rules.toml:13: rule[2].name: is missing; give a name",
            "rules.toml:13: rule[2].severity: is missing; give critical, major, minor or notice",
            "rules.toml:13: rule[2].when: is missing; give a CEL condition, e.g. when = \"report.sos\"",
            "rules.toml:14: rule[2].whn: unknown key; did you mean \"when\"?",
        ]
    );
}

#[test]
fn faults_of_platforms() {
    let text = r#"[[platform]]
name = "joint"
url = "https://user:pw@command.example/events"

[[platform]]
name = "joint"
url = "ftp://command.example"
token_credential = "joint-token"
kinds = ["sos", "sso"]
retry_s_min = 60
retry_s_max = 10
concurrency = 0

[[platform]]
name = "third"
url = "not a url"
token_credential = "t"
token_file = "t"
ca_file = "."
"#;
    let found = faults(&[GATEWAY, ("platforms.toml", text)]);
    let all = found.join("\n");
    for part in [
        "platforms.toml:3: platform[0].url: must not hold credentials",
        "platforms.toml:6: platform[1].name: \"joint\" is already used at line 2",
        "platforms.toml:7: platform[1].url: starts with ftp://, but must start with http:// or https://",
        "platforms.toml:8: platform[1].token_credential: credential \"joint-token\" needs $CREDENTIALS_DIRECTORY",
        "platforms.toml:9: platform[1].kinds[1]: no rule raises \"sso\"; did you mean \"sos\"?",
        "platforms.toml:5: platform[1]: retry_s_max is less than retry_s_min",
        "platforms.toml:12: platform[1].concurrency: is 0, but must be a whole number from 1 to 64",
        "platforms.toml:16: platform[2].url: is not a URL",
        "platforms.toml:18: platform[2].token_file: stands beside token_credential: keep one of the two",
        "platforms.toml:19: platform[2].ca_file: ",
    ] {
        assert!(all.contains(part), "{part}\nis not in\n{all}");
    }
    assert_eq!(found.len(), 10, "{all}");
    assert!(!all.contains("user:pw"), "a password was shown");
}

#[test]
fn faults_of_cameras() {
    let text = r#"[[camera]]
stream = "gate-1"
url = "rtsp://192.0.2.10/a"
username = "viewer"

[[camera]]
stream = "gate-1/main"
url = "http://192.0.2.10/a"
transport = "pigeon"
on_demand = "yes"
position = { lat = 91.0, lng = 5 }

[[camera]]
stream = "gate-1/main"
url = "rtsp://192.0.2.10/b"
password_file = "secrets/none"
"#;
    let found = faults(&[GATEWAY, ("devices.toml", text)]);
    let all = found.join("\n");
    for part in [
        "devices.toml:2: camera[0].stream: not device/camera",
        "devices.toml:1: camera[0]: has a username, but no password",
        "devices.toml:8: camera[1].url: starts with http://",
        "devices.toml:9: camera[1].transport: is \"pigeon\"",
        "devices.toml:10: camera[1].on_demand: is a text",
        "devices.toml:11: camera[1].position.lat: is 91.0, but must be a number from -90 to 90",
        "devices.toml:11: camera[1].position.lng: unknown key; known here: lat, lon",
        "devices.toml:11: camera[1].position.lon: is missing",
        "devices.toml:14: camera[2].stream: \"gate-1/main\" is already used at line 7",
        "devices.toml:13: camera[2]: has a password, but no username",
        "devices.toml:16: camera[2].password_file: ",
    ] {
        assert!(all.contains(part), "{part}\nis not in\n{all}");
    }
    assert_eq!(found.len(), 11, "{all}");
}

#[test]
fn cameras_with_certificates_and_sub_streams() {
    let pin = "0c:".repeat(31) + "4B";
    let text = format!(
        r#"[[camera]]
stream = "gate-1/main"
url = "rtsps://192.0.2.10/a"
sub_url = "rtsp://192.0.2.10/b"
fingerprint = "{pin}"
transport = "auto"
linger_s = 0
position = {{ lat = 1, lon = 2 }}

[[camera]]
stream = "gate-1/left"
url = "rtsp://192.0.2.10/a"
sub_url = "rtsp://192.0.2.10/b"
transport = "auto"
"#
    );
    let dir = dir(&[GATEWAY, ("devices.toml", &text)]);
    let cameras = load(dir.path()).unwrap().cameras;
    let names: Vec<_> = cameras.iter().map(|c| c.stream.to_string()).collect();
    assert_eq!(
        names,
        [
            "gate-1/main",
            "gate-1/sub",
            "gate-1/left",
            "gate-1/left-sub"
        ]
    );
    let mut sha256 = [0x0c; 32];
    sha256[31] = 0x4b;
    assert_eq!(cameras[0].trust, Some(CameraTrust::Fingerprint(sha256)));
    assert_eq!(cameras[0].transport, CameraTransport::Tcp);
    assert_eq!(cameras[2].transport, CameraTransport::Auto);
    assert!(cameras[0].position.is_some() && cameras[1].position.is_none());

    let text = r#"[[camera]]
stream = "gate-1/main"
url = "rtsps://192.0.2.10/a"

[[camera]]
stream = "gate-2/main"
url = "rtsp://192.0.2.10/a"
fingerprint = "zz"

[[camera]]
stream = "gate-2/sub"
url = "rtsps://192.0.2.10/a"
transport = "udp"
ca_file = "gateway.toml"
sub_stream = "gate-2/b"

[[camera]]
stream = "gate-3/main"
url = "rtsp://192.0.2.10/a"
sub_url = "rtsp://192.0.2.10/b"
sub_stream = "gate-2/main"
"#;
    let all = faults(&[GATEWAY, ("devices.toml", text)]).join("\n");
    for part in [
        "devices.toml:1: camera[0]: is rtsps://, but nothing says which certificate is right",
        "devices.toml:8: camera[1].fingerprint: is no SHA-256 fingerprint",
        "devices.toml:5: camera[1]: has fingerprint or ca_file",
        "devices.toml:13: camera[2].transport: is \"udp\"",
        "devices.toml:10: camera[2]: has a sub_stream, but no sub_url",
        "devices.toml:21: camera[3].sub_stream: \"gate-2/main\" is already used at line 6",
    ] {
        assert!(all.contains(part), "{part}\nis not in\n{all}");
    }
}

#[test]
fn faults_of_the_broker() {
    let told = faults(&[(
        "gateway.toml",
        "box_id = \"b\"\n[orders]\nhost = \"http://box\"\n[broker]\nurl = \"mqtt://u:p@box:1884\"\nusername = \"k\"\n\
         topics = [\"a/#/b\"]\nqos = 2\nshare = \"a/b\"\n",
    )]);
    for (line, word) in [
        (3, "orders.host"),
        (5, "without a name or password"),
        (7, "no topic filter"),
        (8, "broker.qos"),
        (9, "broker.share"),
    ] {
        let at = format!("gateway.toml:{line}:");
        assert!(
            told.iter().any(|f| f.starts_with(&at) && f.contains(word)),
            "{word}: {told:?}"
        );
    }
    let told = faults(&[(
        "gateway.toml",
        "box_id = \"b\"\n[broker]\nurl = \"mqtts://box\"\nusername = \"k\"\n",
    )]);
    assert!(
        told[0].contains("ca_file") && told[1].contains("password_file"),
        "{told:?}"
    );
}

#[test]
fn a_broker_needs_its_address_only() {
    let dir = dir(&[(
        "gateway.toml",
        "box_id = \"b\"\n[broker]\nurl = \"mqtt://127.0.0.1\"\n",
    )]);
    let b = load(dir.path()).unwrap().broker.unwrap();
    assert_eq!((b.host.as_str(), b.port, b.qos), ("127.0.0.1", 1883, 1));
    assert_eq!(
        (b.client_id.as_str(), b.share.as_deref()),
        ("b", Some("kerbside"))
    );
    assert!(b.topics.is_empty() && b.ca_file.is_none() && b.keep.as_secs() == 86_400);
}

#[test]
fn faults_of_the_grid() {
    let text = "{\"type\": \"FeatureCollection\", \"features\": [\n{},\n{\"id\": \"bowtie\"}\n]}";
    assert_eq!(
        faults(&[GATEWAY, ("grid.geojson", text)]),
        ["grid.geojson:3: features[1]: crosses itself"]
    );
}

#[test]
fn secrets_come_from_credentials_or_files() {
    let platforms = "[[platform]]\nname = \"a\"\nurl = \"https://x.example/\"\ntoken_credential = \"a-token\"\n\
        [[platform]]\nname = \"b\"\nurl = \"https://x.example/\"\ntoken_file = \"secrets/b\"\n";
    let dir = dir(&[
        GATEWAY,
        ("platforms.toml", platforms),
        ("secrets/b", "beta\n"),
        ("run/a-token", "alpha"),
    ]);
    let service = Credentials {
        dir: Some(dir.path().join("run")),
        may_be_unseen: false,
    };
    let c = load_with(dir.path(), &CHECKS, &service).unwrap();
    let tokens: Vec<_> = c.platforms.iter().map(|p| p.token.as_deref()).collect();
    assert_eq!(tokens, [Some("alpha"), Some("beta")]);
    let shell = Credentials {
        dir: None,
        may_be_unseen: true,
    };
    assert!(load_with(dir.path(), &CHECKS, &shell).is_ok());
    assert_eq!(load(dir.path()).unwrap_err()[0].line, 4);
    fs::write(dir.path().join("secrets/b"), "\n").unwrap();
    assert_eq!(
        load_with(dir.path(), &CHECKS, &service).unwrap_err()[0].line,
        8
    );
}

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

#[test]
fn sources_of_datagrams() {
    let text = r#"[[source]]
device = "uav-7"
address = "192.0.2.20:9000"
sysid = 7

[[source]]
device = "uav-8"
key_file = "secrets/uav-8"
listen = "0.0.0.0:14551"
silence_s = 3
"#;
    let dir = dir(&[
        (
            "gateway.toml",
            "box_id = \"b\"\n[listen]\ndatagram = \"127.0.0.1:14550\"\n",
        ),
        ("devices.toml", text),
        ("secrets/uav-8", KEY),
    ]);
    let c = load(dir.path()).unwrap();
    assert_eq!(c.listen.datagram, "127.0.0.1:14550".parse().ok());
    let [a, b] = &c.sources[..] else {
        panic!("{:?}", c.sources);
    };
    assert_eq!(
        (a.address, a.from_port),
        ("192.0.2.20".parse().ok(), Some(9000))
    );
    assert_eq!((a.sysid, a.listen, a.key.is_none()), (7, None, true));
    assert_eq!(b.listen, "0.0.0.0:14551".parse().ok());
    assert_eq!(b.key.as_ref().unwrap().0[1], 0x11);
    assert_eq!((b.address, b.sysid, b.silence.as_secs()), (None, 1, 3));
}

#[test]
fn faults_of_sources() {
    let text = r#"[[source]]
device = "uav 7"
address = "drone.example"
sysid = 256

[[source]]
device = "uav-8"
listen = "14551"

[[source]]
device = "uav-9"
address = "192.0.2.20"
key_file = "secrets/short"
silence_s = 0
"#;
    let files = [GATEWAY, ("devices.toml", text), ("secrets/short", "0011")];
    let found = faults(&files);
    let all = found.join("\n");
    for part in [
        "devices.toml:2: source[0].device: ",
        "devices.toml:3: source[0].address: \"drone.example\" is not where",
        "devices.toml:4: source[0].sysid: is 256",
        "devices.toml:1: source[0]: is heard nowhere",
        "devices.toml:6: source[1]: says nothing by which it is known",
        "devices.toml:8: source[1].listen: \"14551\" is not an address to listen at",
        "devices.toml:10: source[2]: has a key that is not 64",
        "devices.toml:10: source[2]: is heard nowhere",
        "devices.toml:14: source[2].silence_s: is 0",
    ] {
        assert!(all.contains(part), "{part}\nis not in\n{all}");
    }
    assert_eq!(found.len(), 9, "{all}");
    assert!(!all.contains("0011"), "a key was shown");
    let same = "[[source]]\ndevice = \"a\"\naddress = \"192.0.2.1\"\n[[source]]\ndevice = \"b\"\naddress = \"192.0.2.1:9\"\n";
    let port = (
        "gateway.toml",
        "box_id = \"b\"\n[listen]\ndatagram = \"127.0.0.1:14550\"\n",
    );
    let found = faults(&[port, ("devices.toml", same)]);
    assert!(
        found[0].starts_with("devices.toml:4: source[1]: cannot be told from the source at line 1"),
        "{found:?}"
    );
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../configs")
        .join(name)
}

#[test]
fn the_shipped_configurations_load() {
    for name in ["", "demo"] {
        let c = load(&shipped(name)).unwrap_or_else(|f| panic!("{name}: {f:?}"));
        assert_eq!(c.rules.len(), 4);
        assert!(c.grid.is_some());
        assert_eq!(c.formats.is_empty(), name.is_empty());
    }
}

/// Every key that is commented out in configs/ is known, and shows its default.
#[test]
fn the_shown_defaults_are_the_defaults() {
    let example = |file: &str| -> String {
        let text = fs::read_to_string(shipped(file)).unwrap();
        let is_key = |l: &str| {
            l.strip_prefix('#').is_some_and(|k| {
                k.starts_with('[') || k.starts_with(|c: char| c.is_ascii_lowercase())
            })
        };
        text.lines()
            .map(|l| if is_key(l) { &l[1..] } else { l })
            .filter(|l| !l.contains("_credential"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let shown = dir(&[
        ("gateway.toml", &example("gateway.toml")),
        ("devices.toml", &example("devices.toml")),
        ("formats.toml", &example("formats.toml")),
        ("rules.toml", &example("rules.toml")),
        ("platforms.toml", &example("platforms.toml")),
        ("tls/cert.pem", "x"),
        ("tls/key.pem", "x"),
        ("tls/joint-ca.pem", "x"),
        ("tls/broker-ca.pem", "x"),
        ("secrets/broker", "x"),
        ("tls/devices-ca.pem", "x"),
        ("tls/devices-crl.pem", "x"),
        ("secrets/gate-1", "x"),
        ("secrets/uav-7", KEY),
        ("secrets/joint-token", "x"),
        ("map/README", ""),
    ]);
    let bare = dir(&[
        (
            "gateway.toml",
            "box_id = \"district-1\"\n[tls]\ncert_file = \"c\"\nkey_file = \"c\"\n",
        ),
        ("c", "x"),
        (
            "devices.toml",
            "[[camera]]\nstream = \"gate-1/main\"\nurl = \"rtsp://192.0.2.10/Streaming/Channels/101\"\n\
             [[source]]\ndevice = \"uav-7\"\naddress = \"192.0.2.20\"\nlisten = \"0.0.0.0:14551\"\n",
        ),
        (
            "platforms.toml",
            "[[platform]]\nname = \"joint\"\nurl = \"https://command.example/events\"\n",
        ),
    ]);
    let (shown, bare) = (load(shown.path()).unwrap(), load(bare.path()).unwrap());
    let names: Vec<_> = shown.formats.iter().map(|f| &f.name).collect();
    assert_eq!(names, ["acme"]);
    let same = |c: &Config| {
        let (p, k, s) = (&c.platforms[0], &c.cameras[0], &c.sources[0]);
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            c.listen,
            c.mqtt,
            c.streams,
            c.webrtc,
            c.drain_max,
            (p.timeout, p.retry_min, p.retry_max),
            p.concurrency,
            p.kinds,
            k.url,
            k.on_demand,
            (k.transport, k.linger, k.basic_auth),
            (s.sysid, s.silence, &c.tracks)
        )
    };
    assert_eq!(same(&shown), same(&bare));
}

#[test]
fn formats_become_mappings() {
    let dir = dir(&[
        GATEWAY,
        (
            "formats.toml",
            r#"
[[format]]
name = "acme"
topic = "acme/{device}/pos"
down = "acme/{device}/cmd"
datum = "gcj02"
positions = "points"
[format.when]
type = [1, "pos"]
"head.ok" = true
[format.fields]
lat = "gps.lat"
lon = { path = "gps.lon" }
speed = { path = "spd", unit = "km/h" }
battery = { path = "bat", unit = "0..1" }
time = { path = "t", unit = "local", zone = "-03:30" }
fix = { path = "valid", value = "A" }
sos = "help"
[format.properties]
signal_dbm = "rssi"
"#,
        ),
    ]);
    let c = load(dir.path()).unwrap();
    let [f] = &c.formats[..] else {
        panic!("{:?}", c.formats);
    };
    let path = |p: &str| Where::parse(p).unwrap();
    assert_eq!(f.name, "acme");
    assert_eq!(f.topic, Topic::parse("acme/{device}/pos").unwrap());
    assert!(f.down.is_some() && f.datum == Some(Datum::Gcj02));
    assert_eq!(f.positions, Some(path("points")));
    let tests: Vec<_> = f.when.iter().map(|t| (&t.path, t.values.len())).collect();
    assert_eq!(tests, [(&path("type"), 2), (&path("head.ok"), 1)]);
    let scale = |n: &Option<Number>| n.as_ref().unwrap().scale;
    assert_eq!(scale(&f.fields.lon), Scale::Times(1.0));
    assert_eq!(scale(&f.fields.speed), Scale::Times(1.0 / 3.6));
    assert_eq!(scale(&f.fields.battery), Scale::Times(100.0));
    let (_, time) = f.fields.time.as_ref().unwrap();
    assert_eq!(*time, Time::Local { zone_min: -210 });
    assert_eq!(f.fields.fix.as_ref().unwrap().values, ["A"]);
    assert!(f.fields.sos.as_ref().unwrap().values.is_empty());
    assert_eq!(f.properties, [("signal_dbm".to_owned(), path("rssi"))]);
}

#[test]
fn faults_of_formats_have_their_lines() {
    let told = faults(&[
        GATEWAY,
        (
            "formats.toml",
            r#"[[format]]
name = "a b"
topic = "thing/{device}/osd"
down = "acme/+/{device}"
datum = "cgcs"
[format.when]
"a..b" = 1.5
[format.fields]
lat = "gps.lat"
speed = { path = "spd", unit = "knots" }
time = { path = "t", unit = "local" }
sos = { value = 1 }
lenght = "x"
[format.properties]
"no name" = "x"
[[format]]
name = "b"
topic = "acme/pos"
"#,
        ),
    ]);
    let expected = [
        ("formats.toml:2: format[0].name", "not a valid"),
        ("formats.toml:3: format[0].topic", "have a meaning already"),
        ("formats.toml:4: format[0].down", "\"+\""),
        ("formats.toml:5: format[0].datum", "gcj02"),
        ("formats.toml:7: format[0].when.a..b", "empty name"),
        ("formats.toml:8: format[0].fields", "needs both"),
        ("formats.toml:10: format[0].fields.speed.unit", "\"kn\""),
        ("formats.toml:11: format[0].fields.time.unit", "add zone"),
        ("formats.toml:12: format[0].fields.sos.path", "is missing"),
        ("formats.toml:13: format[0].fields.lenght", "unknown key"),
        ("formats.toml:15: format[0].properties.no name", ""),
        ("formats.toml:16: format[1]", "takes nothing"),
        ("formats.toml:18: format[1].topic", "where the device id is"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (place, reason)) in told.iter().zip(expected) {
        assert!(told.starts_with(place), "{told} should be at {place}");
        assert!(told.contains(reason), "{told} should say {reason}");
    }
}
