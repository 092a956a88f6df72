//! A fleet whose picture is the test itself.

use std::sync::Arc;

use kerbside_codecs::telemetry::{Codecs, Decoded, Speaker};
use tokio::sync::{mpsc, oneshot};

use super::Fleet;
use super::actor::Owner;
use super::orders::OrderBook;
use crate::picture::Fact;
use crate::registry::Registry;

/// Facts as they arrive, each waiting to be owned (true) or refused.
pub(crate) struct Desk(mpsc::Receiver<(Fact, oneshot::Sender<bool>)>);

impl Desk {
    /// The next fact and how to answer it.
    pub async fn next(&mut self) -> (Fact, oneshot::Sender<bool>) {
        self.0.recv().await.expect("the fleet is gone")
    }

    /// Takes facts until a report comes; presence and faults are owned on the way.
    pub async fn report(&mut self) -> (kerbside_codecs::telemetry::Report, oneshot::Sender<bool>) {
        loop {
            match self.next().await {
                (Fact::Report { report, .. }, answer) => return (report, answer),
                (_, answer) => answer.send(true).expect("an asker"),
            }
        }
    }

    /// Owns everything from now on.
    pub fn own_all(mut self) {
        drop(actix_rt::spawn(async move {
            while let Some((_, answer)) = self.0.recv().await {
                answer.send(true).unwrap_or_default();
            }
        }));
    }
}

/// A fleet over a desk. The payload `poison` makes an actor panic, as a bug in a codec would.
pub(crate) fn fleet(registry: Registry) -> (Fleet, Desk) {
    fn decode_or_die(speaker: Speaker<'_>, topic: &str, payload: &[u8], at_ms: i64) -> Decoded {
        assert_ne!(payload, b"poison", "injected by the test");
        Codecs::default().decode(speaker, topic, payload, at_ms)
    }
    let (tx, rx) = mpsc::channel(64);
    (
        Fleet::with(
            registry,
            Owner::Desk(tx),
            Arc::new(decode_or_die),
            OrderBook::default(),
        ),
        Desk(rx),
    )
}
