//! What devices answer to orders, in our JSON and as DJI does.

use kerbside_sim::harness::tools::have;
use kerbside_sim::harness::{Gateway, Setup, eventually, until};
use serde_json::json;

use crate::LIMIT;
use crate::orders::{given, got, listening, says, until_state};

#[tokio::test]
async fn the_bearer_reads_refuses_or_comes_too_late() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("bc-01", "bodycam", None);
    gateway.device("bc-02", "bodycam", None);
    let eve = gateway.user("eve", "operator");
    let device = listening(&gateway, "device", "bc-01", "kerbside/v1/bc-01/down/#");
    let ack =
        |order: &str, said: &str| json!({"order": order, "said": said, "note": "按键"}).to_string();
    let topic = "kerbside/v1/bc-01/ack";

    let id = given(
        &gateway,
        &eve,
        "bc-01",
        &json!({"kind": "message", "text": "one"}),
    )
    .await;
    got(&device, &id).await;
    until_state(&gateway, &eve, &id, "delivered").await;
    says(
        &gateway,
        "bc-02",
        "kerbside/v1/bc-02/ack",
        &ack(&id, "refused"),
    )
    .await;
    eventually(
        LIMIT,
        "the answer of another device is counted",
        async || {
            (gateway
                .metric("kerbside_order_answers_total", &["foreign"])
                .await
                >= 1.0)
                .then_some(())
        },
    )
    .await;
    says(&gateway, "bc-01", topic, &ack(&id, "read")).await;
    let order = until_state(&gateway, &eve, &id, "read").await;
    assert_eq!(
        order["steps"]
            .as_array()
            .and_then(|s| s.last())
            .map(|s| &s["note"]),
        Some(&json!("按键"))
    );
    let audit = |l: &str| l.contains("order ended") && l.contains(&id) && l.contains("read");
    assert!(gateway.logged().lines().any(audit));

    let id = given(
        &gateway,
        &eve,
        "bc-01",
        &json!({"kind": "dispatch", "text": "go", "position": {"lat": 37.69, "lon": 112.75}}),
    )
    .await;
    assert_eq!(got(&device, &id).await["position"]["datum"], "wgs84");
    says(&gateway, "bc-01", topic, &ack(&id, "refused")).await;
    until_state(&gateway, &eve, &id, "refused").await;

    drop(device);
    let id = given(
        &gateway,
        &eve,
        "bc-01",
        &json!({"kind": "message", "text": "two", "expires_s": 1}),
    )
    .await;
    until_state(&gateway, &eve, &id, "expired").await;
    says(&gateway, "bc-01", topic, &ack(&id, "read")).await;
    eventually(LIMIT, "the late answer is on record", async || {
        let (_, said) = gateway.get(&format!("/api/v1/orders/{id}"), &eve).await;
        let last = said["order"]["steps"].as_array()?.last()?.clone();
        assert_eq!(said["order"]["state"], "expired");
        (last["state"] == "read" && last["late"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_docks_result_is_an_answer() {
    if !have("mosquitto_sub") {
        return;
    }
    let gateway = Gateway::start(Setup::default()).await;
    gateway.device("dock-1", "dock", None);
    let eve = gateway.user("eve", "operator");
    let dock = listening(&gateway, "dock", "dock-1", "thing/product/dock-1/services");
    until(LIMIT, "subscribed", || {
        dock.tail(20).contains("Subscribed").then_some(())
    })
    .await;
    let start = json!({"kind": "live_start", "camera": "165-0-7"});
    let reply = |id: &str, result: u32| {
        json!({"tid": id, "bid": id, "timestamp": 1_654_070_968_655i64, "method": "live_start_push", "data": {"result": result}}).to_string()
    };
    let topic = "thing/product/dock-1/services_reply";
    let id = given(&gateway, &eve, "dock-1", &start).await;
    assert_eq!(
        got(&dock, &id).await["data"]["video_id"],
        "dock-1/165-0-7/normal-0"
    );
    says(&gateway, "dock-1", topic, &reply(&id, 0)).await;
    eventually(LIMIT, "the answer is taken", async || {
        (gateway.metric("kerbside_order_answers_total", &[]).await >= 1.0).then_some(())
    })
    .await;
    until_state(&gateway, &eve, &id, "delivered").await;
    let id = given(&gateway, &eve, "dock-1", &start).await;
    got(&dock, &id).await;
    says(&gateway, "dock-1", topic, &reply(&id, 513_003)).await;
    let order = until_state(&gateway, &eve, &id, "refused").await;
    assert!(order.to_string().contains("513003"), "{order}");
}
