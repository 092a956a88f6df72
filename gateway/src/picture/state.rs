//! The picture, pure: facts in, effects out.
//!
//! Here: which devices, streams and events there are, and what a fact changes. Not here: rules (`raise`), positions
//! (`track`), how screens get it (`feed`), time and the outbox (`actor`).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use kerbside_codecs::telemetry::{Fault, Fix, Report};

use super::Fact;
use super::device::{Device, SOS_SHOWN};
use super::feed::{Change, Key};
use super::grid::Grid;
use super::latch::Latches;
use super::raise::{self, Occasion, Raised, Raising, Subject};
use super::rules::{Rules, StreamView};
use super::track::{Freshness, Taken};
use super::view;
use crate::clock::Now;
use crate::event::{Delivery, Event};
use crate::ids::{DeviceId, EventId, StreamId};
use crate::outbox::Appended;
use crate::registry;
use crate::stream::StreamStatus;

/// Aircraft and others that are announced, not registered, at most; the one unheard for longest goes first.
const ANNOUNCED_MAX: usize = 2000;
/// An announced device that is silent for so long goes.
const ANNOUNCED_FORGOTTEN: Duration = Duration::from_secs(3600);
/// Events whose deliveries are followed; as many as a snapshot has.
const EVENTS_MAX: usize = 200;
/// Deliveries of events that are not here yet.
const EARLY_MAX: usize = 64;

/// What a fact led to.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the feed, in order.
    pub changes: Vec<Change>,
    /// For the outbox; then [`State::conclude`].
    pub raised: Vec<Raised>,
    /// Rules that failed, with the reason.
    pub failed_rules: Vec<(u16, String)>,
    /// To be counted.
    pub faults: Vec<Fault>,
    /// Positions that wait for a second one that agrees.
    pub held: u32,
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
    grid: Grid,
    rules: Rules,
    devices: HashMap<DeviceId, Device>,
    /// How many of them are neither registered nor configured.
    announced: usize,
    streams: BTreeMap<StreamId, Stream>,
    events: BTreeMap<EventId, (Event, Vec<Delivery>)>,
    early: VecDeque<(EventId, Delivery)>,
    /// Revoked devices: what their last sessions still say is not shown.
    revoked: HashSet<DeviceId>,
}

impl State {
    /// `recent`: events of before the start. The effects show them to screens.
    pub fn new(grid: Grid, rules: Rules, recent: Vec<(Event, Vec<Delivery>)>) -> (Self, Effects) {
        let mut me = Self {
            grid,
            rules,
            devices: HashMap::new(),
            announced: 0,
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            early: VecDeque::new(),
            revoked: HashSet::new(),
        };
        let mut fx = Effects::default();
        for (event, deliveries) in recent {
            me.show(event, deliveries, &mut fx);
        }
        (me, fx)
    }

    pub fn rule_name(&self, number: u16) -> &str {
        self.rules.get(number).map_or("", |r| &r.spec.name)
    }

    /// Devices by how fresh their position is.
    pub fn census(&self) -> [(Freshness, i64); 4] {
        let mut all = [
            (Freshness::Silent, 0),
            (Freshness::Live, 0),
            (Freshness::Stale, 0),
            (Freshness::Lost, 0),
        ];
        for d in self.devices.values() {
            if let Some((_, n)) = all.iter_mut().find(|(f, _)| *f == d.track.freshness()) {
                *n += 1;
            }
        }
        all
    }

