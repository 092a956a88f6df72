//! `GET /api/v1/picture`: the picture as screens know it, or as GeoJSON (RFC 7946) for everybody's map programs.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kerbside_codecs::geo;
use kerbside_codecs::telemetry::Datum;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Room;
use super::api::json_text;
use super::auth::Viewer;
use super::feed::Part;
use super::headers::Problem;

/// Media type of GeoJSON, RFC 7946 §12.
pub(super) const GEOJSON: &str = "application/geo+json";

/// How the answer is written.
#[derive(Deserialize)]
pub(super) struct Form {
    format: Option<String>,
    datum: Option<String>,
}

/// The datum that was asked for; WGS-84 when none was.
///
/// # Errors
/// 400.
pub(super) fn datum(name: Option<&str>) -> Result<Datum, Problem> {
    name.map_or(Some(Datum::Wgs84), Datum::parse)
        .ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "datum must be wgs84, gcj02 or bd09",
            )
        })
}

/// A position as GeoJSON has it, degrees to 1e-7.
pub(super) fn position(datum: Datum, lat: f64, lon: f64) -> [f64; 2] {
    let (lat, lon) = geo::from_wgs84(datum, lat, lon);
    [lon, lat].map(|v| (v * 1e7).round() / 1e7)
}

/// `GET /api/v1/picture`: what a feed begins with; of the same parts.
pub(super) async fn picture(
    State(room): State<Arc<Room>>,
    viewer: Viewer,
    headers: HeaderMap,
    part: Result<Query<Part>, QueryRejection>,
    form: Result<Query<Form>, QueryRejection>,
) -> Result<Response, Problem> {
    let refused = |e: QueryRejection| Problem::new(e.status(), e.body_text());
    let (Query(part), Query(form)) = (part.map_err(refused)?, form.map_err(refused)?);
    let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let is_geojson = match form.format.as_deref() {
        Some("geojson") => true,
        Some("json") => false,
        None => accepted.is_some_and(|a| a.contains(GEOJSON)),
        Some(_) => {
            let text = "format must be json or geojson";
            return Err(Problem::new(StatusCode::BAD_REQUEST, text));
        }
    };
    let datum = datum(form.datum.as_deref())?;
    if !is_geojson && datum != Datum::Wgs84 {
        let text = "another datum than wgs84 is given with format=geojson only";
        return Err(Problem::new(StatusCode::BAD_REQUEST, text));
    }
    let snapshot = room.feed.snapshot(&part.audience(&viewer)?);
    if !is_geojson {
        return Ok(json_text(snapshot));
    }
    // A large picture takes a while.
    let text = tokio::task::spawn_blocking(move || collection(&snapshot, datum))
        .await
        .ok()
        .flatten();
    let text = text.ok_or_else(|| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the picture could not be written",
        )
    })?;
    Ok(([(header::CONTENT_TYPE, GEOJSON)], text).into_response())
}

/// The FeatureCollection of a snapshot: a feature for each device and each event.
fn collection(snapshot: &[u8], datum: Datum) -> Option<String> {
    let mut picture: Value = serde_json::from_slice(snapshot).ok()?;
    let mut features = Vec::new();
    for (list, item) in [("devices", "device"), ("events", "event")] {
        let Some(Value::Array(all)) = picture.get_mut(list).map(Value::take) else {
            continue;
        };
        features.extend(all.into_iter().filter_map(|v| match v {
            Value::Object(v) => Some(feature(v, item, datum)),
            _ => None,
        }));
    }
    let all = json!({
        "type": "FeatureCollection",
        "datum": datum,
        "epoch": picture["epoch"], "seq": picture["seq"], "now_ms": picture["now_ms"],
        "grid_version": picture["grid"],
        "streams": picture["streams"],
        "features": features,
    });
    serde_json::to_string(&all).ok()
}

