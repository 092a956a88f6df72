//! Positions on the earth: datums, distances, polygons. Degrees and metres; WGS-84 unless a name says otherwise.
//!
//! Here: conversion of the Chinese datums, distance, point in polygon, corridors. Not here: GeoJSON (gateway
//! `picture/grid`).

mod corridor;

use std::f64::consts::PI;

use crate::telemetry::Datum;

pub use corridor::Corridor;

/// Mean radius of the earth, metres (IUGG).
const EARTH_RADIUS_M: f64 = 6_371_008.8;
/// Metres of one degree of latitude on that sphere.
const DEGREE_M: f64 = EARTH_RADIUS_M * PI / 180.0;

/// Krasovsky 1940, as GCJ-02 uses it.
const AXIS_M: f64 = 6_378_245.0;
const ECCENTRICITY_SQUARED: f64 = 0.006_693_421_622_965_943;
const BD_PI: f64 = PI * 3000.0 / 180.0;
/// Rounds of the inverse; four are below a micrometre everywhere (device-protocols §6).
const INVERSE_ROUNDS: usize = 8;

/// Is it a point of the earth: finite, −90..=90 north, −180..=180 east?
pub fn valid(lat: f64, lon: f64) -> bool {
    (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)
}

/// To WGS-84, `(lat, lon)`, from the datum of the device.
pub fn to_wgs84(datum: Datum, lat: f64, lon: f64) -> (f64, f64) {
    match datum {
        Datum::Wgs84 => (lat, lon),
        Datum::Gcj02 => inverse(wgs84_to_gcj02, lat, lon),
        Datum::Bd09 => {
            let (lat, lon) = inverse(gcj02_to_bd09, lat, lon);
            inverse(wgs84_to_gcj02, lat, lon)
        }
    }
}

/// From WGS-84, `(lat, lon)`, to another datum.
pub fn from_wgs84(datum: Datum, lat: f64, lon: f64) -> (f64, f64) {
    match datum {
        Datum::Wgs84 => (lat, lon),
        Datum::Gcj02 => wgs84_to_gcj02(lat, lon),
        Datum::Bd09 => {
            let (lat, lon) = wgs84_to_gcj02(lat, lon);
            gcj02_to_bd09(lat, lon)
        }
    }
}

/// The source of `(lat, lon)` under `forward`, by fixed-point iteration: one pass alone errs by up to 4 m.
fn inverse(forward: fn(f64, f64) -> (f64, f64), lat: f64, lon: f64) -> (f64, f64) {
    let (mut at_lat, mut at_lon) = (lat, lon);
    for _ in 0..INVERSE_ROUNDS {
        let (f_lat, f_lon) = forward(at_lat, at_lon);
        let (d_lat, d_lon) = (lat - f_lat, lon - f_lon);
        at_lat += d_lat;
        at_lon += d_lon;
        if d_lat.abs() < 1e-11 && d_lon.abs() < 1e-11 {
            break;
        }
    }
    (at_lat, at_lon)
}

/// GCJ-02 is defined in this box only; outside it is WGS-84.
fn in_gcj02_box(lat: f64, lon: f64) -> bool {
    (73.66..=135.05).contains(&lon) && (3.86..=53.55).contains(&lat)
}

fn wgs84_to_gcj02(lat: f64, lon: f64) -> (f64, f64) {
    if !in_gcj02_box(lat, lon) {
        return (lat, lon);
    }
    let (x, y) = (lon - 105.0, lat - 35.0);
    let root = x.abs().sqrt();
    let wave = |v: f64, a: f64, b: f64| a * (v * PI).sin() + b * (v * PI / 3.0).sin();
    let common = (20.0 * (6.0 * x * PI).sin() + 20.0 * (2.0 * x * PI).sin()) * 2.0 / 3.0;
    let d_lat = -100.0
        + 2.0 * x
        + 3.0 * y
        + 0.2 * y * y
        + 0.1 * x * y
        + 0.2 * root
        + common
        + wave(y, 20.0, 40.0) * 2.0 / 3.0
        + (160.0 * (y / 12.0 * PI).sin() + 320.0 * (y * PI / 30.0).sin()) * 2.0 / 3.0;
    let d_lon = 300.0
        + x
        + 2.0 * y
        + 0.1 * x * x
        + 0.1 * x * y
        + 0.1 * root
        + common
        + wave(x, 20.0, 40.0) * 2.0 / 3.0
        + (150.0 * (x / 12.0 * PI).sin() + 300.0 * (x / 30.0 * PI).sin()) * 2.0 / 3.0;
    let phi = lat.to_radians();
    let magic = 1.0 - ECCENTRICITY_SQUARED * phi.sin() * phi.sin();
    let sqrt_magic = magic.sqrt();
    let north =
        d_lat * 180.0 / ((AXIS_M * (1.0 - ECCENTRICITY_SQUARED)) / (magic * sqrt_magic) * PI);
    let east = d_lon * 180.0 / (AXIS_M / sqrt_magic * phi.cos() * PI);
    (lat + north, lon + east)
}

