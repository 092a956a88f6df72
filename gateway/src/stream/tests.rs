//! A stream from its publisher to its readers, without any protocol.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::{Codec, Medium, Payloads};

use super::registry::NAMES_OF_A_DEVICE_MAX;
use super::*;
use crate::ids::StreamId;

const TICKS: u64 = 3000;

fn id() -> StreamId {
    StreamId::new("bc-01", "main").unwrap()
}

fn video() -> Vec<Medium> {
    let codec = Codec::H264 {
        sps: Bytes::new(),
        pps: Bytes::new(),
    };
    vec![Medium {
        codec,
        clock_rate: 90_000,
    }]
}

fn with_sound() -> Vec<Medium> {
    let mut media = video();
    media.push(Medium {
        codec: Codec::Pcma,
        clock_rate: 8000,
    });
    media
}

fn limits() -> StreamsLimits {
    StreamsLimits {
        reader_behind_max: Duration::from_millis(500),
        ..StreamsLimits::default()
    }
}

/// Frame `n` of a camera with 30 frames a second and a key frame every `gop`.
fn push(publisher: &Publisher, began: Instant, n: u64, gop: u64) -> Result<(), Superseded> {
    publisher.push(NewFrame {
        medium: 0,
        key: n.is_multiple_of(gop),
        time: n * TICKS,
        arrived: began + Duration::from_millis(n * 33),
        captured: kerbside_codecs::media::Captured {
            utc_us: 0,
            uncertainty_us: 0,
        },
        payloads: Payloads::single(Bytes::from_static(b"frame")),
    })
}

async fn reader(streams: &Streams) -> Reader {
    streams.read(&id(), Duration::ZERO).await.unwrap()
}

