//! SDP (RFC 8866) of streams: what a publisher announces, what we describe to readers.

use sdp_types::{Attribute, Media, Origin, Session};

use super::format;
use crate::media::{Codec, Medium, MediumKind};

/// More media than that in one stream are refused.
pub const MEDIA_MAX: usize = 8;
/// Of a reason that is told to the other side.
const REASON_CHARS_MAX: usize = 120;
const NAME_CHARS_MAX: usize = 32;

/// One `m=` line of an announced SDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedMedium {
    /// None: a codec we do not carry; it is set up and its packets are discarded.
    pub medium: Option<Medium>,
    /// For people: the encoding name.
    pub encoding: String,
    pub payload_type: u8,
    /// `a=control`, as written.
    pub control: Option<String>,
}

/// What a publisher announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub media: Vec<OfferedMedium>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSdp {
    #[error("the SDP cannot be read: {0}")]
    Syntax(String),
    #[error("the SDP has {0} media; 1 to {MEDIA_MAX} are taken")]
    Count(usize),
    #[error("none of the media can be carried ({0}); {carried} can", carried = format::CARRIED)]
    NothingCarried(String),
}

impl Offer {
    /// Tolerant: only `m=` and `a=` lines are read, so whatever a camera writes into the others does no harm.
    ///
    /// # Errors
    /// [`BadSdp`].
    pub fn parse(sdp: &[u8]) -> Result<Self, BadSdp> {
        let text = String::from_utf8_lossy(sdp);
        let mut kept = String::from("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
        for line in text.split(['\r', '\n']).map(str::trim) {
            if line.starts_with("m=") || line.starts_with("a=") {
                kept.push_str(line);
                kept.push_str("\r\n");
            }
        }
        let session =
            Session::parse(kept.as_bytes()).map_err(|e| BadSdp::Syntax(clip(&e.to_string())))?;
        let count = session.medias.len();
        if !(1..=MEDIA_MAX).contains(&count) {
            return Err(BadSdp::Count(count));
        }
        let media: Vec<_> = session.medias.iter().map(offered).collect();
        if media.iter().all(|m| m.medium.is_none()) {
            let names: Vec<_> = media.iter().map(|m| m.encoding.as_str()).collect();
            return Err(BadSdp::NothingCarried(names.join(", ")));
        }
        Ok(Self { media })
    }

    /// The media we carry, in order: those of the stream.
    pub fn carried(&self) -> impl Iterator<Item = &Medium> {
        self.media.iter().filter_map(|m| m.medium.as_ref())
    }

    /// Index in the stream of the `m=` line `i`; None when it is not carried.
    pub fn stream_index(&self, i: usize) -> Option<usize> {
        self.media.get(i)?.medium.as_ref()?;
        Some(
            self.media[..i]
                .iter()
                .filter(|m| m.medium.is_some())
                .count(),
        )
    }
}

/// The parser repeats the line it does not understand, whatever its length.
fn clip(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

fn attribute<'a>(m: &'a Media, name: &str) -> Option<&'a str> {
    m.attributes
        .iter()
        .find(|a| a.attribute.eq_ignore_ascii_case(name))
        .and_then(|a| a.value.as_deref())
        .map(str::trim)
}

/// The value of an attribute that begins with a payload type (`rtpmap`, `fmtp`).
fn of_type<'a>(m: &'a Media, name: &str, payload_type: u8) -> Option<&'a str> {
    m.attributes
        .iter()
        .filter(|a| a.attribute.eq_ignore_ascii_case(name))
        .filter_map(|a| a.value.as_deref()?.trim().split_once(char::is_whitespace))
        .find(|(pt, _)| pt.parse() == Ok(payload_type))
        .map(|(_, rest)| rest.trim())
}

