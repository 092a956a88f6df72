//! What systemd is told: ready, alive, stopping (sd_notify(3)). Without systemd nothing happens.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;

/// The unit's `WatchdogSec`, if it has one.
static WATCHDOG: LazyLock<bool> = LazyLock::new(|| sd_notify::watchdog_enabled().is_some());

/// All rooms are open.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Alive. To be called from the loop whose standstill shall restart the gateway, well within `WatchdogSec`.
pub fn watchdog() {
    if *WATCHDOG {
        tell(&[NotifyState::Watchdog]);
    }
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

fn tell(state: &[NotifyState<'_>]) {
    static FAILED: AtomicBool = AtomicBool::new(false);
    if let Err(e) = sd_notify::notify(state)
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(error = %e, "systemd cannot be told how the gateway is; it may restart it (is NotifyAccess=main set?)");
    }
}
