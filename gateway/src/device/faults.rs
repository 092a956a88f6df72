//! What devices did against the rules of their protocol, on its way into the picture.
//!
//! Here: one bounded tally per device, told by one task; whoever notes a fault never waits, and a flood of them is a
//! number that grows. Not here: faults of what a message says (they come with its report).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use kerbside_codecs::telemetry::Fault;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::Notify;

use super::actor::Owner;
use crate::ids::DeviceId;
use crate::metrics;
use crate::picture::Fact;

static NOTED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_protocol_faults_total",
        "What authenticated devices did against the rules of their protocol",
        &["fault"],
    )
});

/// Faults of one device told at once; the rest follows.
const TOLD_MAX: u32 = 256;

/// Noted and not yet told. Devices are those of the registry, faults those of the enum: it is bounded.
#[derive(Default)]
pub(super) struct Faults {
    noted: Mutex<HashMap<DeviceId, Vec<(Fault, u32)>>>,
    bell: Arc<Notify>,
}

impl Faults {
    pub fn note(&self, device: &DeviceId, fault: Fault) {
        NOTED.with_label_values(&[fault.name()]).inc();
        let mut all = self.noted.lock();
        let of = all.entry(device.clone()).or_default();
        match of.iter_mut().find(|(f, _)| *f == fault) {
            Some((_, n)) => *n = n.saturating_add(1),
            None => of.push((fault, 1)),
        }
        drop(all);
        self.bell.notify_one();
    }

    /// A device with what is to be told of it; None: nothing.
    fn take(&self) -> Option<(DeviceId, Vec<Fault>)> {
        let mut all = self.noted.lock();
        let device = all.keys().next()?.clone();
        let mut told = Vec::new();
        if let Some(of) = all.get_mut(&device) {
            for (fault, n) in of.iter_mut() {
                let now = (*n).min(TOLD_MAX);
                *n -= now;
                told.extend(std::iter::repeat_n(*fault, now as usize));
            }
            of.retain(|(_, n)| *n > 0);
            if of.is_empty() {
                all.remove(&device);
            }
        }
        Some((device, told))
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

/// Tells the owner what is noted, until nobody can note any more.
pub(super) async fn tell(faults: Weak<Faults>, owner: Owner) {
    let Some(bell) = faults.upgrade().map(|f| Arc::clone(&f.bell)) else {
        return;
    };
    loop {
        bell.notified().await;
        loop {
            let Some(next) = faults.upgrade().map(|f| f.take()) else {
                return;
            };
            let Some((device, faults)) = next else {
                break;
            };
            if owner.told(Fact::Faults { device, faults }).await.is_err() {
                tracing::debug!("the picture did not take the faults of a device");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_number_and_nothing_is_lost() {
        let (faults, d) = (Faults::default(), DeviceId::parse("d").unwrap());
        for _ in 0..1000 {
            faults.note(&d, Fault::MqttSubscription);
        }
        faults.note(&d, Fault::MqttPacketId);
        assert_eq!(faults.noted.lock()[&d].len(), 2);
        let mut told = Vec::new();
        while let Some((_, some)) = faults.take() {
            assert!(some.len() <= 2 * TOLD_MAX as usize);
            told.extend(some);
        }
        let of = |f| told.iter().filter(|t| **t == f).count();
        assert_eq!(
            (of(Fault::MqttSubscription), of(Fault::MqttPacketId)),
            (1000, 1)
        );
    }
}
