//! Does a ring cross itself? Rings come from files, so the work is bounded.

use kerbside_codecs::geo::{Point, Ring, edges};

/// Pairs of edges that are looked at in one file; then the rest is taken as it is.
pub const PAIRS_MAX: usize = 50_000_000;

/// Where two edges of the ring cross, if they do. Edges that only touch do not. `budget`: pairs of edges left to look at;
/// when it is used up, None.
pub fn crossing(ring: &Ring, budget: &mut usize) -> Option<Point> {
    let mut all: Vec<(Point, Point)> = edges(ring).collect();
    let south = |e: &(Point, Point)| e.0.0.min(e.1.0);
    let north = |e: &(Point, Point)| e.0.0.max(e.1.0);
    all.sort_by(|a, b| south(a).total_cmp(&south(b)));
    for (i, a) in all.iter().enumerate() {
        let top = north(a);
        for b in all[i + 1..].iter().take_while(|b| south(b) < top) {
            *budget = budget.checked_sub(1)?;
            if cross(*a, *b) {
                return Some(a.0);
            }
        }
    }
    None
}

fn cross((a, b): (Point, Point), (c, d): (Point, Point)) -> bool {
    let side = |p: Point, q: Point, r: Point| (q.1 - p.1) * (r.0 - p.0) - (q.0 - p.0) * (r.1 - p.1);
    side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bow_tie_crosses_itself_and_a_comb_does_not() {
        let bow = vec![(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)];
        assert!(crossing(&bow, &mut 100).is_some());
        assert_eq!(crossing(&bow, &mut 0), None, "the budget is used up");
        let mut comb: Ring = (0..2000_i32)
            .map(|i| (f64::from(i % 2 + 1), f64::from(i)))
            .collect();
        comb.extend([(0.0, 1999.0), (0.0, 0.0)]);
        assert_eq!(crossing(&comb, &mut PAIRS_MAX.clone()), None);
        // Two squares that share a corner.
        let touching = vec![
            (0.0, 0.0),
            (1.0, 0.0),
            (1.0, 1.0),
            (2.0, 1.0),
            (2.0, 2.0),
            (1.0, 2.0),
            (1.0, 1.0),
            (0.0, 1.0),
        ];
        assert_eq!(crossing(&touching, &mut 100), None);
    }
}
