//! The city's grid from one GeoJSON file: a tree of cells (street, community, grid), and zones (any other area or
//! corridor, some of them only at times); which of them a position is in.
//!
//! Here: the values, and where a position is. In its parts: `read` (the file and its faults), `tree` (what makes it a
//! tree), `index`, `shape`, `validity`. Not here: who crossed which border (`borders`).

mod file;
mod index;
mod read;
mod rings;
mod shape;
mod tree;
mod validity;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use file::GridFile;
use index::Index;
use shape::Shape;
use validity::Validity;
pub use validity::rfc3339_ms;

/// Ancestors of a cell that are followed; a tree of a city has three levels.
const DEPTH_MAX: usize = 8;

/// What a cell is in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Street,
    Community,
    Grid,
    /// The file does not say.
    #[default]
    Cell,
}

impl Level {
    fn read(v: &Value) -> Option<Self> {
        match v.as_str()? {
            "street" => Some(Self::Street),
            "community" => Some(Self::Community),
            "grid" => Some(Self::Grid),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Street => "street",
            Self::Community => "community",
            Self::Grid => "grid",
            Self::Cell => "cell",
        }
    }

    fn is_named(self) -> bool {
        self != Self::Cell
    }

    /// May a cell of this level be the parent of one of that level?
    fn may_have(self, child: Self) -> bool {
        self < child || !self.is_named()
    }
}

/// One unit of the tree.
#[derive(Clone, Debug)]
pub struct Cell {
    pub id: String,
    pub name: String,
    pub level: Level,
    /// Its number in the grid.
    pub parent: Option<u32>,
    /// So deep inside of it a fix is inside, however poor it is, metres.
    pub half_depth_m: f64,
    shape: Shape,
    size_deg2: f64,
}

/// Any other area.
#[derive(Clone, Debug)]
pub struct Zone {
    pub id: String,
    pub name: String,
    /// Beat, restricted, temporary…: as the city says.
    pub kind: Option<String>,
    /// Ids of the devices that belong here.
    pub devices: Vec<String>,
    /// Units and agencies whose devices belong here.
    pub units: Vec<String>,
    pub agencies: Vec<String>,
    validity: Validity,
    half_depth_m: f64,
    shape: Shape,
}

impl Zone {
    /// Is it in force at this moment, milliseconds since 1970 UTC?
    pub fn is_valid(&self, unix_ms: i64) -> bool {
        self.validity.holds(unix_ms)
    }

    /// Metres to the border, inside or outside.
    pub fn border_distance_m(&self, lat: f64, lon: f64) -> f64 {
        self.shape.border_distance_m(lat, lon)
    }

    /// So deep inside of it a fix is inside, however poor it is.
    pub fn half_depth_m(&self) -> f64 {
        self.half_depth_m
    }
}

/// What is wrong with a feature and what to do. `feature` counts from 1 in the order of the file; 0: the file itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", which(*feature, id.as_deref()))]
pub struct GridFault {
    pub feature: usize,
    pub id: Option<String>,
    pub reason: String,
}

impl GridFault {
    fn of_file(reason: String) -> Self {
        Self {
            feature: 0,
            id: None,
            reason,
        }
    }
}

fn which(feature: usize, id: Option<&str>) -> String {
    match (feature, id) {
        (0, _) => String::new(),
        (n, None) => format!("feature {n}: "),
        (n, Some(id)) => format!("feature {n} ({id:?}): "),
    }
}

/// Where a position is: numbers of [`Grid::cell`] and [`Grid::zone`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The finest cell that has the position.
    pub cell: Option<u32>,
    /// Zones in force that have it.
    pub zones: Vec<u16>,
}

/// Ids of cells, each one within the one before.
pub type Path = Arc<[Arc<str>]>;

fn paths(cells: &[Cell]) -> Vec<Path> {
    let ids: Vec<Arc<str>> = cells.iter().map(|c| (&*c.id).into()).collect();
    let path = |i: usize| {
        let up = std::iter::successors(Some(i), |i| Some(cells[*i].parent? as usize));
        let mut path: Vec<_> = up.take(DEPTH_MAX).map(|i| ids[i].clone()).collect();
        path.reverse();
        path.into()
    };
    (0..cells.len()).map(path).collect()
}

/// Cells, zones and their indexes. [`Grid::default`] has none.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    version: String,
    cells: Vec<Cell>,
    zones: Vec<Zone>,
    /// Zones that are not always in force.
    timed: Vec<u16>,
    /// Of each cell: the ids of its ancestors and its own, the coarsest first.
    paths: Vec<Path>,
    cell_index: Index,
    zone_index: Index,
    warnings: Vec<GridFault>,
}

