//! Telemetry in datagrams: a drone that we did not write (pymavlink), packets of the standards, strangers and forgers.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use kerbside_sim::harness::{Feed, Gateway, Setup, eventually, free_port, tools, until};
use kerbside_sim::process::Process;

use crate::LIMIT;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER_KEY: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const POSITION: &[u8] = include_bytes!("../../../codecs/fuzz/corpus/mavlink/position");
const NO_FIX: &[u8] = include_bytes!("../../../codecs/fuzz/corpus/mavlink/gpi_zero");
const KLV: &[u8] = include_bytes!("../../../codecs/fuzz/corpus/klv/dynamic_only");

/// Python with pymavlink, where `tests/deps.sh test` put it.
fn pymavlink() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/pymavlink/bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!("skipped: pymavlink is missing (tests/deps.sh test installs it)");
    None
}

struct Street {
    gateway: Gateway,
    feed: Feed,
    port: u16,
}

/// A gateway with these sources, each of a device that was added before, and its feed.
async fn street(sources: &str, devices: &[(&str, &str)]) -> Street {
    let port = free_port();
    let mut gateway = Gateway::prepare(&Setup {
        more: format!("datagram = \"127.0.0.1:{port}\"\n"),
        ..Setup::default()
    });
    std::fs::write(gateway.config().join("devices.toml"), sources).unwrap();
    std::fs::write(gateway.config().join("key"), KEY).unwrap();
    gateway.run().await;
    for (id, kind) in devices {
        gateway.device(id, kind, None);
    }
    let feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    Street {
        gateway,
        feed,
        port,
    }
}

impl Street {
    fn drone(&self, name: &str, lat: &str, key: &str) -> Option<Process> {
        let python = pymavlink()?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/mavlink_peer.py");
        let port = self.port.to_string();
        let args = [script, &port, lat, key];
        Some(tools::start(
            self.gateway.dir(),
            name,
            python.to_str().unwrap(),
            &args,
        ))
    }

    /// Says this again until the device has the fault as often as wanted: a datagram may be lost.
    async fn until_fault(&mut self, from: &UdpSocket, datagram: &[u8], device: &str, fault: &str) {
        let to = ("127.0.0.1", self.port);
        let mut tries = 0;
        while self
            .feed
            .devices
            .get(device)
            .is_none_or(|d| d["faults"][fault].is_null())
        {
            from.send_to(datagram, to).unwrap();
            tries += 1;
            assert!(
                tries < 100,
                "{device} has no fault {fault}: {:?}",
                self.feed.devices
            );
            let next = tokio::time::timeout(Duration::from_millis(500), self.feed.take(LIMIT));
            assert!(next.await.unwrap_or(true), "the feed closed");
        }
    }
}

fn here() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn source(device: &str, socket: &UdpSocket) -> String {
    let from = socket.local_addr().unwrap();
    format!("[[source]]\ndevice = \"{device}\"\naddress = \"{from}\"\nsilence_s = 1\n")
}

fn sentence(body: &str) -> String {
    let check = body.bytes().fold(0, |x, b| x ^ b);
    format!("${body}*{check:02X}\r\n")
}

#[tokio::test]
async fn a_foreign_drone_is_on_the_map_while_it_is_heard() {
    let sources = "[[source]]\ndevice = \"uav-1\"\naddress = \"127.0.0.1\"\nsilence_s = 1\n";
    let mut street = street(sources, &[("uav-1", "drone")]).await;
    let Some(drone) = street.drone("drone", "37.69", "-") else {
        return;
    };
    street.feed.until_at(LIMIT, "uav-1", 37.69).await;
    let device = street.feed.devices["uav-1"].clone();
    assert_eq!(
        (&device["online"], &device["state"]),
        (&true.into(), &"live".into()),
        "{device}"
    );
    assert_eq!(device["battery_pct"].as_f64(), Some(87.0));
    assert_eq!(device["mode"], "mission");
    let near = |pointer: &str, value: f64| {
        let told = device.pointer(pointer).and_then(serde_json::Value::as_f64);
        assert!(
            told.is_some_and(|t| (t - value).abs() < 0.1),
            "{pointer} is not {value}: {device}"
        );
    };
    near("/position/lon", 112.75);
    near("/position/alt_m", 792.345);
    near("/position/speed_mps", 1.677);
    drop(drone);
    let silent = "uav-1 is off line";
    let is_off = |f: &Feed| (f.devices.get("uav-1")?["online"] == false).then_some(());
    street.feed.until(LIMIT, silent, is_off).await;
}

#[tokio::test]
async fn a_forged_or_repeated_frame_moves_nobody() {
    let sources = "[[source]]\ndevice = \"uav-1\"\nkey_file = \"key\"\n";
    let mut street = street(sources, &[("uav-1", "drone")]).await;
    let Some(forger) = street.drone("forger", "38.5", OTHER_KEY) else {
        return;
    };
    let socket = here();
    let fault = |fault: &'static str| {
        move |f: &Feed| {
            let count = f.devices.get("uav-1")?["faults"][fault].as_u64()?;
            (count > 0).then_some(())
        }
    };
    street
        .feed
        .until(LIMIT, "wrong signatures", fault("bad_checksum"))
        .await;
    street
        .until_fault(&socket, POSITION, "uav-1", "unsigned")
        .await;
    let device = &street.feed.devices["uav-1"];
    assert!(
        device["position"].is_null() && device["online"] == false,
        "{device}"
    );
    drop(forger);
    let drone = street.drone("drone", "37.69", KEY).unwrap();
    street.feed.until_at(LIMIT, "uav-1", 37.69).await;
    // What it said is said again by somebody else.
    let said = until(LIMIT, "a frame", || {
        let hex = drone.tail(1);
        let bytes =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(hex.get(i * 2..i * 2 + 2)?, 16).ok());
        bytes.collect::<Option<Vec<u8>>>().filter(|b| b.len() > 40)
    })
    .await;
    street
        .feed
        .until(LIMIT, "a later position", |_| {
            (drone.tail(2).lines().count() > 1).then_some(())
        })
        .await;
    street.until_fault(&socket, &said, "uav-1", "stale").await;
    let lat = street.feed.devices["uav-1"]
        .pointer("/position/lat")
        .unwrap();
    assert!((lat.as_f64().unwrap() - 37.69).abs() < 1e-3);
}

