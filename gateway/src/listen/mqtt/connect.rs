//! CONNECT: the first packet, read strictly. Nobody is authenticated yet.

use bytes::Bytes;

use super::packet::{Bad, Frame, Version};
use super::read::{Reader, property};

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
    pub password: Option<Bytes>,
    pub will: Option<Will>,
    /// How long the session outlives its connection, seconds.
    pub expiry_s: u32,
    /// QoS 1 and 2 messages the client takes at once.
    pub receive_max: u16,
    /// Largest packet the client takes, bytes.
    pub packet_bytes_max: u32,
    /// The client wants to be told in words what went wrong (v5 §3.1.2.11.7).
    pub wants_reasons: bool,
    /// The client wants an AUTH exchange (v5 §4.12), which we do not do.
    pub wants_auth: bool,
}

/// A first packet that is no good CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadConnect {
    /// As far as it could be read.
    pub version: Option<Version>,
    pub bad: Bad,
}

impl From<Bad> for BadConnect {
    fn from(bad: Bad) -> Self {
        Self { version: None, bad }
    }
}

/// Session of a v3.1.1 client without clean session: "forever", bounded by the session store.
const EXPIRY_NEVER_S: u32 = u32::MAX;

const OF_CONNECT: [u8; 9] = [
    property::SESSION_EXPIRY,
    property::RECEIVE_MAX,
    property::PACKET_BYTES_MAX,
    property::ALIAS_MAX,
    property::RESPONSE_INFO,
    property::PROBLEM_INFO,
    property::USER,
    property::AUTH_METHOD,
    property::AUTH_DATA,
];
const OF_WILL: [u8; 7] = [
    property::WILL_DELAY,
    property::PAYLOAD_FORMAT,
    property::MESSAGE_EXPIRY,
    property::CONTENT_TYPE,
    property::RESPONSE_TOPIC,
    property::CORRELATION_DATA,
    property::USER,
];

/// Reads a CONNECT (v3.1.1 §3.1, v5 §3.1).
pub(super) fn connect(frame: &Frame) -> Result<Connect, BadConnect> {
    if frame.first != 0x10 {
        return Err(Bad::Protocol.into());
    }
    let mut r = Reader::new(&frame.body);
    let version = match (r.block()?, r.byte()?) {
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", _) => return Err(Bad::Version.into()),
        _ => return Err(Bad::Malformed.into()),
    };
    rest(version, &mut r).map_err(|bad| BadConnect {
        version: Some(version),
        bad,
    })
}

