//! WHEP (draft-ietf-wish-whep): a screen plays a stream by WebRTC. `POST /{device}/{camera}/whep`, then DELETE and
//! PATCH on its session.
//!
//! Not here: HTTP details shared with WHIP (`whip`), how a screen logs in (the router is given that as [`Auth`]).

#![allow(
    clippy::result_large_err,
    reason = "the error is the response itself, made once per refused request"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Extensions, HeaderMap};
use axum::response::Response;
use axum::routing::{delete, post};

use super::whip::{
    BODY_MAX, bearer, created, deleted, options, patch, peer, sdp, stream, unauthorized,
};
use crate::registry::{Guard, Principal, Registry};
use crate::webrtc::WebRtc;

/// Who is asking, or the response that refuses.
pub type Auth = Arc<dyn Fn(&HeaderMap, SocketAddr) -> Result<Principal, Response> + Send + Sync>;

/// What the WHEP routes need.
#[derive(Clone)]
pub struct Whep {
    pub webrtc: WebRtc,
    pub auth: Auth,
}

/// Users by token alone: `Authorization: Bearer`.
pub fn by_token(registry: Registry, guard: Arc<Guard>) -> Auth {
    Arc::new(move |headers, peer| {
        bearer(headers)
            .and_then(|token| registry.check_token(token).ok())
            .map(Principal::User)
            .ok_or_else(|| unauthorized(&guard, "whep", peer, ""))
    })
}

pub fn router(state: Whep) -> Router {
    Router::new()
        .route("/{device}/{camera}/whep", post(offer).options(options))
        .route(
            "/{device}/{camera}/whep/{id}",
            delete(end).patch(trickle).options(options),
        )
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
}

async fn offer(
    State(s): State<Whep>,
    Path((device, camera)): Path<(String, String)>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let who = (s.auth)(&headers, peer(&extensions))?;
    let stream = stream(&device, &camera)?;
    let sdp = sdp(&headers, &body)?;
    let answer = s.webrtc.whep(&stream, sdp, who).await;
    Ok(created(answer, &format!("/{stream}/whep")))
}

async fn end(
    State(s): State<Whep>,
    Path((_, _, id)): Path<(String, String, String)>,
    extensions: Extensions,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let who = (s.auth)(&headers, peer(&extensions))?;
    Ok(deleted(s.webrtc.delete(&id, &who).await))
}

async fn trickle(
    State(s): State<Whep>,
    Path((_, _, id)): Path<(String, String, String)>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let who = (s.auth)(&headers, peer(&extensions))?;
    patch(&s.webrtc, &id, &who, &headers, &body).await
}
