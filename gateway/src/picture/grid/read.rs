//! From GeoJSON (RFC 7946) to cells and zones, with every fault and its reason. Not here: whether the cells make a tree
//! (`tree`).

use std::collections::HashSet;

use kerbside_codecs::geo::{self, Area, Corridor, Point, Ring};
use serde_json::{Map, Value};

use super::rings::{self, PAIRS_MAX};
use super::shape::Shape;
use super::validity::{self, Validity};
use super::{Cell, GridFault, Level, Zone};

const FEATURES_MAX: usize = 100_000;
const POINTS_MAX: usize = 4_000_000;
const NAME_MAX: usize = 128;
const WIDTH_M_MAX: f64 = 10_000.0;
/// Local time of zones when the file says nothing.
const OFFSET_MIN: i64 = 8 * 60;

/// What a file holds.
pub struct Read {
    /// As the file calls itself.
    pub version: Option<String>,
    pub cells: Vec<Cell>,
    /// The id of each cell's parent.
    pub parents: Vec<Option<String>>,
    /// The feature of each cell, from 1.
    pub features: Vec<usize>,
    pub zones: Vec<Zone>,
}

/// Reads a FeatureCollection.
///
/// # Errors
/// All faults of all features.
pub fn read(text: &str) -> Result<Read, Vec<GridFault>> {
    let whole = |reason: String| vec![GridFault::of_file(reason)];
    let json: Value = serde_json::from_str(text).map_err(|e| whole(format!("not JSON: {e}")))?;
    let features = json
        .get("features")
        .and_then(Value::as_array)
        .filter(|_| json["type"] == "FeatureCollection")
        .ok_or_else(|| whole("must be a GeoJSON FeatureCollection with features".into()))?;
    if features.len() > FEATURES_MAX {
        return Err(whole(format!("more than {FEATURES_MAX} features")));
    }
    let mut faults = Vec::new();
    let version = match &json["version"] {
        Value::Null => None,
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) if (1..=NAME_MAX).contains(&s.chars().count()) => Some(s.clone()),
        _ => {
            faults.extend(whole(format!(
                "version must be a number or text of 1 to {NAME_MAX} characters"
            )));
            None
        }
    };
    let offset_min = validity::offset(json.get("utc_offset")).unwrap_or_else(|reason| {
        faults.extend(whole(reason));
        None
    });
    let mut reader = Reader {
        read: Read {
            version,
            cells: Vec::new(),
            parents: Vec::new(),
            features: Vec::new(),
            zones: Vec::new(),
        },
        ids: HashSet::new(),
        points: 0,
        pairs: PAIRS_MAX,
        offset_min: offset_min.unwrap_or(OFFSET_MIN),
    };
    for (i, feature) in (1..).zip(features) {
        let properties = feature.get("properties").and_then(Value::as_object);
        if let Err(reason) = reader.feature(i, feature, properties) {
            let id = properties.and_then(|p| p.get("id")).and_then(Value::as_str);
            faults.push(GridFault {
                feature: i,
                id: id.map(|id| id.chars().take(NAME_MAX).collect()),
                reason,
            });
        }
    }
    if faults.is_empty() {
        Ok(reader.read)
    } else {
        Err(faults)
    }
}

struct Reader {
    read: Read,
    ids: HashSet<(bool, String)>,
    points: usize,
    /// Pairs of edges that may still be looked at.
    pairs: usize,
    offset_min: i64,
}

