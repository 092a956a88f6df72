//! Do the cells make a tree: parents that are there, levels that fit, children inside of their parents, siblings beside
//! each other? What a drawing leaves in doubt is a warning; what no tree has is a fault. The work is bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use kerbside_codecs::geo::{Area, Point};

use super::read::Read;
use super::shape::Shape;
use super::{Cell, GridFault};

/// Drawings are no better than this, metres.
const TOLERANCE_M: f64 = 1.0;
/// Steps of the drawing's checks in one file; then the rest is not looked at, and a warning says so.
const STEPS_MAX: usize = 100_000_000;
/// Warnings that are told one by one.
const WARNINGS_MAX: usize = 100;

/// Gives each cell its parent; tells what is doubtful.
///
/// # Errors
/// All faults.
pub fn connect(read: &mut Read) -> Result<Vec<GridFault>, Vec<GridFault>> {
    let by_id: HashMap<&str, u32> = (0..).zip(&read.cells).map(|(i, c)| (&*c.id, i)).collect();
    let mut faults = Vec::new();
    let mut parents = vec![None; read.cells.len()];
    for (i, cell) in read.cells.iter().enumerate() {
        let Some(parent) = &read.parents[i] else {
            continue;
        };
        let found = by_id.get(&**parent).copied();
        match found.map(|p| (p, &read.cells[p as usize])) {
            None => faults.push(fault(
                read,
                i,
                format!("its parent {parent:?} is not in the file"),
            )),
            Some((_, p)) if !p.level.may_have(cell.level) => faults.push(fault(
                read,
                i,
                format!(
                    "a {} cannot be the parent of a {}: {parent:?}",
                    p.level.name(),
                    cell.level.name()
                ),
            )),
            Some((p, _)) => parents[i] = Some(p),
        }
    }
    for i in in_cycles(&parents) {
        faults.push(fault(
            read,
            i,
            "is its own ancestor: parents go round in a circle".into(),
        ));
    }
    if !faults.is_empty() {
        faults.sort_by_key(|f| f.feature);
        return Err(faults);
    }
    for (cell, parent) in read.cells.iter_mut().zip(&parents) {
        cell.parent = *parent;
    }
    let mut steps = STEPS_MAX;
    let mut warnings = Vec::new();
    for i in 0..read.cells.len() {
        match outside(read, i, &mut steps) {
            Some(Outside {
                parent,
                m,
                all: true,
            }) => faults.push(fault(
                read,
                i,
                format!("lies outside of its parent {parent:?}, {m:.0} m away"),
            )),
            Some(Outside {
                parent,
                m,
                all: false,
            }) => warnings.push(fault(
                read,
                i,
                format!("reaches {m:.0} m out of its parent {parent:?}"),
            )),
            None => {}
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    overlaps(read, &mut steps, &mut warnings);
    if steps == 0 {
        warnings.push(GridFault::of_file(
            "has so many points that not all cells were compared with each other".into(),
        ));
    }
    if warnings.len() > WARNINGS_MAX {
        let more = warnings.len() - WARNINGS_MAX;
        warnings.truncate(WARNINGS_MAX);
        warnings.push(GridFault::of_file(format!("{more} more warnings")));
    }
    Ok(warnings)
}

fn fault(read: &Read, cell: usize, reason: String) -> GridFault {
    GridFault {
        feature: read.features[cell],
        id: Some(read.cells[cell].id.clone()),
        reason,
    }
}

/// Cells that have themselves among their ancestors.
fn in_cycles(parents: &[Option<u32>]) -> Vec<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        OnThisWay,
        Before,
    }
    let mut seen = vec![Seen::No; parents.len()];
    let mut found = Vec::new();
    for start in 0..parents.len() {
        let (mut way, mut at) = (Vec::new(), Some(start));
        while let Some(i) = at.filter(|i| seen[*i] == Seen::No) {
            seen[i] = Seen::OnThisWay;
            way.push(i);
            at = parents[i].map(|p| p as usize);
        }
        if let Some(i) = at.filter(|i| seen[*i] == Seen::OnThisWay) {
            found.extend(way.iter().skip_while(|w| **w != i));
        }
        for i in way {
            seen[i] = Seen::Before;
        }
    }
    found
}

struct Outside<'a> {
    parent: &'a str,
    m: f64,
    /// No corner of it is inside.
    all: bool,
}

