//! What a camera sends to its client: replies, requests of its own, interleaved data, split anywhere.
//!
//! Here: bytes to replies, as leniently as cameras need it. Not here: a server's side, which is strict (`framing`).

use bytes::{Buf, Bytes, BytesMut};

use super::framing::{BODY_BYTES_MAX, HEADER_BYTES_MAX};

/// Bytes that belong to nothing and are skipped, in the life of one connection.
const GARBAGE_BYTES_MAX: usize = 256 << 10;
const HEADERS_MAX: usize = 64;
/// Interleaved channels of a client that sets up at most 8 media: what else begins with `$` among garbage is garbage.
const CHANNELS: u8 = 16;

/// A reply (RFC 2326 §7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// As written, for people.
    pub reason: String,
    headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Reply {
    /// The first header of this name, trimmed.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// All headers of this name: a 401 has one per challenge.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// None when the camera left it away.
    pub fn cseq(&self) -> Option<u32> {
        self.header("CSeq")?.parse().ok()
    }

    /// Session id and its timeout in seconds (RFC 2326 §12.37: 60 when it is not said).
    pub fn session(&self) -> Option<(&str, u64)> {
        let mut parts = self.header("Session")?.split(';').map(str::trim);
        let id = parts.next().filter(|id| !id.is_empty())?;
        let timeout = parts
            .filter_map(|p| p.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .filter(|seconds| *seconds > 0);
        Some((id, timeout.unwrap_or(60)))
    }
}

/// One unit of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Reply(Reply),
    /// The camera asks us something: its method and `CSeq`.
    Request {
        method: String,
        cseq: Option<u32>,
    },
    Data {
        channel: u8,
        data: Bytes,
    },
}

/// The connection cannot be followed any further; close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    #[error("message header larger than {HEADER_BYTES_MAX} bytes")]
    HeaderTooLarge,
    #[error("message body larger than {BODY_BYTES_MAX} bytes, or its Content-Length is no number")]
    BodyTooLarge,
    #[error("more than {GARBAGE_BYTES_MAX} bytes that are neither messages nor interleaved data")]
    Garbage,
}

/// Feed [`Self::buffer`], then call [`Self::next`] until it gives nothing.
#[derive(Debug, Default)]
pub struct ReplyFramer {
    buffer: BytesMut,
    searched: usize,
    garbage: usize,
    /// The byte before was garbage, so that `$` may be by chance.
    lost: bool,
}

impl ReplyFramer {
    /// Where received bytes are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Bytes skipped so far because they belonged to nothing.
    pub fn garbage(&self) -> usize {
        self.garbage
    }

    /// The next whole unit, if there is one.
    ///
    /// # Errors
    /// [`BadReply`]; the connection is of no use from then on.
    #[allow(
        clippy::should_implement_trait,
        reason = "fallible and resumable: not an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Heard>, BadReply> {
        loop {
            match self.buffer.first() {
                None => return Ok(None),
                Some(b'\r' | b'\n') if self.searched == 0 => self.buffer.advance(1),
                Some(b'$') if !self.lost => return Ok(self.data()),
                Some(b'$') => match self.buffer.get(1) {
                    None => return Ok(None),
                    Some(channel) if *channel < CHANNELS => return Ok(self.data()),
                    Some(_) => self.skip()?,
                },
                Some(b) if b.is_ascii_uppercase() => match begins_message(&self.buffer) {
                    Some(true) => return self.message(),
                    Some(false) => self.skip()?,
                    None => return Ok(None),
                },
                Some(_) => self.skip()?,
            }
        }
    }

    fn skip(&mut self) -> Result<(), BadReply> {
        self.buffer.advance(1);
        self.lost = true;
        self.garbage += 1;
        if self.garbage > GARBAGE_BYTES_MAX {
            return Err(BadReply::Garbage);
        }
        Ok(())
    }

    fn data(&mut self) -> Option<Heard> {
        let [_, channel, len @ ..] = *self.buffer.first_chunk::<4>()?;
        let end = 4 + usize::from(u16::from_be_bytes(len));
        if self.buffer.len() < end {
            return None;
        }
        self.lost = false;
        let mut unit = self.buffer.split_to(end);
        unit.advance(4);
        Some(Heard::Data {
            channel,
            data: unit.freeze(),
        })
    }

    fn message(&mut self) -> Result<Option<Heard>, BadReply> {
        let from = self.searched.saturating_sub(3);
        let Some(header_end) = header_end(&self.buffer[from..]).map(|at| from + at) else {
            if self.buffer.len() > HEADER_BYTES_MAX {
                return Err(BadReply::HeaderTooLarge);
            }
            self.searched = self.buffer.len();
            return Ok(None);
        };
        if header_end > HEADER_BYTES_MAX {
            return Err(BadReply::HeaderTooLarge);
        }
        let text = String::from_utf8_lossy(&self.buffer[..header_end]).into_owned();
        let mut lines = text.split('\n').map(str::trim);
        let start = lines.next().unwrap_or_default();
        let headers: Vec<(String, String)> = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
            .take(HEADERS_MAX)
            .collect();
        let mut reply = Reply {
            headers,
            ..Reply::default()
        };
        let body = match reply.header("Content-Length") {
            None => 0,
            Some(n) => n
                .parse()
                .ok()
                .filter(|n| *n <= BODY_BYTES_MAX)
                .ok_or(BadReply::BodyTooLarge)?,
        };
        if self.buffer.len() < header_end + body {
            self.searched = header_end - 1;
            return Ok(None);
        }
        self.searched = 0;
        self.lost = false;
        self.buffer.advance(header_end);
        reply.body = self.buffer.split_to(body).freeze();
        let mut words = start.splitn(3, ' ');
        let first = words.next().unwrap_or_default();
        if !first.starts_with("RTSP/") {
            return Ok(Some(Heard::Request {
                method: first.to_owned(),
                cseq: reply.cseq(),
            }));
        }
        // An unreadable status is a failure of that request, not of the connection.
        reply.status = words.next().and_then(|s| s.parse().ok()).unwrap_or(500);
        words
            .next()
            .unwrap_or_default()
            .clone_into(&mut reply.reason);
        Ok(Some(Heard::Reply(reply)))
    }
}

