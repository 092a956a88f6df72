//! Who gets in, how, and what no stranger can do.

use super::*;

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
