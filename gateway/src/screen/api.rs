//! The calls of `/api/v1` that answer once: grid, events, streams. Shapes: gateway/API.md.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::Room;
use super::auth::Viewer;
use super::headers::Problem;
use super::serve::Client;
use crate::event::{Delivery, Event};
use crate::ids::{DeviceId, EventId, StreamId};
use crate::outbox::OutboxError;
use crate::stream::{ReaderStatus, StreamStatus};

const EVENTS_DEFAULT: usize = 100;
const EVENTS_MAX: usize = 500;

/// `GET /api/v1/grid`: the grid in force; 304 when the caller has it already (`If-None-Match`).
pub(super) async fn grid(
    State(room): State<Arc<Room>>,
    _viewer: Viewer,
    headers: HeaderMap,
) -> Response {
    let grid = room.grid.read().clone();
    let etag = grid.etag();
    let has = |v: &HeaderValue| {
        let tags = v.to_str().unwrap_or_default().split(',');
        let plain = |t: &str| t.trim().trim_start_matches("W/").to_owned();
        tags.map(plain).any(|t| t == etag || t == "*")
    };
    let status = if headers.get_all(header::IF_NONE_MATCH).iter().any(has) {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::OK
    };
    let tag = [(header::ETAG, etag)];
    match status {
        StatusCode::OK => (tag, json_text(grid.body())).into_response(),
        not_modified => (not_modified, tag).into_response(),
    }
}

pub(super) fn json_text(text: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
    before: Option<EventId>,
}

#[derive(Serialize)]
struct ShownEvent {
    #[serde(flatten)]
    event: Event,
    deliveries: Vec<Delivery>,
}

#[derive(Serialize)]
struct Events {
    events: Vec<ShownEvent>,
}

/// `GET /api/v1/events`: newest first.
pub(super) async fn events(
    State(room): State<Arc<Room>>,
    viewer: Viewer,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|e| {
        let text = format!(
            "{}; use ?limit=1…{EVENTS_MAX} and before=EVENT-ID",
            e.body_text()
        );
        Problem::new(e.status(), text)
    })?;
    let limit = page.limit.unwrap_or(EVENTS_DEFAULT).clamp(1, EVENTS_MAX);
    let recent = room
        .outbox
        .recent(limit, page.before)
        .await
        .map_err(|e| closed(&e))?;
    let shown = |(event, deliveries)| ShownEvent { event, deliveries };
    let events = recent
        .into_iter()
        .filter(|(e, _)| may_see_event(&room, &viewer, e))
        .map(shown)
        .collect();
    Ok(Json(Events { events }).into_response())
}

#[derive(Deserialize)]
pub(super) struct Retry {
    platform: String,
}

/// `POST /api/v1/events/{id}/retry`: a parked event is tried again.
pub(super) async fn retry(
    State(room): State<Arc<Room>>,
    Extension(client): Extension<Client>,
    viewer: Viewer,
    Path(id): Path<String>,
    body: Result<Json<Retry>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    viewer.may_order()?;
    let id: EventId = id
        .parse()
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the event id is not a UUID"))?;
    let Json(Retry { platform }) = body.map_err(|e| {
        let text = format!(
            "{}; send {{\"platform\": \"NAME\"}} as application/json",
            e.body_text()
        );
        Problem::new(e.status(), text)
    })?;
    // Of an event that they may not see, users are told what they are told of one that is not there.
    let visible = room
        .outbox
        .event(id)
        .await
        .map_err(|e| closed(&e))?
        .is_none_or(|e| may_see_event(&room, &viewer, &e));
    if !visible {
        return Err(not_parked());
    }
    let is_parked = room
        .outbox
        .retry(id, &platform)
        .await
        .map_err(|e| closed(&e))?;
    tracing::info!(
        target: "audit", user = viewer.account.user.name, peer = %client.addr.ip(),
        event = %id, platform, is_parked, "retry of an event"
    );
    if is_parked {
        Ok(StatusCode::ACCEPTED)
    } else {
        Err(not_parked())
    }
}

fn not_parked() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "this event is not parked for that platform: nothing to try again",
    )
}

/// What was raised while its device was restricted stays so, also when the device is no longer registered.
fn may_see_event(room: &Room, viewer: &Viewer, event: &Event) -> bool {
    (viewer.account.user.sees_restricted || !event.restricted)
        && may_see(room, viewer, &event.device)
}

/// Of a restricted device nothing is known without the grant.
pub(super) fn may_see(room: &Room, viewer: &Viewer, device: &DeviceId) -> bool {
    room.registry.may_see(&viewer.account.user, device.as_str())
}

fn closed(e: &OutboxError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{e}; try again"))
}

#[derive(Serialize)]
struct ShownStream {
    device: DeviceId,
    #[serde(flatten)]
    status: StreamStatus,
}

#[derive(Serialize)]
struct Streams {
    streams: Vec<ShownStream>,
}

/// `GET /api/v1/streams`.
pub(super) async fn streams(State(room): State<Arc<Room>>, viewer: Viewer) -> Response {
    let shown = |status: StreamStatus| ShownStream {
        device: status.stream.device.clone(),
        status,
    };
    let all = room.streams.status().into_iter();
    let streams = all
        .filter(|s| may_see(&room, &viewer, &s.stream.device))
        .map(shown)
        .collect();
    Json(Streams { streams }).into_response()
}

#[derive(Serialize)]
struct Readers {
    readers: Vec<ReaderStatus>,
}

/// `GET /api/v1/streams/{device}/{camera}/readers`: who looks.
pub(super) async fn readers(
    State(room): State<Arc<Room>>,
    viewer: Viewer,
    Path((device, camera)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let known = StreamId::new(&device, &camera)
        .ok()
        .filter(|id| may_see(&room, &viewer, &id.device))
        .and_then(|id| room.streams.readers(&id));
    match known {
        Some(readers) => Ok(Json(Readers { readers }).into_response()),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no stream of this name is known; GET /api/v1/streams lists them",
        )),
    }
}
