//! A raster over all shapes: which of them have a position, and which of them may have it.
//!
//! A box that lies wholly inside of a shape needs no look at its border; only boxes that a border goes through do.

use kerbside_codecs::geo::{Bounds, Ring, edges};

use super::shape::Shape;

/// Boxes in each direction at most.
const SIDE_MAX: usize = 512;
/// Boxes of all shapes together at most, whatever is in the file; the raster becomes coarser then.
const ENTRIES_MAX: usize = 2_000_000;
/// Rows that all edges go through, and boxes of all segments, at most, for the same reason.
const STEPS_MAX: usize = 20_000_000;
/// How much wider a border is taken than it is, parts of a box: rounding never loses a box.
const PAD: f64 = 1e-6;

const OUTSIDE: u8 = 0;
const BORDER: u8 = 1;
const INSIDE: u8 = 2;
const WHOLE: u32 = 1 << 31;

/// A shape that has a box of the raster, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate(u32);

impl Candidate {
    pub fn shape(self) -> u32 {
        self.0 & !WHOLE
    }

    /// The whole box is inside: there is nothing to compute.
    pub fn is_sure(self) -> bool {
        self.0 & WHOLE != 0
    }
}

/// Which shapes touch which box. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Index {
    raster: Option<Raster>,
    /// Where the candidates of each box begin; one more than boxes.
    starts: Vec<u32>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Raster {
    bounds: Bounds,
    side: usize,
}

/// Rows and columns, both ends included.
#[derive(Clone, Copy, Debug)]
struct Block {
    south: usize,
    west: usize,
    north: usize,
    east: usize,
}

impl Block {
    fn columns(&self) -> usize {
        self.east - self.west + 1
    }

    fn len(&self) -> usize {
        (self.north - self.south + 1) * self.columns()
    }

    fn at(&self, row: usize, column: usize) -> usize {
        (row - self.south) * self.columns() + column - self.west
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped to the raster"
)]
impl Raster {
    fn row(&self, lat: f64) -> usize {
        self.step(lat, self.bounds.south, self.bounds.north)
    }

    fn column(&self, lon: f64) -> usize {
        self.step(lon, self.bounds.west, self.bounds.east)
    }

    fn step(&self, v: f64, from: f64, to: f64) -> usize {
        (((v - from) / (to - from) * self.side as f64) as usize).min(self.side - 1)
    }

    fn height(&self) -> f64 {
        (self.bounds.north - self.bounds.south) / self.side as f64
    }

    fn width(&self) -> f64 {
        (self.bounds.east - self.bounds.west) / self.side as f64
    }

    fn south_of(&self, row: usize) -> f64 {
        self.bounds.south + row as f64 * self.height()
    }

    fn middle_of(&self, column: usize) -> f64 {
        self.bounds.west + (column as f64 + 0.5) * self.width()
    }

    fn block(&self, b: &Bounds) -> Block {
        let (v, h) = (self.height() * PAD, self.width() * PAD);
        Block {
            south: self.row(b.south - v),
            west: self.column(b.west - h),
            north: self.row(b.north + v),
            east: self.column(b.east + h),
        }
    }

    /// How much work it is to put a shape on the raster.
    fn steps(&self, shape: &Shape) -> usize {
        match shape {
            Shape::Corridor(c) => c
                .segments()
                .map(|s| self.block(&c.bounds_of(s)).len())
                .sum(),
            Shape::Area(a) => a
                .edges()
                .map(|(p, q)| self.row(p.0).abs_diff(self.row(q.0)) + 1)
                .sum(),
        }
    }

