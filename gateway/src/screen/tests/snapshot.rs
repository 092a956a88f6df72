//! Snapshots: who gets them, what they carry, and the reason when there is none.

use std::time::Instant;

use bytes::Bytes;
use kerbside_codecs::media::{Captured, Codec, Medium, Payloads};

use super::*;
use crate::ids::StreamId;
use crate::stream::{NewFrame, Publisher};

/// x264, 64×48: SPS, PPS, IDR.
const PARTS: [&[u8]; 3] = [
    b"\x67\x4d\x40\x0a\xec\xa2\x3d\x80\x88\x00\x00\x03\x00\x08\x00\x00\x03\x00\x10\x78\x91\x2c\xb0",
    b"\x68\xeb\xe1\xb2\xc8",
    b"\x65\x88\x84\x00\xff\xfe\xbd\x67\xe6\x58\xdf\x1c\x74\x91\x6d\x28\x43\xd9\x86\x0c\xbe\x65\xd3\xff\x08\x00\xf4\
\xee\xfa\xb9\xae\x28\x03\xe5\xd9\xd6\x32\x4d\x6f\x57\x1b\xc1",
];

fn publish(house: &House, camera: &str, codec: Codec, clock_rate: u32) -> Publisher {
    let stream = StreamId::new("bc-01", camera).unwrap();
    let medium = Medium { codec, clock_rate };
    house
        .streams
        .publish(&stream, vec![medium], "test")
        .unwrap()
}

fn h264() -> Codec {
    Codec::H264 {
        sps: Bytes::new(),
        pps: Bytes::new(),
    }
}

fn push(publisher: &Publisher, parts: &[&[u8]]) {
    let ends = parts.iter().scan(0, |end, part| {
        *end += part.len() as u32;
        Some(*end)
    });
    let frame = NewFrame {
        medium: 0,
        key: true,
        time: 0,
        arrived: Instant::now(),
        captured: Captured {
            utc_us: 1_795_219_200_123_456,
            uncertainty_us: 40_001,
        },
        payloads: Payloads::new(Bytes::from(parts.concat()), ends.collect()),
    };
    publisher.push(frame).unwrap();
}

#[tokio::test]
async fn a_live_stream_has_a_picture_with_its_time() {
    let b = open().await;
    let anna = b.user("anna", Role::Auditor);
    let publisher = publish(&b, "main", h264(), 90_000);
    push(&publisher, &PARTS);
    let answer = b.get("/bc-01/main/snapshot.jpg", &anna).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    for (name, value) in [
        ("content-type", "image/jpeg"),
        ("cache-control", "no-store"),
        ("x-captured-at", "2026-11-21T00:00:00.123Z"),
        ("x-captured-uncertainty-ms", "41"),
    ] {
        assert_eq!(answer.headers()[name], value);
    }
    let jpeg = answer.bytes().await.unwrap();
    assert_eq!(jpeg[..2], [0xff, 0xd8]);
    let narrow = b.get("/bc-01/main/snapshot.jpg?width=32", &anna).await;
    assert_eq!(narrow.status(), 200);
    assert!(narrow.bytes().await.unwrap().len() < jpeg.len());
}

#[tokio::test]
async fn no_picture_without_a_login_and_a_live_stream() {
    let b = open().await;
    let anna = b.user("anna", Role::Operator);
    let publisher = publish(&b, "main", h264(), 90_000);
    push(&publisher, &PARTS);
    let path = "/bc-01/main/snapshot.jpg";
    let stranger = b.ask(Method::GET, path).send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    let cookie = b.login(&anna).await;
    let with_cookie = b.ask(Method::GET, path).header("cookie", cookie);
    assert_eq!(with_cookie.send().await.unwrap().status(), 200);
    for (path, status, word) in [
        ("/bc-01/other/snapshot.jpg", 404, "live"),
        ("/a%20b/main/snapshot.jpg", 404, ""),
        ("/bc-01/main/snapshot.jpg?width=15", 400, "width"),
        ("/bc-01/main/snapshot.jpg?width=1921", 400, "width"),
        ("/bc-01/main/snapshot.jpg?width=x", 400, "width"),
    ] {
        let answer = b.get(path, &anna).await;
        assert_eq!(answer.status(), status, "{path}");
        assert!(error(answer).await.contains(word), "{path}");
    }
}

#[tokio::test]
async fn the_reason_is_told_when_it_cannot_be_decoded() {
    let b = open().await;
    let anna = b.user("anna", Role::Operator);
    let sound = publish(&b, "sound", Codec::Pcma, 8000);
    push(&sound, &[b"xxxx"]);
    let broken = publish(&b, "broken", h264(), 90_000);
    push(&broken, &[PARTS[0], PARTS[1], &PARTS[2][..9]]);
    let blind = publish(&b, "blind", h264(), 90_000);
    push(&blind, &[PARTS[2]]);
    for (camera, status, word) in [
        ("sound", 415, "no video"),
        ("broken", 502, "cannot be decoded"),
        ("blind", 502, "parameter sets"),
    ] {
        let answer = b.get(&format!("/bc-01/{camera}/snapshot.jpg"), &anna).await;
        assert_eq!(answer.status(), status, "{camera}");
        let told = error(answer).await;
        assert!(told.contains(word), "{camera}: {told}");
    }
}

#[tokio::test]
async fn a_stream_without_a_key_frame_is_waited_for_and_asked() {
    let b = open().await;
    let anna = b.user("anna", Role::Operator);
    let publisher = publish(&b, "main", h264(), 90_000);
    // The request of the start.
    publisher.key_frame_wanted().await;
    let asked = async {
        publisher.key_frame_wanted().await;
        push(&publisher, &PARTS);
    };
    let (answer, ()) = tokio::join!(b.get("/bc-01/main/snapshot.jpg", &anna), asked);
    assert_eq!(answer.status(), 200);
}
