//! One device in the picture: what is known of it beside its track.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kerbside_codecs::telemetry::{Fault, Fix, Report};

use super::borders::Borders;
use super::extras::Extras;
use super::feed::Tags;
use super::grid::Grid;
use super::latch::Latches;
use super::people::Candidate;
use super::rules::{ReportView, TrackView};
use super::sight::Stand;
use super::track::{Freshness, Moment, Motion, Order, RADIUS_68, Taken, Track, motion_of};
use super::view::{DeviceView, PositionView, zone_names};
use crate::clock::Now;
use crate::history::{Spot, Thin};
use crate::ids::DeviceId;
use crate::registry;

/// A call for help is shown on the map for so long.
pub const SOS_SHOWN: Duration = Duration::from_secs(600);

/// A device that was out of reach tells of so much of its past.
const TOLD_LATE_MS_MAX: i64 = 7 * 86_400_000;

/// What is known of one device. Small: there are 10,000.
#[derive(Debug)]
pub struct Device {
    pub id: DeviceId,
    pub kind: Cow<'static, str>,
    pub unit: Option<Box<str>>,
    agency: Option<Arc<str>>,
    /// Seen only by who has the grant.
    pub restricted: bool,
    /// Who carries it, by the registry's reference.
    pub person: Option<Box<str>>,
    /// Its track is that of its person; false for the other devices of one person.
    pub primary: bool,
    model: Option<Box<str>>,
    mode: Option<Box<str>>,
    /// In the registry; else announced by a dock, or a camera of the configuration.
    pub registered: bool,
    /// A camera of the configuration.
    pub fixed: bool,
    pub online: bool,
    battery_pct: Option<f32>,
    pub sos_until: Option<Instant>,
    pub track: Track,
    pub borders: Borders,
    pub thin: Thin,
    extras: Option<Box<Extras>>,
    faults: Vec<(Fault, u32)>,
    pub latches: Latches,
    /// When it last said anything.
    pub heard: Instant,
}

impl Device {
    pub fn new(id: DeviceId, grid: &Grid, now: Now) -> Self {
        let mut me = Self {
            id,
            kind: "unknown".into(),
            unit: None,
            agency: None,
            restricted: false,
            person: None,
            primary: true,
            model: None,
            mode: None,
            registered: false,
            fixed: false,
            online: false,
            battery_pct: None,
            sos_until: None,
            track: Track::default(),
            borders: Borders::default(),
            thin: Thin::default(),
            extras: None,
            faults: Vec::new(),
            latches: Latches::default(),
            heard: now.mono,
        };
        me.set_unit(None, grid);
        me
    }

    /// Neither registered nor configured: a dock spoke for it.
    pub fn is_announced(&self) -> bool {
        !self.registered && !self.fixed
    }

    fn set_unit(&mut self, unit: Option<&str>, grid: &Grid) {
        self.unit = unit.map(Into::into);
        self.learn_zones(grid);
    }

    /// The zones that it belongs to, by a grid that is new or a registry that changed.
    pub fn learn_zones(&mut self, grid: &Grid) {
        let own = grid.zones_of(
            self.id.as_str(),
            self.unit.as_deref(),
            self.agency.as_deref(),
        );
        self.borders.set_own(own);
    }

    /// The registry's word on kind, unit and person. True when something changed.
    pub fn register(&mut self, d: &registry::Device, grid: &Grid) -> bool {
        let same = self.registered
            && self.kind == d.kind.name()
            && self.unit.as_deref() == d.unit.as_deref()
            && self.agency.as_deref() == d.agency.as_deref()
            && self.restricted == d.restricted
            && self.person.as_deref() == d.person.as_deref();
        if !same {
            self.agency = d.agency.as_deref().map(Into::into);
            self.restricted = d.restricted;
            self.registered = true;
            self.kind = d.kind.name().into();
            self.person = d.person.as_deref().map(Into::into);
            self.set_unit(d.unit.as_deref(), grid);
        }
        !same
    }

    /// A camera of the configuration.
    pub fn mount(&mut self, kind: registry::DeviceKind, unit: Option<&str>, grid: &Grid) {
        self.fixed = true;
        self.kind = kind.name().into();
        self.set_unit(unit, grid);
    }

