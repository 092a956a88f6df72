//! The city's grid: cells, and zones (any other area), from one GeoJSON file; which of them a position is in.
//!
//! Here: reading with every fault and its reason, a box index, point in area. Not here: who may be where (`track`).

mod index;

use std::collections::HashSet;

use kerbside_codecs::geo::{self, Area, Ring};
use serde_json::{Map, Value};

use index::Index;

const FEATURES_MAX: usize = 100_000;
const POINTS_MAX: usize = 4_000_000;
const NAME_MAX: usize = 128;

/// One feature of the grid.
#[derive(Clone, Debug)]
pub struct Cell {
    pub id: String,
    pub name: String,
    area: Area,
    size_deg2: f64,
}

/// An area that devices or units belong to.
#[derive(Clone, Debug)]
pub struct Zone {
    pub id: String,
    pub name: String,
    /// Ids of the devices that belong here.
    pub devices: Vec<String>,
    /// Units whose devices belong here.
    pub units: Vec<String>,
    pub area: Area,
}

/// What is wrong with a feature and what to do. `feature` counts from 1 in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", which(*feature, id.as_deref()))]
pub struct GridFault {
    pub feature: usize,
    pub id: Option<String>,
    pub reason: String,
}

fn which(feature: usize, id: Option<&str>) -> String {
    match (feature, id) {
        (0, _) => String::new(),
        (n, None) => format!("feature {n}: "),
        (n, Some(id)) => format!("feature {n} ({id:?}): "),
    }
}

/// Where a position is: indexes into [`Grid::cell`] and [`Grid::zone`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The finest cell that has the position.
    pub cell: Option<u32>,
    pub zones: Vec<u16>,
}

/// Cells, zones and their index. [`Grid::default`] has none.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    cells: Vec<Cell>,
    zones: Vec<Zone>,
    index: Index,
}

impl Grid {
    /// Reads a GeoJSON FeatureCollection (RFC 7946). Also the check of the configuration.
    ///
    /// # Errors
    /// All faults of all features.
    pub fn parse(text: &str) -> Result<Self, Vec<GridFault>> {
        let whole = |reason: String| {
            vec![GridFault {
                feature: 0,
                id: None,
                reason,
            }]
        };
        let json: Value =
            serde_json::from_str(text).map_err(|e| whole(format!("not JSON: {e}")))?;
        let features = json
            .get("features")
            .and_then(Value::as_array)
            .filter(|_| json["type"] == "FeatureCollection")
            .ok_or_else(|| whole("must be a GeoJSON FeatureCollection with features".into()))?;
        if features.len() > FEATURES_MAX {
            return Err(whole(format!("more than {FEATURES_MAX} features")));
        }
        let mut reader = GridReader::default();
        let mut faults = Vec::new();
        for (i, feature) in features.iter().enumerate() {
            let properties = feature.get("properties").and_then(Value::as_object);
            if let Err(reason) = reader.feature(feature, properties) {
                let id = properties.and_then(|p| p.get("id")).and_then(Value::as_str);
                faults.push(GridFault {
                    feature: i + 1,
                    id: id.map(|id| id.chars().take(NAME_MAX).collect()),
                    reason,
                });
            }
        }
        if faults.is_empty() {
            Ok(Self {
                index: Index::new(reader.cells.iter().map(|c| c.area.bounds())),
                cells: reader.cells,
                zones: reader.zones,
            })
        } else {
            Err(faults)
        }
    }

    pub fn cell(&self, i: u32) -> Option<&Cell> {
        self.cells.get(i as usize)
    }

    pub fn zone(&self, i: u16) -> Option<&Zone> {
        self.zones.get(usize::from(i))
    }

    pub fn locate(&self, lat: f64, lon: f64) -> Place {
        let finest = self
            .index
            .candidates(lat, lon)
            .iter()
            .filter_map(|&i| Some((i, self.cell(i)?)))
            .filter(|(_, cell)| cell.area.contains(lat, lon))
            .min_by(|a, b| a.1.size_deg2.total_cmp(&b.1.size_deg2));
        Place {
            cell: finest.map(|(i, _)| i),
            zones: (0..)
                .zip(&self.zones)
                .filter(|(_, z)| z.area.contains(lat, lon))
                .map(|(i, _)| i)
                .collect(),
        }
    }

