use proptest::prelude::*;
use serde_json::json;

use super::*;

fn square(properties: &Value, lon: f64, lat: f64, side: f64) -> Value {
    json!({"type":"Feature","properties":properties,"geometry":{"type":"Polygon","coordinates":[[
        [lon,lat],[lon+side,lat],[lon+side,lat+side],[lon,lat+side],[lon,lat]]]}})
}

fn collection(features: &[Value]) -> String {
    json!({"type":"FeatureCollection","features":features}).to_string()
}

fn cell(id: &str, lon: f64, lat: f64, side: f64) -> Value {
    square(
        &json!({"type":"cell","id":id,"name":id,"level":1}),
        lon,
        lat,
        side,
    )
}

#[test]
fn the_finest_cell_and_all_zones() {
    let grid = Grid::parse(&collection(&[
        cell("district", 112.0, 37.0, 1.0),
        cell("block", 112.4, 37.4, 0.1),
        square(
            &json!({"type":"zone","id":"beat-3","units":["patrol-1"]}),
            112.4,
            37.4,
            0.2,
        ),
        square(
            &json!({"type":"zone","id":"quiet","devices":["uav-1"]}),
            112.0,
            37.0,
            1.0,
        ),
    ]))
    .unwrap();
    let p = grid.locate(37.45, 112.45, 0);
    assert_eq!(grid.cell(p.cell.unwrap()).unwrap().id, "block");
    assert_eq!(p.zones, [0, 1]);
    assert_eq!(grid.locate(37.2, 112.2, 0).cell, Some(0));
    assert_eq!(grid.locate(0.0, 0.0, 0), Place::default());
    assert_eq!(
        grid.zones_of("bc-01", Some("patrol-1"), None)
            .collect::<Vec<_>>(),
        [0]
    );
    assert_eq!(grid.zones_of("uav-1", None, None).collect::<Vec<_>>(), [1]);
    assert_eq!(Grid::default().locate(37.0, 112.0, 0), Place::default());
}

#[test]
fn every_fault_is_told_with_its_reason() {
    let open = json!({"type":"Feature","properties":{"type":"cell","id":"open"},"geometry":{"type":"Polygon",
        "coordinates":[[[1,1],[2,1],[2,2],[1,2]]]}});
    let faults = Grid::parse(&collection(&[
        cell("a", 112.0, 37.0, 1.0),
        cell("a", 112.0, 37.0, 1.0),
        square(&json!({"type":"cell","id":"swapped"}), 37.0, 112.0, 1.0),
        square(&json!({"type":"lake","id":"x"}), 1.0, 1.0, 1.0),
        square(&json!({"type":"cell"}), 1.0, 1.0, 1.0),
        open,
        square(&json!({"type":"zone","id":"z","units":"patrol-1"}), 1.0, 1.0, 1.0),
        json!({"type":"Feature","properties":{"type":"cell","id":"p"},"geometry":{"type":"Point","coordinates":[1,1]}}),
        square(&json!({"type":"cell","id":"flat"}), 1.0, 1.0, 0.0),
    ]))
    .unwrap_err();
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 8, "{told:#?}");
    assert!(told[0].starts_with("feature 2 (\"a\"): this id was used before"));
    assert!(told[1].contains("longitude first"));
    assert!(told[2].contains("\"cell\" or \"zone\""));
    assert!(told[3].contains("properties.id is missing"));
    assert!(told[4].contains("at least 4 positions"));
    assert!(told[5].contains("list of texts"));
    assert!(told[6].contains("Polygon or MultiPolygon"));
    assert!(told[7].contains("empty"));
    for text in ["", "{}", "[]", r#"{"type":"FeatureCollection"}"#] {
        assert_eq!(Grid::parse(text).unwrap_err().len(), 1);
    }
}

proptest! {
    #[test]
    fn the_index_finds_what_a_search_of_all_finds(lat in -0.1..1.1_f64, lon in -0.1..1.1_f64) {
        let cells: Vec<_> = (0..100)
            .map(|i| cell(&i.to_string(), f64::from(i % 10) * 0.1, f64::from(i / 10) * 0.1, 0.1))
            .collect();
        let grid = Grid::parse(&collection(&cells)).unwrap();
        let all = (0..100).find(|&i| grid.cell(i).is_some_and(|c| c.shape.contains(lat, lon)));
        prop_assert_eq!(grid.locate(lat, lon, 0).cell, all);
    }
}

