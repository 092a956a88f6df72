//! The zones one device belongs to: which of them it has left.
//!
//! Here: borders with hysteresis, by how exact the position is. Not here: where zones are (`grid`), rules.

use super::grid::{Grid, Place};

/// So far outside of a zone one fix is enough, metres.
const CLEARLY_OUTSIDE_M: f64 = 50.0;
/// Fixes outside in a row that make a leaving.
const OUTSIDE_FIXES: u8 = 2;

/// One of the zones that the device belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnZone {
    zone: u16,
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Not seen in it yet.
    Unknown,
    Inside,
    /// Outside for so many fixes, not sure yet.
    Leaving(u8),
    /// It was in and is out.
    Left,
}

/// Where a device is in the grid, and its own zones.
#[derive(Clone, Debug, Default)]
pub struct OwnZones {
    pub place: Place,
    zones: Vec<OwnZone>,
    /// Grows with each leaving of a zone.
    leavings: u32,
}

impl OwnZones {
    /// The zones that the device belongs to changed, or are known for the first time.
    pub fn set(&mut self, zones: impl Iterator<Item = u16>) {
        let former = std::mem::take(&mut self.zones);
        self.zones = zones
            .map(|zone| OwnZone {
                zone,
                side: former
                    .iter()
                    .find(|o| o.zone == zone)
                    .map_or(Side::Unknown, |o| o.side),
            })
            .collect();
    }

    pub fn leavings(&self) -> u32 {
        self.leavings
    }

    /// Own zones that it was in and is outside of.
    pub fn left(&self) -> impl Iterator<Item = u16> {
        self.zones
            .iter()
            .filter(|o| o.side == Side::Left)
            .map(|o| o.zone)
    }

    /// The device is at a place, known to `accuracy_m` (radius of 68 %).
    pub fn cross(&mut self, lat: f64, lon: f64, accuracy_m: f64, grid: &Grid) {
        self.place = grid.locate(lat, lon);
        for own in &mut self.zones {
            let Some(zone) = grid.zone(own.zone) else {
                continue;
            };
            let inside = self.place.zones.contains(&own.zone);
            if inside && matches!(own.side, Side::Unknown | Side::Inside) {
                own.side = Side::Inside;
                continue;
            }
            if !inside && matches!(own.side, Side::Unknown | Side::Left) {
                continue;
            }
            let border_m = zone.area.border_distance_m(lat, lon);
            if border_m < accuracy_m {
                continue;
            }
            own.side = match own.side {
                _ if inside => Side::Inside,
                Side::Leaving(n) if n + 1 < OUTSIDE_FIXES && border_m <= CLEARLY_OUTSIDE_M => {
                    Side::Leaving(n + 1)
                }
                Side::Inside if border_m <= CLEARLY_OUTSIDE_M => Side::Leaving(1),
                _ => {
                    self.leavings += 1;
                    Side::Left
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::track::tests::{METRE, grid};
    use super::*;

    /// Steps of (metres north of the zone's northern border, accuracy, zones left after it, leavings after it).
    #[test]
    fn zone_borders() {
        let (grid, mut zones) = (grid(), OwnZones::default());
        zones.set([0].into_iter());
        for (i, (north_m, accuracy_m, left, leavings)) in [
            (100.0, 5.0, 0, 0),  // outside from the start: nothing was left
            (-100.0, 5.0, 0, 0), // in
            (10.0, 20.0, 0, 0),  // the accuracy reaches over the border: says nothing
            (10.0, 20.0, 0, 0),
            (10.0, 5.0, 0, 0),  // outside once
            (-10.0, 5.0, 0, 0), // and back
            (10.0, 5.0, 0, 0),  // outside once
            (12.0, 5.0, 1, 1),  // twice: left
            (15.0, 5.0, 1, 1),
            (-3.0, 5.0, 1, 1),  // not surely back
            (-10.0, 5.0, 0, 1), // back
            (60.0, 5.0, 1, 2),  // clearly outside at once
        ]
        .into_iter()
        .enumerate()
        {
            zones.cross(37.01 + north_m * METRE, 112.005, accuracy_m, &grid);
            assert_eq!(
                (zones.left().count(), zones.leavings()),
                (left, leavings),
                "step {i}"
            );
        }
    }
}
