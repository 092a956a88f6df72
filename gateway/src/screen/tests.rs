//! The room from outside: a real server on a free port, asked by a real client.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{EMPTY_GRID, Ready, Room, login, routes, serve, video};
use crate::event::{Event, Priority, Severity, new_event_id};
use crate::ids::DeviceId;
use crate::outbox::{Outbox, Outcome};
use crate::picture::{Body, Change, Feed, Key};
use crate::registry::{Guard, Registry, Role};
use crate::stream::{Streams, StreamsLimits};
use crate::webrtc::WebRtc;

const LIMIT: Duration = Duration::from_secs(10);

struct House {
    dir: tempfile::TempDir,
    address: SocketAddr,
    registry: Registry,
    outbox: Outbox,
    ready: Arc<Ready>,
    feed: Arc<Feed>,
    http: Client,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

async fn open() -> House {
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("map");
    std::fs::create_dir_all(map.join("sprites")).unwrap();
    std::fs::write(
        map.join("city.pmtiles"),
        (0..200_000u32).map(|i| i as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    std::fs::write(map.join("sprites/a b.json"), "{}").unwrap();
    std::fs::write(dir.path().join("secret"), "top secret").unwrap();
    std::os::unix::fs::symlink("../secret", map.join("link")).unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let outbox = Outbox::open(dir.path(), &[("joint".to_owned(), Vec::new())]).unwrap();
    let ready = Arc::new(Ready::default());
    let (stop, stopping) = watch::channel(false);
    let guard = Arc::new(Guard::default());
    let feed = Arc::new(Feed::default());
    let streams = Streams::new(StreamsLimits::default());
    let room = Arc::new(Room {
        registry: registry.clone(),
        guard: guard.clone(),
        feed: feed.clone(),
        outbox: outbox.clone(),
        streams: streams.clone(),
        ready: ready.clone(),
        box_id: "yuci-1".to_owned(),
        grid: EMPTY_GRID.into(),
        map_dir: Some(map),
        logins: login::Logins::default(),
        feed_places: Arc::new(Semaphore::new(super::feed::FEEDS_MAX)),
        feed_write_timeout: Duration::from_millis(200),
    });
    let limits = crate::config::WebRtc {
        announce: Vec::new(),
        sessions_max: 4,
    };
    // A free UDP port may be taken for TCP: then another one.
    let io = tokio::runtime::Handle::current();
    let port = "127.0.0.1:0".parse().unwrap();
    let webrtc = (0..20)
        .find_map(|_| {
            WebRtc::start(
                &io,
                port,
                &limits,
                streams.clone(),
                registry.clone(),
                stopping.clone(),
            )
            .ok()
        })
        .unwrap();
    let router = routes(room.clone(), video(webrtc, &room));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, None, router, stopping));
    House {
        dir,
        address,
        registry,
        outbox,
        ready,
        feed,
        http: Client::new(),
        stop,
        served,
    }
}

impl House {
    fn user(&self, name: &str, role: Role) -> String {
        self.registry.add_user(name, role).unwrap()
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
            .timeout(LIMIT)
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        self.ask(Method::GET, path)
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
    }