fn child(kind: &str, id: &str, parent: Option<&str>, at: (f64, f64), side: f64) -> Value {
    let mut p = json!({"type":kind,"id":id,"tasks":{"chengguan":["stalls"]},"owner":"p-7"});
    if let Some(parent) = parent {
        p["parent"] = parent.into();
    }
    square(&p, at.0, at.1, side)
}

#[test]
fn a_tree_gives_the_path_of_a_position() {
    let grid = Grid::parse(&collection(&[
        child("street", "s", None, (112.0, 37.0), 0.1),
        child("grid", "g", Some("c"), (112.0, 37.0), 0.02),
        child("community", "c", Some("s"), (112.0, 37.0), 0.05),
        child("grid", "g2", Some("s"), (112.05, 37.05), 0.05),
    ]))
    .unwrap();
    let path = |lat, lon| grid.path(grid.locate(lat, lon, 0).cell).to_vec();
    assert_eq!(path(37.01, 112.01), ["s", "c", "g"].map(Arc::from));
    assert_eq!(path(37.03, 112.03), ["s", "c"].map(Arc::from));
    assert_eq!(path(37.06, 112.06), ["s", "g2"].map(Arc::from));
    assert_eq!(path(36.9, 112.06), []);
    assert_eq!(grid.warnings(), []);
    assert_eq!(grid.cell(1).unwrap().level, Level::Grid);
    // A street of one community, which has one grid; in any order.
    let grid = Grid::parse(&collection(&[
        child("grid", "g", Some("c"), (112.0, 37.0), 0.1),
        child("street", "s", None, (112.0, 37.0), 0.1),
        child("community", "c", Some("s"), (112.0, 37.0), 0.1),
    ]));
    let grid = grid.unwrap();
    assert_eq!(grid.locate(37.05, 112.05, 0).cell, Some(0));
}

#[test]
fn a_tree_that_is_none_is_told() {
    let faults = Grid::parse(&collection(&[
        child("street", "s", Some("nowhere"), (112.0, 37.0), 0.1),
        child("community", "c", Some("g"), (112.0, 37.0), 0.05),
        child("grid", "g", Some("s"), (112.0, 37.0), 0.02),
        child("cell", "a", Some("b"), (112.0, 37.0), 0.02),
        child("cell", "b", Some("a"), (112.0, 37.0), 0.02),
        child("cell", "under", Some("a"), (112.0, 37.0), 0.01),
        child("street", "s2", Some("s"), (112.0, 37.0), 0.02),
    ]))
    .unwrap_err();
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(told[0].contains("\"nowhere\" is not in the file"));
    assert!(told[1].contains("a grid cannot be the parent of a community"));
    assert!(told[2].starts_with("feature 4") && told[2].contains("circle"));
    assert!(told[3].starts_with("feature 5"));
    assert!(told[4].contains("a street cannot be the parent of a street"));
    let faults = Grid::parse(&collection(&[
        child("street", "s", None, (112.0, 37.0), 0.1),
        child("community", "away", Some("s"), (112.2, 37.0), 0.01),
    ]))
    .unwrap_err();
    let told = faults[0].to_string();
    assert!(
        told.contains("lies outside of its parent \"s\", 97"),
        "{told}"
    );
}

#[test]
fn doubtful_drawings_are_warned_of() {
    let grid = Grid::parse(&collection(&[
        child("street", "s", None, (112.0, 37.0), 0.1),
        child("community", "out", Some("s"), (112.05, 37.05), 0.051),
        child("community", "a", Some("s"), (112.0, 37.0), 0.04),
        child("community", "b", Some("s"), (112.03, 37.03), 0.02),
        child("community", "twin", Some("s"), (112.03, 37.03), 0.02),
    ]))
    .unwrap();
    let told: Vec<_> = grid.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].starts_with("feature 2 (\"out\"): reaches 142 m out of its parent \"s\""),
        "{told:?}"
    );
    assert!(
        told[1].contains("\"b\"; pairs of siblings that overlap: 3"),
        "{told:?}"
    );
}

