//! Devices among zones that change: another grid, zones that begin and end by the clock.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Effects, State, live_streams};
use crate::clock::Now;
use crate::picture::grid::Grid;
use crate::picture::raise::{self, Occasion, Rulebook};

impl State {
    /// Another grid is in force: every device is found anew.
    pub(super) fn change_grid(&mut self, grid: Arc<Grid>, now: Now, fx: &mut Effects) {
        let former = std::mem::replace(&mut self.grid, grid);
        let numbers = self.grid.renumbered(&former);
        for d in self.devices.iter_mut() {
            d.borders.renumber(&numbers);
            d.learn_zones(&self.grid);
        }
        let was_in_force: HashSet<u16> = (0..)
            .zip(&numbers)
            .filter(|(i, _)| former.zone(*i).is_some_and(|z| z.is_valid(now.unix_ms)))
            .filter_map(|(_, n)| *n)
            .collect();
        self.in_force = self.grid.timed_now(now.unix_ms);
        self.relocate(|zone| !was_in_force.contains(&zone), now, fx);
    }

    /// Zones begin and end by the clock.
    pub(super) fn zones_in_time(&mut self, now: Now, fx: &mut Effects) {
        let in_force = self.grid.timed_now(now.unix_ms);
        let former = std::mem::replace(&mut self.in_force, in_force);
        if former.is_empty() || former == self.in_force {
            return;
        }
        let begun: HashSet<u16> = self
            .grid
            .timed()
            .zip(former.into_iter().zip(self.in_force.clone()))
            .filter(|(_, (was, is))| !was && *is)
            .map(|(zone, _)| zone)
            .collect();
        self.relocate(|zone| begun.contains(&zone), now, fx);
    }

    fn relocate(&mut self, has_begun: impl Fn(u16) -> bool, now: Now, fx: &mut Effects) {
        for d in self.devices.iter_mut() {
            let former = d.borders.place().clone();
            let at = d.track.last().map(|k| (k.fix.lat, k.fix.lon));
            d.borders.relocate(at, &has_begun, &self.grid, now);
            if d.borders.crossed().is_some() {
                let id = d.id.clone();
                let book = Rulebook {
                    rules: &self.rules,
                    grid: &self.grid,
                    now,
                };
                let streams = || live_streams(&self.streams, &id);
                fx.add(raise::on_device(book, d, Occasion::Presence, streams));
            }
            if *d.borders.place() != former || d.track.last().is_some() {
                fx.changes.push(d.view(&self.grid).change(false));
            }
        }
    }
}
