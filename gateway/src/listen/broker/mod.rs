//! Devices behind a foreign broker (Mosquitto, EMQX): one client of it that feeds the same device actors.
//!
//! Here: the line to the broker, whose message it is, when it is acknowledged, messages down through the broker. Not
//! here: what messages mean, and who may publish where: the broker answers its devices before we know of a message,
//! and which device published to a topic is its word alone.
//!
//! `window`: what is under way and the order of acknowledgements, pure. `line`: the connection. `desk`: from messages to
//! sessions. `session`: one device.

mod desk;
mod line;
mod session;
mod window;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kerbside_codecs::telemetry::Codecs;
use prometheus::{IntCounterVec, IntGaugeVec};
use rumqttc::v5::mqttbytes::v5::ConnectProperties;
use rumqttc::v5::{AsyncClient, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::device::Fleet;
use crate::metrics;
use crate::registry::Registry;
use crate::screen::Ready;
use desk::Desk;

static MESSAGES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_broker_messages_total",
        "Messages that the broker brought, by what became of them",
        &["outcome"],
    )
});
static CONNECTED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_broker_connected",
        "1 while the broker is there",
        &[],
    )
});
static CONNECTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_broker_connects_total",
        "Connections to the broker, by whether it knew us",
        &["session"],
    )
});
static SESSIONS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_broker_devices",
        "Devices that speak through the broker now",
        &[],
    )
});

/// Messages and bytes that are taken and not yet owned; then the broker is not read. The broker is told the first.
const WINDOW_MAX: u16 = 256;
const WINDOW_BYTES_MAX: usize = 8 << 20;
/// Requests to the client that wait: all acknowledgements of a window, and messages down.
const REQUESTS_MAX: usize = 4 * WINDOW_MAX as usize;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the broker keeps what came while we were away.
const EXPIRY_S: u32 = 24 * 3600;
const CONNECT_TIMEOUT_S: u64 = 10;
/// The name of the condition in `/readyz`.
const CONDITION: &str = "broker";

/// What the room stands on.
pub struct Broker {
    pub config: config::Broker,
    /// Largest message, bytes.
    pub packet_bytes_max: u32,
    /// Devices at once.
    pub devices_max: usize,
    pub registry: Registry,
    pub fleet: Fleet,
    pub codecs: Arc<Codecs>,
    pub ready: Arc<Ready>,
}

/// Takes what devices say by the broker until `shutdown` turns true. Must run inside a `LocalSet`, on the thread of the
/// device actors.
pub async fn serve(broker: Broker, shutdown: watch::Receiver<bool>) {
    let (client, events) = match client(&broker) {
        Ok(both) => both,
        Err(fault) => {
            tracing::error!(fault, "the broker cannot be used");
            broker.ready.degrade(CONDITION, Some(&fault));
            return;
        }
    };
    let (said, hears) = mpsc::channel(1);
    let (stopping, stops) = watch::channel(false);
    let line = tokio::task::spawn_local(line::run(events, said, stops));
    Desk::new(broker, client, line, stopping)
        .run(hears, shutdown)
        .await;
}

/// A client that connects when it is polled.
fn client(broker: &Broker) -> Result<(AsyncClient, EventLoop), String> {
    let c = &broker.config;
    let mut o = MqttOptions::new(c.client_id.as_str(), c.host.as_str(), c.port);
    o.set_keep_alive(KEEP_ALIVE)
        .set_clean_start(false)
        .set_manual_acks(true)
        .set_request_channel_capacity(REQUESTS_MAX)
        .set_outgoing_inflight_upper_limit(WINDOW_MAX)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(EXPIRY_S),
            receive_maximum: Some(WINDOW_MAX),
            max_packet_size: Some(broker.packet_bytes_max),
            ..ConnectProperties::new()
        });
    if let Some(user) = &c.username {
        o.set_credentials(user.as_str(), c.password.as_deref().unwrap_or_default());
    }
    if let Some(ca) = &c.ca_file {
        let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", ca.display());
        let mut roots = rustls::RootCertStore::empty();
        for cert in CertificateDer::pem_file_iter(ca).map_err(|e| fault(&e))? {
            let cert = cert.map_err(|e| fault(&e))?;
            roots.add(cert).map_err(|e| fault(&e))?;
        }
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConfiguration::Rustls(Arc::new(tls));
        o.set_transport(Transport::tls_with_config(tls));
    }
    Ok(AsyncClient::new(o, REQUESTS_MAX))
}
