//! What finding the cell and the zones of a position costs: `cargo run --release -p kerbside --example cells -- FILE`.
//!
//! CPU time of the thread for a million positions inside of the grid of FILE (configs/demo/grid.geojson when none is
//! named), and of one of 10,000 cells.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::fmt::Write;
use std::hint::black_box;

use kerbside::picture::Grid;

const LOOKUPS: u32 = 1_000_000;

fn main() -> anyhow::Result<()> {
    let file = std::env::args().nth(1);
    let file = file.unwrap_or_else(|| "configs/demo/grid.geojson".to_owned());
    let city = std::fs::read_to_string(&file)?;
    measure(&file, &city, (37.69, 112.75), 0.012)?;
    measure("10,000 cells of 40 corners", &lattice(100), (0.5, 0.5), 0.5)
}

/// `side` × `side` cells with 40 corners each, on one square degree.
fn lattice(side: u32) -> String {
    let mut features = String::new();
    let step = 1.0 / f64::from(side);
    for i in 0..side * side {
        let (x, y) = (f64::from(i % side) * step, f64::from(i / side) * step);
        let corner = |n: u32| {
            let along = f64::from(n % 10) / 10.0;
            let (u, v) = match n / 10 % 4 {
                0 => (along, 0.0),
                1 => (1.0, along),
                2 => (1.0 - along, 1.0),
                _ => (0.0, 1.0 - along),
            };
            format!("[{},{}]", x + u * step, y + v * step)
        };
        let ring: Vec<_> = (0..=40).map(corner).collect();
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            features,
            r#"{comma}{{"type":"Feature","properties":{{"type":"cell","id":"{i}"}},"geometry":{{"type":"Polygon","coordinates":[[{}]]}}}}"#,
            ring.join(",")
        );
    }
    format!(r#"{{"type":"FeatureCollection","features":[{features}]}}"#)
}

fn measure(what: &str, text: &str, middle: (f64, f64), reach: f64) -> anyhow::Result<()> {
    let before = cpu_ns()?;
    let grid = Grid::parse(text).map_err(|f| anyhow::anyhow!("{f:?}"))?;
    let read_ns = cpu_ns()? - before;
    let mut random = 1_u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as f64 / f64::from(1_u32 << 31) * 2.0 - 1.0
    };
    let points: Vec<_> = (0..LOOKUPS)
        .map(|_| (middle.0 + next() * reach, middle.1 + next() * reach))
        .collect();
    let before = cpu_ns()?;
    let mut found = 0;
    for (lat, lon) in points {
        found += u32::from(black_box(grid.locate(lat, lon, 0)).cell.is_some());
    }
    let each_ns = (cpu_ns()? - before) / u64::from(LOOKUPS);
    let (cells, zones) = grid.size();
    println!(
        "{what}: {cells} cells, {zones} zones: read in {} ms, {each_ns} ns a position ({found} of {LOOKUPS} in a cell)",
        read_ns / 1_000_000
    );
    Ok(())
}

/// CPU time of this thread.
fn cpu_ns() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}
