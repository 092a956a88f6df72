//! How a WebRTC reader and a server exchange descriptions: WHEP (we offer) or Janus' HTTP API (the server offers).

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::sdp::{Local, Remote};
use crate::camera::now_ns;

#[derive(Clone, Debug)]
pub enum Signalling {
    /// Address of the endpoint and its Bearer token.
    Whep { url: String, token: Option<String> },
    /// Address of the API (`http://host:8088/janus`) and the streaming plugin's mountpoint.
    Janus { url: String, mountpoint: u64 },
}

/// How a session is ended and kept alive.
#[derive(Clone, Debug)]
pub enum Seat {
    Whep {
        resource: Option<String>,
        token: Option<String>,
    },
    Janus {
        session: String,
    },
}

/// A session that was agreed.
pub struct Joined {
    pub remote: Remote,
    pub seat: Seat,
    /// The server offered: it nominates the path.
    pub we_answered: bool,
    /// When the stream was asked for.
    pub asked_ns: u64,
}

impl Signalling {
    pub fn url(&self) -> &str {
        match self {
            Self::Whep { url, .. } | Self::Janus { url, .. } => url,
        }
    }

    pub async fn join(&self, http: &reqwest::Client, local: &Local) -> anyhow::Result<Joined> {
        match self {
            Self::Whep { url, token } => whep(http, url, token.as_deref(), local).await,
            Self::Janus { url, mountpoint } => janus(http, url, *mountpoint, local).await,
        }
    }
}

async fn whep(
    http: &reqwest::Client,
    url: &str,
    token: Option<&str>,
    local: &Local,
) -> anyhow::Result<Joined> {
    let asked_ns = now_ns();
    let mut request = http
        .post(url)
        .header("content-type", "application/sdp")
        .body(local.offer());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    let status = answer.status();
    let resource = answer
        .headers()
        .get("location")
        .and_then(|l| l.to_str().ok())
        .and_then(|l| answer.url().join(l).ok())
        .map(String::from);
    let text = answer.text().await?;
    // RFC 9725 says 201; some servers say 200, with the SDP alone.
    if !status.is_success() || !text.starts_with("v=0") {
        bail!("WHEP: {status}: {}", text.trim());
    }
    Ok(Joined {
        remote: Remote::parse(&text)?,
        seat: Seat::Whep {
            resource,
            token: token.map(str::to_owned),
        },
        we_answered: false,
        asked_ns,
    })
}

async fn janus_request(
    http: &reqwest::Client,
    url: &str,
    mut body: Value,
) -> anyhow::Result<Value> {
    body["transaction"] = json!("bench");
    let said: Value = http.post(url).json(&body).send().await?.json().await?;
    match said["janus"].as_str() {
        Some("success" | "ack") => Ok(said),
        _ => bail!("Janus: {said}"),
    }
}

async fn janus(
    http: &reqwest::Client,
    url: &str,
    mountpoint: u64,
    local: &Local,
) -> anyhow::Result<Joined> {
    let id = |said: &Value| said["data"]["id"].as_u64().context("Janus gave no id");
    let session = id(&janus_request(http, url, json!({"janus": "create"})).await?)?;
    let session = format!("{url}/{session}");
    let attach = json!({"janus": "attach", "plugin": "janus.plugin.streaming"});
    let handle = id(&janus_request(http, &session, attach).await?)?;
    let handle = format!("{session}/{handle}");
    let asked_ns = now_ns();
    let watch = json!({"janus": "message", "body": {"request": "watch", "id": mountpoint}});
    janus_request(http, &handle, watch).await?;
    let offer = loop {
        let event: Value = http
            .get(format!("{session}?maxev=1"))
            .timeout(Duration::from_secs(10))
            .send()
            .await?
            .json()
            .await?;
        if let Some(error) = event["plugindata"]["data"]["error"].as_str() {
            bail!("Janus: {error}");
        }
        if let Some(sdp) = event["jsep"]["sdp"].as_str() {
            break sdp.to_owned();
        }
    };
    let mut remote = Remote::parse(&offer)?;
    remote.we_are_client = true;
    let start = json!({
        "janus": "message",
        "body": {"request": "start"},
        "jsep": {"type": "answer", "sdp": local.answer(&offer, &remote)},
    });
    janus_request(http, &handle, start).await?;
    Ok(Joined {
        remote,
        seat: Seat::Janus { session },
        we_answered: true,
        asked_ns,
    })
}

impl Seat {
    /// How often [`Self::keep`] is due.
    pub const EVERY: Duration = Duration::from_secs(25);

    pub async fn keep(&self, http: &reqwest::Client) -> anyhow::Result<()> {
        if let Self::Janus { session } = self {
            janus_request(http, session, json!({"janus": "keepalive"})).await?;
        }
        Ok(())
    }

    pub async fn leave(self, http: &reqwest::Client) -> anyhow::Result<()> {
        match self {
            Self::Whep {
                resource: Some(resource),
                token,
            } => {
                let mut request = http.delete(resource);
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                request.send().await?;
            }
            Self::Whep { resource: None, .. } => {}
            Self::Janus { session } => {
                janus_request(http, &session, json!({"janus": "destroy"})).await?;
            }
        }
        Ok(())
    }
}