fn gcj02_to_bd09(lat: f64, lon: f64) -> (f64, f64) {
    let z = lon.hypot(lat) + 0.000_02 * (lat * BD_PI).sin();
    let theta = lat.atan2(lon) + 0.000_003 * (lon * BD_PI).cos();
    (z * theta.sin() + 0.006, z * theta.cos() + 0.0065)
}

/// Great-circle distance in metres between two `(lat, lon)`.
pub fn distance_m(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (phi_a, phi_b) = (a.0.to_radians(), b.0.to_radians());
    let sin_lat = ((phi_b - phi_a) / 2.0).sin();
    let sin_lon = ((b.1 - a.1).to_radians() / 2.0).sin();
    let h = sin_lat * sin_lat + phi_a.cos() * phi_b.cos() * sin_lon * sin_lon;
    2.0 * EARTH_RADIUS_M * h.sqrt().min(1.0).asin()
}

/// The box around an area, degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub south: f64,
    pub west: f64,
    pub north: f64,
    pub east: f64,
}

impl Bounds {
    pub const EMPTY: Self = Self {
        south: f64::INFINITY,
        west: f64::INFINITY,
        north: f64::NEG_INFINITY,
        east: f64::NEG_INFINITY,
    };

    pub fn extend(&mut self, lat: f64, lon: f64) {
        self.south = self.south.min(lat);
        self.north = self.north.max(lat);
        self.west = self.west.min(lon);
        self.east = self.east.max(lon);
    }

    pub fn contains(&self, lat: f64, lon: f64) -> bool {
        (self.south..=self.north).contains(&lat) && (self.west..=self.east).contains(&lon)
    }
}

/// A closed line of `(lat, lon)`; the first point is not repeated at the end.
pub type Ring = Vec<(f64, f64)>;

/// A polygon or multipolygon with holes. Not across the 180° meridian.
#[derive(Clone, Debug)]
pub struct Area {
    polygons: Vec<Polygon>,
    bounds: Bounds,
}

#[derive(Clone, Debug)]
struct Polygon {
    bounds: Bounds,
    /// The outer ring, then holes.
    rings: Vec<Ring>,
}

impl Area {
    /// Of polygons, each its outer ring and then its holes.
    pub fn new(polygons: Vec<Vec<Ring>>) -> Self {
        let mut bounds = Bounds::EMPTY;
        let polygons = polygons
            .into_iter()
            .map(|rings| {
                let mut own = Bounds::EMPTY;
                for &(lat, lon) in rings.iter().flatten() {
                    own.extend(lat, lon);
                    bounds.extend(lat, lon);
                }
                Polygon { bounds: own, rings }
            })
            .collect();
        Self { polygons, bounds }
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Even-odd rule over all rings: a point in a hole is outside. Of a shared border one side has the point.
    pub fn contains(&self, lat: f64, lon: f64) -> bool {
        self.bounds.contains(lat, lon)
            && self.polygons.iter().any(|p| {
                p.bounds.contains(lat, lon)
                    && p.rings
                        .iter()
                        .flat_map(|r| edges(r))
                        .filter(|&(a, b)| {
                            (a.0 > lat) != (b.0 > lat)
                                && lon < (b.1 - a.1) * (lat - a.0) / (b.0 - a.0) + a.1
                        })
                        .count()
                        % 2
                        == 1
            })
    }

    /// Metres to the nearest border, inside or outside; on a plane that touches at the point, fit for a city.
    pub fn border_distance_m(&self, lat: f64, lon: f64) -> f64 {
        let plane = plane_at((lat, lon));
        self.edges()
            .map(|(a, b)| origin_to_segment(plane(a), plane(b)))
            .fold(f64::INFINITY, f64::min)
    }

    /// The polygons, each its outer ring and then its holes.
    pub fn polygons(&self) -> impl Iterator<Item = &[Ring]> {
        self.polygons.iter().map(|p| &*p.rings)
    }

    /// The edges of all rings, holes too.
    pub fn edges(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        self.polygons().flatten().flat_map(|r| edges(r))
    }

    /// Square degrees of the outer rings: to tell which of two areas is the finer.
    pub fn size_deg2(&self) -> f64 {
        self.polygons
            .iter()
            .filter_map(|p| p.rings.first())
            .map(|r| {
                edges(r)
                    .map(|(a, b)| a.1 * b.0 - b.1 * a.0)
                    .sum::<f64>()
                    .abs()
                    / 2.0
            })
            .sum()
    }
}

/// `(lat, lon)`, degrees.
pub type Point = (f64, f64);

/// A plane in metres (east, north) that touches the earth at a point, fit for a city.
pub fn plane_at(at: Point) -> impl Fn(Point) -> Point {
    let east_m = DEGREE_M * at.0.to_radians().cos();
    move |p| ((p.1 - at.1) * east_m, (p.0 - at.0) * DEGREE_M)
}

/// The edges of a closed ring.
pub fn edges(ring: &[Point]) -> impl Iterator<Item = (Point, Point)> + '_ {
    ring.iter()
        .copied()
        .zip(ring.iter().copied().cycle().skip(1))
}

