//! A player and its connection, over a pipe so narrow that most writes are cut.

use bytes::Bytes;
use kerbside_codecs::media::{Captured, Codec, Medium, Payloads};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;

use super::*;
use crate::ids::StreamId;
use crate::registry::{Guard, Registry, Role};
use crate::stream::{Fanout, NewFrame, Publisher, Streams, StreamsLimits};

const PIPE_BYTES: usize = 700;
const FRAME_PACKETS: usize = 12;
const STREAM: &str = "bc-01/main";
const PACKET_BYTES: usize = 400;

struct House {
    _dir: tempfile::TempDir,
    publisher: Publisher,
    readers: watch::Receiver<usize>,
    shared: Arc<Shared>,
    login: String,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let password = registry.add_user("anna", Role::Operator).unwrap();
        let streams = Streams::new(StreamsLimits::default());
        let id = StreamId::new("bc-01", "main").unwrap();
        let (sps, pps) = (Bytes::new(), Bytes::new());
        let video = Medium {
            codec: Codec::H264 { sps, pps },
            clock_rate: 90_000,
        };
        let publisher = streams.publish(&id, vec![video], "test").unwrap();
        let readers = streams.declare(&id).unwrap();
        let fanout = Fanout::start(1).unwrap();
        let guard = Arc::new(Guard::default());
        use base64::Engine as _;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("anna:{password}"));
        Self {
            _dir: dir,
            publisher,
            readers,
            shared: Arc::new(Shared::new(registry, guard, streams, fanout)),
            login: format!("Authorization: Basic {both}\r\n"),
        }
    }

    fn push(&self) {
        let data = vec![7; FRAME_PACKETS * PACKET_BYTES];
        let ends = (1..=FRAME_PACKETS).map(|i| u32::try_from(i * PACKET_BYTES).unwrap());
        let frame = NewFrame {
            medium: 0,
            key: true,
            time: 3000,
            arrived: Instant::now(),
            captured: Captured {
                utc_us: 1_000_000,
                uncertainty_us: 0,
            },
            payloads: Payloads::new(data.into(), ends.collect()),
        };
        self.publisher.push(frame).unwrap();
    }

    fn connect(&self) -> (Player, tokio::task::JoinHandle<&'static str>) {
        let (ours, theirs) = duplex(PIPE_BYTES);
        let ends = Ends {
            local: ([127, 0, 0, 1], 322).into(),
            peer: ([127, 0, 0, 1], 5000).into(),
            secure: true,
        };
        let player = Player {
            pipe: ours,
            buffer: Vec::new(),
            login: self.login.clone(),
            stream: STREAM,
            cseq: 0,
            packets: 0,
            said: Vec::new(),
        };
        (player, tokio::spawn(run(theirs, ends, self.shared.clone())))
    }
}

struct Player {
    pipe: DuplexStream,
    buffer: Vec<u8>,
    login: String,
    stream: &'static str,
    cseq: u32,
    /// RTP packets, all of them whole.
    packets: usize,
    /// The newest answer.
    said: Vec<u8>,
}

impl Player {
    async fn ask(&mut self, method: &str, headers: &str) {
        self.cseq += 1;
        let control = if method == "SETUP" { "/trackID=0" } else { "" };
        let request = format!(
            "{method} rtsp://h/{}{control} RTSP/1.0\r\nCSeq: {}\r\n{}{headers}\r\n",
            self.stream, self.cseq, self.login
        );
        self.pipe.write_all(request.as_bytes()).await.unwrap();
    }

    async fn more(&mut self) {
        let read = self.pipe.read_buf(&mut self.buffer);
        let n = tokio::time::timeout(Duration::from_secs(20), read).await;
        assert_ne!(n.expect("something comes").unwrap(), 0, "it was closed");
    }

    /// Reads so many more bytes, as they are.
    async fn take(&mut self, bytes: usize) {
        let enough = self.buffer.len() + bytes;
        while self.buffer.len() < enough {
            self.more().await;
        }
    }

