//! The sinks against a real HTTP server that is slow, refuses, dies and comes back.

mod fake;

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Platform;
use crate::event::{DeliveryState, Event, Priority, Severity, new_event_id};
use crate::ids::{DeviceId, EventId};
use crate::outbox::Outbox;
use fake::{Fake, Reply};

/// Longest wait for a condition.
const LIMIT: Duration = Duration::from_secs(20);

struct Bench {
    outbox: Outbox,
    stop: watch::Sender<bool>,
    sinks: Vec<JoinHandle<()>>,
    _dir: TempDir,
}

impl Bench {
    fn start(platforms: &[Platform]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let routes: Vec<_> = platforms
            .iter()
            .map(|p| (p.name.clone(), p.kinds.clone()))
            .collect();
        let outbox = Outbox::open(dir.path(), &routes).unwrap();
        let (stop, stopped) = watch::channel(false);
        let io = tokio::runtime::Handle::current();
        let sinks = super::start(&io, platforms, &outbox, "box-1", &stopped).unwrap();
        Self {
            outbox,
            stop,
            sinks,
            _dir: dir,
        }
    }

    async fn raise(&self, priority: Priority) -> EventId {
        let event = Event {
            id: new_event_id(),
            kind: "sos".to_owned(),
            rule: "sos".to_owned(),
            severity: Severity::Critical,
            priority,
            device: DeviceId::parse("bc-01").unwrap(),
            unit: None,
            raised_ms: crate::clock::unix_ms(),
            device_time_ms: None,
            position: None,
            position_ms: None,
            cell: None,
            streams: vec![],
            note: None,
            restricted: false,
            dedup_key: None,
        };
        let id = event.id;
        self.outbox.append(event).await.unwrap();
        id
    }

    /// Waits until `event` is `state` at `platform`; attempts and error then.
    async fn until(
        &self,
        event: EventId,
        platform: &str,
        state: DeliveryState,
    ) -> (u32, Option<String>) {
        let look = async {
            loop {
                let recent = self.outbox.recent(10_000, None).await.unwrap();
                let mut all = recent.into_iter().filter(|(e, _)| e.id == event);
                let (_, deliveries) = all.next().unwrap();
                if let Some(d) = deliveries
                    .into_iter()
                    .find(|d| d.platform == platform && d.state == state)
                {
                    return (d.attempts, d.error);
                }
                tokio::time::timeout(LIMIT, self.outbox.changes())
                    .await
                    .unwrap();
            }
        };
        tokio::time::timeout(LIMIT, look)
            .await
            .unwrap_or_else(|_| panic!("{event} never became {state:?} at {platform}"))
    }

    async fn end(mut self) {
        self.stop.send(true).unwrap();
        for sink in self.sinks.drain(..) {
            tokio::time::timeout(LIMIT, sink).await.unwrap().unwrap();
        }
    }
}

fn platform(name: &str, addr: SocketAddr) -> Platform {
    Platform {
        name: name.to_owned(),
        url: format!("http://{addr}/events?district=7").parse().unwrap(),
        token: Some("s3cret".to_owned()),
        ca_file: None,
        kinds: vec![],
        timeout: Duration::from_secs(30),
        retry_min: Duration::from_millis(10),
        retry_max: Duration::from_millis(80),
        concurrency: 4,
    }
}

#[tokio::test]
async fn an_event_goes_out_as_the_contract_says() {
    let mut fake = Fake::start([]);
    let bench = Bench::start(&[platform("joint", fake.addr)]);
    let id = bench.raise(Priority::P0).await;
    let got = fake.next().await;
    assert_eq!(got.method, Method::POST);
    assert_eq!(got.headers["content-type"], "application/cloudevents+json");
    assert_eq!(got.headers["idempotency-key"], id.to_string().as_str());
    assert_eq!(got.headers["authorization"], "Bearer s3cret");
    assert_eq!(got.id(), id);
    assert_eq!(got.body["source"], "urn:kerbside:box-1");
    assert_eq!(got.body["data"]["device"], "bc-01");
    let (attempts, error) = bench.until(id, "joint", DeliveryState::Delivered).await;
    assert_eq!((attempts, error), (1, None));
    bench.end().await;
}