    async fn login(&self, token: &str) -> String {
        let answer = self
            .ask(Method::POST, "/api/v1/login")
            .json(&json!({"token": token}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Secure"), "this is plain text");
        cookie.split(';').next().unwrap().to_owned()
    }

    async fn feed(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
        let mut request = format!("ws://{}{path}", self.address)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, HeaderValue::from_str(value).unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(e) => panic!("{e}"),
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn next(socket: &mut Socket) -> Option<Message> {
    let next = tokio::time::timeout(LIMIT, socket.next()).await;
    next.expect("no message within the limit")
        .and_then(Result::ok)
}

async fn next_json(socket: &mut Socket) -> Value {
    let message = next(socket).await.unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

/// The close code, after any messages before it.
async fn closed(mut socket: Socket) -> u16 {
    loop {
        if let Some(Message::Close(frame)) = next(&mut socket).await.or(Some(Message::Close(None)))
        {
            return frame.map_or(0, |f| f.code.into());
        }
    }
}

async fn error(answer: Response) -> String {
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

const CALLS: [&str; 8] = [
    "/api/v1/me",
    "/api/v1/picture",
    "/api/v1/grid",
    "/api/v1/events",
    "/api/v1/streams",
    "/api/v1/feed",
    "/map/city.pmtiles",
    "/map/none",
];

#[tokio::test]
async fn nothing_answers_without_credentials_but_health() {
    let b = open().await;
    for path in CALLS {
        let answer = b.ask(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        assert_eq!(
            answer.headers()["www-authenticate"],
            "Bearer realm=\"kerbside\""
        );
        assert!(error(answer).await.contains("log in"), "{path}");
        assert_eq!(b.get(path, "wrong").await.status(), 401, "{path}");
    }
    for path in ["/api/v1/logout", "/api/v1/events/x/retry"] {
        assert_eq!(
            b.ask(Method::POST, path).send().await.unwrap().status(),
            401,
            "{path}"
        );
    }
    assert_eq!(
        b.ask(Method::GET, "/healthz")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "ok"
    );
}

#[tokio::test]
async fn a_token_reads_everything() {
    let b = open().await;
    let token = b.user("anna", Role::Auditor);
    let me: Value =
        serde_json::from_str(&b.get("/api/v1/me", &token).await.text().await.unwrap()).unwrap();
    assert_eq!(
        me,
        json!({"name": "anna", "role": "auditor", "box": "yuci-1"})
    );
    for (path, key) in [
        ("/api/v1/picture", "type"),
        ("/api/v1/grid", "features"),
        ("/api/v1/events", "events"),
        ("/api/v1/streams", "streams"),
    ] {
        let answer = b.get(path, &token).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(
            answer.headers()["content-type"],
            "application/json",
            "{path}"
        );
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert!(!body[key].is_null(), "{path}: {body}");
    }
    b.registry.revoke_user("anna").unwrap();
    assert_eq!(b.get("/api/v1/me", &token).await.status(), 401);
}

#[tokio::test]
async fn a_browser_logs_in_and_out() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    let login = || b.ask(Method::POST, "/api/v1/login");
    let wrong = login()
        .json(&json!({"token": "guess"}))
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 401);
    let form = login()
        .header("content-type", "text/plain")
        .body(format!("{{\"token\":\"{token}\"}}"));
    let form = form.send().await.unwrap();
    assert_eq!(form.status(), 415, "a form of another site can send this");
    assert!(error(form).await.contains("application/json"));

    let cookie = b.login(&token).await;
    let me = |cookie: &str| b.ask(Method::GET, "/api/v1/me").header("cookie", cookie);
    assert_eq!(me(&cookie).send().await.unwrap().status(), 200);
    assert_eq!(
        me("kerbside_session=guess").send().await.unwrap().status(),
        401
    );

    let logout = || {
        b.ask(Method::POST, "/api/v1/logout")
            .header("cookie", &cookie)
    };
    let forged = logout()
        .header("content-type", "text/plain")
        .send()
        .await
        .unwrap();
    assert_eq!(
        forged.status(),
        403,
        "another site's page cannot log anybody out"
    );
    let out = logout().header("x-kerbside", "1").send().await.unwrap();
    assert_eq!(out.status(), 204);
    assert!(
        out.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    assert_eq!(me(&cookie).send().await.unwrap().status(), 401);

    let cookie = b.login(&token).await;
    b.registry.revoke_user("anna").unwrap();
    assert_eq!(me(&cookie).send().await.unwrap().status(), 401, "revoked");
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_right_token_is_not() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    let mut slowed = false;
    for _ in 0..40 {
        let answer = b.get("/api/v1/me", "guess").await;
        slowed |= answer.status() == 429 && answer.headers().contains_key("retry-after");
    }
    assert!(slowed);
    assert_eq!(b.get("/api/v1/me", &token).await.status(), 200);
}

#[tokio::test]
async fn the_feed_knows_three_ways_to_say_who_asks() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    let cookie = b.login(&token).await;
    let bearer = format!("Bearer {token}");
    let protocol = format!("bearer, {token}");
    for header in [
        ("authorization", &bearer),
        ("cookie", &cookie),
        ("sec-websocket-protocol", &protocol),
    ] {
        let mut socket = b
            .feed("/api/v1/feed", &[(header.0, header.1)])
            .await
            .unwrap();
        assert_eq!(
            next_json(&mut socket).await["type"],
            "snapshot",
            "{}",
            header.0
        );
    }
    assert_eq!(b.feed("/api/v1/feed", &[]).await.unwrap_err(), 401);
    assert_eq!(
        b.feed(
            "/api/v1/feed",
            &[("sec-websocket-protocol", "bearer, guess")]
        )
        .await
        .unwrap_err(),
        401
    );
    let plain = b.get("/api/v1/feed", &token).await;
    assert_eq!(plain.status(), 400);
    assert!(error(plain).await.contains("WebSocket"));
}

#[tokio::test]
async fn a_page_of_another_site_gets_no_feed() {
    let b = open().await;
    let cookie = b.login(&b.user("anna", Role::Operator)).await;
    let own = format!("http://{}", b.address);
    for (origin, allowed) in [
        (own.as_str(), true),
        ("http://evil.example", false),
        ("null", false),
    ] {
        let answer = b
            .feed("/api/v1/feed", &[("cookie", &cookie), ("origin", origin)])
            .await;
        assert_eq!(answer.err(), (!allowed).then_some(403), "{origin}");
    }
}

#[tokio::test]
async fn revocation_and_logout_cut_feeds_at_once() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    let other = b.user("ben", Role::Operator);
    let cookie = b.login(&token).await;
    let by_token = b
        .feed(
            "/api/v1/feed",
            &[("authorization", &format!("Bearer {token}"))],
        )
        .await
        .unwrap();
    let by_cookie = b
        .feed("/api/v1/feed", &[("cookie", &cookie)])
        .await
        .unwrap();
    let mut bens = b
        .feed(
            "/api/v1/feed",
            &[("authorization", &format!("Bearer {other}"))],
        )
        .await
        .unwrap();

    let out = b
        .ask(Method::POST, "/api/v1/logout")
        .header("cookie", &cookie)
        .header("x-kerbside", "1");
    assert_eq!(out.send().await.unwrap().status(), 204);
    assert_eq!(closed(by_cookie).await, 1008);
    b.registry.revoke_user("anna").unwrap();
    assert_eq!(closed(by_token).await, 1008);
    assert_eq!(next_json(&mut bens).await["type"], "snapshot");
    b.stop.send(true).unwrap();
    assert_eq!(closed(bens).await, 1001);
}

#[tokio::test]
async fn a_screen_that_talks_is_let_go() {
    let b = open().await;
    let bearer = format!("Bearer {}", b.user("anna", Role::Operator));
    let mut socket = b
        .feed("/api/v1/feed", &[("authorization", &bearer)])
        .await
        .unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        next_json(&mut socket).await["type"],
        "snapshot",
        "a short word is ignored"
    );
    socket.send(Message::text("x".repeat(5000))).await.unwrap();
    assert_eq!(closed(socket).await, 1008);
}

fn sos(device: &str) -> Event {
    Event {
        id: new_event_id(),
        kind: "sos".to_owned(),
        rule: "sos".to_owned(),
        severity: Severity::Critical,
        priority: Priority::P0,
        device: DeviceId::parse(device).unwrap(),
        unit: None,
        raised_ms: 1,
        device_time_ms: None,
        position: None,
        position_ms: None,
        cell: None,
        streams: Vec::new(),
        note: None,
        dedup_key: Some("k".to_owned()),
    }
}

#[tokio::test]
async fn events_are_listed_and_parked_ones_retried() {
    let b = open().await;
    let (anna, rita) = (
        b.user("anna", Role::Operator),
        b.user("rita", Role::Auditor),
    );
    let mut ids = Vec::new();
    for device in ["bc-01", "bc-02", "bc-03"] {
        let event = Event {
            dedup_key: None,
            ..sos(device)
        };
        ids.push(event.id);
        b.outbox.append(event).await.unwrap();
    }
    b.outbox.due("joint", i64::MAX / 2, 10).await.unwrap();
    b.outbox
        .report(
            ids[0],
            "joint",
            Outcome::Parked {
                error: "400: no".to_owned(),
            },
        )
        .await;

    let list = |query: &'static str| {
        let (b, anna) = (&b, &anna);
        async move {
            let text = b
                .get(&format!("/api/v1/events{query}"), anna)
                .await
                .text()
                .await
                .unwrap();
            let list: Value = serde_json::from_str(&text).unwrap();
            list["events"].as_array().unwrap().clone()
        }
    };
    let all = list("").await;
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["device"], "bc-03", "newest first");
    assert_eq!(all[2]["deliveries"][0]["state"], "parked");
    assert!(all[0].get("dedup_key").is_none());
    assert_eq!(list("?limit=1").await.len(), 1);
    let older = format!("?before={}", ids[1]);
    let older = list(Box::leak(older.into_boxed_str())).await;
    assert_eq!(older.len(), 1);
    assert_eq!(
        b.get("/api/v1/events?limit=many", &anna).await.status(),
        400
    );
    assert_eq!(
        b.get("/api/v1/events?before=yesterday", &anna)
            .await
            .status(),
        400
    );

    let retry = |id: String, token: &str| {
        b.ask(Method::POST, &format!("/api/v1/events/{id}/retry"))
            .bearer_auth(token)
            .json(&json!({"platform": "joint"}))
    };
    let status = |r: RequestBuilder| async { r.send().await.unwrap().status() };
    assert_eq!(
        status(retry(ids[0].to_string(), &rita)).await,
        403,
        "an auditor reads"
    );
    assert_eq!(status(retry("x".to_owned(), &anna)).await, 400);
    assert_eq!(
        status(retry(ids[1].to_string(), &anna)).await,
        404,
        "not parked"
    );
    assert_eq!(status(retry(ids[0].to_string(), &anna)).await, 202);
    assert_eq!(list("").await[2]["deliveries"][0]["state"], "pending");
}

#[tokio::test]
async fn map_files_stay_below_their_directory() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    let whole = b.get("/map/city.pmtiles", &token).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.bytes().await.unwrap().len(), 200_000);
    assert_eq!(
        b.get("/map/sprites/a%20b.json", &token)
            .await
            .text()
            .await
            .unwrap(),
        "{}"
    );
    let part = b
        .ask(Method::GET, "/map/city.pmtiles")
        .bearer_auth(&token)
        .header("range", "bytes=100-199999");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 100-199999/200000");
    let bytes = part.bytes().await.unwrap();
    assert_eq!(
        (bytes.len(), bytes[0], bytes[199_899]),
        (199_900, 100, (199_999u32) as u8)
    );
    let beyond = b
        .ask(Method::GET, "/map/city.pmtiles")
        .bearer_auth(&token)
        .header("range", "bytes=200000-");
    assert_eq!(beyond.send().await.unwrap().status(), 416);
    for path in [
        "/map/none",
        "/map/sprites",
        "/map/link",
        "/map/..%2fsecret",
        "/map/%2e%2e/secret",
        "/map/%2fetc%2fpasswd",
        "/map/./city.pmtiles%00",
    ] {
        let raw = raw_get(b.address, path, &token).await;
        assert!(raw.starts_with("HTTP/1.1 4"), "{path}: {raw}");
        assert!(
            !raw.contains("top secret") && !raw.contains("root:"),
            "{path}"
        );
    }
    assert!(Path::new(b.dir.path()).join("secret").exists());
}

