//! What a WebRTC offer says, as far as we act on it (JSEP RFC 9429, RFC 8866).
//!
//! Here: SDP text to values, with a reason when it is broken. Not here: what is chosen from it (`answer`).

use kerbside_codecs::media::MediumKind;
use kerbside_codecs::rtp::extension::CAPTURE_TIME_URI;
use sdp_types::{Media, Session};

/// Sections more than this are refused: no browser offers so many for one stream.
const SECTIONS_MAX: usize = 16;
const FORMATS_MAX: usize = 128;

/// Why an offer cannot be used; for the client's eyes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadOffer {
    #[error("this is not SDP: {0}")]
    Syntax(String),
    #[error("the offer has no {0}")]
    Missing(&'static str),
    #[error("the offer's {0} cannot be used: {1}")]
    Value(&'static str, String),
}

/// A WebRTC offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub sections: Vec<Section>,
    /// SHA-256 of the certificate the other side will show in DTLS.
    pub fingerprint: [u8; 32],
    /// `a=setup:passive`: we have to be the DTLS client.
    pub wants_us_active: bool,
    pub ice_ufrag: String,
    /// Mids of the BUNDLE group, empty without one.
    pub bundle: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    Medium(MediumKind),
    /// `m=application … webrtc-datachannel` (RFC 8841).
    Data,
    Other,
}

/// One `m=` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub kind: SectionKind,
    /// The media type as written, for the answer.
    pub media: String,
    pub proto: String,
    /// The formats as written, for the answer of a refused section.
    pub fmt: String,
    pub mid: Option<String>,
    pub sends: bool,
    pub receives: bool,
    /// Port 0 without bundle-only: the offerer does not want it.
    pub disabled: bool,
    /// In the offerer's order of preference.
    pub formats: Vec<Format>,
    /// Id of the header extension abs-capture-time (RFC 8285 §5), if it is offered.
    pub abs_capture_time: Option<u8>,
}

/// One payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pub payload_type: u8,
    /// Encoding name as written.
    pub name: String,
    pub clock_rate: u32,
    pub channels: u8,
    /// `a=fmtp` as written.
    pub fmtp: Option<String>,
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    /// It wants to be told how much to send (REMB).
    pub remb: bool,
}

impl Format {
    /// A parameter of the `a=fmtp` line.
    pub fn param(&self, key: &str) -> Option<&str> {
        self.fmtp.as_deref()?.split(';').find_map(|kv| {
            let (k, v) = kv.split_once('=')?;
            k.trim().eq_ignore_ascii_case(key).then(|| v.trim())
        })
    }
}

/// # Errors
/// [`BadOffer`].
pub fn parse(text: &str) -> Result<Offer, BadOffer> {
    let sdp =
        Session::parse(text.as_bytes()).map_err(|e| BadOffer::Syntax(clip(&e.to_string())))?;
    if sdp.medias.is_empty() {
        return Err(BadOffer::Missing("media section (m=)"));
    }
    if sdp.medias.len() > SECTIONS_MAX {
        return Err(BadOffer::Value(
            "number of media sections",
            format!("{} of at most {SECTIONS_MAX}", sdp.medias.len()),
        ));
    }
    let sections: Vec<Section> = sdp.medias.iter().map(section).collect();
    let bundle = sdp
        .attributes
        .iter()
        .filter(|a| a.attribute == "group")
        .filter_map(|a| a.value.as_deref()?.strip_prefix("BUNDLE"))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect();
    // With BUNDLE the transport is that of the first section in use (RFC 8843 §7.2).
    let first = sdp
        .medias
        .iter()
        .find(|m| m.port != 0)
        .or(sdp.medias.first());
    let transport = |name: &'static str| {
        first
            .and_then(|m| value(&m.attributes, name))
            .or_else(|| value(&sdp.attributes, name))
            .or_else(|| sdp.medias.iter().find_map(|m| value(&m.attributes, name)))
    };
    let ice_ufrag = transport("ice-ufrag")
        .filter(|u| !u.is_empty())
        .ok_or(BadOffer::Missing("ICE user fragment (a=ice-ufrag)"))?
        .to_owned();
    if transport("ice-pwd").is_none() {
        return Err(BadOffer::Missing("ICE password (a=ice-pwd)"));
    }
    let fingerprint = sdp
        .medias
        .iter()
        .map(|m| &m.attributes)
        .chain([&sdp.attributes])
        .flatten()
        .filter(|a| a.attribute == "fingerprint")
        .filter_map(|a| a.value.as_deref())
        .find_map(sha256_fingerprint)
        .ok_or(BadOffer::Missing(
            "SHA-256 certificate fingerprint (a=fingerprint:sha-256 …)",
        ))?;
    let wants_us_active = match transport("setup").unwrap_or("actpass") {
        "actpass" | "active" => false,
        "passive" => true,
        other => {
            return Err(BadOffer::Value("a=setup", clip(other)));
        }
    };
    if !sdp
        .medias
        .iter()
        .any(|m| m.media == "application" || has(&m.attributes, "rtcp-mux"))
    {
        return Err(BadOffer::Missing(
            "a=rtcp-mux: RTP and RTCP share one port here",
        ));
    }
    Ok(Offer {
        sections,
        fingerprint,
        wants_us_active,
        ice_ufrag,
        bundle,
    })
}

