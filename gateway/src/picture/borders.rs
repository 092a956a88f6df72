//! The borders that one device crosses: which zones and which cell it is in for sure, which it has just entered and
//! left, which of its own zones it has left.
//!
//! A fix says nothing about a border that is nearer than its accuracy, so nobody flaps who stands on one. Into a zone
//! that is narrower than the accuracy the middle counts. All pure: `now` is passed in. Not here: where zones are
//! (`grid`), what follows from a crossing (`rules`).

use std::time::{Duration, Instant};

use super::grid::{Grid, Place};
use crate::clock::Now;

/// No position is better than this, metres.
const ACCURACY_MIN_M: f64 = 3.0;
/// So far outside of a zone one fix is enough, metres.
const CLEARLY_OUTSIDE_M: f64 = 50.0;
/// Fixes outside in a row that make a leaving.
const OUTSIDE_FIXES: u8 = 2;

/// How a device stands to one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    zone: u16,
    /// The device belongs to the zone.
    is_own: bool,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Of its own zones: not seen in it yet.
    Unknown,
    Inside(Instant),
    /// Outside for so many fixes, not sure yet.
    Leaving(Instant, u8),
    /// Of its own zones: it was in and is out.
    Left,
}

impl Standing {
    fn since(self) -> Option<Instant> {
        match self {
            Self::Inside(t) | Self::Leaving(t, _) => Some(t),
            Self::Unknown | Self::Left => None,
        }
    }
}

/// What the last fix crossed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    pub entered: Vec<u16>,
    pub left: Vec<u16>,
    pub entered_cell: Option<u32>,
    pub left_cell: Option<u32>,
}

/// Where a device is among zones and cells. Small: there are 10,000.
#[derive(Clone, Debug, Default)]
pub struct Borders {
    /// Of the last fix.
    place: Place,
    sides: Vec<Side>,
    /// The cell that it is in for sure, and since when.
    cell: Option<(u32, Instant)>,
    has_fix: bool,
    crossed: Option<Box<Crossed>>,
    /// Nobody owns yet what the last crossings raised: they stay for the next fix.
    is_unsaid: bool,
    crossings: u32,
    leavings: u32,
}

impl Borders {
    /// The zones that the device belongs to changed, or are known for the first time.
    pub fn set_own(&mut self, zones: impl Iterator<Item = u16>) {
        let own: Vec<u16> = zones.collect();
        for side in &mut self.sides {
            side.is_own = own.contains(&side.zone);
        }
        for zone in own {
            of(&mut self.sides, zone).is_own = true;
        }
        self.tidy();
    }

    /// Where the last fix is: the finest cell, and all zones in force.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What the last fix crossed; None: nothing.
    pub fn crossed(&self) -> Option<&Crossed> {
        self.crossed.as_deref()
    }

    /// Grows with everything that is crossed: tells one crossing from the next.
    pub fn crossings(&self) -> u32 {
        self.crossings
    }

    /// Grows with each leaving of an own zone.
    pub fn leavings(&self) -> u32 {
        self.leavings
    }

    /// Own zones that it was in and is outside of.
    pub fn left_own(&self) -> impl Iterator<Item = u16> {
        let left = |s: &&Side| s.is_own && s.standing == Standing::Left;
        self.sides.iter().filter(left).map(|s| s.zone)
    }

    /// Zones that it is in for sure, and for how long.
    pub fn inside(&self, now: Now) -> impl Iterator<Item = (u16, Duration)> {
        let for_long = move |s: &Side| {
            let since = s.standing.since()?;
            Some((s.zone, now.mono.saturating_duration_since(since)))
        };
        self.sides.iter().filter_map(for_long)
    }

    /// For how long it is in its cell.
    pub fn in_cell(&self, now: Now) -> Option<Duration> {
        let (_, since) = self.cell?;
        Some(now.mono.saturating_duration_since(since))
    }

    /// The outbox could not take what the last crossings raised: the device says its fix again, and they count again.
    pub fn keep_crossed(&mut self) {
        self.is_unsaid = true;
    }

    /// The device is at a new WGS-84 position. `accuracy_m`: radius of 68 %, if the device told one.
    pub fn cross(&mut self, at: (f64, f64), accuracy_m: Option<f64>, grid: &Grid, now: Now) {
        let mut crossed = self.forget();
        let before = crossed.clone();
        self.place = grid.locate(at.0, at.1, now.unix_ms);
        let accuracy_m = accuracy_m.unwrap_or(0.0).max(ACCURACY_MIN_M);
        let is_first = !std::mem::replace(&mut self.has_fix, true);
        let border_m = |zone: u16| {
            grid.zone(zone)
                .map_or(0.0, |z| z.border_distance_m(at.0, at.1))
        };
        for &zone in &self.place.zones {
            let side = of(&mut self.sides, zone);
            let depth_m = grid.zone(zone).map_or(0.0, super::grid::Zone::half_depth_m);
            let needed_m = accuracy_m.min(depth_m);
            side.standing = match side.standing {
                Standing::Inside(since) => Standing::Inside(since),
                Standing::Leaving(since, _) if border_m(zone) >= needed_m => {
                    Standing::Inside(since)
                }
                Standing::Unknown if is_first || side.is_own => Standing::Inside(now.mono),
                Standing::Unknown | Standing::Left if border_m(zone) >= needed_m => {
                    Standing::Inside(now.mono)
                }
                unsure => unsure,
            };
            if side.standing == Standing::Inside(now.mono) {
                crossed.entered.push(zone);
            }
        }
        for side in &mut self.sides {
            let Some(since) = side.standing.since() else {
                continue;
            };
            if self.place.zones.contains(&side.zone) {
                continue;
            }
            if !grid
                .zone(side.zone)
                .is_some_and(|z| z.is_valid(now.unix_ms))
            {
                // Its time is over: that is no leaving.
                side.standing = Standing::Unknown;
                continue;
            }
            let away_m = border_m(side.zone);
            if away_m < accuracy_m {
                continue;
            }
            let outside = match side.standing {
                Standing::Leaving(_, n) => n + 1,
                _ => 1,
            };
            if outside < OUTSIDE_FIXES && away_m <= CLEARLY_OUTSIDE_M {
                side.standing = Standing::Leaving(since, outside);
                continue;
            }
            side.standing = Standing::Left;
            crossed.left.push(side.zone);
            self.leavings += u32::from(side.is_own);
        }
        self.change_cell(at, accuracy_m, is_first, &mut crossed, grid, now);
        self.remember(crossed, &before);
    }

