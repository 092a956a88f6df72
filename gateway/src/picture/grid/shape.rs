//! What a zone or a cell covers: an area, or a corridor along a line.

use kerbside_codecs::geo::{self, Area, Bounds, Corridor, Point};

/// Covered ground.
#[derive(Clone, Debug)]
pub enum Shape {
    Area(Area),
    Corridor(Corridor),
}

impl Shape {
    pub fn contains(&self, lat: f64, lon: f64) -> bool {
        match self {
            Self::Area(a) => a.contains(lat, lon),
            Self::Corridor(c) => c.contains(lat, lon),
        }
    }

    /// Metres to the border, inside or outside.
    pub fn border_distance_m(&self, lat: f64, lon: f64) -> f64 {
        match self {
            Self::Area(a) => a.border_distance_m(lat, lon),
            Self::Corridor(c) => c.border_distance_m(lat, lon),
        }
    }

    pub fn bounds(&self) -> Bounds {
        match self {
            Self::Area(a) => a.bounds(),
            Self::Corridor(c) => c.bounds(),
        }
    }

    /// Half of the way from the border to the middle, about, metres: so deep inside of it every fix is inside, however
    /// poor it is.
    pub fn half_depth_m(&self) -> f64 {
        match self {
            Self::Corridor(c) => c.width_m() / 4.0,
            Self::Area(a) => {
                let b = a.bounds();
                let plane = geo::plane_at(((b.south + b.north) / 2.0, (b.west + b.east) / 2.0));
                let length = |(p, q): (Point, Point)| {
                    let (p, q) = (plane(p), plane(q));
                    (p.0 - q.0).hypot(p.1 - q.1)
                };
                let around: f64 = a.edges().map(length).sum();
                let (e, n) = plane((b.south + 1.0, b.west + 1.0));
                let (e0, n0) = plane((b.south, b.west));
                // The circle in a shape is about twice its area over its border.
                a.size_deg2() * (e - e0) * (n - n0) / around.max(1e-9)
            }
        }
    }
}