    pub fn count(&mut self, faults: &[Fault]) {
        for fault in faults {
            match self.faults.iter_mut().find(|(f, _)| f == fault) {
                Some((_, n)) => *n = n.saturating_add(1),
                None => self.faults.push((*fault, 1)),
            }
        }
    }

    /// Everything of a report but its position and its faults.
    pub fn learn(&mut self, r: &Report) {
        if let (Some(kind), false) = (&r.kind, !self.is_announced()) {
            self.kind = kind.clone();
        }
        #[allow(clippy::cast_possible_truncation, reason = "a percentage")]
        if let Some(b) = r.battery_pct {
            self.battery_pct = Some(b as f32);
        }
        if let Some(model) = &r.model {
            self.model = Some(model.as_str().into());
        }
        if let Some(mode) = &r.mode {
            self.mode = Some(mode.as_str().into());
        }
        if let Some(online) = r.online {
            self.online = online;
        }
        if Extras::concern(r) {
            self.extras.get_or_insert_default().learn(r);
            self.look();
        }
    }

    fn motion(&self) -> Motion {
        motion_of(&self.kind)
    }

    /// Takes the fix of a report, and what follows from it for its zones and its camera.
    pub fn take(
        &mut self,
        fix: Fix,
        device_time_ms: Option<i64>,
        moment: Moment,
        grid: &Grid,
        now: Now,
    ) -> Taken {
        let motion = self.motion();
        let taken = self.track.take(fix, device_time_ms, moment, motion, now);
        if taken == Taken::Moved {
            self.stand(grid, now);
        }
        taken
    }

    /// Puts a camera of the configuration where it stands.
    pub fn fix_at(&mut self, fix: Fix, grid: &Grid, now: Now) {
        self.track.fix_at(fix, now);
        self.stand(grid, now);
    }

    fn stand(&mut self, grid: &Grid, now: Now) {
        let Some(at) = self.track.estimate(self.motion()) else {
            return;
        };
        // A device that states no accuracy is taken at its word at a border.
        let last = self.track.last().and_then(|l| l.fix.accuracy_m);
        let accuracy_m = last.map(|_| f64::from(at.sigma_m * RADIUS_68));
        self.borders.cross((at.lat, at.lon), accuracy_m, grid, now);
        self.look();
    }

    fn look(&mut self) {
        let at = self.track.estimate(self.motion());
        if let Some(extras) = &mut self.extras {
            extras.look(at.map(|at| Stand {
                lat: at.lat,
                lon: at.lon,
                sigma_m: at.sigma_m.into(),
            }));
        }
    }

    /// What it offers as the device of its person.
    pub fn candidate(&self, now: Now) -> Candidate {
        let at = self.track.at(self.motion(), now.unix_ms);
        Candidate {
            device: self.id.clone(),
            freshness: self.track.freshness(),
            sigma_m: at.map_or(f32::INFINITY, |at| at.sigma_m),
        }
    }

    /// What happens only because time passes. True when a screen should know.
    pub fn age(&mut self, now: Now) -> Aged {
        let mut aged = Aged {
            freshness: self.track.age(now),
            shown: false,
        };
        aged.shown = aged.freshness;
        if self.sos_until.is_some_and(|t| t <= now.mono) {
            self.sos_until = None;
            aged.shown = true;
        }
        if aged.freshness && self.is_announced() && self.track.freshness() == Freshness::Lost {
            // Nobody else tells when an announced aircraft goes.
            self.online = false;
        }
        aged
    }