fn frames(reader: &mut Reader) -> Vec<(bool, u64)> {
    let mut all = Vec::new();
    while let Some(item) = reader.poll() {
        match item {
            Item::Frame { frame, time } => all.push((frame.key, time)),
            other => panic!("{other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn a_reader_starts_with_the_newest_key_frame_and_runs_into_live() {
    let streams = Streams::new(limits());
    let publisher = streams.publish(&id(), video(), "rtsp").unwrap();
    let began = Instant::now();
    for n in 0..50 {
        push(&publisher, began, n, 30).unwrap();
    }
    let mut r = reader(&streams).await;
    let first = frames(&mut r);
    assert_eq!(first.len(), 20, "frames 30 to 49");
    assert!(first[0].0, "a key frame first");
    assert!(
        first[19].1 - first[0].1 < TICKS,
        "the replay takes less than one frame's time"
    );
    push(&publisher, began, 50, 30).unwrap();
    assert_eq!(frames(&mut r), [(false, first[19].1 + TICKS)]);
}

#[tokio::test]
async fn without_a_key_frame_it_is_asked_for_and_waited_for() {
    let streams = Streams::new(limits());
    let publisher = streams.publish(&id(), video(), "rtsp").unwrap();
    publisher.key_frame_wanted().await;
    let began = Instant::now();
    push(&publisher, began, 1, 30).unwrap();
    let mut r = reader(&streams).await;
    publisher.key_frame_wanted().await;
    push(&publisher, began, 2, 30).unwrap();
    assert_eq!(frames(&mut r), []);
    push(&publisher, began, 30, 30).unwrap();
    assert!(frames(&mut r)[0].0);
}

/// A camera with a key frame every ten minutes: more comes behind it than the ring takes.
#[tokio::test]
async fn a_group_larger_than_the_ring_is_said_and_joins_wait_for_the_next() {
    let streams = Streams::new(StreamsLimits {
        ring_bytes_max: 64 << 10,
        ..StreamsLimits::default()
    });
    let publisher = streams.publish(&id(), video(), "rtsp").unwrap();
    let (began, gop) = (Instant::now(), 18_000);
    let mut early = None;
    for n in 0..gop {
        push(&publisher, began, n, gop).unwrap();
        let r = match early.as_mut() {
            Some(r) => r,
            None => early.insert(reader(&streams).await),
        };
        assert_eq!(frames(r).len(), 1, "who was there at its start sees all");
    }
    assert_eq!(publisher.groups_cut(), 1);
    let status = streams.status();
    assert!(status[0].awaits_key_frame);
    assert!(status[0].ring_bytes <= 64 << 10);
    let mut late = reader(&streams).await;
    publisher.key_frame_wanted().await;
    push(&publisher, began, gop + 1, gop).unwrap();
    assert_eq!(frames(&mut late), [], "nothing that cannot be decoded");
    push(&publisher, began, 2 * gop, gop).unwrap();
    assert!(frames(&mut late)[0].0);
    assert!(!streams.status()[0].awaits_key_frame);
}

#[tokio::test]
async fn a_slow_reader_jumps_to_a_key_frame_and_is_told_what_it_lost() {
    let streams = Streams::new(limits());
    let publisher = streams.publish(&id(), video(), "rtsp").unwrap();
    let began = Instant::now();
    push(&publisher, began, 0, 30).unwrap();
    let mut slow = reader(&streams).await;
    let mut quick = reader(&streams).await;
    assert_eq!(frames(&mut slow).len(), 1);
    assert_eq!(frames(&mut quick).len(), 1);
    for n in 1..=70 {
        push(&publisher, began, n, 30).unwrap();
        assert_eq!(frames(&mut quick).len(), 1, "its neighbour sees them all");
    }
    let Some(Item::Skipped { frames: lost }) = slow.poll() else {
        panic!("more than half a second behind");
    };
    assert_eq!(lost, 59, "frames 1 to 59; 60 is the key frame");
    assert_eq!(slow.lost(), 59);
    let rest = frames(&mut slow);
    assert_eq!(rest.len(), 11);
    assert!(rest[0].0);
    assert_eq!(quick.lost(), 0);
}

#[tokio::test]
async fn old_sound_is_not_replayed() {
    let streams = Streams::new(limits());
    let publisher = streams.publish(&id(), with_sound(), "rtsp").unwrap();
    let began = Instant::now();
    for n in 0..10 {
        push(&publisher, began, n, 30).unwrap();
        publisher
            .push(NewFrame {
                medium: 1,
                key: true,
                time: n * 160,
                arrived: began,
                captured: kerbside_codecs::media::Captured {
                    utc_us: 0,
                    uncertainty_us: 0,
                },
                payloads: Payloads::single(Bytes::from_static(b"a")),
            })
            .unwrap();
    }
    let mut r = reader(&streams).await;
    let mut heard = 0;
    while let Some(Item::Frame { frame, .. }) = r.poll() {
        heard += usize::from(frame.medium == 1);
    }
    assert_eq!(heard, 1, "only the newest");
}

#[tokio::test]
async fn readers_stay_while_the_publisher_is_away_and_go_on_when_it_is_back() {
    let streams = Streams::new(limits());
    let first = streams.publish(&id(), video(), "rtsp").unwrap();
    let began = Instant::now();
    push(&first, began, 0, 30).unwrap();
    let mut r = reader(&streams).await;
    let before = frames(&mut r)[0].1;
    drop(first);
    assert_eq!(streams.status()[0].phase, "waiting");
    let second = streams.publish(&id(), video(), "whip").unwrap();
    push(&second, began + Duration::from_secs(2), 0, 30).unwrap();
    let after = frames(&mut r)[0].1;
    assert_eq!(after - before, 180_000, "two seconds later");
    assert_eq!(streams.status()[0].protocol, Some("whip"));
}

#[tokio::test]
async fn after_the_grace_the_stream_is_lost_and_readers_end() {
    let streams = Streams::new(limits());
    let publisher = streams.publish(&id(), video(), "rtsp").unwrap();
    push(&publisher, Instant::now(), 0, 30).unwrap();
    let mut r = reader(&streams).await;
    frames(&mut r);
    drop(publisher);
    streams.sweep(Instant::now());
    assert!(r.poll().is_none(), "still within the grace");
    streams.sweep(Instant::now() + limits().publisher_grace);
    assert!(matches!(r.next().await, Item::Ended(_)));
    assert_eq!(
        streams.read(&id(), Duration::ZERO).await.err(),
        Some(SubscribeError::NotFound)
    );
}

#[tokio::test]
async fn the_newest_publisher_owns_the_stream() {
    let streams = Streams::new(limits());
    let old = streams.publish(&id(), video(), "rtsp").unwrap();
    let new = streams.publish(&id(), video(), "rtsp").unwrap();
    assert_eq!(push(&old, Instant::now(), 0, 30), Err(Superseded));
    assert!(old.is_superseded());
    drop(old);
    assert_eq!(
        streams.status()[0].phase,
        "live",
        "the old one's end is no news"
    );
    push(&new, Instant::now(), 0, 30).unwrap();
    streams.cut(&id().device);
    assert_eq!(push(&new, Instant::now(), 1, 30), Err(Superseded));
}

#[tokio::test]
async fn a_camera_on_demand_knows_its_readers() {
    let streams = Streams::new(limits());
    let readers = streams.declare(&id()).unwrap();
    assert_eq!(*readers.borrow(), 0);
    let camera = id();
    let wait = streams.read(&camera, Duration::from_secs(10));
    tokio::pin!(wait);
    tokio::select! {
        biased;
        _ = &mut wait => panic!("nobody publishes yet"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(*readers.borrow(), 1, "one waits");
    let publisher = streams.publish(&id(), video(), "pull").unwrap();
    let r = wait.await.unwrap();
    assert_eq!(*readers.borrow(), 1);
    drop(r);
    assert_eq!(*readers.borrow(), 0);
    drop(publisher);
    streams.sweep(Instant::now() + limits().publisher_grace);
    assert_eq!(streams.status()[0].phase, "idle");
}

#[test]
fn names_are_limited() {
    let streams = Streams::new(StreamsLimits {
        streams_max: 1,
        ..limits()
    });
    let _first = streams.publish(&id(), video(), "rtsp").unwrap();
    let other = StreamId::new("bc-02", "main").unwrap();
    assert_eq!(
        streams.publish(&other, video(), "rtsp").err(),
        Some(SubscribeError::TooMany(1))
    );
    assert_eq!(
        streams.publish(&id(), vec![], "rtsp").err(),
        Some(SubscribeError::NoMedia)
    );
}

#[tokio::test]
async fn a_device_with_ever_new_names_keeps_nobody_out() {
    let streams = Streams::new(limits());
    let publish = |device: &str, camera: usize| {
        let id = StreamId::new(device, &format!("c{camera}")).unwrap();
        streams.publish(&id, video(), "rtsp")
    };
    let mut live: Vec<_> = (0..NAMES_OF_A_DEVICE_MAX)
        .map(|n| publish("bc-01", n).unwrap())
        .collect();
    assert_eq!(
        publish("bc-01", 1000).err(),
        Some(SubscribeError::TooMany(NAMES_OF_A_DEVICE_MAX)),
        "all are live"
    );
    let _other = publish("bc-02", 0).unwrap();
    live.pop();
    assert!(publish("bc-01", 1001).is_err(), "may come back");
    streams.sweep(Instant::now() + limits().publisher_grace);
    streams.changes().await;
    let _new = publish("bc-01", 1002).unwrap();
    let gone: Vec<_> = streams
        .changes()
        .await
        .into_iter()
        .filter(|s| s.phase == "gone")
        .map(|s| s.stream.to_string())
        .collect();
    assert_eq!(gone, [format!("bc-01/c{}", NAMES_OF_A_DEVICE_MAX - 1)]);
}

#[tokio::test]
async fn a_newer_key_frame_ends_a_replay() {
    let streams = Streams::new(StreamsLimits::default());
    let publisher = streams.publish(&id(), video(), "rtsp").unwrap();
    let began = Instant::now();
    for n in 0..20 {
        push(&publisher, began, n, 30).unwrap();
    }
    let mut r = reader(&streams).await;
    let Some(Item::Frame { frame, time: first }) = r.poll() else {
        panic!("no first frame");
    };
    assert!(frame.key && r.is_catching_up() && r.is_replay(&frame));
    for n in 20..35 {
        push(&publisher, began, n, 30).unwrap();
    }
    let rest = frames(&mut r);
    assert_eq!(
        rest.len(),
        5,
        "frames 30 to 34: the rest of the old group is not sent"
    );
    assert!(rest[0].0 && rest[0].1 > first);
    assert!(!r.is_catching_up());
    assert_eq!(r.lost(), 0, "it was not too slow");
}

#[tokio::test]
async fn a_reader_that_lost_its_picture_gets_the_group_again() {
    let streams = Streams::new(limits());
    let publisher = streams.publish(&id(), video(), "rtsp").unwrap();
    publisher.key_frame_wanted().await;
    let began = Instant::now();
    for n in 0..20 {
        push(&publisher, began, n, 30).unwrap();
    }
    let mut r = reader(&streams).await;
    let before = frames(&mut r);
    r.resync(began);
    let again = frames(&mut r);
    assert_eq!(again.len(), 20);
    assert!(again[0].0);
    assert!(again[0].1 > before[19].1, "times do not step back");
    r.resync(began);
    assert_eq!(frames(&mut r), [], "not more often than once a second");
    push(&publisher, began, 20, 30).unwrap();
    let live = frames(&mut r);
    assert_eq!(live[0].1 - before[19].1, TICKS);
    assert!(live[0].1 > again[19].1);
    let asked = tokio::time::timeout(Duration::ZERO, publisher.key_frame_wanted()).await;
    assert!(asked.is_err(), "the publisher was not bothered");
}
