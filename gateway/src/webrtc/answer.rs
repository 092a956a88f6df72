//! The answer to an offer (JSEP RFC 9429 §5.3, BUNDLE RFC 8843, ICE-lite RFC 8445): how we are reached, and what was
//! agreed.
//!
//! Not here: what is chosen (`plan`).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use kerbside_codecs::rtp::extension::CAPTURE_TIME_URI;

use super::offer::{Offer, Section};
use super::plan::{Agreed, Plan};

/// How we are reached.
#[derive(Clone, Debug)]
pub struct Local {
    pub ufrag: String,
    pub password: String,
    /// SHA-256 of our certificate.
    pub fingerprint: [u8; 32],
    pub addresses: Vec<IpAddr>,
    /// UDP and TCP.
    pub port: u16,
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
    let types = a.rtx.map_or(pt.to_string(), |rtx| format!("{pt} {rtx}"));
    line(
        s,
        &format!("m={} 9 {} {types}", section.media, section.proto),
    );
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
    let feedback = [
        (f.nack, "nack"),
        (f.pli, "nack pli"),
        (f.fir, "ccm fir"),
        (f.remb && !we_send, "goog-remb"),
    ];
    for (offered, what) in feedback {
        if offered {
            line(s, &format!("a=rtcp-fb:{pt} {what}"));
        }
    }
    if let Some(id) = a.abs_capture_time {
        line(s, &format!("a=extmap:{id} {CAPTURE_TIME_URI}"));
    }
    if let Some(rtx) = a.rtx {
        line(s, &format!("a=rtpmap:{rtx} rtx/{}", f.clock_rate));
        line(s, &format!("a=fmtp:{rtx} apt={pt}"));
    }
    if we_send {
        let ssrc = a.ssrc;
        let kind = &section.media;
        line(s, &format!("a=msid:kerbside {kind}"));
        line(s, &format!("a=ssrc:{ssrc} cname:kerbside"));
    }
}

fn transport(s: &mut String, offer: &Offer, local: &Local) {
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
    reached(s, local);
}

/// Credentials and candidates.
fn reached(s: &mut String, local: &Local) {
    line(s, &format!("a=ice-ufrag:{}", local.ufrag));
    line(s, &format!("a=ice-pwd:{}", local.password));
    for (i, ip) in (0u32..).zip(&local.addresses) {
        // RFC 8445 §5.1.2.1: host candidates 126; loopback and TCP last.
        let rank = 65_535 - i.min(1000) - if ip.is_loopback() { 2000 } else { 0 };
        let udp = (126 << 24) + (rank << 8) + 255;
        let tcp = (90 << 24) + (rank << 8) + 255;
        let port = local.port;
        line(
            s,
            &format!("a=candidate:{i} 1 udp {udp} {ip} {port} typ host"),
        );
        line(
            s,
            &format!("a=candidate:t{i} 1 tcp {tcp} {ip} {port} typ host tcptype passive"),
        );
    }
    line(s, "a=end-of-candidates");
}

/// The fragment that answers an ICE restart (RFC 8840, RFC 9725 §4.3.3). The bundled section is named as the client
/// named it in `theirs`.
pub fn fragment(theirs: &str, local: &Local) -> String {
    let mut s = String::with_capacity(1024);
    line(&mut s, "a=ice-lite");
    for begin in ["a=group:BUNDLE", "m=", "a=mid:"] {
        let named = theirs.lines().map(str::trim).find(|l| l.starts_with(begin));
        if let Some(l) = named.filter(|l| l.len() < 200 && !l.contains(char::is_control)) {
            line(&mut s, l);
        }
    }
    reached(&mut s, local);
    s
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
    use super::super::offer::tests::CHROMIUM;
    use super::super::plan::tests::{h264, opus};
    use super::super::{offer, plan};
    use super::*;

    fn local() -> Local {
        Local {
            ufrag: "u".repeat(16),
            password: "p".repeat(32),
            fingerprint: [0xab; 32],
            addresses: vec![[192, 0, 2, 1].into(), [127, 0, 0, 1].into()],
            port: 8189,
        }
    }

    #[test]
    fn the_answer_reads_back() {
        let offer = offer::parse(CHROMIUM).unwrap();
        let plan = plan::play(&offer, &[h264(&[]), opus()]).unwrap();
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
    fn the_capture_time_is_agreed_when_it_is_offered() {
        let with = |text: &str, id: u8| {
            let line = format!("a=mid:1\r\na=extmap:{id} {CAPTURE_TIME_URI}\r\n");
            offer::parse(&text.replace("a=mid:1\r\n", &line)).unwrap()
        };
        let answered = |offer: &Offer, plan: &Plan| {
            let back = offer::parse(&write(offer, plan, &local())).unwrap();
            back.sections[1].abs_capture_time
        };
        for (id, agreed) in [(9, Some(9)), (15, None), (200, None)] {
            let offer = with(CHROMIUM, id);
            let plan = plan::play(&offer, &[h264(&[]), opus()]).unwrap();
            assert_eq!(answered(&offer, &plan), agreed, "we send the one-byte form");
            assert_eq!(plan.media[1].abs_capture_time, None, "audio has none");
        }
        let offer = with(&CHROMIUM.replace("recvonly", "sendonly"), 200);
        let plan = plan::publish(&offer).unwrap();
        assert_eq!(answered(&offer, &plan), Some(200), "we read both forms");
    }

    #[test]
    fn a_refused_section_keeps_its_place() {
        let sending = CHROMIUM
            .replace("H264", "VP9")
            .replace("recvonly", "sendonly");
        let offer = offer::parse(&sending).unwrap();
        let text = write(&offer, &plan::publish(&offer).unwrap(), &local());
        assert!(text.contains("a=group:BUNDLE 0\r\n"), "{text}");
        assert!(text.contains("m=video 0 "), "{text}");
        assert!(text.contains("m=application 0 "), "{text}");
    }

    #[test]
    fn a_publisher_may_retransmit_and_is_told_how_much_to_send() {
        let sending = CHROMIUM.replace("recvonly", "sendonly");
        let offer = offer::parse(&sending).unwrap();
        let text = write(&offer, &plan::publish(&offer).unwrap(), &local());
        for line in [
            "m=video 9 UDP/TLS/RTP/SAVPF 102 103\r\n",
            "a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n",
            "a=rtcp-fb:102 goog-remb\r\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("transport-cc"), "not done");
        let offer = offer::parse(CHROMIUM).unwrap();
        let play = plan::play(&offer, &[h264(&[]), opus()]).unwrap();
        let text = write(&offer, &play, &local());
        assert!(!text.contains("rtx") && !text.contains("remb"), "{text}");
    }

    #[test]
    fn a_restart_is_answered_in_the_clients_words() {
        let theirs = "a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
            a=ice-ufrag:EsAx\r\na=ice-pwd:x\r\na=candidate:1 1 udp 1 192.0.2.9 1 typ host\r\n";
        let text = fragment(theirs, &local());
        let begin = format!(
            "a=ice-lite\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:{}\r\n",
            "u".repeat(16)
        );
        assert!(text.starts_with(&begin), "{text}");
        assert!(text.contains(" 192.0.2.1 8189 typ host\r\n") && !text.contains("192.0.2.9"));
        assert!(text.ends_with("a=end-of-candidates\r\n"));
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
