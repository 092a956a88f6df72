//! The harness of the end-to-end scenarios: the real gateway on free ports, the programs that judge it, and waiting.
//!
//! Here: what several scenarios need. Not here: what they expect.

pub mod feed;
pub mod gateway;
pub mod tools;

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub use feed::Feed;
pub use gateway::{Gateway, Setup};

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Looks at a condition until it gives a value; panics after `limit` and says what was waited for.
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        if let Some(value) = look().await {
            return value;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
    }
}

/// As [`eventually`], for a condition that needs no waiting itself.
pub async fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    eventually(limit, what, async || look()).await
}

/// A port that nobody uses, TCP and UDP, with the next one free too (RTP and RTCP). Below the range that the kernel
/// gives to outgoing connections, so that nobody takes it between now and its use.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 100) as u16 * 100;
    for _ in 0..2_000 {
        let step = NEXT.fetch_add(2, Ordering::Relaxed) % 10_000;
        let port = 20_000 + (base - 20_000 + step) % 10_000;
        let usable = |port| {
            TcpListener::bind(("127.0.0.1", port)).is_ok()
                && UdpSocket::bind(("127.0.0.1", port)).is_ok()
        };
        if usable(port) && usable(port + 1) {
            return port;
        }
    }
    panic!("no free port from 20000 to 30000");
}
