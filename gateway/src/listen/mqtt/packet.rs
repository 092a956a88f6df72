//! MQTT packets as the session uses them: one shape for v3.1.1 and v5, cut from and written to byte buffers.
//!
//! Here: framing, and strict reading of what a client may send behind its CONNECT. Not here: any state; `connect`;
//! numbers, texts and properties (`read`). `mqtt-protocol-core` judges this reader and `write` in the tests. It does not
//! read for us: it lets reserved flags, packet id 0, U+0000 and wildcards in topic names pass; and its state machine
//! acknowledges a repeated QoS 2 message before anybody owns it.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::read::{Reader, property};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// Why bytes are not a packet that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("malformed packet")]
    Malformed,
    #[error("packet larger than allowed")]
    TooLarge,
    #[error("packet not allowed here")]
    Protocol,
    #[error("protocol version is neither 3.1.1 nor 5")]
    Version,
    #[error("topic alias is not known")]
    Alias,
    #[error("topic name too long")]
    TopicName,
}

/// One packet's bytes: first byte of the fixed header, and everything after the remaining length.
#[derive(Debug)]
pub(super) struct Frame {
    pub first: u8,
    pub body: Bytes,
}

/// Cuts the next whole packet off the front of `buf`; None: more bytes are needed.
///
/// `max` bounds the whole packet including its header (MQTT v5 §3.1.2.11.4).
pub(super) fn next_frame(buf: &mut BytesMut, max: u32) -> Result<Option<Frame>, Bad> {
    let Some(&first) = buf.first() else {
        return Ok(None);
    };
    if !flags_allowed(first) {
        return Err(Bad::Malformed);
    }
    let mut remaining = 0usize;
    for i in 0..4 {
        let Some(&b) = buf.get(1 + i) else {
            return Ok(None);
        };
        remaining |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            let head = 2 + i;
            if head + remaining > max as usize {
                return Err(Bad::TooLarge);
            }
            if buf.len() < head + remaining {
                return Ok(None);
            }
            buf.advance(head);
            let body = buf.split_to(remaining).freeze();
            return Ok(Some(Frame { first, body }));
        }
    }
    Err(Bad::Malformed)
}

/// Packet types a client may send, with the flags each must carry (v3.1.1 §2.2.2, v5 §2.1.3).
fn flags_allowed(first: u8) -> bool {
    match first >> 4 {
        3 => first & 0b0110 != 0b0110,
        6 | 8 | 10 => first & 0x0f == 0b0010,
        1 | 4 | 5 | 7 | 12 | 14 | 15 => first & 0x0f == 0,
        _ => false,
    }
}

/// A message from the client. `id` is 0 for QoS 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish {
    /// Empty: named by the alias.
    pub topic: Arc<str>,
    pub alias: Option<u16>,
    pub qos: u8,
    pub id: u16,
    /// The client says that it sent this before.
    pub again: bool,
    pub payload: Bytes,
}

/// A filter a client wants, with the highest QoS it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub filter: String,
    pub qos: u8,
    /// v5: the RETAIN flag of a message stays as it was.
    pub as_published: bool,
    pub retained: Retained,
}

/// When a subscription is answered with retained messages (v5 §3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Retained {
    #[default]
    Send,
    /// If there was no such subscription before.
    IfNew,
    No,
}

/// Everything after CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Publish(Publish),
    Puback {
        id: u16,
    },
    /// `taken`: the client took the message and waits for PUBREL.
    Pubrec {
        id: u16,
        taken: bool,
    },
    Pubrel {
        id: u16,
    },
    Pubcomp {
        id: u16,
    },
    Subscribe {
        id: u16,
        wanted: Vec<Wanted>,
        /// v5: to be put on the messages that match.
        identifier: Option<u32>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Pingreq,
    /// `with_will`: the client asks for its will to be published (v5 0x04).
    Disconnect {
        with_will: bool,
        expiry_s: Option<u32>,
    },
}