impl Grid {
    /// Reads a GeoJSON FeatureCollection (RFC 7946). Also the check of the configuration.
    ///
    /// # Errors
    /// All faults of all features.
    pub fn parse(text: &str) -> Result<Self, Vec<GridFault>> {
        let mut read = read::read(text)?;
        let warnings = tree::connect(&mut read)?;
        let hash = Sha256::digest(text.as_bytes());
        let hash: String = hash[..6].iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self {
            version: read.version.map_or(hash.clone(), |v| format!("{v}+{hash}")),
            cell_index: Index::new(read.cells.iter().map(|c| &c.shape)),
            zone_index: Index::new(read.zones.iter().map(|z| &z.shape)),
            timed: (0..)
                .zip(&read.zones)
                .filter(|(_, z)| !z.validity.is_always())
                .map(|(i, _)| i)
                .collect(),
            paths: paths(&read.cells),
            cells: read.cells,
            zones: read.zones,
            warnings,
        })
    }

    /// As the file calls itself, and the beginning of its SHA-256: `2026-11+3fb1c0a92e7d`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What is doubtful in the file.
    pub fn warnings(&self) -> &[GridFault] {
        &self.warnings
    }

    /// How many cells and zones there are.
    pub fn size(&self) -> (usize, usize) {
        (self.cells.len(), self.zones.len())
    }

    pub fn cell(&self, i: u32) -> Option<&Cell> {
        self.cells.get(i as usize)
    }

    pub fn zone(&self, i: u16) -> Option<&Zone> {
        self.zones.get(usize::from(i))
    }

    /// The ids of a cell and its ancestors, the coarsest first.
    pub fn path(&self, cell: Option<u32>) -> Path {
        let known = cell.and_then(|c| self.paths.get(c as usize));
        known.cloned().unwrap_or_default()
    }

    /// Where a WGS-84 position is at a moment, milliseconds since 1970 UTC.
    pub fn locate(&self, lat: f64, lon: f64, unix_ms: i64) -> Place {
        let zones = self.zone_index.candidates(lat, lon).iter();
        Place {
            cell: self.finest(lat, lon),
            zones: zones
                .filter_map(|c| {
                    let i = u16::try_from(c.shape()).ok()?;
                    let zone = self.zone(i)?;
                    let has =
                        zone.is_valid(unix_ms) && (c.is_sure() || zone.shape.contains(lat, lon));
                    has.then_some(i)
                })
                .collect(),
        }
    }

    /// The finest cell that has a position.
    fn finest(&self, lat: f64, lon: f64) -> Option<u32> {
        let mut finest: Option<u32> = None;
        for c in self.cell_index.candidates(lat, lon) {
            let finer = finest.is_none_or(|f| self.is_finer(c.shape(), f));
            let has = || {
                self.cell(c.shape())
                    .is_some_and(|cell| cell.shape.contains(lat, lon))
            };
            if finer && (c.is_sure() || has()) {
                finest = Some(c.shape());
            }
        }
        finest
    }

    /// A child is finer than its parents, also one that is as large; else the smaller one is.
    fn is_finer(&self, a: u32, b: u32) -> bool {
        let parent = |c: u32| self.cell(c).and_then(|c| c.parent);
        let is_above = |up: u32, c: u32| {
            std::iter::successors(parent(c), |c| parent(*c))
                .take(DEPTH_MAX)
                .any(|c| c == up)
        };
        let size = |c: u32| self.cell(c).map_or(f64::INFINITY, |c| c.size_deg2);
        is_above(b, a) || !is_above(a, b) && size(a) < size(b)
    }

    /// Metres from a position to the border of a cell.
    pub fn cell_border_m(&self, cell: u32, lat: f64, lon: f64) -> Option<f64> {
        Some(self.cell(cell)?.shape.border_distance_m(lat, lon))
    }

    /// The zones that are not always in force, in order.
    pub fn timed(&self) -> impl Iterator<Item = u16> {
        self.timed.iter().copied()
    }

    /// Which of the zones that are not always in force are so at this moment, in order.
    pub fn timed_now(&self, unix_ms: i64) -> Vec<bool> {
        let holds = |i: &u16| self.zone(*i).is_some_and(|z| z.is_valid(unix_ms));
        self.timed.iter().map(holds).collect()
    }

    /// The zones a device belongs to, by its id, its unit or its agency.
    pub fn zones_of(
        &self,
        device: &str,
        unit: Option<&str>,
        agency: Option<&str>,
    ) -> impl Iterator<Item = u16> {
        let among =
            |all: &[String], one: Option<&str>| one.is_some_and(|o| all.iter().any(|x| x == o));
        (0..).zip(&self.zones).filter_map(move |(i, z)| {
            let mine = among(&z.devices, Some(device))
                || among(&z.units, unit)
                || among(&z.agencies, agency);
            mine.then_some(i)
        })
    }

    /// The number here of each zone of `former`; None: it is gone.
    pub fn renumbered(&self, former: &Self) -> Vec<Option<u16>> {
        let here: HashMap<&str, u16> = (0..).zip(&self.zones).map(|(i, z)| (&*z.id, i)).collect();
        let number = |z: &Zone| here.get(&*z.id).copied();
        former.zones.iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests;
