//! What a server sends, as bytes (v3.1.1 §3, v5 §3).

use bytes::{BufMut, BytesMut};

use super::packet::Version;

/// How a client is spoken to, as its CONNECT said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    pub version: Version,
    /// QoS 1 and 2 messages it takes at once.
    pub receive_max: u16,
    /// Largest packet, bytes.
    pub packet_bytes_max: u32,
    /// v5: refusals in words too.
    pub reasons: bool,
}

impl Takes {
    /// The version alone, before anything else is known.
    pub fn just(version: Version) -> Self {
        Self {
            version,
            receive_max: u16::MAX,
            packet_bytes_max: u32::MAX,
            reasons: version == Version::V5,
        }
    }
}

/// v5 reason codes (§2.4).
pub(super) mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const FILTER_INVALID: u8 = 0x8f;
    pub const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const SHARED_NOT_SUPPORTED: u8 = 0x9e;

    /// What to do about a refused message; empty: nothing is to be said.
    pub fn of_message(code: u8) -> &'static str {
        match code {
            NOT_AUTHORIZED => "publish to the uplink topics of your own device id only",
            QUOTA_EXCEEDED => "not stored: send it again later",
            UNSPECIFIED => "this message cannot be handled: do not send it again",
            PACKET_ID_NOT_FOUND => "no message with this packet id is under way",
            _ => "",
        }
    }

    /// What to do about a refused subscription.
    pub fn of_subscription(code: u8) -> &'static str {
        match code {
            NOT_AUTHORIZED => "subscribe to the downlink topics of your own device id only",
            QUOTA_EXCEEDED => "too many subscriptions: unsubscribe from some first",
            SHARED_NOT_SUPPORTED => "shared subscriptions are not supported: leave out $share",
            FILTER_INVALID => "the topic filter is not valid, or longer than 512 bytes",
            _ => "",
        }
    }
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
    // Wildcards and subscription identifiers yes, shared subscriptions no.
    props.put_slice(&[0x28, 1, 0x29, 1, 0x2a, 0]);
    out.put_u8(0x20);
    put_length(out, 2 + length_len(props.len()) + props.len());
    out.put_slice(&[u8::from(offer.session_present), 0]);
    put_length(out, props.len());
    out.put_slice(&props);
}

/// CONNACK that refuses: return code for v3.1.1, reason code and what to do for v5.
pub(super) fn refuse(out: &mut BytesMut, takes: Takes, v311: u8, v5: u8, text: &str) {
    match takes.version {
        Version::V311 => out.put_slice(&[0x20, 2, 0, v311]),
        Version::V5 => {
            let text = takes.fitting(text, 3);
            let props = text_len(text);
            out.put_u8(0x20);
            put_length(out, 3 + props);
            out.put_slice(&[0, v5]);
            put_length(out, props);
            put_reason(out, text);
        }
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. v3.1.1 has no reasons: only success may be sent to it.
pub(super) fn ack(out: &mut BytesMut, takes: Takes, kind: Ack, id: u16, reason: u8) {
    let [hi, lo] = id.to_be_bytes();
    if takes.version == Version::V311 || reason == reason::SUCCESS {
        return out.put_slice(&[kind as u8, 2, hi, lo]);
    }
    let text = takes.fitting(reason::of_message(reason), 4);
    out.put_u8(kind as u8);
    if text.is_empty() {
        return out.put_slice(&[3, hi, lo, reason]);
    }
    put_length(out, 4 + text_len(text));
    out.put_slice(&[hi, lo, reason]);
    put_length(out, text_len(text));
    put_reason(out, text);
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
pub(super) fn suback(out: &mut BytesMut, takes: Takes, id: u16, codes: &[u8]) {
    if takes.version == Version::V311 {
        out.put_u8(0x90);
        put_length(out, 2 + codes.len());
        out.put_u16(id);
        out.extend(codes.iter().map(|c| if *c >= 0x80 { 0x80 } else { *c }));
        return;
    }
    let refused = codes.iter().copied().find(|c| *c >= 0x80);
    let text = refused.map_or("", reason::of_subscription);
    codes_v5(out, takes, 0x90, id, codes, text);
}

pub(super) fn unsuback(out: &mut BytesMut, takes: Takes, id: u16, codes: &[u8]) {
    match takes.version {
        Version::V311 => {
            out.put_slice(&[0xb0, 2]);
            out.put_u16(id);
        }
        Version::V5 => codes_v5(out, takes, 0xb0, id, codes, ""),
    }
}

fn codes_v5(out: &mut BytesMut, takes: Takes, first: u8, id: u16, codes: &[u8], text: &str) {
    let text = takes.fitting(text, 3 + codes.len());
    let props = text_len(text);
    out.put_u8(first);
    put_length(out, 2 + length_len(props) + props + codes.len());
    out.put_u16(id);
    put_length(out, props);
    put_reason(out, text);
    out.put_slice(codes);
}

pub(super) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// DISCONNECT of a v5 server.
pub(super) fn disconnect_v5(out: &mut BytesMut, takes: Takes, reason: u8, text: &str) {
    let text = takes.fitting(text, 2);
    out.put_u8(0xe0);
    if text.is_empty() {
        return out.put_slice(&[1, reason]);
    }
    put_length(out, 2 + text_len(text));
    out.put_u8(reason);
    put_length(out, text_len(text));
    put_reason(out, text);
}

impl Takes {
    /// The text, if the client wants one and it fits into its packets beside `others` bytes of the packet. Texts are
    /// shorter than 120 bytes: a length in front of them is one byte.
    fn fitting<'t>(&self, text: &'t str, others: usize) -> &'t str {
        const HEADER_MAX: usize = 5;
        debug_assert!(text.len() < 120, "{text}");
        let len = HEADER_MAX + others + text_len(text);
        if self.reasons && len <= self.packet_bytes_max as usize {
            text
        } else {
            ""
        }
    }
}

/// Bytes of a Reason String property; none for no text.
fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { 3 + text.len() }
}

