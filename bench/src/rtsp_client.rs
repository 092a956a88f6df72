//! Just enough RTSP (RFC 2326) client to publish over TCP and to play over TCP or UDP from any server, for load.
//!
//! Here: requests and answers, Basic and Digest, what an SDP's `a=control` means. Not here: media.

use anyhow::{Context, bail};
use base64::Engine;
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct RtspClient {
    pub stream: TcpStream,
    /// Without login.
    url: String,
    login: Option<(String, String)>,
    auth: Option<Auth>,
    cseq: u32,
    pub session: Option<String>,
    /// Of the session, as the server said.
    pub timeout_s: u64,
    /// What PLAY, TEARDOWN and keep-alives are about.
    pub aggregate: String,
    /// Bytes behind the last response, and interleaved data before it.
    pub rest: Vec<u8>,
}

struct Reply {
    status: String,
    head: String,
    body: String,
}

impl Reply {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.lines().filter_map(move |l| {
            let (k, v) = l.split_once(':')?;
            k.trim().eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| {
            let (k, v) = l.split_once(':')?;
            k.trim().eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }
}

/// The way a server wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Auth {
    Basic,
    Digest {
        realm: String,
        nonce: String,
        sha256: bool,
        qop: bool,
    },
}

impl Auth {
    /// The best of the challenges: Digest with MD5 (what most devices speak), with SHA-256, Basic.
    fn choose<'a>(challenges: impl Iterator<Item = &'a str>) -> Option<Self> {
        challenges.filter_map(Self::parse).min_by_key(|a| match a {
            Self::Digest { sha256, .. } => u8::from(*sha256),
            Self::Basic => 2,
        })
    }

    fn parse(challenge: &str) -> Option<Self> {
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let sha256 = match parameter(rest, "algorithm") {
            None => false,
            Some(a) if a.eq_ignore_ascii_case("MD5") => false,
            Some(a) if a.eq_ignore_ascii_case("SHA-256") => true,
            Some(_) => return None,
        };
        Some(Self::Digest {
            realm: parameter(rest, "realm")?,
            nonce: parameter(rest, "nonce")?,
            sha256,
            qop: parameter(rest, "qop").is_some(),
        })
    }

    fn header(&self, method: &str, uri: &str, user: &str, password: &str) -> String {
        let Self::Digest {
            realm,
            nonce,
            sha256,
            qop,
        } = self
        else {
            let basic =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            return format!("Authorization: Basic {basic}\r\n");
        };
        let hash = |text: String| {
            if *sha256 {
                hex(&Sha256::digest(text))
            } else {
                hex(&Md5::digest(text))
            }
        };
        let ha1 = hash(format!("{user}:{realm}:{password}"));
        let ha2 = hash(format!("{method}:{uri}"));
        let (nc, cnonce) = ("00000001", "6b65726273696465");
        let (response, more) = if *qop {
            (
                hash(format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}")),
                format!(", qop=auth, nc={nc}, cnonce=\"{cnonce}\""),
            )
        } else {
            (hash(format!("{ha1}:{nonce}:{ha2}")), String::new())
        };
        let algorithm = if *sha256 { "SHA-256" } else { "MD5" };
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm={algorithm}{more}\r\n"
        )
    }
}

/// The value of `name=value` or `name="value"` in a challenge.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let mut value = String::new();
        let after = after.trim_start();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut chars = quoted.char_indices();
            rest = "";
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        rest = &quoted[at + 1..];
                        break;
                    }
                    '\\' => value.extend(chars.next().map(|(_, c)| c)),
                    c => value.push(c),
                }
            }
        } else {
            let end = after.find(',').unwrap_or(after.len());
            after[..end].trim().clone_into(&mut value);
            rest = &after[end..];
        }
        if key
            .trim_matches([' ', '\t', ','])
            .eq_ignore_ascii_case(name)
        {
            return Some(value);
        }
    }
    None
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// How media travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    Tcp,
    /// Our ports for RTP and RTCP.
    Udp(u16, u16),
}

