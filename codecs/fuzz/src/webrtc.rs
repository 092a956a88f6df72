//! The parsers of the gateway's `webrtc` room, which strangers reach before anything is known of them.

use std::net::SocketAddr;
use std::time::Instant;

use super::feedback::{self, Feedback};
use super::hello::Hello;
use super::{ice, offer};

#[allow(
    dead_code,
    reason = "the tests run all of them, cargo-fuzz one by name"
)]
/// What is fuzzed; it panics for a fault.
pub type Target = fn(&[u8]);

/// Each by its name.
pub const TARGETS: [(&str, Target); 4] = [
    ("stun", stun),
    ("offer", offer),
    ("feedback", feedback),
    ("hello", hello),
];

/// A datagram as a connectivity check: of the user fragment `ours`, so that it is looked into.
pub fn stun(data: &[u8]) {
    ice::kind(data);
    if let Some(ufrag) = ice::ufrag_of(data) {
        assert!(ufrag.len() <= data.len());
    }
    let Ok(crypto) = rtc::crypto::default_provider() else {
        return;
    };
    let mut lite = ice::Lite::new(crypto, "ours", "secret");
    let from = SocketAddr::from(([192, 0, 2, 1], 9));
    if let Ok(checked) = lite.handle(Instant::now(), from, data) {
        assert!(checked.response.len() <= 128, "nobody is shouted at");
    }
}

/// An offer by WHIP or WHEP.
pub fn offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match offer::parse(text) {
        Ok(offer) => {
            assert!(offer.sections.len() <= 16);
            assert!(offer.sections.iter().all(|s| s.formats.len() <= 128));
        }
        Err(reason) => assert!(reason.to_string().len() <= 512, "{reason}"),
    }
}

/// RTCP of a reader.
pub fn feedback(data: &[u8]) {
    feedback::is_rtcp(data);
    let all = feedback::parse(data);
    assert!(all.len() <= data.len() / 8);
    let asked: usize = all
        .iter()
        .map(|f| match f {
            Feedback::Nack { seqs, .. } => seqs.len(),
            _ => 0,
        })
        .sum();
    assert!(asked <= 600, "{asked} packets asked for at once");
}

/// Datagrams of a DTLS ClientHello: each with two bytes of its length before it.
pub fn hello(data: &[u8]) {
    let mut hello = Hello::default();
    let mut rest = data;
    while let [high, low, behind @ ..] = rest {
        let size = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (datagram, next) = behind.split_at(size);
        rest = next;
        if hello.push(datagram) {
            break;
        }
    }
    hello.knows_aes_128_gcm();
    assert!(hello.into_datagrams().count() <= 4);
}
