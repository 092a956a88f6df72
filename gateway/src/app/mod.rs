//! The house is built here: rooms in order, then ready; at a signal they are left in reverse order.
//!
//! Here: construction, signals, the clockwork that moves facts between rooms. Not here: any decision about them.

mod clockwork;
mod places;
mod reload;
mod sockets;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kerbside_codecs::telemetry::Codecs;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{Config, Source, Tls};
use crate::device::Fleet;
use crate::device::orders::{OrderBook, Orders};
use crate::history::History;
use crate::ids::DeviceId;
use crate::listen::{broker, datagram, mqtt, pull, rtsp};
use crate::outbox::Outbox;
use crate::picture::{GridFile, Picture, Rules};
use crate::registry::{Guard, Registry};
use crate::screen::{self, Ready, Screen};
use crate::stream::{Fanout, Streams};
use crate::webrtc::WebRtc;
use crate::{notify, sink, tls};
use sockets::Sockets;

/// Runs the gateway until SIGTERM or SIGINT.
///
/// # Errors
/// When a room cannot be built: a port that is taken, a state directory that cannot be written.
pub fn run(config: Config, state_dir: &Path) -> anyhow::Result<()> {
    raise_file_limit();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("the TLS provider was installed twice"))?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from))
        .thread_name("io")
        .enable_all()
        .build()
        .context("the I/O threads could not be started")?;
    let result = actix_rt::System::new().block_on(serve(Arc::new(config), state_dir, io.handle()));
    io.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(
    config: Arc<Config>,
    state_dir: &Path,
    io: &tokio::runtime::Handle,
) -> anyhow::Result<()> {
    let mut sockets = Sockets::take()?;
    // Two signals: devices leave first, screens and sinks after the rooms between them are empty.
    let (stop_devices, devices) = watch::channel(false);
    let (stop_screens, screens) = watch::channel(false);

    let registry = Registry::open(state_dir)?;
    let guard = Arc::new(Guard::default());
    let outbox = Outbox::open(state_dir, &routes(&config))?;
    // After the state directory is ours alone.
    let (tls, mqtt_tls) = certificate(&config, state_dir)?;
    let streams = Streams::new(config.streams.clone());
    let fanout = Fanout::start(std::thread::available_parallelism().map_or(2, usize::from))
        .context("the fan-out threads could not be started")?;
    let grid = GridFile::parse(config.grid.as_deref()).map_err(|faults| {
        anyhow::anyhow!("grid.geojson: {faults:?}; run `kerbside check` for all faults")
    })?;
    reload::told(&config.grid_file, &grid.grid);
    let history = match config.tracks.retention_days {
        0 => None,
        _ => Some(History::open(state_dir, &config.tracks)?),
    };
    let rules = Rules::compile(&config.rules).map_err(|e| anyhow::anyhow!("rules.toml: {e:?}"))?;
    let recent = outbox.recent(200, None).await?;
    let restricted = registry.devices().into_iter().filter(|d| d.restricted);
    let restricted = restricted.filter_map(|d| DeviceId::parse(&d.id).ok());
    let picture = Picture::start(
        grid,
        rules,
        outbox.clone(),
        recent,
        history.clone(),
        restricted,
    );
    let formats: Vec<&str> = config.formats.iter().map(|f| &*f.name).collect();
    if !formats.is_empty() {
        tracing::info!(?formats, "formats of vendors");
    }
    let codecs = Arc::new(Codecs::new(config.formats.clone()));
    let book = OrderBook::open(state_dir)?;
    let fleet = Fleet::start(
        registry.clone(),
        picture.clone(),
        codecs.clone(),
        book.clone(),
    );
    let orders = Orders::new(
        book.clone(),
        fleet.clone(),
        registry.clone(),
        streams.clone(),
        places::places(&config),
    );
    let ready = Arc::new(Ready::default());

    let webrtc = match config.listen.webrtc {
        Some(bind) => Some(
            WebRtc::start(
                io,
                bind,
                &config.webrtc,
                streams.clone(),
                fanout.clone(),
                registry.clone(),
                screens.clone(),
            )
            .with_context(|| {
                format!(
                    "listen.webrtc = \"{bind}\" cannot be used; is another program on this port?"
                )
            })?,
        ),
        None => None,
    };
    let sinks = sink::start(io, &config.platforms, &outbox, &config.box_id, &screens)?;

    let router = screen::router(Screen {
        registry: registry.clone(),
        guard: guard.clone(),
        picture: picture.clone(),
        outbox: outbox.clone(),
        streams: streams.clone(),
        webrtc: webrtc.clone(),
        history: history.clone(),
        ready: ready.clone(),
        orders: orders.clone(),
        config: config.clone(),
    });
    let mut screen_tasks = Vec::new();
    for (key, addr, tls) in with_tls(
        "http",
        config.listen.http,
        "https",
        config.listen.https,
        tls.as_ref(),
    ) {
        let Some(listener) = sockets.tcp_if(is_asked(&config, key), key, addr)? else {
            continue;
        };
        let (router, shutdown) = (router.clone(), screens.clone());
        screen_tasks.push(io.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(l) => screen::serve(l, tls, router, shutdown).await,
                Err(e) => tracing::error!(error = %e, "the HTTP listener could not be started"),
            }
        }));
    }

    let mut rtsp_shared = rtsp::Shared::new(
        registry.clone(),
        guard.clone(),
        streams.clone(),
        fanout.clone(),
    );
    rtsp_shared.limits = config.rtsp.clone();
    let rtsp_shared = Arc::new(rtsp_shared);
    let mut device_tasks = vec![actix_rt::spawn(orders.work(devices.clone()))];
    for (key, addr, tls) in with_tls(
        "rtsp",
        config.listen.rtsp,
        "rtsps",
        config.listen.rtsps,
        tls.as_ref(),
    ) {
        let Some(listener) = sockets.tcp_if(is_asked(&config, key), key, addr)? else {
            continue;
        };
        let (shared, shutdown) = (rtsp_shared.clone(), devices.clone());
        device_tasks.push(io.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(l) => rtsp::serve(l, tls, shared, shutdown).await,
                Err(e) => tracing::error!(error = %e, "the RTSP listener could not be started"),
            }
        }));
    }
    device_tasks.extend(pull::start(io, &config.cameras, &streams, &devices));

    let datagram_shared = datagram::Shared {
        registry: registry.clone(),
        fleet: fleet.clone(),
        codecs: codecs.clone(),
    };
    for addr in datagram::addresses(config.listen.datagram, &config.sources) {
        let socket = tokio::net::UdpSocket::from_std(sockets::udp("datagram", addr)?)?;
        let at = |s: &&Source| s.listen.or(config.listen.datagram) == Some(addr);
        let sources = config.sources.iter().filter(at).cloned().collect();
        device_tasks.push(actix_rt::spawn(datagram::serve(
            socket,
            sources,
            datagram_shared.clone(),
            devices.clone(),
        )));
    }

    if let Some(b) = &config.broker {
        let room = broker::Broker {
            config: b.clone(),
            packet_bytes_max: config.mqtt.packet_bytes_max,
            devices_max: config.mqtt.connections_max,
            registry: registry.clone(),
            fleet: fleet.clone(),
            codecs: codecs.clone(),
            ready: ready.clone(),
        };
        device_tasks.push(actix_rt::spawn(broker::serve(room, devices.clone())));
    }
    let mqtt_shared =
        mqtt::Shared::new(registry.clone(), guard, fleet, codecs, config.mqtt.clone());
    for (key, addr, tls) in with_tls(
        "mqtt",
        config.listen.mqtt,
        "mqtts",
        config.listen.mqtts,
        mqtt_tls.as_ref(),
    ) {
        let Some(listener) = sockets.tcp_if(is_asked(&config, key), key, addr)? else {
            continue;
        };
        let listener = TcpListener::from_std(listener)?;
        device_tasks.push(actix_rt::spawn(mqtt::serve(
            listener,
            tls,
            mqtt_shared.clone(),
            devices.clone(),
        )));
    }

    let (works, picture_gone) = clockwork::start(
        &config,
        &registry,
        &picture,
        &streams,
        &outbox,
        history.as_ref(),
        &ready,
    )
    .await;
    ready.set("start", None);
    notify::ready();
    tracing::info!(box_id = config.box_id, listen = ?config.listen, "ready");

    let signal = tokio::select! {
        s = wait_for_signal() => s?,
        _ = picture_gone => {
            outbox.close().await;
            anyhow::bail!("the picture has died; what was acknowledged is on disk. Start the gateway again (systemd does)");
        }
    };
    tracing::info!(signal, drain_s_max = config.drain_max.as_secs(), "stopping");
    notify::stopping();
    ready.set("stopping", Some("the gateway is stopping"));
    let drained = timeout(config.drain_max, async {
        // In reverse: nothing new comes in, what is in goes through, then nobody looks any more.
        let _ = stop_devices.send(true);
        finished("devices", device_tasks).await;
        for w in works {
            w.abort();
        }
        let _ = stop_screens.send(true);
        finished("sinks", sinks).await;
        finished("screens", screen_tasks).await;
        if let Some(w) = &webrtc {
            w.all_left().await;
        }
        finished("fanout", vec![io.spawn_blocking(move || fanout.stop())]).await;
    })
    .await;
    if drained.is_err() {
        tracing::warn!(
            "not everything was finished within the time limit; events are on disk and go out after the next start"
        );
    }
    outbox.close().await;
    if let Some(h) = history {
        finished("tracks", vec![io.spawn_blocking(move || h.close())]).await;
    }
    finished("orders", vec![io.spawn_blocking(move || book.close())]).await;
    tracing::info!("stopped");
    Ok(())
}

