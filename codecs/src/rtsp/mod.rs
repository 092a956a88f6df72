//! RTSP 1.0 (RFC 2326) without sockets: framing with interleaved data, Digest, SDP, transports, the server's session,
//! and what a client of cameras needs (`reply`, `login`, `locate`).
//!
//! Here: bytes to requests, requests to what they ask for, and the answers. Not here: who may do it, sockets, clocks.

pub mod digest;
pub mod format;
mod framing;
mod locate;
mod login;
mod message;
mod reply;
mod sdp;
mod state;
mod transport;

pub use framing::{BadFraming, Framer, Incoming, Request};
pub use locate::{AnsweredTransport, base, control, session_control};
pub use login::{Login, LoginFault};
pub use message::{Response, Status};
pub use reply::{BadReply, Heard, Reply, ReplyFramer};
pub use sdp::{BadSdp, Offer, OfferedMedium, describe, payload_type};
pub use state::{Call, METHODS, Phase, Refused, Session, Target, Track};
pub use transport::Transport;
