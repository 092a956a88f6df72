//! A raster over all cells: which of them may have a position.

use kerbside_codecs::geo::Bounds;

/// Boxes in each direction at most.
const SIDE_MAX: usize = 256;

/// Which cells touch which box of a raster over all of them.
#[derive(Clone, Debug, Default)]
pub struct Index {
    bounds: Option<Bounds>,
    side: usize,
    boxes: Vec<Vec<u32>>,
}

impl Index {
    pub fn new(cells: impl ExactSizeIterator<Item = Bounds> + Clone) -> Self {
        let mut bounds = Bounds::EMPTY;
        for b in cells.clone() {
            bounds.extend(b.south, b.west);
            bounds.extend(b.north, b.east);
        }
        if cells.len() == 0 {
            return Self::default();
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a small count, rounded"
        )]
        let side = ((cells.len() as f64).sqrt().ceil() as usize * 2).clamp(1, SIDE_MAX);
        let mut me = Self {
            bounds: Some(bounds),
            side,
            boxes: vec![Vec::new(); side * side],
        };
        for (i, b) in (0..).zip(cells) {
            let (south, west) = me.raster(&bounds, b.south, b.west);
            let (north, east) = me.raster(&bounds, b.north, b.east);
            for row in south..=north {
                for column in west..=east {
                    me.boxes[row * side + column].push(i);
                }
            }
        }
        me
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to the raster"
    )]
    fn raster(&self, bounds: &Bounds, lat: f64, lon: f64) -> (usize, usize) {
        let step = |v: f64, from: f64, to: f64| {
            (((v - from) / (to - from) * self.side as f64) as usize).min(self.side - 1)
        };
        (
            step(lat, bounds.south, bounds.north),
            step(lon, bounds.west, bounds.east),
        )
    }

    pub fn candidates(&self, lat: f64, lon: f64) -> &[u32] {
        match &self.bounds {
            Some(b) if b.contains(lat, lon) => {
                let (row, column) = self.raster(b, lat, lon);
                &self.boxes[row * self.side + column]
            }
            _ => &[],
        }
    }
}
