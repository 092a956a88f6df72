//! What happens by itself: changes that one room has and another needs, and the ticks that make time pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::reload;
use crate::config::Config;
use crate::history::History;
use crate::ids::DeviceId;
use crate::notify;
use crate::outbox::Outbox;
use crate::picture::{Fact, NotOwned, Picture};
use crate::registry::{Device, DeviceKind, Registry};
use crate::screen::Ready;
use crate::stream::Streams;

/// Between two looks for accounts that the command line changed; a look is one `PRAGMA data_version` (microseconds).
const LOOK_FOR_CHANGES: Duration = Duration::from_millis(100);

/// Starts the clockwork on the telemetry thread; the handles are aborted at the end.
pub async fn start(
    config: &Config,
    registry: &Registry,
    picture: &Picture,
    streams: &Streams,
    outbox: &Outbox,
    history: Option<&History>,
    ready: &Arc<Ready>,
) -> (Vec<JoinHandle<()>>, PictureGone) {
    for fact in fixed_cameras(config) {
        tell(picture, fact).await;
    }
    tell(picture, Fact::Known(registry.devices())).await;
    let (gone, picture_gone) = tokio::sync::oneshot::channel();
    let works = vec![
        actix_rt::spawn(ticks(
            picture.clone(),
            streams.clone(),
            outbox.clone(),
            history.cloned(),
            ready.clone(),
            gone,
        )),
        actix_rt::spawn(reload::grid(
            config.grid_file.clone(),
            picture.clone(),
            ready.clone(),
        )),
        actix_rt::spawn(accounts(registry.clone(), picture.clone(), streams.clone())),
        actix_rt::spawn(stream_changes(picture.clone(), streams.clone())),
        actix_rt::spawn(deliveries(picture.clone(), outbox.clone())),
    ];
    (works, picture_gone)
}

/// Completes when the picture's actor is gone: nothing works without it, so the process must end and be started anew.
pub type PictureGone = tokio::sync::oneshot::Receiver<()>;

/// Tells the picture something that no device waits for; an event that the outbox refuses is raised again later.
/// False when the picture is gone.
async fn tell(picture: &Picture, fact: Fact) -> bool {
    match picture.tell(fact).await {
        Ok(_) => true,
        Err(NotOwned::Stopped) => false,
        Err(e) => {
            tracing::debug!(error = %e, "a fact raised an event that could not be stored; it is tried again");
            true
        }
    }
}

fn fixed_cameras(config: &Config) -> Vec<Fact> {
    let of = |c: &crate::config::Camera| {
        c.position.map(|(lat, lon)| Fact::Fixed {
            device: c.stream.device.clone(),
            kind: DeviceKind::Camera,
            unit: c.unit.clone(),
            lat,
            lon,
        })
    };
    config.cameras.iter().filter_map(of).collect()
}

/// Once a second: states of tracks and streams by age, the watchdog, readiness. Ends, and drops `_gone`, when the
/// picture is gone.
async fn ticks(
    picture: Picture,
    streams: Streams,
    outbox: Outbox,
    history: Option<History>,
    ready: Arc<Ready>,
    _gone: tokio::sync::oneshot::Sender<()>,
) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        streams.sweep(Instant::now());
        if !tell(&picture, Fact::Tick).await {
            return;
        }
        ready.set("outbox", outbox.fault().as_deref());
        let fault = history.as_ref().and_then(History::fault);
        ready.degrade("tracks", fault.as_deref());
        // Reached only when the picture's actor answered.
        notify::watchdog();
    }
}

/// Accounts that another process added or revoked.
async fn accounts(registry: Registry, picture: Picture, streams: Streams) {
    let mut known: Vec<Device> = registry.devices();
    let mut generation = registry.generation();
    let mut every = tokio::time::interval(LOOK_FOR_CHANGES);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        registry.fresh();
        if std::mem::replace(&mut generation, registry.generation()) == registry.generation() {
            continue;
        }
        let now = registry.devices();
        let stays = |d: &Device| {
            let at = now.binary_search_by(|n| n.id.cmp(&d.id));
            at.is_ok_and(|i| now[i] == *d)
        };
        for gone in known.iter().filter(|d| !stays(d)) {
            if let Ok(id) = DeviceId::parse(&gone.id) {
                streams.cut(&id);
            }
        }
        known.clone_from(&now);
        tell(&picture, Fact::Known(now)).await;
    }
}

async fn stream_changes(picture: Picture, streams: Streams) {
    loop {
        let changed = streams.changes().await;
        tell(&picture, Fact::Streams(changed)).await;
    }
}

async fn deliveries(picture: Picture, outbox: Outbox) {
    loop {
        for (event, delivery) in outbox.changes().await {
            tell(&picture, Fact::Delivery { event, delivery }).await;
        }
    }
}