/// Everything behind the version.
fn rest(version: Version, r: &mut Reader) -> Result<Connect, Bad> {
    let is_v5 = version == Version::V5;
    let flags = r.byte()?;
    let has = |bit: u8| flags & 1 << bit != 0;
    let (has_user, has_password, has_will, clean) = (has(7), has(6), has(2), has(1));
    let will_qos = (flags >> 3) & 0b11;
    if has(0)
        || will_qos == 3
        || (!has_will && flags & 0b0011_1000 != 0)
        || (has_password && !has_user && !is_v5)
    {
        return Err(Bad::Malformed);
    }
    let keep_alive_s = r.two()?;
    let said = if is_v5 {
        r.properties(&OF_CONNECT)?
    } else {
        Default::default()
    };
    if said.has_auth_data && !said.has_auth_method {
        return Err(Bad::Protocol);
    }
    let client_id = r.text()?.to_owned();
    let mut will = None;
    if has_will {
        let delay_s = if is_v5 {
            r.properties(&OF_WILL)?.will_delay_s
        } else {
            None
        };
        will = Some(Will {
            topic: r.text()?.to_owned(),
            payload: Bytes::copy_from_slice(r.block()?),
            delay_s: delay_s.unwrap_or(0),
        });
    }
    let user = if has_user {
        Some(r.text()?.to_owned())
    } else {
        None
    };
    let password = if has_password {
        Some(Bytes::copy_from_slice(r.block()?))
    } else {
        None
    };
    if !r.is_empty() {
        return Err(Bad::Malformed);
    }
    Ok(Connect {
        version,
        client_id,
        clean,
        keep_alive_s,
        user,
        password,
        will,
        expiry_s: match version {
            Version::V311 if clean => 0,
            Version::V311 => EXPIRY_NEVER_S,
            Version::V5 => said.session_expiry_s.unwrap_or(0),
        },
        receive_max: said.receive_max.unwrap_or(u16::MAX),
        packet_bytes_max: said.packet_bytes_max.unwrap_or(u32::MAX),
        wants_reasons: is_v5 && said.problem_info != Some(false),
        wants_auth: said.has_auth_method,
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::listen::mqtt::packet::next_frame;

    fn read(bytes: &[u8]) -> Result<Connect, BadConnect> {
        let frame = next_frame(&mut BytesMut::from(bytes), 1024);
        connect(&frame.unwrap().unwrap())
    }

    /// Flags, keep-alive 60, and what follows, behind the name and the level.
    fn with(level: u8, flags: u8, rest: &[u8]) -> Result<Connect, BadConnect> {
        let mut body = b"\0\x04MQTT".to_vec();
        body.extend([level, flags, 0, 60]);
        body.extend(rest);
        let first = [0x10, u8::try_from(body.len()).unwrap()];
        read(&[&first[..], &body].concat())
    }

    #[test]
    fn connects() {
        let ok = read(b"\x10\x12\0\x04MQTT\x04\xc2\0\x3c\0\0\0\x01d\0\x01p").unwrap();
        assert_eq!(
            (ok.version, ok.clean, ok.keep_alive_s),
            (Version::V311, true, 60)
        );
        assert_eq!(
            (ok.user.as_deref(), ok.password.as_deref()),
            (Some("d"), Some(&b"p"[..]))
        );
        let ok = with(
            5,
            0x06,
            b"\x05\x11\0\0\x02\x58\0\x01c\x05\x18\0\0\0\x09\0\x01t\0\x02hi",
        )
        .unwrap();
        let will = ok.will.unwrap();
        assert_eq!((ok.expiry_s, will.delay_s, &*will.topic), (600, 9, "t"));
        assert!(ok.wants_reasons && ok.password.is_none());
        assert!(!with(5, 2, b"\x02\x17\0\0\0").unwrap().wants_reasons);
        // v5 allows a password without a user name (§3.1.2.9).
        assert!(with(5, 0x42, b"\0\0\0\0\x01p").unwrap().password.is_some());
    }

    #[test]
    fn what_is_no_good_connect() {
        let bad = |c: Result<Connect, BadConnect>| c.err().map(|e| (e.version, e.bad));
        let (v311, v5) = (Some(Version::V311), Some(Version::V5));
        for old in [
            &b"\x10\x0c\0\x06MQIsdp\x03\x02\0\x3c"[..],
            b"\x10\x0a\0\x04MQTT\x07\x02\0\x3c",
        ] {
            assert_eq!(bad(read(old)), Some((None, Bad::Version)));
        }
        assert_eq!(bad(read(b"\xc0\0")), Some((None, Bad::Protocol)));
        for (level, flags, rest, told) in [
            (4, 0x03, &b"\0\0"[..], (v311, Bad::Malformed)), // reserved flag
            (4, 0x1e, b"\0\0", (v311, Bad::Malformed)),      // will of QoS 3
            (4, 0x0a, b"\0\0", (v311, Bad::Malformed)),      // QoS of no will
            (4, 0x42, b"\0\0\0\x01p", (v311, Bad::Malformed)), // password without a user
            (4, 0x02, b"\0\x03a\0b", (v311, Bad::Malformed)), // U+0000 in the client id
            (4, 0x82, b"\0\0\0\x02\xc3\x28", (v311, Bad::Malformed)),
            (4, 0x02, b"\0\0x", (v311, Bad::Malformed)), // more than it says
            (5, 0x02, b"\x03\x21\0\0\0\0", (v5, Bad::Protocol)),
            (5, 0x02, b"\x03\x16\0\0\0\0", (v5, Bad::Protocol)), // data of no method
            (5, 0x02, b"\x03\x23\0\x01\0\0", (v5, Bad::Protocol)), // an alias is no one's here
            (
                5,
                0x06,
                b"\0\0\0\x05\x11\0\0\0\x01\0\x01t\0\0",
                (v5, Bad::Protocol),
            ),
        ] {
            assert_eq!(bad(with(level, flags, rest)), Some(told), "{rest:x?}");
        }
    }
}
