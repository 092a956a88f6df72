//! A command platform for tests: a real HTTP server that answers as told, dies and comes back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::LIMIT;
use crate::ids::EventId;

pub enum Reply {
    Status(u16),
    With(u16, &'static str, &'static str),
    Hang,
    Endless(u16),
}

pub struct Got {
    pub at: Instant,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: serde_json::Value,
}

impl Got {
    pub fn id(&self) -> EventId {
        self.body["id"].as_str().unwrap().parse().unwrap()
    }
}

#[derive(Clone)]
struct Script {
    /// Answers in order; when they are used up: 204.
    replies: Arc<Mutex<VecDeque<Reply>>>,
    got: mpsc::UnboundedSender<Got>,
}

/// A command platform with a runtime of its own, so that killing it cuts its connections.
pub struct Fake {
    runtime: Option<tokio::runtime::Runtime>,
    pub addr: SocketAddr,
    script: Script,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Fake {
    pub fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let (tx, got) = mpsc::unbounded_channel();
        let mut fake = Self {
            runtime: None,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            script: Script {
                replies: Arc::new(Mutex::new(replies.into_iter().collect())),
                got: tx,
            },
            got,
        };
        fake.rise();
        fake
    }

    /// (Again) on the same port.
    pub fn rise(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&self.addr.into()).unwrap();
            socket.listen(64).unwrap();
            socket.set_nonblocking(true).unwrap();
            std::net::TcpListener::from(socket)
        };
        self.addr = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(self.script.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    pub fn die(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub async fn next(&mut self) -> Got {
        tokio::time::timeout(LIMIT, self.got.recv())
            .await
            .expect("a request in time")
            .unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn take(
    State(s): State<Script>,
    method: Method,
    headers: HeaderMap,
    body: String,
) -> Response {
    let reply = s.replies.lock().pop_front().unwrap_or(Reply::Status(204));
    s.got
        .send(Got {
            at: Instant::now(),
            method,
            headers,
            body: serde_json::from_str(&body).unwrap_or_default(),
        })
        .unwrap();
    match reply {
        Reply::Status(code) => StatusCode::from_u16(code).unwrap().into_response(),
        Reply::With(code, name, value) => {
            let code = StatusCode::from_u16(code).unwrap();
            (code, [(name, value)], "because").into_response()
        }
        Reply::Hang => std::future::pending().await,
        Reply::Endless(code) => {
            let chunks =
                futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 4096]));
            let code = StatusCode::from_u16(code).unwrap();
            (code, Body::from_stream(chunks)).into_response()
        }
    }
}
