//! Cameras that we fetch: one task per configured camera, a client of its RTSP server.
//!
//! Here: when to connect, how long to wait before the next attempt, and the packets into the stream. Not here: the
//! client's protocol (crate `retina`, which knows the oddities of cameras), frames (`stream`).
//!
//! A camera on demand is connected while somebody reads, and a little longer; the others always.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use kerbside_codecs::media::Medium;
use kerbside_codecs::rtp::rtcp::{self, Report};
use kerbside_codecs::rtp::{Packet, Window};
use kerbside_codecs::rtsp::Offer;
use retina::client::{
    Described, InitialSequenceNumberPolicy, InitialTimestampPolicy, PacketItem, PlayOptions,
    Session, SessionGroup, SessionOptions, SetupOptions, Transport, UdpTransportOptions,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Camera;
use crate::stream::{Ingress, Streams};

/// From the connection to the answer to PLAY.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Without a packet for so long the camera is connected anew.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a camera on demand is kept after its last reader.
const LINGER: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

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
    #[error("{0}")]
    Camera(#[from] retina::Error),
    #[error("{0}")]
    Sdp(#[from] kerbside_codecs::rtsp::BadSdp),
    #[error("no answer within {} s", CONNECT_MAX.as_secs())]
    Timeout,
    #[error("no packet for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the camera closed the connection")]
    Closed,
    #[error("{0}")]
    Stream(#[from] crate::stream::SubscribeError),
    #[error("{0}")]
    Superseded(#[from] crate::stream::Superseded),
}

async fn keep(
    camera: Camera,
    streams: Streams,
    readers: Option<watch::Receiver<usize>>,
    mut shutdown: watch::Receiver<bool>,
) {
    tokio::select! {
        () = keep_connected(&camera, &streams, readers) => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

async fn keep_connected(
    camera: &Camera,
    streams: &Streams,
    mut readers: Option<watch::Receiver<usize>>,
) {
    let mut retry = Retry::default();
    loop {
        if let Some(readers) = &mut readers
            && readers.wait_for(|n| *n > 0).await.is_err()
        {
            return;
        }
        let began = Instant::now();
        let end = pull(camera, streams, readers.clone()).await;
        if let PullEnd::NoReaders = end {
            tracing::info!(stream = %camera.stream, "nobody reads this camera any more; disconnected");
            retry = Retry::default();
            continue;
        }
        let wait = retry.after(began.elapsed(), rand::random());
        let reason = end.to_string();
        if retry.failures == 1 {
            tracing::warn!(stream = %camera.stream, url = %camera.url, reason, "the camera cannot be pulled; trying again");
        } else {
            tracing::debug!(stream = %camera.stream, reason, failures = retry.failures, "the camera cannot be pulled");
        }
        tokio::time::sleep(wait).await;
    }
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

/// One connection, from DESCRIBE to its end.
async fn pull(
    camera: &Camera,
    streams: &Streams,
    readers: Option<watch::Receiver<usize>>,
) -> PullEnd {
    let connected = tokio::time::timeout(CONNECT_MAX, connect(camera)).await;
    let (session, media, routes) = match connected {
        Ok(Ok(c)) => c,
        Ok(Err(e)) => return e,
        Err(_) => return PullEnd::Timeout,
    };
    let publisher = match streams.publish(&camera.stream, media.clone(), "pull") {
        Ok(p) => p,
        Err(e) => return e.into(),
    };
    let window = if camera.transport_tcp {
        Window::IN_ORDER
    } else {
        Window::UDP
    };
    let ingress = Ingress::new(publisher, "pull", &media, window, Instant::now());
    tracing::info!(stream = %camera.stream, "camera connected");
    match forward(session, ingress, &routes, readers).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// A playing session, its media, and the medium of each of its streams.
type Connected = (
    Session<retina::client::Playing>,
    Vec<Medium>,
    Vec<Option<usize>>,
);

async fn connect(camera: &Camera) -> Result<Connected, PullEnd> {
    let creds = camera
        .username
        .as_ref()
        .map(|username| retina::client::Credentials {
            username: username.clone(),
            password: camera.password.clone().unwrap_or_default(),
        });
    let options = SessionOptions::default()
        .creds(creds)
        .user_agent("kerbside".to_owned())
        .session_group(Arc::new(SessionGroup::default()));
    let mut session = Session::<Described>::describe(camera.url.clone(), options).await?;
    let offer = Offer::parse(session.sdp())?;
    let mut media = Vec::new();
    let mut routes = vec![None; session.streams().len()];
    for (i, route) in routes.iter_mut().enumerate() {
        let Some(medium) = offer.media.get(i).and_then(|m| m.medium.clone()) else {
            continue;
        };
        let transport = if camera.transport_tcp {
            Transport::default()
        } else {
            Transport::Udp(UdpTransportOptions::default())
        };
        session
            .setup(i, SetupOptions::default().transport(transport))
            .await?;
        *route = Some(media.len());
        media.push(medium);
    }
    // Whatever the camera says about its first packet: the packets themselves tell.
    let options = PlayOptions::default()
        .initial_timestamp(InitialTimestampPolicy::Ignore)
        .initial_seq(InitialSequenceNumberPolicy::Ignore);
    Ok((session.play(options).await?, media, routes))
}

async fn forward(
    session: Session<retina::client::Playing>,
    mut ingress: Ingress,
    routes: &[Option<usize>],
    readers: Option<watch::Receiver<usize>>,
) -> Result<std::convert::Infallible, PullEnd> {
    tokio::pin!(session);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut read = Instant::now();
    loop {
        let item = tokio::select! {
            item = session.next() => item.ok_or(PullEnd::Closed)??,
            _ = tick.tick() => {
                let now = Instant::now();
                ingress.tick(now)?;
                if readers.as_ref().is_none_or(|r| *r.borrow() > 0) {
                    read = now;
                }
                if now.saturating_duration_since(read) >= LINGER {
                    return Err(PullEnd::NoReaders);
                }
                if now.saturating_duration_since(heard) >= SILENCE_MAX {
                    return Err(PullEnd::Silent);
                }
                continue;
            }
        };
        let now = Instant::now();
        heard = now;
        match item {
            PacketItem::Rtp(p) => {
                let Some(medium) = routes.get(p.stream_id()).copied().flatten() else {
                    continue;
                };
                if let Ok(packet) = Packet::parse(&Bytes::copy_from_slice(p.raw())) {
                    ingress.packet(medium, packet, now)?;
                }
            }
            PacketItem::Rtcp(p) => {
                let Some(medium) = routes.get(p.stream_id()).copied().flatten() else {
                    continue;
                };
                for report in rtcp::parse(p.raw()) {
                    if let Report::Sender { ssrc, ntp, time } = report {
                        ingress.sender_report(medium, ssrc, ntp, time);
                    }
                }
            }
            // Kinds that later versions of the client may give.
            _ => {}
        }
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