/// A request that no client library puts right first.
async fn raw_get(address: SocketAddr, path: &str, token: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn raw_dots_and_garbage() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    for path in ["/map/../secret", "/../secret", "/map//etc/passwd"] {
        let raw = raw_get(b.address, path, &token).await;
        assert!(raw.starts_with("HTTP/1.1 404"), "{path}: {raw}");
    }
    let many = "/api/v1/me HTTP/1.1\r\n".to_owned() + &"X-A: b\r\n".repeat(100) + "X:";
    assert!(
        raw_get(b.address, &many, &token)
            .await
            .starts_with("HTTP/1.1 431")
    );
    assert!(
        raw_get(b.address, "/ HTTP/9.9\r\n\0", &token)
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert_eq!(
        b.get("/healthz", &token).await.status(),
        200,
        "nobody else is disturbed"
    );
}

#[tokio::test]
async fn unknown_addresses_methods_and_sizes() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    let unknown = b.get("/api/v1/nothing", &token).await;
    assert_eq!(unknown.status(), 404);
    error(unknown).await;
    let method = b
        .ask(Method::DELETE, "/api/v1/me")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(method.status(), 405);
    assert!(method.headers().contains_key("allow"));
    let large = json!({"token": "x".repeat(100_000)});
    let large = b
        .ask(Method::POST, "/api/v1/login")
        .json(&large)
        .send()
        .await
        .unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    error(large).await;
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let b = open().await;
    for path in ["/", "/healthz", "/api/v1/me", "/nothing"] {
        let answer = b.ask(Method::GET, path).send().await.unwrap();
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(
            policy.contains("worker-src 'self' blob:") && policy.contains("default-src 'none'"),
            "{path}"
        );
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert!(
            !answer.headers().contains_key("access-control-allow-origin"),
            "{path}"
        );
    }
    let console = b.ask(Method::GET, "/").send().await.unwrap();
    assert!(console.status() == 200 || console.status() == 503);
    assert_eq!(
        console.headers()["content-type"],
        "text/html; charset=utf-8"
    );
}

