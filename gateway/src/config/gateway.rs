//! `gateway.toml`: the box itself. Its defaults are those of the code below; configs/gateway.toml shows them all.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Credentials;
use super::table::{At, Source, Table};
use super::{Broker, Listen, Mqtt, Rtsp, Tls, Tracks, WebRtc};
use crate::stream::StreamsLimits;
use crate::tls::ClientCerts;

/// What `gateway.toml` says. Values that were faulty hold their default: the faults stop the start.
#[derive(Default)]
pub(super) struct Gateway {
    pub box_id: String,
    pub listen: Listen,
    pub tls: Tls,
    pub client_certs: Option<ClientCerts>,
    pub mqtt: Mqtt,
    pub broker: Option<Broker>,
    pub rtsp: Rtsp,
    pub streams: StreamsLimits,
    pub webrtc: WebRtc,
    pub tracks: Tracks,
    pub drain_max: Duration,
    pub orders_host: Option<String>,
    pub map_dir: Option<PathBuf>,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            packet_bytes_max: 256 << 10,
            connections_max: 10_000,
            receive_max: 64,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Rtsp {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            udp_ports: None,
        }
    }
}

impl Default for WebRtc {
    fn default() -> Self {
        Self {
            announce: Vec::new(),
            sessions_max: 2048,
        }
    }
}

impl Default for Tracks {
    fn default() -> Self {
        Self {
            retention_days: 30,
            mb_max: 2048,
            keep_every: Duration::from_secs(10),
        }
    }
}

/// Plain text stays on this machine; what is encrypted by itself is open to the network.
impl Default for Listen {
    fn default() -> Self {
        let here = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        Self {
            mqtt: here(1883),
            mqtts: None,
            rtsp: here(8554),
            rtsps: None,
            http: here(8080),
            https: None,
            webrtc: anywhere(8189),
            datagram: None,
            unasked: Vec::new(),
        }
    }
}

fn anywhere(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([0, 0, 0, 0], port)))
}

pub(super) fn read(source: &Source, credentials: &Credentials) -> Gateway {
    let Some(mut top) = source.parse() else {
        return Gateway::default();
    };
    let box_id = top
        .required("box_id", "this box a name, e.g. box_id = \"yuci-1\"")
        .and_then(|f| f.read(super::id))
        .unwrap_or_default();
    let drain_max = top
        .optional("drain_s_max")
        .and_then(|f| f.seconds(1..=80))
        .unwrap_or(Duration::from_secs(10));
    let map_dir = top.optional("map_dir").and_then(|f| f.path(true));
    let (tls, client_certs) = tls(top.table("tls"));
    let mut listen = listen(top.table("listen"), tls != Tls::Off);
    if tls != Tls::SelfSigned {
        // Who gives a certificate wants its ports.
        listen.unasked.clear();
    }
    let mqtt = mqtt(top.table("mqtt"));
    let broker = top
        .optional_table("broker")
        .and_then(|t| super::broker::read(t, &box_id, credentials));
    let rtsp = rtsp(top.table("rtsp"));
    let streams = streams(top.table("streams"));
    let webrtc = webrtc(top.table("webrtc"));
    let tracks = tracks(top.table("tracks"));
    let orders_host = orders(top.table("orders"));
    top.finish();
    Gateway {
        box_id,
        listen,
        tls,
        client_certs,
        mqtt,
        broker,
        rtsp,
        streams,
        webrtc,
        tracks,
        drain_max,
        orders_host,
        map_dir,
    }
}

/// The gateway's certificate, and those that devices show.
fn tls(mut t: Table<'_>) -> (Tls, Option<ClientCerts>) {
    let clients = client_certs(&mut t);
    (server_cert(t), clients)
}

fn client_certs(t: &mut Table<'_>) -> Option<ClientCerts> {
    let asked = t.optional("mqtts_client_cert");
    let crl = t.optional("client_crl_file");
    let has_crl = crl.is_some();
    let crl_file = crl.and_then(|f| f.path(false));
    let asked = asked.and_then(|f| {
        f.read(|text| match text {
            "off" => Ok(None),
            "optional" => Ok(Some(false)),
            "required" => Ok(Some(true)),
            _ => Err(format!(
                "{text:?} is not known: write \"off\", \"optional\" or \"required\""
            )),
        })
    });
    let ca = match asked {
        Some(None) => t.optional("client_ca_file"),
        None if !has_crl => t.optional("client_ca_file"),
        _ => t.required(
            "client_ca_file",
            "the certificates (PEM) of who signs devices' certificates",
        ),
    };
    let ca_file = ca.and_then(|f| f.path(false));
    match asked {
        Some(None) => None,
        asked => Some(ClientCerts {
            ca_file: ca_file?,
            crl_file,
            is_required: asked.flatten() == Some(true),
        }),
    }
}

