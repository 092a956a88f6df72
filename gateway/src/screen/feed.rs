//! The feed as a WebSocket. A screen is a cursor into the picture: one that takes nothing costs nothing, and is let go.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use prometheus::{IntCounterVec, IntGaugeVec};
use serde::Deserialize;
use tokio::time::timeout;

use super::Room;
use super::auth::{Viewer, cross_origin};
use super::headers::Problem;
use super::serve::{Client, stopped};
use crate::metrics;
use crate::picture::{Audience, FeedReader, Filter, Wanted};

static FEEDS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| metrics::gauge("kerbside_feeds", "Screens with an open feed", &[]));
static ENDED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_feeds_ended_total",
        "Feeds by why they ended",
        &["reason"],
    )
});

pub(super) const FEEDS_MAX: usize = 2048;
/// Screens have nothing to say.
const MESSAGE_BYTES_MAX: usize = 4096;
/// A screen that does not take one message within this time is let go; it resumes with `?since=`.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Without a pong for so long nobody is there.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// What of the picture, and since when.
#[derive(Deserialize)]
pub(super) struct Part {
    since: Option<String>,
    cell: Option<String>,
    agency: Option<String>,
    kind: Option<String>,
    bbox: Option<String>,
}

impl Part {
    /// What this viewer asks for and may see.
    pub fn audience(&self, viewer: &Viewer) -> Result<Audience, Problem> {
        let filter = Filter::parse(Wanted {
            cell: self.cell.as_deref(),
            agency: self.agency.as_deref(),
            kind: self.kind.as_deref(),
            bbox: self.bbox.as_deref(),
        });
        Ok(Audience {
            sees_restricted: viewer.account.user.sees_restricted,
            filter: filter.map_err(|reason| Problem::new(StatusCode::BAD_REQUEST, reason))?,
        })
    }
}

/// `GET /api/v1/feed?since=EPOCH-SEQ&cell=…&agency=…&kind=…&bbox=…`.
pub(super) async fn feed(
    State(room): State<Arc<Room>>,
    Extension(client): Extension<Client>,
    viewer: Viewer,
    headers: HeaderMap,
    part: Result<Query<Part>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    if cross_origin(&headers) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "pages of other sites do not get the feed",
        ));
    }
    let Query(part) = part.map_err(|e| {
        Problem::new(
            e.status(),
            format!("{}; use ?since=EPOCH-SEQ", e.body_text()),
        )
    })?;
    let audience = part.audience(&viewer)?;
    let upgrade = upgrade.map_err(|e| {
        Problem::new(
            e.status(),
            format!("{}; the feed is a WebSocket", e.body_text()),
        )
    })?;
    let Ok(place) = room.feed_places.clone().try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("all {FEEDS_MAX} feeds are taken; close screens that nobody watches"),
        ));
    };
    let answer = upgrade
        .protocols(["bearer"])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .write_buffer_size(0)
        .on_upgrade(move |socket| async move {
            FEEDS.with_label_values::<&str>(&[]).inc();
            let reader = room.feed.subscribe(part.since.as_deref(), audience);
            let end = serve(socket, &room, &viewer, client, reader).await;
            FEEDS.with_label_values::<&str>(&[]).dec();
            ENDED.with_label_values(&[end.name()]).inc();
            tracing::debug!(
                user = viewer.account.user.name,
                end = end.name(),
                "feed ended"
            );
            drop(place);
        });
    Ok(answer)
}

/// Why a feed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Left,
    /// Did not take a message in time.
    Stalled,
    /// Did not answer pings.
    Silent,
    /// Said something too large, or not WebSocket.
    Misused,
    /// The account was revoked, or the login ended.
    Revoked,
    Stopping,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
            Self::Misused => "misused",
            Self::Revoked => "revoked",
            Self::Stopping => "stopping",
        }
    }

    /// What to tell the screen before the socket closes.
    fn close(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left | Self::Stalled | Self::Silent => return None,
            Self::Misused => (close_code::POLICY, "screens send nothing"),
            Self::Revoked => (close_code::POLICY, "log in again"),
            Self::Stopping => (close_code::AWAY, "the gateway stops"),
        };
        Some(CloseFrame {
            code,
            reason: reason.into(),
        })
    }
}

async fn serve(
    socket: WebSocket,
    room: &Room,
    viewer: &Viewer,
    client: Client,
    mut reader: FeedReader,
) -> End {
    let (mut sink, mut stream) = socket.split();
    let end = tokio::select! {
        end = send(&mut sink, &mut reader, room.feed_write_timeout) => end,
        end = hear(&mut stream) => end,
        end = over(room, viewer, client) => end,
    };
    if let Some(frame) = end.close() {
        // A screen that does not take this finds out by the closed socket.
        drop(timeout(CLOSE_TIMEOUT, sink.send(Message::Close(Some(frame)))).await);
    }
    end
}

async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    reader: &mut FeedReader,
    limit: Duration,
) -> End {
    let mut pinged = Instant::now();
    loop {
        // At the latest after the feed's own heart-beat there is a message, so pings need no timer.
        let Ok(text) = Utf8Bytes::try_from(reader.next().await) else {
            return End::Misused;
        };
        if let Some(end) = write(sink, Message::Text(text), limit).await {
            return end;
        }
        if pinged.elapsed() >= PING_INTERVAL {
            pinged = Instant::now();
            if let Some(end) = write(sink, Message::Ping(Bytes::new()), limit).await {
                return end;
            }
        }
    }
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    message: Message,
    limit: Duration,
) -> Option<End> {
    match timeout(limit, sink.send(message)).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(End::Left),
        Err(_) => Some(End::Stalled),
    }
}

/// Takes pongs; whatever else a screen says is not for us.
async fn hear(stream: &mut SplitStream<WebSocket>) -> End {
    loop {
        match timeout(SILENCE_MAX, stream.next()).await {
            Err(_) => return End::Silent,
            Ok(None | Some(Ok(Message::Close(_)))) => return End::Left,
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(e))) => {
                tracing::debug!(error = %e, "feed");
                return End::Misused;
            }
        }
    }
}

/// Ends when this viewer may not watch any longer.
async fn over(room: &Room, viewer: &Viewer, client: Client) -> End {
    let mut revoked = room.registry.revocations();
    let mut closed = room.logins.closed();
    let mut stopping = client.stopping;
    loop {
        let now = Instant::now();
        if !viewer.is_valid(room, now) {
            return End::Revoked;
        }
        let expiry = async {
            match viewer.until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let still = tokio::select! {
            changed = revoked.changed() => changed.is_ok(),
            changed = closed.changed() => changed.is_ok(),
            () = expiry => true,
            () = stopped(&mut stopping) => false,
        };
        if !still {
            return End::Stopping;
        }
    }
}