#[tokio::test]
async fn readiness_and_metrics() {
    let b = open().await;
    let readyz = || async {
        let answer = b.ask(Method::GET, "/readyz").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(
        readyz().await,
        (503, "start: the gateway is starting".to_owned())
    );
    b.ready.set("start", None);
    assert_eq!(readyz().await, (200, "ready".to_owned()));

    let token = b.user("anna", Role::Auditor);
    let text = b
        .ask(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(text.contains("kerbside_http_connections"), "{text}");
    let proxied = b
        .ask(Method::GET, "/metrics")
        .header("x-forwarded-for", "203.0.113.9");
    assert_eq!(
        proxied.send().await.unwrap().status(),
        401,
        "a proxy on this machine speaks for others"
    );
    let allowed = b
        .ask(Method::GET, "/metrics")
        .header("x-forwarded-for", "203.0.113.9")
        .bearer_auth(&token);
    assert_eq!(allowed.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn stopping_ends_idle_connections() {
    let b = open().await;
    let idle = TcpStream::connect(b.address).await.unwrap();
    b.ask(Method::GET, "/healthz").send().await.unwrap();
    b.stop.send(true).unwrap();
    tokio::time::timeout(LIMIT, b.served)
        .await
        .expect("serve did not end")
        .unwrap();
    drop(idle);
    assert!(
        TcpStream::connect(b.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn video_wants_a_user_and_the_cookie_alone_is_not_enough() {
    let b = open().await;
    let token = b.user("anna", Role::Auditor);
    let cookie = b.login(&token).await;
    let device = b
        .registry
        .add_device("bc-01", crate::registry::DeviceKind::Bodycam, None)
        .unwrap();
    let offer = |path: &str| {
        b.ask(Method::POST, path)
            .header("content-type", "application/sdp")
            .body("v=0\r\n")
    };
    let whep = || offer("/bc-01/main/whep");
    let status = |r: RequestBuilder| async { r.send().await.unwrap().status().as_u16() };
    assert_eq!(status(whep()).await, 401);
    assert_eq!(status(whep().bearer_auth("guess")).await, 401);
    assert_eq!(
        status(whep().bearer_auth(&device)).await,
        401,
        "a device is no screen"
    );
    assert_eq!(
        status(whep().header("cookie", &cookie)).await,
        403,
        "another site's page could send this"
    );
    let by_cookie = status(whep().header("cookie", &cookie).header("x-kerbside", "1")).await;
    let by_token = status(whep().bearer_auth(&token)).await;
    assert_eq!(
        (by_cookie, by_token),
        (400, 400),
        "known, but the offer is broken"
    );
    let whip = || offer("/bc-01/main/whip");
    assert_eq!(status(whip()).await, 401);
    assert_eq!(
        status(whip().bearer_auth(&token)).await,
        401,
        "a user is no device"
    );
    assert_eq!(status(whip().bearer_auth(&device)).await, 400);
}

#[tokio::test]
async fn an_account_that_was_added_again_is_another() {
    let b = open().await;
    let cookie = b.login(&b.user("anna", Role::Operator)).await;
    let socket = b
        .feed("/api/v1/feed", &[("cookie", &cookie)])
        .await
        .unwrap();
    // As the command line does: the gateway sees both changes at once.
    let other = Registry::open(b.dir.path()).unwrap();
    other.revoke_user("anna").unwrap();
    other.add_user("anna", Role::Operator).unwrap();
    b.registry.fresh();
    assert_eq!(closed(socket).await, 1008);
    let me = b.ask(Method::GET, "/api/v1/me").header("cookie", &cookie);
    assert_eq!(me.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_screen_that_takes_nothing_is_let_go() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    // More than the buffers between two sockets hold.
    let json = format!("{{\"note\":\"{}\"}}", "x".repeat(32 << 20));
    b.feed.publish([Change::Put {
        key: Key::Event(new_event_id()),
        body: Body::new(json, None),
        moved_to: None,
    }]);
    let stalled = || {
        let text = crate::metrics::text();
        text.lines()
            .find_map(|l| l.strip_prefix("kerbside_feeds_ended_total{reason=\"stalled\"} "))
            .map_or(0, |n| n.parse::<u64>().unwrap())
    };
    let before = stalled();
    let bearer = format!("Bearer {token}");
    let socket = b
        .feed("/api/v1/feed", &[("authorization", &bearer)])
        .await
        .unwrap();
    let let_go = async {
        while stalled() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, let_go)
        .await
        .expect("the screen was kept");
    drop(socket);
}
