//! Is the process alive, can it do its work, what does it count.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

use super::Room;
use super::auth::{Refusal, Viewer};
use super::serve::Client;

/// Conditions for being ready, each with the reason while it is not met. Starts with one: the gateway is starting.
pub struct Ready {
    unmet: Mutex<BTreeMap<&'static str, String>>,
    /// What does not work although the gateway is ready.
    degraded: Mutex<BTreeMap<&'static str, String>>,
}

impl Default for Ready {
    fn default() -> Self {
        let starting = ("start", "the gateway is starting".to_owned());
        Self {
            unmet: Mutex::new(BTreeMap::from([starting])),
            degraded: Mutex::default(),
        }
    }
}

impl Ready {
    /// Says that a condition is met (None), or why not, in words for operators. A change is logged.
    pub fn set(&self, condition: &'static str, unmet: Option<&str>) {
        let mut all = self.unmet.lock();
        let before = match unmet {
            Some(reason) => all.insert(condition, reason.to_owned()),
            None => all.remove(condition),
        };
        drop(all);
        match (before, unmet) {
            (None, Some(reason)) => tracing::warn!(condition, reason, "not ready"),
            (Some(_), None) => tracing::info!(condition, "condition for being ready met"),
            _ => {}
        }
    }

    /// Says that something works (None), or not, without which the gateway does the rest of its work.
    pub fn degrade(&self, what: &'static str, why: Option<&str>) {
        let mut all = self.degraded.lock();
        match why {
            Some(why) => all.insert(what, why.to_owned()),
            None => all.remove(what),
        };
    }

    /// One line for each thing that does not work.
    pub fn degraded(&self) -> Vec<String> {
        let all = self.degraded.lock();
        all.iter()
            .map(|(name, why)| format!("degraded: {name}: {why}"))
            .collect()
    }

    /// One line for each condition that is not met; empty: ready.
    pub fn unmet(&self) -> Vec<String> {
        let all = self.unmet.lock();
        all.iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect()
    }
}

pub(super) async fn healthz() -> &'static str {
    "ok"
}

pub(super) async fn readyz(State(room): State<Arc<Room>>) -> Response {
    let unmet = room.ready.unmet();
    if unmet.is_empty() {
        let mut lines = vec!["ready".to_owned()];
        lines.extend(room.ready.degraded());
        lines.join("\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, unmet.join("\n")).into_response()
    }
}

/// From this machine without credentials, unless a proxy on it speaks for somebody else. A user without the grant gets
/// no series of restricted devices.
pub(super) async fn metrics(
    State(room): State<Arc<Room>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    viewer: Result<Viewer, Refusal>,
) -> Response {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"]
        .iter()
        .any(|h| headers.contains_key(*h));
    let local = client.addr.ip().to_canonical().is_loopback() && !proxied;
    let text = match viewer {
        Err(refusal) if !local => return refusal.into_response(),
        Err(_) => crate::metrics::text(),
        Ok(viewer) => {
            let user = &viewer.account.user;
            series_of(&crate::metrics::text(), |device| {
                room.registry.may_see(user, device)
            })
        }
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The lines of a text of metrics, but those of streams whose device may not be seen.
fn series_of(text: &str, may_see: impl Fn(&str) -> bool) -> String {
    let visible = |line: &&str| {
        let of = line.split_once("stream=\"").map(|(_, rest)| rest);
        of.and_then(|rest| rest.split(['/', '"']).next())
            .is_none_or(&may_see)
    };
    text.split_inclusive('\n').filter(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_restricted_devices_are_left_out() {
        let text = "# HELP a stream\na{medium=\"video\",stream=\"covert/main\"} 1\na{stream=\"bc-01/main\"} 2\nb 3\n";
        assert_eq!(
            series_of(text, |device| device != "covert"),
            "# HELP a stream\na{stream=\"bc-01/main\"} 2\nb 3\n"
        );
        assert_eq!(series_of(text, |_| true), text);
    }

    #[test]
    fn ready_when_every_condition_is_met() {
        let ready = Ready::default();
        assert_eq!(ready.unmet(), ["start: the gateway is starting"]);
        ready.set("outbox", Some("the disk is full"));
        ready.set("start", None);
        assert_eq!(ready.unmet(), ["outbox: the disk is full"]);
        ready.set("outbox", None);
        assert!(ready.unmet().is_empty());
        ready.degrade("broker", Some("away"));
        assert!(ready.unmet().is_empty(), "it is ready all the same");
        assert_eq!(ready.degraded(), ["degraded: broker: away"]);
        ready.degrade("broker", None);
        assert!(ready.degraded().is_empty());
    }
}
