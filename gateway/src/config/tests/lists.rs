//! The lists: rules, platforms, cameras, sources, formats; and the broker.

use super::*;

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
