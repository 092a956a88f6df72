//! One codec in SDP, both ways: `a=rtpmap` and `a=fmtp` (RFC 8866 §6.6, §6.15) to a [`Medium`] and back.
//!
//! Not here: `m=` lines (`sdp`), which of several formats suits a viewer (gateway `webrtc`).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use crate::media::{Codec, Medium};
use crate::rtp::aac::{AudioConfig, Packing};
use crate::rtp::{h264, h265};

/// What we carry, for people.
pub const CARRIED: &str = "H264, H265, AV1, opus, PCMA, PCMU and AAC (mpeg4-generic)";

/// Cameras leave the padding away, or the bits behind it dirty.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Parameter sets of one kind that are looked at.
const SPROPS_MAX: usize = 16;
/// Bytes of a parameter set in SDP.
const SET_BYTES_MAX: usize = 4096;

/// A parameter of an `a=fmtp` value; flags without a value are empty.
pub fn parameter<'a>(fmtp: &'a str, wanted: &str) -> Option<&'a str> {
    fmtp.split(';')
        .map(|p| p.trim().split_once('=').unwrap_or((p.trim(), "")))
        .find(|(n, _)| n.trim().eq_ignore_ascii_case(wanted))
        .map(|(_, v)| v.trim())
}

/// What a format is, if we carry it. `fmtp`: without payload type, empty if there is none.
pub fn medium(name: &str, clock_rate: Option<u32>, channels: u8, fmtp: &str) -> Option<Medium> {
    let parameter = |wanted: &str| parameter(fmtp, wanted);
    let clock = |rate: u32| clock_rate.is_none_or(|r| r == rate).then_some(rate);
    let (codec, clock_rate) = match name.to_ascii_uppercase().as_str() {
        "H264" if parameter("packetization-mode").is_none_or(|mode| mode != "2") => {
            let sets = sprop(parameter("sprop-parameter-sets"));
            let first = |kind| sets.iter().find(|n| h264::NalType::of(n) == kind);
            let sps = first(h264::NalType::SPS).cloned().unwrap_or_default();
            let pps = first(h264::NalType::PPS).cloned().unwrap_or_default();
            (Codec::H264 { sps, pps }, clock(90_000)?)
        }
        "H265" | "HEVC" if in_decoding_order(fmtp) => {
            let first = |key, kind| {
                let mut sets = sprop(parameter(key)).into_iter();
                sets.find(|n| h265::NalType::of(n) == Some(kind))
                    .unwrap_or_default()
            };
            let codec = Codec::H265 {
                vps: first("sprop-vps", h265::NalType::VPS),
                sps: first("sprop-sps", h265::NalType::SPS),
                pps: first("sprop-pps", h265::NalType::PPS),
            };
            (codec, clock(90_000)?)
        }
        "AV1" => {
            // AV1 payload format §7.2.1: the defaults are Main, level 3.1, tier 0.
            let number = |key, default| parameter(key).map_or(Some(default), |v| v.parse().ok());
            let codec = Codec::Av1 {
                profile: number("profile", 0).filter(|p| *p < 3)?,
                level_idx: number("level-idx", 5)?,
                tier: number("tier", 0)?,
            };
            (codec, clock(90_000)?)
        }
        "OPUS" => {
            let stereo = parameter("sprop-stereo") == Some("1") || channels == 2;
            let channels = 1 + u8::from(stereo);
            (Codec::Opus { channels }, clock(48_000)?)
        }
        "PCMA" if channels == 1 => (Codec::Pcma, clock(8000)?),
        "PCMU" if channels == 1 => (Codec::Pcmu, clock(8000)?),
        "MPEG4-GENERIC" => aac(clock_rate?, fmtp)?,
        _ => return None,
    };
    Some(Medium { codec, clock_rate })
}

/// RFC 7798 §7.1: decoding order numbers and several streams are not taken.
fn in_decoding_order(fmtp: &str) -> bool {
    parameter(fmtp, "sprop-max-don-diff").is_none_or(|d| d == "0")
        && parameter(fmtp, "tx-mode").is_none_or(|m| m.eq_ignore_ascii_case("SRST"))
}

