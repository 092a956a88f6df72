//! What a screen may ask for: the tags of an item, the filter over them, and who may see what is restricted.

use std::borrow::Cow;
use std::sync::Arc;

use kerbside_codecs::geo::{Bounds, valid};

/// Values of one parameter at most.
const VALUES_MAX: usize = 64;

/// What items are chosen by. Without a position: `at` None, no cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tags {
    pub kind: Cow<'static, str>,
    pub agency: Option<Arc<str>>,
    /// The cell and all that it lies in.
    pub cells: Arc<[Arc<str>]>,
    /// `(lat, lon)`, degrees.
    pub at: Option<(f64, f64)>,
    pub restricted: bool,
}

/// Which devices and events a screen wants. Streams are not filtered: they have no place of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    cells: Vec<String>,
    agencies: Vec<String>,
    kinds: Vec<String>,
    area: Option<Bounds>,
}

/// The parameters `cell`, `agency`, `kind` (each one value, or several with commas) and `bbox` (west,south,east,north)
/// of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    pub cell: Option<&'a str>,
    pub agency: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub bbox: Option<&'a str>,
}

impl Filter {
    /// None: everything is wanted.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(wanted: Wanted<'_>) -> Result<Option<Self>, String> {
        let me = Self {
            cells: values("cell", wanted.cell)?,
            agencies: values("agency", wanted.agency)?,
            kinds: values("kind", wanted.kind)?,
            area: wanted.bbox.map(bounds).transpose()?,
        };
        Ok(Some(me).filter(|f| *f != Self::default()))
    }

    /// All that is asked for must hold.
    pub fn matches(&self, tags: &Tags) -> bool {
        let within = |all: &[String], one: Option<&str>| {
            all.is_empty() || one.is_some_and(|o| all.iter().any(|a| a == o))
        };
        within(&self.kinds, Some(&tags.kind))
            && within(&self.agencies, tags.agency.as_deref())
            && (self.cells.is_empty()
                || tags
                    .cells
                    .iter()
                    .any(|c| self.cells.iter().any(|w| w == &**c)))
            && self
                .area
                .is_none_or(|b| tags.at.is_some_and(|(lat, lon)| b.contains(lat, lon)))
    }
}

fn values(key: &str, text: Option<&str>) -> Result<Vec<String>, String> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let all: Vec<String> = text.split(',').map(|v| v.trim().to_owned()).collect();
    if all.len() > VALUES_MAX || all.iter().any(String::is_empty) {
        return Err(format!(
            "{key} must be 1 to {VALUES_MAX} values with commas between, none of them empty"
        ));
    }
    Ok(all)
}

fn bounds(text: &str) -> Result<Bounds, String> {
    let numbers: Vec<f64> = text
        .split(',')
        .map_while(|n| n.trim().parse().ok())
        .collect();
    match numbers[..] {
        [west, south, east, north]
            if text.split(',').count() == 4
                && valid(south, west)
                && valid(north, east)
                && west <= east
                && south <= north =>
        {
            Ok(Bounds {
                south,
                west,
                north,
                east,
            })
        }
        _ => Err(
            "bbox must be west,south,east,north in degrees, west <= east and south <= north".into(),
        ),
    }
}

/// Who reads.
#[derive(Clone, Debug, Default)]
pub struct Audience {
    pub sees_restricted: bool,
    pub filter: Option<Filter>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(cell: &str, agency: &str, kind: &str, bbox: &str) -> Result<Option<Filter>, String> {
        fn given(s: &str) -> Option<&str> {
            Some(s).filter(|s| !s.is_empty())
        }
        Filter::parse(Wanted {
            cell: given(cell),
            agency: given(agency),
            kind: given(kind),
            bbox: given(bbox),
        })
    }

    #[test]
    fn each_part_must_hold() {
        let tags = Tags {
            kind: "bodycam".into(),
            agency: Some("traffic".into()),
            cells: ["s1", "c2", "g3"].map(Arc::from).into(),
            at: Some((37.69, 112.75)),
            restricted: false,
        };
        for (cell, agency, kind, bbox, is_in) in [
            ("c2", "", "", "", true),
            ("c9, g3", "", "", "", true),
            ("c9", "", "", "", false),
            ("", "traffic", "drone,bodycam", "", true),
            ("", "police", "", "", false),
            ("", "", "drone", "", false),
            ("", "", "", "112,37,113,38", true),
            ("", "", "", "112,37,112.7,38", false),
            ("c2", "traffic", "bodycam", "112,37,113,38", true),
            ("c2", "traffic", "drone", "112,37,113,38", false),
        ] {
            let filter = wanted(cell, agency, kind, bbox).unwrap().unwrap();
            assert_eq!(
                filter.matches(&tags),
                is_in,
                "{cell} {agency} {kind} {bbox}"
            );
        }
        let nowhere = Tags::default();
        assert!(!wanted("c2", "", "", "").unwrap().unwrap().matches(&nowhere));
        let world = wanted("", "", "", "-180,-90,180,90").unwrap().unwrap();
        assert!(!world.matches(&nowhere), "no position is in no box");
        assert_eq!(wanted("", "", "", ""), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (cell, bbox) in [
            ("a,,b", ""),
            (",", ""),
            ("", "1,2,3"),
            ("", "1,2,3,4,5"),
            ("", "west,2,3,4"),
            ("", "3,2,1,4"),
            ("", "1,4,3,2"),
            ("", "1,2,3,NaN"),
            ("", "1,2,3,91"),
        ] {
            assert!(wanted(cell, "", "", bbox).is_err(), "{cell} {bbox}");
        }
        assert!(wanted(&"a,".repeat(64), "", "", "").is_err());
    }
}
