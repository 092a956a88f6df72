//! What is taken of an offer: which media flow, in which payload types (JSEP RFC 9429 §5.3).
//!
//! Not here: reading offers (`offer`), the text that says what was chosen (`answer`).

use kerbside_codecs::media::{Codec, Medium, MediumKind};
use kerbside_codecs::rtp::extension::ONE_BYTE_ID_MAX;
use kerbside_codecs::rtp::h265;
use kerbside_codecs::rtsp::format::{CARRIED, medium as carried_medium};

use super::offer::{Format, Offer, Section, SectionKind};

/// What was agreed, in the order of the stream's media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub media: Vec<Agreed>,
    /// Section of the data channels, if there is one.
    pub data: Option<usize>,
    /// We send; otherwise we receive.
    pub we_send: bool,
}

/// One medium that will flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub section: usize,
    /// Index into the stream's media.
    pub medium: u8,
    pub codec: Medium,
    pub format: Format,
    /// Payload type of retransmissions (RFC 4588), when we receive.
    pub rtx: Option<u8>,
    /// Our SSRC when we send.
    pub ssrc: u32,
    /// Id of the header extension abs-capture-time; when we send, one of the one-byte form.
    pub abs_capture_time: Option<u8>,
}

/// Chooses for a reader: what of the stream this offer can take.
///
/// # Errors
/// In words for the client: what the stream carries and what the offer takes.
pub fn play(offer: &Offer, media: &[Medium]) -> Result<Plan, String> {
    let mut agreed: Vec<Agreed> = Vec::new();
    for (i, section) in usable(offer, |s| s.receives) {
        let SectionKind::Medium(kind) = section.kind else {
            continue;
        };
        let choice = media
            .iter()
            .enumerate()
            .filter(|(m, medium)| {
                medium.codec.kind() == kind && !agreed.iter().any(|a| usize::from(a.medium) == *m)
            })
            .find_map(|(m, medium)| Some((m, medium, best_format(section, medium)?)));
        if let Some((m, medium, format)) = choice
            && let Ok(m) = u8::try_from(m)
        {
            agreed.push(Agreed {
                section: i,
                medium: m,
                codec: medium.clone(),
                format,
                rtx: None,
                ssrc: new_ssrc(),
                abs_capture_time: section.abs_capture_time.filter(|id| *id <= ONE_BYTE_ID_MAX),
            });
        }
    }
    agreed.sort_by_key(|a| a.medium);
    keep_one_without_bundle(offer, &mut agreed);
    let wants_video = offer
        .sections
        .iter()
        .any(|s| s.kind == SectionKind::Medium(MediumKind::Video) && s.receives && !s.disabled);
    let is_video = |m: &Medium| m.codec.kind() == MediumKind::Video;
    let video_missed =
        wants_video && media.iter().any(is_video) && !agreed.iter().any(|a| is_video(&a.codec));
    if agreed.is_empty() || video_missed {
        let carried: Vec<_> = media.iter().map(|m| described(&m.codec)).collect();
        return Err(format!(
            "the stream carries {}; the offer takes {}",
            carried.join(", "),
            names(offer, |s| s.receives)
        ));
    }
    Ok(Plan {
        media: agreed,
        data: data_section(offer),
        we_send: true,
    })
}

/// Chooses for a publisher: what of the offer we can carry.
///
/// # Errors
/// In words for the client.
pub fn publish(offer: &Offer) -> Result<Plan, String> {
    let mut agreed: Vec<Agreed> = Vec::new();
    for (i, section) in usable(offer, |s| s.sends) {
        let SectionKind::Medium(kind) = section.kind else {
            continue;
        };
        // One medium of each kind: what our readers can take.
        if agreed.iter().any(|a| a.codec.codec.kind() == kind) {
            continue;
        }
        let mut formats: Vec<_> = section
            .formats
            .iter()
            .filter_map(|f| Some((f, carried(f, kind)?)))
            .collect();
        formats.sort_by_key(|(f, medium)| reach(f, &medium.codec));
        if let Some((format, codec)) = formats.into_iter().next() {
            agreed.push(Agreed {
                section: i,
                medium: 0,
                codec,
                rtx: rtx_of(section, format),
                format: format.clone(),
                ssrc: new_ssrc(),
                abs_capture_time: section.abs_capture_time,
            });
        }
    }
    agreed.sort_by_key(|a| a.codec.codec.kind() != MediumKind::Video);
    keep_one_without_bundle(offer, &mut agreed);
    for (i, a) in (0u8..).zip(&mut agreed) {
        a.medium = i;
    }
    if agreed.is_empty() {
        return Err(format!(
            "{CARRIED} can be carried; the offer sends {}",
            names(offer, |s| s.sends)
        ));
    }
    Ok(Plan {
        media: agreed,
        data: None,
        we_send: false,
    })
}

