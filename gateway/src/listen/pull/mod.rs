//! Cameras that we fetch: one task per configured camera, a client of its RTSP server.
//!
//! Here: when to connect, over what, and how long to wait before the next attempt. Not here: requests (`client`),
//! packets (`media`), what bytes mean (`codecs::rtsp`), frames (`stream`).
//!
//! A camera on demand is connected while somebody reads, and a little longer; the others always.

mod client;
mod keepalive;
mod media;
mod metrics;
mod tls;

use std::time::{Duration, Instant};

use kerbside_codecs::rtsp::LoginFault;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Camera, CameraTransport};
use crate::stream::Streams;
use client::ClientFault;
use media::Playing;

/// From the connection to the answer to PLAY.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A password that was refused is not tried more often: cameras lock accounts.
const LOGIN_RETRY: Duration = Duration::from_secs(120);

/// Starts one task per camera; they end after `shutdown` says true.
pub fn start(
    io: &Handle,
    cameras: &[Camera],
    streams: &Streams,
    shutdown: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    cameras
        .iter()
        .filter_map(|camera| {
            // Declared before the task runs: from now on it can be read.
            let readers = if camera.on_demand {
                match streams.declare(&camera.stream) {
                    Ok(readers) => Some(readers),
                    Err(e) => {
                        tracing::error!(stream = %camera.stream, error = %e, "this camera is not pulled");
                        return None;
                    }
                }
            } else {
                None
            };
            Some(io.spawn(keep(camera.clone(), streams.clone(), readers, shutdown.clone())))
        })
        .collect()
}

/// Why one connection to a camera ended.
#[derive(Debug, thiserror::Error)]
enum PullEnd {
    #[error("nobody reads")]
    NoReaders,
    #[error("the gateway stops")]
    Stopped,
    #[error("{0}")]
    Camera(#[from] ClientFault),
    #[error("no answer within {} s", CONNECT_MAX.as_secs())]
    Timeout,
    #[error("no packet for a while")]
    Silent,
    #[error("no packet came over UDP")]
    NoUdp,
    #[error("{0}")]
    Stream(#[from] crate::stream::SubscribeError),
    #[error("{0}")]
    Superseded(#[from] crate::stream::Superseded),
}

impl PullEnd {
    /// The label of the metric.
    fn name(&self) -> &'static str {
        match self {
            Self::NoReaders => "no_readers",
            Self::Stopped => "stopped",
            Self::Camera(ClientFault::Login(_)) => "login",
            Self::Camera(ClientFault::Tls(_)) => "certificate",
            Self::Camera(ClientFault::UdpRefused) | Self::NoUdp => "no_udp",
            Self::Camera(ClientFault::Sdp(_)) => "media",
            Self::Camera(_) => "camera",
            Self::Timeout => "timeout",
            Self::Silent => "silent",
            Self::Stream(_) | Self::Superseded(_) => "stream",
        }
    }
}

async fn keep(
    camera: Camera,
    streams: Streams,
    mut readers: Option<watch::Receiver<usize>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut retry = Retry::default();
    let mut udp = camera.transport != CameraTransport::Tcp;
    loop {
        if let Some(readers) = &mut readers {
            tokio::select! {
                wanted = readers.wait_for(|n| *n > 0) => if wanted.is_err() { return },
                () = stopped(&mut shutdown) => return,
            }
        }
        let began = Instant::now();
        let end = pull(&camera, &streams, readers.clone(), udp, &mut shutdown).await;
        metrics::ended(end.name());
        if let PullEnd::Stopped = end {
            return;
        }
        if let PullEnd::NoReaders = end {
            tracing::info!(stream = %camera.stream, "nobody reads this camera any more; disconnected");
            retry = Retry::default();
            continue;
        }
        let no_udp = matches!(
            end,
            PullEnd::NoUdp | PullEnd::Camera(ClientFault::UdpRefused)
        );
        if udp && no_udp && camera.transport == CameraTransport::Auto {
            tracing::info!(stream = %camera.stream, reason = %end, "this camera is pulled over TCP from now on");
            udp = false;
            continue;
        }
        let mut wait = retry.after(began.elapsed(), rand::random());
        if let PullEnd::Camera(ClientFault::Login(LoginFault::Refused)) = end {
            wait = LOGIN_RETRY;
        }
        let reason = end.to_string();
        if retry.failures == 1 {
            tracing::warn!(stream = %camera.stream, url = %camera.url, reason, "the camera cannot be pulled; trying again");
        } else {
            tracing::debug!(stream = %camera.stream, reason, failures = retry.failures, "the camera cannot be pulled");
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut shutdown) => return,
        }
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // Nobody left to say it is a stop too.
    let _gone = shutdown.wait_for(|stop| *stop).await.is_err();
}

/// Exponential backoff with jitter; a connection that held for a while begins anew.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    /// `held`: how long the connection lasted; `jitter`: 0 to 1.
    fn after(&mut self, held: Duration, jitter: f64) -> Duration {
        if held > RETRY_MAX {
            self.failures = 0;
        }
        let most = RETRY_MIN
            .saturating_mul(1 << self.failures.min(6))
            .min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        most.mul_f64(0.5 + jitter / 2.0)
    }
}

/// One connection, from its first request to its end.
async fn pull(
    camera: &Camera,
    streams: &Streams,
    readers: Option<watch::Receiver<usize>>,
    udp: bool,
    shutdown: &mut watch::Receiver<bool>,
) -> PullEnd {
    let connected = tokio::select! {
        c = tokio::time::timeout(CONNECT_MAX, Playing::begin(camera, udp)) => c,
        () = stopped(shutdown) => return PullEnd::Stopped,
    };
    match connected {
        Ok(Ok(playing)) => playing.forward(camera, streams, readers, shutdown).await,
        Ok(Err(e)) => e.into(),
        Err(_) => PullEnd::Timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_begin_anew() {
        let mut r = Retry::default();
        let waits: Vec<u64> = (0..7)
            .map(|_| r.after(Duration::ZERO, 1.0).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(r.after(RETRY_MAX * 2, 0.0), Duration::from_millis(500));
        assert_eq!(r.after(Duration::ZERO, 1.0), Duration::from_secs(2));
    }
}