/// RFC 3640 §4.1: AAC-hbr and AAC-lbr, without interleaving and auxiliary sections.
fn aac(clock_rate: u32, fmtp: &str) -> Option<(Codec, u32)> {
    let mode = parameter(fmtp, "mode")?.to_ascii_lowercase();
    let (size, index) = match mode.as_str() {
        "aac-hbr" => (13, 3),
        "aac-lbr" => (6, 2),
        _ => return None,
    };
    let width = |key, default| parameter(fmtp, key).map_or(Some(default), |v| v.parse().ok());
    let packing = Packing {
        size: width("sizelength", size).filter(|w| (1..=16).contains(w))?,
        index: width("indexlength", index).filter(|w| *w <= 8)?,
        index_delta: width("indexdeltalength", index).filter(|w| *w <= 8)?,
    };
    let more = [
        "ctsdeltalength",
        "dtsdeltalength",
        "randomaccessindication",
        "streamstateindication",
        "auxiliarydatasizelength",
        "maxdisplacement",
    ];
    if more
        .iter()
        .any(|key| parameter(fmtp, key).is_some_and(|v| v != "0"))
    {
        return None;
    }
    let config = unhex(parameter(fmtp, "config")?)?;
    let parsed = AudioConfig::parse(&config)?;
    let codec = Codec::Aac {
        config,
        channels: parsed.channels,
        packing,
    };
    (1000..=192_000)
        .contains(&clock_rate)
        .then_some((codec, clock_rate))
}

/// The value of `a=rtpmap` behind the payload type.
pub fn rtpmap(medium: &Medium) -> String {
    let name = medium.codec.encoding_name();
    let clock_rate = medium.clock_rate;
    match medium.codec {
        Codec::Opus { .. } => format!("{name}/{clock_rate}/2"),
        Codec::Aac { channels, .. } if channels > 0 => format!("{name}/{clock_rate}/{channels}"),
        _ => format!("{name}/{clock_rate}"),
    }
}

/// The value of `a=fmtp` behind the payload type: what a decoder has to know to begin.
pub fn fmtp(codec: &Codec) -> Option<String> {
    let mut out = Vec::new();
    match codec {
        Codec::H264 { sps, pps } => {
            out.push("packetization-mode=1".to_owned());
            if let Some([_, profile, constraints, level, ..]) = sps.first_chunk::<4>() {
                out.push(format!(
                    "profile-level-id={profile:02X}{constraints:02X}{level:02X}"
                ));
            }
            if !sps.is_empty() && !pps.is_empty() {
                let (sps, pps) = (BASE64.encode(sps), BASE64.encode(pps));
                out.push(format!("sprop-parameter-sets={sps},{pps}"));
            }
        }
        Codec::H265 { vps, sps, pps } => {
            if let Some(s) = h265::Sps::parse(sps) {
                let (profile, level, tier) = (s.profile, s.level, u8::from(s.high_tier));
                out.push(format!(
                    "profile-id={profile};tier-flag={tier};level-id={level}"
                ));
            }
            for (key, nal) in [("sprop-vps", vps), ("sprop-sps", sps), ("sprop-pps", pps)] {
                if !nal.is_empty() {
                    out.push(format!("{key}={}", BASE64.encode(nal)));
                }
            }
        }
        Codec::Av1 {
            profile,
            level_idx,
            tier,
        } => out.push(format!(
            "profile={profile};level-idx={level_idx};tier={tier}"
        )),
        Codec::Opus { channels: 2 } => out.push("sprop-stereo=1".to_owned()),
        Codec::Opus { .. } | Codec::Pcma | Codec::Pcmu => {}
        Codec::Aac { config, .. } => {
            let Packing {
                size,
                index,
                index_delta,
            } = Packing::HBR;
            let hex: String = config.iter().map(|b| format!("{b:02X}")).collect();
            out.push(format!(
                "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength={size};indexlength={index};\
                 indexdeltalength={index_delta};config={hex}"
            ));
        }
    }
    (!out.is_empty()).then(|| out.join(";"))
}

