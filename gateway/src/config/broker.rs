//! `[broker]` of `gateway.toml`: a foreign MQTT broker by which devices come.

use std::path::PathBuf;

use super::Broker;
use super::secret::{self, Credentials};
use super::table::{Found, Table};

const TOPICS_MAX: usize = 64;

/// None: faulty; the faults stop the start.
pub(super) fn read(mut t: Table<'_>, box_id: &str, credentials: &Credentials) -> Option<Broker> {
    let url = t.required(
        "url",
        "the broker's address, e.g. url = \"mqtt://127.0.0.1:1884\"",
    );
    let url_at = url.as_ref().map(|f| f.at.clone());
    let place = url.and_then(|f| f.read(place));
    let ca = t.optional("ca_file");
    let ca_at = ca.as_ref().map(|f| f.at.clone());
    let ca_file: Option<PathBuf> = ca.and_then(|f| f.path(false));
    let user = t.optional("username");
    let user_at = user.as_ref().map(|f| f.at.clone());
    let username = user.and_then(Found::text);
    let secret = secret::read(&mut t, "password_credential", "password_file", credentials);
    let client_id = t
        .optional("client_id")
        .and_then(|f| f.read(super::id))
        .unwrap_or_else(|| box_id.to_owned());
    let share = match t.optional("share") {
        Some(f) => f.read(group).flatten(),
        None => Some("kerbside".to_owned()),
    };
    let topics = t.optional("topics");
    let topics_at = topics.as_ref().map(|f| f.at.clone());
    let topics: Vec<String> = match topics.and_then(Found::list) {
        Some(list) => list.into_iter().filter_map(|f| f.read(filter)).collect(),
        None => Vec::new(),
    };
    let qos = t
        .optional("qos")
        .and_then(|f| f.integer(0..=1))
        .map_or(1, |n| u8::from(n == 1));
    t.finish();
    if let Some(at) = topics_at.filter(|_| !(1..=TOPICS_MAX).contains(&topics.len())) {
        at.fault(format!(
            "must have 1 to {TOPICS_MAX} filters; leave it out for those of all protocols"
        ));
    }
    let (tls, host, port) = place?;
    match (tls, &ca_file, ca_at, url_at) {
        (true, None, None, Some(at)) => {
            at.fault(
                "mqtts needs ca_file: the authority (PEM) that the broker's certificate is from",
            );
        }
        (false, _, Some(at), _) => at.fault("is of use with mqtts:// only"),
        _ => {}
    }
    if let Some(at) = user_at.filter(|_| !secret.named) {
        at.fault("needs password_credential or password_file beside it");
    }
    Some(Broker {
        host,
        port,
        ca_file,
        username,
        password: secret.value,
        client_id,
        share,
        topics,
        qos,
    })
}

/// `mqtt(s)://HOST[:PORT]` → TLS, host, port.
fn place(text: &str) -> Result<(bool, String, u16), String> {
    let wrong = || {
        format!(
            "{text:?} is no address of a broker: write mqtt://HOST:PORT or mqtts://HOST:PORT, without a name or password"
        )
    };
    let url = url::Url::parse(text).map_err(|_| wrong())?;
    let tls = match url.scheme() {
        "mqtt" => false,
        "mqtts" => true,
        _ => return Err(wrong()),
    };
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none();
    let host = url
        .host_str()
        .filter(|h| is_bare && !h.is_empty())
        .ok_or_else(wrong)?;
    let port = url.port().unwrap_or(if tls { 8883 } else { 1883 });
    Ok((tls, host.to_owned(), port))
}

/// The name of a group; empty: no group.
fn group(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    super::id(text).map(Some)
}

/// A topic filter (v5 §4.7).
fn filter(text: &str) -> Result<String, String> {
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    let good = !text.is_empty()
        && text.len() <= 256
        && !text.starts_with('$')
        && levels.iter().enumerate().all(|(at, level)| match *level {
            "+" => true,
            "#" => at == last,
            l => !l.contains(['+', '#', '\0']),
        });
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is no topic filter; the group of a shared subscription is the key share"
        ))
    }
}
