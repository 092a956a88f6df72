//! Answers, written as old clients expect them: one `WWW-Authenticate` line per challenge, `CSeq` first.

use std::fmt::Write;

use bytes::BytesMut;

use super::framing::Request;

/// The status codes we give (RFC 2326 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    UnsupportedMediaType,
    SessionNotFound,
    NotValidInThisState,
    UnsupportedTransport,
    InternalError,
    NotImplemented,
    Unavailable,
    GatewayTimeout,
    OptionNotSupported,
}

impl Status {
    pub fn code(self) -> u16 {
        self.parts().0
    }

    fn parts(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::UnsupportedMediaType => (415, "Unsupported Media Type"),
            Self::SessionNotFound => (454, "Session Not Found"),
            Self::NotValidInThisState => (455, "Method Not Valid in This State"),
            Self::UnsupportedTransport => (461, "Unsupported Transport"),
            Self::InternalError => (500, "Internal Server Error"),
            Self::NotImplemented => (501, "Not Implemented"),
            Self::Unavailable => (503, "Service Unavailable"),
            Self::GatewayTimeout => (504, "Gateway Timeout"),
            Self::OptionNotSupported => (551, "Option not supported"),
        }
    }
}

/// An answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: Status) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Appends the answer to `request` to what is to be sent.
    pub fn write(&self, request: &Request, out: &mut BytesMut) {
        let (code, reason) = self.status.parts();
        let mut head = format!("RTSP/1.0 {code} {reason}\r\n");
        if let Some(cseq) = request.header(&rtsp_types::headers::CSEQ) {
            put(&mut head, "CSeq", cseq.as_str());
        }
        put(&mut head, "Server", "kerbside");
        for (name, value) in &self.headers {
            put(&mut head, name, value);
        }
        if !self.body.is_empty() {
            put(&mut head, "Content-Length", &self.body.len().to_string());
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.body);
    }
}

fn put(head: &mut String, name: &str, value: &str) {
    // What came from the other side must not begin a header of its own.
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    write!(head, "{name}: {clean}\r\n").unwrap_or_else(|_| unreachable!("a String takes all"));
}
