//! Deliveries that changed, for the one who tells the screens: conflated, bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::Notify;

use crate::event::Delivery;
use crate::ids::EventId;
use crate::metrics;

/// Kept while nobody takes them; then the oldest events' changes go: screens show the newest events.
const CHANGES_MAX: usize = 4096;

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_outbox_changes_dropped_total",
        "Delivery changes that no screen was told",
        &["reason"],
    )
});

#[derive(Default)]
pub(super) struct Changes {
    waiting: Mutex<BTreeMap<(EventId, Arc<str>), Delivery>>,
    notify: Notify,
}

impl Changes {
    pub fn put(&self, event: EventId, platform: Arc<str>, delivery: Delivery) {
        let mut waiting = self.waiting.lock();
        waiting.insert((event, platform), delivery);
        if waiting.len() > CHANGES_MAX {
            waiting.pop_first();
            DROPPED.with_label_values(&["nobody_takes_them"]).inc();
        }
        drop(waiting);
        self.notify.notify_one();
    }

    pub async fn take(&self) -> Vec<(EventId, Delivery)> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock());
            if !taken.is_empty() {
                return taken.into_iter().map(|((id, _), d)| (id, d)).collect();
            }
            self.notify.notified().await;
        }
    }
}
