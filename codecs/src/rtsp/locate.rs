//! Where the media of a described camera are: base URL, `a=control` (RFC 2326 §C.1.1), the agreed transport.
//!
//! Cameras write all forms; what is not written has the meaning that most clients give it.

/// The URL that relative ones belong to: Content-Base, Content-Location, or the one that was asked for. Without its
/// user, which some cameras repeat.
pub fn base<'a>(
    content_base: Option<&'a str>,
    content_location: Option<&'a str>,
    asked: &'a str,
) -> String {
    let named = [content_base, content_location]
        .into_iter()
        .flatten()
        .find(|u| is_absolute(u))
        .unwrap_or(asked);
    without_user(named.trim())
}

/// The URL of `a=control`; `None` and `*` are the base itself.
pub fn control(base: &str, written: Option<&str>) -> String {
    match written.map(str::trim) {
        None | Some("" | "*") => base.to_owned(),
        Some(c) if is_absolute(c) => without_user(c),
        // Appended, not resolved: so do live555 and ffmpeg, and cameras count on it, also behind a query.
        Some(c) if base.ends_with('/') => format!("{base}{}", c.trim_start_matches('/')),
        Some(c) => format!("{base}/{}", c.trim_start_matches('/')),
    }
}

/// `a=control` of the whole session: above the first `m=` line.
pub fn session_control(sdp: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(sdp);
    text.split(['\r', '\n'])
        .map(str::trim)
        .take_while(|l| !l.starts_with("m="))
        .find_map(|l| l.strip_prefix("a=control:"))
        .map(|c| c.trim().to_owned())
}

fn is_absolute(url: &str) -> bool {
    let url = url.trim().as_bytes();
    [&b"rtsp://"[..], b"rtsps://", b"rtspu://"].iter().any(|s| {
        url.get(..s.len())
            .is_some_and(|u| u.eq_ignore_ascii_case(s))
    })
}

fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// What a camera answered to our `Transport`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnsweredTransport {
    pub is_tcp: bool,
    /// Channels of RTP and RTCP; the asked ones where it names none.
    pub channels: Option<(u8, u8)>,
    /// The camera's ports.
    pub server_ports: Option<(u16, u16)>,
}

impl AnsweredTransport {
    pub fn parse(header: &str) -> Self {
        let mut out = Self::default();
        // Only one is agreed; what follows a comma is not.
        let mut parts = header
            .split(',')
            .next()
            .unwrap_or_default()
            .split(';')
            .map(str::trim);
        out.is_tcp = parts
            .next()
            .is_some_and(|p| p.to_ascii_uppercase().ends_with("/TCP"));
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            let (a, b) = value.split_once('-').unwrap_or((value, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "interleaved" => {
                    out.channels = a
                        .trim()
                        .parse::<u8>()
                        .ok()
                        .map(|rtp| (rtp, b.trim().parse().unwrap_or(rtp.saturating_add(1))));
                }
                "server_port" => {
                    out.server_ports = a
                        .trim()
                        .parse::<u16>()
                        .ok()
                        .filter(|p| *p > 0)
                        .map(|rtp| (rtp, b.trim().parse().unwrap_or(rtp.saturating_add(1))));
                }
                _ => {}
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_forms_of_control() {
        for (base, written, url) in [
            ("rtsp://h/s", Some("trackID=1"), "rtsp://h/s/trackID=1"),
            ("rtsp://h/s/", Some("trackID=1"), "rtsp://h/s/trackID=1"),
            ("rtsp://h/s/", Some("/trackID=1"), "rtsp://h/s/trackID=1"),
            ("rtsp://h/s?u=1", Some("track1"), "rtsp://h/s?u=1/track1"),
            ("rtsp://h/s", Some("*"), "rtsp://h/s"),
            ("rtsp://h/s", None, "rtsp://h/s"),
            (
                "rtsp://h/s",
                Some("RTSP://10.0.0.5:554/s/1"),
                "RTSP://10.0.0.5:554/s/1",
            ),
            ("rtsp://h/s", Some("rtsp://u:p@h/s/1"), "rtsp://h/s/1"),
        ] {
            assert_eq!(control(base, written), url);
        }
    }

    #[test]
    fn the_base_is_what_the_camera_names_if_it_can_be_one() {
        let asked = "rtsp://h/live";
        assert_eq!(base(None, None, asked), asked);
        assert_eq!(base(Some("rtsp://h/live/"), None, asked), "rtsp://h/live/");
        assert_eq!(
            base(Some("/live/"), Some("rtsp://h/x"), asked),
            "rtsp://h/x"
        );
        assert_eq!(
            session_control(b"v=0\r\na=control: * \r\nm=video 0 RTP/AVP 96\r\na=control:1\r\n")
                .as_deref(),
            Some("*")
        );
        assert_eq!(
            session_control(b"m=video 0 RTP/AVP 96\na=control:1\n"),
            None
        );
    }

    #[test]
    fn answered_transports() {
        let a = AnsweredTransport::parse("RTP/AVP/TCP;unicast;interleaved=4-5;ssrc=1234, RTP/AVP");
        assert_eq!((a.is_tcp, a.channels), (true, Some((4, 5))));
        let a =
            AnsweredTransport::parse("RTP/AVP;unicast;client_port=5000-5001;server_port = 6000");
        assert_eq!((a.is_tcp, a.server_ports), (false, Some((6000, 6001))));
        let a = AnsweredTransport::parse("RTP/AVP/UDP;server_port=0-0;interleaved=x");
        assert_eq!(a, AnsweredTransport::default());
    }

    proptest! {
        #[test]
        fn any_text(text: String, like in "(rtsp://)?[a-z@:/?*]{0,30}", transport in "RTP/AVP(/TCP)?(;[a-z_]{0,12}=?[0-9-]{0,12}){0,5}") {
            let _ = control(&base(Some(&text), Some(&like), "rtsp://h/"), Some(&like));
            let _ = control(&like, Some(&text));
            let _ = session_control(text.as_bytes());
            let _ = AnsweredTransport::parse(&transport);
            let _ = AnsweredTransport::parse(&text);
        }
    }
}