/// What the picture has of an item, its position as the geometry; null without one.
fn feature(mut item: Map<String, Value>, kind: &str, datum: Datum) -> Value {
    item.remove("trail");
    let mut at = match item.remove("position") {
        Some(Value::Object(at)) => at,
        _ => Map::new(),
    };
    let number = |v: Option<Value>| v.and_then(|v| v.as_f64());
    let geometry = match (number(at.remove("lat")), number(at.remove("lon"))) {
        (Some(lat), Some(lon)) => {
            json!({"type": "Point", "coordinates": position(datum, lat, lon)})
        }
        _ => Value::Null,
    };
    if !at.is_empty() {
        at.insert("datum".into(), datum.name().into());
    }
    // What the device says of its position stands beside what it says of itself; its own names win.
    for (key, value) in at {
        item.entry(key).or_insert(value);
    }
    item.insert("item".into(), kind.into());
    // What is drawn on the map beside the marker keeps to the datum of the map.
    if datum != Datum::Wgs84 {
        for key in ["raw", "footprint"] {
            if let Some(places) = item.get_mut(key) {
                convert(places, datum);
            }
        }
    }
    let id = item
        .get("id")
        .and_then(Value::as_str)
        .map(|id| format!("{kind}:{id}"));
    json!({"type": "Feature", "id": id, "geometry": geometry, "properties": item})
}

/// Pairs of longitude and latitude anywhere in a value become those of another datum.
fn convert(v: &mut Value, datum: Datum) {
    match v {
        Value::Array(pair) if pair.len() == 2 && pair.iter().all(Value::is_number) => {
            if let (Some(lon), Some(lat)) = (pair[0].as_f64(), pair[1].as_f64()) {
                *v = json!(position(datum, lat, lon));
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|v| convert(v, datum)),
        Value::Object(all) => all.values_mut().for_each(|v| convert(v, datum)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_events_are_features_of_the_datum() {
        let snapshot = json!({"type":"snapshot","epoch":"e","seq":7,"now_ms":5,"grid":"g1","streams":[],
            "devices":[
                {"id":"bc-01","kind":"bodycam","cell":"c1","trail":[[1,2]],"position":{"lat":37.69,"lon":112.75,"datum":"wgs84",
                    "accuracy_m":5.0,"age_ms":3,"source_datum":"gcj02","raw":[112.75,37.69]},
                 "footprint":{"polygon":[[112.75,37.69]],"sigma_m":2.0}},
                {"id":"bc-02","position":null}],
            "events":[{"id":"e1","kind":"sos","position":{"lat":37.69,"lon":112.75}}]});
        let of = |datum| -> Value {
            let text = collection(snapshot.to_string().as_bytes(), datum).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let wgs84 = of(Datum::Wgs84);
        assert_eq!(
            (&wgs84["type"], &wgs84["datum"], &wgs84["seq"]),
            (&json!("FeatureCollection"), &json!("wgs84"), &json!(7))
        );
        assert_eq!(
            wgs84["features"][0],
            json!({"type":"Feature","id":"device:bc-01","geometry":{"type":"Point","coordinates":[112.75,37.69]},
                "properties":{"item":"device","id":"bc-01","kind":"bodycam","cell":"c1","datum":"wgs84","accuracy_m":5.0,"age_ms":3,
                    "source_datum":"gcj02","raw":[112.75,37.69],"footprint":{"polygon":[[112.75,37.69]],"sigma_m":2.0}}})
        );
        assert_eq!(wgs84["features"][1]["geometry"], Value::Null);
        assert_eq!(wgs84["features"][2]["id"], "event:e1");
        // device-protocols §6.
        let gcj02 = of(Datum::Gcj02);
        let moved = json!([112.756_491_8, 37.690_680_7]);
        assert_eq!(gcj02["features"][0]["geometry"]["coordinates"], moved);
        assert_eq!(gcj02["features"][0]["properties"]["datum"], "gcj02");
        assert_eq!(gcj02["features"][0]["properties"]["raw"], moved);
        assert_eq!(
            gcj02["features"][0]["properties"]["footprint"]["polygon"][0],
            moved
        );
        assert_eq!(collection(b"no", Datum::Bd09), None);
    }
}