/// Without NACK nobody asks for retransmissions.
fn rtx_of(section: &Section, of: &Format) -> Option<u8> {
    section
        .formats
        .iter()
        .filter(|f| of.nack && f.name.eq_ignore_ascii_case("rtx") && f.clock_rate == of.clock_rate)
        .find(|f| f.param("apt").and_then(|a| a.parse().ok()) == Some(of.payload_type))
        .map(|f| f.payload_type)
}

fn usable(
    offer: &Offer,
    direction: impl Fn(&Section) -> bool,
) -> impl Iterator<Item = (usize, &Section)> {
    offer.sections.iter().enumerate().filter(move |(_, s)| {
        !s.disabled && direction(s) && (offer.bundle.is_empty() || in_bundle(offer, s))
    })
}

fn in_bundle(offer: &Offer, s: &Section) -> bool {
    s.mid.as_ref().is_some_and(|m| offer.bundle.contains(m))
}

/// Everything shares one transport here, so without BUNDLE only one section can be taken: video if there is any.
fn keep_one_without_bundle(offer: &Offer, agreed: &mut Vec<Agreed>) {
    if offer.bundle.is_empty() && agreed.len() > 1 {
        agreed.sort_by_key(|a| a.codec.codec.kind() != MediumKind::Video);
        agreed.truncate(1);
    }
}

fn data_section(offer: &Offer) -> Option<usize> {
    offer
        .sections
        .iter()
        .position(|s| s.kind == SectionKind::Data && !s.disabled && in_bundle(offer, s))
}

