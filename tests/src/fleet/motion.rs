//! How devices move: pure and deterministic. Walkers and drivers follow a lattice of streets, drones circle.
//!
//! Here: positions over time, batteries, and leaving a zone. Not here: wire formats and datums other than WGS-84 → GCJ-02.

use anyhow::Context;
use serde_json::Value;

use super::Kind;

/// The middle of the demonstration's street, degrees WGS-84.
pub const ORIGIN: (f64, f64) = (37.69, 112.75);
const METRES_PER_DEGREE: f64 = 111_320.0;
/// Distance between parallel streets.
const BLOCK_M: f64 = 60.0;
/// Walkers keep this far from the border of their zone.
const MARGIN_M: f64 = 30.0;
/// The one that strays does so between these seconds of each period, starting near the northern border.
const STRAY_FROM_S: f64 = 60.0;
const STRAY_TO_S: f64 = 300.0;
const STRAY_PERIOD_S: f64 = 600.0;
/// How far it goes beyond the border.
const STRAY_M: f64 = 80.0;

/// A polygon without holes, in metres east and north of `ORIGIN`.
#[derive(Clone, Debug, PartialEq)]
pub struct Area(pub Vec<(f64, f64)>);

/// Where the devices of some units belong.
#[derive(Clone, Debug)]
pub struct Zone {
    pub id: String,
    pub units: Vec<String>,
    pub area: Area,
}

/// One moment of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    pub lat: f64,
    pub lon: f64,
    /// Metres above the ellipsoid.
    pub alt_m: f64,
    pub speed_mps: f64,
    pub heading_deg: f64,
    pub battery_pct: f64,
}

/// A device on its way.
#[derive(Clone, Debug)]
pub struct Walker {
    kind: Kind,
    /// Where it walks; several: anywhere in them.
    areas: Vec<Area>,
    random: Random,
    at: (f64, f64),
    goal: (f64, f64),
    speed: f64,
    heading: f64,
    /// Seconds it stands still before it goes on.
    rest: f64,
    battery: f64,
    angle: f64,
    age: f64,
    strays: bool,
    /// On its way out, or outside.
    astray: bool,
}