/// NAL units of a `sprop-*` parameter; what cannot be read is left to the in-band sets.
fn sprop(value: Option<&str>) -> Vec<Bytes> {
    value
        .unwrap_or_default()
        .split(',')
        .take(SPROPS_MAX)
        .filter(|text| text.len() <= SET_BYTES_MAX * 2)
        .filter_map(|text| BASE64.decode(text.trim()).ok())
        .map(Bytes::from)
        .collect()
}

fn unhex(text: &str) -> Option<Bytes> {
    let text = text.trim().trim_matches('"');
    if text.is_empty() || !text.len().is_multiple_of(2) || text.len() > 128 || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HBR: &str = "streamtype=5; profile-level-id=15; mode=AAC-hbr; config=1190; SizeLength=13; IndexLength=3; \
                       IndexDeltaLength=3";

    #[test]
    fn aac_as_cameras_write_it() {
        let Some(Medium {
            codec:
                Codec::Aac {
                    config,
                    channels,
                    packing,
                },
            clock_rate,
        }) = medium("MPEG4-GENERIC", Some(48_000), 2, HBR)
        else {
            panic!("AAC is carried");
        };
        assert_eq!(
            (&config[..], channels, clock_rate),
            (&[0x11, 0x90][..], 2, 48_000)
        );
        assert_eq!(packing, Packing::HBR);
        for (broken, why) in [
            (HBR.replace("AAC-hbr", "CELP-vbr"), "another mode"),
            (HBR.replace("config=1190", "config="), "no config"),
            (HBR.replace("config=1190", "config=1xyz"), "no hex"),
            (HBR.replace("=13", "=40"), "too wide"),
            (format!("{HBR};ctsDeltaLength=22"), "composition times"),
            (format!("{HBR};maxDisplacement=2"), "interleaved"),
        ] {
            assert_eq!(
                medium("mpeg4-generic", Some(48_000), 2, &broken),
                None,
                "{why}"
            );
        }
        assert_eq!(medium("MP4A-LATM", Some(48_000), 2, "cpresent=0"), None);
        let lbr = HBR
            .replace("AAC-hbr", "AAC-lbr")
            .replace("=13", "=6")
            .replace("Length=3", "Length=2");
        assert!(medium("mpeg4-generic", Some(48_000), 2, &lbr).is_some());
    }

    #[test]
    fn h265_with_decoding_order_numbers_is_not_carried() {
        let with = |fmtp: &str| medium("H265", Some(90_000), 1, fmtp).is_some();
        assert!(with("") && with("sprop-max-don-diff=0;tx-mode=SRST"));
        assert!(!with("sprop-max-don-diff=2") && !with("tx-mode=MRST"));
    }

    #[test]
    fn av1_has_defaults() {
        let with = |fmtp: &str| medium("AV1", Some(90_000), 1, fmtp).map(|m| m.codec);
        let main = Codec::Av1 {
            profile: 0,
            level_idx: 5,
            tier: 0,
        };
        assert_eq!(with(""), Some(main));
        assert_eq!(with("profile=7"), None);
        assert_eq!(
            with("level-idx=8;profile=1;tier=1"),
            Some(Codec::Av1 {
                profile: 1,
                level_idx: 8,
                tier: 1
            })
        );
    }

    proptest! {
        #[test]
        fn any_text(name in "(H264|H265|AV1|mpeg4-generic|opus)", fmtp in "([a-z-]{0,12}=?[ -~]{0,20};?){0,6}") {
            if let Some(m) = medium(&name, Some(90_000), 1, &fmtp) {
                let again = fmtp_of(&m);
                prop_assert!(again.len() < 200_000);
            }
        }

        #[test]
        fn any_config(bytes in prop::collection::vec(any::<u8>(), 1..20)) {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let fmtp = format!("mode=AAC-hbr;config={hex}");
            if let Some(m) = medium("mpeg4-generic", Some(48_000), 2, &fmtp) {
                let back = medium("mpeg4-generic", Some(48_000), 2, &fmtp_of(&m));
                prop_assert_eq!(back, Some(m));
            }
        }
    }

    fn fmtp_of(m: &Medium) -> String {
        fmtp(&m.codec).unwrap_or_default()
    }
}