#[tokio::test]
async fn every_format_at_one_port_and_garbage_between() {
    let (uav, car, phone, old, stranger) = (here(), here(), here(), here(), here());
    let sources = [
        source("uav-1", &uav),
        source("car-1", &car),
        source("bc-01", &phone),
        source("uav-2", &old),
    ]
    .concat();
    let devices = [
        ("uav-1", "drone"),
        ("car-1", "vehicle"),
        ("bc-01", "bodycam"),
        ("uav-2", "drone"),
    ];
    let Street {
        gateway,
        mut feed,
        port,
    } = street(&sources, &devices).await;
    let to = ("127.0.0.1", port);
    let gga = sentence("BDGGA,120000,3741.4000,N,11245.0000,E,1,08,0.9,812.3,M,-20.0,M,,");
    let nothing = sentence("BDGGA,120001,,,,,0,00,,,M,,M,,");
    let bad = gga.replace("3741", "3841");
    let report = r#"{"position":{"lat":37.6911,"lon":112.75,"accuracy_m":5},"battery_pct":61}"#;
    let say = |socket: &UdpSocket, datagram: &[u8]| {
        socket.send_to(datagram, to).unwrap();
    };
    // Datagrams may be lost: said until they are heard.
    eventually(LIMIT, "four devices", async || {
        for junk in [
            b"\xfd\xff\xfe junk".as_slice(),
            b"",
            b"\x06\x0e\x2b\x34 not KLV",
            b"GET / HTTP/1.1\r\n\r\n",
            &[0; 9000],
        ] {
            for socket in [&uav, &car, &phone, &old, &stranger] {
                say(socket, junk);
            }
        }
        say(&uav, &[KLV, b"garbage", &KLV[..100], KLV].concat());
        say(
            &car,
            (bad.clone() + "noise\r\n" + &gga + &nothing).as_bytes(),
        );
        say(&phone, report.as_bytes());
        say(&old, &[POSITION, NO_FIX].concat());
        say(&stranger, POSITION);
        let next = tokio::time::timeout(Duration::from_millis(300), feed.take(LIMIT));
        assert!(next.await.unwrap_or(true), "the feed closed");
        let all = [
            ("uav-1", 60.176_823),
            ("car-1", 37.69),
            ("bc-01", 37.6911),
            ("uav-2", 37.69),
        ];
        let there = all.iter().all(|(device, lat)| {
            let told = feed
                .devices
                .get(*device)
                .and_then(|d| d.pointer("/position/lat")?.as_f64());
            told.is_some_and(|t| (t - lat).abs() < 1e-4)
        });
        there.then_some(())
    })
    .await;
    feed.until(LIMIT, "faults by their reasons", |feed| {
        let has = |device: &str, fault: &str| !feed.devices[device]["faults"][fault].is_null();
        let all = has("uav-1", "garbage")
            && has("car-1", "bad_checksum")
            && has("car-1", "no_fix")
            && has("car-1", "garbage")
            && has("uav-2", "no_fix");
        all.then_some(())
    })
    .await;
    assert!(
        gateway
            .metric("kerbside_datagrams_total", &["unknown_source"])
            .await
            >= 1.0
    );
    assert_eq!(
        feed.devices.len(),
        4,
        "a stranger made a device: {:?}",
        feed.devices.keys()
    );
    let (taken, ended) = (
        gateway
            .metric("kerbside_ledger_taken_total", &["\"message\""])
            .await,
        gateway
            .metric("kerbside_ledger_ended_total", &["\"message\""])
            .await,
    );
    assert!(taken - ended <= 64.0, "{taken} taken, {ended} ended");
}

#[tokio::test]
async fn a_flood_of_one_source_is_bounded_and_disturbs_nobody() {
    let (flood, other) = (here(), here());
    let sources = source("uav-1", &flood) + &source("uav-2", &other);
    let devices = [("uav-1", "drone"), ("uav-2", "drone")];
    let Street {
        gateway,
        mut feed,
        port,
    } = street(&sources, &devices).await;
    let to = ("127.0.0.1", port);
    let junk = [0xfd; 1400];
    eventually(LIMIT, "some are too many", async || {
        for _ in 0..2000 {
            flood.send_to(&junk, to).unwrap();
        }
        let shed = gateway
            .metric("kerbside_datagrams_total", &["too_many"])
            .await;
        (shed > 0.0).then_some(())
    })
    .await;
    eventually(LIMIT, "the neighbour", async || {
        other.send_to(POSITION, to).unwrap();
        let next = tokio::time::timeout(Duration::from_millis(300), feed.take(LIMIT));
        assert!(next.await.unwrap_or(true), "the feed closed");
        let there = feed
            .devices
            .get("uav-2")
            .is_some_and(|d| !d["position"].is_null());
        there.then_some(())
    })
    .await;
    assert!(
        feed.devices
            .get("uav-1")
            .is_none_or(|d| d["position"].is_null())
    );
}
