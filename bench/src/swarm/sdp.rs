//! SDP of a WebRTC reader: the offer of WHEP, the answer to a server that offers (Janus), and what either needs of
//! the other side's.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;

/// H.264 as Chromium offers it: constrained baseline, main, high.
const FORMATS: [(u8, &str); 3] = [(96, "42e01f"), (98, "4d001f"), (100, "64001f")];

/// Our side of a session.
#[derive(Clone, Debug)]
pub struct Local {
    pub ufrag: String,
    pub password: String,
    /// SHA-256 of our certificate, as SDP writes it.
    pub fingerprint: String,
    pub address: SocketAddr,
}

/// What the server's SDP says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub ufrag: String,
    pub password: String,
    /// UDP; ports may differ from that of HTTP, and there may be several.
    pub candidates: Vec<SocketAddr>,
    pub payload_type: u8,
    /// The server waits for our DTLS hello.
    pub we_are_client: bool,
    /// The server sends no checks of its own.
    pub lite: bool,
}

impl Remote {
    pub fn parse(sdp: &str) -> anyhow::Result<Self> {
        let lines = || sdp.lines().map(str::trim_end);
        let value = |name: &str| {
            lines().find_map(|l| l.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
        };
        let video: Vec<&str> = lines()
            .skip_while(|l| !l.starts_with("m=video"))
            .enumerate()
            .take_while(|(i, l)| *i == 0 || !l.starts_with("m="))
            .map(|(_, l)| l)
            .collect();
        let m = video.first().context("the server's SDP has no video")?;
        let h264 = |pt: &str| {
            let prefix = format!("a=rtpmap:{pt} ");
            video.iter().any(|l| {
                l.strip_prefix(&prefix)
                    .and_then(|c| c.get(..5))
                    .is_some_and(|c| c.eq_ignore_ascii_case("H264/"))
            })
        };
        let payload_type = m
            .split_whitespace()
            .skip(3)
            .find(|pt| h264(pt))
            .with_context(|| format!("the server sends no H.264: {m}"))?
            .parse()?;
        let mut candidates: Vec<SocketAddr> = lines().filter_map(candidate).collect();
        candidates.sort_by_key(|a| !a.ip().is_loopback());
        candidates.dedup();
        Ok(Self {
            ufrag: value("ice-ufrag").context("no ice-ufrag")?.to_owned(),
            password: value("ice-pwd").context("no ice-pwd")?.to_owned(),
            candidates,
            payload_type,
            we_are_client: value("setup") != Some("active"),
            lite: lines().any(|l| l == "a=ice-lite"),
        })
    }
}

/// `a=candidate:foundation component udp priority ip port typ …`, UDP over IPv4 only.
fn candidate(line: &str) -> Option<SocketAddr> {
    let mut fields = line
        .strip_prefix("a=candidate:")?
        .split_whitespace()
        .skip(1);
    if fields.next()? != "1" || !fields.next()?.eq_ignore_ascii_case("udp") {
        return None;
    }
    let ip: IpAddr = fields.nth(1)?.parse().ok()?;
    let port = fields.next()?.parse().ok()?;
    ip.is_ipv4().then(|| SocketAddr::new(ip, port))
}

impl Local {
    pub fn offer(&self) -> String {
        let formats: Vec<String> = FORMATS.iter().map(|(pt, _)| pt.to_string()).collect();
        let mut s = self.session("0");
        let _ = write!(s, "m=video 9 UDP/TLS/RTP/SAVPF {}\r\n", formats.join(" "));
        self.section(&mut s, "0", "actpass");
        for (pt, profile) in FORMATS {
            let _ = write!(
                s,
                "a=rtpmap:{pt} H264/90000\r\na=rtcp-fb:{pt} nack\r\na=rtcp-fb:{pt} nack pli\r\n\
                 a=fmtp:{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}\r\n"
            );
        }
        s
    }

