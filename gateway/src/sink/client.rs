//! HTTP to one platform: one request, one answer. Redirects are not followed, proxies are not used, of the answer's
//! body only the beginning is read.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Certificate, redirect};

use super::SinkError;
use super::cloudevent;
use super::state::{self, Answer};
use crate::clock::unix_ms;
use crate::config::Platform;
use crate::event::Event;

/// Bytes of an answer's body that are looked at.
const BODY_BYTES: usize = 1024;
const CONNECT_MAX: Duration = Duration::from_secs(5);
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: url::Url,
    source: String,
}

impl Client {
    /// # Errors
    /// [`SinkError`] when the CA file or the token cannot be used, or https has no root certificates.
    pub fn new(p: &Platform, box_id: &str) -> Result<Self, SinkError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(cloudevent::CONTENT_TYPE),
        );
        if let Some(token) = &p.token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                SinkError::Token {
                    platform: p.name.clone(),
                }
            })?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("kerbside/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(p.timeout)
            .connect_timeout(CONNECT_MAX.min(p.timeout))
            .tcp_keepalive(Duration::from_secs(30))
            .pool_max_idle_per_host(p.concurrency);
        if p.url.scheme() == "http" {
            // No TLS, so no root certificates: a box without any must still reach a platform on its own network.
            http = http.tls_certs_only([]);
        } else if let Some(path) = &p.ca_file {
            let bad = |reason: String| SinkError::CaFile {
                platform: p.name.clone(),
                path: path.clone(),
                reason,
            };
            let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|e| bad(chain(&e)))?;
            if roots.is_empty() {
                return Err(bad("no certificate in it".to_owned()));
            }
            http = http.tls_certs_merge(roots);
        }
        let http = http.build().map_err(|e| SinkError::Tls {
            platform: p.name.clone(),
            reason: chain(&e),
        })?;
        Ok(Self {
            http,
            url: p.url.clone(),
            source: format!("urn:kerbside:{box_id}"),
        })
    }

    /// Sends the event once.
    pub async fn send(&self, event: &Event) -> Answer {
        let body = match cloudevent::body(event, &self.source) {
            Ok(body) => body,
            Err(e) => return Answer::Broken(e.to_string()),
        };
        let sent = self
            .http
            .post(self.url.clone())
            .header(IDEMPOTENCY_KEY, event.id.to_string())
            .body(body)
            .send()
            .await;
        match sent {
            Ok(response) => answer(response).await,
            Err(e) if e.is_timeout() && !e.is_connect() => Answer::Timeout,
            Err(e) if e.is_connect() => Answer::Unreachable(cause(&e.without_url())),
            Err(e) => Answer::Broken(cause(&e.without_url())),
        }
    }
}

async fn answer(mut response: reqwest::Response) -> Answer {
    let code = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| state::retry_after(v, unix_ms()));
    let mut body = Vec::new();
    // The status stands even if the body does not come; reading a short one lets the connection be used again.
    while body.len() < BODY_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        let room = BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Answer::Status {
        code,
        retry_after,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// What went wrong below the client's own two layers ("error sending request: client error"), in one line.
fn cause(e: &reqwest::Error) -> String {
    chain(e.source().and_then(Error::source).unwrap_or(e))
}

/// The error and its causes in one line.
fn chain(e: &dyn Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let words = c.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = c.source();
    }
    text
}
