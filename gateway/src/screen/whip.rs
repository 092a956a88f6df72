//! WHIP (RFC 9725): a device publishes by WebRTC. `POST /{device}/{camera}/whip`, then DELETE and PATCH on its session.
//!
//! Here: HTTP to `webrtc::WebRtc` and back, the device's password, and what WHEP has in common with WHIP. Not here:
//! SDP, media.

#![allow(
    clippy::result_large_err,
    reason = "the error is the response itself, made once per refused request"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use serde_json::json;

use crate::device::orders::Passes;
use crate::ids::StreamId;
use crate::registry::{Guard, Principal, Registry, Verdict};
use crate::webrtc::{Answer, OfferError, Patched, WebRtc};

/// An offer is a few kilobytes.
pub(super) const BODY_MAX: usize = 64 << 10;
const SDP: HeaderValue = HeaderValue::from_static("application/sdp");
const FRAGMENT: HeaderValue = HeaderValue::from_static("application/trickle-ice-sdpfrag");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// What the WHIP routes need.
#[derive(Clone)]
pub struct Whip {
    pub webrtc: WebRtc,
    pub registry: Registry,
    pub guard: Arc<Guard>,
    /// For devices that cannot send their password.
    pub passes: Passes,
}

pub fn router(state: Whip) -> Router {
    Router::new()
        .route("/{device}/{camera}/whip", post(offer).options(options))
        .route(
            "/{device}/{camera}/whip/{id}",
            delete(end).patch(trickle).options(options),
        )
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
}

async fn offer(
    State(s): State<Whip>,
    Path((device, camera)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    extensions: Extensions,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let passed = stream(&device, &camera)
        .ok()
        .and_then(|stream| s.passed(&stream, query.as_deref()));
    let who = match passed {
        Some(who) => who,
        None => s.device(&device, &headers, &extensions)?,
    };
    let stream = stream(&device, &camera)?;
    let sdp = sdp(&headers, &body)?;
    let answer = s.webrtc.whip(&stream, sdp, who).await;
    Ok(created(answer, &format!("/{stream}/whip")))
}

async fn end(
    State(s): State<Whip>,
    Path((device, _, id)): Path<(String, String, String)>,
    extensions: Extensions,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let who = s.device(&device, &headers, &extensions)?;
    Ok(deleted(s.webrtc.delete(&id, &who).await))
}

async fn trickle(
    State(s): State<Whip>,
    Path((device, _, id)): Path<(String, String, String)>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let who = s.device(&device, &headers, &extensions)?;
    patch(&s.webrtc, &id, &who, &headers, &body).await
}

impl Whip {
    /// The device of the stream, if the address has a pass for it (`?pass=`, from an order).
    fn passed(&self, stream: &StreamId, query: Option<&str>) -> Option<Principal> {
        let pass = query?.split('&').find_map(|p| p.strip_prefix("pass="))?;
        let is_valid = self.passes.is_valid(pass, stream, Instant::now());
        let device = self.registry.device(stream.device.as_str())?;
        is_valid.then_some(Principal::Device(device))
    }

    /// The device of the path, if the request has its password.
    fn device(
        &self,
        device: &str,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Principal, Response> {
        bearer(headers)
            .and_then(|password| self.registry.check_device(device, password).ok())
            .map(Principal::Device)
            .ok_or_else(|| unauthorized(&self.guard, "whip", peer(extensions), device))
    }
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then(|| token.trim_ascii())
}

/// Who is at the other end, as far as the server told.
pub(super) fn peer(extensions: &Extensions) -> SocketAddr {
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or((Ipv4Addr::UNSPECIFIED, 0).into(), |c| c.0)
}

/// 401, or 429 after too many failures from one address.
pub(super) fn unauthorized(
    guard: &Guard,
    protocol: &'static str,
    peer: SocketAddr,
    name: &str,
) -> Response {
    match guard.failed(protocol, peer.ip(), name, Instant::now()) {
        Verdict::Refuse => {
            let mut r = error(
                StatusCode::UNAUTHORIZED,
                "wrong or missing credentials; send Authorization: Bearer",
            );
            let challenge = HeaderValue::from_static("Bearer realm=\"kerbside\"");
            r.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            r
        }
        Verdict::SlowDown(wait) => {
            let mut r = error(
                StatusCode::TOO_MANY_REQUESTS,
                "too many refused requests from this address; wait a moment",
            );
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            r.headers_mut().insert(RETRY_AFTER, seconds);
            r
        }
    }
}

pub(super) fn stream(device: &str, camera: &str) -> Result<StreamId, Response> {
    StreamId::new(device, camera).map_err(|e| error(StatusCode::NOT_FOUND, &e.to_string()))
}

/// The offer in a request.
pub(super) fn sdp<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<&'a str, Response> {
    if !is_type(headers, &SDP) {
        return Err(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the offer must be sent as Content-Type: application/sdp",
        ));
    }
    text(body)
}

