//! What every answer carries, and answers that are only a status.

use std::sync::LazyLock;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::IntCounterVec;
use serde_json::json;

use super::BODY_BYTES_MAX;
use crate::metrics;

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_http_requests_total",
        "Answered HTTP requests",
        &["status"],
    )
});

/// Time for a handler to give its answer; the body may take longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Fit for MapLibre: its worker and its images are blobs.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self' blob:; child-src blob:; \
style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self' ws: wss:; \
media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// An answer in words: `{"error": "what, and what to do"}`.
#[derive(Debug)]
pub(super) struct Problem(pub StatusCode, pub String);

impl Problem {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(status, text.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

/// Middleware around everything: time limit, security headers, a count.
pub(super) async fn around(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let answered = async {
        if announced_bytes(request.headers()) > BODY_BYTES_MAX as u64 {
            // Before the body is waited for.
            let text = format!("at most {BODY_BYTES_MAX} bytes are taken");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
        }
        next.run(request).await
    };
    let mut answer = match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(answer) => answer,
        Err(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway took too long; try again",
        )
        .into_response(),
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-opener-policy",
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        "permissions-policy",
        HeaderValue::from_static("camera=(), microphone=(), geolocation=()"),
    );
    if is_api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    REQUESTS
        .with_label_values(&[answer.status().as_str()])
        .inc();
    answer
}

/// `Content-Length`; 0 without one, as the body is limited in any case.
fn announced_bytes(headers: &HeaderMap) -> u64 {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .unwrap_or(0)
}

/// By the name's ending; unknown ones are only bytes.
pub(super) fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, e)| e) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "geojson" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
