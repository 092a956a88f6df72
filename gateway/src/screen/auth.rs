//! Who asks: a user by token (`Authorization: Bearer`) or by the cookie of a login. May this user do that?

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Room;
use super::headers::Problem;
use super::login::{COOKIE, Key};
use super::serve::Client;
use crate::registry::{Principal, Registry, Role, User, Verdict};

/// A user's account as it was when it was recognised.
#[derive(Clone)]
pub(super) struct Account {
    pub user: User,
    /// Of the token. An account that was revoked and added again has another: it is not the same.
    fingerprint: String,
}

impl Account {
    /// The account that has this token.
    pub fn by_token(registry: &Registry, token: &str) -> Option<Self> {
        let user = registry.check_token(token.as_bytes()).ok()?;
        let (_, ha1) = registry.principal(&user.name)?;
        Some(Self {
            user,
            fingerprint: ha1.sha256,
        })
    }

    #[cfg(test)]
    pub fn sample(name: &str) -> Self {
        Self {
            user: User::new(name, Role::Operator),
            fingerprint: String::new(),
        }
    }

    /// Does it still exist, unchanged?
    pub fn is_valid(&self, registry: &Registry) -> bool {
        registry.principal(&self.user.name).is_some_and(|(p, ha1)| {
            p == Principal::User(self.user.clone()) && ha1.sha256 == self.fingerprint
        })
    }
}

/// A user who was recognised.
pub(super) struct Viewer {
    pub account: Account,
    /// The login, when it was a cookie.
    pub login: Option<Key>,
    /// When the login ends by itself.
    pub until: Option<Instant>,
}

impl Viewer {
    /// Still registered, still logged in?
    pub fn is_valid(&self, room: &Room, now: Instant) -> bool {
        self.account.is_valid(&room.registry)
            && self.login.is_none_or(|key| room.logins.is_open(&key, now))
    }

    /// Auditors read; everybody else also gives orders.
    ///
    /// # Errors
    /// 403 for an auditor.
    pub fn may_order(&self) -> Result<(), Problem> {
        if self.account.user.role == Role::Auditor {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "auditors only read; ask an operator to do this",
            ));
        }
        Ok(())
    }
}

/// Why somebody was not recognised.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No credentials, or those of a login that is over.
    Missing,
    Wrong,
    SlowDown(Duration),
    /// A request with the cookie that another site could have sent.
    Forged,
}

impl Refusal {
    /// Notes wrong credentials from this address.
    pub fn wrong(room: &Room, peer: IpAddr) -> Self {
        match room.guard.failed("http", peer, "(token)", Instant::now()) {
            Verdict::Refuse => Self::Wrong,
            Verdict::SlowDown(wait) => Self::SlowDown(wait),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let unauthorized = |text: &str| {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"kerbside\"")];
            (challenge, Problem::new(StatusCode::UNAUTHORIZED, text)).into_response()
        };
        match self {
            Self::Missing => unauthorized(
                "log in first: POST /api/v1/login, or send Authorization: Bearer TOKEN",
            ),
            Self::Wrong => {
                unauthorized("wrong credentials; an admin gives new ones with `kerbside user add`")
            }
            Self::SlowDown(wait) => {
                let wait_s = [(
                    header::RETRY_AFTER,
                    HeaderValue::from(wait.as_secs().max(1)),
                )];
                let text = "wrong credentials, too often; wait and use the right ones";
                (wait_s, Problem::new(StatusCode::TOO_MANY_REQUESTS, text)).into_response()
            }
            Self::Forged => Problem::new(
                StatusCode::FORBIDDEN,
                "with the cookie, send Content-Type: application/json or the header X-Kerbside: 1",
            )
            .into_response(),
        }
    }
}

impl Viewer {
    /// Recognises the user of a request.
    ///
    /// # Errors
    /// [`Refusal`]; wrong tokens are noted against the address.
    pub fn of(
        room: &Room,
        headers: &HeaderMap,
        method: &Method,
        peer: IpAddr,
    ) -> Result<Self, Refusal> {
        if let Some(token) = token(headers) {
            let account = Account::by_token(&room.registry, token);
            return match account {
                None => Err(Refusal::wrong(room, peer)),
                Some(account) => Ok(Self {
                    account,
                    login: None,
                    until: None,
                }),
            };
        }
        let now = Instant::now();
        let id = cookie(headers).ok_or(Refusal::Missing)?;
        let (key, account, until) = room.logins.find(id, now).ok_or(Refusal::Missing)?;
        let viewer = Self {
            account,
            login: Some(key),
            until: Some(until),
        };
        if !viewer.is_valid(room, now) {
            room.logins.close(&key);
            return Err(Refusal::Missing);
        }
        if !method.is_safe() && !own_page(headers) {
            return Err(Refusal::Forged);
        }
        Ok(viewer)
    }
}