/// Does this begin a reply or a request? None: too early to say.
fn begins_message(bytes: &[u8]) -> Option<bool> {
    const STARTS: [&[u8]; 7] = [
        b"RTSP/",
        b"OPTIONS ",
        b"ANNOUNCE ",
        b"GET_PARAMETER ",
        b"SET_PARAMETER ",
        b"REDIRECT ",
        b"TEARDOWN ",
    ];
    if STARTS.iter().any(|s| bytes.starts_with(s)) {
        return Some(true);
    }
    if STARTS.iter().any(|s| s.starts_with(bytes)) {
        return None;
    }
    Some(false)
}

/// Behind the empty line that ends a header; cameras also end lines with a line feed alone.
fn header_end(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find_map(|i| match bytes.get(i..)? {
        [b'\n', b'\r', b'\n', ..] => Some(i + 3),
        [b'\n', b'\n', ..] => Some(i + 2),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(f: &mut ReplyFramer) -> Vec<Heard> {
        std::iter::from_fn(|| f.next().unwrap()).collect()
    }

    const SAMPLE: &[u8] = b"RTSP/1.0 200 OK\r\ncseq : 2\r\nSession: 12ab ;Timeout = 20\r\ncontent-length: 5\r\n\r\nv=0\r\n\
        $\x00\x00\x03abcRTSP/1.0 401 Unauthorized\nCSeq: 3\nWWW-Authenticate: Digest realm=\"a\"\n\
        WWW-Authenticate: Basic realm=\"b\"\n\nOPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n$\x01\x00\x01x";

    #[test]
    fn replies_requests_and_data_side_by_side() {
        let mut f = ReplyFramer::default();
        f.buffer().extend_from_slice(SAMPLE);
        let units = drain(&mut f);
        assert_eq!(units.len(), 5);
        let Heard::Reply(first) = &units[0] else {
            panic!("{units:?}");
        };
        assert_eq!((first.status, first.cseq()), (200, Some(2)));
        assert_eq!(first.session(), Some(("12ab", 20)));
        assert_eq!(&first.body[..], b"v=0\r\n");
        let Heard::Reply(second) = &units[2] else {
            panic!("{units:?}");
        };
        assert_eq!(second.all("www-authenticate").count(), 2);
        assert_eq!(
            units[3],
            Heard::Request {
                method: "OPTIONS".into(),
                cseq: Some(9)
            }
        );
    }

    /// Old live555 sends the data of another session into this one, cut anywhere.
    #[test]
    fn garbage_is_skipped_and_has_an_end() {
        let mut f = ReplyFramer::default();
        f.buffer().extend_from_slice(
            b"tail of a packet R$\xff\x00\x04 RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n",
        );
        let units = drain(&mut f);
        assert!(matches!(&units[..], [Heard::Reply(r)] if r.status == 200));
        assert!(f.garbage() > 10);
        let mut f = ReplyFramer::default();
        f.buffer()
            .extend_from_slice(&vec![b'x'; GARBAGE_BYTES_MAX + 1]);
        assert_eq!(f.next(), Err(BadReply::Garbage));
    }

    #[test]
    fn limits_hold() {
        let mut f = ReplyFramer::default();
        f.buffer().extend_from_slice(b"RTSP/1.0 200 OK\r\nX: ");
        f.buffer().extend_from_slice(&vec![b'A'; HEADER_BYTES_MAX]);
        assert_eq!(f.next(), Err(BadReply::HeaderTooLarge));
        for length in ["4294967296", "-1", "x"] {
            let mut f = ReplyFramer::default();
            let text = format!("RTSP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
            f.buffer().extend_from_slice(text.as_bytes());
            assert_eq!(f.next(), Err(BadReply::BodyTooLarge), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(cuts in prop::collection::vec(0..SAMPLE.len(), 0..20)) {
            let mut whole = ReplyFramer::default();
            whole.buffer().extend_from_slice(SAMPLE);
            let expected = drain(&mut whole);
            let mut cuts = cuts;
            cuts.extend([0, SAMPLE.len()]);
            cuts.sort_unstable();
            let mut f = ReplyFramer::default();
            let mut units = Vec::new();
            for w in cuts.windows(2) {
                f.buffer().extend_from_slice(&SAMPLE[w[0]..w[1]]);
                units.extend(drain(&mut f));
            }
            prop_assert_eq!(units, expected);
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>, text in "(RTSP/|OPTIONS |\\$a)[ -~\r\n]{0,80}(\r\n[ -~]{0,40}: ?[ -~\t]{0,40}){0,4}\r\n\r\n") {
            for input in [bytes.as_slice(), text.as_bytes()] {
                let mut f = ReplyFramer::default();
                f.buffer().extend_from_slice(input);
                while let Ok(Some(heard)) = f.next() {
                    if let Heard::Reply(r) = heard {
                        let _ = (r.session(), r.cseq());
                    }
                }
            }
        }
    }
}
