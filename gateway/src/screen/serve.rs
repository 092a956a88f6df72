//! The HTTP server: connections in, requests to the router. Everything a stranger can hold open has a limit.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::metrics;

static CONNECTIONS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| metrics::gauge("kerbside_http_connections", "Connections now", &[]));
static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_http_connections_refused_total",
        "Connections that ended before a request",
        &["reason"],
    )
});

const CONNECTIONS_MAX: usize = 4096;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 << 10;
/// For the TLS handshake, for the headers of a request, and for a client that takes nothing.
const PATIENCE: Duration = Duration::from_secs(10);
const UNTAKEN_MAX: Duration = Duration::from_secs(30);
/// What the kernel holds for a screen that is slower than the feed; the rest stays a cursor.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Who is at the other end; an extension of every request.
#[derive(Clone, Debug)]
pub struct Client {
    pub addr: SocketAddr,
    pub tls: bool,
    /// Becomes true when the gateway stops.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Serves until `shutdown` is true; then idle connections end at once and others with their present request.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, addr) = match accepted {
            Ok(a) => a,
            Err(e) => {
                // Out of descriptors, most often: wait until some are free.
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            REFUSED.with_label_values(&["too_many"]).inc();
            continue;
        };
        let client = Client {
            addr,
            tls: tls.is_some(),
            stopping: shutdown.clone(),
        };
        let (tls, router) = (tls.clone(), router.clone());
        connections.spawn(async move {
            let _counted = Counted::new();
            connection(stream, tls, router, client).await;
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Returns when the gateway stops.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error: nobody is left who could say so, which is the same.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// One connection in the gauge, however its task ends.
struct Counted;

impl Counted {
    fn new() -> Self {
        CONNECTIONS.with_label_values::<&str>(&[]).inc();
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CONNECTIONS.with_label_values::<&str>(&[]).dec();
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router, client: Client) {
    if let Err(e) = tune(&stream) {
        tracing::debug!(error = %e, "socket options");
    }
    let Some(tls) = tls else {
        return requests(stream, router, client).await;
    };
    match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, router, client).await,
        Ok(Err(e)) => {
            REFUSED.with_label_values(&["tls"]).inc();
            tracing::debug!(peer = %client.addr, error = %e, "TLS handshake");
        }
        Err(_) => REFUSED.with_label_values(&["tls_timeout"]).inc(),
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(UNTAKEN_MAX))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

async fn requests<S>(stream: S, router: Router, client: Client)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stopping = client.stopping.clone();
    let peer = client.addr;
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(client.addr));
        extensions.insert(client.clone());
        router.call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = done {
        tracing::debug!(%peer, error = %e, "HTTP connection");
    }
}