fn section(m: &Media) -> Section {
    let kind = match m.media.as_str() {
        _ if m.proto.contains("SCTP") => SectionKind::Data,
        "video" if m.proto.contains("SAVPF") => SectionKind::Medium(MediumKind::Video),
        "audio" if m.proto.contains("SAVPF") => SectionKind::Medium(MediumKind::Audio),
        _ => SectionKind::Other,
    };
    let formats = match kind {
        SectionKind::Medium(_) => m
            .fmt
            .split_whitespace()
            .take(FORMATS_MAX)
            .filter_map(|f| format(m, f))
            .collect(),
        _ => Vec::new(),
    };
    let direction = ["sendrecv", "sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|d| has(&m.attributes, d))
        .unwrap_or("sendrecv");
    Section {
        kind,
        media: m.media.clone(),
        proto: m.proto.clone(),
        fmt: m.fmt.clone(),
        mid: value(&m.attributes, "mid").map(str::to_owned),
        sends: direction.starts_with("send"),
        receives: matches!(direction, "sendrecv" | "recvonly"),
        disabled: m.port == 0 && !has(&m.attributes, "bundle-only"),
        formats,
        abs_capture_time: extension(m, CAPTURE_TIME_URI),
    }
}

/// The id of `a=extmap:ID[/DIRECTION] URI`, whatever its direction: it must fit ours.
fn extension(m: &Media, uri: &str) -> Option<u8> {
    m.attributes
        .iter()
        .filter(|a| a.attribute == "extmap")
        .filter_map(|a| a.value.as_deref())
        .find_map(|v| {
            let mut words = v.split_whitespace();
            let id = words.next()?.split('/').next()?;
            (words.next()? == uri).then(|| id.parse().ok().filter(|id| *id > 0))?
        })
}

fn format(m: &Media, fmt: &str) -> Option<Format> {
    let payload_type: u8 = fmt.parse().ok().filter(|p| *p < 128)?;
    let of = |name: &'static str| {
        m.attributes
            .iter()
            .filter(move |a| a.attribute == name)
            .filter_map(|a| a.value.as_deref())
            .filter_map(|v| v.split_once(' '))
            .filter(move |(pt, _)| *pt == fmt)
            .map(|(_, rest)| rest.trim())
    };
    let rtpmap = match of("rtpmap").next() {
        Some(map) => map,
        // Static payload types of RFC 3551 §6 need no rtpmap.
        None if payload_type == 0 => "PCMU/8000",
        None if payload_type == 8 => "PCMA/8000",
        None => return None,
    };
    let mut parts = rtpmap.split('/');
    let name = parts.next()?.to_owned();
    let clock_rate = parts.next()?.trim().parse().ok()?;
    let channels = match parts.next() {
        Some(c) => c.trim().parse().ok()?,
        None => 1,
    };
    let feedback = |what: &str| {
        of("rtcp-fb").any(|f| f.eq_ignore_ascii_case(what))
            || m.attributes
                .iter()
                .filter(|a| a.attribute == "rtcp-fb")
                .filter_map(|a| a.value.as_deref()?.strip_prefix("* "))
                .any(|f| f.trim().eq_ignore_ascii_case(what))
    };
    Some(Format {
        payload_type,
        name,
        clock_rate,
        channels,
        fmtp: of("fmtp").next().map(str::to_owned),
        nack: feedback("nack"),
        pli: feedback("nack pli"),
        fir: feedback("ccm fir"),
        remb: feedback("goog-remb"),
    })
}

fn value<'a>(attributes: &'a [sdp_types::Attribute], name: &str) -> Option<&'a str> {
    attributes
        .iter()
        .find(|a| a.attribute == name)?
        .value
        .as_deref()
        .map(str::trim)
}

fn has(attributes: &[sdp_types::Attribute], name: &str) -> bool {
    attributes.iter().any(|a| a.attribute == name)
}