    /// Follows the stream up to the next answer: its status. Whatever stands inside a frame is found here.
    async fn answer(&mut self) -> u16 {
        loop {
            match self.buffer.first() {
                Some(b'$') if self.buffer.len() >= 4 => {
                    let size = usize::from(u16::from_be_bytes([self.buffer[2], self.buffer[3]]));
                    if self.buffer.len() < 4 + size {
                        self.more().await;
                        continue;
                    }
                    let packet: Vec<u8> = self.buffer.drain(..4 + size).skip(4).collect();
                    assert_eq!(packet[0] >> 6, 2);
                    if packet.len() == 12 + PACKET_BYTES {
                        assert!(packet[12..].iter().all(|b| *b == 7), "cut into");
                        self.packets += 1;
                    } else {
                        assert_eq!(packet[1], 200, "a sender report");
                    }
                }
                Some(b'R') => {
                    let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
                        self.more().await;
                        continue;
                    };
                    let text = String::from_utf8(self.buffer[..end + 4].to_vec()).unwrap();
                    let length = text
                        .lines()
                        .find_map(|l| l.strip_prefix("Content-Length: ")?.parse().ok());
                    let end = end + 4 + length.unwrap_or(0);
                    if self.buffer.len() < end {
                        self.more().await;
                        continue;
                    }
                    self.said = self.buffer.drain(..end).collect();
                    let cseq = format!("\r\ncseq: {}\r\n", self.cseq);
                    assert!(text.to_ascii_lowercase().contains(&cseq), "{text}");
                    return text.split(' ').nth(1).unwrap().parse().unwrap();
                }
                Some(b'$') | None => self.more().await,
                Some(other) => panic!("{other} is neither a packet nor an answer"),
            }
        }
    }

    async fn call(&mut self, method: &str, headers: &str) -> u16 {
        self.ask(method, headers).await;
        self.answer().await
    }

    async fn set_up(&mut self) {
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
        assert_eq!(self.call("SETUP", transport).await, 200);
    }
}

#[tokio::test]
async fn requests_in_any_order_while_a_frame_is_half_written() {
    let house = House::new();
    house.push();
    let (mut p, served) = house.connect();
    let frame = FRAME_PACKETS * (PACKET_BYTES + 16);
    for round in 0..12 {
        p.set_up().await;
        assert_eq!(p.call("PLAY", "").await, 200);
        // The pipe is full of a part of a frame when each of these comes.
        for method in [
            "GET_PARAMETER",
            "PLAY",
            "PAUSE",
            "PAUSE",
            "PLAY",
            "OPTIONS",
            "PAUSE",
            "PLAY",
        ] {
            house.push();
            assert_eq!(p.call(method, "").await, 200, "{method}");
            if method == "PLAY" {
                house.push();
                p.take(round * frame / 12 + 1).await;
            }
        }
        assert_eq!(p.call("TEARDOWN", "").await, 200);
        assert_eq!(p.call("PLAY", "").await, 455, "nothing is set up");
    }
    assert!(p.packets > 100, "{}", p.packets);
    drop(p);
    assert_eq!(served.await.unwrap(), "closed");
}

#[tokio::test]
async fn who_hangs_up_inside_a_frame_gives_its_place_back_at_once() {
    let mut house = House::new();
    house.push();
    for _ in 0..3 {
        let (mut p, served) = house.connect();
        p.set_up().await;
        assert_eq!(p.call("PLAY", "").await, 200);
        house.push();
        p.take(100).await;
        assert_eq!(*house.readers.borrow(), 1);
        drop(p);
        served.await.unwrap();
        let gone = house.readers.wait_for(|n| *n == 0);
        let gone = tokio::time::timeout(Duration::from_secs(20), gone).await;
        gone.expect("the reader leaves").unwrap();
    }
}

#[tokio::test]
async fn another_stream_is_described_as_it_is_while_one_is_set_up() {
    let house = House::new();
    let sound = Medium {
        codec: Codec::Pcma,
        clock_rate: 8000,
    };
    let id = StreamId::new("bc-02", "main").unwrap();
    let publish = house.shared.streams.publish(&id, vec![sound], "test");
    let _publisher = publish.unwrap();
    let (mut p, served) = house.connect();
    p.set_up().await;
    p.stream = "bc-02/main";
    assert_eq!(p.call("DESCRIBE", "").await, 200);
    let said = String::from_utf8(p.said.clone()).unwrap();
    assert!(said.contains("PCMA") && !said.contains("H264"), "{said}");
    p.stream = STREAM;
    assert_eq!(p.call("PLAY", "").await, 200);
    drop(p);
    served.await.unwrap();
}

#[tokio::test]
async fn a_connection_whose_thread_ended_is_closed() {
    let house = House::new();
    house.push();
    let (mut p, served) = house.connect();
    p.set_up().await;
    house.shared.fanout.stop();
    p.ask("PLAY", "").await;
    assert_eq!(served.await.unwrap(), "fault");
}
