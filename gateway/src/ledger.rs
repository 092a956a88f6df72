//! The account of every item taken in: it ends as delivered, conflated, shed (with a reason), expired or refused,
//! or it is in flight. The sums are exported and must balance: taken = the ends + in flight.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec};

use crate::metrics;

static TAKEN: LazyLock<IntCounterVec> =
    LazyLock::new(|| metrics::counter("kerbside_ledger_taken_total", "Items taken in", &["item"]));
static ENDED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_ledger_ended_total",
        "Items by how they ended",
        &["item", "outcome", "reason"],
    )
});

/// The account of one kind of item.
pub struct Account {
    item: &'static str,
    taken: IntCounter,
    delivered: IntCounter,
    conflated: IntCounter,
}

impl Account {
    fn open(item: &'static str) -> Self {
        Self {
            item,
            taken: TAKEN.with_label_values(&[item]),
            delivered: ENDED.with_label_values(&[item, "delivered", ""]),
            conflated: ENDED.with_label_values(&[item, "conflated", ""]),
        }
    }

    pub fn take(&self, n: u64) {
        self.taken.inc_by(n);
    }

    pub fn delivered(&self, n: u64) {
        self.delivered.inc_by(n);
    }

    /// Replaced by a newer one of the same device before it went out.
    pub fn conflated(&self, n: u64) {
        self.conflated.inc_by(n);
    }

    /// Dropped on purpose under pressure, or refused as faulty.
    pub fn shed(&self, reason: &str, n: u64) {
        ENDED
            .with_label_values(&[self.item, "shed", reason])
            .inc_by(n);
    }

    pub fn expired(&self, n: u64) {
        ENDED
            .with_label_values(&[self.item, "expired", ""])
            .inc_by(n);
    }
}

/// Messages that devices sent. Delivered: owned by the picture (and the outbox, if they raised an event).
pub static MESSAGES: LazyLock<Account> = LazyLock::new(|| Account::open("message"));
/// Events on their way to one platform each. Delivered: acknowledged by it.
pub static EVENTS: LazyLock<Account> = LazyLock::new(|| Account::open("event"));
/// Points of tracks on their way into the history. Delivered: on disk.
pub static POINTS: LazyLock<Account> = LazyLock::new(|| Account::open("point"));
/// Frames offered to one reader each.
pub static FRAMES: LazyLock<Account> = LazyLock::new(|| Account::open("frame"));
/// Changes of the picture offered to one screen each.
pub static CHANGES: LazyLock<Account> = LazyLock::new(|| Account::open("change"));
