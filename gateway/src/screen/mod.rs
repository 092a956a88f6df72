//! Screens take out: HTTP API, feed, login, console files, offline map, health, metrics. The contract is gateway/API.md.
//!
//! Here: sockets, who asks, what a role may, answers. Not here: what the picture is, or how a stream gets to a reader.

mod api;
mod audit;
mod auth;
mod console;
mod feed;
mod geojson;
mod headers;
mod health;
mod login;
mod map;
mod orders;
mod serve;
mod snapshot;
#[cfg(test)]
mod tests;
mod tracks;
pub mod whep;
pub mod whip;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::device::orders::{Orders, Passes};
use crate::history::History;
use crate::media::Snapshots;
use crate::outbox::Outbox;
use crate::picture::{Feed, GridFile, Picture};
use crate::registry::{Guard, Principal, Registry};
use crate::stream::Streams;
use crate::webrtc::WebRtc;

use auth::Viewer;
use headers::Problem;
pub use health::Ready;
pub use serve::{Client, serve};

const BODY_BYTES_MAX: usize = 64 << 10;

/// What the screen room stands on.
#[derive(Clone)]
pub struct Screen {
    pub registry: Registry,
    pub guard: Arc<Guard>,
    pub picture: Picture,
    pub outbox: Outbox,
    pub streams: Streams,
    /// None: no WebRTC port.
    pub webrtc: Option<WebRtc>,
    /// None: no history is kept.
    pub history: Option<History>,
    pub ready: Arc<Ready>,
    pub orders: Orders,
    pub config: Arc<Config>,
}

/// State of all handlers.
struct Room {
    registry: Registry,
    guard: Arc<Guard>,
    feed: Arc<Feed>,
    grid: Arc<RwLock<GridFile>>,
    history: Option<History>,
    outbox: Outbox,
    streams: Streams,
    snapshots: Snapshots,
    glances: audit::Glances,
    ready: Arc<Ready>,
    box_id: String,
    map_dir: Option<PathBuf>,
    logins: login::Logins,
    feed_places: Arc<Semaphore>,
    feed_write_timeout: Duration,
}

/// Everything that is served over HTTP. Meant for [`serve`], which says who the client is.
pub fn router(screen: Screen) -> Router {
    let room = Arc::new(Room {
        registry: screen.registry,
        guard: screen.guard,
        feed: screen.picture.feed().clone(),
        grid: screen.picture.grid().clone(),
        history: screen.history,
        outbox: screen.outbox,
        streams: screen.streams,
        snapshots: Snapshots::default(),
        glances: audit::Glances::default(),
        ready: screen.ready,
        box_id: screen.config.box_id.clone(),
        map_dir: screen.config.map_dir.clone(),
        logins: login::Logins::default(),
        feed_places: Arc::new(Semaphore::new(feed::FEEDS_MAX)),
        feed_write_timeout: feed::WRITE_TIMEOUT,
    });
    let passes = screen.orders.passes.clone();
    let more = orders::router(screen.orders, &room);
    let video = screen
        .webrtc
        .map_or_else(Router::new, |w| video(w, passes, &room));
    routes(room, video.merge(more))
}

/// WHIP for devices and WHEP for users. A user comes by token, or by the cookie of the console.
#[allow(
    clippy::result_large_err,
    reason = "a refusal is the whole answer, made once a request"
)]
fn video(webrtc: WebRtc, passes: Passes, room: &Arc<Room>) -> Router {
    let whip = whip::router(whip::Whip {
        webrtc: webrtc.clone(),
        registry: room.registry.clone(),
        guard: room.guard.clone(),
        passes,
    });
    let asked = room.clone();
    let auth: whep::Auth = Arc::new(move |headers, peer| {
        // All calls of WHEP change something, so the cookie alone is not enough.
        Viewer::of(&asked, headers, &Method::POST, peer.ip())
            .map(|viewer| Principal::User(viewer.account.user))
            .map_err(IntoResponse::into_response)
    });
    let whep = whep::router(whep::Whep { webrtc, auth });
    whip.merge(whep.layer(middleware::from_fn_with_state(room.clone(), audit::looks)))
}

fn routes(room: Arc<Room>, video: Router) -> Router {
    Router::new()
        .route("/api/v1/login", post(login::login))
        .route("/api/v1/logout", post(login::logout))
        .route("/api/v1/me", get(login::me))
        .route("/api/v1/feed", get(feed::feed))
        .route("/api/v1/picture", get(geojson::picture))
        .route("/api/v1/grid", get(api::grid))
        .route("/api/v1/tracks/{device}", get(tracks::track))
        .route("/api/v1/events", get(api::events))
        .route("/api/v1/events/{id}/retry", post(api::retry))
        .route("/api/v1/streams", get(api::streams))
        .route(
            "/api/v1/streams/{device}/{camera}/readers",
            get(api::readers),
        )
        .route("/{device}/{camera}/snapshot.jpg", get(snapshot::snapshot))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/map/{*path}", get(map::file))
        .with_state(room)
        .merge(video)
        .fallback(other)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(headers::around))
}

/// Console files; everything else is unknown.
async fn other(request: Request) -> Response {
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let file = reading.then(|| console::file(request.uri(), request.headers()));
    file.flatten().unwrap_or_else(|| {
        let text = "nothing has this address; the interface is described in gateway/API.md";
        Problem::new(StatusCode::NOT_FOUND, text).into_response()
    })
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this address exists, but not for this method; see Allow",
    )
}
