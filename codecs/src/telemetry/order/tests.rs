//! Golden messages of both dialects, and what is refused.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Wanted, String> {
    Wanted::read(&serde_json::from_str(text).unwrap())
}

fn told(dialect: Dialect, text: &str, own_url: Option<&str>) -> Result<(String, Value), String> {
    let task = read(text).unwrap().task;
    let order = Order {
        id: "0192f0c1-0000-7000-8000-000000000001",
        device: "1ZNDH1D0010098",
        speaker: "DOCK1",
        task: &task,
        own_url,
        now_ms: 1_654_070_968_655,
        expires_ms: 1_654_070_999_000,
    };
    tell(dialect, &order).map(|t| (t.topic, serde_json::from_str(&t.payload).unwrap()))
}

#[test]
fn our_json_says_all_that_was_ordered() {
    let id = "0192f0c1-0000-7000-8000-000000000001";
    let at = 1_654_070_999_000i64;
    for (order, expected) in [
        (
            json!({"kind": "message", "text": "回头看"}),
            json!({"order": id, "kind": "message", "text": "回头看", "expires_ms": at}),
        ),
        (
            json!({"kind": "dispatch", "position": {"lat": 37.69, "lon": 112.75}, "event": "e-1"}),
            json!({"order": id, "kind": "dispatch", "event": "e-1", "expires_ms": at,
                   "position": {"lat": 37.69, "lon": 112.75, "datum": "wgs84"}}),
        ),
        (
            json!({"kind": "live_start", "camera": "main", "quality": "high"}),
            json!({"order": id, "kind": "live_start", "camera": "main", "quality": "high",
                   "url": "rtsp://box/x/main", "expires_ms": at}),
        ),
        (
            json!({"kind": "live_stop", "camera": "main"}),
            json!({"order": id, "kind": "live_stop", "camera": "main", "expires_ms": at}),
        ),
        (
            json!({"kind": "report_interval", "seconds": 5}),
            json!({"order": id, "kind": "report_interval", "seconds": 5, "expires_ms": at}),
        ),
    ] {
        let (topic, said) = told(
            Dialect::Kerbside,
            &order.to_string(),
            Some("rtsp://box/x/main"),
        )
        .unwrap();
        assert_eq!(topic, "kerbside/v1/DOCK1/down/order");
        assert_eq!(said, expected);
    }
}

/// The samples of Cloud-API-Doc: dock2, live.md.
#[test]
fn dji_services_are_asked_as_the_document_shows() {
    let (topic, said) = told(
        Dialect::Dji,
        r#"{"kind":"live_start","camera":"39-0-7","quality":"full"}"#,
        Some("https://box:8443/x/39-0-7/whip"),
    )
    .unwrap();
    assert_eq!(topic, "thing/product/DOCK1/services");
    assert_eq!(
        said,
        json!({
            "tid": "0192f0c1-0000-7000-8000-000000000001", "bid": "0192f0c1-0000-7000-8000-000000000001",
            "timestamp": 1_654_070_968_655i64, "gateway": "DOCK1", "method": "live_start_push",
            "data": {"url": "https://box:8443/x/39-0-7/whip", "url_type": 4,
                     "video_id": "1ZNDH1D0010098/39-0-7/normal-0", "video_quality": 4}
        })
    );
    let (_, said) = told(
        Dialect::Dji,
        r#"{"kind":"live_start","camera":"39-0-7/zoom-0","url":"rtmp://1.2.3.4/live/a"}"#,
        None,
    )
    .unwrap();
    assert_eq!(said["data"]["url_type"], 1);
    assert_eq!(said["data"]["video_id"], "1ZNDH1D0010098/39-0-7/zoom-0");
    assert_eq!(said["data"]["video_quality"], 0);
    let (_, said) = told(
        Dialect::Dji,
        r#"{"kind":"live_stop","camera":"39-0-7"}"#,
        None,
    )
    .unwrap();
    assert_eq!(
        (&said["method"], &said["data"]),
        (
            &json!("live_stop_push"),
            &json!({"video_id": "1ZNDH1D0010098/39-0-7/normal-0"})
        )
    );
}

