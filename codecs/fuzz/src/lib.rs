//! One function per fuzz target: bytes as a stranger may send them, through the parsers, with bounds on what comes out.
//!
//! Here: the functions, for cargo-fuzz (`fuzz_targets`) and for the tests that run the corpora (`codecs/tests/corpus.rs`,
//! `corpus_tests.rs` of the gateway's rooms). The pure files of the gateway's rooms `webrtc` and `listen/mqtt` are compiled in as they are.

pub mod devices;
pub mod mqtt;
pub mod packets;
pub mod webrtc;

#[allow(dead_code, reason = "only its parser is fuzzed")]
#[path = "../../../gateway/src/webrtc/feedback.rs"]
mod feedback;
#[path = "../../../gateway/src/webrtc/hello.rs"]
mod hello;
#[allow(dead_code, reason = "only its parser is fuzzed")]
#[path = "../../../gateway/src/webrtc/ice.rs"]
mod ice;
#[allow(dead_code, reason = "only its parser is fuzzed")]
#[path = "../../../gateway/src/webrtc/offer.rs"]
mod offer;

#[allow(dead_code, reason = "only its parser is fuzzed")]
#[path = "../../../gateway/src/listen/mqtt/connect.rs"]
mod connect;
#[allow(dead_code, reason = "only its parser is fuzzed")]
#[path = "../../../gateway/src/listen/mqtt/packet.rs"]
mod packet;
#[allow(dead_code, reason = "only its parser is fuzzed")]
#[path = "../../../gateway/src/listen/mqtt/read.rs"]
mod read;
