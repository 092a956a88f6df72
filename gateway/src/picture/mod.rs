//! The picture: the latest aligned state of all devices, streams and open events, and the feed of its changes.
//!
//! Here: tracks, grid, rules → events. Not here: protocols, sessions, how an event reaches a platform, WebSockets.
//! `state` is pure; `actor` is the one owner; `feed` is what screens read, without the actor.

mod actor;
mod device;
mod extras;
mod feed;
mod grid;
mod latch;
mod own_zones;
mod people;
mod raise;
mod rules;
mod sight;
mod state;
pub mod track;
mod view;

use std::sync::Arc;

use actix::{Actor, Addr};
use kerbside_codecs::telemetry::{Fault, Report};

#[cfg(test)]
pub(crate) use feed::{Body, Change, Key};
pub use feed::{Feed, FeedReader};
pub use grid::{Grid, GridFault};
pub use rules::{RuleFault, Rules};

use crate::clock::Now;
use crate::event::{Delivery, Event};
use crate::ids::{DeviceId, EventId};
use crate::outbox::{Outbox, OutboxError};
use crate::registry;
use crate::stream::StreamStatus;
use actor::{PictureActor, Tell};
use state::State;

/// What the rooms above tell the picture.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "reports are nearly all of them")]
pub enum Fact {
    /// A device, or the dock that speaks for it, said something. `registered`: the registry's entry of
    /// `report.device`; None for an aircraft that a dock announced.
    Report {
        report: Report,
        registered: Option<Arc<registry::Device>>,
        arrived: Now,
    },
    /// The first session of a device opened, or the last one closed.
    Session {
        device: DeviceId,
        registered: registry::Device,
        online: bool,
    },
    /// The whole registry, at start and after each change of it.
    Known(Vec<registry::Device>),
    /// A camera of the configuration and where it stands, degrees WGS-84.
    Fixed {
        device: DeviceId,
        kind: registry::DeviceKind,
        unit: Option<String>,
        lat: f64,
        lon: f64,
    },
    Streams(Vec<StreamStatus>),
    /// How far an event is on its way to one platform.
    Delivery {
        event: EventId,
        delivery: Delivery,
    },
    /// Faults of a message that gave no report.
    Faults {
        device: DeviceId,
        faults: Vec<Fault>,
    },
    /// Time passes; to be told once a second.
    Tick,
}

/// The picture owns the fact, and the outbox what it raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// New events; an event that was sent twice is not among them.
    pub raised: Vec<EventId>,
}

/// The fact raised an event that nobody owns: do not acknowledge it, the device sends it again.
#[derive(Debug, thiserror::Error)]
pub enum NotOwned {
    #[error("the outbox could not take the event: {0}")]
    Outbox(#[source] OutboxError),
    #[error("the picture has stopped; the gateway is going down")]
    Stopped,
}

/// The picture of this box. Cheap to clone.
#[derive(Clone)]
pub struct Picture {
    addr: Addr<PictureActor>,
    feed: Arc<Feed>,
}

impl Picture {
    /// Starts the actor; call inside the actix system. `recent`: the newest events of the outbox.
    pub fn start(
        grid: Grid,
        rules: Rules,
        outbox: Outbox,
        recent: Vec<(Event, Vec<Delivery>)>,
    ) -> Self {
        let feed = Arc::new(Feed::default());
        let (state, fx) = State::new(grid, rules, recent);
        feed.publish(fx.changes);
        let addr = PictureActor::new(state, feed.clone(), outbox).start();
        Self { addr, feed }
    }

    /// Moves the picture by one fact; returns when the picture owns it and the outbox owns what it raised. Waits
    /// while the picture is busy.
    ///
    /// # Errors
    /// [`NotOwned`]: nothing is lost if whoever said it says it again.
    pub async fn tell(&self, fact: Fact) -> Result<Told, NotOwned> {
        self.addr
            .send(Tell(fact))
            .await
            .map_err(|_| NotOwned::Stopped)?
    }

    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}
