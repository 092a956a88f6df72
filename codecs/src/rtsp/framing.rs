//! Cuts a byte stream into RTSP messages and interleaved data (RFC 2326 §10.12), split anywhere.

use bytes::{Buf, Bytes, BytesMut};

/// Start line and headers.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
pub const BODY_BYTES_MAX: usize = 64 << 10;

pub type Request = rtsp_types::Request<Bytes>;

/// One unit of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    Request(Request),
    /// An answer to something we sent; we send nothing, so it is ignored.
    Response,
    /// `$`, channel, length, data.
    Data {
        channel: u8,
        data: Bytes,
    },
}

/// The stream cannot be followed any further; close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFraming {
    #[error("byte 0x{0:02x} begins neither a message nor interleaved data")]
    Garbage(u8),
    #[error("message header larger than {HEADER_BYTES_MAX} bytes")]
    HeaderTooLarge,
    #[error(
        "message body larger than {BODY_BYTES_MAX} bytes, or its Content-Length is no single number"
    )]
    BodyTooLarge,
    #[error("message that is not RTSP 1.0")]
    Message,
}

/// Feed [`Self::buffer`], then call [`Self::next`] until it gives nothing.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// How far the end of the header was already searched for.
    searched: usize,
}

impl Framer {
    /// Where received bytes are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole unit, if there is one.
    ///
    /// # Errors
    /// [`BadFraming`]; the stream is of no use from then on.
    #[allow(
        clippy::should_implement_trait,
        reason = "fallible and resumable: not an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Incoming>, BadFraming> {
        // Some clients end bodies with an empty line of their own.
        while self.searched == 0 && matches!(self.buffer.first(), Some(b'\r' | b'\n')) {
            self.buffer.advance(1);
        }
        match self.buffer.first() {
            None => Ok(None),
            Some(b'$') => Ok(self.data()),
            Some(b) if b.is_ascii_uppercase() => self.message(),
            Some(&b) => Err(BadFraming::Garbage(b)),
        }
    }

    fn data(&mut self) -> Option<Incoming> {
        let [_, channel, len @ ..] = *self.buffer.first_chunk::<4>()?;
        let end = 4 + usize::from(u16::from_be_bytes(len));
        if self.buffer.len() < end {
            self.buffer.reserve(end - self.buffer.len());
            return None;
        }
        let mut unit = self.buffer.split_to(end);
        unit.advance(4);
        Some(Incoming::Data {
            channel,
            data: unit.freeze(),
        })
    }

    fn message(&mut self) -> Result<Option<Incoming>, BadFraming> {
        let from = self.searched.saturating_sub(3);
        let Some(at) = self.buffer[from..]
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
        else {
            if self.buffer.len() > HEADER_BYTES_MAX {
                return Err(BadFraming::HeaderTooLarge);
            }
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let header_end = from + at + 4;
        if header_end > HEADER_BYTES_MAX {
            return Err(BadFraming::HeaderTooLarge);
        }
        let body = content_length(&self.buffer[..header_end]).ok_or(BadFraming::BodyTooLarge)?;
        let end = header_end + body;
        if self.buffer.len() < end {
            self.searched = header_end - 1;
            return Ok(None);
        }
        self.searched = 0;
        let bytes = self.buffer.split_to(end);
        match rtsp_types::Message::<&[u8]>::parse(&bytes[..]) {
            Ok((rtsp_types::Message::Request(r), used)) if used == end => {
                Ok(Some(Incoming::Request(r.map_body(Bytes::copy_from_slice))))
            }
            Ok((rtsp_types::Message::Response(_), _)) => Ok(Some(Incoming::Response)),
            _ => Err(BadFraming::Message),
        }
    }
}

/// Of a whole header; None when it is not one number within the limit.
fn content_length(header: &[u8]) -> Option<usize> {
    let mut found = None;
    for line in header.split(|b| *b == b'\n') {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        if !line[..colon]
            .trim_ascii()
            .eq_ignore_ascii_case(b"content-length")
        {
            continue;
        }
        let value = std::str::from_utf8(line[colon + 1..].trim_ascii()).ok()?;
        let value = value.parse().ok().filter(|n| *n <= BODY_BYTES_MAX)?;
        if found.replace(value).is_some() {
            return None;
        }
    }
    Some(found.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtsp_types::{Method, headers};

    fn drain(f: &mut Framer) -> Vec<Incoming> {
        std::iter::from_fn(|| f.next().unwrap()).collect()
    }

    const SAMPLE: &[u8] = b"ANNOUNCE rtsp://h/a/b RTSP/1.0\r\nCSeq: 2\r\ncontent-length: 5\r\n\r\nv=0\r\n\
        $\x00\x00\x03abc\r\nOPTIONS * RTSP/1.0\r\nCSeq: 3\r\n\r\n$\x01\x00\x00RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n";

    #[test]
    fn messages_and_data_side_by_side() {
        let mut f = Framer::default();
        f.buffer().extend_from_slice(SAMPLE);
        let units = drain(&mut f);
        assert_eq!(units.len(), 5);
        let Incoming::Request(announce) = &units[0] else {
            panic!("a request first");
        };
        assert_eq!(announce.method(), Method::Announce);
        assert_eq!(announce.body(), &b"v=0\r\n"[..]);
        assert_eq!(announce.header(&headers::CSEQ).unwrap().as_str(), "2");
        assert_eq!(
            units[1],
            Incoming::Data {
                channel: 0,
                data: Bytes::from_static(b"abc")
            }
        );
        assert_eq!(units[4], Incoming::Response);
    }

    #[test]
    fn limits_hold() {
        let mut f = Framer::default();
        f.buffer()
            .extend_from_slice(&vec![b'A'; HEADER_BYTES_MAX + 1]);
        assert_eq!(f.next(), Err(BadFraming::HeaderTooLarge));
        for length in [
            "65537",
            "-1",
            "1\r\nContent-Length: 1",
            "99999999999999999999",
            "x",
        ] {
            let mut f = Framer::default();
            let text = format!("OPTIONS * RTSP/1.0\r\nContent-Length: {length}\r\n\r\n");
            f.buffer().extend_from_slice(text.as_bytes());
            assert_eq!(f.next(), Err(BadFraming::BodyTooLarge), "{length}");
        }
        let mut f = Framer::default();
        f.buffer().extend_from_slice(b"\x16\x03\x01");
        assert_eq!(f.next(), Err(BadFraming::Garbage(0x16)));
        let mut f = Framer::default();
        f.buffer().extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(f.next(), Err(BadFraming::Message));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(cuts in prop::collection::vec(0..SAMPLE.len(), 0..20)) {
            let mut whole = Framer::default();
            whole.buffer().extend_from_slice(SAMPLE);
            let expected = drain(&mut whole);
            let mut cuts = cuts;
            cuts.extend([0, SAMPLE.len()]);
            cuts.sort_unstable();
            let mut f = Framer::default();
            let mut units = Vec::new();
            for w in cuts.windows(2) {
                f.buffer().extend_from_slice(&SAMPLE[w[0]..w[1]]);
                units.extend(drain(&mut f));
            }
            prop_assert_eq!(units, expected);
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>, text in "(OPTIONS|SETUP|\\$a) [ -~\r\n]{0,80}(\r\n[ -~]{0,40}: ?[ -~\t]{0,40}){0,4}\r\n\r\n") {
            for input in [bytes.as_slice(), text.as_bytes()] {
                let mut f = Framer::default();
                f.buffer().extend_from_slice(input);
                while let Ok(Some(_)) = f.next() {}
            }
        }
    }
}