impl Walker {
    /// The device number `index` of a fleet; the same arguments give the same way.
    pub fn new(kind: Kind, unit: Option<&str>, zones: &[Zone], seed: u64, index: u64) -> Walker {
        let mut random = Random(
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03),
        );
        let zone = zones
            .iter()
            .find(|zone| unit.is_some_and(|unit| zone.units.iter().any(|own| own == unit)));
        let areas: Vec<Area> = match zone {
            Some(zone) => vec![zone.area.clone()],
            None if zones.is_empty() => vec![Area::rectangle(-550.0, -450.0, 550.0, 450.0)],
            None => zones.iter().map(|zone| zone.area.clone()).collect(),
        };
        let speed = match kind {
            Kind::Bodycam | Kind::Radio => random.between(0.9, 1.8),
            Kind::Vehicle => random.between(4.0, 9.0),
            Kind::Drone => 8.0,
            _ => 0.0,
        };
        let middle = areas[index as usize % areas.len()].middle();
        let strays = kind == Kind::Bodycam && zone.is_some() && index == 2;
        let at = if strays {
            (middle.0, areas[0].north() - 2.0 * MARGIN_M)
        } else {
            crossing(&areas, middle, &mut random)
        };
        Walker {
            kind,
            areas,
            at,
            goal: at,
            speed,
            heading: 0.0,
            rest: 0.0,
            battery: random.between(20.0, 100.0),
            angle: random.between(0.0, std::f64::consts::TAU),
            age: 0.0,
            strays,
            astray: false,
            random,
        }
    }

    /// Moves on by `seconds`.
    pub fn step(&mut self, seconds: f64) -> Moment {
        self.age += seconds;
        let drain = match self.kind {
            Kind::Drone => 0.05,
            Kind::Vehicle => 0.002,
            _ => 0.01,
        };
        self.battery -= drain * seconds;
        if self.battery < 5.0 {
            self.battery = 100.0; // A fresh one was put in.
        }
        let moving = if self.kind == Kind::Drone {
            self.circle(seconds)
        } else {
            self.walk(seconds)
        };
        let (lat, lon) = degrees(self.position());
        Moment {
            lat,
            lon,
            alt_m: if self.kind == Kind::Drone {
                860.0 + 4.0 * self.angle.sin()
            } else {
                800.0
            },
            speed_mps: if moving { self.speed } else { 0.0 },
            heading_deg: self.heading,
            battery_pct: self.battery,
        }
    }

    fn position(&self) -> (f64, f64) {
        if self.kind == Kind::Drone {
            let radius = 90.0;
            (
                self.at.0 + radius * self.angle.cos(),
                self.at.1 + radius * self.angle.sin(),
            )
        } else {
            self.at
        }
    }

    fn circle(&mut self, seconds: f64) -> bool {
        self.angle = (self.angle + self.speed / 90.0 * seconds) % std::f64::consts::TAU;
        // Counter-clockwise: the way is a quarter turn ahead of the radius; north is 0, east 90.
        self.heading = (-self.angle.to_degrees()).rem_euclid(360.0);
        true
    }

    fn walk(&mut self, seconds: f64) -> bool {
        self.stray();
        if self.rest > 0.0 {
            self.rest -= seconds;
            return false;
        }
        let mut left = self.speed * seconds;
        for _ in 0..8 {
            let along = (self.goal.0 - self.at.0, self.goal.1 - self.at.1);
            let distance = along.0.abs() + along.1.abs();
            if distance < 1e-6 {
                if !self.choose_goal() {
                    return false;
                }
                continue;
            }
            // Along one street, then along the other.
            let (east, length) = if along.0.abs() > 1e-6 {
                (true, along.0)
            } else {
                (false, along.1)
            };
            let taken = left.min(length.abs()) * length.signum();
            if east {
                self.at.0 += taken;
                self.heading = if taken > 0.0 { 90.0 } else { 270.0 };
            } else {
                self.at.1 += taken;
                self.heading = if taken > 0.0 { 0.0 } else { 180.0 };
            }
            left -= taken.abs();
            if left <= 1e-9 {
                break;
            }
        }
        true
    }

    /// The one that strays walks out of its zone to the north, and back into it.
    fn stray(&mut self) {
        let out = self.strays && (STRAY_FROM_S..STRAY_TO_S).contains(&(self.age % STRAY_PERIOD_S));
        if out != self.astray {
            self.astray = out;
            self.rest = 0.0;
            let zone = &self.areas[0];
            self.goal = (
                self.at.0,
                if out {
                    zone.north() + STRAY_M
                } else {
                    zone.middle().1
                },
            );
        }
    }

    /// A new goal; false: stays for a while.
    fn choose_goal(&mut self) -> bool {
        if self.speed == 0.0 || self.astray {
            return false;
        }
        if self.random.between(0.0, 1.0) < 0.15 {
            self.rest = self.random.between(5.0, 30.0);
            return false;
        }
        self.goal = crossing(&self.areas, self.at, &mut self.random);
        true
    }
}

impl Area {
    fn rectangle(west: f64, south: f64, east: f64, north: f64) -> Area {
        Area(vec![
            (west, south),
            (east, south),
            (east, north),
            (west, north),
        ])
    }

    fn middle(&self) -> (f64, f64) {
        let count = self.0.len().max(1) as f64;
        let sum = self
            .0
            .iter()
            .fold((0.0, 0.0), |sum, at| (sum.0 + at.0, sum.1 + at.1));
        (sum.0 / count, sum.1 / count)
    }

    fn north(&self) -> f64 {
        self.0.iter().map(|at| at.1).fold(f64::MIN, f64::max)
    }

    /// Even-odd rule.
    fn contains(&self, (x, y): (f64, f64)) -> bool {
        let ends = self.0.iter().cycle().skip(1);
        let crossings = self.0.iter().zip(ends).filter(|(a, b)| {
            (a.1 > y) != (b.1 > y) && x < (b.0 - a.0) * (y - a.1) / (b.1 - a.1) + a.0
        });
        crossings.count() % 2 == 1
    }
}

