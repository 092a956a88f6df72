//! The `Transport` header (RFC 2326 §12.39), as clients write it.

use std::fmt;

/// How the packets of one track travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved channels of RTP and RTCP.
    Tcp { rtp: u8, rtcp: u8 },
    /// The client's ports of RTP and RTCP. The address is always that of its connection.
    Udp { rtp: u16, rtcp: u16 },
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { rtp, rtcp } => write!(f, "RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}"),
            Self::Udp { rtp, rtcp } => write!(f, "RTP/AVP;unicast;client_port={rtp}-{rtcp}"),
        }
    }
}

/// One alternative of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Tcp(Option<(u8, u8)>),
    Udp(u16, u16),
}

/// The alternatives we can serve, in the client's order.
pub(super) fn wishes(header: &str) -> Vec<Wish> {
    header.split(',').take(16).filter_map(wish).collect()
}

fn wish(text: &str) -> Option<Wish> {
    let mut parts = text.split(';').map(str::trim);
    let spec = parts.next()?.to_ascii_uppercase();
    let tcp = match spec.as_str() {
        "RTP/AVP/TCP" | "RTP/AVPF/TCP" => true,
        "RTP/AVP" | "RTP/AVP/UDP" | "RTP/AVPF" | "RTP/AVPF/UDP" => false,
        _ => return None,
    };
    let (mut channels, mut ports) = (None, None);
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "multicast" => return None,
            "interleaved" => channels = pair::<u8>(value),
            "client_port" => ports = pair::<u16>(value).filter(|(rtp, rtcp)| *rtp > 0 && *rtcp > 0),
            _ => {}
        }
    }
    if tcp {
        Some(Wish::Tcp(channels))
    } else {
        ports.map(|(rtp, rtcp)| Wish::Udp(rtp, rtcp))
    }
}

/// `a-b`, or `a` for a and the next one.
fn pair<T: std::str::FromStr + Copy + TryFrom<u32> + Into<u32>>(text: &str) -> Option<(T, T)> {
    let (a, b) = text.split_once('-').unwrap_or((text, ""));
    let a: T = a.trim().parse().ok()?;
    let b = match b.trim() {
        "" => T::try_from(a.into() + 1).ok()?,
        b => b.parse().ok()?,
    };
    Some((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write() {
        let all = "RTP/AVP/UDP;unicast;client_port=5000-5001;mode=record, RTP/SAVP;unicast;client_port=1-2,\
            RTP/AVP;multicast;port=1-2,rtp/avp/tcp;unicast;interleaved=2-3;mode=\"PLAY\",RTP/AVP/TCP;unicast,\
            RTP/AVP;unicast;client_port=7000,RTP/AVP;client_port=0-1,RTP/AVP/TCP;interleaved=255,\";=";
        assert_eq!(
            wishes(all),
            [
                Wish::Udp(5000, 5001),
                Wish::Tcp(Some((2, 3))),
                Wish::Tcp(None),
                Wish::Udp(7000, 7001),
                Wish::Tcp(None)
            ]
        );
    }
}
