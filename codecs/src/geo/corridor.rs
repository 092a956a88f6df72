//! Corridors: all points within half a width of a line. Not here: where such a line comes from.

use super::{Bounds, DEGREE_M, Point, origin_to_segment, plane_at};

/// One or more lines of `(lat, lon)` with a width. Not across the 180° meridian.
#[derive(Clone, Debug)]
pub struct Corridor {
    lines: Vec<Vec<Point>>,
    half_m: f64,
}

impl Corridor {
    /// `lines`: each of at least two points; `width_m`: from one side to the other, metres.
    pub fn new(lines: Vec<Vec<Point>>, width_m: f64) -> Self {
        Self {
            lines,
            half_m: width_m / 2.0,
        }
    }

    pub fn segments(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        self.lines
            .iter()
            .flat_map(|l| l.iter().copied().zip(l.iter().copied().skip(1)))
    }

    /// The box around a segment of it, its width included.
    pub fn bounds_of(&self, (a, b): (Point, Point)) -> Bounds {
        // A thousandth more: the box is straight, the distance is not.
        let north = self.half_m / DEGREE_M * 1.001;
        let shrink = a.0.abs().max(b.0.abs()).to_radians().cos().max(1e-6);
        let mut all = Bounds::EMPTY;
        for (lat, lon) in [a, b] {
            all.extend(lat - north, lon - north / shrink);
            all.extend(lat + north, lon + north / shrink);
        }
        all
    }

    pub fn bounds(&self) -> Bounds {
        let mut all = Bounds::EMPTY;
        for b in self.segments().map(|s| self.bounds_of(s)) {
            all.extend(b.south, b.west);
            all.extend(b.north, b.east);
        }
        all
    }

    /// Metres to the line in the middle.
    pub fn distance_m(&self, lat: f64, lon: f64) -> f64 {
        let plane = plane_at((lat, lon));
        self.segments()
            .map(|(a, b)| origin_to_segment(plane(a), plane(b)))
            .fold(f64::INFINITY, f64::min)
    }

    pub fn contains(&self, lat: f64, lon: f64) -> bool {
        self.distance_m(lat, lon) <= self.half_m
    }

    /// Metres to the border, inside or outside.
    pub fn border_distance_m(&self, lat: f64, lon: f64) -> f64 {
        (self.distance_m(lat, lon) - self.half_m).abs()
    }

    pub fn width_m(&self) -> f64 {
        self.half_m * 2.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Degrees of latitude of one metre.
    const METRE: f64 = 1.0 / DEGREE_M;

    #[test]
    fn within_half_the_width_of_the_line() {
        let c = Corridor::new(
            vec![vec![(37.0, 112.0), (37.0, 112.01), (37.01, 112.01)]],
            40.0,
        );
        assert!(c.contains(37.0 + 19.9 * METRE, 112.005));
        assert!(!c.contains(37.0 + 20.1 * METRE, 112.005));
        assert!(
            c.contains(37.0 - 14.0 * METRE, 112.01 + 14.0 * METRE),
            "round at the corner"
        );
        assert!(!c.contains(37.0 - 19.0 * METRE, 112.01 + 25.0 * METRE));
        assert!((c.border_distance_m(37.0, 112.005) - 20.0).abs() < 1e-6);
        assert!((c.border_distance_m(37.0 + 50.0 * METRE, 112.005) - 30.0).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn nothing_of_it_is_outside_of_its_box(
            lat in -70.0..70.0_f64, north in -0.05..0.05_f64, east in -0.05..0.05_f64, width in 1.0..500.0_f64,
            at in (-0.06..0.06_f64, -0.06..0.06_f64),
        ) {
            let c = Corridor::new(vec![vec![(lat, 112.0), (lat + north, 112.0 + east)]], width);
            let (lat, lon) = (lat + at.0, 112.0 + at.1);
            prop_assert!(!c.contains(lat, lon) || c.bounds().contains(lat, lon));
        }
    }
}
