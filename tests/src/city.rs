//! A city as large as Haikou's grid: 26 streets, 191 communities, 123 grids. `kerbside-sim grid` prints it as GeoJSON;
//! configs/demo/grid.geojson is its output.
//!
//! The ground is a lattice whose corners were moved a little, always in the same way; every area goes along its lines,
//! so that neighbours share their borders exactly.

use serde_json::{Value, json};

use crate::fleet::motion::ORIGIN;

/// Metres between two lines of the lattice.
const STEP_M: f64 = 60.0;
const METRES_PER_DEGREE: f64 = 111_320.0;
/// Streets in each row of the city, from the south.
const STREETS: [usize; 5] = [5, 5, 6, 5, 5];
const WIDTH: usize = 60;
const HEIGHT: usize = 10;
/// So many streets have eight communities, the others seven.
const LARGE: usize = 9;
/// So many communities, those in the middle of the city, have three grids.
const DIVIDED: usize = 41;
/// Division of the country that the ids begin with.
const REGION: &str = "140702";

/// Lines of the lattice that an area lies between.
#[derive(Clone, Copy)]
struct Block {
    west: usize,
    south: usize,
    east: usize,
    north: usize,
}

impl Block {
    /// Its `i`th part of `n` from the west.
    fn column(self, i: usize, n: usize) -> Self {
        let at = |i: usize| self.west + i * (self.east - self.west) / n;
        Self {
            west: at(i),
            east: at(i + 1),
            ..self
        }
    }

    /// Its `i`th part of `n` from the south.
    fn row(self, i: usize, n: usize) -> Self {
        let at = |i: usize| self.south + i * (self.north - self.south) / n;
        Self {
            south: at(i),
            north: at(i + 1),
            ..self
        }
    }

    fn ring(self) -> Value {
        let Self {
            west,
            south,
            east,
            north,
        } = self;
        let mut ring: Vec<_> = (west..east).map(|x| corner(x, south)).collect();
        ring.extend((south..north).map(|y| corner(east, y)));
        ring.extend((west + 1..=east).rev().map(|x| corner(x, north)));
        ring.extend((south + 1..=north).rev().map(|y| corner(west, y)));
        ring.push(ring[0]);
        json!([ring])
    }

    /// Squared distance of its middle from that of the city, in quarter steps.
    fn off_middle(self) -> usize {
        let x = (self.west + self.east).abs_diff(WIDTH);
        let y = (self.south + self.north).abs_diff(HEIGHT * STREETS.len());
        x * x + y * y
    }
}