impl Reader {
    fn feature(
        &mut self,
        number: usize,
        feature: &Value,
        properties: Option<&Map<String, Value>>,
    ) -> Result<(), String> {
        let p = properties
            .filter(|_| feature["type"] == "Feature")
            .ok_or("must be a Feature with properties")?;
        let level = match p.get("type").and_then(Value::as_str) {
            Some("zone" | "corridor") => None,
            Some("cell") => Some(p.get("level").and_then(Level::read).unwrap_or_default()),
            Some(_) => Some(p.get("type").and_then(Level::read).ok_or(TYPES)?),
            None => return Err(TYPES.into()),
        };
        let id = name(p, "id")?.ok_or("properties.id is missing")?;
        let title = name(p, "name")?.unwrap_or_else(|| id.clone());
        if !self.ids.insert((level.is_none(), id.clone())) {
            return Err("this id was used before; ids must be unique".into());
        }
        match level {
            Some(level) => {
                let parent = name(p, "parent")?;
                name(p, "owner")?;
                tasks(p)?;
                let area = self.area(&feature["geometry"])?;
                let size_deg2 = area.size_deg2();
                let shape = Shape::Area(area);
                self.read.cells.push(Cell {
                    size_deg2,
                    half_depth_m: shape.half_depth_m(),
                    id,
                    name: title,
                    level,
                    parent: None,
                    shape,
                });
                self.read.parents.push(parent);
                self.read.features.push(number);
            }
            None => {
                if self.read.zones.len() >= usize::from(u16::MAX) {
                    return Err(format!("more than {} zones", u16::MAX));
                }
                let shape = self.shape(&feature["geometry"], p)?;
                self.read.zones.push(Zone {
                    kind: name(p, "kind")?,
                    devices: names(p, "devices")?,
                    units: names(p, "units")?,
                    agencies: names(p, "agencies")?,
                    validity: Validity::read(p, self.offset_min)?,
                    half_depth_m: shape.half_depth_m(),
                    id,
                    name: title,
                    shape,
                });
            }
        }
        Ok(())
    }

    fn shape(&mut self, geometry: &Value, p: &Map<String, Value>) -> Result<Shape, String> {
        let coordinates = &geometry["coordinates"];
        let lines = match geometry["type"].as_str() {
            Some("LineString") => vec![self.line(coordinates)?],
            Some("MultiLineString") => coordinates
                .as_array()
                .filter(|a| !a.is_empty())
                .ok_or("geometry.coordinates must be a list of lines")?
                .iter()
                .map(|l| self.line(l))
                .collect::<Result<_, _>>()?,
            _ if p.contains_key("width_m") => {
                return Err("properties.width_m is for a LineString or MultiLineString".into());
            }
            _ => return Ok(Shape::Area(self.area(geometry)?)),
        };
        let width_m = p
            .get("width_m")
            .and_then(Value::as_f64)
            .filter(|w| (1.0..=WIDTH_M_MAX).contains(w))
            .ok_or_else(|| {
                format!("a corridor needs properties.width_m, 1 to {WIDTH_M_MAX} metres")
            })?;
        Ok(Shape::Corridor(Corridor::new(lines, width_m)))
    }

    fn line(&mut self, line: &Value) -> Result<Vec<Point>, String> {
        let points = self.positions(line, "a line must be a list of positions")?;
        if points.len() < 2 {
            return Err("a line needs at least 2 positions".into());
        }
        Ok(points)
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
            _ => return Err("geometry.type must be Polygon or MultiPolygon; of a corridor LineString or MultiLineString".into()),
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
        let mut all = self.positions(ring, "a ring must be a list of positions")?;
        if all.len() < 4 || all.first() != all.last() {
            return Err(
                "a ring needs at least 4 positions, the last one equal to the first".into(),
            );
        }
        all.pop();
        match rings::crossing(&all, &mut self.pairs) {
            Some((lat, lon)) => Err(format!(
                "the ring crosses itself on the edge at [{lon}, {lat}]"
            )),
            None => Ok(all),
        }
    }

    fn positions(&mut self, list: &Value, otherwise: &str) -> Result<Vec<Point>, String> {
        let points = list.as_array().ok_or(otherwise)?;
        self.points += points.len();
        if self.points > POINTS_MAX {
            return Err(format!("more than {POINTS_MAX} points in the file"));
        }
        points.iter().map(position).collect()
    }
}

const TYPES: &str = r#"properties.type must be "street", "community", "grid", "cell" or "zone""#;

/// GeoJSON has the longitude first.
fn position(p: &Value) -> Result<Point, String> {
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
        Some(v) => texts(v).ok_or_else(bad),
    }
}

fn texts(v: &Value) -> Option<Vec<String>> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    v.as_array()?.iter().map(text).collect()
}

/// `{"agency": ["task", …]}`; handed through to screens.
fn tasks(p: &Map<String, Value>) -> Result<(), String> {
    match p.get("tasks") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(all)) if all.values().all(|v| texts(v).is_some()) => Ok(()),
        Some(_) => Err(r#"properties.tasks must be {"AGENCY": ["task", …]}"#.into()),
    }
}
