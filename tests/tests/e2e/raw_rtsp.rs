//! RTSP written by hand, to say what no client library would: requests, interleaved data, and what comes back.

use kerbside_sim::harness::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::LIMIT;
use crate::bad_input::base64;

/// One connection, logged in with Basic.
pub struct Rtsp {
    socket: TcpStream,
    url: String,
    authorization: String,
    session: String,
    received: Vec<u8>,
}

/// The answer to a request.
pub struct Answer {
    pub status: u16,
    pub head: String,
}

impl Rtsp {
    /// `receive_bytes`: size of the socket's receive buffer, if it is not to be the system's.
    pub async fn connect(
        gateway: &Gateway,
        name: &str,
        stream: &str,
        receive_bytes: Option<u32>,
    ) -> Rtsp {
        let port = gateway.ports.rtsp;
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let socket = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        let credentials = format!("{name}:{}", gateway.secret(name));
        let basic = base64(credentials.as_bytes());
        Rtsp {
            socket,
            url: format!("rtsp://127.0.0.1:{port}/{stream}"),
            authorization: format!("Authorization: Basic {basic}\r\n"),
            session: String::new(),
            received: Vec::new(),
        }
    }

    /// Sends a request and takes its answer; None when the other side closed instead.
    pub async fn ask(
        &mut self,
        method: &str,
        control: &str,
        headers: &str,
        body: &str,
    ) -> Option<Answer> {
        let length = match body.len() {
            0 => String::new(),
            n => format!("Content-Length: {n}\r\n"),
        };
        let text = format!(
            "{method} {}{control} RTSP/1.0\r\nCSeq: 1\r\n{}{}{headers}{length}\r\n{body}",
            self.url, self.authorization, self.session
        );
        // The other side may close while we still send.
        drop(self.socket.write_all(text.as_bytes()).await);
        self.answer().await
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The next answer, past interleaved data; None: closed.
    pub async fn answer(&mut self) -> Option<Answer> {
        let answer = tokio::time::timeout(LIMIT, async {
            loop {
                match self.unit().await? {
                    Unit::Data(..) => {}
                    Unit::Answer(head) => return Some(head),
                }
            }
        });
        let head = answer.await.expect("an answer")?;
        let status = head.get(9..12)?.parse().ok()?;
        if let Some(line) = head.lines().find(|l| l.starts_with("Session:")) {
            let id = line.split(';').next().unwrap_or_default();
            self.session = format!("{id}\r\n");
        }
        Some(Answer { status, head })
    }

    /// Announces, sets up over TCP and records.
    pub async fn publish(&mut self, sdp: &str) {
        let announce = "Content-Type: application/sdp\r\n";
        let tcp = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n";
        for (method, control, headers, body) in [
            ("ANNOUNCE", "", announce, sdp),
            ("SETUP", "/trackID=0", tcp, ""),
            ("RECORD", "", "", ""),
        ] {
            let answer = self.ask(method, control, headers, body).await.unwrap();
            assert_eq!(answer.status, 200, "{method}: {}", answer.head);
        }
    }

    /// Sets up over TCP and plays.
    pub async fn play(&mut self) {
        let tcp = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
        for (method, control, headers) in [("SETUP", "/trackID=0", tcp), ("PLAY", "", "")] {
            let answer = self.ask(method, control, headers, "").await.unwrap();
            assert_eq!(answer.status, 200, "{method}: {}", answer.head);
        }
    }

    /// The next RTP packet; None: closed.
    pub async fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Unit::Data(0, packet) = self.unit().await? {
                return Some(packet);
            }
        }
    }

    async fn unit(&mut self) -> Option<Unit> {
        loop {
            if let Some((unit, used)) = parse(&self.received) {
                self.received.drain(..used);
                return Some(unit);
            }
            if self.socket.read_buf(&mut self.received).await.ok()? == 0 {
                return None;
            }
        }
    }
}

enum Unit {
    Answer(String),
    Data(u8, Vec<u8>),
}

fn parse(bytes: &[u8]) -> Option<(Unit, usize)> {
    if bytes.first()? == &b'$' {
        let size = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        let data = bytes.get(4..4 + size)?.to_vec();
        return Some((Unit::Data(bytes[1], data), 4 + size));
    }
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("Content-Length: ")?.parse().ok())
        .unwrap_or(0);
    bytes.get(end..end + length)?;
    Some((Unit::Answer(head), end + length))
}

/// `$`, channel, length, RTP packet.
pub fn interleaved(channel: u8, header: [u8; 12], payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(12 + payload.len()).unwrap();
    let mut out = vec![b'$', channel];
    out.extend(size.to_be_bytes());
    out.extend(header);
    out.extend(payload);
    out
}

/// An RTP header without anything unusual.
pub fn header(payload_type: u8, marker: bool, seq: u16, time: u32, ssrc: u32) -> [u8; 12] {
    let mut h = [0; 12];
    h[0] = 0x80;
    h[1] = u8::from(marker) << 7 | payload_type;
    h[2..4].copy_from_slice(&seq.to_be_bytes());
    h[4..8].copy_from_slice(&time.to_be_bytes());
    h[8..12].copy_from_slice(&ssrc.to_be_bytes());
    h
}