/// What a server agreed to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub payload_type: u8,
    /// Interleaved channel of RTP.
    pub channel: u8,
    /// Where receiver reports go, over UDP.
    pub rtcp_port: Option<u16>,
}

impl RtspClient {
    /// `url`: `rtsp://[user:password@]host[:port]/path`; `login` is used when the address has none.
    pub async fn connect(url: &str, login: Option<(String, String)>) -> anyhow::Result<Self> {
        let rest = url
            .strip_prefix("rtsp://")
            .context("an rtsp:// address is needed")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (inside, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (login.split_once(':'), host),
            None => (None, authority),
        };
        let login = inside.map(|(u, p)| (u.to_owned(), p.to_owned())).or(login);
        let peer = if host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            host.to_owned()
        } else {
            format!("{host}:554")
        };
        let stream = TcpStream::connect(&peer)
            .await
            .with_context(|| peer.clone())?;
        stream.set_nodelay(true)?;
        let url = format!("rtsp://{host}/{path}");
        Ok(Self {
            stream,
            aggregate: url.clone(),
            url,
            login,
            auth: None,
            cseq: 0,
            session: None,
            timeout_s: 60,
            rest: Vec::new(),
        })
    }

    /// A request of this session that nobody waits for: keep-alive, TEARDOWN.
    pub fn last_words(&mut self, method: &str) -> String {
        let aggregate = self.aggregate.clone();
        self.text(method, &aggregate, "", "")
    }

    fn text(&mut self, method: &str, url: &str, headers: &str, body: &str) -> String {
        self.cseq += 1;
        let session = self
            .session
            .as_ref()
            .map(|s| format!("Session: {s}\r\n"))
            .unwrap_or_default();
        let auth = match (&self.auth, &self.login) {
            (Some(auth), Some((user, password))) => auth.header(method, url, user, password),
            _ => String::new(),
        };
        let length = if body.is_empty() {
            String::new()
        } else {
            format!(
                "Content-Type: application/sdp\r\nContent-Length: {}\r\n",
                body.len()
            )
        };
        format!(
            "{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: kerbside-bench\r\n{auth}{session}{headers}{length}\r\n{body}",
            self.cseq
        )
    }

    /// Sends a request, with a login when the server asks for one.
    async fn request(
        &mut self,
        method: &str,
        url: &str,
        headers: &str,
        body: &str,
    ) -> anyhow::Result<Reply> {
        for attempt in 0..3 {
            let text = self.text(method, url, headers, body);
            self.stream.write_all(text.as_bytes()).await?;
            let reply = self.reply(method).await?;
            if reply.status == "200" {
                if let Some(s) = reply.header("Session") {
                    let (id, parameters) = s.split_once(';').unwrap_or((s, ""));
                    self.session = Some(id.trim().to_owned());
                    if let Some(t) = parameter(parameters, "timeout").and_then(|t| t.parse().ok()) {
                        self.timeout_s = t;
                    }
                }
                return Ok(reply);
            }
            let better = Auth::choose(reply.all("WWW-Authenticate"));
            let basic = reply
                .all("WWW-Authenticate")
                .any(|c| Auth::parse(c) == Some(Auth::Basic));
            let next = match (attempt, better) {
                (0, Some(auth)) => auth,
                // Some servers know a password's hash only, and cannot do Digest with it.
                (1, Some(_)) if basic => Auth::Basic,
                _ => bail!(
                    "{method}: {}",
                    reply.head.lines().next().unwrap_or_default()
                ),
            };
            if reply.status != "401" || self.login.is_none() {
                bail!(
                    "{method}: {}",
                    reply.head.lines().next().unwrap_or_default()
                );
            }
            self.auth = Some(next);
        }
        bail!("{method}: the server takes no login of ours")
    }

    async fn more(&mut self, method: &str) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.rest).await? == 0 {
            bail!("{method}: the server closed the connection");
        }
        Ok(())
    }

    async fn reply(&mut self, method: &str) -> anyhow::Result<Reply> {
        // Media may come before the answer to PLAY; they stay for the reader.
        let mut media = 0;
        let end = loop {
            match &self.rest[media..] {
                [b'$', _, l0, l1, ..] => {
                    let frame = 4 + usize::from(u16::from_be_bytes([*l0, *l1]));
                    if self.rest.len() >= media + frame {
                        media += frame;
                        continue;
                    }
                }
                [b'$', ..] | [] => {}
                text => {
                    if let Some(at) = text.windows(4).position(|w| w == b"\r\n\r\n") {
                        break media + at;
                    }
                }
            }
            self.more(method).await?;
        };
        let head = String::from_utf8_lossy(&self.rest[media..end]).into_owned();
        self.rest.drain(media..end + 4);
        let mut reply = Reply {
            status: head.split(' ').nth(1).unwrap_or_default().to_owned(),
            head,
            body: String::new(),
        };
        let length: usize = reply
            .header("Content-Length")
            .map_or(Ok(0), str::parse)
            .context("Content-Length")?;
        while self.rest.len() < media + length {
            self.more(method).await?;
        }
        let body: Vec<u8> = self.rest.drain(media..media + length).collect();
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    pub async fn announce(&mut self, sps: &[u8], pps: &[u8]) -> anyhow::Result<()> {
        let b64 = |b: &[u8]| base64::engine::general_purpose::STANDARD.encode(b);
        let sdp = format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=bench\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
             a=fmtp:96 packetization-mode=1;profile-level-id={};sprop-parameter-sets={},{}\r\na=control:trackID=0\r\n",
            hex(sps.get(1..4).unwrap_or_default()),
            b64(sps),
            b64(pps)
        );
        let url = self.url.clone();
        self.request("ANNOUNCE", &url, "", &sdp).await?;
        self.request(
            "SETUP",
            &format!("{url}/trackID=0"),
            "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n",
            "",
        )
        .await?;
        self.request("RECORD", &url, "Range: npt=0.000-\r\n", "")
            .await?;
        Ok(())
    }

    /// DESCRIBE and SETUP of the first H.264 medium; then [`Self::play`].
    pub async fn set_up(&mut self, lower: Lower) -> anyhow::Result<Agreed> {
        let url = self.url.clone();
        let described = self
            .request("DESCRIBE", &url, "Accept: application/sdp\r\n", "")
            .await?;
        let base = described
            .header("Content-Base")
            .or(described.header("Content-Location"))
            .unwrap_or(&url);
        let medium = Medium::find(&described.body).context("the SDP has no H.264 medium")?;
        let track = resolve(base, &medium.control);
        if let Some(control) = medium.session_control {
            self.aggregate = resolve(base, &control);
        } else {
            base.clone_into(&mut self.aggregate);
        }
        let transport = match lower {
            Lower::Tcp => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
            Lower::Udp(rtp, rtcp) => format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}"),
        };
        let answer = self
            .request("SETUP", &track, &format!("Transport: {transport}\r\n"), "")
            .await?;
        let transport = answer.header("Transport").unwrap_or_default();
        let pair = |key: &str| {
            let (_, v) = transport
                .split(';')
                .filter_map(|p| p.split_once('='))
                .find(|(k, _)| k.trim() == key)?;
            let (a, b) = v.split_once('-').unwrap_or((v, v));
            Some((a.parse::<u16>().ok()?, b.parse::<u16>().ok()?))
        };
        let channel = pair("interleaved").map_or(0, |(a, _)| a);
        Ok(Agreed {
            payload_type: medium.payload_type,
            channel: u8::try_from(channel).context("interleaved channel")?,
            rtcp_port: pair("server_port").map(|(_, b)| b),
        })
    }

    pub async fn play(&mut self) -> anyhow::Result<()> {
        let url = self.aggregate.clone();
        self.request("PLAY", &url, "Range: npt=0.000-\r\n", "")
            .await?;
        Ok(())
    }
}