#[tokio::test]
async fn a_refused_event_is_parked_blocks_nobody_and_can_be_retried() {
    let mut fake = Fake::start([
        Reply::With(422, "x-a", "b"),
        Reply::With(302, "location", "/b"),
    ]);
    let mut p = platform("joint", fake.addr);
    p.concurrency = 1;
    let bench = Bench::start(&[p]);
    let refused = bench.raise(Priority::P0).await;
    let moved = bench.raise(Priority::P0).await;
    let fine = bench.raise(Priority::P0).await;
    bench.until(fine, "joint", DeliveryState::Delivered).await;
    let (attempts, error) = bench.until(refused, "joint", DeliveryState::Parked).await;
    assert_eq!(
        (attempts, error.unwrap().as_str()),
        (1, "HTTP 422: because")
    );
    let (_, error) = bench.until(moved, "joint", DeliveryState::Parked).await;
    assert!(error.unwrap().contains("redirects are not followed"));
    for expected in [refused, moved, fine] {
        assert_eq!(fake.next().await.id(), expected);
    }
    assert_eq!(bench.outbox.retry(refused, "joint").await, Ok(true));
    let (attempts, _) = bench
        .until(refused, "joint", DeliveryState::Delivered)
        .await;
    assert_eq!(attempts, 2);
    bench.end().await;
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let mut fake = Fake::start([Reply::With(429, "retry-after", "1")]);
    let mut p = platform("joint", fake.addr);
    p.concurrency = 1;
    let bench = Bench::start(&[p]);
    let first = bench.raise(Priority::P1).await;
    let second = bench.raise(Priority::P1).await;
    let refused = fake.next().await;
    let again = fake.next().await;
    // Wallclock milliseconds are whole: a retry may come up to one early.
    assert!(again.at - refused.at >= Duration::from_millis(999));
    assert_eq!(again.id(), first, "the same event first");
    bench.until(second, "joint", DeliveryState::Delivered).await;
    bench.end().await;
}

#[tokio::test]
async fn a_platform_that_dies_gets_everything_when_it_is_back_safety_first() {
    let mut fake = Fake::start([]);
    let mut p = platform("joint", fake.addr);
    p.concurrency = 1;
    let bench = Bench::start(&[p]);
    let before = bench.raise(Priority::P1).await;
    bench.until(before, "joint", DeliveryState::Delivered).await;
    fake.next().await;
    fake.die();

    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(bench.raise(Priority::P1).await);
    }
    // It has been tried in vain at least once.
    let tried = async {
        loop {
            let recent = bench.outbox.recent(100, None).await.unwrap();
            let attempts: u32 = recent.iter().map(|(_, d)| d[0].attempts).sum();
            if attempts > 3 {
                return recent;
            }
            bench.outbox.changes().await;
        }
    };
    let recent = tokio::time::timeout(LIMIT, tried).await.unwrap();
    let touched = recent
        .iter()
        .filter(|(e, d)| e.id != before && d[0].attempts > 0)
        .count();
    assert!(
        touched <= 2,
        "one at a time, not the whole backlog: {touched}"
    );
    let sos = bench.raise(Priority::P0).await;
    fake.rise();

    let mut order = Vec::new();
    for _ in 0..51 {
        order.push(fake.next().await.id());
    }
    // The try at the moment of the return may have been chosen before the safety event was raised.
    let at = order.iter().position(|id| *id == sos).unwrap();
    assert!(at <= 1, "the safety event overtakes the backlog: {at}");
    for id in waiting {
        bench.until(id, "joint", DeliveryState::Delivered).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_platform_that_hangs_holds_no_other_up() {
    let slow = Fake::start((0..100).map(|_| Reply::Hang));
    let mut fast = Fake::start([]);
    let mut patient = platform("slow", slow.addr);
    patient.timeout = Duration::from_millis(200);
    let bench = Bench::start(&[patient, platform("fast", fast.addr)]);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(bench.raise(Priority::P1).await);
    }
    for id in &ids {
        bench.until(*id, "fast", DeliveryState::Delivered).await;
        fast.next().await;
    }
    let (_, error) = loop {
        let now = bench.until(ids[0], "slow", DeliveryState::Pending).await;
        if now.0 > 0 {
            break now;
        }
        bench.outbox.changes().await;
    };
    assert_eq!(error.unwrap(), "no answer within the time limit");
    bench.end().await;
}