/// Did somebody write this address, or is it a default that may fail?
fn is_asked(config: &Config, key: &str) -> bool {
    !config.listen.unasked.contains(&key)
}

fn routes(config: &Config) -> Vec<(String, Vec<String>)> {
    config
        .platforms
        .iter()
        .map(|p| (p.name.clone(), p.kinds.clone()))
        .collect()
}

/// TLS of all ports that have it, and that of MQTT, where devices may be asked for a certificate; None when there is none.
fn certificate(config: &Config, state_dir: &Path) -> Result<(Acceptor, Acceptor), tls::TlsError> {
    let l = &config.listen;
    if l.mqtts.or(l.rtsps).or(l.https).is_none() {
        return Ok((None, None));
    }
    let source = match &config.tls {
        Tls::Files {
            cert_file,
            key_file,
        } => tls::Source::Given {
            cert: cert_file.clone(),
            key: key_file.clone(),
        },
        Tls::SelfSigned => tls::Source::Own(tls::SelfSigned::new(state_dir, &config.box_id)),
        Tls::Off => return Ok((None, None)),
    };
    let server = tls::Server::open(source)?;
    let all = server.config()?;
    let mqtt = match &config.client_certs {
        Some(clients) if l.mqtts.is_some() => server.config_for(clients.clone())?,
        _ => all.clone(),
    };
    Ok((Some(all), Some(mqtt)))
}

type Acceptor = Option<Arc<rustls::ServerConfig>>;

/// The plain and the TLS address of one protocol, as far as they are configured.
fn with_tls(
    plain: &'static str,
    plain_addr: Option<std::net::SocketAddr>,
    secure: &'static str,
    secure_addr: Option<std::net::SocketAddr>,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> Vec<(&'static str, std::net::SocketAddr, Acceptor)> {
    let mut all = Vec::new();
    if let Some(a) = plain_addr {
        all.push((plain, a, None));
    }
    if let (Some(a), Some(t)) = (secure_addr, tls) {
        all.push((secure, a, Some(t.clone())));
    }
    all
}

async fn finished(room: &str, tasks: Vec<JoinHandle<()>>) {
    for t in tasks {
        if let Err(e) = t.await
            && e.is_panic()
        {
            tracing::error!(room, error = %e, "a task had died");
        }
    }
}

async fn wait_for_signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}

/// Thousands of devices are thousands of sockets: takes what the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = %e, "the limit of open files could not be raised");
    }
}
