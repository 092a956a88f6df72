//! The picture: the latest aligned state of all devices, streams and open events, and the feed of its changes.
//!
//! Here: tracks, grid, rules → events. Not here: protocols, sessions, how an event reaches a platform, WebSockets.
//! `state` is pure; `actor` is the one owner; `feed` is what screens read, without the actor.

mod actor;
mod borders;
mod device;
mod feed;
mod grid;
mod latch;
mod raise;
mod rules;
mod state;
mod track;
mod view;

use std::sync::Arc;

use actix::{Actor, Addr};
use kerbside_codecs::telemetry::{Fault, Report};
use parking_lot::RwLock;

#[cfg(test)]
pub(crate) use feed::{Body, Change, Key};
pub use feed::{Feed, FeedReader};
pub use grid::{Grid, GridFault, GridFile, rfc3339_ms};
pub use rules::{RuleFault, Rules};

use crate::clock::Now;
use crate::event::{Delivery, Event};
use crate::history::History;
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
    /// Another grid is in force.
    Grid(Arc<Grid>),
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
    grid: Arc<RwLock<GridFile>>,
}

impl Picture {
    /// Starts the actor; call inside the actix system. `recent`: the newest events of the outbox;
    /// `history`: None keeps none.
    pub fn start(
        grid: GridFile,
        rules: Rules,
        outbox: Outbox,
        recent: Vec<(Event, Vec<Delivery>)>,
        history: Option<History>,
    ) -> Self {
        let feed = Arc::new(Feed::default());
        let (mut state, fx) = State::new(grid.grid.clone(), rules, recent);
        if let Some(h) = &history {
            state.keep_history(h.keep_every());
        }
        feed.publish(fx.changes);
        feed.set_grid(grid.grid.version());
        let addr = PictureActor::new(state, feed.clone(), outbox, history).start();
        Self {
            addr,
            feed,
            grid: Arc::new(RwLock::new(grid)),
        }
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

    /// Another grid is in force from now on; every device is found anew.
    ///
    /// # Errors
    /// [`NotOwned`]: the grid is in force, but an event that it raised has no owner yet.
    pub async fn change_grid(&self, grid: GridFile) -> Result<Told, NotOwned> {
        self.feed.set_grid(grid.grid.version());
        let fact = Fact::Grid(grid.grid.clone());
        *self.grid.write() = grid;
        self.tell(fact).await
    }

    /// The grid in force.
    pub fn grid(&self) -> GridFile {
        self.grid.read().clone()
    }

    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}