/// The formats of an offer, each once; those that differ by profile with their profile.
fn names(offer: &Offer, direction: impl Fn(&Section) -> bool) -> String {
    let mut names: Vec<String> = Vec::new();
    for f in usable(offer, direction).flat_map(|(_, s)| &s.formats) {
        let name = match PROFILES
            .iter()
            .find(|(n, _)| f.name.eq_ignore_ascii_case(n))
        {
            Some((_, key)) => match f.param(key) {
                Some(profile) => format!("{} ({key} {})", f.name, clip(profile)),
                None => f.name.clone(),
            },
            None => f.name.clone(),
        };
        if f.name != "rtx" && f.name.len() < 20 && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

/// Formats that a decoder may take in some profiles only, and the parameter that says which.
const PROFILES: [(&str, &str); 3] = [
    ("H264", "profile-level-id"),
    ("H265", "profile-id"),
    ("AV1", "profile"),
];

fn clip(value: &str) -> &str {
    value.get(..8).unwrap_or(value)
}

/// What the stream carries, with the profile a decoder must know.
fn described(codec: &Codec) -> String {
    let name = codec.name();
    match codec {
        Codec::H264 { sps, .. } => match sps[..] {
            [_, profile, constraints, level, ..] => {
                format!("{name} (profile-level-id {profile:02x}{constraints:02x}{level:02x})")
            }
            _ => name.to_owned(),
        },
        Codec::H265 { sps, .. } => match h265::Sps::parse(sps) {
            Some(s) => format!("{name} (profile-id {})", s.profile),
            None => name.to_owned(),
        },
        Codec::Av1 { profile, .. } => format!("{name} (profile {profile})"),
        _ => name.to_owned(),
    }
}

/// What most viewers can take goes first: H.264 (with fragments), then what the publisher likes best.
fn reach(f: &Format, codec: &Codec) -> u8 {
    match codec {
        Codec::H264 { .. } if packetization_mode_1(f) => 0,
        Codec::H264 { .. } => 1,
        _ => 2,
    }
}

fn packetization_mode_1(f: &Format) -> bool {
    f.param("packetization-mode") == Some("1")
}

/// The offered format that suits a medium of the stream best; None when no decoder is offered that can take it.
fn best_format(section: &Section, medium: &Medium) -> Option<Format> {
    section
        .formats
        .iter()
        .filter(|f| {
            f.name.eq_ignore_ascii_case(medium.codec.encoding_name())
                && f.clock_rate == medium.clock_rate
                && decodes(f, &medium.codec)
        })
        .min_by_key(|f| match &medium.codec {
            Codec::H264 { sps, .. } => h264_distance(f, sps),
            _ => 0,
        })
        .cloned()
}

/// Can a decoder of this format take the stream? Levels are not asked: cameras overstate them, decoders understate
/// them. As long as the stream's parameters are unknown, it may.
fn decodes(f: &Format, codec: &Codec) -> bool {
    let number = |key, default| f.param(key).map_or(Some(default), |v| v.parse().ok());
    match codec {
        Codec::H264 { sps, .. } => match sps[..] {
            // Baseline to High: who offers one of them decodes them all, whatever is written in the offer. Those of
            // more bits or colours (High 10, 4:2:2, 4:4:4) need a decoder that names them.
            [_, profile, ..] if !ORDINARY.contains(&profile) => {
                h264_offered(f) >> 16 == u32::from(profile)
            }
            _ => true,
        },
        // RFC 7798 §7.1: without the parameter, Main.
        Codec::H265 { sps, .. } => h265::Sps::parse(sps)
            .is_none_or(|s| number("profile-id", 1).is_some_and(|p| s.decodable_by(p))),
        // A decoder of a profile takes the lower ones too (AV1 specification, annex A.2).
        Codec::Av1 { profile, .. } => number("profile", 0).is_some_and(|p| *profile <= p),
        _ => true,
    }
}

/// Baseline, Main, Extended, High.
const ORDINARY: [u8; 4] = [66, 77, 88, 100];

fn h264_offered(f: &Format) -> u32 {
    f.param("profile-level-id")
        .and_then(|p| u32::from_str_radix(p, 16).ok())
        // RFC 6184 §8.1: without the parameter, Baseline level 1.
        .unwrap_or(0x42_000a)
}

/// How badly a format suits a stream: wrong packetization mode, then a lower profile than the stream's, then a
/// higher one.
fn h264_distance(f: &Format, sps: &[u8]) -> u32 {
    let offered = h264_offered(f);
    let stream = match sps {
        [_, profile, constraints, level, ..] => {
            u32::from_be_bytes([0, *profile, *constraints, *level])
        }
        _ => 0x42_e01f,
    };
    let (o, s) = (profile_rank(offered), profile_rank(stream));
    let mode = if packetization_mode_1(f) { 0 } else { 1000 };
    let profile = if o >= s { (o - s) * 10 } else { (s - o) * 100 };
    mode + profile
}

/// Constrained Baseline, Baseline, Main, High, others.
fn profile_rank(profile_level_id: u32) -> u32 {
    match (profile_level_id >> 16, profile_level_id >> 8 & 0x40 != 0) {
        (0x42, true) => 0,
        (0x42, false) => 1,
        (0x4d, _) => 2,
        (0x64, _) => 3,
        _ => 4,
    }
}

/// What a publisher's format is, if it can be carried.
fn carried(f: &Format, kind: MediumKind) -> Option<Medium> {
    let fmtp = f.fmtp.as_deref().unwrap_or_default();
    let medium = carried_medium(&f.name, Some(f.clock_rate), f.channels, fmtp)?;
    // RFC 7874 knows no AAC; a sender of it would be none that we understand.
    let webrtc = !matches!(medium.codec, Codec::Aac { .. });
    (webrtc && medium.codec.kind() == kind).then_some(medium)
}

fn new_ssrc() -> u32 {
    rand::random::<u32>() | 1
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::offer;
    use super::super::offer::tests::CHROMIUM;
    use super::*;
    use bytes::Bytes;

    pub fn h264(sps: &'static [u8]) -> Medium {
        Medium {
            codec: Codec::H264 {
                sps: Bytes::from_static(sps),
                pps: Bytes::new(),
            },
            clock_rate: 90_000,
        }
    }

    pub fn opus() -> Medium {
        Medium {
            codec: Codec::Opus { channels: 2 },
            clock_rate: 48_000,
        }
    }

    #[test]
    fn the_nearest_profile_is_chosen() {
        let offer = offer::parse(CHROMIUM).unwrap();
        let chosen = |sps| {
            play(&offer, &[h264(sps)]).unwrap().media[0]
                .format
                .payload_type
        };
        assert_eq!(
            chosen(&[0x67, 0x42, 0xc0, 0x1f]),
            108,
            "constrained baseline"
        );
        assert_eq!(chosen(&[0x67, 0x42, 0x00, 0x1f]), 102, "baseline");
        assert_eq!(chosen(&[0x67, 0x4d, 0x40, 0x28]), 127, "main");
        assert_eq!(
            chosen(&[0x67, 0x64, 0x00, 0x28]),
            127,
            "high: main is nearest"
        );
        assert_eq!(chosen(&[]), 108, "unknown");
    }

    #[test]
    fn what_cannot_be_carried_is_said() {
        let vp8: String = CHROMIUM.replace("H264", "VP9");
        let offer = offer::parse(&vp8).unwrap();
        let e = play(&offer, &[h264(&[]), opus()]).unwrap_err();
        assert!(e.contains("carries H264, opus"), "{e}");
        assert!(e.contains("VP8"), "{e}");
        let sending = offer::parse(&vp8.replace("recvonly", "sendonly")).unwrap();
        let plan = publish(&sending).unwrap();
        assert_eq!(plan.media.len(), 1, "audio can still be carried");
    }

    /// Chromium's offer with another video format in the place of VP8.
    fn with(rtpmap: &str) -> Offer {
        let text = CHROMIUM.replace("a=rtpmap:96 VP8/90000", &format!("a=rtpmap:96 {rtpmap}"));
        offer::parse(&text).unwrap()
    }

    fn h265() -> Medium {
        // Main, 640×360.
        let sps = b"\x42\x01\x01\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xa0\x05\x02\x01\x71\xf2\xe5\x95";
        Medium {
            codec: Codec::H265 {
                vps: Bytes::new(),
                sps: Bytes::from_static(sps),
                pps: Bytes::new(),
            },
            clock_rate: 90_000,
        }
    }

    fn av1(profile: u8) -> Medium {
        Medium {
            codec: Codec::Av1 {
                profile,
                level_idx: 8,
                tier: 0,
            },
            clock_rate: 90_000,
        }
    }

    fn aac() -> Medium {
        let fmtp = "mode=AAC-hbr;config=1190;sizelength=13;indexlength=3;indexdeltalength=3";
        carried_medium("mpeg4-generic", Some(48_000), 2, fmtp).unwrap()
    }

    #[test]
    fn a_decoder_that_does_not_know_the_profile_is_none() {
        let takes =
            |rtpmap: &str, medium: &Medium| play(&with(rtpmap), std::slice::from_ref(medium));
        let none = takes("VP8/90000", &h265()).unwrap_err();
        assert!(
            none.starts_with("the stream carries H265 (profile-id 1); the offer takes "),
            "{none}"
        );
        assert!(none.contains("H264 (profile-level-id 42e01f)"), "{none}");
        assert!(takes("H265/90000", &h265()).is_ok());
        assert!(
            takes("H265/90000\r\na=fmtp:96 profile-id=2", &h265()).is_ok(),
            "Main 10 takes Main"
        );
        assert!(takes("H265/90000\r\na=fmtp:96 profile-id=4", &h265()).is_err());
        assert!(takes("AV1/90000", &av1(0)).is_ok());
        assert!(takes("AV1/90000", &av1(1)).is_err());
        assert!(takes("AV1/90000\r\na=fmtp:96 profile=1", &av1(1)).is_ok());
        let high_10 = h264(&[0x67, 110, 0, 31]);
        let none = takes("VP8/90000", &high_10).unwrap_err();
        assert!(none.contains("H264 (profile-level-id 6e001f)"), "{none}");
        let named = "H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=6e001f";
        assert!(takes(named, &high_10).is_ok());
    }

    #[test]
    fn sound_alone_is_for_those_who_asked_for_no_picture() {
        let both = [h265(), opus()];
        assert!(play(&with("VP8/90000"), &both).is_err());
        let text = CHROMIUM.replace("m=video 9", "m=video 0");
        let plan = play(&offer::parse(&text).unwrap(), &both).unwrap();
        assert_eq!(plan.media.len(), 1);
        assert_eq!(plan.media[0].codec, opus());
        // AAC is for RTSP: the picture comes alone.
        let plan = play(&with("VP8/90000"), &[h264(&[]), aac()]).unwrap();
        assert_eq!(plan.media.len(), 1);
        let e = play(&with("VP8/90000"), &[aac()]).unwrap_err();
        assert!(e.contains("carries AAC"), "{e}");
    }

    #[test]
    fn a_publisher_gets_what_most_viewers_take() {
        let chosen = |rtpmap: &str, without: &str| {
            let text = CHROMIUM
                .replace("a=rtpmap:96 VP8/90000", &format!("a=rtpmap:96 {rtpmap}"))
                .replace("H264", without)
                .replace("recvonly", "sendonly");
            publish(&offer::parse(&text).unwrap()).unwrap().media[0]
                .codec
                .codec
                .name()
        };
        assert_eq!(chosen("AV1/90000", "H264"), "H264");
        assert_eq!(chosen("AV1/90000", "VP9"), "AV1");
        assert_eq!(chosen("H265/90000", "VP9"), "H265");
        assert_eq!(chosen("mpeg4-generic/90000", "VP9"), "opus");
    }

    #[test]
    fn a_publisher_gets_mode_1() {
        let offer = offer::parse(&CHROMIUM.replace("recvonly", "sendonly")).unwrap();
        let plan = publish(&offer).unwrap();
        assert_eq!(plan.media[0].format.payload_type, 102);
        assert_eq!(plan.media[0].medium, 0);
        assert_eq!(plan.media[1].codec, opus());
        assert!(publish(&offer::parse(CHROMIUM).unwrap()).is_err());
    }
}
