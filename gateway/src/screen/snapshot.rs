//! `GET /{device}/{camera}/snapshot.jpg`: the newest key frame as a still picture, for whoever may play the stream.
//!
//! Not here: how it is decoded, and that many who ask cost no more than one (`media`).

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kerbside_codecs::media::MediumKind;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::Room;
use super::api::may_see;
use super::audit;
use super::auth::Viewer;
use super::headers::Problem;
use super::serve::Client;
use crate::clock;
use crate::ids::StreamId;
use crate::media::{Fault, Key, Snapshot, Still};
use crate::stream::{Item, Streams, SubscribeError};

/// For a camera that is pulled on demand, and for the next key frame of a stream that has none.
const KEY_FRAME_WAIT_MAX: Duration = Duration::from_secs(6);
const WIDTH: std::ops::RangeInclusive<u16> = 16..=1920;

#[derive(Deserialize)]
pub(super) struct Wanted {
    width: Option<u16>,
}

pub(super) async fn snapshot(
    State(room): State<Arc<Room>>,
    viewer: Viewer,
    Extension(client): Extension<Client>,
    Path((device, camera)): Path<(String, String)>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let width = match wanted {
        Ok(Query(Wanted { width })) if width.is_none_or(|w| WIDTH.contains(&w)) => width,
        _ => {
            let (min, max) = WIDTH.into_inner();
            let text = format!("width is a whole number of pixels from {min} to {max}");
            return Problem::new(StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    let stream = match StreamId::new(&device, &camera) {
        Ok(stream) => stream,
        Err(e) => return Problem::new(StatusCode::NOT_FOUND, e.to_string()).into_response(),
    };
    if !may_see(&room, &viewer, &stream.device) {
        return refused(&Fault::NotLive);
    }
    let still = newest_key_frame(room.streams.clone(), stream.clone());
    let key = Key {
        stream: stream.clone(),
        width,
    };
    match room.snapshots.take(key, still).await {
        Ok(snapshot) => {
            audit::glance(&room, &viewer, &client, &stream);
            shown(&snapshot)
        }
        Err(fault) => refused(&fault),
    }
}

/// As a reader of the stream gets it; the reader leaves at once.
async fn newest_key_frame(streams: Streams, stream: StreamId) -> Result<Still, Fault> {
    let deadline = Instant::now() + KEY_FRAME_WAIT_MAX;
    let mut reader = match streams.read(&stream, KEY_FRAME_WAIT_MAX).await {
        Ok(reader) => reader,
        Err(SubscribeError::Timeout) => return Err(Fault::NoKeyFrame),
        Err(_) => return Err(Fault::NotLive),
    };
    let found = timeout_at(deadline, async {
        loop {
            let mut video = reader.media().iter();
            if !video.any(|m| m.codec.kind() == MediumKind::Video) {
                return Err(Fault::NoVideo);
            }
            match reader.next().await {
                Item::Frame { frame, .. } if frame.key => {
                    let codec = reader.media().get(usize::from(frame.medium));
                    let codec = codec.map(|m| &m.codec);
                    if let Some(codec) = codec.filter(|c| c.kind() == MediumKind::Video) {
                        return Still::new(codec, &frame.payloads, frame.captured);
                    }
                }
                Item::Ended(_) => return Err(Fault::NotLive),
                _ => {}
            }
        }
    });
    found.await.unwrap_or(Err(Fault::NoKeyFrame))
}

fn shown(snapshot: &Snapshot) -> Response {
    let captured = snapshot.captured;
    let at = clock::rfc3339(captured.utc_us / 1000);
    let uncertainty_ms = captured.uncertainty_us.div_ceil(1000);
    let mut answer = snapshot.jpeg.clone().into_response();
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(super::headers::content_type("snapshot.jpg")),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-captured-uncertainty-ms",
        HeaderValue::from(uncertainty_ms),
    );
    if let Ok(at) = HeaderValue::from_str(&at) {
        headers.insert("x-captured-at", at);
    }
    answer
}

fn refused(fault: &Fault) -> Response {
    let status = match fault {
        Fault::NotLive => StatusCode::NOT_FOUND,
        Fault::NoVideo | Fault::Codec(_) | Fault::NoDecoder { .. } => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        Fault::Busy | Fault::Slow => StatusCode::SERVICE_UNAVAILABLE,
        Fault::NoKeyFrame => StatusCode::GATEWAY_TIMEOUT,
        Fault::Damaged(_) => StatusCode::BAD_GATEWAY,
        Fault::Engine(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut answer = Problem::new(status, fault.to_string()).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_status() {
        let damaged = || Fault::Damaged("x".to_owned());
        for (fault, status) in [
            (Fault::NotLive, 404),
            (Fault::NoVideo, 415),
            (Fault::Codec("H266"), 415),
            (damaged(), 502),
            (Fault::Busy, 503),
            (Fault::Slow, 503),
            (Fault::NoKeyFrame, 504),
        ] {
            let answer = refused(&fault);
            assert_eq!(answer.status(), status, "{fault}");
            let headers = answer.headers();
            assert_eq!(headers.contains_key(header::RETRY_AFTER), status == 503);
            assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        }
    }
}
