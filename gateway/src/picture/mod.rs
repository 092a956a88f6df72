//! The picture: the latest aligned state of all devices, streams and open events, and the feed of its changes.
//!
//! Here: tracks, grid, rules → events. Not here: protocols, sessions, how an event reaches a platform, WebSockets.
//! `state` is pure; `actor` is the one owner; `feed` is what screens read, without the actor.

mod actor;
mod borders;
mod device;
mod extras;
mod feed;
mod grid;
mod latch;
mod people;
mod raise;
mod rules;
mod sight;
mod state;
pub mod track;
mod view;

use std::sync::{Arc, Mutex};

use actix::{Actor, Addr};
use kerbside_codecs::telemetry::{Fault, Report};
use parking_lot::RwLock;

pub use feed::{Audience, Feed, FeedReader, Filter, Wanted};
#[cfg(test)]
pub(crate) use feed::{Body, Change, Key};
pub use grid::{Grid, GridFault, GridFile, rfc3339_ms};
pub use rules::{RuleFault, Rules};

use crate::clock::Now;
use crate::event::{Delivery, Event};
use crate::history::History;
use crate::ids::{DeviceId, EventId};
use crate::outbox::{Outbox, OutboxError};
use crate::registry;
use crate::stream::StreamStatus;
use actor::{Core, PictureActor};
use state::State;

/// What the rooms above tell the picture.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "reports are nearly all of them")]
pub enum Fact {
    /// A device, or the dock that speaks for it, said something. `registered`: the registry's entry of
    /// `report.device`; None for an aircraft that a dock announced. `restricted`: whoever said it is, and so is what it
    /// speaks for.
    Report {
        report: Report,
        registered: Option<Arc<registry::Device>>,
        restricted: bool,
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

/// Events that a fact raised: it may be acknowledged when the outbox owns them.
#[must_use]
pub struct Owning(Addr<PictureActor>, Vec<raise::Raised>);

impl Owning {
    /// # Errors
    /// As [`Picture::tell`].
    pub async fn owned(self) -> Result<Told, NotOwned> {
        let Self(addr, raised) = self;
        addr.send(actor::Own(raised))
            .await
            .map_err(|_| NotOwned::Stopped)?
    }
}

/// The picture of this box. Cheap to clone.
#[derive(Clone)]
pub struct Picture {
    core: actor::Shared,
    addr: Addr<PictureActor>,
    feed: Arc<Feed>,
    grid: Arc<RwLock<GridFile>>,
}

impl Picture {
    /// Starts the actor; call inside the actix system. `recent`: the newest events of the outbox; `history`:
    /// None keeps none; `restricted`: devices of which nothing is shown without the grant.
    pub fn start(
        grid: GridFile,
        rules: Rules,
        outbox: Outbox,
        recent: Vec<(Event, Vec<Delivery>)>,
        history: Option<History>,
        restricted: impl IntoIterator<Item = DeviceId>,
    ) -> Self {
        let feed = Feed::start(restricted);
        let (mut state, fx) = State::new(grid.grid.clone(), rules, recent);
        if let Some(h) = &history {
            state.keep_history(h.keep_every());
        }
        feed.set_grid(grid.grid.version());
        feed.publish(fx.changes);
        let core = Arc::new(Mutex::new(Core::new(state, feed.clone(), history)));
        let addr = PictureActor {
            core: core.clone(),
            outbox,
        }
        .start();
        Self {
            core,
            addr,
            feed,
            grid: Arc::new(RwLock::new(grid)),
        }
    }

    /// Moves the picture by one fact; returns when the picture owns it and the outbox owns what it raised.
    ///
    /// # Errors
    /// [`NotOwned`]: nothing is lost if whoever said it says it again.
    pub async fn tell(&self, fact: Fact) -> Result<Told, NotOwned> {
        match self.begin(fact)? {
            None => Ok(Told::default()),
            Some(raised) => raised.owned().await,
        }
    }

    /// Moves the picture by one fact, now. None: that was all; most facts raise nothing.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn begin(&self, fact: Fact) -> Result<Option<Owning>, NotOwned> {
        let told = self.core.lock().map_err(|_| NotOwned::Stopped)?.tell(fact);
        Ok(match told {
            actor::Told::Owned => None,
            actor::Told::Raised(raised) => Some(Owning(self.addr.clone(), raised)),
            actor::Told::Retry(raised) => {
                // At most one of these is under way.
                self.addr.do_send(actor::Retry(raised));
                None
            }
        })
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

    /// The grid in force, now and later.
    pub fn grid(&self) -> &Arc<RwLock<GridFile>> {
        &self.grid
    }

    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}
