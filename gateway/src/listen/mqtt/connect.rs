//! CONNECT: the first packet, read strictly. Nobody is authenticated yet.

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};

use super::packet::{Bad, Frame, Version};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Will {
    pub topic: String,
    pub payload: Bytes,
    /// Seconds after the connection broke (v5 §3.1.3.2.2).
    pub delay_s: u32,
}

/// What a CONNECT says.
pub(super) struct Connect {
    pub version: Version,
    pub client_id: String,
    /// Forget a former session.
    pub clean: bool,
    /// Seconds; 0: off.
    pub keep_alive_s: u16,
    pub user: Option<String>,
    pub password: Bytes,
    pub will: Option<Will>,
    /// How long the session outlives its connection, seconds.
    pub expiry_s: u32,
    /// QoS 1 and 2 messages the client takes at once.
    pub receive_max: u16,
    /// Largest packet the client takes, bytes.
    pub packet_bytes_max: u32,
    /// The client wants an AUTH exchange (v5 §4.12), which we do not do.
    pub wants_auth: bool,
}

/// Session of a v3.1.1 client without clean session: "forever", bounded by the session store.
const EXPIRY_NEVER_S: u32 = u32::MAX;

/// Reads a CONNECT (v3.1.1 §3.1, v5 §3.1).
pub(super) fn connect(frame: &Frame) -> Result<Connect, Bad> {
    if frame.first != 0x10 {
        return Err(Bad::Protocol);
    }
    let body = &frame.body[..];
    let (Some(name), Some(&level), Some(&flags)) = (body.get(..6), body.get(6), body.get(7)) else {
        return Err(if body.get(2..8) == Some(b"MQIsdp") {
            Bad::Version
        } else {
            Bad::Malformed
        });
    };
    if name != b"\0\x04MQTT" {
        return Err(if &name[2..] == b"MQIs" {
            Bad::Version
        } else {
            Bad::Malformed
        });
    }
    let will = flags & 0b100 != 0;
    let will_qos = (flags >> 3) & 0b11;
    if flags & 1 != 0 || will_qos == 3 || (!will && flags & 0b0011_1000 != 0) {
        return Err(Bad::Malformed);
    }
    match level {
        4 => connect_v311(body),
        5 => connect_v5(body),
        _ => Err(Bad::Version),
    }
}

fn connect_v311(body: &[u8]) -> Result<Connect, Bad> {
    let (c, used) = v3_1_1::Connect::parse(body)?;
    if used != body.len() {
        return Err(Bad::Malformed);
    }
    Ok(Connect {
        version: Version::V311,
        client_id: c.client_id().to_owned(),
        clean: c.clean_session(),
        keep_alive_s: c.keep_alive(),
        user: c.user_name().map(str::to_owned),
        password: Bytes::copy_from_slice(c.password().unwrap_or_default()),
        will: c.will_topic().map(|topic| Will {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(c.will_payload().unwrap_or_default()),
            delay_s: 0,
        }),
        expiry_s: if c.clean_session() { 0 } else { EXPIRY_NEVER_S },
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        wants_auth: false,
    })
}

fn connect_v5(body: &[u8]) -> Result<Connect, Bad> {
    let (c, used) = v5_0::Connect::parse(body)?;
    if used != body.len() {
        return Err(Bad::Malformed);
    }
    let mut out = Connect {
        version: Version::V5,
        client_id: c.client_id().to_owned(),
        clean: c.clean_start(),
        keep_alive_s: c.keep_alive(),
        user: c.user_name().map(str::to_owned),
        password: Bytes::copy_from_slice(c.password().unwrap_or_default()),
        will: c.will_topic().map(|topic| Will {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(c.will_payload().unwrap_or_default()),
            delay_s: 0,
        }),
        expiry_s: 0,
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        wants_auth: false,
    };
    for p in c.props() {
        match p {
            Property::SessionExpiryInterval(v) => out.expiry_s = v.val(),
            Property::ReceiveMaximum(v) => out.receive_max = v.val().max(1),
            Property::MaximumPacketSize(v) => out.packet_bytes_max = v.val(),
            Property::AuthenticationMethod(_) => out.wants_auth = true,
            _ => {}
        }
    }
    if let Some(will) = &mut out.will {
        for p in c.will_props() {
            if let Property::WillDelayInterval(v) = p {
                will.delay_s = v.val();
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::listen::mqtt::packet::next_frame;

    #[test]
    fn connects() {
        let c = |bytes: &[u8]| {
            let frame = next_frame(&mut BytesMut::from(bytes), 1024);
            connect(&frame.unwrap().unwrap())
        };
        let ok = c(b"\x10\x12\0\x04MQTT\x04\xc2\0\x3c\0\0\0\x01d\0\x01p").unwrap();
        assert_eq!(
            (ok.version, ok.clean, ok.keep_alive_s),
            (Version::V311, true, 60)
        );
        assert_eq!(
            (ok.user.as_deref(), &ok.password[..]),
            (Some("d"), &b"p"[..])
        );
        assert_eq!(
            c(b"\x10\x0c\0\x06MQIsdp\x03\x02\0\x3c").err(),
            Some(Bad::Version)
        );
        assert_eq!(
            c(b"\x10\x0a\0\x04MQTT\x07\x02\0\x3c").err(),
            Some(Bad::Version)
        );
        assert_eq!(
            c(b"\x10\x0c\0\x04MQTT\x04\x03\0\x3c\0\0").err(),
            Some(Bad::Malformed)
        );
        assert_eq!(
            c(b"\x10\x0c\0\x04MQTT\x04\x1e\0\x3c\0\0").err(),
            Some(Bad::Malformed)
        );
        assert_eq!(c(b"\xc0\0").err(), Some(Bad::Protocol));
    }
}