/// A crossing of two streets inside the areas, not too near to a border, that is reached from `at` without leaving
/// them at the corner of the way; `at` itself when there is none.
fn crossing(areas: &[Area], at: (f64, f64), random: &mut Random) -> (f64, f64) {
    let corners: Vec<&(f64, f64)> = areas.iter().flat_map(|area| &area.0).collect();
    let side = |value: fn(&(f64, f64)) -> f64| {
        let values = || corners.iter().map(|corner| value(corner));
        (
            values().fold(f64::MAX, f64::min),
            values().fold(f64::MIN, f64::max),
        )
    };
    let ((west, east), (south, north)) = (side(|at| at.0), side(|at| at.1));
    let inside = |(x, y): (f64, f64)| {
        [
            (MARGIN_M, 0.0),
            (-MARGIN_M, 0.0),
            (0.0, MARGIN_M),
            (0.0, -MARGIN_M),
        ]
        .iter()
        .all(|(dx, dy)| areas.iter().any(|area| area.contains((x + dx, y + dy))))
    };
    for _ in 0..200 {
        let mut street =
            |low: f64, high: f64| (random.between(low, high) / BLOCK_M).round() * BLOCK_M;
        let goal = (street(west, east), street(south, north));
        if inside(goal) && inside((goal.0, at.1)) {
            return goal;
        }
    }
    at
}

/// Zones with units of a GeoJSON FeatureCollection (outer rings).
pub fn zones(geojson: &str) -> anyhow::Result<Vec<Zone>> {
    let grid: Value = serde_json::from_str(geojson).context("not JSON")?;
    let features = grid["features"].as_array().context("no features")?;
    let mut zones = Vec::new();
    for feature in features
        .iter()
        .filter(|feature| feature["properties"]["type"] == "zone")
    {
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect()
        };
        let mut ring = Vec::new();
        corners(&feature["geometry"]["coordinates"], &mut ring);
        // Only what somebody patrols: not corridors, nor areas that are closed for a time.
        let units = texts(&feature["properties"]["units"]);
        if ring.len() > 2 && !units.is_empty() {
            let id = feature["properties"]["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            zones.push(Zone {
                id,
                units,
                area: Area(ring),
            });
        }
    }
    Ok(zones)
}

/// The corners of the first ring in (nested) GeoJSON coordinates.
fn corners(coordinates: &Value, ring: &mut Vec<(f64, f64)>) {
    for part in coordinates.as_array().into_iter().flatten() {
        match (part[0].as_f64(), part[1].as_f64()) {
            (Some(lon), Some(lat)) => ring.push(metres((lat, lon))),
            _ if ring.is_empty() => corners(part, ring),
            _ => return,
        }
    }
}

fn degrees((east, north): (f64, f64)) -> (f64, f64) {
    let lat = ORIGIN.0 + north / METRES_PER_DEGREE;
    (
        lat,
        ORIGIN.1 + east / (METRES_PER_DEGREE * ORIGIN.0.to_radians().cos()),
    )
}

fn metres((lat, lon): (f64, f64)) -> (f64, f64) {
    let east = (lon - ORIGIN.1) * METRES_PER_DEGREE * ORIGIN.0.to_radians().cos();
    (east, (lat - ORIGIN.0) * METRES_PER_DEGREE)
}

