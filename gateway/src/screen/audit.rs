//! Who looked at what: every look at a stream is on record (`target = "audit"`), as every order is where it is given.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::Room;
use super::auth::Viewer;
use super::serve::Client;

/// Around WHEP: a look begins with a 201 and ends with a DELETE that is answered.
pub(super) async fn looks(
    State(room): State<Arc<Room>>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let headers = request.headers().clone();
    let answer = next.run(request).await;
    let stream = path
        .split("/whep")
        .next()
        .unwrap_or_default()
        .trim_matches('/');
    let what = match (&method, answer.status()) {
        (&Method::POST, StatusCode::CREATED) => "look at a stream",
        (&Method::DELETE, StatusCode::OK | StatusCode::NO_CONTENT) => "end of a look at a stream",
        _ => return answer,
    };
    // The answer says that the credentials are right; here only the name is wanted.
    if let Ok(viewer) = Viewer::of(&room, &headers, &method, client.addr.ip()) {
        let user = viewer.account.user;
        let role = user.role.name();
        tracing::info!(target: "audit", user = user.name, role, peer = %client.addr.ip(), stream, "{what}");
    }
    answer
}