fn is_type(headers: &HeaderMap, wanted: &HeaderValue) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|t| {
        let essence = t.as_bytes().split(|b| *b == b';').next();
        essence
            .unwrap_or_default()
            .trim_ascii()
            .eq_ignore_ascii_case(wanted.as_bytes())
    })
}

fn text(body: &[u8]) -> Result<&str, Response> {
    std::str::from_utf8(body)
        .map_err(|_| error(StatusCode::BAD_REQUEST, "the body is not UTF-8 text"))
}

/// 201 with the answer, or what was wrong with the offer.
pub(super) fn created(answer: Result<Answer, OfferError>, base: &str) -> Response {
    let Answer { sdp, id, etag } = match answer {
        Ok(a) => a,
        Err(e) => return refused(&e),
    };
    let mut r = (StatusCode::CREATED, sdp).into_response();
    let h = r.headers_mut();
    h.insert(CONTENT_TYPE, SDP);
    h.insert(ACCEPT_PATCH, FRAGMENT);
    for (name, value) in [(LOCATION, format!("{base}/{id}")), (ETAG, etag)] {
        match HeaderValue::from_str(&value) {
            Ok(v) => {
                h.insert(name, v);
            }
            Err(_) => tracing::error!(%name, "not a header value"),
        }
    }
    open_to_all_origins(h);
    r
}

fn refused(e: &OfferError) -> Response {
    let status = match e {
        OfferError::BadSdp(_) => StatusCode::BAD_REQUEST,
        OfferError::Forbidden => StatusCode::FORBIDDEN,
        OfferError::NotFound => StatusCode::NOT_FOUND,
        OfferError::Media(_) => StatusCode::NOT_ACCEPTABLE,
        OfferError::NotCarried(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        OfferError::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
        OfferError::Timeout => StatusCode::GATEWAY_TIMEOUT,
    };
    let mut r = error(status, &e.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        r.headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    r
}

pub(super) fn deleted(found: bool) -> Response {
    if found {
        let mut r = StatusCode::OK.into_response();
        open_to_all_origins(r.headers_mut());
        r
    } else {
        no_session()
    }
}

/// A trickled fragment.
pub(super) async fn patch(
    webrtc: &WebRtc,
    id: &str,
    who: &Principal,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Response> {
    if !is_type(headers, &FRAGMENT) {
        return Err(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "candidates must be sent as Content-Type: application/trickle-ice-sdpfrag",
        ));
    }
    let if_match = headers.get(IF_MATCH).and_then(|v| v.to_str().ok());
    let mut r = match webrtc.patch(id, who, if_match, text(body)?).await {
        Patched::Accepted => StatusCode::NO_CONTENT.into_response(),
        Patched::NotFound => no_session(),
        Patched::Stale => error(
            StatusCode::PRECONDITION_FAILED,
            "the session has another entity tag",
        ),
        Patched::Restarted { fragment, etag } => {
            let mut r = fragment.into_response();
            r.headers_mut().insert(CONTENT_TYPE, FRAGMENT);
            if let Ok(v) = HeaderValue::from_str(&etag) {
                r.headers_mut().insert(ETAG, v);
            }
            r
        }
        Patched::BadFragment => error(
            StatusCode::BAD_REQUEST,
            "an ICE restart needs a=ice-ufrag (4 to 256 characters) and a=ice-pwd",
        ),
    };
    open_to_all_origins(r.headers_mut());
    Ok(r)
}

fn no_session() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "no such session, or not yours; it may have ended",
    )
}

pub(super) async fn options() -> Response {
    let mut r = StatusCode::NO_CONTENT.into_response();
    let h = r.headers_mut();
    h.insert(ACCEPT_POST, SDP);
    let methods = HeaderValue::from_static("POST, DELETE, PATCH, OPTIONS");
    h.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = HeaderValue::from_static("Authorization, Content-Type, If-Match");
    h.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    open_to_all_origins(h);
    r
}

/// A player on any page may use a token it was given; browsers send no cookie to `*`.
fn open_to_all_origins(h: &mut HeaderMap) {
    h.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let exposed = HeaderValue::from_static("Location, ETag, Accept-Patch");
    h.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

fn error(status: StatusCode, what: &str) -> Response {
    let mut r = (status, axum::Json(json!({ "error": what }))).into_response();
    open_to_all_origins(r.headers_mut());
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        let of = |v: &'static str| {
            let mut h = HeaderMap::new();
            h.insert(AUTHORIZATION, HeaderValue::from_static(v));
            bearer(&h).map(<[u8]>::to_vec)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(of("bearer abc").as_deref(), Some(&b"abc"[..]));
        for bad in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn content_types() {
        let of = |v: &'static str| {
            let mut h = HeaderMap::new();
            h.insert(CONTENT_TYPE, HeaderValue::from_static(v));
            sdp(&h, b"v=0").is_ok()
        };
        assert!(of("application/sdp") && of("Application/SDP; charset=utf-8"));
        assert!(!of("text/plain") && sdp(&HeaderMap::new(), b"v=0").is_err());
    }
}
