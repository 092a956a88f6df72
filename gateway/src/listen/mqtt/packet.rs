//! MQTT packets as the session uses them: one shape for v3.1.1 and v5, cut from and written to byte buffers.
//!
//! Here: framing, strict reading of what a client may send, writing of what a server sends. Parsing of CONNECT,
//! SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and of properties is that of `mqtt-protocol-core`; what it lets pass (reserved
//! flags, packet id 0, wildcards in topic names) is refused here. Not here: any state. The connection state machine of
//! that crate is not used: it acknowledges a repeated QoS 2 message before anybody owns it, and resuming a v5 session
//! with a Receive Maximum makes its send counter underflow.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use mqtt_protocol_core::mqtt::packet::{
    Properties, PropertiesParse, Property, SubEntry, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;

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
}

impl From<MqttError> for Bad {
    fn from(e: MqttError) -> Self {
        match e {
            MqttError::ProtocolError => Self::Protocol,
            MqttError::UnsupportedProtocolVersion => Self::Version,
            MqttError::TopicAliasInvalid => Self::Alias,
            _ => Self::Malformed,
        }
    }
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
    pub payload: Bytes,
}

/// A filter a client wants, with the highest QoS it takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub filter: String,
    pub qos: u8,
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
        has_identifier: bool,
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
    let body = &frame.body[..];
    match frame.first >> 4 {
        3 => publish(version, frame.first, &frame.body).map(Packet::Publish),
        4 => ack(version, body).map(|(id, _)| Packet::Puback { id }),
        5 => ack(version, body).map(|(id, reason)| Packet::Pubrec {
            id,
            taken: reason < 0x80,
        }),
        6 => ack(version, body).map(|(id, _)| Packet::Pubrel { id }),
        7 => ack(version, body).map(|(id, _)| Packet::Pubcomp { id }),
        8 => subscribe(version, body),
        10 => unsubscribe(version, body),
        12 if body.is_empty() => Ok(Packet::Pingreq),
        14 => disconnect(version, body),
        12 => Err(Bad::Malformed),
        _ => Err(Bad::Protocol),
    }
}

fn publish(version: Version, first: u8, body: &Bytes) -> Result<Publish, Bad> {
    let qos = (first >> 1) & 0b11;
    let mut at = 2;
    let len = usize::from(u16_at(body, 0)?);
    let topic = body.get(at..at + len).ok_or(Bad::Malformed)?;
    at += len;
    let topic = std::str::from_utf8(topic).map_err(|_| Bad::Malformed)?;
    if topic.contains(['\0', '+', '#']) {
        return Err(Bad::Malformed);
    }
    let mut id = 0;
    if qos > 0 {
        id = u16_at(body, at)?;
        at += 2;
        if id == 0 {
            return Err(Bad::Malformed);
        }
    }
    let mut alias = None;
    if version == Version::V5 {
        // Without properties there is one byte 0 (v5 §2.2.2.1): no allocation for the common case.
        if body.get(at) == Some(&0) {
            at += 1;
        } else {
            let rest = body.get(at..).ok_or(Bad::Malformed)?;
            let (props, used) = Properties::parse(rest)?;
            at += used;
            alias = publish_alias(&props)?;
        }
    }
    if topic.is_empty() && alias.is_none() {
        return Err(Bad::Malformed);
    }
    Ok(Publish {
        topic: topic.into(),
        alias,
        qos,
        id,
        payload: body.slice(at..),
    })
}

