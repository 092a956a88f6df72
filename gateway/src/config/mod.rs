//! The configuration: one directory of TOML and GeoJSON files, read once at start.
//!
//! Here: the values with their defaults, and how faults are told (`file:line: key: reason`, all of them).
//! Not here: secrets. They are systemd credentials (`*_credential`) or files named by a `*_file` key.

mod broker;
mod formats;
mod gateway;
mod geojson;
mod lists;
mod load;
mod secret;
mod sources;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use kerbside_codecs::telemetry::Mapping;

use crate::event::{Priority, Severity};
use crate::ids::{DeviceId, StreamId};
use crate::stream::StreamsLimits;
use crate::tls::ClientCerts;
pub use kerbside_codecs::telemetry::datagram::Key as SigningKey;

pub use load::{Checks, Reading, grid_fault, load, reread_grid};
pub use table::ConfigFault;

/// Everything a gateway is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this box; the CloudEvents source is `urn:kerbside:{box_id}`.
    pub box_id: String,
    pub listen: Listen,
    pub tls: Tls,
    /// Certificates that devices show on the MQTT port with TLS.
    pub client_certs: Option<ClientCerts>,
    pub mqtt: Mqtt,
    /// Devices come by this broker too; None: only by our own ports.
    pub broker: Option<Broker>,
    pub rtsp: Rtsp,
    pub streams: StreamsLimits,
    pub webrtc: WebRtc,
    pub tracks: Tracks,
    pub drain_max: Duration,
    /// Name or address of this box for devices that are ordered to publish; None: found out.
    pub orders_host: Option<String>,
    pub cameras: Vec<Camera>,
    /// Vendors' JSON over MQTT.
    pub formats: Vec<Mapping>,
    pub sources: Vec<Source>,
    pub rules: Vec<Rule>,
    pub platforms: Vec<Platform>,
    /// GeoJSON text of `grid.geojson`, if there is one: cells and zones.
    pub grid: Option<String>,
    /// The file of `grid`, there or not: it is read again when it changes.
    pub grid_file: PathBuf,
    /// Directory of offline map files served to screens under `/map/`, if any.
    pub map_dir: Option<PathBuf>,
}

/// Addresses; None: not served.
#[derive(Clone, Debug)]
pub struct Listen {
    pub mqtt: Option<SocketAddr>,
    pub mqtts: Option<SocketAddr>,
    pub rtsp: Option<SocketAddr>,
    pub rtsps: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    /// UDP and TCP.
    pub webrtc: Option<SocketAddr>,
    /// UDP: telemetry of the sources that name no address of their own.
    pub datagram: Option<SocketAddr>,
    /// Keys of TLS ports that nobody asked for: they are open because there is a certificate, and one that another
    /// program has is no reason not to start.
    pub unasked: Vec<&'static str>,
}

/// The certificate of all TLS ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// The operator's.
    Files {
        cert_file: PathBuf,
        key_file: PathBuf,
    },
    /// The gateway makes one and keeps it in the state directory.
    #[default]
    SelfSigned,
    /// No TLS ports.
    Off,
}

#[derive(Clone, Debug)]
pub struct Mqtt {
    pub packet_bytes_max: u32,
    pub connections_max: usize,
    /// Messages taken from one session and not yet acknowledged.
    pub receive_max: u16,
    /// Time for CONNECT to arrive.
    pub connect_timeout: Duration,
}

/// A foreign MQTT broker whose client we are.
#[derive(Clone, Debug)]
pub struct Broker {
    pub host: String,
    pub port: u16,
    /// The authority (PEM) of the broker's certificate; None: without TLS.
    pub ca_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub client_id: String,
    /// Group of a shared subscription; None: all of it comes here.
    pub share: Option<String>,
    /// Filters; empty: those of all protocols of this box.
    pub topics: Vec<String>,
    /// 0 or 1.
    pub qos: u8,
    /// How long the broker keeps our session while we are away.
    pub keep: Duration,
}