/// Reads a packet of an established connection.
pub(super) fn packet(version: Version, frame: &Frame) -> Result<Packet, Bad> {
    let mut r = Reader::new(&frame.body);
    let packet = match frame.first >> 4 {
        3 => return publish(version, frame).map(Packet::Publish),
        4 => ack(version, &mut r).map(|(id, _)| Packet::Puback { id }),
        5 => ack(version, &mut r).map(|(id, reason)| Packet::Pubrec {
            id,
            taken: reason < 0x80,
        }),
        6 => ack(version, &mut r).map(|(id, _)| Packet::Pubrel { id }),
        7 => ack(version, &mut r).map(|(id, _)| Packet::Pubcomp { id }),
        8 => subscribe(version, &mut r),
        10 => unsubscribe(version, &mut r),
        12 => Ok(Packet::Pingreq),
        14 => disconnect(version, &mut r),
        _ => Err(Bad::Protocol),
    }?;
    if r.is_empty() {
        Ok(packet)
    } else {
        Err(Bad::Malformed)
    }
}

const OF_PUBLISH: [u8; 7] = [
    property::PAYLOAD_FORMAT,
    property::MESSAGE_EXPIRY,
    property::ALIAS,
    property::RESPONSE_TOPIC,
    property::CORRELATION_DATA,
    property::USER,
    property::CONTENT_TYPE,
];
const OF_ACK: [u8; 2] = [property::REASON_STRING, property::USER];

