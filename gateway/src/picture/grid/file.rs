//! The grid with its text, as screens get it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Grid, GridFault};

const EMPTY: &str = r#"{"type":"FeatureCollection","features":[]}"#;

/// A grid and the file it was read from.
#[derive(Clone, Debug)]
pub struct GridFile {
    pub grid: Arc<Grid>,
    body: Bytes,
}

impl GridFile {
    /// From the text of `grid.geojson`; None: there is none.
    ///
    /// # Errors
    /// All faults of all features.
    pub fn parse(text: Option<&str>) -> Result<Self, Vec<GridFault>> {
        let text = text.unwrap_or(EMPTY);
        let grid = Grid::parse(text)?;
        let version = serde_json::Value::from(grid.version());
        // It was read, so it begins with a brace and has features behind it.
        let rest = text.trim_start().strip_prefix('{').unwrap_or("}");
        let body = format!(r#"{{"grid_version":{version},"datum":"wgs84",{rest}"#);
        Ok(Self {
            grid: Arc::new(grid),
            body: body.into(),
        })
    }

    /// The file as GeoJSON, with `grid_version` and `datum`.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The entity tag of [`Self::body`], quotes included.
    pub fn etag(&self) -> String {
        let plain: String = self
            .grid
            .version()
            .chars()
            .map(|c| {
                if c.is_ascii_graphic() && c != '"' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        format!("\"{plain}\"")
    }
}
