//! Orders to devices: given by a user, kept on disk, sent down, followed until the device has seen or refused them.
//!
//! Here: the book of orders, whom to send them through, the ladder's steps out of receipts and answers. Not here: who
//! may give one (`screen`), how a message reaches a session (`listen`), what a device is told (`codecs`).
//!
//! An order is sent again whenever its device begins to listen and has not confirmed it: devices know one they have
//! by its id.

mod clerk;
mod journal;
mod pass;
mod receipt;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use kerbside_codecs::telemetry::Answer;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::Notify;

use crate::clock::unix_ms;
use crate::ids::DeviceId;
use crate::metrics;
pub use clerk::{Orders, Places, Refusal};
use journal::Journal;
pub use pass::Passes;
pub use receipt::Receipt;
use state::{Book, Changed, Heard};
pub use state::{Full, Giver, Order, OrderId, Stage, Step};

static ENDED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_orders_ended_total",
        "Orders to devices by how far they came",
        &["kind", "state"],
    )
});
static ANSWERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_order_answers_total",
        "Answers of devices to orders, by what became of them",
        &["outcome"],
    )
});

/// All orders. Cheap to clone; without a journal (default) they are forgotten with the process.
#[derive(Clone, Default)]
pub struct OrderBook(Arc<Inner>);

#[derive(Default)]
struct Inner {
    book: Mutex<Book>,
    journal: Option<Journal>,
    /// Devices that may have begun to listen. Only such with open orders: bounded by the book.
    hints: Mutex<BTreeSet<DeviceId>>,
    bell: Notify,
}

impl OrderBook {
    /// Opens the journal in the state directory.
    ///
    /// # Errors
    /// When `orders.db` cannot be opened.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let now_ms = unix_ms();
        let (journal, orders) =
            Journal::open(state_dir, now_ms).context("orders.db cannot be opened")?;
        let mut book = Book::default();
        for order in orders {
            book.restore(order, now_ms);
        }
        Ok(Self(Arc::new(Inner {
            book: Mutex::new(book),
            journal: Some(journal),
            ..Inner::default()
        })))
    }

    /// What a device answered. Only the one that was asked counts.
    pub(super) fn answer(&self, speaker: &DeviceId, answer: Answer) {
        let Answer { order, said, note } = answer;
        let (heard, changed) = match order.parse() {
            Ok(id) => self
                .0
                .book
                .lock()
                .answer(speaker, id, said, note, unix_ms()),
            Err(_) => (Heard::Unknown, None),
        };
        ANSWERS.with_label_values(&[heard.name()]).inc();
        if heard == Heard::Foreign {
            tracing::warn!(device = %speaker, order, "an answer to another device's order is ignored");
        }
        self.record(changed);
    }

    /// The device may take orders now: it subscribed, came back, or said for the first time how it speaks.
    pub(crate) fn listening(&self, device: &DeviceId) {
        if self.0.book.lock().has_open(device, unix_ms()) {
            self.0.hints.lock().insert(device.clone());
            self.0.bell.notify_one();
        }
    }

    pub fn get(&self, id: OrderId) -> Option<Order> {
        self.0.book.lock().get(id).cloned()
    }

    /// Newest first.
    pub fn of_device(&self, device: &DeviceId, limit: usize) -> Vec<Order> {
        self.0.book.lock().of_device(device, limit)
    }

    fn step(&self, id: OrderId, stage: Stage, note: Option<String>) {
        let changed = self.0.book.lock().step(id, stage, note, unix_ms());
        self.record(changed);
    }

    fn returned(&self, id: OrderId, note: Option<String>) {
        let changed = self.0.book.lock().returned(id, note, unix_ms());
        self.record(changed);
    }

    /// To disk, and into the audit when it was the last step.
    fn record(&self, changed: Option<Changed>) {
        let Some(Changed { order, ended }) = changed else {
            return;
        };
        if let Some(journal) = &self.0.journal {
            journal.put(&order, None);
        }
        if ended {
            ENDED
                .with_label_values(&[order.kind(), order.state.name()])
                .inc();
            tracing::info!(
                target: "audit", user = order.giver.by, order = %order.id, device = %order.device,
                kind = order.kind(), state = order.state.name(),
                note = order.steps.last().and_then(|s| s.note.as_deref()), "order ended"
            );
        }
    }

    /// Writes what is left. Blocks for the last commit.
    pub fn close(&self) {
        if let Some(journal) = &self.0.journal {
            journal.close();
        }
    }
}