#[tokio::test]
async fn answers_without_end_and_cut_connections_do_no_harm() {
    let mut fake = Fake::start([Reply::Endless(400), Reply::Endless(200), Reply::Status(500)]);
    let mut p = platform("joint", fake.addr);
    p.concurrency = 1;
    let bench = Bench::start(&[p]);
    let parked = bench.raise(Priority::P1).await;
    let taken = bench.raise(Priority::P1).await;
    let retried = bench.raise(Priority::P1).await;
    let (_, error) = bench.until(parked, "joint", DeliveryState::Parked).await;
    assert!(error.unwrap().len() < 300);
    bench.until(taken, "joint", DeliveryState::Delivered).await;
    let (attempts, _) = bench
        .until(retried, "joint", DeliveryState::Delivered)
        .await;
    assert_eq!(attempts, 2);
    for _ in 0..4 {
        fake.next().await;
    }
    bench.end().await;
}

#[tokio::test]
async fn at_the_end_what_is_under_way_is_finished_and_the_rest_stays() {
    let mut fake = Fake::start([]);
    let bench = Bench::start(&[platform("joint", fake.addr)]);
    let id = bench.raise(Priority::P1).await;
    fake.next().await;
    bench.stop.send(true).unwrap();
    let outbox = bench.outbox.clone();
    let mut bench = bench;
    for sink in bench.sinks.drain(..) {
        tokio::time::timeout(LIMIT, sink).await.unwrap().unwrap();
    }
    bench.until(id, "joint", DeliveryState::Delivered).await;
    let late = bench.raise(Priority::P1).await;
    let due = outbox.due("joint", i64::MAX, 10).await.unwrap();
    assert_eq!(due.now[0].event.id, late);
}

#[tokio::test]
async fn what_cannot_work_is_told_at_the_start() {
    let (_stop, stopped) = watch::channel(false);
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &[]).unwrap();
    let io = tokio::runtime::Handle::current();
    let start = |p: Platform| {
        super::start(&io, &[p], &outbox, "box-1", &stopped)
            .unwrap_err()
            .to_string()
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut p = platform("joint", addr);
    p.token = Some("a\nb".to_owned());
    let text = start(p);
    assert!(text.contains("joint") && !text.contains("a\nb"), "{text}");
    let mut p = platform("joint", addr);
    p.url = "https://localhost/".parse().unwrap();
    p.ca_file = Some(dir.path().join("missing.pem"));
    assert!(start(p.clone()).contains("missing.pem"));
    std::fs::write(dir.path().join("missing.pem"), "no certificate").unwrap();
    assert!(start(p).contains("no certificate in it"));
}

#[tokio::test]
async fn https_with_the_platforms_own_root_and_not_without() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let config = crate::tls::server_config(crate::tls::Source::Given {
        cert: cert.clone(),
        key,
    })
    .unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut some = [0; 1024];
            if tls.read(&mut some).await.is_ok_and(|n| n > 0) {
                let end = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                tls.write_all(end).await.unwrap();
            }
        }
    });
    let mut known = platform("known", SocketAddr::from(([127, 0, 0, 1], port)));
    known.url = format!("https://localhost:{port}/").parse().unwrap();
    // Another root, so that this needs none of the machine's.
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = dir.path().join("other.pem");
    std::fs::write(&other, stranger.cert.pem()).unwrap();
    let mut unknown = known.clone();
    unknown.name = "unknown".to_owned();
    known.ca_file = Some(cert);
    unknown.ca_file = Some(other);

    let bench = Bench::start(&[known, unknown]);
    let id = bench.raise(Priority::P0).await;
    bench.until(id, "known", DeliveryState::Delivered).await;
    let (_, error) = loop {
        let now = bench.until(id, "unknown", DeliveryState::Pending).await;
        if now.0 > 0 {
            break now;
        }
        bench.outbox.changes().await;
    };
    let error = error.unwrap();
    assert!(
        error.starts_with("no connection") && error.contains("certificate"),
        "{error}"
    );
    server.abort();
    bench.end().await;
}