/// WGS-84 → GCJ-02 (lat, lon), the datum of devices sold for Chinese maps.
pub fn gcj02(lat: f64, lon: f64) -> (f64, f64) {
    use std::f64::consts::PI;
    const A: f64 = 6_378_245.0;
    const EE: f64 = 0.006_693_421_622_965_943;
    let (x, y) = (lon - 105.0, lat - 35.0);
    let waves = |v: f64| (20.0 * (6.0 * v * PI).sin() + 20.0 * (2.0 * v * PI).sin()) * 2.0 / 3.0;
    let mut dlat =
        -100.0 + 2.0 * x + 3.0 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * x.abs().sqrt() + waves(x);
    dlat += (20.0 * (y * PI).sin() + 40.0 * (y / 3.0 * PI).sin()) * 2.0 / 3.0;
    dlat += (160.0 * (y / 12.0 * PI).sin() + 320.0 * (y * PI / 30.0).sin()) * 2.0 / 3.0;
    let mut dlon =
        300.0 + x + 2.0 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * x.abs().sqrt() + waves(x);
    dlon += (20.0 * (x * PI).sin() + 40.0 * (x / 3.0 * PI).sin()) * 2.0 / 3.0;
    dlon += (150.0 * (x / 12.0 * PI).sin() + 300.0 * (x / 30.0 * PI).sin()) * 2.0 / 3.0;
    let magic = 1.0 - EE * lat.to_radians().sin().powi(2);
    let root = magic.sqrt();
    dlat = dlat * 180.0 / (A * (1.0 - EE) / (magic * root) * PI);
    dlon = dlon * 180.0 / (A / root * lat.to_radians().cos() * PI);
    (lat + dlat, lon + dlon)
}

/// SplitMix64: small, and the same on every machine.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Vec<Zone> {
        vec![Zone {
            id: "beat-1".into(),
            units: vec!["patrol-1".into()],
            area: Area::rectangle(-400.0, -300.0, 0.0, 300.0),
        }]
    }

    #[test]
    fn the_same_seed_gives_the_same_way() {
        let way = |seed| {
            let mut walker = Walker::new(Kind::Bodycam, None, &[], seed, 3);
            (0..200).map(|_| walker.step(1.0)).collect::<Vec<_>>()
        };
        assert_eq!(way(7), way(7));
        assert_ne!(way(7), way(8));
    }

    #[test]
    fn walkers_stay_in_their_zone_at_their_speed_and_one_strays() {
        for index in 0..6 {
            let mut walker = Walker::new(Kind::Bodycam, Some("patrol-1"), &zone(), 1, index);
            let mut last: Option<(f64, f64)> = None;
            let mut outside = 0;
            for _ in 0..2_000 {
                let moment = walker.step(1.0);
                let at = metres((moment.lat, moment.lon));
                if let Some(last) = last {
                    assert!(
                        (at.0 - last.0).abs() + (at.1 - last.1).abs() < 2.0,
                        "faster than a walker"
                    );
                }
                last = Some(at);
                outside += u32::from(!zone()[0].area.contains(at));
            }
            assert_eq!(
                outside > 0,
                index == 2,
                "device {index} was outside {outside} s"
            );
        }
    }

    #[test]
    fn gcj02_meets_the_known_vectors() {
        for (lon, lat, gcj_lon, gcj_lat) in [
            (112.75, 37.69, 112.7564918, 37.6906807),
            (116.40, 39.90, 116.4062428, 39.9014035),
        ] {
            let (lat, lon) = gcj02(lat, lon);
            assert!(
                (lat - gcj_lat).abs() < 1e-6 && (lon - gcj_lon).abs() < 1e-6,
                "{lat} {lon}"
            );
        }
    }

    #[test]
    fn zones_are_read_with_their_units() {
        let text = r#"{"type":"FeatureCollection","features":[
            {"type":"Feature","properties":{"type":"cell","id":"1"},"geometry":{"type":"Polygon","coordinates":[]}},
            {"type":"Feature","properties":{"type":"zone","id":"beat-3","units":["patrol-1"]},
             "geometry":{"type":"Polygon","coordinates":[[[112.75,37.69],[112.76,37.69],[112.76,37.70],[112.75,37.70],[112.75,37.69]]]}}]}"#;
        let zones = zones(text).unwrap();
        assert_eq!(zones.len(), 1);
        assert_eq!(
            (zones[0].id.as_str(), zones[0].units.as_slice()),
            ("beat-3", &["patrol-1".to_owned()][..])
        );
        let area = &zones[0].area;
        assert!(
            area.contains(metres((37.695, 112.755))) && !area.contains(metres((37.685, 112.755))),
            "{area:?}"
        );
    }
}
