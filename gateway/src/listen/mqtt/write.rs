//! What a server sends, as bytes (v3.1.1 §3, v5 §3).

use bytes::{BufMut, BytesMut};

use super::packet::Version;
use crate::device::Downlink;

/// v5 reason codes of PUBACK and PUBREC (§3.4.2.1).
pub(super) mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const SHARED_NOT_SUPPORTED: u8 = 0x9e;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
}

/// What CONNACK tells a v5 client beside the code (§3.2.2.3).
pub(super) struct Offer<'a> {
    pub session_present: bool,
    pub receive_max: u16,
    pub packet_bytes_max: u32,
    pub topic_alias_max: u16,
    pub assigned_client_id: Option<&'a str>,
    /// Seconds, when not what the client asked for.
    pub keep_alive_s: Option<u16>,
    /// Seconds, when not what the client asked for.
    pub expiry_s: Option<u32>,
}

/// CONNACK of an accepted connection.
pub(super) fn connack(out: &mut BytesMut, version: Version, offer: &Offer) {
    if version == Version::V311 {
        out.put_slice(&[0x20, 2, u8::from(offer.session_present), 0]);
        return;
    }
    let mut props = BytesMut::with_capacity(64);
    if let Some(s) = offer.expiry_s {
        props.put_u8(0x11);
        props.put_u32(s);
    }
    if let Some(id) = offer.assigned_client_id {
        props.put_u8(0x12);
        put_text(&mut props, id);
    }
    if let Some(s) = offer.keep_alive_s {
        props.put_u8(0x13);
        props.put_u16(s);
    }
    props.put_u8(0x21);
    props.put_u16(offer.receive_max);
    props.put_u8(0x22);
    props.put_u16(offer.topic_alias_max);
    props.put_u8(0x27);
    props.put_u32(offer.packet_bytes_max);
    // Wildcards yes, subscription identifiers and shared subscriptions no.
    props.put_slice(&[0x28, 1, 0x29, 0, 0x2a, 0]);
    out.put_u8(0x20);
    put_length(out, 2 + length_len(props.len()) + props.len());
    out.put_slice(&[u8::from(offer.session_present), 0]);
    put_length(out, props.len());
    out.put_slice(&props);
}