#[test]
fn what_dji_cannot_do_is_refused_with_the_reason() {
    for (order, reason) in [
        (r#"{"kind":"message","text":"x"}"#, "no service for message"),
        (
            r#"{"kind":"report_interval","seconds":5}"#,
            "report_interval",
        ),
        (r#"{"kind":"live_start"}"#, "which camera"),
        (r#"{"kind":"live_start","camera":"39-0-7"}"#, "address"),
        (
            r#"{"kind":"live_start","camera":"39-0-7","url":"rtsp://h/x"}"#,
            "RTMP or WHIP",
        ),
    ] {
        let said = told(Dialect::Dji, order, None).unwrap_err();
        assert!(said.contains(reason), "{order}: {said}");
    }
}

#[test]
fn orders_are_read_strictly() {
    for (order, reason) in [
        ("[]".to_owned(), "object"),
        ("{}".to_owned(), "kind"),
        (r#"{"kind":"jump"}"#.to_owned(), "unknown"),
        (r#"{"kind":7}"#.to_owned(), "must be text"),
        (r#"{"kind":"message"}"#.to_owned(), "text"),
        (r#"{"kind":"message","text":" "}"#.to_owned(), "empty"),
        (
            r#"{"kind":"message","text":"a\u0000"}"#.to_owned(),
            "control",
        ),
        (
            format!(r#"{{"kind":"message","text":"{}"}}"#, "长".repeat(2001)),
            "2000",
        ),
        (
            r#"{"kind":"message","text":"a","txet":1}"#.to_owned(),
            "txet",
        ),
        (
            r#"{"kind":"message","text":"a","expires_s":0}"#.to_owned(),
            "1 to 86400",
        ),
        (
            r#"{"kind":"message","text":"a","expires_s":"60"}"#.to_owned(),
            "whole",
        ),
        (r#"{"kind":"dispatch"}"#.to_owned(), "needs"),
        (
            r#"{"kind":"dispatch","position":{"lat":91,"lon":0}}"#.to_owned(),
            "no place",
        ),
        (
            r#"{"kind":"dispatch","position":{"lat":0,"lon":0}}"#.to_owned(),
            "no place",
        ),
        (
            r#"{"kind":"dispatch","position":{"lat":1}}"#.to_owned(),
            "lon",
        ),
        (
            r#"{"kind":"dispatch","position":{"lat":1,"lon":2,"alt":3}}"#.to_owned(),
            "alt",
        ),
        (
            r#"{"kind":"dispatch","position":{"lat":1,"lon":2,"datum":"x"}}"#.to_owned(),
            "datum",
        ),
        (
            r#"{"kind":"live_start","camera":"a b"}"#.to_owned(),
            "camera",
        ),
        (
            r#"{"kind":"live_start","camera":"a/b/c"}"#.to_owned(),
            "camera",
        ),
        (
            r#"{"kind":"live_start","url":"file:///x"}"#.to_owned(),
            "url",
        ),
        (
            r#"{"kind":"live_start","url":"rtsp://u:p@h/x"}"#.to_owned(),
            "password",
        ),
        (
            r#"{"kind":"live_start","quality":"best"}"#.to_owned(),
            "quality",
        ),
        (r#"{"kind":"live_stop"}"#.to_owned(), "camera"),
        (
            r#"{"kind":"report_interval","seconds":3601}"#.to_owned(),
            "3600",
        ),
        (
            r#"{"kind":"report_interval","seconds":1.5}"#.to_owned(),
            "whole",
        ),
    ] {
        let said = read(&order).unwrap_err();
        assert!(said.contains(reason), "{order}: {said}");
    }
    assert_eq!(
        read(r#"{"kind":"message","text":"a"}"#).unwrap().expires_s,
        3600
    );
    assert_eq!(read(r#"{"kind":"live_start"}"#).unwrap().expires_s, 60);
}

#[test]
fn a_place_in_another_datum_goes_down_in_ours() {
    let order =
        r#"{"kind":"dispatch","position":{"lat":37.6906807,"lon":112.7564918,"datum":"gcj02"}}"#;
    let Task::Dispatch {
        position: Some(at), ..
    } = read(order).unwrap().task
    else {
        panic!("no place");
    };
    assert!(geo::distance_m(at, (37.69, 112.75)) < 0.02);
}

proptest! {
    /// What is read is told again in the same words: nothing is lost on the way to the device.
    #[test]
    fn what_is_ordered_is_what_is_told(text in "[a-z一-龥 \n]{0,40}[a-z]", camera in "[a-z0-9]{1,20}", s in 1u32..=3600) {
        for body in [
            json!({"kind": "message", "text": text}),
            json!({"kind": "live_stop", "camera": camera}),
            json!({"kind": "report_interval", "seconds": s}),
        ] {
            let task = Wanted::read(&body).unwrap().task;
            let mut back = task.fields();
            back.insert("kind".to_owned(), task.kind().into());
            prop_assert_eq!(&Wanted::read(&Value::Object(back)).unwrap().task, &task);
        }
    }

    #[test]
    fn no_body_is_too_strange(body in any::<String>()) {
        if let Ok(v) = serde_json::from_str::<Value>(&body) {
            let _ = Wanted::read(&v);
        }
        let _ = Wanted::read(&json!({"kind": "message", "text": body}));
        let _ = Wanted::read(&json!({"kind": "live_start", "url": body, "camera": body}));
    }
}