fn clip(s: &str) -> String {
    s.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// `sha-256 AB:CD:…` (RFC 8122 §5).
fn sha256_fingerprint(value: &str) -> Option<[u8; 32]> {
    let (algorithm, hex) = value.trim().split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut out = [0; 32];
    let mut pairs = hex.trim().split(':');
    for byte in &mut out {
        *byte = pairs
            .next()
            .filter(|p| p.len() == 2)
            .and_then(|p| u8::from_str_radix(p, 16).ok())?;
    }
    pairs.next().is_none().then_some(out)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A receive-only offer as Chromium writes it, shortened.
    pub const CHROMIUM: &str = "v=0\r\no=- 4596489990601351948 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
        a=group:BUNDLE 0 1 2\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
        a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
        a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
        a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
        a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
        a=rtpmap:63 red/48000/2\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 106 107 108 109 127\r\nc=IN IP4 0.0.0.0\r\n\
        a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=setup:actpass\r\na=mid:1\r\na=recvonly\r\na=rtcp-mux\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:102 H264/90000\r\na=rtcp-fb:102 goog-remb\r\na=rtcp-fb:102 ccm fir\r\na=rtcp-fb:102 nack\r\na=rtcp-fb:102 nack pli\r\n\
        a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
        a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n\
        a=rtpmap:106 H264/90000\r\na=rtcp-fb:106 nack\r\na=rtcp-fb:106 nack pli\r\n\
        a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f\r\n\
        a=rtpmap:107 rtx/90000\r\n\
        a=rtpmap:108 H264/90000\r\na=rtcp-fb:108 nack\r\na=rtcp-fb:108 nack pli\r\na=rtcp-fb:108 ccm fir\r\n\
        a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:109 rtx/90000\r\n\
        a=rtpmap:127 H264/90000\r\na=rtcp-fb:127 nack\r\na=rtcp-fb:127 nack pli\r\n\
        a=fmtp:127 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

    #[test]
    fn a_browsers_offer() {
        let o = parse(CHROMIUM).unwrap();
        assert_eq!(o.bundle, ["0", "1", "2"]);
        assert_eq!(o.ice_ufrag, "EsAw");
        assert_eq!(o.fingerprint[..2], [0xd2, 0xfa]);
        assert!(!o.wants_us_active);
        let kinds: Vec<_> = o.sections.iter().map(|s| s.kind).collect();
        assert_eq!(
            kinds,
            [
                SectionKind::Medium(MediumKind::Audio),
                SectionKind::Medium(MediumKind::Video),
                SectionKind::Data
            ]
        );
        let video = &o.sections[1];
        assert!(video.receives && !video.sends && !video.disabled);
        let h = video
            .formats
            .iter()
            .find(|f| f.payload_type == 108)
            .unwrap();
        assert_eq!(h.param("profile-level-id"), Some("42e01f"));
        assert!(h.nack && h.pli && h.fir);
    }

    #[test]
    fn the_capture_time_has_an_id_per_section() {
        let with = |line: &str| {
            let text = CHROMIUM.replace("a=mid:1\r\n", &format!("a=mid:1\r\n{line}\r\n"));
            let o = parse(&text).unwrap();
            assert_eq!(o.sections[0].abs_capture_time, None);
            o.sections[1].abs_capture_time
        };
        let uri = CAPTURE_TIME_URI;
        assert_eq!(with(&format!("a=extmap:4 {uri}")), Some(4));
        assert_eq!(with(&format!("a=extmap:20/recvonly {uri} x")), Some(20));
        for bad in ["0", "256", "-1", "x", ""] {
            assert_eq!(with(&format!("a=extmap:{bad} {uri}")), None, "{bad}");
        }
        assert_eq!(with("a=extmap:4"), None);
        assert_eq!(with("a=extmap:4 urn:ietf:params:rtp-hdrext:toffset"), None);
    }

    #[test]
    fn broken_offers_say_what_is_wrong() {
        for (text, what) in [
            ("", "not SDP"),
            ("hello", "not SDP"),
            ("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", "m="),
        ] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
        let without = |line: &str| {
            let text: String = CHROMIUM
                .split_inclusive("\r\n")
                .filter(|l| !l.starts_with(line))
                .collect();
            parse(&text).unwrap_err().to_string()
        };
        assert!(without("a=fingerprint").contains("fingerprint"));
        assert!(without("a=ice-ufrag").contains("ice-ufrag"));
        assert!(without("a=ice-pwd").contains("ice-pwd"));
    }

    proptest! {
        #[test]
        fn any_text(text in ".{0,400}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_damage(at in 0usize..CHROMIUM.len(), with in "[ -~\r\n]{0,6}") {
            let mut text = CHROMIUM.to_owned();
            text.replace_range(at..=at, &with);
            let _ = parse(&text);
        }
    }
}
