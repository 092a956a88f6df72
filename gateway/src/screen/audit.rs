//! Who looked at what: every look at a stream is on record (`target = "audit"`), as every order is where it is given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Extension, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;

use super::Room;
use super::auth::Viewer;
use super::serve::Client;
use crate::ids::StreamId;

/// Snapshots that one user takes of one stream within this time are one look.
const GLANCE_EVERY: Duration = Duration::from_secs(60);
/// Beyond so many looks within that time, every snapshot has its line.
const GLANCES_MAX: usize = 4096;

/// Which snapshots are on record already: a console that shows stills asks again and again.
#[derive(Default)]
pub(super) struct Glances(Mutex<HashMap<(String, StreamId), Instant>>);

impl Glances {
    /// Is this look to be put on record?
    fn is_new(&self, user: &str, stream: &StreamId, now: Instant) -> bool {
        let over = |since: &Instant| now.saturating_duration_since(*since) >= GLANCE_EVERY;
        let mut all = self.0.lock();
        let key = (user.to_owned(), stream.clone());
        if all.get(&key).is_some_and(|since| !over(since)) {
            return false;
        }
        if all.len() >= GLANCES_MAX {
            all.retain(|_, since| !over(since));
        }
        if all.len() < GLANCES_MAX {
            all.insert(key, now);
        }
        true
    }
}

/// A snapshot was given out.
pub(super) fn glance(room: &Room, viewer: &Viewer, client: &Client, stream: &StreamId) {
    let user = &viewer.account.user;
    if room.glances.is_new(&user.name, stream, Instant::now()) {
        let (name, role, peer) = (&user.name, user.role.name(), client.addr.ip());
        tracing::info!(target: "audit", user = name, role, %peer, %stream, "look at a snapshot");
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_on_record_once_a_minute() {
        let (glances, now) = (Glances::default(), Instant::now());
        let stream = |n: usize| StreamId::new("bc-01", &format!("c{n}")).unwrap();
        assert!(glances.is_new("anna", &stream(1), now));
        assert!(!glances.is_new("anna", &stream(1), now));
        assert!(glances.is_new("anna", &stream(2), now));
        assert!(glances.is_new("bert", &stream(1), now));
        assert!(glances.is_new("anna", &stream(1), now + GLANCE_EVERY));
        for n in 0..2 * GLANCES_MAX {
            assert!(glances.is_new("eve", &stream(n), now), "more, never fewer");
        }
        assert!(glances.0.lock().len() <= GLANCES_MAX);
    }
}
