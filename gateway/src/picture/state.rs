//! The picture, pure: facts in, effects out.
//!
//! Here: which devices, streams and events there are, and what a fact changes. Not here: rules (`raise`), positions
//! (`track`), how screens get it (`feed`), time and the outbox (`actor`).

mod devices;
mod events;
mod places;
mod streams;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kerbside_codecs::telemetry::{Datum, Fault, Fix, Report};

use super::Fact;
use super::device::{Device, SOS_SHOWN};
use super::feed::{Change, Key};
use super::grid::Grid;
use super::latch::Latches;
use super::people::People;
use super::raise::{self, Occasion, Raised, Raising, Rulebook, Subject};
use super::rules::{Cause, Rules};
use super::track::{Freshness, Order, Taken};
use super::view;
use crate::clock::Now;
use crate::event::{Delivery, Event};
use crate::history::Point;
use crate::ids::{DeviceId, StreamId};
use crate::outbox::Appended;
use crate::registry;
use crate::stream::StreamStatus;
use devices::Devices;
use events::Events;

/// An announced device that is silent for so long goes.
const ANNOUNCED_FORGOTTEN: Duration = Duration::from_secs(3600);

/// How often rules on time inside are looked at, beside every report.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a fact led to.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the feed, in order.
    pub changes: Vec<Change>,
    /// For the outbox; then [`State::conclude`].
    pub raised: Vec<Raised>,
    /// Rules that failed, with the reason.
    pub failed_rules: Vec<(u16, String)>,
    /// For the history.
    pub points: Vec<Point>,
    /// What became of a position: `moved`, `held`, `stale`.
    pub position: Option<&'static str>,
}

impl Effects {
    fn add(&mut self, raising: Raising) {
        self.raised.extend(raising.raised);
        self.failed_rules.extend(raising.failed);
    }
}

struct Stream {
    status: StreamStatus,
    latches: Latches,
}

/// All that is known now.
pub struct State {
    grid: Arc<Grid>,
    /// Which of the grid's timed zones were in force at the last tick.
    in_force: Vec<bool>,
    /// When rules on time inside were last looked at.
    looked: Option<Instant>,
    /// None: no history. Else: of a device that stands still a point is kept so often.
    keep_every: Option<Duration>,
    rules: Rules,
    devices: Devices,
    people: People,
    streams: BTreeMap<StreamId, Stream>,
    events: Events,
    /// Revoked devices: what their last sessions still say is not shown.
    revoked: HashSet<DeviceId>,
}

impl State {
    /// `recent`: events of before the start. The effects show them to screens.
    pub fn new(
        grid: Arc<Grid>,
        rules: Rules,
        recent: Vec<(Event, Vec<Delivery>)>,
    ) -> (Self, Effects) {
        let mut me = Self {
            grid,
            in_force: Vec::new(),
            looked: None,
            keep_every: None,
            rules,
            devices: Devices::default(),
            people: People::default(),
            streams: BTreeMap::new(),
            events: Events::default(),
            revoked: HashSet::new(),
        };
        let mut fx = Effects::default();
        for (event, deliveries) in recent {
            fx.changes.push(me.events.show(event, deliveries));
        }
        (me, fx)
    }

    /// Positions go into the history; of a device that stands still one in `every`.
    pub fn keep_history(&mut self, every: Duration) {
        self.keep_every = Some(every);
    }

    pub fn rule_name(&self, number: u16) -> &str {
        self.rules.get(number).map_or("", |r| &r.spec.name)
    }

    /// Tracks by how fresh their position is; several devices of one person are one track.
    pub fn census(&self) -> [(Freshness, i64); 5] {
        Freshness::ALL.map(|f| {
            let of = |d: &&Device| d.primary && d.track.freshness() == f;
            (f, self.devices.iter().filter(of).count() as i64)
        })
    }

    pub fn apply(&mut self, fact: Fact, now: Now) -> Effects {
        let mut fx = Effects::default();
        match fact {
            Fact::Report {
                report,
                registered,
                restricted,
                arrived,
            } => self.report(&report, registered.as_deref(), restricted, arrived, &mut fx),
            Fact::Session {
                device,
                registered,
                online,
            } => self.session(&device, &registered, online, now, &mut fx),
            Fact::Known(all) => self.known(&all, now, &mut fx),
            Fact::Fixed {
                device,
                kind,
                unit,
                lat,
                lon,
            } => {
                let d = self.devices.known(&device, &self.grid, now);
                d.mount(kind, unit.as_deref(), &self.grid);
                d.fix_at(Fix::at(lat, lon, Datum::Wgs84), &self.grid, now);
                fx.changes.push(d.view(&self.grid).change(false));
            }
            Fact::Streams(all) => {
                for status in all {
                    self.stream(status, now, &mut fx);
                }
            }
            Fact::Delivery { event, delivery } => {
                fx.changes.extend(self.events.deliver(event, delivery));
            }
            Fact::Faults { device, faults } => {
                if let Some(d) = self.devices.get_mut(&device) {
                    d.count(&faults);
                    fx.changes.push(d.view(&self.grid).change(false));
                }
            }
            Fact::Grid(grid) => self.change_grid(grid, now, &mut fx),
            Fact::Tick => self.tick(now, &mut fx),
        }
        fx
    }

