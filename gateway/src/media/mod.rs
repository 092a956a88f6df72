//! Pictures out of frames: everything that needs a decoder or an encoder. GStreamer lives here and nowhere else.
//!
//! Here: the still picture of a key frame (JPEG), who waits for it, what is kept of it for a second, and what one
//! picture may cost. Not here: streams (a key frame is given in), HTTP, and the live path, which decodes nothing.
//!
//! GStreamer is started with the first picture, not with the gateway.

mod decode;
mod shelf;
mod snapshots;
mod still;

pub use shelf::Key;
pub use snapshots::{Snapshot, Snapshots};
pub use still::{Format, Still};

/// Why there is no picture.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    #[error("no stream of this name is live")]
    NotLive,
    #[error("the stream carries no video")]
    NoVideo,
    #[error("{0} is not decoded here: play the stream instead")]
    Codec(&'static str),
    #[error(
        "no decoder for {codec} is installed on this box: an admin installs the package {package}"
    )]
    NoDecoder {
        codec: &'static str,
        package: &'static str,
    },
    #[error("GStreamer does not work on this box: {0}")]
    Engine(String),
    #[error("too many snapshots at once; try again")]
    Busy,
    #[error("the camera gave no key frame in time; try again")]
    NoKeyFrame,
    #[error("the picture took too long to decode; try again")]
    Slow,
    #[error("the newest key frame cannot be decoded: {0}")]
    Damaged(String),
}

impl Fault {
    /// For metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::NotLive => "not_live",
            Self::NoVideo => "no_video",
            Self::Codec(_) => "codec",
            Self::NoDecoder { .. } => "no_decoder",
            Self::Engine(_) => "engine",
            Self::Busy => "busy",
            Self::NoKeyFrame => "no_key_frame",
            Self::Slow => "slow",
            Self::Damaged(_) => "damaged",
        }
    }
}
