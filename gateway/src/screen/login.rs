//! Logins of browsers: a random session id in a cookie, of which only the hash is kept here, in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Room;
use super::auth::{Account, Refusal, Viewer};
use super::headers::Problem;
use super::serve::Client;
use crate::registry::User;

pub(super) const COOKIE: &str = "kerbside_session";
const LIFE: Duration = Duration::from_secs(12 * 3600);
const OF_A_USER_MAX: usize = 32;
const ALL_MAX: usize = 4096;

/// SHA-256 of a session id.
pub(super) type Key = [u8; 32];

struct Login {
    account: Account,
    until: Instant,
}

/// The open logins, bounded: a user's oldest makes room for the newest.
pub(super) struct Logins {
    open: Mutex<HashMap<Key, Login>>,
    closed: watch::Sender<u64>,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            closed: watch::channel(0).0,
        }
    }
}

impl Logins {
    /// Opens a login and gives its session id, the value of the cookie.
    pub fn open(&self, account: Account, now: Instant) -> String {
        use base64::Engine;
        let bytes: [u8; 32] = rand::random();
        let id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let mut open = self.open.lock();
        open.retain(|_, l| l.until > now);
        let of_user = open
            .values()
            .filter(|l| l.account.user.name == account.user.name)
            .count();
        let oldest = open
            .iter()
            .filter(|(_, l)| of_user < OF_A_USER_MAX || l.account.user.name == account.user.name)
            .min_by_key(|(_, l)| l.until)
            .map(|(k, _)| *k);
        let full = of_user >= OF_A_USER_MAX || open.len() >= ALL_MAX;
        let evicted = full && oldest.is_some_and(|k| open.remove(&k).is_some());
        let until = now + LIFE;
        open.insert(key(&id), Login { account, until });
        drop(open);
        if evicted {
            self.tell_closed();
        }
        id
    }

    /// Whose session id it is, and until when.
    pub fn find(&self, id: &str, now: Instant) -> Option<(Key, Account, Instant)> {
        let key = key(id);
        let open = self.open.lock();
        let login = open.get(&key).filter(|l| l.until > now)?;
        Some((key, login.account.clone(), login.until))
    }

    pub fn is_open(&self, key: &Key, now: Instant) -> bool {
        self.open.lock().get(key).is_some_and(|l| l.until > now)
    }

    pub fn close(&self, key: &Key) {
        if self.open.lock().remove(key).is_some() {
            self.tell_closed();
        }
    }

    /// Wakes when logins were closed.
    pub fn closed(&self) -> watch::Receiver<u64> {
        self.closed.subscribe()
    }

    fn tell_closed(&self) {
        self.closed.send_modify(|n| *n += 1);
    }
}

fn key(id: &str) -> Key {
    Sha256::digest(id.as_bytes()).into()
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    token: String,
}

/// `POST /api/v1/login`. Wants JSON: a form of a foreign page cannot send that, so nobody is logged in unawares.
pub(super) async fn login(
    State(room): State<Arc<Room>>,
    Extension(client): Extension<Client>,
    body: Result<Json<Credentials>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(credentials) = body.map_err(|e| {
        let text = format!(
            "{}; send {{\"token\": \"…\"}} as application/json",
            e.body_text()
        );
        Problem::new(e.status(), text).into_response()
    })?;
    let account = Account::by_token(&room.registry, credentials.token.trim())
        .ok_or_else(|| Refusal::wrong(&room, client.addr.ip()).into_response())?;
    let User { name, role, .. } = account.user.clone();
    tracing::info!(target: "audit", user = name, peer = %client.addr.ip(), "login");
    let answer = Json(json!({"name": name, "role": role}));
    let id = room.logins.open(account, Instant::now());
    Ok((cookie(&id, LIFE, client.tls), answer).into_response())
}

/// `POST /api/v1/logout`.
pub(super) async fn logout(
    State(room): State<Arc<Room>>,
    Extension(client): Extension<Client>,
    viewer: Viewer,
) -> Response {
    if let Some(key) = viewer.login {
        room.logins.close(&key);
        tracing::info!(target: "audit", user = viewer.account.user.name, peer = %client.addr.ip(), "logout");
    }
    (
        StatusCode::NO_CONTENT,
        cookie("", Duration::ZERO, client.tls),
    )
        .into_response()
}

/// `GET /api/v1/me`.
pub(super) async fn me(State(room): State<Arc<Room>>, viewer: Viewer) -> Response {
    let User { name, role, .. } = viewer.account.user;
    Json(json!({"name": name, "role": role, "box": room.box_id})).into_response()
}

fn cookie(id: &str, life: Duration, tls: bool) -> HeaderMap {
    let secure = if tls { "; Secure" } else { "" };
    let life_s = life.as_secs();
    let text =
        format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={life_s}{secure}");
    HeaderValue::from_str(&text)
        .map(|v| HeaderMap::from_iter([(header::SET_COOKIE, v)]))
        .unwrap_or_default() // the id is base64: it always fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Account {
        Account::sample(name)
    }

    #[test]
    fn a_login_ends_by_time_or_by_closing() {
        let (logins, t) = (Logins::default(), Instant::now());
        let (a, b) = (logins.open(user("anna"), t), logins.open(user("anna"), t));
        assert_ne!(a, b);
        assert_eq!(logins.find(&a, t).unwrap().1.user.name, "anna");
        assert!(logins.find("guess", t).is_none());
        let mut closed = logins.closed();
        closed.mark_unchanged();
        let key = logins.find(&a, t).unwrap().0;
        logins.close(&key);
        assert!(closed.has_changed().unwrap());
        assert!(!logins.is_open(&key, t));
        assert!(logins.find(&b, t + LIFE - Duration::from_secs(1)).is_some());
        assert!(logins.find(&b, t + LIFE).is_none());
    }

    #[test]
    fn one_user_cannot_push_out_another() {
        let (logins, t) = (Logins::default(), Instant::now());
        let ben = logins.open(user("ben"), t);
        let first = logins.open(user("anna"), t + Duration::from_secs(1));
        for i in 0..OF_A_USER_MAX as u64 {
            logins.open(user("anna"), t + Duration::from_secs(2 + i));
        }
        assert!(logins.find(&first, t).is_none(), "her oldest made room");
        assert!(logins.find(&ben, t).is_some());
    }

    #[test]
    fn logins_are_bounded() {
        let (logins, t) = (Logins::default(), Instant::now());
        for i in 0..ALL_MAX + 10 {
            logins.open(user(&format!("u{i}")), t);
        }
        assert_eq!(logins.open.lock().len(), ALL_MAX);
    }
}
