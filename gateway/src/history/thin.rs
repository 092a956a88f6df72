//! Which positions are worth a point: those that moved, and one now and then of a device that stands. Pure.

use std::time::Duration;

use kerbside_codecs::geo;

use super::Spot;

/// Of a device that tells no accuracy, metres.
const ACCURACY_M: f64 = 5.0;

/// The last point of one device that was kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thin(Option<Kept>);

#[derive(Clone, Copy, Debug)]
struct Kept {
    happened_ms: i64,
    lat: f64,
    lon: f64,
}

impl Thin {
    /// Is this spot to be kept? When it lies farther from the last kept one than its accuracy, or `every` earlier or later.
    pub fn keeps(&mut self, spot: &Spot, every: Duration) -> bool {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let keeps = self.0.is_none_or(|k| {
            let moved_m = geo::distance_m((k.lat, k.lon), (spot.lat, spot.lon));
            k.happened_ms.abs_diff(spot.happened_ms) >= every_ms
                || moved_m > spot.accuracy_m.unwrap_or(ACCURACY_M)
        });
        if keeps {
            self.0 = Some(Kept {
                happened_ms: spot.happened_ms,
                lat: spot.lat,
                lon: spot.lon,
            });
        }
        keeps
    }
}