    pub fn view<'a>(&'a self, grid: &'a Grid) -> DeviceView<'a> {
        let extras = self.extras.as_deref();
        DeviceView {
            id: &self.id,
            kind: &self.kind,
            unit: self.unit.as_deref(),
            agency: self.agency.as_deref(),
            model: self.model.as_deref(),
            mode: self.mode.as_deref(),
            state: self.track.freshness().name(),
            online: self.online,
            person: self.person.as_deref(),
            primary: self.primary,
            restricted: self.restricted,
            position: PositionView::of(&self.track, self.motion()),
            clock: self.track.deviation(),
            cell: self.cell(grid),
            cells: grid.path(self.borders.place().cell),
            zones: zone_names(grid, self.borders.place().zones.iter().copied()),
            battery_pct: self.battery_pct,
            sos: self.sos_until.is_some(),
            alarms: extras.map_or(&[], |e| &e.alarms),
            properties: extras.map_or(&[], |e| &e.properties),
            video_delays: extras.map_or(&[], |e| &e.video_delays),
            footprint: extras.and_then(|e| e.footprint.as_deref()),
            faults: &self.faults,
            tags: Tags {
                kind: self.kind.clone(),
                agency: self.agency.clone(),
                cells: grid.path(self.borders.place().cell),
                at: self.track.last().map(|l| (l.fix.lat, l.fix.lon)),
                restricted: self.restricted,
            },
        }
    }

    pub fn cell<'a>(&self, grid: &'a Grid) -> Option<&'a str> {
        let cell = grid.cell(self.borders.place().cell?)?;
        Some(&cell.id)
    }

    pub fn track_view<'a>(&'a self, grid: &'a Grid, now: Now) -> TrackView<'a> {
        let crossed = self.borders.crossed();
        let cell = |c: Option<u32>| c.and_then(|c| grid.cell(c)).map_or("", |c| &c.id);
        let names =
            |zones: Option<&'a Vec<u16>>| zone_names(grid, zones.into_iter().flatten().copied());
        TrackView {
            left_zones: zone_names(grid, self.borders.left_own()),
            zones: zone_names(grid, self.borders.place().zones.iter().copied()),
            cell: self.cell(grid).unwrap_or_default(),
            entered: names(crossed.map(|c| &c.entered)),
            left: names(crossed.map(|c| &c.left)),
            entered_cell: cell(crossed.and_then(|c| c.entered_cell)),
            left_cell: cell(crossed.and_then(|c| c.left_cell)),
            inside_s: self
                .borders
                .inside(now)
                .filter_map(|(z, d)| Some((&*grid.zone(z)?.id, d.as_secs_f64())))
                .collect(),
            cell_s: self.borders.in_cell(now).map(|d| d.as_secs_f64()),
            state: self.track.freshness().name(),
            speed_mps: self.track.speed_mps(),
            battery_pct: self.battery_pct.map(f64::from),
            online: self.online,
        }
    }

    /// A point of its history, if this report has a position that is worth one.
    pub fn spot(&mut self, r: &Report, moment: Moment, every: Duration, now: Now) -> Option<Spot> {
        let fix = r.fix.as_ref()?;
        let is_old = moment.order == Order::Older;
        // The tables of an hour hold nothing that had not happened by then.
        let plausible = now.unix_ms.saturating_sub(TOLD_LATE_MS_MAX)..=now.unix_ms;
        let happened_ms = Some(moment.at_ms).filter(|t| plausible.contains(t));
        let spot = Spot {
            happened_ms: happened_ms.unwrap_or(now.unix_ms),
            known_ms: now.unix_ms,
            lat: fix.lat,
            lon: fix.lon,
            accuracy_m: fix.accuracy_m,
            speed_mps: fix.speed_mps,
            heading_deg: fix.course_deg.or(fix.heading_deg),
            alt_m: fix.alt_m,
            is_back_filled: is_old || r.is_back_fill,
            is_restricted: self.restricted,
        };
        self.thin.keeps(&spot, every).then_some(spot)
    }

    pub fn report_view<'a>(&'a self, r: &'a Report) -> ReportView<'a> {
        ReportView {
            battery_pct: r.battery_pct,
            sos: r.sos.is_some(),
            has_fix: r.fix.is_some(),
            mode: r.mode.as_deref().unwrap_or_default(),
            kind: r.kind.as_deref().unwrap_or(&self.kind),
        }
    }
}

/// What time changed in a device.
#[derive(Clone, Copy, Debug)]
pub struct Aged {
    /// Of its position.
    pub freshness: bool,
    /// Anything that a screen shows.
    pub shown: bool,
}
