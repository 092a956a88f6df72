//! Calls, files, bad requests, the server itself.

use super::*;

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
        restricted: false,
        dedup_key: Some("k".to_owned()),
    }
}

#[tokio::test]
async fn events_of_restricted_devices_are_for_the_grant_alone() {
    let b = open().await;
    let anna = b.user("anna", Role::Operator);
    let granted = crate::registry::User {
        sees_restricted: true,
        ..crate::registry::User::new("cora", Role::Commander)
    };
    let cora = b.registry.admit(granted).unwrap();
    // Its device is not registered (any more).
    let event = Event {
        restricted: true,
        ..sos("covert")
    };
    let id = event.id;
    b.outbox.append(event).await.unwrap();
    b.outbox.due("joint", i64::MAX / 2, 10).await.unwrap();
    let error = "400: no".to_owned();
    let parked = Outcome::Parked { error };
    b.outbox.report(id, "joint", parked).await;
    for (token, n) in [(&anna, 0), (&cora, 1)] {
        let list: Value = b.get("/api/v1/events", token).await.json().await.unwrap();
        assert_eq!(list["events"].as_array().unwrap().len(), n);
    }
    let retry = |token: String| {
        let asked = b.ask(Method::POST, &format!("/api/v1/events/{id}/retry"));
        asked
            .bearer_auth(token)
            .json(&json!({"platform": "joint"}))
            .send()
    };
    assert_eq!(retry(anna.clone()).await.unwrap().status(), 404);
    assert_eq!(retry(cora.clone()).await.unwrap().status(), 202);
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
    raw(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {token}\r\n"),
    )
    .await
}

/// `head` without the empty line at its end.
async fn raw(address: SocketAddr, head: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A server that refuses may also cut the connection.
    tokio::time::timeout(LIMIT, read)
        .await
        .unwrap()
        .unwrap_or(0);
    String::from_utf8_lossy(&answer).into_owned()
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
    for path in ["/api/v1/login", "/bc-01/main/whip", "/bc-01/main/whep"] {
        // The body never comes.
        let head = format!("POST {path} HTTP/1.1\r\nHost: box\r\nContent-Length: 4294967296\r\n");
        let answer = raw(b.address, &head).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("{\"error\":"), "{answer}");
    }
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
async fn over_tls_the_cookie_is_secure_and_garbage_disturbs_nobody() {
    let b = open().await;
    let token = b.user("anna", Role::Operator);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (b.dir.path().join("cert.pem"), b.dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = crate::tls::server_config(crate::tls::Source::Given {
        cert: cert.clone(),
        key,
    })
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_stop, stopping) = watch::channel(false);
    let served = tokio::spawn(serve(listener, Some(tls), b.router.clone(), stopping));

    let garbage = raw_get(([127, 0, 0, 1], port).into(), "/healthz", &token).await;
    assert!(
        !garbage.starts_with("HTTP/1.1 200"),
        "plain text on the TLS port"
    );
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let https = Client::builder().tls_certs_only([root]).build().unwrap();
    let login = https
        .post(format!("https://localhost:{port}/api/v1/login"))
        .json(&json!({"token": token}))
        .timeout(LIMIT);
    let answer = login.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        answer.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .ends_with("; Secure")
    );
    served.abort();
}