fn offered(m: &Media) -> OfferedMedium {
    let control = attribute(m, "control").map(str::to_owned);
    let types = m
        .fmt
        .split_whitespace()
        .filter_map(|t| t.parse::<u8>().ok())
        .filter(|t| *t < 128);
    let mut first = None;
    for payload_type in types {
        let (encoding, medium) = read(m, payload_type);
        if medium.is_some() {
            return OfferedMedium {
                medium,
                encoding,
                payload_type,
                control,
            };
        }
        first.get_or_insert((encoding, payload_type));
    }
    let (encoding, payload_type) = first.unwrap_or_else(|| (name_of(&m.media), 0));
    OfferedMedium {
        medium: None,
        encoding,
        payload_type,
        control,
    }
}

/// A name as it is told and logged.
fn name_of(written: &str) -> String {
    written
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME_CHARS_MAX)
        .collect()
}

fn read(m: &Media, payload_type: u8) -> (String, Option<Medium>) {
    let static_map = match payload_type {
        0 => "PCMU/8000",
        8 => "PCMA/8000",
        _ => "unknown",
    };
    let map = of_type(m, "rtpmap", payload_type).unwrap_or(static_map);
    let mut parts = map.split('/').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let clock_rate: Option<u32> = parts.next().and_then(|r| r.parse().ok());
    let channels: u8 = parts.next().and_then(|c| c.parse().ok()).unwrap_or(1);
    let fmtp = of_type(m, "fmtp", payload_type).unwrap_or_default();
    let encoding = name_of(name);
    let medium = format::medium(name, clock_rate, channels, fmtp);
    (encoding, medium)
}

/// The payload type we send medium `index` with.
pub fn payload_type(index: usize, codec: &Codec) -> u8 {
    match codec {
        Codec::Pcmu => 0,
        Codec::Pcma => 8,
        _ => 96 + u8::try_from(index.min(MEDIA_MAX)).unwrap_or(0),
    }
}

/// The SDP that answers DESCRIBE; the control of medium `i` is `trackID={i}`.
pub fn describe(name: &str, media: &[Medium]) -> Vec<u8> {
    let unspecified = std::net::Ipv4Addr::UNSPECIFIED;
    let mut session = Session::new(Origin::with_ip_addr("0", 0, unspecified), name);
    session.set_connection(sdp_types::Connection::from_ip_addr(unspecified));
    session.add_time(sdp_types::Time::new(0, 0));
    session.add_attribute(Attribute::with_value("tool", "kerbside"));
    session.add_attribute(Attribute::with_value("control", "*"));
    session.add_attribute(Attribute::with_value("range", "npt=now-"));
    for (i, medium) in media.iter().enumerate() {
        session.add_media(described(i, medium));
    }
    let mut out = Vec::new();
    match session.write(&mut out) {
        Ok(()) => out,
        Err(e) => unreachable!("a Vec takes all: {e}"),
    }
}

