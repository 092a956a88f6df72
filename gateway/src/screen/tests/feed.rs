//! The feed over real sockets.

use super::*;

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
        tags: Default::default(),
        of: None,
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
