//! The connection to the broker: polls it, comes back after a fault, slower each time.
//!
//! What it hears it gives on one by one: while nobody takes it, the broker is not read.

use std::time::Duration;

use rand::Rng;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, Publish, SubAck};
use rumqttc::v5::{Event, EventLoop};
use tokio::sync::{mpsc, watch};

const AGAIN_MIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What the broker said.
pub(super) enum Said {
    Connected(ConnAck),
    Subscribed(SubAck),
    Message(Publish),
    /// The connection is gone, or could not be had.
    Lost(String),
}

/// Runs until nobody listens, or until the connection ends once `stops` is true.
pub(super) async fn run(
    mut events: EventLoop,
    said: mpsc::Sender<Said>,
    mut stops: watch::Receiver<bool>,
) {
    let mut failed = 0u32;
    loop {
        let what = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                failed = 0;
                Said::Connected(ack)
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => Said::Subscribed(ack),
            Ok(Event::Incoming(Packet::Publish(p))) => Said::Message(p),
            Ok(_) => continue,
            Err(e) => Said::Lost(e.to_string()),
        };
        let lost = matches!(what, Said::Lost(_));
        if said.send(what).await.is_err() || (lost && *stops.borrow()) {
            return;
        }
        if lost {
            let wait = backoff(failed, rand::rng().random());
            failed = failed.saturating_add(1);
            let stopped = tokio::time::timeout(wait, stops.wait_for(|stop| *stop)).await;
            if stopped.is_ok() {
                return;
            }
        }
    }
}

/// Half of it by chance, `share` in 0..1: boxes that lost one broker do not come back in step.
fn backoff(failed: u32, share: f64) -> Duration {
    let whole = (AGAIN_MIN * 2u32.saturating_pow(failed.min(12))).min(AGAIN_MAX);
    whole.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_slower_and_never_stops_trying() {
        assert_eq!(backoff(0, 0.0), AGAIN_MIN / 2);
        assert_eq!(backoff(1, 1.0), AGAIN_MIN * 2);
        assert!(backoff(u32::MAX, 0.0) >= AGAIN_MAX / 2);
        assert!(backoff(u32::MAX, 0.999) <= AGAIN_MAX);
    }
}
