//! What is taken of an offer: which media flow, in which payload types (JSEP RFC 9429 §5.3).
//!
//! Not here: reading offers (`offer`), the text that says what was chosen (`answer`).

use bytes::Bytes;
use kerbside_codecs::media::{Codec, Medium, MediumKind};

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
        let carried: Vec<_> = media.iter().map(|m| m.codec.encoding_name()).collect();
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
        formats.sort_by_key(|(f, _)| kind == MediumKind::Video && !packetization_mode_1(f));
        if let Some((format, codec)) = formats.into_iter().next() {
            agreed.push(Agreed {
                section: i,
                medium: 0,
                codec,
                rtx: rtx_of(section, format),
                format: format.clone(),
                ssrc: new_ssrc(),
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
            "H264, opus, PCMA and PCMU can be carried; the offer sends {}",
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

fn names(offer: &Offer, direction: impl Fn(&Section) -> bool) -> String {
    let mut names: Vec<&str> = Vec::new();
    for f in usable(offer, direction).flat_map(|(_, s)| &s.formats) {
        if f.name != "rtx" && f.name.len() < 20 && !names.contains(&f.name.as_str()) {
            names.push(&f.name);
        }
    }
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

fn packetization_mode_1(f: &Format) -> bool {
    f.param("packetization-mode") == Some("1")
}

/// The offered format that suits a medium of the stream best.
fn best_format(section: &Section, medium: &Medium) -> Option<Format> {
    section
        .formats
        .iter()
        .filter(|f| {
            f.name.eq_ignore_ascii_case(medium.codec.encoding_name())
                && f.clock_rate == medium.clock_rate
        })
        .min_by_key(|f| match &medium.codec {
            Codec::H264 { sps, .. } => h264_distance(f, sps),
            _ => 0,
        })
        .cloned()
}

/// How badly a format suits a stream: wrong packetization mode, then a lower profile than the stream's, then a
/// higher one. A decoder of a lower profile usually plays the stream nevertheless, so nothing is ruled out.
fn h264_distance(f: &Format, sps: &[u8]) -> u32 {
    let offered = f
        .param("profile-level-id")
        .and_then(|p| u32::from_str_radix(p, 16).ok())
        // RFC 6184 §8.1: without the parameter, Baseline level 1.
        .unwrap_or(0x42_000a);
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

fn carried(f: &Format, kind: MediumKind) -> Option<Medium> {
    let is = |name: &str, rate: u32| f.name.eq_ignore_ascii_case(name) && f.clock_rate == rate;
    let codec = match kind {
        MediumKind::Video if is("H264", 90_000) => Codec::H264 {
            sps: Bytes::new(),
            pps: Bytes::new(),
        },
        MediumKind::Audio if is("opus", 48_000) => Codec::Opus {
            channels: f.channels,
        },
        MediumKind::Audio if is("PCMA", 8_000) && f.channels == 1 => Codec::Pcma,
        MediumKind::Audio if is("PCMU", 8_000) && f.channels == 1 => Codec::Pcmu,
        _ => return None,
    };
    Some(Medium {
        codec,
        clock_rate: f.clock_rate,
    })
}

fn new_ssrc() -> u32 {
    rand::random::<u32>() | 1
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::offer;
    use super::super::offer::tests::CHROMIUM;
    use super::*;

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