/// The H.264 medium of an SDP.
struct Medium {
    payload_type: u8,
    control: String,
    session_control: Option<String>,
}

impl Medium {
    fn find(sdp: &str) -> Option<Self> {
        let mut sections = sdp.split("\nm=");
        let control = |part: &str| {
            part.lines()
                .find_map(|l| l.trim().strip_prefix("a=control:"))
                .map(|c| c.trim().to_owned())
        };
        let session_control = control(sections.next()?);
        sections.find_map(|part| {
            if !part.starts_with("video") {
                return None;
            }
            let payload_type = part.lines().find_map(|l| {
                let (pt, codec) = l.trim().strip_prefix("a=rtpmap:")?.split_once(' ')?;
                let is = codec
                    .trim()
                    .get(..5)
                    .is_some_and(|c| c.eq_ignore_ascii_case("H264/"));
                is.then(|| pt.parse().ok())?
            })?;
            Some(Self {
                payload_type,
                control: control(part).unwrap_or_else(|| "*".to_owned()),
                session_control: session_control.clone(),
            })
        })
    }
}

/// RFC 2326 §C.1.1: `*` is the base itself; devices append relative controls rather than resolving them.
fn resolve(base: &str, control: &str) -> String {
    if control == "*" || control.is_empty() {
        base.to_owned()
    } else if control.contains("://") {
        control.to_owned()
    } else {
        format!("{}/{control}", base.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 §3.9.1, with the client nonce of ours left out: the form of RFC 2069 that RTSP devices use.
    #[test]
    fn digest_is_chosen_and_answered() {
        let challenges = [
            "Basic realm=\"x\"",
            "Digest realm=\"a\\\"b\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"",
            "Digest realm=\"a, b\", nonce=\"n\"",
        ];
        let auth = Auth::choose(challenges.into_iter()).unwrap();
        assert_eq!(
            auth,
            Auth::Digest {
                realm: "a, b".to_owned(),
                nonce: "n".to_owned(),
                sha256: false,
                qop: false
            }
        );
        for challenge in challenges {
            let header = Auth::parse(challenge)
                .unwrap()
                .header("PLAY", "rtsp://h/p", "u", "p");
            let value = header.trim().strip_prefix("Authorization: ").unwrap();
            let read = kerbside_codecs::rtsp::digest::Credentials::parse(value).unwrap();
            assert_eq!(read.username(), "u");
            if let kerbside_codecs::rtsp::digest::Credentials::Digest(d) = read {
                let text = format!("u:{}:p", d.realm);
                let ha1 = match d.algorithm {
                    kerbside_codecs::rtsp::digest::Algorithm::Md5 => hex(&Md5::digest(text)),
                    kerbside_codecs::rtsp::digest::Algorithm::Sha256 => hex(&Sha256::digest(text)),
                };
                assert!(d.verify(&ha1, "PLAY"), "{challenge}");
            }
        }
    }

    #[test]
    fn controls_as_devices_write_them() {
        for (base, control, is) in [
            ("rtsp://h/a", "trackID=0", "rtsp://h/a/trackID=0"),
            ("rtsp://h/a/", "trackID=0", "rtsp://h/a/trackID=0"),
            ("rtsp://h/a/", "*", "rtsp://h/a/"),
            ("rtsp://h/a", "rtsp://h/b/t", "rtsp://h/b/t"),
        ] {
            assert_eq!(resolve(base, control), is);
        }
        let sdp = "v=0\r\na=control:*\r\nm=audio 0 RTP/AVP 8\r\na=control:1\r\nm=video 0 RTP/AVP 99\r\n\
                   a=rtpmap:99 h264/90000\r\na=control:2\r\n";
        let m = Medium::find(sdp).unwrap();
        assert_eq!((m.payload_type, m.control.as_str()), (99, "2"));
        assert_eq!(m.session_control.as_deref(), Some("*"));
    }
}
