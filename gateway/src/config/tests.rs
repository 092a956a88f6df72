//! The loader, through whole directories: every class of fault with its line.

use std::fs;
use std::path::{Path, PathBuf};

use kerbside_codecs::telemetry::Datum;
use kerbside_codecs::telemetry::mapping::{Number, Path as Where, Scale, Time, Topic};

use super::load::load_with;
use super::secret::Credentials;
use super::{CameraTransport, CameraTrust, Checks, Config, ConfigFault, Rule, Tls};
use crate::event::Priority;

mod lists;

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
