//! Events on their way to a platform that is slow, refuses, dies and comes back.

use std::net::SocketAddr;
use std::time::Duration;

use kerbside_sim::harness::{Feed, Gateway, Setup, until};
use kerbside_sim::platform::{Behaviour, Platform};

use crate::LIMIT;
use crate::crash::{Caller, call};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn street(behaviour: Behaviour) -> (Platform, Gateway, Feed) {
    let platform = Platform::start(ANY, behaviour).await.unwrap();
    let setup = Setup {
        platforms: vec![("joint".into(), format!("http://{}/events", platform.addr))],
        platform_keys: "timeout_s = 2\nretry_s_max = 2\n".into(),
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    gateway.device("bc-01", "bodycam", Some("patrol-1"));
    let token = gateway.user("eve", "operator");
    let feed = Feed::open(&gateway, &token).await;
    (platform, gateway, feed)
}

/// The state of the only event towards the platform `joint`.
fn delivery<'a>(feed: &'a Feed, key: &str) -> Option<&'a str> {
    feed.events.values().next()?["deliveries"][0][key].as_str()
}

#[tokio::test]
async fn a_call_for_help_reaches_the_platform_and_the_screen_sees_it_delivered() {
    let (platform, gateway, mut feed) = street(Behaviour::default()).await;
    call(&gateway, "bc-01", "first").await;
    feed.until(LIMIT, "delivered", |feed| {
        (delivery(feed, "state")? == "delivered").then_some(())
    })
    .await;
    let account = platform.account();
    assert_eq!(account.faults, Vec::<String>::new());
    assert_eq!(account.events.len(), 1);
    let event = &account.events[0];
    assert_eq!(
        (event.event_type.as_str(), event.subject.as_str()),
        ("kerbside.event.sos.v1", "bc-01")
    );
    let data = &event.event["data"];
    assert_eq!(
        (&data["unit"], &data["priority"], &data["severity"]),
        (&"patrol-1".into(), &"P0".into(), &"critical".into())
    );
    assert_eq!(data["note"], "call first");
    assert!(
        data.get("deliveries").is_none(),
        "deliveries are ours: {data}"
    );
    assert_eq!(feed.events[&event.id]["kind"], "sos");
    assert_eq!(feed.devices["bc-01"]["sos"], true);
}

#[tokio::test]
async fn the_same_call_sent_twice_is_one_event() {
    let (platform, gateway, mut feed) = street(Behaviour::default()).await;
    call(&gateway, "bc-01", "twice").await;
    call(&gateway, "bc-01", "twice").await;
    call(&gateway, "bc-01", "other").await;
    feed.until(LIMIT, "two events", |feed| {
        (feed.events.len() == 2).then_some(())
    })
    .await;
    until(LIMIT, "both delivered", || {
        (platform.account().events.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_platform_that_is_busy_is_tried_again_and_not_before_it_asked_for() {
    let busy = Behaviour {
        status: Some(429),
        retry_after: Some(1),
        ..Behaviour::default()
    };
    let (platform, gateway, mut feed) = street(busy).await;
    call(&gateway, "bc-01", "busy").await;
    until(LIMIT, "a first attempt", || {
        (platform.account().requests >= 1).then_some(())
    })
    .await;
    let refused = std::time::Instant::now();
    platform.behave(Behaviour::default());
    feed.until(LIMIT, "delivered", |feed| {
        (delivery(feed, "state")? == "delivered").then_some(())
    })
    .await;
    assert!(
        refused.elapsed() >= Duration::from_millis(800),
        "tried again after {:?}",
        refused.elapsed()
    );
    assert_eq!(platform.account().events.len(), 1);
}

#[tokio::test]
async fn a_refused_event_is_parked_where_an_operator_sees_it_and_can_try_it_again() {
    let (platform, gateway, mut feed) = street(Behaviour {
        status: Some(422),
        ..Behaviour::default()
    })
    .await;
    call(&gateway, "bc-01", "refused").await;
    feed.until(LIMIT, "parked", |feed| {
        (delivery(feed, "state")? == "parked").then_some(())
    })
    .await;
    assert!(
        delivery(&feed, "error").unwrap().contains("422"),
        "{:?}",
        delivery(&feed, "error")
    );
    let id = feed.events.keys().next().unwrap().clone();
    platform.behave(Behaviour::default());
    let retry = async |token: &str| {
        let url = format!("{}/api/v1/events/{id}/retry", gateway.http());
        let body = serde_json::json!({"platform": "joint"});
        reqwest::Client::new()
            .post(url)
            .bearer_auth(token)
            .json(&body)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(retry(&gateway.user("ann", "auditor")).await, 403);
    assert_eq!(retry(&gateway.secret("eve")).await, 202);
    feed.until(LIMIT, "delivered", |feed| {
        (delivery(feed, "state")? == "delivered").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_platform_that_dies_and_comes_back_gets_everything_once_by_id() {
    let (platform, gateway, mut feed) = street(Behaviour::default()).await;
    let addr = platform.addr;
    drop(platform);
    let mut caller = Caller::open(&gateway, "bc-01").await;
    for number in 0..20 {
        caller.call(&format!("dark-{number}"));
    }
    caller.all_acknowledged(LIMIT).await;
    feed.until(LIMIT, "20 events wait", |feed| {
        (feed.events.len() == 20).then_some(())
    })
    .await;
    let platform = Platform::start(
        addr,
        Behaviour {
            fail_rate: 0.3,
            slow_ms: 20,
            ..Behaviour::default()
        },
    )
    .await
    .unwrap();
    until(LIMIT, "all 20 arrive", || {
        (platform.account().events.len() == 20).then_some(())
    })
    .await;
    feed.until(LIMIT, "all 20 are delivered", |feed| {
        feed.events
            .values()
            .all(|event| event["deliveries"][0]["state"] == "delivered")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_platform_that_never_answers_disturbs_no_other() {
    let hanging = Platform::start(
        ANY,
        Behaviour {
            slow_ms: 600_000,
            ..Behaviour::default()
        },
    )
    .await
    .unwrap();
    let good = Platform::start(ANY, Behaviour::default()).await.unwrap();
    let url = |platform: &Platform| format!("http://{}/events", platform.addr);
    let setup = Setup {
        platforms: vec![
            ("hanging".into(), url(&hanging)),
            ("good".into(), url(&good)),
        ],
        platform_keys: "timeout_s = 2\n".into(),
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    gateway.device("bc-01", "bodycam", None);
    let mut caller = Caller::open(&gateway, "bc-01").await;
    for number in 0..10 {
        caller.call(&format!("call-{number}"));
    }
    until(LIMIT, "the good one has all", || {
        (good.account().events.len() == 10).then_some(())
    })
    .await;
    let mut feed = Feed::open(&gateway, &gateway.user("eve", "operator")).await;
    feed.until(LIMIT, "the screen sees why the other waits", |feed| {
        let event = feed.events.values().next()?;
        let waiting = event["deliveries"]
            .as_array()?
            .iter()
            .find(|delivery| delivery["platform"] == "hanging")?;
        (waiting["state"] == "pending").then_some(())
    })
    .await;
}