fn server_cert(mut t: Table<'_>) -> Tls {
    let cert = t.optional("cert_file");
    let key = t.optional("key_file");
    let own = t
        .optional("self_signed")
        .and_then(super::table::Found::boolean);
    let (cert, key) = match (cert, key) {
        (None, None) => {
            t.finish();
            return match own {
                Some(false) => Tls::Off,
                _ => Tls::SelfSigned,
            };
        }
        (None, key) => (t.required("cert_file", "the certificate chain (PEM)"), key),
        (cert, None) => (cert, t.required("key_file", "the private key (PEM)")),
        both => both,
    };
    t.finish();
    let file = |f: Option<super::table::Found<'_>>| f.and_then(|f| f.path(false));
    match (file(cert), file(key)) {
        (Some(cert_file), Some(key_file)) => Tls::Files {
            cert_file,
            key_file,
        },
        // The fault stops the start.
        _ => Tls::default(),
    }
}

fn listen(mut t: Table<'_>, tls: bool) -> Listen {
    let mut taken: Vec<(At<'_>, SocketAddr)> = Vec::new();
    let mut one = |key, default| match t.optional(key) {
        None => default,
        Some(f) => {
            let at = f.at.clone();
            let address = f.read(address)?;
            taken.extend(address.map(|a| (at, a)));
            address
        }
    };
    let d = Listen::default();
    let secure = |port| if tls { anywhere(port) } else { None };
    let mut listen = Listen {
        unasked: Vec::new(),
        mqtt: one("mqtt", d.mqtt),
        mqtts: one("mqtts", secure(8883)),
        rtsp: one("rtsp", d.rtsp),
        rtsps: one("rtsps", secure(8322)),
        http: one("http", d.http),
        https: one("https", secure(8443)),
        webrtc: one("webrtc", d.webrtc),
        datagram: one("datagram", d.datagram),
    };
    let asked = |key: &&str| {
        taken
            .iter()
            .any(|(at, _)| at.key == format!("listen.{key}"))
    };
    listen.unasked = ["mqtts", "rtsps", "https"]
        .into_iter()
        .filter(|k| !asked(k))
        .collect();
    let all = listen.all();
    for (at, address) in &taken {
        if !tls && ["listen.mqtts", "listen.rtsps", "listen.https"].contains(&at.key.as_str()) {
            at.fault("needs a certificate: take self_signed = false out of [tls], or give it cert_file and key_file");
        }
        for (other, theirs) in &all {
            let name = format!("listen.{other}");
            // Of two given addresses the later is told; against a default always the given one.
            let given = taken.iter().find(|(a, _)| a.key == name);
            let tell = given.is_none_or(|(a, _)| a.line < at.line);
            if name != at.key && tell && overlap(*address, *theirs) {
                at.fault(format!("{address} is already taken by {name}"));
            }
        }
    }
    t.finish();
    listen
}

impl Listen {
    fn all(&self) -> Vec<(&'static str, SocketAddr)> {
        [
            ("mqtt", self.mqtt),
            ("mqtts", self.mqtts),
            ("rtsp", self.rtsp),
            ("rtsps", self.rtsps),
            ("http", self.http),
            ("https", self.https),
            ("webrtc", self.webrtc),
            ("datagram", self.datagram),
        ]
        .into_iter()
        .filter_map(|(name, a)| a.map(|a| (name, a)))
        .collect()
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && same_host && a.port() != 0
}

/// `"off"` or `IP:PORT`; port 0: the system picks one.
fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        format!("{text:?} is not an address: write IP:PORT (\"127.0.0.1:1883\", \"[::]:1883\") or \"off\"")
    })
}

fn mqtt(mut t: Table<'_>) -> Mqtt {
    let d = Mqtt::default();
    let mqtt = Mqtt {
        packet_bytes_max: integer(
            &mut t,
            "packet_bytes_max",
            1024,
            16 << 20,
            d.packet_bytes_max,
        ),
        connections_max: integer(&mut t, "connections_max", 1, 1_000_000, d.connections_max),
        receive_max: integer(&mut t, "receive_max", 1, 65_535, d.receive_max),
        connect_timeout: seconds(&mut t, "connect_timeout_s", 1, 120, d.connect_timeout),
    };
    t.finish();
    mqtt
}