#[test]
fn zones_have_kinds_times_and_agencies_and_may_be_corridors() {
    let mut lane = square(
        &json!({"type":"zone","id":"lane","width_m":20.0,"agencies":["jiaojing"]}),
        0.0,
        0.0,
        1.0,
    );
    lane["geometry"] = json!({"type":"LineString","coordinates":[[112.0,37.0],[112.01,37.0]]});
    let closed = json!({"type":"zone","id":"closed","kind":"temporary",
        "from":"2026-11-21T08:00:00+08:00","until":"2026-11-21T20:00:00+08:00"});
    let grid = Grid::parse(&collection(&[
        lane.clone(),
        square(&closed, 112.0, 36.9, 0.2),
    ]))
    .unwrap();
    assert_eq!(
        grid.zones_of("x", None, Some("jiaojing"))
            .collect::<Vec<_>>(),
        [0]
    );
    assert_eq!(grid.zone(1).unwrap().kind.as_deref(), Some("temporary"));
    let noon = rfc3339_ms("2026-11-21T12:00:00+08:00").unwrap();
    assert_eq!(grid.locate(37.00008, 112.005, noon).zones, [0, 1]);
    assert_eq!(grid.locate(37.0001, 112.005, noon).zones, [1]);
    assert_eq!(grid.locate(37.00008, 112.005, noon + 86_400_000).zones, [0]);
    assert_eq!(
        (grid.timed_now(noon), grid.timed_now(0)),
        (vec![true], vec![false])
    );
    for (properties, told) in [
        (json!({"type":"zone","id":"z"}), "width_m"),
        (json!({"type":"zone","id":"z","width_m":0.0}), "width_m"),
        (
            json!({"type":"zone","id":"z","width_m":20,"hours":"x"}),
            "hours",
        ),
        (json!({"type":"cell","id":"z"}), "Polygon"),
    ] {
        lane["properties"] = properties;
        let faults = Grid::parse(&collection(&[lane.clone()])).unwrap_err();
        assert!(faults[0].reason.contains(told), "{faults:?}");
    }
}

#[test]
fn a_version_is_the_files_own_and_a_hash() {
    let text = |version: Value| {
        json!({"type":"FeatureCollection","version":version,"features":[]}).to_string()
    };
    let version = |v| Grid::parse(&text(v)).unwrap().version().to_owned();
    assert!(version(json!("2026-11")).starts_with("2026-11+"));
    assert_eq!(version(Value::Null).len(), 12);
    assert_ne!(version(json!(1)), version(json!(2)));
    assert!(Grid::parse(&text(json!([]))).is_err());
}

#[test]
fn a_ring_that_crosses_itself_is_a_fault() {
    let mut bow = cell("bow", 112.0, 37.0, 0.1);
    bow["geometry"]["coordinates"] = json!([[
        [112.0, 37.0],
        [112.1, 37.1],
        [112.1, 37.0],
        [112.0, 37.1],
        [112.0, 37.0]
    ]]);
    let faults = Grid::parse(&collection(&[bow])).unwrap_err();
    assert!(faults[0].reason.contains("crosses itself"), "{faults:?}");
}

/// A star around a middle: a simple ring of any shape.
fn star(middle: (f64, f64), radii: &[f64]) -> Vec<Vec<f64>> {
    let n = radii.len() as f64;
    let corner = |(i, r): (usize, &f64)| {
        let angle = i as f64 / n * std::f64::consts::TAU;
        vec![middle.1 + r * angle.cos(), middle.0 + r * angle.sin()]
    };
    let mut ring: Vec<_> = radii.iter().enumerate().map(corner).collect();
    ring.push(ring[0].clone());
    ring
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_raster_says_what_the_borders_say(
        shapes in prop::collection::vec(((36.9..37.1_f64, 111.9..112.1_f64), prop::collection::vec(0.001..0.06_f64, 3..30)), 1..12),
        at in prop::collection::vec((36.8..37.2_f64, 111.8..112.2_f64), 50),
    ) {
        let features: Vec<_> = shapes.iter().enumerate().map(|(i, (middle, radii))| {
            let rings: Vec<_> = vec![star(*middle, radii), star(*middle, &radii.iter().map(|r| r / 3.0).collect::<Vec<_>>())];
            json!({"type":"Feature","properties":{"type":"zone","id":i.to_string()},
                "geometry":{"type":"MultiPolygon","coordinates":[rings, [star((middle.0 + 0.02, middle.1), &[0.02, 0.03, 0.01])]]}})
        }).collect();
        let grid = Grid::parse(&collection(&features)).unwrap();
        for (lat, lon) in at {
            let all: Vec<u16> = (0..).zip(&grid.zones).filter(|(_, z)| z.shape.contains(lat, lon)).map(|(i, _)| i).collect();
            prop_assert_eq!(grid.locate(lat, lon, 0).zones, all);
        }
    }

    #[test]
    fn any_text_is_harmless(text in "[\\[\\]{}\",:a0-9.\n-]{0,60}") {
        prop_assert!(Grid::parse(&text).is_err());
    }
}