    /// The zones a device belongs to, by its id or its unit.
    pub fn zones_of(&self, device: &str, unit: Option<&str>) -> impl Iterator<Item = u16> {
        (0..).zip(&self.zones).filter_map(move |(i, z)| {
            let mine = z.devices.iter().any(|d| d == device)
                || unit.is_some_and(|u| z.units.iter().any(|x| x == u));
            mine.then_some(i)
        })
    }
}

#[derive(Default)]
struct GridReader {
    cells: Vec<Cell>,
    zones: Vec<Zone>,
    ids: HashSet<(bool, String)>,
    points: usize,
}

impl GridReader {
    fn feature(
        &mut self,
        feature: &Value,
        properties: Option<&Map<String, Value>>,
    ) -> Result<(), String> {
        let p = properties
            .filter(|_| feature["type"] == "Feature")
            .ok_or("must be a Feature with properties")?;
        let is_zone = match p.get("type").and_then(Value::as_str) {
            Some("cell") => false,
            Some("zone") => true,
            _ => return Err(r#"properties.type must be "cell" or "zone""#.into()),
        };
        let id = name(p, "id")?.ok_or("properties.id is missing")?;
        let title = name(p, "name")?.unwrap_or_else(|| id.clone());
        if !self.ids.insert((is_zone, id.clone())) {
            return Err("this id was used before; ids must be unique".into());
        }
        let area = self.area(&feature["geometry"])?;
        if !is_zone {
            self.cells.push(Cell {
                size_deg2: area.size_deg2(),
                id,
                name: title,
                area,
            });
            return Ok(());
        }
        if self.zones.len() >= usize::from(u16::MAX) {
            return Err(format!("more than {} zones", u16::MAX));
        }
        self.zones.push(Zone {
            devices: names(p, "devices")?,
            units: names(p, "units")?,
            id,
            name: title,
            area,
        });
        Ok(())
    }

    fn area(&mut self, geometry: &Value) -> Result<Area, String> {
        let coordinates = &geometry["coordinates"];
        let polygons = match geometry["type"].as_str() {
            Some("Polygon") => vec![self.polygon(coordinates)?],
            Some("MultiPolygon") => coordinates
                .as_array()
                .filter(|a| !a.is_empty())
                .ok_or("geometry.coordinates must be a list of polygons")?
                .iter()
                .map(|c| self.polygon(c))
                .collect::<Result<_, _>>()?,
            _ => return Err("geometry.type must be Polygon or MultiPolygon".into()),
        };
        let area = Area::new(polygons);
        if area.size_deg2() > 0.0 {
            Ok(area)
        } else {
            Err("the area is empty: all points are on one line".into())
        }
    }

    fn polygon(&mut self, coordinates: &Value) -> Result<Vec<Ring>, String> {
        coordinates
            .as_array()
            .filter(|a| !a.is_empty())
            .ok_or("geometry.coordinates must be a list of rings")?
            .iter()
            .map(|ring| self.ring(ring))
            .collect()
    }

    fn ring(&mut self, ring: &Value) -> Result<Ring, String> {
        let points = ring
            .as_array()
            .ok_or("a ring must be a list of positions")?;
        self.points += points.len();
        if self.points > POINTS_MAX {
            return Err(format!("more than {POINTS_MAX} points in the file"));
        }
        let mut all = points
            .iter()
            .map(position)
            .collect::<Result<Vec<_>, String>>()?;
        if all.len() < 4 || all.first() != all.last() {
            return Err(
                "a ring needs at least 4 positions, the last one equal to the first".into(),
            );
        }
        all.pop();
        Ok(all)
    }
}

/// GeoJSON has the longitude first.
fn position(p: &Value) -> Result<(f64, f64), String> {
    let number = |i: usize| p.get(i).and_then(Value::as_f64);
    let (Some(lon), Some(lat)) = (number(0), number(1)) else {
        return Err("a position must be [longitude, latitude]".into());
    };
    if geo::valid(lat, lon) {
        Ok((lat, lon))
    } else {
        Err(format!(
            "[{lon}, {lat}] is not on the earth; GeoJSON has the longitude first"
        ))
    }
}

fn name(p: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match p.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if (1..=NAME_MAX).contains(&s.chars().count()) => {
            Ok(Some(s.clone()))
        }
        Some(_) => Err(format!(
            "properties.{key} must be text of 1 to {NAME_MAX} characters"
        )),
    }
}

fn names(p: &Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    let bad = || format!("properties.{key} must be a list of texts");
    match p.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(all)) => all
            .iter()
            .map(|v| v.as_str().map(str::to_owned).ok_or_else(bad))
            .collect(),
        Some(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests;