    /// Takes the video of an offer and refuses the rest.
    pub fn answer(&self, offer: &str, remote: &Remote) -> String {
        let sections: Vec<Vec<&str>> = offer
            .split("\nm=")
            .skip(1)
            .map(|part| part.lines().map(str::trim_end).collect())
            .collect();
        let mid = |part: &[&str]| {
            part.iter()
                .find_map(|l| l.strip_prefix("a=mid:"))
                .unwrap_or("0")
                .to_owned()
        };
        let taken = sections
            .iter()
            .position(|part| part[0].starts_with("video"));
        let bundle = taken.map(|i| mid(&sections[i])).unwrap_or_default();
        let mut s = self.session(&bundle);
        for (i, part) in sections.iter().enumerate() {
            let mut m = part[0].split(' ');
            let (kind, proto) = (
                m.next().unwrap_or("audio"),
                m.nth(1).unwrap_or("UDP/TLS/RTP/SAVPF"),
            );
            if Some(i) == taken {
                let pt = remote.payload_type;
                let _ = write!(s, "m=video 9 {proto} {pt}\r\n");
                self.section(&mut s, &mid(part), "active");
                let _ = write!(s, "a=rtpmap:{pt} H264/90000\r\n");
                let fmtp = format!("a=fmtp:{pt} ");
                if let Some(l) = part.iter().find(|l| l.starts_with(&fmtp)) {
                    let _ = write!(s, "{l}\r\n");
                }
            } else {
                let fmt = m.next().unwrap_or("0");
                let _ = write!(
                    s,
                    "m={kind} 0 {proto} {fmt}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n",
                    mid(part)
                );
            }
        }
        s
    }

    fn session(&self, bundle: &str) -> String {
        let number = self.address.port();
        format!(
            "v=0\r\no=- {number} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {bundle}\r\na=msid-semantic: WMS\r\n"
        )
    }

    fn section(&self, s: &mut String, mid: &str, setup: &str) {
        let _ = write!(
            s,
            "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=candidate:1 1 udp 2130706431 {} {} typ host\r\na=end-of-candidates\r\n\
             a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\na=mid:{mid}\r\n\
             a=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
            self.address.ip(),
            self.address.port(),
            self.ufrag,
            self.password,
            self.fingerprint
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\na=ice-lite\r\nm=video 9 UDP/TLS/RTP/SAVPF 98 97\r\na=ice-ufrag:us\r\na=ice-pwd:secret\r\n\
        a=setup:passive\r\na=rtpmap:97 rtx/90000\r\na=rtpmap:98 H264/90000\r\n\
        a=candidate:udpcandidate 1 udp 120 172.17.0.2 8000 typ host\r\na=candidate:t 1 tcp 115 172.17.0.2 8001 typ host tcptype passive\r\n\
        a=candidate:1 1 UDP 120 127.0.0.1 8000 typ host\r\na=candidate:1 1 udp 1 fe80::1 8000 typ host\r\na=mid:v\r\n";

    #[test]
    fn an_answer_says_where_and_how() {
        let r = Remote::parse(ANSWER).unwrap();
        let at = |s: &str| s.parse::<SocketAddr>().unwrap();
        assert_eq!(r.candidates, [at("127.0.0.1:8000"), at("172.17.0.2:8000")]);
        assert_eq!((r.payload_type, r.we_are_client, r.lite), (98, true, true));
        assert!(
            !Remote::parse(&ANSWER.replace("passive", "active"))
                .unwrap()
                .we_are_client
        );
        assert!(Remote::parse(&ANSWER.replace("H264", "VP8")).is_err());
    }

    #[test]
    fn an_offer_is_answered_section_by_section() {
        let local = Local {
            ufrag: "u".to_owned(),
            password: "p".to_owned(),
            fingerprint: "AA".to_owned(),
            address: "127.0.0.1:5".parse().unwrap(),
        };
        let offer = format!("{ANSWER}m=audio 9 UDP/TLS/RTP/SAVPF 8\r\na=mid:a\r\n");
        let answer = local.answer(&offer, &Remote::parse(&offer).unwrap());
        let m: Vec<_> = answer.lines().filter(|l| l.starts_with("m=")).collect();
        assert_eq!(
            m,
            [
                "m=video 9 UDP/TLS/RTP/SAVPF 98",
                "m=audio 0 UDP/TLS/RTP/SAVPF 8"
            ]
        );
        assert!(answer.contains("BUNDLE v\r\n") && answer.contains("a=setup:active\r\n"));
        assert!(Remote::parse(&local.offer()).is_ok());
    }
}
