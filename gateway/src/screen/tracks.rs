//! `GET /api/v1/tracks/{device}`: where a device was. Every look is on record.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kerbside_codecs::telemetry::Datum;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Room;
use super::api::may_see;
use super::auth::Viewer;
use super::geojson::{self, GEOJSON};
use super::headers::Problem;
use super::serve::Client;
use crate::clock::{rfc3339, unix_ms};
use crate::history::{Answer, Question, Spot};
use crate::ids::DeviceId;
use crate::picture::rfc3339_ms;

const HOUR_MS: i64 = 3_600_000;
const SPOTS_DEFAULT: usize = 10_000;
const SPOTS_MAX: usize = 50_000;

#[derive(Deserialize)]
pub(super) struct Part {
    from: Option<String>,
    to: Option<String>,
    known_before: Option<String>,
    limit: Option<usize>,
    datum: Option<String>,
}

/// Milliseconds since 1970 UTC, or RFC 3339.
fn moment(key: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else {
        return Ok(None);
    };
    // A plus that was not escaped is a space.
    let read = || rfc3339_ms(&text.replace(' ', "+"));
    let found = text.parse().ok().or_else(read);
    found.map(Some).ok_or_else(|| {
        let text =
            format!("{key} must be milliseconds since 1970 UTC, or a time as 2026-11-21T08:00:00Z");
        Problem::new(StatusCode::BAD_REQUEST, text)
    })
}

/// `GET /api/v1/tracks/{device}`.
pub(super) async fn track(
    State(room): State<Arc<Room>>,
    Extension(client): Extension<Client>,
    viewer: Viewer,
    Path(device): Path<String>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(part) = part.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let history = room.history.as_ref().ok_or_else(|| {
        let text = "this gateway keeps no history; set tracks.retention_days in gateway.toml";
        Problem::new(StatusCode::NOT_FOUND, text)
    })?;
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "no track of this device is known");
    let datum = geojson::datum(part.datum.as_deref())?;
    let to_ms = moment("to", part.to.as_deref())?.unwrap_or_else(unix_ms);
    let from_ms = moment("from", part.from.as_deref())?.unwrap_or(to_ms.saturating_sub(HOUR_MS));
    let known_before_ms = moment("known_before", part.known_before.as_deref())?;
    if from_ms > to_ms {
        let text = "from must not be later than to";
        return Err(Problem::new(StatusCode::BAD_REQUEST, text));
    }
    let device = DeviceId::parse(&device).map_err(|_| unknown())?;
    if !may_see(&room, &viewer, &device) {
        // Not even that it exists.
        return Err(unknown());
    }
    let user = &viewer.account.user;
    let question = Question {
        device: device.clone(),
        from_ms,
        to_ms,
        known_before_ms,
        with_restricted: user.sees_restricted,
        limit: part.limit.unwrap_or(SPOTS_DEFAULT).clamp(1, SPOTS_MAX),
    };
    let answer = history
        .track(question)
        .await
        .map_err(|e| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{e}; try again")))?;
    if answer.spots.is_empty() && room.registry.device(device.as_str()).is_none() {
        return Err(unknown());
    }
    tracing::info!(
        target: "audit", user = user.name, role = user.role.name(), peer = %client.addr.ip(), %device,
        from = rfc3339(from_ms), to = rfc3339(to_ms), points = answer.spots.len(), "look at a track"
    );
    let body = Json(feature(&device, &answer, (from_ms, to_ms), datum));
    Ok(([(header::CONTENT_TYPE, GEOJSON)], body).into_response())
}

/// A GeoJSON feature with a list for each property of its positions.
fn feature(
    device: &DeviceId,
    answer: &Answer,
    (from_ms, to_ms): (i64, i64),
    datum: Datum,
) -> Value {
    let spots = &answer.spots;
    let list = |of: fn(&Spot) -> Value| -> Value { spots.iter().map(of).collect() };
    let at = |s: &Spot| geojson::position(datum, s.lat, s.lon);
    let coordinates: Vec<_> = spots.iter().map(at).collect();
    let geometry = match coordinates.len() {
        0 => Value::Null,
        1 => json!({"type": "MultiPoint", "coordinates": coordinates}),
        _ => json!({"type": "LineString", "coordinates": coordinates}),
    };
    json!({
        "type": "Feature",
        "id": device,
        "geometry": geometry,
        "properties": {
            "device": device,
            "datum": datum,
            "from_ms": from_ms,
            "to_ms": to_ms,
            "has_more": answer.has_more,
            "happened_ms": list(|s| s.happened_ms.into()),
            "known_ms": list(|s| s.known_ms.into()),
            "accuracy_m": list(|s| s.accuracy_m.into()),
            "speed_mps": list(|s| s.speed_mps.into()),
            "heading_deg": list(|s| s.heading_deg.into()),
            "alt_m": list(|s| s.alt_m.into()),
            "back_filled": list(|s| s.is_back_filled.into()),
        },
    })
}
