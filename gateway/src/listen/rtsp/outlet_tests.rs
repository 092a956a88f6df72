//! A frame into a connection that takes it in any parts: nothing is lost, nothing stands inside a frame.

use std::io;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::{Captured, Codec, Medium, Payloads};
use kerbside_codecs::rtp::{HEADER_BYTES, Header};
use kerbside_codecs::rtsp::{Session, Target, Transport};
use proptest::prelude::*;

use super::*;
use crate::ids::StreamId;
use crate::stream::{Fanout, Item, NewFrame, Publisher, Streams, StreamsLimits};

/// What the other end took, and how much more it will.
#[derive(Default)]
struct End {
    taken: Vec<u8>,
    room: usize,
}

struct Narrow(Arc<Mutex<End>>);

impl AsyncWrite for Narrow {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut end = self.0.lock();
        if end.room == 0 {
            return Poll::Pending;
        }
        let all: Vec<u8> = bufs.iter().flat_map(|b| b.to_vec()).collect();
        let n = all.len().min(end.room);
        end.taken.extend_from_slice(&all[..n]);
        end.room -= n;
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One reader of one stream, played by hand.
struct Rig {
    publisher: Publisher,
    reader: Reader,
    outlet: Box<RtspOutlet>,
    desk: Arc<Desk>,
    kick: Kick,
    end: Arc<Mutex<End>>,
    burst: Burst,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let streams = Streams::new(StreamsLimits::default());
        let id = StreamId::new("bc-01", "main").unwrap();
        let video = Medium {
            codec: Codec::H264 {
                sps: Bytes::new(),
                pps: Bytes::new(),
            },
            clock_rate: 90_000,
        };
        let publisher = streams.publish(&id, vec![video.clone()], "test").unwrap();
        let mut reading = Box::pin(streams.read(&id, Duration::ZERO));
        let Poll::Ready(Ok(reader)) = reading
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("a stream with a publisher can be read at once");
        };
        drop(reading);
        let mut session = Session::new("1".to_owned(), false);
        session.described("bc-01/main".to_owned(), vec![video]);
        let target = Target {
            stream: "bc-01/main".to_owned(),
            control: "trackID=0".to_owned(),
        };
        let transport = Transport::Tcp { rtp: 0, rtcp: 1 };
        session.set_up(&target, false, transport).unwrap();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let lanes = Lanes::new(&reader, &session, &[None], &[7], peer);
        let end = Arc::<Mutex<End>>::default();
        let desk = Arc::<Desk>::default();
        let wire: Wire = Box::new(Narrow(end.clone()));
        Self {
            publisher,
            reader,
            outlet: Box::new(RtspOutlet::new(lanes, desk.clone(), Some(wire), peer)),
            desk,
            kick: Fanout::start(1).unwrap().place(None),
            end,
            burst: Burst::default(),
            now: Instant::now(),
        }
    }

    fn at<T>(&mut self, call: impl FnOnce(&mut RtspOutlet, &mut Reader, &mut At<'_>) -> T) -> T {
        let mut at = At {
            now: self.now,
            burst: &mut self.burst,
            waker: Waker::noop(),
        };
        call(&mut self.outlet, &mut self.reader, &mut at)
    }

    /// As its thread does: `woken` before `ready` when there may be something on the desk.
    fn turn(&mut self, room: usize, woken: bool) -> Flow {
        self.end.lock().room += room;
        if woken {
            self.at(Outlet::woken);
        }
        self.at(|o, _, at| o.ready(at))
    }

    fn frame(&mut self, payloads: &[usize], fill: u8) {
        let data = vec![fill; payloads.iter().sum()];
        let mut ends = Vec::new();
        for size in payloads {
            ends.push(ends.last().unwrap_or(&0) + u32::try_from(*size).unwrap());
        }
        let frame = NewFrame {
            medium: 0,
            key: true,
            time: 3000,
            arrived: self.now,
            captured: Captured {
                utc_us: 1_000_000,
                uncertainty_us: 0,
            },
            payloads: Payloads::new(data.into(), ends),
        };
        self.publisher.push(frame).unwrap();
        let Some(Item::Frame { frame, time }) = self.reader.poll() else {
            panic!("the frame that was just pushed");
        };
        self.at(|o, r, at| o.frame(&frame, time, r, at));
    }

    fn answer(&mut self, answer: &str) {
        let playing =
            std::mem::ManuallyDrop::new(Playing::new(self.desk.clone(), self.kick.clone()));
        playing.answer(&mut BytesMut::from(answer), usize::MAX);
    }

    fn taken(&self) -> Vec<Part> {
        parts(&self.end.lock().taken)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Fill, size, marker, in the order of their sequence numbers.
    Rtp(u8, usize, bool),
    Rtcp,
    Answer(String),
}

/// The stream as a client reads it; what is not whole at its end is a fault.
fn parts(mut bytes: &[u8]) -> Vec<Part> {
    let mut out = Vec::new();
    let mut seq = None;
    while !bytes.is_empty() {
        if bytes[0] != b'$' {
            let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            out.push(Part::Answer(
                String::from_utf8(bytes[..end].to_vec()).unwrap(),
            ));
            bytes = &bytes[end..];
            continue;
        }
        let size = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let packet = &bytes[4..4 + size];
        if bytes[1] == 0 {
            let (header, _) = Header::parse(packet).unwrap();
            assert!(seq.is_none_or(|s: u16| s.wrapping_add(1) == header.seq));
            seq = Some(header.seq);
            let payload = &packet[HEADER_BYTES..];
            assert!(payload.iter().all(|b| *b == payload[0]));
            out.push(Part::Rtp(payload[0], payload.len(), header.marker));
        } else {
            out.push(Part::Rtcp);
        }
        bytes = &bytes[4 + size..];
    }
    out
}

const SIZES: [usize; 4] = [3, 1, 7, 2];

fn whole(fill: u8) -> Vec<Part> {
    let last = SIZES.len() - 1;
    let packets = SIZES.iter().enumerate();
    packets
        .map(|(i, n)| Part::Rtp(fill, *n, i == last))
        .collect()
}

/// Bytes of the report before the first frame, and of both together.
fn first_frame() -> (usize, usize) {
    let mut rig = Rig::new();
    rig.end.lock().room = 1 << 20;
    rig.frame(&SIZES, 9);
    let taken = &rig.end.lock().taken;
    let report = 4 + usize::from(u16::from_be_bytes([taken[2], taken[3]]));
    (report, taken.len())
}

#[test]
fn a_write_that_was_cut_anywhere_goes_on_from_there() {
    let (_, all) = first_frame();
    for cut in 0..=all {
        let mut rig = Rig::new();
        rig.end.lock().room = cut;
        rig.frame(&SIZES, 9);
        let flow = rig.turn(0, false);
        assert_eq!(flow == Flow::Go, cut == all, "{cut}: {flow:?}");
        assert_eq!(rig.end.lock().taken.len(), cut);
        assert_eq!(rig.turn(1 << 20, false), Flow::Go);
        assert_eq!(rig.taken(), [vec![Part::Rtcp], whole(9)].concat(), "{cut}");
    }
}

#[test]
fn who_leaves_inside_a_frame_takes_its_rest_along() {
    let (report, all) = first_frame();
    for cut in 0..=all {
        let mut rig = Rig::new();
        rig.end.lock().room = cut;
        rig.frame(&SIZES, 9);
        rig.answer("RTSP/1.0 200 OK\r\n\r\n");
        let Rig {
            outlet,
            desk,
            end,
            reader,
            mut burst,
            now,
            ..
        } = rig;
        let mut at = At {
            now,
            burst: &mut burst,
            waker: Waker::noop(),
        };
        outlet.end("left", &reader, &mut at);
        let left = desk.papers.lock().left.take().unwrap();
        assert_eq!(left.reason, "left");
        assert!(left.wire.is_some(), "the connection comes back");
        let mut all = end.lock().taken.clone();
        all.extend_from_slice(&left.rest);
        // A frame that was not begun is not sent any more.
        let frame = if cut > report { whole(9) } else { Vec::new() };
        let answer = Part::Answer("RTSP/1.0 200 OK\r\n\r\n".to_owned());
        assert_eq!(
            parts(&all),
            [vec![Part::Rtcp], frame, vec![answer]].concat(),
            "{cut}"
        );
    }
}

#[test]
fn a_frame_of_more_packets_than_one_write_takes_can_be_left_too() {
    let mut rig = Rig::new();
    rig.end.lock().room = first_frame().0 + 5;
    rig.frame(&[2; 3 * PAYLOADS_MAX + 7], 9);
    let rest = rig.outlet.rest();
    let mut all = rig.end.lock().taken.clone();
    all.extend_from_slice(&rest);
    assert_eq!(parts(&all).len(), 1 + 3 * PAYLOADS_MAX + 7);
}

#[test]
fn a_client_that_asks_and_never_reads_is_not_kept_in_mind_without_end() {
    const ANSWER: &str = "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n";
    const MAX: usize = 1000;
    let mut rig = Rig::new();
    let playing = Playing::new(rig.desk.clone(), rig.kick.clone());
    let mut waits = BytesMut::new();
    for _ in 0..10_000 {
        if waits.len() < MAX {
            waits.extend_from_slice(ANSWER.as_bytes());
        }
        playing.answer(&mut waits, MAX);
        assert_ne!(rig.turn(0, true), Flow::Over("broken"));
        let held = rig.outlet.before.len() + rig.desk.papers.lock().answers.len() + waits.len();
        assert!(held <= 3 * (MAX + ANSWER.len()), "{held} bytes");
    }
    // When it reads again everything comes, in order and whole.
    for _ in 0..4 {
        playing.answer(&mut waits, MAX);
        assert_eq!(rig.turn(1 << 20, true), Flow::Go);
    }
    assert!(waits.is_empty());
    assert!(rig.taken().iter().all(|p| matches!(p, Part::Answer(_))));
}

#[test]
fn an_outlet_that_met_a_fault_does_not_leave_its_connection_waiting() {
    let rig = Rig::new();
    drop(rig.outlet);
    let left = rig.desk.papers.lock().left.take().unwrap();
    assert_eq!(left.reason, "fault");
    assert!(left.wire.is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Room(usize),
    Frame,
    Answer,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1usize..60).prop_map(Step::Room),
        2 => Just(Step::Frame),
        1 => Just(Step::Answer),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    /// Frames and answers come when they like, the other end takes what it likes: all of them arrive whole.
    #[test]
    fn nothing_stands_inside_a_frame(steps in steps()) {
        let mut rig = Rig::new();
        let (mut frames, mut answers) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Room(n) => {
                    rig.turn(n, false);
                }
                Step::Frame => {
                    if rig.turn(0, false) == Flow::Go {
                        let fill = u8::try_from(frames.len()).unwrap();
                        rig.frame(&SIZES, fill);
                        frames.push(fill);
                    }
                }
                Step::Answer => {
                    let text = format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\n\r\n", answers.len());
                    rig.answer(&text);
                    answers.push(Part::Answer(text));
                    rig.turn(0, true);
                }
            }
        }
        for _ in 0..3 {
            rig.turn(1 << 20, true);
        }
        let (came, packets): (Vec<_>, Vec<_>) = rig
            .taken()
            .into_iter()
            .filter(|p| *p != Part::Rtcp)
            .partition(|p| matches!(p, Part::Answer(_)));
        prop_assert_eq!(came, answers);
        prop_assert_eq!(packets, frames.into_iter().flat_map(whole).collect::<Vec<_>>());
    }
}