/// CONNACK that refuses: return code for v3.1.1, reason code for v5.
pub(super) fn refuse(out: &mut BytesMut, version: Version, v311: u8, v5: u8) {
    match version {
        Version::V311 => out.put_slice(&[0x20, 2, 0, v311]),
        Version::V5 => out.put_slice(&[0x20, 3, 0, v5, 0]),
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. v3.1.1 has no reasons: only success may be sent to it.
pub(super) fn ack(out: &mut BytesMut, version: Version, kind: Ack, id: u16, reason: u8) {
    let [hi, lo] = id.to_be_bytes();
    if version == Version::V5 && reason != reason::SUCCESS {
        out.put_slice(&[kind as u8, 3, hi, lo, reason]);
    } else {
        out.put_slice(&[kind as u8, 2, hi, lo]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ack {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

/// SUBACK; `codes` are reason codes of v5, lowered to 0x80 for v3.1.1.
pub(super) fn suback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    out.put_u8(0x90);
    match version {
        Version::V311 => {
            put_length(out, 2 + codes.len());
            out.put_u16(id);
            out.extend(codes.iter().map(|c| if *c >= 0x80 { 0x80 } else { *c }));
        }
        Version::V5 => {
            put_length(out, 3 + codes.len());
            out.put_u16(id);
            out.put_u8(0);
            out.put_slice(codes);
        }
    }
}

pub(super) fn unsuback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    out.put_u8(0xb0);
    match version {
        Version::V311 => {
            put_length(out, 2);
            out.put_u16(id);
        }
        Version::V5 => {
            put_length(out, 3 + codes.len());
            out.put_u16(id);
            out.put_u8(0);
            out.put_slice(codes);
        }
    }
}

pub(super) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

pub(super) fn disconnect_v5(out: &mut BytesMut, reason: u8) {
    out.put_slice(&[0xe0, 1, reason]);
}

/// Bytes of a PUBLISH on the wire.
pub(super) fn publish_len(version: Version, d: &Downlink, qos: u8) -> usize {
    let body = publish_body_len(version, d, qos);
    1 + length_len(body) + body
}

fn publish_body_len(version: Version, d: &Downlink, qos: u8) -> usize {
    let props = match version {
        Version::V311 => 0,
        Version::V5 => 1 + if d.left_s.is_some() { 5 } else { 0 },
    };
    2 + d.topic.len() + if qos > 0 { 2 } else { 0 } + props + d.payload.len()
}

pub(super) fn publish(
    out: &mut BytesMut,
    version: Version,
    d: &Downlink,
    qos: u8,
    id: u16,
    again: bool,
) {
    out.put_u8(0x30 | qos << 1 | u8::from(again) << 3);
    put_length(out, publish_body_len(version, d, qos));
    put_text(out, &d.topic);
    if qos > 0 {
        out.put_u16(id);
    }
    match d.left_s {
        _ if version == Version::V311 => {}
        None => out.put_u8(0),
        Some(s) => {
            // Message Expiry Interval (§3.3.2.3.3).
            out.put_slice(&[5, 0x02]);
            out.put_u32(s);
        }
    }
    out.put_slice(&d.payload);
}

/// Two bytes of length, then the text. Topics and client ids are bounded far below 64 kB.
fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn length_len(n: usize) -> usize {
    match n {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// Variable byte integer (v5 §1.5.5).
fn put_length(out: &mut BytesMut, mut n: usize) {
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::mqtt::packet;
    use mqtt_protocol_core::mqtt::packet::{Property, v5_0};
    use proptest::prelude::*;

    #[test]
    fn connack_is_read_by_the_library_as_meant() {
        let mut out = BytesMut::new();
        let offer = Offer {
            session_present: true,
            receive_max: 20,
            packet_bytes_max: 65_536,
            topic_alias_max: 8,
            assigned_client_id: Some("auto-1"),
            keep_alive_s: Some(1200),
            expiry_s: Some(3600),
        };
        connack(&mut out, Version::V5, &offer);
        assert_eq!(usize::from(out[1]) + 2, out.len());
        let (c, used) = v5_0::Connack::parse(&out[2..]).unwrap();
        assert_eq!(used + 2, out.len());
        assert!(c.session_present());
        let has = |want: &dyn Fn(&Property) -> bool| c.props().iter().any(want);
        assert!(has(
            &|p| matches!(p, Property::AssignedClientIdentifier(v) if v.val() == "auto-1")
        ));
        assert!(has(
            &|p| matches!(p, Property::ReceiveMaximum(v) if v.val() == 20)
        ));
        assert!(has(
            &|p| matches!(p, Property::ServerKeepAlive(v) if v.val() == 1200)
        ));
        assert!(has(
            &|p| matches!(p, Property::SharedSubscriptionAvailable(v) if v.val() == 0)
        ));
        out.clear();
        connack(&mut out, Version::V311, &offer);
        assert_eq!(&out[..], [0x20, 2, 1, 0]);
    }

    proptest! {
        #[test]
        fn a_publish_reads_back(topic in "[a-z/]{1,40}", payload in proptest::collection::vec(any::<u8>(), 0..300), qos in 0u8..3, id in 1u16.., v5: bool, left_s: Option<u32>) {
            let version = if v5 { Version::V5 } else { Version::V311 };
            let mut out = BytesMut::new();
            let d = Downlink { left_s, ..Downlink::new(topic.clone(), payload.clone().into(), qos) };
            publish(&mut out, version, &d, qos, id, true);
            prop_assert_eq!(out.len(), publish_len(version, &d, qos));
            let frame = packet::next_frame(&mut out, 1 << 20).unwrap().unwrap();
            let packet::Packet::Publish(p) = packet::packet(version, &frame).unwrap() else {
                panic!("not a publish");
            };
            prop_assert_eq!(&*p.topic, topic.as_str());
            prop_assert_eq!(&p.payload[..], &payload[..]);
            prop_assert_eq!((p.qos, p.id), (qos, if qos > 0 { id } else { 0 }));
        }
    }
}
