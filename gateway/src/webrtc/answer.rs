//! What we take from an offer, and the answer that says so (JSEP RFC 9429 §5.3, BUNDLE RFC 8843, ICE-lite RFC 8445).
//!
//! Here: the choice of payload types and the SDP text. Not here: reading offers (`offer`), transport.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

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
    /// Our SSRC when we send.
    pub ssrc: u32,
}

/// How we are reached.
#[derive(Clone, Debug)]
pub struct Local {
    pub ufrag: String,
    pub password: String,
    /// SHA-256 of our certificate.
    pub fingerprint: [u8; 32],
    pub addresses: Vec<IpAddr>,
    pub udp_port: u16,
    pub tcp_port: Option<u16>,
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

/// The answer to `offer` that says `plan`.
pub fn write(offer: &Offer, plan: &Plan, local: &Local) -> String {
    let mut s = String::with_capacity(2048);
    let number: u64 = rand::random::<u64>() >> 1;
    let taken = |i: usize| plan.media.iter().any(|a| a.section == i) || plan.data == Some(i);
    line(&mut s, "v=0");
    line(&mut s, &format!("o=- {number} 1 IN IP4 127.0.0.1"));
    line(&mut s, "s=-");
    line(&mut s, "t=0 0");
    line(&mut s, "a=ice-lite");
    if !offer.bundle.is_empty() {
        let mids: Vec<_> = offer
            .sections
            .iter()
            .enumerate()
            .filter(|(i, _)| taken(*i))
            .filter_map(|(_, s)| s.mid.as_deref())
            .collect();
        line(&mut s, &format!("a=group:BUNDLE {}", mids.join(" ")));
    }
    line(&mut s, "a=msid-semantic: WMS *");
    for (i, section) in offer.sections.iter().enumerate() {
        let agreed = plan.media.iter().find(|a| a.section == i);
        if let Some(a) = agreed {
            medium_section(&mut s, section, a, plan.we_send);
        } else if plan.data == Some(i) {
            line(&mut s, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
            line(&mut s, "c=IN IP4 0.0.0.0");
            mid(&mut s, section);
            line(&mut s, "a=sctp-port:5000");
            line(&mut s, "a=max-message-size:1024");
        } else {
            line(
                &mut s,
                &format!("m={} 0 {} {}", section.media, section.proto, section.fmt),
            );
            line(&mut s, "c=IN IP4 0.0.0.0");
            mid(&mut s, section);
            line(&mut s, "a=inactive");
            continue;
        }
        transport(&mut s, offer, local);
    }
    s
}

fn line(s: &mut String, text: &str) {
    s.push_str(text);
    s.push_str("\r\n");
}

fn mid(s: &mut String, section: &Section) {
    if let Some(m) = &section.mid {
        line(s, &format!("a=mid:{m}"));
    }
}

fn medium_section(s: &mut String, section: &Section, a: &Agreed, we_send: bool) {
    let f = &a.format;
    let pt = f.payload_type;
    line(s, &format!("m={} 9 {} {pt}", section.media, section.proto));
    line(s, "c=IN IP4 0.0.0.0");
    line(s, "a=rtcp:9 IN IP4 0.0.0.0");
    mid(s, section);
    line(s, if we_send { "a=sendonly" } else { "a=recvonly" });
    line(s, "a=rtcp-mux");
    let channels = if f.channels > 1 {
        format!("/{}", f.channels)
    } else {
        String::new()
    };
    line(
        s,
        &format!("a=rtpmap:{pt} {}/{}{channels}", f.name, f.clock_rate),
    );
    if let Some(fmtp) = &f.fmtp {
        line(s, &format!("a=fmtp:{pt} {fmtp}"));
    }
    for (offered, what) in [(f.nack, "nack"), (f.pli, "nack pli"), (f.fir, "ccm fir")] {
        if offered {
            line(s, &format!("a=rtcp-fb:{pt} {what}"));
        }
    }
    if we_send {
        let ssrc = a.ssrc;
        let kind = &section.media;
        line(s, &format!("a=msid:kerbside {kind}"));
        line(s, &format!("a=ssrc:{ssrc} cname:kerbside"));
    }
}

fn transport(s: &mut String, offer: &Offer, local: &Local) {
    line(s, &format!("a=ice-ufrag:{}", local.ufrag));
    line(s, &format!("a=ice-pwd:{}", local.password));
    line(
        s,
        &format!("a=fingerprint:sha-256 {}", colons(&local.fingerprint)),
    );
    line(
        s,
        if offer.wants_us_active {
            "a=setup:active"
        } else {
            "a=setup:passive"
        },
    );
    for (i, ip) in (0u32..).zip(&local.addresses) {
        // RFC 8445 §5.1.2.1: host candidates 126; loopback and TCP last.
        let rank = 65_535 - i.min(1000) - if ip.is_loopback() { 2000 } else { 0 };
        let udp = (126 << 24) + (rank << 8) + 255;
        line(
            s,
            &format!(
                "a=candidate:{i} 1 udp {udp} {ip} {} typ host",
                local.udp_port
            ),
        );
        if let Some(port) = local.tcp_port {
            let tcp = (90 << 24) + (rank << 8) + 255;
            line(
                s,
                &format!("a=candidate:t{i} 1 tcp {tcp} {ip} {port} typ host tcptype passive"),
            );
        }
    }
    line(s, "a=end-of-candidates");
}

fn colons(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for (i, b) in bytes.iter().enumerate() {
        if i > 0 {
            out.push(':');
        }
        let _ = write!(out, "{b:02X}");
    }
    out
}

/// The addresses to announce: those configured, or the bound one, or those of the interfaces, loopback last.
pub fn addresses(announce: &[IpAddr], bound: SocketAddr, interfaces: &[IpAddr]) -> Vec<IpAddr> {
    const ADDRESSES_MAX: usize = 16;
    if !announce.is_empty() {
        return announce.to_vec();
    }
    if !bound.ip().is_unspecified() {
        return vec![bound.ip()];
    }
    let link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let mut all: Vec<IpAddr> = interfaces
        .iter()
        .copied()
        .filter(|ip| (ip.is_ipv4() || bound.is_ipv6()) && !link_local(ip) && !ip.is_unspecified())
        .collect();
    all.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    all.dedup();
    all.truncate(ADDRESSES_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::super::offer;
    use super::super::offer::tests::CHROMIUM;
    use super::*;

    fn h264(sps: &'static [u8]) -> Medium {
        Medium {
            codec: Codec::H264 {
                sps: Bytes::from_static(sps),
                pps: Bytes::new(),
            },
            clock_rate: 90_000,
        }
    }

    fn opus() -> Medium {
        Medium {
            codec: Codec::Opus { channels: 2 },
            clock_rate: 48_000,
        }
    }

    fn local() -> Local {
        Local {
            ufrag: "u".repeat(16),
            password: "p".repeat(32),
            fingerprint: [0xab; 32],
            addresses: vec![[192, 0, 2, 1].into(), [127, 0, 0, 1].into()],
            udp_port: 8189,
            tcp_port: Some(8189),
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
    fn the_answer_reads_back() {
        let offer = offer::parse(CHROMIUM).unwrap();
        let plan = play(&offer, &[h264(&[]), opus()]).unwrap();
        let text = write(&offer, &plan, &local());
        let back = offer::parse(&text).unwrap();
        assert_eq!(back.bundle, ["0", "1", "2"]);
        assert_eq!(back.sections.len(), 3);
        assert_eq!(back.sections[0].formats[0].name, "opus");
        assert_eq!(back.sections[0].formats[0].channels, 2);
        assert!(back.sections[1].sends && !back.sections[1].receives);
        assert_eq!(back.fingerprint, [0xab; 32]);
        assert!(text.contains("a=candidate:0 1 udp 2130706431 192.0.2.1 8189 typ host\r\n"));
        assert!(text.contains("tcptype passive"));
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
        let text = write(&sending, &plan, &local());
        assert!(text.contains("m=video 0 "));
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

    #[test]
    fn addresses_to_announce() {
        let lo: IpAddr = [127, 0, 0, 1].into();
        let eth: IpAddr = [192, 0, 2, 7].into();
        let any: SocketAddr = ([0, 0, 0, 0], 8189).into();
        assert_eq!(addresses(&[], any, &[lo, eth]), [eth, lo]);
        assert_eq!(addresses(&[], ([127, 0, 0, 1], 1).into(), &[eth]), [lo]);
        assert_eq!(addresses(&[eth], any, &[lo]), [eth]);
    }
}