fn described(i: usize, medium: &Medium) -> Media {
    use sdp_types::{MediaType, TransportProto};
    let pt = payload_type(i, &medium.codec);
    let kind = match medium.codec.kind() {
        MediumKind::Video => MediaType::Video,
        MediumKind::Audio => MediaType::Audio,
    };
    let mut m = Media::new(kind, 0, TransportProto::RtpAvp, pt);
    m.add_attribute_with_value("rtpmap", format!("{pt} {}", format::rtpmap(medium)));
    if let Some(fmtp) = format::fmtp(&medium.codec) {
        m.add_attribute_with_value("fmtp", format!("{pt} {fmtp}"));
    }
    m.add_attribute_with_value("control", format!("trackID={i}"));
    m
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::aac::Packing;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn one(sdp: &str) -> OfferedMedium {
        Offer::parse(sdp.as_bytes()).unwrap().media.remove(0)
    }

    #[test]
    fn what_we_describe_reads_back() {
        let media = [
            Medium {
                codec: Codec::H264 {
                    sps: Bytes::from_static(&[0x67, 0x64, 0, 0x28, 0xac]),
                    pps: Bytes::from_static(&[0x68, 0xee]),
                },
                clock_rate: 90_000,
            },
            Medium {
                codec: Codec::Opus { channels: 2 },
                clock_rate: 48_000,
            },
            Medium {
                codec: Codec::Pcma,
                clock_rate: 8000,
            },
            Medium {
                codec: Codec::Pcmu,
                clock_rate: 8000,
            },
            Medium {
                codec: Codec::H265 {
                    vps: Bytes::from_static(&[0x40, 1, 0x0c]),
                    sps: Bytes::from_static(&[0x42, 1, 1]),
                    pps: Bytes::from_static(&[0x44, 1, 0xc1]),
                },
                clock_rate: 90_000,
            },
            Medium {
                codec: Codec::Av1 {
                    profile: 0,
                    level_idx: 8,
                    tier: 1,
                },
                clock_rate: 90_000,
            },
            Medium {
                codec: Codec::Aac {
                    config: Bytes::from_static(&[0x12, 0x10]),
                    channels: 2,
                    packing: Packing::HBR,
                },
                clock_rate: 44_100,
            },
        ];
        let sdp = describe("bc-01/main", &media);
        let offer = Offer::parse(&sdp).unwrap();
        assert_eq!(offer.carried().cloned().collect::<Vec<_>>(), media);
        assert_eq!(offer.media[1].control.as_deref(), Some("trackID=1"));
        assert_eq!(
            offer
                .media
                .iter()
                .map(|m| m.payload_type)
                .collect::<Vec<_>>(),
            [96, 97, 8, 0, 100, 101, 102]
        );
        let text = String::from_utf8(sdp).unwrap();
        assert!(text.contains("profile-level-id=640028"), "{text}");
    }

    #[test]
    fn cameras_that_write_what_they_like() {
        // No version, broken origin and time lines, bare line feeds, lower case, no padding, static type unmapped.
        let m = one(
            "o=x\nt=\ns=\nc=IN\nb=AS\nm=video 0 RTP/AVP 99 96\na=rtpmap:99 jpeg2000/90000\n\
            a=rtpmap:96 h264/90000\na=fmtp:96 sprop-parameter-sets = Z0LAHtkA,aM48gA ; packetization-mode=1\n\
            a=control:rtsp://10.0.0.5/s/track1",
        );
        let Some(Medium {
            codec: Codec::H264 { sps, pps },
            ..
        }) = m.medium
        else {
            panic!("{m:?}");
        };
        assert_eq!((sps[0], pps[0]), (0x67, 0x68));
        assert_eq!(m.payload_type, 96);
        assert_eq!(m.control.as_deref(), Some("rtsp://10.0.0.5/s/track1"));
        assert_eq!(
            one("m=audio 0 RTP/AVP 8").medium.unwrap().codec,
            Codec::Pcma
        );
        let missing = one(
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 sprop-parameter-sets=%%%",
        );
        assert_eq!(
            missing.medium.unwrap().codec,
            Codec::H264 {
                sps: Bytes::new(),
                pps: Bytes::new()
            }
        );
    }

    #[test]
    fn what_is_not_carried_is_named() {
        let sdp =
            b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=audio 0 RTP/AVP 97\r\n\
            a=rtpmap:97 MP4A-LATM/44100/2\r\nm=audio 0 RTP/AVP 0\r\n";
        let offer = Offer::parse(sdp).unwrap();
        assert_eq!(
            [0, 1, 2].map(|i| offer.stream_index(i)),
            [Some(0), None, Some(1)]
        );
        assert_eq!(offer.media[1].encoding, "MP4A-LATM");
        assert_eq!(
            Offer::parse(b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP9/90000\r\n"),
            Err(BadSdp::NothingCarried("VP9".into()))
        );
        assert_eq!(Offer::parse(b"v=0\r\n"), Err(BadSdp::Count(0)));
        assert_eq!(
            Offer::parse(&b"m=audio 0 RTP/AVP 0\r\n".repeat(9)),
            Err(BadSdp::Count(9))
        );
    }

    proptest! {
        #[test]
        fn any_text(bytes: Vec<u8>, lines in "([mavo]=[ -~]{0,40}\r?\n){0,12}") {
            let _ = Offer::parse(&bytes);
            let _ = Offer::parse(lines.as_bytes());
        }
    }
}