fn publish(version: Version, frame: &Frame) -> Result<Publish, Bad> {
    let mut r = Reader::new(&frame.body);
    let qos = (frame.first >> 1) & 0b11;
    let again = frame.first & 0b1000 != 0;
    let topic = r.text()?;
    if topic.contains(['+', '#']) || (again && qos == 0) {
        return Err(Bad::Malformed);
    }
    let id = if qos > 0 { r.packet_id()? } else { 0 };
    let alias = match version {
        Version::V311 => None,
        Version::V5 => r.properties(&OF_PUBLISH)?.alias,
    };
    if topic.is_empty() && alias.is_none() {
        return Err(match version {
            Version::V311 => Bad::Malformed,
            Version::V5 => Bad::Protocol,
        });
    }
    Ok(Publish {
        topic: topic.into(),
        alias,
        qos,
        id,
        again,
        payload: frame.body.slice(frame.body.len() - r.left()..),
    })
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP: packet id, and in v5 a reason code and properties that we do not need.
fn ack(version: Version, r: &mut Reader) -> Result<(u16, u8), Bad> {
    let id = r.packet_id()?;
    if version == Version::V311 || r.is_empty() {
        return Ok((id, 0));
    }
    let reason = r.byte()?;
    if !r.is_empty() {
        r.properties(&OF_ACK)?;
    }
    Ok((id, reason))
}

fn subscribe(version: Version, r: &mut Reader) -> Result<Packet, Bad> {
    let id = r.packet_id()?;
    let identifier = match version {
        Version::V311 => None,
        Version::V5 => {
            r.properties(&[property::SUBSCRIPTION_ID, property::USER])?
                .subscription_id
        }
    };
    let mut wanted = Vec::new();
    while !r.is_empty() {
        let filter = filter(r)?;
        let options = r.byte()?;
        let reserved = match version {
            Version::V311 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if options & reserved != 0 {
            return Err(Bad::Malformed);
        }
        let no_local = options & 0b100 != 0;
        let retained = match options >> 4 {
            0 => Retained::Send,
            1 => Retained::IfNew,
            2 => Retained::No,
            _ => return Err(Bad::Protocol),
        };
        if options & 0b11 == 3 || (no_local && filter.starts_with("$share/")) {
            return Err(Bad::Protocol);
        }
        wanted.push(Wanted {
            filter,
            qos: options & 0b11,
            as_published: options & 0b1000 != 0,
            retained,
        });
    }
    if wanted.is_empty() {
        return Err(Bad::Protocol);
    }
    Ok(Packet::Subscribe {
        id,
        wanted,
        identifier,
    })
}

fn unsubscribe(version: Version, r: &mut Reader) -> Result<Packet, Bad> {
    let id = r.packet_id()?;
    if version == Version::V5 {
        r.properties(&[property::USER])?;
    }
    let mut filters = Vec::new();
    while !r.is_empty() {
        filters.push(filter(r)?);
    }
    if filters.is_empty() {
        return Err(Bad::Protocol);
    }
    Ok(Packet::Unsubscribe { id, filters })
}

/// A topic filter has at least one character (v5 §4.7.3).
fn filter(r: &mut Reader) -> Result<String, Bad> {
    match r.text()? {
        "" => Err(Bad::Malformed),
        filter => Ok(filter.to_owned()),
    }
}

const OF_DISCONNECT: [u8; 3] = [
    property::SESSION_EXPIRY,
    property::REASON_STRING,
    property::USER,
];

fn disconnect(version: Version, r: &mut Reader) -> Result<Packet, Bad> {
    let (mut reason, mut expiry_s) = (0, None);
    if version == Version::V5 && !r.is_empty() {
        reason = r.byte()?;
        if !r.is_empty() {
            expiry_s = r.properties(&OF_DISCONNECT)?.session_expiry_s;
        }
    }
    Ok(Packet::Disconnect {
        with_will: reason != 0,
        expiry_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::mqtt::connect;
    use proptest::prelude::*;

    fn cut(bytes: &[u8]) -> Result<Option<Frame>, Bad> {
        next_frame(&mut BytesMut::from(bytes), 1024)
    }

    fn read(version: Version, bytes: &[u8]) -> Result<Packet, Bad> {
        packet(version, &cut(bytes)?.expect("whole packet"))
    }

    #[test]
    fn frames_wait_for_their_last_byte_and_leave_the_rest() {
        let mut buf = BytesMut::new();
        for b in [0xc0, 0x00, 0x30, 0x03, 0x00, 0x01] {
            buf.extend_from_slice(&[b]);
        }
        assert_eq!(next_frame(&mut buf, 64).unwrap().unwrap().first, 0xc0);
        assert!(next_frame(&mut buf, 64).unwrap().is_none());
        buf.extend_from_slice(b"t");
        assert_eq!(
            &next_frame(&mut buf, 64).unwrap().unwrap().body[..],
            b"\0\x01t"
        );
        assert!(buf.is_empty());
    }

    #[test]
    fn sizes_and_flags_are_refused_before_the_body_arrives() {
        // 0x30 with 2 MB announced, length of five bytes, PUBREL with wrong flags, QoS 3, reserved type, HTTP.
        assert_eq!(cut(&[0x30, 0xff, 0xff, 0x7f]).unwrap_err(), Bad::TooLarge);
        for bad in [
            &[0x30, 0xff, 0xff, 0xff, 0xff][..],
            &[0x60],
            &[0x36],
            &[0x00],
            &[0x20],
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(cut(bad).unwrap_err(), Bad::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn publishes() {
        let p = read(Version::V311, b"\x32\x07\0\x01t\0\x07hi").unwrap();
        let Packet::Publish(p) = p else {
            panic!("{p:?}")
        };
        assert_eq!(
            (&*p.topic, p.qos, p.id, &p.payload[..]),
            ("t", 1, 7, &b"hi"[..])
        );
        // v5 with alias 5 and an empty topic.
        let p = read(Version::V5, b"\x30\x07\0\0\x03\x23\0\x05x").unwrap();
        let Packet::Publish(p) = p else {
            panic!("{p:?}")
        };
        assert_eq!((p.alias, p.payload.len()), (Some(5), 1));
        for bad in [
            &b"\x30\x03\0\x01#"[..],   // wildcard in a topic name
            b"\x30\x03\0\x01\0",       // NUL
            b"\x30\x02\0\0",           // no topic, no alias
            b"\x32\x05\0\x01t\0\0",    // packet id 0
            b"\x30\x03\0\x09t",        // shorter than it says
            b"\x30\x04\0\x02\xc3\x28", // not UTF-8
            b"\x38\x03\0\x01t",        // DUP without an acknowledgement
        ] {
            assert_eq!(
                read(Version::V311, bad).unwrap_err(),
                Bad::Malformed,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn subscriptions() {
        let p = read(Version::V5, b"\x82\x0a\0\x07\x02\x0b\x09\0\x02a+\x1a").unwrap();
        let Packet::Subscribe {
            wanted, identifier, ..
        } = p
        else {
            panic!("{p:?}")
        };
        let w = Wanted {
            filter: "a+".into(),
            qos: 2,
            as_published: true,
            retained: Retained::IfNew,
        };
        assert_eq!((identifier, wanted), (Some(9), vec![w]));
        for (version, bytes, bad) in [
            (Version::V311, &b"\x82\x02\0\x07"[..], Bad::Protocol), // nothing wanted
            (Version::V311, b"\x82\x06\0\x07\0\x01a\x03", Bad::Protocol),
            (Version::V311, b"\x82\x06\0\x07\0\x01a\x04", Bad::Malformed),
            (Version::V311, b"\x82\x05\0\x07\0\0\x01", Bad::Malformed),
            (Version::V311, b"\xa2\x02\0\x07", Bad::Protocol),
            (Version::V5, b"\x82\x07\0\x07\0\0\x01a\x30", Bad::Protocol),
            (Version::V5, b"\x82\x07\0\x07\0\0\x01a\x40", Bad::Malformed),
            (Version::V5, b"\x82\x06\0\x07\0\0\x01a", Bad::Malformed),
            (Version::V5, b"\x82\x08\0\0\0\0\x02a+\0", Bad::Malformed),
            (
                Version::V5,
                b"\x82\x0f\0\x07\0\0\x09$share/ga\x05",
                Bad::Protocol,
            ),
            (Version::V5, b"\xe0\x04\0\x02\x21\0", Bad::Malformed),
            (Version::V5, b"\xe0\x05\0\x03\x21\0\x01", Bad::Protocol),
        ] {
            assert_eq!(read(version, bytes).unwrap_err(), bad, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        /// Whatever the library reads as a packet of a client that is well-formed is read here the same, and what it
        /// refuses is refused.
        #[test]
        fn subscriptions_are_read_as_the_library_reads_them(body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()], 0..40), v5: bool) {
            use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
            let version = if v5 { Version::V5 } else { Version::V311 };
            let frame = Frame { first: 0x82, body: body.clone().into() };
            if let Ok(Packet::Subscribe { wanted, .. }) = packet(version, &frame) {
                let theirs: Vec<_> = match version {
                    Version::V311 => v3_1_1::Subscribe::parse(&body).map(|(s, _)| s.entries().to_vec()),
                    Version::V5 => v5_0::Subscribe::parse(&body).map(|(s, _)| s.entries().to_vec()),
                }
                .expect("the library is less strict");
                let theirs: Vec<_> = theirs.iter().map(|e| (e.topic_filter().to_owned(), e.sub_opts().qos() as u8)).collect();
                let ours: Vec<_> = wanted.into_iter().map(|w| (w.filter, w.qos)).collect();
                prop_assert_eq!(ours, theirs);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), v5: bool) {
            let version = if v5 { Version::V5 } else { Version::V311 };
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = next_frame(&mut buf, 1 << 16) {
                let _ = packet(version, &frame);
            }
        }

        #[test]
        fn no_body_makes_it_panic(kind in 1u8..16, flags in 0u8..16, body in proptest::collection::vec(any::<u8>(), 0..120), v5: bool) {
            let version = if v5 { Version::V5 } else { Version::V311 };
            let frame = Frame { first: kind << 4 | flags, body: body.into() };
            let _ = connect::connect(&frame);
            let _ = packet(version, &frame);
        }
    }
}