    pub fn apply(&mut self, fact: Fact, now: Now) -> Effects {
        let mut fx = Effects::default();
        match fact {
            Fact::Report {
                report,
                registered,
                arrived,
            } => self.report(&report, registered.as_ref(), arrived, &mut fx),
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
                let d = entry(
                    &mut self.devices,
                    &mut self.announced,
                    &device,
                    &self.grid,
                    now,
                );
                if !d.registered && !d.fixed {
                    self.announced -= 1;
                }
                d.mount(kind, unit.as_deref(), &self.grid);
                d.track.fix_at(plain_fix(lat, lon), &self.grid, now);
                fx.changes.push(d.view(&self.grid).change(false));
            }
            Fact::Streams(all) => {
                for status in all {
                    self.stream(status, now, &mut fx);
                }
            }
            Fact::Delivery { event, delivery } => self.delivery(event, delivery, &mut fx),
            Fact::Faults { device, faults } => {
                if let Some(d) = self.devices.get_mut(&device) {
                    d.count(&faults);
                    fx.changes.push(d.view(&self.grid).change(false));
                }
                fx.faults = faults;
            }
            Fact::Tick => self.tick(now, &mut fx),
        }
        fx
    }

    fn report(
        &mut self,
        report: &Report,
        registered: Option<&registry::Device>,
        now: Now,
        fx: &mut Effects,
    ) {
        let Ok(id) = DeviceId::parse(&report.device) else {
            fx.faults.push(Fault::BadField);
            return;
        };
        if self.revoked.contains(&id) {
            return;
        }
        if registered.is_none() && !self.devices.contains_key(&id) {
            self.make_room(fx);
        }
        let d = entry(&mut self.devices, &mut self.announced, &id, &self.grid, now);
        if let Some(r) = registered {
            if !d.registered && !d.fixed {
                self.announced -= 1;
            }
            d.register(r, &self.grid);
        } else if !d.registered && !d.fixed {
            d.online = true;
        }
        d.heard = now.mono;
        fx.faults.extend(&report.faults);
        let old = d.track.is_older(report.device_time_ms, now);
        if old {
            fx.faults.push(Fault::Stale);
        } else {
            d.learn(report);
        }
        let mut moved = false;
        if let (Some(fix), false) = (report.fix, old) {
            let on_ground = d.on_ground();
            match d
                .track
                .take(fix, report.device_time_ms, on_ground, &self.grid, now)
            {
                Taken::Moved => moved = true,
                Taken::Held => fx.held += 1,
                Taken::Refused(fault) => fx.faults.push(fault),
            }
        }
        d.count(&fx.faults);
        if report.sos.is_some() {
            d.sos_until = Some(now.mono + SOS_SHOWN);
        }
        let occasion = if old {
            Occasion::OldReport(report)
        } else {
            Occasion::Report(report)
        };
        let streams = || live_streams(&self.streams, &id);
        fx.add(raise::on_device(
            &self.rules,
            &self.grid,
            d,
            occasion,
            streams,
            now,
        ));
        fx.changes.push(d.view(&self.grid).change(moved));
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
        let d = entry(
            &mut self.devices,
            &mut self.announced,
            device,
            &self.grid,
            now,
        );
        if !d.registered && !d.fixed {
            self.announced -= 1;
        }
        d.register(registered, &self.grid);
        d.online = online;
        let streams = || live_streams(&self.streams, device);
        fx.add(raise::on_device(
            &self.rules,
            &self.grid,
            d,
            Occasion::Presence,
            streams,
            now,
        ));
        fx.changes.push(d.view(&self.grid).change(false));
    }

    /// The whole registry: new devices appear, revoked ones go.
    fn known(&mut self, all: &[registry::Device], now: Now, fx: &mut Effects) {
        let ids: HashSet<&str> = all.iter().map(|d| d.id.as_str()).collect();
        let gone: Vec<_> = self
            .devices
            .values_mut()
            .filter(|d| d.registered && !ids.contains(d.id.as_str()))
            .filter_map(|d| {
                d.registered = false;
                (!d.fixed).then(|| d.id.clone())
            })
            .collect();
        for id in &gone {
            self.devices.remove(id);
            self.revoked.insert(id.clone());
            fx.changes.push(Change::Gone(Key::Device(id.clone())));
            let theirs: Vec<_> = self
                .streams
                .keys()
                .filter(|s| s.device == *id)
                .cloned()
                .collect();
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
            let d = entry(&mut self.devices, &mut self.announced, &id, &self.grid, now);
            if !d.registered && !d.fixed {
                self.announced -= 1;
            }
            if d.register(r, &self.grid) {
                fx.changes.push(d.view(&self.grid).change(false));
            }
        }
    }

    fn stream(&mut self, status: StreamStatus, now: Now, fx: &mut Effects) {
        let id = status.stream.clone();
        let former = self.streams.remove(&id);
        if former.is_none()
            && matches!(status.phase, "waiting" | "lost")
            && !self.devices.contains_key(&id.device)
        {
            // The end of a revoked device.
            return;
        }
        let (was, mut latches) =
            former.map_or(("", Latches::default()), |s| (s.status.phase, s.latches));
        fx.changes.push(view::stream_change(&status));
        if was != status.phase {
            let change = StreamView {
                phase: status.phase,
                was,
            };
            let streams = || live_streams(&self.streams, &id.device);
            let device = self.devices.get(&id.device);
            fx.add(raise::on_stream(
                &self.rules,
                &self.grid,
                device,
                &id,
                &mut latches,
                change,
                streams,
                now,
            ));
        }
        self.streams.insert(id.clone(), Stream { status, latches });
        if let Some(d) = self
            .devices
            .get_mut(&id.device)
            .filter(|d| d.fixed && !d.registered)
        {
            let online = !live_streams(&self.streams, &id.device).is_empty();
            if std::mem::replace(&mut d.online, online) != online {
                fx.changes.push(d.view(&self.grid).change(false));
            }
        }
    }

    fn delivery(&mut self, id: EventId, delivery: Delivery, fx: &mut Effects) {
        match self.events.get_mut(&id) {
            Some((event, deliveries)) => {
                put_delivery(deliveries, delivery);
                fx.changes.push(view::event_change(event, deliveries));
            }
            None => {
                if self.early.len() == EARLY_MAX {
                    self.early.pop_front();
                }
                self.early.push_back((id, delivery));
            }
        }
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
        if matches!(answer, Some(Appended::New)) {
            self.show(raised.event, Vec::new(), fx);
        }
    }

    fn show(&mut self, event: Event, mut deliveries: Vec<Delivery>, fx: &mut Effects) {
        let id = event.id;
        self.early.retain(|(early, delivery)| {
            let mine = *early == id;
            if mine {
                put_delivery(&mut deliveries, delivery.clone());
            }
            !mine
        });
        fx.changes.push(view::event_change(&event, &deliveries));
        self.events.insert(id, (event, deliveries));
        if self.events.len() > EVENTS_MAX {
            self.events.pop_first();
        }
    }

    fn tick(&mut self, now: Now, fx: &mut Effects) {
        let mut forgotten = Vec::new();
        for d in self.devices.values_mut() {
            let aged = d.age(now);
            if aged.freshness {
                let id = d.id.clone();
                let streams = || live_streams(&self.streams, &id);
                fx.add(raise::on_device(
                    &self.rules,
                    &self.grid,
                    d,
                    Occasion::Presence,
                    streams,
                    now,
                ));
            }
            if aged.shown {
                fx.changes.push(d.view(&self.grid).change(false));
            }
            let silence = now.mono.saturating_duration_since(d.heard);
            if !d.registered && !d.fixed && silence >= ANNOUNCED_FORGOTTEN {
                forgotten.push(d.id.clone());
            }
        }
        for id in forgotten {
            self.forget(&id, fx);
        }
    }

    fn make_room(&mut self, fx: &mut Effects) {
        if self.announced < ANNOUNCED_MAX {
            return;
        }
        let oldest = self
            .devices
            .values()
            .filter(|d| !d.registered && !d.fixed)
            .min_by_key(|d| d.heard)
            .map(|d| d.id.clone());
        if let Some(id) = oldest {
            self.forget(&id, fx);
        }
    }

    fn forget(&mut self, id: &DeviceId, fx: &mut Effects) {
        if self.devices.remove(id).is_some() {
            self.announced -= 1;
            fx.changes.push(Change::Gone(Key::Device(id.clone())));
        }
    }
}

/// The device; a new one counts as announced until somebody says more.
fn entry<'a>(
    devices: &'a mut HashMap<DeviceId, Device>,
    announced: &mut usize,
    id: &DeviceId,
    grid: &Grid,
    now: Now,
) -> &'a mut Device {
    devices.entry(id.clone()).or_insert_with(|| {
        *announced += 1;
        Device::new(id.clone(), grid, now)
    })
}

fn live_streams(streams: &BTreeMap<StreamId, Stream>, device: &DeviceId) -> Vec<String> {
    streams
        .iter()
        .filter(|(id, s)| id.device == *device && s.status.phase == "live")
        .map(|(id, _)| id.to_string())
        .collect()
}

fn put_delivery(all: &mut Vec<Delivery>, next: Delivery) {
    match all.iter_mut().find(|d| d.platform == next.platform) {
        Some(d) => *d = next,
        None => all.push(next),
    }
}

fn plain_fix(lat: f64, lon: f64) -> Fix {
    Fix {
        lat,
        lon,
        alt_m: None,
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
        source_datum: kerbside_codecs::telemetry::Datum::Wgs84,
    }
}