    fn change_cell(
        &mut self,
        at: (f64, f64),
        accuracy_m: f64,
        is_first: bool,
        crossed: &mut Crossed,
        grid: &Grid,
        now: Now,
    ) {
        let former = self.cell.map(|(c, _)| c);
        if former == self.place.cell {
            return;
        }
        // Deep enough in the new one, or far enough out of the old one.
        let by = self.place.cell.or(former);
        let border_m = by.and_then(|c| grid.cell_border_m(c, at.0, at.1));
        let narrow_m = self
            .place
            .cell
            .and_then(|c| grid.cell(c))
            .map(|c| c.half_depth_m);
        let needed_m = accuracy_m.min(narrow_m.unwrap_or(f64::INFINITY));
        if !is_first && border_m.is_some_and(|m| m < needed_m) {
            return;
        }
        self.cell = self.place.cell.map(|c| (c, now.mono));
        crossed.left_cell = former;
        crossed.entered_cell = self.place.cell;
    }

    /// The grid is another one, or the times of some zones began or ended. `at`: the last position; `has_begun`: zones
    /// that were not there before: who stands in one has entered it. A change of the map is no other crossing.
    pub fn relocate(
        &mut self,
        at: Option<(f64, f64)>,
        has_begun: impl Fn(u16) -> bool,
        grid: &Grid,
        now: Now,
    ) {
        let mut crossed = self.forget();
        let before = crossed.clone();
        self.place = at.map_or_else(Place::default, |(lat, lon)| {
            grid.locate(lat, lon, now.unix_ms)
        });
        for &zone in &self.place.zones {
            let side = of(&mut self.sides, zone);
            if side.standing.since().is_some() {
                continue;
            }
            if has_begun(zone) {
                side.standing = Standing::Inside(now.mono);
                crossed.entered.push(zone);
            }
        }
        for side in &mut self.sides {
            let is_in = self.place.zones.contains(&side.zone);
            let is_valid = || {
                grid.zone(side.zone)
                    .is_some_and(|z| z.is_valid(now.unix_ms))
            };
            if !is_in && (side.standing.since().is_some() || !is_valid()) {
                let doubtful = matches!(side.standing, Standing::Leaving(..)) && is_valid();
                if !doubtful {
                    side.standing = Standing::Unknown;
                }
            }
        }
        let since = self.cell.map_or(now.mono, |(_, t)| t);
        self.cell = self.place.cell.map(|c| (c, since));
        self.remember(crossed, &before);
    }

    /// Another grid: zones have other numbers; those that are gone are forgotten. Then [`Self::set_own`] and
    /// [`Self::relocate`].
    pub fn renumber(&mut self, zones: &[Option<u16>]) {
        self.crossed = None;
        self.is_unsaid = false;
        self.sides.retain_mut(|s| {
            let now = zones.get(usize::from(s.zone)).copied().flatten();
            s.zone = now.unwrap_or_default();
            now.is_some()
        });
    }

    /// What was crossed before, if it counts again.
    fn forget(&mut self) -> Crossed {
        let kept = self.crossed.take().filter(|_| self.is_unsaid);
        self.is_unsaid = false;
        kept.map_or_else(Crossed::default, |c| *c)
    }

    fn remember(&mut self, crossed: Crossed, before: &Crossed) {
        self.tidy();
        if crossed != *before {
            self.crossings = self.crossings.wrapping_add(1);
        }
        if crossed != Crossed::default() {
            self.crossed = Some(Box::new(crossed));
        }
    }

    /// Of foreign zones only those matter that it is in.
    fn tidy(&mut self) {
        self.sides
            .retain(|s| s.is_own || s.standing.since().is_some());
    }
}

/// How it stands to a zone; a zone that is new to it is [`Standing::Unknown`].
fn of(sides: &mut Vec<Side>, zone: u16) -> &mut Side {
    let at = sides.iter().position(|s| s.zone == zone);
    let at = at.unwrap_or_else(|| {
        sides.push(Side::new(zone));
        sides.len() - 1
    });
    &mut sides[at]
}

impl Side {
    fn new(zone: u16) -> Self {
        Self {
            zone,
            is_own: false,
            standing: Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