fn origin_to_segment(a: Point, b: Point) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length_squared = dx * dx + dy * dy;
    let t = if length_squared > 0.0 {
        (-(a.0 * dx + a.1 * dy) / length_squared).clamp(0.0, 1.0)
    } else {
        0.0
    };
    (a.0 + t * dx).hypot(a.1 + t * dy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// WGS-84 (lon, lat) → GCJ-02 (lon, lat), device-protocols §6.
    const CITIES: [[f64; 4]; 5] = [
        [112.75, 37.69, 112.756_491_8, 37.690_680_7],
        [110.33, 20.03, 110.334_368_1, 20.027_952_3],
        [112.45, 34.62, 112.456_260_6, 34.618_982_7],
        [117.25, 34.25, 117.255_718_3, 34.248_704_7],
        [116.40, 39.90, 116.406_242_8, 39.901_403_5],
    ];

    #[test]
    fn gcj02_vectors() {
        for [lon, lat, gcj_lon, gcj_lat] in CITIES {
            let (a, o) = from_wgs84(Datum::Gcj02, lat, lon);
            assert!((a - gcj_lat).abs() < 6e-8 && (o - gcj_lon).abs() < 6e-8);
            let back = to_wgs84(Datum::Gcj02, a, o);
            assert!(distance_m(back, (lat, lon)) < 1e-3);
        }
        let shift = distance_m((37.69, 112.75), from_wgs84(Datum::Gcj02, 37.69, 112.75));
        assert!((shift - 576.8).abs() < 2.0, "{shift}");
        assert_eq!(to_wgs84(Datum::Gcj02, 48.85, 2.35), (48.85, 2.35));
    }

    #[test]
    fn distances() {
        assert!((distance_m((0.0, 0.0), (0.0, 1.0)) - 111_195.0).abs() < 1.0);
        assert!((distance_m((0.0, 179.5), (0.0, -179.5)) - 111_195.0).abs() < 1.0);
        assert!((distance_m((90.0, 0.0), (-90.0, 0.0)) - 20_015_115.0).abs() < 10.0);
    }

    fn square(south: f64, west: f64, side: f64) -> Ring {
        vec![
            (south, west),
            (south, west + side),
            (south + side, west + side),
            (south + side, west),
        ]
    }

    #[test]
    fn a_hole_is_outside_and_borders_have_distances() {
        let a = Area::new(vec![
            vec![square(10.0, 20.0, 1.0), square(10.4, 20.4, 0.2)],
            vec![square(30.0, 20.0, 1.0)],
        ]);
        assert!(a.contains(10.1, 20.1));
        assert!(!a.contains(10.5, 20.5), "in the hole");
        assert!(a.contains(30.5, 20.5), "second polygon");
        assert!(!a.contains(20.0, 20.5), "between the two");
        let d = a.border_distance_m(10.5, 20.1);
        let expected = distance_m((10.5, 20.1), (10.5, 20.0));
        assert!((d - expected).abs() / expected < 0.001, "{d} {expected}");
        assert!((a.size_deg2() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn neighbours_share_no_point_of_their_border() {
        let (left, right) = (
            Area::new(vec![vec![square(0.0, 0.0, 1.0)]]),
            Area::new(vec![vec![square(0.0, 1.0, 1.0)]]),
        );
        assert_ne!(left.contains(0.5, 1.0), right.contains(0.5, 1.0));
    }

    proptest! {
        #[test]
        fn datums_come_back_within_a_millimetre(lat in 18.0..53.0_f64, lon in 74.0..135.0_f64) {
            for datum in [Datum::Gcj02, Datum::Bd09] {
                let (a, o) = from_wgs84(datum, lat, lon);
                prop_assert!(distance_m(to_wgs84(datum, a, o), (lat, lon)) < 1e-3);
            }
        }

        #[test]
        fn any_numbers_are_harmless(lat in any::<f64>(), lon in any::<f64>()) {
            for datum in [Datum::Wgs84, Datum::Gcj02, Datum::Bd09] {
                let _ = to_wgs84(datum, lat, lon);
            }
            let a = Area::new(vec![vec![square(lat, lon, 1.0)]]);
            let _ = (a.contains(lat, lon), a.border_distance_m(lat, lon));
            prop_assert!(!valid(f64::NAN, 0.0));
        }
    }
}