fn put_reason(out: &mut BytesMut, text: &str) {
    if !text.is_empty() {
        out.put_u8(0x1f);
        put_text(out, text);
    }
}

/// A message to a client, as one PUBLISH says it.
pub(super) struct Publish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    /// 0 for QoS 0.
    pub id: u16,
    /// It was sent before (DUP).
    pub again: bool,
    pub retain: bool,
    /// v5: seconds until it is of no use.
    pub expiry_s: Option<u32>,
    /// v5: of the subscriptions it matches.
    pub subscription_ids: &'a [u32],
}

impl Publish<'_> {
    fn props_len(&self) -> usize {
        let ids = self.subscription_ids.iter();
        self.expiry_s.map_or(0, |_| 5) + ids.map(|id| 1 + length_len(*id as usize)).sum::<usize>()
    }

    fn body_len(&self, version: Version) -> usize {
        let props = match version {
            Version::V311 => 0,
            Version::V5 => length_len(self.props_len()) + self.props_len(),
        };
        2 + self.topic.len() + if self.qos > 0 { 2 } else { 0 } + props + self.payload.len()
    }

    /// Bytes on the wire.
    pub fn len(&self, version: Version) -> usize {
        let body = self.body_len(version);
        1 + length_len(body) + body
    }

    pub fn write(&self, out: &mut BytesMut, version: Version) {
        out.put_u8(0x30 | self.qos << 1 | u8::from(self.again) << 3 | u8::from(self.retain));
        put_length(out, self.body_len(version));
        put_text(out, self.topic);
        if self.qos > 0 {
            out.put_u16(self.id);
        }
        if version == Version::V5 {
            put_length(out, self.props_len());
            if let Some(s) = self.expiry_s {
                out.put_u8(0x02);
                out.put_u32(s);
            }
            for id in self.subscription_ids {
                out.put_u8(0x0b);
                put_length(out, *id as usize);
            }
        }
        out.put_slice(self.payload);
    }
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

    fn takes(packet_bytes_max: u32, reasons: bool) -> Takes {
        Takes {
            packet_bytes_max,
            reasons,
            ..Takes::just(Version::V5)
        }
    }

    #[test]
    fn refusals_say_what_to_do_to_who_asked_and_can_take_it() {
        let text = "slower";
        let written = |takes: Takes, write: &dyn Fn(&mut BytesMut, Takes)| {
            let mut out = BytesMut::new();
            write(&mut out, takes);
            assert_eq!(usize::from(out[1]) + 2, out.len(), "{out:x?}");
            out
        };
        let connack = |o: &mut BytesMut, t: Takes| refuse(o, t, 5, 0x9f, text);
        let bye = |o: &mut BytesMut, t: Takes| disconnect_v5(o, t, 0x9f, text);
        let sub = |o: &mut BytesMut, t: Takes| suback(o, t, 7, &[1, reason::NOT_AUTHORIZED]);
        let no = |o: &mut BytesMut, t: Takes| ack(o, t, Ack::Pubrec, 7, reason::NOT_AUTHORIZED);
        let all = takes(u32::MAX, true);
        let (c, _) = v5_0::Connack::parse(&written(all, &connack)[2..]).unwrap();
        assert!(matches!(&c.props()[0], Property::ReasonString(s) if s.val() == text));
        let (d, _) = v5_0::Disconnect::parse(&written(all, &bye)[2..]).unwrap();
        assert!(
            matches!(&d.props().as_ref().unwrap()[0], Property::ReasonString(s) if s.val() == text)
        );
        let (s, _) = v5_0::Suback::parse(&written(all, &sub)[2..]).unwrap();
        assert!(
            matches!(&s.props()[0], Property::ReasonString(s) if s.val().starts_with("subscribe"))
        );
        let (p, _) = v5_0::Pubrec::parse(&written(all, &no)[2..]).unwrap();
        assert!(
            matches!(&p.props().as_ref().unwrap()[0], Property::ReasonString(s) if s.val().starts_with("publish"))
        );
        for few in [takes(u32::MAX, false), takes(12, true)] {
            assert_eq!(&written(few, &connack)[..], [0x20, 3, 0, 0x9f, 0]);
            assert_eq!(&written(few, &bye)[..], [0xe0, 1, 0x9f]);
            assert_eq!(&written(few, &sub)[..], [0x90, 5, 0, 7, 0, 1, 0x87]);
            assert_eq!(&written(few, &no)[..], [0x50, 3, 0, 7, 0x87]);
        }
        let just = takes(40, true);
        for write in [&connack as &dyn Fn(&mut BytesMut, Takes), &bye, &sub, &no] {
            assert!(written(just, write).len() <= 40);
        }
    }

    #[test]
    fn a_publish_with_all_it_may_carry_is_read_by_the_library() {
        let p = Publish {
            topic: "a",
            payload: b"x",
            qos: 1,
            id: 7,
            again: false,
            retain: true,
            expiry_s: Some(9),
            subscription_ids: &[1, 300],
        };
        let mut out = BytesMut::new();
        p.write(&mut out, Version::V5);
        assert_eq!((out.len(), out[0]), (p.len(Version::V5), 0x33));
        let body: std::sync::Arc<[u8]> = out[2..].into();
        let (read, _) = v5_0::Publish::parse(0x03, body).unwrap();
        let props = format!("{:?}", read.props());
        assert_eq!(read.props().len(), 3, "{props}");
        out.clear();
        p.write(&mut out, Version::V311);
        assert_eq!(&out[..], b"\x33\x06\0\x01a\0\x07x");
    }

    proptest! {
        #[test]
        fn a_publish_reads_back(topic in "[a-z/]{1,40}", payload in proptest::collection::vec(any::<u8>(), 0..300), qos in 0u8..3, id in 1u16.., v5: bool, left_s: Option<u32>) {
            let version = if v5 { Version::V5 } else { Version::V311 };
            let mut out = BytesMut::new();
            let id = if qos > 0 { id } else { 0 };
            let p = Publish { topic: &topic, payload: &payload, qos, id, again: qos > 0, retain: false, expiry_s: None, subscription_ids: &[] };
            p.write(&mut out, version);
            prop_assert_eq!(out.len(), p.len(version));
            let frame = packet::next_frame(&mut out, 1 << 20).unwrap().unwrap();
            let packet::Packet::Publish(p) = packet::packet(version, &frame).unwrap() else {
                panic!("not a publish");
            };
            prop_assert_eq!(&*p.topic, topic.as_str());
            prop_assert_eq!(&p.payload[..], &payload[..]);
            prop_assert_eq!((p.qos, p.id, p.again), (qos, id, qos > 0));
        }
    }
}
