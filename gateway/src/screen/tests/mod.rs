//! The room from outside: a real server on a free port, asked by a real client.

mod access;
mod calls;
mod feed;
mod snapshot;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parking_lot::RwLock;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{Ready, Room, login, routes, serve, video};
use crate::event::{Event, Priority, Severity, new_event_id};
use crate::ids::DeviceId;
use crate::outbox::{Outbox, Outcome};
use crate::picture::{Body, Change, Feed, GridFile, Key};
use crate::registry::{Guard, Registry, Role};
use crate::stream::{Streams, StreamsLimits};
use crate::webrtc::WebRtc;

const LIMIT: Duration = Duration::from_secs(10);

struct House {
    dir: tempfile::TempDir,
    address: SocketAddr,
    registry: Registry,
    outbox: Outbox,
    streams: Streams,
    ready: Arc<Ready>,
    feed: Arc<Feed>,
    router: axum::Router,
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
    let feed = Feed::start([]);
    let streams = Streams::new(StreamsLimits::default());
    let room = Arc::new(Room {
        registry: registry.clone(),
        guard: guard.clone(),
        feed: feed.clone(),
        outbox: outbox.clone(),
        streams: streams.clone(),
        snapshots: crate::media::Snapshots::default(),
        glances: super::audit::Glances::default(),
        ready: ready.clone(),
        box_id: "yuci-1".to_owned(),
        grid: Arc::new(RwLock::new(GridFile::parse(None).unwrap())),
        history: None,
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
                crate::stream::Fanout::start(1).unwrap(),
                registry.clone(),
                stopping.clone(),
            )
            .ok()
        })
        .unwrap();
    let router = routes(
        room.clone(),
        video(webrtc, crate::device::orders::Passes::default(), &room),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, None, router.clone(), stopping));
    House {
        dir,
        address,
        registry,
        outbox,
        streams,
        ready,
        feed,
        router,
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
