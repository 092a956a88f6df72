//! An event as CloudEvents 1.0, structured mode, JSON (API.md).

use serde::Serialize;

use crate::clock;
use crate::event::Event;

pub const CONTENT_TYPE: &str = "application/cloudevents+json";

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    data: &'a Event,
}

/// The body of one delivery. `source`: `urn:kerbside:{box_id}`.
///
/// # Errors
/// Never for an event of ours; the type says what JSON may do.
pub fn body(event: &Event, source: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: event.id.to_string(),
        source,
        r#type: format!("kerbside.event.{}.v1", event.kind),
        subject: event.device.as_str(),
        time: clock::rfc3339(event.raised_ms),
        datacontenttype: "application/json",
        data: event,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Priority, Severity};
    use crate::ids::DeviceId;

    #[test]
    fn golden() {
        let event = Event {
            id: "01980000-0000-7000-8000-000000000001".parse().unwrap(),
            kind: "sos".to_owned(),
            rule: "sos".to_owned(),
            severity: Severity::Critical,
            priority: Priority::P0,
            device: DeviceId::parse("bc-01").unwrap(),
            unit: None,
            raised_ms: 1_795_219_200_123,
            device_time_ms: None,
            position: None,
            position_ms: None,
            cell: None,
            streams: vec!["bc-01/main".to_owned()],
            note: Some("救命".to_owned()),
            restricted: false,
            dedup_key: Some("inner matter".to_owned()),
        };
        let body = body(&event, "urn:kerbside:box-1").unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({
                "specversion": "1.0",
                "id": "01980000-0000-7000-8000-000000000001",
                "source": "urn:kerbside:box-1",
                "type": "kerbside.event.sos.v1",
                "subject": "bc-01",
                "time": "2026-11-21T00:00:00.123Z",
                "datacontenttype": "application/json",
                "data": {
                    "id": "01980000-0000-7000-8000-000000000001",
                    "kind": "sos", "rule": "sos", "severity": "critical", "priority": "P0",
                    "device": "bc-01", "unit": null,
                    "raised_ms": 1_795_219_200_123_i64, "device_time_ms": null,
                    "position": null, "position_ms": null, "cell": null,
                    "streams": ["bc-01/main"], "note": "救命"
                }
            })
        );
    }
}
