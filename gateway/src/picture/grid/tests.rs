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
    let p = grid.locate(37.45, 112.45);
    assert_eq!(grid.cell(p.cell.unwrap()).unwrap().id, "block");
    assert_eq!(p.zones, [0, 1]);
    assert_eq!(grid.locate(37.2, 112.2).cell, Some(0));
    assert_eq!(grid.locate(0.0, 0.0), Place::default());
    assert_eq!(
        grid.zones_of("bc-01", Some("patrol-1")).collect::<Vec<_>>(),
        [0]
    );
    assert_eq!(grid.zones_of("uav-1", None).collect::<Vec<_>>(), [1]);
    assert_eq!(Grid::default().locate(37.0, 112.0), Place::default());
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
        let all = (0..100).find(|&i| grid.cell(i).is_some_and(|c| c.area.contains(lat, lon)));
        prop_assert_eq!(grid.locate(lat, lon).cell, all);
    }
}