    /// What each box of `block` is to a polygon that lies in it.
    fn polygon(&self, rings: &[Ring], block: &Block, into: &mut [u8]) {
        let (v, h) = (self.height() * PAD, self.width() * PAD);
        let mut crossings = vec![Vec::new(); block.north - block.south + 1];
        for (a, b) in rings.iter().flat_map(|r| edges(r)) {
            let (low, high) = if a.0 <= b.0 { (a, b) } else { (b, a) };
            for row in self.row(low.0 - v)..=self.row(high.0 + v) {
                let south = self.south_of(row);
                // Where the edge enters and leaves this row.
                let lon_at = |lat: f64| match high.0 - low.0 {
                    d if d > 0.0 => low.1 + (high.1 - low.1) * ((lat - low.0) / d).clamp(0.0, 1.0),
                    _ => low.1,
                };
                let (mut p, mut q) = (lon_at(south - v), lon_at(south + self.height() + v));
                if high.0 - low.0 <= v {
                    (p, q) = (low.1, high.1);
                }
                let (west, east) = (p.min(q) - h, p.max(q) + h);
                for column in self.column(west)..=self.column(east) {
                    into[block.at(row, column)] = BORDER;
                }
                let middle = south + self.height() / 2.0;
                if (a.0 > middle) != (b.0 > middle) {
                    let lon = (b.1 - a.1) * (middle - a.0) / (b.0 - a.0) + a.1;
                    crossings[row - block.south].push(lon);
                }
            }
        }
        for (row, list) in (block.south..).zip(&mut crossings) {
            list.sort_by(f64::total_cmp);
            for column in block.west..=block.east {
                let place = &mut into[block.at(row, column)];
                let west_of_it = list.partition_point(|lon| *lon <= self.middle_of(column));
                if *place == OUTSIDE && (list.len() - west_of_it) % 2 == 1 {
                    *place = INSIDE;
                }
            }
        }
    }

    /// What each box of `block` is to a shape.
    fn shape(&self, shape: &Shape, block: &Block) -> Vec<u8> {
        let mut boxes = vec![OUTSIDE; block.len()];
        match shape {
            Shape::Corridor(c) => {
                for segment in c.segments() {
                    let own = self.block(&c.bounds_of(segment));
                    for row in own.south..=own.north {
                        for column in own.west..=own.east {
                            boxes[block.at(row, column)] = BORDER;
                        }
                    }
                }
            }
            Shape::Area(area) => {
                let mut of_one = vec![OUTSIDE; block.len()];
                for rings in area.polygons() {
                    of_one.fill(OUTSIDE);
                    self.polygon(rings, block, &mut of_one);
                    for (all, one) in boxes.iter_mut().zip(&of_one) {
                        *all = (*all).max(*one);
                    }
                }
            }
        }
        boxes
    }
}

impl Index {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts below ENTRIES_MAX"
    )]
    pub fn new<'a>(shapes: impl ExactSizeIterator<Item = &'a Shape> + Clone) -> Self {
        if shapes.len() == 0 {
            return Self::default();
        }
        let boxes: Vec<Bounds> = shapes.clone().map(Shape::bounds).collect();
        let mut bounds = Bounds::EMPTY;
        for b in &boxes {
            bounds.extend(b.south, b.west);
            bounds.extend(b.north, b.east);
        }
        let mut side = ((boxes.len() as f64).sqrt().ceil() as usize * 4).clamp(8, SIDE_MAX);
        let mut raster = Raster { bounds, side };
        while side > 1
            && (boxes.iter().map(|b| raster.block(b).len()).sum::<usize>() > ENTRIES_MAX
                || shapes.clone().map(|s| raster.steps(s)).sum::<usize>() > STEPS_MAX)
        {
            side /= 2;
            raster.side = side;
        }
        let mut entries = Vec::new();
        for (i, (shape, b)) in (0_u32..).zip(shapes.zip(&boxes)) {
            let block = raster.block(b);
            let found = raster.shape(shape, &block);
            for row in block.south..=block.north {
                for column in block.west..=block.east {
                    let entry = match found[block.at(row, column)] {
                        OUTSIDE => continue,
                        INSIDE => i | WHOLE,
                        _ => i,
                    };
                    entries.push(((row * side + column) as u32, Candidate(entry)));
                }
            }
        }
        entries.sort_by_key(|(at, _)| *at);
        let mut starts = vec![0; side * side + 1];
        for (at, _) in &entries {
            starts[*at as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        Self {
            raster: Some(raster),
            starts,
            candidates: entries.into_iter().map(|(_, c)| c).collect(),
        }
    }

    /// In the order of the shapes.
    pub fn candidates(&self, lat: f64, lon: f64) -> &[Candidate] {
        match &self.raster {
            Some(r) if r.bounds.contains(lat, lon) => {
                let at = r.row(lat) * r.side + r.column(lon);
                &self.candidates[self.starts[at] as usize..self.starts[at + 1] as usize]
            }
            _ => &[],
        }
    }
}