#[derive(Clone, Debug)]
pub struct Rtsp {
    pub connections_max: usize,
    /// Ports for media over UDP, both ends included; None: any free ones.
    pub udp_ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Debug)]
pub struct WebRtc {
    /// Addresses announced as host candidates; empty: those of the interfaces (or the listen address).
    pub announce: Vec<IpAddr>,
    pub sessions_max: usize,
}

/// The history of tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracks {
    /// 0: no history is kept.
    pub retention_days: u32,
    pub mb_max: u64,
    /// Of a device that stands still a point is kept so often.
    pub keep_every: Duration,
}

/// A camera that the gateway pulls from.
#[derive(Clone, Debug)]
pub struct Camera {
    pub stream: StreamId,
    /// `rtsp://host[:port]/path`, without credentials.
    pub url: url::Url,
    pub username: Option<String>,
    pub password: Option<String>,
    /// Basic may be answered on a line that is not encrypted.
    pub basic_auth: bool,
    /// What a `rtsps://` camera is known by.
    pub trust: Option<CameraTrust>,
    /// Pull only while somebody reads.
    pub on_demand: bool,
    /// How long a camera on demand is kept after its last reader.
    pub linger: Duration,
    pub transport: CameraTransport,
    /// Registry data of the camera as a device on the map.
    pub unit: Option<String>,
    /// Fixed position, degrees WGS-84 (lat, lon).
    pub position: Option<(f64, f64)>,
}

impl Camera {
    /// A camera with everything else as it is when nothing is written.
    pub fn new(stream: StreamId, url: url::Url) -> Self {
        Self {
            stream,
            url,
            username: None,
            password: None,
            basic_auth: false,
            trust: None,
            on_demand: true,
            linger: Duration::from_secs(10),
            transport: CameraTransport::Tcp,
            unit: None,
            position: None,
        }
    }
}

/// How the packets of a pulled camera come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameraTransport {
    Tcp,
    Udp,
    /// UDP, and TCP from the moment on that UDP was refused or brought nothing.
    Auto,
}

/// Which certificate a camera has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraTrust {
    /// Signed by one of these (PEM), for the host of the URL.
    Authority(PathBuf),
    /// SHA-256 of the certificate itself.
    Fingerprint([u8; 32]),
}

/// A device that sends its telemetry in datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub device: DeviceId,
    /// Where its datagrams come from; None: anywhere (only with a key).
    pub address: Option<IpAddr>,
    /// The port they come from; None: any.
    pub from_port: Option<u16>,
    /// Where they are heard, if not at `listen.datagram`.
    pub listen: Option<SocketAddr>,
    /// MAVLink system id.
    pub sysid: u8,
    /// MAVLink signing key: nothing else is believed then.
    pub key: Option<SigningKey>,
    /// It is off line when nothing came for so long.
    pub silence: Duration,
}

/// A rule: a CEL condition over `report` and `track` that raises events.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    /// Kind of the event it raises.
    pub kind: String,
    /// CEL; true raises the event, once until it was false again.
    pub when: String,
    pub severity: Severity,
    pub priority: Priority,
    /// Text for people.
    pub note: Option<String>,
}

/// A command platform above.
#[derive(Clone, Debug)]
pub struct Platform {
    pub name: String,
    pub url: url::Url,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Extra root certificate, PEM.
    pub ca_file: Option<PathBuf>,
    /// Event kinds it gets; empty: all.
    pub kinds: Vec<String>,
    /// Whole time for one request.
    pub timeout: Duration,
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
}

/// A name that may stand in topics, paths and URNs.
fn id(s: &str) -> Result<String, String> {
    if crate::ids::is_id(s) {
        Ok(s.to_owned())
    } else {
        Err(crate::ids::BadId(s.chars().take(80).collect()).to_string())
    }
}