/// How far the corners of a cell are out of its parent, at most; None: they are inside.
fn outside<'a>(read: &'a Read, i: usize, steps: &mut usize) -> Option<Outside<'a>> {
    let parent = &read.cells[read.cells[i].parent? as usize];
    let (Some(child), Some(area)) = (area(&read.cells[i]), area(parent)) else {
        return None;
    };
    let cost = area.edges().count();
    let (mut m, mut all) = (0.0_f64, true);
    for (lat, lon) in corners(child) {
        if !spend(steps, cost) {
            return None;
        }
        if area.contains(lat, lon) {
            all = false;
            continue;
        }
        let away = area.border_distance_m(lat, lon);
        all &= away > TOLERANCE_M;
        m = m.max(away);
    }
    (m > TOLERANCE_M).then_some(Outside {
        parent: &parent.id,
        m,
        all,
    })
}

/// Siblings that share ground: how many, and the first two.
fn overlaps(read: &Read, steps: &mut usize, warnings: &mut Vec<GridFault>) {
    // Only cells that are in a tree have siblings.
    let mut families: HashMap<(Option<u32>, &str), Vec<usize>> = HashMap::new();
    for (i, c) in read.cells.iter().enumerate() {
        if c.parent.is_some() || c.level.is_named() {
            match families.entry((c.parent, c.level.name())) {
                Entry::Occupied(e) => e.into_mut().push(i),
                Entry::Vacant(e) => {
                    e.insert(vec![i]);
                }
            }
        }
    }
    let (mut pairs, mut first) = (0_usize, None);
    for family in families.values_mut() {
        let bounds = |i: usize| read.cells[i].shape.bounds();
        family.sort_by(|a, b| bounds(*a).west.total_cmp(&bounds(*b).west));
        for (n, &a) in family.iter().enumerate() {
            let east = bounds(a).east;
            for &b in family[n + 1..]
                .iter()
                .take_while(|b| bounds(**b).west < east)
            {
                if !spend(steps, 1) {
                    return;
                }
                let (p, q) = (bounds(a), bounds(b));
                if p.south < q.north && q.south < p.north && share(read, a, b, steps) {
                    pairs += 1;
                    let pair = (a.min(b), a.max(b));
                    first = Some(first.map_or(pair, |f: (usize, usize)| f.min(pair)));
                }
            }
        }
    }
    if let Some((a, b)) = first {
        let other = &read.cells[b].id;
        let reason =
            format!("overlaps its sibling {other:?}; pairs of siblings that overlap: {pairs}");
        warnings.push(fault(read, a, reason));
    }
}

/// Is a corner, the middle of an edge or the inside of one well inside of the other?
fn share(read: &Read, a: usize, b: usize, steps: &mut usize) -> bool {
    let (Some(a), Some(b)) = (area(&read.cells[a]), area(&read.cells[b])) else {
        return false;
    };
    let mut one_in = |a: &Area, b: &Area| {
        let cost = b.edges().count();
        let middles = a
            .edges()
            .map(|(p, q)| ((p.0 + q.0) / 2.0, (p.1 + q.1) / 2.0));
        corners(a).chain(middles).chain(inner(a)).any(|(lat, lon)| {
            spend(steps, cost)
                && b.contains(lat, lon)
                && b.border_distance_m(lat, lon) > TOLERANCE_M
        })
    };
    one_in(a, b) || one_in(b, a)
}

/// A point inside: in the widest part of the line through its middle.
fn inner(a: &Area) -> Option<Point> {
    let b = a.bounds();
    // Not exactly the middle, where corners of regular drawings are.
    let lat = b.south + (b.north - b.south) * 0.501;
    let mut at: Vec<f64> = a
        .edges()
        .filter(|(p, q)| (p.0 > lat) != (q.0 > lat))
        .map(|(p, q)| (q.1 - p.1) * (lat - p.0) / (q.0 - p.0) + p.1)
        .collect();
    at.sort_by(f64::total_cmp);
    at.chunks_exact(2)
        .max_by(|x, y| (x[1] - x[0]).total_cmp(&(y[1] - y[0])))
        .map(|x| (lat, (x[0] + x[1]) / 2.0))
}

fn area(c: &Cell) -> Option<&Area> {
    match &c.shape {
        Shape::Area(a) => Some(a),
        Shape::Corridor(_) => None,
    }
}

fn corners(a: &Area) -> impl Iterator<Item = Point> + '_ {
    a.polygons().flatten().flatten().copied()
}

/// False when nothing is left.
fn spend(steps: &mut usize, cost: usize) -> bool {
    *steps = steps.saturating_sub(cost);
    *steps > 0
}