    fn report(
        &mut self,
        report: &Report,
        registered: Option<&registry::Device>,
        restricted: bool,
        now: Now,
        fx: &mut Effects,
    ) {
        let Ok(id) = DeviceId::parse(&report.device) else {
            return;
        };
        if self.revoked.contains(&id) {
            return;
        }
        // An aircraft is as restricted as its dock.
        let d = match registered {
            Some(r) => {
                register(&mut self.devices, &mut self.people, &id, r, &self.grid, now);
                self.devices.known(&id, &self.grid, now)
            }
            None => {
                let (d, gone) = self.devices.announced(&id, &self.grid, now);
                let gone = gone.map(|id| Change::Gone(Key::Device(id)));
                fx.changes.extend(gone);
                d.online |= d.is_announced();
                d.restricted |= restricted;
                d
            }
        };
        if let Some(online) = report.online {
            d.online = online;
        }
        d.heard = now.mono;
        d.count(&report.faults);
        let moment = d
            .track
            .hear(report.device_time_ms, report.is_back_fill, now);
        let old = moment.order == Order::Older;
        if old && !report.is_back_fill {
            d.count(&[Fault::Stale]);
        }
        if !old {
            d.learn(report);
        }
        let mut moved = false;
        if let Some(fix) = report.fix {
            let taken = d.take(fix, report.device_time_ms, moment, &self.grid, now);
            moved = taken == Taken::Moved;
            if let Some(every) = self.keep_every.filter(|_| taken != Taken::Held) {
                let spot = d.spot(report, moment, every, now);
                let device = id.clone();
                fx.points.extend(spot.map(|spot| Point { device, spot }));
            }
            fx.position = Some(taken.name());
        }
        if report.sos.is_some() {
            d.sos_until = Some(now.mono + SOS_SHOWN);
        }
        let occasion = match old {
            true => Occasion::OldReport(report),
            false => Occasion::Report(report),
        };
        let book = Rulebook {
            rules: &self.rules,
            grid: &self.grid,
            now,
        };
        let streams = || live_streams(&self.streams, &id);
        fx.add(raise::on_device(book, d, occasion, streams));
        fx.changes.push(d.view(&self.grid).change(moved));
        let person = d.person.clone().filter(|_| moved);
        if let Some(person) = person {
            self.choose(&person, now, fx);
        }
    }

    /// Which device of a person is its track; those that changed are shown.
    fn choose(&mut self, person: &str, now: Now, fx: &mut Effects) {
        let Some(theirs) = self.people.several(person).map(<[_]>::to_vec) else {
            return;
        };
        let of = |id: &DeviceId| Some(self.devices.get(id)?.candidate(now));
        let candidates: Vec<_> = theirs.iter().filter_map(of).collect();
        let Some(primary) = self.people.choose(person, &candidates, now.mono) else {
            return;
        };
        for id in theirs {
            let Some(d) = self.devices.get_mut(&id) else {
                continue;
            };
            let is_primary = id == primary;
            if std::mem::replace(&mut d.primary, is_primary) != is_primary {
                fx.changes.push(d.view(&self.grid).change(false));
            }
        }
    }

    /// One device left is the person's track.
    fn settle_people(&mut self, now: Now, fx: &mut Effects) {
        for person in self.people.all_with_several() {
            self.choose(&person, now, fx);
        }
        for d in self.devices.iter_mut().filter(|d| !d.primary) {
            let alone = d
                .person
                .as_deref()
                .is_none_or(|p| self.people.several(p).is_none());
            if alone {
                d.primary = true;
                fx.changes.push(d.view(&self.grid).change(false));
            }
        }
    }

    fn session(
        &mut self,
        device: &DeviceId,
        registered: &registry::Device,
        online: bool,
        now: Now,
        fx: &mut Effects,
    ) {
        if self.revoked.contains(device) {
            return;
        }
        register(
            &mut self.devices,
            &mut self.people,
            device,
            registered,
            &self.grid,
            now,
        );
        let d = self.devices.known(device, &self.grid, now);
        d.online = online;
        let book = Rulebook {
            rules: &self.rules,
            grid: &self.grid,
            now,
        };
        let streams = || live_streams(&self.streams, device);
        fx.add(raise::on_device(book, d, Occasion::Presence, streams));
        fx.changes.push(d.view(&self.grid).change(false));
    }

