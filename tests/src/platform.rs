//! A command platform: receives CloudEvents over HTTP, checks them, remembers them by id, and misbehaves when told to.
//!
//! Here: what was received and the behaviour of the answers. Not here: whether the events make sense (the scenarios say).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Events remembered; older ones are forgotten first (a later duplicate of them counts as new).
const EVENTS_MAX: usize = 100_000;
const FAULTS_MAX: usize = 1_000;

#[derive(clap::Args, Debug)]
pub struct PlatformArgs {
    /// Address to listen on; events are posted to /events.
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub behaviour: Behaviour,
}

/// How the platform answers. `POST /behave` with the same names as JSON replaces it at run time.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Milliseconds before each answer.
    #[arg(long, default_value_t = 0)]
    pub slow_ms: u64,
    /// Share of requests answered with 503, 0 to 1, spread evenly.
    #[arg(long, default_value_t = 0.0)]
    pub fail_rate: f64,
    /// Answer every request with this status instead of 202.
    #[arg(long)]
    pub status: Option<u16>,
    /// Seconds in Retry-After, sent with answers other than 2xx.
    #[arg(long)]
    pub retry_after: Option<u64>,
}

/// One event, however often it came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Received {
    pub id: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub subject: String,
    /// How often it was accepted: more than 1 is a delivery repeated.
    pub times: u32,
    pub arrived_ms: u64,
    pub event: Value,
}

/// What `GET /events` answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// Requests of any kind.
    pub requests: u64,
    /// Requests answered with something else than 2xx because of the behaviour.
    pub refused: u64,
    pub duplicates: u64,
    /// Why events were found malformed.
    pub faults: Vec<String>,
    pub events: Vec<Received>,
}

#[derive(Default)]
struct Book {
    behaviour: Behaviour,
    account: Account,
    index: HashMap<String, usize>,
    fail_debt: f64,
}

/// A running platform. Dropping it stops it and closes its connections.
pub struct Platform {
    pub addr: SocketAddr,
    book: Arc<Mutex<Book>>,
    task: tokio::task::JoinHandle<()>,
}