/// Checks the properties a client may put on a PUBLISH (v5 §3.3.2.3) and finds the alias.
fn publish_alias(props: &Properties) -> Result<Option<u16>, Bad> {
    let mut alias = None;
    for p in props {
        match p {
            Property::TopicAlias(_) if alias.is_some() => return Err(Bad::Protocol),
            Property::TopicAlias(v) => alias = Some(v.val()),
            Property::PayloadFormatIndicator(_)
            | Property::MessageExpiryInterval(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(_)
            | Property::ContentType(_) => {}
            _ => return Err(Bad::Protocol),
        }
    }
    Ok(alias)
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP: packet id, and in v5 a reason code and properties that we do not need.
fn ack(version: Version, body: &[u8]) -> Result<(u16, u8), Bad> {
    let id = u16_at(body, 0)?;
    if id == 0 || (version == Version::V311 && body.len() != 2) {
        return Err(Bad::Malformed);
    }
    if let Some(rest) = body.get(3..).filter(|r| !r.is_empty()) {
        let (_, used) = Properties::parse(rest)?;
        if used != rest.len() {
            return Err(Bad::Malformed);
        }
    }
    Ok((id, body.get(2).copied().unwrap_or(0)))
}

fn subscribe(version: Version, body: &[u8]) -> Result<Packet, Bad> {
    fn wanted(entries: &[SubEntry]) -> Vec<Wanted> {
        entries
            .iter()
            .map(|e| Wanted {
                filter: e.topic_filter().to_owned(),
                qos: e.sub_opts().qos() as u8,
            })
            .collect()
    }
    let id = packet_id(body)?;
    let (wanted, used, has_identifier) = match version {
        Version::V311 => {
            let (s, used) = v3_1_1::Subscribe::parse(body)?;
            (wanted(s.entries()), used, false)
        }
        Version::V5 => {
            let (s, used) = v5_0::Subscribe::parse(body)?;
            let has_identifier = s
                .props()
                .iter()
                .any(|p| matches!(p, Property::SubscriptionIdentifier(_)));
            (wanted(s.entries()), used, has_identifier)
        }
    };
    if used != body.len() {
        return Err(Bad::Malformed);
    }
    Ok(Packet::Subscribe {
        id,
        wanted,
        has_identifier,
    })
}

fn unsubscribe(version: Version, body: &[u8]) -> Result<Packet, Bad> {
    let id = packet_id(body)?;
    let (filters, used): (Vec<String>, usize) = match version {
        Version::V311 => {
            let (u, used) = v3_1_1::Unsubscribe::parse(body)?;
            let filters = u.entries().iter().map(|s| s.as_str().to_owned()).collect();
            (filters, used)
        }
        Version::V5 => {
            let (u, used) = v5_0::Unsubscribe::parse(body)?;
            let filters = u.entries().iter().map(|s| s.as_str().to_owned()).collect();
            (filters, used)
        }
    };
    if used != body.len() {
        return Err(Bad::Malformed);
    }
    Ok(Packet::Unsubscribe { id, filters })
}

fn disconnect(version: Version, body: &[u8]) -> Result<Packet, Bad> {
    let mut expiry_s = None;
    let mut reason = 0;
    match version {
        Version::V311 if !body.is_empty() => return Err(Bad::Malformed),
        Version::V311 => {}
        Version::V5 => {
            let (d, used) = v5_0::Disconnect::parse(body)?;
            if used != body.len() {
                return Err(Bad::Malformed);
            }
            reason = body.first().copied().unwrap_or(0);
            for p in d.props().iter().flatten() {
                if let Property::SessionExpiryInterval(v) = p {
                    expiry_s = Some(v.val());
                }
            }
        }
    }
    Ok(Packet::Disconnect {
        with_will: reason != 0,
        expiry_s,
    })
}

fn packet_id(body: &[u8]) -> Result<u16, Bad> {
    match u16_at(body, 0)? {
        0 => Err(Bad::Malformed),
        id => Ok(id),
    }
}

fn u16_at(body: &[u8], at: usize) -> Result<u16, Bad> {
    match body.get(at..at + 2) {
        Some(&[hi, lo]) => Ok(u16::from_be_bytes([hi, lo])),
        _ => Err(Bad::Malformed),
    }
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
        ] {
            assert_eq!(
                read(Version::V311, bad).unwrap_err(),
                Bad::Malformed,
                "{bad:?}"
            );
        }
    }

    proptest! {
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