    /// The whole registry: new devices appear, revoked ones go.
    fn known(&mut self, all: &[registry::Device], now: Now, fx: &mut Effects) {
        let ids: HashSet<&str> = all.iter().map(|d| d.id.as_str()).collect();
        let gone: Vec<_> = self
            .devices
            .iter_mut()
            .filter(|d| d.registered && !ids.contains(d.id.as_str()))
            .filter_map(|d| {
                // A camera of the configuration stays.
                d.registered = !d.fixed;
                d.registered.then(|| d.id.clone())
            })
            .collect();
        for id in &gone {
            if let Some(d) = self.devices.remove(id) {
                self.people.carry(id, d.person.as_deref(), None);
            }
            self.revoked.insert(id.clone());
            fx.changes.push(Change::Gone(Key::Device(id.clone())));
            let theirs = self.streams.keys().filter(|s| s.device == *id);
            let theirs: Vec<_> = theirs.cloned().collect();
            for stream in theirs {
                self.streams.remove(&stream);
                fx.changes.push(Change::Gone(Key::Stream(stream)));
            }
        }
        for r in all {
            let Ok(id) = DeviceId::parse(&r.id) else {
                continue;
            };
            self.revoked.remove(&id);
            if register(&mut self.devices, &mut self.people, &id, r, &self.grid, now) {
                let d = self.devices.known(&id, &self.grid, now);
                fx.changes.push(d.view(&self.grid).change(false));
            }
        }
        self.settle_people(now, fx);
    }

    /// The outbox answered: the event is shown, or its latch opens again.
    pub fn conclude(&mut self, raised: Raised, answer: Option<&Appended>, fx: &mut Effects) {
        let latches = match &raised.subject {
            Subject::Device(id) => self.devices.get_mut(id).map(|d| &mut d.latches),
            Subject::Stream(id) => self.streams.get_mut(id).map(|s| &mut s.latches),
        };
        match (latches, answer) {
            (Some(l), Some(_)) => l.settle(raised.rule, raised.key),
            (Some(l), None) => l.retract(raised.rule, raised.key),
            (None, _) => {}
        }
        let is_crossing = self
            .rules
            .get(raised.rule)
            .is_some_and(|r| r.cause == Cause::Crossing);
        if let (Subject::Device(id), None, true) = (&raised.subject, answer, is_crossing)
            && let Some(d) = self.devices.get_mut(id)
        {
            d.borders.keep_crossed();
        }
        if matches!(answer, Some(Appended::New)) {
            fx.changes.push(self.events.show(raised.event, Vec::new()));
        }
    }

    fn tick(&mut self, now: Now, fx: &mut Effects) {
        self.zones_in_time(now, fx);
        let looks = self.rules.read_time()
            && self
                .looked
                .is_none_or(|t| now.mono.saturating_duration_since(t) >= LOOK_EVERY);
        if looks {
            self.looked = Some(now.mono);
        }
        let mut forgotten = Vec::new();
        for d in self.devices.iter_mut() {
            let aged = d.age(now);
            if aged.freshness || looks {
                let id = d.id.clone();
                let book = Rulebook {
                    rules: &self.rules,
                    grid: &self.grid,
                    now,
                };
                let streams = || live_streams(&self.streams, &id);
                fx.add(raise::on_device(book, d, Occasion::Presence, streams));
            }
            if aged.shown {
                fx.changes.push(d.view(&self.grid).change(false));
            }
            let silence = now.mono.saturating_duration_since(d.heard);
            if d.is_announced() && silence >= ANNOUNCED_FORGOTTEN {
                forgotten.push(d.id.clone());
            }
        }
        for id in forgotten {
            self.devices.remove(&id);
            fx.changes.push(Change::Gone(Key::Device(id)));
        }
        self.settle_people(now, fx);
    }
}

/// The registry's word on a device. True when something changed.
fn register(
    devices: &mut Devices,
    people: &mut People,
    id: &DeviceId,
    r: &registry::Device,
    grid: &Grid,
    now: Now,
) -> bool {
    let d = devices.known(id, grid, now);
    people.carry(id, d.person.as_deref(), r.person.as_deref());
    d.register(r, grid)
}

fn live_streams(streams: &BTreeMap<StreamId, Stream>, device: &DeviceId) -> Vec<String> {
    streams
        .iter()
        .filter(|(id, s)| id.device == *device && s.status.phase == "live")
        .map(|(id, _)| id.to_string())
        .collect()
}

#[cfg(test)]
mod tests;