fn rtsp(mut t: Table<'_>) -> Rtsp {
    let d = Rtsp::default();
    let rtsp = Rtsp {
        connections_max: integer(&mut t, "connections_max", 1, 1_000_000, d.connections_max),
        udp_ports: t.optional("udp_ports").and_then(|f| f.read(ports)),
    };
    t.finish();
    rtsp
}

/// `FIRST-LAST`: at least one pair.
fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first >= 1024 && last > first).then_some(first..=last)
    });
    ends.ok_or_else(|| {
        format!("{text:?} is no range of ports: write \"FIRST-LAST\", from 1024 on, e.g. \"40000-41999\"")
    })
}

fn streams(mut t: Table<'_>) -> StreamsLimits {
    let d = StreamsLimits::default();
    let ring_mb = integer(&mut t, "ring_mb_max", 1, 1024, d.ring_bytes_max >> 20);
    let behind_mb = d.reader_behind_bytes_max >> 20;
    let behind_mb = integer(&mut t, "reader_behind_mb_max", 1, 1024, behind_mb);
    let start_mbit = d.start_bits_per_second_max / 1_000_000;
    let start_mbit = integer(&mut t, "start_mbit_s_max", 1, 10_000, start_mbit);
    let streams = StreamsLimits {
        ring_age_max: seconds(&mut t, "ring_s_max", 1, 120, d.ring_age_max),
        ring_bytes_max: ring_mb << 20,
        reader_behind_max: seconds(&mut t, "reader_behind_s_max", 1, 60, d.reader_behind_max),
        reader_behind_bytes_max: behind_mb << 20,
        reader_stall_max: seconds(&mut t, "reader_stall_s_max", 1, 600, d.reader_stall_max),
        start_bits_per_second_max: start_mbit * 1_000_000,
        publisher_grace: seconds(&mut t, "publisher_grace_s", 1, 3600, d.publisher_grace),
        streams_max: integer(&mut t, "streams_max", 1, 100_000, d.streams_max),
        ..d
    };
    t.finish();
    streams
}

fn webrtc(mut t: Table<'_>) -> WebRtc {
    let d = WebRtc::default();
    let announce = t.optional("announce").and_then(super::table::Found::list);
    let webrtc = WebRtc {
        announce: announce
            .into_iter()
            .flatten()
            .filter_map(|f| f.read(announced))
            .collect(),
        sessions_max: integer(&mut t, "sessions_max", 1, 100_000, d.sessions_max),
    };
    t.finish();
    webrtc
}

fn tracks(mut t: Table<'_>) -> Tracks {
    let d = Tracks::default();
    let tracks = Tracks {
        retention_days: integer(&mut t, "retention_days", 0, 3650, d.retention_days),
        mb_max: integer(&mut t, "mb_max", 16, 1 << 20, d.mb_max),
        keep_every: seconds(&mut t, "keep_every_s", 0, 3600, d.keep_every),
    };
    t.finish();
    tracks
}

fn orders(mut t: Table<'_>) -> Option<String> {
    let host = t.optional("host").and_then(|f| f.read(host));
    t.finish();
    host
}

/// A name or an address, as it stands in a URL.
fn host(text: &str) -> Result<String, String> {
    let url = url::Url::parse(&format!("http://{text}/"));
    let plain = url.as_ref().is_ok_and(|u| {
        u.host_str().is_some_and(|h| h.eq_ignore_ascii_case(text)) && u.port().is_none()
    });
    if plain {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no host: write a name or an address without scheme and port, \"10.1.2.3\" or \"[2001:db8::1]\""
    ))
}

fn announced(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(ip),
        _ => Err(format!(
            "{text:?} is not an address that browsers can reach: write the IP of this box, without a port"
        )),
    }
}

fn integer<T: TryFrom<u64>>(
    t: &mut Table<'_>,
    key: &'static str,
    min: u64,
    max: u64,
    default: T,
) -> T {
    t.optional(key)
        .and_then(|f| f.integer(min..=max))
        .and_then(|n| T::try_from(n).ok())
        .unwrap_or(default)
}

fn seconds(
    t: &mut Table<'_>,
    key: &'static str,
    min: u64,
    max: u64,
    default: Duration,
) -> Duration {
    t.optional(key)
        .and_then(|f| f.seconds(min..=max))
        .unwrap_or(default)
}