impl Platform {
    /// Listens and serves in a task of the current runtime.
    pub async fn start(listen: SocketAddr, behaviour: Behaviour) -> std::io::Result<Platform> {
        let book = Arc::new(Mutex::new(Book {
            behaviour,
            ..Book::default()
        }));
        let listener = tokio::net::TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let router = router(book.clone());
        let task = tokio::spawn(async move {
            if let Err(fault) = axum::serve(listener, router).await {
                tracing::error!(%fault, "platform stopped");
            }
        });
        Ok(Platform { addr, book, task })
    }

    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.book).behaviour = behaviour;
    }

    pub fn account(&self) -> Account {
        lock(&self.book).account.clone()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `kerbside-sim platform`.
pub async fn run(args: PlatformArgs) -> anyhow::Result<()> {
    let platform = Platform::start(args.listen, args.behaviour)
        .await
        .map_err(|fault| anyhow::anyhow!("cannot listen on {}: {fault}", args.listen))?;
    tracing::info!(address = %platform.addr, "platform receives events");
    crate::fleet::stopped().await;
    let account = platform.account();
    tracing::info!(
        events = account.events.len(),
        duplicates = account.duplicates,
        "platform stops"
    );
    Ok(())
}

fn router(book: Arc<Mutex<Book>>) -> Router {
    Router::new()
        .route("/events", post(receive).get(list))
        .route("/behave", post(behave))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(book)
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn list(State(book): State<Arc<Mutex<Book>>>) -> Json<Account> {
    Json(lock(&book).account.clone())
}

async fn behave(
    State(book): State<Arc<Mutex<Book>>>,
    Json(behaviour): Json<Behaviour>,
) -> StatusCode {
    lock(&book).behaviour = behaviour;
    StatusCode::NO_CONTENT
}

async fn receive(
    State(book): State<Arc<Mutex<Book>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (delay, refusal) = {
        let mut book = lock(&book);
        book.account.requests += 1;
        let refusal = book.refusal();
        book.account.refused += u64::from(refusal.is_some());
        (Duration::from_millis(book.behaviour.slow_ms), refusal)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if let Some((status, retry_after)) = refusal {
        let mut answer = (status, "as told").into_response();
        if let Some(seconds) = retry_after {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        return answer;
    }
    let mut book = lock(&book);
    match check(&headers, &body) {
        Ok(event) => {
            if book.take(event) {
                tracing::debug!("event received");
            }
            StatusCode::ACCEPTED.into_response()
        }
        Err(fault) => {
            tracing::warn!(%fault, "malformed event");
            if book.account.faults.len() < FAULTS_MAX {
                book.account.faults.push(fault.clone());
            }
            (StatusCode::BAD_REQUEST, fault).into_response()
        }
    }
}

impl Book {
    fn refusal(&mut self) -> Option<(StatusCode, Option<u64>)> {
        let retry_after = self.behaviour.retry_after;
        if let Some(status) = self.behaviour.status {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return (!status.is_success()).then_some((status, retry_after));
        }
        self.fail_debt += self.behaviour.fail_rate;
        if self.fail_debt >= 1.0 {
            self.fail_debt -= 1.0;
            return Some((StatusCode::SERVICE_UNAVAILABLE, retry_after));
        }
        None
    }

    /// True if the event is new.
    fn take(&mut self, event: Value) -> bool {
        let text = |key: &str| {
            event
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (id, event_type, subject) = (text("id"), text("type"), text("subject"));
        if let Some(at) = self.index.get(&id) {
            self.account.duplicates += 1;
            self.account.events[*at].times += 1;
            return false;
        }
        if self.account.events.len() >= EVENTS_MAX {
            self.index.clear();
            self.account.events.clear();
        }
        tracing::info!(%id, kind = %event_type, device = %subject, "event");
        self.index.insert(id.clone(), self.account.events.len());
        let arrived_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        self.account.events.push(Received {
            id,
            event_type,
            subject,
            times: 1,
            arrived_ms,
            event,
        });
        true
    }
}

/// CloudEvents 1.0, structured mode, as gateway/API.md promises it.
fn check(headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let content_type = header("content-type");
    if !content_type.starts_with("application/cloudevents+json") {
        return Err(format!(
            "content-type is {content_type:?}, expected application/cloudevents+json"
        ));
    }
    let event: Value =
        serde_json::from_slice(body).map_err(|fault| format!("not JSON: {fault}"))?;
    let text = |key: &str| -> Result<&str, String> {
        match event.get(key).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(format!("attribute {key} is missing or empty")),
        }
    };
    if text("specversion")? != "1.0" {
        return Err("specversion is not 1.0".into());
    }
    let id = text("id")?;
    if header("idempotency-key") != id {
        return Err(format!(
            "Idempotency-Key is {:?}, the event's id is {id:?}",
            header("idempotency-key")
        ));
    }
    if !text("source")?.starts_with("urn:kerbside:") {
        return Err("source does not start with urn:kerbside:".into());
    }
    let kind = text("type")?;
    if !kind.starts_with("kerbside.event.") || !kind.ends_with(".v1") {
        return Err(format!("type {kind:?} is not kerbside.event.KIND.v1"));
    }
    text("subject")?;
    let time = text("time")?;
    if time.len() < 20 || time.as_bytes()[10] != b'T' {
        return Err(format!("time {time:?} is not RFC 3339"));
    }
    if text("datacontenttype")? != "application/json" {
        return Err("datacontenttype is not application/json".into());
    }
    if event.pointer("/data/id").and_then(Value::as_str) != Some(id) {
        return Err("data.id is not the event's id".into());
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> (HeaderMap, Value) {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            "application/cloudevents+json".parse().unwrap(),
        );
        headers.insert("idempotency-key", id.parse().unwrap());
        let event = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "urn:kerbside:demo", "type": "kerbside.event.sos.v1",
            "subject": "bc-01", "time": "2026-11-21T10:00:00.000Z", "datacontenttype": "application/json",
            "data": {"id": id},
        });
        (headers, event)
    }

    #[test]
    fn a_correct_event_passes_and_each_missing_attribute_is_named() {
        let (headers, good) = event("a");
        assert!(check(&headers, good.to_string().as_bytes()).is_ok());
        for key in [
            "specversion",
            "id",
            "source",
            "type",
            "subject",
            "time",
            "datacontenttype",
        ] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(key);
            assert!(
                check(&headers, bad.to_string().as_bytes())
                    .unwrap_err()
                    .contains(key)
            );
        }
        let (_, other) = event("b");
        assert!(
            check(&headers, other.to_string().as_bytes())
                .unwrap_err()
                .contains("Idempotency-Key")
        );
    }

    #[test]
    fn events_are_counted_once_and_duplicates_told() {
        let mut book = Book::default();
        let (_, first) = event("a");
        assert!(book.take(first.clone()));
        assert!(!book.take(first));
        assert_eq!((book.account.events.len(), book.account.duplicates), (1, 1));
        assert_eq!(book.account.events[0].times, 2);
    }

    #[test]
    fn the_fail_rate_is_spread_evenly() {
        let mut book = Book {
            behaviour: Behaviour {
                fail_rate: 0.25,
                ..Behaviour::default()
            },
            ..Book::default()
        };
        let refused = (0..100).filter(|_| book.refusal().is_some()).count();
        assert_eq!(refused, 25);
    }
}