/// Longitude and latitude of a corner of the lattice.
fn corner(x: usize, y: usize) -> [f64; 2] {
    let moved = |salt: usize| {
        let mut n = (x * 7919 + y * 104_729 + salt) as u64;
        n = (n ^ (n >> 7)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (n >> 40) as f64 / f64::from(1_i32 << 24) * 0.5 - 0.25
    };
    let middle = (WIDTH as f64 / 2.0, (HEIGHT * STREETS.len()) as f64 / 2.0);
    let east_m = (x as f64 + moved(1) - middle.0) * STEP_M;
    let north_m = (y as f64 + moved(2) - middle.1) * STEP_M;
    let lon = ORIGIN.1 + east_m / METRES_PER_DEGREE / ORIGIN.0.to_radians().cos();
    let lat = ORIGIN.0 + north_m / METRES_PER_DEGREE;
    [lon, lat].map(|v| (v * 1e6).round() / 1e6)
}

fn feature(block: Block, properties: &Value) -> Value {
    json!({"type":"Feature","properties":properties,
        "geometry":{"type":"Polygon","coordinates":block.ring()}})
}

/// The cells of the city, parents before their children.
pub fn cells() -> Vec<Value> {
    let mut all = Vec::new();
    let mut communities = Vec::new();
    let mut street_number = 0;
    for (row, n) in STREETS.into_iter().enumerate() {
        let ground = Block {
            west: 0,
            east: WIDTH,
            south: row * HEIGHT,
            north: (row + 1) * HEIGHT,
        };
        for i in 0..n {
            street_number += 1;
            let street = ground.column(i, n);
            let id = format!("{REGION}{street_number:03}");
            all.push(feature(
                street,
                &json!({"type":"street","id":id,"name":format!("示范街道 {street_number:02}")}),
            ));
            let south = if street_number <= LARGE { 4 } else { 3 };
            for (half, columns) in [(0, south), (1, 4)] {
                for c in 0..columns {
                    communities.push((street.row(half, 2).column(c, columns), id.clone()));
                }
            }
        }
    }
    let mut by_distance: Vec<usize> = (0..communities.len()).collect();
    by_distance.sort_by_key(|i| communities[*i].0.off_middle());
    let mut grid_number = 0;
    for (i, (block, street)) in communities.iter().enumerate() {
        let id = format!("{street}{:03}", i + 1);
        all.push(feature(
            *block,
            &json!({"type":"community","id":id,"parent":street,"name":format!("示范社区 {:03}", i + 1)}),
        ));
        if !by_distance[..DIVIDED].contains(&i) {
            continue;
        }
        for part in 0..3 {
            grid_number += 1;
            all.push(feature(
                block.row(part, 3),
                &json!({"type":"grid","id":format!("{id}{:02}", part + 1),"parent":id,
                    "name":format!("示范网格 {grid_number:03}"),"owner":format!("keeper-{grid_number:03}"),
                    "tasks":{"chengguan":["占道经营","工地扬尘"],"jiaojing":["违法停车"]}}),
            ));
        }
    }
    all
}

/// Beats of the demonstration's patrols, a corridor, a restricted zone, and one that is in force at night.
fn zones() -> Vec<Value> {
    let block = |west, south, east, north| Block {
        west,
        south,
        east,
        north,
    };
    let beat = |n: usize, name: &str, b: Block| {
        let properties = json!({"type":"zone","id":format!("beat-{n}"),"name":name,"kind":"beat",
            "devices":[],"units":[format!("patrol-{n}")]});
        feature(b, &properties)
    };
    let road: Vec<_> = (12..=48).map(|x| corner(x, 30)).collect();
    vec![
        beat(1, "一号巡区", block(15, 16, 28, 34)),
        beat(2, "二号巡区", block(23, 16, 38, 34)),
        beat(3, "三号巡区", block(32, 16, 45, 34)),
        json!({"type":"Feature","properties":{"type":"zone","id":"road-1","name":"迎宾大道","kind":"corridor","width_m":40},
            "geometry":{"type":"LineString","coordinates":road}}),
        feature(
            block(40, 18, 43, 21),
            &json!({"type":"zone","id":"quiet-1","name":"夜间禁噪区","kind":"quiet","hours":"22:00-06:00"}),
        ),
        feature(
            block(27, 26, 29, 28),
            &json!({"type":"zone","id":"closed-1","name":"施工管制区","kind":"restricted"}),
        ),
    ]
}

/// The whole file, a feature a line.
pub fn geojson() -> String {
    let features: Vec<_> = cells()
        .into_iter()
        .chain(zones())
        .map(|f| f.to_string())
        .collect();
    format!(
        "{{\"type\":\"FeatureCollection\",\"version\":\"demo-3\",\"utc_offset\":\"+08:00\",\"features\":[\n{}\n]}}\n",
        features.join(",\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_has_the_city_as_it_is_made_here() {
        let count = |kind: &str| {
            let of = |f: &&Value| f["properties"]["type"] == kind;
            cells().iter().filter(of).count()
        };
        assert_eq!(
            (count("street"), count("community"), count("grid")),
            (26, 191, 123)
        );
        let demo = include_str!("../../configs/demo/grid.geojson");
        assert!(
            demo == geojson(),
            "make it again: kerbside-sim grid > configs/demo/grid.geojson"
        );
    }
}
