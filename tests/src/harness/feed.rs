//! A command screen: follows the feed and keeps the picture that a screen would show.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Gateway;

/// The picture as one screen knows it.
pub struct Feed {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub epoch: String,
    pub seq: u64,
    pub devices: BTreeMap<String, Value>,
    pub streams: BTreeMap<String, Value>,
    pub events: BTreeMap<String, Value>,
    /// Messages taken so far, by type.
    pub snapshots: u32,
    pub changes: u32,
}

impl Feed {
    /// Connects with a user's token and takes the first message.
    pub async fn open(gateway: &Gateway, token: &str) -> Feed {
        Feed::resume(gateway, token, None).await
    }

    /// Connects and asks for what changed since an earlier (epoch, seq).
    pub async fn resume(gateway: &Gateway, token: &str, since: Option<(&str, u64)>) -> Feed {
        let socket = Feed::connect(gateway, token, since)
            .await
            .unwrap_or_else(|fault| panic!("feed: {fault}"));
        let mut feed = Feed {
            socket,
            epoch: String::new(),
            seq: since.map_or(0, |(_, seq)| seq),
            devices: BTreeMap::new(),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            snapshots: 0,
            changes: 0,
        };
        assert!(
            feed.take(Duration::from_secs(15)).await,
            "the feed closes at once"
        );
        feed
    }

    /// The WebSocket alone, or why it was refused.
    pub async fn connect(
        gateway: &Gateway,
        token: &str,
        since: Option<(&str, u64)>,
    ) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, String> {
        let since = since
            .map(|(epoch, seq)| format!("?since={epoch}-{seq}"))
            .unwrap_or_default();
        let url = format!("ws://127.0.0.1:{}/api/v1/feed{since}", gateway.ports.http);
        let mut request = url
            .into_client_request()
            .map_err(|fault| fault.to_string())?;
        let bearer = format!("Bearer {token}")
            .parse()
            .map_err(|_| "a token that is no header".to_owned())?;
        request.headers_mut().insert("Authorization", bearer);
        let connected = tokio_tungstenite::connect_async(request).await;
        connected
            .map(|(socket, _)| socket)
            .map_err(|fault| fault.to_string())
    }

    /// Takes one message; false when the feed was closed.
    pub async fn take(&mut self, limit: Duration) -> bool {
        let next = tokio::time::timeout(limit, self.socket.next());
        match next
            .await
            .unwrap_or_else(|_| panic!("no message on the feed within {limit:?}"))
        {
            Some(Ok(Message::Text(text))) => {
                let message: Value = serde_json::from_str(&text).expect("the feed is JSON");
                self.apply(&message);
                true
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => false,
            Some(Ok(_)) => true,
        }
    }

    fn apply(&mut self, message: &Value) {
        let epoch = message["epoch"].as_str().expect("epoch").to_owned();
        let seq = message["seq"].as_u64().expect("seq");
        match message["type"].as_str() {
            Some("snapshot") => {
                self.devices.clear();
                self.streams.clear();
                self.events.clear();
                self.snapshots += 1;
            }
            Some("change") => {
                assert!(seq >= self.seq, "seq went back from {} to {seq}", self.seq);
                self.changes += 1;
            }
            other => panic!("a feed message of type {other:?}"),
        }
        (self.epoch, self.seq) = (epoch, seq);
        for (list, key, map) in [
            ("devices", "id", &mut self.devices),
            ("streams", "stream", &mut self.streams),
            ("events", "id", &mut self.events),
        ] {
            for item in message[list]
                .as_array()
                .unwrap_or_else(|| panic!("{list} is no list: {message}"))
            {
                map.insert(item[key].as_str().expect("an id").to_owned(), item.clone());
            }
        }
        for gone in message["gone"].as_array().into_iter().flatten() {
            if let Some((kind, id)) = gone.as_str().and_then(|gone| gone.split_once(':')) {
                match kind {
                    "device" => self.devices.remove(id),
                    "stream" => self.streams.remove(id),
                    _ => self.events.remove(id),
                };
            }
        }
    }

    /// Follows the feed until the picture satisfies `look`; panics after `limit`.
    pub async fn until<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut(&Feed) -> Option<T>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(value) = look(self) {
                return value;
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let taken =
                tokio::time::timeout(left, self.take(limit + Duration::from_secs(60))).await;
            match taken {
                Ok(true) => {}
                Ok(false) => panic!("the feed closed while waiting: {what}"),
                Err(_) => panic!(
                    "waited {limit:?} in vain: {what}\ndevices: {:?}\nstreams: {:?}\nevents: {:?}",
                    self.devices.values().take(4).collect::<Vec<_>>(),
                    self.streams.values().take(4).collect::<Vec<_>>(),
                    self.events.values().take(4).collect::<Vec<_>>()
                ),
            }
        }
    }

    /// Follows the feed until the newest fix of a device has the latitude `lat` (to 1e-6).
    pub async fn until_at(&mut self, limit: Duration, device: &str, lat: f64) {
        let what = format!("{device} at latitude {lat}");
        self.until(limit, &what, |feed| {
            let at = feed
                .devices
                .get(device)?
                .pointer("/position/raw/1")?
                .as_f64()?;
            ((at - lat).abs() < 1e-6).then_some(())
        })
        .await;
    }

    /// Follows the feed until a stream has this phase.
    pub async fn until_phase(&mut self, limit: Duration, stream: &str, phase: &str) {
        let what = format!("stream {stream} is {phase}");
        self.until(limit, &what, |feed| {
            (feed.streams.get(stream)?["phase"] == phase).then_some(())
        })
        .await;
    }
}