impl FromRequestParts<Arc<Room>> for Viewer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, room: &Arc<Room>) -> Result<Self, Refusal> {
        let client = parts.extensions.get::<Client>().ok_or(Refusal::Missing)?;
        Self::of(room, &parts.headers, &parts.method, client.addr.ip())
    }
}

/// A token of a client: from `Authorization`, or beside the WebSocket protocol `bearer` where headers cannot be set.
fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let bearer = |(scheme, token): (&'_ str, &'_ str)| {
        scheme.trim().eq_ignore_ascii_case("bearer") && !token.is_empty()
    };
    text(header::AUTHORIZATION)
        .and_then(|v| v.split_once(' '))
        .or_else(|| text(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.split_once(',')))
        .filter(|pair| bearer(*pair))
        .map(|(_, token)| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, id)| id)
}

/// Headers that a foreign page cannot send without asking first, which is never granted.
fn own_page(headers: &HeaderMap) -> bool {
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| {
            v.split(';')
                .next()
                .is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json"))
        });
    json || headers.get("x-kerbside").is_some_and(|v| v == "1")
}

/// Was this request sent by a page of another site? Browsers always name the page's origin on a WebSocket.
pub(super) fn cross_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false; // not a browser
    };
    let own = || {
        let origin = url::Url::parse(origin.to_str().ok()?).ok()?;
        let host = headers.get(header::HOST)?.to_str().ok()?;
        if host.contains(['@', '/', '?', '#', '\\']) {
            return None;
        }
        // The port that a scheme implies is not written, neither here nor there.
        let host = url::Url::parse(&format!("{}://{host}/", origin.scheme())).ok()?;
        let same = origin.host_str() == host.host_str() && origin.port() == host.port();
        (same && matches!(origin.scheme(), "http" | "https")).then_some(())
    };
    own().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn origins() {
        let cross = |origin: &str, host: &str| {
            cross_origin(&headers(&[("origin", origin), ("host", host)]))
        };
        assert!(!cross("http://box:8080", "box:8080"));
        assert!(!cross("https://box", "box:443"));
        assert!(!cross("http://[::1]:8080", "[::1]:8080"));
        assert!(!cross("http://BOX:8080", "box:8080"));
        assert!(cross("http://box:8081", "box:8080"));
        assert!(cross("http://evil.example", "box"));
        assert!(cross("http://box.evil.example", "box"));
        assert!(cross("null", "box"));
        assert!(cross("file://box", "box"));
        assert!(
            cross("http://box", "evil@box"),
            "a host is not more than a host"
        );
        assert!(!cross_origin(&headers(&[("host", "box")])));
    }

    #[test]
    fn credentials_in_headers() {
        let of = |n, v| token(&headers(&[(n, v)])).map(str::to_owned);
        assert_eq!(of("authorization", "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("authorization", "bearer  abc").as_deref(), Some("abc"));
        assert_eq!(of("authorization", "Basic abc"), None);
        assert_eq!(
            of("sec-websocket-protocol", "bearer, abc").as_deref(),
            Some("abc")
        );
        assert_eq!(of("sec-websocket-protocol", "bearer"), None);
        let h = headers(&[("cookie", "a=1; kerbside_session=xyz; b=2")]);
        assert_eq!(cookie(&h), Some("xyz"));
        assert_eq!(
            cookie(&headers(&[("cookie", "xkerbside_session=xyz")])),
            None
        );
    }

    #[test]
    fn pages_of_other_sites_cannot_change_anything() {
        assert!(own_page(&headers(&[(
            "content-type",
            "Application/JSON; charset=utf-8"
        )])));
        assert!(own_page(&headers(&[("x-kerbside", "1")])));
        for simple in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "text/plain; x=application/json",
        ] {
            assert!(!own_page(&headers(&[("content-type", simple)])), "{simple}");
        }
    }
}
